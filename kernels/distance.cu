// The squared distance of every row to its codeword, the real number rounded once to the nearest f32.
//
//     sq_distances[i] = round(sum_t (z_it - e_(labels[i])t)^2)
//
// Inputs  z [n, d] f32, as stored (not centred), rows z_stride elements apart; codewords [k, d] f32; kinds [n] of rows.cu; labels [n] u32, below k
//         where the row is finite.
// Outputs sq_distances [n] f32; labels[i] = SENTINEL and a NaN where the row is not finite. Allocated by the caller.
// Numbers f64 sum; where that lies too near the middle of two f32, the exact sum. Bits do not depend on any order.
// Launch  grid ceil(n / rows of a block), block 32 x DISTANCE_WARPS threads in one dimension, no dynamic shared memory. A
//         block takes DISTANCE_WARPS x 32 / L rows: L lanes, the smallest power of two that has a lane for every four
//         elements, 32 at most, share a row.
// Idea    Rows are read in 128-bit loads where they lie so. Rows that the f64 sum leaves open, one of some 100,000, have
//         their exact sums by the whole warp in turn. Bound by memory.
// Source  ours; the CPU's twin is src/backend/cpu/exact.rs `round_sq_l2`.
// Measured on an H200: 131,072 x 256 in 66 us, 2 TB/s.
#include "direct.cuh"
#include "shapes.h"

// What a lane sums of a row: the fours from element t on, `apart` elements apart. Two at once, so that their loads are on
// their way together.
template <bool WHOLE>
static __device__ __forceinline__ double lane_sq_l2(const float* z, const float* e, u32 d, u32 t, u32 apart) {
    double sum = 0.0, more = 0.0;
    for (; t < d; t += 2 * apart) {
        const float4 a = load_four(z, t, d, WHOLE), b = load_four(z, t + apart, d, WHOLE);
        const float4 c = load_four(e, t, d, WHOLE), f = load_four(e, t + apart, d, WHOLE);
        sum = add_sq_differences(sum, a, c);
        more = add_sq_differences(more, b, f);
    }
    return __dadd_rn(sum, more);
}

extern "C" __global__ void __launch_bounds__(DISTANCE_WARPS* WARP, 4)
    distance_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ kinds,
                 u32* __restrict__ labels, float* __restrict__ sq_distances, u32 n, u32 d, double slack) {
    __shared__ ExactSum sums[DISTANCE_WARPS];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, shift = fours_shift(d), first = lane >> shift << shift;
    const u64 row = (((u64)blockIdx.x * DISTANCE_WARPS + warp) << (5 - shift)) + (lane >> shift);
    const bool is_row = row < n, is_finite = is_row && kinds[row] != KIND_NON_FINITE;
    const u32 label = is_finite ? labels[row] : 0;

    double sum = 0.0;
    if (is_finite) {
        const bool whole = fours_are_whole(z, z_stride, d) && fours_are_whole(codewords, d, d);
        const float* x = z + row * z_stride;
        const float* e = codewords + (u64)label * d;
        sum = whole ? lane_sq_l2<true>(x, e, d, 4 * (lane - first), 4u << shift) : lane_sq_l2<false>(x, e, d, 4 * (lane - first), 4u << shift);
    }
    for (u32 offset = 1u << shift >> 1; offset > 0; offset /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(FULL_WARP, sum, offset));
    bool decided;
    float rounded = round_sq_l2(sum, slack, decided);

    // All lanes of an open row say so; the warp takes one after the other.
    for (u32 open = __ballot_sync(FULL_WARP, !decided && lane == first); open; open &= open - 1) {
        const int leader = __ffs((int)open) - 1;
        const u64 its_row = __shfl_sync(FULL_WARP, row, leader);
        const float* e = codewords + (u64)__shfl_sync(FULL_WARP, label, leader) * d;
        const float exact = warp_exact_sq_l2(z + its_row * z_stride, e, d, sums[warp], lane);
        if (lane == (u32)leader) rounded = exact;
    }
    if (!is_row || lane != first) return;
    if (!is_finite) labels[row] = SENTINEL;
    sq_distances[row] = is_finite ? rounded : __uint_as_float(0x7fc00000u);
}
