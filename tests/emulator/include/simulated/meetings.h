// The ways in which threads meet.
#pragma once

enum SimulatedBarrier { SIMULATED_SYNC, SIMULATED_OR, SIMULATED_AND, SIMULATED_COUNT };
enum SimulatedWarp {
    SIMULATED_SYNCWARP, SIMULATED_SHFL, SIMULATED_SHFL_UP, SIMULATED_SHFL_DOWN, SIMULATED_SHFL_XOR, SIMULATED_BALLOT,
    SIMULATED_MATCH_ANY, SIMULATED_MATCH_ALL, SIMULATED_ADD, SIMULATED_MIN, SIMULATED_MAX, SIMULATED_MIN_SIGNED, SIMULATED_MAX_SIGNED,
    SIMULATED_BITS_AND, SIMULATED_BITS_OR, SIMULATED_BITS_XOR,
    SIMULATED_MMA_F16, SIMULATED_MMA_BF16, SIMULATED_MMA_TF32, SIMULATED_MATRICES, SIMULATED_MATRICES_TRANSPOSED,
    SIMULATED_WGMMA_FENCE, SIMULATED_WGMMA, SIMULATED_WGMMA_COMMIT, SIMULATED_WGMMA_WAIT
};
// What a lane brings to a product of matrices: its registers of A, B and the accumulator, which becomes the result.
struct SimulatedProduct {
    unsigned a[4], b[2];
    float d[4];
};
// What a lane brings to the exchange of ldmatrix: 16 bytes, one row of one of four matrices; and what it takes away.
struct SimulatedMatrices {
    unsigned row[4], to[4];
};
