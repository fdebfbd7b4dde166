// One block of a launch: its threads, how they meet, and where each stands when something goes wrong.
#pragma once

#include "driver.h"

namespace simulated {

// An asynchronous copy that its thread has not waited for.
struct AsyncCopy {
    void *to;
    const void *from;
    unsigned bytes, group;
};

struct Thread {
    void *stack;
    uintptr_t stack_low;
    uint3 index;
    unsigned linear;
    enum State : unsigned char { Ready, AtBarrier, AtWarp, AtWarpgroup, AtMbarrier, Left } state;
    int kind, line;
    int predicate;             // of a block barrier, then its result
    unsigned mask;             // of a warp operation
    int lane_argument, width;
    unsigned long long value;  // of a warp operation, then its result
    uintptr_t mbarrier;        // that it waits for
    unsigned parity;           // of the phase whose end it waits for
    std::vector<AsyncCopy> copies;
    unsigned groups;           // of copies, committed
};

struct Block {
    const Launch *launch = nullptr;
    uint3 index{};
    std::vector<void *> arguments;       // of the launch: where each lies, then all of them
    std::vector<Thread> threads;
    std::vector<unsigned char> lanes;    // of each warp, in the order in which they take turns: the lane of each place
    std::vector<unsigned char> places;   // the other way round: the place of each lane
    std::vector<unsigned> ready;         // places of each warp whose lanes can run
    unsigned warp = 0, runs_left = 0;    // the warp whose turn it is, and how many times its lanes may still run
    Thread *current = nullptr;
    void *scheduler = nullptr;
    unsigned left = 0, at_barrier = 0;
    unsigned barriers = 0;               // how many the block has passed
    std::vector<unsigned> meetings;      // how often each warp has met
    std::vector<unsigned> waiting;       // lanes of each warp that wait for others
    std::vector<unsigned> gone;          // lanes of each warp that have left the kernel, or never were
    Result failed = SUCCESS;
};

extern Block block;
// Runs one block to its end. False where it failed; the report is out then.
bool run_block(const Launch &launch, uint3 index);
std::string name_of(const Thread &thread);
// Lets others run until someone wakes this thread.
void sleep_as(Thread::State state, int line);
void wake(Thread &thread);

// --- mbarriers.cpp: barriers in shared memory, and bulk copies.
void begin_mbarriers();
// What is wrong with them once all threads have left.
void end_mbarriers();
// Lets one copy run whose barrier a thread waits for. False where there is none.
bool a_copy_arrives();
// With a seed, lets any copy run, now and then.
void a_copy_may_arrive();
std::string describe_wait(const Thread &thread);

// --- wgmma.cpp: products of four warps.
void begin_wgmma();
// All lanes of a warp have come to one of its operations.
void meet_at_wgmma(int kind, Thread *of);
// The thread that runs leaves the kernel.
void leave_wgmma();
extern unsigned products_on_their_way;
// Whether a product that nobody has waited for reads any of these bytes.
bool is_operand(uintptr_t address, unsigned size);

} // namespace simulated
