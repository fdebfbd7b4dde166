// The full matrix of squared distances, two ways.
//
//     by norms:  out[i][j] = max(0, |z'_i|^2 - factor (z'_i.e'_j - |e'_j|^2 / 2))      pairwise_sq_l2_f32
//     direct:    out[i][j] = round(sum_t (z_it - e_jt)^2)                              pairwise_sq_l2_direct_f32
//
// Inputs  rows [n, depth] (packed with plain scores) and facts [n, 4] of rows.cu; packed codewords [m, depth];
//         positions [k]: the packed codeword that equals codeword j. Direct: z [n, d], rows z_stride
//         elements apart, and codewords [k, d] f32, as stored.
// Outputs out [n, k] f32, allocated by the caller. By norms leaves out rows whose squared norm f32 cannot hold (factor
//         0); direct fills exactly those, or all rows where `all` is set.
// Numbers By norms: f32 FMA in the order of score_tile.cuh, clamped at 0; within (d + 16) 2^-24 (|x| + 3 max |e|)^2.
//         Direct: the real number rounded once to the nearest f32. No entry is NaN.
// Launch  by norms: grid (ceil(n / SCORE_ROWS), ceil(k / SCORE_COLS) at most 65535: blocks take columns in turn),
//         block 256. Direct: any one-dimensional grid (warps take entries in turn), block 32 x PAIRWISE_WARPS.
// Idea    By norms is a matrix product with another epilogue. Direct is a warp per entry. Bound by writing, and by f64.
// Source  ours.
// Measured not yet on a GPU.
#include "direct.cuh"
#include "score_tile.cuh"

extern "C" __global__ void __launch_bounds__(SCORE_THREADS, SCORE_BLOCKS)
    pairwise_sq_l2_f32(const float* __restrict__ rows, const float* __restrict__ facts,
                       const float* __restrict__ codewords, const u32* __restrict__ positions, float* __restrict__ out,
                       u32 n, u32 k, u32 depth) {
    __shared__ ScoreTile tile;
    const u64 first_row = (u64)blockIdx.x * SCORE_ROWS;
    for (u64 first_col = (u64)blockIdx.y * SCORE_COLS; first_col < k; first_col += (u64)gridDim.y * SCORE_COLS) {
        float scores[SCORE_EACH][SCORE_EACH];
        score_tile(tile, rows, first_row, n, codewords, first_col, k, positions, depth, scores);
        for (u32 i = 0; i < SCORE_EACH; i++) {
            const u64 row = first_row + score_row(i);
            if (row >= n) continue;
            const float sq_norm = facts[row * FACTS + FACT_SQ_NORM], factor = facts[row * FACTS + FACT_FACTOR];
            if (factor == 0.0f) continue;
            for (u32 c = 0; c < SCORE_EACH; c++) {
                const u64 col = first_col + score_col(c);
                const float sq_l2 = __fsub_rn(sq_norm, __fmul_rn(factor, scores[i][c]));
                if (col < k) out[row * k + col] = sq_l2 > 0.0f ? sq_l2 : 0.0f;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(PAIRWISE_WARPS* WARP, 4)
    pairwise_sq_l2_direct_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ facts,
                              const float* __restrict__ codewords, float* __restrict__ out, u32 n, u32 k, u32 d,
                              double slack, u32 all) {
    __shared__ ExactSum sums[PAIRWISE_WARPS];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u64 entries = (u64)n * k, warps = (u64)gridDim.x * PAIRWISE_WARPS;
    for (u64 entry = (u64)blockIdx.x * PAIRWISE_WARPS + warp; entry < entries; entry += warps) {
        const u64 row = entry / k, col = entry % k;
        if (!all && facts[row * FACTS + FACT_FACTOR] != 0.0f) continue;
        const float rounded = warp_round_sq_l2(z + row * z_stride, codewords + col * d, d, slack, sums[warp], lane);
        if (lane == 0) out[entry] = rounded;
    }
}
