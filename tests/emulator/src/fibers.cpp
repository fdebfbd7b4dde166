#include "fibers.h"

#include <cstdint>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#if defined(__x86_64__)
asm(R"(
.text
.globl simulated_switch
.hidden simulated_switch
.type simulated_switch, @function
simulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size simulated_switch, . - simulated_switch
)");
static const int SAVED = 6, RETURN_SLOT = 6, FRAME = 8;
#elif defined(__aarch64__)
asm(R"(
.text
.globl simulated_switch
.hidden simulated_switch
.type simulated_switch, %function
simulated_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size simulated_switch, . - simulated_switch
)");
static const int SAVED = 20, RETURN_SLOT = 11, FRAME = 20;
#else
#error "the emulator switches stacks on x86-64 and aarch64 only"
#endif

namespace simulated {

static std::vector<char *> stacks;

char *stack_at(unsigned index) {
    while (stacks.size() <= index) {
        void *at = mmap(nullptr, STACK_BYTES + STACK_GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) return nullptr;
        mprotect(at, STACK_GUARD, PROT_NONE);
        stacks.push_back((char *)at + STACK_GUARD);
    }
    return stacks[index];
}

void *fresh_stack(unsigned index, void (*entry)()) {
    char *low = stack_at(index);
    if (!low) return nullptr;
    // The top is aligned to 16; after the switch the stack looks as if `entry` had just been called.
    void **frame = (void **)(low + stack_bytes(index)) - FRAME;
    memset(frame, 0, sizeof(void *) * SAVED);
    frame[RETURN_SLOT] = (void *)entry;
    return frame;
}

bool in_stack_guard(unsigned long address) {
    for (char *low : stacks) {
        if (address - ((unsigned long)low - STACK_GUARD) < STACK_GUARD) return true;
    }
    return false;
}

} // namespace simulated
