// The threads of a block take turns: each runs until it waits for others or leaves. When all it waits for have come, a
// thread is ready again; when none is ready and some have not left, the block hangs, and that is reported. Warps take turns,
// and within each its lanes: those of one warp run on while they can, which keeps their stacks in the cache. A seed draws
// the order of lanes, which warp comes next, and for how long: some get ahead of others.
#include "block.h"

#include "checks.h"
#include "clocks.h"
#include "fibers.h"

#include <csetjmp>
#include <cstring>
#include <utility>

namespace simulated {

Block block;

std::string name_of(const Thread &thread) {
    return text("kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", block.launch->kernel->entry->name, block.index.x, block.index.y,
                block.index.z, thread.index.x, thread.index.y, thread.index.z);
}

std::string here() { return block.current ? name_of(*block.current) : "the driver"; }

static std::string what_it_does(const Thread &thread) {
    switch (thread.state) {
    case Thread::Left: return "has left the kernel";
    case Thread::AtBarrier: return text("waits at __syncthreads in line %d", thread.line);
    case Thread::AtWarpgroup: return text("waits for the other warps of its warpgroup in line %d", thread.line);
    case Thread::AtMbarrier: return describe_wait(thread);
    case Thread::AtWarp: return text("waits for the lanes %08x in line %d", thread.mask, thread.line);
    default: return "runs";
    }
}

static unsigned bit_of(const Thread &thread) { return 1u << block.places[thread.linear]; }

// The next thread that can run, if there is one.
static Thread *next_in_turn() {
    unsigned warps = (unsigned)block.ready.size();
    if (!block.ready[block.warp] || !block.runs_left--) {
        bool drawn = settings().seed != 0;
        unsigned next = drawn ? (unsigned)(random_number() % warps) : block.warp + 1, tried = 0;
        while (!block.ready[next % warps]) {
            if (++tried == warps) return nullptr;
            ++next;
        }
        block.warp = next % warps;
        block.runs_left = drawn ? (unsigned)(random_number() % 256) : ~0u;
    }
    unsigned place = (unsigned)__builtin_ctz(block.ready[block.warp]);
    return &block.threads[block.warp * 32 + block.lanes[block.warp * 32 + place]];
}

// Lets others run: the next one at once, or the scheduler, where none can.
static void let_others_run() {
    Thread *me = block.current;
    a_copy_may_arrive();
    Thread *next = next_in_turn();
    // What runs beside the threads gets on at the last moment.
    while (!next && a_copy_arrives()) next = next_in_turn();
    if (next == me) return;
    block.current = next;
    simulated_switch(&me->stack, block.current ? block.current->stack : block.scheduler);
}

void sleep_as(Thread::State state, int line) {
    Thread &me = *block.current;
    me.line = line;
    me.state = state;
    block.ready[me.linear / 32] &= ~bit_of(me);
    let_others_run();
}

void wake(Thread &thread) {
    thread.state = Thread::Ready;
    block.ready[thread.linear / 32] |= bit_of(thread);
}

void fail_launch(Result result) {
    block.failed = result;
    simulated_switch(&block.current->stack, block.scheduler);
    __builtin_unreachable();
}

// Lets the lanes that `waiting` waits for go on, where all of them have come; those that have left the kernel need not.
static bool try_to_meet(const Thread &waiting) {
    unsigned warp = waiting.linear / 32, first = warp * 32, size = (unsigned)block.threads.size();
    if (waiting.mask & ~block.gone[warp] & ~block.waiting[warp]) return false;
    unsigned lanes = size - first < 32 ? size - first : 32, taking_part = 0;
    Thread *of = &block.threads[first];
    for (unsigned i = 0; i < lanes; ++i) {
        const Thread &other = of[i];
        if (!(waiting.mask >> i & 1) || other.state == Thread::Left) continue;
        if (other.kind != waiting.kind || other.mask != waiting.mask || other.line != waiting.line) {
            report("%s %s, but thread (%u,%u,%u) of its warp %s", name_of(waiting).c_str(), what_it_does(waiting).c_str(),
                   other.index.x, other.index.y, other.index.z, what_it_does(other).c_str());
            fail_launch(LAUNCH_FAILED);
        }
        taking_part |= 1u << i;
    }
    meet(waiting.kind, taking_part, of, lanes);
    for (unsigned i = 0; i < lanes; ++i) {
        if ((taking_part >> i & 1) && of[i].state == Thread::Ready) block.ready[warp] |= bit_of(of[i]);
    }
    block.waiting[warp] &= ~taking_part;
    ++block.meetings[warp];
    meet_clocks(warp, taking_part);
    return true;
}

static void leave() {
    leave_wgmma();
    Thread &me = *block.current;
    me.state = Thread::Left;
    block.ready[me.linear / 32] &= ~bit_of(me);
    ++block.left;
    block.gone[me.linear / 32] |= 1u << me.linear % 32;
    for (unsigned waiting = block.waiting[me.linear / 32], lane = 0; waiting >> lane; ++lane) {
        const Thread &other = block.threads[me.linear / 32 * 32 + lane];
        if (other.state == Thread::AtWarp && (other.mask >> me.linear % 32 & 1)) try_to_meet(other);
        if (lane == 31) break;
    }
}

static void thread_main() {
    block.launch->kernel->entry->call(block.arguments.data());
    leave();
    let_others_run();
}

static void hang(const Thread &waiting) {
    if (waiting.state == Thread::AtMbarrier) {
        // Those that should come wait elsewhere, or have left.
        std::string others;
        for (const Thread &other : block.threads) {
            bool beside = other.state == waiting.state && other.mbarrier == waiting.mbarrier && other.parity == waiting.parity;
            if (beside || other.state == Thread::Left) continue;
            others = text("; thread (%u,%u,%u) %s", other.index.x, other.index.y, other.index.z, what_it_does(other).c_str());
            break;
        }
        report("%s %s for ever%s", name_of(waiting).c_str(), what_it_does(waiting).c_str(), others.c_str());
        return;
    }
    for (const Thread &other : block.threads) {
        if (&other == &waiting || (other.state == waiting.state && other.line == waiting.line && other.mask == waiting.mask)) continue;
        // For a warp operation only the lanes that it names matter.
        bool same_warp = other.linear / 32 == waiting.linear / 32;
        if (waiting.state == Thread::AtWarpgroup && other.linear / 128 != waiting.linear / 128) continue;
        if (waiting.state == Thread::AtWarp && !(same_warp && (waiting.mask >> other.linear % 32 & 1))) continue;
        report("%s %s, but thread (%u,%u,%u) %s", name_of(waiting).c_str(), what_it_does(waiting).c_str(), other.index.x,
               other.index.y, other.index.z, what_it_does(other).c_str());
        return;
    }
    report("%s %s for ever", name_of(waiting).c_str(), what_it_does(waiting).c_str());
}

static void pass_barrier() {
    int any = 0, all = 1, count = 0;
    const Thread &first = block.threads[0];
    for (Thread &thread : block.threads) {
        if (thread.line != first.line || thread.kind != first.kind) {
            report("%s %s, but thread (%u,%u,%u) %s", name_of(first).c_str(), what_it_does(first).c_str(), thread.index.x,
                   thread.index.y, thread.index.z, what_it_does(thread).c_str());
            fail_launch(LAUNCH_FAILED);
        }
        any |= thread.predicate != 0;
        all &= thread.predicate != 0;
        count += thread.predicate != 0;
    }
    for (Thread &thread : block.threads) {
        thread.predicate = thread.kind == SIMULATED_OR ? any : thread.kind == SIMULATED_AND ? all : count;
        wake(thread);
    }
    block.at_barrier = 0;
    ++block.barriers;
    meet_all_clocks();
}

// Lays the arguments of a launch one after the other, so that one look tells whether an address is in them.
static void lay_out(const std::vector<std::vector<char>> &arguments) {
    // Sixteen bytes, to which any argument is aligned.
    const size_t unit = 16 / sizeof(void *);
    auto units = [&](size_t bytes) { return (bytes + 15) / 16 * unit; };
    size_t at = units(arguments.size() * sizeof(void *)), end = at;
    for (const std::vector<char> &argument : arguments) end += units(argument.size());
    block.arguments.resize(end);
    for (size_t i = 0; i < arguments.size(); ++i) {
        block.arguments[i] = &block.arguments[at];
        memcpy(block.arguments[i], arguments[i].data(), arguments[i].size());
        at += units(arguments[i].size());
    }
}

bool run_block(const Launch &launch, uint3 index) {
    unsigned count = launch.block.x * launch.block.y * launch.block.z;
    block.launch = &launch;
    block.index = index;
    block.threads.resize(count);
    block.meetings.assign((count + 31) / 32, 0);
    block.waiting.assign(block.meetings.size(), 0);
    block.gone.assign(block.meetings.size(), 0);
    if (count % 32) block.gone.back() = ~0u << count % 32;
    block.lanes.resize(count);
    block.places.resize(count);
    block.ready.assign(block.meetings.size(), ~0u);
    if (count % 32) block.ready.back() = (1u << count % 32) - 1;
    block.left = block.at_barrier = block.barriers = 0;
    block.failed = SUCCESS;
    lay_out(launch.arguments);
    for (unsigned i = 0; i < count; ++i) {
        Thread &thread = block.threads[i];
        thread = Thread();
        thread.linear = i;
        thread.index = {i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
        thread.stack = fresh_stack(i, thread_main);
        thread.stack_low = (uintptr_t)stack_at(i);
        if (!thread.stack) {
            report("no memory for the stacks of %u threads", count);
            return false;
        }
        block.lanes[i] = (unsigned char)(i % 32);
    }
    for (unsigned first = 0; first < count; first += 32) {
        unsigned lanes = count - first < 32 ? count - first : 32;
        unsigned char *of = &block.lanes[first];
        for (unsigned i = settings().seed ? lanes : 0; i > 1; --i) std::swap(of[i - 1], of[random_number() % i]);
        for (unsigned i = 0; i < lanes; ++i) block.places[first + of[i]] = (unsigned char)i;
    }
    begin_block_checks();
    begin_mbarriers();
    begin_wgmma();
    // Warp 0 begins, or the one that the seed draws.
    block.warp = (unsigned)block.ready.size() - 1;
    block.runs_left = 0;
    block.current = next_in_turn();
    simulated_switch(&block.scheduler, block.current->stack);
    // No thread can run any more.
    block.current = nullptr;
    if (block.failed != SUCCESS) return false;
    if (block.left == count) {
        end_mbarriers();
        return true;
    }
    for (const Thread &thread : block.threads) {
        if (thread.state == Thread::Left) continue;
        hang(thread);
        break;
    }
    block.failed = LAUNCH_FAILED;
    return false;
}

} // namespace simulated

using namespace simulated;

extern "C" {

#define EXPORTED __attribute__((visibility("default")))

EXPORTED uint3 simulated_thread_index() { return block.current->index; }
EXPORTED uint3 simulated_block_index() { return block.index; }
EXPORTED uint3 simulated_block_size() { return block.launch->block; }
EXPORTED uint3 simulated_grid_size() { return block.launch->grid; }

EXPORTED int simulated_barrier(int kind, int predicate, int line) {
    Thread &me = *block.current;
    me.kind = kind;
    me.predicate = predicate;
    me.line = line;
    me.state = Thread::AtBarrier;
    block.ready[me.linear / 32] &= ~bit_of(me);
    if (++block.at_barrier == block.threads.size()) {
        pass_barrier();
    } else {
        let_others_run();
    }
    return me.predicate;
}

EXPORTED void simulated_trap(const char *why, int line) {
    report("%s: %s in line %d", here().c_str(), why, line);
    fail_launch(ASSERT);
}

// A legal answer of the hardware, and the one that no code may rely on to be more.
EXPORTED unsigned simulated_active_mask() { return 1u << block.current->linear % 32; }

EXPORTED unsigned long long simulated_warp(int kind, unsigned mask, unsigned long long value, int lane_argument, int width, int line) {
    Thread &me = *block.current;
    unsigned lane = me.linear % 32;
    if (!(mask >> lane & 1)) {
        report("%s: its own lane %u is not in the mask %08x in line %d", here().c_str(), lane, mask, line);
        fail_launch(LAUNCH_FAILED);
    }
    me.kind = kind;
    me.mask = mask;
    me.value = value;
    me.lane_argument = lane_argument;
    me.width = width;
    me.line = line;
    me.state = Thread::AtWarp;
    block.ready[me.linear / 32] &= ~bit_of(me);
    block.waiting[me.linear / 32] |= 1u << lane;
    // Those that met may have to wait for more.
    if (!try_to_meet(me) || me.state != Thread::Ready) let_others_run();
    return me.value;
}

} // extern "C"
