//! A folder of its own for every test, arrays written and read without the library, and the real binary.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const USAGE: i32 = 2;
pub const BAD_INPUT: i32 = 3;
pub const BINARY: &str = env!("CARGO_BIN_EXE_codeword");

/// A temporary folder in which the tool runs.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The tool in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.0.path()).args(args);
        command
    }

    /// Runs the tool.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// Starts the tool and interrupts it so long after there is a file that is not whole yet.
    #[cfg(unix)]
    pub fn interrupted(&self, args: &[&str], after: Duration) -> Output {
        use nix::sys::signal::{Signal, kill};
        let child = self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let start = Instant::now();
        while partial_files(&self.path("")) == 0 && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(after);
        // What Ctrl-C does; that signal may be ignored here, as it is in the background of a script.
        kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it still runs");
        child.wait_with_output().expect("it ends")
    }

    /// Runs the tool, which must succeed, and returns standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs the tool, which must succeed, and returns the object on standard output.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder");
        let mut names: Vec<_> =
            entries.map(|it| it.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// Writes any file.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    /// Writes a C-order array of little-endian f32.
    pub fn f32(&self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        self.array(name, "<f4", shape, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Writes a C-order array of any type.
    pub fn array(&self, name: &str, descr: &str, shape: &[usize], data: Vec<u8>) {
        let shape = shape.iter().map(|n| format!("{n}, ")).collect::<String>();
        self.write(name, &[npy_header(descr, false, &format!("({shape})")), data].concat());
    }

    /// Writes an array of zeros that takes no space on the disk.
    pub fn sparse_f32(&self, name: &str, n: usize, d: usize) {
        let header = npy_header("<f4", false, &format!("({n}, {d})"));
        self.write(name, &header);
        let file = std::fs::File::options().write(true).open(self.path(name)).expect("the file");
        file.set_len((header.len() + 4 * n * d) as u64).expect("a sparse file");
    }

    /// Reads an array: its header as it is written, and the data.
    pub fn read(&self, name: &str) -> (String, Vec<u8>) {
        let bytes = std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{name}");
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        (String::from_utf8(bytes[10..end].to_vec()).expect("ASCII"), bytes[end..].to_vec())
    }

    /// Reads the values of a C-order array of f32 after a look at its header.
    /// The header of a `.safetensors` file, and its elements.
    pub fn read_tensors(&self, name: &str) -> (Value, Vec<u8>) {
        let file = std::fs::read(self.path(name)).expect("the file was written");
        let len = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        (serde_json::from_slice(&file[8..8 + len]).expect("JSON"), file[8 + len..].to_vec())
    }

    pub fn read_f32(&self, name: &str, shape: &str) -> Vec<f32> {
        let (header, data) = self.read(name);
        assert_header(&header, "<f4", false, shape);
        data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Reads the values of a C-order array of u8 after a look at its header.
    pub fn read_u8(&self, name: &str, shape: &str) -> Vec<u8> {
        let (header, data) = self.read(name);
        assert_header(&header, "|u1", false, shape);
        data
    }

    /// Reads the values of a C-order array of u32 after a look at its header.
    pub fn read_u32(&self, name: &str, shape: &str) -> Vec<u32> {
        let (header, data) = self.read(name);
        assert_header(&header, "<u4", false, shape);
        data.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// A header of version 1.0, as NumPy writes it. `shape` is what stands behind the key, whatever that is.
pub fn npy_header(descr: &str, fortran_order: bool, shape: &str) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let descr = if descr.starts_with('[') { descr.to_string() } else { format!("'{descr}'") };
    let mut text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a short header").to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
}

/// Whether a header says that, as NumPy would write it.
pub fn assert_header(header: &str, descr: &str, fortran_order: bool, shape: &str) {
    let order = if fortran_order { "True" } else { "False" };
    for part in [format!("'descr': '{descr}'"), format!("'fortran_order': {order}"), format!("'shape': {shape}")] {
        assert!(header.contains(&part), "{part} in {header}");
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Numbers that look random and are the same everywhere: multiples of 1/8 between -16 and 16.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 24) as u8) / 8.0 - 16.0
    };
    (0..len).map(|_| next()).collect()
}

/// The names of files beside `path` that are still being written.
pub fn partial_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("the folder");
    entries.filter(|it| it.as_ref().is_ok_and(|it| it.file_name().to_string_lossy().ends_with(".partial"))).count()
}

/// A `.safetensors` file with one tensor of f32.
pub fn tensors(metadata: &Value, shape: &[usize], values: &[f32]) -> Vec<u8> {
    let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * values.len()]});
    let header = json!({"__metadata__": metadata, "codebooks": entry}).to_string();
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A `.safetensors` file with several of them.
pub fn all_tensors(metadata: &Value, tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let (mut header, mut data) = (json!({"__metadata__": metadata}), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(bytes(values));
        header[*name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Runs into an error of one line with all the words, and finds the folder as it was.
pub fn fails(folder: &Folder, args: &[&str], code: i32, words: &[&str]) {
    let before = folder.names();
    let output = folder.run(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.starts_with("codeword: ") && text.lines().count() == 1 && text.len() < 500, "{args:?}: {text}");
    assert!(!text.contains("  "), "a gap in: {text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{args:?}: '{word}' in: {text}"));
    assert!(output.stdout.is_empty());
    assert_eq!(folder.names(), before, "{args:?}");
}
