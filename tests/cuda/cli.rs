//! The command line tool on a (simulated) CUDA device writes the files that it writes on the CPU.
#![cfg(feature = "cli")]

use crate::common::Numbers;
use crate::simulated::{self, Machine, text};
use codeword::io::npy::{Header, Scalar, Writer};
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
    machine.command(simulated::codeword()).current_dir(folder).args(arguments).output().expect("the program starts")
}

#[test]
fn every_verb_writes_on_a_device_what_it_writes_on_the_cpu() {
    if !Machine::new().is_available() {
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
        let train = ["train", "x.npy", "-k", "9", "-o", &file("learned"), "--iterations", "3", "--device", device];
        done(&[&train[..], &["--codes", &file("learned-codes")]].concat());
        let matrix = ["distances", "x.npy", "-c", "e.npy", "-o", &file("matrix"), "--device", device];
        done(&[&matrix[..], &["--precision", "exact"]].concat());
    }
    for name in [
        "codes",
        "distances",
        "nearest",
        "top",
        "top-distances",
        "top-nearest",
        "decoded",
        "matrix",
        "learned",
        "learned-codes",
    ] {
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
    if !Machine::new().is_available() {
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

#[test]
fn several_cards_write_what_one_writes() {
    if !simulated::is_available() {
        return;
    }
    let (folder, machine) = (sample(), Machine::new().set("DEVICES", 3));
    let encode = |name: &str, more: &[&str]| {
        let distances = format!("{name}-distances.npy");
        let first = ["encode", "x.npy", "-c", "e.npy", "-o", name, "--distances", &distances, "--json", "--force"];
        let output = run(&machine, folder.path(), &[&first[..], more].concat());
        assert!(output.status.success(), "{more:?}: {}", text(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let files = [name, &distances].map(|file| std::fs::read(folder.path().join(file)).unwrap());
        (report["device"].as_str().unwrap().to_owned(), files)
    };
    for top_k in [&[][..], &["--top-k", "4"]] {
        let with = |device: &str| encode("codes.npy", &[&["--device", device], top_k].concat());
        let (_, cpu) = with("cpu");
        for (choice, devices) in [
            ("cuda:0,1", "cuda:0 cuda:1"),
            ("cuda:2,0,1", "cuda:2 cuda:0 cuda:1"),
            ("cuda:all", "cuda:0 cuda:1 cuda:2"),
        ] {
            let (used, files) = with(choice);
            assert_eq!(used, devices);
            assert!(files == cpu, "{choice} {top_k:?}");
        }
    }
    for (arguments, code, why) in [
        (&["encode", "x.npy", "-c", "e.npy", "-o", "n.npy", "--device", "cuda:0,3"][..], 4, "device 3 of 3"),
        (&["encode", "x.npy", "-c", "e.npy", "-o", "n.npy", "--device", "cuda:1,1"], 2, "named twice"),
        (&["eval", "x.npy", "-c", "e.npy", "--device", "cuda:0,1"], 2, "eval works on one device"),
    ] {
        let output = run(&machine, folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(why), "{}", text(&output));
    }
}

#[test]
fn a_memory_limit_holds_on_the_card_too() {
    if !simulated::is_available() {
        return;
    }
    let folder = sample();
    let (trace, machine) = (folder.path().join("trace"), Machine::new());
    let machine = machine.set("TRACE", trace.display());
    let encode = ["encode", "x.npy", "-c", "e.npy", "--device", "cuda", "--max-memory"];
    let output = run(&machine, folder.path(), &[&encode[..], &["40K", "-o", "limited.npy"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let trace = std::fs::read_to_string(&trace).unwrap();
    // The codebook is no block of vectors: 43 x 24 and its packed form.
    let bytes = trace.lines().filter_map(|line| line.strip_prefix("allocate id=")?.split("bytes=").nth(1));
    let sum: usize = bytes.filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok()).sum();
    assert!(sum < 40 * 1024 + 20_000, "{sum} bytes");
    let output = run(&machine, folder.path(), &["encode", "x.npy", "-c", "e.npy", "--device", "cpu", "-o", "cpu.npy"]);
    assert!(output.status.success(), "{}", text(&output));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("limited.npy") == read("cpu.npy"));
}
