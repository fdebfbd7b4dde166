// Entry points: streams, events, modules, functions, launches.
#include "api.h"

#include <algorithm>
#include <cstring>

using namespace simulated;

API cuStreamCreate(Stream **stream, unsigned flags) {
    Call call("cuStreamCreate");
    CURRENT(context);
    if (flags > 1) return INVALID_VALUE;
    *stream = make_stream(*context, flags == 0);
    return SUCCESS;
}
API cuStreamCreateWithPriority(Stream **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

API cuStreamDestroy_v2(Stream *stream) {
    Call call("cuStreamDestroy");
    CURRENT(context);
    if (stream == context->null_stream || stream == context->per_thread_stream || !destroy_stream(stream)) {
        report("cuStreamDestroy of %p, which is no stream", (void *)stream);
        return INVALID_HANDLE;
    }
    return context->sticky;
}

API cuStreamSynchronize(void *handle) {
    Call call("cuStreamSynchronize");
    CURRENT(context);
    STREAM(context, handle);
    if (stream == context->null_stream) {
        // The default stream has done its work only when those that it waits for have.
        finish(submit(*stream, NO_ENGINE, 0, "synchronize", [] { return SUCCESS; }));
    }
    finish(stream->tail);
    return context->sticky;
}

API cuStreamQuery(void *handle) {
    Call call("cuStreamQuery");
    CURRENT(context);
    STREAM(context, handle);
    if (!stream->tail || stream->tail->done) return SUCCESS;
    // Who asks again and again has to see it end.
    finish(stream->tail);
    return context->sticky == SUCCESS ? NOT_READY : context->sticky;
}

API cuStreamGetCtx(void *handle, Context **of) {
    Call call("cuStreamGetCtx");
    CURRENT(context);
    STREAM(context, handle);
    *of = stream->context;
    return SUCCESS;
}

API cuStreamIsCapturing(void *, int *status) {
    *status = 0;
    return SUCCESS;
}

API cuLaunchHostFunc(void *handle, void (*function)(void *), void *data) {
    Call call("cuLaunchHostFunc");
    CURRENT(context);
    STREAM(context, handle);
    submit(*stream, NO_ENGINE, 0, "host function", [=] {
        function(data);
        return SUCCESS;
    });
    return SUCCESS;
}

// --- events

static std::vector<Event *> &events() {
    static auto *all = new std::vector<Event *>;
    return *all;
}
static bool is_event(Event *event) { return std::find(events().begin(), events().end(), event) != events().end(); }
#define EVENT(event)                                                                                                   \
    if (!is_event(event)) return INVALID_HANDLE

API cuEventCreate(Event **event, unsigned flags) {
    Call call("cuEventCreate");
    CURRENT(context);
    events().push_back(*event = new Event{context, flags, nullptr});
    return SUCCESS;
}

API cuEventDestroy_v2(Event *event) {
    Call call("cuEventDestroy");
    CURRENT(context);
    EVENT(event);
    events().erase(std::find(events().begin(), events().end(), event));
    delete event;
    return SUCCESS;
}

API cuEventRecord(Event *event, void *handle) {
    Call call("cuEventRecord");
    CURRENT(context);
    STREAM(context, handle);
    EVENT(event);
    if (event->context != context) return INVALID_HANDLE;
    event->recorded = submit(*stream, NO_ENGINE, 0, "record", [] { return SUCCESS; });
    return SUCCESS;
}
API cuEventRecordWithFlags(Event *event, void *handle, unsigned) { return cuEventRecord(event, handle); }

API cuStreamWaitEvent(void *handle, Event *event, unsigned) {
    Call call("cuStreamWaitEvent");
    CURRENT(context);
    STREAM(context, handle);
    EVENT(event);
    wait_for(*stream, event->recorded);
    return SUCCESS;
}

API cuEventSynchronize(Event *event) {
    Call call("cuEventSynchronize");
    CURRENT(context);
    EVENT(event);
    finish(event->recorded);
    return context->sticky;
}

API cuEventQuery(Event *event) {
    Call call("cuEventQuery");
    CURRENT(context);
    EVENT(event);
    if (!event->recorded || event->recorded->done) {
        finish(event->recorded); // the host knows now
        return SUCCESS;
    }
    finish(event->recorded);
    return context->sticky == SUCCESS ? NOT_READY : context->sticky;
}

static int elapsed(float *milliseconds, Event *start, Event *end) {
    CURRENT(context);
    EVENT(start);
    EVENT(end);
    const unsigned DISABLE_TIMING = 2;
    if (!start->recorded || !end->recorded || ((start->flags | end->flags) & DISABLE_TIMING)) return INVALID_HANDLE;
    if (!start->recorded->done || !end->recorded->done) return NOT_READY;
    *milliseconds = (float)((end->recorded->end - start->recorded->end) / 1e6);
    return SUCCESS;
}
API cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
    Call call("cuEventElapsedTime");
    return elapsed(milliseconds, start, end);
}
// Absent from the library of a driver older than 12.8.
API cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
    Call call("cuEventElapsedTime_v2");
    return elapsed(milliseconds, start, end);
}

// --- modules and functions

static std::vector<Module *> &modules() {
    static auto *all = new std::vector<Module *>;
    return *all;
}

API cuModuleLoadData(Module **module, const void *image) {
    Call call("cuModuleLoadData");
    CURRENT(context);
    if (!image) return INVALID_VALUE;
    Result result = load_module(*context, (const char *)image, module);
    if (result == SUCCESS) modules().push_back(*module);
    return result;
}
API cuModuleLoadDataEx(Module **module, const void *image, unsigned, void *, void **) { return cuModuleLoadData(module, image); }
API cuModuleLoad(Module **, const char *) { return FILE_NOT_FOUND; }

API cuModuleUnload(Module *module) {
    Call call("cuModuleUnload");
    CURRENT(context);
    auto found = std::find(modules().begin(), modules().end(), module);
    if (found == modules().end()) return INVALID_HANDLE;
    finish_all(*context);
    modules().erase(found);
    delete module;
    return SUCCESS;
}

API cuModuleGetFunction(Function **function, Module *module, const char *name) {
    Call call("cuModuleGetFunction");
    CURRENT(context);
    if (std::find(modules().begin(), modules().end(), module) == modules().end()) return INVALID_HANDLE;
    return get_function(*module, name, function);
}

API cuModuleGetGlobal_v2(uintptr_t *, size_t *, Module *, const char *) { return NOT_FOUND; }

API cuFuncGetAttribute(int *value, int attribute, Function *function) {
    Call call("cuFuncGetAttribute");
    CURRENT(context);
    switch (attribute) {
    case 0: *value = function->max_threads; return SUCCESS;
    case 1: *value = function->static_shared; return SUCCESS;
    case 2: case 3: case 7: *value = 0; return SUCCESS;
    case 4: *value = std::min(255, 65536 / std::max(function->max_threads, 1)); return SUCCESS;
    case 5: *value = function->ptx_version; return SUCCESS;
    case 6: *value = settings().capability; return SUCCESS;
    case 8: *value = function->dynamic_limit; return SUCCESS;
    case 9: *value = -1; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

API cuFuncSetAttribute(Function *function, int attribute, int value) {
    Call call("cuFuncSetAttribute");
    CURRENT(context);
    if (attribute == 9) return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;
    if (attribute != 8 || value < 0 || value + function->static_shared > shared_limit(settings().capability)) return INVALID_VALUE;
    function->dynamic_limit = value;
    return SUCCESS;
}
API cuFuncSetCacheConfig(Function *, int) { return SUCCESS; }

static int blocks_that_fit(const Function &function, int threads, size_t shared) {
    int capability = settings().capability, per_block = (int)shared + function.static_shared + (capability >= 80 ? 1024 : 0);
    int all = capability == 75 ? 1024 : capability == 86 || capability == 89 || capability == 120 ? 1536 : 2048;
    int by_threads = all / std::max((threads + 31) / 32 * 32, 32);
    int by_shared = per_block > 0 ? (shared_limit(capability) + 1024) / per_block : 32;
    return std::min({by_threads, by_shared, capability == 75 ? 16 : 32});
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, Function *function, int threads, size_t shared, unsigned) {
    Call call("cuOccupancyMaxActiveBlocksPerMultiprocessor");
    CURRENT(context);
    if (threads <= 0) return INVALID_VALUE;
    *blocks = threads > function->max_threads ? 0 : blocks_that_fit(*function, threads, shared);
    return SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Function *function, int threads, size_t shared) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}
API cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *size, Function *function, size_t (*shared_of)(int), size_t shared, int limit, unsigned) {
    Call call("cuOccupancyMaxPotentialBlockSize");
    CURRENT(context);
    *size = std::min(function->max_threads, limit > 0 ? limit : 1024);
    *grid = std::max(blocks_that_fit(*function, *size, shared_of ? shared_of(*size) : shared), 1);
    return SUCCESS;
}

// --- launches

static int launch(Context *context, Function *function, uint3 grid, uint3 size, unsigned shared, void *handle, void **parameters) {
    STREAM(context, handle);
    if (!function || !function->kernel) return INVALID_HANDLE;
    const char *name = function->name.c_str();
    uint64_t threads = (uint64_t)size.x * size.y * size.z;
    if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535 || !threads || size.x > 1024 ||
        size.y > 1024 || size.z > 64 || threads > 1024) {
        return INVALID_VALUE;
    }
    if ((int)shared > function->dynamic_limit) return INVALID_VALUE;
    if ((int)threads > function->max_threads) return function->kernel->entry->max_threads ? INVALID_VALUE : LAUNCH_OUT_OF_RESOURCES;
    const SimulatedEntry &entry = *function->kernel->entry;
    Launch it{function->kernel, grid, size, shared, {}, context->device};
    if (entry.count > 0 && !parameters) return INVALID_VALUE;
    for (unsigned i = 0; i < entry.count; ++i) {
        const char *from = (const char *)parameters[i];
        if (!from) return INVALID_VALUE;
        it.arguments.emplace_back(from, from + entry.parameters[i].size);
        if (!entry.parameters[i].is_pointer) continue;
        uintptr_t address;
        memcpy(&address, from, sizeof address);
        // Null says "not given", and one past the end of something empty is never read.
        if (address && !is_device_address(address)) {
            report("launch of %s: argument %u is %s", name, i, describe(address, 1).c_str());
            return INVALID_VALUE;
        }
    }
    if (is_left_out(it)) return SUCCESS;
    double time = 3000 + (double)(threads * grid.x * grid.y * grid.z) * 0.05;
    std::string what = text("launch %s grid=%u,%u,%u block=%u,%u,%u shared=%u", name, grid.x, grid.y, grid.z, size.x, size.y, size.z, shared);
    submit(*stream, COMPUTE, time, what, [it] { return run_launch(it); });
    return SUCCESS;
}

API cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *handle, void **parameters, void **extra) {
    Call call("cuLaunchKernel");
    CURRENT(context);
    if (extra) return NOT_SUPPORTED;
    return launch(context, function, {gx, gy, gz}, {bx, by, bz}, shared, handle, parameters);
}

struct LaunchConfig {
    unsigned gx, gy, gz, bx, by, bz, shared;
    void *stream;
    void *attributes;
    unsigned attribute_count;
};
API cuLaunchKernelEx(const LaunchConfig *config, Function *function, void **parameters, void **extra) {
    Call call("cuLaunchKernelEx");
    CURRENT(context);
    if (extra || config->attribute_count) return NOT_SUPPORTED;
    return launch(context, function, {config->gx, config->gy, config->gz}, {config->bx, config->by, config->bz}, config->shared,
                  config->stream, parameters);
}
