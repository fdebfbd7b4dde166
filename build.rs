//! Turns kernels/ into what src/backend/cuda/ embeds: kernels/*.cu into PTX with nvcc, where there is one; the shipped
//! PTX of kernels/ptx/ always, as long as it comes from the same sources; kernels/shapes.h into Rust constants.
//! Builds everywhere: without nvcc the shipped PTX serves, unless `CODEWORD_REQUIRE_NVCC=1`.

use std::env::{self, consts::EXE_SUFFIX};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What a build is made from. tests/ptx.rs makes its own.
pub struct Settings {
    /// The folder of *.cu, headers, and ptx/.
    pub kernels: PathBuf,
    /// Where everything made goes.
    pub out: PathBuf,
    /// The compiler, if there is one.
    pub nvcc: Option<PathBuf>,
    /// Whether a kernel that this compiler does not build is an error.
    pub nvcc_required: bool,
    /// How many compilers may run at once.
    pub jobs: usize,
}

/// One kernel source for one architecture.
struct Kernel {
    stem: String,
    arch: &'static str,
    source: PathBuf,
    hash: String,
}

fn main() {
    // PATH is not among them: it differs between a terminal and an editor, and each would undo the other's build. An
    // nvcc that appears there is seen at the next clean build.
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CODEWORD_REQUIRE_NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }

    let nvcc = find_nvcc(|name| env::var_os(name)).unwrap_or_else(|why| {
        println!("cargo::warning={why}");
        None
    });
    if let Some(nvcc) = &nvcc {
        println!("cargo::rerun-if-changed={}", nvcc.display());
        // For `codeword doctor`. The version, not the place: binaries hold no path of the machine that built them.
        println!("cargo::rustc-env=CODEWORD_NVCC={}", nvcc_version(nvcc).unwrap_or_else(|| "unknown version".into()));
    }
    let settings = Settings {
        kernels: PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("kernels"),
        out: PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()),
        nvcc,
        nvcc_required: env::var_os("CODEWORD_REQUIRE_NVCC").is_some_and(|value| value == "1"),
        jobs: env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1),
    };
    match build(&settings) {
        Ok(warnings) => warnings.iter().for_each(|text| println!("cargo::warning={text}")),
        Err(text) => println!("cargo::error={text}"),
    }
}

/// Writes kernels.rs, shapes.rs and the PTX they name into `out`; returns what the user should be warned of.
pub fn build(settings: &Settings) -> Result<Vec<String>, String> {
    if settings.nvcc_required && settings.nvcc.is_none() {
        return Err("CODEWORD_REQUIRE_NVCC=1, and no nvcc in NVCC, CUDA_HOME/bin, CUDA_PATH/bin, PATH or \
                    /usr/local/cuda/bin; install the CUDA toolkit, or name its compiler in NVCC"
            .into());
    }
    let shapes = settings.kernels.join("shapes.h");
    write(&settings.out.join("shapes.rs"), &shapes_in_rust(&read(&shapes)?)?)?;

    let kernels = find_kernels(&settings.kernels)?;
    let built = compile_all(settings, &kernels);
    let mut warnings = Vec::new();
    let mut table = format!(
        "/// Every kernel of this build, by name of its source.\npub static KERNELS: [Kernel; {}] = [\n",
        kernels.len()
    );
    for (kernel, built) in kernels.iter().zip(built) {
        let Kernel { stem, arch, hash, source } = kernel;
        let built = match built {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(why)) if settings.nvcc_required => return Err(format!("CODEWORD_REQUIRE_NVCC=1, and {why}")),
            Some(Err(why)) => {
                warnings.push(format!("{why}; the shipped PTX serves instead"));
                None
            }
        };
        let shipped = shipped(&settings.kernels, kernel)?;
        if built.is_none() && shipped.is_none() {
            warnings.push(format!(
                "kernels/ptx/{stem}.{arch}.ptx is missing or not made from what kernels/{} and its headers are now, \
                 and no nvcc built it: this build has no such kernel; run scripts/ptx.sh",
                file_name(source)
            ));
        }
        let shipped = embed(settings, kernel, "shipped", shipped)?;
        let built = embed(settings, kernel, "built", built)?;
        let arch = if *arch == "compute_90a" { "Compute90a" } else { "Compute80" };
        let _ = writeln!(
            table,
            "Kernel {{ stem: {stem:?}, arch: Arch::{arch}, source_hash: {hash:?}, shipped: {shipped}, built: {built} }},"
        );
    }
    table.push_str("];\n");
    write(&settings.out.join("kernels.rs"), &table)?;
    Ok(warnings)
}

/// The kernels of a folder by name. `assign_sm90a.cu` is the design of `assign` for compute capability 9.0 alone; so
/// there must be an `assign.cu` for the others.
fn find_kernels(folder: &Path) -> Result<Vec<Kernel>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort_by_key(|path| file_name(path));
    let has = |path: &Path, extensions: &[&str]| extensions.iter().any(|&it| path.extension().is_some_and(|e| e == it));
    let (sources, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|path| has(path, &["cu"]));
    let headers: Vec<PathBuf> = others.into_iter().filter(|path| has(path, &["h", "cuh"])).collect();

    let mut kernels = Vec::new();
    for source in &sources {
        let name = file_name(source);
        let stem = name.strip_suffix(".cu").unwrap_or(&name);
        if !stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("kernels/{name}: expected a name of letters, digits and _"));
        }
        let (stem, arch) = match stem.strip_suffix("_sm90a") {
            Some(stem) if sources.contains(&folder.join(format!("{stem}.cu"))) => (stem, "compute_90a"),
            Some(stem) => return Err(format!("kernels/{name} runs on no later GPU: expected {stem}.cu beside it")),
            None => (stem, "compute_80"),
        };
        let hash = source_hash(source, &headers)?;
        kernels.push(Kernel { stem: stem.into(), arch, source: source.clone(), hash });
    }
    Ok(kernels)
}

/// FNV-1a with 128 bits over the source and every header, each as name, 0, text, 0. scripts/nvrtc.py computes the same.
fn source_hash(source: &Path, headers: &[PathBuf]) -> Result<String, String> {
    let mut hash: u128 = 0x6c62272e07bb014262b821756295c58d;
    for path in std::iter::once(source).chain(headers.iter().map(PathBuf::as_path)) {
        for byte in format!("{}\0{}\0", file_name(path), read(path)?).bytes() {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000000001000000000000000000013b);
        }
    }
    Ok(format!("{hash:032x}"))
}

/// First line of every PTX of ours: what it is and what it comes from.
fn stamp(kernel: &Kernel) -> String {
    format!("// codeword {} {} sources {}\n", kernel.stem, kernel.arch, kernel.hash)
}

/// The shipped PTX, where it is there and comes from the sources as they are now.
fn shipped(folder: &Path, kernel: &Kernel) -> Result<Option<String>, String> {
    let path = folder.join("ptx").join(format!("{}.{}.ptx", kernel.stem, kernel.arch));
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(read(&path)?).filter(|text| text.starts_with(&stamp(kernel))))
}

/// What nvcc makes of each kernel: None where there is no nvcc.
fn compile_all(settings: &Settings, kernels: &[Kernel]) -> Vec<Option<Result<String, String>>> {
    let Some(nvcc) = &settings.nvcc else { return kernels.iter().map(|_| None).collect() };
    let results = Mutex::new(kernels.iter().map(|_| None).collect::<Vec<_>>());
    let queue = Mutex::new(kernels.iter().enumerate());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs.clamp(1, kernels.len().max(1)) {
            scope.spawn(|| {
                while let Some((i, kernel)) = next() {
                    let result = compile(nvcc, settings, kernel);
                    if let Ok(mut results) = results.lock() {
                        results[i] = Some(result);
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_default()
}

fn compile(nvcc: &Path, settings: &Settings, kernel: &Kernel) -> Result<String, String> {
    let target = settings.out.join(format!("{}.{}.nvcc.ptx", kernel.stem, kernel.arch));
    let mut command = Command::new(nvcc);
    command.arg("-ptx").arg(format!("--gpu-architecture={}", kernel.arch)).arg("-I").arg(&settings.kernels);
    // No contraction: a fused multiply-add is where the source says fmaf, on every compiler.
    command.args(["--std=c++17", "--fmad=false", "-o"]).arg(&target).arg(&kernel.source);
    let name = file_name(&kernel.source);
    let output = command.output().map_err(|error| format!("{} does not start: {error}", nvcc.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().find(|line| line.contains("error")).or(said.lines().next()).unwrap_or("no message");
        return Err(format!("{} failed on kernels/{name} ({}): {why}", nvcc.display(), output.status));
    }
    Ok(stamp(kernel) + &read(&target)?)
}

/// Writes the text into `out` and returns the expression that embeds it.
fn embed(settings: &Settings, kernel: &Kernel, kind: &str, text: Option<String>) -> Result<String, String> {
    let Some(text) = text else { return Ok("None".into()) };
    let file = format!("{}.{}.{kind}.ptx", kernel.stem, kernel.arch);
    let (major, minor) = text
        .lines()
        .find_map(|line| line.strip_prefix(".version ")?.trim().split_once('.'))
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)))
        .ok_or_else(|| format!("{file} has no line .version MAJOR.MINOR; run scripts/ptx.sh"))?;
    write(&settings.out.join(&file), &text)?;
    Ok(format!("Some(Ptx {{ isa: ({major}, {minor}), text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\")) }})"))
}

/// `#define NAME value // comment` as Rust constants; comments alone and `#pragma once` are passed over, and anything
/// else is an error, because the Rust side would not know of it.
fn shapes_in_rust(text: &str) -> Result<String, String> {
    let mut rust = String::new();
    for (i, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with("//") || line == "#pragma once" {
            continue;
        }
        let (code, comment) = line.split_once("//").unwrap_or((line, ""));
        let words: Vec<&str> = code.split_whitespace().collect();
        let number = |text: &str| text.parse::<u32>().ok().filter(|value| value.to_string() == text);
        match words[..] {
            ["#define", name, value] if number(value).is_some() => {
                let _ = writeln!(rust, "#[doc = {:?}]\npub const {name}: u32 = {value};", comment.trim());
            }
            _ => return Err(format!("kernels/shapes.h:{}: expected `#define NAME number`, got `{line}`", i + 1)),
        }
    }
    Ok(rust)
}

/// The nvcc to use: the one that `NVCC` names, else the first in `CUDA_HOME`, `CUDA_PATH`, `PATH`, /usr/local/cuda. An
/// `NVCC` that names nothing is an error, not a reason to take another.
pub fn find_nvcc(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>, String> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let on_path = |program: &Path| {
        let path = variable("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
    };
    if let Some(named) = variable("NVCC").map(PathBuf::from) {
        let found = if named.components().count() == 1 { on_path(&named) } else { Some(named.clone()) };
        return match found.filter(|path| path.is_file()) {
            Some(path) => Ok(Some(path)),
            None => Err(format!("NVCC names {}, which is no file; the shipped PTX serves instead", named.display())),
        };
    }
    let program = PathBuf::from(format!("nvcc{EXE_SUFFIX}"));
    let in_toolkit = |home: PathBuf| Some(home.join("bin").join(&program)).filter(|path| path.is_file());
    Ok(["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .find_map(|name| in_toolkit(variable(name)?.into()))
        .or_else(|| on_path(&program))
        .or_else(|| in_toolkit("/usr/local/cuda".into())))
}

/// `13.0.88`, from the line that ends in `release 13.0, V13.0.88`.
fn nvcc_version(nvcc: &Path) -> Option<String> {
    let output = Command::new(nvcc).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| Some(line.split_once("release ")?.1.rsplit_once('V')?.1.trim().to_owned()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A text with `\n` line ends, whatever the checkout made of them.
fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.replace("\r\n", "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
