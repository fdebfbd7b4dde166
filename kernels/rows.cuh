// A row on its way into a filter pass, a warp each: its kind, its scale and its norm. Shared by rows.cu and rows_tensor.cu.
#pragma once
#include "common.cuh"

// How far below the codebook's scale a row's may lie.
#define MAX_WIDENING (MAX_SHIFT - 4)

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

struct RowScale {
    u32 kind;
    int own;    // brings the row's largest magnitude to [1, 4)
    int shift;  // the one that it gets: a row much shorter than the codewords keeps theirs
};

// What follows from the bits of the largest magnitudes of a row, before and after centring.
static __device__ __forceinline__ RowScale row_scale(u32 raw, u32 centred, int codebook_shift) {
    const int own = shift_of(centred);
    const int shift = own < codebook_shift ? own : codebook_shift;
    u32 kind = KIND_WILD;
    if (raw >= INFINITE_BITS) {
        kind = KIND_NON_FINITE;
    } else if (centred < INFINITE_BITS && codebook_shift - shift <= MAX_WIDENING) {
        kind = KIND_PACKED;
    }
    return {kind, own, shift};
}

// Finds the largest magnitude of the row, before and after centring, and what follows from it. With `wide`, writes the
// exact values there, d of them.
template <class T>
static __device__ __forceinline__ RowScale scan_row(const T* z, float* wide, const float* mean, u32 d, int codebook_shift) {
    u32 raw = 0, centred = 0;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) {
        const float value = to_f32(z[t]);
        const u32 before = __float_as_uint(value) & MAGNITUDE_BITS;
        const u32 after = __float_as_uint(__fsub_rn(value, mean[t])) & MAGNITUDE_BITS;
        raw = before > raw ? before : raw;
        centred = after > centred ? after : centred;
        if (wide) wide[t] = value;
    }
    raw = warp_max(raw);
    centred = warp_max(centred);
    return row_scale(raw, centred, codebook_shift);
}

// Counts the row, number `row` of the call, and with `report` says where its first value is that is not finite.
template <class T>
static __device__ __forceinline__ void report_bad_row(const T* z, u32 d, u64 row, u32 report, u64* status) {
    u64 first = ~(u64)0;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) {
        const u32 bits = __float_as_uint(to_f32(z[t]));
        if ((bits & MAGNITUDE_BITS) < INFINITE_BITS) continue;
        first = bad_value_key(row, t, bits);
        break;
    }
    first = warp_min(first);
    if (threadIdx.x % WARP == 0) {
        if (report) atomicMin(&status[STATUS_BAD_VALUE], first);
        atomicAdd(&status[STATUS_BAD], (u64)1);
    }
}
