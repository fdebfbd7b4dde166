// Rows and codewords on their way to the tensor cores: z' = z - mean as f16, scaled by a power of two, and how far that
// is off.
//
//     halves[i] = f16(z'_i 2^s)      facts[i] = (|halves_i|, c, |z'_i 2^s - halves_i|, -c (1 - 2^-22)), norms rounded up
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; mean [d] f32. For codewords: packed [m, d + 2] of a
//         prepared codebook.
// Outputs halves [n, ceil(d / TENSOR_ALIGN) TENSOR_ALIGN] f16, zeros from d on; a row that is not packed is zero. facts
//         [n, 4], kinds [n], status as in rows.cu; facts 2 and 3 are those of FACT_ROUNDING, FACT_WEIGHT.
//         Of codewords halves likewise and, padded to whole tiles of TENSOR_COLS, lengths (|e'|), bounds (|e' - halves|
//         + accumulation |halves|), half squared norms; padding is 0, 0, infinity. All allocated by the caller.
// Numbers z' is one rounded f32 subtraction, within 2^-24 |z'|; its scaling rounds nothing but underflow, below 2^-137 a
//         component. The difference to the nearest f16 is exact. Sums of squares are f32 in any order, and norms cover
//         that (norm_up), and the rounding of the subtraction, and are rounded up. A row's scale, kind and ratio c are
//         those of rows.cu, times 2^TENSOR_SHIFT on either side: magnitudes lie in [2^13, 2^15), below it where the row
//         is much shorter than the codewords. lengths and bounds of codewords are 2^-20 longer than that, for what the
//         epilogue of assign_tensor.cu rounds.
// Launch  rows: grid ceil(n / rows of a block); a block takes ROWS_PER_BLOCK x max(TENSOR_WARP_PACKS, 32 / L) rows, where
//         L lanes share a row: the smallest power of two that has one for every four halves, 32 at most. Codewords: grid
//         ceil(padded / ROWS_PER_BLOCK), a warp each. Block 32 x ROWS_PER_BLOCK threads in one dimension, no dynamic
//         shared memory. halves on 8 bytes, facts on 16.
// Idea    Rows of f32 are read once, in 128-bit loads where they lie so; up to 256 elements stay in registers. Bound by
//         memory.
// Source  ours.
// Measured on an H200: 131,072 x 256 of f32 in 77 us, 2.6 TB/s of the 4.3 that a copy moves.
#include "ptx.cuh"
#include "rows.cuh"
#include "shapes.h"

static_assert(ROWS_PER_BLOCK * WARP <= 1024, "a block holds at most 1024 threads");
static_assert(TENSOR_ALIGN % 4 == 0 && TENSOR_SHIFT <= 13, "halves are written in fours, and stay below 2^15 < 65504");

// What a warp learns while it rounds a vector.
struct Rounded {
    float sq_norm;      // of what was rounded
    float sq_halves;    // of the result
    float sq_rounding;  // of the difference
};

static __device__ __forceinline__ u32 round_one(float value, Rounded& sums) {
    const u16 bits = f16_bits(value);
    const float half = to_f32(F16{bits});
    const float off = __fsub_rn(value, half);
    sums.sq_norm = __fmaf_rn(value, value, sums.sq_norm);
    sums.sq_halves = __fmaf_rn(half, half, sums.sq_halves);
    sums.sq_rounding = __fmaf_rn(off, off, sums.sq_rounding);
    return bits;
}

// Rounds what `value_of` says of steps 0 to d and fills up with zeros.
template <class F>
static __device__ __forceinline__ Rounded round_row(u16* halves, u32 d, F value_of) {
    Rounded sums = {0.0f, 0.0f, 0.0f};
    const u32 width = (d + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
    for (u32 t = threadIdx.x % WARP * 2; t < width; t += 2 * WARP) {
        const u32 low = t < d ? round_one(value_of(t), sums) : 0, high = t + 1 < d ? round_one(value_of(t + 1), sums) : 0;
        *reinterpret_cast<u32*>(halves + t) = low | high << 16;
    }
    return {warp_sum(sums.sq_norm), warp_sum(sums.sq_halves), warp_sum(sums.sq_rounding)};
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

// Fours of a row that a lane keeps between its two passes by it; the others are read again.
#define TENSOR_FOURS 2

static __device__ __forceinline__ u32 max_of_four(u32 most, const float4& four) {
    const u32 bits[4] = {__float_as_uint(four.x), __float_as_uint(four.y), __float_as_uint(four.z), __float_as_uint(four.w)};
#pragma unroll
    for (u32 i = 0; i < 4; i++) most = (bits[i] & MAGNITUDE_BITS) > most ? bits[i] & MAGNITUDE_BITS : most;
    return most;
}

// A warp packs TENSOR_WARP_PACKS rows, or as many as it has groups of lanes if that is more: `lanes` of them share a row,
// so that short rows go many at a time. What a lane does once per row, it does in the end for a row of its own.
template <bool WHOLE, class T>
static __device__ __forceinline__ void pack_rows_as(const T* x, const TensorRowsArgs& a) {
    const u32 width = (a.d + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN, shift = fours_shift(width);
    const u32 lanes = 1u << shift, groups = WARP >> shift, lane = threadIdx.x % WARP, in_group = lane & (lanes - 1);
    const u32 turns = groups < TENSOR_WARP_PACKS ? TENSOR_WARP_PACKS / groups : 1;
    const u64 first_row = ((u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP) * (turns * groups) + lane / lanes;
    const float more = power_of_two(TENSOR_SHIFT);

    RowScale own_found = {KIND_WILD, 0, 0};
    Rounded own_sums = {0.0f, 0.0f, 0.0f};
    for (u32 turn = 0; turn < turns; turn++) {
        const u64 row = first_row + turn * groups;
        const u32 d = row < a.n ? a.d : 0;  // Rows that are not there are empty.
        const T* z = x + row * a.stride;

        // Find the largest magnitudes, and from them the kind of the row and its scale.
        float4 kept[TENSOR_FOURS];
        u32 centred = 0;
        auto read = [&](u32 t) {
            const float4 value = load_four(z, t, d, WHOLE), mean = load_four(a.mean, t, d, WHOLE);
            return make_float4(__fsub_rn(value.x, mean.x), __fsub_rn(value.y, mean.y), __fsub_rn(value.z, mean.z),
                               __fsub_rn(value.w, mean.w));
        };
        auto scan = [&](u32 t) {
            const float4 off_centre = read(t);
            centred = max_of_four(centred, off_centre);
            return off_centre;
        };
#pragma unroll
        for (u32 c = 0; c < TENSOR_FOURS; c++) {
            kept[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (c << (shift + 2) < d) kept[c] = scan(4 * ((c << shift) + in_group));
        }
        for (u32 t = 4 * ((TENSOR_FOURS << shift) + in_group); t < d; t += 4 * lanes) scan(t);
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
            if (offset >= lanes) continue;
            const u32 other = __shfl_xor_sync(FULL_WARP, centred, offset);
            centred = other > centred ? other : centred;
        }
        // Whatever is not finite is not so off the centre either: only then it is worth a look which of them it was.
        u32 raw = 0;
        if (__any_sync(FULL_WARP, centred >= INFINITE_BITS)) {
            for (u32 t = 4 * in_group; t < d; t += 4 * lanes) raw = max_of_four(raw, load_four(z, t, d, WHOLE));
#pragma unroll
            for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
                const u32 other = __shfl_xor_sync(FULL_WARP, raw, offset);
                if (offset < lanes) raw = other > raw ? other : raw;
            }
        }
        const RowScale found = row_scale(raw, centred, a.codebook_shift);

        // Say where the first value is that is not finite; the whole warp, row by row.
        for (u32 bad = __ballot_sync(FULL_WARP, found.kind == KIND_NON_FINITE && in_group == 0); bad; bad &= bad - 1) {
            const u64 its_row = __shfl_sync(FULL_WARP, row, __ffs((int)bad) - 1);
            report_bad_row(x + its_row * a.stride, a.d, a.first_row + its_row, a.report, a.status);
        }

        // Scale in two steps, each a normal number, and round. What is not packed is zero.
        Rounded sums = {0.0f, 0.0f, 0.0f};
        const bool is_packed = found.kind == KIND_PACKED;
        const float scale = power_of_two(found.shift);
        auto round = [&](const float4& value, u32 t) {
            if (row >= a.n || t >= width) return;
            auto one = [&](float v) { return round_one(__fmul_rn(__fmul_rn(is_packed ? v : 0.0f, scale), more), sums); };
            uint2 halves;
            halves.x = one(value.x) | one(value.y) << 16;
            halves.y = one(value.z) | one(value.w) << 16;
            *reinterpret_cast<uint2*>(a.halves + row * width + t) = halves;
        };
#pragma unroll
        for (u32 c = 0; c < TENSOR_FOURS; c++) {
            if (c << (shift + 2) < width) round(kept[c], 4 * ((c << shift) + in_group));
        }
        for (u32 t = 4 * ((TENSOR_FOURS << shift) + in_group); t < width; t += 4 * lanes) round(read(t), t);
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
            if (offset >= lanes) continue;
            sums.sq_norm = __fadd_rn(sums.sq_norm, __shfl_xor_sync(FULL_WARP, sums.sq_norm, offset));
            sums.sq_halves = __fadd_rn(sums.sq_halves, __shfl_xor_sync(FULL_WARP, sums.sq_halves, offset));
            sums.sq_rounding = __fadd_rn(sums.sq_rounding, __shfl_xor_sync(FULL_WARP, sums.sq_rounding, offset));
        }
        if (in_group == turn) {
            own_found = found;
            own_sums = sums;
        }
    }

    // A lane of the group for each of its rows.
    const u64 row = first_row + in_group * groups;
    if (in_group >= turns || row >= a.n) return;
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
    if (fours_are_whole(x, a.stride, a.d) && fours_are_whole(a.mean, a.d, a.d)) {
        pack_rows_as<true>(x, a);
    } else {
        pack_rows_as<false>(x, a);
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
                              float* __restrict__ bounds, float* __restrict__ half_sq_norms, u32 m, u32 padded, u32 d,
                              double accumulation) {
    const u64 row = (u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (row >= padded) return;  // A whole warp leaves; nothing below waits for other warps.
    const bool is_first = threadIdx.x % WARP == 0;
    if (row >= m) {
        // Scores of padding are minus infinity.
        if (is_first) lengths[row] = bounds[row] = 0.0f;
        if (is_first) half_sq_norms[row] = __uint_as_float(INFINITE_BITS);
        return;
    }
    const float* codeword = packed + row * ((u64)d + 2);
    const float more = power_of_two(TENSOR_SHIFT);
    const u64 width = (d + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
    const Rounded sums = round_row(halves + row * width, d, [&](u32 t) { return __fmul_rn(codeword[t], more); });
    if (!is_first) return;
    const double longer = 1.0 + wide_power_of_two(-20);
    lengths[row] = __double2float_ru((double)norm_up(sums.sq_norm, d, 0) * longer);
    bounds[row] = __double2float_ru((rounding_up(sums, d) + accumulation * (double)norm_up(sums.sq_halves, d, 0)) * longer);
    half_sq_norms[row] = __fmul_rn(codeword[d + 1], power_of_two(2 * TENSOR_SHIFT));
}
