// Products of four warps (PTX ISA, "wgmma"), of f16: 64 x 128 sums over 16 steps of depth, operands in shared memory,
// sums as tensor.cpp has them. A product runs when a warp waits for its group, each warp its 16 rows; until then the sums
// in the threads are NaN, and writing over operands is found.
#include "block.h"
#include "checks.h"
#include "clocks.h"
#include "tensor_core.h"

#include <cstring>

namespace simulated {

static const unsigned ROWS = 16, COLS = 128, DEPTH = 16, PIECES = 2, PIECE = 16;

// An operand: vectors of two pieces of eight halves.
struct Side { const unsigned char *at; unsigned piece_bytes; };
// What a thread brings to a product.
struct Brought { float *d; Side a, b; bool adds; };

// The sums of one warp while products are on their way to them.
struct Sums {
    float *d[32];
    float value[ROWS][COLS];
    unsigned group; // of the last product
};
struct Product {
    Side a, b; // `a` from the first row of this warp on
    bool adds;
    unsigned group;
    int line;
    Sums *sums;
};
struct WarpProducts {
    std::vector<Product> products; // on their way, oldest first
    std::vector<std::unique_ptr<Sums>> sums;
    unsigned groups = 0; // closed
    bool is_fenced = false;
};

static std::vector<WarpProducts> warps;
unsigned products_on_their_way = 0;

void begin_wgmma() {
    warps.clear();
    warps.resize(block.meetings.size());
    products_on_their_way = 0;
}

static bool meets(Side side, unsigned vectors, uintptr_t address, unsigned size) {
    for (unsigned p = 0; p < PIECES; ++p) {
        uintptr_t at = (uintptr_t)side.at + p * side.piece_bytes;
        if (at < address + size && address < at + vectors * PIECE) return true;
    }
    return false;
}

bool is_operand(uintptr_t address, unsigned size) {
    for (const WarpProducts &warp : warps) {
        for (const Product &product : warp.products) {
            if (meets(product.a, ROWS, address, size) || meets(product.b, COLS, address, size)) return true;
        }
    }
    return false;
}

// The reads of a warp, as those of its first lane: its rows, and all columns.
static void read_operands(const Product &product, Thread &lane) {
    Thread *me = block.current;
    block.current = &lane;
    for (unsigned p = 0; p < PIECES; ++p) {
        check_access(product.a.at + p * product.a.piece_bytes, ROWS * PIECE, READ);
        check_access(product.b.at + p * product.b.piece_bytes, COLS * PIECE, READ);
    }
    block.current = me;
}

static void check_side(const Thread &thread, Side side, unsigned vectors, const char *name) {
    uintptr_t at = (uintptr_t)side.at, last = at + (PIECES - 1) * side.piece_bytes + vectors * PIECE - 1;
    const char *wrong = !is_shared(at) || !is_shared(last)    ? "is not in shared memory"
                      : at % 16                               ? "is not on a multiple of 16"
                      : side.piece_bytes % 16                 ? "has pieces that are not multiples of 16 apart"
                      : side.piece_bytes >= 1u << 18          ? "has pieces that are too far apart" : nullptr;
    if (!wrong) return;
    report("%s multiplies in line %d by wgmma, and %s %s", name_of(thread).c_str(), thread.line, name, wrong);
    fail_launch(ILLEGAL_ADDRESS);
}

static Sums &sums_of(WarpProducts &warp, Thread *of, bool adds) {
    auto brought = [&](unsigned lane) -> const Brought & { return *(const Brought *)of[lane].value; };
    for (auto &sums : warp.sums) {
        if (sums->d[0] == brought(0).d) return *sums;
    }
    warp.sums.emplace_back(new Sums());
    Sums &sums = *warp.sums.back();
    for (unsigned lane = 0; lane < 32; ++lane) {
        float *d = sums.d[lane] = brought(lane).d;
        for (unsigned i = 0; adds && i < 64; ++i) sums.value[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + 2 * (lane % 4) + i % 2] = d[i];
        poison(d, 64 * sizeof(float));
    }
    return sums;
}

// All four warps have come.
static void start(Thread *group) {
    const Brought &first = *(const Brought *)group->value;
    for (unsigned i = 1; i < 128; ++i) {
        const Brought &other = *(const Brought *)group[i].value;
        bool same = other.a.at == first.a.at && other.b.at == first.b.at && other.a.piece_bytes == first.a.piece_bytes &&
                    other.b.piece_bytes == first.b.piece_bytes && other.adds == first.adds && group[i].line == group->line;
        if (same) continue;
        report("%s multiplies by wgmma in line %d, but thread (%u,%u,%u) of its warpgroup multiplies other operands in line %d",
               name_of(*group).c_str(), group->line, group[i].index.x, group[i].index.y, group[i].index.z, group[i].line);
        fail_launch(LAUNCH_FAILED);
    }
    check_side(*group, first.a, 64, "A");
    check_side(*group, first.b, COLS, "B");
    for (unsigned w = 0; w < 4; ++w) {
        Thread *of = group + 32 * w;
        unsigned number = of->linear / 32;
        WarpProducts &warp = warps[number];
        Product product{{first.a.at + w * ROWS * PIECE, first.a.piece_bytes}, first.b, first.adds, warp.groups, of->line, nullptr};
        meet_clocks(number, ~0u);
        read_operands(product, *of);
        product.sums = &sums_of(warp, of, first.adds);
        product.sums->group = warp.groups;
        warp.products.push_back(product);
        ++products_on_their_way;
    }
    for (unsigned i = 0; i < 128; ++i) wake(group[i]);
}

static void come_to_product(WarpProducts &warp, Thread *of) {
    unsigned first = of->linear / 128 * 128;
    if (first + 128 > block.threads.size()) {
        report("%s multiplies by wgmma in line %d, and its warpgroup has fewer than 128 threads", name_of(*of).c_str(), of->line);
        fail_launch(LAUNCH_FAILED);
    }
    if (!warp.is_fenced) {
        report("%s multiplies by wgmma in line %d with no wgmma_fence() since it last waited for all", name_of(*of).c_str(), of->line);
        warp.is_fenced = true;
    }
    for (unsigned lane = 0; lane < 32; ++lane) of[lane].state = Thread::AtWarpgroup;
    for (unsigned i = 0; i < 128; ++i) {
        if (block.threads[first + i].state != Thread::AtWarpgroup) return;
    }
    start(&block.threads[first]);
}

static void compute(const Product &product) {
    static Halves a[ROWS], b[COLS];
    static bool a_is_zero[ROWS], b_is_zero[COLS];
    bool all_finite = true;
    auto decode = [&](Side side, unsigned vectors, Halves *to, bool *is_zero) {
        for (unsigned v = 0; v < vectors; ++v) {
            unsigned short bits[DEPTH], any = 0;
            for (unsigned p = 0; p < PIECES; ++p) memcpy(bits + 8 * p, side.at + p * side.piece_bytes + v * PIECE, PIECE);
            for (unsigned short half : bits) {
                any |= half & 0x7fff;
                all_finite = all_finite && (half & 0x7c00) != 0x7c00;
            }
            is_zero[v] = any == 0;
            take_apart(bits, to[v]);
        }
    };
    decode(product.a, ROWS, a, a_is_zero);
    decode(product.b, COLS, b, b_is_zero);
    int bits_kept = 25 - settings().tensor_bits_lost;
    for (unsigned row = 0; row < ROWS; ++row) {
        for (unsigned col = 0; col < COLS; ++col) {
            float &sum = product.sums->value[row][col];
            // Nothing to add, and nothing of the sum to cut off: most of a tile, where there are few vectors.
            if (all_finite && product.adds && bits_kept >= 23 && (a_is_zero[row] || b_is_zero[col])) continue;
            sum = step_of_halves(a[row], b[col], product.adds ? sum : 0, bits_kept);
        }
    }
}

static void hand_out(const Sums &sums, const Thread *of) {
    float untouched[64];
    poison(untouched, sizeof untouched);
    for (unsigned lane = 0; lane < 32; ++lane) {
        float *d = sums.d[lane];
        if (memcmp(d, untouched, sizeof untouched) != 0) {
            report("%s has touched the sums of a product by wgmma before the wait in line %d", name_of(of[lane]).c_str(), of[lane].line);
            fail_launch(LAUNCH_FAILED);
        }
        for (unsigned i = 0; i < 64; ++i) d[i] = sums.value[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + 2 * (lane % 4) + i % 2];
    }
}

static void wait(WarpProducts &warp, Thread *of, unsigned groups_left) {
    size_t done = 0;
    auto is_left = [&](unsigned group) { return group + groups_left >= warp.groups; };
    for (; done < warp.products.size() && !is_left(warp.products[done].group); ++done) {
        const Product &product = warp.products[done];
        compute(product);
        // Until here it may have read.
        read_operands(product, *of);
    }
    warp.products.erase(warp.products.begin(), warp.products.begin() + (long)done);
    products_on_their_way -= (unsigned)done;
    for (size_t i = 0; i < warp.sums.size();) {
        if (is_left(warp.sums[i]->group)) {
            ++i;
            continue;
        }
        hand_out(*warp.sums[i], of);
        warp.sums.erase(warp.sums.begin() + (long)i);
    }
    if (warp.products.empty()) warp.is_fenced = false;
}

void meet_at_wgmma(int kind, Thread *of) {
    WarpProducts &warp = warps[of->linear / 32];
    for (unsigned lane = 0; lane < 32; ++lane) of[lane].state = Thread::Ready;
    switch (kind) {
    case SIMULATED_WGMMA_FENCE: warp.is_fenced = true; break;
    case SIMULATED_WGMMA_COMMIT: ++warp.groups; break;
    case SIMULATED_WGMMA_WAIT: wait(warp, of, (unsigned)of->value); break;
    default: come_to_product(warp, of);
    }
}

void leave_wgmma() {
    WarpProducts &warp = warps[block.current->linear / 32];
    if (warp.products.empty()) return;
    report("%s leaves the kernel, and nobody has waited for its product by wgmma of line %d", here().c_str(), warp.products[0].line);
    products_on_their_way -= (unsigned)warp.products.size();
    warp.products.clear();
    warp.sums.clear();
}

} // namespace simulated

using namespace simulated;

#define EXPORTED extern "C" __attribute__((visibility("default")))

extern "C" unsigned long long simulated_warp(int kind, unsigned mask, unsigned long long value, int lane, int width, int line);

static void meet_all_lanes(int kind, unsigned long long value, int line) {
    if (settings().capability != 90) {
        report("%s uses wgmma in line %d, which only compute capability 9.0 has", here().c_str(), line);
        fail_launch(LAUNCH_FAILED);
    }
    simulated_warp(kind, 0xffffffffu, value, 0, 32, line);
}

EXPORTED void simulated_wgmma_fence(int line) { meet_all_lanes(SIMULATED_WGMMA_FENCE, 0, line); }
EXPORTED void simulated_wgmma_commit(int line) { meet_all_lanes(SIMULATED_WGMMA_COMMIT, 0, line); }
EXPORTED void simulated_wgmma_wait(unsigned groups_left, int line) { meet_all_lanes(SIMULATED_WGMMA_WAIT, groups_left, line); }
EXPORTED void simulated_wgmma(float *d, const void *a_at, unsigned a_piece_bytes, const void *b_at, unsigned b_piece_bytes, bool adds, int line) {
    Brought brought{d, {(const unsigned char *)a_at, a_piece_bytes}, {(const unsigned char *)b_at, b_piece_bytes}, adds};
    meet_all_lanes(SIMULATED_WGMMA, (unsigned long long)&brought, line);
}
