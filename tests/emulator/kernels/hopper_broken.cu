// Kernels for the emulator's own tests: each misuses what compute capability 9.0 alone has in one way that the emulator
// has to find. A block of 128 threads unless a kernel says otherwise, 4096 halves at `x`, 128 floats at `out`, and 8 KB of
// dynamic shared memory: barriers first, operands from byte 128 on.
#include "ptx.cuh"

#define BROKEN(name) extern "C" __global__ void name(const u16 *x, float *out)
#define ROOM extern __shared__ __align__(128) unsigned char ring[]
#define A_BYTES 2048u
#define OPERANDS 6144u  // of one product, bytes

// Barriers of so many arrivals, the first of them for copies.
static __device__ SharedAt barriers(unsigned char *ring, u32 arrivals) {
    if (threadIdx.x == 0) {
        mbarrier_init(shared_at(ring), 1);
        mbarrier_init(shared_at(ring + 8), arrivals);
        mbarrier_init_done();
    }
    __syncthreads();
    return shared_at(ring);
}

#define MADE ROOM; SharedAt full = barriers(ring, 1)

// Sends for operands, all of which report to `full`.
static __device__ void send(SharedAt full, const u16 *x) {
    mbarrier_arrive_expect(full, OPERANDS);
    copy_bulk(full + 128, x, OPERANDS, full);
}

// Barriers, and operands of one product, which every thread has waited for.
static __device__ SharedAt operands(unsigned char *ring, const u16 *x) {
    SharedAt full = barriers(ring, 4);
    if (threadIdx.x == 0) send(full, x);
    mbarrier_wait(full, 0);
    return full;
}

static __device__ void multiply(WgmmaSums &sums, SharedAt full) {
    wgmma_m64n128k16_f16(sums, wgmma_side(full + 128, A_BYTES / 2), wgmma_side(full + 128 + A_BYTES, A_BYTES), false);
}

#define FENCED ROOM; SharedAt full = operands(ring, x); WgmmaSums sums; wgmma_fence()

// All that follows a product.
static __device__ void finish(WgmmaSums &sums, float *out) {
    wgmma_commit();
    wgmma_wait<0>();
    out[threadIdx.x] = sums[0];
}

// --- barriers

BROKEN(arrives_at_no_barrier) {
    ROOM;
    mbarrier_arrive(shared_at(ring));
}
BROKEN(makes_a_barrier_at_an_odd_place) {
    ROOM;
    if (threadIdx.x == 0) mbarrier_init(shared_at(ring + 4), 1);
}
BROKEN(makes_a_barrier_in_device_memory) { mbarrier_init(shared_at(const_cast<u16 *>(x)), 1); }
BROKEN(makes_a_barrier_twice) {
    ROOM;
    if (threadIdx.x == 0) {
        mbarrier_init(shared_at(ring), 1);
        mbarrier_init(shared_at(ring), 1);
    }
}
BROKEN(makes_a_barrier_of_nobody) {
    ROOM;
    if (threadIdx.x == 0) mbarrier_init(shared_at(ring), 0);
}
BROKEN(arrives_too_often) {
    MADE;
    // Of a phase that misses bytes.
    if (threadIdx.x < 2) mbarrier_arrive_expect(full, 16);
}
BROKEN(waits_for_nobody) {
    ROOM;
    SharedAt full = barriers(ring, 4);
    if (threadIdx.x < 3) mbarrier_arrive(full + 8);
    if (threadIdx.x < 64) mbarrier_wait(full + 8, 0);
}
BROKEN(waits_for_those_at_the_block_barrier) {
    MADE;
    if (threadIdx.x == 127) mbarrier_wait(full + 8, 0);
    __syncthreads();
    if (threadIdx.x == 0) mbarrier_arrive(full + 8);
}
BROKEN(waits_for_a_parity_of_two) {
    ROOM;
    mbarrier_wait(barriers(ring, 1), 2);
}
BROKEN(forgets_init_done) {
    ROOM;
    if (threadIdx.x == 0) mbarrier_init(shared_at(ring), 1);
    __syncthreads();
    if (threadIdx.x == 32) mbarrier_arrive(shared_at(ring));
}
BROKEN(copies_before_init_done) {
    ROOM;
    if (threadIdx.x == 0) {
        mbarrier_init(shared_at(ring), 1);
        send(shared_at(ring), x);
    }
}
BROKEN(forgets_to_meet_after_init) {
    ROOM;
    if (threadIdx.x == 0) {
        mbarrier_init(shared_at(ring), 1);
        mbarrier_init_done();
    }
    if (threadIdx.x == 32) mbarrier_arrive(shared_at(ring));
}
BROKEN(writes_over_a_barrier) {
    MADE;
    if (threadIdx.x == 0) {
        *reinterpret_cast<u32 *>(ring + 12) = 0;
        mbarrier_arrive(full + 8);
    }
}
BROKEN(writes_over_a_barrier_at_last) {
    ROOM;
    barriers(ring, 1);
    if (threadIdx.x == 0) *reinterpret_cast<u32 *>(ring + 12) = 0;
}
BROKEN(reads_what_only_one_waited_for) {
    MADE;
    float *values = reinterpret_cast<float *>(ring + 128);
    if (threadIdx.x == 0) {
        values[0] = 1;
        mbarrier_arrive(full + 8);
    }
    if (threadIdx.x == 32) mbarrier_wait(full + 8, 0);
    if (threadIdx.x == 33) out[0] = values[0];
}
BROKEN(writes_after_it_arrived) {
    MADE;
    float *values = reinterpret_cast<float *>(ring + 128);
    if (threadIdx.x == 0) {
        mbarrier_arrive(full + 8);
        values[0] = 1;
    }
    if (threadIdx.x == 32) {
        mbarrier_wait(full + 8, 0);
        out[0] = values[0];
    }
}

// --- copies

BROKEN(copies_in_bulk_to_an_odd_place) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 136, x, 64, full);
}
BROKEN(copies_in_bulk_from_an_odd_place) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, x + 4, 64, full);
}
BROKEN(copies_in_bulk_an_odd_number) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, x, 24, full);
}
BROKEN(copies_in_bulk_nothing) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, x, 0, full);
}
BROKEN(copies_in_bulk_to_device_memory) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(shared_at(out), x, 64, full);
}
BROKEN(copies_in_bulk_from_shared_memory) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, ring + 256, 64, full);
}
BROKEN(copies_in_bulk_from_beyond) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, x + 4096 - 32, 128, full);
}
BROKEN(copies_in_bulk_to_beyond) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 8192 - 64, x, 128, full);
}
BROKEN(copies_in_bulk_without_a_barrier) {
    MADE;
    if (threadIdx.x == 0) copy_bulk(full + 128, x, 128, full + 16);
}
BROKEN(copies_in_bulk_twice) {
    MADE;
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, 256);
        copy_bulk(full + 128, x, 128, full);
        copy_bulk(full + 192, x, 128, full);
    }
    mbarrier_wait(full, 0);
}
BROKEN(waits_for_no_copy) {
    MADE;
    if (threadIdx.x == 0) send(full, x);
}
BROKEN(announces_nothing) {
    MADE;
    if (threadIdx.x == 0) {
        mbarrier_arrive(full);
        copy_bulk(full + 128, x, 128, full);
    }
    mbarrier_wait(full, 0);
}
BROKEN(announces_too_much) {
    MADE;
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, 256);
        copy_bulk(full + 128, x, 128, full);
    }
    mbarrier_wait(full, 0);
}
BROKEN(reads_a_copy_too_early) {
    MADE;
    if (threadIdx.x == 0) send(full, x);
    __syncthreads();
    out[threadIdx.x] = ring[128 + threadIdx.x];
    mbarrier_wait(full, 0);
}
BROKEN(sends_over_what_others_read) {
    ROOM;
    SharedAt full = operands(ring, x);
    out[threadIdx.x] = ring[128 + threadIdx.x];
    // Without waiting for the others.
    if (threadIdx.x == 0) send(full, x);
    mbarrier_wait(full, 1);
}
BROKEN(frees_what_it_reads_later) {
    ROOM;
    SharedAt full = operands(ring, x);
    if (threadIdx.x % 32 == 0) mbarrier_arrive(full + 8);
    out[threadIdx.x] = ring[128 + threadIdx.x];
    if (threadIdx.x == 0) {
        mbarrier_wait(full + 8, 0);
        send(full, x);
    }
    mbarrier_wait(full, 1);
}
BROKEN(frees_what_other_lanes_read) {
    ROOM;
    SharedAt full = operands(ring, x);
    out[threadIdx.x] = ring[128 + threadIdx.x];
    // Without a meeting of the warp.
    if (threadIdx.x % 32 == 0) mbarrier_arrive(full + 8);
    if (threadIdx.x == 0) {
        mbarrier_wait(full + 8, 0);
        send(full, x);
    }
    mbarrier_wait(full, 1);
}

// --- products

BROKEN(multiplies) {
    FENCED;
    multiply(sums, full);
    finish(sums, out);
}
BROKEN(multiplies_without_a_fence) {
    ROOM;
    SharedAt full = operands(ring, x);
    WgmmaSums sums;
    multiply(sums, full);
    finish(sums, out);
}
BROKEN(multiplies_again_without_a_fence) {
    FENCED;
    for (u32 i = 0; i < 2; i++) {
        multiply(sums, full);
        wgmma_commit();
        wgmma_wait<0>();
    }
    out[threadIdx.x] = sums[0];
}
BROKEN(multiplies_in_no_group) {
    FENCED;
    multiply(sums, full);
    wgmma_wait<0>();
    out[threadIdx.x] = sums[0];
}
BROKEN(waits_for_no_product) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    wgmma_wait<1>();
    out[threadIdx.x] = sums[0];
}
// No finding, but what it writes is no number.
BROKEN(reads_sums_too_early) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    out[threadIdx.x] = sums[0];
    wgmma_wait<0>();
}
BROKEN(writes_sums_too_early) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    sums[5] = 1;
    wgmma_wait<0>();
    out[threadIdx.x] = sums[0];
}
BROKEN(multiplies_what_is_on_its_way) {
    MADE;
    if (threadIdx.x == 0) send(full, x);
    __syncthreads();
    WgmmaSums sums;
    wgmma_fence();
    multiply(sums, full);
    wgmma_commit();
    wgmma_wait<0>();
    mbarrier_wait(full, 0);
    out[threadIdx.x] = sums[0];
}
BROKEN(multiplies_what_nobody_wrote) {
    FENCED;
    multiply(sums, full + 128);
    finish(sums, out);
}
BROKEN(multiplies_what_others_are_writing) {
    ROOM;
    for (u32 i = threadIdx.x; i < OPERANDS / 2; i += 128) reinterpret_cast<u16 *>(ring + 128)[i] = x[i];
    __syncthreads();
    reinterpret_cast<u16 *>(ring + 128)[threadIdx.x] = x[threadIdx.x];
    WgmmaSums sums;
    wgmma_fence();
    multiply(sums, shared_at(ring));
    finish(sums, out);
}
BROKEN(writes_over_operands) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    ring[128 + A_BYTES + threadIdx.x] = 0;
    wgmma_wait<0>();
    out[threadIdx.x] = sums[0];
}
BROKEN(sends_over_operands) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    // Before the products have read them.
    if (threadIdx.x % 32 == 0) mbarrier_arrive(full + 8);
    if (threadIdx.x == 0) {
        mbarrier_wait(full + 8, 0);
        send(full, x);
    }
    wgmma_wait<0>();
    mbarrier_wait(full, 1);
    out[threadIdx.x] = sums[0];
}
BROKEN(sends_over_operands_that_one_warp_is_done_with) {
    FENCED;
    multiply(sums, full);
    wgmma_commit();
    wgmma_wait<0>();
    // Without asking the other warps.
    if (threadIdx.x == 0) send(full, x);
    mbarrier_wait(full, 1);
    out[threadIdx.x] = sums[0];
}
BROKEN(multiplies_at_an_odd_place) {
    FENCED;
    multiply(sums, full + 8);
    finish(sums, out);
}
BROKEN(multiplies_pieces_at_odd_places) {
    FENCED;
    wgmma_m64n128k16_f16(sums, wgmma_side(full + 128, 1024), wgmma_side(full + 128 + A_BYTES, 1032), false);
    finish(sums, out);
}
BROKEN(multiplies_device_memory) {
    FENCED;
    wgmma_m64n128k16_f16(sums, wgmma_side(shared_at(const_cast<u16 *>(x)), 1024), wgmma_side(full + 128 + A_BYTES, A_BYTES), false);
    finish(sums, out);
}
BROKEN(multiplies_beyond_shared_memory) {
    FENCED;
    wgmma_m64n128k16_f16(sums, wgmma_side(full + 128, 1024), wgmma_side(full + 128 + A_BYTES, 8192 - 128 - A_BYTES - 1024), false);
    finish(sums, out);
}
BROKEN(multiplies_with_two_warps) {
    ROOM;
    SharedAt full = operands(ring, x);
    if (threadIdx.x >= 64) return;
    WgmmaSums sums;
    wgmma_fence();
    multiply(sums, full);
    finish(sums, out);
}
BROKEN(multiplies_without_a_lane) {
    FENCED;
    if (threadIdx.x != 77) multiply(sums, full);
    __syncthreads();
    finish(sums, out);
}
// 64 threads.
BROKEN(multiplies_in_a_block_of_two_warps) {
    FENCED;
    multiply(sums, full);
    finish(sums, out);
}
BROKEN(multiplies_what_others_do_not) {
    FENCED;
    multiply(sums, full + (threadIdx.x < 96 ? 0 : 16));
    finish(sums, out);
}
