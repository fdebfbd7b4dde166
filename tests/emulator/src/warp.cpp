// What the lanes of a warp exchange once all of them have come.
#include "block.h"
#include "checks.h"

namespace simulated {

// The lane that a shuffle reads, or the own one where that lies outside of the segment.
static int source_of(int kind, int lane, int argument, int width) {
    int segment = lane & ~(width - 1), source;
    switch (kind) {
    case SIMULATED_SHFL: return segment | (argument & (width - 1));
    case SIMULATED_SHFL_UP: source = lane - argument; return source < segment ? lane : source;
    case SIMULATED_SHFL_DOWN: source = lane + argument; return source >= segment + width ? lane : source;
    default: source = lane ^ argument; return source >= segment + width ? lane : source;
    }
}

static unsigned long long reduce(int kind, unsigned long long a, unsigned long long b) {
    unsigned x = (unsigned)a, y = (unsigned)b;
    int i = (int)x, j = (int)y;
    switch (kind) {
    case SIMULATED_ADD: return x + y;
    case SIMULATED_MIN: return x < y ? x : y;
    case SIMULATED_MAX: return x > y ? x : y;
    case SIMULATED_MIN_SIGNED: return (unsigned)(i < j ? i : j);
    case SIMULATED_MAX_SIGNED: return (unsigned)(i > j ? i : j);
    case SIMULATED_BITS_AND: return x & y;
    case SIMULATED_BITS_OR: return x | y;
    default: return x ^ y;
    }
}

void meet(int kind, unsigned taking_part, Thread *of, unsigned lanes) {
    if (kind >= SIMULATED_MMA_F16) {
        if (taking_part != 0xffffffffu) {
            report("%s: an operation of the whole warp in line %d has the lanes %08x", here().c_str(), block.current->line, taking_part);
            fail_launch(LAUNCH_FAILED);
        }
        meet_at_tensor_core(kind, of);
        return;
    }
    unsigned long long values[32] = {}, all = 0;
    bool started = false, same = true;
    unsigned votes = 0, first_lane = 0;
    for (unsigned i = 0; i < lanes; ++i) {
        if (!(taking_part >> i & 1)) continue;
        values[i] = of[i].value;
        if (!started) first_lane = i;
        all = started ? reduce(kind, all, values[i]) : values[i];
        same = same && values[i] == values[first_lane];
        votes |= values[i] ? 1u << i : 0;
        started = true;
    }
    for (unsigned i = 0; i < lanes; ++i) {
        if (!(taking_part >> i & 1)) continue;
        Thread &thread = of[i];
        thread.state = Thread::Ready;
        switch (kind) {
        case SIMULATED_SYNCWARP: break;
        case SIMULATED_SHFL:
        case SIMULATED_SHFL_UP:
        case SIMULATED_SHFL_DOWN:
        case SIMULATED_SHFL_XOR: {
            int width = thread.width;
            if (width < 1 || width > 32 || (width & (width - 1))) {
                report("%s shuffles with a width of %d in line %d", name_of(thread).c_str(), width, thread.line);
                fail_launch(LAUNCH_FAILED);
            }
            int source = source_of(kind, (int)i, thread.lane_argument, width);
            if (source < 0 || !(taking_part >> source & 1)) {
                report("%s shuffles from lane %d, which does not take part, in line %d", name_of(thread).c_str(), source, thread.line);
                fail_launch(LAUNCH_FAILED);
            }
            thread.value = values[source];
            break;
        }
        case SIMULATED_BALLOT: thread.value = votes; break;
        case SIMULATED_MATCH_ANY: {
            unsigned matching = 0;
            for (unsigned j = 0; j < lanes; ++j) matching |= (taking_part >> j & 1) && values[j] == values[i] ? 1u << j : 0;
            thread.value = matching;
            break;
        }
        case SIMULATED_MATCH_ALL: thread.value = same ? taking_part : 0; break;
        default: thread.value = all;
        }
    }
}

} // namespace simulated
