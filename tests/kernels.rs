//! Every kernel entry point of kernels/*.cu is run by some test of tests/cuda/, on the simulated driver. Cargo runs
//! test programs in the order of their names, so the others have left their records when this one comes.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::backend::cuda::ptx::{Arch, KERNELS};
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
    if !records.programs.contains("cuda") {
        assert!(!simulated::is_required("simulated"), "tests/cuda has not run before this: run cargo test");
        println!("skipped: tests/cuda has not run before this");
        return;
    }

    let mut list = String::new();
    let mut missing = Vec::new();
    for kernel in &KERNELS {
        let ptx = kernel.shipped.or(kernel.built).unwrap_or_else(|| panic!("{}: run scripts/ptx.sh", kernel.stem));
        for entry in ptx.entries() {
            // The design of one architecture has the names of that for all.
            let entry = match kernel.arch {
                Arch::Compute80 => entry.to_owned(),
                Arch::Compute90a => format!("{entry} of sm_90a"),
            };
            let Some(tests) = records.tests.get(&entry) else {
                missing.push(entry);
                continue;
            };
            // By program and file.
            let mut files = BTreeMap::<&str, usize>::new();
            for test in tests {
                *files
                    .entry(test.rsplit_once('.').map_or_else(|| test.split("::").next().unwrap_or(test), |it| it.0))
                    .or_default() += 1;
            }
            let files: Vec<String> = files.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(list, "{entry}: {} tests ({})", tests.len(), files.join(", ")).expect("a text takes it");
        }
    }
    // Past the capture of the test harness: the list is there in every run.
    write!(std::io::stderr().lock(), "kernel entry points that the tests ran:\n{list}").expect("it is open");
    assert!(
        missing.is_empty(),
        "no test of tests/cuda/ runs {missing:?} (all of them have to run: without a filter, all tests passing)"
    );
}
