// The filter pass over a tile of cross terms that a matrix product has made: the other half of assign.cu for cuBLAS.
//
//     score_ij = cross_ij + widening |z'_i| bound_j - c_i |e'_j|^2 / 2        cross_ij ~ z'_i.e'_j, within the bound
//
// Inputs  cross [rows, stride] f32, of which the first cols columns count: rows first_row.. of the block against packed
//         codewords first_col.. . packed [n, depth], facts [n, 4], kinds [n] of rows.cu; bounds [m], halves [m]: steps
//         d and d + 1 of the packed codewords; codeword_labels [m], ascending. depth = d + 2.
// Outputs bests [rows] of four words: the state of each row between runs of columns, written before it is read. With
//         the last run of columns labels [n], again [n], again_count as in assign.cu. All allocated by the caller.
// Numbers cross may be summed in any order and may flush subnormals. A sum of d products in any order rounds at most d
//         times on the way of each, so it is within d u / (1 - d u) |z'||e'| (Higham 2002, section 3.1), u = 2^-24;
//         the packed bounds count on chunks of SCORE_CHUNK: `widening` is the ratio of the two bounds, rounded up, and
//         1 where there is one chunk. The norms join here, by two FMAs, last as in assign.cu: were they steps of the
//         product, half the squared norm would be rounded in any order too. What flushing loses is in `tiny`.
//         The rest as in assign.cu, and the same labels.
// Launch  grid ceil(rows / (TILE_WARPS TILE_ROWS_EACH)), block 32 x TILE_WARPS threads in one dimension. stride and
//         first_col are multiples of 4; cross, bounds, halves lie on 16 bytes. Runs of columns in ascending order: the
//         first has first_col = 0, the last ends at m.
// Idea    A warp takes four rows, 128 columns at a time by 128-bit loads, so that the norms of the codewords are read
//         once for four rows. Bound by the second-level cache, in which the tile still lies. 60 registers.
// Source  ours.
// Measured not yet on a GPU.
#include "best.cuh"
#include "shapes.h"

static_assert(TILE_WARPS * WARP <= 1024, "a block holds at most 1024 threads");

// Four values, or as many as there are and zeros.
static __device__ __forceinline__ void load_four(float (&to)[4], const float* from, u32 count) {
    if (count >= 4) {
        const float4 values = *reinterpret_cast<const float4*>(from);
        to[0] = values.x;
        to[1] = values.y;
        to[2] = values.z;
        to[3] = values.w;
    } else {
        for (u32 i = 0; i < 4; i++) to[i] = i < count ? from[i] : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(TILE_WARPS* WARP)
    assign_tile_f32(const float* __restrict__ cross, const float* __restrict__ packed, const float* __restrict__ facts,
                    const u32* __restrict__ kinds, const float* __restrict__ bounds, const float* __restrict__ halves,
                    const u32* __restrict__ codeword_labels, uint4* __restrict__ bests, u32* __restrict__ labels,
                    u32* __restrict__ again, u32* __restrict__ again_count, u32 first_row, u32 rows, u32 first_col,
                    u32 cols, u32 stride, u32 m, u32 depth, float widening, double unit, double tiny, u32 fast) {
    const u32 lane = threadIdx.x % WARP;
    const u64 first = ((u64)blockIdx.x * TILE_WARPS + threadIdx.x / WARP) * TILE_ROWS_EACH;
    if (first >= rows) return;  // A whole warp leaves; nothing below waits for other warps.

    // What the row brings to each score. Past the last row, the last one once more: it costs nothing and is dropped.
    float norm[TILE_ROWS_EACH], minus_ratio[TILE_ROWS_EACH];
    const float* scores[TILE_ROWS_EACH];
    Best best[TILE_ROWS_EACH];
    for (u32 i = 0; i < TILE_ROWS_EACH; i++) {
        const u64 row = first + i < rows ? first + i : rows - 1;
        const float* ends = packed + (first_row + row + 1) * depth - 2;
        norm[i] = __fmul_rn(ends[0], widening);
        minus_ratio[i] = ends[1];
        scores[i] = cross + row * stride;
        best[i] = best_of_nothing();
    }

    // Pass the columns by; positions of a lane ascend.
    for (u32 col = 4 * lane; col < cols; col += 4 * WARP) {
        const u32 left = cols - col;
        float bound[4], half[4], score[TILE_ROWS_EACH][4];
        load_four(bound, bounds + first_col + col, left);
        load_four(half, halves + first_col + col, left);
        for (u32 i = 0; i < TILE_ROWS_EACH; i++) load_four(score[i], scores[i] + col, left);
        for (u32 c = 0; c < 4; c++) {
            for (u32 i = 0; i < TILE_ROWS_EACH; i++) {
                const float value = __fmaf_rn(minus_ratio[i], half[c], __fmaf_rn(norm[i], bound[c], score[i][c]));
                best_add(best[i], c < left ? value : LOWEST_SCORE, first_col + col + c);
            }
        }
    }

    // Join the lanes, then the runs of columns before this one.
    const Settle s = {facts,       kinds, bounds,   halves, (const float*)0, codeword_labels, labels, again,
                      again_count, (float*)0, (u32*)0, m, widening, unit, tiny, fast};
    for (u32 i = 0; i < TILE_ROWS_EACH; i++) {
        Best joined = best_of_lanes(best[i], WARP / 2);
        const u64 row = first + i;
        if (lane != 0 || row >= rows) continue;
        if (first_col > 0) joined = best_join(best_load(bests + row), joined);
        if (first_col + cols == m) {
            settle(s, first_row + row, joined);
        } else {
            best_store(bests + row, joined);
        }
    }
}
