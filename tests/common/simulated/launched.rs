//! Records of which kernels ran: the simulated driver writes their names, one file per test, in a folder per build of a
//! test program. `tests/kernels.rs` reads them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The file for the test that runs now.
pub fn record() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its own file");
    let folder = super::built_in().join("launched").join(key(&program).expect("it is a file"));
    fs::create_dir_all(&folder).expect("the target folder can be written");
    // Tests run in threads that have their names, unless there is one thread for all.
    folder.join(std::thread::current().name().unwrap_or("main").replace("::", "."))
}

/// Name and time of making: what an older build of the program left is not taken for the newer one's.
fn key(program: &Path) -> Option<String> {
    let made = fs::metadata(program).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}@{}", program.file_name()?.to_str()?, made.as_nanos()))
}

/// What the test programs that are there now have left.
#[derive(Default)]
pub struct Records {
    /// Names of the programs, as in tests/NAME.rs, that started the simulated driver.
    pub programs: BTreeSet<String>,
    /// By kernel: the tests that ran it, as `PROGRAM::TEST`.
    pub tests: BTreeMap<String, BTreeSet<String>>,
}

impl Records {
    /// Reads the records of all programs beside this one.
    pub fn read() -> Records {
        let mut records = Records::default();
        let own = std::env::current_exe().expect("a test knows its own file");
        for folder in fs::read_dir(super::built_in().join("launched")).into_iter().flatten().flatten() {
            let name = folder.file_name().to_string_lossy().into_owned();
            let Some((program, _)) = name.split_once('@') else { continue };
            if key(&own.with_file_name(program)).as_ref() != Some(&name) {
                continue;
            }
            // cargo names a program NAME-HASH.
            let program = program.rsplit_once('-').map_or(program, |(name, _)| name);
            records.programs.insert(program.to_string());
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let test = format!("{program}::{}", file.file_name().to_string_lossy());
                for kernel in fs::read_to_string(file.path()).unwrap_or_default().lines() {
                    records.tests.entry(kernel.to_string()).or_default().insert(test.clone());
                }
            }
        }
        records
    }
}
