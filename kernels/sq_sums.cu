// Sums of squares of rows, to the last bit those of the CPU.
//
//     sums[i] = (sum_t z_it^2, sum_t (z_it - e_(labels[i])t)^2)      sq_sums_*
//     blocks[b] = the sums of rows b block_rows on, one after the other      sq_sums_blocks_f64
//
// Inputs  x [n, d] f32, f16 or bf16, rows `stride` elements apart; codewords [k, d] f32; labels [n] u32.
//         block_rows: rows of a block of src/metrics.rs, a function of d.
// Outputs sums [n, 2] f64: zeros where the label is not below k, the sentinel among them. blocks
//         [ceil(n / block_rows), 2] f64; the last one may have fewer rows. All allocated by the caller.
// Numbers f64, every operation named and rounded on its own: eight running sums over every eighth element, added in
//         pairs ((a + b) + (c + d)) + ((e + f) + (g + h)), as in src/backend/cpu/sq_sums.rs. Nothing overflows or
//         underflows. Rows of a block are added in ascending order from zero, as in src/metrics.rs.
// Launch  sq_sums_*: grid ceil(8 n / SQ_SUMS_THREADS), block SQ_SUMS_THREADS. sq_sums_blocks: grid as many as blocks,
//         block of one warp. One dimension, no dynamic shared memory.
// Idea    Eight lanes per row hold the eight running sums. A block of rows is a chain of dependent additions: two lanes
//         walk it, one per sum, from shared memory that the warp fills. The first is bound by memory, the second by
//         the latency of an f64 addition, block_rows times.
// Source  ours; the CPU's twins are src/backend/cpu/sq_sums.rs and `OrderedSum` of src/metrics.rs.
// Measured not yet on a GPU.
#include "common.cuh"
#include "shapes.h"

#define LANES 8
// Rows that a warp of sq_sums_blocks holds in shared memory.
#define TILE_ROWS 256

static_assert(SQ_SUMS_THREADS % WARP == 0 && WARP % LANES == 0, "a row must not straddle two warps");

template <class T>
static __device__ __forceinline__ void sum_rows(const T* x, u64 stride, const float* codewords, const u32* labels,
                                                double* sums, u32 n, u32 k, u32 d) {
    const u32 lane = threadIdx.x % LANES;
    const u64 row = ((u64)blockIdx.x * SQ_SUMS_THREADS + threadIdx.x) / LANES;
    const u32 label = row < n ? labels[row] : SENTINEL;
    double energy = 0.0, error = 0.0;
    if (label < k) {
        const T* z = x + row * stride;
        const float* e = codewords + (u64)label * d;
        for (u32 t = lane; t < d; t += LANES) {
            const double value = (double)to_f32(z[t]);
            const double difference = __dsub_rn(value, (double)e[t]);
            energy = __dadd_rn(energy, __dmul_rn(value, value));
            error = __dadd_rn(error, __dmul_rn(difference, difference));
        }
    }
    // Rows beyond the last one stay to the end: every lane of a warp takes part.
    for (int offset = 1; offset < LANES; offset *= 2) {
        energy = __dadd_rn(energy, __shfl_xor_sync(FULL_WARP, energy, offset));
        error = __dadd_rn(error, __shfl_xor_sync(FULL_WARP, error, offset));
    }
    if (row < n && lane == 0) {
        sums[2 * row] = energy;
        sums[2 * row + 1] = error;
    }
}

extern "C" __global__ void __launch_bounds__(WARP)
    sq_sums_blocks_f64(const double* __restrict__ sums, double* __restrict__ blocks, u32 n, u32 block_rows) {
    __shared__ double tile[2 * TILE_ROWS];
    const u32 lane = threadIdx.x;
    const u64 first = (u64)blockIdx.x * block_rows;
    const u64 end = n - first < block_rows ? n : first + block_rows;
    double sum = 0.0;
    for (u64 start = first; start < end; start += TILE_ROWS) {
        const u32 rows = end - start < TILE_ROWS ? (u32)(end - start) : (u32)TILE_ROWS;
        for (u32 i = lane; i < 2 * rows; i += WARP) tile[i] = sums[2 * start + i];
        __syncwarp();  // The rows are there.
        if (lane < 2) {
            for (u32 i = 0; i < rows; i++) sum = __dadd_rn(sum, tile[2 * i + lane]);
        }
        __syncwarp();  // They have been added.
    }
    if (lane < 2) blocks[2 * (u64)blockIdx.x + lane] = sum;
}

extern "C" __global__ void __launch_bounds__(SQ_SUMS_THREADS)
    sq_sums_f32(const float* __restrict__ x, u64 stride, const float* __restrict__ codewords,
                const u32* __restrict__ labels, double* __restrict__ sums, u32 n, u32 k, u32 d) {
    sum_rows(x, stride, codewords, labels, sums, n, k, d);
}

extern "C" __global__ void __launch_bounds__(SQ_SUMS_THREADS)
    sq_sums_f16(const F16* __restrict__ x, u64 stride, const float* __restrict__ codewords,
                const u32* __restrict__ labels, double* __restrict__ sums, u32 n, u32 k, u32 d) {
    sum_rows(x, stride, codewords, labels, sums, n, k, d);
}

extern "C" __global__ void __launch_bounds__(SQ_SUMS_THREADS)
    sq_sums_bf16(const Bf16* __restrict__ x, u64 stride, const float* __restrict__ codewords,
                 const u32* __restrict__ labels, double* __restrict__ sums, u32 n, u32 k, u32 d) {
    sum_rows(x, stride, codewords, labels, sums, n, k, d);
}
