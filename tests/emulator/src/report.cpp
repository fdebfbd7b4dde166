#include "driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <set>
#include <unistd.h>

namespace simulated {

static std::string format_text(const char *format, va_list arguments) {
    char buffer[2048];
    vsnprintf(buffer, sizeof buffer, format, arguments);
    return buffer;
}

std::string text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string result = format_text(format, arguments);
    va_end(arguments);
    return result;
}

static unsigned findings = 0;

void report(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string line = "simulated CUDA: " + format_text(format, arguments) + "\n";
    va_end(arguments);
    ++findings;
    // One write: lines of several threads do not mix. A standard error that cannot be written leaves the exit status.
    if (write(STDERR_FILENO, line.data(), line.size()) < 0) ++findings;
}

void trace(const char *format, ...) {
    static FILE *file = [] {
        const char *name = getenv("CODEWORD_SIM_TRACE");
        return name && *name ? fopen(name, "a") : nullptr;
    }();
    if (!file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fflush(file);
}

void record_launched(const std::string &kernel) {
    static auto *known = new std::set<std::string>;
    static int file = [] {
        const char *name = getenv("CODEWORD_SIM_LAUNCHED");
        return name && *name ? open(name, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
    }();
    if (file < 0 || !known->insert(kernel).second) return;
    // One write: lines of several processes do not mix.
    std::string line = kernel + "\n";
    if (write(file, line.data(), line.size()) < 0) report("%s cannot be written", getenv("CODEWORD_SIM_LAUNCHED"));
}

// Runs when the process ends in good order: what is still allocated was forgotten.
struct AtExit {
    ~AtExit() {
        for (int device = 0; device < settings().devices && settings().leaks; ++device) {
            // After an error that sticks nothing can be freed.
            if (context_of(device).sticky != SUCCESS) continue;
            for (Allocation *allocation : live_allocations(device)) {
                report("leak: allocation #%u of %zu bytes on device %d was never freed", allocation->id, allocation->size, device);
            }
        }
        for (auto &entry : pinned()) {
            if (settings().leaks) report("leak: %zu bytes of pinned host memory were never freed", entry.second.size);
        }
        if (settings().leaks && open_streams()) report("leak: %zu streams were never destroyed", open_streams());
        fflush(nullptr);
        if (findings && settings().strict) _exit(99);
    }
};
// Constructed by the first call, after everything that it looks at.
void watch_exit() { static AtExit at_exit; }

} // namespace simulated
