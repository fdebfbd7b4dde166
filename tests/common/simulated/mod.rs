//! The simulated CUDA driver of `tests/emulator`: built by g++ on first use, found by child processes through
//! `LD_LIBRARY_PATH`.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

use codeword::Error;
use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex;

mod build;
mod entries;
pub mod launched;

/// Set in a child process that a test started for itself.
const CHILD: &str = "CODEWORD_SIM_CHILD";

/// Whether the simulated driver can be built here: it needs g++, and Linux on x86-64 or aarch64. Where it cannot, says
/// so, and fails if `CODEWORD_TEST_REQUIRE` names `simulated`.
pub fn is_available() -> bool {
    if is_required("cuda") {
        println!("skipped: needs a simulated CUDA device, and CODEWORD_TEST_REQUIRE asks for a real one");
        return false;
    }
    let why = if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        "it is made for Linux on x86-64 and aarch64"
    } else if Command::new("g++").arg("--version").output().is_err() {
        "g++ cannot be started (Debian: apt install g++)"
    } else {
        return true;
    };
    assert!(!is_required("simulated"), "the simulated CUDA driver is required: {why}");
    println!("skipped: no simulated CUDA driver: {why}");
    false
}

pub fn is_required(name: &str) -> bool {
    std::env::var("CODEWORD_TEST_REQUIRE").is_ok_and(|names| names.split(',').any(|it| it == name))
}

/// A machine as the simulated driver shall show it. See `tests/emulator/README.md` for the settings.
#[derive(Clone, Default)]
pub struct Machine {
    settings: Vec<(String, String)>,
    folder: Folder,
}

/// Which libraries are there.
#[derive(Clone, Copy, Default, PartialEq)]
enum Folder {
    /// No CUDA at all.
    Empty,
    /// The library that the toolkit ships to link against.
    Stub,
    DriverOnly,
    #[default]
    Full,
}

impl Machine {
    /// One device of compute capability 8.0 with 4 GiB, a driver of CUDA 12.8, cuBLAS.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// A machine without a driver.
    pub fn without_driver() -> Machine {
        Machine { folder: Folder::Empty, ..Machine::default() }
    }

    /// A machine that finds the stub of the toolkit in place of a driver.
    pub fn with_stub() -> Machine {
        Machine { folder: Folder::Stub, ..Machine::default() }
    }

    /// The same without cuBLAS.
    pub fn without_cublas(mut self) -> Machine {
        self.folder = Folder::DriverOnly;
        self
    }

    /// Sets `CODEWORD_SIM_<name>`.
    pub fn set(mut self, name: &str, value: impl ToString) -> Machine {
        self.settings.push((format!("CODEWORD_SIM_{name}"), value.to_string()));
        self
    }

    /// Orders blocks and threads by `seed`, or by the environment's where that names one (scripts/schedules.sh).
    pub fn seed(self, seed: u64) -> Machine {
        if std::env::var_os("CODEWORD_SIM_SEED").is_some() { self } else { self.set("SEED", seed) }
    }

    /// Sets a variable of the environment that is none of the driver's.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Machine {
        self.settings.push((name.to_string(), value.to_string()));
        self
    }

    /// A command whose process sees this machine. Where `CODEWORD_TEST_REQUIRE` names `cuda` and any machine will do,
    /// it sees the real one.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        if !self.is_real() {
            command.env("LD_LIBRARY_PATH", self.folder()).env("CODEWORD_SIM_LAUNCHED", launched::record());
        }
        command
    }

    /// In a test function: runs the test of this name again in a child process that sees this machine, where `body`
    /// runs and which then ends. Returns what the child wrote and how it ended.
    pub fn run(&self, test: &str, body: impl FnOnce()) -> Output {
        if is_child(test) {
            body();
            std::process::exit(0);
        }
        let program = std::env::current_exe().expect("a test knows its own file");
        let mut command = self.command(program);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
        let output = command.output().expect("the test can be started again");
        assert!(text(&output).contains("running 1 test"), "{test} is no test's whole name: {}", text(&output));
        output
    }

    /// [`Machine::run`], and the child has to pass with no finding of the driver. Skipped where there is none. Where
    /// `CODEWORD_TEST_REQUIRE` names `cuda`, `body` runs on the real device, if any machine will do: right here, unless
    /// the machine has variables of the environment.
    pub fn pass(&self, test: &str, body: impl FnOnce()) {
        if is_child(test) {
            self.run(test, body);
            return;
        }
        if self.is_real() && self.settings.is_empty() {
            return body();
        }
        if !self.is_available() {
            return;
        }
        let output = self.run(test, body);
        assert!(output.status.success(), "{}: {}\n{}", test, output.status, text(&output));
    }

    /// In a test function: runs `work` with its first allocation refused, then its second, and so on, until it needs
    /// no more. Each time it has to end with [`Error::Cuda`] that says so, and leave nothing behind. Returns how many
    /// were refused.
    pub fn refuse_each(&self, test: &str, work: impl Fn() -> Result<(), Error>) -> usize {
        (1..).take_while(|&nth| !self.is_done_without(test, nth, &work)).count()
    }

    /// The same where some refusals are got over: with each of the first `count` allocations refused in turn, `d` where the
    /// work was done and `r` where it was refused.
    pub fn refuse_first(&self, test: &str, count: usize, work: impl Fn() -> Result<(), Error>) -> String {
        (1..=count).map(|nth| if self.is_done_without(test, nth, &work) { 'd' } else { 'r' }).collect()
    }

    /// Whether `work` is done where allocation `nth` is refused; else it has to end with the error that says so.
    fn is_done_without(&self, test: &str, nth: usize, work: &impl Fn() -> Result<(), Error>) -> bool {
        let output = self.clone().set("FAIL_ALLOC", nth).run(test, || match work() {
            Ok(()) => println!("outcome: done"),
            Err(Error::Cuda { got, .. }) if got == "CUDA_ERROR_OUT_OF_MEMORY" => println!("outcome: refused"),
            Err(error) => println!("outcome: {error}"),
        });
        let text = text(&output);
        assert!(output.status.success(), "allocation {nth}: {}\n{text}", output.status);
        let [is_done, is_refused] = ["done", "refused"].map(|word| text.contains(&format!("outcome: {word}")));
        assert!(is_done != is_refused, "allocation {nth}: {text}");
        is_done
    }

    /// [`Machine::run`], and the driver has to find fault in a line that holds all of `words`. Skipped where there is
    /// none.
    pub fn find(&self, test: &str, words: &[&str], body: impl FnOnce()) {
        if !is_available() {
            return;
        }
        let output = self.run(test, body);
        let text = text(&output);
        let found =
            text.lines().any(|line| line.starts_with("simulated CUDA: ") && words.iter().all(|it| line.contains(it)));
        assert!(found, "{test}: no finding with {words:?} in\n{text}");
        assert_eq!(output.status.code(), Some(99), "{test}: a finding makes the exit status 99\n{text}");
    }

    /// Whether [`Machine::command`] can start programs here; says so where it cannot.
    pub fn is_available(&self) -> bool {
        self.is_real() || is_available()
    }

    /// A real device is asked for, and this machine is like any other: nothing of it but variables that are not the
    /// simulated driver's.
    fn is_real(&self) -> bool {
        let is_simulated = self.settings.iter().any(|(name, _)| name.starts_with("CODEWORD_SIM_"));
        is_required("cuda") && !is_simulated && self.folder == Folder::Full
    }

    fn folder(&self) -> PathBuf {
        let setting = |name: &str| {
            let name = format!("CODEWORD_SIM_{name}");
            self.settings.iter().rev().find(|it| it.0 == name).map(|it| it.1.clone())
        };
        let kernels =
            setting("KERNELS").map(PathBuf::from).or(std::env::var_os("CODEWORD_SIM_KERNELS").map(Into::into));
        let driver = setting("DRIVER").and_then(|it| it.parse().ok()).unwrap_or(12080);
        let cublas = self.folder == Folder::Full && setting("CUBLAS").as_deref() != Some("absent");
        let name = match self.folder {
            Folder::Empty => "empty",
            Folder::Stub => "stub",
            // The library of an older driver lacks what came later.
            _ if driver < 12080 && cublas => "old",
            _ if driver < 12080 => "old-driver-only",
            _ if cublas => "new",
            _ => "new-driver-only",
        };
        root(setting("CHECK").as_deref() != Some("0"), kernels).join(name)
    }
}

/// [`Machine::pass`] on each of `machines`, side by side.
pub fn pass_on_each(machines: impl IntoIterator<Item = Machine>, test: &str, body: impl Fn() + Sync) {
    let machines: Vec<Machine> = machines.into_iter().collect();
    // A child sees one machine, that of its environment, and ends with the first body.
    if is_child(test) {
        return machines.iter().take(1).for_each(|machine| machine.pass(test, &body));
    }
    if machines.iter().any(Machine::is_real) {
        return machines.iter().for_each(|machine| machine.pass(test, &body));
    }
    std::thread::scope(|scope| {
        for machine in &machines {
            // By the name of its thread a test's record is known.
            let named = std::thread::Builder::new().name(test.to_string());
            named.spawn_scoped(scope, || machine.pass(test, &body)).expect("a thread can be started");
        }
    });
}

fn is_child(test: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|name| name == test)
}

/// The command line tool. Cargo names it when a test starts; on a machine without cargo, what starts the test does.
pub fn codeword() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_codeword").expect("set by cargo, 1.94 or later").into()
}

/// Standard output, then standard error.
pub fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The folder that holds the built machines; built by the first caller of all processes. `copy` is a folder of kernel
/// sources in place of `kernels/`.
fn root(checked: bool, copy: Option<PathBuf>) -> PathBuf {
    static ROOTS: Mutex<BTreeMap<(bool, Option<PathBuf>), PathBuf>> = Mutex::new(BTreeMap::new());
    let mut roots = ROOTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    roots.entry((checked, copy)).or_insert_with_key(|(checked, copy)| build::build(*checked, copy.as_deref())).clone()
}

/// What the simulated driver is built in and leaves records in: `target/emulator`, above the folder of this program.
/// Found when it runs, not when it is compiled: a program that was packed for another machine holds no path of this.
pub fn built_in() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its own file");
    program.ancestors().nth(3).expect("target/PROFILE/deps/PROGRAM").join("emulator")
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
