// Kernels for the emulator's own tests of kernels/ptx.cuh.
#include "ptx.cuh"

// One product per block, a warp each: registers as they are, lane by lane.
extern "C" __global__ void multiply_f16(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[4] = {a[4 * at], a[4 * at + 1], a[4 * at + 2], a[4 * at + 3]}, y[2] = {b[2 * at], b[2 * at + 1]};
    float sum[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]};
    mma_m16n8k16_f16(sum, x, y);
    for (int i = 0; i < 4; i++) d[4 * at + i] = sum[i];
}

// The first eight steps of depth of the same registers.
extern "C" __global__ void multiply_eights_f16(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[2] = {a[4 * at], a[4 * at + 1]};
    float sum[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]};
    mma_m16n8k8_f16(sum, x, b[2 * at]);
    for (int i = 0; i < 4; i++) d[4 * at + i] = sum[i];
}

// As multiply_f16, with the accumulator in registers of its own, which stay as they are.
extern "C" __global__ void multiply_beside_f16(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[4] = {a[4 * at], a[4 * at + 1], a[4 * at + 2], a[4 * at + 3]}, y[2] = {b[2 * at], b[2 * at + 1]};
    float start[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]}, sum[4];
    mma_m16n8k16_f16(sum, x, y, start);
    for (int i = 0; i < 4; i++) d[4 * at + i] = start[i] == d[4 * at + i] ? sum[i] : 0.0f;
}

extern "C" __global__ void multiply_bf16(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[4] = {a[4 * at], a[4 * at + 1], a[4 * at + 2], a[4 * at + 3]}, y[2] = {b[2 * at], b[2 * at + 1]};
    float sum[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]};
    mma_m16n8k16_bf16(sum, x, y);
    for (int i = 0; i < 4; i++) d[4 * at + i] = sum[i];
}

extern "C" __global__ void multiply_tf32(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[4] = {a[4 * at], a[4 * at + 1], a[4 * at + 2], a[4 * at + 3]}, y[2] = {b[2 * at], b[2 * at + 1]};
    float sum[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]};
    mma_m16n8k8_tf32(sum, x, y);
    for (int i = 0; i < 4; i++) d[4 * at + i] = sum[i];
}

// The mistake that looks right on symmetric data: rows and columns of A's registers the other way round.
extern "C" __global__ void multiply_f16_in_the_wrong_order(const u32 *a, const u32 *b, float *d) {
    u64 at = (u64)blockIdx.x * 32 + threadIdx.x;
    u32 x[4] = {a[4 * at], a[4 * at + 2], a[4 * at + 1], a[4 * at + 3]}, y[2] = {b[2 * at], b[2 * at + 1]};
    float sum[4] = {d[4 * at], d[4 * at + 1], d[4 * at + 2], d[4 * at + 3]};
    mma_m16n8k16_f16(sum, x, y);
    for (int i = 0; i < 4; i++) d[4 * at + i] = sum[i];
}

// a [16, depth], b [8, depth], d [16, 8]; depth a multiple of 16. Fragments by ldmatrix from shared memory.
extern "C" __global__ void product_f16(const u16 *a, const u16 *b, float *d, u32 depth) {
    __shared__ __align__(16) u16 tile[24][16];
    u32 lane = threadIdx.x;
    float sum[4] = {0, 0, 0, 0};
    for (u32 t = 0; t < depth; t += 16) {
        for (u32 i = lane; i < 24 * 16; i += 32) tile[i / 16][i % 16] = i / 16 < 16 ? a[(u64)(i / 16) * depth + t + i % 16] : b[(u64)(i / 16 - 16) * depth + t + i % 16];
        __syncwarp();
        u32 x[4], y[4];
        ldmatrix_x4(x, shared_at(&tile[lane % 16][lane / 16 * 8]));
        ldmatrix_x4(y, shared_at(&tile[16 + lane % 8][lane / 8 % 2 * 8]));
        u32 z[2] = {y[0], y[1]};
        mma_m16n8k16_f16(sum, x, z);
        __syncwarp();
    }
    for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = sum[i];
}

// Row i of the 32 rows of 8 elements lies at place (7 i + 3) % 32.
extern "C" __global__ void load_matrices(const u16 *values, u32 *out, u32 *out_trans, u32 *out_two) {
    __shared__ __align__(16) u16 rows[32][8];
    u32 lane = threadIdx.x, place = (7 * lane + 3) % 32;
    for (u32 t = 0; t < 8; t++) rows[place][t] = values[8 * lane + t];
    __syncwarp();
    u32 to[4];
    ldmatrix_x4(to, shared_at(rows[place]));
    for (u32 m = 0; m < 4; m++) out[4 * lane + m] = to[m];
    ldmatrix_x4_trans(to, shared_at(rows[place]));
    for (u32 m = 0; m < 4; m++) out_trans[4 * lane + m] = to[m];
    u32 two[2];
    ldmatrix_x2(two, shared_at(rows[place]) + (lane < 16 ? 0 : 4096));  // Beyond all: what these name does not matter.
    for (u32 m = 0; m < 2; m++) out_two[2 * lane + m] = two[m];
}

// 64 threads, each a copy of 16 bytes per stage, two stages ahead; of the last value of each copy `bytes` are read.
extern "C" __global__ void copy_in_stages(const float *x, float *out, u32 stages, u32 bytes) {
    __shared__ __align__(16) float buffer[3][256];
    u32 i = threadIdx.x;
    for (u32 s = 0; s < 2; s++) {
        if (s < stages) cp_async_16(shared_at(&buffer[s][4 * i]), x + 256 * s + 4 * i, bytes);
        cp_async_commit();
    }
    for (u32 s = 0; s < stages; s++) {
        cp_async_wait<1>();
        __syncthreads();
        if (s + 2 < stages) cp_async_16(shared_at(&buffer[(s + 2) % 3][4 * i]), x + 256 * (s + 2) + 4 * i, bytes);
        cp_async_commit();
        for (u32 t = 0; t < 4; t++) out[256 * s + i + 64 * t] = buffer[s % 3][255 - i - 64 * t];
    }
}

// Each takes 256 floats and writes as many.
extern "C" __global__ void forgets_to_wait(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 4 * threadIdx.x, 16);
    cp_async_commit();
    __syncthreads();
    out[threadIdx.x] = buffer[threadIdx.x];
    cp_async_wait<0>();
}

extern "C" __global__ void waits_for_too_few(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 4 * threadIdx.x, 16);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    out[threadIdx.x] = buffer[threadIdx.x];
}

extern "C" __global__ void forgets_to_commit(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 4 * threadIdx.x, 16);
    cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = buffer[threadIdx.x];
}

extern "C" __global__ void waits_without_a_barrier(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 4 * threadIdx.x, 16);
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = buffer[threadIdx.x];
}

extern "C" __global__ void copies_over_what_is_read(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    buffer[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = buffer[63 - threadIdx.x];
    cp_async_16(shared_at(&buffer[threadIdx.x % 16 * 4]), x, 16);
    cp_async_commit();
    cp_async_wait<0>();
}

extern "C" __global__ void copies_to_an_odd_place(const float *x, float *out) {
    __shared__ __align__(16) float buffer[260];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x + 1]), x + 4 * threadIdx.x, 16);
    out[threadIdx.x] = 0;
}

extern "C" __global__ void copies_from_an_odd_place(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 2, 16);
    out[threadIdx.x] = 0;
}

extern "C" __global__ void copies_from_beyond(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    cp_async_16(shared_at(&buffer[4 * threadIdx.x]), x + 4 * threadIdx.x + 4, 16);
    out[threadIdx.x] = 0;
}

extern "C" __global__ void copies_to_beyond(const float *x, float *out) {
    extern __shared__ __align__(16) float dynamic[];
    cp_async_16(shared_at(&dynamic[4 * threadIdx.x + 4]), x + 4 * threadIdx.x, 16);
    out[threadIdx.x] = 0;
}

extern "C" __global__ void loads_a_matrix_at_an_odd_place(const float *x, float *out) {
    __shared__ __align__(16) float buffer[320];
    buffer[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    u32 to[4];
    ldmatrix_x4(to, shared_at(&buffer[4 * threadIdx.x % 32 + 2]));
    out[threadIdx.x] = __uint_as_float(to[0]);
}

extern "C" __global__ void loads_a_matrix_from_device_memory(const float *x, float *out) {
    u32 to[4];
    ldmatrix_x4(to, shared_at(const_cast<float*>(x)));
    out[threadIdx.x] = __uint_as_float(to[0]);
}

extern "C" __global__ void loads_a_matrix_beyond_shared_memory(const float *x, float *out) {
    extern __shared__ __align__(16) float rows[];
    for (u32 i = threadIdx.x; i < 256; i += 64) rows[i] = x[i];
    __syncthreads();
    u32 to[4];
    ldmatrix_x4(to, shared_at(&rows[4 * threadIdx.x + 4]));
    out[threadIdx.x] = __uint_as_float(to[0]);
}

extern "C" __global__ void loads_a_matrix_too_early(const float *x, float *out) {
    __shared__ __align__(16) float buffer[256];
    for (u32 i = 0; i < 4; i++) buffer[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
    u32 to[4];
    ldmatrix_x4(to, shared_at(&buffer[4 * (63 - threadIdx.x)]));
    out[threadIdx.x] = __uint_as_float(to[0]);
}

extern "C" __global__ void multiplies_with_half_a_warp(const float *x, float *out) {
    u32 a[4] = {}, b[2] = {};
    float d[4] = {x[0], x[1], x[2], x[3]};
    if (threadIdx.x % 32 < 16) mma_m16n8k16_f16(d, a, b);
    __syncthreads();
    out[threadIdx.x] = d[0];
}
