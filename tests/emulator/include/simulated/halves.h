// __half and __nv_bfloat16: stored bits, conversions with the rounding of the hardware, and arithmetic through f32
// (one operation on two halves is exact enough in f32 that rounding it again gives the correctly rounded half).
#pragma once

static inline float simulated_half_to_float(unsigned short h) {
    unsigned sign = (unsigned)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

// Nearest, ties to even; above 65504 + 16 infinity; every NaN becomes 0x7fff, as the hardware has it.
static inline unsigned short simulated_float_to_half(float f) {
    unsigned bits = __float_as_uint(f), magnitude = bits & 0x7fffffffu;
    unsigned short sign = (unsigned short)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return (unsigned short)(sign | 0x7c00);
    // Adding 2^(e+13), or 0.5 below the normal range, leaves the rounded mantissa in the low bits.
    if (magnitude < 0x38800000u) {
        return (unsigned short)(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u));
    }
    magnitude += 0xfffu + (magnitude >> 13 & 1);
    return (unsigned short)(sign | ((magnitude - 0x38000000u) >> 13));
}

static inline float simulated_bfloat_to_float(unsigned short b) { return __uint_as_float((unsigned)b << 16); }

static inline unsigned short simulated_float_to_bfloat(float f) {
    unsigned bits = __float_as_uint(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

struct __half_raw { unsigned short x; };
struct __nv_bfloat16_raw { unsigned short x; };

#define SIMULATED_HALF(Name, Raw, widen, narrow)                                                                       \
    struct __attribute__((aligned(2))) Name {                                                                          \
        unsigned short __x;                                                                                            \
        Name() = default;                                                                                              \
        Name(float f) : __x(narrow(f)) {}                                                                              \
        Name(double f) : __x(narrow(simulated_odd(f))) {}                                                              \
        Name(int i) : __x(narrow(simulated_odd(i))) {}                                                                 \
        Name(Raw raw) : __x(raw.x) {}                                                                                  \
        operator Raw() const { return {__x}; }                                                                         \
        operator float() const { return widen(__x); }                                                                  \
    };                                                                                                                 \
    struct __attribute__((aligned(4))) Name##2 { Name x, y; };                                                         \
    static inline Name __hadd(Name a, Name b) { return (float)a + (float)b; }                                          \
    static inline Name __hsub(Name a, Name b) { return (float)a - (float)b; }                                          \
    static inline Name __hmul(Name a, Name b) { return (float)a * (float)b; }                                          \
    static inline bool __hisnan(Name a) { return __builtin_isnan((float)a); }

// Rounds to f32 towards the odd mantissa, after which rounding to fewer bits is as if done once.
static inline float simulated_odd(double value) {
    float f = (float)value;
    if ((double)f == value || f != f || (__float_as_uint(f) & 1)) return f;
    return __uint_as_float(__float_as_uint(f) + ((__builtin_fabs((double)f) < __builtin_fabs(value)) ? 1 : -1));
}

SIMULATED_HALF(__half, __half_raw, simulated_half_to_float, simulated_float_to_half)
SIMULATED_HALF(__nv_bfloat16, __nv_bfloat16_raw, simulated_bfloat_to_float, simulated_float_to_bfloat)
#undef SIMULATED_HALF
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline float __half2float(__half h) { return (float)h; }
static inline __half __float2half(float f) { return __half(f); }
static inline __half __float2half_rn(float f) { return __half(f); }
static inline __half __double2half(double f) { return __half(f); }
static inline float __low2float(__half2 h) { return (float)h.x; }
static inline float __high2float(__half2 h) { return (float)h.y; }
static inline __half __low2half(__half2 h) { return h.x; }
static inline __half __high2half(__half2 h) { return h.y; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline float2 __half22float2(__half2 h) { return {(float)h.x, (float)h.y}; }
static inline unsigned short __half_as_ushort(__half h) { return h.__x; }
static inline short __half_as_short(__half h) { return (short)h.__x; }
static inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }

static inline float __bfloat162float(__nv_bfloat16 b) { return (float)b; }
static inline __nv_bfloat16 __float2bfloat16(float f) { return __nv_bfloat16(f); }
static inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
static inline float __low2float(__nv_bfloat162 b) { return (float)b.x; }
static inline float __high2float(__nv_bfloat162 b) { return (float)b.y; }
static inline float2 __bfloat1622float2(__nv_bfloat162 b) { return {(float)b.x, (float)b.y}; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.__x; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
