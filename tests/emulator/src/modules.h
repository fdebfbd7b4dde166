// Modules: PTX text, as far as the driver has to understand it.
#pragma once

#include "driver.h"

namespace simulated {

struct Function {
    std::string name;
    const Kernel *kernel;
    int ptx_version, max_threads, static_shared, dynamic_limit;
};
struct Module { Context *context; std::map<std::string, std::unique_ptr<Function>> functions; };

// Loads PTX text for this driver and device; what it objects to is in the result, with a trace line that says why.
Result load_module(Context &context, const char *image, Module **module);
// NOT_FOUND where the PTX has no such entry; a report where it has and no kernel file was built for it.
Result get_function(Module &module, const std::string &name, Function **function);

} // namespace simulated
