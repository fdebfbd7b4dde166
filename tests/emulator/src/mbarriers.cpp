// Barriers in shared memory (PTX ISA, "mbarrier") and bulk copies. A phase ends when nobody has yet to arrive and all
// bytes that were announced have come; what those that arrived had done is then seen by those that wait for the phase.
// A copy runs at the last moment: when a thread waits for its barrier and no thread can run; with a seed, at any.
#include "block.h"
#include "checks.h"
#include "clocks.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace simulated {

struct Mbarrier {
    unsigned arrivals, missing;  // of a phase, and of the current one
    long long bytes = 0;         // announced and not yet there; below zero where they came first
    unsigned phases = 0;         // that have ended
    unsigned made_by, number;    // the thread, and how many there were before
    bool is_visible = false;     // to others than its maker
    unsigned waiting = 0;        // threads
    bool is_unseen = false;      // a copy has come since a thread last waited
    unsigned copies = 0;         // that report to it, so far
    Seen arrived{}, ended{};     // what those had seen that arrived, at all and up to the last phase that ended
};

struct BulkCopy {
    char *to;
    const char *from;
    unsigned bytes;
    Mbarrier *barrier;
    unsigned by, number; // the thread, and which copy of the barrier it is
    int line;
    Seen seen;
};

// What the eight bytes hold; writing over them breaks the barrier.
static const unsigned char MARK[8] = {'b', 'a', 'r', 'r', 0xad, 0xdb, 0xfa, 0x7f};
static const unsigned MOST = (1 << 20) - 1; // arrivals, and bytes on their way

static std::map<uintptr_t, Mbarrier> barriers;
static std::vector<BulkCopy> copies; // on their way, oldest first

void begin_mbarriers() {
    barriers.clear();
    copies.clear();
    stop_clocks();
}

static size_t place_of(uintptr_t address) { return address - shared_low; }

static void check_capability(int line) {
    if (settings().capability >= 90) return;
    report("%s uses in line %d a barrier or copy of compute capability 9.0", here().c_str(), line);
    fail_launch(LAUNCH_FAILED);
}

static Mbarrier &barrier_at(void *pointer, const char *does, int line) {
    check_capability(line);
    uintptr_t address = (uintptr_t)pointer;
    auto found = barriers.find(address);
    if (found == barriers.end()) {
        report("%s %s in line %d a barrier that was never initialised, %s", here().c_str(), does, line,
               is_shared(address) ? text("byte %zu of shared memory", place_of(address)).c_str() : "not in shared memory");
        fail_launch(ILLEGAL_ADDRESS);
    }
    if (memcmp(pointer, MARK, sizeof MARK) != 0) {
        report("%s %s in line %d the barrier at byte %zu of shared memory, over which something has written", here().c_str(), does,
               line, place_of(address));
        fail_launch(LAUNCH_FAILED);
    }
    check_access(pointer, 8, ATOMIC);
    return found->second;
}

// Other threads, and copies, see a barrier once its maker has said so.
static void check_visible(const Mbarrier &barrier, const char *does, int line) {
    if (barrier.is_visible) return;
    report("%s %s in line %d a barrier before mbarrier_init_done() of the thread that initialised it", here().c_str(), does, line);
    fail_launch(LAUNCH_FAILED);
}

static bool has_ended(const Mbarrier &barrier, unsigned parity) { return (barrier.phases & 1) != parity; }

// Ends the phase where nothing is missing.
static void try_to_end(Mbarrier &barrier) {
    if (barrier.missing || barrier.bytes) return;
    barrier.missing = barrier.arrivals;
    ++barrier.phases;
    barrier.ended = barrier.arrived;
    if (!barrier.waiting) return;
    for (Thread &thread : block.threads) {
        if (thread.state != Thread::AtMbarrier || &barriers.at(thread.mbarrier) != &barrier || !has_ended(barrier, thread.parity)) continue;
        --barrier.waiting;
        wake(thread);
    }
}

static void arrive_with(size_t index) {
    BulkCopy copy = std::move(copies[index]);
    copies.erase(copies.begin() + (long)index);
    memcpy(copy.to, copy.from, copy.bytes);
    // A thread that sent for it has not seen it come: the copies of each barrier count as one more thread.
    unsigned writer = (unsigned)block.threads.size() + copy.barrier->number;
    remember_shared((uintptr_t)copy.to, copy.bytes, writer, copy.number);
    copy.barrier->bytes -= copy.bytes;
    copy.barrier->is_unseen = true;
    copy.seen.resize(std::max<size_t>(copy.seen.size(), writer + 1), 0);
    copy.seen[writer] = copy.number;
    join(copy.barrier->arrived, copy.seen);
    try_to_end(*copy.barrier);
}

bool a_copy_arrives() {
    std::vector<size_t> awaited;
    for (size_t i = 0; i < copies.size(); ++i) {
        if (copies[i].barrier->waiting) awaited.push_back(i);
    }
    if (awaited.empty()) return false;
    arrive_with(awaited[settings().seed ? random_number() % awaited.size() : 0]);
    return true;
}

void a_copy_may_arrive() {
    if (!settings().seed || copies.empty() || random_number() % 8) return;
    arrive_with(random_number() % copies.size());
}

std::string describe_wait(const Thread &thread) {
    const Mbarrier &barrier = barriers.at(thread.mbarrier);
    return text("waits in line %d for a phase of parity %u of the barrier at byte %zu of shared memory (%u of %u arrivals and %lld bytes are missing)",
                thread.line, thread.parity, place_of(thread.mbarrier), barrier.missing, barrier.arrivals, barrier.bytes);
}

void end_mbarriers() {
    for (const BulkCopy &copy : copies) {
        report("%s has sent for %u bytes in line %d, which are still on their way at the end of its block",
               name_of(block.threads[copy.by]).c_str(), copy.bytes, copy.line);
    }
    for (const auto &[address, barrier] : barriers) {
        std::string whose = text("%s initialised the barrier at byte %zu of shared memory", name_of(block.threads[barrier.made_by]).c_str(), place_of(address));
        if (barrier.is_unseen) report("%s, and nobody has waited for the last bytes that came", whose.c_str());
        if (barrier.bytes && copies.empty()) report("%s, which misses %lld bytes at the end of its block", whose.c_str(), barrier.bytes);
        if (memcmp((void *)address, MARK, sizeof MARK) != 0) report("%s, over which something has written", whose.c_str());
    }
}

} // namespace simulated

using namespace simulated;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void simulated_mbarrier_init(void *pointer, unsigned arrivals, int line) {
    check_capability(line);
    uintptr_t address = (uintptr_t)pointer;
    const char *wrong = !is_shared(address)                 ? "that is not in shared memory"
                      : address % 8                         ? "at an address that is not a multiple of 8"
                      : barriers.count(address)             ? "that is one already"
                      : arrivals < 1 || arrivals > MOST     ? "for a number of arrivals that none can have" : nullptr;
    if (wrong) {
        report("%s initialises in line %d a barrier %s", here().c_str(), line, wrong);
        fail_launch(ILLEGAL_ADDRESS);
    }
    start_clocks();
    check_access(pointer, 8, WRITE);
    memcpy(pointer, MARK, sizeof MARK);
    Mbarrier barrier;
    barrier.arrivals = barrier.missing = arrivals;
    barrier.made_by = block.current->linear;
    barrier.number = (unsigned)barriers.size();
    barriers.emplace(address, barrier);
}

EXPORTED void simulated_mbarrier_init_done() {
    for (auto &entry : barriers) entry.second.is_visible |= entry.second.made_by == block.current->linear;
}

EXPORTED void simulated_mbarrier_arrive(void *pointer, unsigned bytes_announced, int line) {
    Mbarrier &barrier = barrier_at(pointer, "arrives at", line);
    if (barrier.made_by != block.current->linear) check_visible(barrier, "arrives at", line);
    if (!barrier.missing) {
        report("%s arrives in line %d at the barrier at byte %zu of shared memory, at which all %u of this phase have arrived", here().c_str(), line,
               place_of((uintptr_t)pointer), barrier.arrivals);
        fail_launch(LAUNCH_FAILED);
    }
    barrier.bytes += bytes_announced;
    if (barrier.bytes > MOST) {
        report("%s announces more than %u bytes to one barrier in line %d", here().c_str(), MOST, line);
        fail_launch(LAUNCH_FAILED);
    }
    give_to(barrier.arrived);
    --barrier.missing;
    try_to_end(barrier);
}

EXPORTED void simulated_mbarrier_wait(void *pointer, unsigned parity, int line) {
    Mbarrier &barrier = barrier_at(pointer, "waits for", line);
    if (barrier.made_by != block.current->linear) check_visible(barrier, "waits for", line);
    if (parity > 1) {
        report("%s waits in line %d for a phase of parity %u, which is neither 0 nor 1", here().c_str(), line, parity);
        fail_launch(LAUNCH_FAILED);
    }
    if (!has_ended(barrier, parity)) {
        Thread &me = *block.current;
        me.mbarrier = (uintptr_t)pointer;
        me.parity = parity;
        ++barrier.waiting;
        sleep_as(Thread::AtMbarrier, line);
    }
    barrier.is_unseen = false;
    take_from(barrier.ended);
}

EXPORTED void simulated_copy_bulk(void *to, const void *from, unsigned bytes, void *pointer, int line) {
    Mbarrier &barrier = barrier_at(pointer, "reports to", line);
    check_visible(barrier, "reports to", line);
    bool all_shared = is_shared((uintptr_t)to) && is_shared((uintptr_t)to + (bytes ? bytes - 1 : 0));
    const char *wrong = !all_shared                         ? "to what is not shared memory"
                      : !is_device_address((uintptr_t)from) ? "from what is not device memory"
                      : (uintptr_t)to % 16                  ? "to what is not a multiple of 16"
                      : (uintptr_t)from % 16                ? "from what is not a multiple of 16"
                      : !bytes || bytes % 16                ? "a number of bytes that is not a multiple of 16" : nullptr;
    for (const BulkCopy &copy : copies) {
        if (copy.to < (char *)to + bytes && (char *)to < copy.to + copy.bytes) wrong = "to where another copy is on its way";
    }
    if (wrong) {
        report("%s copies in bulk, in line %d, %s", here().c_str(), line, wrong);
        fail_launch(ILLEGAL_ADDRESS);
    }
    check_access(from, bytes, READ);
    check_access(to, bytes, WRITE);
    poison(to, bytes);
    forget_shared((uintptr_t)to, bytes);
    BulkCopy copy{(char *)to, (const char *)from, bytes, &barrier, block.current->linear, ++barrier.copies, line, {}};
    give_to(copy.seen);
    copies.push_back(std::move(copy));
}
