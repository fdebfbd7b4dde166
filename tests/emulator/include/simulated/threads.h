// Where a thread is, and how it meets the others of its block and warp. The bodies are in the driver: each CUDA thread
// is a fiber, and all of these may switch to another.
#pragma once

#include "meetings.h"

extern "C" {
// Constant over the life of a thread, and said so: the compiler may ask once.
__attribute__((const)) uint3 simulated_thread_index();
__attribute__((const)) uint3 simulated_block_index();
__attribute__((const)) uint3 simulated_block_size();
__attribute__((const)) uint3 simulated_grid_size();

int simulated_barrier(int kind, int predicate, int line);

// Waits for the lanes of `mask`, all of which must come with the same kind, and gives each its own result.
unsigned long long simulated_warp(int kind, unsigned mask, unsigned long long value, int lane, int width, int line);
unsigned simulated_active_mask();
// Ends the launch with an error: `__trap()`, a failed assertion.
[[noreturn]] void simulated_trap(const char *why, int line);
}

#define threadIdx (simulated_thread_index())
#define blockIdx (simulated_block_index())
#define blockDim (simulated_block_size())
#define gridDim (simulated_grid_size())
#define warpSize 32

static inline void __syncthreads(int line = __builtin_LINE()) { simulated_barrier(SIMULATED_SYNC, 0, line); }
static inline int __syncthreads_or(int p, int line = __builtin_LINE()) { return simulated_barrier(SIMULATED_OR, p, line); }
static inline int __syncthreads_and(int p, int line = __builtin_LINE()) { return simulated_barrier(SIMULATED_AND, p, line); }
static inline int __syncthreads_count(int p, int line = __builtin_LINE()) { return simulated_barrier(SIMULATED_COUNT, p, line); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    simulated_warp(SIMULATED_SYNCWARP, mask, 0, 0, 32, line);
}
static inline unsigned __activemask() { return simulated_active_mask(); }
static inline unsigned __ballot_sync(unsigned mask, int p, int line = __builtin_LINE()) {
    return (unsigned)simulated_warp(SIMULATED_BALLOT, mask, p != 0, 0, 32, line);
}
static inline int __any_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, p, line) != 0; }
// Not through the ballot: lanes of the mask that have left the kernel have no say.
static inline int __all_sync(unsigned mask, int p, int line = __builtin_LINE()) { return __ballot_sync(mask, !p, line) == 0; }

template <class T> static inline unsigned long long simulated_bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move up to 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T> static inline T simulated_value(unsigned long long bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, int line = __builtin_LINE()) {
    return simulated_value<T>(simulated_warp(SIMULATED_SHFL, mask, simulated_bits(v), lane, width, line));
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
    return simulated_value<T>(simulated_warp(SIMULATED_SHFL_UP, mask, simulated_bits(v), (int)by, width, line));
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
    return simulated_value<T>(simulated_warp(SIMULATED_SHFL_DOWN, mask, simulated_bits(v), (int)by, width, line));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, int line = __builtin_LINE()) {
    return simulated_value<T>(simulated_warp(SIMULATED_SHFL_XOR, mask, simulated_bits(v), by, width, line));
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v, int line = __builtin_LINE()) {
    return (unsigned)simulated_warp(SIMULATED_MATCH_ANY, mask, simulated_bits(v), 0, 32, line);
}
template <class T> static inline unsigned __match_all_sync(unsigned mask, T v, int *all, int line = __builtin_LINE()) {
    unsigned same = (unsigned)simulated_warp(SIMULATED_MATCH_ALL, mask, simulated_bits(v), 0, 32, line);
    *all = same != 0;
    return same;
}
#define SIMULATED_REDUCE(name, T, kind)                                                                                \
    static inline T name(unsigned mask, T v, int line = __builtin_LINE()) {                                            \
        return (T)simulated_warp(kind, mask, (unsigned)v, 0, 32, line);                                                \
    }
SIMULATED_REDUCE(__reduce_add_sync, unsigned, SIMULATED_ADD)
SIMULATED_REDUCE(__reduce_add_sync, int, SIMULATED_ADD)
SIMULATED_REDUCE(__reduce_min_sync, unsigned, SIMULATED_MIN)
SIMULATED_REDUCE(__reduce_min_sync, int, SIMULATED_MIN_SIGNED)
SIMULATED_REDUCE(__reduce_max_sync, unsigned, SIMULATED_MAX)
SIMULATED_REDUCE(__reduce_max_sync, int, SIMULATED_MAX_SIGNED)
SIMULATED_REDUCE(__reduce_and_sync, unsigned, SIMULATED_BITS_AND)
SIMULATED_REDUCE(__reduce_or_sync, unsigned, SIMULATED_BITS_OR)
SIMULATED_REDUCE(__reduce_xor_sync, unsigned, SIMULATED_BITS_XOR)
#undef SIMULATED_REDUCE

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline void __nanosleep(unsigned) {}
[[noreturn]] static inline void __trap(int line = __builtin_LINE()) { simulated_trap("__trap()", line); }
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) ((condition) ? (void)0 : simulated_trap("assertion failed: " #condition, __LINE__))
#endif

// Shared addresses as numbers of 32 bits, and the checks of address spaces.
static inline size_t __cvta_generic_to_shared(const void *pointer) { return (size_t)pointer; }
static inline size_t __cvta_generic_to_global(const void *pointer) { return (size_t)pointer; }
