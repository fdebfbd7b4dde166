// Entry points: device memory, pinned memory, copies and fills.
#include "api.h"

#include <cstdlib>
#include <cstring>

using namespace simulated;

static void made(Allocation &allocation, const char *how) {
    trace("allocate id=%u device=%d bytes=%zu how=%s", allocation.id, allocation.device, allocation.size, how);
}

API cuMemAlloc_v2(uintptr_t *pointer, size_t size) {
    Call call("cuMemAlloc");
    CURRENT(context);
    if (size == 0) return INVALID_VALUE;
    if (allocation_fails()) return OUT_OF_MEMORY;
    Allocation *allocation = allocate(context->device, size, false);
    if (!allocation) {
        finish_all(*context); // memory whose release is still in a stream
        allocation = allocate(context->device, size, false);
    }
    if (!allocation) return OUT_OF_MEMORY;
    made(*allocation, "cuMemAlloc");
    *pointer = allocation->begin;
    return SUCCESS;
}

static Allocation *owned(Context &context, uintptr_t pointer, const char *who) {
    Allocation *allocation = allocation_at(pointer);
    if (!allocation || allocation->begin != pointer || allocation->state == Allocation::Freed || allocation->device != context.device) {
        report("%s of %s: no allocation of this device begins there", who, describe(pointer, 1).c_str());
        return nullptr;
    }
    return allocation;
}

API cuMemFree_v2(uintptr_t pointer) {
    Call call("cuMemFree");
    CURRENT(context);
    if (pointer == 0) return SUCCESS;
    Allocation *allocation = owned(*context, pointer, "cuMemFree");
    if (!allocation) return INVALID_VALUE;
    finish_all(*context);
    trace("free id=%u", allocation->id);
    release(*allocation, "cuMemFree");
    return context->sticky;
}

API cuMemAllocAsync(uintptr_t *pointer, size_t size, void *handle) {
    Call call("cuMemAllocAsync");
    CURRENT(context);
    STREAM(context, handle);
    if (!settings().pools) return NOT_SUPPORTED;
    if (size == 0) return INVALID_VALUE;
    if (allocation_fails()) return OUT_OF_MEMORY;
    Allocation *allocation = allocate(context->device, size, true);
    if (!allocation) {
        finish_all(*context);
        allocation = allocate(context->device, size, true);
    }
    if (!allocation) return OUT_OF_MEMORY;
    made(*allocation, "cuMemAllocAsync");
    *pointer = allocation->begin;
    submit(*stream, NO_ENGINE, 0, text("allocate id=%u", allocation->id), [allocation] {
        allocation->state = Allocation::Live;
        // Whoever uses it must come after this.
        allocation->writes = {allocation->begin, allocation->begin + allocation->size};
        return SUCCESS;
    });
    return SUCCESS;
}

API cuMemFreeAsync(uintptr_t pointer, void *handle) {
    Call call("cuMemFreeAsync");
    CURRENT(context);
    STREAM(context, handle);
    if (pointer == 0) return INVALID_VALUE;
    Allocation *allocation = owned(*context, pointer, "cuMemFreeAsync");
    if (!allocation) return INVALID_VALUE;
    submit(*stream, NO_ENGINE, 0, text("free id=%u", allocation->id), [allocation, context] {
        if (allocation->state == Allocation::Freed) {
            report("allocation #%u is freed twice", allocation->id);
            return SUCCESS;
        }
        // Whoever used it must come before this.
        allocation->writes = {allocation->begin, allocation->begin + allocation->size};
        settle_touches(*context);
        release(*allocation, "cuMemFreeAsync");
        return SUCCESS;
    });
    return SUCCESS;
}

API cuMemGetInfo_v2(size_t *free, size_t *total) {
    Call call("cuMemGetInfo");
    CURRENT(context);
    *total = settings().memory;
    *free = settings().memory - used_memory(context->device);
    return SUCCESS;
}

API cuMemHostAlloc(void **pointer, size_t size, unsigned) {
    Call call("cuMemHostAlloc");
    CURRENT(context);
    if (size == 0) return INVALID_VALUE;
    if (allocation_fails()) return OUT_OF_MEMORY;
    void *at = nullptr;
    if (posix_memalign(&at, 4096, size) != 0) return OUT_OF_MEMORY;
    poison(at, size);
    pinned()[(uintptr_t)at] = {(uintptr_t)at, size, false};
    trace("allocate pinned bytes=%zu", size);
    *pointer = at;
    return SUCCESS;
}
API cuMemAllocHost_v2(void **pointer, size_t size) { return cuMemHostAlloc(pointer, size, 0); }

API cuMemFreeHost(void *pointer) {
    Call call("cuMemFreeHost");
    CURRENT(context);
    auto found = pinned().find((uintptr_t)pointer);
    if (found == pinned().end() || found->second.registered) {
        report("cuMemFreeHost of %p, which cuMemHostAlloc did not give", pointer);
        return INVALID_VALUE;
    }
    finish_all(*context);
    pinned().erase(found);
    free(pointer);
    return context->sticky;
}

API cuMemHostRegister_v2(void *pointer, size_t size, unsigned) {
    Call call("cuMemHostRegister");
    CURRENT(context);
    if (!pointer || size == 0) return INVALID_VALUE;
    if (allocation_fails()) return OUT_OF_MEMORY;
    pinned()[(uintptr_t)pointer] = {(uintptr_t)pointer, size, true};
    return SUCCESS;
}
API cuMemHostUnregister(void *pointer) {
    Call call("cuMemHostUnregister");
    CURRENT(context);
    auto found = pinned().find((uintptr_t)pointer);
    if (found == pinned().end() || !found->second.registered) return INVALID_VALUE;
    finish_all(*context);
    pinned().erase(found);
    return SUCCESS;
}

// --- copies. 20 bytes per nanosecond over the bus, 1000 inside the card, and 2 microseconds to get going.

static double time_of(size_t bytes, double rate) { return 2000 + (double)bytes / rate; }

static Result copy_in(uintptr_t to, const void *from, size_t size) {
    if (!checked_range(to, size, true, "a copy from the host")) return ILLEGAL_ADDRESS;
    memcpy(driver_view(to), from, size);
    memset(initialised(to), 1, size);
    return SUCCESS;
}

static Result copy_out(void *to, uintptr_t from, size_t size) {
    if (!checked_range(from, size, false, "a copy to the host")) return ILLEGAL_ADDRESS;
    std::string unknown = first_uninitialised(from, size);
    if (!unknown.empty() && memory_is_checked()) {
        report("a copy to the host of %zu bytes reads %s, which nothing has written", size, unknown.c_str());
    }
    memcpy(to, driver_view(from), size);
    return SUCCESS;
}

// What an address argument is, before anything is put off: a host address here is a mistake of the caller.
static bool device_range(uintptr_t address, size_t size, const char *who) {
    if (is_device_address(address)) return true;
    report("%s of %zu bytes: %s", who, size, describe(address, size).c_str());
    return false;
}

static int copy_to_device(Context *context, Stream *stream, uintptr_t to, const void *from, size_t size, const char *who) {
    if (size == 0) return SUCCESS;
    if (!from || is_device_address((uintptr_t)from) || !device_range(to, size, who)) return INVALID_VALUE;
    std::string what = text("copy_htod bytes=%zu pinned=%d", size, is_pinned((uintptr_t)from, size));
    if (is_pinned((uintptr_t)from, size)) {
        // Read when the operation runs: who changes it before has changed what is copied.
        submit(*stream, COPY_IN, time_of(size, 20), what, [=] { return copy_in(to, from, size); });
    } else {
        // Pageable memory is staged before the call returns.
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + size);
        submit(*stream, COPY_IN, time_of(size, 10), what, [=] { return copy_in(to, staged->data(), size); });
    }
    return context->sticky;
}

static int copy_to_host(Context *context, Stream *stream, void *to, uintptr_t from, size_t size, bool waits, const char *who) {
    if (size == 0) return SUCCESS;
    if (!to || is_device_address((uintptr_t)to) || !device_range(from, size, who)) return INVALID_VALUE;
    bool is_pinned_memory = is_pinned((uintptr_t)to, size);
    std::string what = text("copy_dtoh bytes=%zu pinned=%d", size, is_pinned_memory);
    // Until the copy has run there is nothing to be read at the destination.
    if (is_pinned_memory && !waits) poison(to, size);
    OpRef op = submit(*stream, COPY_OUT, time_of(size, is_pinned_memory ? 20 : 10), what, [=] { return copy_out(to, from, size); });
    // Into pageable memory the call returns only once the copy is done.
    if (waits || !is_pinned_memory) finish(op);
    return context->sticky;
}

static int copy_inside(Context *context, Stream *stream, uintptr_t to, uintptr_t from, size_t size, const char *who) {
    if (size == 0) return SUCCESS;
    if (!device_range(to, size, who) || !device_range(from, size, who)) return INVALID_VALUE;
    submit(*stream, COMPUTE, time_of(size, 1000), text("copy_dtod bytes=%zu", size), [=] {
        if (!checked_range(from, size, false, "a copy on the device") || !checked_range(to, size, true, "a copy on the device")) {
            return ILLEGAL_ADDRESS;
        }
        memmove(driver_view(to), driver_view(from), size);
        memmove(initialised(to), initialised(from), size);
        return SUCCESS;
    });
    return context->sticky;
}

static int fill(Context *context, Stream *stream, uintptr_t to, unsigned value, unsigned width, size_t count, const char *who) {
    if (count == 0) return SUCCESS;
    if (!device_range(to, count * width, who) || to % width) return INVALID_VALUE;
    submit(*stream, COMPUTE, time_of(count * width, 1000), text("fill bytes=%zu", count * width), [=] {
        if (!checked_range(to, count * width, true, "a fill")) return ILLEGAL_ADDRESS;
        for (size_t i = 0; i < count; ++i) memcpy(driver_view(to) + i * width, &value, width);
        memset(initialised(to), 1, count * width);
        return SUCCESS;
    });
    return context->sticky;
}

// The forms without a stream run in the default one, and the host waits for them.
static int waited(Context *context, int result) {
    if (result == SUCCESS) finish(context->null_stream->tail);
    return result == SUCCESS ? context->sticky : result;
}

#define WAITED(name, types, body)                                                                     \
    API name##_v2 types {                                                                                              \
        Call call(#name);                                                                                              \
        CURRENT(context);                                                                                              \
        Stream *stream = context->null_stream;                                                                         \
        bool waits = true;                                                                                             \
        (void)waits;                                                                                                   \
        return waited(context, body);                                                                                  \
    }
WAITED(cuMemcpyHtoD, (uintptr_t to, const void *from, size_t size), copy_to_device(context, stream, to, from, size, "cuMemcpyHtoD"))
WAITED(cuMemcpyDtoH, (void *to, uintptr_t from, size_t size), copy_to_host(context, stream, to, from, size, waits, "cuMemcpyDtoH"))
WAITED(cuMemcpyDtoD, (uintptr_t to, uintptr_t from, size_t size), copy_inside(context, stream, to, from, size, "cuMemcpyDtoD"))
WAITED(cuMemsetD8, (uintptr_t to, unsigned char value, size_t count), fill(context, stream, to, value, 1, count, "cuMemsetD8"))
WAITED(cuMemsetD32, (uintptr_t to, unsigned value, size_t count), fill(context, stream, to, value, 4, count, "cuMemsetD32"))
#undef WAITED

API cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t size, void *handle) {
    Call call("cuMemcpyHtoDAsync");
    CURRENT(context);
    STREAM(context, handle);
    return copy_to_device(context, stream, to, from, size, "cuMemcpyHtoDAsync");
}
API cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t size, void *handle) {
    Call call("cuMemcpyDtoHAsync");
    CURRENT(context);
    STREAM(context, handle);
    return copy_to_host(context, stream, to, from, size, false, "cuMemcpyDtoHAsync");
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t size, void *handle) {
    Call call("cuMemcpyDtoDAsync");
    CURRENT(context);
    STREAM(context, handle);
    return copy_inside(context, stream, to, from, size, "cuMemcpyDtoDAsync");
}
API cuMemsetD8Async(uintptr_t to, unsigned char value, size_t count, void *handle) {
    Call call("cuMemsetD8Async");
    CURRENT(context);
    STREAM(context, handle);
    return fill(context, stream, to, value, 1, count, "cuMemsetD8Async");
}
API cuMemsetD32Async(uintptr_t to, unsigned value, size_t count, void *handle) {
    Call call("cuMemsetD32Async");
    CURRENT(context);
    STREAM(context, handle);
    return fill(context, stream, to, value, 4, count, "cuMemsetD32Async");
}

API cuPointerGetAttribute(void *data, int attribute, uintptr_t pointer) {
    Call call("cuPointerGetAttribute");
    Allocation *allocation = allocation_at(pointer);
    if (!allocation || allocation->state == Allocation::Freed) return INVALID_VALUE;
    if (attribute == 1) *(Context **)data = &context_of(allocation->device);
    else if (attribute == 2) *(unsigned *)data = 2;
    else if (attribute == 9) *(int *)data = allocation->device;
    else return NOT_SUPPORTED;
    return SUCCESS;
}

// --- memory pools: one per device, which keeps nothing
API cuDeviceGetDefaultMemPool(void **pool, int device) {
    *pool = &context_of(device);
    return settings().pools ? SUCCESS : NOT_SUPPORTED;
}
API cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
API cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }
API cuMemPoolGetAttribute(void *pool, int attribute, void *value) {
    Call call("cuMemPoolGetAttribute");
    if (attribute <= 3) *(int *)value = 1;
    else *(uint64_t *)value = attribute == 4 ? 0 : used_memory(((Context *)pool)->device);
    return SUCCESS;
}
API cuMemPoolTrimTo(void *, size_t) { return SUCCESS; }
