// Sums of products as this device's tensor cores make them: what the host compares with the bound that assign_tensor.cu
// trusts, before it trusts it. Every design has these entry points: all list codewords by mma.
//
//     sums[p][i][j] = sum_t a[p][i][t] b[p][j][t]
//
// Inputs  a [problems, 16, depth], b [problems, 8, depth] f16, depth a multiple of 16.
// Outputs sums [problems, 16, 8] f32. Allocated by the caller.
// Numbers in ascending order of depth, one accumulator: tensor_check_f16 by mma.m16n8k16, as assign_tensor.cu;
//         tensor_check_eights_f16 by mma.m16n8k8, as label_parts.cu its last eight.
// Launch  grid `problems`, block 32 threads, no dynamic shared memory. a and b on 4 bytes.
// Idea    A warp per problem, fragments straight from device memory: no other part of assign_tensor.cu is in the way.
// Source  ours.
// Measured on an H200: the sums of tensor_check_f16 are the model's, bit for bit (tests/cuda/tensor_model.rs). The other has
//         not run on a GPU.
#pragma once
#include "ptx.cuh"

static __device__ __forceinline__ u32 pair_at(const u16* at) { return *reinterpret_cast<const u32*>(at); }

template <bool EIGHTS>
static __device__ __forceinline__ void check_products(const u16* a, const u16* b, float* sums, u32 depth) {
    const u32 group = threadIdx.x / 4, in_group = threadIdx.x % 4;
    const u16* row = a + ((u64)blockIdx.x * 16 + group) * depth + 2 * in_group;
    const u16* lower = row + (u64)8 * depth;
    const u16* col = b + ((u64)blockIdx.x * 8 + group) * depth + 2 * in_group;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (u32 t = 0; t < depth; t += 16) {
        const u32 x[2][2] = {{pair_at(row + t), pair_at(lower + t)}, {pair_at(row + t + 8), pair_at(lower + t + 8)}};
        const u32 y[2] = {pair_at(col + t), pair_at(col + t + 8)};
        if (EIGHTS) {
            mma_m16n8k8_f16(sum, x[0], y[0]);
            mma_m16n8k8_f16(sum, x[1], y[1]);
        } else {
            const u32 both[4] = {x[0][0], x[0][1], x[1][0], x[1][1]};
            mma_m16n8k16_f16(sum, both, y);
        }
    }
    float* to = sums + ((u64)blockIdx.x * 16 + group) * 8 + 2 * in_group;
    to[0] = sum[0];
    to[1] = sum[1];
    to[64] = sum[2];
    to[65] = sum[3];
}

extern "C" __global__ void __launch_bounds__(WARP)
    tensor_check_f16(const u16* __restrict__ a, const u16* __restrict__ b, float* __restrict__ sums, u32 depth) {
    check_products<false>(a, b, sums, depth);
}

extern "C" __global__ void __launch_bounds__(WARP)
    tensor_check_eights_f16(const u16* __restrict__ a, const u16* __restrict__ b, float* __restrict__ sums, u32 depth) {
    check_products<true>(a, b, sums, depth);
}
