// The filter pass on tensor cores: the codeword of the largest score for every row, with its certificate.
//
//     score_ij = z^_i.e^_j - c_i |e'_j|^2 / 2 + nz_i B_j + rho_i A_j
//
// a lower bound of |e'_j|^2 / 2 - z'_i.e'_j, its sign changed; z', e' the exact centred vectors in the scales of their f16
// operands z^, e^ (rows_tensor.cu).
//
// Inputs  rows [n, width] f16 in whole tiles (tensor_tiles.cuh), facts [n, 4], kinds [n] of rows_tensor.cu; codewords
//         [m, width] f16 likewise, lengths (A), bounds (B), half_sq_norms [m] padded to whole tiles, of its entry for
//         codewords; codeword_labels [m], ascending. width is a multiple of TENSOR_ALIGN.
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
//         A stage is as its operands lie in device memory: eight rows of a matrix are 128 bytes side by side, in different
//         banks, and warps copy runs of 512 bytes. Scores never leave the registers: a thread keeps the best and second
//         best of its eight rows, and four lanes share out what they have seen in the end. Open rows, a few in a hundred,
//         pass by once more to list what can be the nearest: of two or three codewords f64 sums decide in no time
//         (short_list.cu).
//         The machine code of a stage (ptxas 13, sm_90): 64 HMMA.16816, 16 LDSM.x4, 8 LDGSTS, one barrier in 141
//         instructions; the epilogue of a tile some 1250. Two blocks a multiprocessor by registers, no spill.
// Source  ours; stages and fragments as in CUTLASS (include/cutlass/gemm/threadblock/mma_multistage.h).
// Measured on an H200, of the layout before (vector by vector, permuted in shared memory): 131,072 x 256 by 1024 in 257 us,
//         267 TFLOP/s. Tensor cores are busy for 45 % of the time, issue slots for 42 %: three quarters of the time pass in
//         the loop over stages, where the two warps of a scheduler wait for fixed latencies. Tried and slower: warps of
//         64 x 32, four to a scheduler (291 us); rows of the epilogue in turn, and the copies between the two steps of a
//         stage (274 us). Listing the 5200 open rows took 25 us, in tiles 31.
#include "assign_tensor.cuh"

extern "C" __global__ void __launch_bounds__(TENSOR_THREADS, 2)
    assign_tensor_f16(const u16* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
                      const u16* __restrict__ codewords, const float* __restrict__ lengths,
                      const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                      const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                      u32* __restrict__ again_count, float* __restrict__ thresholds, u32* __restrict__ counts,
                      uint4* __restrict__ parts, u32 n, u32 m, u32 width, double unit, double tiny, u32 fast) {
    __shared__ __align__(16) unsigned char stages[TENSOR_STAGES * STAGE_BYTES];
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
    const u16* row_at = rows + tile_place(first_row + threadIdx.x, width);
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
