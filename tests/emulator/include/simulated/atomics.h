// Atomic operations. Threads are fibers and switch only where they wait, so a plain operation is atomic.
#pragma once

extern "C" {
// Told about each atomic access, so that it is neither taken for a race nor missed by the bounds check.
void simulated_atomic(const volatile void *address, unsigned size);
}

template <class T, class F>
__attribute__((noinline, no_sanitize("thread"))) static T simulated_update(T *address, F next) {
    simulated_atomic(address, sizeof(T));
    T old;
    __builtin_memcpy(&old, address, sizeof(T));
    T value = next(old);
    __builtin_memcpy(address, &value, sizeof(T));
    return old;
}

#define SIMULATED_ATOMICS(T)                                                                                           \
    static inline T atomicAdd(T *a, T v) { return simulated_update(a, [=](T old) { return (T)(old + v); }); }            \
    static inline T atomicExch(T *a, T v) { return simulated_update(a, [=](T) { return v; }); }
#define SIMULATED_INTEGER_ATOMICS(T)                                                                                   \
    SIMULATED_ATOMICS(T)                                                                                               \
    static inline T atomicMin(T *a, T v) { return simulated_update(a, [=](T old) { return v < old ? v : old; }); }       \
    static inline T atomicMax(T *a, T v) { return simulated_update(a, [=](T old) { return v > old ? v : old; }); }       \
    static inline T atomicAnd(T *a, T v) { return simulated_update(a, [=](T old) { return (T)(old & v); }); }            \
    static inline T atomicOr(T *a, T v) { return simulated_update(a, [=](T old) { return (T)(old | v); }); }             \
    static inline T atomicXor(T *a, T v) { return simulated_update(a, [=](T old) { return (T)(old ^ v); }); }            \
    static inline T atomicCAS(T *a, T expected, T v) {                                                                   \
        return simulated_update(a, [=](T old) { return old == expected ? v : old; });                                  \
    }
SIMULATED_INTEGER_ATOMICS(int)
SIMULATED_INTEGER_ATOMICS(unsigned)
SIMULATED_INTEGER_ATOMICS(unsigned long long)
SIMULATED_INTEGER_ATOMICS(long long)
SIMULATED_ATOMICS(float)
SIMULATED_ATOMICS(double)
#undef SIMULATED_INTEGER_ATOMICS
#undef SIMULATED_ATOMICS

static inline unsigned short atomicCAS(unsigned short *a, unsigned short expected, unsigned short v) {
    return simulated_update(a, [=](unsigned short old) { return old == expected ? v : old; });
}
static inline unsigned long atomicAdd(unsigned long *a, unsigned long v) {
    return simulated_update(a, [=](unsigned long old) { return old + v; });
}
static inline unsigned atomicSub(unsigned *a, unsigned v) { return simulated_update(a, [=](unsigned old) { return old - v; }); }
static inline int atomicSub(int *a, int v) { return simulated_update(a, [=](int old) { return old - v; }); }
static inline unsigned atomicInc(unsigned *a, unsigned top) {
    return simulated_update(a, [=](unsigned old) { return old >= top ? 0 : old + 1; });
}
static inline unsigned atomicDec(unsigned *a, unsigned top) {
    return simulated_update(a, [=](unsigned old) { return old == 0 || old > top ? top : old - 1; });
}
