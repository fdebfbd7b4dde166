//! Whatever is wrong, the command line tool ends with the right exit code and one line that says what was seen and the
//! way out, and leaves neither half a file nor a temporary one.

use crate::support::{self, BAD_INPUT, Folder, USAGE, npy_header, partial_files, stderr};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// Vectors x.npy of (100, 2), codebook e.npy of (3, 2), codes c.npy of (4,).
fn sound() -> Folder {
    let folder = Folder::new();
    folder.f32("x.npy", &[100, 2], &[1.0; 200]);
    folder.f32("e.npy", &[3, 2], &[0.0, 0.0, 4.0, 0.0, 0.0, 4.0]);
    folder.array("c.npy", "|u1", &[4], vec![0, 1, 2, 0]);
    folder
}

/// One clear line, with all the words.
fn assert_clear(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("codeword: ") && text.ends_with('\n') && text.lines().count() == 1, "{text}");
    for word in words.iter().chain(&["\n"]) {
        assert!(text.contains(word), "'{word}' in: {text}");
    }
    assert!(!text.contains("panicked") && text.len() < 500, "{text}");
    assert!(output.stdout.is_empty());
}

/// Runs into an error and finds the folder as it was.
fn fails(folder: &Folder, args: &[&str], code: i32, words: &[&str]) {
    let before = folder.names();
    assert_clear(&folder.run(args), code, words);
    assert_eq!(folder.names(), before, "{args:?}");
}

const ENCODE: [&str; 6] = ["encode", "x.npy", "-c", "e.npy", "-o", "new.npy"];

#[test]
fn a_missing_file_or_a_folder_is_named() {
    let folder = sound();
    std::fs::create_dir(folder.path("sub")).expect("a folder");
    for (x, e, words) in [
        ("no.npy", "e.npy", ["no.npy", "no such file", "check the path"]),
        ("x.npy", "no.npy", ["no.npy", "no such file", "check the path"]),
        ("sub", "e.npy", ["sub", "is a folder", "name a .npy"]),
        ("x.npy", "sub", ["sub", "is a folder", "name a .npy"]),
    ] {
        for verb in ["encode", "distances"] {
            fails(&folder, &[verb, x, "-c", e, "-o", "new.npy"], BAD_INPUT, &words);
        }
        fails(&folder, &["eval", x, "-c", e], BAD_INPUT, &words);
    }
    fails(&folder, &["decode", "no.npy", "-c", "e.npy", "-o", "new.npy"], BAD_INPUT, &["no.npy", "no such file"]);
    fails(&folder, &["inspect", "no.npy"], BAD_INPUT, &["no.npy", "no such file"]);
}

#[test]
fn a_file_that_is_no_whole_array_is_refused() {
    let f32_ones = 1.0f32.to_le_bytes().repeat(200);
    let whole = [npy_header("<f4", false, "(100, 2)"), f32_ones.clone()].concat();
    let with = |descr: &str, shape: &str| [npy_header(descr, false, shape), f32_ones.clone()].concat();
    let cases: [(&str, Vec<u8>, &[&str]); 13] = [
        ("cut short", whole[..whole.len() - 1].to_vec(), &["927 bytes", "928 bytes"]),
        ("cut in the header", whole[..50].to_vec(), &["header"]),
        ("empty", Vec::new(), &["empty"]),
        ("text", b"1.0,2.0\n3.0,4.0\n".to_vec(), &["expected", ".npy"]),
        ("pickled objects", with("|O", "(100,)"), &["object", "|O"]),
        ("records", with("[('a', '<f4'), ('b', '<f4')]", "(100,)"), &["structured"]),
        ("complex numbers", with("<c8", "(50, 2)"), &["complex", "<c8"]),
        ("strings", with("<U1", "(100, 2)"), &["<U1"]),
        ("a huge axis", with("<f4", "(9223372036854775808, 2)"), &["9223372036854775808"]),
        ("a huge product", with("<f4", "(4294967296, 4294967296)"), &["4294967296"]),
        ("a negative axis", with("<f4", "(-100, 2)"), &["-100"]),
        ("bytes nobody named", with("|V2", "(200, 2)"), &["V2", "dtype bf16"]),
        ("a shape that is none", with("<f4", "(100, two)"), &["shape"]),
    ];
    for (what, bytes, words) in cases {
        let folder = sound();
        folder.write("bad.npy", &bytes);
        println!("{what}");
        let words = [&["bad.npy"], words].concat();
        fails(&folder, &["encode", "bad.npy", "-c", "e.npy", "-o", "new.npy"], BAD_INPUT, &words);
        fails(&folder, &["eval", "x.npy", "-c", "bad.npy"], BAD_INPUT, &["bad.npy"]);
        fails(&folder, &["inspect", "bad.npy"], BAD_INPUT, &["bad.npy"]);
    }
}

#[test]
fn a_single_number_is_neither_vectors_nor_a_codebook() {
    let folder = sound();
    folder.write("one.npy", &[npy_header("<f4", false, "()"), vec![0; 4]].concat());
    let words = ["one.npy", "got a single number"];
    fails(&folder, &["encode", "one.npy", "-c", "e.npy", "-o", "new.npy"], BAD_INPUT, &words);
    fails(&folder, &["eval", "one.npy", "-c", "e.npy"], BAD_INPUT, &words);
    fails(&folder, &["encode", "x.npy", "-c", "one.npy", "-o", "new.npy"], BAD_INPUT, &["one.npy", "shape (k, d)"]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let folder = sound();
    folder.f32("e3.npy", &[2, 3], &[0.0; 6]);
    folder.f32("none.npy", &[0, 2], &[]);
    folder.f32("flat.npy", &[3, 0], &[]);
    folder.f32("line.npy", &[6], &[0.0; 6]);
    folder.f32("cube.npy", &[2, 3, 2], &[0.0; 12]);
    let with = |e| ["encode", "x.npy", "-c", e, "-o", "new.npy"];
    fails(
        &folder,
        &with("e3.npy"),
        BAD_INPUT,
        &["x.npy", "3 columns", "got 2", "(100, 2)", "e3.npy", "name the codebook"],
    );
    fails(&folder, &with("none.npy"), BAD_INPUT, &["none.npy", "(0, 2)", "at least one codeword"]);
    fails(&folder, &with("flat.npy"), BAD_INPUT, &["flat.npy", "(3, 0)", "one dimension"]);
    fails(&folder, &with("line.npy"), BAD_INPUT, &["line.npy", "(k, d)", "(6,)", "reshape"]);
    fails(&folder, &with("cube.npy"), BAD_INPUT, &["cube.npy", "(k, d)", "(2, 3, 2)", "--quantizer pq", "rvq"]);
    fails(&folder, &["decode", "x.npy", "-c", "e.npy", "-o", "new.npy"], BAD_INPUT, &["x.npy", "integer", "f32"]);
    fails(&folder, &["inspect", "x.npy", "--dtype", "bf16"], BAD_INPUT, &["x.npy", "bf16"]);
}

#[test]
fn the_first_vector_with_a_nan_is_named_by_its_place_in_the_file() {
    let folder = sound();
    let mut x = vec![1.0f32; 5000 * 2];
    x[2 * 4321 + 1] = f32::NAN;
    x[2 * 4400] = f32::INFINITY;
    folder.f32("x.npy", &[5000, 2], &x);
    for memory in ["1K", "1M"] {
        let more = ["--max-memory", memory];
        let words = ["x.npy", "vector 4321 ", "NaN", "column 1", "--non-finite sentinel"];
        fails(&folder, &[&ENCODE[..], &more].concat(), BAD_INPUT, &words);
        fails(&folder, &[&["eval", "x.npy", "-c", "e.npy"][..], &more].concat(), BAD_INPUT, &words);
        let distances = ["distances", "x.npy", "-c", "e.npy", "-o", "new.npy"];
        fails(&folder, &[&distances[..], &more].concat(), BAD_INPUT, &words[..4]);
    }
    folder.f32("x.npy", &[50, 100, 2], &x);
    fails(&folder, &ENCODE, BAD_INPUT, &["vector 4321, at [43, 21], holds NaN in column 1"]);
}

#[test]
fn a_number_beyond_f32_is_named() {
    let folder = sound();
    let x = [1.0f64, 2.0, 3.0, 1e300];
    folder.array("x.npy", "<f8", &[2, 2], x.iter().flat_map(|v| v.to_le_bytes()).collect());
    fails(&folder, &ENCODE, BAD_INPUT, &["x.npy", "1e300", "row 1", "column 1", "scale"]);
}

#[test]
fn a_codeword_that_is_no_number_is_named() {
    let folder = sound();
    folder.f32("e.npy", &[3, 2], &[0.0, 0.0, 4.0, f32::INFINITY, f32::NAN, 4.0]);
    fails(&folder, &ENCODE, BAD_INPUT, &["e.npy", "codeword 1", "inf", "column 1", "retrain"]);
    fails(&folder, &["decode", "c.npy", "-c", "e.npy", "-o", "new.npy"], BAD_INPUT, &["e.npy", "codeword 1"]);
}

#[test]
fn a_code_that_names_no_codeword_is_refused() {
    let folder = sound();
    folder.array("c.npy", "|u1", &[5000], [vec![0; 4500], vec![3; 500]].concat());
    let decode = ["decode", "c.npy", "-c", "e.npy", "-o", "new.npy"];
    for memory in ["1K", "1M"] {
        let words = ["c.npy", "code 3 ", "position 4500 ", "e.npy holds 3", "0 to 2", "name the codebook"];
        fails(&folder, &[&decode[..], &["--max-memory", memory]].concat(), BAD_INPUT, &words);
    }
    folder.array("c.npy", "|u1", &[50, 100], [vec![0; 4500], vec![3; 500]].concat());
    fails(&folder, &decode, BAD_INPUT, &["code 3 at position 4500, at [45, 0], names no codeword"]);
    folder.array("c.npy", "<i4", &[2], [0i32, -1].iter().flat_map(|v| v.to_le_bytes()).collect());
    fails(&folder, &decode, BAD_INPUT, &["c.npy", "-1"]);
}

#[test]
fn a_model_of_another_quantizer_is_refused() {
    let folder = sound();
    let metadata = r#"{"__metadata__":{"quantizer":"pq"},"#;
    let header = format!(r#"{metadata}"codebook":{{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}}}"#);
    let values = [0; 8];
    folder.write("e.safetensors", &[&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat());
    fails(
        &folder,
        &["eval", "x.npy", "-c", "e.safetensors"],
        BAD_INPUT,
        &["e.safetensors", "quantizer pq", "(m, k, d/m)", "(k, d)"],
    );
}

#[test]
fn outputs_that_exist_or_are_inputs_are_refused() {
    let folder = sound();
    folder.write("old.npy", b"old");
    std::fs::create_dir(folder.path("sub")).expect("a folder");
    let to = |output| ["encode", "x.npy", "-c", "e.npy", "-o", output];
    let more = |output, more: [&'static str; 2]| [&to(output)[..], &more].concat();
    fails(&folder, &to("old.npy"), USAGE, &["old.npy", "exists", "--force"]);
    fails(&folder, &more("new.npy", ["--distances", "old.npy"]), USAGE, &["old.npy", "exists", "--force"]);
    fails(&folder, &to("sub"), USAGE, &["sub", "is a folder", "name a file"]);
    fails(&folder, &to("."), USAGE, &["is a folder"]);
    fails(&folder, &to("no/new.npy"), USAGE, &["no/new.npy", "no folder no", "create it"]);
    fails(&folder, &more("new.npy", ["--distances", "./new.npy"]), USAGE, &["new.npy", "both codes and distances"]);
    assert_eq!(std::fs::read(folder.path("old.npy")).expect("a file"), b"old");

    // Replacing an input would destroy it, whatever it is called, and --force does not mean that.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("x.npy", folder.path("link.npy")).expect("a link");
        std::fs::hard_link(folder.path("x.npy"), folder.path("hard.npy")).expect("a link");
        for output in ["link.npy", "hard.npy"] {
            fails(&folder, &[&to(output)[..], &["--force"]].concat(), USAGE, &[output, "is an input"]);
        }
        fails(&folder, &[&to("/dev/null")[..], &["--force"]].concat(), USAGE, &["/dev/null", "not a regular file"]);
    }
    for output in ["x.npy", "e.npy", "./x.npy", "sub/../x.npy"] {
        fails(&folder, &[&to(output)[..], &["--force"]].concat(), USAGE, &[output, "is an input", "name another"]);
        fails(&folder, &to(output), USAGE, &[output, "is an input"]);
    }
    fails(&folder, &["decode", "c.npy", "-c", "e.npy", "-o", "c.npy"], USAGE, &["c.npy", "is an input"]);
}

#[test]
fn impossible_requests_are_refused() {
    let folder = sound();
    folder.f32("e300.npy", &[300, 2], &[0.0; 600]);
    let with = |more: &[&'static str]| [&ENCODE[..], more].concat();
    fails(&folder, &with(&["--top-k", "4"]), USAGE, &["--top-k 4", "e.npy", "3 codewords"]);
    let u8_codes = ["encode", "x.npy", "-c", "e300.npy", "-o", "new.npy", "--code-dtype", "u8"];
    fails(&folder, &u8_codes, USAGE, &["--code-dtype", "up to 299", "255", "leave it out"]);
    fails(&folder, &with(&["--code-dtype", "u16", "--non-finite", "sentinel"]), USAGE, &["--code-dtype", "use u32"]);
    fails(&folder, &with(&["--max-memory", "10"]), USAGE, &["--max-memory", "10 bytes", "64 bytes"]);
}

/// clap tells these in its own form, of several lines.
#[test]
fn a_command_line_that_cannot_be_read_is_a_usage_error() {
    let folder = sound();
    for more in [
        &["--threads", "0"][..],
        &["--threads", "99999"],
        &["--threads", "-1"],
        &["--top-k", "0"],
        &["--max-memory", "lots"],
        &["--max-memory", "0"],
        &["--device", "gpu"],
        &["--device", "cuda:x"],
        &["--precision", "sloppy"],
        &["--code-dtype", "u64"],
        &["--non-finite", "ignore"],
        &["--no-such-option"],
        &["-q", "-v"],
    ] {
        let output = folder.run(&[&ENCODE[..], more].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(USAGE), "{more:?}: {text}");
        assert!(text.contains(more[0]) && !text.contains("panicked"), "{text}");
    }
    let eval = ["eval", "x.npy", "-c", "e.npy", "--beta"];
    for beta in ["-1", "NaN", "inf", "much"] {
        assert_eq!(folder.run(&[&eval[..], &[beta]].concat()).status.code(), Some(USAGE), "{beta}");
    }
    assert_eq!(folder.run(&[]).status.code(), Some(USAGE));
    assert_eq!(folder.run(&["encode", "x.npy"]).status.code(), Some(USAGE));
    let forced = folder.command(&ENCODE).env("CODEWORD_ISA", "mmx").output().expect("the binary");
    assert_clear(&forced, USAGE, &["CODEWORD_ISA", "mmx", "portable"]);
    assert_eq!(folder.names(), ["c.npy", "e.npy", "x.npy"]);
}

#[test]
fn a_demanded_gpu_that_is_not_there_is_an_error() {
    let folder = sound();
    // With a number that no machine reaches, this holds on a machine with a GPU too.
    for args in
        [&ENCODE[..], &["eval", "x.npy", "-c", "e.npy"], &["distances", "x.npy", "-c", "e.npy", "-o", "new.npy"]]
    {
        for more in [&["--device", "cuda:4096"][..], &["--device", "cuda:4096", "--dry-run"]] {
            fails(&folder, &[args, more].concat(), 4, &["no CUDA device", ";"]);
        }
    }
    let doctor = folder.run(&["doctor", "--device", "cuda:4096"]);
    assert_eq!(doctor.status.code(), Some(4));
    assert!(
        !doctor.stdout.is_empty() && stderr(&doctor).starts_with("codeword: no CUDA device"),
        "{}",
        stderr(&doctor)
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_file() {
    let folder = sound();
    folder.f32("x.npy", &[20000, 2], &vec![1.0; 40000]);
    let before = folder.names();
    let limited = |args: &[&str]| {
        // Every file that the tool writes may have 4 KiB.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", r#"ulimit -f 8; exec "$0" "$@""#, support::BINARY]).args(args);
        shell.current_dir(folder.path("")).output().expect("a shell")
    };
    for args in [
        &ENCODE[..],
        &["encode", "x.npy", "-c", "e.npy", "-o", "new.npy", "--reconstruction", "r.npy", "--max-memory", "10K"],
        &["distances", "x.npy", "-c", "e.npy", "-o", "new.npy"],
    ] {
        assert_clear(&limited(args), 1, &[".npy: cannot write", "File too large", "KiB", "ulimit", "elsewhere"]);
        assert_eq!(folder.names(), before, "{args:?}");
    }
    assert_eq!(limited(&["eval", "x.npy", "-c", "e.npy"]).status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error() {
    let folder = sound();
    for args in [&["eval", "x.npy", "-c", "e.npy"][..], &["doctor"], &["completions", "fish"], &["inspect", "x.npy"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = folder.command(args).stdout(full).output().expect("the binary");
        assert_clear(&output, 1, &["standard output", "No space left"]);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_to_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let folder = sound();
    std::fs::create_dir(folder.path("locked")).expect("a folder");
    std::fs::set_permissions(folder.path("locked"), std::fs::Permissions::from_mode(0o555)).expect("permissions");
    if std::fs::write(folder.path("locked/probe"), b"").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    let args = ["encode", "x.npy", "-c", "e.npy", "-o", "locked/new.npy"];
    fails(&folder, &args, 1, &["locked/new.npy", "Permission denied", "may write"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_run_leaves_no_file() {
    use nix::sys::signal::{Signal, kill};
    let folder = Folder::new();
    // 32 GiB on paper: minutes of work.
    folder.sparse_f32("x.npy", 1 << 29, 16);
    folder.f32("e.npy", &[256, 16], &support::noise(256 * 16, 3));
    let before = folder.names();
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("SigIgn");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // What was ignored before the tool started stays ignored, as nohup and scripts want it.
        if ignored >> (signal as u32 - 1) & 1 == 1 {
            println!("skipped: {signal} is ignored here");
            continue;
        }
        let mut command = folder.command(&["encode", "x.npy", "-c", "e.npy", "-o", "c.npy", "--distances", "d.npy"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let start = Instant::now();
        while partial_files(&folder.path("")) < 2 {
            assert!(start.elapsed() < Duration::from_secs(30), "no output was begun");
            std::thread::sleep(Duration::from_millis(10));
        }
        let id = i32::try_from(child.id()).expect("a process id");
        kill(nix::unistd::Pid::from_raw(id), signal).expect("the process is there");
        let output = child.wait_with_output().expect("the end");
        assert_clear(&output, 130, &["interrupted", "no output"]);
        assert_eq!(folder.names(), before, "{signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    use nix::sys::signal::{Signal, kill};
    let folder = Folder::new();
    folder.sparse_f32("x.npy", 1 << 29, 16);
    folder.f32("e.npy", &[256, 16], &support::noise(256 * 16, 3));
    let mut command = std::process::Command::new("nohup");
    command.arg(support::BINARY).args(["encode", "x.npy", "-c", "e.npy", "-o", "c.npy"]).current_dir(folder.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nohup");
    let start = Instant::now();
    while partial_files(&folder.path("")) < 1 {
        assert!(start.elapsed() < Duration::from_secs(30), "no output was begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(id, Signal::SIGHUP).expect("the process is there");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().expect("a status").is_none(), "ended by SIGHUP");
    kill(id, Signal::SIGTERM).expect("the process is there");
    assert_eq!(child.wait().expect("the end").code(), Some(130));
}
