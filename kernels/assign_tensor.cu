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
// Outputs labels, again, again_count, parts as in assign.cu; thresholds and counts [n] of the open rows, in the order of
//         `again` (best.cuh). assign_tensor_list_f16 takes these, and adds to the counts how many codewords have a score of at
//         least the threshold: those that can be the nearest. positions [n, SHORT_LIST]: the first of them that were
//         found. All allocated by the caller.
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
//         assign_tensor_list_f16: any grid (blocks take tiles in turn). rows, codewords and facts on 16 bytes, lengths, bounds,
//         half_sq_norms on 8.
// Idea    A tile of 128 rows by 128 codewords, a warp 64 x 64 of it: 32 products of m16n8k16 for eight ldmatrix of four
//         matrices. Stages of 32 halves of depth come by asynchronous copies, two ahead, through the ends of tiles.
//         Rows of a stage are 64 bytes: 16-byte pieces are permuted by the row (XOR), so that eight rows of a matrix lie
//         in different banks. Scores never leave the registers: a thread keeps the best and second best of its eight rows,
//         and four lanes share out what they have seen in the end. Open rows, a few in a hundred, pass by once more to
//         list what can be the nearest: of two or three codewords f64 sums decide in no time (short_list.cu).
//         The machine code of a stage (ptxas 13, sm_90): 64 HMMA.16816, 16 LDSM.x4, 8 LDGSTS, one barrier in 154
//         instructions; the epilogue of a tile some 1250. Two blocks a multiprocessor by registers, no spill.
// Source  ours; stages, fragments and swizzle as in CUTLASS (include/cutlass/gemm/threadblock/mma_multistage.h).
// Measured on an H200: 131,072 x 256 by 1024 in 257 us, 267 TFLOP/s. Tensor cores are busy for 45 % of the time, issue
//         slots for 42 %: three quarters of the time pass in the loop over stages, where the two warps of a scheduler wait
//         for fixed latencies. Tried and slower: warps of 64 x 32, four to a scheduler (291 us); rows of the epilogue in
//         turn, and the copies between the two steps of a stage (274 us). Listing the 5200 open rows takes 25 us.
#include "best.cuh"
#include "ptx.cuh"
#include "shapes.h"

#define TENSOR_WARPS_ACROSS 2                                 // warps of a block along the codewords
#define TENSOR_WARPS (TENSOR_THREADS / WARP)
#define TENSOR_WARP_ROWS 64
#define TENSOR_WARP_COLS 64
#define TENSOR_PAIRS (TENSOR_WARP_COLS / 8)                   // pairs of neighbouring columns of a thread
#define TENSOR_THREAD_ROWS (TENSOR_WARP_ROWS / 8)             // rows of a thread
#define TENSOR_KEPT (TENSOR_THREAD_ROWS / 4)                  // rows of which it has the best in the end
#define TENSOR_PIECES (TENSOR_DEPTH / 8)                      // of 16 bytes, of a row of a stage
#define TENSOR_STRIDE (TENSOR_THREADS / TENSOR_PIECES)        // rows that are loaded at once

static_assert(TENSOR_ROWS == TENSOR_WARPS / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS, "warps cover the rows");
static_assert(TENSOR_COLS == TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS, "warps cover the codewords");
static_assert(TENSOR_ROWS == TENSOR_COLS && TENSOR_PIECES == 4, "threads load rows and codewords alike; see place_of");
static_assert(TENSOR_ROWS == TENSOR_THREADS, "a thread for each row in the end");
static_assert(TENSOR_ALIGN == 8 && TENSOR_STAGES >= 2, "a piece is there or not");
static_assert(2 * TENSOR_PAIRS <= 16, "a bit for each column of a thread");

// A stage in shared memory: as many steps of depth of the rows, then of the codewords.
#define TENSOR_SIDE (TENSOR_ROWS * TENSOR_DEPTH)
#define TENSOR_STAGE (2 * TENSOR_SIDE)

static_assert(sizeof(u16) * TENSOR_STAGE * TENSOR_STAGES <= 48 << 10, "static shared memory");
static_assert(sizeof(Best) * TENSOR_WARPS_ACROSS * TENSOR_ROWS <= sizeof(u16) * TENSOR_STAGE, "the end uses the first stage");
static_assert(TENSOR_STRIDE % 8 == 0 && TENSOR_DEPTH == 32, "see place_of");

// Where piece `piece` of a vector of a side lies, in bytes. Two vectors share the 32 banks, so pieces are permuted by pairs of
// vectors: the same for vectors that are a multiple of 8 apart, so that they are a constant apart; and 16 halves further
// on, two pieces, are bit 5 of the place.
static __device__ __forceinline__ u32 place_of(u32 vector, u32 piece) {
    return 2 * vector * TENSOR_DEPTH + 16 * (piece ^ (vector / 2 % TENSOR_PIECES));
}

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
        ldmatrix_x4(two, cols + 2 * 8 * j * TENSOR_DEPTH);
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
        if (i > 0) ldmatrix_x4(f.rows, rows + 2 * 16 * i * TENSOR_DEPTH);
#pragma unroll
        for (u32 j = 0; j < TENSOR_PAIRS; j++) mma_m16n8k16_f16(sum[i][j], f.rows, f.cols[j]);
    }
}

// The p-th vector of a side that this thread loads a piece of.
static __device__ __forceinline__ u32 loaded_row(u32 p) { return threadIdx.x / TENSOR_PIECES + p * TENSOR_STRIDE; }

// Passes codewords by rows: after each tile of codewords, a warp that has any of them and any row calls
// tile_end(tile, sums). row_at(p) is where the thread's p-th row begins that it loads, loaded_row(p) of the block; of
// rows from `rows_left` on nothing is read. All threads of the block call it.
template <class RowAt, class TileEnd>
static __device__ __forceinline__ void pass_codewords(u16* stages, RowAt row_at, u32 rows_left, const u16* codewords, u32 m,
                                                      u32 width, u32 first_tile, u32 last_tile, TileEnd tile_end) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 warp_row = warp / TENSOR_WARPS_ACROSS * TENSOR_WARP_ROWS, warp_col = warp % TENSOR_WARPS_ACROSS * TENSOR_WARP_COLS;
    SharedAt shared = shared_at(stages);
    u32 row_place = place_of(warp_row + lane % 16, lane / 16);
    u32 col_place = 2 * TENSOR_SIDE + place_of(warp_col + lane / 16 * 8 + lane % 8, lane / 8 % 2);

    // What this thread loads: its piece of every TENSOR_STRIDE-th vector. Addresses of what is not there are not read.
    const u32 vector = loaded_row(0), piece = threadIdx.x % TENSOR_PIECES;
    u32 to = place_of(vector, piece);
    keep(shared);
    keep(row_place);
    keep(col_place);
    keep(to);
    const u16* col_at = codewords + ((u64)first_tile * TENSOR_COLS + vector) * width + 8 * piece;
    u32 next_tile = first_tile, next_t = 0;
    auto load_next = [&](u32 stage) {
        if (next_tile < last_tile) {
            const u32 cols_left = m - next_tile * TENSOR_COLS;
            const bool inside = next_t + 8 * piece < width;
            const SharedAt at = shared + stage * (2 * TENSOR_STAGE) + to;
#pragma unroll
            for (u32 p = 0; p < TENSOR_ROWS / TENSOR_STRIDE; p++) {
                const u32 further = 2 * p * TENSOR_STRIDE * TENSOR_DEPTH;
                const bool is_row = inside && loaded_row(p) < rows_left;
                cp_async_16(at + further, row_at(p) + 8 * piece + next_t, is_row ? 16 : 0);
                const bool is_col = inside && loaded_row(p) < cols_left;
                cp_async_16(at + 2 * TENSOR_SIDE + further, col_at + (u64)width * (p * TENSOR_STRIDE) + next_t, is_col ? 16 : 0);
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
            const SharedAt stage = shared + current * (2 * TENSOR_STAGE);
            Fragments fragments;
            if (is_needed) load_fragments(fragments, stage + row_place, stage + col_place);
            load_next(current == 0 ? TENSOR_STAGES - 1 : current - 1);
            if (is_needed) {
                multiply(fragments, stage + row_place, sum);
                load_fragments(fragments, stage + (row_place ^ 32), stage + (col_place ^ 32));
                multiply(fragments, stage + (row_place ^ 32), sum);
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
            const float4 fact = facts[i];
            const float* s = &sum[i / 2][j][i % 2 * 2];
            use(i, 2 * j, __fmaf_rn(fact.z, length.x, __fmaf_rn(fact.x, bound.x, __fmaf_rn(fact.w, half.x, s[0]))));
            use(i, 2 * j + 1, __fmaf_rn(fact.z, length.y, __fmaf_rn(fact.x, bound.y, __fmaf_rn(fact.w, half.y, s[1]))));
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

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS, 2)
    assign_tensor_f16(const u16* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
                      const u16* __restrict__ codewords, const float* __restrict__ lengths,
                      const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                      const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                      u32* __restrict__ again_count, float* __restrict__ thresholds, u32* __restrict__ counts,
                      uint4* __restrict__ parts, u32 n, u32 m, u32 width, double unit, double tiny, u32 fast) {
    __shared__ __align__(16) u16 stages[TENSOR_STAGES * TENSOR_STAGE];
    const u64 first_row = (u64)blockIdx.x * TENSOR_ROWS;
    const u32 tiles = (u32)(((u64)m + TENSOR_COLS - 1) / TENSOR_COLS), run = (tiles - 1) / gridDim.y + 1;
    const u32 first_tile = blockIdx.y * run, last_tile = first_tile + run < tiles ? first_tile + run : tiles;
    const u32 rows_left = n - first_row < TENSOR_ROWS ? (u32)(n - first_row) : TENSOR_ROWS;
    const TensorCodewords e = {lengths, bounds, half_sq_norms};

    // Rows that are not there have the facts of the last one, and no score of theirs counts.
    auto fact_of = [&](u32 i) {
        const u32 row = thread_row(i) < rows_left ? thread_row(i) : rows_left - 1;
        return facts + first_row * FACTS + row * FACTS;
    };
    Best best[TENSOR_THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < TENSOR_THREAD_ROWS; i++) best[i] = best_of_nothing();
    const u16* first_at = rows + (first_row + loaded_row(0)) * width;
    auto row_at = [&](u32 p) { return first_at + (u64)width * (p * TENSOR_STRIDE); };
    pass_codewords(stages, row_at, rows_left, codewords, m, width, first_tile, last_tile,
                   [&](u32 tile, const TensorSums& sum) {
                       tile_scores(tile, sum, e, fact_of, [&](u32 i, u32 c, float score) {
                           best_add(best[i], score, thread_position(tile, c));
                       });
                   });

    // Join the lanes, then the warps along the codewords.
    Best* joined = reinterpret_cast<Best*>(stages);
    const u32 across = threadIdx.x / WARP % TENSOR_WARPS_ACROSS;
#pragma unroll
    for (u32 k = 0; k < TENSOR_KEPT; k++) joined[kept_row(k) * TENSOR_WARPS_ACROSS + across] = share_out(best, k);
    __syncthreads();  // All warps have written.
    if (threadIdx.x >= rows_left) return;
    Best of_row = joined[threadIdx.x * TENSOR_WARPS_ACROSS];
    for (u32 w = 1; w < TENSOR_WARPS_ACROSS; w++) of_row = best_join(of_row, joined[threadIdx.x * TENSOR_WARPS_ACROSS + w]);
    const u64 row = first_row + threadIdx.x;
    const Settle s = {facts, kinds,       bounds,     half_sq_norms, lengths, codeword_labels, labels,
                      again, again_count, thresholds, counts,        m,       1.0f,            unit, tiny, fast};
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
    __shared__ __align__(16) u16 stages[TENSOR_STAGES * TENSOR_STAGE];
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
        const u16* open_rows[TENSOR_ROWS / TENSOR_STRIDE];
#pragma unroll
        for (u32 p = 0; p < TENSOR_ROWS / TENSOR_STRIDE; p++) {
            open_rows[p] = rows + (loaded_row(p) < rows_left ? (u64)again[first + loaded_row(p)] : 0) * width;
        }
        pass_codewords(stages, [&](u32 p) { return open_rows[p]; }, rows_left, codewords, m, width, first_tile, last_tile,
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
