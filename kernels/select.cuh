// The nth largest of many floats or keys by radix selection, one block of threads per selection: counts in shared memory,
// digit by digit from the top. Counts are integers, so that the order of threads decides nothing.
#pragma once
#include "common.cuh"
#include "shapes.h"

#define SELECT_THREADS TOP_K_THREADS
#define SELECT_WARPS (SELECT_THREADS / WARP)
// Bins of one digit of a key, 11 bits: sign, exponent and two more, so that scores spread over many.
#define SELECT_BINS 2048u
#define SELECT_EACH (SELECT_BINS / SELECT_THREADS)

static_assert(SELECT_BINS % SELECT_THREADS == 0 && SELECT_THREADS % WARP == 0, "whole threads and warps");

// An integer that orders like the number; the zeros are one.
static __device__ __forceinline__ u32 key_of(float value) {
    const u32 bits = __float_as_uint(__fadd_rn(value, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ u64 key_of(double value) {
    const u64 bits = (u64)__double_as_longlong(value);
    return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

static __device__ __forceinline__ double double_of(u64 key) {
    return __longlong_as_double((i64)(key >> 63 ? key & 0x7fffffffffffffffull : ~key));
}

struct Selection {
    u32 histogram[SELECT_BINS];
    u32 totals[SELECT_WARPS];
    u32 digit;
    u32 rest;
};

// Keys to select among: `each` gives `take` those of this thread.
struct ScoreKeys {
    const float* scores;
    u32 k;

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        for (u64 j = threadIdx.x; j < k; j += SELECT_THREADS) take(key_of(scores[j]));
    }
};

// The nth largest key, nth >= 1, digit by digit from the top. All threads of the block call it. Afterwards `rest` of those
// that are equal to it, and there are so many as the last digit has in the histogram, are among the n largest.
template <class Keys>
static __device__ u32 block_nth_largest(Selection& s, const Keys& keys, u32 nth) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 prefix = 0, fixed = 0;
    for (int pass = 0; pass < 3; pass++) {
        // 11, 11 and 10 bits: the last digit begins with a bit that is fixed already.
        const u32 shift = pass == 0 ? 21u : pass == 1 ? 10u : 0u;
        for (u32 bin = threadIdx.x; bin < SELECT_BINS; bin += SELECT_THREADS) s.histogram[bin] = 0;
        __syncthreads();  // The bins are empty.
        keys.each([&](u32 key) {
            if (((key ^ prefix) & fixed) == 0) atomicAdd(&s.histogram[(key >> shift) & (SELECT_BINS - 1)], 1u);
        });
        __syncthreads();  // All are counted.

        // Find the bin of the nth: thread 0 has the uppermost bins, and what lies above is summed up across threads.
        const u32 top = SELECT_BINS - 1 - threadIdx.x * SELECT_EACH;
        u32 own = 0;
        for (u32 i = 0; i < SELECT_EACH; i++) own += s.histogram[top - i];
        u32 above = own;
        for (u32 offset = 1; offset < WARP; offset *= 2) {
            const u32 other = __shfl_up_sync(FULL_WARP, above, offset);
            if (lane >= offset) above += other;
        }
        if (lane == WARP - 1) s.totals[warp] = above;
        __syncthreads();  // The sums of warps are there.
        above -= own;
        for (u32 w = 0; w < warp; w++) above += s.totals[w];
        if (above < nth && nth - above <= own) {
            u32 bin = top;
            for (; nth - above > s.histogram[bin]; bin--) above += s.histogram[bin];
            s.digit = bin;
            s.rest = nth - above;
        }
        __syncthreads();  // The digit is found.
        prefix |= s.digit << shift;
        fixed |= (SELECT_BINS - 1) << shift;
        nth = s.rest;
    }
    return prefix;
}
