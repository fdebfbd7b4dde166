// The squared distance of every row to its codeword, the real number rounded once to the nearest f32.
//
//     sq_distances[i] = round(sum_t (z_it - e_(labels[i])t)^2)
//
// Inputs  z [n, d] f32, f16 or bf16, as stored (not centred), rows z_stride elements apart; codewords [k, d] f32; kinds [n] of rows.cu; labels [n] u32, below k
//         where the row is finite.
// Outputs sq_distances [n] f32; labels[i] = SENTINEL and a NaN where the row is not finite. Allocated by the caller.
// Numbers f64 sum; where that lies too near the middle of two f32, the exact sum. Bits do not depend on any order.
// Launch  grid ceil(n / rows of a block), block 32 x DISTANCE_WARPS threads in one dimension, no dynamic shared memory. A
//         block takes DISTANCE_WARPS x DISTANCE_EACH x 32 / L rows: L lanes, the smallest power of two that has a lane for every four
//         elements, 32 at most, share DISTANCE_EACH rows.
// Idea    Rows are read in 128-bit loads where they lie so. Rows that the f64 sum leaves open, one of some 100,000, have
//         their exact sums by the whole warp in turn. Bound by memory.
// Source  ours; the CPU's twin is src/backend/cpu/exact.rs `round_sq_l2`.
// Measured on an H200: 131,072 x 256 in 48 us, 2.8 TB/s; x 128 in 38 us.
#include "direct.cuh"
#include "shapes.h"

// What a lane sums of its rows: the fours from element t on, `apart` elements apart. The loads of STEPS of them of all rows
// are on their way together, before those of the codewords, whose places wait for the labels.
template <bool WHOLE, u32 STEPS, class Z>
static __device__ __forceinline__ void lane_sq_l2(const Z* const (&z)[DISTANCE_EACH], const float* const (&e)[DISTANCE_EACH],
                                                  u32 d, u32 t, u32 apart, double (&sum)[DISTANCE_EACH]) {
    for (; t < d; t += STEPS * apart) {
        float4 a[STEPS][DISTANCE_EACH], b[STEPS][DISTANCE_EACH];
#pragma unroll
        for (u32 i = 0; i < STEPS * DISTANCE_EACH; i++) {
            a[i / DISTANCE_EACH][i % DISTANCE_EACH] = load_four(z[i % DISTANCE_EACH], t + i / DISTANCE_EACH * apart, d, WHOLE);
        }
#pragma unroll
        for (u32 i = 0; i < STEPS * DISTANCE_EACH; i++) {
            b[i / DISTANCE_EACH][i % DISTANCE_EACH] = load_four(e[i % DISTANCE_EACH], t + i / DISTANCE_EACH * apart, d, WHOLE);
        }
#pragma unroll
        for (u32 i = 0; i < STEPS * DISTANCE_EACH; i++) {
            double& of_row = sum[i % DISTANCE_EACH];
            of_row = add_sq_differences(of_row, a[i / DISTANCE_EACH][i % DISTANCE_EACH], b[i / DISTANCE_EACH][i % DISTANCE_EACH]);
        }
    }
}

template <class Z>
static __device__ __forceinline__ void distance_of(ExactSum (&sums)[DISTANCE_WARPS], const Z* z, u64 z_stride,
                                                   const float* codewords, const u32* kinds, u32* labels,
                                                   float* sq_distances, u32 n, u32 d, double slack) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, shift = fours_shift(d), first = lane >> shift << shift;
    const u64 first_row = (((u64)blockIdx.x * DISTANCE_WARPS + warp) * DISTANCE_EACH << (5 - shift)) + (lane >> shift);
    u64 row[DISTANCE_EACH];
    bool is_finite[DISTANCE_EACH];
    u32 label[DISTANCE_EACH];
    const Z* x[DISTANCE_EACH];
    const float* e[DISTANCE_EACH];
    double sum[DISTANCE_EACH];
#pragma unroll
    for (u32 i = 0; i < DISTANCE_EACH; i++) {
        row[i] = first_row + ((u64)i << (5 - shift));
        // What is not there, or not finite, is read as if it were the first row and codeword, and counts nothing.
        const bool is_row = row[i] < n;
        // Both are on their way together.
        const u32 its_kind = is_row ? kinds[row[i]] : KIND_NON_FINITE, its_label = is_row ? labels[row[i]] : 0;
        is_finite[i] = its_kind != KIND_NON_FINITE;
        label[i] = is_finite[i] ? its_label : 0;
        x[i] = z + (is_row ? row[i] : 0) * z_stride;
        e[i] = codewords + (u64)label[i] * d;
        sum[i] = 0.0;
    }

    const bool whole = fours_are_whole(z, z_stride, d) && fours_are_whole(codewords, d, d);
    const u32 t = 4 * (lane - first), apart = 4u << shift;
    if (whole && d > apart) {
        lane_sq_l2<true, 2>(x, e, d, t, apart, sum);
    } else if (whole) {
        lane_sq_l2<true, 1>(x, e, d, t, apart, sum);
    } else {
        lane_sq_l2<false, 1>(x, e, d, t, apart, sum);
    }
#pragma unroll
    for (u32 i = 0; i < DISTANCE_EACH; i++) {
        for (u32 offset = 1u << shift >> 1; offset > 0; offset /= 2) {
            sum[i] = __dadd_rn(sum[i], __shfl_xor_sync(FULL_WARP, sum[i], offset));
        }
        bool decided;
        float rounded = round_sq_l2(sum[i], slack, decided);

        // The warp takes one open row after the other.
        const bool is_open = is_finite[i] && !decided && lane == first;
        for (u32 open = __ballot_sync(FULL_WARP, is_open); open; open &= open - 1) {
            const int leader = __ffs((int)open) - 1;
            const u64 its_row = __shfl_sync(FULL_WARP, row[i], leader);
            const float* its_codeword = codewords + (u64)__shfl_sync(FULL_WARP, label[i], leader) * d;
            const float exact = warp_exact_sq_l2(z + its_row * z_stride, its_codeword, d, sums[warp], lane);
            if (lane == (u32)leader) rounded = exact;
        }
        if (row[i] >= n || lane != first) continue;
        if (!is_finite[i]) labels[row[i]] = SENTINEL;
        sq_distances[row[i]] = is_finite[i] ? rounded : __uint_as_float(0x7fc00000u);
    }
}

extern "C" __global__ void __launch_bounds__(DISTANCE_WARPS* WARP, 4)
    distance_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ kinds,
                 u32* __restrict__ labels, float* __restrict__ sq_distances, u32 n, u32 d, double slack) {
    __shared__ ExactSum sums[DISTANCE_WARPS];
    distance_of(sums, z, z_stride, codewords, kinds, labels, sq_distances, n, d, slack);
}

extern "C" __global__ void __launch_bounds__(DISTANCE_WARPS* WARP, 4)
    distance_f16(const F16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ kinds,
                 u32* __restrict__ labels, float* __restrict__ sq_distances, u32 n, u32 d, double slack) {
    __shared__ ExactSum sums[DISTANCE_WARPS];
    distance_of(sums, z, z_stride, codewords, kinds, labels, sq_distances, n, d, slack);
}

extern "C" __global__ void __launch_bounds__(DISTANCE_WARPS* WARP, 4)
    distance_bf16(const Bf16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ kinds,
                 u32* __restrict__ labels, float* __restrict__ sq_distances, u32 n, u32 d, double slack) {
    __shared__ ExactSum sums[DISTANCE_WARPS];
    distance_of(sums, z, z_stride, codewords, kinds, labels, sq_distances, n, d, slack);
}
