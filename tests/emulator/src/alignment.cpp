// Accesses at addresses that are no multiple of what their type needs: a device stops at them, the host may not. The
// compiler calls this function there, as it does for its own sanitizer of undefined behaviour.
#include "checks.h"

namespace simulated {

// What the compiler passes; its own, "type mismatch", version 1.
struct Mismatch {
    struct { const char *file; unsigned line, column; } at;
    const struct { unsigned short kind, info; char name[1]; } *type;
    unsigned char log_alignment, access;
};

} // namespace simulated

using namespace simulated;

extern "C" __attribute__((visibility("default"))) void __ubsan_handle_type_mismatch_v1(const Mismatch *mismatch, uintptr_t address) {
    std::string where = is_device_address(address) ? describe(address, 1)
                        : is_shared(address)       ? text("byte %zu of shared memory", (size_t)(address - shared_low))
                                                   : text("%p", (void *)address);
    report("%s %s %s at %s, which is not aligned to %u bytes, in line %u", here().c_str(), mismatch->access == 1 ? "writes" : "reads",
           mismatch->type->name, where.c_str(), 1u << mismatch->log_alignment, mismatch->at.line);
    fail_launch(MISALIGNED_ADDRESS);
}
