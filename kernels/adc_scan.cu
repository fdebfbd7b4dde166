// The r codes nearest to each query by the entries of its table that a code names.
//
//     distance(q, i) = sum_s tables[q][s][number s of code i]      keys[q] = the r least of all distance 2^32 + id
//
// Inputs  codes: words [ceil(n / ADC_GROUP), ceil(m BITS / 32), ADC_GROUP] u32, the numbers of a code from the lowest bits
//         of its first word on, BITS each and all below k; first: the id of code 0; tables [ceil(q / tile), m, k, tile]
//         f32, no NaN and nothing negative: those of the queries of a tile entry by entry, with anything for queries from q
//         on. A tile has 4, 2 or 1 queries.
// Between of split x and query i at x queries + i, where there is room for `queries` of them: lists [splits, queries,
//         capacity] u64, the keys found so far; counts [splits, queries] u32, how many those are, 0 at first; limits
//         [splits, queries] u64, which all further ones lie below, all bits at first. Launches go on with what those
//         before left. capacity is at least ADC_THREADS ADC_CODES + r.
// Outputs keys [q, r] u64, in no order; all bits where there are fewer codes. All allocated by the caller.
// Numbers f32 sums from s = 0 on, each addition rounded: in the order and with the bits of src/search/scan.rs. They are
//         never negative, so their bits order like them, an infinity last. Keys are distinct, so the r least are one set,
//         whatever the order of threads, splits and launches.
// Launch  adc_scan, adc_scan_two and adc_scan_one, of tiles of 4, 2 and 1: grid (splits, ceil(q / tile)), block ADC_THREADS,
//         4 tile m k bytes of dynamic shared memory, but none for the first without in_shared; rounds of ADC_THREADS
//         ADC_CODES codes are taken by splits in turn. adc_scan_merge: grid q, block ADC_THREADS. Blocks in one dimension.
// Idea    A block has the tables of four queries in shared memory, so that one load of 128 bits there brings what a number
//         adds to four sums, and a code is read once for all of them: a word of four codes by one load of 128 bits. Sums
//         are in registers. What is below the r-th least distance seen so far, which few are before long, goes to a list;
//         a list that a round more could overfill is cut to its r least by radix selection. A last kernel selects among
//         the lists of all splits. Where the tables of four queries are too large for shared memory, those of two or of
//         one may fit; else they are read where they are. 4-bit numbers hardly ever fill it. Bound by the loads of tables: two numbers that name entries 128
//         bytes apart, or a multiple, take turns.
// Source  ours; the sums are those of Jegou, Douze, Schmid 2011.
// Measured not yet on a GPU.
#include "select.cuh"

#define ADC_WARPS (ADC_THREADS / WARP)
#define ADC_ROUND (ADC_THREADS * ADC_CODES)

static_assert(ADC_THREADS == SELECT_THREADS, "selections are made by whole blocks");
static_assert(ADC_QUERIES == 4 && ADC_CODES == 4 && ADC_GROUP == WARP * ADC_CODES, "loads of 128 bits");

struct Scan {
    const u32* codes;
    const float* tables;
    u64* lists;
    u32* counts;
    u64* limits;
    u32 first, n, m, k, q, queries, r, capacity;
};

// Keys of distances.
struct Keys {
    const u64* keys;
    u32 count;

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        for (u64 j = threadIdx.x; j < count; j += ADC_THREADS) take(keys[j]);
    }
};

// The keys of one query in the lists of all splits.
struct SplitKeys {
    const u64* lists;
    const u32* counts;
    u32 splits, queries, capacity;

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        for (u64 x = 0; x < splits; x++) Keys{lists + x * queries * capacity, counts[x * queries]}.each(take);
    }
};

// The upper halves of keys, so that the largest is the least distance.
template <class K>
struct Distances {
    const K& keys;

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        keys.each([&](u64 key) { take(~(u32)(key >> 32)); });
    }
};

// The lower halves of those with one upper half.
template <class K>
struct Ids {
    const K& keys;
    u32 distance;

    template <class Take>
    __device__ __forceinline__ void each(Take take) const {
        keys.each([&](u64 key) {
            if ((u32)(key >> 32) == distance) take(~(u32)key);
        });
    }
};

// What exactly r keys are not above, of at least r.
template <class K>
static __device__ u64 block_nth_least(Selection& s, const K& keys, u32 r) {
    const u32 distance = ~block_nth_largest(s, Distances<K>{keys}, r);
    const u32 rest = s.rest;
    const bool all = s.histogram[s.digit] == rest;
    __syncthreads();  // Everybody has read what the next selection overwrites.
    const u32 id = all ? 0xffffffffu : ~block_nth_largest(s, Ids<K>{keys, distance}, rest);
    return (u64)distance << 32 | id;
}

struct Found {
    u64 limits[ADC_QUERIES];
    u32 counts[ADC_QUERIES];
};

// Leaves the r least of more keys of query c.
static __device__ void cut(Selection& selection, Found& found, u32 c, u64* list, u32 count, u32 r) {
    const u64 limit = block_nth_least(selection, Keys{list, count}, r);
    if (threadIdx.x == 0) {
        found.limits[c] = limit;
        found.counts[c] = 0;
    }
    for (u32 start = 0; start < count; start += ADC_THREADS) {
        const u32 j = start + threadIdx.x;
        const u64 key = j < count ? list[j] : ~0ull;
        __syncthreads();  // These keys are read, and what is kept of them goes no further than they lie.
        if (j < count && key <= limit) list[atomicAdd(&found.counts[c], 1u)] = key;
    }
}

// Something of each query of a tile.
template <u32 TILE>
struct alignas(4 * TILE) Each {
    float of[TILE];
};

template <u32 TILE>
static __device__ __forceinline__ void add(Each<TILE>& sums, const Each<TILE>& entries) {
#pragma unroll
    for (u32 c = 0; c < TILE; c++) sums.of[c] = __fadd_rn(sums.of[c], entries.of[c]);
}

template <u32 BITS, u32 TILE>
static __device__ __forceinline__ void scan(const Scan& a, const Each<TILE>* table, Selection& selection,
                                            Found& found) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 per_word = 32 / BITS, mask = (u32)((1ull << BITS) - 1);
    const u32 width = (a.m - 1) / per_word + 1;
    const u64 groups = ((u64)a.n + ADC_GROUP - 1) / ADC_GROUP;
    u64* const lists = a.lists + ((u64)blockIdx.x * a.queries + blockIdx.y * TILE) * a.capacity;
    for (u64 round = blockIdx.x; round * ADC_WARPS < groups; round += gridDim.x) {
        const u64 group = round * ADC_WARPS + warp;
        u32 highest = 0;
        if (group < groups) {
            // Add up the entries of four codes for the queries of the tile.
            const uint4* words = reinterpret_cast<const uint4*>(a.codes) + group * width * WARP + lane;
            Each<TILE> sums[ADC_CODES] = {};
            u32 s = 0;
            for (u32 w = 0; w < width; w++) {
                const uint4 word = words[(u64)w * WARP];
#pragma unroll
                for (u32 b = 0; b < per_word; b++, s++) {
                    if (s == a.m) break;
                    const Each<TILE>* entries = table + (u64)s * a.k;
                    add(sums[0], entries[word.x >> b * BITS & mask]);
                    add(sums[1], entries[word.y >> b * BITS & mask]);
                    add(sums[2], entries[word.z >> b * BITS & mask]);
                    add(sums[3], entries[word.w >> b * BITS & mask]);
                }
            }

            // List what may be among the nearest.
            const u64 code = group * ADC_GROUP + lane * ADC_CODES;
#pragma unroll
            for (u32 c = 0; c < TILE; c++) {
                const u64 limit = found.limits[c];
#pragma unroll
                for (u32 i = 0; i < ADC_CODES; i++) {
                    const u64 key = (u64)__float_as_uint(sums[i].of[c]) << 32 | (u32)(a.first + code + i);
                    if (code + i >= a.n || key >= limit) continue;
                    const u32 slot = atomicAdd(&found.counts[c], 1u);
                    lists[(u64)c * a.capacity + slot] = key;
                    highest = slot > highest ? slot : highest;
                }
            }
        }

        // Make room for the next round.
        if (!__syncthreads_or(highest + ADC_ROUND >= a.capacity)) continue;
        for (u32 c = 0; c < TILE; c++) {
            const u32 count = found.counts[c];
            if (count + ADC_ROUND <= a.capacity) continue;
            __syncthreads();  // Everybody has read the count.
            cut(selection, found, c, lists + (u64)c * a.capacity, count, a.r);
        }
        __syncthreads();  // Limits and counts are those after the cut.
    }
}

template <u32 BITS, u32 TILE, bool IN_SHARED>
static __device__ __forceinline__ void scan_tile(const Scan& a, Selection& selection, Found& found) {
    extern __shared__ float4 room[];
    Each<TILE>* const near = reinterpret_cast<Each<TILE>*>(room);
    const u64 entries = (u64)a.m * a.k;
    const Each<TILE>* const far = reinterpret_cast<const Each<TILE>*>(a.tables) + blockIdx.y * entries;
    if (IN_SHARED) {
        for (u64 e = threadIdx.x; e < entries; e += ADC_THREADS) near[e] = far[e];
    }
    const u32 query = blockIdx.y * TILE + threadIdx.x;
    const u64 place = (u64)blockIdx.x * a.queries + query;
    const bool has_query = threadIdx.x < TILE && query < a.q;
    if (threadIdx.x < TILE) {
        // Below 0 there is nothing: a query that is none finds none.
        found.limits[threadIdx.x] = has_query ? a.limits[place] : 0;
        found.counts[threadIdx.x] = has_query ? a.counts[place] : 0;
    }
    __syncthreads();  // Tables, limits and counts are there.
    scan<BITS, TILE>(a, IN_SHARED ? near : far, selection, found);
    __syncthreads();  // All codes are through.
    if (has_query) {
        a.limits[place] = found.limits[threadIdx.x];
        a.counts[place] = found.counts[threadIdx.x];
    }
}

template <u32 BITS, u32 TILE>
static __device__ __forceinline__ void scan_any(const Scan& a, bool in_shared) {
    __shared__ Selection selection;
    __shared__ Found found;
    if (in_shared) {
        scan_tile<BITS, TILE, true>(a, selection, found);
    } else {
        scan_tile<BITS, TILE, false>(a, selection, found);
    }
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_u4(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                u32 r, u32 capacity, u32 in_shared) {
    scan_any<4, 4>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, in_shared);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_u8(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                u32 r, u32 capacity, u32 in_shared) {
    scan_any<8, 4>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, in_shared);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_two_u8(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                    u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                    u32 r, u32 capacity) {
    scan_any<8, 2>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, true);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_one_u8(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                    u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                    u32 r, u32 capacity) {
    scan_any<8, 1>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, true);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_u16(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                 u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                 u32 r, u32 capacity, u32 in_shared) {
    scan_any<16, 4>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, in_shared);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_two_u16(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                     u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                     u32 r, u32 capacity) {
    scan_any<16, 2>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, true);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_one_u16(const u32* __restrict__ codes, const float* __restrict__ tables, u64* __restrict__ lists,
                     u32* __restrict__ counts, u64* __restrict__ limits, u32 first, u32 n, u32 m, u32 k, u32 q, u32 queries,
                     u32 r, u32 capacity) {
    scan_any<16, 1>({codes, tables, lists, counts, limits, first, n, m, k, q, queries, r, capacity}, true);
}

extern "C" __global__ void __launch_bounds__(ADC_THREADS, 4)
    adc_scan_merge(const u64* __restrict__ lists, const u32* __restrict__ counts, u64* __restrict__ keys, u32 splits,
                   u32 queries, u32 r, u32 capacity) {
    __shared__ Selection selection;
    __shared__ u32 kept;
    const u64 query = blockIdx.x;
    const SplitKeys all = {lists + query * capacity, counts + query, splits, queries, capacity};
    keys += query * r;
    u64 total = 0;
    for (u64 x = 0; x < splits; x++) total += counts[x * queries + query];
    if (threadIdx.x == 0) kept = 0;
    __syncthreads();  // Nothing is kept yet.
    const u64 limit = total > r ? block_nth_least(selection, all, r) : ~0ull;
    all.each([&](u64 key) {
        if (key <= limit) keys[atomicAdd(&kept, 1u)] = key;
    });
    for (u64 i = total + threadIdx.x; i < r; i += ADC_THREADS) keys[i] = ~0ull;
}
