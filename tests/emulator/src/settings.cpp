#include "driver.h"

#include <cstdlib>
#include <cstring>

namespace simulated {

static uint64_t number(const char *name, uint64_t fallback) {
    const char *value = getenv(name);
    return value && *value ? strtoull(value, nullptr, 0) : fallback;
}

const Settings &settings() {
    static const Settings values = [] {
        Settings s;
        s.memory = number("CODEWORD_SIM_MEMORY", 4ull << 30);
        s.driver = (int)number("CODEWORD_SIM_DRIVER", 12080);
        s.capability = (int)number("CODEWORD_SIM_CAPABILITY", 80);
        s.devices = (int)number("CODEWORD_SIM_DEVICES", 1);
        s.multiprocessors = (int)number("CODEWORD_SIM_MULTIPROCESSORS", 0);
        s.seed = number("CODEWORD_SIM_SEED", 0);
        s.fail_alloc = (long)number("CODEWORD_SIM_FAIL_ALLOC", 0);
        s.pools = number("CODEWORD_SIM_POOLS", 1) != 0;
        s.guard_low = number("CODEWORD_SIM_GUARD_LOW", 0) != 0;
        s.strict = number("CODEWORD_SIM_STRICT", 1) != 0;
        const char *tensor = getenv("CODEWORD_SIM_TENSOR");
        s.tensor_bits_lost = !tensor ? 0 : !strcmp(tensor, "hostile") ? 1 : !strcmp(tensor, "coarse") ? 11 : 0;
        s.leaks = number("CODEWORD_SIM_LEAKS", 1) != 0;
        return s;
    }();
    return values;
}

bool allocation_fails() {
    static long count = 0;
    ++count;
    if (count != settings().fail_alloc) return false;
    trace("fail allocation=%ld", count);
    return true;
}

// splitmix64
uint64_t random_number() {
    static uint64_t state = settings().seed * 0x9e3779b97f4a7c15ull;
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

} // namespace simulated
