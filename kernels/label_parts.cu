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
//         - s 2^15 >= slack h and >= 2, slack = 2 eps + 2^-19; n 4 >= max(nz, rho 2^12); G / 4 >= (B + (2^-12 + eps) A) (1 + 2^-16),
//           f16 rounded up, none below 2^-14. With r the norm of the differences that were rounded off, rho <= r + 2^-24 |z|
//           and |z| <= nz + r, so max(nz, rho 2^12) is within 1 + 2^-11 of max(nz, r 2^12).
//         With - the sum is no more than T, with + no less: what z^.e^ is off, rho A + nz gamma <= nz (2^-12 A + gamma),
//         and what the sum is off, eps times the sum of the magnitudes of its products, |z^||e^| + c h (1 + 2^-10) + c s + n G at most, is
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
// Measured on an H200, 1,000,000 x 96 as 6 x 16 by 256: 0.78 ms, some 0.3 of them for packing and labels, whatever the number of
//         codewords, and 0.07 for lists; by five launches for each part 3.06. Of 131,072 x 16 by 256 0.045, twice as much a row:
//         a block makes its operands of the codebook first. Tried: bounds by three FMA of every sum in place of five
//         dimensions, lists by atomics as codewords pass by (1.40), norms in f64 (0.84), the next rows sent for or loaded
//         ahead (no gain, or slower for want of registers), eight warps a block (0.70, but 8 bytes of registers spilled).
#include "bounded_products.cuh"
#include "direct.cuh"

#define HIT_BITS 11           // of the number of a codeword that reaches the threshold
#define IS_EXACT 0x80000000u  // where exact sums decided

// What a warp lists of its rows, and how many of all its rows finer sums settled.
struct Reached {
    u32 by_f64, by_exact;
    u32 counts[ROWS_EACH];
    u16 positions[ROWS_EACH][LABEL_PARTS_LIST];
    ExactSum sum, best;
};

// Within (d + 4) 2^-53 of the real number, by one lane.
template <class T>
static __device__ __forceinline__ double lane_sq_l2_f64(const T* z, const float* e, u32 d) {
    double sum = 0.0;
    for (u32 t = 0; t < d; t++) sum = add_sq_difference(sum, to_f32(z[t]), e[t]);
    return sum;
}

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
    pass<false>(packed, shared, [&](u32 i, u32, float lower) { best[i] = fmaxf(best[i], lower); });
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
    pass<false>(packed, shared, [&](u32 i, u32 position, float upper) {
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
            pass<true>(packed, shared, [&](u32 i, u32 position, float upper) {
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
    label_parts_f32(const float* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                    u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                    float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Narrow::label(x, part, a, memory, reached);
}

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
    label_parts_f16(const F16* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                    u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                    float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Narrow::label(x, part, a, memory, reached);
}

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
    label_parts_bf16(const Bf16* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                     u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                     float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Narrow::label(x, part, a, memory, reached);
}

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 4)
    label_parts_wide_f32(const float* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                         u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                         float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Wide::label(x, part, a, memory, reached);
}

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 4)
    label_parts_wide_f16(const F16* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                         u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                         float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Wide::label(x, part, a, memory, reached);
}

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 4)
    label_parts_wide_bf16(const Bf16* __restrict__ x, u64 stride, const Part* __restrict__ parts, u32* __restrict__ labels,
                          u32* __restrict__ kinds, u64* __restrict__ status, u64 first_row, u32 n, u32 d, u32 report, u32 counts,
                          float eps, double f64_relative) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Reached reached[LABEL_PARTS_WARPS];
    __shared__ Part part;
    if (threadIdx.x == 0) part = parts[blockIdx.x];
    __syncthreads();  // All know the part.
    const LabelArgs a = {labels, kinds, status, stride, first_row, n, d, report, counts, eps, f64_relative};
    Wide::label(x, part, a, memory, reached);
}
