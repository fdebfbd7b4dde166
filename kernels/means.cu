// Means of sums that accumulate.cu added up, to the last bit those of the CPU.
//
//     means[j] = sums[j] / totals[j] where totals[j] > 0
//
// Inputs  totals [k] f64, sums [k, d] f64.
// Outputs means [k, d] f32, left alone where totals are not above 0. facts u32 [2]: the first becomes 1 where a mean
//         differs from what it replaces (0 and -0 do not), to the second the number of codewords is added whose means
//         were left alone; zeros before. All allocated by the caller.
// Numbers The quotient of the real numbers rounded once, ties to even: where the f64 quotient lies in the middle of two
//         f32, the sign of the rest decides, as in src/backend/sums.rs.
// Launch  blocks of MEANS_THREADS in one dimension, any grid (x takes codewords, y columns, both in turn), no dynamic
//         shared memory.
// Idea    A thread per component; short codewords share a block: the smallest power of two of lanes that covers one.
//         Bound by memory.
// Source  ours; the CPU's twin is src/backend/sums.rs.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

#define FACT_CHANGED 0
#define FACT_LEFT 1

// The neighbour of a float that is not infinite away from it; of an infinity or a NaN, itself.
static __device__ __forceinline__ float next_up(float value) {
    const u32 bits = __float_as_uint(value), magnitude = bits & MAGNITUDE_BITS;
    if (magnitude > INFINITE_BITS || bits == INFINITE_BITS) return value;
    if (magnitude == 0) return __uint_as_float(1u);
    return __uint_as_float(bits == magnitude ? bits + 1u : bits - 1u);
}

static __device__ __forceinline__ float next_down(float value) { return -next_up(-value); }

// sum / total rounded once to f32.
static __device__ __forceinline__ float quotient(double sum, double total) {
    const double quotient = __ddiv_rn(sum, total);
    const float near = __double2float_rn(quotient);
    const float other = (double)near < quotient ? next_up(near) : next_down(near);
    const double middle = __dadd_rn(__dmul_rn((double)near, 0.5), __dmul_rn((double)other, 0.5));
    if (middle != quotient) return near;
    // Exact: a quotient with more than 53 bits has a rest of at most 53, far above the smallest f64.
    const double rest = __fma_rn(-quotient, total, sum);
    if (rest > 0.0) return near > other ? near : other;
    if (rest < 0.0) return near < other ? near : other;
    return near;
}

extern "C" __global__ void __launch_bounds__(MEANS_THREADS)
    means_f32(const double* __restrict__ totals, const double* __restrict__ sums, float* __restrict__ means,
              u32* __restrict__ facts, u32 k, u32 d) {
    const u32 shift = lanes_shift(d, MEANS_THREADS), each = MEANS_THREADS >> shift;
    const u32 lane = threadIdx.x & ((1u << shift) - 1u);
    for (u64 j = (u64)blockIdx.x * each + (threadIdx.x >> shift); j < k; j += (u64)gridDim.x * each) {
        const double total = totals[j];
        const bool weighs = total > 0.0;
        if (!weighs && lane == 0 && blockIdx.y == 0) atomicAdd(&facts[FACT_LEFT], 1u);
        if (!weighs) continue;
        bool changed = false;
        for (u64 t = (u64)blockIdx.y * MEANS_THREADS + lane; t < d; t += (u64)gridDim.y * MEANS_THREADS) {
            const float mean = quotient(sums[j * d + t], total);
            changed |= mean != means[j * d + t];
            means[j * d + t] = mean;
        }
        if (changed) atomicOr(&facts[FACT_CHANGED], 1u);
    }
}
