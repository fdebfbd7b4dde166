// Streams put their operations off: one runs only when something waits for it (or, with a seed, also at random moments
// that the order of streams and events allows). A synchronisation that is missing therefore shows.
//
// Two more things are kept per operation. A vector clock says which operations are ordered before it by streams, events
// and the host's waits: two operations that touch the same bytes and are not ordered are reported. And a simulated time
// says when it would have run on a device that has one engine for copies in, one for copies out and one for kernels.
#include "driver.h"

#include <algorithm>

namespace simulated {

static std::vector<Stream *> streams;
static std::vector<OpRef> pending;
static Clock host_clock;
static double host_time = 0;
static std::map<int, std::vector<double>> engine_free;
static Op *current = nullptr;

static Clock::iterator at(Clock &clock, int stream) {
    auto place = std::lower_bound(clock.begin(), clock.end(), std::make_pair(stream, 0u));
    return place != clock.end() && place->first == stream ? place : clock.insert(place, {stream, 0});
}

static void join(Clock &into, const Clock &from) {
    for (auto &entry : from) {
        unsigned &known = at(into, entry.first)->second;
        known = std::max(known, entry.second);
    }
}

Op *running() { return current; }
bool has_pending() { return !pending.empty(); }

OpRef submit(Stream &stream, Engine engine, double nanoseconds, const std::string &what, std::function<Result()> run) {
    static unsigned ids = 0;
    OpRef op = std::make_shared<Op>();
    op->id = ++ids;
    op->stream = &stream;
    op->stream_id = stream.id;
    op->device = stream.context->device;
    op->what = what;
    op->run = std::move(run);
    op->clock = host_clock;
    op->start = host_time;
    auto after = [&](const OpRef &earlier) {
        if (!earlier) return;
        join(op->clock, earlier->clock);
        op->start = std::max(op->start, earlier->end);
        if (!earlier->done) op->before.push_back(earlier);
    };
    after(stream.tail);
    // The default stream and the streams that are not "non-blocking" wait for each other.
    if (&stream == stream.context->null_stream) {
        for (Stream *other : streams) {
            if (other->blocking && other->context == stream.context) after(other->tail);
        }
    } else if (stream.blocking) {
        after(stream.context->null_stream->tail);
    }
    op->sequence = ++at(op->clock, stream.id)->second;
    std::vector<double> &free = engine_free[op->device];
    free.resize(ENGINES);
    if (engine != NO_ENGINE) op->start = std::max(op->start, free[engine]);
    op->end = op->start + nanoseconds;
    if (engine != NO_ENGINE) free[engine] = op->end;
    stream.tail = op;
    pending.push_back(op);
    trace("submit op=%u device=%d stream=%d start=%.0f end=%.0f %s", op->id, op->device, stream.id, op->start, op->end, what.c_str());
    return op;
}

void wait_for(Stream &stream, const OpRef &op) {
    if (!op) return;
    OpRef marker = submit(stream, NO_ENGINE, 0, text("wait for=%u", op->id), [] { return SUCCESS; });
    join(marker->clock, op->clock);
    marker->start = marker->end = std::max(marker->start, op->end);
    if (!op->done) marker->before.push_back(op);
}

static void run_now(Op &op) {
    Context &context = *op.stream->context;
    trace("run op=%u device=%d stream=%d", op.id, op.device, op.stream_id);
    // After an error that sticks, a device does nothing more.
    if (context.sticky == SUCCESS) {
        current = &op;
        Result result = op.run();
        settle_touches(context);
        current = nullptr;
        if (result != SUCCESS) {
            context.sticky = result;
            trace("error op=%u result=%d", op.id, (int)result);
        }
    }
    op.done = true;
    op.run = nullptr;
    op.before.clear();
}

static void run_with_all_before(const OpRef &last) {
    std::vector<OpRef> stack{last};
    while (!stack.empty()) {
        OpRef op = stack.back();
        if (op->done) {
            stack.pop_back();
            continue;
        }
        bool ready = true;
        for (OpRef &earlier : op->before) {
            if (!earlier->done) {
                stack.push_back(earlier);
                ready = false;
            }
        }
        if (ready) {
            stack.pop_back();
            run_now(*op);
        }
    }
    pending.erase(std::remove_if(pending.begin(), pending.end(), [](const OpRef &op) { return op->done; }), pending.end());
}

void finish(const OpRef &op) {
    if (!op) return;
    run_with_all_before(op);
    join(host_clock, op->clock);
    host_time = std::max(host_time, op->end);
}

void finish_all(Context &context) {
    std::vector<OpRef> all = pending;
    for (OpRef &op : all) {
        if (op->device == context.device) finish(op);
    }
    // Those that had run earlier, unseen by the host, are seen now.
    for (Stream *stream : streams) {
        if (stream->context == &context) finish(stream->tail);
    }
}

void run_some() {
    if (settings().seed == 0) return;
    while (!pending.empty() && random_number() % 2) {
        OpRef op = pending[random_number() % pending.size()];
        // Only a step: its earliest needed operation, so that streams mix.
        while (true) {
            auto open = std::find_if(op->before.begin(), op->before.end(), [](const OpRef &it) { return !it->done; });
            if (open == op->before.end()) break;
            OpRef earlier = *open;
            op = earlier;
        }
        run_with_all_before(op);
    }
}

static bool ordered(const Touch &earlier, const Op &op) {
    auto known = std::lower_bound(op.clock.begin(), op.clock.end(), std::make_pair(earlier.stream, earlier.sequence));
    return known != op.clock.end() && known->first == earlier.stream;
}

static bool overlap(const Access &a, const Access &b) { return !a.empty() && !b.empty() && a.begin < b.end && b.begin < a.end; }

void settle_touches(Context &context) {
    Op &op = *current;
    for (Allocation *a : live_allocations(context.device)) {
        if (a->reads.empty() && a->writes.empty()) continue;
        auto &list = a->touches;
        for (Touch &touch : list) {
            bool conflict = overlap(touch.range, a->writes) || (touch.writes && overlap(touch.range, a->reads));
            if (!conflict || ordered(touch, op)) continue;
            report("%s on stream %d and operation %u on stream %d use the same bytes of allocation #%u, one writes, and no event or "
                   "wait orders them",
                   op.what.c_str(), op.stream_id, touch.op, touch.stream, a->id);
            break;
        }
        // What is ordered before this operation and covered by it cannot conflict with anything later that this does not.
        Access reads = a->reads, writes = a->writes;
        list.erase(std::remove_if(list.begin(), list.end(), [&](const Touch &touch) {
            auto within = [&](const Access &it) { return !it.empty() && it.begin <= touch.range.begin && touch.range.end <= it.end; };
            return ordered(touch, op) && (within(writes) || (!touch.writes && within(reads)));
        }), list.end());
        if (!reads.empty()) list.push_back({op.id, op.stream_id, op.sequence, false, reads});
        if (!writes.empty()) list.push_back({op.id, op.stream_id, op.sequence, true, writes});
        a->reads = a->writes = Access();
    }
}

Stream *make_stream(Context &context, bool blocking) {
    static int ids = 0;
    Stream *stream = new Stream{ids++, &context, blocking, nullptr};
    streams.push_back(stream);
    return stream;
}

bool is_stream(Stream *stream) { return std::find(streams.begin(), streams.end(), stream) != streams.end(); }

bool destroy_stream(Stream *stream) {
    if (!is_stream(stream)) return false;
    // Its work goes on; here that means it is done now, for nobody could wait for it any more.
    if (stream->tail) run_with_all_before(stream->tail);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return true;
}

size_t open_streams() {
    size_t count = 0;
    for (Stream *stream : streams) {
        Context &context = *stream->context;
        count += context.retained > 0 && stream != context.null_stream && stream != context.per_thread_stream;
    }
    return count;
}

} // namespace simulated
