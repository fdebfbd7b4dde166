// What the build appends to a kernel file, once per kernel: how the driver learns the sizes of the arguments and calls
// the function with them.
#pragma once

#include "entry_types.h"

template <auto kernel, class F = decltype(kernel)> struct SimulatedCall;
template <auto kernel, class... A> struct SimulatedCall<kernel, void (*)(A...)> {
    // One more than needed: an array of no elements is not C++.
    static constexpr SimulatedParameter parameters[sizeof...(A) + 1] = {{sizeof(A), std::is_pointer<A>::value}..., {0, 0}};
    template <size_t... I> static void unpack(void **arguments, std::index_sequence<I...>) {
        kernel(*(typename std::remove_cv<A>::type *)arguments[I]...);
    }
    // Outside of the checks: what it reads is the driver's own copy of the arguments.
    __attribute__((noinline, no_sanitize("thread"))) static void call([[maybe_unused]] void **arguments) {
        unpack(arguments, std::make_index_sequence<sizeof...(A)>());
    }
};

#define SIMULATED_ENTRY(kernel, max_threads)                                                                           \
    extern "C" __attribute__((visibility("default"))) const SimulatedEntry simulated_entry_##kernel = {                \
        #kernel, SimulatedCall<kernel>::parameters, sizeof SimulatedCall<kernel>::parameters / sizeof(SimulatedParameter) - 1, \
        max_threads, SimulatedCall<kernel>::call};
