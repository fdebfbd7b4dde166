// Who wrote what since when. Memory is divided into cells of 4 bytes; each remembers the last thread that wrote it and,
// in shared memory, those that read it. Two accesses of different threads, one of them a write, are a race unless a
// barrier of the block, a meeting of their warp or a barrier in shared memory lies between, or both are atomic.
#include "checks.h"
#include "clocks.h"

#include <sys/mman.h>

namespace simulated {

static const unsigned NOBODY = 0xffff;
// Grows with each barrier, block and launch, so that old entries need not be wiped.
static unsigned epoch = 0;
static unsigned counted_barriers = 0;

static unsigned now() {
    epoch += block.barriers - counted_barriers;
    counted_barriers = block.barriers;
    return epoch;
}

static const char *verb(AccessKind kind) { return kind == READ ? "reads" : kind == WRITE ? "writes" : "updates"; }

static std::string thread_name(unsigned linear) {
    if (linear >= block.threads.size()) return "a bulk copy";
    const uint3 &index = block.threads[linear].index;
    return text("thread (%u,%u,%u)", index.x, index.y, index.z);
}

// Whether what `other` did when its warp had met `meetings` times is ordered before what runs now.
static bool met_since(unsigned other, unsigned meetings) {
    unsigned warp = block.current->linear / 32;
    return other / 32 == warp && other < block.threads.size() && block.meetings[warp] > meetings;
}

// The same, or by what clocks say, at that step.
static bool is_ordered(unsigned other, unsigned meetings, unsigned step) { return met_since(other, meetings) || has_seen(other, step); }

// --- shared memory

uintptr_t shared_low = 0, shared_high = 0;
static unsigned block_start;

struct SharedCell {
    unsigned write_epoch, write_meetings, write_step, read_epoch, read_meetings, known_since;
    unsigned short writer, reader;
    unsigned char write_bytes, read_bytes, known_bytes;
    bool atomic, many_readers, many_warps, on_its_way, copied;
};

// Whether a write may be one that the thread that runs has not seen. Barriers of the block say nothing of bulk copies.
static inline bool is_recent(const SharedCell &cell, unsigned time) {
    return cell.write_epoch == time || (cell.copied && cell.write_epoch >= block_start);
}

static std::vector<Range> shared;
static std::vector<SharedCell> cells;
static uintptr_t &low = shared_low, &high = shared_high;

void begin_shared_checks(const std::vector<Range> &ranges, Range all) {
    shared = ranges;
    low = all.begin & ~(uintptr_t)15;
    high = all.end;
    if (cells.size() < (high - low) / 4 + 4) cells.resize((high - low) / 4 + 4);
    ++epoch;
}

void begin_shared_block() {
    counted_barriers = 0;
    block_start = ++epoch;
}

// While clocks run: lanes of one warp that have read a cell, and the step at which, of several the first.
struct Readers { unsigned lanes, step; };
static std::vector<Readers> readers; // by cell, then by warp

static Readers *readers_of(const SharedCell &cell) { return &readers[(size_t)(&cell - cells.data()) * block.meetings.size()]; }

void begin_readers() {
    // What came before is not kept: after the first barriers were made, all threads meet.
    ++epoch;
    readers.resize(cells.size() * block.meetings.size());
}

// A reader that the thread that runs has not seen.
static unsigned unseen_reader(const SharedCell &cell) {
    const Readers *of = readers_of(cell);
    for (unsigned warp = 0; warp < block.meetings.size(); ++warp) {
        for (unsigned lanes = of[warp].lanes; lanes; lanes &= lanes - 1) {
            unsigned reader = warp * 32 + (unsigned)__builtin_ctz(lanes);
            if (reader != block.current->linear && !has_seen(reader, of[warp].step)) return reader;
        }
    }
    return NOBODY;
}

static void note_reader(SharedCell &cell, unsigned bytes, unsigned me, unsigned time) {
    Readers *of = readers_of(cell), &mine = of[me / 32];
    if (cell.read_epoch != time) {
        for (unsigned warp = 0; warp < block.meetings.size(); ++warp) of[warp] = {0, 0};
        cell.read_epoch = time;
        cell.read_bytes = 0;
    }
    cell.read_bytes |= (unsigned char)bytes;
    if (mine.step != step_now()) {
        bool all_seen = true;
        for (unsigned lanes = mine.lanes & ~(1u << me % 32); lanes; lanes &= lanes - 1) {
            all_seen = all_seen && has_seen(me / 32 * 32 + (unsigned)__builtin_ctz(lanes), mine.step);
        }
        // Readers that were ordered before this one need no memory. Else the earlier step stays: a race may be missed.
        if (all_seen) mine = {0, step_now()};
    }
    mine.lanes |= 1u << me % 32;
}

static inline void note_read(SharedCell &cell, unsigned bytes, unsigned me, unsigned time) {
    if (clocks_run) return note_reader(cell, bytes, me, time);
    unsigned warp = me / 32, meetings = block.meetings[warp];
    // Readers that were ordered before this one need no memory: what comes after this comes after them.
    bool alone = cell.read_epoch != time || (!cell.many_warps && cell.reader / 32u == warp && cell.read_meetings < meetings);
    if (alone) {
        cell.read_epoch = time;
        cell.many_readers = cell.many_warps = false;
        cell.read_bytes = 0;
    } else {
        cell.many_readers |= cell.reader != me;
        cell.many_warps |= cell.reader / 32u != warp;
    }
    cell.reader = (unsigned short)me;
    cell.read_bytes |= (unsigned char)bytes;
    cell.read_meetings = meetings;
}

static void check_cell(SharedCell &cell, uintptr_t address, unsigned bytes, AccessKind kind) {
    unsigned me = block.current->linear, time = now();
    bool written = is_recent(cell, time) && (cell.write_bytes & bytes), read = cell.read_epoch == time && (cell.read_bytes & bytes);
    unsigned other = NOBODY;
    const char *did = "";
    if (written && cell.writer != me && !(cell.atomic && kind == ATOMIC) && !is_ordered(cell.writer, cell.write_meetings, cell.write_step)) {
        other = cell.writer;
        did = cell.atomic ? "updated" : "wrote";
    } else if (clocks_run && read && kind != READ) {
        other = unseen_reader(cell);
        did = "read";
    } else if (read && kind != READ && (cell.reader != me || cell.many_readers) &&
               (cell.many_warps || !met_since(cell.reader, cell.read_meetings))) {
        other = cell.reader;
        did = "read";
    }
    if (other != NOBODY && may_report(SHARED_RACE)) {
        report("%s %s shared memory at byte %zu that %s %s, with no barrier between", here().c_str(), verb(kind), (size_t)(address - low),
               other == me ? "other threads" : thread_name(other).c_str(), did);
    }
    if (cell.known_since != block_start) {
        cell.known_since = block_start;
        cell.known_bytes = 0;
        cell.on_its_way = false;
    }
    if (kind != WRITE && (cell.known_bytes & bytes) != bytes) {
        if (may_report(UNWRITTEN_SHARED)) {
            report("%s %s shared memory at byte %zu, %s", here().c_str(), verb(kind), (size_t)(address - low),
                   cell.on_its_way ? "which an asynchronous copy writes that was not waited for" : "which nothing in the block has written");
        }
        cell.known_bytes |= bytes;
    }
    if (kind == READ) {
        note_read(cell, bytes, me, time);
    } else {
        cell.known_bytes |= (unsigned char)bytes;
        cell.writer = (unsigned short)me;
        cell.write_epoch = time;
        cell.write_bytes = (unsigned char)bytes;
        cell.write_meetings = block.meetings[me / 32];
        cell.write_step = step_now();
        if (clocks_run && bytes == 15) cell.read_epoch = 0;
        cell.atomic = kind == ATOMIC;
        cell.on_its_way = cell.copied = false;
    }
}

void forget_shared(uintptr_t address, unsigned size) {
    for (uintptr_t at = address; at < address + size; at += 4) {
        SharedCell &cell = cells[(at - low) / 4];
        cell.known_bytes = 0;
        cell.on_its_way = true;
    }
}

void remember_shared(uintptr_t address, unsigned size, unsigned writer, unsigned step) {
    for (uintptr_t at = address; at < address + size; at += 4) {
        SharedCell &cell = cells[(at - low) / 4];
        cell.known_bytes = cell.write_bytes = 15;
        cell.on_its_way = cell.atomic = false;
        cell.copied = clocks_run;
        cell.writer = (unsigned short)writer;
        cell.write_step = step;
    }
}

// The common case of `check_cell`, short: a read of bytes that were written before the last barrier.
static inline bool reads_in_order(SharedCell &cell, unsigned bytes, unsigned me, unsigned time) {
    bool good = cell.known_since == block_start && (cell.known_bytes & bytes) == bytes && (!is_recent(cell, time) || cell.writer == me || has_seen(cell.writer, cell.write_step));
    if (!good) return false;
    note_read(cell, bytes, me, time);
    return true;
}

void check_shared(uintptr_t address, unsigned size, AccessKind kind) {
    if (kind == READ && size == 4 && address % 4 == 0) {
        // The cell of an address outside of the shared memory of this launch was never written in this block.
        if (reads_in_order(cells[(address - low) / 4], 15, block.current->linear, now())) return;
    }
    bool inside = false;
    for (const Range &range : shared) inside |= address >= range.begin && address + size <= range.end;
    if (!inside) {
        report("%s %s %u bytes outside of its shared memory", here().c_str(), verb(kind), size);
        fail_launch(ILLEGAL_ADDRESS);
    }
    if (kind != READ && products_on_their_way && is_operand(address, size) && may_report(OPERAND_WRITTEN)) {
        report("%s %s shared memory at byte %zu that a product by wgmma reads which was not waited for", here().c_str(), verb(kind), (size_t)(address - low));
    }
    uintptr_t end = address + size;
    for (uintptr_t at = address & ~(uintptr_t)3; at < end; at += 4) {
        unsigned from = at < address ? (unsigned)(address - at) : 0, to = end - at < 4 ? (unsigned)(end - at) : 4;
        SharedCell &cell = cells[(at - low) / 4];
        if (kind == READ && from == 0 && to == 4 && reads_in_order(cell, 15, block.current->linear, now())) continue;
        check_cell(cells[(at - low) / 4], at + from, ((1u << to) - 1) & ~((1u << from) - 1), kind);
    }
}

// --- device memory: writes are remembered, reads are not. That finds a read after a write and a write after a write;
// a write after a read is the other order of the same race, which a seed brings about.

struct DeviceCell {
    unsigned launch, block, epoch, meetings, step;
    unsigned short thread;
    unsigned char bytes;
    bool atomic;
};

static unsigned launch_serial = 0, block_serial = 0;
static bool block_was_atomic = false;

static DeviceCell *device_cells() {
    static DeviceCell *cells = [] {
        // Four bytes of memory have one cell; untouched cells take no memory.
        void *at = mmap(nullptr, DEVICE_SPACE / 4 * sizeof(DeviceCell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return at == MAP_FAILED ? nullptr : (DeviceCell *)at;
    }();
    return cells;
}

void begin_race_checks() { ++launch_serial; }

void begin_race_block() {
    ++block_serial;
    block_was_atomic = false;
}

void check_races(const Allocation &allocation, uintptr_t address, unsigned size, AccessKind kind) {
    DeviceCell *all = device_cells();
    if (kind == ATOMIC) block_was_atomic = true;
    // Nothing in this allocation was written by this launch, and this does not write either.
    if (!all || (kind == READ && allocation.writes.empty())) return;
    unsigned time = now(), me = block.current->linear;
    uintptr_t end = address + size, base = device_base;
    for (uintptr_t at = address & ~(uintptr_t)3; at < end; at += 4) {
        unsigned from = at < address ? (unsigned)(address - at) : 0, to = end - at < 4 ? (unsigned)(end - at) : 4;
        unsigned bytes = ((1u << to) - 1) & ~((1u << from) - 1);
        DeviceCell &cell = all[(at - base) / 4];
        if (cell.launch == launch_serial && (cell.bytes & bytes) && !(cell.atomic && kind == ATOMIC)) {
            bool same_block = cell.block == block_serial;
            // Blocks tell each other through atomics when their results may be read.
            bool ordered = same_block ? cell.thread == me || cell.epoch != time || is_ordered(cell.thread, cell.meetings, cell.step)
                                      : block_was_atomic && kind == READ;
            if (!ordered && may_report(RACE)) {
                report("%s %s %s, which %s %s in this launch, with nothing to order the two", here().c_str(), verb(kind),
                       describe(at + from, to - from).c_str(), same_block ? thread_name(cell.thread).c_str() : "another block",
                       cell.atomic ? "updated" : "wrote");
            }
        }
        if (kind != READ) {
            bool more = cell.launch == launch_serial && cell.block == block_serial && cell.thread == me && cell.epoch == time;
            cell = {launch_serial, block_serial, time, block.meetings[me / 32], step_now(), (unsigned short)me,
                    (unsigned char)((more ? cell.bytes : 0) | bytes), kind == ATOMIC};
        }
    }
}

} // namespace simulated
