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
#define PAIR_COLS 16   // codewords whose fragments one ldmatrix_x4 brings for 16 steps of depth
#define BOUND_DEPTH 5  // dimensions that make a bound of a product
#define MAX_RATIO 29   // binary digits that a row may be longer than its codewords: c 2^15 is a normal f16

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
static __device__ __forceinline__ const T* row_at(const T* x, const LabelArgs& a, u64 row) {
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

// The operands of a warp's rows, at first for lower bounds.
template <u32 STEPS>
struct PackedRows {
    u32 fragments[ROW_TILES][STEPS][4];
    u32 kind;  // of row threadIdx.x % 4 of the four of this thread
};

// Which of the five the first of the two numbers is that a thread has of the first or the last eight of a step, or none.
static __device__ __forceinline__ u32 which_bound(u32 s, u32 eight, u32 d) {
    return 16 * s + 8 * eight + threadIdx.x % 4 * 2 - d;
}

// The signs of those two that lower and upper bounds differ in.
static __device__ __forceinline__ u32 bound_signs(u32 first) {
    return (first == 3 || first == 4 ? 0x8000u : 0u) | (first + 1 == 3 || first + 1 == 4 ? 0x80000000u : 0u);
}

// The bits of the nearest f16 above, of numbers that are not negative; none below 2^-14.
static __device__ __forceinline__ u32 f16_up_bits(float value) {
    const float longer = __fmul_rn(value, 1.0f + 1.0f / 1024.0f);
    return f16_pair_bits(longer > power_of_two(-14) ? longer : power_of_two(-14), 0.0f) & 0xffffu;
}

// Rows from `base` on, whose values take VALUE_STEPS of the steps. For those that are not there, the last one stands.
template <u32 VALUE_STEPS, u32 STEPS, class T>
static __device__ __forceinline__ void pack(const T* x, const Part& part, const LabelArgs& a, u64 base, PackedRows<STEPS>& packed) {
    const u32 lane = threadIdx.x % WARP, q = lane % 4;
    float value[THREAD_ROWS][VALUE_STEPS][4];
    u32 most[THREAD_ROWS];
    auto place = [&](u32 s, u32 v) { return 16 * s + 2 * q + v % 2 + v / 2 * 8; };
    auto start = [&](u32 i) {
        const u64 row = base + own_row(i);
        return row_at(x, a, row < a.n ? row : a.n - 1);
    };
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const T* at = start(i);
        most[i] = 0;
#pragma unroll
        for (u32 s = 0; s < VALUE_STEPS; s++) {
#pragma unroll
            for (u32 v = 0; v < 4; v++) {
                const u32 t = place(s, v);
                value[i][s][v] = t < a.d ? __fsub_rn(to_f32(at[t]), part.mean[t]) : 0.0f;
                const u32 bits = __float_as_uint(value[i][s][v]) & MAGNITUDE_BITS;
                most[i] = bits > most[i] ? bits : most[i];
            }
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
            const T* at = start(i);
            of[i] = 0;
            for (u32 t = q; t < a.d; t += 4) of[i] = larger(of[i], __float_as_uint(to_f32(at[t])) & MAGNITUDE_BITS);
        }
        raw = join_rows(of, larger);
    }
    const RowScale found = row_scale(raw, centred, part.shift);
    packed.kind = found.kind == KIND_PACKED && part.shift - found.shift > MAX_RATIO ? KIND_WILD : found.kind;

    // Round. Rows that are not packed get no bound that could reach their threshold, whatever they become here.
    const float own_scale = packed.kind == KIND_PACKED ? power_of_two(found.shift) : 0.0f;
    float sq_halves[THREAD_ROWS], sq_roundings[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const float scale = of_row(own_scale, i), more = power_of_two(TENSOR_SHIFT);
        sq_halves[i] = sq_roundings[i] = 0.0f;
        auto round = [&](float low, float high) {
            // In two steps, each a normal number.
            const float scaled[2] = {__fmul_rn(__fmul_rn(low, scale), more), __fmul_rn(__fmul_rn(high, scale), more)};
            const u32 bits = f16_pair_bits(scaled[0], scaled[1]);
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                const float half = to_f32(F16{(u16)(bits >> 16 * h)}), off = __fsub_rn(scaled[h], half);
                sq_halves[i] = __fmaf_rn(half, half, sq_halves[i]);
                sq_roundings[i] = __fmaf_rn(off, off, sq_roundings[i]);
            }
            return bits;
        };
#pragma unroll
        for (u32 s = 0; s < VALUE_STEPS; s++) {
            const float(&v)[4] = value[i][s];
            packed.fragments[i / 2][s][i % 2] = round(v[0], v[1]);
            packed.fragments[i / 2][s][i % 2 + 2] = round(v[2], v[3]);
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
    u32 bound[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) bound[i] = of_row(own_bound, i);
#pragma unroll
    for (u32 s = 0; s < STEPS; s++) {
#pragma unroll
        for (u32 eight = 0; eight < 2; eight++) {
            const u32 first = which_bound(s, eight, a.d), second = first + 1, signs = bound_signs(first);
            const u32 ratios = (first < 4 ? 0xffffu : 0u) | (second < 4 ? 0xffff0000u : 0u);
            const u32 norms = (first == 4 ? 0xffffu : 0u) | (second == 4 ? 0xffff0000u : 0u);
#pragma unroll
            for (u32 i = 0; i < THREAD_ROWS; i++) {
                const u32 ratio = (bound[i] & 0xffffu) * 0x10001u, norm = (bound[i] >> 16) * 0x10001u;
                const u32 own_values = s < VALUE_STEPS ? packed.fragments[i / 2][s][i % 2 + 2 * eight] : 0u;
                packed.fragments[i / 2][s][i % 2 + 2 * eight] = own_values | (ratio & ratios) | (norm & norms) | signs;
            }
        }
    }
}

// From here on sums are upper bounds.
template <u32 STEPS>
static __device__ __forceinline__ void turn_to_upper(PackedRows<STEPS>& packed, u32 d) {
    keep(d);  // Signs are made again: registers are for other things.
#pragma unroll
    for (u32 f = 0; f < 4 * STEPS; f++) {
        const u32 signs = bound_signs(which_bound(f / 4, f % 4 / 2, d));
#pragma unroll
        for (u32 tile = 0; tile < ROW_TILES; tile++) packed.fragments[tile][f / 4][f % 4] ^= signs;
    }
}

// A codebook in shared memory: its labels; then, from a multiple of 16 bytes on, of PAIR_COLS codewords at a time their
// operands of STEPS * 16 dimensions, eight by eight.
struct SharedPart {
    SharedAt operands;
    const u32* labels;
    u32 m;
};

// Calls use(i, position, bound) for the bounds of every codeword, row i of the four of this thread. The whole warp calls it;
// where `use` branches, its lanes meet again.
template <bool BRANCHES, u32 STEPS, class Use>
static __device__ __forceinline__ void pass(const PackedRows<STEPS>& packed, const SharedPart& part, Use use) {
    const u32 lane = threadIdx.x % WARP;
    // Eight lanes name eight neighbouring codewords: eight of one eight of depth, of the next, and eight more likewise.
    SharedAt at = part.operands + 16 * (lane / 16 * 8 + lane % 8) + lane / 8 % 2 * (16 * PAIR_COLS);
#pragma unroll 1
    for (u32 col = 0; col < part.m; col += PAIR_COLS) {
        u32 cols[STEPS][4];
#pragma unroll
        for (u32 s = 0; s < STEPS; s++) ldmatrix_x4(cols[s], at + s * (2 * 16 * PAIR_COLS));
        at += STEPS * (2 * 16 * PAIR_COLS);
        float sum[2][ROW_TILES][4];
#pragma unroll
        for (u32 eight = 0; eight < 2; eight++) {
#pragma unroll
            for (u32 tile = 0; tile < ROW_TILES; tile++) {
#pragma unroll
                for (u32 r = 0; r < 4; r++) sum[eight][tile][r] = 0.0f;
#pragma unroll
                for (u32 s = 0; s < STEPS; s++) {
                    const u32 two[2] = {cols[s][2 * eight], cols[s][2 * eight + 1]};
                    mma_m16n8k16_f16(sum[eight][tile], packed.fragments[tile][s], two);
                }
            }
        }
#pragma unroll
        for (u32 eight = 0; eight < 2; eight++) {
            const u32 position = col + 8 * eight + lane % 4 * 2;
#pragma unroll
            for (u32 r = 0; r < 4 * ROW_TILES; r++) use(r / 2, position + r % 2, sum[eight][r / 4][r % 4]);
        }
        if (BRANCHES) __syncwarp();
    }
}

// Fills shared memory with the codebook of a part. The whole block calls it.
template <u32 STEPS>
static __device__ __forceinline__ SharedPart load_part(const Part& part, u32 d, float eps, unsigned char* memory) {
    u32* labels = reinterpret_cast<u32*>(memory);
    uint4* operands = reinterpret_cast<uint4*>(memory) + (part.m + 3) / 4;
    const u32 stored = tensor_width(d) / 8, eights = 2 * STEPS;
    const u32 count = (part.m + PAIR_COLS - 1) / PAIR_COLS * PAIR_COLS * eights;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const u32 j = i / PAIR_COLS / eights * PAIR_COLS + i % PAIR_COLS, eight = i / PAIR_COLS % eights;
        uint4 own = make_uint4(0, 0, 0, 0);
        if (eight < stored) own = *reinterpret_cast<const uint4*>(part.halves + tile_place(j, 8 * stored) + eight * TENSOR_PIECE);
        const u32 first = 8 * eight - d;  // Which of the five the first of these eight is, or the one of them is by so many before.
        if (first < BOUND_DEPTH || first + 7 < BOUND_DEPTH + 7) {
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
            auto of = [&](u32 which) {
                return which < 2 ? high ^ minus : which == 2 ? low ^ minus : which == 3 ? slack : which == 4 ? bound : 0u;
            };
            auto pair = [&](u32 which) { return of(which) | of(which + 1) << 16; };
            own = make_uint4(own.x | pair(first), own.y | pair(first + 2), own.z | pair(first + 4), own.w | pair(first + 6));
        }
        operands[i] = own;
    }
    for (u32 j = threadIdx.x; j < part.m; j += blockDim.x) labels[j] = part.labels[j];
    __syncthreads();  // The codebook is there.
    return {shared_at(operands), labels, part.m};
}
