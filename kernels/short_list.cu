// Open rows of which few codewords are left: the nearest one by f64 sums, then by exact ones.
//
// Inputs  z [n, d] f32, f16 or bf16, as stored, rows z_stride elements apart; codewords [k, d] f32; codeword_labels [m]: the distinct
//         ones, ascending; again [again_count]: the open rows, each once; counts [again_count] and positions
//         [again_count, SHORT_LIST] of assign_tensor_list_f16: the codewords that can be the nearest, in any order, complete where
//         the count is 1 to SHORT_LIST.
// Outputs labels of the rows whose list is complete: the lowest index that minimises the real number. left, left_count: the
//         others, each once, in any order; left_count is zero before. status: counts of rows settled because one codeword
//         was left, by f64 sums and by exact ones. Allocated by the caller; the counts are added to.
// Numbers f64 sums within f64_relative, where the bounds rule out all but one. Else exact sums of |e|^2 - 2 z.e, compared as
//         integers.
// Launch  any grid (warps take rows in turn), block 32 x SHORT_LIST_WARPS threads in one dimension, no dynamic shared
//         memory.
// Idea    A warp per row: nearly all open rows have two codewords left. What is too much for a list is look.cu's.
// Source  ours.
// Measured docs/gpu-results.md: 11 us for 5200 open rows of 131,072 x 256, where looking at all 1024 codewords took 3 ms (H200).
#include "direct.cuh"
#include "shapes.h"

struct ShortListSums {
    ExactSum sums[SHORT_LIST_WARPS], bests[SHORT_LIST_WARPS];
};

template <class Z>
static __device__ __forceinline__ void settle_lists(ShortListSums& shared, const Z* z, u64 z_stride, const float* codewords,
                                                    const u32* codeword_labels, const u32* again, const u32* again_count,
                                                    const u32* counts, const u32* positions, u32* labels, u32* left,
                                                    u32* left_count, u64* status, u32 d, double f64_relative) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, open = *again_count;
    for (u64 i = (u64)blockIdx.x * SHORT_LIST_WARPS + warp; i < open; i += (u64)gridDim.x * SHORT_LIST_WARPS) {
        const u32 row = again[i], count = counts[i];
        if (count == 0 || count > SHORT_LIST) {
            if (lane == 0) left[atomicAdd(left_count, 1u)] = row;
            continue;
        }
        const Z* x = z + row * z_stride;
        const u32* listed = positions + i * SHORT_LIST;

        // The least f64 sum, and the one after it.
        double least = 0.0, second = 0.0;
        u32 winner = listed[0];
        for (u32 c = 0; c < count && count > 1; c++) {
            const double sq_l2 = warp_sq_l2_f64(x, codewords + (u64)codeword_labels[listed[c]] * d, d, lane);
            if (c == 1 || (c > 1 && sq_l2 < second)) second = sq_l2;
            if (c > 0 && sq_l2 >= least) continue;
            if (c > 0) second = least;
            least = sq_l2;
            winner = listed[c];
        }
        u32 tier = count == 1 ? STATUS_SECOND : STATUS_F64;

        // Too near to tell: exact sums, the lowest position among equals.
        if (count > 1 && !(second * (1.0 - f64_relative) > least * (1.0 + f64_relative))) {
            tier = STATUS_EXACT;
            for (u32 c = 0; c < count; c++) {
                exact_clear(shared.sums[warp], lane);
                exact_add_order(shared.sums[warp], x, codewords + (u64)codeword_labels[listed[c]] * d, d, lane);
                exact_settle(shared.sums[warp], lane);
                const int order = c == 0 ? -1 : exact_compare(shared.sums[warp], shared.bests[warp]);
                __syncwarp();  // All lanes have compared before the best changes.
                if (order < 0 || (order == 0 && listed[c] < winner)) {
                    winner = listed[c];
                    if (lane < EXACT_LIMBS) shared.bests[warp].limbs[lane] = shared.sums[warp].limbs[lane];
                }
                __syncwarp();
            }
        }
        if (lane == 0) {
            labels[row] = codeword_labels[winner];
            atomicAdd(&status[tier], (u64)1);
        }
    }
}

extern "C" __global__ void __launch_bounds__(SHORT_LIST_WARPS* WARP, 4)
    short_list_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ codewords,
                   const u32* __restrict__ codeword_labels, const u32* __restrict__ again,
                   const u32* __restrict__ again_count, const u32* __restrict__ counts,
                   const u32* __restrict__ positions, u32* __restrict__ labels, u32* __restrict__ left,
                   u32* __restrict__ left_count, u64* __restrict__ status, u32 d, double f64_relative) {
    __shared__ ShortListSums shared;
    settle_lists(shared, z, z_stride, codewords, codeword_labels, again, again_count, counts, positions, labels, left,
                 left_count, status, d, f64_relative);
}

extern "C" __global__ void __launch_bounds__(SHORT_LIST_WARPS* WARP, 4)
    short_list_f16(const F16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords,
                   const u32* __restrict__ codeword_labels, const u32* __restrict__ again,
                   const u32* __restrict__ again_count, const u32* __restrict__ counts,
                   const u32* __restrict__ positions, u32* __restrict__ labels, u32* __restrict__ left,
                   u32* __restrict__ left_count, u64* __restrict__ status, u32 d, double f64_relative) {
    __shared__ ShortListSums shared;
    settle_lists(shared, z, z_stride, codewords, codeword_labels, again, again_count, counts, positions, labels, left,
                 left_count, status, d, f64_relative);
}

extern "C" __global__ void __launch_bounds__(SHORT_LIST_WARPS* WARP, 4)
    short_list_bf16(const Bf16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords,
                   const u32* __restrict__ codeword_labels, const u32* __restrict__ again,
                   const u32* __restrict__ again_count, const u32* __restrict__ counts,
                   const u32* __restrict__ positions, u32* __restrict__ labels, u32* __restrict__ left,
                   u32* __restrict__ left_count, u64* __restrict__ status, u32 d, double f64_relative) {
    __shared__ ShortListSums shared;
    settle_lists(shared, z, z_stride, codewords, codeword_labels, again, again_count, counts, positions, labels, left,
                 left_count, status, d, f64_relative);
}
