//! Building the simulated driver: its own sources, and each kernel file as a library of its own, in
//! `target/emulator`. Everything is keyed by the hash of what it is made from, so only what changed is built again.
//! What is made from a changed copy of `kernels/` lies in the copy, and goes with it.

use super::entries::declarations;
use super::hash;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

/// Entry points that came with CUDA 12.8; the library of an older driver does not have them.
const SINCE_12_8: [&str; 1] = ["cuEventElapsedTime_v2"];

/// Builds what is missing and returns the folder of the machines. `checked` says whether each access of a kernel to
/// memory is checked; without that kernels run some three times faster, and only what the processor notices is found.
/// `copy` is a folder of kernel sources that takes the place of `kernels/`.
pub fn build(checked: bool, copy: Option<&Path>) -> PathBuf {
    let target = super::built_in();
    // Tests run in the root of the package.
    let manifest = &std::env::current_dir().expect("there is a current folder");
    let emulator = manifest.join("tests/emulator");
    let (sources, room) = match copy {
        None => (manifest.join("kernels"), target.clone()),
        Some(copy) => {
            // The driver, and the kernels that the copy leaves as they are.
            build(checked, None);
            (copy.to_path_buf(), copy.join("built"))
        }
    };
    fs::create_dir_all(&room).expect("the target folder can be written");
    // Test processes run side by side; one builds, the others wait for it.
    let lock = fs::File::create(room.join("lock")).expect("the target folder can be written");
    lock.lock().expect("locks are supported");

    let compiler = compiler();
    let driver_sources = files(&emulator.join("src"), "cpp");
    let headers = [files(&emulator.join("src"), "h"), files(&emulator.join("include"), "h")].concat();
    let own = [files(&emulator.join("include"), "h"), files(&emulator.join("include/simulated"), "h")].concat();
    let kernels = [files(&emulator.join("kernels"), "cu"), files(&sources, "cu")].concat();
    assert!(kernels.len() > files(&emulator.join("kernels"), "cu").len(), "{}: no kernels", sources.display());
    let build_itself = concat!(include_str!("build.rs"), include_str!("entries.rs")).as_bytes();

    let base = contents(&[headers, own.clone()].concat());
    let driver_key = hash(&[compiler.as_bytes(), build_itself, &base, &contents(&driver_sources)]);
    let base = contents(&own);
    let kernel_compiler = format!("{compiler}{checked}");
    let kernel_key = |file: &PathBuf| {
        let text = contents(&with_headers(file, &sources));
        hash(&[kernel_compiler.as_bytes(), build_itself, &base, &text])
    };
    let kernel_keys: Vec<String> = kernels.iter().map(kernel_key).collect();
    let names: Vec<String> = kernels.iter().map(|file| stem(file)).collect();
    let all = hash(&[driver_key.as_bytes(), kernel_keys.concat().as_bytes(), format!("{names:?}").as_bytes()]);
    let machines = room.join(format!("machines-{all}"));
    if machines.join("done").exists() {
        return machines;
    }

    let driver = target.join(format!("driver-{driver_key}"));
    if !driver.join("done").exists() {
        build_driver(&emulator, &driver_sources, &driver);
    }
    let place = |room: &Path, name: &str, key: &str| {
        room.join("kernels").join(format!("{name}-{key}")).join(format!("{name}.so"))
    };
    let built: Vec<PathBuf> = names
        .iter()
        .zip(&kernel_keys)
        .map(|(name, key)| {
            let shared = place(&target, name, key);
            if shared.exists() { shared } else { place(&room, name, key) }
        })
        .collect();
    let missing: Vec<usize> = (0..kernels.len()).filter(|&i| !built[i].exists()).collect();
    parallel(&missing, |&i| build_kernel(&emulator, &sources, &kernels[i], &driver, &built[i], checked));
    assemble(&machines, &driver, &built);
    machines
}

/// The compiler's version, which every key holds.
fn compiler() -> String {
    let output = Command::new("g++").args(["-dumpfullversion", "-dumpmachine"]).output();
    let output = output.unwrap_or_else(|error| {
        panic!("the simulated CUDA driver is built by g++, which cannot be started ({error}): install it (package g++)")
    });
    format!("{}{}", String::from_utf8_lossy(&output.stdout), instructions())
}

/// FMA in hardware where there is one: in software it is right and slow.
fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return "-march=x86-64-v3";
    }
    "-O2"
}

fn gpp(folder: &Path) -> Command {
    let mut command = Command::new("g++");
    command.args([
        "-std=c++17",
        "-O2",
        "-g1",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffp-contract=off",
        "-fno-semantic-interposition",
        instructions(),
    ]);
    command.current_dir(folder);
    command
}

fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("g++ can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn build_driver(emulator: &Path, sources: &[PathBuf], folder: &Path) {
    fs::create_dir_all(folder).expect("the target folder can be written");
    parallel(sources, |source| {
        let mut command = gpp(emulator);
        // Rounding is switched in one file, and nothing may move across the switch.
        if stem(source) == "rounding" {
            command.arg("-frounding-math");
        }
        command.arg("-c").arg(source).arg("-o").arg(folder.join(stem(source)).with_extension("o"));
        run(command);
    });
    let objects = sources.iter().filter(|source| !["cublas", "stub"].contains(&stem(source).as_str()));
    let objects: Vec<PathBuf> = objects.map(|source| folder.join(stem(source)).with_extension("o")).collect();
    let link = |name: &str, soname: &str, objects: &[PathBuf], extra: &[&str]| {
        let mut command = gpp(folder);
        command.args(["-shared", "-o", name, &format!("-Wl,-soname,{soname}")]).args(objects).args(extra).arg("-ldl");
        run(command);
    };
    let script = format!("{{ local: {}; }};\n", SINCE_12_8.join("; "));
    fs::write(folder.join("old.map"), script).expect("the target folder can be written");
    link("libcuda-new.so", "libcuda.so.1", &objects, &["-Wl,--no-undefined"]);
    link("libcuda-old.so", "libcuda.so.1", &objects, &["-Wl,--no-undefined", "-Wl,--version-script=old.map"]);
    link("libcuda-stub.so", "libcuda.so.1", &[folder.join("stub.o")], &[]);
    link("libcublas.so", "libcublas.so.12", &[folder.join("cublas.o")], &["libcuda-new.so"]);
    fs::write(folder.join("done"), "").expect("the target folder can be written");
}

/// A library of the kernels of one file: the file itself, unchanged, and the entries that the driver looks up.
fn build_kernel(emulator: &Path, headers: &Path, source: &Path, driver: &Path, library: &Path, checked: bool) {
    let folder = library.parent().expect("it lies in a folder of its own");
    fs::create_dir_all(folder).expect("the target folder can be written");
    let include =
        ["-I".to_string() + &emulator.join("include").to_string_lossy(), "-I".to_string() + &headers.to_string_lossy()];
    let force = ["-include", "cuda_runtime.h", "-x", "c++"];
    let mut list = gpp(folder);
    list.args(&include).args(["-E", "-P", "-DSIMULATED_LIST"]).args(force).arg(source);
    let (entries, arrays) = declarations(&run(list));
    assert!(!entries.is_empty(), "{}: no extern \"C\" __global__ function", source.display());

    let write =
        |name: &str, text: String| fs::write(folder.join(name), text).expect("the target folder can be written");
    let mut text = format!("#include \"{}\"\n#include \"simulated/entry.h\"\n", source.display());
    for (name, bound) in &entries {
        text += &format!("SIMULATED_ENTRY({name}, {bound})\n");
    }
    write("kernels.cpp", text);
    let mut text = String::from("#include \"simulated/entry_types.h\"\n");
    for array in &arrays {
        text += &format!("alignas(1024) thread_local unsigned char {array}[SIMULATED_DYNAMIC_SHARED];\n");
    }
    if checked {
        text += "extern \"C\" const bool simulated_checked = true;\n";
    }
    text += "extern \"C\" unsigned char *simulated_dynamic_shared(unsigned index) {\n    switch (index) {\n";
    for (index, array) in arrays.iter().enumerate() {
        text += &format!("    case {index}: return {array};\n");
    }
    text += "    default: return nullptr;\n    }\n}\n";
    write("shared.cpp", text);

    // What the host compiler dislikes in a kernel and CUDA's does not: loops told to unroll, parameters of one variant.
    let quiet = [
        "-Wno-unknown-pragmas",
        "-Wno-unused-parameter",
        "-Wno-unused-function",
        "-Wno-unused-variable",
        "-Wno-unused-but-set-parameter",
    ];
    for part in ["kernels", "shared"] {
        let mut command = gpp(folder);
        command.args(&include).args(force).args(quiet).args(["-fno-extern-tls-init", "-fno-strict-aliasing", "-c"]);
        if part == "kernels" && checked {
            // Calls a function of the driver before each access to memory.
            command.args(["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]);
            // And one where a value does not lie where its type has to.
            command.arg("-fsanitize=alignment");
        }
        command.arg(format!("{part}.cpp")).args(["-o", &format!("{part}.o")]);
        run(command);
    }
    let mut link = gpp(folder);
    link.args(["-shared", "-Wl,--no-undefined", "kernels.o", "shared.o"])
        .arg(driver.join("libcuda-new.so"))
        .args(["-o", "library"]);
    run(link);
    fs::rename(folder.join("library"), library).expect("the target folder can be written");
}

/// One folder per kind of machine, of links.
fn assemble(machines: &Path, driver: &Path, kernels: &[PathBuf]) {
    for (name, library, cublas) in [
        ("new", Some("libcuda-new.so"), true),
        ("new-driver-only", Some("libcuda-new.so"), false),
        ("old", Some("libcuda-old.so"), true),
        ("old-driver-only", Some("libcuda-old.so"), false),
        ("stub", Some("libcuda-stub.so"), false),
        ("empty", None, false),
    ] {
        let folder = machines.join(name);
        let _ = fs::remove_dir_all(&folder); // of a build that was cut off
        fs::create_dir_all(folder.join("kernels")).expect("the target folder can be written");
        if let Some(library) = library {
            link(&driver.join(library), &folder.join("libcuda.so.1"));
            link(&driver.join(library), &folder.join("libcuda.so"));
        }
        if cublas {
            link(&driver.join("libcublas.so"), &folder.join("libcublas.so.12"));
        }
        for kernel in kernels {
            link(kernel, &folder.join("kernels").join(kernel.file_name().expect("a file")));
        }
    }
    fs::write(machines.join("done"), "").expect("the target folder can be written");
}

fn link(from: &Path, to: &Path) {
    // Hard links: the loader tells the driver under which name it was found, and links in chains hide that.
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ())).expect("the target folder can be written");
}

/// The files of a folder with this extension, sorted. None where there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == extension));
    files.sort();
    files
}

/// A kernel file and the headers of its folder that it includes, and that these include.
fn with_headers(file: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![file.to_path_buf()];
    let mut next = 0;
    while let Some(file) = found.get(next) {
        let text = fs::read_to_string(file).expect("a source can be read");
        for name in text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.strip_suffix('"')) {
            let header = folder.join(name);
            if header.exists() && !found.contains(&header) {
                found.push(header);
            }
        }
        next += 1;
    }
    found
}

/// Names and texts of files. Not their folders: a copy of a file is made into the same library.
fn contents(files: &[PathBuf]) -> Vec<u8> {
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().expect("a file").as_encoded_bytes();
        for part in [name, &fs::read(file).expect("a source can be read")] {
            all.extend((part.len() as u64).to_le_bytes());
            all.extend(part);
        }
    }
    all
}

fn stem(file: &Path) -> String {
    file.file_stem().expect("a file").to_string_lossy().into_owned()
}

/// Runs `work` for each item, on as many threads as there are processors.
fn parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, |count| count.get()).min(items.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}
