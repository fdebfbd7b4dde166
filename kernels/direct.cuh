// Squared distances of two stored rows by direct differences, one warp per pair: f32, f64, and rounded from the real
// number. The first may be of a 16-bit type. Every operation is named, so nothing is contracted; the bounds hold for any order of summation.
#pragma once
#include "exact.cuh"

// Within the bound of src/backend/cpu/direct.rs `f32_bound`: ceil(d / 32) + 5 additions on the way of each term.
template <class Z>
static __device__ __forceinline__ float warp_sq_l2_f32(const Z* z, const float* e, u32 d, u32 lane) {
    float sum = 0.0f;
    for (u32 t = lane; t < d; t += WARP) {
        const float difference = __fsub_rn(to_f32(z[t]), e[t]);
        sum = __fadd_rn(sum, __fmul_rn(difference, difference));
    }
    return warp_sum(sum);
}

static __device__ __forceinline__ double add_sq_difference(double sum, float z, float e) {
    const double difference = __dsub_rn((double)z, (double)e);
    return __dadd_rn(sum, __dmul_rn(difference, difference));
}

static __device__ __forceinline__ double add_sq_differences(double sum, const float4& z, const float4& e) {
    sum = add_sq_difference(sum, z.x, e.x);
    sum = add_sq_difference(sum, z.y, e.y);
    sum = add_sq_difference(sum, z.z, e.z);
    return add_sq_difference(sum, z.w, e.w);
}

// Within (d + 4) 2^-53 of the real number.
template <class Z>
static __device__ __forceinline__ double warp_sq_l2_f64(const Z* z, const float* e, u32 d, u32 lane) {
    double sum = 0.0;
    for (u32 t = lane; t < d; t += WARP) sum = add_sq_difference(sum, to_f32(z[t]), e[t]);
    return warp_sum(sum);
}

// The f64 sum of a squared distance as f32, if its error cannot reach the middle between two of them; `slack` is twice the
// bound of the sum. If not, `decided` is false.
static __device__ __forceinline__ float round_sq_l2(double sq_l2, double slack, bool& decided) {
    const float low = __double2float_rn(__dmul_rn(sq_l2, __dsub_rn(1.0, slack)));
    const float high = __double2float_rn(__dmul_rn(sq_l2, __dadd_rn(1.0, slack)));
    decided = low == high;
    return low;
}

// The real squared distance rounded once to the nearest f32, in every lane, by its exact sum. All lanes call it.
template <class Z>
static __device__ __forceinline__ float warp_exact_sq_l2(const Z* z, const float* e, u32 d, ExactSum& sum, u32 lane) {
    exact_clear(sum, lane);
    for (u32 t = lane; t < d + lane; t += WARP) {  // All lanes, as long as the first.
        const float a = t < d ? to_f32(z[t]) : 0.0f, b = t < d ? e[t] : 0.0f;
        exact_add_products(sum, a, a, 0, false, lane);
        exact_add_products(sum, a, b, 1, true, lane);
        exact_add_products(sum, b, b, 0, false, lane);
    }
    exact_settle(sum, lane);
    const float rounded = exact_to_f32(sum);
    __syncwarp();  // The sum may be cleared for another pair.
    return rounded;
}

// The same by the f64 sum where that decides it.
static __device__ __forceinline__ float warp_round_sq_l2(const float* z, const float* e, u32 d, double slack,
                                                         ExactSum& sum, u32 lane) {
    bool decided;
    const float rounded = round_sq_l2(warp_sq_l2_f64(z, e, d, lane), slack, decided);
    return decided ? rounded : warp_exact_sq_l2(z, e, d, sum, lane);  // The same in every lane.
}
