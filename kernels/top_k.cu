// The r nearest codewords of every row, nearest first, equal distances by index.
//
//     labels[i] = the first r of all j by (sum_t (z_it - e_jt)^2, j)      sq_distances[i] = these sums, rounded
//
// Inputs  z [n, d] f32, as stored, rows z_stride elements apart; rows [n, depth], facts [n, 4], kinds [n] of
//         rows.cu; codewords [k, d] f32, as stored; packed [m, depth]: the distinct ones as the filter reads them;
//         positions [k]: the packed codeword that equals codeword j. depth = d + 2; 1 <= r <= k.
// Between scores [n, k] f32, written by top_k_scores_f32; candidates [n, k] u32 and values [n, k] f64, of top_k_f32.
// Outputs labels [n, r] u32, sq_distances [n, r] f32; SENTINEL and a NaN where the row is not finite. status: counts
//         of rows settled by f64 and by exact sums are added to. All allocated by the caller.
// Numbers The score is minus a lower bound of |e'|^2 / 2 - z'.e'; f32 FMA in the order of score_tile.cuh. Of the r
//         largest, the largest upper bound is a limit that r codewords keep, so those whose lower bound lies above it
//         are out (f64, the bounds of panels.rs). The others are ordered by f64 sums where these are apart or round
//         nothing, else by exact sums. With `fast`, by the score alone. Ranks are counts and the order of threads
//         decides no bit. A wild row takes all codewords for candidates.
// Launch  scores: grid (ceil(n / SCORE_ROWS), ceil(k / SCORE_COLS) at most 65535: blocks take columns in turn), block
//         256. top_k: grid n, block TOP_K_THREADS in one dimension. No dynamic shared memory.
// Idea    A radix selection finds the r-th largest score in three passes over them, then two more list what is left:
//         r codewords and a few. The rank of each is the number of candidates before it: c candidates cost c^2
//         comparisons, nothing for tens, too much for many thousands. 32 candidates at a time stand still while the
//         others pass by, a lane each; where exact sums decide, each is formed once per 32 rivals. Bound by the
//         product.
// Source  ours; the CPU's twin is src/backend/cpu/top_k.rs.
// Measured not yet on a GPU.
#include "direct.cuh"
#include "score_tile.cuh"
#include "select.cuh"

#define WARPS (TOP_K_THREADS / WARP)
#define NO_BIT 0xffffffffu

extern "C" __global__ void __launch_bounds__(SCORE_THREADS, SCORE_BLOCKS)
    top_k_scores_f32(const float* __restrict__ rows, const float* __restrict__ packed,
                     const u32* __restrict__ positions, float* __restrict__ scores, u32 n, u32 k, u32 depth) {
    __shared__ ScoreTile tile;
    const u64 first_row = (u64)blockIdx.x * SCORE_ROWS;
    for (u64 first_col = (u64)blockIdx.y * SCORE_COLS; first_col < k; first_col += (u64)gridDim.y * SCORE_COLS) {
        float total[SCORE_EACH][SCORE_EACH];
        score_tile(tile, rows, first_row, n, packed, first_col, k, positions, depth, total);
        for (u32 i = 0; i < SCORE_EACH; i++) {
            const u64 row = first_row + score_row(i);
            if (row >= n) continue;
            for (u32 c = 0; c < SCORE_EACH; c++) {
                const u64 col = first_col + score_col(c);
                if (col < k) scores[row * k + col] = total[i][c];
            }
        }
    }
}

// How many places above 2^-149 the lowest bit lies that is set in any component; NO_BIT where all are zero.
static __device__ u32 warp_lowest_bit(const float* row, u32 d, u32 lane) {
    u32 lowest = NO_BIT;
    for (u32 t = lane; t < d; t += WARP) {
        const u32 bits = __float_as_uint(row[t]), exponent = (bits >> 23) & 255u;
        const u32 fraction = (bits & 0x7fffffu) | (exponent ? 0x800000u : 0u);
        if (fraction == 0) continue;
        const u32 bit = (exponent ? exponent - 1u : 0u) + (u32)__ffs((int)fraction) - 1u;
        lowest = bit < lowest ? bit : lowest;
    }
    return ~warp_max(~lowest);
}

// |e|^2 - 2 z.e, exactly: it orders codewords like the distance.
static __device__ void warp_exact(ExactSum& sum, const float* z, const float* e, u32 d, u32 lane) {
    exact_clear(sum, lane);
    exact_add_order(sum, z, e, d, lane);
    exact_settle(sum, lane);
}

struct Candidate {
    double value;
    u32 label;
    u32 position;
};

enum Order { BEFORE, AFTER, OPEN };

// Whether a comes before b, as far as f64 can tell. `decided` says that equal values are equal numbers.
static __device__ __forceinline__ Order order_of(const Candidate& a, const Candidate& b, double slack, bool decided) {
    if (decided || fabs(a.value - b.value) > slack * (a.value + b.value)) {
        if (a.value != b.value) return a.value < b.value ? BEFORE : AFTER;
    } else if (a.position != b.position && a.value != 0.0) {
        return OPEN;
    }
    // Equal in the real numbers, one codeword twice, or both zero.
    return a.label < b.label ? BEFORE : AFTER;
}

struct Ranking {
    Candidate own[WARP];
    u32 ranks[WARP];
    u32 open;
    ExactSum own_sums[WARP];
    ExactSum sums[WARPS];
};

struct Shared {
    u64 limit;
    u64 largest;
    u32 lowest_bit;
    u32 count;
    u32 exact_used;
};

extern "C" __global__ void __launch_bounds__(TOP_K_THREADS, 3)
    top_k_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ facts,
              const u32* __restrict__ kinds, const float* __restrict__ codewords, const float* __restrict__ packed,
              const u32* __restrict__ positions, const float* __restrict__ scores, u32* __restrict__ candidates,
              double* __restrict__ values, u32* __restrict__ labels, float* __restrict__ sq_distances,
              u64* __restrict__ status, u32 k, u32 d, u32 r, double unit, double tiny, double slack, u32 fast) {
    __shared__ Selection selection;
    __shared__ Ranking ranking;
    __shared__ Shared shared;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u64 row = blockIdx.x;
    const u32 kind = kinds[row];
    labels += row * r;
    sq_distances += row * r;
    if (kind == KIND_NON_FINITE) {
        for (u64 i = threadIdx.x; i < r; i += TOP_K_THREADS) {
            labels[i] = SENTINEL;
            sq_distances[i] = __uint_as_float(0x7fc00000u);
        }
        return;
    }
    const float* x = z + row * z_stride;
    scores += row * k;
    candidates += row * k;
    values += row * k;
    const bool by_score = fast && kind == KIND_PACKED;
    if (threadIdx.x == 0) shared = {0, 0, NO_BIT, 0, 0};
    __syncthreads();  // The state of the row is there.

    // Find what a candidate has to reach.
    u32 threshold = 0;
    if (kind == KIND_PACKED && r < k) {
        threshold = block_nth_largest(selection, ScoreKeys{scores, k}, r);
        if (!fast) {
            // The largest upper bound of r codewords, or more where scores are equal.
            const float* fact = facts + row * FACTS;
            for (u64 j = threadIdx.x; j < k; j += TOP_K_THREADS) {
                if (key_of(scores[j]) < threshold) continue;
                const float* codeword = packed + (u64)positions[j] * ((u64)d + 2);
                const double score = scores[j];
                const double bound = 2.0 * (double)fact[FACT_NORM] * (double)codeword[d];
                const double half = 8.0 * unit * (double)fact[FACT_RATIO] * (double)codeword[d + 1];
                const double upper = -score + unit * fabs(score) + bound * 1.000001 + half + tiny;
                atomicMax(&shared.limit, key_of(upper));
            }
            __syncthreads();  // The limit is known.
            const double score = -double_of(shared.limit) - tiny;
            // A step down: the operations above round as well.
            threshold = key_of(__double2float_rn(score - 2.0 * unit * fabs(score))) - 1u;
        }
    }

    // List the candidates.
    for (u64 j = threadIdx.x; j < k; j += TOP_K_THREADS) {
        if (key_of(scores[j]) < threshold) continue;
        const u32 slot = atomicAdd(&shared.count, 1u);
        candidates[slot] = (u32)j;
        if (by_score) values[slot] = -(double)scores[j];
    }
    __syncthreads();  // The list is complete.
    const u32 count = shared.count;

    // Measure them, and look whether f64 can have rounded anything: see src/backend/cpu/direct.rs `f64_is_exact`.
    if (!by_score) {
        if (warp == 0) {
            const u32 bit = warp_lowest_bit(x, d, lane);
            if (lane == 0) atomicMin(&shared.lowest_bit, bit);
        }
        for (u64 c = warp; c < count; c += WARPS) {
            const float* e = codewords + (u64)candidates[c] * d;
            const double value = warp_sq_l2_f64(x, e, d, lane);
            const u32 bit = warp_lowest_bit(e, d, lane);
            if (lane != 0) continue;
            values[c] = value;
            atomicMax(&shared.largest, (u64)__double_as_longlong(value));  // Not negative: bits order like numbers.
            atomicMin(&shared.lowest_bit, bit);
        }
        __syncthreads();  // All values are there.
    }
    bool decided = fast || shared.lowest_bit == NO_BIT;
    if (!decided) {
        // 2^(53 + 2 q), where q = lowest_bit - 149.
        const double reach = __longlong_as_double((i64)(53 + 2 * ((int)shared.lowest_bit - 149) + 1023) << 52);
        decided = __longlong_as_double((i64)shared.largest) * (1.0 + slack) < reach;
    }

    // Rank 32 candidates at a time: lane p counts who comes before the p-th of them.
    for (u64 first = 0; first < count; first += WARP) {
        const u32 n_own = count - first < WARP ? (u32)(count - first) : (u32)WARP;
        __syncthreads();  // Nobody reads the candidates before these.
        if (threadIdx.x < n_own) {
            const u32 label = candidates[first + threadIdx.x];
            ranking.own[threadIdx.x] = {values[first + threadIdx.x], label, positions[label]};
            ranking.ranks[threadIdx.x] = 0;
        }
        if (threadIdx.x == 0) ranking.open = 0;
        __syncthreads();  // They are there.
        u32 rank = 0, summed = 0;
        for (u64 start = 0; start < count; start += TOP_K_THREADS) {
            const u64 c = start + threadIdx.x;
            const bool inside = c < count;
            const u32 label = inside ? candidates[c] : 0;
            const Candidate rival = {inside ? values[c] : 0.0, label, positions[label]};
            u32 open = 0, open_rivals = 0;
            for (u32 p = 0; p < n_own; p++) {
                const Order order = order_of(rival, ranking.own[p], slack, decided);
                const u32 before = __ballot_sync(FULL_WARP, inside && order == BEFORE);
                const u32 undecided = __ballot_sync(FULL_WARP, inside && order == OPEN);
                open_rivals |= undecided;
                if (lane == p) {
                    rank += (u32)__popc(before);
                    open = undecided;
                }
            }
            if (!__syncthreads_or(open_rivals != 0)) continue;

            // Exact sums decide what is open: of the 32 that stand still once, of each rival as it passes by.
            if (open) atomicOr(&ranking.open, 1u << lane);
            __syncthreads();  // It is known whose sums are needed.
            const u32 missing = ranking.open & ~summed;
            for (u32 p = warp; p < n_own; p += WARPS) {
                if (!(missing >> p & 1u)) continue;
                warp_exact(ranking.own_sums[p], x, codewords + (u64)ranking.own[p].label * d, d, lane);
            }
            summed |= missing;
            __syncthreads();  // The sums are there.
            for (u32 rest = open_rivals; rest; rest &= rest - 1) {
                const u32 at = (u32)__ffs((int)rest) - 1u;
                const u32 other = __shfl_sync(FULL_WARP, label, at);
                warp_exact(ranking.sums[warp], x, codewords + (u64)other * d, d, lane);
                if (open >> at & 1u) {
                    const int order = exact_compare(ranking.sums[warp], ranking.own_sums[lane]);
                    if (order < 0 || (order == 0 && other < ranking.own[lane].label)) rank++;
                }
                __syncwarp();  // All lanes have compared before the sum changes.
            }
            if (threadIdx.x == 0) shared.exact_used = 1;
        }
        if (lane < n_own && rank) atomicAdd(&ranking.ranks[lane], rank);
        __syncthreads();  // The ranks are complete.
        if (threadIdx.x < n_own && ranking.ranks[threadIdx.x] < r) {
            labels[ranking.ranks[threadIdx.x]] = ranking.own[threadIdx.x].label;
        }
    }
    __syncthreads();  // All labels are written, and nobody needs the sums any more.

    for (u64 i = warp; i < r; i += WARPS) {
        const float rounded = warp_round_sq_l2(x, codewords + (u64)labels[i] * d, d, slack, ranking.sums[warp], lane);
        if (lane == 0) sq_distances[i] = rounded;
    }
    if (threadIdx.x == 0 && !fast && (shared.exact_used || count > r)) {
        atomicAdd(&status[shared.exact_used ? STATUS_EXACT : STATUS_F64], (u64)1);
    }
}
