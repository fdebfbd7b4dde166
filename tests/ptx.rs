//! The kernels a user gets are those of these sources: what build.rs embeds with and without nvcc, what it refuses, and
//! what the shipped PTX holds.
#![cfg(feature = "cuda")]

#[allow(dead_code)] // its main and what only that calls
#[path = "../build.rs"]
mod build;

use build::{Settings, build, find_nvcc};
use codeword::backend::cuda::ptx::{Arch, KERNELS};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// Held while a program is written and while one is started: a process that another thread starts would inherit the
/// file open for writing, and the system starts no such file.
static PROGRAMS: Mutex<()> = Mutex::new(());

const SHAPES: &str = "// sizes\n#pragma once\n\n#define THREADS 256 // of a block\n#define ROWS 8\n";

/// A folder of kernels of our own: `copy.cu`, two headers, and a shipped PTX of them as they are.
struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        let sandbox = Sandbox { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(sandbox.path("kernels/ptx")).unwrap();
        fs::create_dir(sandbox.path("out")).unwrap();
        sandbox.write("kernels/copy.cu", "__global__ void copy();\n");
        sandbox.write("kernels/common.cuh", "// common\n");
        sandbox.write("kernels/shapes.h", SHAPES);
        // The hash is not build.rs's own: Python computed it (`source_hash` of scripts/nvrtc.py) from these three files.
        sandbox.write(
            "kernels/ptx/copy.compute_80.ptx",
            "// codeword copy compute_80 sources aa21953a765c78d18e70cf1dfb39f750\n.version 8.0\n.target sm_80\n// as shipped\n",
        );
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Builds with the compiler `nvcc`, a file of this sandbox.
    fn build(&self, nvcc: Option<&str>, nvcc_required: bool) -> Result<Built, String> {
        let nvcc = nvcc.map(|name| self.path(name));
        let _guard = PROGRAMS.lock();
        let (kernels, out) = (self.path("kernels"), self.path("out"));
        let warnings = build(&Settings { kernels, out, nvcc, nvcc_required, jobs: 2 })?;
        let read = |name: &str| fs::read_to_string(self.path("out").join(name)).unwrap();
        Ok(Built { warnings, table: read("kernels.rs"), shapes: read("shapes.rs") })
    }

    /// A program that acts as nvcc.
    #[cfg(unix)]
    fn nvcc(&self, script: &str) -> Option<&'static str> {
        use std::os::unix::fs::PermissionsExt;
        let _guard = PROGRAMS.lock();
        self.write("nvcc", &format!("#!/bin/sh\n{script}"));
        fs::set_permissions(self.path("nvcc"), fs::Permissions::from_mode(0o755)).unwrap();
        Some("nvcc")
    }
}

struct Built {
    warnings: Vec<String>,
    table: String,
    shapes: String,
}

impl Built {
    fn ships(&self) -> bool {
        self.table.contains("shipped: Some(Ptx { isa: (8, 0), ") && self.table.contains("copy.compute_80.shipped.ptx")
    }

    fn compiled(&self) -> bool {
        self.table.contains("built: Some(Ptx { isa: (9, 0), ") && self.table.contains("copy.compute_80.built.ptx")
    }
}

/// Writes what it was asked for into the file after `-o`.
#[cfg(unix)]
const COMPILES: &str = "for it; do test \"$last\" = -o && out=$it; last=$it; done\n\
                        printf '.version 9.0\\n.target sm_80\\n// %s\\n' \"$*\" >\"$out\"\n";

#[test]
fn without_nvcc_the_shipped_ptx_serves_and_nobody_is_warned() {
    let sandbox = Sandbox::new();
    let built = sandbox.build(None, false).unwrap();
    assert!(built.ships() && !built.compiled(), "{}", built.table);
    assert_eq!(built.warnings, [""; 0]);
    let text = fs::read_to_string(sandbox.path("out/copy.compute_80.shipped.ptx")).unwrap();
    assert!(text.ends_with("// as shipped\n"), "{text}");
}

#[test]
fn shipped_ptx_of_other_sources_is_left_out_and_the_warning_says_what_to_run() {
    for (name, text) in [
        ("kernels/copy.cu", "__global__ void copy(int);\n"),
        ("kernels/common.cuh", "// other\n"),
        ("kernels/shapes.h", "#define THREADS 128\n"),
        ("kernels/more.cuh", ""),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(name, text);
        let built = sandbox.build(None, false).unwrap();
        assert!(!built.ships(), "{name} changed: {}", built.table);
        assert!(built.table.contains("shipped: None, built: None"), "{}", built.table);
        assert_eq!(built.warnings.len(), 1);
        let warning = &built.warnings[0];
        assert!(warning.contains("kernels/ptx/copy.compute_80.ptx") && warning.contains("scripts/ptx.sh"), "{warning}");
    }
}

#[test]
fn a_kernel_without_shipped_ptx_is_told_as_that() {
    let sandbox = Sandbox::new();
    sandbox.write("kernels/other.cu", "");
    let built = sandbox.build(None, false).unwrap();
    assert!(built.ships(), "the others stay: {}", built.table);
    assert_eq!(built.warnings.len(), 1);
    assert!(built.warnings[0].contains("kernels/ptx/other.compute_80.ptx"), "{:?}", built.warnings);
}

#[test]
fn line_ends_of_a_windows_checkout_change_nothing() {
    let sandbox = Sandbox::new();
    for name in ["copy.cu", "common.cuh", "shapes.h", "ptx/copy.compute_80.ptx"] {
        let text = fs::read_to_string(sandbox.path("kernels").join(name)).unwrap();
        sandbox.write(&format!("kernels/{name}"), &text.replace('\n', "\r\n"));
    }
    let built = sandbox.build(None, false).unwrap();
    assert!(built.ships(), "{}", built.table);
    let text = fs::read_to_string(sandbox.path("out/copy.compute_80.shipped.ptx")).unwrap();
    assert!(!text.contains('\r'));
}

#[cfg(unix)]
#[test]
fn with_nvcc_both_texts_are_there_with_the_hash_of_the_same_sources() {
    let sandbox = Sandbox::new();
    let built = sandbox.build(sandbox.nvcc(COMPILES), true).unwrap();
    assert!(built.ships() && built.compiled(), "{}", built.table);
    assert_eq!(built.warnings, [""; 0]);
    let first_line = |kind: &str| {
        let text = fs::read_to_string(sandbox.path(&format!("out/copy.compute_80.{kind}.ptx"))).unwrap();
        text.lines().next().unwrap_or_default().to_string()
    };
    assert_eq!(first_line("built"), first_line("shipped"));
}

#[cfg(unix)]
#[test]
fn with_nvcc_stale_shipped_ptx_is_left_out_and_nobody_is_warned() {
    let sandbox = Sandbox::new();
    sandbox.write("kernels/copy.cu", "__global__ void copy(int);\n");
    let built = sandbox.build(sandbox.nvcc(COMPILES), false).unwrap();
    assert!(!built.ships() && built.compiled(), "{}", built.table);
    assert_eq!(built.warnings, [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_nvcc_that_fails_is_a_warning_with_its_words_and_the_shipped_ptx_serves() {
    let sandbox = Sandbox::new();
    let fails = "echo 'gcc: fine so far' >&2; echo 'error: unsupported GNU version' >&2; exit 1\n";
    let built = sandbox.build(sandbox.nvcc(fails), false).unwrap();
    assert!(built.ships() && !built.compiled(), "{}", built.table);
    assert_eq!(built.warnings.len(), 1);
    let warning = &built.warnings[0];
    assert!(warning.contains("kernels/copy.cu") && warning.contains("unsupported GNU version"), "{warning}");

    let refused = sandbox.build(sandbox.nvcc(fails), true).err().unwrap();
    assert!(refused.contains("CODEWORD_REQUIRE_NVCC=1") && refused.contains("unsupported GNU version"), "{refused}");
}

#[cfg(unix)]
#[test]
fn the_special_design_is_compiled_for_its_gpu_alone_and_needs_a_portable_one() {
    let sandbox = Sandbox::new();
    sandbox.write("kernels/copy_sm90a.cu", "");
    let built = sandbox.build(sandbox.nvcc(COMPILES), false).unwrap();
    assert!(built.compiled() && built.table.contains("stem: \"copy\", arch: Arch::Compute90a"), "{}", built.table);
    let text = fs::read_to_string(sandbox.path("out/copy.compute_90a.built.ptx")).unwrap();
    assert!(text.contains("--gpu-architecture=compute_90a"), "{text}");

    sandbox.write("kernels/lonely_sm90a.cu", "");
    let refused = sandbox.build(None, false).err().unwrap();
    assert!(refused.contains("lonely.cu"), "{refused}");
}

#[test]
fn a_demanded_nvcc_that_is_not_there_is_an_error_with_the_way_out() {
    let refused = Sandbox::new().build(None, true).err().unwrap();
    assert!(refused.contains("CODEWORD_REQUIRE_NVCC=1") && refused.contains("name its compiler in NVCC"), "{refused}");
}

#[test]
fn shipped_ptx_without_a_version_is_an_error() {
    let sandbox = Sandbox::new();
    let path = "kernels/ptx/copy.compute_80.ptx";
    let text = fs::read_to_string(sandbox.path(path)).unwrap();
    sandbox.write(path, &text.replace(".version", ".verse"));
    let refused = sandbox.build(None, false).err().unwrap();
    assert!(refused.contains("copy.compute_80") && refused.contains(".version"), "{refused}");
}

#[test]
fn every_shape_is_a_rust_constant_and_nothing_else_may_be_there() {
    let sandbox = Sandbox::new();
    let rust = sandbox.build(None, false).unwrap().shapes;
    assert!(rust.contains("pub const THREADS: u32 = 256;") && rust.contains("pub const ROWS: u32 = 8;"), "{rust}");
    assert_eq!(rust.matches("pub const").count(), 2);
    for line in [
        "#define DOUBLE (2 * THREADS)",
        "#define HEX 0x10",
        "#define OCTAL 010",
        "#define NEGATIVE -1",
        "#define LARGE 4294967296",
        "#define SQUARE(x) ((x) * (x))",
        "#define NOTHING",
        "#undef ROWS",
        "constexpr int ROWS = 8;",
    ] {
        sandbox.write("kernels/shapes.h", &format!("{SHAPES}{line}\n"));
        let refused = sandbox.build(None, false).err().unwrap_or_else(|| panic!("{line} was taken"));
        assert!(refused.contains("shapes.h:6") && refused.contains(line), "{refused}");
    }
}

#[test]
fn nvcc_is_looked_for_in_the_promised_order() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let bin = folder.path().join(name).join("bin");
        fs::create_dir_all(&bin).unwrap();
        let file = bin.join(format!("nvcc{}", std::env::consts::EXE_SUFFIX));
        fs::write(&file, "").unwrap();
        (folder.path().join(name).into_os_string(), file)
    };
    let (named, home, path, on_path) = (place("named"), place("home"), place("path"), place("on_path"));
    let all: [(&str, OsString); 4] = [
        ("NVCC", named.1.clone().into()),
        ("CUDA_HOME", home.0),
        ("CUDA_PATH", path.0),
        ("PATH", on_path.1.parent().unwrap().into()),
    ];
    let with = |variables: &[(&str, OsString)]| {
        find_nvcc(|name| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone()))
    };
    for (skip, expected) in [&named.1, &home.1, &path.1, &on_path.1].into_iter().enumerate() {
        assert_eq!(with(&all[skip..]).unwrap().as_ref(), Some(expected));
    }
    // A name without a folder is a program on PATH; an empty variable is none.
    let program: OsString = on_path.1.file_name().unwrap().into();
    assert_eq!(with(&[("NVCC", program), all[3].clone()]).unwrap(), Some(on_path.1.clone()));
    assert_eq!(with(&[("NVCC", "".into()), all[3].clone()]).unwrap(), Some(on_path.1));
    // What is named and not there is told, and nothing else is taken in its place.
    let refused = with(&[("NVCC", "/nowhere/nvcc".into()), all[1].clone()]).unwrap_err();
    assert!(refused.contains("/nowhere/nvcc"), "{refused}");
}

/// Names of the entry points that a source declares, read from the source itself.
fn declared(source: &str) -> Vec<&str> {
    let mut names: Vec<&str> = source
        .split("extern \"C\" __global__")
        .skip(1)
        .filter_map(|rest| {
            let rest = match rest.split_once("__launch_bounds__(") {
                Some((gap, bounds)) if !gap.contains('(') => bounds.split_once(')')?.1,
                _ => rest,
            };
            rest.split_once('(')?.0.split_whitespace().last()
        })
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_kernel_of_this_tree_is_shipped_fresh_and_readable_by_every_driver_of_cuda_12() {
    // Tests run in the root of the package.
    let mut sources: Vec<PathBuf> = fs::read_dir("kernels")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    assert!(!sources.is_empty());
    assert_eq!(KERNELS.len(), sources.len());
    for source in &sources {
        let name = source.file_stem().unwrap().to_str().unwrap();
        let (stem, arch, target) = match name.strip_suffix("_sm90a") {
            Some(stem) => (stem, Arch::Compute90a, ".target sm_90a"),
            None => (name, Arch::Compute80, ".target sm_80"),
        };
        let kernel = KERNELS.iter().find(|kernel| (kernel.stem, kernel.arch) == (stem, arch)).unwrap();
        let shipped = kernel.shipped.unwrap_or_else(|| panic!("{name}: stale or missing; run scripts/ptx.sh"));
        assert_eq!(shipped.isa, (8, 0), "{name}: newer PTX is refused by the drivers 525 to 570");
        assert!(shipped.text.lines().any(|line| line == target), "{name}: no line {target}");

        // Headers may hold entry points, too.
        let text = fs::read_to_string(source).unwrap();
        let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix(".cuh\""));
        let headers: Vec<String> = included
            .map(|header| fs::read_to_string(source.with_file_name(header).with_extension("cuh")).unwrap())
            .collect();
        let text = headers.concat() + &text;
        let mut entries: Vec<&str> = shipped.entries().collect();
        entries.sort_unstable();
        assert_eq!(entries, declared(&text), "{name}");
        assert!(entries.iter().all(|entry| entry.starts_with(stem)), "{name}: {entries:?}");
        // Source lines and files would make the bytes depend on the folder they were compiled in.
        for word in [".loc ", ".loc\t", ".file", "/kernels/", "\\kernels\\"] {
            assert!(!shipped.text.contains(word), "{name}: the shipped PTX holds {word}");
        }
    }
    let shipped = fs::read_dir("kernels/ptx").unwrap().count();
    assert_eq!(shipped, sources.len(), "a file in kernels/ptx without a source");
}
