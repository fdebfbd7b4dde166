// One range of addresses for all devices, reserved and never given back: a freed address stays recognisable for good.
// Each allocation is mapped so that it ends (or, on request, starts) at an unmapped page, closed while no kernel runs;
// the driver reads and writes the same pages through a second mapping of the file behind both.
#include "driver.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_CLOEXEC
#include <linux/memfd.h>
#endif

namespace simulated {

static const size_t PAGE = 4096, SLOT = 1 << 16, SPACE = DEVICE_SPACE;
static const unsigned char REDZONE = 0xc5;

struct Memory {
    uintptr_t base;
    char *view;
    unsigned char *shadow;
    int file;
    size_t cursor = SLOT;
    std::vector<size_t> used;
    std::vector<std::unique_ptr<Allocation>> allocations;
    std::vector<Allocation *> live; // those that were not freed, oldest first
    uint32_t *slots; // index of the allocation that a slot of the range belongs to, plus 1

    Memory() : used(settings().devices, 0) {
        file = memfd_create("simulated-device-memory", MFD_CLOEXEC);
        auto map = [](size_t size, int protection, int flags, int fd) {
            void *at = mmap(nullptr, size, protection, flags | MAP_NORESERVE, fd, 0);
            if (at == MAP_FAILED) {
                report("cannot reserve %zu bytes of address space", size);
                _exit(99);
            }
            return at;
        };
        if (file < 0 || ftruncate(file, SPACE) != 0) {
            report("cannot make the file behind the device memory");
            _exit(99);
        }
        base = (uintptr_t)map(SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        device_base = base;
        view = (char *)map(SPACE, PROT_READ | PROT_WRITE, MAP_SHARED, file);
        shadow = (unsigned char *)map(SPACE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        slots = (uint32_t *)map(SPACE / SLOT * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    }
};

uintptr_t device_base = (uintptr_t)1 << 62;

static Memory &memory() {
    static Memory *it = new Memory; // outlives every destructor
    return *it;
}

char *driver_view(uintptr_t address) { return memory().view + (address - memory().base); }
unsigned char *initialised(uintptr_t address) { return memory().shadow + (address - memory().base); }
size_t used_memory(int device) { return memory().used[device]; }

Allocation *allocation_at(uintptr_t address) {
    if (!is_device_address(address)) return nullptr;
    uint32_t index = memory().slots[(address - memory().base) / SLOT];
    return index ? memory().allocations[index - 1].get() : nullptr;
}

void poison(void *where, size_t size) {
    static const unsigned char pattern[4] = {0xad, 0xdb, 0xfa, 0x7f};
    char *at = (char *)where;
    size_t done = size < 4 ? size : 4;
    memcpy(at, pattern, done);
    for (; done < size; done *= 2) memcpy(at + done, at, done < size - done ? done : size - done);
}

static size_t round_up(size_t size, size_t to) { return (size + to - 1) / to * to; }

Allocation *allocate(int device, size_t size, bool stream_ordered) {
    Memory &m = memory();
    size_t body = round_up(size, 256), pages = round_up(body, PAGE), span = round_up(pages + 2 * PAGE, SLOT);
    if (body > settings().memory - m.used[device] || m.cursor + span > SPACE) return nullptr;
    std::unique_ptr<Allocation> a(new Allocation());
    a->id = (unsigned)m.allocations.size() + 1;
    a->device = device;
    a->size = size;
    a->map = m.base + m.cursor + PAGE; // a closed page on either side
    a->map_size = pages;
    a->begin = settings().guard_low ? a->map : a->map + pages - body;
    a->state = stream_ordered ? Allocation::Pending : Allocation::Live;
    a->stream_ordered = stream_ordered;
    void *at = mmap((void *)a->map, pages, PROT_NONE, MAP_SHARED | MAP_FIXED, m.file, (off_t)(m.cursor + PAGE));
    if (at == MAP_FAILED) return nullptr;
    memset(driver_view(a->map), REDZONE, a->begin - a->map);
    // What nobody touches takes no memory of the host: allocations of many gigabytes are there for their addresses.
    if (size <= size_t(1) << 30) poison(driver_view(a->begin), size);
    memset(driver_view(a->begin + size), REDZONE, a->map + pages - a->begin - size);
    for (size_t slot = m.cursor / SLOT; slot < (m.cursor + span) / SLOT; ++slot) m.slots[slot] = a->id;
    m.cursor += span;
    m.used[device] += body;
    m.allocations.push_back(std::move(a));
    m.live.push_back(m.allocations.back().get());
    return m.live.back();
}

void release(Allocation &a, const std::string &where) {
    Memory &m = memory();
    a.state = Allocation::Freed;
    m.live.erase(std::find(m.live.begin(), m.live.end(), &a));
    a.where_freed = where;
    a.touches.clear();
    m.used[a.device] -= round_up(a.size, 256);
    // The pages go back; the addresses stay taken.
    void *at = mmap((void *)a.map, a.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) report("cannot unmap allocation #%u", a.id);
    madvise(driver_view(a.map), a.map_size, MADV_REMOVE);
    madvise(initialised(a.map), a.map_size, MADV_DONTNEED);
}

std::vector<Allocation *> live_allocations(int device) {
    std::vector<Allocation *> live;
    for (Allocation *a : memory().live) {
        if (a->device == device) live.push_back(a);
    }
    return live;
}

std::string describe(uintptr_t address, size_t size) {
    Allocation *a = allocation_at(address);
    if (!a) {
        return is_device_address(address) ? text("0x%zx, device memory that was never allocated", (size_t)address)
               : address < PAGE           ? text("0x%zx, a null pointer", (size_t)address)
                                          : text("0x%zx, which is not device memory", (size_t)address);
    }
    long long offset = (long long)(address - a->begin);
    std::string of = text("offset %lld of allocation #%u (%zu bytes)", offset, a->id, a->size);
    if (a->state == Allocation::Freed) return of + ", freed by " + a->where_freed;
    if (a->state == Allocation::Pending) return of + ", whose allocation this operation does not wait for";
    if (offset < 0 || (size_t)offset + size > a->size) return of + ", out of bounds";
    return of;
}

Allocation *checked_range(uintptr_t address, size_t size, bool writes, const char *who) {
    Allocation *a = allocation_at(address);
    bool good = a && a->state == Allocation::Live && address >= a->begin && size <= a->size && address - a->begin <= a->size - size;
    if (!good) {
        report("%s %s %zu bytes at %s", who, writes ? "writes" : "reads", size, describe(address, size).c_str());
        return nullptr;
    }
    Access &range = writes ? a->writes : a->reads;
    if (range.empty()) range = {address, address + size};
    if (address < range.begin) range.begin = address;
    if (address + size > range.end) range.end = address + size;
    return a;
}

static void protect(int device, int protection) {
    for (auto &a : memory().allocations) {
        if (a->state == Allocation::Live && a->device == device) mprotect((void *)a->map, a->map_size, protection);
    }
}
void open_memory(int device) { protect(device, PROT_READ | PROT_WRITE); }
void close_memory(int device) { protect(device, PROT_NONE); }

bool check_redzones(int device, const char *who) {
    bool whole = true;
    auto check = [&](Allocation &a, uintptr_t from, uintptr_t to) {
        unsigned char *at = (unsigned char *)driver_view(from);
        for (size_t i = 0; i < to - from; ++i) {
            if (at[i] == REDZONE) continue;
            report("%s wrote at %s", who, describe(from + i, 1).c_str());
            memset(at, REDZONE, to - from);
            whole = false;
            return;
        }
        (void)a;
    };
    for (Allocation *a : live_allocations(device)) {
        if (a->state != Allocation::Live) continue;
        check(*a, a->map, a->begin);
        check(*a, a->begin + a->size, a->map + a->map_size);
    }
    return whole;
}

std::string first_uninitialised(uintptr_t address, size_t size) {
    unsigned char *known = initialised(address);
    const void *first = memchr(known, 0, size);
    return first ? describe(address + (size_t)((const unsigned char *)first - known), 1) : std::string();
}

std::map<uintptr_t, Pinned> &pinned() {
    static auto *ranges = new std::map<uintptr_t, Pinned>;
    return *ranges;
}

bool is_pinned(uintptr_t address, size_t size) {
    auto after = pinned().upper_bound(address);
    if (after == pinned().begin()) return false;
    const Pinned &range = std::prev(after)->second;
    return address + size <= range.begin + range.size;
}

} // namespace simulated
