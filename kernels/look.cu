// Another look at the rows that the filter pass left open: finer arithmetic over fewer and fewer codewords, until one
// is left or what is left is equal in the real numbers.
//
// Inputs  z [n, d] f32, f16 or bf16, as stored, rows z_stride elements apart; codewords [k, d] f32; codeword_labels [m]: the distinct ones, ascending; again
//         [again_count]: the open rows, each once.
// Outputs labels of those rows: the lowest index that minimises the real number. status: counts of rows settled by
//         f32, by f64 and by exact sums. Allocated by the caller; the counts are added to.
// Numbers Direct f32 sums within (f32_relative, f32_tiny), then direct f64 sums within f64_relative: codewords that the
//         bounds rule out are dropped. Then exact sums of |e|^2 - 2 z.e, compared as integers. The order in which
//         warps find candidates varies, the result cannot.
// Launch  any grid (blocks take rows in turn), block 32 x LOOK_WARPS threads in one dimension.
// Idea    A block per row, a warp per codeword. Candidates are listed in shared memory; where they are too many for
//         it, the next step looks at all codewords instead, which is slower and as right. Bound by the second-level
//         cache, through which the codebook passes three times.
// Source  ours; the CPU's twin is src/backend/cpu/look.rs.
// Measured on an H200: 5200 rows of 256 against 1024 codewords in 3 ms: few rows alone are for it (short_list.cu).
#include "direct.cuh"
#include "shapes.h"

// Codewords that are still in the race: a list of positions, or all of them where the list overflowed.
struct Race {
    u32 positions[LOOK_CANDIDATES];
    u32 count;
};

static __device__ __forceinline__ void race_add(Race& race, u32 position) {
    const u32 slot = atomicAdd(&race.count, 1u);
    if (slot < LOOK_CANDIDATES) race.positions[slot] = position;
}

static __device__ __forceinline__ bool race_overflows(const Race& race) { return race.count > LOOK_CANDIDATES; }

// What the warps of a block share about a row.
struct LookState {
    Race near, nearer;
    u32 least_f32;
    u64 least_f64;
    ExactSum sums[LOOK_WARPS], bests[LOOK_WARPS];
    u32 winners[LOOK_WARPS];
};

template <class Z>
static __device__ __forceinline__ void look(LookState& state, const Z* z, u64 z_stride, const float* codewords,
                                            const u32* codeword_labels, const u32* again, const u32* again_count, u32* labels,
                                            u64* status, u32 m, u32 d, double f32_relative, double f32_tiny,
                                            double f64_relative) {
    Race &near = state.near, &nearer = state.nearer;
    u32 &least_f32 = state.least_f32, (&winners)[LOOK_WARPS] = state.winners;
    u64& least_f64 = state.least_f64;
    ExactSum (&sums)[LOOK_WARPS] = state.sums, (&bests)[LOOK_WARPS] = state.bests;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    for (u32 i = blockIdx.x; i < *again_count; i += gridDim.x) {
        const u32 row = again[i];
        const Z* x = z + row * z_stride;
        __syncthreads();  // Nobody reads the state of the row before.
        if (threadIdx.x == 0) {
            near.count = nearer.count = 0;
            least_f32 = INFINITE_BITS;
            least_f64 = 0x7ff0000000000000ull;
        }
        __syncthreads();

        // Find the least f32 sum. Bits of floats that are not negative order like the numbers.
        for (u64 position = warp; position < m; position += LOOK_WARPS) {
            const float sq_l2 = warp_sq_l2_f32(x, codewords + (u64)codeword_labels[position] * d, d, lane);
            if (lane == 0) atomicMin(&least_f32, __float_as_uint(sq_l2));
        }
        __syncthreads();

        // Keep what can still be as near. What overflowed is at least about the largest f32, no more is known.
        const double limit_f32 = (double)__uint_as_float(least_f32) * (1.0 + f32_relative) + f32_tiny;
        for (u64 position = warp; position < m; position += LOOK_WARPS) {
            const float sq_l2 = warp_sq_l2_f32(x, codewords + (u64)codeword_labels[position] * d, d, lane);
            const float known = sq_l2 < 3.402823466e38f ? sq_l2 : 3.402823466e38f;
            const bool stays = (double)known * (1.0 - f32_relative) - f32_tiny <= limit_f32;
            if (lane == 0 && stays) race_add(near, (u32)position);
        }
        __syncthreads();
        if (near.count == 1) {
            if (threadIdx.x == 0) {
                labels[row] = codeword_labels[near.positions[0]];
                atomicAdd(&status[STATUS_SECOND], (u64)1);
            }
            continue;
        }

        // The same by f64 sums.
        const bool all_near = race_overflows(near);
        const u32 n_near = all_near ? m : near.count;
        for (u64 c = warp; c < n_near; c += LOOK_WARPS) {
            const u32 position = all_near ? (u32)c : near.positions[c];
            const double sq_l2 = warp_sq_l2_f64(x, codewords + (u64)codeword_labels[position] * d, d, lane);
            if (lane == 0) atomicMin(&least_f64, (u64)__double_as_longlong(sq_l2));
        }
        __syncthreads();
        const double limit_f64 = __longlong_as_double((i64)least_f64) * (1.0 + f64_relative);
        for (u64 c = warp; c < n_near; c += LOOK_WARPS) {
            const u32 position = all_near ? (u32)c : near.positions[c];
            const double sq_l2 = warp_sq_l2_f64(x, codewords + (u64)codeword_labels[position] * d, d, lane);
            if (lane == 0 && sq_l2 * (1.0 - f64_relative) <= limit_f64) race_add(nearer, position);
        }
        __syncthreads();
        if (nearer.count == 1) {
            if (threadIdx.x == 0) {
                labels[row] = codeword_labels[nearer.positions[0]];
                atomicAdd(&status[STATUS_F64], (u64)1);
            }
            continue;
        }

        // Exact sums decide, the lowest position among equals. |z|^2 is the same for all and left out.
        const bool all_nearer = race_overflows(nearer);
        const u32 n_nearer = all_nearer ? m : nearer.count;
        u32 winner = 0xffffffffu;
        for (u64 c = warp; c < n_nearer; c += LOOK_WARPS) {
            const u32 position = all_nearer ? (u32)c : nearer.positions[c];
            const float* e = codewords + (u64)codeword_labels[position] * d;
            exact_clear(sums[warp], lane);
            exact_add_order(sums[warp], x, e, d, lane);
            exact_settle(sums[warp], lane);
            const int order = winner == 0xffffffffu ? -1 : exact_compare(sums[warp], bests[warp]);
            __syncwarp();  // All lanes have compared before the best changes.
            if (order < 0 || (order == 0 && position < winner)) {
                winner = position;
                if (lane < EXACT_LIMBS) bests[warp].limbs[lane] = sums[warp].limbs[lane];
            }
            __syncwarp();
        }
        if (lane == 0) winners[warp] = winner;
        __syncthreads();
        if (threadIdx.x == 0) {
            u32 first = 0;
            for (u32 w = 1; w < LOOK_WARPS; w++) {
                if (winners[w] == 0xffffffffu) continue;
                const int order = winners[first] == 0xffffffffu ? -1 : exact_compare(bests[w], bests[first]);
                if (order < 0 || (order == 0 && winners[w] < winners[first])) first = w;
            }
            labels[row] = codeword_labels[winners[first]];
            atomicAdd(&status[STATUS_EXACT], (u64)1);
        }
    }
}

extern "C" __global__ void __launch_bounds__(LOOK_WARPS* WARP, 4)
    look_f32(const float* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ codeword_labels,
             const u32* __restrict__ again, const u32* __restrict__ again_count, u32* __restrict__ labels,
             u64* __restrict__ status, u32 m, u32 d, double f32_relative, double f32_tiny, double f64_relative) {
    __shared__ LookState state;
    look(state, z, z_stride, codewords, codeword_labels, again, again_count, labels, status, m, d, f32_relative, f32_tiny,
         f64_relative);
}

extern "C" __global__ void __launch_bounds__(LOOK_WARPS* WARP, 4)
    look_f16(const F16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ codeword_labels,
             const u32* __restrict__ again, const u32* __restrict__ again_count, u32* __restrict__ labels,
             u64* __restrict__ status, u32 m, u32 d, double f32_relative, double f32_tiny, double f64_relative) {
    __shared__ LookState state;
    look(state, z, z_stride, codewords, codeword_labels, again, again_count, labels, status, m, d, f32_relative, f32_tiny,
         f64_relative);
}

extern "C" __global__ void __launch_bounds__(LOOK_WARPS* WARP, 4)
    look_bf16(const Bf16* __restrict__ z, u64 z_stride, const float* __restrict__ codewords, const u32* __restrict__ codeword_labels,
             const u32* __restrict__ again, const u32* __restrict__ again_count, u32* __restrict__ labels,
             u64* __restrict__ status, u32 m, u32 d, double f32_relative, double f32_tiny, double f64_relative) {
    __shared__ LookState state;
    look(state, z, z_stride, codewords, codeword_labels, again, again_count, labels, status, m, d, f32_relative, f32_tiny,
         f64_relative);
}
