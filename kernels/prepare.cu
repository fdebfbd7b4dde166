// prepare: a codebook on the device, made ready for the filter pass.
//
//     packed[p] = ((e_j - mean) 2^s, bound_j, |e_j - mean|^2 / 2 2^2s)      for j = labels[p], the p-th distinct codeword
//
// Entries, in the order of their launches; each reads what those before it wrote:
//   copy     x [k, d] f32, f16 or bf16, rows `stride` elements apart  ->  codewords [k, d] f32, exact
//   hash     codewords -> hashes [k] u64; facts: lowest value that is not finite
//   repeats  hashes, codewords -> table [capacity] u32: 1 + the lowest of the codewords equal to each other that met
//            there; slots [k] u64: where codeword j met its equals
//   distinct table, slots -> labels [k] u32, m of them written, ascending: no codeword that equals one of lower index;
//            positions [k] u32: the p whose codeword equals codeword j; facts: m
//   sums     sums [ceil(k / PREPARE_RUN), d] f64: per column, over PREPARE_RUN distinct codewords each
//   mean     sums -> mean [d] f32
//   norms    plain, centred [k] u64: bits of the squared norms, f64, of the distinct codewords as they are and around
//            the mean; may lie where hashes and slots did; facts: the largest magnitude of a component of both
//   centre   facts: whether the mean shortens the median codeword, and s; mean [d] becomes zeros where it does not
//   pack     packed [k, d + 2] f32, m rows of it written; bounds [k], halves [k]: its last two columns once more;
//            facts: the largest half squared norm
// The caller allocates everything, table (a power of two, at least 2 k) filled with zeros, facts as src/backend/cuda/
// prepare.rs begins them. k >= 1, d >= 1, d <= 2^26.
//
// Numbers Bit for bit what src/backend/cpu/panels.rs computes. The mean is a sum in f64, one after the other within a run
//         of PREPARE_RUN distinct codewords, then run after run; a squared norm is a sum in f64 over 32 lanes, every 32nd
//         component each, then halves of the lanes added to each other. 0 and -0 are equal, and so are rows of them.
//         The table's order depends on the order of threads, its lowest codewords do not: what is kept does not either.
//         With a value that is not finite everything ends, and nothing but the fact that names it means anything.
// Launch  copy, hash, repeats, norms, pack: a warp per codeword, PREPARE_WARPS a block, grid ceil(k / PREPARE_WARPS);
//         sums: PREPARE_COLUMNS threads, grid (ceil(k / PREPARE_RUN), any); mean: PREPARE_COLUMNS threads, grid
//         ceil(d / PREPARE_COLUMNS); distinct, centre: one block of PREPARE_THREADS. No dynamic shared memory.
// Idea    Bound by memory: five passes over the codewords, of which all but the first hit the L2 cache for a codebook
//         that fits it. How many are distinct is known on the device alone, so nothing waits for the host: grids are for
//         k, and warps beyond m leave. Medians by radix selection over the bits of f64, which order like the numbers.
// Source  ours; the hash mixes with the finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure 14).
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

#define FACT_LOWEST_BAD 0 // bad_value_key, 2^64 - 1 where all is finite
#define FACT_DISTINCT 1
#define FACT_LARGEST 2
#define FACT_LARGEST_CENTRED 3
#define FACT_CENTRED 4
#define FACT_SHIFT 5
#define FACT_LARGEST_HALF 6

#define DIGIT_BITS 8
#define DIGITS (1 << DIGIT_BITS)

static_assert(PREPARE_WARPS * WARP <= 1024 && PREPARE_THREADS <= 1024, "a block holds at most 1024 threads");
static_assert(PREPARE_THREADS >= DIGITS && DIGITS % WARP == 0, "a thread clears each digit, a lane counts some");

// The codeword, or its position, of this warp.
static __device__ __forceinline__ u32 warp_of_grid() { return blockIdx.x * PREPARE_WARPS + threadIdx.x / WARP; }

template <typename T>
static __device__ __forceinline__ void copy_row(const T* x, float* codewords, u64 stride, u32 k, u32 d) {
    const u64 j = warp_of_grid();
    if (j >= k) return;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) codewords[j * d + t] = to_f32(x[j * stride + t]);
}

static __device__ __forceinline__ u64 mixed(u64 bits) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
    return bits ^ (bits >> 31);
}

// Whether two rows are equal as numbers; the same in every lane.
static __device__ __forceinline__ bool warp_equal(const float* a, const float* b, u32 d, u32 lane) {
    for (u32 start = 0; start < d; start += WARP) {
        const u32 t = start + lane;
        if (__any_sync(FULL_WARP, t < d && a[t] != b[t])) return false;
    }
    return true;
}

// The value of rank `rank`, from 0, among m bit patterns; the same in every thread of the block.
static __device__ u64 block_select(const u64* values, u32 m, u32 rank, u32* counts) {
    const u32 lane = threadIdx.x % WARP;
    u64 prefix = 0;
    for (int shift = 64 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        // Count the digits at `shift` of the values that begin with the prefix.
        if (threadIdx.x < DIGITS) counts[threadIdx.x] = 0;
        __syncthreads();
        for (u64 start = 0; start < m; start += PREPARE_THREADS) {
            const u64 p = start + threadIdx.x;
            const u64 bits = p < m ? values[p] : 0;
            // Two shifts: by all 64 bits at once is not defined.
            const bool counted = p < m && (((bits ^ prefix) >> shift) >> DIGIT_BITS) == 0;
            const u32 digit = counted ? (u32)(bits >> shift) & (DIGITS - 1) : DIGITS;
            // The leading digits are nearly all the same: one addition per warp and digit.
            const u32 peers = __match_any_sync(FULL_WARP, digit);
            if (counted && lane == (u32)__ffs((int)peers) - 1) atomicAdd(&counts[digit], (u32)__popc(peers));
        }
        __syncthreads();
        // Find the digit of the wanted rank: every warp for itself, some digits a lane.
        const u32 own = lane * (DIGITS / WARP);
        u32 sum = 0;
        for (u32 i = 0; i < DIGITS / WARP; i++) sum += counts[own + i];
        u32 through = sum;
        for (u32 offset = 1; offset < WARP; offset *= 2) {
            const u32 before = __shfl_up_sync(FULL_WARP, through, offset);
            if (lane >= offset) through += before;
        }
        const int finder = __ffs((int)__ballot_sync(FULL_WARP, through > rank)) - 1;
        u32 digit = own, left = rank - (through - sum);
        if (lane == (u32)finder) {
            while (left >= counts[digit]) left -= counts[digit++];
        }
        digit = __shfl_sync(FULL_WARP, digit, finder);
        rank = __shfl_sync(FULL_WARP, left, finder);
        prefix |= (u64)digit << shift;
        __syncthreads();  // All have read the counts.
    }
    return prefix;
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_copy_f32(const float* __restrict__ x, float* __restrict__ codewords, u64 stride, u32 k, u32 d) {
    copy_row(x, codewords, stride, k, d);
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_copy_f16(const F16* __restrict__ x, float* __restrict__ codewords, u64 stride, u32 k, u32 d) {
    copy_row(x, codewords, stride, k, d);
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_copy_bf16(const Bf16* __restrict__ x, float* __restrict__ codewords, u64 stride, u32 k, u32 d) {
    copy_row(x, codewords, stride, k, d);
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_hash_f32(const float* __restrict__ codewords, u64* __restrict__ hashes, u64* __restrict__ facts, u32 k,
                     u32 d) {
    const u64 j = warp_of_grid();
    if (j >= k) return;
    u64 hash = 0, bad = ~0ull;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) {
        const u32 bits = __float_as_uint(codewords[j * d + t]), magnitude = bits & MAGNITUDE_BITS;
        // Columns rise: the first that a lane finds is its lowest.
        if (magnitude >= INFINITE_BITS && bad == ~0ull) bad = bad_value_key(j, t, bits);
        // A sum of mixed pairs of place and value: any order of lanes. -0 is 0.
        hash += mixed((u64)(t + 1) << 32 | (magnitude ? bits : 0u));
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        hash += __shfl_xor_sync(FULL_WARP, hash, offset);
        const u64 other = __shfl_xor_sync(FULL_WARP, bad, offset);
        bad = other < bad ? other : bad;
    }
    if (threadIdx.x % WARP != 0) return;
    hashes[j] = hash;
    if (bad != ~0ull) atomicMin(&facts[FACT_LOWEST_BAD], bad);
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_repeats_f32(const float* __restrict__ codewords, const u64* __restrict__ hashes, u32* __restrict__ table,
                        u64* __restrict__ slots, u64 capacity, u32 k, u32 d) {
    const u32 lane = threadIdx.x % WARP;
    const u64 j = warp_of_grid();
    if (j >= k) return;
    const u64 hash = hashes[j];
    u64 slot = hash & (capacity - 1);
    // Equal codewords walk the same slots, none is ever emptied, and half of them stay free: all equals meet in one.
    for (;; slot = (slot + 1) & (capacity - 1)) {
        u32 met = lane == 0 ? atomicCAS(&table[slot], 0u, (u32)j + 1) : 0u;
        met = __shfl_sync(FULL_WARP, met, 0);
        if (met == 0) break;
        const u64 other = met - 1;
        if (hashes[other] == hash && warp_equal(codewords + other * d, codewords + j * d, d, lane)) {
            if (lane == 0) atomicMin(&table[slot], (u32)j + 1);
            break;
        }
    }
    if (lane == 0) slots[j] = slot;
}

extern "C" __global__ void __launch_bounds__(PREPARE_THREADS)
    prepare_distinct_f32(const u32* __restrict__ table, const u64* __restrict__ slots, u32* __restrict__ labels,
                         u32* __restrict__ positions, u64* __restrict__ facts, u32 k) {
    __shared__ u32 kept[PREPARE_THREADS / WARP];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 before = 0;
    for (u64 start = 0; start < k; start += PREPARE_THREADS) {
        const u64 j = start + threadIdx.x;
        const u64 first = j < k ? table[slots[j]] - 1 : ~0ull;
        const u32 ballot = __ballot_sync(FULL_WARP, first == j);
        if (lane == 0) kept[warp] = __popc(ballot);
        __syncthreads();
        u32 position = before + __popc(ballot & ((1u << lane) - 1u));
        for (u32 w = 0; w < PREPARE_THREADS / WARP; w++) {
            if (w < warp) position += kept[w];
            before += kept[w];
        }
        if (first == j) {
            labels[position] = (u32)j;
            positions[j] = position;
        }
        __syncthreads();  // Positions up to here are written, and kept is read.
        if (j < k && first != j) positions[j] = positions[first];
    }
    if (threadIdx.x == 0) facts[FACT_DISTINCT] = before;
}

extern "C" __global__ void __launch_bounds__(PREPARE_COLUMNS)
    prepare_sums_f32(const float* __restrict__ codewords, const u32* __restrict__ labels,
                     const u64* __restrict__ facts, double* __restrict__ sums, u32 d) {
    const u64 m = facts[FACT_DISTINCT], start = (u64)blockIdx.x * PREPARE_RUN;
    if (start >= m) return;
    const u64 end = m - start < PREPARE_RUN ? m : start + PREPARE_RUN;
    for (u64 t = (u64)blockIdx.y * PREPARE_COLUMNS + threadIdx.x; t < d; t += (u64)gridDim.y * PREPARE_COLUMNS) {
        double sum = 0.0;
        for (u64 p = start; p < end; p++) sum = __dadd_rn(sum, (double)codewords[(u64)labels[p] * d + t]);
        sums[blockIdx.x * (u64)d + t] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(PREPARE_COLUMNS)
    prepare_mean_f32(const double* __restrict__ sums, const u64* __restrict__ facts, float* __restrict__ mean, u32 d) {
    const u64 t = (u64)blockIdx.x * PREPARE_COLUMNS + threadIdx.x;
    if (t >= d) return;
    const u64 m = facts[FACT_DISTINCT];
    double sum = 0.0;
    for (u64 run = 0; run * PREPARE_RUN < m; run++) sum = __dadd_rn(sum, sums[run * d + t]);
    mean[t] = __double2float_rn(__ddiv_rn(sum, (double)m));
}

extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_norms_f32(const float* __restrict__ codewords, const u32* __restrict__ labels,
                      const float* __restrict__ mean, u64* __restrict__ plain, u64* __restrict__ centred,
                      u64* __restrict__ facts, u32 d) {
    const u64 p = warp_of_grid();
    if (p >= facts[FACT_DISTINCT]) return;
    const float* e = codewords + (u64)labels[p] * d;
    double norm = 0.0, norm_centred = 0.0;
    u32 largest = 0, largest_centred = 0;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) {
        const double value = e[t], difference = __dsub_rn(value, (double)mean[t]);
        norm = __dadd_rn(norm, __dmul_rn(value, value));
        norm_centred = __dadd_rn(norm_centred, __dmul_rn(difference, difference));
        largest = max(largest, __float_as_uint(e[t]) & MAGNITUDE_BITS);
        largest_centred = max(largest_centred, __float_as_uint(__fsub_rn(e[t], mean[t])) & MAGNITUDE_BITS);
    }
    norm = warp_sum(norm);
    norm_centred = warp_sum(norm_centred);
    largest = warp_max(largest);
    largest_centred = warp_max(largest_centred);
    if (threadIdx.x % WARP != 0) return;
    plain[p] = (u64)__double_as_longlong(norm);
    centred[p] = (u64)__double_as_longlong(norm_centred);
    atomicMax(&facts[FACT_LARGEST], (u64)largest);
    atomicMax(&facts[FACT_LARGEST_CENTRED], (u64)largest_centred);
}

extern "C" __global__ void __launch_bounds__(PREPARE_THREADS)
    prepare_centre_f32(const u64* __restrict__ plain, const u64* __restrict__ centred, float* __restrict__ mean,
                       u64* __restrict__ facts, u32 d) {
    __shared__ u32 counts[DIGITS];
    const u32 m = (u32)facts[FACT_DISTINCT];
    const u64 median = block_select(plain, m, m / 2, counts);
    const u64 median_centred = block_select(centred, m, m / 2, counts);
    // A difference that overflows f32 rules centring out as well.
    const bool centre = facts[FACT_LARGEST_CENTRED] < INFINITE_BITS && median_centred < median;
    if (threadIdx.x == 0) {
        const u64 largest = facts[centre ? FACT_LARGEST_CENTRED : FACT_LARGEST];
        facts[FACT_CENTRED] = centre;
        facts[FACT_SHIFT] = (u64)(i64)shift_of((u32)largest);
    }
    for (u32 t = threadIdx.x; !centre && t < d; t += PREPARE_THREADS) mean[t] = 0.0f;
}

// `error` times the norm of a packed codeword is its bound, before it is rounded up.
extern "C" __global__ void __launch_bounds__(PREPARE_WARPS* WARP)
    prepare_pack_f32(const float* __restrict__ codewords, const u32* __restrict__ labels,
                     const float* __restrict__ mean, float* __restrict__ packed, float* __restrict__ bounds,
                     float* __restrict__ halves, u64* __restrict__ facts, double error, u32 d) {
    const u64 p = warp_of_grid();
    if (p >= facts[FACT_DISTINCT]) return;
    const float* e = codewords + (u64)labels[p] * d;
    float* row = packed + p * ((u64)d + 2);
    const float scale = power_of_two((int)(i64)facts[FACT_SHIFT]);
    double sq_norm = 0.0, half = 0.0;
    for (u32 t = threadIdx.x % WARP; t < d; t += WARP) {
        const float value = __fmul_rn(__fsub_rn(e[t], mean[t]), scale);
        const double real = __dmul_rn(__dsub_rn((double)e[t], (double)mean[t]), (double)scale);
        row[t] = value;
        sq_norm = __dadd_rn(sq_norm, __dmul_rn((double)value, (double)value));
        half = __dadd_rn(half, __dmul_rn(__dmul_rn(0.5, real), real));
    }
    sq_norm = warp_sum(sq_norm);
    half = warp_sum(half);
    if (threadIdx.x % WARP != 0) return;
    // The next f32 above: the conversion rounds to nearest.
    const float bound = __double2float_rn(__dmul_rn(__dsqrt_rn(sq_norm), error));
    row[d] = bounds[p] = __uint_as_float(__float_as_uint(bound) + 1u);
    row[d + 1] = halves[p] = __double2float_rn(half);
    atomicMax(&facts[FACT_LARGEST_HALF], (u64)__float_as_uint(row[d + 1]));
}
