// Rows in the order of their labels: a stable counting sort, digit by digit of the label, the lowest first.
//
//     order = the rows i that have a label, by (labels[i], i)      starts[j] = how many of them have labels below j
//
// Entries, in the order of their launches; the first three once for every digit of k - 1, at `shift` 0, 8, 16, 24:
//   count    labels [n] u32: below k, or SENTINEL, whose rows are in no order; from [n] u32: the order by the digits
//            before, not read at shift 0  ->  counts [ORDER_DIGITS, tiles] u32: how often each digit occurs in each tile
//            of ORDER_TILE places; bad u64 [1]: lowered to the least position, counted from `first`, of a label that is
//            neither below k nor SENTINEL times 2^32, plus the label; its row is in no order either
//   scan     counts -> each becomes the sum of those before it in its row; totals [ORDER_DIGITS] u32: the sums of rows
//   scatter  labels, from, counts, totals -> to [n] u32: rows in the order by this digit, too
//   starts   labels, order [n] u32 -> starts [k + 1] u32
// The caller allocates everything, and fills `to` with NO_ROW before every scatter: places that no row takes keep that.
// n < 2^32 - 1, k >= 1, tiles = ceil(n / ORDER_TILE).
//
// Numbers Integers: the same whatever the order of the threads.
// Launch  count, scatter: grid tiles; scan: grid ORDER_DIGITS; starts: grid ceil((k + 1) / ORDER_THREADS). Blocks of
//         ORDER_THREADS, one dimension, no dynamic shared memory.
// Idea    Each warp of scatter takes its part of a tile 32 rows at a time: lanes of one digit find each other by one
//         match, and their place is the number of those before them in the warp, in the warps before, in the tiles before
//         and of the digits before. A digit has 256 values: one pass for up to 256 codewords, two for up to 65536. Labels
//         stay where they are and are looked up, so that four bytes a row move. Bound by memory: 12 bytes a row in the
//         first pass, and scattered accesses in those after it.
// Source  ours; a least significant digit radix sort (Knuth, volume 3, section 5.2.5).
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

#define ORDER_DIGITS (1 << ORDER_DIGIT_BITS)
#define ORDER_WARPS (ORDER_THREADS / WARP)
#define ORDER_ROUNDS (ORDER_TILE / ORDER_THREADS)

static_assert(ORDER_THREADS == ORDER_DIGITS, "a thread for each value of a digit");
static_assert(ORDER_TILE % ORDER_THREADS == 0 && ORDER_THREADS % WARP == 0, "whole rounds of whole warps");

// The row at a place of the order so far.
static __device__ __forceinline__ u32 row_at(const u32* from, u64 place, u32 n, u32 shift) {
    if (place >= n) return NO_ROW;
    return shift ? from[place] : (u32)place;
}

// The digit of a label; ORDER_DIGITS where it names no codeword.
static __device__ __forceinline__ u32 digit_of(u32 label, u32 k, u32 shift) {
    return label < k ? (label >> shift) & (ORDER_DIGITS - 1) : (u32)ORDER_DIGITS;
}

// The sum of the values of the threads before this one, and in `total` that of all.
static __device__ __forceinline__ u32 block_sum_before(u32 value, u32* of_warps, u32& total) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 through = value;
    for (u32 offset = 1; offset < WARP; offset *= 2) {
        const u32 before = __shfl_up_sync(FULL_WARP, through, offset);
        if (lane >= offset) through += before;
    }
    if (lane == WARP - 1) of_warps[warp] = through;
    __syncthreads();  // The sums of warps are there.
    u32 before = through - value;
    total = 0;
    for (u32 w = 0; w < ORDER_WARPS; w++) {
        if (w < warp) before += of_warps[w];
        total += of_warps[w];
    }
    __syncthreads();  // They have been read.
    return before;
}

extern "C" __global__ void __launch_bounds__(ORDER_THREADS)
    label_order_count_u32(const u32* __restrict__ labels, const u32* __restrict__ from, u32* __restrict__ counts,
                          u64* __restrict__ bad, u64 first, u32 n, u32 k, u32 tiles, u32 shift) {
    __shared__ u32 bins[ORDER_DIGITS];
    bins[threadIdx.x] = 0;
    __syncthreads();  // The bins are empty.
    for (u32 i = 0; i < ORDER_ROUNDS; i++) {
        const u32 row = row_at(from, (u64)blockIdx.x * ORDER_TILE + i * ORDER_THREADS + threadIdx.x, n, shift);
        if (row == NO_ROW) continue;
        const u32 label = labels[row], digit = digit_of(label, k, shift);
        if (digit < ORDER_DIGITS) {
            atomicAdd(&bins[digit], 1u);
        } else if (label != SENTINEL) {
            atomicMin(bad, (first + row) << 32 | label);
        }
    }
    __syncthreads();  // All rows of the tile are counted.
    counts[(u64)threadIdx.x * tiles + blockIdx.x] = bins[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(ORDER_THREADS)
    label_order_scan_u32(u32* __restrict__ counts, u32* __restrict__ totals, u32 tiles) {
    __shared__ u32 of_warps[ORDER_WARPS];
    u32* row = counts + (u64)blockIdx.x * tiles;
    u32 before = 0;
    for (u64 start = 0; start < tiles; start += ORDER_THREADS) {
        const u64 tile = start + threadIdx.x;
        const u32 count = tile < tiles ? row[tile] : 0;
        u32 total;
        const u32 place = before + block_sum_before(count, of_warps, total);
        if (tile < tiles) row[tile] = place;
        before += total;
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

extern "C" __global__ void __launch_bounds__(ORDER_THREADS)
    label_order_scatter_u32(const u32* __restrict__ labels, const u32* __restrict__ from,
                            const u32* __restrict__ counts, const u32* __restrict__ totals, u32* __restrict__ to, u32 n,
                            u32 k, u32 tiles, u32 shift) {
    // First how many rows of a digit each warp has, then where they begin.
    __shared__ u32 places[ORDER_WARPS][ORDER_DIGITS];
    __shared__ u32 of_warps[ORDER_WARPS];
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (u32 w = 0; w < ORDER_WARPS; w++) places[w][threadIdx.x] = 0;
    __syncthreads();  // Nothing is counted.

    // Find the place of each row among those of its digit in its warp. A warp has consecutive places of the tile.
    u32 rows[ORDER_ROUNDS], digits[ORDER_ROUNDS], before[ORDER_ROUNDS];
#pragma unroll
    for (u32 i = 0; i < ORDER_ROUNDS; i++) {
        const u32 place = (warp * ORDER_ROUNDS + i) * WARP + lane;
        rows[i] = row_at(from, (u64)blockIdx.x * ORDER_TILE + place, n, shift);
        digits[i] = rows[i] == NO_ROW ? (u32)ORDER_DIGITS : digit_of(labels[rows[i]], k, shift);
        const u32 peers = __match_any_sync(FULL_WARP, digits[i]);
        const u32 counted = digits[i] < ORDER_DIGITS ? places[warp][digits[i]] : 0;
        before[i] = counted + __popc(peers & ((1u << lane) - 1u));
        __syncwarp();  // All have read the count before it changes.
        if (digits[i] < ORDER_DIGITS && lane == (u32)__ffs((int)peers) - 1) {
            places[warp][digits[i]] = counted + __popc(peers);
        }
        __syncwarp();  // It is there for the next round.
    }
    __syncthreads();  // All warps have counted.

    // Begin the digit of this thread: after the digits before it, and after its own in the tiles before.
    u32 total;
    u32 place = block_sum_before(totals[threadIdx.x], of_warps, total);
    place += counts[(u64)threadIdx.x * tiles + blockIdx.x];
    for (u32 w = 0; w < ORDER_WARPS; w++) {
        const u32 count = places[w][threadIdx.x];
        places[w][threadIdx.x] = place;
        place += count;
    }
    __syncthreads();  // All digits of all warps have their beginnings.
#pragma unroll
    for (u32 i = 0; i < ORDER_ROUNDS; i++) {
        if (digits[i] < ORDER_DIGITS) to[places[warp][digits[i]] + before[i]] = rows[i];
    }
}

extern "C" __global__ void __launch_bounds__(ORDER_THREADS)
    label_order_starts_u32(const u32* __restrict__ labels, const u32* __restrict__ order, u32* __restrict__ starts,
                           u32 n, u32 k) {
    const u64 j = (u64)blockIdx.x * ORDER_THREADS + threadIdx.x;
    if (j > k) return;
    // Labels lie below j at the places before `low`, and nowhere from `high` on.
    u32 low = 0, high = n;
    while (low < high) {
        const u32 middle = low + (high - low) / 2, row = order[middle];
        if (row != NO_ROW && labels[row] < j) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    starts[j] = low;
}
