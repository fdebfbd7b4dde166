#include "modules.h"

#include <cstdlib>
#include <cstring>

namespace simulated {

struct Entry { int max_threads = 1024, static_shared = 0; std::vector<unsigned> parameters; };

// The PTX version that came with a CUDA version, as NVIDIA's table of releases has it.
static int newest_ptx(int driver) {
    int major = driver / 1000, minor = driver % 1000 / 10;
    switch (major) {
    case 11: return 70 + (minor > 8 ? 8 : minor);
    case 12: return minor <= 5 ? 80 + minor : minor <= 6 ? 85 : minor == 7 ? 86 : minor == 8 ? 87 : 88;
    default: return major < 11 ? 65 : 90 + minor;
    }
}

static std::string without_comments(const char *image) {
    std::string out;
    for (const char *at = image; *at;) {
        if (at[0] == '/' && at[1] == '/') {
            while (*at && *at != '\n') ++at;
        } else if (at[0] == '/' && at[1] == '*') {
            const char *end = strstr(at + 2, "*/");
            at = end ? end + 2 : at + strlen(at);
        } else {
            out += *at++;
        }
    }
    return out;
}

static unsigned type_bytes(const std::string &type) {
    size_t digits = type.find_first_of("0123456789");
    return digits == std::string::npos ? 0 : (unsigned)atoi(type.c_str() + digits) / 8;
}

// One declaration such as ".param .align 8 .b8 name[24]": bytes of the type times the number in brackets.
static unsigned declared_bytes(const std::string &declaration) {
    unsigned bytes = 0;
    for (size_t dot = declaration.find('.'); dot != std::string::npos; dot = declaration.find('.', dot + 1)) {
        char kind = declaration[dot + 1];
        bool is_type = (kind == 'b' || kind == 'u' || kind == 's' || kind == 'f') && isdigit((unsigned char)declaration[dot + 2]);
        if (is_type) bytes = type_bytes(declaration.substr(dot + 1, 4));
    }
    size_t bracket = declaration.find('[');
    return bracket == std::string::npos ? bytes : bytes * (unsigned)atoi(declaration.c_str() + bracket + 1);
}

static Entry read_entry(const std::string &ptx, size_t name_end) {
    Entry entry;
    size_t body = ptx.find('{', name_end), open = ptx.find('(', name_end);
    if (open != std::string::npos && open < body) {
        std::string list = ptx.substr(open + 1, ptx.find(')', open) - open - 1);
        for (size_t at = list.find(".param"); at != std::string::npos;) {
            size_t next = list.find(".param", at + 1);
            entry.parameters.push_back(declared_bytes(list.substr(at + 6, next == std::string::npos ? next : next - at - 6)));
            at = next;
        }
    }
    size_t limit = ptx.find(".maxntid", name_end), next = ptx.find(".entry", name_end);
    if (limit != std::string::npos && limit < body) entry.max_threads = atoi(ptx.c_str() + limit + 8);
    for (size_t at = ptx.find(".shared", name_end); at != std::string::npos && at < next; at = ptx.find(".shared", at + 1)) {
        size_t end = ptx.find_first_of(";,", at);
        std::string declaration = ptx.substr(at + 7, end - at - 7);
        // `ld.shared` and the like have no array behind them.
        if (ptx[at - 1] != 'd' && ptx[at - 1] != 't' && declaration.find('[') != std::string::npos && declaration.find("%") == std::string::npos) {
            entry.static_shared += (int)declared_bytes(declaration);
        }
    }
    return entry;
}

static Result refuse(Result result, const std::string &why) {
    trace("refuse module result=%d: %s", (int)result, why.c_str());
    return result;
}

Result load_module(Context &context, const char *image, Module **module) {
    if ((unsigned char)image[0] == 0x7f || (unsigned char)image[0] == 0x50) return refuse(INVALID_IMAGE, "a binary, not PTX text");
    std::string ptx = without_comments(image);
    size_t version = ptx.find(".version"), target = ptx.find(".target");
    int major = 0, minor = 0, architecture = 0;
    char suffix = 0;
    if (version == std::string::npos || sscanf(ptx.c_str() + version, ".version %d.%d", &major, &minor) != 2) {
        return refuse(INVALID_PTX, "no .version");
    }
    if (target == std::string::npos || sscanf(ptx.c_str() + target, ".target sm_%d%c", &architecture, &suffix) < 1) {
        return refuse(INVALID_PTX, "no .target");
    }
    int isa = major * 10 + minor;
    if (isa > newest_ptx(settings().driver)) {
        return refuse(UNSUPPORTED_PTX_VERSION, text("PTX %d.%d, and the driver knows up to %d", major, minor, newest_ptx(settings().driver)));
    }
    bool fits = suffix == 'a'   ? architecture == settings().capability
                : suffix == 'f' ? architecture / 10 == settings().capability / 10 && architecture <= settings().capability
                                : architecture <= settings().capability;
    if (!fits) return refuse(INVALID_PTX, text("target sm_%d%c, and the device is %d", architecture, suffix, settings().capability));

    std::unique_ptr<Module> loaded(new Module{&context, {}});
    for (size_t at = ptx.find(".entry"); at != std::string::npos; at = ptx.find(".entry", at + 1)) {
        size_t begin = ptx.find_first_not_of(" \t\r\n", at + 6), end = ptx.find_first_of(" \t\r\n({.", begin);
        if (begin == std::string::npos || end == std::string::npos) return refuse(INVALID_PTX, "an .entry without a name or a body");
        std::string name = ptx.substr(begin, end - begin);
        Entry entry = read_entry(ptx, end);
        std::unique_ptr<Function> function(new Function{name, find_kernel(name, suffix == 'a'), isa, entry.max_threads, entry.static_shared, 48 << 10});
        if (function->kernel) {
            const SimulatedEntry &source = *function->kernel->entry;
            if (source.max_threads && (int)source.max_threads < function->max_threads) function->max_threads = (int)source.max_threads;
            // PTX written by hand for a test may leave the parameters out; what a compiler wrote must fit the sources.
            bool same = entry.parameters.size() == source.count;
            for (unsigned i = 0; same && i < source.count; ++i) same = entry.parameters[i] == source.parameters[i].size;
            if (!entry.parameters.empty() && !same) {
                report("the parameters of %s in the PTX are not those of its source: the PTX is stale", name.c_str());
            }
        }
        loaded->functions[name] = std::move(function);
    }
    *module = loaded.release();
    return SUCCESS;
}

Result get_function(Module &module, const std::string &name, Function **function) {
    auto found = module.functions.find(name);
    if (found == module.functions.end()) return NOT_FOUND;
    if (!found->second->kernel) {
        report("the PTX has an entry %s, but no kernel file with that name was built", name.c_str());
        return NOT_FOUND;
    }
    *function = found->second.get();
    return SUCCESS;
}

} // namespace simulated
