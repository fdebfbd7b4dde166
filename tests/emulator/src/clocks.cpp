#include "clocks.h"
#include "block.h"
#include "checks.h"

#include <algorithm>

namespace simulated {

bool clocks_run = false;
static std::vector<unsigned> steps; // of each warp
static std::vector<Seen> seen;      // by each thread

void stop_clocks() { clocks_run = false; }

void start_clocks() {
    if (clocks_run || !single_accesses_are_checked()) return;
    clocks_run = true;
    steps.assign(block.meetings.size(), 1);
    seen.assign(block.threads.size(), Seen(block.threads.size(), 0));
    begin_readers();
}

unsigned step_now() { return clocks_run ? steps[block.current->linear / 32] : 0; }

bool has_seen(unsigned other, unsigned step) {
    if (!clocks_run) return false;
    const Seen &mine = seen[block.current->linear];
    return other < mine.size() && mine[other] >= step;
}

void join(Seen &into, const Seen &from) {
    if (into.size() < from.size()) into.resize(from.size(), 0);
    for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void give_to(Seen &to) {
    if (!clocks_run) return;
    unsigned me = block.current->linear;
    // What it does from here on is of the next step, which `to` does not hold.
    seen[me][me] = steps[me / 32]++;
    join(to, seen[me]);
}

void take_from(const Seen &from) {
    if (clocks_run) join(seen[block.current->linear], from);
}

static void meet_in(unsigned first, unsigned lanes, Seen &all) {
    for (unsigned i = 0; lanes >> i; ++i) {
        if (lanes >> i & 1) {
            seen[first + i][first + i] = steps[first / 32];
            join(all, seen[first + i]);
        }
        if (i == 31) break;
    }
    ++steps[first / 32];
}

void meet_clocks(unsigned warp, unsigned lanes) {
    if (!clocks_run) return;
    Seen all;
    meet_in(warp * 32, lanes, all);
    for (unsigned i = 0; i < 32; ++i) {
        if (lanes >> i & 1) seen[warp * 32 + i] = all;
    }
}

void meet_all_clocks() {
    if (!clocks_run) return;
    Seen all;
    for (size_t warp = 0; warp < steps.size(); ++warp) {
        size_t threads = block.threads.size() - warp * 32;
        meet_in((unsigned)warp * 32, threads < 32 ? (1u << threads) - 1 : ~0u, all);
    }
    for (Seen &of : seen) of = all;
}

} // namespace simulated
