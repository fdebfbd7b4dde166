// Arithmetic named operation by operation, and the bit tricks. The host compiler contracts nothing (-ffp-contract=off),
// so `a + b` is one rounding, as it is in a kernel compiled with -fmad=false.
#pragma once

#include "rounding.h"

#define SIMULATED_DIRECTED(suffix, rounding)                                                                           \
    static inline float __fadd##suffix(float a, float b) { return simulated_f32(SIMULATED_PLUS, rounding, a, b, 0); }   \
    static inline float __fsub##suffix(float a, float b) { return simulated_f32(SIMULATED_PLUS, rounding, a, -b, 0); }  \
    static inline float __fmul##suffix(float a, float b) { return simulated_f32(SIMULATED_TIMES, rounding, a, b, 0); }  \
    static inline float __fdiv##suffix(float a, float b) { return simulated_f32(SIMULATED_OVER, rounding, a, b, 0); }   \
    static inline float __fsqrt##suffix(float a) { return simulated_f32(SIMULATED_ROOT, rounding, a, 0, 0); }           \
    static inline float __fmaf##suffix(float a, float b, float c) {                                                    \
        return simulated_f32(SIMULATED_FMA, rounding, a, b, c);                                                        \
    }                                                                                                                  \
    static inline double __dadd##suffix(double a, double b) { return simulated_f64(SIMULATED_PLUS, rounding, a, b, 0); } \
    static inline double __dsub##suffix(double a, double b) { return simulated_f64(SIMULATED_PLUS, rounding, a, -b, 0); } \
    static inline double __dmul##suffix(double a, double b) { return simulated_f64(SIMULATED_TIMES, rounding, a, b, 0); } \
    static inline double __ddiv##suffix(double a, double b) { return simulated_f64(SIMULATED_OVER, rounding, a, b, 0); } \
    static inline double __dsqrt##suffix(double a) { return simulated_f64(SIMULATED_ROOT, rounding, a, 0, 0); }         \
    static inline double __fma##suffix(double a, double b, double c) {                                                 \
        return simulated_f64(SIMULATED_FMA, rounding, a, b, c);                                                        \
    }                                                                                                                  \
    static inline float __double2float##suffix(double a) { return simulated_narrow(a, rounding); }                     \
    static inline float __int2float##suffix(int a) { return simulated_from_integer(a, rounding); }                     \
    static inline float __uint2float##suffix(unsigned a) { return simulated_from_integer(a, rounding); }               \
    static inline float __ll2float##suffix(long long a) { return simulated_from_integer(a, rounding); }
SIMULATED_DIRECTED(_rd, SIMULATED_DOWN)
SIMULATED_DIRECTED(_ru, SIMULATED_UP)
SIMULATED_DIRECTED(_rz, SIMULATED_ZERO)
#undef SIMULATED_DIRECTED

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double a) { return 1.0 / a; }
static inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float __double2float_rn(double a) { return (float)a; }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __uint2float_rn(unsigned a) { return (float)a; }
static inline float __ll2float_rn(long long a) { return (float)a; }
static inline float __ull2float_rn(unsigned long long a) { return (float)a; }
static inline double __int2double_rn(int a) { return a; }
static inline double __uint2double_rn(unsigned a) { return a; }
static inline double __ll2double_rn(long long a) { return (double)a; }
static inline double __ull2double_rn(unsigned long long a) { return (double)a; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float rsqrtf(float a) { return (float)(1.0 / __builtin_sqrt((double)a)); }
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }

// Conversions to integers saturate and turn NaN into 0, as the hardware does; C++ leaves both undefined.
#define SIMULATED_TO_INTEGER(name, F, I, low, above, round)                                                            \
    static inline I name(F a) {                                                                                        \
        F r = round(a);                                                                                                \
        return r != r ? (I)0 : r < (F)(low) ? (I)(low) : r >= (F)(above) ? (I)~(low) : (I)r;                           \
    }
#define SIMULATED_TO_INTEGERS(suffix, round)                                                                           \
    SIMULATED_TO_INTEGER(__float2int##suffix, float, int, INT_MIN, 2147483648.0, round)                                \
    SIMULATED_TO_INTEGER(__float2uint##suffix, float, unsigned, 0u, 4294967296.0, round)                               \
    SIMULATED_TO_INTEGER(__float2ll##suffix, float, long long, LLONG_MIN, 9223372036854775808.0, round)                \
    SIMULATED_TO_INTEGER(__float2ull##suffix, float, unsigned long long, 0ull, 18446744073709551616.0, round)          \
    SIMULATED_TO_INTEGER(__double2int##suffix, double, int, INT_MIN, 2147483648.0, round)                              \
    SIMULATED_TO_INTEGER(__double2uint##suffix, double, unsigned, 0u, 4294967296.0, round)                             \
    SIMULATED_TO_INTEGER(__double2ll##suffix, double, long long, LLONG_MIN, 9223372036854775808.0, round)              \
    SIMULATED_TO_INTEGER(__double2ull##suffix, double, unsigned long long, 0ull, 18446744073709551616.0, round)
SIMULATED_TO_INTEGERS(_rn, std::nearbyint)
SIMULATED_TO_INTEGERS(_rz, std::trunc)
SIMULATED_TO_INTEGERS(_rd, std::floor)
SIMULATED_TO_INTEGERS(_ru, std::ceil)
#undef SIMULATED_TO_INTEGERS
#undef SIMULATED_TO_INTEGER

#define SIMULATED_BITS(name, From, To)                                                                                 \
    static inline To name(From a) {                                                                                    \
        To to;                                                                                                         \
        __builtin_memcpy(&to, &a, sizeof to);                                                                          \
        return to;                                                                                                     \
    }
SIMULATED_BITS(__float_as_int, float, int)
SIMULATED_BITS(__float_as_uint, float, unsigned)
SIMULATED_BITS(__int_as_float, int, float)
SIMULATED_BITS(__uint_as_float, unsigned, float)
SIMULATED_BITS(__double_as_longlong, double, long long)
SIMULATED_BITS(__longlong_as_double, long long, double)
#undef SIMULATED_BITS
static inline int __double2hiint(double a) { return (int)(__double_as_longlong(a) >> 32); }
static inline int __double2loint(double a) { return (int)__double_as_longlong(a); }
static inline double __hiloint2double(int hi, int lo) {
    return __longlong_as_double((long long)((unsigned long long)(unsigned)hi << 32 | (unsigned)lo));
}

static inline int __clz(int a) { return a ? __builtin_clz((unsigned)a) : 32; }
static inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __ffsll(long long a) { return __builtin_ffsll(a); }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
static inline unsigned __brev(unsigned a) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (a >> i & 1u) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by) {
    return (unsigned)(((unsigned long long)hi << 32 | lo) << (by & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by) {
    return (unsigned)(((unsigned long long)hi << 32 | lo) >> (by & 31));
}
// Byte i of the result is the one of the eight of b:a that digit i of the selector names, or eight times its sign.
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned digit = selector >> 4 * i & 15, byte = (unsigned)(both >> 8 * (digit & 7)) & 255;
        result |= (digit & 8 ? (byte >> 7) * 255 : byte) << 8 * i;
    }
    return result;
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c += (int)(signed char)(a >> i) * (signed char)(b >> i);
    return c;
}

template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldlu(const T *p) { return *p; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }
template <class T> static inline void __stwt(T *p, T v) { *p = v; }

// CUDA's overloads at global scope. Mixed widths go where CUDA sends them.
#define SIMULATED_MIN_MAX(T)                                                                                           \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
SIMULATED_MIN_MAX(int)
SIMULATED_MIN_MAX(unsigned)
SIMULATED_MIN_MAX(long)
SIMULATED_MIN_MAX(unsigned long)
SIMULATED_MIN_MAX(long long)
SIMULATED_MIN_MAX(unsigned long long)
#undef SIMULATED_MIN_MAX
static inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
static inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
static inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
static inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
// A NaN loses, as in CUDA's min and max of floating point.
static inline float min(float a, float b) { return __builtin_fminf(a, b); }
static inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
static inline double min(double a, double b) { return __builtin_fmin(a, b); }
static inline double max(double a, double b) { return __builtin_fmax(a, b); }

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")
