// Rows and codewords of few dimensions as operands whose products are bounds: what label_parts.cu makes of them, in registers
// and in shared memory. Its head says what the bounds are and why they hold.
#pragma once
#include "ptx.cuh"
#include "rows.cuh"
#include "shapes.h"
#include "tensor_tiles.cuh"

// A part, as src/backend/cuda/label_parts.rs writes it.
struct Part {
    const u16* halves;           // [m, width] in whole tiles, of rows_tensor_codewords_f32
    const float* lengths;        // A, padded to whole tiles, as the next two
    const float* bounds;         // B
    const float* half_sq_norms;  // h
    const u32* labels;           // [m], ascending
    const float* codewords;      // [k, d]
    const float* mean;           // [d]
    u32 m;                       // distinct codewords
    int shift;                   // of their scale
};

#define ROWS_EACH (LABEL_PARTS_ROWS / LABEL_PARTS_WARPS)  // of a warp
#define THREAD_ROWS 4                                     // of a thread
#define ROW_TILES (ROWS_EACH / 16)
#define PAIR_COLS 16   // codewords whose fragments are loaded at a time
#define BOUND_DEPTH 5  // dimensions of the last eight that make a bound of a product
#define MAX_RATIO 29   // binary digits that a row may be longer than its codewords: c 2^15 is a normal f16
#define MAX_ROW_SHIFT (127 - TENSOR_SHIFT)  // of a row's scale, so that one factor scales it

static_assert(ROWS_EACH == WARP && ROW_TILES * 2 == THREAD_ROWS, "a lane for each row of a warp, two tiles of 16 rows");
static_assert(LABEL_PARTS_WIDTH % 16 == 0 && TENSOR_ALIGN == 16, "whole steps of products");
static_assert(TENSOR_COLS % PAIR_COLS == 0 && TENSOR_COLS == TENSOR_TILE, "whole pairs in a tile");

struct LabelArgs {
    u32* labels;
    u32* kinds;
    u64* status;
    u64 stride;
    u64 first_row;
    u32 n;
    u32 d;
    u32 report;
    u32 counts;
    float eps;
    double f64_relative;
};

// Where the part of a row begins that this block labels.
template <class T>
static __device__ __forceinline__ const T* row_at(const T* x, const LabelArgs& a, u32 row) {
    return x + row * a.stride + (u64)blockIdx.x * a.d;
}

// Row i of the four of this thread, in its warp.
static __device__ __forceinline__ u32 own_row(u32 i) { return threadIdx.x % WARP / 4 + 8 * i; }

// Of four lanes that have a value for each of the same four rows: what lane q has in the end is joined of row q.
template <class T, class Join>
static __device__ __forceinline__ T join_rows(const T (&of)[THREAD_ROWS], Join join) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
    const T low = join(odd ? of[1] : of[0], __shfl_xor_sync(FULL_WARP, odd ? of[0] : of[1], 1));
    const T high = join(odd ? of[3] : of[2], __shfl_xor_sync(FULL_WARP, odd ? of[2] : of[3], 1));
    return join(upper ? high : low, __shfl_xor_sync(FULL_WARP, upper ? low : high, 2));
}

// What the lane of the same four has that settles row i.
template <class T>
static __device__ __forceinline__ T of_row(T own, u32 i) {
    return __shfl_sync(FULL_WARP, own, (threadIdx.x % WARP & ~3u) + i);
}

// The operands of a warp's rows, eight dimensions after the other, of rows g and g + 8 of a tile each; the last eight are
// those that make a bound, at first a lower one. A thread holds two of each eight: of a pair of eights of values dimensions
// 4q, 4q + 1 and 4q + 2, 4q + 3 of the sixteen, which lie together in memory, else 2q and 2q + 1.
template <u32 EIGHTS>
struct PackedRows {
    u32 fragments[ROW_TILES][EIGHTS][2];
    u32 kind;  // of row threadIdx.x % 4 of the four of this thread
};

// A codebook in shared memory: the mean, zeros from d on; its labels; then, on 16 bytes, of PAIR_COLS codewords at a time
// their operands as ldmatrix takes them: of each pair of eights both of eight codewords, and both of the other eight; then a
// last eight without a pair.
struct SharedPart {
    const float* mean;
    const u32* labels;
    SharedAt operands;
    u32 m;
};

// The signs of the two of the five dimensions that a thread holds in which lower and upper bounds differ: the fourth and the
// fifth.
static __device__ __forceinline__ u32 bound_signs() {
    const u32 q = threadIdx.x % 4;
    return q == 1 ? 0x80000000u : q == 2 ? 0x8000u : 0u;
}

// The bits of the nearest f16 above, of numbers that are not negative; none below 2^-14.
static __device__ __forceinline__ u32 f16_up_bits(float value) {
    const float longer = __fmul_rn(value, 1.0f + 1.0f / 1024.0f);
    return f16_pair_bits(longer > power_of_two(-14) ? longer : power_of_two(-14), 0.0f) & 0xffffu;
}

// Two elements of a vector from element t on, as load_four.
static __device__ __forceinline__ float2 load_two(const float* from, u32 t, u32 d, bool whole) {
    if (whole) return t < d ? *reinterpret_cast<const float2*>(from + t) : make_float2(0.0f, 0.0f);
    return make_float2(t < d ? from[t] : 0.0f, t + 1 < d ? from[t + 1] : 0.0f);
}

template <class T>
static __device__ __forceinline__ float2 load_two(const T* from, u32 t, u32 d, bool whole) {
    if (whole) {
        const u32 bits = t < d ? *reinterpret_cast<const u32*>(from + t) : 0u;
        return make_float2(to_f32(T{(u16)bits}), to_f32(T{(u16)(bits >> 16)}));
    }
    return make_float2(t < d ? to_f32(from[t]) : 0.0f, t + 1 < d ? to_f32(from[t + 1]) : 0.0f);
}

// Rows from `base` on less the mean, as PackedRows says. For those that are not there, the last one stands.
template <u32 VALUES, class T>
static __device__ __forceinline__ void load_centred(const T* x, const SharedPart& shared, const LabelArgs& a, u32 base, bool whole,
                                                    float (&value)[THREAD_ROWS][VALUES][2]) {
    const u32 q = threadIdx.x % 4;
    const T* at[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const u32 row = base + own_row(i);
        at[i] = row_at(x, a, row < a.n ? row : a.n - 1);
    }
#pragma unroll
    for (u32 e = 0; e + 1 < VALUES; e += 2) {
        const u32 t = 8 * e + 4 * q;
        const float4 mean = *reinterpret_cast<const float4*>(shared.mean + t);
#pragma unroll
        for (u32 i = 0; i < THREAD_ROWS; i++) {
            const float4 four = load_four(at[i], t, a.d, whole);
            value[i][e][0] = __fsub_rn(four.x, mean.x);
            value[i][e][1] = __fsub_rn(four.y, mean.y);
            value[i][e + 1][0] = __fsub_rn(four.z, mean.z);
            value[i][e + 1][1] = __fsub_rn(four.w, mean.w);
        }
    }
    if (VALUES % 2 == 0) return;
    const u32 t = 8 * (VALUES - 1) + 2 * q;
    const float2 mean = *reinterpret_cast<const float2*>(shared.mean + t);
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const float2 two = load_two(at[i], t, a.d, whole);
        value[i][VALUES - 1][0] = __fsub_rn(two.x, mean.x);
        value[i][VALUES - 1][1] = __fsub_rn(two.y, mean.y);
    }
}

// Rows from `base` on. For those that are not there, the last one stands.
template <u32 EIGHTS, class T>
static __device__ __forceinline__ void pack(const T* x, const Part& part, const SharedPart& shared, const LabelArgs& a, u32 base,
                                            PackedRows<EIGHTS>& packed) {
    constexpr u32 VALUES = EIGHTS - 1;
    const u32 q = threadIdx.x % 4;
    float value[THREAD_ROWS][VALUES][2];
    if (fours_are_whole(x, a.stride, a.d)) {
        load_centred<VALUES>(x, shared, a, base, true, value);
    } else {
        load_centred<VALUES>(x, shared, a, base, false, value);
    }
    u32 most[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        most[i] = 0;
#pragma unroll
        for (u32 v = 0; v < 2 * VALUES; v++) {
            const u32 bits = __float_as_uint(value[i][v / 2][v % 2]) & MAGNITUDE_BITS;
            most[i] = bits > most[i] ? bits : most[i];
        }
    }
    auto larger = [](u32 one, u32 other) { return other > one ? other : one; };
    const u32 centred = join_rows(most, larger);
    // Whatever is not finite is not so off the centre either: only then it is worth a look which of them it was.
    u32 raw = 0;
    if (__any_sync(FULL_WARP, centred >= INFINITE_BITS)) {
        u32 of[THREAD_ROWS];
#pragma unroll
        for (u32 i = 0; i < THREAD_ROWS; i++) {
            const u32 row = base + own_row(i);
            const T* at = row_at(x, a, row < a.n ? row : a.n - 1);
            of[i] = 0;
            for (u32 t = q; t < a.d; t += 4) of[i] = larger(of[i], __float_as_uint(to_f32(at[t])) & MAGNITUDE_BITS);
        }
        raw = join_rows(of, larger);
    }
    RowScale found = row_scale(raw, centred, part.shift);
    found.shift = found.shift < MAX_ROW_SHIFT ? found.shift : MAX_ROW_SHIFT;
    packed.kind = found.kind == KIND_PACKED && part.shift - found.shift > MAX_RATIO ? KIND_WILD : found.kind;

    // Round. What becomes of rows that are not packed does not matter: nobody looks at their bounds.
    const float own_scale = packed.kind == KIND_PACKED ? power_of_two(found.shift + TENSOR_SHIFT) : 0.0f;
    float sq_halves[THREAD_ROWS], sq_roundings[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const float scale = of_row(own_scale, i);
        sq_halves[i] = sq_roundings[i] = 0.0f;
#pragma unroll
        for (u32 e = 0; e < VALUES; e++) {
            const float scaled[2] = {__fmul_rn(value[i][e][0], scale), __fmul_rn(value[i][e][1], scale)};
            const u32 bits = f16_pair_bits(scaled[0], scaled[1]);
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                const float half = to_f32(F16{(u16)(bits >> 16 * h)}), off = __fsub_rn(scaled[h], half);
                sq_halves[i] = __fmaf_rn(half, half, sq_halves[i]);
                sq_roundings[i] = __fmaf_rn(off, off, sq_roundings[i]);
            }
            packed.fragments[i / 2][e][i % 2] = bits;
        }
    }
    auto add = [](float one, float other) { return __fadd_rn(one, other); };
    const float of_halves = join_rows(sq_halves, add), of_roundings = __fmul_rn(join_rows(sq_roundings, add), 16777216.0f);
    u32 own_bound = 0;  // c 2^15, above it n
    if (packed.kind == KIND_PACKED) {
        const u32 ratio = f16_pair_bits(power_of_two(found.shift - part.shift + 15), 0.0f) & 0xffffu;
        const float norm = __fsqrt_rn(of_halves > of_roundings ? of_halves : of_roundings);
        own_bound = ratio | f16_up_bits(__fmul_rn(norm, 0.25f * (1.0f + power_of_two(-10)))) << 16;
    }
    // Of the five numbers lane q takes 2q and 2q + 1: c, c; c, -c; -n, 0; 0, 0.
    const u32 taken = q < 2 ? 0x1010u : q == 2 ? 0x4432u : 0x4444u;
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        packed.fragments[i / 2][VALUES][i % 2] = __byte_perm(of_row(own_bound, i), 0, taken) ^ bound_signs();
    }
}

// From here on sums are upper bounds.
template <u32 EIGHTS>
static __device__ __forceinline__ void turn_to_upper(PackedRows<EIGHTS>& packed) {
    const u32 signs = bound_signs();
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) packed.fragments[i / 2][EIGHTS - 1][i % 2] ^= signs;
}

// d = start + the products of 16 rows and eight codewords.
template <u32 EIGHTS>
static __device__ __forceinline__ void multiply(float (&d)[4], const u32 (&rows)[EIGHTS][2], const u32 (&cols)[EIGHTS],
                                                const float (&start)[4]) {
#pragma unroll
    for (u32 e = 0; e + 1 < EIGHTS; e += 2) {
        const u32 a[4] = {rows[e][0], rows[e][1], rows[e + 1][0], rows[e + 1][1]}, b[2] = {cols[e], cols[e + 1]};
        if (e == 0) {
            mma_m16n8k16_f16(d, a, b, start);
        } else {
            mma_m16n8k16_f16(d, a, b);
        }
    }
    if (EIGHTS % 2) mma_m16n8k8_f16(d, rows[EIGHTS - 1], cols[EIGHTS - 1]);
}

// What the sums of the rows of a thread begin with: of a tile twice that of row g and twice that of row g + 8, in registers
// side by side, where products want them.
typedef float Starts[ROW_TILES][4];

// Calls use(i, bound) for codewords `first` to `end` in order, row i of the four of this thread, with their bounds more than
// the start of the row; of each 16 codewords a thread gets those at 2q, 2q + 8, 2q + 1, 2q + 9. The first is a multiple of
// PAIR_COLS; whole pairs pass by, the last one filled up with codewords whose bounds are minus infinity. The whole warp calls it.
template <u32 EIGHTS, class Use>
static __device__ __forceinline__ void pass(const PackedRows<EIGHTS>& packed, const SharedPart& part, u32 first, u32 end,
                                            const Starts& starts, Use use) {
    constexpr u32 STEP = 16 * PAIR_COLS * EIGHTS;
    // Lanes name rows of matrices in the order in which they lie.
    SharedAt at = part.operands + first * (16 * EIGHTS) + 16 * (threadIdx.x % WARP);
    const SharedAt last = at + (end - first + PAIR_COLS - 1) / PAIR_COLS * STEP;
#pragma unroll 2
    for (; at != last; at += STEP) {
        u32 cols[2][EIGHTS];
#pragma unroll
        for (u32 e = 0; e + 1 < EIGHTS; e += 2) {
            u32 four[4];
            ldmatrix_x4(four, at + e * (16 * PAIR_COLS));
            cols[0][e] = four[0], cols[0][e + 1] = four[1], cols[1][e] = four[2], cols[1][e + 1] = four[3];
        }
        if (EIGHTS % 2) {
            u32 two[2];
            ldmatrix_x2(two, at + (EIGHTS - 1) * (16 * PAIR_COLS));
            cols[0][EIGHTS - 1] = two[0], cols[1][EIGHTS - 1] = two[1];
        }
        float sum[2][ROW_TILES][4];
#pragma unroll
        for (u32 eight = 0; eight < 2; eight++) {
#pragma unroll
            for (u32 tile = 0; tile < ROW_TILES; tile++) {
                multiply<EIGHTS>(sum[eight][tile], packed.fragments[tile], cols[eight], starts[tile]);
            }
        }
#pragma unroll
        for (u32 r = 0; r < 4 * ROW_TILES; r++) {
#pragma unroll
            for (u32 eight = 0; eight < 2; eight++) use(r / 2, sum[eight][r / 4][r % 4]);
        }
    }
}

// Words of one half each of the dimensions that a thread takes of a pair of eights: the first or the second two of each four.
static __device__ __forceinline__ uint4 every_other(const uint4& low, const uint4& high, bool second) {
    return second ? make_uint4(low.y, low.w, high.y, high.w) : make_uint4(low.x, low.z, high.x, high.z);
}

// Fills shared memory with the codebook of a part. The whole block calls it.
template <u32 EIGHTS>
static __device__ __forceinline__ SharedPart load_part(const Part& part, u32 d, float eps, unsigned char* memory) {
    constexpr u32 VALUES = EIGHTS - 1;
    float* mean = reinterpret_cast<float*>(memory);
    u32* labels = reinterpret_cast<u32*>(memory) + LABEL_PARTS_WIDTH;
    uint4* operands = reinterpret_cast<uint4*>(memory) + LABEL_PARTS_WIDTH / 4 + (part.m + 3) / 4;
    const u32 width = tensor_width(d), count = (part.m + PAIR_COLS - 1) / PAIR_COLS * PAIR_COLS * EIGHTS;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const u32 in_pair = i % (PAIR_COLS * EIGHTS);
        const bool is_single = EIGHTS % 2 && in_pair / PAIR_COLS == EIGHTS - 1;
        const u32 col = is_single ? in_pair % PAIR_COLS : in_pair / 16 % 2 * 8 + in_pair % 8;
        const u32 eight = is_single ? EIGHTS - 1 : in_pair / 32 * 2 + in_pair / 8 % 2, j = i / (PAIR_COLS * EIGHTS) * PAIR_COLS + col;
        auto stored = [&](u32 which) {
            return *reinterpret_cast<const uint4*>(part.halves + tile_place(j, width) + which * TENSOR_PIECE);
        };
        uint4 own;
        if ((eight | 1) < VALUES) {
            own = every_other(stored(eight - eight % 2), stored(eight - eight % 2 + 1), eight % 2);
        } else if (eight < VALUES) {
            own = stored(eight);
        } else {
            const float half = part.half_sq_norms[j];
            const float scaled = __fmul_rn(half, power_of_two(-16));
            // The largest f16 at most, of what is finite; what is left is an f32. Bounds of padding are minus infinity.
            const u32 high = f16_pair_bits(j < part.m && scaled > 65504.0f ? 65504.0f : scaled, 0.0f) & 0xffffu;
            const float rest = j < part.m ? __fsub_rn(scaled, to_f32(F16{(u16)high})) : 0.0f;
            const u32 low = f16_pair_bits(__fmul_rn(2.0f, rest), 0.0f) & 0xffffu;
            const u32 slack = j < part.m ? f16_up_bits(__fmul_rn(half, power_of_two(-15) * (2.0f * eps + power_of_two(-19)))) : 0u;
            const float all = __fmaf_rn(part.lengths[j], power_of_two(-12) + eps, part.bounds[j]);
            const u32 bound = f16_up_bits(__fmul_rn(all, 4.0f * (1.0f + power_of_two(-15))));
            const u32 minus = 0x8000u;
            own = make_uint4((high ^ minus) | (high ^ minus) << 16, (low ^ minus) | slack << 16, bound, 0u);
        }
        operands[i] = own;
    }
    for (u32 j = threadIdx.x; j < part.m; j += blockDim.x) labels[j] = part.labels[j];
    for (u32 t = threadIdx.x; t < LABEL_PARTS_WIDTH; t += blockDim.x) mean[t] = t < d ? part.mean[t] : 0.0f;
    __syncthreads();  // The codebook is there.
    return {mean, labels, shared_at(operands), part.m};
}
