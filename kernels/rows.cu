// Rows on their way into the filter pass: z' = z - mean, scaled by a power of two.
//
//     packed[i] = (z'_i 2^s, bound factor, -c)      facts[i] = (|z'_i| 2^s rounded up, c, |z'_i|^2, factor)
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; mean [d] f32 (zeros where the codebook is not centred).
// Outputs packed [n, d + 2] f32: the last two steps pair with the codeword's bound and half squared norm; a row that
//         is not packed is zero there. facts [n, 4] f32. kinds [n] u32. wide [n, d] f32: the exact values of 16-bit
//         rows (the f32 entry has none). status: count of bad rows and, with `report`, the lowest value that is not
//         finite, row first_row + i. All allocated by the caller; status words are kept up, not reset.
// Numbers Each z' is one rounded f32 subtraction; scaling by powers of two rounds nothing but underflow. The sum of
//         squares is f32 in any order; the norm covers its rounding and is rounded up in f64. A row whose difference
//         overflows, or that lies more than 2^122 codebook scales out, is wild; with a NaN or an infinity in x it is
//         not finite.
// Launch  grid ceil(n / ROWS_PER_BLOCK), block 32 x ROWS_PER_BLOCK threads in one dimension, no dynamic shared memory.
// Idea    A warp per row reads it twice, the second time from the cache. Bound by memory.
// Source  ours; the CPU's twin is src/backend/cpu/rows.rs.
// Measured not yet on a GPU.
#include "rows.cuh"
#include "shapes.h"

static_assert(ROWS_PER_BLOCK * WARP <= 1024, "a block holds at most 1024 threads");

struct RowsArgs {
    const float* mean;
    float* packed;
    float* facts;
    u32* kinds;
    u64* status;
    u64 stride;
    u64 first_row;
    u32 n;
    u32 d;
    int codebook_shift;
    double max_sq_norm;
    u32 plain;
    u32 report;
};

template <class T>
static __device__ __forceinline__ void pack_row(const T* x, float* wide, const RowsArgs& a) {
    const u32 lane = threadIdx.x % WARP;
    const u64 row = (u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (row >= a.n) return;  // A whole warp leaves; nothing below waits for other warps.
    const T* z = x + row * a.stride;
    float* packed = a.packed + row * ((u64)a.d + 2);

    // Choose the scale, and say where the first value is that is not finite.
    const RowScale found = scan_row(z, wide ? wide + row * a.d : wide, a.mean, a.d, a.codebook_shift);
    const int own = found.own, shift = found.shift;
    const u32 kind = found.kind;
    if (kind == KIND_NON_FINITE) report_bad_row(z, a.d, a.first_row + row, a.report, a.status);

    // Scale, and sum the squares at the row's own scale.
    const float measure = power_of_two(own), scale = power_of_two(shift);
    float sum = 0.0f;
    for (u32 t = lane; t < a.d; t += WARP) {
        const float value = __fsub_rn(to_f32(z[t]), a.mean[t]);
        const float measured = __fmul_rn(value, measure);
        sum = __fmaf_rn(measured, measured, sum);
        packed[t] = kind == KIND_PACKED ? __fmul_rn(value, scale) : 0.0f;
    }
    sum = warp_sum(sum);

    if (lane != 0) return;

    float norm = 0.0f, ratio = 1.0f, sq_norm = 0.0f, factor = 0.0f;
    if (kind == KIND_PACKED) {
        norm = norm_up(sum, a.d, shift - own);
        ratio = power_of_two(shift - a.codebook_shift);
        // A quarter of the range of f32: squared norms and the cross term stay inside.
        const double real = (double)sum * wide_power_of_two(-2 * own);
        const int exponent = 1 - shift - a.codebook_shift;
        if (real + a.max_sq_norm < 3.4028234663852886e38 / 4.0 && exponent <= MAX_SHIFT && exponent >= -MAX_SHIFT) {
            sq_norm = __double2float_rn(real);
            factor = power_of_two(exponent);
        }
    }
    // A lower bound of the score takes the bound, and half the norm shrunk by what four roundings can do to it.
    packed[a.d] = a.plain ? 0.0f : norm;
    packed[a.d + 1] = a.plain ? -ratio : -__fmul_rn(ratio, 1.0f - 4.0f / 16777216.0f);
    float* facts = a.facts + row * FACTS;
    facts[FACT_NORM] = norm;
    facts[FACT_RATIO] = ratio;
    facts[FACT_SQ_NORM] = sq_norm;
    facts[FACT_FACTOR] = factor;
    a.kinds[row] = kind;
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ mean, float* __restrict__ packed,
             float* __restrict__ facts, u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d,
             int codebook_shift, double max_sq_norm, u32 plain, u32 report) {
    pack_row(x, (float*)0, {mean, packed, facts, kinds, status, stride, first_row, n, d, codebook_shift, max_sq_norm, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_f16(const F16* __restrict__ x, u64 stride, float* __restrict__ wide, const float* __restrict__ mean,
             float* __restrict__ packed, float* __restrict__ facts, u32* __restrict__ kinds, u64* __restrict__ status,
             u64 first_row, u32 n, u32 d, int codebook_shift, double max_sq_norm, u32 plain, u32 report) {
    pack_row(x, wide, {mean, packed, facts, kinds, status, stride, first_row, n, d, codebook_shift, max_sq_norm, plain, report});
}

extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    rows_bf16(const Bf16* __restrict__ x, u64 stride, float* __restrict__ wide, const float* __restrict__ mean,
              float* __restrict__ packed, float* __restrict__ facts, u32* __restrict__ kinds, u64* __restrict__ status,
              u64 first_row, u32 n, u32 d, int codebook_shift, double max_sq_norm, u32 plain, u32 report) {
    pack_row(x, wide, {mean, packed, facts, kinds, status, stride, first_row, n, d, codebook_shift, max_sq_norm, plain, report});
}
