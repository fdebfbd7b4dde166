// What every entry point begins with.
#pragma once

#include "driver.h"
#include "modules.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace simulated {

// Held for the whole length of every call. Recursive: a host function of a stream may not call back, but should it do
// so, the answer is an error and no deadlock.
struct Call {
    explicit Call(const char *name);
    std::unique_lock<std::recursive_mutex> lock;
};

bool is_initialised();
Context *current_context();
void set_current_context(Context *context);

// The context of the calling thread, or the error that the call has to return.
#define CURRENT(context)                                                                                               \
    Context *context = current_context();                                                                              \
    if (!is_initialised()) return NOT_INITIALIZED;                                                                     \
    if (!context || context->retained == 0) return INVALID_CONTEXT;                                                    \
    if (context->sticky != SUCCESS) return context->sticky

// The stream that a handle names: null and 1 are the default one, 2 that of the thread. Null where there is none.
Stream *stream_of(Context &context, void *handle);
#define STREAM(context, handle)                                                                                        \
    Stream *stream = stream_of(*context, handle);                                                                      \
    if (!stream) return INVALID_HANDLE

} // namespace simulated
