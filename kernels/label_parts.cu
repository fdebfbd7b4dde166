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
//         16 products for each instruction that adds some. T_ij = z'.e' - c h orders the codewords of a row. Either operand has
//         eight dimensions more, the products of five of which make a bound of a product:
//
//             row       c 2^15      c 2^15      c 2^15      -+ c 2^15       -+ n
//             codeword  -h_1        -h_1        -h_2        s               G
//
//         - h_1 2^16 + h_2 2^15 is h within 2^-21 h + 2^-10: two f16.
//         - s 2^15 >= slack h and >= 2, slack = 2 eps + 2^-19; n 4 >= max(nz, rho 2^12); G / 4 >= (B + (2^-12 + eps) A) (1 + 2^-16),
//           f16 rounded up, none below 2^-14. With r the norm of the differences that were rounded off, rho <= r + 2^-24 |z|
//           and |z| <= nz + r, so max(nz, rho 2^12) is within 1 + 2^-11 of max(nz, r 2^12).
//         With - the sum is no more than T, with + no less. Be N = max(nz, rho 2^12): what z^.e^ is off, rho A + nz gamma <=
//         N (2^-12 A + gamma), and what the sum is off, eps times the sum of the magnitudes of its products, |z^||e^| + c h (1 + 2^-10) +
//         c 2^15 s + n G at most, is covered by n G and c 2^15 s; sums of products of f16 do not underflow. A subnormal f16 counts
//         as 2^-14 where products are cut off by the largest of them: what that takes beside is far less than what n, G and s
//         have at least. So T of the nearest codeword of a row is no less than the largest lower bound, t, and codewords whose
//         upper bound is below it are not the nearest. Each codeword has its own bound: a long one spoils none but itself.
//         Sums of upper bounds begin with -t' in place of 0. That makes them off by eps |t'| more, and t' is t - 2 eps |t|: the sum
//         of the nearest codeword is positive, as s is.
//         One codeword whose sum has no sign is the label. Of several, f64 sums of differences within f64_relative rule out all but
//         one, or exact sums decide; so they do among all codewords for rows that are not packed, or where there are more than
//         a list holds. How codewords are found changes no bit.
// Launch  grid (parts, any number of blocks, which take LABEL_PARTS_ROWS rows in turn), block 32 x LABEL_PARTS_WARPS threads in
//         one dimension; as much dynamic shared memory as SharedPart and Reaches take for the largest part.
// Idea    A part of a few dimensions is one to three products, and its codebook fits into shared memory beside those of other
//         blocks. So a warp makes the operands of 32 rows where it needs them, in registers: the rows are read once, four values
//         at a time (two in a last eight) where they lie so, and nothing but labels is written. Codewords pass by twice, once
//         for the threshold and once for those that reach it, each time with one instruction for a codeword and a row beside
//         the products: a maximum, and a shift that puts the sign of the sum into a word. Of the words a lane for each row makes
//         its label.
//         The machine code for 16 codewords by 32 rows (ptxas 13, sm_90, 16 dimensions): 4 HMMA of 16 and 4 of 8 steps, 16 FMNMX
//         and 4.5 others in the first pass; the same HMMA, 16 SHF and 4 others in the second. 1560 instructions for 32 rows and
//         256 codewords where one codeword is left of each, counted along that path. Six blocks a multiprocessor by registers,
//         no spill.
// Source  ours; the filter and its certificate as in assign_tensor.cu.
// Measured in this form nowhere. The one before it on an H200 (commit d1d036e; some 2100 such instructions, 8 HMMA of 16 steps in either
//         pass, five blocks), 1,000,000 x 96 as 6 x 16 by 256: 0.78 ms, some 0.3 of them for packing and labels, whatever the number
//         of codewords, and 0.07 for lists; by five launches for each part 3.06. Of 131,072 x 16 by 256 0.045, twice as much a
//         row: a block makes its operands of the codebook first. Tried there: bounds by three FMA of every sum in place of five
//         dimensions, lists by atomics as codewords pass by (1.40), norms in f64 (0.84), the next rows sent for or loaded
//         ahead (no gain, or slower for want of registers), eight warps a block (0.70, but 8 bytes of registers spilled).
#include "bounded_products.cuh"
#include "direct.cuh"

#define IS_EXACT 0x80000000u  // where exact sums decided

// What a warp lists of its rows, how many of all its rows finer sums settled, and what these need: in shared memory, for the
// registers are for others.
struct Reached {
    const float* codewords;
    const u32* labels;
    double f64_relative;
    u32 d;
    u32 by_f64, by_exact;
    u16 positions[ROWS_EACH][LABEL_PARTS_LIST];
    ExactSum sum, best;
};

// Which of LABEL_PARTS_CHUNK codewords reach the thresholds of a warp's rows: of row i of the four of a thread a bit for each
// that it has seen, zero where it does, the last one in the lowest bit.
typedef u32 Reaches[THREAD_ROWS][WARP];

static_assert(LABEL_PARTS_CHUNK % PAIR_COLS == 0 && LABEL_PARTS_CHUNK / PAIR_COLS * 4 == 32,
              "a thread sees four codewords of each pair of eights, of all of them as many as a word has bits");

// The codeword of bit `bit` of what lane q of four has of a chunk whose last pair begins at `last`.
static __device__ __forceinline__ u32 position_of(u32 bit, u32 q, u32 last) {
    return last - bit / 4 * PAIR_COLS + (bit & 2 ? 0 : 1) + (bit & 1 ? 0 : 8) + 2 * q;
}

// Within (d + 4) 2^-53 of the real number, by one lane.
template <class T>
static __device__ __forceinline__ double lane_sq_l2_f64(const T* z, const float* e, u32 d) {
    double sum = 0.0;
    for (u32 t = 0; t < d; t++) sum = add_sq_difference(sum, to_f32(z[t]), e[t]);
    return sum;
}

// The position of the codeword nearest to z, of `listed` ones of row `which`, or of the first `m` if there is no list, and
// IS_EXACT where exact sums decided. All lanes of the warp call it, and all get it. Seldom called, and large: a function of its
// own leaves registers to the others.
template <class T>
static __device__ __noinline__ u32 nearest_of(const T* z, u32 which, u32 listed, u32 m, Reached* shared) {
    const u32 lane = threadIdx.x % WARP, count = listed ? listed : m, d = shared->d;
    const double f64_relative = shared->f64_relative;
    auto listed_at = [&](u32 c) { return listed ? (u32)shared->positions[which][c] : c; };
    auto codeword = [&](u32 position) { return shared->codewords + (u64)shared->labels[position] * d; };
    auto sq_l2 = [&](u32 c) { return c < count ? lane_sq_l2_f64(z, codeword(listed_at(c)), d) : wide_power_of_two(1023); };
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
            const u32 position = listed_at(first + (u32)__ffs((int)near) - 1);
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
template <u32 EIGHTS, class T>
static __device__ __forceinline__ void label_rows(const T* x, const Part& part, const SharedPart& shared, const LabelArgs& a,
                                                  u32 base, Reaches* reaches, Reached* all_reached) {
    const u32 lane = threadIdx.x % WARP, m = shared.m;
    PackedRows<EIGHTS> packed;
    pack(x, part, shared, a, base, packed);

    const Starts none = {};
    float best[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) best[i] = __uint_as_float(0xff800000u);
    pass(packed, shared, 0, m, none, [&](u32 i, float lower) { best[i] = fmaxf(best[i], lower); });
    const float most = join_rows(best, [](float one, float other) { return fmaxf(one, other); });
    // Less what sums with the threshold in them are off by for its sake.
    const float own_start = -__fmaf_rn(-2.0f * a.eps, fabsf(most), most);
    // Twice asked for: ptxas makes copies of a number anew in every turn of a loop.
    Starts starts;
#pragma unroll
    for (u32 i = 0; i < 2 * THREAD_ROWS; i++) starts[i / 4][i % 4] = of_row(own_start, i / 2);
    turn_to_upper(packed);
    auto end_of = [&](u32 chunk) {
        const u32 end = (chunk + 1) * LABEL_PARTS_CHUNK;
        return end < m ? end : m;
    };
    for (u32 chunk = 0; chunk * LABEL_PARTS_CHUNK < m; chunk++) {
        u32 misses[THREAD_ROWS];
#pragma unroll
        for (u32 i = 0; i < THREAD_ROWS; i++) misses[i] = ~0u;
        pass(packed, shared, chunk * LABEL_PARTS_CHUNK, end_of(chunk), starts,
             [&](u32 i, float upper) { misses[i] = __funnelshift_l(__float_as_uint(upper), misses[i], 1); });
#pragma unroll
        for (u32 i = 0; i < THREAD_ROWS; i++) reaches[chunk][i][lane] = misses[i];
    }
    __syncwarp();  // All know what reaches.

    // A lane for each row.
    const u32 row_lane = lane % 8 * 4 + lane / 8;  // of the row that this lane settles
    const u32 kind = __shfl_sync(FULL_WARP, packed.kind, row_lane);
    const u64 row = (u64)base + lane;
    const bool is_there = row < a.n, is_bad = is_there && kind == KIND_NON_FINITE;
    auto misses_of = [&](u32 chunk) { return *reinterpret_cast<const uint4*>(&reaches[chunk][lane / 8][lane % 8 * 4]); };
    auto last_pair = [&](u32 chunk) { return (end_of(chunk) - 1) / PAIR_COLS * PAIR_COLS; };
    u32 count = 0, position = 0;
    for (u32 chunk = 0; chunk * LABEL_PARTS_CHUNK < m; chunk++) {
        const uint4 of = misses_of(chunk);
        count += LABEL_PARTS_CHUNK - (u32)(__popc(of.x) + __popc(of.y) + __popc(of.z) + __popc(of.w));
        // Of a row that one codeword reaches, this is the one.
        const u32 hits = ~(of.x & of.y & of.z & of.w), q = ((of.y & of.w) != ~0u ? 1 : 0) + ((of.z & of.w) != ~0u ? 2 : 0);
        position = hits ? position_of((u32)__ffs((int)hits) - 1, q, last_pair(chunk)) : position;
    }
    // Bounds of a row that is not packed say nothing.
    count = kind == KIND_PACKED ? count : 0;
    const bool has_list = count > 1 && count <= LABEL_PARTS_LIST;
    if (has_list) {
        u16* to = all_reached[threadIdx.x / WARP].positions[lane];
        for (u32 chunk = 0; chunk * LABEL_PARTS_CHUNK < m; chunk++) {
            const uint4 of = misses_of(chunk);
            const u32 misses[4] = {of.x, of.y, of.z, of.w};
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                for (u32 hits = ~misses[q]; hits; hits &= hits - 1) {
                    *to++ = (u16)position_of((u32)__ffs((int)hits) - 1, q, last_pair(chunk));
                }
            }
        }
    }
    const bool is_open = is_there && !is_bad && count != 1;
    u32* labels = a.labels + (u64)blockIdx.x * a.n;
    if (is_there && !is_open) labels[row] = is_bad ? SENTINEL : shared.labels[position];
    if (is_there && a.kinds) a.kinds[(u64)blockIdx.x * a.n + row] = kind;
    for (u32 bad = __ballot_sync(FULL_WARP, is_bad); bad; bad &= bad - 1) {
        const u32 its_row = base + (u32)__ffs((int)bad) - 1;
        report_bad_row(row_at(x, a, its_row), a.d, a.first_row + its_row, a.report, a.status);
    }
    __syncwarp();  // Lists are complete.
    for (u32 open = __ballot_sync(FULL_WARP, is_open); open; open &= open - 1) {
        const u32 which = (u32)__ffs((int)open) - 1, listed = __shfl_sync(FULL_WARP, has_list ? count : 0, which);
        u32 warp = threadIdx.x / WARP;
        keep(warp);  // An address for a function is long: it is made here, not kept.
        Reached* its = all_reached + warp;
        const u32 nearest = nearest_of(row_at(x, a, base + which), which, listed, m, its);
        if (threadIdx.x % WARP != 0) continue;
        labels[base + which] = shared.labels[nearest % IS_EXACT];
        its->by_f64 += nearest < IS_EXACT;
        its->by_exact += nearest >= IS_EXACT;
    }
    __syncwarp();  // Others may be written to where these reach, and to the lists.
}

template <u32 EIGHTS, class T>
static __device__ __forceinline__ void label_part(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                  Reached* reached) {
    const u32 warp = threadIdx.x / WARP, chunks = (part.m + LABEL_PARTS_CHUNK - 1) / LABEL_PARTS_CHUNK;
    Reaches* reaches = reinterpret_cast<Reaches*>(memory);
    const SharedPart shared = load_part<EIGHTS>(part, a.d, a.eps, memory + LABEL_PARTS_WARPS * chunks * sizeof(Reaches));
    if (threadIdx.x % WARP == 0) {
        Reached& own = reached[warp];
        own.codewords = part.codewords, own.labels = shared.labels;
        own.f64_relative = a.f64_relative, own.d = a.d;
        own.by_f64 = own.by_exact = 0;
    }
    __syncwarp();  // All know that.
    for (u32 turn = blockIdx.y; turn < (a.n - 1) / LABEL_PARTS_ROWS + 1; turn += gridDim.y) {
        // No more than the largest u32: the last turn has a row.
        const u32 base = turn * LABEL_PARTS_ROWS + warp * ROWS_EACH;
        if (base < a.n) label_rows<EIGHTS>(x, part, shared, a, base, reaches + warp * chunks, reached);
    }
    if (threadIdx.x % WARP != 0 || !a.counts) return;
    if (reached[warp].by_f64) atomicAdd(&a.status[STATUS_F64], (u64)reached[warp].by_f64);
    if (reached[warp].by_exact) atomicAdd(&a.status[STATUS_EXACT], (u64)reached[warp].by_exact);
}

static_assert(LABEL_PARTS_WIDTH == 32 && BOUND_DEPTH <= 8, "the eights below");

// Up to 16 dimensions.
struct Narrow {
    template <class T>
    static __device__ __forceinline__ void label(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                 Reached* reached) {
        if (a.d <= 8) {
            label_part<2>(x, part, a, memory, reached);
        } else {
            label_part<3>(x, part, a, memory, reached);
        }
    }
};

// Up to LABEL_PARTS_WIDTH, with more registers.
struct Wide {
    template <class T>
    static __device__ __forceinline__ void label(const T* x, const Part& part, const LabelArgs& a, unsigned char* memory,
                                                 Reached* reached) {
        if (a.d <= 24) {
            label_part<4>(x, part, a, memory, reached);
        } else {
            label_part<5>(x, part, a, memory, reached);
        }
    }
};

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 6)
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 6)
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 6)
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
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

extern "C" __global__ void __launch_bounds__(LABEL_PARTS_WARPS* WARP, 5)
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
