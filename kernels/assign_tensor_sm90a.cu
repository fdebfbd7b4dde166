// The filter pass of assign_tensor.cu for compute capability 9.0 alone, whose tensor cores take operands from shared memory
// and run beside the warps that ask for products (wgmma).
//
// Inputs, outputs, numbers: those of assign_tensor_f16 in assign_tensor.cu. What is read per codeword lies on 16 bytes.
// Launch  assign_tensor_f16: grid (min(ceil(n / WGMMA_ROWS), multiprocessors), splits), any less will do: blocks take
//         WGMMA_ROWS rows in turn; block WGMMA_THREADS threads in one dimension, WGMMA_SHARED bytes of dynamic shared
//         memory. The other entry points: as in assign_tensor.cu.
// Idea    Two groups of four warps have 128 rows each, by 128 codewords at a time; one thread of a third group sends for
//         what they read. Operands lie in device memory as the products read them (tensor_tiles.cuh), so a bulk copy
//         brings a stage of 64 halves of depth in one piece. Rows of up to WGMMA_RESIDENT halves are copied once and
//         stay, while codewords pass by, and the next ones come as soon as there is room; longer ones pass by in stages
//         too. Where rows stay, the groups take turns: while one looks at its scores, the products of the other run. A
//         group's scores are in registers: 128 of a thread, of four rows. Threads of different trades wait for nothing but barriers in shared
//         memory that count arrivals and bytes, so nobody waits for more than he needs.
//         The machine code of a stage (ptxas 13): 8 HGMMA.64x128x16; the epilogue of a tile some 1050 instructions, of
//         them 384 FFMA and 660 that choose. One block a multiprocessor, no spill.
// Source  ours; warps by trade and turns as in CUTLASS (sm90_mma_tma_gmma_ss_warpspecialized, pingpong).
// Measured on an H200: 131,072 x 256 by 1024 in 135 us, by 16384 in 1.85 ms (595 TFLOP/s; without looking at scores 817).
//         A group looks at its scores for longer than its products take: ALU instructions of one warp a scheduler, of whose
//         samples a quarter wait for dispatch while products of the other group run. Without turns 2.27 ms. Tried: scores
//         that carry their column in the lowest bits (the compiler spills: 2.4 ms), one bound for a tile in place of each
//         codeword's (1.67 ms, both together 1.61; not taken: a long codeword would open the rows of its tile), the next
//         rows sent to the second-level cache (no gain), a block for every 256 rows (138 us).
#include "assign_tensor.cuh"

#define WGMMA_GROUPS 2
#define WGMMA_GROUP_WARPS 4
#define WGMMA_GROUP_THREADS (WGMMA_GROUP_WARPS * WARP)
#define WGMMA_GROUP_ROWS 128
#define WGMMA_THREAD_ROWS 4
#define WGMMA_STAGE_BYTES (WGMMA_DEPTH / 8 * PIECE_BYTES)  // of a tile
#define WGMMA_ROW_STAGES (WGMMA_RESIDENT / WGMMA_DEPTH)    // stages of rows, of each group
#define WGMMA_TERMS 3                                      // tiles of codewords whose terms of the epilogue are there
#define WGMMA_TERM_BYTES (4 * TENSOR_COLS)                 // of one of three terms of a tile

static_assert(WGMMA_ROWS == WGMMA_GROUPS * WGMMA_GROUP_ROWS && WGMMA_GROUP_ROWS == TENSOR_TILE, "a tile of rows for each group");
static_assert(WGMMA_GROUP_ROWS == 2 * 64 && TENSOR_COLS == 128, "products of wgmma_m64n128k16_f16");
static_assert(WGMMA_THREADS == (WGMMA_GROUPS + 1) * WGMMA_GROUP_THREADS, "the last group sends for operands");
static_assert(WGMMA_RESIDENT % WGMMA_DEPTH == 0 && WGMMA_DEPTH % 16 == 0, "whole stages, whole steps");
static_assert(WGMMA_STAGES > WGMMA_ROW_STAGES, "a group passes a whole tile of codewords before the other begins");

// Where things lie in shared memory: stages of rows, a group after the other; stages of codewords; terms; barriers.
#define WGMMA_COLS_AT (WGMMA_GROUPS * WGMMA_ROW_STAGES * WGMMA_STAGE_BYTES)
#define WGMMA_TERMS_AT (WGMMA_COLS_AT + WGMMA_STAGES * WGMMA_STAGE_BYTES)
#define WGMMA_FULL_AT (WGMMA_TERMS_AT + WGMMA_TERMS * 3 * WGMMA_TERM_BYTES)  // a stage is there
#define WGMMA_EMPTY_AT (WGMMA_FULL_AT + 8 * WGMMA_STAGES)                   // all groups have read it
#define WGMMA_TERMS_FULL_AT (WGMMA_EMPTY_AT + 8 * WGMMA_STAGES)
#define WGMMA_TERMS_EMPTY_AT (WGMMA_TERMS_FULL_AT + 8 * WGMMA_TERMS)
#define WGMMA_ROWS_EMPTY_AT (WGMMA_TERMS_EMPTY_AT + 8 * WGMMA_TERMS)        // no group reads a stage of rows any more
#define WGMMA_TURN_AT (WGMMA_ROWS_EMPTY_AT + 8 * WGMMA_ROW_STAGES)          // it is the group's turn

static_assert(WGMMA_SHARED == WGMMA_TURN_AT + 8 * WGMMA_GROUPS, "all that lies there");

// A place in a ring, and the parity of the phase of its barriers.
struct RingPlace {
    u32 at;
    u32 parity;
};

static __device__ __forceinline__ void ring_next(RingPlace& place, u32 size) {
    if (++place.at == size) {
        place.at = 0;
        place.parity ^= 1;
    }
}

// What all threads of a block know.
struct WgmmaBlock {
    SharedAt shared;
    u32 n;
    u32 width;
    u32 first_tile;
    u32 last_tile;
    bool rows_stay;
    u32 stages;  // of the ring

    __device__ __forceinline__ u32 row_blocks() const { return (n - 1) / WGMMA_ROWS + 1; }
    __device__ __forceinline__ SharedAt barrier(u32 at, u32 index) const { return shared + at + 8 * index; }
    __device__ __forceinline__ SharedAt rows_at(u32 group, u32 stage) const {
        return shared + (group * WGMMA_ROW_STAGES + stage) * WGMMA_STAGE_BYTES;
    }
    __device__ __forceinline__ SharedAt cols_at(u32 stage) const { return shared + WGMMA_COLS_AT + stage * WGMMA_STAGE_BYTES; }
};

// One thread sends for everything, in the order in which it is read.
static __device__ __forceinline__ void send_for_operands(const WgmmaBlock& block, const u16* rows, const u16* codewords,
                                                         const TensorCodewords& e) {
    const u64 tile_bytes = (u64)block.width * (2 * TENSOR_TILE);
    const u32 last_row_tile = (block.n - 1) / TENSOR_TILE;
    const unsigned char* all_rows = reinterpret_cast<const unsigned char*>(rows);
    // Of a barrier at which nobody has arrived yet, the phase before the first counts as over.
    RingPlace ring = {0, 1}, terms = {0, 1}, staying = {0, 1};
    for (u32 row_block = blockIdx.x; row_block < block.row_blocks(); row_block += gridDim.x) {
        const unsigned char* col_at = reinterpret_cast<const unsigned char*>(codewords) + block.first_tile * tile_bytes;
        for (u32 tile = block.first_tile; tile < block.last_tile; tile++) {
            const SharedAt terms_full = block.barrier(WGMMA_TERMS_FULL_AT, terms.at);
            const SharedAt terms_at = block.shared + WGMMA_TERMS_AT + terms.at * (3 * WGMMA_TERM_BYTES);
            const u64 col = (u64)tile * TENSOR_COLS;
            mbarrier_wait(block.barrier(WGMMA_TERMS_EMPTY_AT, terms.at), terms.parity);
            mbarrier_arrive_expect(terms_full, 3 * WGMMA_TERM_BYTES);
            copy_bulk(terms_at, e.lengths + col, WGMMA_TERM_BYTES, terms_full);
            copy_bulk(terms_at + WGMMA_TERM_BYTES, e.bounds + col, WGMMA_TERM_BYTES, terms_full);
            copy_bulk(terms_at + 2 * WGMMA_TERM_BYTES, e.half_sq_norms + col, WGMMA_TERM_BYTES, terms_full);
            ring_next(terms, WGMMA_TERMS);

            for (u64 done = 0; done < tile_bytes; done += WGMMA_STAGE_BYTES) {
                const u32 bytes = tile_bytes - done < WGMMA_STAGE_BYTES ? (u32)(tile_bytes - done) : WGMMA_STAGE_BYTES;
                const bool stay_from_here = block.rows_stay && tile == block.first_tile;
                const bool with_rows = stay_from_here || !block.rows_stay;
                const SharedAt full = block.barrier(WGMMA_FULL_AT, ring.at);
                if (stay_from_here) mbarrier_wait(block.barrier(WGMMA_ROWS_EMPTY_AT, staying.at), staying.parity);
                mbarrier_wait(block.barrier(WGMMA_EMPTY_AT, ring.at), ring.parity);
                mbarrier_arrive_expect(full, with_rows ? (1 + WGMMA_GROUPS) * bytes : bytes);
                copy_bulk(block.cols_at(ring.at), col_at + done, bytes, full);
                for (u32 g = 0; with_rows && g < WGMMA_GROUPS; g++) {
                    // A group without rows has the last ones, and settles nothing.
                    const u32 own_tile = row_block * WGMMA_GROUPS + g;
                    const u32 row_tile = own_tile < last_row_tile ? own_tile : last_row_tile;
                    copy_bulk(block.rows_at(g, block.rows_stay ? staying.at : ring.at),
                              all_rows + row_tile * tile_bytes + done, bytes, full);
                }
                if (stay_from_here) ring_next(staying, WGMMA_ROW_STAGES);
                ring_next(ring, block.stages);
            }
            col_at += tile_bytes;
        }
    }
}

// Row i of the four of this thread, in its group.
static __device__ __forceinline__ u32 wgmma_row(u32 i) {
    return threadIdx.x % WGMMA_GROUP_THREADS / WARP * 16 + threadIdx.x % WARP / 4 + i % 2 * 8 + i / 2 * 64;
}

// Where a group is in its rings: of stages, of terms, of rows that stay; and whose turn it is.
struct WgmmaPlace {
    RingPlace ring;
    RingPlace terms;
    u32 staying;  // the first stage of the rows at hand
    u32 turn_parity;
};

// The best of each of the four rows of this thread, of the columns that it has of every tile; fact[i] are the facts of row i.
static __device__ __forceinline__ void pass_tiles(const WgmmaBlock& block, u32 group, const unsigned char* memory,
                                                  WgmmaPlace& place, const float4 (&fact)[WGMMA_THREAD_ROWS],
                                                  Best (&best)[WGMMA_THREAD_ROWS]) {
    const bool is_first = threadIdx.x % WARP == 0;  // A warp arrives by one of its lanes.
    const u32 whole = block.width / WGMMA_DEPTH, rest = block.width % WGMMA_DEPTH / 16;  // stages; steps of one more
    const u32 first_col = threadIdx.x % 4 * 2;
    RingPlace& ring = place.ring;
    for (u32 tile = block.first_tile; tile < block.last_tile; tile++) {
        const bool rows_go = is_first && block.rows_stay && tile + 1 == block.last_tile;
        WgmmaSums low, high;  // of the first and of the last 64 rows
        u32 read = 0, rows_read = 0, s = 0;
        auto rows_stage = [&]() { return block.rows_stay ? (place.staying + s) % WGMMA_ROW_STAGES : ring.at; };
        if (block.rows_stay) mbarrier_wait(block.barrier(WGMMA_TURN_AT, group), place.turn_parity);
#pragma unroll 1
        for (; s < whole; s++) {
            mbarrier_wait(block.barrier(WGMMA_FULL_AT, ring.at), ring.parity);
            const u32 rows_now = rows_stage();
            const WgmmaSide a = wgmma_side(block.rows_at(group, rows_now), PIECE_BYTES);
            const WgmmaSide b = wgmma_side(block.cols_at(ring.at), PIECE_BYTES);
            wgmma_keep(low);
            wgmma_keep(high);
            wgmma_fence();
#pragma unroll
            for (u32 step = 0; step < WGMMA_DEPTH / 16; step++) {
                const u32 further = step * (2 * PIECE_BYTES);
                wgmma_m64n128k16_f16(low, wgmma_further(a, further), wgmma_further(b, further), s + step > 0);
                wgmma_m64n128k16_f16(high, wgmma_further(a, further + 16 * 64), wgmma_further(b, further), s + step > 0);
            }
            wgmma_commit();
            wgmma_wait<1>();  // The stage before has been read.
            mbarrier_arrive_if(is_first && s > 0, block.barrier(WGMMA_EMPTY_AT, read));
            mbarrier_arrive_if(rows_go && s > 0, block.barrier(WGMMA_ROWS_EMPTY_AT, rows_read));
            read = ring.at;
            rows_read = rows_now;
            ring_next(ring, block.stages);
        }
        const u32 last = ring.at, rows_last = rows_stage();
        if (rest) {
            mbarrier_wait(block.barrier(WGMMA_FULL_AT, last), ring.parity);
            WgmmaSide a = wgmma_side(block.rows_at(group, rows_last), PIECE_BYTES);
            WgmmaSide b = wgmma_side(block.cols_at(last), PIECE_BYTES);
#pragma unroll 1
            for (u32 step = 0; step < rest; step++) {
                wgmma_keep(low);
                wgmma_keep(high);
                wgmma_fence();
                wgmma_m64n128k16_f16(low, a, b, s + step > 0);
                wgmma_m64n128k16_f16(high, wgmma_further(a, 16 * 64), b, s + step > 0);
                wgmma_commit();
                a = wgmma_further(a, 2 * PIECE_BYTES);
                b = wgmma_further(b, 2 * PIECE_BYTES);
            }
            ring_next(ring, block.stages);
        }
        mbarrier_arrive_if(is_first && block.rows_stay, block.barrier(WGMMA_TURN_AT, 1 - group));
        place.turn_parity ^= 1;
        wgmma_wait<0>();
        wgmma_keep(low);
        wgmma_keep(high);
        mbarrier_arrive_if(is_first && whole > 0, block.barrier(WGMMA_EMPTY_AT, read));
        mbarrier_arrive_if(is_first && rest > 0, block.barrier(WGMMA_EMPTY_AT, last));
        mbarrier_arrive_if(rows_go && whole > 0, block.barrier(WGMMA_ROWS_EMPTY_AT, rows_read));
        mbarrier_arrive_if(rows_go && rest > 0, block.barrier(WGMMA_ROWS_EMPTY_AT, rows_last));

        RingPlace& terms = place.terms;
        mbarrier_wait(block.barrier(WGMMA_TERMS_FULL_AT, terms.at), terms.parity);
        const unsigned char* terms_at = memory + WGMMA_TERMS_AT + terms.at * (3 * WGMMA_TERM_BYTES) + 4 * first_col;
        auto term = [&](u32 which, u32 j) {
            return *reinterpret_cast<const float2*>(terms_at + which * WGMMA_TERM_BYTES + 4 * 8 * j);
        };
        float2 next[3] = {term(0, 0), term(1, 0), term(2, 0)};
#pragma unroll
        for (u32 j = 0; j < TENSOR_COLS / 8; j++) {
            const u32 col = tile * TENSOR_COLS + first_col + 8 * j;
            const float2 length = next[0], bound = next[1], half = next[2];
#pragma unroll
            for (u32 which = 0; which < 3 && j + 1 < TENSOR_COLS / 8; which++) next[which] = term(which, j + 1);
#pragma unroll
            for (u32 i = 0; i < WGMMA_THREAD_ROWS; i++) {
                const float* sum = (i < 2 ? low : high) + 4 * j + 2 * (i % 2);
                best_add(best[i], tensor_score(sum[0], fact[i], length.x, bound.x, half.x), col);
                best_add(best[i], tensor_score(sum[1], fact[i], length.y, bound.y, half.y), col + 1);
            }
        }
        __syncwarp();  // All lanes have read their terms.
        mbarrier_arrive_if(is_first, block.barrier(WGMMA_TERMS_EMPTY_AT, terms.at));
        ring_next(terms, WGMMA_TERMS);
    }
    if (block.rows_stay) place.staying = (place.staying + whole + (rest > 0)) % WGMMA_ROW_STAGES;
}

extern "C" __global__ void __launch_bounds__(WGMMA_THREADS, 1)
    assign_tensor_f16(const u16* __restrict__ rows, const float* __restrict__ facts, const u32* __restrict__ kinds,
                      const u16* __restrict__ codewords, const float* __restrict__ lengths,
                      const float* __restrict__ bounds, const float* __restrict__ half_sq_norms,
                      const u32* __restrict__ codeword_labels, u32* __restrict__ labels, u32* __restrict__ again,
                      u32* __restrict__ again_count, float* __restrict__ thresholds, u32* __restrict__ counts,
                      uint4* __restrict__ parts, u32 n, u32 m, u32 width, double unit, double tiny, u32 fast) {
    extern __shared__ __align__(16) unsigned char memory[];
    const u32 tiles = (u32)(((u64)m + TENSOR_COLS - 1) / TENSOR_COLS), run = (tiles - 1) / gridDim.y + 1;
    WgmmaBlock block;
    block.shared = shared_at(memory);
    block.n = n;
    block.width = width;
    block.first_tile = blockIdx.y * run;
    block.last_tile = block.first_tile + run < tiles ? block.first_tile + run : tiles;
    block.rows_stay = width <= WGMMA_RESIDENT;
    block.stages = block.rows_stay ? WGMMA_STAGES : WGMMA_ROW_STAGES;

    if (threadIdx.x == 0) {
        const u32 readers = WGMMA_GROUPS * WGMMA_GROUP_WARPS;
        for (u32 s = 0; s < WGMMA_STAGES; s++) {
            mbarrier_init(block.barrier(WGMMA_FULL_AT, s), 1);
            mbarrier_init(block.barrier(WGMMA_EMPTY_AT, s), readers);
        }
        for (u32 s = 0; s < WGMMA_TERMS; s++) {
            mbarrier_init(block.barrier(WGMMA_TERMS_FULL_AT, s), 1);
            mbarrier_init(block.barrier(WGMMA_TERMS_EMPTY_AT, s), readers);
        }
        for (u32 s = 0; s < WGMMA_ROW_STAGES; s++) mbarrier_init(block.barrier(WGMMA_ROWS_EMPTY_AT, s), readers);
        for (u32 g = 0; g < WGMMA_GROUPS; g++) mbarrier_init(block.barrier(WGMMA_TURN_AT, g), WGMMA_GROUP_WARPS);
        mbarrier_init_done();
    }
    __syncthreads();  // Barriers are there.

    const u32 group = uniform(threadIdx.x / WGMMA_GROUP_THREADS);
    if (group == WGMMA_GROUPS) {
        give_up_registers<40>();
        if (threadIdx.x == WGMMA_GROUPS * WGMMA_GROUP_THREADS) {
            send_for_operands(block, rows, codewords, {lengths, bounds, half_sq_norms});
        }
        return;
    }
    take_registers<216>();

    const Settle settling = {facts, kinds,       bounds,     half_sq_norms, lengths, codeword_labels, labels,
                             again, again_count, thresholds, counts,        m,       1.0f,            unit, tiny, fast};
    WgmmaPlace place = {{0, 0}, {0, 0}, 0, group == 0};  // The first turn is that of the first group.
    for (u32 row_block = blockIdx.x; row_block < block.row_blocks(); row_block += gridDim.x) {
        const u64 first_row = (u64)row_block * WGMMA_ROWS + group * WGMMA_GROUP_ROWS;
        float4 fact[WGMMA_THREAD_ROWS];
        Best best[WGMMA_THREAD_ROWS];
#pragma unroll
        for (u32 i = 0; i < WGMMA_THREAD_ROWS; i++) {
            // Rows that are not there have the facts of the last one, and no score of theirs counts.
            const u64 row = first_row + wgmma_row(i) < n ? first_row + wgmma_row(i) : n - 1;
            fact[i] = *reinterpret_cast<const float4*>(facts + row * FACTS);
            best[i] = best_of_nothing();
        }
        pass_tiles(block, group, memory, place, fact, best);

        // Four lanes have seen scores of the same four rows; each settles one of them.
        const Best of_row = share(share(best[0], best[1], 1), share(best[2], best[3], 1), 2);
        const u64 row = first_row + wgmma_row(threadIdx.x % 4);
        if (row < n && gridDim.y == 1) {
            settle(settling, row, of_row);
        } else if (row < n) {
            best_store(parts + (u64)blockIdx.y * n + row, of_row);
        }
        __syncwarp();  // Products are asked for by whole warps.
    }
}
