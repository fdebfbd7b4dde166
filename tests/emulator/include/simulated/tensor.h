// The operations of tensor cores and asynchronous copies behind kernels/ptx.cuh. The exchange and the arithmetic are in
// the driver; what a thread reads and writes itself goes through the same checks as its ordinary accesses.
#pragma once

#include "meetings.h"

extern "C" {
// A copy of `bytes` of 16 bytes, the others zero, that is done when the thread waits for it; until then the
// destination counts as unwritten.
void simulated_copy_async(void *to, const void *from, unsigned bytes, int line);
void simulated_copy_commit();
void simulated_copy_wait(unsigned groups_left);
// Ends the launch where the address is no multiple of 16 or not shared.
void simulated_matrix_row(const void *row, int line);
}

static inline void simulated_mma(int kind, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line) {
    SimulatedProduct product = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
    simulated_warp(kind, 0xffffffffu, (unsigned long long)&product, 0, 32, line);
    for (int i = 0; i < 4; ++i) d[i] = product.d[i];
}

static inline void simulated_ldmatrix(int kind, unsigned (&to)[4], const void *row, int line) {
    simulated_matrix_row(row, line);
    // One access of 16 bytes, as the hardware's.
    typedef unsigned __attribute__((vector_size(16))) Values;
    const Values values = *(const Values *)row;
    SimulatedMatrices matrices = {{values[0], values[1], values[2], values[3]}, {}};
    simulated_warp(kind, 0xffffffffu, (unsigned long long)&matrices, 0, 32, line);
    for (int i = 0; i < 4; ++i) to[i] = matrices.to[i];
}
