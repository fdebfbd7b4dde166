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
#include "common.cuh"
#include "shapes.h"

// How far below the codebook's scale a row's may lie.
#define MAX_WIDENING (MAX_SHIFT - 4)

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

static __device__ __forceinline__ double wide_power_of_two(int exponent) {
    return __longlong_as_double((i64)(exponent + 1023) << 52);
}

// The root of a rounded sum of d rounded squares, times 2^shift, rounded up to what the real norm can be at most.
// Squares below 2^-149 are lost, d of them at most: the second term stands for them.
static __device__ float norm_up(float rounded, u32 d, int shift) {
    const double sum = (double)rounded * (1.0 + ((double)d + 4.0) * wide_power_of_two(-23)) + (double)d * wide_power_of_two(-149);
    const double norm = __dsqrt_rn(sum) * wide_power_of_two(shift) * (1.0 + wide_power_of_two(-22));
    const float up = __double2float_rn(norm);
    const float smallest = power_of_two(-MAX_SHIFT);
    return up > smallest ? up : smallest;
}

template <class T>
static __device__ __forceinline__ void pack_row(const T* x, float* wide, const RowsArgs& a) {
    const u32 lane = threadIdx.x % WARP;
    const u64 row = (u64)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (row >= a.n) return;  // A whole warp leaves; nothing below waits for other warps.
    const T* z = x + row * a.stride;
    float* packed = a.packed + row * ((u64)a.d + 2);

    // Find the largest magnitude, before and after centring.
    u32 raw = 0, centred = 0;
    for (u32 t = lane; t < a.d; t += WARP) {
        const float value = to_f32(z[t]);
        const u32 before = __float_as_uint(value) & MAGNITUDE_BITS;
        const u32 after = __float_as_uint(__fsub_rn(value, a.mean[t])) & MAGNITUDE_BITS;
        raw = before > raw ? before : raw;
        centred = after > centred ? after : centred;
        if (wide) wide[row * a.d + t] = value;
    }
    raw = warp_max(raw);
    centred = warp_max(centred);

    // Choose the scale: a row much shorter than the codewords keeps theirs.
    const int own = shift_of(centred);
    const int shift = own < a.codebook_shift ? own : a.codebook_shift;
    u32 kind = KIND_WILD;
    if (raw >= INFINITE_BITS) {
        kind = KIND_NON_FINITE;
    } else if (centred < INFINITE_BITS && a.codebook_shift - shift <= MAX_WIDENING) {
        kind = KIND_PACKED;
    }

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

    // Say where the first value is that is not finite.
    if (kind == KIND_NON_FINITE) {
        u64 first = ~(u64)0;
        for (u32 t = lane; t < a.d; t += WARP) {
            const u32 bits = __float_as_uint(to_f32(z[t]));
            if ((bits & MAGNITUDE_BITS) < INFINITE_BITS) continue;
            first = bad_value_key(a.first_row + row, t, bits);
            break;
        }
        first = warp_min(first);
        if (lane == 0) {
            if (a.report) atomicMin(&a.status[STATUS_BAD_VALUE], first);
            atomicAdd(&a.status[STATUS_BAD], (u64)1);
        }
    }
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
