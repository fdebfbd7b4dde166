// What several kernels share: integer names, kinds of rows, scales, reductions within a warp, 16-bit elements.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define WARP 32
#define FULL_WARP 0xffffffffu

// The label of a row that holds a NaN or an infinity.
#define SENTINEL 0xffffffffu

// A place of an order of rows that no row takes (label_order.cu).
#define NO_ROW 0xffffffffu

// Kinds of rows, written by rows.cu.
#define KIND_PACKED 0u
#define KIND_WILD 1u
#define KIND_NON_FINITE 2u

// Per row four values, written by rows.cu.
#define FACT_NORM 0
#define FACT_RATIO 1
#define FACT_SQ_NORM 2
#define FACT_FACTOR 3
#define FACTS 4

// Where rows_tensor.cu wrote them, the last two mean something else.
#define FACT_ROUNDING 2
#define FACT_WEIGHT 3

// Words of the status: the lowest value that is not finite (bad_value_key), the lowest code that names no codeword
// (gather.cu), and how many rows were bad, or settled by f32, f64 and exact sums.
#define STATUS_BAD_VALUE 0
#define STATUS_BAD_CODE 1
#define STATUS_BAD 2
#define STATUS_SECOND 3
#define STATUS_F64 4
#define STATUS_EXACT 5

// Bits of an infinity without its sign; NaNs lie above.
#define INFINITE_BITS 0x7f800000u
#define MAGNITUDE_BITS 0x7fffffffu

// Where a value that is not finite lies, and which it is: row below 2^36, column below 2^26, and two bits for a NaN, an
// infinity or a negative one. Lower keys lie further up.
static __device__ __forceinline__ u64 bad_value_key(u64 row, u32 col, u32 bits) {
    const u32 kind = (bits & MAGNITUDE_BITS) > INFINITE_BITS ? 0u : bits >> 31 ? 2u : 1u;
    return row << 28 | (u64)col << 2 | kind;
}

// Largest exponent that a scale undoes.
#define MAX_SHIFT 126

static __device__ __forceinline__ float power_of_two(int exponent) {
    return __uint_as_float((u32)(exponent + 127) << 23);
}

// The exponent that brings a magnitude with these bits to [1, 2), as far as a scale can.
static __device__ __forceinline__ int shift_of(u32 magnitude) {
    const int shift = 127 - (int)(magnitude >> 23);
    return shift < -MAX_SHIFT ? -MAX_SHIFT : shift > MAX_SHIFT ? MAX_SHIFT : shift;
}

// log2 of the lanes that share a row: the smallest power of two that covers it, at most all `threads` of a block.
static __device__ __forceinline__ u32 lanes_shift(u32 d, u32 threads) {
    const u32 lanes = d < threads ? d : threads;
    return 32u - (u32)__clz((int)lanes - 1);
}

// log2 of the lanes of a warp that share a row whose elements come in fours.
static __device__ __forceinline__ u32 fours_shift(u32 d) { return lanes_shift((d - 1) / 4 + 1, WARP); }

// Whether every row of so many elements, so far apart, can be read so.
template <class T>
static __device__ __forceinline__ bool fours_are_whole(const T* from, u64 stride, u32 d) {
    return d % 4 == 0 && stride % 4 == 0 && (u64)from % (4 * sizeof(T)) == 0;
}

static __device__ __forceinline__ u32 warp_max(u32 value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const u32 other = __shfl_xor_sync(FULL_WARP, value, offset);
        value = other > value ? other : value;
    }
    return value;
}

static __device__ __forceinline__ u64 warp_min(u64 value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const u64 other = __shfl_xor_sync(FULL_WARP, value, offset);
        value = other < value ? other : value;
    }
    return value;
}

static __device__ __forceinline__ float warp_sum(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value = __fadd_rn(value, __shfl_xor_sync(FULL_WARP, value, offset));
    }
    return value;
}

static __device__ __forceinline__ double warp_sum(double value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value = __dadd_rn(value, __shfl_xor_sync(FULL_WARP, value, offset));
    }
    return value;
}

// Elements of vectors. The 16-bit types are taken as their bits, and become f32 without rounding.
struct F16 {
    u16 bits;
};

struct Bf16 {
    u16 bits;
};

static __device__ __forceinline__ float to_f32(float value) { return value; }

static __device__ __forceinline__ float to_f32(Bf16 value) { return __uint_as_float((u32)value.bits << 16); }

static __device__ __forceinline__ float to_f32(F16 value) {
#ifdef SIMULATED_CUDA
    const u32 magnitude = (u32)(value.bits & 0x7fffu) << 13;
    const u32 sign = (u32)(value.bits & 0x8000u) << 16;
    // The exponent is 112 too small; an f16 subnormal is an f32 subnormal here, and becomes normal by the product.
    u32 bits = __float_as_uint(__fmul_rn(__uint_as_float(magnitude), 5.192296858534828e33f));
    if (magnitude >= (0x7c00u << 13)) bits = magnitude | INFINITE_BITS;
    return __uint_as_float(bits | sign);
#else
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#endif
}

// Four elements of a vector from element t on; zeros from d on. `whole` says that fours are whole and lie as one.
static __device__ __forceinline__ float4 load_four(const float* from, u32 t, u32 d, bool whole) {
    float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
    if (whole) return t < d ? *reinterpret_cast<const float4*>(from + t) : four;
    if (t < d) four.x = from[t];
    if (t + 1 < d) four.y = from[t + 1];
    if (t + 2 < d) four.z = from[t + 2];
    if (t + 3 < d) four.w = from[t + 3];
    return four;
}

template <class T>
static __device__ __forceinline__ float4 load_four(const T* from, u32 t, u32 d, bool whole) {
    if (whole) {
        const uint2 bits = t < d ? *reinterpret_cast<const uint2*>(from + t) : make_uint2(0u, 0u);
        return make_float4(to_f32(T{(u16)bits.x}), to_f32(T{(u16)(bits.x >> 16)}), to_f32(T{(u16)bits.y}),
                           to_f32(T{(u16)(bits.y >> 16)}));
    }
    return make_float4(t < d ? to_f32(from[t]) : 0.0f, t + 1 < d ? to_f32(from[t + 1]) : 0.0f,
                       t + 2 < d ? to_f32(from[t + 2]) : 0.0f, t + 3 < d ? to_f32(from[t + 3]) : 0.0f);
}
