//! The driver table: each kind of machine, from none of CUDA to the newest, gets the right path or the right error, and
//! never a panic. Simulated, so it runs everywhere.
#![cfg(feature = "cli")]

use crate::simulated::{self, Machine, codeword as program, text};
use codeword::io::npy::{Header, Scalar, Writer};
use codeword::{AssignOptions, Codebook, Device, Error, MatrixView, assign};
use serde_json::Value;
use std::path::Path;

/// What `codeword doctor` says of a machine, and how it ends when the device is demanded.
fn doctor(machine: &Machine, device: &str) -> (Value, Option<i32>, String) {
    let output = machine.command(program()).args(["doctor", "--json", "--device", device]).output().expect("it starts");
    let words = text(&output);
    assert!(!words.contains("panicked"), "{words}");
    assert!(!words.contains("simulated CUDA: "), "{words}");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {words}"));
    (report, output.status.code(), words)
}

/// The step of this name: whether it holds, and its words.
fn step(report: &Value, name: &str) -> Option<(bool, String)> {
    let step = report["cuda"]["steps"].as_array()?.iter().find(|step| step["step"] == name)?;
    let way_out = step["way_out"].as_str().unwrap_or("");
    Some((step["ok"].as_bool()?, format!("{}; {way_out}", step["found"].as_str()?)))
}

/// The chain breaks at `name`, with these words, and `--device cuda` is refused with exit status 4.
fn breaks_at(machine: &Machine, name: &str, words: &[&str]) {
    let (report, _, _) = doctor(machine, "auto");
    let (ok, said) = step(&report, name).unwrap_or_else(|| panic!("no step {name} in {report}"));
    assert!(!ok, "{name} holds: {said}");
    for word in words {
        assert!(said.contains(word), "{name}: {word:?} is not in {said:?}");
    }
    let steps = report["cuda"]["steps"].as_array().expect("a list");
    assert_eq!(
        steps.last().expect("one step at least")["step"],
        name,
        "nothing is tried after the broken step: {report}"
    );
    assert_eq!(report["device"], "cpu", "without being asked for a GPU it goes on without one");
    let (_, status, words) = doctor(machine, "cuda");
    assert_eq!(status, Some(4), "{words}");
}

/// The chain holds up to the devices, of which there are `count`; what each is said to be.
fn devices(machine: &Machine, count: usize) -> Vec<Value> {
    let (report, _, _) = doctor(machine, "auto");
    for name in ["library", "symbols", "init", "count"] {
        let (ok, said) = step(&report, name).unwrap_or_else(|| panic!("no step {name} in {report}"));
        assert!(ok, "{name}: {said}");
    }
    let devices = report["cuda"]["devices"].as_array().expect("a list").clone();
    assert_eq!(devices.len(), count, "{report}");
    devices
}

#[test]
fn a_machine_without_a_driver() {
    if !simulated::is_available() {
        return;
    }
    breaks_at(&Machine::without_driver(), "library", &["libcuda.so", "install the NVIDIA driver"]);
}

#[test]
fn a_machine_with_the_toolkits_stub() {
    if !simulated::is_available() {
        return;
    }
    breaks_at(&Machine::with_stub(), "init", &["CUDA_ERROR_STUB_LIBRARY", "LD_LIBRARY_PATH"]);
}

#[test]
fn a_driver_without_a_device() {
    if !simulated::is_available() {
        return;
    }
    breaks_at(&Machine::new().set("DEVICES", 0), "init", &["CUDA_ERROR_NO_DEVICE", "nvidia-smi"]);
}

#[test]
fn drivers_old_and_new_are_told_apart() {
    if !simulated::is_available() {
        return;
    }
    for (driver, words) in [(11070, "CUDA 11.7"), (12000, "CUDA 12.0"), (12080, "CUDA 12.8"), (13000, "CUDA 13.0")] {
        let machine = Machine::new().set("DRIVER", driver);
        devices(&machine, 1);
        let (report, _, _) = doctor(&machine, "auto");
        assert!(step(&report, "init").is_some_and(|(_, said)| said.contains(words)), "{driver}: {report}");
    }
}

#[test]
fn devices_are_described_as_their_driver_does() {
    if !simulated::is_available() {
        return;
    }
    for (capability, expected) in [(70, "7.0"), (75, "7.5"), (80, "8.0"), (90, "9.0"), (120, "12.0")] {
        let found = devices(&Machine::new().set("CAPABILITY", capability).set("MEMORY", 64 << 20), 1);
        assert_eq!(found[0]["compute_capability"], expected);
        assert_eq!(found[0]["memory"], 64 << 20);
        assert_eq!(found[0]["ordinal"], 0);
    }
}

#[test]
fn every_device_is_listed_and_a_number_beyond_them_is_refused() {
    if !simulated::is_available() {
        return;
    }
    let machine = Machine::new().set("DEVICES", 3);
    let found = devices(&machine, 3);
    assert_eq!(found[2]["ordinal"], 2);
    let (_, status, words) = doctor(&machine, "cuda:3");
    assert_eq!(status, Some(4), "{words}");
    assert!(words.contains("device 3 of 3") && words.contains("0 to 2"), "{words}");
}

/// A machine, and what becomes of `Device::cuda(0)` there: it works, or the step that breaks and words of the message.
type Row = (&'static str, Machine, Result<(), (&'static str, [&'static str; 2])>);

fn driver_table() -> Vec<Row> {
    let driver = |version: u32| Machine::new().set("DRIVER", version);
    let capability = |number: u32| Machine::new().set("CAPABILITY", number);
    let too_old = |capability| Err(("capability", [capability, "Ampere"]));
    vec![
        ("no driver", Machine::without_driver(), Err(("library", ["libcuda.so", "install the NVIDIA driver"]))),
        ("a stub", Machine::with_stub(), Err(("init", ["CUDA_ERROR_STUB_LIBRARY", "LD_LIBRARY_PATH"]))),
        ("no device", Machine::new().set("DEVICES", 0), Err(("init", ["CUDA_ERROR_NO_DEVICE", "nvidia-smi"]))),
        ("driver 515", driver(11070), Err(("kernels", ["(for CUDA 11.7) does not read PTX ISA", "525"]))),
        ("driver 525", driver(12000), Ok(())),
        ("driver 570", driver(12080), Ok(())),
        ("driver 580", driver(13000), Ok(())),
        ("no cuBLAS", Machine::new().without_cublas(), Ok(())),
        ("driver 525, no cuBLAS", driver(12000).without_cublas(), Ok(())),
        ("a cuBLAS that fails", Machine::new().set("CUBLAS", "failing"), Ok(())),
        ("capability 7.0", capability(70), too_old("7.0")),
        ("capability 7.5", capability(75), too_old("7.5")),
        ("capability 8.0", capability(80), Ok(())),
        ("capability 9.0", capability(90), Ok(())),
        ("capability 12.0", capability(120), Ok(())),
    ]
}

const SHAPE: [usize; 3] = [50, 9, 5];

/// Vectors and codewords with ties among them.
fn data() -> (Vec<f32>, Vec<f32>) {
    let [n, k, d] = SHAPE;
    let number = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.0;
    ((0..n * d).map(number).collect(), (0..k * d).map(|i| number(i * i)).collect())
}

#[test]
fn the_library_works_or_says_what_is_missing_on_every_machine_of_the_table() {
    if !simulated::is_available() {
        return;
    }
    for (name, machine, expected) in driver_table() {
        let output =
            machine.run("driver::the_library_works_or_says_what_is_missing_on_every_machine_of_the_table", || {
                let (x, e) = data();
                let [n, k, d] = SHAPE;
                let (x, e) = (MatrixView::new(&x, n, d).unwrap(), MatrixView::new(&e, k, d).unwrap());
                let labels = |device: &Device| {
                    assign(x, &Codebook::new(e, device).unwrap(), AssignOptions::default()).unwrap().labels
                };
                match Device::cuda(0) {
                    Ok(device) => {
                        assert_eq!(labels(&device), labels(&Device::cpu()));
                        assert_eq!(Device::best(), device);
                        println!("outcome: works");
                    }
                    Err(Error::NoCudaDevice { step, got, way_out }) => {
                        assert_eq!(Device::best(), Device::cpu());
                        println!("outcome: breaks at {step}: {got}; {way_out}");
                    }
                    Err(error) => panic!("{error}"),
                }
            });
        let said = text(&output);
        assert!(output.status.success(), "{name}: {}\n{said}", output.status);
        let words = match expected {
            Ok(()) => vec!["outcome: works".to_string()],
            Err((step, words)) => {
                [format!("outcome: breaks at {step}:")].into_iter().chain(words.map(String::from)).collect()
            }
        };
        assert!(words.iter().all(|word| said.contains(word)), "{name}: {words:?} are not in\n{said}");
    }
}

#[test]
fn the_program_works_or_says_what_is_missing_on_every_machine_of_the_table() {
    if !simulated::is_available() {
        return;
    }
    let folder = saved();
    let encode = |machine: &Machine, device: &str, codes: &str| {
        let arguments = ["encode", "x.npy", "-c", "e.npy", "-o", codes, "--device", device];
        machine.command(program()).args(arguments).current_dir(folder.path()).output().expect("it starts")
    };
    let read = |name: &str| std::fs::read(folder.path().join(name));
    assert!(encode(&Machine::new(), "cpu", "cpu.npy").status.success());
    for (name, machine, expected) in driver_table() {
        let [demanded, chosen] = [format!("{name}.npy"), format!("{name}, auto.npy")];
        let output = encode(&machine, "cuda", &demanded);
        let said = text(&output);
        match expected {
            Ok(()) => {
                assert!(output.status.success(), "{name}: {}\n{said}", output.status);
                assert!(read(&demanded).unwrap() == read("cpu.npy").unwrap(), "{name}: other codes");
            }
            Err((_, words)) => {
                assert_eq!(output.status.code(), Some(4), "{name}: {said}");
                assert!(words.iter().all(|word| said.contains(word)), "{name}: {words:?} are not in\n{said}");
                assert!(read(&demanded).is_err(), "{name}: a refused run leaves a file");
            }
        }
        let output = encode(&machine, "auto", &chosen);
        assert!(output.status.success(), "{name}: {}\n{}", output.status, text(&output));
        assert!(read(&chosen).unwrap() == read("cpu.npy").unwrap(), "{name}: other codes");

        let (report, _, _) = doctor(&machine, "auto");
        assert_eq!(report["device"], if expected.is_ok() { "cuda:0" } else { "cpu" }, "{name}: {report}");
        for device in report["cuda"]["devices"].as_array().into_iter().flatten() {
            assert_eq!(device["usable"], expected.is_ok(), "{name}: {report}");
            for word in expected.err().into_iter().flat_map(|(_, words)| words) {
                assert!(device["why_not"].as_str().is_some_and(|why| why.contains(word)), "{name}: {report}");
            }
        }
    }
}

#[test]
fn memory_that_runs_out_at_any_allocation_of_the_program_ends_it_with_words_and_no_file() {
    if !simulated::is_available() {
        return;
    }
    let folder = saved();
    let mut refusals = 0;
    for nth in 1.. {
        let machine = Machine::new().set("MEMORY", 1_000_000).set("FAIL_ALLOC", nth);
        let arguments = ["encode", "x.npy", "-c", "e.npy", "-o", "codes.npy", "--device", "cuda"];
        let output = machine.command(program()).args(arguments).current_dir(folder.path()).output().expect("it starts");
        if output.status.success() {
            break;
        }
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "allocation {nth}: {said}");
        assert!(said.contains("CUDA_ERROR_OUT_OF_MEMORY") && said.contains("use the CPU"), "allocation {nth}: {said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "allocation {nth}: nothing but the input");
        refusals += 1;
    }
    assert!(refusals > 10, "{refusals}");
}

/// The data as x.npy and e.npy in a folder of its own.
fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let [n, k, d] = SHAPE;
    let (x, e) = data();
    save(&folder.path().join("x.npy"), &x, &[n, d]);
    save(&folder.path().join("e.npy"), &e, &[k, d]);
    folder
}

fn save(path: &Path, values: &[f32], shape: &[usize]) {
    let file = std::fs::File::create(path).expect("it can be written");
    let mut writer = Writer::new(file, path, Header::new(Scalar::F32, shape, false).expect("a shape")).expect("a file");
    writer.write_values(0, values).expect("it can be written");
    writer.finish().expect("it can be written");
}

#[test]
fn without_cublas_the_driver_is_usable_all_the_same() {
    if !simulated::is_available() {
        return;
    }
    // Which is told, and is no link of the chain that a device hangs on. What a failing one does is in cuda_gemm.rs.
    for (machine, ok, words) in [
        (Machine::new(), true, "libcublas.so.12"),
        (Machine::new().without_cublas(), false, "no cuBLAS library was found"),
        (Machine::new().set("CUBLAS", "failing"), true, "libcublas.so.12"),
        (Machine::without_driver(), false, "no cuBLAS library was found"),
    ] {
        let (report, _, _) = doctor(&machine, "auto");
        let cublas = &report["cuda"]["cublas"];
        assert_eq!(cublas["ok"], ok, "{report}");
        assert_eq!(cublas["found"], words, "{report}");
        assert_eq!(cublas["way_out"].is_string(), !ok, "{report}");
    }
    devices(&Machine::new().without_cublas(), 1);
    devices(&Machine::new().set("CUBLAS", "failing"), 1);
}

#[test]
fn cudarc_finds_cublas_where_it_is_and_only_there() {
    if !simulated::is_available() {
        return;
    }
    for (machine, expected) in [(Machine::new(), true), (Machine::new().without_cublas(), false)] {
        let machine = machine.set("EXPECTED", expected);
        machine.pass("driver::cudarc_finds_cublas_where_it_is_and_only_there", || {
            // SAFETY: it only tries to load the library.
            let found = unsafe { cudarc::cublas::sys::is_culib_present() };
            assert_eq!(found.to_string(), std::env::var("CODEWORD_SIM_EXPECTED").expect("set by the parent"));
        });
    }
}

#[test]
fn memory_that_runs_out_at_any_allocation_is_an_error_and_nothing_leaks() {
    if !simulated::is_available() {
        return;
    }
    for fail in 1..=4 {
        let machine = Machine::new().set("FAIL_ALLOC", fail);
        machine.pass("driver::memory_that_runs_out_at_any_allocation_is_an_error_and_nothing_leaks", || {
            use cudarc::driver::{CudaContext, DriverError};
            let work = || -> Result<(), DriverError> {
                let context = CudaContext::new(0)?;
                let stream = context.new_stream()?;
                let x = stream.clone_htod(&[1.0f32; 100])?;
                let _y = stream.alloc_zeros::<f32>(100)?;
                // SAFETY: floats of any bits are floats.
                let mut out = unsafe { context.alloc_pinned_with_flags::<f32>(100, 0) }?;
                stream.memcpy_dtoh(&x, &mut out)?;
                stream.synchronize()
            };
            let fails = std::env::var("CODEWORD_SIM_FAIL_ALLOC").expect("set by the parent") != "4";
            let result = work();
            let expected = cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
            assert_eq!(result.err().map(|error| error.0), fails.then_some(expected));
        });
    }
}

#[test]
fn a_small_card_is_full_when_its_bytes_are_taken() {
    if !simulated::is_available() {
        return;
    }
    Machine::new().set("MEMORY", 64 << 20).pass("driver::a_small_card_is_full_when_its_bytes_are_taken", || {
        let context = cudarc::driver::CudaContext::new(0).expect("it opens");
        let stream = context.new_stream().expect("a stream");
        let taken = stream.alloc_zeros::<u8>(60 << 20).expect("there is room");
        assert_eq!(context.mem_get_info().expect("known"), (4 << 20, 64 << 20));
        assert!(stream.alloc_zeros::<u8>(5 << 20).is_err());
        drop(taken);
        assert!(stream.alloc_zeros::<u8>(64 << 20).is_ok());
    });
}
