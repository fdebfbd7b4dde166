// A switch between stacks without a system call.
#pragma once

extern "C" {
// Saves the callee-saved registers on the running stack, stores its pointer in *from and goes on where `to` was saved.
void simulated_switch(void **from, void *to);
}

namespace simulated {

const unsigned long STACK_BYTES = 64 << 10, STACK_GUARD = 4096;

// Stacks lie a multiple of a page apart: were all to begin at their very top, those of a warp would push each other out
// of the cache. So each uses a little less than the one before.
inline unsigned long stack_bytes(unsigned index) { return STACK_BYTES - index % 32 * 128; }

// The lowest address of stack number `index`, behind its guard page. Stacks are made once and used again.
char *stack_at(unsigned index);
// A stack pointer that, switched to, enters `entry`, which must not return.
void *fresh_stack(unsigned index, void (*entry)());
// Whether the address lies in the guard page of a stack.
bool in_stack_guard(unsigned long address);

} // namespace simulated
