// The squared distance of every row to its codeword, the real number rounded once to the nearest f32.
//
//     sq_distances[i] = round(sum_t (z_it - e_(labels[i])t)^2)
//
// Inputs  z [n, d] f32, as stored (not centred), rows z_stride elements apart; codewords [k, d] f32; kinds [n] of rows.cu; labels [n] u32, below k
//         where the row is finite.
// Outputs sq_distances [n] f32; labels[i] = SENTINEL and a NaN where the row is not finite. Allocated by the caller.
// Numbers f64 sum; where that lies too near the middle of two f32, the exact sum. Bits do not depend on any order.
// Launch  grid ceil(n / DISTANCE_WARPS), block 32 x DISTANCE_WARPS threads in one dimension.
// Idea    A warp per row. Bound by memory.
// Source  ours; the CPU's twin is src/backend/cpu/exact.rs `round_sq_l2`.
// Measured not yet on a GPU.
#include "direct.cuh"
#include "shapes.h"

extern "C" __global__ void __launch_bounds__(DISTANCE_WARPS* WARP, 4)
    distance_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ kinds,
                 u32* __restrict__ labels, float* __restrict__ sq_distances, u32 n, u32 d, double slack) {
    __shared__ ExactSum sums[DISTANCE_WARPS];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u64 row = (u64)blockIdx.x * DISTANCE_WARPS + warp;
    if (row >= n) return;  // A whole warp leaves; nothing below waits for other warps.
    if (kinds[row] == KIND_NON_FINITE) {
        if (lane == 0) {
            labels[row] = SENTINEL;
            sq_distances[row] = __uint_as_float(0x7fc00000u);
        }
        return;
    }
    const float* e = codewords + (u64)labels[row] * d;
    const float rounded = warp_round_sq_l2(z + row * z_stride, e, d, slack, sums[warp], lane);
    if (lane == 0) sq_distances[row] = rounded;
}
