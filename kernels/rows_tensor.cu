// Rows and codewords on their way to the tensor cores: z' = z - mean as f16, scaled by a power of two, and how far that
// is off.
//
//     halves[i] = f16(z'_i 2^s)      facts[i] = (|halves_i|, c, |z'_i 2^s - halves_i|, -c (1 - 2^-22)), norms rounded up
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; mean [d] f32. For codewords: packed [m, d + 2] of a
//         prepared codebook.
// Outputs halves [n, ceil(d / TENSOR_ALIGN) TENSOR_ALIGN] f16, zeros from d on; a row that is not packed is zero. facts
//         [n, 4], kinds [n], wide [n, d], status as in rows.cu; facts 2 and 3 are those of FACT_ROUNDING, FACT_WEIGHT.
//         Of codewords halves likewise and, padded to whole tiles of TENSOR_COLS, lengths (|e'|), bounds (|e' - halves|
//         + accumulation |halves|), half squared norms; padding is 0, 0, infinity. All allocated by the caller.
// Numbers z' is one rounded f32 subtraction, within 2^-24 |z'|; its scaling rounds nothing but underflow, below 2^-137 a
//         component. The difference to the nearest f16 is exact. Sums of squares are f32 in any order, and norms cover
//         that (norm_up), and the rounding of the subtraction, and are rounded up. A row's scale, kind and ratio c are
//         those of rows.cu, times 2^TENSOR_SHIFT on either side: magnitudes lie in [2^13, 2^15), below it where the row
//         is much shorter than the codewords. lengths and bounds of codewords are 2^-20 longer than that, for what the
//         epilogue of assign_tensor.cu rounds.
// Launch  grid ceil(n / ROWS_PER_BLOCK), or of the padded codewords, block 32 x ROWS_PER_BLOCK threads in one dimension,
//         no dynamic shared memory.
// Idea    A warp per row reads it twice, the second time from the cache. Bound by memory.
// Source  ours.
// Measured not yet on a GPU.
#include "ptx.cuh"
#include "rows.cuh"
#include "shapes.h"

static_assert(ROWS_PER_BLOCK * WARP <= 1024, "a block holds at most 1024 threads");
static_assert(TENSOR_ALIGN % 2 == 0 && TENSOR_SHIFT <= 13, "halves are written in pairs, and stay below 2^15 < 65504");

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

template <class T>
static __device__ __forceinline__ void pack_row(const T* x, float* wide, const TensorRowsArgs& a) {
    const u64 row = (u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (row >= a.n) return;  // A whole warp leaves; nothing below waits for other warps.
    const T* z = x + row * a.stride;

    // Choose the scale, and say where the first value is that is not finite.
    const RowScale found = scan_row(z, wide ? wide + row * a.d : wide, a.mean, a.d, a.codebook_shift);
    if (found.kind == KIND_NON_FINITE) report_bad_row(z, a.d, a.first_row + row, a.report, a.status);

    // Centre, scale in two steps, each a normal number, and round.
    const bool is_packed = found.kind == KIND_PACKED;
    const float scale = power_of_two(found.shift), more = power_of_two(TENSOR_SHIFT);
    const u64 width = (a.d + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
    const Rounded sums = round_row(a.halves + row * width, a.d, [&](u32 t) {
        const float value = __fsub_rn(to_f32(z[t]), a.mean[t]);
        return is_packed ? __fmul_rn(__fmul_rn(value, scale), more) : 0.0f;
    });
    if (threadIdx.x % WARP != 0) return;

    float norm = 0.0f, rounding = 0.0f, ratio = 1.0f;
    if (is_packed) {
        ratio = power_of_two(found.shift - a.codebook_shift);
        if (!a.plain) {
            norm = norm_up(sums.sq_halves, a.d, 0);
            rounding = __double2float_ru(rounding_up(sums, a.d));
        }
    }
    float* facts = a.facts + row * FACTS;
    facts[FACT_NORM] = norm;
    facts[FACT_RATIO] = ratio;
    facts[FACT_ROUNDING] = rounding;
    facts[FACT_WEIGHT] = a.plain ? -ratio : -__fmul_rn(ratio, 1.0f - 4.0f / 16777216.0f);
    a.kinds[row] = found.kind;
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_tensor_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ mean, u16* __restrict__ halves,
                    float* __restrict__ facts, u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n,
                    u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_row(x, (float*)0, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_tensor_f16(const F16* __restrict__ x, u64 stride, float* __restrict__ wide, const float* __restrict__ mean,
                    u16* __restrict__ halves, float* __restrict__ facts, u32* __restrict__ kinds,
                    u64* __restrict__ status, u64 first_row, u32 n, u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_row(x, wide, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_tensor_bf16(const Bf16* __restrict__ x, u64 stride, float* __restrict__ wide, const float* __restrict__ mean,
                     u16* __restrict__ halves, float* __restrict__ facts, u32* __restrict__ kinds,
                     u64* __restrict__ status, u64 first_row, u32 n, u32 d, int codebook_shift, u32 plain, u32 report) {
    pack_row(x, wide, {mean, halves, facts, kinds, status, stride, first_row, n, d, codebook_shift, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
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
