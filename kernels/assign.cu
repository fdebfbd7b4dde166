// The filter pass: the codeword of the largest score for every row, with its certificate.
//
//     score_ij = sum_t packed_row[i][t] packed_codeword[j][t]      (minus a lower bound of |e'_j|^2 / 2 - z'_i.e'_j)
//
// Inputs  rows [n, depth], facts [n, 4], kinds [n] of rows.cu; codewords [m, depth] f32, distinct, whose steps d and
//         d + 1 are the bound and half the squared norm, once more in bounds [m] and halves [m]; codeword_labels [m],
//         ascending. depth = d + 2.
// Outputs labels [n] u32. again [n] u32: the rows that are not settled, in no particular order; again_count, which
//         the caller sets to zero. parts [splits, n] of four words, where the columns are split. All allocated by the
//         caller.
// Numbers f32 FMA in the order of score_tile.cuh. The lowest position wins among equal scores, a NaN never. A row is
//         settled as in best.cuh; with `fast`, every packed row is. Wild rows never are. A row that is not finite gets
//         SENTINEL. How columns are split changes no bit.
// Launch  assign_f32: grid (ceil(n / SCORE_ROWS), splits), block 256 threads in one dimension, no dynamic shared
//         memory. Block y of the grid takes the y-th run of ceil(ceil(m / SCORE_COLS) / splits) tiles of codewords.
//         With splits > 1, assign_merge_f32 follows: grid ceil(n / SCORE_THREADS), block 256 threads.
// Idea    A block keeps the best and second best of its 128 rows while codewords pass by in tiles of 128; scores are
//         never written. 8 x 8 scores per thread (score_tile.cuh), each joined by 8 instructions. Bound by FMA. Where
//         rows alone leave multiprocessors idle, codewords are split among blocks and their results joined,
//         lexicographically.
// Source  ours.
// Measured on an H200: 1,000,000 x 256 by 16,384 in 255 ms with all around it, 33 TFLOP/s.
#include "best.cuh"
#include "score_tile.cuh"

extern "C" __global__ void __launch_bounds__(SCORE_THREADS, SCORE_BLOCKS)
    assign_f32(const float* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
               const float* __restrict__ codewords, const float* __restrict__ bounds, const float* __restrict__ halves,
               const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
               u32* __restrict__ again_count, uint4* __restrict__ parts, u32 n, u32 m, u32 depth, double unit,
               double tiny, u32 fast) {
    __shared__ ScoreTile tile;
    const u64 first_row = (u64)blockIdx.x * SCORE_ROWS;
    const u64 tiles = ((u64)m + SCORE_COLS - 1) / SCORE_COLS, run = (tiles + gridDim.y - 1) / gridDim.y * SCORE_COLS;
    const u64 last_col = (blockIdx.y + 1) * run < m ? (blockIdx.y + 1) * run : m;

    // Each thread its own; in registers they would not leave enough for the tile.
    __shared__ Best bests[SCORE_EACH][SCORE_THREADS];
    for (u32 i = 0; i < SCORE_EACH; i++) bests[i][threadIdx.x] = best_of_nothing();

    // Pass the codewords by; positions of a thread ascend.
    for (u64 first_col = blockIdx.y * run; first_col < last_col; first_col += SCORE_COLS) {
        float scores[SCORE_EACH][SCORE_EACH];
        score_tile(tile, rows, first_row, n, codewords, first_col, m, (const u32*)0, depth, scores);
        Best best[SCORE_EACH];
        for (u32 i = 0; i < SCORE_EACH; i++) best[i] = bests[i][threadIdx.x];
#pragma unroll
        for (u32 c = 0; c < SCORE_EACH; c++) {
            const u64 position = first_col + score_col(c);
            const bool inside = position < m;
#pragma unroll
            for (u32 i = 0; i < SCORE_EACH; i++) {
                best_add(best[i], inside ? scores[i][c] : LOWEST_SCORE, (u32)position);
            }
        }
        for (u32 i = 0; i < SCORE_EACH; i++) bests[i][threadIdx.x] = best[i];
    }

    // Join the 16 threads of each row: they are one half of a warp.
    const Settle s = {facts,       kinds, bounds, halves, (const float*)0, codeword_labels, labels, again,
                      again_count, (float*)0, (u32*)0, m, 1.0f, unit, tiny, fast};
    for (u32 i = 0; i < SCORE_EACH; i++) {
        const Best best = best_of_lanes(bests[i][threadIdx.x], SCORE_SIDE / 2);
        const u64 row = first_row + score_row(i);
        if (threadIdx.x % SCORE_SIDE != 0 || row >= n) continue;
        if (gridDim.y == 1) {
            settle(s, row, best);
        } else {
            best_store(parts + (u64)blockIdx.y * n + row, best);
        }
    }
}

extern "C" __global__ void __launch_bounds__(SCORE_THREADS)
    assign_merge_f32(const uint4* __restrict__ parts, const float* __restrict__ facts, const u32* __restrict__ kinds,
                     const float* __restrict__ bounds, const float* __restrict__ halves,
                     const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                     u32* __restrict__ again_count, u32 splits, u32 n, u32 m, double unit, double tiny, u32 fast) {
    const u64 row = (u64)blockIdx.x * SCORE_THREADS + threadIdx.x;
    if (row >= n) return;
    Best best = best_of_nothing();
    for (u32 split = 0; split < splits; split++) best = best_join(best, best_load(parts + (u64)split * n + row));
    const Settle s = {facts,       kinds, bounds, halves, (const float*)0, codeword_labels, labels, again,
                      again_count, (float*)0, (u32*)0, m, 1.0f, unit, tiny, fast};
    settle(s, row, best);
}
