// Rows and codewords on their way to the tensor cores: z' = z - mean as f16, scaled by a power of two, and how far that
// is off.
//
//     halves[i] = f16(z'_i 2^s)      facts[i] = (|halves_i|, c, |z'_i 2^s - halves_i|, -c (1 - 2^-22)), norms rounded up
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; mean [d] f32. For codewords: packed [m, d + 2] of a
//         prepared codebook.
// Outputs halves [n, tensor_width(d)] f16 in whole tiles (tensor_tiles.cuh), zeros from d on; a row that is not packed is
//         zero, and so are those of the last tile that are not there. facts [n, 4], kinds [n], status as in rows.cu;
//         facts 2 and 3 are those of FACT_ROUNDING, FACT_WEIGHT.
//         Of codewords halves likewise and, padded to whole tiles of TENSOR_COLS, lengths (|e'|), bounds (|e' - halves|
//         + accumulation |halves|), half squared norms; padding is 0, 0, infinity. All allocated by the caller.
// Numbers z' is one rounded f32 subtraction, within 2^-24 |z'|; its scaling rounds nothing but underflow, below 2^-137 a
//         component. The difference to the nearest f16 is exact. Sums of squares are f32 in any order, and norms cover
//         that (norm_up), and the rounding of the subtraction, and are rounded up. A row's scale, kind and ratio c are
//         those of rows.cu, times 2^TENSOR_SHIFT on either side: magnitudes lie in [2^13, 2^15), below it where the row
//         is much shorter than the codewords. lengths and bounds of codewords are 2^-20 longer than that, for what the
//         epilogue of assign_tensor.cu rounds.
// Launch  rows: a block takes ROWS_PER_BLOCK x max(TENSOR_WARP_PACKS, 64 / L) rows, where L lanes share two rows: the
//         smallest power of two that has one for every four halves, 32 at most; a grid of as many blocks as cover whole
//         tiles. Codewords: grid padded / (2 ROWS_PER_BLOCK), a warp for each two. Block 32 x ROWS_PER_BLOCK threads in
//         one dimension, no dynamic shared memory. halves and facts on 16 bytes.
// Idea    Rows of f32 are read once, in 128-bit loads where they lie so; up to 256 elements stay in registers. The halves
//         of a row lie 2 KB apart, 16 bytes at a time. So lanes take two neighbouring rows at once, and lanes 2 j and
//         2 j + 1, which hold the same eight halves of both, exchange them: their two stores fill 32 bytes, all that device
//         memory moves at least. Bound by memory.
// Source  ours.
// Measured on an H200: 131,072 x 256 of f32 in 55 to 57 us, 3.6 TB/s of the 4.3 that a copy moves; x 128 in 37 us. With one row at
//         a time and conversions in software 77.
#include "ptx.cuh"
#include "rows.cuh"
#include "shapes.h"
#include "tensor_tiles.cuh"

static_assert(ROWS_PER_BLOCK * WARP <= 1024, "a block holds at most 1024 threads");
static_assert(TENSOR_SHIFT <= 13, "halves stay below 2^15 < 65504");
static_assert(TENSOR_ALIGN >= 16, "four lanes or more share two rows");
static_assert(TENSOR_TILE % (ROWS_PER_BLOCK * TENSOR_WARP_PACKS) == 0 && TENSOR_TILE % (ROWS_PER_BLOCK * 16) == 0,
              "blocks are parts of tiles");
static_assert(TENSOR_COLS % (2 * ROWS_PER_BLOCK) == 0 && TENSOR_COLS % TENSOR_TILE == 0, "padding is whole blocks and tiles");

// What a warp learns while it rounds a vector.
struct Rounded {
    float sq_norm;      // of what was rounded
    float sq_halves;    // of the result
    float sq_rounding;  // of the difference
};

static __device__ __forceinline__ void add_rounded(float value, u16 bits, Rounded& sums) {
    const float half = to_f32(F16{bits});
    const float off = __fsub_rn(value, half);
    sums.sq_norm = __fmaf_rn(value, value, sums.sq_norm);
    sums.sq_halves = __fmaf_rn(half, half, sums.sq_halves);
    sums.sq_rounding = __fmaf_rn(off, off, sums.sq_rounding);
}

static __device__ __forceinline__ u32 round_pair(float low, float high, Rounded& sums) {
    const u32 bits = f16_pair_bits(low, high);
    add_rounded(low, (u16)bits, sums);
    add_rounded(high, (u16)(bits >> 16), sums);
    return bits;
}

static __device__ __forceinline__ uint2 round_four(const float4& four, Rounded& sums) {
    return make_uint2(round_pair(four.x, four.y, sums), round_pair(four.z, four.w, sums));
}

// Two lanes, the second an odd one, hold four halves each of the same eight of two neighbouring vectors. The first writes
// all eight of the first vector, the second those of the other, each to its own `to`. The whole warp calls it.
static __device__ __forceinline__ void store_eight(u16* to, const uint2 (&fours)[2], bool is_there) {
    const bool odd = threadIdx.x % 2;
    const uint2 own = odd ? fours[1] : fours[0], given = odd ? fours[0] : fours[1];
    uint2 taken;
    taken.x = __shfl_xor_sync(FULL_WARP, given.x, 1);
    taken.y = __shfl_xor_sync(FULL_WARP, given.y, 1);
    const uint4 eight = odd ? make_uint4(taken.x, taken.y, own.x, own.y) : make_uint4(own.x, own.y, taken.x, taken.y);
    if (is_there) *reinterpret_cast<uint4*>(to) = eight;
}

// Joins what `lanes` lanes have of the two vectors that they share: even lanes get the result of the first, odd ones that of
// the second. The whole warp calls it.
template <class T, class Join>
static __device__ __forceinline__ T join_lanes(const T (&of)[2], u32 lanes, Join join) {
    const bool odd = threadIdx.x % 2;
    T own = join(odd ? of[1] : of[0], __shfl_xor_sync(FULL_WARP, odd ? of[0] : of[1], 1));
#pragma unroll
    for (u32 offset = WARP / 2; offset > 1; offset /= 2) {
        if (offset < lanes) own = join(own, __shfl_xor_sync(FULL_WARP, own, offset));
    }
    return own;
}

static __device__ __forceinline__ Rounded sum_of_lanes(const Rounded (&of)[2], u32 lanes) {
    const float sq_norms[2] = {of[0].sq_norm, of[1].sq_norm};
    const float sq_halves[2] = {of[0].sq_halves, of[1].sq_halves};
    const float sq_roundings[2] = {of[0].sq_rounding, of[1].sq_rounding};
    auto add = [](float one, float other) { return __fadd_rn(one, other); };
    return {join_lanes(sq_norms, lanes, add), join_lanes(sq_halves, lanes, add), join_lanes(sq_roundings, lanes, add)};
}

// The norm of the rounding against the exact vector: a rounded difference lies 2^-24 of itself beside the real one.
static __device__ __forceinline__ double rounding_up(const Rounded& sums, u32 d) {
    return (double)norm_up(sums.sq_rounding, d, 0) + (double)norm_up(sums.sq_norm, d, 0) * 1.000001 * wide_power_of_two(-24);
}

struct TensorRowsArgs {
    const float* mean;
    u16* halves;
    float* facts;
    u32* kinds;
    u64* status;
    u64 stride;
    u64 first_row;
    u32 n;
    u32 d;
    int codebook_shift;
    u32 plain;
    u32 report;
};

static __device__ __forceinline__ u32 max_of_four(u32 most, const float4& four) {
    const u32 bits[4] = {__float_as_uint(four.x), __float_as_uint(four.y), __float_as_uint(four.z), __float_as_uint(four.w)};
#pragma unroll
    for (u32 i = 0; i < 4; i++) most = (bits[i] & MAGNITUDE_BITS) > most ? bits[i] & MAGNITUDE_BITS : most;
    return most;
}

// A warp packs TENSOR_WARP_PACKS rows, or two for each of its groups of lanes if that is more: `lanes` of them share two
// rows, so that short rows go many at a time. What a lane does once per row, it does in the end for a row of its own.
// Of each row a lane keeps FOURS fours between its two passes by it; the others are read again.
template <bool WHOLE, u32 FOURS, class T>
static __device__ __forceinline__ void pack_rows_as(const T* x, const TensorRowsArgs& a) {
    const u32 width = tensor_width(a.d), shift = fours_shift(width);
    const u32 lanes = 1u << shift, lane = threadIdx.x % WARP, in_group = lane & (lanes - 1);
    const u32 rows_at_once = 2 * (WARP >> shift);
    const u32 turns = rows_at_once < TENSOR_WARP_PACKS ? TENSOR_WARP_PACKS / rows_at_once : 1;
    const u64 first_row =
        ((u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP) * (turns * rows_at_once) + 2 * (lane / lanes);
    const float more = power_of_two(TENSOR_SHIFT);

    RowScale own_found = {KIND_WILD, 0, 0};
    Rounded own_sums = {0.0f, 0.0f, 0.0f};
    for (u32 turn = 0; turn < turns; turn++) {
        const u64 row = first_row + turn * rows_at_once;
        const T* z = x + row * a.stride;

        // Find the largest magnitudes, and from them the kind of each row and its scale.
        float4 kept[FOURS][2];
        u32 centred[2] = {0, 0};
        auto place = [&](u32 c) { return 4 * ((c << shift) + in_group); };
        auto length = [&](u32 r) { return row + r < a.n ? a.d : 0; };  // Rows that are not there are empty.
        auto read = [&](u32 t, float4 (&off_centre)[2]) {
            const float4 mean = load_four(a.mean, t, a.d, WHOLE);
#pragma unroll
            for (u32 r = 0; r < 2; r++) {
                const float4 value = load_four(z + r * a.stride, t, length(r), WHOLE);
                off_centre[r] = make_float4(__fsub_rn(value.x, mean.x), __fsub_rn(value.y, mean.y),
                                            __fsub_rn(value.z, mean.z), __fsub_rn(value.w, mean.w));
            }
        };
        auto scan = [&](u32 t, float4 (&off_centre)[2]) {
            read(t, off_centre);
#pragma unroll
            for (u32 r = 0; r < 2; r++) centred[r] = max_of_four(centred[r], off_centre[r]);
        };
#pragma unroll
        for (u32 c = 0; c < FOURS; c++) {
            scan(place(c), kept[c]);
        }
        for (u32 t = place(FOURS); t < a.d; t += 4 * lanes) {
            float4 off_centre[2];
            scan(t, off_centre);
        }
        auto larger = [](u32 one, u32 other) { return other > one ? other : one; };
        const u32 most = join_lanes(centred, lanes, larger);
        // Whatever is not finite is not so off the centre either: only then it is worth a look which of them it was.
        u32 raw = 0;
        if (__any_sync(FULL_WARP, most >= INFINITE_BITS)) {
            u32 both[2] = {0, 0};
#pragma unroll
            for (u32 r = 0; r < 2; r++) {
                for (u32 t = place(0); t < length(r); t += 4 * lanes) {
                    both[r] = max_of_four(both[r], load_four(z + r * a.stride, t, a.d, WHOLE));
                }
            }
            raw = join_lanes(both, lanes, larger);
        }
        const RowScale found = row_scale(raw, most, a.codebook_shift);

        // Say where the first value is that is not finite; the whole warp, row by row.
        for (u32 bad = __ballot_sync(FULL_WARP, found.kind == KIND_NON_FINITE && in_group < 2); bad; bad &= bad - 1) {
            const u64 its_row = __shfl_sync(FULL_WARP, row + lane % 2, __ffs((int)bad) - 1);
            report_bad_row(x + its_row * a.stride, a.d, a.first_row + its_row, a.report, a.status);
        }

        // Round. What is not packed, or not there, is zero, and so is its scale.
        const float own_scale = found.kind == KIND_PACKED && row + lane % 2 < a.n ? power_of_two(found.shift) : 0.0f;
        const float its_scale = __shfl_xor_sync(FULL_WARP, own_scale, 1);
        const float scale[2] = {lane % 2 ? its_scale : own_scale, lane % 2 ? own_scale : its_scale};
        Rounded sums[2] = {{0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}};
        u16* to = a.halves + tile_place(row + lane % 2, width);
        auto round = [&](const float4 (&off_centre)[2], u32 t) {
            uint2 halves[2];
#pragma unroll
            for (u32 r = 0; r < 2; r++) {
                // In two steps, each a normal number.
                auto scaled = [&](float v) { return __fmul_rn(__fmul_rn(scale[r] > 0.0f ? v : 0.0f, scale[r]), more); };
                const float4& v = off_centre[r];
                halves[r] = round_four(make_float4(scaled(v.x), scaled(v.y), scaled(v.z), scaled(v.w)), sums[r]);
            }
            store_eight(to + (u64)(t / 8) * TENSOR_PIECE, halves, t < width);
        };
#pragma unroll
        for (u32 c = 0; c < FOURS; c++) {
            if (c << (shift + 2) < width) round(kept[c], place(c));
        }
        // All lanes as often: they exchange.
        for (u32 c = FOURS; c << (shift + 2) < width; c++) {
            float4 off_centre[2];
            read(place(c), off_centre);
            round(off_centre, place(c));
        }
        const Rounded all = sum_of_lanes(sums, lanes);
        if (in_group / 2 == turn) {
            own_found = found;
            own_sums = all;
        }
    }

    // A lane of the group for each of its rows.
    const u64 row = first_row + in_group / 2 * rows_at_once + in_group % 2;
    if (in_group >= 2 * turns || row >= a.n) return;
    float norm = 0.0f, rounding = 0.0f, ratio = 1.0f;
    if (own_found.kind == KIND_PACKED) {
        ratio = power_of_two(own_found.shift - a.codebook_shift);
        if (!a.plain) {
            norm = norm_up(own_sums.sq_halves, a.d, 0);
            rounding = __double2float_ru(rounding_up(own_sums, a.d));
        }
    }
    static_assert(FACT_NORM == 0 && FACT_RATIO == 1 && FACT_ROUNDING == 2 && FACT_WEIGHT == 3, "one store");
    const float weight = a.plain ? -ratio : -__fmul_rn(ratio, 1.0f - 4.0f / 16777216.0f);
    *reinterpret_cast<float4*>(a.facts + row * FACTS) = make_float4(norm, ratio, rounding, weight);
    a.kinds[row] = own_found.kind;
}

template <class T>
static __device__ __forceinline__ void pack_rows(const T* x, const TensorRowsArgs& a) {
    const bool whole = fours_are_whole(x, a.stride, a.d) && fours_are_whole(a.mean, a.d, a.d);
    if (whole && a.d > 4 * WARP) {
        pack_rows_as<true, 2>(x, a);
    } else if (whole) {
        pack_rows_as<true, 1>(x, a);
    } else {
        pack_rows_as<false, 2>(x, a);
    }
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP, 4)
    rows_tensor_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ mean, u16* __restrict__ halves,
                    float* __restrict__ facts, u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n,
                    u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_rows(x, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP, 4)
    rows_tensor_f16(const F16* __restrict__ x, u64 stride, const float* __restrict__ mean,
                    u16* __restrict__ halves, float* __restrict__ facts, u32* __restrict__ kinds,
                    u64* __restrict__ status, u64 first_row, u32 n, u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_rows(x, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP, 4)
    rows_tensor_bf16(const Bf16* __restrict__ x, u64 stride, const float* __restrict__ mean,
                     u16* __restrict__ halves, float* __restrict__ facts, u32* __restrict__ kinds,
                     u64* __restrict__ status, u64 first_row, u32 n, u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_rows(x, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP, 4)
    rows_tensor_codewords_f32(const float* __restrict__ packed, u16* __restrict__ halves, float* __restrict__ lengths,
                              float* __restrict__ bounds, float* __restrict__ half_sq_norms, u32 m, u32 d,
                              double accumulation) {
    const u32 lane = threadIdx.x % WARP, width = tensor_width(d);
    const u64 row = 2 * ((u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP);
    const float more = power_of_two(TENSOR_SHIFT);
    auto scaled = [&](float v) { return __fmul_rn(v, more); };
    u16* to = halves + tile_place(row + lane % 2, width);
    Rounded sums[2] = {{0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}};
    for (u32 c = 0; c < width; c += 4 * WARP) {
        const u32 t = c + 4 * lane;
        uint2 fours[2];
#pragma unroll
        for (u32 r = 0; r < 2; r++) {
            // Codewords that are not there are empty.
            const float4 v = load_four(packed + (row + r) * ((u64)d + 2), t, row + r < m ? d : 0, false);
            fours[r] = round_four(make_float4(scaled(v.x), scaled(v.y), scaled(v.z), scaled(v.w)), sums[r]);
        }
        store_eight(to + (u64)(t / 8) * TENSOR_PIECE, fours, t < width);
    }

    // A lane for each of the two.
    const Rounded own = sum_of_lanes(sums, WARP);
    if (lane >= 2) return;
    if (row + lane >= m) {
        // Scores of padding are minus infinity.
        lengths[row + lane] = bounds[row + lane] = 0.0f;
        half_sq_norms[row + lane] = __uint_as_float(INFINITE_BITS);
        return;
    }
    const double longer = 1.0 + wide_power_of_two(-20);
    lengths[row + lane] = __double2float_ru((double)norm_up(own.sq_norm, d, 0) * longer);
    const double bound = rounding_up(own, d) + accumulation * (double)norm_up(own.sq_halves, d, 0);
    bounds[row + lane] = __double2float_ru(bound * longer);
    half_sq_norms[row + lane] = __fmul_rn(packed[(row + lane) * ((u64)d + 2) + d + 1], power_of_two(2 * TENSOR_SHIFT));
}
