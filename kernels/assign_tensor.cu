// The filter pass on tensor cores: the codeword of the largest score for every row, with its certificate.
//
//     score_ij = z^_i.e^_j - c_i |e'_j|^2 / 2 + nz_i B_j + rho_i A_j
//
// a lower bound of |e'_j|^2 / 2 - z'_i.e'_j, its sign changed; z', e' the exact centred vectors in the scales of their f16
// operands z^, e^ (rows_tensor.cu).
//
// Inputs  rows [n, width] f16, facts [n, 4], kinds [n] of rows_tensor.cu; codewords [m, width] f16, lengths (A), bounds
//         (B), half_sq_norms [m] padded to whole tiles, of its entry for codewords; codeword_labels [m], ascending.
//         width is a multiple of TENSOR_ALIGN.
// Outputs labels, again, again_count, parts as in assign.cu. All allocated by the caller.
// Numbers The certificate. rho_i >= |z' - z^|, gamma_j >= |e' - e^|, A_j >= |e'_j|, nz_i >= |z^_i|, so
//             |z'.e' - z^.e^| = |(z' - z^).e' + z^.(e' - e^)| <= rho_i A_j + nz_i gamma_j.
//         The sum of the products as tensor cores make it is within eps |z^||e^| of z^.e^, where
//             eps = 2 ceil(d / L) ((L + 1) 2^-F + 2^-23)
//         (ptx.cuh; the factor 2 is for what the models of the hardware may have missed, and for partial sums that are
//         longer than the products of the norms by their own rounding). B_j >= gamma_j + eps |e^_j|. So without
//         roundings the score is no less than -s_ij, s_ij = c_i |e'_j|^2 / 2 - z'_i.e'_j. Half the squared norm comes
//         rounded to f32 and with c_i (1 - 4 u), u = 2^-24, which covers that. The three FMAs of the epilogue round by
//         u of their results v1, v2, v3 = score; |v2| <= |v3| + rho A, |v1| <= |v2| + nz B, up to u of these, so that is
//         at most 3 u |score| and 2 u (rho A + nz B): the first is left to the reader (`unit` = 4 u), the second is why
//         A and B are longer by 2^-20. Underflow: products and sums of f16 have none (multiples of 2^-48); what flushing
//         of the sum and the epilogue can lose is below `tiny`, (d + 8) 2^-122.
//         The winner's own -s is no more than its score less 2 (rho A + nz B) less 8 u c |e'|^2 / 2 (best.cuh).
//         Each codeword has its bound, so that one long codeword spoils none but itself. The lowest position wins among
//         equal scores, a NaN never; how columns are split changes no bit. Labels of settled rows are those of the real
//         numbers; `fast` settles every packed row.
// Launch  assign_tensor_f16: grid (ceil(n / TENSOR_ROWS), splits), block TENSOR_THREADS threads in one dimension, no
//         dynamic shared memory. With splits > 1, assign_tensor_merge_f16 follows: grid ceil(n / TENSOR_THREADS).
//         rows, codewords and facts on 16 bytes, lengths, bounds, half_sq_norms on 8.
// Idea    A tile of 128 rows by 128 codewords, a warp 64 x 32 of it: 16 products of m16n8k16 for six ldmatrix of four
//         matrices. Stages of 32 halves of depth come by asynchronous copies, two ahead, through the ends of tiles.
//         Rows of a stage are 64 bytes: 16-byte pieces are permuted by the row (XOR), so that eight rows of a matrix lie
//         in different banks. Scores never leave the registers: after each
//         tile four lanes share out the best and second best of their eight rows, two each, which they keep. The machine
//         code of a stage (ptxas 13, sm_80 and sm_90): 32 HMMA.16816, 12 LDSM.x4, 4 LDGSTS, one barrier in 132 to 135
//         instructions; the epilogue of a tile some 1150, of which 104 loads that hit the first-level cache: with fewer
//         of them ptxas spills. 128 registers from sm_80 to sm_120, no spill: two blocks a multiprocessor.
// Source  ours; stages, fragments and swizzle as in CUTLASS (include/cutlass/gemm/threadblock/mma_multistage.h).
// Measured not yet on a GPU.
#include "best.cuh"
#include "ptx.cuh"
#include "shapes.h"

#define TENSOR_THREADS 256
#define TENSOR_WARPS_ACROSS 4                                 // warps of a block along the codewords
#define TENSOR_WARP_ROWS 64
#define TENSOR_WARP_COLS 32
#define TENSOR_KEPT 2                                         // rows of which it keeps the best between tiles
#define TENSOR_PIECES (TENSOR_DEPTH / 8)                      // of 16 bytes, of a row of a stage
#define TENSOR_PASSES (TENSOR_ROWS * TENSOR_PIECES / TENSOR_THREADS)

static_assert(TENSOR_ROWS == 2 * TENSOR_WARP_ROWS && TENSOR_COLS == TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS, "eight warps");
static_assert(TENSOR_ROWS == TENSOR_COLS && TENSOR_PIECES == 4, "threads load rows and codewords alike; see swizzled");
static_assert(TENSOR_ALIGN == 8 && TENSOR_STAGES >= 2, "a piece is there or not");

struct TensorStage {
    u16 rows[TENSOR_ROWS][TENSOR_DEPTH];
    u16 cols[TENSOR_COLS][TENSOR_DEPTH];
};

static_assert(sizeof(TensorStage) * TENSOR_STAGES <= 48 << 10, "static shared memory");
static_assert(sizeof(Best) * TENSOR_WARPS_ACROSS * TENSOR_ROWS <= sizeof(TensorStage), "the end uses the first stage");

// Where piece `piece` of a row lies: two rows share the 32 banks, so pairs of rows count.
static __device__ __forceinline__ u32 swizzled(u32 row, u32 piece) { return 8 * (piece ^ (row / 2 % TENSOR_PIECES)); }

// Sends for steps t.. of up to TENSOR_ROWS vectors from `from` on, of which `left` are there; zeros beyond them.
static __device__ __forceinline__ void stage_load(u16 (&to)[TENSOR_ROWS][TENSOR_DEPTH], const u16* from, u32 left, u32 t,
                                                  u32 width) {
    const u32 piece = threadIdx.x % TENSOR_PIECES, at = t + 8 * piece;
#pragma unroll
    for (u32 p = 0; p < TENSOR_PASSES; p++) {
        const u32 row = threadIdx.x / TENSOR_PIECES + p * (TENSOR_THREADS / TENSOR_PIECES);
        const bool there = row < left && at < width;
        cp_async_16(&to[row][swizzled(row, piece)], from + (there ? (u64)row * width + at : 0), there ? 16 : 0);
    }
}

// Adds the products of one stage to the sums of this warp.
static __device__ __forceinline__ void stage_multiply(const TensorStage& stage, u32 warp_row, u32 warp_col,
                                                      float (&sum)[4][4][4]) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 step = 0; step < TENSOR_DEPTH / 16; step++) {
        u32 b[4][2];
#pragma unroll
        for (u32 j = 0; j < 4; j += 2) {
            const u32 col = warp_col + 8 * j + lane / 16 * 8 + lane % 8;
            u32 two[4];
            ldmatrix_x4(two, &stage.cols[col][swizzled(col, 2 * step + lane / 8 % 2)]);
            b[j][0] = two[0];
            b[j][1] = two[1];
            b[j + 1][0] = two[2];
            b[j + 1][1] = two[3];
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = warp_row + 16 * i + lane % 16;
            u32 a[4];
            ldmatrix_x4(a, &stage.rows[row][swizzled(row, 2 * step + lane / 16)]);
#pragma unroll
            for (u32 j = 0; j < 4; j++) mma_m16n8k16_f16(sum[i][j], a, b[j]);
        }
    }
}

struct TensorCodewords {
    const float* lengths;
    const float* bounds;
    const float* half_sq_norms;
};

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

// The row of the warp's 64 that this thread keeps as its best[i]: four lanes share out what they have seen of eight rows.
static __device__ __forceinline__ u32 kept_row(u32 i) {
    const u32 lane = threadIdx.x % WARP;
    return lane / 4 + lane / 2 % 2 * 32 + 16 * i + lane % 2 * 8;
}

// Joins the scores of a tile to the bests of the rows that this thread keeps. `position` is that of its first column,
// `facts` those of its first row, of which `rows_left` are there from that on.
static __device__ __forceinline__ void tile_join(const float (&sum)[4][4][4], const TensorCodewords& e, u32 position,
                                                 const float* facts, u32 rows_left, Best (&best)[TENSOR_KEPT]) {
    Best seen[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        Best of_row[2];
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            const u32 row = 16 * i + 8 * h;
            of_row[h] = best_of_nothing();
            if (row >= rows_left) continue;
            const float4 fact = *reinterpret_cast<const float4*>(facts + row * FACTS);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 col = position + 8 * j;  // Padding ends at 2^32 at the latest.
                const float2 length = *reinterpret_cast<const float2*>(e.lengths + col);
                const float2 bound = *reinterpret_cast<const float2*>(e.bounds + col);
                const float2 half = *reinterpret_cast<const float2*>(e.half_sq_norms + col);
                const float* s = &sum[i][j][2 * h];
                const float low = __fmaf_rn(fact.z, length.x, __fmaf_rn(fact.x, bound.x, __fmaf_rn(fact.w, half.x, s[0])));
                const float high = __fmaf_rn(fact.z, length.y, __fmaf_rn(fact.x, bound.y, __fmaf_rn(fact.w, half.y, s[1])));
                best_add(of_row[h], low, col);
                best_add(of_row[h], high, col + 1);
            }
        }
        seen[i] = share(of_row[0], of_row[1], 1);
    }
#pragma unroll
    for (u32 i = 0; i < TENSOR_KEPT; i++) best[i] = best_join(best[i], share(seen[i], seen[2 + i], 2));
}

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS, 2)
    assign_tensor_f16(const u16* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
                      const u16* __restrict__ codewords, const float* __restrict__ lengths,
                      const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                      const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                      u32* __restrict__ again_count, uint4* __restrict__ parts, u32 n, u32 m, u32 width, double unit,
                      double tiny, u32 fast) {
    __shared__ __align__(16) TensorStage stages[TENSOR_STAGES];
    const u64 first_row = (u64)blockIdx.x * TENSOR_ROWS;
    const u32 tiles = (u32)(((u64)m + TENSOR_COLS - 1) / TENSOR_COLS), run = (tiles - 1) / gridDim.y + 1;
    const u32 first_tile = blockIdx.y * run, last_tile = first_tile + run < tiles ? first_tile + run : tiles;
    const u32 rows_left = n - first_row < TENSOR_ROWS ? (u32)(n - first_row) : TENSOR_ROWS;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 warp_row = warp / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS, warp_col = warp % TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS;
    const u32 thread_row = warp_row + lane / 4, thread_col = warp_col + lane % 4 * 2;
    const TensorCodewords e = {lengths, bounds, half_sq_norms};

    // Send for the first stages.
    u32 next_tile = first_tile, next_t = 0;
    auto load_next = [&](TensorStage& stage) {
        if (next_tile < last_tile) {
            const u32 next_col = next_tile * TENSOR_COLS, cols_left = m - next_col;
            stage_load(stage.rows, rows + first_row * width, rows_left, next_t, width);
            stage_load(stage.cols, codewords + (u64)next_col * width, cols_left, next_t, width);
            next_t += TENSOR_DEPTH;
            if (next_t >= width) {
                next_t = 0;
                next_tile++;
            }
        }
        cp_async_commit();  // Also of nothing: groups are counted.
    };
    for (u32 s = 0; s + 1 < TENSOR_STAGES; s++) load_next(stages[s]);

    // Pass the codewords by.
    Best best[TENSOR_KEPT];
    for (u32 i = 0; i < TENSOR_KEPT; i++) best[i] = best_of_nothing();
    u32 current = 0;
    for (u32 tile = first_tile; tile < last_tile; tile++) {
        float sum[4][4][4];
#pragma unroll
        for (u32 i = 0; i < 64; i++) sum[i / 16][i / 4 % 4][i % 4] = 0.0f;
        for (u32 t = 0; t < width; t += TENSOR_DEPTH) {
            cp_async_wait<TENSOR_STAGES - 2>();
            __syncthreads();  // The stage is complete, and nobody reads the one before it any more, which is filled next.
            load_next(stages[current == 0 ? TENSOR_STAGES - 1 : current - 1]);
            stage_multiply(stages[current], warp_row, warp_col, sum);
            current = current + 1 == TENSOR_STAGES ? 0 : current + 1;
        }
        const u32 thread_rows_left = rows_left > thread_row ? rows_left - thread_row : 0;
        tile_join(sum, e, tile * TENSOR_COLS + thread_col, facts + (first_row + thread_row) * FACTS, thread_rows_left, best);
    }

    // Join the warps along the codewords.
    cp_async_wait<0>();
    __syncthreads();  // Nobody reads a stage any more.
    Best* joined = reinterpret_cast<Best*>(stages);
    for (u32 i = 0; i < TENSOR_KEPT; i++) joined[(warp_row + kept_row(i)) * TENSOR_WARPS_ACROSS + warp % TENSOR_WARPS_ACROSS] = best[i];
    __syncthreads();  // All warps have written.
    if (threadIdx.x >= rows_left) return;
    Best of_row = joined[threadIdx.x * TENSOR_WARPS_ACROSS];
    for (u32 w = 1; w < TENSOR_WARPS_ACROSS; w++) of_row = best_join(of_row, joined[threadIdx.x * TENSOR_WARPS_ACROSS + w]);
    const u64 row = first_row + threadIdx.x;
    const Settle s = {facts, kinds, bounds,      half_sq_norms, lengths, codeword_labels, labels,
                      again, again_count, m, 1.0f, unit, tiny, fast};
    if (gridDim.y == 1) {
        settle(s, row, of_row);
    } else {
        best_store(parts + (u64)blockIdx.y * n + row, of_row);
    }
}

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS)
    assign_tensor_merge_f16(const uint4* __restrict__ parts, const float* __restrict__ facts,
                            const u32* __restrict__ kinds, const float* __restrict__ lengths,
                            const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                            const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                            u32* __restrict__ again_count, u32 splits, u32 n, u32 m, double unit, double tiny, u32 fast) {
    const u64 row = (u64)blockIdx.x * TENSOR_THREADS + threadIdx.x;
    if (row >= n) return;
    Best best = best_of_nothing();
    for (u32 split = 0; split < splits; split++) best = best_join(best, best_load(parts + (u64)split * n + row));
    const Settle s = {facts, kinds, bounds,      half_sq_norms, lengths, codeword_labels, labels,
                      again, again_count, m, 1.0f, unit, tiny, fast};
    settle(s, row, best);
}
