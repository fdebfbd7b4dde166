// What the designs of the filter pass on tensor cores have in common: the scores of a tile, the merge of parts, and the
// pass that lists codewords of open rows. Formula, inputs, outputs and numbers: assign_tensor.cu.
#pragma once
#include "best.cuh"
#include "ptx.cuh"
#include "shapes.h"
#include "tensor_tiles.cuh"

#define TENSOR_WARPS_ACROSS 2                                 // warps of a block along the codewords
#define TENSOR_WARPS (TENSOR_THREADS / WARP)
#define TENSOR_WARP_ROWS 64
#define TENSOR_WARP_COLS 64
#define TENSOR_PAIRS (TENSOR_WARP_COLS / 8)                   // pairs of neighbouring columns of a thread
#define TENSOR_THREAD_ROWS (TENSOR_WARP_ROWS / 8)             // rows of a thread
#define TENSOR_KEPT (TENSOR_THREAD_ROWS / 4)                  // rows of which it has the best in the end

static_assert(TENSOR_ROWS == TENSOR_WARPS / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS, "warps cover the rows");
static_assert(TENSOR_COLS == TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS, "warps cover the codewords");
static_assert(TENSOR_ROWS == TENSOR_TILE && TENSOR_COLS == TENSOR_TILE, "a tile of a block is one of either operand");
static_assert(TENSOR_TILE == TENSOR_THREADS, "a thread loads for a vector of either side, and has a row in the end");
static_assert(TENSOR_DEPTH == 32 && TENSOR_STAGES >= 2, "a stage is two steps of products");
static_assert(2 * TENSOR_PAIRS <= 16, "a bit for each column of a thread");

// A stage in shared memory: as many steps of depth of the rows, then of the codewords, each as in device memory. There a
// vector is 16 bytes further on than the one before, and its next eight halves are PIECE_BYTES further on.
#define PIECE_BYTES (2 * TENSOR_PIECE)
#define SIDE_BYTES (TENSOR_DEPTH / 8 * PIECE_BYTES)
#define STAGE_BYTES (2 * SIDE_BYTES)

static_assert(STAGE_BYTES * TENSOR_STAGES <= 48 << 10, "static shared memory");
static_assert(sizeof(Best) * TENSOR_WARPS_ACROSS * TENSOR_ROWS <= STAGE_BYTES, "the end uses the first stage");

// The sums of products of a thread: rows 16 i + 8 h of its own, columns 8 j and 8 j + 1, at [i][j][2 h] and [2 h + 1].
typedef float TensorSums[TENSOR_WARP_ROWS / 16][TENSOR_PAIRS][4];

// What a lane holds of 16 steps of depth of a stage: all of the columns, and of the rows 16 at a time.
struct Fragments {
    u32 rows[4];
    u32 cols[TENSOR_PAIRS][2];
};

static __device__ __forceinline__ void load_fragments(Fragments& f, SharedAt rows, SharedAt cols) {
#pragma unroll
    for (u32 j = 0; j < TENSOR_PAIRS; j += 2) {
        u32 two[4];
        ldmatrix_x4(two, cols + 16 * 8 * j);
        f.cols[j][0] = two[0];
        f.cols[j][1] = two[1];
        f.cols[j + 1][0] = two[2];
        f.cols[j + 1][1] = two[3];
    }
    ldmatrix_x4(f.rows, rows);
}

static __device__ __forceinline__ void multiply(Fragments& f, SharedAt rows, TensorSums& sum) {
#pragma unroll
    for (u32 i = 0; i < TENSOR_WARP_ROWS / 16; i++) {
        if (i > 0) ldmatrix_x4(f.rows, rows + 16 * 16 * i);
#pragma unroll
        for (u32 j = 0; j < TENSOR_PAIRS; j++) mma_m16n8k16_f16(sum[i][j], f.rows, f.cols[j]);
    }
}

// Passes codewords by rows: after each tile of codewords, a warp that has any of them and any of the `rows_left` rows calls
// tile_end(tile, sums). row_at is where the row of this thread begins, one that is there or that its tile fills up with.
// All threads of the block call it.
template <class TileEnd>
static __device__ __forceinline__ void pass_codewords(unsigned char* stages, const u16* row_at, u32 rows_left,
                                                      const u16* codewords, u32 m, u32 width, u32 first_tile,
                                                      u32 last_tile, TileEnd tile_end) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 warp_row = warp / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS, warp_col = warp % TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS;
    SharedAt shared = shared_at(stages);
    // Eight lanes name eight neighbouring vectors: of the rows 16 of one eight of depth and the same of the next, of the
    // codewords eight of one and of the next, and eight vectors more likewise.
    u32 row_place = 16 * (warp_row + lane % 16) + lane / 16 * PIECE_BYTES;
    u32 col_place = SIDE_BYTES + 16 * (warp_col + lane / 16 * 8 + lane % 8) + lane / 8 % 2 * PIECE_BYTES;
    // This thread loads one vector of either side: warps read and write runs of 512 bytes.
    u32 to = 16 * threadIdx.x;
    keep(shared);
    keep(row_place);
    keep(col_place);
    keep(to);
    const u16* col_at = codewords + tile_place((u64)first_tile * TENSOR_COLS + threadIdx.x, width);
    u32 next_tile = first_tile, next_t = 0;
    auto load_next = [&](u32 stage) {
        if (next_tile < last_tile) {
            const SharedAt at = shared + stage * STAGE_BYTES + to;
            const u64 from = (u64)(next_t / 8) * TENSOR_PIECE;
#pragma unroll
            for (u32 p = 0; p < TENSOR_DEPTH / 8; p++) {
                // Zeros beyond the width; nothing is read there.
                const u32 bytes = next_t + 8 * p < width ? 16 : 0;
                cp_async_16(at + p * PIECE_BYTES, row_at + from + p * TENSOR_PIECE, bytes);
                cp_async_16(at + SIDE_BYTES + p * PIECE_BYTES, col_at + from + p * TENSOR_PIECE, bytes);
            }
            next_t += TENSOR_DEPTH;
            if (next_t >= width) {
                next_t = 0;
                next_tile++;
                col_at += (u64)width * TENSOR_COLS;
            }
        }
        cp_async_commit();  // Also of nothing: groups are counted.
    };
    for (u32 s = 0; s + 1 < TENSOR_STAGES; s++) load_next(s);

    u32 current = 0;
    for (u32 tile = first_tile; tile < last_tile; tile++) {
        TensorSums sum;
#pragma unroll
        for (u32 i = 0; i < 4 * TENSOR_PAIRS * TENSOR_WARP_ROWS / 16; i++) sum[i / 4 / TENSOR_PAIRS][i / 4 % TENSOR_PAIRS][i % 4] = 0.0f;
        const bool is_needed = warp_row < rows_left && warp_col < m - tile * TENSOR_COLS;
        for (u32 t = 0; t < width; t += TENSOR_DEPTH) {
            cp_async_wait<TENSOR_STAGES - 2>();
            __syncthreads();  // The stage is complete, and nobody reads the one before it any more, which is filled next.
            // While what the first products need is on its way, send for the next stage.
            const SharedAt rows = shared + current * STAGE_BYTES + row_place, cols = shared + current * STAGE_BYTES + col_place;
            Fragments fragments;
            if (is_needed) load_fragments(fragments, rows, cols);
            load_next(current == 0 ? TENSOR_STAGES - 1 : current - 1);
            if (is_needed) {
                multiply(fragments, rows, sum);
                load_fragments(fragments, rows + 2 * PIECE_BYTES, cols + 2 * PIECE_BYTES);
                multiply(fragments, rows + 2 * PIECE_BYTES, sum);
            }
            current = current + 1 == TENSOR_STAGES ? 0 : current + 1;
        }
        if (is_needed) tile_end(tile, sum);
    }
    cp_async_wait<0>();
    __syncthreads();  // Nobody reads a stage any more.
}

struct TensorCodewords {
    const float* lengths;
    const float* bounds;
    const float* half_sq_norms;
};

// The score, of a sum of products and the facts of its row.
static __device__ __forceinline__ float tensor_score(float sum, const float4& fact, float length, float bound, float half) {
    return __fmaf_rn(fact.z, length, __fmaf_rn(fact.x, bound, __fmaf_rn(fact.w, half, sum)));
}

// Row i of this thread in its block, and the position of its column c in a tile; padding ends at 2^32 at the latest.
static __device__ __forceinline__ u32 thread_row(u32 i) {
    return threadIdx.x / WARP / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS + threadIdx.x % WARP / 4 + 8 * i;
}

static __device__ __forceinline__ u32 thread_position(u32 tile, u32 c) {
    const u32 first = threadIdx.x / WARP % TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS + threadIdx.x % WARP % 4 * 2;
    return tile * TENSOR_COLS + first + c / 2 * 8 + c % 2;
}

// Calls use(i, c, score) for every score of a thread, row i of its own in its column c, in ascending order of columns;
// fact_of(i) are the facts of the row.
template <class FactOf, class Use>
static __device__ __forceinline__ void tile_scores(u32 tile, const TensorSums& sum, const TensorCodewords& e, FactOf fact_of,
                                                   Use use) {
    float4 facts[TENSOR_THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < TENSOR_THREAD_ROWS; i++) facts[i] = *reinterpret_cast<const float4*>(fact_of(i));
#pragma unroll
    for (u32 j = 0; j < TENSOR_PAIRS; j++) {
        const u32 col = thread_position(tile, 2 * j);
        const float2 length = *reinterpret_cast<const float2*>(e.lengths + col);
        const float2 bound = *reinterpret_cast<const float2*>(e.bounds + col);
        const float2 half = *reinterpret_cast<const float2*>(e.half_sq_norms + col);
#pragma unroll
        for (u32 i = 0; i < TENSOR_THREAD_ROWS; i++) {
            const float* s = &sum[i / 2][j][i % 2 * 2];
            use(i, 2 * j, tensor_score(s[0], facts[i], length.x, bound.x, half.x));
            use(i, 2 * j + 1, tensor_score(s[1], facts[i], length.y, bound.y, half.y));
        }
    }
}

// Word by word, or the compiler keeps both in memory.
static __device__ __forceinline__ Best choose(bool first, const Best& a, const Best& b) {
    return {first ? a.score : b.score, first ? a.position : b.position, first ? a.second : b.second};
}

// Two rows that this lane and the one at the distance of `lanes` have seen scores of: what both have of the first one,
// for the lower lane, or of the second, for the upper one.
static __device__ __forceinline__ Best share(const Best& first, const Best& second, u32 lanes) {
    const bool upper = threadIdx.x & lanes;
    const Best given = choose(upper, first, second);
    Best taken;
    taken.score = __shfl_xor_sync(FULL_WARP, given.score, lanes);
    taken.position = __shfl_xor_sync(FULL_WARP, given.position, lanes);
    taken.second = __shfl_xor_sync(FULL_WARP, given.second, lanes);
    return best_join(choose(upper, second, first), taken);
}

// Four lanes have seen scores of the same rows, and share them out: of rows 4 k to 4 k + 3 a thread keeps kept_row(k).
static __device__ __forceinline__ u32 kept_row(u32 k) { return thread_row(4 * k + threadIdx.x % 4); }

static __device__ __forceinline__ Best share_out(const Best (&best)[TENSOR_THREAD_ROWS], u32 k) {
    return share(share(best[4 * k], best[4 * k + 1], 1), share(best[4 * k + 2], best[4 * k + 3], 1), 2);
}

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS)
    assign_tensor_merge_f16(const uint4* __restrict__ parts, const float* __restrict__ facts,
                            const u32* __restrict__ kinds, const float* __restrict__ lengths,
                            const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                            const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                            u32* __restrict__ again_count, float* __restrict__ thresholds, u32* __restrict__ counts,
                            u32 splits, u32 n, u32 m, double unit, double tiny, u32 fast) {
    const u64 row = (u64)blockIdx.x * TENSOR_THREADS + threadIdx.x;
    if (row >= n) return;
    Best best = best_of_nothing();
    for (u32 split = 0; split < splits; split++) best = best_join(best, best_load(parts + (u64)split * n + row));
    const Settle s = {facts, kinds,       bounds,     half_sq_norms, lengths, codeword_labels, labels,
                      again, again_count, thresholds, counts,        m,       1.0f,            unit, tiny, fast};
    settle(s, row, best);
}

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS, 2)
    assign_tensor_list_f16(const u16* __restrict__ rows, const float* __restrict__ facts, const u16* __restrict__ codewords,
                    const float* __restrict__ lengths, const float* __restrict__ bounds,
                    const float* __restrict__ half_sq_norms, const u32* __restrict__ again,
                    const u32* __restrict__ again_count, const float* __restrict__ thresholds, u32* __restrict__ counts,
                    u32* __restrict__ positions, u32 m, u32 width) {
    __shared__ __align__(16) unsigned char stages[TENSOR_STAGES * STAGE_BYTES];
    const u32 open = *again_count;
    if (open == 0) return;
    const TensorCodewords e = {lengths, bounds, half_sq_norms};
    const u32 tiles = (u32)(((u64)m + TENSOR_COLS - 1) / TENSOR_COLS), row_tiles = (open - 1) / TENSOR_ROWS + 1;
    // As many parts of the codewords as keep all blocks at work.
    const u32 most = gridDim.x / row_tiles, splits = most < 1 ? 1 : most < tiles ? most : tiles;
    const u32 run = (tiles - 1) / splits + 1;

    for (u64 item = blockIdx.x; item < (u64)row_tiles * splits; item += gridDim.x) {
        const u32 first = (u32)(item / splits) * TENSOR_ROWS, first_tile = (u32)(item % splits) * run;
        const u32 last_tile = first_tile + run < tiles ? first_tile + run : tiles;
        const u32 rows_left = open - first < TENSOR_ROWS ? open - first : TENSOR_ROWS;
        // Of rows that are not there, the last one's; they are left out below.
        auto slot_of = [&](u32 i) { return first + (thread_row(i) < rows_left ? thread_row(i) : rows_left - 1); };
        const u32 slot = first + (threadIdx.x < rows_left ? threadIdx.x : rows_left - 1);
        const u16* row_at = rows + tile_place(again[slot], width);
        pass_codewords(stages, row_at, rows_left, codewords, m, width, first_tile, last_tile,
                       [&](u32 tile, const TensorSums& sum) {
                           float threshold[TENSOR_THREAD_ROWS];
                           u32 hits[TENSOR_THREAD_ROWS / 2];  // a bit for each column of two rows
#pragma unroll
                           for (u32 i = 0; i < TENSOR_THREAD_ROWS; i++) {
                               // No score reaches a NaN.
                               threshold[i] = thread_row(i) < rows_left ? thresholds[slot_of(i)] : __uint_as_float(0x7fc00000u);
                               hits[i / 2] = 0;
                           }
                           auto fact_of = [&](u32 i) { return facts + (u64)again[slot_of(i)] * FACTS; };
                           tile_scores(tile, sum, e, fact_of, [&](u32 i, u32 c, float score) {
                               hits[i / 2] |= score >= threshold[i] ? 1u << (16 * (i % 2) + c) : 0u;
                           });
#pragma unroll
                           for (u32 i = 0; i < TENSOR_THREAD_ROWS; i++) {
                               for (u32 left = hits[i / 2] >> 16 * (i % 2) & 0xffffu; left; left &= left - 1) {
                                   const u32 position = thread_position(tile, (u32)__ffs((int)left) - 1);
                                   if (position >= m) continue;
                                   const u32 place = atomicAdd(&counts[slot_of(i)], 1u);
                                   if (place < SHORT_LIST) positions[(u64)slot_of(i) * SHORT_LIST + place] = position;
                               }
                           }
                       });
    }
}
