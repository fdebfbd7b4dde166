// Rows added up by their labels, and means of these sums, to the last bit those of the CPU.
//
//     sums[j] += sum_i w_i x_i    totals[j] += sum_i w_i    counts[j] += sum_i 1      over the rows i labelled j
//     means[j] = sums[j] / totals[j] where totals[j] > 0                              accumulate_means_f32
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; weights [n] f32 of rows (accumulate_weighted_*), all
//         1 without; order, starts [k + 1] of label_order.cu. block_rows: rows of a block of src/metrics.rs, a function
//         of d; row 0 begins one.
// Outputs counts [k] u64, totals [k] f64, sums [k, d] f64, added to, so that the rows of a long matrix may come in
//         several launches: whole blocks, in their order. means [k, d] f32, left alone where totals are not above 0.
//         facts u32 [2]: the first becomes 1 where a mean differs from what it replaces (0 and -0 do not), to the second
//         the number of codewords is added whose means were left alone. All allocated by the caller, and begun with zeros.
// Numbers f64, every operation named and rounded on its own. The rows of a codeword in a block are added in ascending
//         order from zero, then that sum to sums[j], block after block: the order that src/backend/mod.rs documents.
//         Products of two f32 are exact. Means are rounded once, ties to even: where the f64 quotient lies in the middle
//         of two f32, the sign of the rest decides, as in src/backend/sums.rs.
// Launch  blocks of ACCUMULATE_THREADS in one dimension, any grid (x takes codewords, y columns, both in turn), no
//         dynamic shared memory.
// Idea    A thread per component of a codeword walks the codeword's rows, whose numbers the sort has put side by side;
//         the loads of a few rows are under way together, the additions wait for each other. Short rows share a block:
//         the smallest power of two of lanes that covers one. Bound by memory, n d elements read once in whole rows,
//         where codewords are many and rows spread over them; by the latency of additions where few have most rows.
// Source  ours; the CPU's twins are src/backend/cpu/accumulate.rs and src/backend/sums.rs.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

// Rows whose loads are under way together.
#define AHEAD 8

static_assert(ACCUMULATE_THREADS == 128, "lanes_shift says so");

#define FACT_CHANGED 0
#define FACT_LEFT 1

// log2 of the lanes of a row: the smallest power of two that covers it, at most a block.
static __device__ __forceinline__ u32 lanes_shift(u32 d) { return d > 64 ? 7u : 32u - (u32)__clz((int)d - 1); }

template <bool WEIGHTED, class T>
static __device__ __forceinline__ void add_rows(const T* x, u64 stride, const float* weights, const u32* order,
                                                const u32* starts, u64* counts, double* totals, double* sums, u32 k,
                                                u32 d, u32 block_rows) {
    const u32 shift = lanes_shift(d), each = ACCUMULATE_THREADS >> shift;
    const u32 lane = threadIdx.x & ((1u << shift) - 1u);
    for (u64 j = (u64)blockIdx.x * each + (threadIdx.x >> shift); j < k; j += (u64)gridDim.x * each) {
        const u64 start = starts[j], end = starts[j + 1];
        if (start == end) continue;
        for (u64 t = (u64)blockIdx.y * ACCUMULATE_THREADS + lane; t < d; t += (u64)gridDim.y * ACCUMULATE_THREADS) {
            // The sum of the blocks before, and of the rows of this one.
            double sum = sums[j * d + t], part = 0.0;
            double total = t == 0 ? totals[j] : 0.0, total_part = 0.0;
            u64 block_end = 0;
            for (u64 place = start; place < end; place += AHEAD) {
                u32 rows[AHEAD];
                float values[AHEAD], of_rows[AHEAD];
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (place + i >= end) continue;
                    rows[i] = order[place + i];
                    values[i] = to_f32(x[(u64)rows[i] * stride + t]);
                    if (WEIGHTED) of_rows[i] = weights[rows[i]];
                }
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (place + i >= end) continue;
                    if (rows[i] >= block_end) {
                        sum = __dadd_rn(sum, part);
                        total = __dadd_rn(total, total_part);
                        part = total_part = 0.0;
                        block_end = (u64)(rows[i] / block_rows + 1) * block_rows;
                    }
                    const double value = (double)values[i];
                    if (WEIGHTED) {
                        const double weight = (double)of_rows[i];
                        part = __dadd_rn(part, __dmul_rn(value, weight));
                        if (t == 0) total_part = __dadd_rn(total_part, weight);
                    } else {
                        part = __dadd_rn(part, value);
                    }
                }
            }
            sums[j * d + t] = __dadd_rn(sum, part);
            if (t == 0) {
                // Whole numbers below 2^53 are exact in any order.
                totals[j] = __dadd_rn(total, WEIGHTED ? total_part : (double)(end - start));
                counts[j] += end - start;
            }
        }
    }
}

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

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_means_f32(const double* __restrict__ totals, const double* __restrict__ sums, float* __restrict__ means,
                         u32* __restrict__ facts, u32 k, u32 d) {
    const u32 shift = lanes_shift(d), each = ACCUMULATE_THREADS >> shift;
    const u32 lane = threadIdx.x & ((1u << shift) - 1u);
    for (u64 j = (u64)blockIdx.x * each + (threadIdx.x >> shift); j < k; j += (u64)gridDim.x * each) {
        const double total = totals[j];
        const bool weighs = total > 0.0;
        if (!weighs && lane == 0 && blockIdx.y == 0) atomicAdd(&facts[FACT_LEFT], 1u);
        if (!weighs) continue;
        bool changed = false;
        for (u64 t = (u64)blockIdx.y * ACCUMULATE_THREADS + lane; t < d; t += (u64)gridDim.y * ACCUMULATE_THREADS) {
            const float mean = quotient(sums[j * d + t], total);
            changed |= mean != means[j * d + t];
            means[j * d + t] = mean;
        }
        if (changed) atomicOr(&facts[FACT_CHANGED], 1u);
    }
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_f32(const float* __restrict__ x, u64 stride, const u32* __restrict__ order,
                   const u32* __restrict__ starts, u64* __restrict__ counts, double* __restrict__ totals,
                   double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    add_rows<false>(x, stride, nullptr, order, starts, counts, totals, sums, k, d, block_rows);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_f16(const F16* __restrict__ x, u64 stride, const u32* __restrict__ order, const u32* __restrict__ starts,
                   u64* __restrict__ counts, double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d,
                   u32 block_rows) {
    add_rows<false>(x, stride, nullptr, order, starts, counts, totals, sums, k, d, block_rows);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_bf16(const Bf16* __restrict__ x, u64 stride, const u32* __restrict__ order,
                    const u32* __restrict__ starts, u64* __restrict__ counts, double* __restrict__ totals,
                    double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    add_rows<false>(x, stride, nullptr, order, starts, counts, totals, sums, k, d, block_rows);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_weighted_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ weights,
                            const u32* __restrict__ order, const u32* __restrict__ starts, u64* __restrict__ counts,
                            double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    add_rows<true>(x, stride, weights, order, starts, counts, totals, sums, k, d, block_rows);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_weighted_f16(const F16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                            const u32* __restrict__ order, const u32* __restrict__ starts, u64* __restrict__ counts,
                            double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    add_rows<true>(x, stride, weights, order, starts, counts, totals, sums, k, d, block_rows);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_weighted_bf16(const Bf16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                             const u32* __restrict__ order, const u32* __restrict__ starts, u64* __restrict__ counts,
                             double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    add_rows<true>(x, stride, weights, order, starts, counts, totals, sums, k, d, block_rows);
}
