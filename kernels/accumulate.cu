// Rows added up by their labels, to the last bit as on the CPU.
//
//     sums[j] += sum_i w_i x_i    totals[j] += sum_i w_i    counts[j] += sum_i 1      over the rows i labelled j
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; weights [n] f32 of rows (*_weighted_*), all 1
//         without; labels [n], and order [n], starts [k + 1] of label_order.cu. block_rows: rows of a block of
//         src/metrics.rs, a function of d; row 0 begins one.
// Between A segment is the rows of one label in one block; a long one has ACCUMULATE_LONG rows or more, so that it
//         holds a place that is a multiple of that, the first of which numbers it. accumulate_segments_* writes ends [n]
//         u32, zeros before: at the place where a long segment begins, where it ends; parts [ceil(n / ACCUMULATE_LONG),
//         d] f64 and, with weights, part_weights [ceil(n / ACCUMULATE_LONG)] f64: what long segments add up to.
// Outputs of accumulate_*: counts [k] u64, totals [k] f64, sums [k, d] f64, added to, so that the rows of a long matrix
//         may come in several launches: whole blocks, in their order. All allocated by the caller, and begun with zeros.
// Numbers f64, every operation named and rounded on its own. The rows of a segment are added in ascending order from
//         zero, then that sum to sums[j], block after block: the order that src/backend/mod.rs documents. Products of
//         two f32 are exact.
// Launch  blocks of ACCUMULATE_THREADS in one dimension, any grid (x takes segments or codewords, y columns, in turn),
//         no dynamic shared memory.
// Idea    A thread per component of a codeword walks the codeword's rows, whose numbers the sort has put side by side;
//         the loads of a few rows are under way together, the additions wait for each other. Where few codewords have
//         most rows that would leave the device idle: long segments, which depend on nothing, are added up before by
//         threads of their own, and the walk steps over them. Short rows share a block: the smallest power of two of
//         lanes that covers one. Bound by memory: n d elements read once, in whole rows.
// Source  ours; the CPU's twin is src/backend/cpu/accumulate.rs.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

// Rows whose loads are under way together.
#define AHEAD 8
// Blocks of a multiprocessor: registers for as many.
#define BLOCKS 5

// Rows in the order of their labels.
template <class T>
struct Ordered {
    const T* x;
    u64 stride;
    const float* weights;
    const u32* order;
    u32 block_rows;
};

// A component of the rows at a few places, and their weights.
struct Few {
    u32 rows[AHEAD];
    float values[AHEAD], weights[AHEAD];
};

template <bool WEIGHTED, class T>
static __device__ __forceinline__ void load(Few& few, const Ordered<T>& from, u64 place, u64 end, u64 t) {
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
        // The last row again in place of those beyond it: loads that depend on no branch are under way together.
        few.rows[i] = from.order[place + i < end ? place + i : end - 1];
        few.values[i] = to_f32(from.x[few.rows[i] * from.stride + t]);
        if (WEIGHTED) few.weights[i] = from.weights[few.rows[i]];
    }
}

// The sum of the rows of a segment so far, and that of their weights.
struct Part {
    double value, weight;
};

template <bool WEIGHTED>
static __device__ __forceinline__ void add(Part& part, const Few& few, u32 i) {
    const double value = (double)few.values[i];
    if (WEIGHTED) {
        part.value = __dadd_rn(part.value, __dmul_rn(value, (double)few.weights[i]));
        part.weight = __dadd_rn(part.weight, (double)few.weights[i]);
    } else {
        part.value = __dadd_rn(part.value, value);
    }
}

// Whether a row of this label and block is at a place.
static __device__ __forceinline__ bool is_of(const u32* labels, const u32* order, u32 block_rows, u64 place, u32 n,
                                             u32 label, u32 block) {
    if (place >= n) return false;
    const u32 row = order[place];
    return row != NO_ROW && labels[row] == label && row / block_rows == block;
}

struct Segment {
    u32 start, end;
};

// The long segment that has its first multiple of ACCUMULATE_LONG at `place`, which is one; empty where none has.
static __device__ __forceinline__ Segment long_segment(const u32* labels, const u32* order, u32 block_rows, u32 place,
                                                       u32 n) {
    const Segment none = {0, 0};
    const u32 row = order[place];
    if (row == NO_ROW) return none;
    const u32 label = labels[row], block = row / block_rows;
    // What has it before is not added up twice.
    if (place >= ACCUMULATE_LONG && is_of(labels, order, block_rows, place - ACCUMULATE_LONG, n, label, block)) {
        return none;
    }
    // Labels and blocks rise from place to place.
    u32 low = place >= ACCUMULATE_LONG ? place - ACCUMULATE_LONG + 1 : 0, high = place;
    while (low < high) {
        const u32 middle = low + (high - low) / 2;
        if (is_of(labels, order, block_rows, middle, n, label, block)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    const u32 start = low;
    if (!is_of(labels, order, block_rows, (u64)start + ACCUMULATE_LONG - 1, n, label, block)) return none;
    low = start + ACCUMULATE_LONG;
    high = n - start < block_rows ? n : start + block_rows;
    while (low < high) {
        const u32 middle = low + (high - low) / 2;
        if (is_of(labels, order, block_rows, middle, n, label, block)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const Segment found = {start, low};
    return found;
}

template <bool WEIGHTED, class T>
static __device__ __forceinline__ void add_segments(const Ordered<T>& from, const u32* labels, u32* ends,
                                                    double* part_weights, double* parts, u32 n, u32 d) {
    const u32 shift = lanes_shift(d, ACCUMULATE_THREADS), each = ACCUMULATE_THREADS >> shift;
    const u32 lane = threadIdx.x & ((1u << shift) - 1u);
    const u64 first = (u64)blockIdx.x * each + (threadIdx.x >> shift);
    for (u64 slot = first; slot * ACCUMULATE_LONG < n; slot += (u64)gridDim.x * each) {
        const u32 multiple = (u32)slot * ACCUMULATE_LONG;
        const Segment segment = long_segment(labels, from.order, from.block_rows, multiple, n);
        if (segment.end == 0) continue;
        if (blockIdx.y == 0 && lane == 0) ends[segment.start] = segment.end;
        for (u64 t = (u64)blockIdx.y * ACCUMULATE_THREADS + lane; t < d; t += (u64)gridDim.y * ACCUMULATE_THREADS) {
            Part part = {0.0, 0.0};
            for (u64 place = segment.start; place < segment.end; place += AHEAD) {
                Few few;
                load<WEIGHTED>(few, from, place, segment.end, t);
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (place + i < segment.end) add<WEIGHTED>(part, few, i);
                }
            }
            parts[slot * d + t] = part.value;
            if (WEIGHTED && t == 0) part_weights[slot] = part.weight;
        }
    }
}

template <bool WEIGHTED, class T>
static __device__ __forceinline__ void add_rows(const Ordered<T>& from, const u32* starts, const u32* ends,
                                                const double* part_weights, const double* parts, u64* counts,
                                                double* totals, double* sums, u32 k, u32 d) {
    const u32 shift = lanes_shift(d, ACCUMULATE_THREADS), each = ACCUMULATE_THREADS >> shift;
    const u32 lane = threadIdx.x & ((1u << shift) - 1u);
    for (u64 j = (u64)blockIdx.x * each + (threadIdx.x >> shift); j < k; j += (u64)gridDim.x * each) {
        const u64 start = starts[j], end = starts[j + 1];
        if (start == end) continue;
        for (u64 t = (u64)blockIdx.y * ACCUMULATE_THREADS + lane; t < d; t += (u64)gridDim.y * ACCUMULATE_THREADS) {
            // The sums of the blocks before, and of the rows of this one.
            double sum = sums[j * d + t], total = t == 0 ? totals[j] : 0.0;
            Part part = {0.0, 0.0};
            u64 block_end = 0;
            for (u64 place = start, next; place < end; place = next) {
                next = place + AHEAD;
                Few few;
                load<WEIGHTED>(few, from, place, end, t);
                u32 segment_ends[AHEAD];
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    segment_ends[i] = ends[place + i < end ? place + i : end - 1];
                }
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (place + i >= end) break;
                    if (few.rows[i] >= block_end) {
                        // Begin a block.
                        sum = __dadd_rn(sum, part.value);
                        total = __dadd_rn(total, part.weight);
                        part.value = part.weight = 0.0;
                        block_end = (u64)(few.rows[i] / from.block_rows + 1) * from.block_rows;
                    }
                    if (segment_ends[i] != 0) {
                        // All of it has been added up.
                        const u64 slot = (place + i + ACCUMULATE_LONG - 1) / ACCUMULATE_LONG;
                        part.value = parts[slot * d + t];
                        if (WEIGHTED && t == 0) part.weight = part_weights[slot];
                        next = segment_ends[i];
                        break;
                    }
                    add<WEIGHTED>(part, few, i);
                }
            }
            sums[j * d + t] = __dadd_rn(sum, part.value);
            if (t == 0) {
                // Whole numbers below 2^53 are exact in any order.
                totals[j] = __dadd_rn(total, WEIGHTED ? part.weight : (double)(end - start));
                counts[j] += end - start;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_f32(const float* __restrict__ x, u64 stride, const u32* __restrict__ labels,
                            const u32* __restrict__ order, u32* __restrict__ ends, double* __restrict__ parts, u32 n,
                            u32 d, u32 block_rows) {
    const Ordered<float> from = {x, stride, nullptr, order, block_rows};
    add_segments<false>(from, labels, ends, nullptr, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_f32(const float* __restrict__ x, u64 stride, const u32* __restrict__ order,
                   const u32* __restrict__ starts, const u32* __restrict__ ends, const double* __restrict__ parts,
                   u64* __restrict__ counts, double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d,
                   u32 block_rows) {
    const Ordered<float> from = {x, stride, nullptr, order, block_rows};
    add_rows<false>(from, starts, ends, nullptr, parts, counts, totals, sums, k, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_f16(const F16* __restrict__ x, u64 stride, const u32* __restrict__ labels,
                            const u32* __restrict__ order, u32* __restrict__ ends, double* __restrict__ parts, u32 n,
                            u32 d, u32 block_rows) {
    const Ordered<F16> from = {x, stride, nullptr, order, block_rows};
    add_segments<false>(from, labels, ends, nullptr, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_f16(const F16* __restrict__ x, u64 stride, const u32* __restrict__ order, const u32* __restrict__ starts,
                   const u32* __restrict__ ends, const double* __restrict__ parts, u64* __restrict__ counts,
                   double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    const Ordered<F16> from = {x, stride, nullptr, order, block_rows};
    add_rows<false>(from, starts, ends, nullptr, parts, counts, totals, sums, k, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_bf16(const Bf16* __restrict__ x, u64 stride, const u32* __restrict__ labels,
                             const u32* __restrict__ order, u32* __restrict__ ends, double* __restrict__ parts, u32 n,
                             u32 d, u32 block_rows) {
    const Ordered<Bf16> from = {x, stride, nullptr, order, block_rows};
    add_segments<false>(from, labels, ends, nullptr, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_bf16(const Bf16* __restrict__ x, u64 stride, const u32* __restrict__ order,
                    const u32* __restrict__ starts, const u32* __restrict__ ends, const double* __restrict__ parts,
                    u64* __restrict__ counts, double* __restrict__ totals, double* __restrict__ sums, u32 k, u32 d,
                    u32 block_rows) {
    const Ordered<Bf16> from = {x, stride, nullptr, order, block_rows};
    add_rows<false>(from, starts, ends, nullptr, parts, counts, totals, sums, k, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_weighted_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ weights,
                                     const u32* __restrict__ labels, const u32* __restrict__ order,
                                     u32* __restrict__ ends, double* __restrict__ part_weights,
                                     double* __restrict__ parts, u32 n, u32 d, u32 block_rows) {
    const Ordered<float> from = {x, stride, weights, order, block_rows};
    add_segments<true>(from, labels, ends, part_weights, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_weighted_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ weights,
                            const u32* __restrict__ order, const u32* __restrict__ starts, const u32* __restrict__ ends,
                            const double* __restrict__ part_weights, const double* __restrict__ parts,
                            u64* __restrict__ counts, double* __restrict__ totals, double* __restrict__ sums, u32 k,
                            u32 d, u32 block_rows) {
    const Ordered<float> from = {x, stride, weights, order, block_rows};
    add_rows<true>(from, starts, ends, part_weights, parts, counts, totals, sums, k, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_weighted_f16(const F16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                                     const u32* __restrict__ labels, const u32* __restrict__ order,
                                     u32* __restrict__ ends, double* __restrict__ part_weights,
                                     double* __restrict__ parts, u32 n, u32 d, u32 block_rows) {
    const Ordered<F16> from = {x, stride, weights, order, block_rows};
    add_segments<true>(from, labels, ends, part_weights, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_weighted_f16(const F16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                            const u32* __restrict__ order, const u32* __restrict__ starts, const u32* __restrict__ ends,
                            const double* __restrict__ part_weights, const double* __restrict__ parts,
                            u64* __restrict__ counts, double* __restrict__ totals, double* __restrict__ sums, u32 k,
                            u32 d, u32 block_rows) {
    const Ordered<F16> from = {x, stride, weights, order, block_rows};
    add_rows<true>(from, starts, ends, part_weights, parts, counts, totals, sums, k, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_segments_weighted_bf16(const Bf16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                                      const u32* __restrict__ labels, const u32* __restrict__ order,
                                      u32* __restrict__ ends, double* __restrict__ part_weights,
                                      double* __restrict__ parts, u32 n, u32 d, u32 block_rows) {
    const Ordered<Bf16> from = {x, stride, weights, order, block_rows};
    add_segments<true>(from, labels, ends, part_weights, parts, n, d);
}

extern "C" __global__ void __launch_bounds__(ACCUMULATE_THREADS, BLOCKS)
    accumulate_weighted_bf16(const Bf16* __restrict__ x, u64 stride, const float* __restrict__ weights,
                             const u32* __restrict__ order, const u32* __restrict__ starts,
                             const u32* __restrict__ ends, const double* __restrict__ part_weights,
                             const double* __restrict__ parts, u64* __restrict__ counts, double* __restrict__ totals,
                             double* __restrict__ sums, u32 k, u32 d, u32 block_rows) {
    const Ordered<Bf16> from = {x, stride, weights, order, block_rows};
    add_rows<true>(from, starts, ends, part_weights, parts, counts, totals, sums, k, d);
}
