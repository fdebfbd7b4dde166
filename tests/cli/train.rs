//! `codeword train` learns what the library learns, writes it whole or not at all, and says what is wrong.

use crate::support::{Folder, assert_header, noise, npy_header, stderr};
use codeword::{Device, Error, Init, KMeans, MatrixView};
use std::time::Duration;

const N: usize = 500;
const D: usize = 6;

/// Vectors x.npy of (500, 6) and weights w.npy of (500,).
fn sample() -> (Folder, Vec<f32>, Vec<f32>) {
    let folder = Folder::new();
    let x = noise(N * D, 1);
    let weights: Vec<f32> = noise(N, 2).iter().map(|w| w.abs()).collect();
    folder.f32("x.npy", &[N, D], &x);
    folder.f32("w.npy", &[N], &weights);
    (folder, x, weights)
}

fn codewords(params: &KMeans, x: &[f32], weights: Option<&[f32]>) -> Vec<f32> {
    let x = MatrixView::new(x, x.len() / D, D).unwrap();
    let fit = params.fit_with(x, weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
    let codewords = fit.codebook.codewords().unwrap();
    (0..codewords.rows()).flat_map(|j| codewords.row(j).to_vec()).collect()
}

#[test]
fn train_writes_what_the_library_learns() {
    let (folder, x, weights) = sample();
    let k = 20;
    let learn = |more: &[&str]| {
        folder.ok(&[&["train", "x.npy", "-k", "20", "-o", "e.npy", "--force", "--device", "cpu"], more].concat());
        folder.read_f32("e.npy", "(20, 6)")
    };
    let params = KMeans::new(k);
    assert_eq!(learn(&[]), codewords(&params, &x, None));
    let more = ["--init", "random", "--seed", "7", "--iterations", "3", "--n-init", "2"];
    let params = params.init(Init::RandomRows).seed(7).iterations(3).n_init(2);
    assert_eq!(learn(&more), codewords(&params, &x, None));
    let more = ["--init", "random", "--seed", "7", "--tolerance", "0.02", "--weights", "w.npy"];
    let params = KMeans::new(k).init(Init::RandomRows).seed(7).tolerance(0.02);
    assert_eq!(learn(&more), codewords(&params, &x, Some(&weights)));
    let params = KMeans::new(k).init(Init::Hierarchical).iterations(1);
    assert_eq!(learn(&["--init", "hierarchical", "--iterations", "1"]), codewords(&params, &x, None));
    // On from where that ended.
    std::fs::rename(folder.path("e.npy"), folder.path("start.npy")).unwrap();
    let once = learn(&["--start", "start.npy", "--iterations", "1"]);
    let start = folder.read_f32("start.npy", "(20, 6)");
    let start = codeword::Codebook::new(MatrixView::new(&start, k, D).unwrap(), &Device::cpu()).unwrap();
    assert_eq!(once, codewords(&KMeans::new(k).init(Init::Given(start)).iterations(1), &x, None));
}

#[test]
fn codes_are_those_of_encode_and_keep_the_leading_axes() {
    let folder = Folder::new();
    // Fortran order: the codebook is in C order all the same.
    let x: Vec<u8> = noise(5 * 8 * 3, 4).iter().flat_map(|v| v.to_le_bytes()).collect();
    folder.write("x.npy", &[npy_header("<f4", true, "(5, 8, 3)"), x].concat());
    folder.ok(&["train", "x.npy", "-k", "7", "-o", "e.npy", "--codes", "c.npy"]);
    assert_eq!(folder.read_f32("e.npy", "(7, 3)").len(), 21);
    folder.ok(&["encode", "x.npy", "-c", "e.npy", "-o", "encoded.npy"]);
    assert_eq!(folder.read("c.npy"), folder.read("encoded.npy"));
    assert_header(&folder.read("c.npy").0, "|u1", true, "(5, 8)");
}

#[test]
fn threads_and_memory_change_no_byte() {
    let (folder, ..) = sample();
    folder.ok(&["train", "x.npy", "-k", "30", "-o", "e.npy"]);
    for (i, more) in [["--threads", "1"], ["--threads", "5"], ["--max-memory", "50K"]].iter().enumerate() {
        let name = format!("{i}.npy");
        folder.ok(&[&["train", "x.npy", "-k", "30", "-o", &name], &more[..]].concat());
        assert!(folder.read(&name) == folder.read("e.npy"), "{more:?}");
    }
}

#[test]
fn json_tells_the_curve_and_what_belongs_to_the_codebook() {
    let (folder, ..) = sample();
    let report = folder.json(&["train", "x.npy", "-k", "12", "-o", "e.npy", "--iterations", "4", "--seed", "3"]);
    let number = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert_eq!(
        [number("n"), number("d"), number("k"), number("iterations"), number("seed")],
        [500.0, 6.0, 12.0, 4.0, 3.0]
    );
    let curve: Vec<f64> = report["curve"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(curve.len() == 5 && curve.is_sorted_by(|a, b| a >= b), "{curve:?}");
    assert_eq!(curve[4], number("inertia"));
    assert_eq!((report["converged"].as_bool(), report["outputs"][0]["role"].as_str()), (Some(false), Some("codebook")));
    let tiers = report["tiers"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum::<u64>();
    assert_eq!(tiers, 5 * 500);
    let judged = folder.json(&["eval", "x.npy", "-c", "e.npy"]);
    let inertia = judged["inertia"].as_f64().unwrap();
    assert!((inertia - curve[4]).abs() <= 1e-7 * inertia, "{inertia} {curve:?}");
    assert_eq!(judged["dead"], report["dead"]);

    let plan = folder.json(&["train", "x.npy", "-k", "12", "-o", "n.npy", "--n-init", "3", "--dry-run"]);
    assert_eq!((plan["passes"].as_u64(), plan["n"].as_u64()), (Some(78), Some(500)));
    assert!(!folder.path("n.npy").exists());
}

/// Arguments, more of them, the exit code, and words of the message.
type Case<'a> = (&'a [&'a str], &'a [&'a str], i32, &'a [&'a str]);

#[test]
fn what_cannot_be_learned_is_refused_with_the_way_out() {
    let (folder, ..) = sample();
    folder.f32("short.npy", &[3], &[1.0; 3]);
    folder.f32("minus.npy", &[N], &[&[1.0, -2.0][..], &[1.0; N - 2]].concat());
    folder.f32("light.npy", &[N], &[0.0; N]);
    let mut bad = noise(N * D, 1);
    bad[7 * D + 2] = f32::NAN;
    folder.f32("nan.npy", &[N, D], &bad);
    folder.f32("start.npy", &[2, D], &[0.0; 2 * D]);
    folder.f32("narrow.npy", &[4, 5], &[0.0; 20]);
    folder.array("empty.npy", "<f4", &[9, 0], Vec::new());
    folder.write("there.npy", b"");
    folder.write("bad.safetensors", b"nothing");
    folder.ok(&["train", "x.npy", "-k", "4", "-o", "model.safetensors"]);
    let base = ["train", "x.npy", "-k", "4", "-o", "new.npy"];
    let before = folder.names();
    let cases: [Case; 28] = [
        (
            &["train", "x.npy", "-k", "501", "-o", "new.npy"],
            &[],
            3,
            &["x.npy", "at least 501 vectors", "got 500", "-k"],
        ),
        (&["train", "nan.npy", "-k", "4", "-o", "new.npy"], &[], 3, &["nan.npy: vector 7 holds NaN in column 2"]),
        (&["train", "no.npy", "-k", "4", "-o", "new.npy"], &[], 3, &["no.npy", "no such file"]),
        (&["train", "empty.npy", "-k", "4", "-o", "new.npy"], &[], 3, &["empty.npy", "at least one column"]),
        (&["train", "x.npy", "-k", "4", "-o", "x.npy"], &["--force"], 2, &["x.npy: is an input"]),
        (&["train", "x.npy", "-k", "4", "-o", "there.npy"], &[], 2, &["there.npy: exists already", "--force"]),
        (&base, &["--sample", "3"], 2, &["--sample 3", "at least 4 vectors", "-k"]),
        (
            &base,
            &["--sample", "4", "--max-memory", "200"],
            2,
            &["--max-memory 200 bytes", "needs at least", "allow that"],
        ),
        (
            &["train", "x.npy", "-k", "100", "-o", "new.npy"],
            &["--sample", "110", "--max-memory", "3K"],
            2,
            &["--max-memory 3.0 KiB", "fewer codewords (-k)"],
        ),
        (&base, &["--sample", "400", "--max-memory", "3K"], 2, &["--max-memory 3.0 KiB", "smaller sample"]),
        (&base, &["--plot", "new.npy"], 2, &["new.npy: is named for both codebook and plot"]),
        (&base, &["--plot", "there.npy"], 2, &["there.npy: exists already", "--force"]),
        (&base, &["--checkpoint", "c.npy"], 2, &["c.npy: checkpoints are .safetensors files"]),
        (
            &base,
            &["--checkpoint", "c.safetensors", "--resume"],
            3,
            &["c.safetensors: no such file", "leave out --resume"],
        ),
        (&base, &["--checkpoint", "bad.safetensors", "--resume"], 3, &["bad.safetensors: no checkpoint"]),
        (&base, &["--checkpoint", "bad.safetensors"], 2, &["bad.safetensors: exists already", "--force"]),
        (&base, &["--checkpoint", "model.safetensors", "--resume"], 3, &["model.safetensors", "codeword-checkpoint"]),
        (&base, &["--codes", "new.npy"], 2, &["new.npy: is named for both codebook and codes"]),
        (&base, &["--weights", "short.npy"], 3, &["short.npy", "one weight for each of 500 vectors", "(3,)"]),
        (&base, &["--weights", "minus.npy"], 3, &["minus.npy: weights", "not negative", "-2 for row 1"]),
        (&base, &["--weights", "light.npy"], 3, &["light.npy: expected at least 4 vectors of weight above 0", "got 0"]),
        (
            &["train", "x.npy", "-k", "4", "-o", "q.fvecs"],
            &[],
            2,
            &["q.fvecs: .fvecs files are read, not written", ".npy"],
        ),
        (
            &["train", "x.npy", "-k", "4", "-o", "-"],
            &[],
            2,
            &["-: codebook cannot go to standard output", "name a file"],
        ),
        (&base, &["--start", "start.npy"], 3, &["start.npy: expected 4 codewords", "got 2", "-k"]),
        (&base, &["--start", "narrow.npy"], 3, &["expected vectors of 5 columns"]),
        (&base, &["--max-memory", "1K"], 2, &["--max-memory 1.0 KiB", "needs at least", "--sample"]),
        (&base, &["--precision", "fast"], 2, &["--precision fast", "leave it out"]),
        (&base, &["--device", "cuda:0,1"], 4, &["no CUDA device"]),
    ];
    for (args, more, code, words) in cases {
        if more.contains(&"cuda:0,1") && Device::cuda(0).is_ok() {
            continue;
        }
        let output = folder.run(&[args, more].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?} {more:?}: {text}");
        assert!(text.starts_with("codeword: ") && text.lines().count() == 1, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "'{word}' in: {text}"));
        assert_eq!(folder.names(), before, "{args:?} {more:?}");
    }
    for wrong in [
        &["-k", "0"][..],
        &["-k", "-3"],
        &["-k", "4", "--tolerance", "1"],
        &["-k", "4", "--n-init", "0"],
        &["-k", "4", "--init", "best"],
        &["-k", "4", "--iterations", "-1"],
        &["-k", "4", "--seed", "-1"],
        &["-k", "4", "--start", "start.npy", "--init", "random"],
        &["-k", "4", "--minibatch", "0"],
        &["-k", "4", "--minibatch", "9", "--tolerance", "0.1"],
        &["-k", "4", "--sample", "0"],
        &["-k", "4", "--resume"],
        &["-k", "4", "--checkpoint", "c.safetensors", "--n-init", "2"],
        &[],
    ] {
        let output = folder.run(&[&["train", "x.npy", "-o", "new.npy"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", stderr(&output));
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn progress_tells_iteration_inertia_change_and_time_left() {
    let (folder, ..) = sample();
    let output = folder.run(&["train", "x.npy", "-k", "3", "-o", "e.npy", "--iterations", "4", "--progress", "always"]);
    let text = stderr(&output);
    let line = text.lines().find(|line| line.contains("vectors, pass 5/5")).unwrap_or_else(|| panic!("{text}"));
    for word in ["train", "100 %", "2500/2500", "inertia ", ", -0.", "s left"] {
        assert!(line.contains(word), "'{word}' in: {line}");
    }
    assert!(text.contains("e.npy: (3, 6) f32 codebook in "), "{text}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_leaves_no_file() {
    let folder = Folder::new();
    folder.f32("x.npy", &[20_000, 16], &noise(20_000 * 16, 3));
    let before = folder.names();
    let args = ["train", "x.npy", "-k", "400", "-o", "e.npy", "--iterations", "100000", "--n-init", "1000"];
    let output = folder.interrupted(&args, Duration::from_millis(100));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(stderr(&output), "codeword: interrupted; no output was written\n");
    assert_eq!(folder.names(), before);
}

#[cfg(unix)]
#[test]
fn a_training_interrupted_before_its_first_iteration_points_to_no_checkpoint_of_another() {
    let folder = Folder::new();
    folder.f32("x.npy", &[20_000, 16], &noise(20_000 * 16, 4));
    folder.ok(&["train", "x.npy", "-k", "8", "--iterations", "1", "-o", "a.npy", "--checkpoint", "s.safetensors"]);
    let before = folder.names();
    // The start alone takes thousands of passes.
    let args = ["train", "x.npy", "-k", "15000", "-o", "e.npy", "--checkpoint", "s.safetensors", "--force"];
    let output = folder.interrupted(&args, Duration::from_millis(50));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(stderr(&output), "codeword: interrupted; no output was written\n");
    assert_eq!(folder.names(), before);
}
