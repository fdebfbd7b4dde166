#include "checks.h"
#include "fibers.h"

#include <cstring>

namespace simulated {

static std::vector<Range> own_ranges;
static bool checking = false, any_unchecked = false;
static unsigned reported[FINDINGS];

bool single_accesses_are_checked() { return checking; }

bool memory_is_checked() { return !any_unchecked; }

bool may_report(Finding kind) { return reported[kind]++ < 2; }

void begin_launch_checks(bool checked, const std::vector<Range> &shared, Range all_shared, const std::vector<Range> &own) {
    checking = checked;
    any_unchecked |= !checked;
    memset(reported, 0, sizeof reported);
    own_ranges = own;
    begin_shared_checks(shared, all_shared);
    begin_race_checks();
}

void begin_block_checks() {
    if (!checking) return;
    begin_shared_block();
    begin_race_block();
}

static const char *verb(AccessKind kind) { return kind == READ ? "reads" : kind == WRITE ? "writes" : "updates"; }

static bool is_known(const unsigned char *known, unsigned size) {
    for (unsigned i = 0; i < size; ++i) {
        if (!known[i]) return false;
    }
    return true;
}

static void check_device(uintptr_t address, unsigned size, AccessKind kind) {
    Allocation *a = allocation_at(address);
    if (!a || a->state != Allocation::Live || a->device != block.launch->device || address < a->begin || address - a->begin + size > a->size) {
        report("%s %s %u bytes at %s", here().c_str(), verb(kind), size, describe(address, size).c_str());
        fail_launch(ILLEGAL_ADDRESS);
    }
    if (kind != WRITE) {
        if (a->reads.empty()) a->reads = {address, address + size};
        if (address < a->reads.begin) a->reads.begin = address;
        if (address + size > a->reads.end) a->reads.end = address + size;
        unsigned char *known = initialised(address);
        if (!is_known(known, size)) {
            if (may_report(UNWRITTEN)) {
                report("%s %s %u bytes at %s, which nothing has written", here().c_str(), verb(kind), size, describe(address, size).c_str());
            }
            memset(known, 1, size);
        }
    }
    if (kind != READ) {
        if (a->writes.empty()) a->writes = {address, address + size};
        if (address < a->writes.begin) a->writes.begin = address;
        if (address + size > a->writes.end) a->writes.end = address + size;
        memset(initialised(address), 1, size);
    }
    check_races(*a, address, size, kind);
}

static void check_other(uintptr_t address, unsigned size, AccessKind kind) {
    if (address - (uintptr_t)block.arguments.data() < block.arguments.size() * sizeof(void *)) return;
    for (const Range &range : own_ranges) {
        if (address - range.begin < range.end - range.begin) return;
    }
    // Near the stacks: locals of this thread or, through a pointer that was handed round, of another.
    for (unsigned i = 0; i < block.threads.size(); ++i) {
        if (address - block.threads[i].stack_low >= stack_bytes(i)) continue;
        if (&block.threads[i] == block.current) return;
        report("%s %s %u bytes of a local variable of thread (%u,%u,%u)", here().c_str(), verb(kind), size, block.threads[i].index.x,
               block.threads[i].index.y, block.threads[i].index.z);
        fail_launch(ILLEGAL_ADDRESS);
    }
    report("%s %s %u bytes at %s", here().c_str(), verb(kind), size, describe(address, size).c_str());
    fail_launch(ILLEGAL_ADDRESS);
}

static inline void check(const volatile void *pointer, unsigned size, AccessKind kind) {
    uintptr_t address = (uintptr_t)pointer;
    if (!checking || !block.current) return;
    // Most accesses that are not to device or shared memory are to the own stack.
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0) - address;
    if ((intptr_t)stack < (intptr_t)STACK_BYTES && (intptr_t)stack > -(intptr_t)STACK_BYTES) {
        if (address - block.current->stack_low < stack_bytes(block.current->linear)) return;
    }
    if (is_device_address(address)) check_device(address, size, kind);
    else if (is_shared(address)) check_shared(address, size, kind);
    else check_other(address, size, kind);
}

void check_access(const volatile void *pointer, unsigned size, AccessKind kind) { check(pointer, size, kind); }

} // namespace simulated

using namespace simulated;

#define EXPORTED extern "C" __attribute__((visibility("default")))
EXPORTED void simulated_atomic(const volatile void *pointer, unsigned size) { check(pointer, size, ATOMIC); }

#define ACCESSES(size)                                                                                                 \
    EXPORTED void __tsan_read##size(void *at) { check(at, size, READ); }                                               \
    EXPORTED void __tsan_write##size(void *at) { check(at, size, WRITE); }                                             \
    EXPORTED void __tsan_unaligned_read##size(void *at) { check(at, size, READ); }                                     \
    EXPORTED void __tsan_unaligned_write##size(void *at) { check(at, size, WRITE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
EXPORTED void __tsan_read_range(void *at, unsigned long size) { check(at, (unsigned)size, READ); }
EXPORTED void __tsan_write_range(void *at, unsigned long size) { check(at, (unsigned)size, WRITE); }
EXPORTED void __tsan_vptr_update(void **, void *) {}
EXPORTED void __tsan_func_entry(void *) {}
EXPORTED void __tsan_func_exit() {}
EXPORTED void __tsan_init() {}
