// Where in its row the first value is that is not finite, of a row whose parts were looked at one by one.
//
//     key of (row i, column t) with the least t where x[i][t] is not finite, in place of one with a column within a part
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart, d up to 2^26.
// Outputs status: the lowest value that is not finite, as rows.cu and label_parts.cu leave it for parts of these rows, the
//         first of which is row first_row of the call. If it names one of these rows, and that row holds such a value, it
//         becomes the first one there; else it stays, for then it is of an earlier call. Allocated by the caller.
// Numbers Bits alone are looked at.
// Launch  one block of 32 threads, no dynamic shared memory.
// Idea    Kernels of parts know nothing of the other parts, and need not: of all rows one is asked for, here.
// Source  ours.
// Measured not yet on a GPU.
#include "common.cuh"

template <class T>
static __device__ __forceinline__ void place(const T* x, u64 stride, u64* status, u64 first_row, u32 n, u32 d) {
    // bad_value_key; above all rows where nothing is bad.
    const u64 row = status[STATUS_BAD_VALUE] >> 28;
    if (row < first_row || row - first_row >= n) return;
    const T* z = x + (row - first_row) * stride;
    u64 first = ~(u64)0;
    for (u32 t = threadIdx.x; t < d; t += WARP) {
        const u32 bits = __float_as_uint(to_f32(z[t]));
        if ((bits & MAGNITUDE_BITS) < INFINITE_BITS) continue;
        first = bad_value_key(row, t, bits);
        break;
    }
    first = warp_min(first);
    if (threadIdx.x == 0 && first != ~(u64)0) status[STATUS_BAD_VALUE] = first;
}

extern "C" __global__ void __launch_bounds__(WARP)
    first_bad_f32(const float* __restrict__ x, u64 stride, u64* __restrict__ status, u64 first_row, u32 n, u32 d) {
    place(x, stride, status, first_row, n, d);
}

extern "C" __global__ void __launch_bounds__(WARP)
    first_bad_f16(const F16* __restrict__ x, u64 stride, u64* __restrict__ status, u64 first_row, u32 n, u32 d) {
    place(x, stride, status, first_row, n, d);
}

extern "C" __global__ void __launch_bounds__(WARP)
    first_bad_bf16(const Bf16* __restrict__ x, u64 stride, u64* __restrict__ status, u64 first_row, u32 n, u32 d) {
    place(x, stride, status, first_row, n, d);
}
