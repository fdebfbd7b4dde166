// Entry points: initialisation, devices, contexts, error names.
#include "api.h"

#include <cstdio>
#include <cstring>

namespace simulated {

static std::recursive_mutex &lock_of_all() {
    static auto *mutex = new std::recursive_mutex;
    return *mutex;
}

Call::Call(const char *name) : lock(lock_of_all()) {
    trace("call %s", name);
    run_some();
}

void watch_exit();
static bool ready = false;
bool is_initialised() { return ready; }

Context &context_of(int device) {
    static auto *contexts = new std::vector<Context>(64);
    Context &context = (*contexts)[device];
    context.device = device;
    return context;
}

static thread_local Context *current = nullptr;
Context *current_context() { return current; }
void set_current_context(Context *context) { current = context; }

Stream *stream_of(Context &context, void *handle) {
    if ((uintptr_t)handle <= 1) return context.null_stream;
    if ((uintptr_t)handle == 2) return context.per_thread_stream;
    Stream *stream = (Stream *)handle;
    return is_stream(stream) && stream->context == &context ? stream : nullptr;
}

Result submit_in_current_context(void *handle, double nanoseconds, const std::string &what, std::function<Result()> run) {
    Call call("cublas");
    CURRENT(context);
    STREAM(context, handle);
    submit(*stream, COMPUTE, nanoseconds, what, std::move(run));
    return SUCCESS;
}

// Everything that lived in the context goes with it.
static void reset(Context &context) {
    finish_all(context);
    for (Allocation *allocation : live_allocations(context.device)) {
        if (settings().leaks && context.sticky == SUCCESS) {
            report("leak: allocation #%u of %zu bytes was alive when its context was released", allocation->id, allocation->size);
        }
        release(*allocation, "the release of its context");
    }
    destroy_stream(context.null_stream);
    destroy_stream(context.per_thread_stream);
    context.null_stream = context.per_thread_stream = nullptr;
    context.sticky = SUCCESS;
}

static bool is_device(int device) { return device >= 0 && device < settings().devices; }

static int attribute(int which) {
    int capability = settings().capability;
    bool hopper = capability >= 90, turing = capability == 75;
    switch (which) {
    case 1: return 1024;                                   // threads per block
    case 2: case 3: return 1024;                           // block x, y
    case 4: return 64;
    case 5: return 2147483647;                             // grid x
    case 6: case 7: return 65535;
    case 8: return 48 << 10;                               // shared memory per block
    case 9: return 64 << 10;                               // constant memory
    case 10: return 32;                                    // warp
    case 11: return 2147483647;                            // pitch
    case 12: case 82: return 65536;                        // registers per block, per multiprocessor
    case 13: return 1410000;                               // clock, kHz
    case 14: return 512;                                   // alignment of textures
    case 15: case 31: case 41: return 1;                   // overlap, concurrent kernels, unified addressing
    case 16:
        if (settings().multiprocessors) return settings().multiprocessors;
        return capability == 70 ? 80 : turing ? 72 : hopper ? 132 : 108;
    case 18: case 20: case 32: return 0;                   // integrated, compute mode, ECC
    case 19: case 83: case 95: return 1;                   // maps host memory, managed memory, cooperative launch
    case 33: return 1;                                     // PCI bus
    case 34: return 0;
    case 36: return 1215000;
    case 37: return 5120;
    case 38: return capability == 70 ? 6 << 20 : turing ? 4 << 20 : hopper ? 50 << 20 : 40 << 20; // L2
    case 39: return turing ? 1024 : capability == 86 || capability == 89 || capability == 120 ? 1536 : 2048;
    case 40: return 2;                                     // copy engines
    case 75: return capability / 10;
    case 76: return capability % 10;
    case 81: return shared_limit(capability) + 1024;
    case 97: return shared_limit(capability);
    case 106: return turing ? 16 : 32;
    case 111: return capability >= 80 ? 1024 : 0;
    case 115: return settings().pools;
    case 120: return hopper;
    default: return -1;
    }
}

} // namespace simulated

using namespace simulated;

API cuInit(unsigned flags) {
    Call call("cuInit");
    if (flags) return INVALID_VALUE;
    if (settings().devices == 0) return NO_DEVICE;
    ready = true;
    watch_exit();
    return SUCCESS;
}

API cuDriverGetVersion(int *version) {
    Call call("cuDriverGetVersion");
    *version = settings().driver;
    return SUCCESS;
}

API cuDeviceGetCount(int *count) {
    Call call("cuDeviceGetCount");
    if (!ready) return NOT_INITIALIZED;
    *count = settings().devices;
    return SUCCESS;
}

API cuDeviceGet(int *device, int ordinal) {
    Call call("cuDeviceGet");
    if (!ready) return NOT_INITIALIZED;
    if (!is_device(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

API cuDeviceGetName(char *name, int length, int device) {
    Call call("cuDeviceGetName");
    if (!is_device(device)) return INVALID_DEVICE;
    if (length <= 0) return INVALID_VALUE;
    snprintf(name, (size_t)length, "Simulated GPU %d.%d", settings().capability / 10, settings().capability % 10);
    return SUCCESS;
}

static int uuid_of(unsigned char *uuid, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    memset(uuid, 0x51, 15);
    uuid[15] = (unsigned char)device;
    return SUCCESS;
}
API cuDeviceGetUuid(unsigned char *uuid, int device) { return uuid_of(uuid, device); }
API cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return uuid_of(uuid, device); }

API cuDeviceGetAttribute(int *value, int which, int device) {
    Call call("cuDeviceGetAttribute");
    if (!is_device(device)) return INVALID_DEVICE;
    int found = attribute(which);
    if (found < 0) {
        report("device attribute %d is not simulated", which);
        return INVALID_VALUE;
    }
    *value = found;
    return SUCCESS;
}

API cuDeviceTotalMem_v2(size_t *bytes, int device) {
    Call call("cuDeviceTotalMem");
    if (!is_device(device)) return INVALID_DEVICE;
    *bytes = settings().memory;
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(Context **context, int device) {
    Call call("cuDevicePrimaryCtxRetain");
    if (!ready) return NOT_INITIALIZED;
    if (!is_device(device)) return INVALID_DEVICE;
    Context &it = context_of(device);
    if (it.retained == 0) {
        it.null_stream = make_stream(it, true);
        it.per_thread_stream = make_stream(it, true);
    }
    ++it.retained;
    *context = &it;
    return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    Call call("cuDevicePrimaryCtxRelease");
    if (!is_device(device)) return INVALID_DEVICE;
    Context &it = context_of(device);
    if (it.retained == 0) return INVALID_CONTEXT;
    if (it.retained == 1) reset(it);
    --it.retained;
    return SUCCESS;
}

API cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    Call call("cuDevicePrimaryCtxGetState");
    if (!is_device(device)) return INVALID_DEVICE;
    *flags = 0;
    *active = context_of(device).retained > 0;
    return SUCCESS;
}

API cuCtxGetCurrent(Context **context) {
    Call call("cuCtxGetCurrent");
    if (!ready) return NOT_INITIALIZED;
    *context = current_context();
    return SUCCESS;
}

API cuCtxSetCurrent(Context *context) {
    Call call("cuCtxSetCurrent");
    if (!ready) return NOT_INITIALIZED;
    if (context && context->retained == 0) return INVALID_CONTEXT;
    set_current_context(context);
    return SUCCESS;
}

static thread_local std::vector<Context *> *below = nullptr;
API cuCtxPushCurrent_v2(Context *context) {
    Call call("cuCtxPushCurrent");
    if (!context || context->retained == 0) return INVALID_CONTEXT;
    if (!below) below = new std::vector<Context *>;
    below->push_back(current_context());
    set_current_context(context);
    return SUCCESS;
}
API cuCtxPopCurrent_v2(Context **context) {
    Call call("cuCtxPopCurrent");
    if (!current_context()) return INVALID_CONTEXT;
    if (context) *context = current_context();
    set_current_context(below && !below->empty() ? below->back() : nullptr);
    if (below && !below->empty()) below->pop_back();
    return SUCCESS;
}

API cuCtxGetDevice(int *device) {
    Call call("cuCtxGetDevice");
    CURRENT(context);
    *device = context->device;
    return SUCCESS;
}

API cuCtxSynchronize() {
    Call call("cuCtxSynchronize");
    CURRENT(context);
    finish_all(*context);
    return context->sticky;
}

API cuCtxSetFlags(unsigned) {
    Call call("cuCtxSetFlags");
    CURRENT(context);
    return SUCCESS;
}

API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    Call call("cuCtxGetStreamPriorityRange");
    CURRENT(context);
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return SUCCESS;
}

API cuDeviceCanAccessPeer(int *can, int, int) {
    *can = 0;
    return SUCCESS;
}

struct ErrorText { int code; const char *name, *words; };
static const ErrorText ERRORS[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {710, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

static int error_text(int code, const char **words, bool name) {
    for (const ErrorText &error : ERRORS) {
        if (error.code != code) continue;
        *words = name ? error.name : error.words;
        return SUCCESS;
    }
    *words = nullptr;
    return INVALID_VALUE;
}
API cuGetErrorName(int code, const char **words) { return error_text(code, words, true); }
API cuGetErrorString(int code, const char **words) { return error_text(code, words, false); }
