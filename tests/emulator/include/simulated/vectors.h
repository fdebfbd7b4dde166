// The vector types of CUDA, with its alignments.
#pragma once

#define SIMULATED_VECTORS(T, name, align2, align4)                                                                     \
    struct name##1 { T x; };                                                                                           \
    struct __attribute__((aligned(align2))) name##2 { T x, y; };                                                       \
    struct name##3 { T x, y, z; };                                                                                     \
    struct __attribute__((aligned(align4))) name##4 { T x, y, z, w; };                                                 \
    static inline name##1 make_##name##1(T x) { return {x}; }                                                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SIMULATED_VECTORS(signed char, char, 2, 4)
SIMULATED_VECTORS(unsigned char, uchar, 2, 4)
SIMULATED_VECTORS(short, short, 4, 8)
SIMULATED_VECTORS(unsigned short, ushort, 4, 8)
SIMULATED_VECTORS(int, int, 8, 16)
SIMULATED_VECTORS(unsigned int, uint, 8, 16)
SIMULATED_VECTORS(long long, longlong, 16, 16)
SIMULATED_VECTORS(unsigned long long, ulonglong, 16, 16)
SIMULATED_VECTORS(float, float, 8, 16)
SIMULATED_VECTORS(double, double, 16, 16)
#undef SIMULATED_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
