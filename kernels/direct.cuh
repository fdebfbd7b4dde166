// Squared distances of two stored rows by direct differences, one warp per pair: f32, f64, and rounded from the real
// number. Every operation is named, so nothing is contracted; the bounds hold for any order of summation.
#pragma once
#include "exact.cuh"

// Within the bound of src/backend/cpu/direct.rs `f32_bound`: ceil(d / 32) + 5 additions on the way of each term.
static __device__ __forceinline__ float warp_sq_l2_f32(const float* z, const float* e, u32 d, u32 lane) {
    float sum = 0.0f;
    for (u32 t = lane; t < d; t += WARP) {
        const float difference = __fsub_rn(z[t], e[t]);
        sum = __fadd_rn(sum, __fmul_rn(difference, difference));
    }
    return warp_sum(sum);
}

// Within (d + 4) 2^-53 of the real number.
static __device__ __forceinline__ double warp_sq_l2_f64(const float* z, const float* e, u32 d, u32 lane) {
    double sum = 0.0;
    for (u32 t = lane; t < d; t += WARP) {
        const double difference = __dsub_rn((double)z[t], (double)e[t]);
        sum = __dadd_rn(sum, __dmul_rn(difference, difference));
    }
    return warp_sum(sum);
}

// The real squared distance rounded once to the nearest f32, in every lane: the f64 sum where its error cannot reach
// the middle between two f32, else the exact sum. `slack` is twice the bound of the f64 sum.
static __device__ __forceinline__ float warp_round_sq_l2(const float* z, const float* e, u32 d, double slack,
                                                         ExactSum& sum, u32 lane) {
    const double sq_l2 = warp_sq_l2_f64(z, e, d, lane);
    const float low = __double2float_rn(__dmul_rn(sq_l2, __dsub_rn(1.0, slack)));
    const float high = __double2float_rn(__dmul_rn(sq_l2, __dadd_rn(1.0, slack)));
    if (low == high) return low;  // The same in every lane.
    exact_clear(sum, lane);
    for (u32 t = lane; t < d; t += WARP) {
        exact_add_product(sum, z[t], z[t], 0, false);
        exact_add_product(sum, z[t], e[t], 1, true);
        exact_add_product(sum, e[t], e[t], 0, false);
    }
    exact_settle(sum, lane);
    const float rounded = exact_to_f32(sum);
    __syncwarp();  // The sum may be cleared for another pair.
    return rounded;
}
