// The sums of tensor_check.cuh, by its instructions and by those of assign_tensor_sm90a.cu beside.
//
// Inputs, outputs of tensor_check_wgmma_f16: those of tensor_check_f16.
// Numbers wgmma.m64n128k16 in ascending order of depth, one accumulator. Rows and columns that no problem has are zero.
// Launch  grid `problems`, block 128 threads, no dynamic shared memory. a and b on 4 bytes.
// Idea    Four warps per problem; operands go to shared memory by ordinary stores, step by step.
// Source  ours.
// Measured on an H200: 16 problems in 11 us; the sums are the model's, bit for bit (tests/cuda/tensor_model.rs).
#include "tensor_check.cuh"

#define CHECK_ROWS 64
#define CHECK_COLS 128  // and threads

extern "C" __global__ void __launch_bounds__(CHECK_COLS)
    tensor_check_wgmma_f16(const u16* __restrict__ a, const u16* __restrict__ b, float* __restrict__ sums, u32 depth) {
    // Two pieces of eight halves of depth, as wgmma_side says.
    __shared__ __align__(16) u32 rows[2][CHECK_ROWS][4];
    __shared__ __align__(16) u32 cols[2][CHECK_COLS][4];
    for (u32 i = 0; i < 8; i++) {
        if (threadIdx.x < CHECK_ROWS) rows[i / 4][threadIdx.x][i % 4] = 0;
        cols[i / 4][threadIdx.x][i % 4] = 0;
    }
    const u32 vector = threadIdx.x / 8, pair = threadIdx.x % 8;
    const u16* row = a + ((u64)blockIdx.x * 16 + vector) * depth + 2 * pair;
    const u16* col = b + ((u64)blockIdx.x * 8 + vector % 8) * depth + 2 * pair;
    WgmmaSums sum;
#pragma unroll
    for (u32 i = 0; i < 64; i++) sum[i] = 0.0f;
    for (u32 t = 0; t < depth; t += 16) {
        __syncthreads();  // Zeros are there, and no product reads any more.
        rows[pair / 4][vector][pair % 4] = *reinterpret_cast<const u32*>(row + t);
        if (vector < 8) cols[pair / 4][vector][pair % 4] = *reinterpret_cast<const u32*>(col + t);
        fence_shared_writes();
        __syncthreads();  // The step is there.
        wgmma_keep(sum);
        wgmma_fence();
        wgmma_m64n128k16_f16(sum, wgmma_side(shared_at(rows), 16 * CHECK_ROWS), wgmma_side(shared_at(cols), 16 * CHECK_COLS), true);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_keep(sum);
    }
    if (threadIdx.x >= WARP) return;
    float* to = sums + ((u64)blockIdx.x * 16 + threadIdx.x / 4) * 8 + threadIdx.x % 4 * 2;
    to[0] = sum[0];
    to[1] = sum[1];
    to[64] = sum[2];
    to[65] = sum[3];
}
