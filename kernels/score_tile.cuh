// A tile of scores: the dot products over the depth of SCORE_ROWS packed rows with SCORE_COLS packed codewords.
//
// 256 threads as 16 x 16; thread (ty, tx) holds rows 4 ty to 4 ty + 3 and columns tx, tx + 16, tx + 32, tx + 48 of the
// tile. Products are summed by FMA in ascending order of depth, in chunks of SCORE_CHUNK that are then added up: the
// count of roundings that the codebook's bounds cover.
#pragma once
#include "common.cuh"
#include "shapes.h"

#define SCORE_SIDE 16
#define SCORE_THREADS (SCORE_SIDE * SCORE_SIDE)
#define SCORE_ROWS_EACH (SCORE_ROWS / SCORE_SIDE)
#define SCORE_COLS_EACH (SCORE_COLS / SCORE_SIDE)

static_assert(SCORE_DEPTH == SCORE_SIDE, "a row of threads loads one step of depth each");
static_assert(SCORE_CHUNK % SCORE_DEPTH == 0, "chunks end between slices of depth");
static_assert(SCORE_ROWS % SCORE_SIDE == 0 && SCORE_COLS % SCORE_SIDE == 0, "whole threads");

struct ScoreTile {
    // One value of padding, so that the transposed stores fall into different banks.
    float rows[SCORE_DEPTH][SCORE_ROWS + 1];
    float cols[SCORE_DEPTH][SCORE_COLS + 1];
};

// Every thread of the block calls it. `rows` and `cols` are [n_rows, depth] and [n_cols, depth]; what lies beyond them
// counts as zero. With `col_of`, column c of the tile is packed codeword col_of[first_col + c].
static __device__ __forceinline__ void score_tile(ScoreTile& tile, const float* rows, u64 first_row, u64 n_rows,
                                                  const float* cols, u64 first_col, u64 n_cols, const u32* col_of,
                                                  u32 depth, float (&total)[SCORE_ROWS_EACH][SCORE_COLS_EACH]) {
    const u32 tx = threadIdx.x % SCORE_SIDE, ty = threadIdx.x / SCORE_SIDE;
    float sum[SCORE_ROWS_EACH][SCORE_COLS_EACH];
    for (int i = 0; i < SCORE_ROWS_EACH; i++) {
        for (int c = 0; c < SCORE_COLS_EACH; c++) total[i][c] = sum[i][c] = 0.0f;
    }
    for (u32 start = 0; start < depth; start += SCORE_DEPTH) {
        // Load a slice of depth; a row of 16 threads reads 64 bytes in a run.
        const u32 t = start + tx;
        for (u32 r = ty; r < SCORE_ROWS; r += SCORE_SIDE) {
            const u64 row = first_row + r;
            tile.rows[tx][r] = row < n_rows && t < depth ? rows[row * depth + t] : 0.0f;
        }
        for (u32 c = ty; c < SCORE_COLS; c += SCORE_SIDE) {
            u64 col = first_col + c;
            const bool inside = col < n_cols && t < depth;
            if (inside && col_of) col = col_of[col];
            tile.cols[tx][c] = inside ? cols[col * depth + t] : 0.0f;
        }
        __syncthreads();  // The slice is complete.
        for (u32 step = 0; step < SCORE_DEPTH; step++) {
            float z[SCORE_ROWS_EACH], e[SCORE_COLS_EACH];
            for (int i = 0; i < SCORE_ROWS_EACH; i++) z[i] = tile.rows[step][ty * SCORE_ROWS_EACH + i];
            for (int c = 0; c < SCORE_COLS_EACH; c++) e[c] = tile.cols[step][c * SCORE_SIDE + tx];
            for (int i = 0; i < SCORE_ROWS_EACH; i++) {
                for (int c = 0; c < SCORE_COLS_EACH; c++) sum[i][c] = __fmaf_rn(z[i], e[c], sum[i][c]);
            }
        }
        // Close a chunk: few roundings on the way of each product, however long the vectors are.
        if ((start + SCORE_DEPTH) % SCORE_CHUNK == 0 || start + SCORE_DEPTH >= depth) {
            for (int i = 0; i < SCORE_ROWS_EACH; i++) {
                for (int c = 0; c < SCORE_COLS_EACH; c++) {
                    total[i][c] = __fadd_rn(total[i][c], sum[i][c]);
                    sum[i][c] = 0.0f;
                }
            }
        }
        __syncthreads();  // Nobody reads the slice any more.
    }
}
