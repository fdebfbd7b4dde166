//! Every kernel entry point of kernels/*.cu is run by some test of tests/cuda*.rs, on the simulated driver. Cargo runs
//! test programs in the order of their names, so the others have left their records when this one comes.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::backend::cuda::ptx::KERNELS;
use simulated::launched::Records;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

#[test]
fn every_kernel_entry_point_is_run_by_a_test() {
    if !simulated::is_available() {
        return;
    }
    let records = Records::read();
    // Tests run in the root of the package.
    let absent: Vec<String> = std::fs::read_dir("tests")
        .expect("the folder of this file")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".rs").map(String::from))
        .filter(|name| name.starts_with("cuda") && !records.programs.contains(name))
        .collect();
    if !absent.is_empty() {
        assert!(!simulated::is_required("simulated"), "{absent:?} of tests/ have not run before this: run cargo test");
        println!("skipped: {absent:?} of tests/ have not run before this");
        return;
    }

    let mut list = String::new();
    let mut missing = Vec::new();
    for kernel in &KERNELS {
        let ptx = kernel.shipped.or(kernel.built).unwrap_or_else(|| panic!("{}: run scripts/ptx.sh", kernel.stem));
        for entry in ptx.entries() {
            let Some(tests) = records.tests.get(entry) else {
                missing.push(entry);
                continue;
            };
            let mut programs = BTreeMap::<&str, usize>::new();
            for test in tests {
                *programs.entry(test.split("::").next().unwrap_or(test)).or_default() += 1;
            }
            let programs: Vec<String> = programs.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(list, "{entry}: {} tests ({})", tests.len(), programs.join(", ")).expect("a text takes it");
        }
    }
    // Past the capture of the test harness: the list is there in every run.
    write!(std::io::stderr().lock(), "kernel entry points that the tests ran:\n{list}").expect("it is open");
    assert!(
        missing.is_empty(),
        "no test of tests/cuda*.rs runs {missing:?} (all of them have to run: without a filter, all tests passing)"
    );
}
