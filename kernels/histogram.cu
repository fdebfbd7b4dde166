// How often each codeword is used.
//
//     counts[j] += how many of labels [n] are j
//
// Inputs  labels [n] u32: below k, or SENTINEL, which counts nowhere.
// Outputs counts [k] u64, added to. bad u64 [1]: lowered to the least position of a label that is neither times 2^32,
//         plus the label; the caller sets it to 2^64 - 1. All allocated by the caller.
// Numbers Integers: the same whatever the order of the threads.
// Launch  any grid (blocks take labels in turn), block HISTOGRAM_THREADS in one dimension, no dynamic shared memory.
// Idea    Up to HISTOGRAM_BINS codewords a block counts in shared memory first and adds what is not zero to the counts
//         at the end; beyond, labels spread so far that atomics on device memory do. Bound by the atomics.
// Source  ours.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

extern "C" __global__ void __launch_bounds__(HISTOGRAM_THREADS)
    histogram_u32(const u32* __restrict__ labels, u64* __restrict__ counts, u64* __restrict__ bad, u32 n, u32 k) {
    __shared__ u32 bins[HISTOGRAM_BINS];
    const bool privately = k <= HISTOGRAM_BINS;
    if (privately) {
        for (u32 j = threadIdx.x; j < k; j += HISTOGRAM_THREADS) bins[j] = 0;
    }
    __syncthreads();  // The bins are empty.
    for (u64 i = (u64)blockIdx.x * HISTOGRAM_THREADS + threadIdx.x; i < n; i += (u64)gridDim.x * HISTOGRAM_THREADS) {
        const u32 label = labels[i];
        if (label >= k) {
            if (label != SENTINEL) atomicMin(bad, i << 32 | label);
        } else if (privately) {
            atomicAdd(&bins[label], 1u);
        } else {
            atomicAdd(&counts[label], (u64)1);
        }
    }
    __syncthreads();  // All labels of the block are counted.
    if (!privately) return;
    for (u32 j = threadIdx.x; j < k; j += HISTOGRAM_THREADS) {
        if (bins[j]) atomicAdd(&counts[j], (u64)bins[j]);
    }
}
