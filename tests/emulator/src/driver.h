// What the parts of the simulated driver share. One lock guards all of it: every entry point takes it for its whole
// length, so nothing below knows of host threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../include/simulated/vectors.h"
#include "../include/simulated/entry_types.h"
#include "../include/simulated/meetings.h"

namespace simulated {

enum Result : int {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, STUB_LIBRARY = 34, NO_DEVICE = 100,
    INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_PTX = 218, UNSUPPORTED_PTX_VERSION = 222,
    FILE_NOT_FOUND = 301, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701,
    ASSERT = 710, MISALIGNED_ADDRESS = 716, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
};

// --- settings.cpp: what the environment asks for; see README.md.
struct Settings {
    size_t memory;
    int driver, capability, devices, multiprocessors;
    uint64_t seed;
    long fail_alloc;
    bool pools, guard_low, strict, leaks;
    // Fractional bits that tensor cores keep fewer than their model says.
    int tensor_bits_lost;
};
const Settings &settings();
// Whether this is the allocation that has to fail. Counts device, pinned and library workspace allocations from 1.
bool allocation_fails();
uint64_t random_number();

// --- report.cpp: findings go to stderr, each a line that starts with "simulated CUDA: "; any makes the exit status 99.
__attribute__((format(printf, 1, 2))) void report(const char *format, ...);
__attribute__((format(printf, 1, 2))) void trace(const char *format, ...);
// A launch of this kernel ran to its end; appends its name to the file of CODEWORD_SIM_LAUNCHED, once.
void record_launched(const std::string &kernel);
std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));

// --- memory.cpp: the address space of the devices.
struct Access { uintptr_t begin = 0, end = 0; bool empty() const { return begin >= end; } };
struct Touch { unsigned op; int stream; unsigned sequence; bool writes; Access range; };
struct Allocation {
    unsigned id;
    int device;
    uintptr_t begin;
    size_t size;
    uintptr_t map;
    size_t map_size;
    enum { Pending, Live, Freed } state;
    bool stream_ordered;
    std::string where_freed;
    Access reads, writes;          // by the operation that runs now
    std::vector<Touch> touches;    // by earlier ones that a later one may race with
};
const size_t DEVICE_SPACE = 1ull << 37;
extern uintptr_t device_base; // far from everything before the first use
inline bool is_device_address(uintptr_t address) { return address - device_base < DEVICE_SPACE; }
Allocation *allocation_at(uintptr_t address);
Allocation *allocate(int device, size_t size, bool stream_ordered);
void release(Allocation &allocation, const std::string &where);
size_t used_memory(int device);
std::vector<Allocation *> live_allocations(int device);
// The same bytes where the driver itself may read and write them.
char *driver_view(uintptr_t address);
unsigned char *initialised(uintptr_t address);
// Null, after a report, where [address, address + size) is not inside one allocation that may be used now.
Allocation *checked_range(uintptr_t address, size_t size, bool writes, const char *who);
std::string describe(uintptr_t address, size_t size);
void open_memory(int device);
void close_memory(int device);
// Whether what kernels write is seen byte for byte, so that a byte unseen is a byte unwritten.
bool memory_is_checked();
bool check_redzones(int device, const char *who);
std::string first_uninitialised(uintptr_t address, size_t size);
// Bytes that read as NaN in every float format of 4 and 8 bytes and as a wild index.
void poison(void *where, size_t size);
struct Pinned { uintptr_t begin; size_t size; bool registered; };
std::map<uintptr_t, Pinned> &pinned();
bool is_pinned(uintptr_t address, size_t size);

// --- streams.cpp: deferred operations.
// By the number of the stream, ascending.
typedef std::vector<std::pair<int, unsigned>> Clock;
struct Context;
struct Stream;
struct Op {
    unsigned id = 0;
    Stream *stream = nullptr;
    int device = 0;
    std::string what;
    std::function<Result()> run;
    std::vector<std::shared_ptr<Op>> before;
    bool done = false;
    Clock clock;
    unsigned sequence = 0;
    int stream_id = 0;
    double start = 0, end = 0;
};
typedef std::shared_ptr<Op> OpRef;
enum Engine { NO_ENGINE, COPY_IN, COPY_OUT, COMPUTE, ENGINES };
struct Stream { int id; Context *context; bool blocking; OpRef tail; };
struct Event { Context *context; unsigned flags; OpRef recorded; };
struct Module;
struct Context {
    int device = 0;
    int retained = 0;
    Result sticky = SUCCESS;
    Stream *null_stream = nullptr;
    Stream *per_thread_stream = nullptr;
};
Context &context_of(int device);
OpRef submit(Stream &stream, Engine engine, double nanoseconds, const std::string &what, std::function<Result()> run);
// For the library beside the driver: as `submit`, with the lock and the checks of an entry point.
Result submit_in_current_context(void *stream, double nanoseconds, const std::string &what, std::function<Result()> run);
void wait_for(Stream &stream, const OpRef &op);
// Runs `op` and all that it needs, and lets the host know.
void finish(const OpRef &op);
void finish_all(Context &context);
void run_some();
bool has_pending();
// The operation that runs now; null outside.
Op *running();
// Records what the running operation did to memory and reports a conflict with an operation that no event orders.
void settle_touches(Context &context);
Stream *make_stream(Context &context, bool blocking);
bool destroy_stream(Stream *stream);
bool is_stream(Stream *stream);
size_t open_streams();

// --- launch.cpp, block.cpp, fibers.cpp
struct Kernel {
    const SimulatedEntry *entry;
    void *library;
    bool checked, special;
    size_t tls_module, tls_size;
    unsigned char *(*dynamic_shared)(unsigned index);
};
struct Launch {
    const Kernel *kernel;
    uint3 grid, block;
    unsigned shared_bytes;
    std::vector<std::vector<char>> arguments;
    int device;
};
// The kernel of this name: of a file `*_sm90a.cu`, where `special` asks for such and there is one.
const Kernel *find_kernel(const std::string &name, bool special);
Result run_launch(const Launch &launch);
// mutant.cpp: changes the launch where CODEWORD_SIM_MUTANT says so; whether it shall not happen at all.
bool is_left_out(Launch &launch);
// Ends the launch that runs now, from inside one of its threads.
[[noreturn]] void fail_launch(Result result);
std::string here();
int shared_limit(int capability);

} // namespace simulated
