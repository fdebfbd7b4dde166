// The filter pass: the codeword of the largest score for every row, with its certificate.
//
//     score_ij = sum_t packed_row[i][t] packed_codeword[j][t]      (minus a lower bound of |e'_j|^2 / 2 - z'_i.e'_j)
//
// Inputs  rows [n, depth], facts [n, 4], kinds [n] of rows.cu; codewords [m, depth] f32, distinct, whose steps d and
//         d + 1 are the bound and half the squared norm; codeword_labels [m], ascending. depth = d + 2.
// Outputs labels [n] u32. again [n] u32: the rows that are not settled, in no particular order; again_count, which
//         the caller sets to zero. All allocated by the caller.
// Numbers f32 FMA in the order of score_tile.cuh. The lowest position wins among equal scores, a NaN never. A row is
//         settled iff lower(second) > upper(best), in f64 with the bounds of the codebook (panels.rs, `lower` and
//         `upper`); with `fast`, every packed row is. Wild rows never are. A row that is not finite gets SENTINEL.
// Launch  grid ceil(n / SCORE_ROWS), block 256 threads in one dimension, no dynamic shared memory.
// Idea    A block keeps the best and second best of its 64 rows in registers while all codewords pass by in tiles of
//         64; scores are never written. 4 x 4 scores per thread, operands in shared memory. Bound by shared memory.
// Source  ours.
// Measured not yet on a GPU.
#include "score_tile.cuh"

struct Best {
    float score;
    u32 position;
    float second;
};

// Joins what two threads saw: the larger score, of equals the lower position; the second largest of all.
static __device__ __forceinline__ Best join(const Best& a, const Best& b) {
    const bool b_wins = b.score > a.score || (b.score == a.score && b.position < a.position);
    const float loser = b_wins ? a.score : b.score;
    const float second = a.second > b.second ? a.second : b.second;
    return {b_wins ? b.score : a.score, b_wins ? b.position : a.position, loser > second ? loser : second};
}

extern "C" __global__ void __launch_bounds__(SCORE_THREADS)
    assign_f32(const float* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
               const float* __restrict__ codewords, const u32* __restrict__ codeword_labels, u32* __restrict__ labels,
               u32* __restrict__ again, u32* __restrict__ again_count, u32 n, u32 m, u32 depth, double unit,
               double tiny, u32 fast) {
    __shared__ ScoreTile tile;
    const u32 tx = threadIdx.x % SCORE_SIDE, ty = threadIdx.x / SCORE_SIDE;
    const u64 first_row = (u64)blockIdx.x * SCORE_ROWS;
    const float lowest = __uint_as_float(0xff800000u);  // minus infinity

    Best best[SCORE_ROWS_EACH];
    for (int i = 0; i < SCORE_ROWS_EACH; i++) best[i] = {lowest, 0xffffffffu, lowest};

    // Pass all codewords by; positions ascend, so that the first of equal scores stays.
    for (u64 first_col = 0; first_col < m; first_col += SCORE_COLS) {
        float scores[SCORE_ROWS_EACH][SCORE_COLS_EACH];
        score_tile(tile, rows, first_row, n, codewords, first_col, m, (const u32*)0, depth, scores);
        for (int c = 0; c < SCORE_COLS_EACH; c++) {
            const u64 position = first_col + c * SCORE_SIDE + tx;
            if (position >= m) continue;
            for (int i = 0; i < SCORE_ROWS_EACH; i++) {
                const float score = scores[i][c];
                if (score > best[i].score) {
                    best[i] = {score, (u32)position, best[i].score};
                } else if (score > best[i].second) {
                    best[i].second = score;
                }
            }
        }
    }

    // Join the 16 threads of each row: they are one half of a warp.
    for (int i = 0; i < SCORE_ROWS_EACH; i++) {
        for (int offset = SCORE_SIDE / 2; offset > 0; offset /= 2) {
            Best other;
            other.score = __shfl_xor_sync(FULL_WARP, best[i].score, offset);
            other.position = __shfl_xor_sync(FULL_WARP, best[i].position, offset);
            other.second = __shfl_xor_sync(FULL_WARP, best[i].second, offset);
            best[i] = join(best[i], other);
        }
    }
    if (tx != 0) return;

    for (int i = 0; i < SCORE_ROWS_EACH; i++) {
        const u64 row = first_row + ty * SCORE_ROWS_EACH + i;
        if (row >= n) return;
        const u32 kind = kinds[row];
        if (kind == KIND_NON_FINITE) {
            labels[row] = SENTINEL;
            continue;
        }
        bool settled = false;
        labels[row] = 0;
        if (kind == KIND_PACKED && best[i].position < m) {
            const float* codeword = codewords + (u64)best[i].position * depth;
            const float* fact = facts + row * FACTS;
            const double top = best[i].score, rival = best[i].second;
            const double bound = 2.0 * (double)fact[FACT_NORM] * (double)codeword[depth - 2];
            const double half = 8.0 * unit * (double)fact[FACT_RATIO] * (double)codeword[depth - 1];
            const double upper = -top + unit * fabs(top) + bound * 1.000001 + half + tiny;
            const double lower = -rival - unit * fabs(rival) - tiny;
            labels[row] = codeword_labels[best[i].position];
            // Written so that a NaN does not settle the row. No rival at all is minus infinity.
            settled = fast || best[i].second == lowest || lower > upper;
        }
        if (!settled) again[atomicAdd(again_count, 1u)] = (u32)row;
    }
}
