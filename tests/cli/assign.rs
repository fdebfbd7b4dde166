//! The command line tool does its main jobs. All expectations were computed by hand.

use crate::support::{Folder, assert_header, noise, npy_header, stderr};

/// The codewords (0,0), (4,0), (0,4).
fn corners(folder: &Folder) {
    folder.f32("corners.npy", &[3, 2], &[0.0, 0.0, 4.0, 0.0, 0.0, 4.0]);
}

/// The vectors (1,0), (4,1), (0,0), (4,0).
fn four(folder: &Folder) {
    folder.f32("four.npy", &[4, 2], &[1.0, 0.0, 4.0, 1.0, 0.0, 0.0, 4.0, 0.0]);
}

#[test]
fn encode_writes_codes_distances_and_reconstruction() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[4, 2], &[1.0, 1.0, 3.0, -1.0, -1.0, 3.0, 0.5, 4.0]);
    folder.ok(&[
        "encode",
        "x.npy",
        "-c",
        "corners.npy",
        "-o",
        "c.npy",
        "--distances",
        "d.npy",
        "--reconstruction",
        "r.npy",
    ]);
    assert_eq!(folder.read_u8("c.npy", "(4,)"), [0, 1, 2, 2]);
    assert_eq!(folder.read_f32("d.npy", "(4,)"), [2.0, 2.0, 2.0, 0.25]);
    assert_eq!(folder.read_f32("r.npy", "(4, 2)"), [0.0, 0.0, 4.0, 0.0, 0.0, 4.0, 0.0, 4.0]);
    assert_eq!(folder.names(), ["c.npy", "corners.npy", "d.npy", "r.npy", "x.npy"]);
}

#[test]
fn encode_gives_a_vector_between_codewords_the_lowest_code() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[3, 2], &[2.0, 2.0, 2.0, 0.0, 3.0, 3.0]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy"]);
    assert_eq!(folder.read_u8("c.npy", "(3,)"), [0, 0, 1]);
}

#[test]
fn encode_keeps_the_leading_axes_and_adds_one_for_top_k() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[2, 1, 2], &[1.0, 0.0, 3.0, 2.0]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy"]);
    assert_eq!(folder.read_u8("c.npy", "(2, 1)"), [0, 1]);
    let top = ["encode", "x.npy", "-c", "corners.npy", "-o", "t.npy", "--distances", "d.npy", "--top-k"];
    folder.ok(&[&top[..], &["3"]].concat());
    assert_eq!(folder.read_u8("t.npy", "(2, 1, 3)"), [0, 1, 2, 1, 0, 2]);
    // (1,0): 1, 9, 17. (3,2): 13 to (0,0), 5 to (4,0), 13 to (0,4): a tie, by index.
    assert_eq!(folder.read_f32("d.npy", "(2, 1, 3)"), [1.0, 9.0, 17.0, 5.0, 13.0, 13.0]);
    folder.ok(&[&top[..], &["1", "--force"]].concat());
    assert_eq!(folder.read_u8("t.npy", "(2, 1, 1)"), [0, 1]);
}

#[test]
fn encode_takes_a_single_vector_and_writes_a_single_code() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[2], &[3.0, 0.5]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy", "--reconstruction", "r.npy"]);
    assert_eq!(folder.read_u8("c.npy", "()"), [1]);
    assert_eq!(folder.read_f32("r.npy", "(2,)"), [4.0, 0.0]);
    folder.ok(&["decode", "c.npy", "-c", "corners.npy", "-o", "back.npy"]);
    assert_eq!(folder.read_f32("back.npy", "(2,)"), [4.0, 0.0]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "t.npy", "--top-k", "2"]);
    assert_eq!(folder.read_u8("t.npy", "(2,)"), [1, 0]);
}

#[test]
fn encode_of_nothing_is_nothing() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[0, 2], &[]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy"]);
    assert!(folder.read_u8("c.npy", "(0,)").is_empty());
    folder.ok(&["decode", "c.npy", "-c", "corners.npy", "-o", "r.npy"]);
    assert_eq!(folder.read_f32("r.npy", "(0, 2)"), [0.0; 0]);
}

#[test]
fn fortran_order_in_is_fortran_order_out() {
    let folder = Folder::new();
    corners(&folder);
    // Shape (2, 2, 2); x[i][j] = (1,0), (3,2); (0,3), (4,4). In Fortran order the first axis runs fastest.
    let x = [1.0f32, 0.0, 3.0, 4.0, 0.0, 3.0, 2.0, 4.0];
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    folder.write("x.npy", &[npy_header("<f4", true, "(2, 2, 2)"), bytes].concat());
    let outputs = ["--distances", "d.npy", "--reconstruction", "r.npy"];
    folder.ok(&[&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy"], &outputs[..]].concat());
    let (header, codes) = folder.read("c.npy");
    assert_header(&header, "|u1", true, "(2, 2)");
    // (4,4) is 16 from both (4,0) and (0,4).
    assert_eq!(codes, [0, 2, 1, 1]);
    let (header, reconstruction) = folder.read("r.npy");
    assert_header(&header, "<f4", true, "(2, 2, 2)");
    let expected = [0.0f32, 0.0, 4.0, 4.0, 0.0, 4.0, 0.0, 0.0];
    assert_eq!(reconstruction, expected.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    folder.ok(&["decode", "c.npy", "-c", "corners.npy", "-o", "decoded.npy"]);
    assert_eq!(folder.read("decoded.npy"), folder.read("r.npy"));

    // All first choices, then all second choices: (1,0) -> 0 1; (0,3) -> 2 0; (3,2) -> 1 0; (4,4) -> 1 2.
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "t.npy", "--top-k", "2"]);
    let (header, codes) = folder.read("t.npy");
    assert_header(&header, "|u1", true, "(2, 2, 2)");
    assert_eq!(codes, [0, 2, 1, 1, 1, 0, 0, 2]);

    // Distances to (0,0), then to (4,0), then to (0,4).
    folder.ok(&["distances", "x.npy", "-c", "corners.npy", "-o", "all.npy", "--precision", "exact"]);
    let (header, distances) = folder.read("all.npy");
    assert_header(&header, "<f4", true, "(2, 2, 3)");
    let expected = [1.0f32, 9.0, 13.0, 32.0, 9.0, 25.0, 5.0, 16.0, 17.0, 1.0, 13.0, 16.0];
    assert_eq!(distances, expected.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
}

#[test]
fn codes_take_the_smallest_type_that_holds_them() {
    let folder = Folder::new();
    folder.f32("x.npy", &[2, 1], &[0.0, 1e6]);
    for (k, descr, last) in [(256, "|u1", vec![255]), (257, "<u2", vec![0, 1]), (65536, "<u2", vec![255, 255])] {
        folder.f32("e.npy", &[k, 1], &(0..k).map(|i| i as f32).collect::<Vec<_>>());
        folder.ok(&["encode", "x.npy", "-c", "e.npy", "-o", "c.npy", "--force"]);
        let (header, codes) = folder.read("c.npy");
        assert_header(&header, descr, false, "(2,)");
        assert_eq!(codes, [vec![0; last.len()], last].concat(), "k = {k}");
    }
    folder.f32("e.npy", &[65537, 1], &(0..65537).map(|i| i as f32).collect::<Vec<_>>());
    folder.ok(&["encode", "x.npy", "-c", "e.npy", "-o", "c.npy", "--force"]);
    assert_eq!(folder.read_u32("c.npy", "(2,)"), [0, 65536]);
    corners(&folder);
    folder.f32("x.npy", &[1, 2], &[0.0, 5.0]);
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy", "--force", "--code-dtype", "u16"]);
    assert_eq!(folder.read("c.npy").1, [2, 0]);
}

#[test]
fn a_vector_with_a_nan_gets_the_sentinel_on_request_and_decodes_to_nan() {
    let folder = Folder::new();
    corners(&folder);
    folder.f32("x.npy", &[3, 2], &[4.0, 0.0, f32::NAN, 1.0, 0.0, 5.0]);
    let outputs = ["-o", "c.npy", "--distances", "d.npy", "--reconstruction", "r.npy"];
    let policy = ["--non-finite", "sentinel"];
    folder.ok(&[&["encode", "x.npy", "-c", "corners.npy"], &outputs[..], &policy[..]].concat());
    assert_eq!(folder.read_u32("c.npy", "(3,)"), [1, u32::MAX, 2]);
    let distances = folder.read_f32("d.npy", "(3,)");
    assert!(distances[1].is_nan() && distances[0] == 0.0 && distances[2] == 1.0, "{distances:?}");
    folder.ok(&["decode", "c.npy", "-c", "corners.npy", "-o", "decoded.npy"]);
    let decoded = folder.read_f32("decoded.npy", "(3, 2)");
    assert_eq!([&decoded[..2], &decoded[4..]].concat(), [4.0, 0.0, 0.0, 4.0]);
    assert!(decoded[2].is_nan() && decoded[3].is_nan());
    assert_eq!(folder.read("r.npy"), folder.read("decoded.npy"));
}

#[test]
fn decode_takes_codes_of_any_integer_type_and_shape() {
    let folder = Folder::new();
    corners(&folder);
    folder.array("c.npy", "<i8", &[2, 2], [2i64, 0, 1, 2].iter().flat_map(|v| v.to_le_bytes()).collect());
    folder.ok(&["decode", "c.npy", "-c", "corners.npy", "-o", "x.npy"]);
    assert_eq!(folder.read_f32("x.npy", "(2, 2, 2)"), [0.0, 4.0, 0.0, 0.0, 4.0, 0.0, 0.0, 4.0]);
}

#[test]
fn distances_are_squared_and_to_every_codeword() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    let expected = [1.0, 9.0, 17.0, 17.0, 1.0, 25.0, 0.0, 16.0, 16.0, 16.0, 0.0, 32.0];
    let distances = |more: &[&str]| {
        folder.ok(&[&["distances", "four.npy", "-c", "corners.npy", "-o", "d.npy", "--force"], more].concat());
        folder.read_f32("d.npy", "(4, 3)")
    };
    assert_eq!(distances(&["--precision", "exact"]), expected);
    // 16 * 2^-24 * (|z| + |e|)^2 with vectors and codewords no longer than 4.2.
    let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 7e-5;
    for fast in [distances(&[]), distances(&["--precision", "fast"])] {
        assert!(fast.iter().zip(&expected).all(near), "{fast:?}");
    }
}

#[test]
fn eval_measures_a_codebook() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    let report = folder.json(&["eval", "four.npy", "-c", "corners.npy"]);
    // Squared distances 1, 1, 0, 0; labels 0, 1, 0, 1; the vectors' squares sum to 34.
    let near = |name: &str, expected: f64| {
        let got = report[name].as_f64().unwrap_or(f64::NAN);
        assert!((got - expected).abs() <= 1e-12 * expected, "{name}: {got} instead of {expected}");
    };
    near("inertia", 2.0);
    near("distortion", 0.5);
    near("mse", 0.25);
    near("codebook_loss", 0.25);
    near("commitment_loss", 0.0625);
    near("snr_db", 10.0 * 17f64.log10());
    near("perplexity", 2.0);
    near("utilization", 2.0 / 3.0);
    near("dead", 1.0);
    near("rate", 3f64.log2());
    let table = folder.ok(&["eval", "four.npy", "-c", "corners.npy", "--beta", "1"]);
    for line in [
        "distortion       0.5000000",
        "commitment loss  0.2500000",
        "SNR              12.304 dB",
        "dead codewords   1 ",
    ] {
        let found = table.lines().any(|it| it.starts_with(line.trim_end_matches('0')));
        assert!(found, "{line} in\n{table}");
    }
}

#[test]
fn numbers_that_f32_cannot_hold_are_rounded_and_counted() {
    let folder = Folder::new();
    corners(&folder);
    let x = [0.1f64, 0.0, 4.0, 1.0, 0.0, 3.7];
    folder.array("x.npy", ">f8", &[3, 2], x.iter().flat_map(|v| v.to_be_bytes()).collect());
    let report = folder.json(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy"]);
    assert_eq!(report["rounded_rows"], 2);
    assert_eq!(report["dtype"], "f64");
    assert_eq!(folder.read_u8("c.npy", "(3,)"), [0, 1, 2]);
    let output = folder.run(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy", "--force"]);
    assert!(stderr(&output).contains("2 vectors were rounded to f32"), "{}", stderr(&output));
    assert_eq!(folder.json(&["eval", "x.npy", "-c", "corners.npy"])["rounded_rows"], 2);
}

#[test]
fn two_byte_arrays_are_bf16_on_request() {
    let folder = Folder::new();
    corners(&folder);
    // 1.0, 0.0; 0.0, 3.0
    let x = [0x3f80u16, 0, 0, 0x4040];
    folder.array("x.npy", "<V2", &[2, 2], x.iter().flat_map(|v| v.to_le_bytes()).collect());
    folder.ok(&["encode", "x.npy", "-c", "corners.npy", "-o", "c.npy", "--dtype", "bf16", "--distances", "d.npy"]);
    assert_eq!(folder.read_u8("c.npy", "(2,)"), [0, 2]);
    assert_eq!(folder.read_f32("d.npy", "(2,)"), [1.0, 1.0]);
}

#[test]
fn a_codebook_may_come_as_safetensors() {
    let folder = Folder::new();
    let header = br#"{"codebook":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
    let values = [1.0f32.to_le_bytes(), 5.0f32.to_le_bytes()].concat();
    folder.write("e.safetensors", &[&(header.len() as u64).to_le_bytes()[..], header, &values].concat());
    folder.f32("x.npy", &[2, 1], &[4.0, 2.0]);
    folder.ok(&["encode", "x.npy", "-c", "e.safetensors", "-o", "c.npy"]);
    assert_eq!(folder.read_u8("c.npy", "(2,)"), [1, 0]);
}

#[test]
fn memory_and_threads_change_no_byte() {
    let folder = Folder::new();
    folder.f32("x.npy", &[5003, 7], &noise(5003 * 7, 1));
    folder.f32("e.npy", &[61, 7], &noise(61 * 7, 2));
    let encode = |out: &[&str]| {
        folder.ok(&[&["encode", "x.npy", "-c", "e.npy", "--force"], out].concat());
    };
    encode(&["-o", "c1.npy", "--distances", "d1.npy", "--reconstruction", "r1.npy"]);
    for more in [["--max-memory", "1K"], ["--max-memory", "100K"], ["--threads", "1"], ["--threads", "3"]] {
        encode(&[&["-o", "c2.npy", "--distances", "d2.npy", "--reconstruction", "r2.npy"], &more[..]].concat());
        for (one, two) in [("c1.npy", "c2.npy"), ("d1.npy", "d2.npy"), ("r1.npy", "r2.npy")] {
            assert!(folder.read(one) == folder.read(two), "{two} with {more:?}");
        }
    }
    let report = |more: &[&str]| {
        let mut report = folder.json(&[&["eval", "x.npy", "-c", "e.npy"], more].concat());
        report["seconds"] = serde_json::Value::Null;
        report["threads"] = serde_json::Value::Null;
        report
    };
    assert_eq!(report(&[]), report(&["--max-memory", "1K", "--threads", "1"]));
}

#[test]
fn json_is_one_object_with_every_field() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    let runs = [
        folder.json(&["encode", "four.npy", "-c", "corners.npy", "-o", "c.npy", "--device", "cpu"]),
        folder.json(&["decode", "c.npy", "-c", "corners.npy", "-o", "r.npy", "--device", "cpu"]),
        folder.json(&["distances", "four.npy", "-c", "corners.npy", "-o", "d.npy", "--device", "cpu"]),
        folder.json(&["eval", "four.npy", "-c", "corners.npy", "--device", "cpu"]),
    ];
    for (report, verb) in runs.iter().zip(["encode", "decode", "distances", "eval"]) {
        assert_eq!(report["verb"], verb);
        assert_eq!((&report["device"], &report["n"]), (&"cpu".into(), &4.into()), "{verb}");
        assert_eq!((&report["d"], &report["k"]), (&2.into(), &3.into()), "{verb}");
        assert_eq!(report["dtype"], if verb == "decode" { "u8" } else { "f32" });
        for field in ["total", "read", "compute", "write"] {
            assert!(report["seconds"][field].as_f64().is_some_and(|s| (0.0..60.0).contains(&s)), "{verb} {field}");
        }
        for field in ["precision", "tiers", "isa", "threads"] {
            assert!(report.get(field).is_some(), "{verb} {field}");
        }
    }
    for (report, precision) in [(&runs[0], "exact"), (&runs[2], "fast"), (&runs[3], "exact")] {
        assert_eq!(report["precision"], precision);
    }
    for report in [&runs[0], &runs[3]] {
        let tiers = ["first", "second", "f64", "exact"].map(|tier| report["tiers"][tier].as_u64().expect("a count"));
        assert_eq!(tiers.iter().sum::<u64>(), 4);
    }
    assert_eq!(runs[0]["outputs"][0]["shape"], serde_json::json!([4]));
    // With --json nothing is left to say elsewhere.
    let output = folder.run(&["encode", "four.npy", "-c", "corners.npy", "-o", "e.npy", "--json"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    folder.array("c.npy", "|u1", &[2], vec![0, 1]);
    let before = folder.names();
    let verbs: [&[&str]; 4] = [
        &["encode", "four.npy", "-c", "corners.npy", "-o", "new.npy", "--distances", "d.npy"],
        &["decode", "c.npy", "-c", "corners.npy", "-o", "new.npy"],
        &["distances", "four.npy", "-c", "corners.npy", "-o", "new.npy"],
        &["eval", "four.npy", "-c", "corners.npy"],
    ];
    // (4,) u8; (2, 2) f32; (4, 3) f32.
    for (args, bytes) in verbs.iter().zip([Some(4), Some(16), Some(48), None]) {
        let text = folder.ok(&[args, &["--dry-run"][..]].concat());
        assert!(text.contains("nothing is written") && text.contains("blocks"), "{text}");
        let plan = folder.json(&[args, &["--dry-run"][..]].concat());
        assert_eq!((&plan["verb"], &plan["dry_run"]), (&args[0].into(), &true.into()));
        assert_eq!(plan["outputs"][0]["bytes"].as_u64(), bytes);
        assert!(plan["block_rows"].as_u64().is_some_and(|rows| rows > 0) && plan["memory"].as_u64().is_some());
    }
    for args in [&["inspect", "four.npy"][..], &["doctor"], &["completions", "bash"]] {
        folder.ok(&[args, &["--dry-run"]].concat());
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn force_replaces_what_a_link_points_to_and_keeps_the_link() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    folder.write("old.npy", b"old");
    #[cfg(unix)]
    std::os::unix::fs::symlink("old.npy", folder.path("link.npy")).expect("a link");
    let output = if cfg!(unix) { "link.npy" } else { "old.npy" };
    folder.ok(&["encode", "four.npy", "-c", "corners.npy", "-o", output, "--force"]);
    assert_eq!(folder.read_u8("old.npy", "(4,)"), [0, 1, 0, 1]);
    assert!(!cfg!(unix) || folder.path("link.npy").is_symlink());
}

#[cfg(unix)]
#[test]
fn an_output_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    folder.ok(&["encode", "four.npy", "-c", "corners.npy", "-o", "c.npy"]);
    let mode = |name: &str| std::fs::metadata(folder.path(name)).expect("a file").permissions().mode();
    assert_eq!(mode("c.npy"), mode("four.npy"));
}

#[test]
fn inspect_says_what_a_file_holds() {
    let folder = Folder::new();
    folder.f32("x.npy", &[3, 2], &[3.0, 4.0, f32::NAN, 9.0, -6.0, 8.0]);
    let text = folder.ok(&["inspect", "x.npy"]);
    for part in ["f32", "(3, 2)", "C order", "3 x 2", "-6 to 9", "7.500000", "1 vectors", "the first is vector 1"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let report = folder.json(&["inspect", "x.npy"]);
    assert_eq!((&report["n"], &report["d"], &report["bytes"]), (&3.into(), &2.into(), &24.into()));
    assert_eq!(report["values"]["mean_norm"], 7.5);
    assert_eq!(report["values"]["first_non_finite_row"], 1);
    assert_eq!(folder.json(&["inspect", "x.npy", "--dry-run"])["values"], serde_json::Value::Null);
}

#[test]
fn doctor_says_what_was_looked_for_and_what_is_used_instead() {
    let folder = Folder::new();
    let report = folder.json(&["doctor"]);
    assert!(report["isa"]["available"].as_array().is_some_and(|all| all.contains(&"portable".into())), "{report}");
    let steps = report["cuda"]["steps"].as_array().expect("steps");
    let broken: Vec<_> = steps.iter().filter(|step| step["ok"] == false).collect();
    let text = folder.ok(&["doctor"]);
    for step in &broken {
        for field in ["found", "way_out"] {
            let words = step[field].as_str().expect("words");
            assert!(!words.is_empty() && text.contains(words), "{words} in\n{text}");
        }
        assert_eq!(report["device"], "cpu");
    }
    if broken.iter().any(|step| step["step"] == "library") {
        assert!(text.contains("libcuda") || text.contains("nvcuda"), "{text}");
    }
    let forced = folder.command(&["doctor", "--json"]).env("CODEWORD_ISA", "portable").output().expect("the binary");
    assert!(String::from_utf8_lossy(&forced.stdout).contains(r#""used":"portable""#));
}

#[test]
fn completions_exist_for_every_shell() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = folder.ok(&["completions", shell]);
        assert!(script.contains("distances") && script.contains("non-finite"), "{shell}");
    }
}

#[test]
fn messages_go_to_standard_error_and_quiet_silences_them() {
    let folder = Folder::new();
    corners(&folder);
    four(&folder);
    let encode = ["encode", "four.npy", "-c", "corners.npy", "-o", "c.npy", "--force"];
    let output = folder.run(&encode);
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).starts_with("c.npy: (4,) u8 codes in "), "{}", stderr(&output));
    assert_eq!(stderr(&folder.run(&[&encode[..], &["-q"]].concat())), "");
    let output = folder.run(&[&encode[..], &["--progress", "always"]].concat());
    assert!(stderr(&output).starts_with("encode 100 % 4/4 vectors"), "{}", stderr(&output));
    let output = folder.run(&[&encode[..], &["-v", "--device", "auto"]].concat());
    assert!(stderr(&output).contains("codeword: device "), "{}", stderr(&output));
}

#[test]
fn help_and_version_are_no_errors() {
    let folder = Folder::new();
    assert_eq!(folder.ok(&["--version"]), format!("codeword {}\n", env!("CARGO_PKG_VERSION")));
    for verb in ["encode", "decode", "distances", "eval", "inspect", "doctor", "completions"] {
        assert!(folder.ok(&["--help"]).contains(verb));
        assert!(folder.ok(&[verb, "--help"]).contains("Usage: codeword"));
    }
    assert!(folder.ok(&["distances", "--help"]).contains("--precision exact"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    four(&folder);
    for args in [&["inspect", "four.npy"][..], &["doctor"], &["completions", "zsh"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = folder.command(args).stdout(writer).output().expect("the binary");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_flat_for_a_file_larger_than_it() {
    let folder = Folder::new();
    folder.sparse_f32("x.npy", 1 << 21, 256);
    folder.f32("e.npy", &[2, 256], &[[1.0; 256], [0.5; 256]].concat());
    let report = folder.json(&["encode", "x.npy", "-c", "e.npy", "-o", "c.npy"]);
    assert_eq!(report["n"], 1 << 21);
    assert!(folder.read_u8("c.npy", "(2097152,)").iter().all(|&code| code == 1));
    // The largest of all children so far: every other run of this file is small.
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("usage");
    let peak = usage.max_rss() >> 10;
    println!("2 GiB encoded in {} s with {peak} MiB resident", report["seconds"]["total"]);
    assert!(peak < 600, "{peak} MiB");
}
