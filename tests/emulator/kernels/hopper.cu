// Kernels for the emulator's own tests of the last part of kernels/ptx.cuh: products by wgmma of operands that bulk
// copies bring.
#include "ptx.cuh"

#define CHUNK 64u                               // of depth, in one stage
#define STEP 16u                                // of depth, in one product
#define SIDE_BYTES(vectors) ((vectors) * 16u * CHUNK / 8u)
#define STAGE_BYTES SIDE_BYTES(128u)

// d [128, 128 tiles] = a b. Operands lie as products read them: a [chunks, 2 groups, 8 pieces, 64 rows, 8], b [tiles,
// chunks, 8 pieces, 128 columns, 8], of f16. Two warpgroups multiply, each 64 rows; the ninth warp sends for columns.
extern "C" __global__ void products_in_a_ring(const u16 *a, const u16 *b, float *d, u32 tiles, u32 chunks, u32 stages) {
    extern __shared__ __align__(128) unsigned char ring[];
    const u32 a_bytes = chunks * SIDE_BYTES(128u);
    SharedAt rows = shared_at(ring), columns = rows + a_bytes, full = columns + stages * STAGE_BYTES, empty = full + stages * 8,
             here = empty + stages * 8;
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < stages; s++) {
            mbarrier_init(full + s * 8, 1);
            mbarrier_init(empty + s * 8, 8);
        }
        mbarrier_init(here, 1);
        mbarrier_init_done();
    }
    __syncthreads();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / 4, turns = tiles * chunks;
    if (group == 2) {
        if (lane == 0) {
            mbarrier_arrive_expect(here, a_bytes);
            copy_bulk(rows, a, a_bytes, here);
            for (u32 i = 0; i < turns; i++) {
                const u32 s = i % stages;
                mbarrier_wait(empty + s * 8, (i / stages & 1) ^ 1);
                mbarrier_arrive_expect(full + s * 8, STAGE_BYTES);
                copy_bulk(columns + s * STAGE_BYTES, b + (u64)i * (STAGE_BYTES / 2), STAGE_BYTES, full + s * 8);
            }
        }
        return;
    }
    mbarrier_wait(here, 0);
    WgmmaSums sums;
    for (u32 i = 0; i < turns; i++) {
        const u32 s = i % stages, chunk = i % chunks;
        mbarrier_wait(full + s * 8, i / stages & 1);
        WgmmaSide x = wgmma_side(rows + (chunk * 2 + group) * SIDE_BYTES(64u), 64 * 16), y = wgmma_side(columns + s * STAGE_BYTES, 128 * 16);
        wgmma_keep(sums);
        wgmma_fence();
        for (u32 t = 0; t < CHUNK / STEP; t++) {
            wgmma_m64n128k16_f16(sums, x, y, chunk || t);
            x = wgmma_further(x, 2 * 64 * 16);
            y = wgmma_further(y, 2 * 128 * 16);
        }
        wgmma_commit();
        // The products of the turn before are done, and its stage is free; those of this turn run on.
        if (chunk) wgmma_wait<1>();
        if (chunk && lane == 0) mbarrier_arrive(empty + (i - 1) % stages * 8);
        if (chunk + 1 < chunks) continue;
        wgmma_wait<0>();
        wgmma_keep(sums);
        if (lane == 0) mbarrier_arrive(empty + s * 8);
        for (u32 j = 0; j < 16; j++) {
            for (u32 h = 0; h < 2; h++) {
                const u64 row = warp * 16 + lane / 4 + 8 * h, col = (i / chunks) * 128 + 8 * j + 2 * (lane % 4);
                for (u32 c = 0; c < 2; c++) d[row * (tiles * 128) + col + c] = sums[4 * j + 2 * h + c];
            }
        }
    }
}

// Numbers go round: each turn, 64 threads write what 64 others read by ordinary accesses, either side waiting for the other
// at barriers in shared memory. One lane of a warp waits and arrives for all. `x` stays and is read in every turn.
extern "C" __global__ void hands_over_and_back(const float *x, float *out, float *notes, u32 turns) {
    __shared__ __align__(16) float kept[64], passed[64];
    __shared__ __align__(8) u64 bars[3];
    SharedAt full = shared_at(bars), empty = shared_at(bars + 1), here = shared_at(bars + 2);
    if (threadIdx.x == 127) {
        mbarrier_init(full, 2);
        mbarrier_init(empty, 64);
        mbarrier_init(here, 1);
        mbarrier_init_done();
    }
    __syncthreads();
    const u32 i = threadIdx.x % 64, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect(here, 256);
        copy_bulk(shared_at(kept), x, 128, here);
        copy_bulk(shared_at(kept + 32), x + 32, 128, here);
    }
    // What one lane has waited for, the others see after a meeting.
    if (lane == 0) mbarrier_wait(here, 0);
    __syncwarp();
    float sum = 0;
    for (u32 turn = 0; turn < turns; turn++) {
        if (threadIdx.x < 64) {
            mbarrier_wait(empty, (turn & 1) ^ 1);
            passed[i] = kept[63 - i] * (float)(turn + 1);
            notes[i] = (float)turn;
            __syncwarp();
            if (lane == 0) mbarrier_arrive(full);
        } else {
            if (lane == 0) mbarrier_wait(full, turn & 1);
            __syncwarp();
            sum += passed[63 - i] + kept[i] + notes[63 - i];
            mbarrier_arrive(empty);
        }
    }
    if (threadIdx.x >= 64) out[i] = sum;
}

// Two sums of one product each, of which one runs while the other is read; then the first once more. Blocks of 128 threads,
// each its own operands and three numbers a thread.
extern "C" __global__ void two_sums_take_turns(const u16 *x, float *out) {
    __shared__ __align__(128) unsigned char operands[6144];
    __shared__ __align__(8) u64 bar;
    SharedAt at = shared_at(operands), full = shared_at(&bar);
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        mbarrier_init_done();
        mbarrier_arrive_expect(full, 6144);
        copy_bulk(at, x + blockIdx.x * 3072, 6144, full);
    }
    __syncthreads();
    mbarrier_wait(full, 0);
    WgmmaSide a = wgmma_side(at, 1024), b = wgmma_side(at + 2048, 2048);
    WgmmaSums one, other;
    float *mine = out + (blockIdx.x * 128 + threadIdx.x) * 3;
    wgmma_fence();
    wgmma_m64n128k16_f16(one, a, b, false);
    wgmma_commit();
    wgmma_m64n128k16_f16(other, a, b, false);
    wgmma_commit();
    wgmma_wait<1>();
    mine[0] = one[63];
    wgmma_fence();
    wgmma_m64n128k16_f16(one, a, b, true);
    wgmma_commit();
    wgmma_wait<1>();
    mine[1] = other[63];
    wgmma_wait<0>();
    mine[2] = one[63];
}
