//! Finds nvcc and names the kernels there are, for `codeword doctor`. Builds everywhere: a machine without CUDA is not
//! an error, unless `CODEWORD_REQUIRE_NVCC=1` says that it is.

use std::env::{self, consts::EXE_SUFFIX};
use std::path::PathBuf;

fn main() {
    // A toolkit that appears in /usr/local/cuda while none of these change is seen at the next clean build.
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "CODEWORD_REQUIRE_NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");

    let wanted = env::var_os("CARGO_FEATURE_CUDA").is_some();
    let nvcc = if wanted { find_nvcc() } else { None };
    if wanted && nvcc.is_none() && env::var_os("CODEWORD_REQUIRE_NVCC").is_some_and(|value| value == "1") {
        println!(
            "cargo::error=CODEWORD_REQUIRE_NVCC=1, and no nvcc in NVCC, CUDA_HOME/bin, CUDA_PATH/bin, PATH, \
             /usr/local/cuda/bin; install the CUDA toolkit, or name its compiler in NVCC"
        );
    }
    println!("cargo::rustc-env=CODEWORD_NVCC={}", nvcc.unwrap_or_default());
    println!("cargo::rustc-env=CODEWORD_KERNELS={}", kernels().join(","));
}

/// The first nvcc that is a file. A path that cannot be written on one line of UTF-8 counts as none: Cargo could not
/// pass it on.
fn find_nvcc() -> Option<String> {
    let program = format!("nvcc{EXE_SUFFIX}");
    let toolkit = |name| env::var_os(name).map(|home| PathBuf::from(home).join("bin").join(&program));
    let named = env::var_os("NVCC").map(PathBuf::from);
    let on_path = env::var_os("PATH")
        .into_iter()
        .flat_map(|path| env::split_paths(&path).map(|folder| folder.join(&program)).collect::<Vec<_>>());
    let usual = PathBuf::from("/usr/local/cuda/bin").join(&program);
    named
        .into_iter()
        .chain(toolkit("CUDA_HOME"))
        .chain(toolkit("CUDA_PATH"))
        .chain(on_path)
        .chain([usual])
        .find(|path| path.is_file())
        .and_then(|path| path.into_os_string().into_string().ok())
        .filter(|path| !path.contains(['\n', '\r']))
}

/// The stems of kernels/*.cu, sorted.
fn kernels() -> Vec<String> {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("kernels");
    let mut stems: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .collect();
    stems.sort();
    stems
}
