// The best and second best score of a row, how two such pairs join, and what they settle: the end of the filter pass,
// shared by its designs assign.cu, assign_tile.cu and assign_tensor.cu.
#pragma once
#include "common.cuh"

// The larger the score, the nearer the codeword. `position` is that of the best, the lowest among equal scores.
struct Best {
    float score;
    u32 position;
    float second;
};

#define LOWEST_SCORE __uint_as_float(0xff800000u)  // minus infinity

static __device__ __forceinline__ Best best_of_nothing() { return {LOWEST_SCORE, 0xffffffffu, LOWEST_SCORE}; }

// Positions have to ascend from call to call, so that the first of equal scores stays. A NaN changes nothing.
static __device__ __forceinline__ void best_add(Best& best, float score, u32 position) {
    const bool wins = score > best.score;
    const float loser = wins ? best.score : score;
    best.score = wins ? score : best.score;
    best.position = wins ? position : best.position;
    best.second = fmaxf(best.second, loser);  // One instruction; of a number and a NaN, the number.
}

// Joins what was seen in two places, in whatever order: the larger score, of equals the lower position; the second
// largest of all.
static __device__ __forceinline__ Best best_join(const Best& a, const Best& b) {
    // Without branches.
    const bool b_wins = (b.score > a.score) | ((b.score == a.score) & (b.position < a.position));
    const float loser = b_wins ? a.score : b.score;
    return {b_wins ? b.score : a.score, b_wins ? b.position : a.position, fmaxf(loser, fmaxf(a.second, b.second))};
}

// Joins 2 `reach` neighbouring lanes of a full warp; each has the result.
static __device__ __forceinline__ Best best_of_lanes(Best best, int reach) {
    for (int offset = reach; offset > 0; offset /= 2) {
        Best other;
        other.score = __shfl_xor_sync(FULL_WARP, best.score, offset);
        other.position = __shfl_xor_sync(FULL_WARP, best.position, offset);
        other.second = __shfl_xor_sync(FULL_WARP, best.second, offset);
        best = best_join(best, other);
    }
    return best;
}

// As four words in device memory, the last of which says nothing.
static __device__ __forceinline__ void best_store(uint4* to, const Best& best) {
    *to = make_uint4(__float_as_uint(best.score), best.position, __float_as_uint(best.second), 0u);
}

static __device__ __forceinline__ Best best_load(const uint4* from) {
    const uint4 words = *from;
    return {__uint_as_float(words.x), words.y, __uint_as_float(words.z)};
}

// What settles rows. facts [n, 4] and kinds [n] of rows.cu; bounds and halves [m]: steps d and d + 1 of the packed
// codewords; codeword_labels [m]. labels, again, again_count are outputs.
struct Settle {
    const float* facts;
    const u32* kinds;
    const float* bounds;
    const float* halves;
    const float* lengths;  // [m] norms that a row's rounding is multiplied with, or null
    const u32* codeword_labels;
    u32* labels;
    u32* again;
    u32* again_count;
    float* thresholds;  // [n] of the open rows, in the order of `again`, or null: see below
    u32* counts;        // [n] likewise: zeros, if thresholds are asked for
    u32 m;
    float widening;
    double unit;
    double tiny;
    u32 fast;
};

// Gives a row its label, and lists it in `again` where the certificate does not hold: lower(second) > upper(best), in
// f64 with the bounds of the codebook (panels.rs, `lower` and `upper`), which `widening` times the row's norm widens. The
// threshold of an open row: every codeword that can be the nearest, lower(score) <= upper(best), has a score of at least
// that, |score| <= |upper + tiny| (1 + 2 unit) being all it can be off; a NaN, which no score reaches, where nothing is known.
static __device__ __forceinline__ void settle(const Settle& s, u64 row, const Best& best) {
    const u32 kind = s.kinds[row];
    if (kind == KIND_NON_FINITE) {
        s.labels[row] = SENTINEL;
        return;
    }
    bool settled = false;
    u32 label = 0;
    float threshold = __uint_as_float(0x7fc00000u);
    if (kind == KIND_PACKED && best.position < s.m) {
        const float* fact = s.facts + row * FACTS;
        const double top = best.score, rival = best.second;
        const double norm = (double)fact[FACT_NORM] * (double)s.widening;
        const double rounding = s.lengths ? (double)fact[FACT_ROUNDING] * (double)s.lengths[best.position] : 0.0;
        const double bound = 2.0 * (norm * (double)s.bounds[best.position] + rounding);
        const double half = 8.0 * s.unit * (double)fact[FACT_RATIO] * (double)s.halves[best.position];
        const double upper = -top + s.unit * fabs(top) + bound * 1.000001 + half + s.tiny;
        const double lower = -rival - s.unit * fabs(rival) - s.tiny;
        label = s.codeword_labels[best.position];
        // Written so that a NaN does not settle the row. No rival at all is minus infinity.
        settled = s.fast || best.second == LOWEST_SCORE || lower > upper;
        threshold = __double2float_rd(-(upper + s.tiny) - 2.0 * s.unit * fabs(upper + s.tiny));
    }
    s.labels[row] = label;
    if (settled) return;
    const u32 slot = atomicAdd(s.again_count, 1u);
    s.again[slot] = (u32)row;
    if (s.thresholds) {
        s.thresholds[slot] = threshold;
        s.counts[slot] = 0;
    }
}
