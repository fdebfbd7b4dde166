// Exact sums of products of two f32, one warp per sum.
//
// An f32 is an integer of 24 bits times a power of two, so a product of two is an integer of 48 bits times a power of
// two from 2^-298 on. They are added up in one long fixed-point integer in shared memory: limbs of 64 bits that carry
// weight 2^(32 i - 298), so that 2^31 terms fit before a carry is due. Integer addition has no order: the bits are the
// same however terms are grouped.
#pragma once
#include "common.cuh"

// Products end below 2^257, twice that times 2^32 terms below 2^292: 590 bits and a sign.
#define EXACT_LIMBS 20

struct ExactSum {
    u64 limbs[EXACT_LIMBS];
};

static __device__ __forceinline__ void exact_clear(ExactSum& sum, u32 lane) {
    if (lane < EXACT_LIMBS) sum.limbs[lane] = 0;
    __syncwarp();
}

// The sum of 32 numbers below 2^32, each with the sign of its lane: halves of them are summed by the warp's own adder,
// which has 32 bits.
static __device__ __forceinline__ i64 exact_warp_sum(u32 part, bool negative) {
    const int low = (int)(part & 0xffffu), high = (int)(part >> 16);
    const int low_sum = __reduce_add_sync(FULL_WARP, negative ? -low : low);
    const int high_sum = __reduce_add_sync(FULL_WARP, negative ? -high : high);
    return (i64)high_sum * 65536 + low_sum;
}

// Adds 2^doublings a b of every lane, or takes them off. All lanes of the warp call it between clear and settle; one
// that has nothing to add passes zeros. Lanes whose products begin in the same limb, which nearly all do, are summed in
// registers first: 32 atomics to one word would wait for each other.
static __device__ __forceinline__ void exact_add_products(ExactSum& sum, float a, float b, u32 doublings, bool negate,
                                                          u32 lane) {
    const u32 a_bits = __float_as_uint(a), b_bits = __float_as_uint(b);
    const u32 a_exponent = (a_bits >> 23) & 255u, b_exponent = (b_bits >> 23) & 255u;
    // Subnormals have the exponent of the smallest normal, and no hidden bit.
    const u64 a_integer = (a_bits & 0x7fffffu) | (a_exponent ? 0x800000u : 0u);
    const u64 b_integer = (b_bits & 0x7fffffu) | (b_exponent ? 0x800000u : 0u);
    const u64 product = a_integer * b_integer;
    // Bit 0 has weight 2^-298: two exponents of 1 give position 0.
    const u32 position = (a_exponent ? a_exponent : 1u) + (b_exponent ? b_exponent : 1u) - 2u + doublings;
    const u32 limb = position / 32u, offset = position % 32u;
    const u64 low = product << offset;
    const u64 high = offset ? product >> (64u - offset) : 0;
    const bool negative = (((a_bits ^ b_bits) >> 31) != 0) != negate;
    u32 waiting = __ballot_sync(FULL_WARP, product != 0);
    while (waiting) {
        const u32 first = __shfl_sync(FULL_WARP, limb, __ffs((int)waiting) - 1);
        const bool joins = product != 0 && limb == first;
        const i64 parts[3] = {exact_warp_sum(joins ? (u32)low : 0u, negative),
                              exact_warp_sum(joins ? (u32)(low >> 32) : 0u, negative),
                              exact_warp_sum(joins ? (u32)high : 0u, negative)};
        if (lane == 0) {
            for (u32 i = 0; i < 3; i++) sum.limbs[first + i] += (u64)parts[i];
        }
        waiting &= ~__ballot_sync(FULL_WARP, joins);
    }
}

// Adds |e|^2 - 2 z.e, which orders codewords like their distance from z. All lanes of the warp call it.
template <class Z>
static __device__ __forceinline__ void exact_add_order(ExactSum& sum, const Z* z, const float* e, u32 d, u32 lane) {
    for (u32 t = lane; t < d + lane; t += WARP) {  // All lanes, as long as the first.
        const float a = t < d ? to_f32(z[t]) : 0.0f, b = t < d ? e[t] : 0.0f;
        exact_add_products(sum, b, b, 0, false, lane);
        exact_add_products(sum, a, b, 1, true, lane);
    }
}

// Moves what overflows a limb into the next one; all lanes of the warp call it, and may read the limbs afterwards.
static __device__ __forceinline__ void exact_settle(ExactSum& sum, u32 lane) {
    // The first lane added all terms.
    if (lane == 0) {
        for (int i = 0; i + 1 < EXACT_LIMBS; i++) {
            sum.limbs[i + 1] += (u64)((i64)sum.limbs[i] >> 32);
            sum.limbs[i] &= 0xffffffffull;
        }
    }
    __syncwarp();  // Every lane may read it.
}

// How a compares with b, both settled: -1, 0 or 1. The higher the limb, the later its word counts; the last has a sign.
static __device__ __forceinline__ int exact_compare(const ExactSum& a, const ExactSum& b) {
    int order = 0;
    for (int i = 0; i < EXACT_LIMBS; i++) {
        const i64 a_limb = (i64)a.limbs[i], b_limb = (i64)b.limbs[i];
        order = a_limb < b_limb ? -1 : a_limb > b_limb ? 1 : order;
    }
    return order;
}

static __device__ __forceinline__ u32 exact_bits(const ExactSum& sum, u32 position) {
    const u32 limb = position / 32u, offset = position % 32u;
    const u64 both = sum.limbs[limb] | (limb + 1 < EXACT_LIMBS ? sum.limbs[limb + 1] << 32 : 0);
    return (u32)(both >> offset);
}

// The nearest f32 of a settled sum that is not negative, ties to even; infinite from halfway beyond the largest f32.
static __device__ __forceinline__ float exact_to_f32(const ExactSum& sum) {
    int top_limb = EXACT_LIMBS - 1;
    while (top_limb >= 0 && sum.limbs[top_limb] == 0) top_limb--;
    if (top_limb < 0) return 0.0f;
    const u32 top = 32u * top_limb + 31u - __clz((int)(u32)sum.limbs[top_limb]);
    // An f32 keeps 24 bits, but none below 2^-149, which is bit 149.
    const u32 last = top >= 149u + 23u ? top - 23u : 149u;
    // From the last bit that is kept upwards; below 2^-149 nothing is.
    const u32 mantissa = top < last ? 0u : exact_bits(sum, last) & 0xffffffu;
    const bool half = exact_bits(sum, last - 1u) & 1u;
    bool rest = (sum.limbs[(last - 1u) / 32u] & ((1ull << ((last - 1u) % 32u)) - 1ull)) != 0;
    for (u32 i = 0; i < (last - 1u) / 32u; i++) rest = rest || sum.limbs[i] != 0;
    const u32 exponent = last - 149u;
    if (exponent > 253u) return __uint_as_float(INFINITE_BITS);
    // The hidden bit adds one to the exponent where there is one; so does a carry out of rounding up.
    return __uint_as_float((exponent << 23) + mantissa + (half && (rest || (mantissa & 1u)) ? 1u : 0u));
}
