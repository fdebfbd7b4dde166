// How a kernel file tells the driver what it holds.
#pragma once

struct SimulatedParameter { unsigned size; unsigned is_pointer; };
struct SimulatedEntry {
    const char *name;
    const SimulatedParameter *parameters;
    unsigned count;
    unsigned max_threads;
    void (*call)(void **arguments);
};
// The bytes set aside for each dynamic array of shared memory: the most that any device has, and a margin.
#define SIMULATED_DYNAMIC_SHARED (229 << 10)
