// A tile of scores: the dot products over the depth of SCORE_ROWS packed rows with SCORE_COLS packed codewords.
//
// 256 threads as 16 x 16; thread (ty, tx) holds 8 x 8 scores, those of the rows `score_row` and the columns
// `score_col`: two runs of four each, so that its operands are four 128-bit reads of shared memory for 64 products.
// Products are summed by FMA in ascending order of depth, in chunks of SCORE_CHUNK that are then added up: the count of
// roundings that the codebook's bounds cover.
//
// While one slice of depth is worked on, the next one is on its way from memory to registers, and goes into the other
// half of shared memory: one barrier per slice. The machine code (ptxas 13, sm_80 and sm_90) has 512 FFMA, 32 LDS.128,
// 8 LDG and 8 STS in a slice of some 630 instructions; 127 or 128 registers from sm_80 to sm_120, and no spill: a
// multiprocessor holds two blocks.
#pragma once
#include "common.cuh"
#include "shapes.h"

#define SCORE_SIDE 16
#define SCORE_THREADS (SCORE_SIDE * SCORE_SIDE)
#define SCORE_EACH 8                                // rows, and columns, of a thread
#define SCORE_LOADS (SCORE_THREADS / SCORE_DEPTH)   // rows that the threads load at once
#define SCORE_PASSES (SCORE_ROWS / SCORE_LOADS)
#define SCORE_BLOCKS 2                              // of a multiprocessor, which leave a thread 128 registers

static_assert(SCORE_ROWS == SCORE_SIDE * SCORE_EACH && SCORE_COLS == SCORE_ROWS, "a thread holds 8 x 8 scores");
static_assert(SCORE_ROWS % SCORE_LOADS == 0 && SCORE_THREADS % SCORE_DEPTH == 0, "every thread loads as much");
static_assert(SCORE_CHUNK % SCORE_DEPTH == 0, "chunks end between slices of depth");

// Four values of padding: the transposed stores fall into different banks, and every read lies on 16 bytes.
struct alignas(16) ScoreTile {
    float rows[2][SCORE_DEPTH][SCORE_ROWS + 4];
    float cols[2][SCORE_DEPTH][SCORE_COLS + 4];
};

// Row i of a thread, and column c, within the tile.
static __device__ __forceinline__ u32 score_row(u32 i) { return i / 4 * 64 + threadIdx.x / SCORE_SIDE * 4 + i % 4; }
static __device__ __forceinline__ u32 score_col(u32 c) { return c / 4 * 64 + threadIdx.x % SCORE_SIDE * 4 + c % 4; }

static __device__ __forceinline__ void four(float* to, const float* from) {
    const float4 values = *reinterpret_cast<const float4*>(from);
    to[0] = values.x;
    to[1] = values.y;
    to[2] = values.z;
    to[3] = values.w;
}

// Loads what this thread brings of a slice of depth: 8 threads read 32 bytes of a vector in a run. `at` is its value of
// the first of its vectors, of which `left` are there from the tile's first on; `t` is its step of depth.
static __device__ __forceinline__ void score_load(float (&to)[SCORE_PASSES], const float* at, u32 left, u32 t,
                                                  u32 depth) {
    const u32 r = threadIdx.x / SCORE_DEPTH;
    const u64 apart = (u64)SCORE_LOADS * depth;
#pragma unroll
    for (u32 p = 0; p < SCORE_PASSES; p++) to[p] = r + p * SCORE_LOADS < left && t < depth ? at[p * apart] : 0.0f;
}

// The same of vectors that a list names.
static __device__ __forceinline__ void score_load(float (&to)[SCORE_PASSES], const float* from, const u32* list,
                                                  u32 left, u32 t, u32 depth) {
    const u32 r = threadIdx.x / SCORE_DEPTH;
#pragma unroll
    for (u32 p = 0; p < SCORE_PASSES; p++) {
        const u32 index = r + p * SCORE_LOADS;
        to[p] = index < left && t < depth ? from[(u64)list[index] * depth + t] : 0.0f;
    }
}

// Every thread of the block calls it. `rows` and `cols` are [n_rows, depth] and [n_cols, depth]; what lies beyond them
// counts as zero. With `col_of`, column c of the tile is packed codeword col_of[first_col + c].
static __device__ __forceinline__ void score_tile(ScoreTile& tile, const float* rows, u64 first_row, u64 n_rows,
                                                  const float* cols, u64 first_col, u64 n_cols, const u32* col_of,
                                                  u32 depth, float (&sum)[SCORE_EACH][SCORE_EACH]) {
    // Sums of closed chunks. Only vectors longer than a chunk have any, and touch them once in SCORE_CHUNK steps, so
    // they had better not take the registers: a place that the compiler does not know keeps them out.
    float closed[SCORE_EACH * SCORE_EACH + 1];
    float* const at = closed + (depth >> 31);  // The first: no depth has 32 bits.
    const u32 t = threadIdx.x % SCORE_DEPTH, r = threadIdx.x / SCORE_DEPTH;
    const u32 rows_left = n_rows - first_row < SCORE_ROWS ? (u32)(n_rows - first_row) : SCORE_ROWS;
    const u32 cols_left = n_cols - first_col < SCORE_COLS ? (u32)(n_cols - first_col) : SCORE_COLS;
    const float* row_at = rows + (first_row + r) * depth + t;
    const float* col_at = cols + (first_col + r) * depth + t;
    for (u32 i = 0; i < SCORE_EACH; i++) {
        for (u32 c = 0; c < SCORE_EACH; c++) sum[i][c] = 0.0f;
    }

    // Load the first slice.
    float next_rows[SCORE_PASSES], next_cols[SCORE_PASSES];
    score_load(next_rows, row_at, rows_left, t, depth);
    if (col_of) {
        score_load(next_cols, cols, col_of + first_col, cols_left, t, depth);
    } else {
        score_load(next_cols, col_at, cols_left, t, depth);
    }
    for (u32 p = 0; p < SCORE_PASSES; p++) {
        tile.rows[0][t][r + p * SCORE_LOADS] = next_rows[p];
        tile.cols[0][t][r + p * SCORE_LOADS] = next_cols[p];
    }
    __syncthreads();  // The slice is complete.

    for (u32 start = 0; start < depth; start += SCORE_DEPTH) {
        const u32 half = start / SCORE_DEPTH % 2;
        // Send for the next slice.
        const u32 next = start + SCORE_DEPTH + t;
        row_at += SCORE_DEPTH;
        score_load(next_rows, row_at, rows_left, next, depth);
        if (col_of) {
            score_load(next_cols, cols, col_of + first_col, cols_left, next, depth);
        } else {
            col_at += SCORE_DEPTH;
            score_load(next_cols, col_at, cols_left, next, depth);
        }
#pragma unroll
        for (u32 step = 0; step < SCORE_DEPTH; step++) {
            float z[SCORE_EACH], e[SCORE_EACH];
            for (u32 i = 0; i < SCORE_EACH; i += 4) {
                four(z + i, &tile.rows[half][step][score_row(i)]);
                four(e + i, &tile.cols[half][step][score_col(i)]);
            }
            for (u32 i = 0; i < SCORE_EACH; i++) {
                for (u32 c = 0; c < SCORE_EACH; c++) sum[i][c] = __fmaf_rn(z[i], e[c], sum[i][c]);
            }
        }
        // Close a chunk: few roundings on the way of each product, however long the vectors are.
        if ((start + SCORE_DEPTH) % SCORE_CHUNK == 0 && start + SCORE_DEPTH < depth) {
            const bool is_first = start < SCORE_CHUNK;
#pragma unroll
            for (u32 i = 0; i < SCORE_EACH; i++) {
#pragma unroll
                for (u32 c = 0; c < SCORE_EACH; c++) {
                    float& total = at[i * SCORE_EACH + c];
                    total = is_first ? sum[i][c] : __fadd_rn(total, sum[i][c]);
                    sum[i][c] = 0.0f;
                }
            }
        }
#pragma unroll
        for (u32 p = 0; p < SCORE_PASSES; p++) {
            tile.rows[half ^ 1][t][r + p * SCORE_LOADS] = next_rows[p];
            tile.cols[half ^ 1][t][r + p * SCORE_LOADS] = next_cols[p];
        }
        __syncthreads();  // Nobody reads the slice any more, and the next one is complete.
    }
    if (depth > SCORE_CHUNK) {
        for (u32 i = 0; i < SCORE_EACH; i++) {
            for (u32 c = 0; c < SCORE_EACH; c++) sum[i][c] = __fadd_rn(at[i * SCORE_EACH + c], sum[i][c]);
        }
    }
}
