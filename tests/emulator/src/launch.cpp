// A launch: the kernel's library, its shared memory, its blocks one after the other, and faults turned into errors.
#include "block.h"
#include "checks.h"
#include "fibers.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

namespace simulated {

struct TlsIndex { size_t module, offset; };
extern "C" void *__tls_get_addr(TlsIndex *);

// --- the libraries that hold the kernels, in the folder `kernels` beside the driver

struct Library {
    void *handle;
    bool special;  // of a file `*_sm90a.cu`
};

static std::vector<Library> &libraries() {
    static std::vector<Library> handles = [] {
        std::vector<Library> found;
        Dl_info self;
        if (!dladdr((void *)&find_kernel, &self)) return found;
        std::string folder(self.dli_fname);
        folder = folder.substr(0, folder.rfind('/') + 1) + "kernels/";
        std::vector<std::string> names;
        if (DIR *directory = opendir(folder.c_str())) {
            while (dirent *entry = readdir(directory)) names.push_back(entry->d_name);
            closedir(directory);
        }
        std::sort(names.begin(), names.end());
        for (const std::string &name : names) {
            if (name.size() < 4 || name.compare(name.size() - 3, 3, ".so") != 0) continue;
            if (void *handle = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL)) found.push_back({handle, name.find("_sm90a") != std::string::npos});
            else report("cannot load the kernels: %s", dlerror());
        }
        return found;
    }();
    return handles;
}

// The size of the thread-local block of a library, which is its shared memory, and the extents of its code and data.
struct Extents { const void *base; size_t tls_size; std::vector<Range> segments; };

static Extents extents_of(void *library) {
    link_map *map = nullptr;
    dlinfo(library, RTLD_DI_LINKMAP, &map);
    Extents extents{(const void *)(map ? map->l_addr : 0), 0, {}};
    dl_iterate_phdr([](dl_phdr_info *info, size_t, void *data) {
        Extents &into = *(Extents *)data;
        if ((const void *)info->dlpi_addr != into.base) return 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr) &header = info->dlpi_phdr[i];
            uintptr_t begin = info->dlpi_addr + header.p_vaddr;
            if (header.p_type == PT_TLS) into.tls_size = header.p_memsz;
            if (header.p_type == PT_LOAD) into.segments.push_back({begin, begin + header.p_memsz});
        }
        return 1;
    }, &extents);
    return extents;
}

const Kernel *find_kernel(const std::string &name, bool special) {
    static auto *known = new std::map<std::pair<std::string, bool>, Kernel>;
    auto found = known->find({name, special});
    if (found != known->end()) return &found->second;
    for (const Library &library : libraries()) {
        if (library.special != special) continue;
        auto *entry = (const SimulatedEntry *)dlsym(library.handle, ("simulated_entry_" + name).c_str());
        if (!entry) continue;
        Kernel kernel{};
        kernel.entry = entry;
        kernel.library = library.handle;
        kernel.checked = dlsym(library.handle, "simulated_checked") != nullptr;
        kernel.special = special;
        dlinfo(library.handle, RTLD_DI_TLS_MODID, &kernel.tls_module);
        kernel.tls_size = extents_of(library.handle).tls_size;
        kernel.dynamic_shared = (unsigned char *(*)(unsigned))dlsym(library.handle, "simulated_dynamic_shared");
        return &(*known)[{name, special}].operator=(kernel);
    }
    // Kernels of tests have one file for all.
    return special ? find_kernel(name, false) : nullptr;
}

int shared_limit(int capability) {
    switch (capability) {
    case 70: return 96 << 10;
    case 75: return 64 << 10;
    case 80: case 87: return 163 << 10;
    case 86: case 89: case 120: return 99 << 10;
    default: return capability >= 90 ? 227 << 10 : 48 << 10;
    }
}

// --- faults inside of a kernel

static sigjmp_buf after_fault;
static volatile sig_atomic_t in_kernel = 0;
static pthread_t kernel_thread;
static struct sigaction before_segv, before_bus;

static void on_fault(int signal, siginfo_t *info, void *context) {
    if (!in_kernel || !pthread_equal(kernel_thread, pthread_self())) {
        // Not ours: the handler that was there before gets the fault when it happens again.
        sigaction(signal, signal == SIGSEGV ? &before_segv : &before_bus, nullptr);
        return;
    }
    uintptr_t address = (uintptr_t)info->si_addr;
    bool writes = false;
#if defined(__x86_64__)
    writes = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
    if (info->si_code == SI_KERNEL) {
        report("%s uses a misaligned or impossible address", here().c_str());
        siglongjmp(after_fault, 1);
    }
#else
    (void)context;
#endif
    if (in_stack_guard(address)) {
        report("%s runs out of its stack of %lu bytes", here().c_str(), STACK_BYTES);
    } else {
        report("%s %s %s", here().c_str(), writes ? "writes" : "reads", describe(address, 1).c_str());
    }
    siglongjmp(after_fault, 1);
}

// Handlers and the stack they run on, for the length of a launch.
struct FaultGuard {
    stack_t old_stack{};
    static char *stack_bytes() {
        static char *bytes = (char *)malloc(1 << 16);
        return bytes;
    }
    FaultGuard() {
        stack_t stack{};
        stack.ss_sp = stack_bytes();
        stack.ss_size = 1 << 16;
        sigaltstack(&stack, &old_stack);
        struct sigaction action{};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &before_segv);
        sigaction(SIGBUS, &action, &before_bus);
        kernel_thread = pthread_self();
    }
    ~FaultGuard() {
        sigaction(SIGSEGV, &before_segv, nullptr);
        sigaction(SIGBUS, &before_bus, nullptr);
        sigaltstack(&old_stack, nullptr);
    }
};

// --- the launch

static const unsigned MARGIN = 64;
static const unsigned char MARGIN_BYTE = 0xc6;

struct SharedMemory {
    std::vector<Range> fixed;
    std::vector<uintptr_t> dynamics;
    Range all{0, 0};
    unsigned dynamic_bytes = 0;

    SharedMemory(const Kernel &kernel, unsigned bytes) : dynamic_bytes(bytes) {
        if (!kernel.tls_module || !kernel.tls_size) return;
        TlsIndex index{kernel.tls_module, 0};
        uintptr_t at = (uintptr_t)__tls_get_addr(&index), end = at + kernel.tls_size;
        all = {at, end};
        // The dynamic arrays of a file, one per name, all large; what lies between them is static.
        std::vector<uintptr_t> arrays;
        for (unsigned i = 0; kernel.dynamic_shared && kernel.dynamic_shared(i); ++i) arrays.push_back((uintptr_t)kernel.dynamic_shared(i));
        std::sort(arrays.begin(), arrays.end());
        for (uintptr_t array : arrays) {
            if (at < array) fixed.push_back({at, array});
            at = array + SIMULATED_DYNAMIC_SHARED;
        }
        if (at < end) fixed.push_back({at, end});
        dynamics = arrays;
    }

    void prepare() const {
        for (const Range &range : fixed) poison((void *)range.begin, range.end - range.begin);
        for (uintptr_t array : dynamics) {
            poison((void *)array, dynamic_bytes);
            memset((void *)(array + dynamic_bytes), MARGIN_BYTE, MARGIN);
        }
    }
    bool is_whole() const {
        for (uintptr_t array : dynamics) {
            for (unsigned i = 0; i < MARGIN; ++i) {
                if (((unsigned char *)array)[dynamic_bytes + i] == MARGIN_BYTE) continue;
                report("kernel %s, block (%u,%u,%u) wrote %u bytes behind its %u bytes of dynamic shared memory",
                       block.launch->kernel->entry->name, block.index.x, block.index.y, block.index.z, i, dynamic_bytes);
                return false;
            }
        }
        return true;
    }
    std::vector<Range> ranges() const {
        std::vector<Range> all = fixed;
        for (uintptr_t array : dynamics) all.push_back({array, array + dynamic_bytes});
        return all;
    }
};

static Result run_blocks(const Launch &launch, const SharedMemory &shared) {
    uint64_t count = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    // With a seed the blocks run in another order: a stride that has no factor in common with their number.
    uint64_t stride = 1, first = 0;
    if (settings().seed && count > 1) {
        auto has_common_factor = [](uint64_t a, uint64_t b) {
            while (b) { uint64_t rest = a % b; a = b; b = rest; }
            return a != 1;
        };
        do stride = random_number() % count; while (has_common_factor(stride, count));
        first = random_number() % count;
    }
    for (uint64_t i = 0; i < count; ++i) {
        uint64_t linear = (uint64_t)(((unsigned __int128)i * stride + first) % count);
        uint3 index{(unsigned)(linear % launch.grid.x), (unsigned)(linear / launch.grid.x % launch.grid.y),
                    (unsigned)(linear / ((uint64_t)launch.grid.x * launch.grid.y))};
        shared.prepare();
        if (!run_block(launch, index)) return block.failed == SUCCESS ? LAUNCH_FAILED : block.failed;
        if (!shared.is_whole()) return ILLEGAL_ADDRESS;
    }
    return SUCCESS;
}

Result run_launch(const Launch &launch) {
    const Kernel &kernel = *launch.kernel;
    SharedMemory shared(kernel, launch.shared_bytes);
    begin_launch_checks(kernel.checked, shared.ranges(), shared.all, extents_of(kernel.library).segments);
    FaultGuard guard;
    open_memory(launch.device);
    Result result;
    in_kernel = 1;
    if (sigsetjmp(after_fault, 0) == 0) {
        result = run_blocks(launch, shared);
    } else {
        result = ILLEGAL_ADDRESS;
    }
    in_kernel = 0;
    block.current = nullptr;
    close_memory(launch.device);
    bool whole = check_redzones(launch.device, text("kernel %s", kernel.entry->name).c_str());
    if (result != SUCCESS || !whole) return result == SUCCESS ? ILLEGAL_ADDRESS : result;
    record_launched(std::string(kernel.entry->name) + (kernel.special ? " of sm_90a" : ""));
    return SUCCESS;
}

} // namespace simulated
