// Kernels for the emulator's own tests: conversions, rounding, warp operations, one value per thread.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void widen(const __half *half, const __nv_bfloat16 *bfloat, float *from_half, float *from_bfloat) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    from_half[i] = __half2float(half[i]);
    from_bfloat[i] = __bfloat162float(bfloat[i]);
}

extern "C" __global__ void narrow(const float *x, __half *half, __nv_bfloat16 *bfloat) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    half[i] = __float2half_rn(x[i]);
    bfloat[i] = __float2bfloat16_rn(x[i]);
}

// Ten results per pair: sums, products, quotients and roots down and up, and a double narrowed down and up.
extern "C" __global__ void rounded(const float *a, const float *b, float *out) {
    int i = threadIdx.x;
    float x = a[i], y = b[i];
    out += 10 * i;
    out[0] = __fadd_rd(x, y);
    out[1] = __fadd_ru(x, y);
    out[2] = __fmul_rd(x, y);
    out[3] = __fmul_ru(x, y);
    out[4] = __fdiv_rd(x, y);
    out[5] = __fdiv_ru(x, y);
    out[6] = __fsqrt_rd(x);
    out[7] = __fsqrt_ru(x);
    double wide = __dadd_rn((double)x, __dmul_rn((double)y, 0x1p-40));
    out[8] = __double2float_rd(wide);
    out[9] = __double2float_ru(wide);
}

// Twelve results per lane of one warp.
extern "C" __global__ void warp_operations(const int *x, int *out) {
    const unsigned all = 0xffffffffu;
    int lane = threadIdx.x, value = x[lane];
    out += 12 * lane;
    out[0] = __shfl_sync(all, value, lane + 3);
    out[1] = __shfl_up_sync(all, value, 3);
    out[2] = __shfl_down_sync(all, value, 3, 8);
    out[3] = __shfl_xor_sync(all, value, 5);
    out[4] = (int)__ballot_sync(all, value > 0);
    out[5] = __any_sync(all, value == x[7]);
    out[6] = __all_sync(all, value != 0);
    out[7] = __reduce_add_sync(all, value);
    out[8] = __reduce_min_sync(all, value);
    out[9] = (int)__reduce_max_sync(all, (unsigned)value);
    out[10] = (int)__match_any_sync(all, value & 3);
    long long wide = __shfl_sync(all, (long long)value << 33, 9);
    out[11] = (int)(wide >> 33);
}

extern "C" __global__ void bits_of_two(const unsigned *a, const unsigned *b, const unsigned *by, unsigned *out) {
    unsigned i = threadIdx.x;
    out[2 * i] = __byte_perm(a[i], b[i], by[i]);
    out[2 * i + 1] = __funnelshift_l(a[i], b[i], by[i]);
}
