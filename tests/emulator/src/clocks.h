// What each thread knows of the others, for blocks that use barriers in shared memory: unlike __syncthreads these order
// some threads only, and only one way. Each warp counts its steps; a thread has seen another up to one of these. What a
// thread does at one step of its warp comes before all that has seen it up to there (vector clocks).
#pragma once

#include <vector>

namespace simulated {

// Steps of all threads of the block, up to which something has seen them; behind these, copies of each barrier, which
// count as what one more thread does.
typedef std::vector<unsigned> Seen;

extern bool clocks_run;
// At the start of a block no clocks run. They start with the first barrier, where single accesses are checked.
void stop_clocks();
void start_clocks();

// The step of the thread that runs.
unsigned step_now();
// Whether the thread that runs has seen what `other` did at that step.
bool has_seen(unsigned other, unsigned step);
// What the thread that runs has seen and done becomes part of `seen`, and the other way round.
void give_to(Seen &seen);
void take_from(const Seen &seen);
void join(Seen &into, const Seen &seen);
// Lanes of a warp, or all threads, have met.
void meet_clocks(unsigned warp, unsigned lanes);
void meet_all_clocks();

} // namespace simulated
