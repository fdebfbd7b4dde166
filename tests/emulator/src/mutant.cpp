// One change of what a launch is given, as if the code that launches were wrong: scripts/mutate.py asks for it.
#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simulated {

// CODEWORD_SIM_MUTANT is "KERNEL PLACE CHANGE FILE"; FILE is made when the change is first applied.
struct Mutant {
    char kernel[64] = "", place[32] = "", change[32] = "", file[1024] = "";
    Mutant() {
        const char *value = getenv("CODEWORD_SIM_MUTANT");
        if (value && sscanf(value, "%63s %31s %31s %1023s", kernel, place, change, file) != 4) {
            report("CODEWORD_SIM_MUTANT is not KERNEL PLACE CHANGE FILE: %s", value);
        }
    }
};

// Leaves at least one: a launch of nothing is refused whatever the code does.
static bool fewer(unsigned &count, const char *change) {
    unsigned less = !strcmp(change, "half") ? count / 2 : count - 1;
    if (count < 2) return false;
    count = less;
    return true;
}

static bool change_argument(std::vector<char> &argument, const char *change) {
    std::vector<char> before = argument;
    if (!strcmp(change, "half") && argument.size() == sizeof(double)) {
        double value;
        memcpy(&value, argument.data(), sizeof value);
        value /= 2;
        memcpy(argument.data(), &value, sizeof value);
    } else if (!strcmp(change, "half")) {
        float value;
        memcpy(&value, argument.data(), sizeof value);
        value /= 2;
        memcpy(argument.data(), &value, sizeof value);
    } else if (!strcmp(change, "zero")) {
        memset(argument.data(), 0, argument.size());
    } else {
        // Little-endian, as all hosts of this driver are.
        uint64_t value = 0;
        memcpy(&value, argument.data(), argument.size());
        value += (uint64_t)strtoll(change, nullptr, 10);
        memcpy(argument.data(), &value, argument.size());
    }
    return argument != before;
}

bool is_left_out(Launch &launch) {
    static const Mutant mutant;
    if (strcmp(launch.kernel->entry->name, mutant.kernel)) return false;
    bool changed = false, left_out = false;
    unsigned first = 0, second = 0;
    if (!strcmp(mutant.place, "launch")) {
        changed = left_out = true;
    } else if (!strcmp(mutant.place, "grid.x")) {
        changed = fewer(launch.grid.x, mutant.change);
    } else if (!strcmp(mutant.place, "grid.y")) {
        changed = fewer(launch.grid.y, mutant.change);
    } else if (!strcmp(mutant.place, "block.x")) {
        changed = fewer(launch.block.x, mutant.change);
    } else if (!strcmp(mutant.place, "shared")) {
        changed = fewer(launch.shared_bytes, mutant.change);
    } else if (sscanf(mutant.place, "%u,%u", &first, &second) == 2 && second < launch.arguments.size()) {
        changed = launch.arguments[first] != launch.arguments[second];
        std::swap(launch.arguments[first], launch.arguments[second]);
    } else if (sscanf(mutant.place, "%u", &first) == 1 && first < launch.arguments.size()) {
        changed = change_argument(launch.arguments[first], mutant.change);
    } else {
        report("CODEWORD_SIM_MUTANT: %s has no %s", mutant.kernel, mutant.place);
    }
    if (changed) {
        if (FILE *file = fopen(mutant.file, "w")) fclose(file);
    }
    return left_out;
}

} // namespace simulated
