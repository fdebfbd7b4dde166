//! The command line tool on a (simulated) CUDA device writes the files that it writes on the CPU.
#![cfg(all(feature = "cuda", feature = "cli", target_os = "linux"))]

mod common;
#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::io::npy::{Header, Scalar, Writer};
use common::Numbers;
use simulated::{Machine, text};
use std::path::Path;
use std::process::Output;

fn save(path: &Path, values: &[f32], shape: &[usize]) {
    let header = Header::new(Scalar::F32, shape, false).unwrap();
    let mut writer = Writer::new(std::fs::File::create(path).unwrap(), path, header).unwrap();
    writer.write_values(0, values).unwrap();
    writer.finish().unwrap();
}

/// Vectors and a codebook, with copies and ties among them, in a folder of their own.
fn sample() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut numbers, d) = (Numbers::new(77), 24);
    let mut codewords = numbers.gaussians(40 * d);
    codewords.extend_from_within(..3 * d);
    let mut vectors = numbers.gaussians(300 * d);
    vectors.extend((0..d).map(|t| (codewords[t] + codewords[d + t]) / 2.0));
    vectors.extend_from_slice(&codewords[..5 * d]);
    save(&folder.path().join("e.npy"), &codewords, &[43, d]);
    save(&folder.path().join("x.npy"), &vectors, &[2, 153, d]);
    folder
}

fn run(machine: &Machine, folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_codeword");
    machine.command(program).current_dir(folder).args(arguments).output().expect("the program starts")
}

#[test]
fn every_verb_writes_on_a_device_what_it_writes_on_the_cpu() {
    if !simulated::is_available() {
        return;
    }
    let (folder, machine) = (sample(), Machine::new());
    let done = |arguments: &[&str]| {
        let output = run(&machine, folder.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        output
    };
    for device in ["cpu", "cuda"] {
        let file = |name: &str| format!("{name}-{device}.npy");
        let encode = ["encode", "x.npy", "-c", "e.npy", "-o", &file("codes"), "--device", device];
        done(&[&encode[..], &["--distances", &file("distances"), "--reconstruction", &file("nearest")]].concat());
        let top = ["encode", "x.npy", "-c", "e.npy", "-o", &file("top"), "--top-k", "5", "--device", device];
        done(&[&top[..], &["--distances", &file("top-distances"), "--reconstruction", &file("top-nearest")]].concat());
        done(&["decode", &file("codes"), "-c", "e.npy", "-o", &file("decoded"), "--device", device]);
        let matrix = ["distances", "x.npy", "-c", "e.npy", "-o", &file("matrix"), "--device", device];
        done(&[&matrix[..], &["--precision", "exact"]].concat());
    }
    for name in ["codes", "distances", "nearest", "top", "top-distances", "top-nearest", "decoded", "matrix"] {
        let read = |device: &str| std::fs::read(folder.path().join(format!("{name}-{device}.npy"))).unwrap();
        assert!(read("cuda") == read("cpu"), "{name} differ");
    }
    let eval = |device: &str| {
        let output = done(&["eval", "x.npy", "-c", "e.npy", "--device", device, "--json"]);
        let mut report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let report = report.as_object_mut().unwrap();
        assert!(report["device"].as_str().unwrap().starts_with(device), "{report:?}");
        // What may differ: where it ran, how long it took, which tier settled a row.
        for name in ["device", "isa", "threads", "seconds", "tiers"] {
            report.remove(name);
        }
        report.clone()
    };
    assert_eq!(eval("cuda"), eval("cpu"));
}

#[test]
fn a_row_that_is_not_finite_is_named_as_on_the_cpu() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("e.npy"), &[0.0, 1.0, 2.0, 3.0], &[2, 2]);
    save(&folder.path().join("x.npy"), &[0.0, 1.0, 2.0, f32::NAN, f32::INFINITY, 0.0], &[3, 2]);
    let encode = |device: &str| {
        let output = run(
            &Machine::new(),
            folder.path(),
            &["encode", "x.npy", "-c", "e.npy", "-o", "codes.npy", "--device", device],
        );
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = encode("cuda");
    assert!(said.contains("vector 1 holds NaN in column 1"), "{said}");
    assert_eq!(said, encode("cpu"));
}
