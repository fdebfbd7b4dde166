// The nearest codewords of the parts of rows, each part with a codebook of its own: exact labels in one launch.
//
// Inputs  x [n, parts d] f32, f16 or bf16, rows `stride` elements apart; parts [parts]: for each its codebook, as Part tells,
//         the operands those of rows_tensor.cu. d up to LABEL_PARTS_WIDTH.
// Outputs labels [parts, n]: the lowest index that minimises the real distance; SENTINEL where the part of the row holds a
//         NaN or an infinity. kinds [parts, n] as in rows.cu, or null. status: with `report` the first such value, its column
//         within the part; and how many such parts of rows there are; with `counts` how many were settled by f64 and by exact
//         sums. Allocated by the caller; the counts are added to.
// Numbers A row's part is centred, scaled and rounded as in rows_tensor.cu, whose bounds rho (of rounding), nz (of its f16),
//         and those of a codeword A, gamma, B, h = |e'|^2 / 2, are meant here, too (assign_tensor.cu); eps is that of a sum of
//         `depth` products. T_ij = z'.e' - c h orders the codewords of a row. Either operand has five dimensions more, whose
//         products are what makes a bound of a product:
//
//             row       c 2^15      c 2^15      c 2^15      -+ c 2^15       -+ n
//             codeword  -h_1        -h_1        -h_2        s               G
//
//         - h_1 2^16 + h_2 2^15 is h within 2^-21 h + 2^-10: two f16.
//         - s 2^15 >= slack h + 2, slack = 2 eps + 2^-19; n 4 >= max(nz, rho 2^12); G / 4 >= (B + (2^-12 + eps) A) (1 + 2^-16),
//           f16 rounded up, none below 2^-14. With r the norm of the differences that were rounded off, rho <= r + 2^-24 |z|
//           and |z| <= nz + r, so max(nz, rho 2^12) is within 1 + 2^-11 of max(nz, r 2^12).
//         With - the sum is no more than T, with + no less: what z^.e^ is off, rho A + nz gamma <= nz (2^-12 A + gamma),
//         and what the sum is off, eps times the sum of the magnitudes of its products, |z^||e^| + c h + c s + n G at most, is
//         covered by n G and c s; sums of products of f16 do not underflow. So T of the nearest codeword of a row is no less
//         than the largest lower bound, the threshold, and codewords whose upper bound does not reach it are not the
//         nearest. Each codeword has its own bound: a long one spoils none but itself.
//         One codeword that reaches it is the label. Of several, f64 sums of differences within f64_relative rule out all but
//         one, or exact sums decide; so they do among all codewords for rows that are not packed, or where more reach it
//         than a list holds. How codewords are found changes no bit.
// Launch  grid (parts, any number of blocks, which take LABEL_PARTS_ROWS rows in turn), block 32 x LABEL_PARTS_WARPS threads in
//         one dimension; as much dynamic shared memory as SharedPart takes for the largest part.
// Idea    A part of a few dimensions is one to three steps of products, and its codebook fits into shared memory beside those
//         of other blocks. So a warp makes the operands of 32 rows where it needs them, in registers: the rows are read
//         once, and nothing but labels is written. Codewords pass by twice, once for the threshold and once for those
//         that reach it, each time with one or two instructions for a codeword and a row beside the products: less than it
//         takes to keep the best, the second best and a position.
//         The machine code for 16 codewords by 32 rows (ptxas 13, 2 steps): 8 HMMA, 16 FMNMX and 5 others in the first pass; 8
//         HMMA, 16 FSETP, 16 IMAD and some 10 others in the second. Five blocks a multiprocessor by registers, no spill.
// Source  ours; the filter and its certificate as in assign_tensor.cu.
// Measured on an H200, 1,000,000 x 96 as 6 x 16 by 256: 0.7 ms, of which 0.1 look at lists and 0.28 are there for 16 codewords,
//         too; by the five launches a part that there were before 3.06. Tried: bounds by three FMA of every sum in place of
//         five dimensions, lists by atomics as codewords pass by (1.40), norms in f64 (0.84), the next rows sent for or loaded
//         ahead (no gain, or slower for want of registers), eight warps a block (0.70, with a spilled register).
#include "direct.cuh"
#include "ptx.cuh"
#include "rows.cuh"
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
#define PAIR_COLS 16     // codewords whose fragments one ldmatrix_x4 brings for 16 steps of depth
#define BOUND_DEPTH 5    // dimensions that make a bound of a product
#define MAX_RATIO 29     // binary digits that a row may be longer than its codewords: c 2^15 is a normal f16
#define HIT_BITS 11      // of the number of a codeword that reaches the threshold

static_assert(ROWS_EACH == WARP && ROW_TILES * 2 == THREAD_ROWS, "a lane for each row of a warp, two tiles of 16 rows");
static_assert(LABEL_PARTS_WIDTH % 16 == 0 && TENSOR_ALIGN == 16, "whole steps of products");
static_assert(TENSOR_COLS % PAIR_COLS == 0 && TENSOR_COLS == TENSOR_TILE, "whole pairs in a tile");

// What a warp lists of its rows, and how many of all its rows finer sums settled.
struct Reached {
    u32 by_f64, by_exact;
    u32 counts[ROWS_EACH];
    u16 positions[ROWS_EACH][LABEL_PARTS_LIST];
    ExactSum sum, best;
};

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

// Calls use(i, position, bound) for the bounds of every codeword, row i of the four of this thread. The whole warp calls it.
template <u32 STEPS, class Use>
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
    }
}

// Within (d + 4) 2^-53 of the real number, by one lane.
template <class T>
static __device__ __forceinline__ double lane_sq_l2_f64(const T* z, const float* e, u32 d) {
    double sum = 0.0;
    for (u32 t = 0; t < d; t++) sum = add_sq_difference(sum, to_f32(z[t]), e[t]);
    return sum;
}

#define IS_EXACT 0x80000000u

// The position of the codeword nearest to z, of `count` listed ones, or of the first `count` if there is no list, and IS_EXACT
// where exact sums decided. All lanes of the warp call it, and all get it. Seldom called, and large: a function of its own
// leaves registers to the others.
template <class T>
static __device__ __noinline__ u32 nearest_of(const T* z, const float* codewords, const u32* labels, const u16* list, u32 count,
                                              Reached* shared, u32 d, double f64_relative) {
    const u32 lane = threadIdx.x % WARP;
    auto position_of = [&](u32 c) { return list ? (u32)list[c] : c; };
    auto codeword = [&](u32 position) { return codewords + (u64)labels[position] * d; };
    auto sq_l2 = [&](u32 c) { return c < count ? lane_sq_l2_f64(z, codeword(position_of(c)), d) : wide_power_of_two(1023); };
    const double of_first = sq_l2(lane);
    u64 least = (u64)__double_as_longlong(of_first);  // Bits of numbers that are not negative order like the numbers.
    for (u32 c = lane + WARP; c < count; c += WARP) {
        const u64 bits = (u64)__double_as_longlong(sq_l2(c));
        least = bits < least ? bits : least;
    }
    const double limit = __longlong_as_double((i64)warp_min(least)) * (1.0 + f64_relative);

    // One is left as a rule; of more exact sums decide, the lowest position among equals.
    u32 winner = 0, left = 0;
    for (u32 first = 0; first < count; first += WARP) {
        const bool stays = (first == 0 ? of_first : sq_l2(first + lane)) * (1.0 - f64_relative) <= limit;
        for (u32 near = __ballot_sync(FULL_WARP, stays); near; near &= near - 1) {
            const u32 position = position_of(first + (u32)__ffs((int)near) - 1);
            left++;
            if (left == 1) {
                winner = position;
                continue;
            }
            if (left == 2) {
                exact_clear(shared->best, lane);
                exact_add_order(shared->best, z, codeword(winner), d, lane);
                exact_settle(shared->best, lane);
            }
            exact_clear(shared->sum, lane);
            exact_add_order(shared->sum, z, codeword(position), d, lane);
            exact_settle(shared->sum, lane);
            const int order = exact_compare(shared->sum, shared->best);
            __syncwarp();  // All lanes have compared before the best changes.
            if (order < 0 || (order == 0 && position < winner)) {
                winner = position;
                if (lane < EXACT_LIMBS) shared->best.limbs[lane] = shared->sum.limbs[lane];
            }
            __syncwarp();
        }
    }
    return left > 1 ? winner | IS_EXACT : winner;
}

// The labels of the rows of a warp, from `base` on.
template <u32 VALUE_STEPS, u32 STEPS, class T>
static __device__ __forceinline__ void label_rows(const T* x, const Part& part, const SharedPart& shared, const LabelArgs& a,
                                                  u64 base, Reached* all_reached) {
    Reached& reached = all_reached[threadIdx.x / WARP];
    const u32 lane = threadIdx.x % WARP;
    PackedRows<STEPS> packed;
    pack<VALUE_STEPS>(x, part, a, base, packed);

    float best[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) best[i] = __uint_as_float(0xff800000u);
    pass(packed, shared, [&](u32 i, u32, float lower) { best[i] = fmaxf(best[i], lower); });
    const float most = join_rows(best, [](float one, float other) { return fmaxf(one, other); });
    // No bound reaches a NaN.
    const float own_threshold = packed.kind == KIND_PACKED ? most : __uint_as_float(0x7fc00000u);
    float threshold[THREAD_ROWS];
    u32 hits[THREAD_ROWS];  // the last codewords that reach it, counted from 1
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        threshold[i] = of_row(own_threshold, i);
        hits[i] = 0;
    }
    turn_to_upper(packed, a.d);
    pass(packed, shared, [&](u32 i, u32 position, float upper) {
        if (upper >= threshold[i]) hits[i] = hits[i] * (1u << HIT_BITS) + (position + 1);
    });
    // Of a row that one codeword reaches, the sum of all hits is that one.
    u32 counted[THREAD_ROWS], most_hits = 0;
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        counted[i] = (hits[i] > 0) + (hits[i] >> HIT_BITS > 0) + (hits[i] >> 2 * HIT_BITS > 0);
        most_hits = counted[i] > most_hits ? counted[i] : most_hits;
    }
    auto add = [](u32 one, u32 other) { return one + other; };
    const u32 own_count = join_rows(counted, add), own_hit = join_rows(hits, add);
    const u32 row_lane = lane % 8 * 4 + lane / 8;  // of the row that this lane settles
    const u32 kind = __shfl_sync(FULL_WARP, packed.kind, row_lane), hit = __shfl_sync(FULL_WARP, own_hit, row_lane);
    u32 count = __shfl_sync(FULL_WARP, own_count, row_lane);

    // Lists of the rows that several reach: of the hits, or by one more pass where a thread has not kept all of them.
    if (__any_sync(FULL_WARP, count > 1)) {
        reached.counts[lane] = 0;
        __syncwarp();  // Counts are zero.
        auto list = [&](u32 i, u32 position) {
            const u32 place = atomicAdd(&reached.counts[own_row(i)], 1u);
            if (place < LABEL_PARTS_LIST) reached.positions[own_row(i)][place] = (u16)position;
        };
        if (__any_sync(FULL_WARP, most_hits > 2)) {
            pass(packed, shared, [&](u32 i, u32 position, float upper) {
                if (upper >= threshold[i]) list(i, position);
            });
        } else {
#pragma unroll
            for (u32 i = 0; i < THREAD_ROWS; i++) {
                for (u32 left = hits[i]; left; left >>= HIT_BITS) list(i, left % (1u << HIT_BITS) - 1);
            }
        }
        __syncwarp();  // Lists are complete.
        count = reached.counts[lane];
    }

    // A lane for each row.
    const u64 row = base + lane;
    const bool is_there = row < a.n, is_bad = is_there && kind == KIND_NON_FINITE;
    u32 position = count == 1 ? hit - 1 : 0;
    for (u32 open = __ballot_sync(FULL_WARP, is_there && !is_bad && count != 1); open; open &= open - 1) {
        const u32 which = (u32)__ffs((int)open) - 1, its_count = __shfl_sync(FULL_WARP, count, which);
        const bool has_list = its_count > 0 && its_count <= LABEL_PARTS_LIST;
        u32 warp = threadIdx.x / WARP;
        keep(warp);  // An address for a function is long: it is made here, not kept.
        Reached* its = all_reached + warp;
        const u32 nearest = nearest_of(row_at(x, a, base + which), part.codewords, shared.labels,
                                       has_list ? its->positions[which] : nullptr, has_list ? its_count : part.m, its, a.d,
                                       a.f64_relative);
        position = lane == which ? nearest % IS_EXACT : position;
        if (lane == 0) {
            reached.by_f64 += nearest < IS_EXACT;
            reached.by_exact += nearest >= IS_EXACT;
        }
    }
    for (u32 bad = __ballot_sync(FULL_WARP, is_bad); bad; bad &= bad - 1) {
        const u64 its_row = base + (u32)__ffs((int)bad) - 1;
        report_bad_row(row_at(x, a, its_row), a.d, a.first_row + its_row, a.report, a.status);
    }
    const u64 place = (u64)blockIdx.x * a.n + row;
    if (is_there) a.labels[place] = is_bad ? SENTINEL : shared.labels[position];
    if (is_there && a.kinds) a.kinds[place] = kind;
    __syncwarp();  // The lists may be cleared.
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

template <u32 VALUE_STEPS, u32 STEPS, class T>
static __device__ __forceinline__ void label_part(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                  Reached* reached) {
    const SharedPart shared = load_part<STEPS>(part, a.d, a.eps, memory);
    const u32 warp = threadIdx.x / WARP;
    if (threadIdx.x % WARP == 0) reached[warp].by_f64 = reached[warp].by_exact = 0;
    for (u32 turn = blockIdx.y; turn < (a.n - 1) / LABEL_PARTS_ROWS + 1; turn += gridDim.y) {
        const u64 base = (u64)turn * LABEL_PARTS_ROWS + warp * ROWS_EACH;
        if (base < a.n) label_rows<VALUE_STEPS, STEPS>(x, part, shared, a, base, reached);
    }
    if (threadIdx.x % WARP != 0 || !a.counts) return;
    if (reached[warp].by_f64) atomicAdd(&a.status[STATUS_F64], (u64)reached[warp].by_f64);
    if (reached[warp].by_exact) atomicAdd(&a.status[STATUS_EXACT], (u64)reached[warp].by_exact);
}

static_assert(LABEL_PARTS_WIDTH == 32 && BOUND_DEPTH < 16, "the steps below");

// Up to 16 dimensions.
struct Narrow {
    template <class T>
    static __device__ __forceinline__ void label(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                 Reached* reached) {
        if (a.d + BOUND_DEPTH <= 16) {
            label_part<1, 1>(x, part, a, memory, reached);
        } else {
            label_part<1, 2>(x, part, a, memory, reached);
        }
    }
};

// Up to LABEL_PARTS_WIDTH, with more registers.
struct Wide {
    template <class T>
    static __device__ __forceinline__ void label(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                 Reached* reached) {
        if (a.d + BOUND_DEPTH <= 32) {
            label_part<2, 2>(x, part, a, memory, reached);
        } else {
            label_part<2, 3>(x, part, a, memory, reached);
        }
    }
};

#define LABEL_PARTS(name, T, width, blocks)                                                                               \
    extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, blocks)                                         \
        name(const T* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,               \
             u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,      \
             float eps, double f64_relative) {                                                                            \
        extern __shared__ __align__(16) unsigned char memory[];                                                           \
        __shared__ Reached reached[LABEL_PARTS_WARPS];                                                                    \
        __shared__ Part part;                                                                                             \
        if (threadIdx.x == 0) part = parts[blockIdx.x];                                                                   \
        __syncthreads(); /* All know the part. */                                                                         \
        const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};          \
        width::label(x, part, a, memory, reached);                                                                        \
    }

LABEL_PARTS(label_parts_f32, float, Narrow, 5)
LABEL_PARTS(label_parts_f16, F16, Narrow, 5)
LABEL_PARTS(label_parts_bf16, Bf16, Narrow, 5)
LABEL_PARTS(label_wide_parts_f32, float, Wide, 4)
LABEL_PARTS(label_wide_parts_f16, F16, Wide, 4)
LABEL_PARTS(label_wide_parts_bf16, Bf16, Wide, 4)
