// The checks of single accesses, for kernel files that the build instruments: the compiler calls a function before
// each load and store, as it does for its own thread sanitizer, and the driver supplies these functions.
#pragma once

#include "block.h"

namespace simulated {

void meet(int kind, unsigned taking_part, Thread *of, unsigned lanes);
// tensor.cpp: a meeting of all lanes of a warp whose values are addresses of what each brings.
void meet_at_tensor_core(int kind, Thread *of);

struct Range { uintptr_t begin, end; };
// `shared` is the shared memory of the launch and lies in `all_shared`; `own` is the code and data of the kernel's library.
void begin_launch_checks(bool checked, const std::vector<Range> &shared, Range all_shared, const std::vector<Range> &own);
void begin_block_checks();

enum AccessKind { READ, WRITE, ATOMIC };

// Accesses to shared memory: bounds, bytes never written, and accesses of two threads that no barrier orders.
void begin_shared_checks(const std::vector<Range> &shared, Range all_shared);
void begin_shared_block();
extern uintptr_t shared_low, shared_high;
inline bool is_shared(uintptr_t address) { return address - shared_low < shared_high - shared_low; }
void check_shared(uintptr_t address, unsigned size, AccessKind kind);

// Bytes that an asynchronous copy is about to write: unwritten until it is waited for.
void forget_shared(uintptr_t address, unsigned size);
// They are there, written by that number of the clocks at that step.
void remember_shared(uintptr_t address, unsigned size, unsigned writer, unsigned step);
// Clocks begin to run (clocks.h): who has read what since then is kept by warp.
void begin_readers();
bool single_accesses_are_checked();
// The checks of one access, for what the driver itself does in place of the thread that runs.
void check_access(const volatile void *pointer, unsigned size, AccessKind kind);

// Accesses of this launch to device memory that race with each other.
void begin_race_checks();
void begin_race_block();
void check_races(const Allocation &allocation, uintptr_t address, unsigned size, AccessKind kind);

// Says each kind of finding twice per launch, not for every thread. True while there is room for one more.
enum Finding { UNWRITTEN, UNWRITTEN_SHARED, RACE, SHARED_RACE, OPERAND_WRITTEN, FINDINGS };
bool may_report(Finding kind);

} // namespace simulated
