// What compute capability 9.0 has beside its threads, behind the last part of kernels/ptx.cuh: barriers that count
// arrivals and bytes, bulk copies that report to them, and products of four warps. The bodies are in the driver.
#pragma once

extern "C" {
void simulated_mbarrier_init(void *barrier, unsigned arrivals, int line);
// Of the thread that initialised: from here on copies and other threads may use its barriers.
void simulated_mbarrier_init_done();
void simulated_mbarrier_arrive(void *barrier, unsigned bytes_announced, int line);
void simulated_mbarrier_wait(void *barrier, unsigned parity, int line);
// Runs when a thread has to wait for the barrier; until then the destination counts as unwritten.
void simulated_copy_bulk(void *to, const void *from, unsigned bytes, void *barrier, int line);

void simulated_wgmma_fence(int line);
// Runs when a warp waits for it; until then the sums are NaN.
void simulated_wgmma(float *d, const void *a_at, unsigned a_piece_bytes, const void *b_at, unsigned b_piece_bytes, bool adds, int line);
void simulated_wgmma_commit(int line);
void simulated_wgmma_wait(unsigned groups_left, int line);
}
