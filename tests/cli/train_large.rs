//! `codeword train` on vectors that do not fit into the memory given, by samples and batches, with checkpoints and
//! plots: the bytes are those of training in memory, and of training that was never interrupted.

use crate::support::{BAD_INPUT, Folder, USAGE, bytes, fails, noise, npy_header, partial_files, stderr};
use codeword::{Device, Error, Init, KMeans, Matrix, MatrixView, RowSource};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Vectors x.npy: 9 MB, and nine blocks of the order in which rows are added up.
const N: usize = 9000;
const D: usize = 250;

fn sample() -> (Folder, Matrix<f32>) {
    let folder = Folder::new();
    let x = noise(N * D, 31);
    folder.f32("x.npy", &[N, D], &x);
    (folder, Matrix::new(x, N, D).unwrap())
}

fn learned(params: &KMeans, x: MatrixView<'_, f32>, weights: Option<&[f32]>) -> Vec<f32> {
    let fit = params.fit_with(x, weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
    let codewords = fit.codebook.codewords().unwrap();
    (0..codewords.rows()).flat_map(|j| codewords.row(j).to_vec()).collect()
}

#[test]
fn what_does_not_fit_into_memory_is_learned_with_the_same_bytes() {
    let (folder, x) = sample();
    let weights: Vec<f32> = noise(N, 2).iter().map(|w| w.abs()).collect();
    folder.f32("w.npy", &[N], &weights);
    let train = |more: &[&str]| {
        let args = ["train", "x.npy", "-k", "12", "-o", "e.npy", "--force", "--iterations", "2", "--device", "cpu"];
        folder.json(&[&args, more].concat())
    };
    let params = KMeans::new(12).iterations(2);
    let starts = [("random", Init::RandomRows), ("kmeans++", Init::PlusPlus), ("kmeans||", Init::Parallel)];
    for (name, init) in starts {
        let params = params.clone().init(init);
        for (memory, streamed) in [("3M", true), ("5M", true), ("1G", false)] {
            let report = train(&["--init", name, "--max-memory", memory]);
            assert_eq!(report["streamed"].as_bool(), Some(streamed));
            assert!(folder.read_f32("e.npy", "(12, 250)") == learned(&params, x.view(), None), "{name}, {memory}");
        }
        train(&["--init", name, "--max-memory", "3M", "--weights", "w.npy", "--minibatch", "500"]);
        let expected = learned(&params.minibatch(500), x.view(), Some(&weights));
        assert!(folder.read_f32("e.npy", "(12, 250)") == expected, "{name}, batches");
    }
    // The codes are those of encode.
    train(&["--max-memory", "3M", "--codes", "c.npy"]);
    folder.ok(&["encode", "x.npy", "-c", "e.npy", "-o", "encoded.npy"]);
    assert!(folder.read("c.npy") == folder.read("encoded.npy"));
}

#[test]
fn a_file_in_columns_is_streamed_and_what_f32_cannot_hold_is_counted_once() {
    let folder = Folder::new();
    let (n, d) = (3000usize, 700usize);
    // f64 in Fortran order; every third row is beyond f32's digits.
    let rows: Vec<f64> = noise(n * d, 5).iter().map(|&v| v.into()).collect();
    let value = |i: usize, t: usize| if i.is_multiple_of(3) && t == 7 { 0.1 } else { rows[i * d + t] };
    let bytes: Vec<u8> =
        (0..d).flat_map(|t| (0..n).map(move |i| (i, t))).flat_map(|(i, t)| value(i, t).to_le_bytes()).collect();
    folder.write("x.npy", &[npy_header("<f8", true, "(3000, 700)"), bytes].concat());
    let train = |memory: &str, more: &[&str]| {
        let args = ["train", "x.npy", "-k", "5", "-o", "e.npy", "--force", "--init", "random", "--max-memory", memory];
        let report = folder.json(&[&args, more].concat());
        (report["rounded_rows"].as_u64(), folder.read_f32("e.npy", "(5, 700)"))
    };
    let (rounded, expected) = train("1G", &[]);
    assert_eq!(rounded, Some(1000));
    assert!(train("3M", &[]) == (rounded, expected));
    assert_eq!(train("3M", &["--minibatch", "64"]).0, Some(1000));
}

#[test]
fn a_sample_is_learned_as_the_library_draws_it() {
    let (folder, x) = sample();
    let weights: Vec<f32> = noise(N, 3).iter().map(|w| w.abs()).collect();
    folder.f32("w.npy", &[N], &weights);
    let args = ["train", "x.npy", "-k", "9", "-o", "e.npy", "--force", "--seed", "4", "--weights", "w.npy", "--sample"];
    let report = folder.json(&[&args[..], &["1000", "--max-memory", "3M", "--codes", "c.npy"]].concat());
    assert_eq!((report["n"].as_u64(), report["learned_from"].as_u64()), (Some(N as u64), Some(1000)));
    let (rows, values) = RowSource::<Error>::held(x.view()).sample(1000, 4).unwrap();
    let of_rows: Vec<f32> = rows.iter().map(|&i| weights[i]).collect();
    let params = KMeans::new(9).seed(4);
    assert!(folder.read_f32("e.npy", "(9, 250)") == learned(&params, values.view(), Some(&of_rows)));
    // Codes of all vectors.
    assert_eq!(folder.read_u8("c.npy", "(9000,)").len(), N);
    // As many as there are, and more: all.
    for count in ["9000", "4000000000"] {
        folder.ok(&[&args[..], &[count, "--iterations", "1"]].concat());
        let expected = learned(&params.clone().iterations(1), x.view(), Some(&weights));
        assert!(folder.read_f32("e.npy", "(9, 250)") == expected, "{count}");
    }
    // A vector that cannot be learned from, by its place in the file; outside the sample nobody looks at it.
    let bad = |row: usize| {
        let mut values = x.as_slice().to_vec();
        values[row * D + 3] = f32::NAN;
        folder.f32("bad.npy", &[N, D], &values);
        folder.run(&["train", "bad.npy", "-k", "9", "-o", "new.npy", "--force", "--seed", "4", "--sample", "1000"])
    };
    let output = bad(rows[700]);
    let expected = format!("bad.npy: vector {} holds NaN in column 3", rows[700]);
    assert!(output.status.code() == Some(3) && stderr(&output).contains(&expected), "{}", stderr(&output));
    let outside = (0..N).find(|i| !rows.contains(i)).unwrap();
    assert_eq!(bad(outside).status.code(), Some(0));
    // A weight that cannot be one, by its place in the file, drawn or not.
    for row in [rows[700], outside] {
        let mut bad = weights.clone();
        bad[row] = -1.0;
        folder.f32("w.npy", &[N], &bad);
        let output = folder.run(&[&args[..], &["1000"]].concat());
        let expected = format!("w.npy: weights must be finite and not negative, got -1 for row {row}");
        assert!(output.status.code() == Some(3) && stderr(&output).contains(&expected), "{}", stderr(&output));
    }
}

#[test]
fn a_model_in_tensors_has_metadata_and_the_codewords_of_the_bare_one() {
    let (folder, _) = sample();
    for name in ["e.npy", "e.safetensors", "again.safetensors"] {
        folder.ok(&["train", "x.npy", "-k", "6", "-o", name, "--iterations", "2", "--init", "random"]);
    }
    let bytes = std::fs::read(folder.path("e.safetensors")).unwrap();
    assert_eq!(bytes, std::fs::read(folder.path("again.safetensors")).unwrap());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["codebook"]);
    let tensor = file.tensor("codebook").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[6, 250][..]));
    assert_eq!(tensor.data(), folder.read("e.npy").1);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let expected =
        [("format", "codeword"), ("version", env!("CARGO_PKG_VERSION")), ("quantizer", "vq"), ("k", "6"), ("d", "250")];
    assert!(expected.iter().all(|(key, value)| metadata[*key] == *value) && metadata.len() == 5, "{metadata:?}");
    for (model, codes) in [("e.npy", "a.npy"), ("e.safetensors", "b.npy")] {
        folder.ok(&["encode", "x.npy", "-c", model, "-o", codes]);
    }
    assert!(folder.read("a.npy") == folder.read("b.npy"));
}

#[test]
fn a_plot_shows_the_curve_and_the_usage() {
    let (folder, _) = sample();
    let args =
        ["train", "x.npy", "-k", "6", "-o", "e.npy", "--iterations", "3", "--init", "random", "--plot", "curve.svg"];
    folder.ok(&args);
    let svg = std::fs::read_to_string(folder.path("curve.svg")).unwrap();
    for word in ["<svg", "inertia, in units of ", "iteration", "most used first", "</svg>"] {
        assert!(svg.contains(word), "{word}");
    }
    // One line for each: four inertias, six counts, one of them after the other.
    let lines: Vec<&str> = svg.split("<polyline").skip(1).filter(|line| line.contains("#0000FF")).collect();
    let points = |line: &str| {
        let start = line.find("points=\"").unwrap() + 8;
        line[start..].split('"').next().unwrap().split_whitespace().count()
    };
    assert_eq!(lines.iter().map(|line| points(line)).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(folder.run(&args).status.code(), Some(2), "both exist");
}

#[test]
fn a_resumed_training_writes_the_bytes_of_one_that_was_never_interrupted() {
    let (folder, _) = sample();
    for (i, more) in [&["--init", "random"][..], &["--init", "random", "--minibatch", "300"]].into_iter().enumerate() {
        let train = |out: &str, iterations: &str, rest: &[&str]| {
            let args = ["train", "x.npy", "-k", "8", "-o", out, "--seed", "3", "--max-memory", "3M", "--iterations"];
            let start = if rest.contains(&"--resume") { &more[2..] } else { more };
            folder.json(&[&args[..], &[iterations], start, rest].concat())
        };
        let name = |what: &str| format!("{what}{i}.safetensors");
        let (whole, part, model, checkpoint) = (name("whole"), name("part"), name("model"), name("checkpoint"));
        let expected = train(&whole, "7", &[]);
        train(&part, "3", &["--checkpoint", &checkpoint]);
        let got = train(&model, "7", &["--checkpoint", &checkpoint, "--resume"]);
        assert_eq!((&got["curve"], &got["inertia"]), (&expected["curve"], &expected["inertia"]));
        let read = |name: &str| std::fs::read(folder.path(name)).unwrap();
        assert!(read(&model) == read(&whole), "{more:?}");
        // The checkpoint of the end: the same once more. It is a codebook as well.
        train(&name("end"), "7", &["--checkpoint", &checkpoint, "--resume"]);
        assert!(read(&name("end")) == read(&whole));
        folder.ok(&["eval", "x.npy", "-c", &checkpoint]);
        // Another training.
        let args = ["train", "x.npy", "-k", "8", "-o", "n.npy", "--checkpoint", &checkpoint, "--resume", "--seed", "9"];
        let output = folder.run(&[&args[..], &more[2..]].concat());
        let text = stderr(&output);
        assert!(output.status.code() == Some(3) && text.contains("with seed 9, got 3"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_leaves_its_checkpoint_and_no_codebook() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let (folder, _) = sample();
    let args = ["train", "x.npy", "-k", "200", "-o", "e.npy", "--init", "random", "--max-memory", "6M"];
    let first = [&args[..], &["--iterations", "100000", "--checkpoint", "c.safetensors"]].concat();
    let child = folder.command(&first).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !folder.path("c.safetensors").exists() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    // What Ctrl-C does; that signal may be ignored here, as it is in the background of a script.
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    // It may have converged before.
    if output.status.code() != Some(0) {
        assert_eq!(output.status.code(), Some(130), "{text}");
        let expected =
            "codeword: interrupted; no codebook was written; --resume in place of a start goes on from c.safetensors\n";
        assert_eq!(text, expected);
        assert_eq!(folder.names(), ["c.safetensors", "x.npy"]);
    }
    assert_eq!(partial_files(&folder.path("")), 0);
    let args = ["train", "x.npy", "-k", "200", "-o", "e.npy", "--force"];
    let resumed =
        folder.json(&[&args[..], &["--iterations", "100000", "--checkpoint", "c.safetensors", "--resume"]].concat());
    let whole =
        folder.json(&["train", "x.npy", "-k", "200", "-o", "w.npy", "--init", "random", "--iterations", "100000"]);
    assert_eq!(resumed["curve"], whole["curve"]);
    assert!(folder.read("e.npy") == folder.read("w.npy"));
}

#[test]
fn a_training_goes_on_with_its_own_vectors_and_weights_alone() {
    let (folder, x) = sample();
    let weights: Vec<f32> = noise(N, 2).iter().map(|w| w.abs()).collect();
    folder.f32("w.npy", &[N], &weights);
    folder.f32("v.npy", &[N], &[&[1.5], &weights[1..]].concat());
    let mut other = x.as_slice().to_vec();
    *other.last_mut().unwrap() += 0.125;
    folder.f32("y.npy", &[N, D], &other);
    // The same numbers, written another way.
    let wide = x.as_slice().iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    folder.array("wide.npy", "<f8", &[N, D], wide);
    let train = |x: &'static str, rest: &[&'static str]| {
        [&["train", x, "-k", "8", "-o", "e.npy", "--force", "--checkpoint", "s.safetensors"], rest].concat()
    };
    let weighted = ["--weights", "w.npy"];
    // Begun by reading in every pass and ended in memory, and the other way round.
    for (memory, other) in [("3M", "1G"), ("1G", "3M")] {
        for (own, others) in [(&[][..], &[&weighted[..]][..]), (&weighted, &[&[], &["--weights", "v.npy"]])] {
            let start = ["--init", "random", "--max-memory", memory, "--iterations"];
            folder.ok(&train("x.npy", &[&start[..], &["4"], own].concat()));
            let whole = folder.read("e.npy");
            folder.ok(&train("x.npy", &[&start[..], &["2"], own].concat()));
            let state = std::fs::read(folder.path("s.safetensors")).unwrap();
            let resume = |iterations, weights| {
                [&["--resume", "--max-memory", other, "--iterations", iterations][..], weights].concat()
            };
            let words = ["s.safetensors: is a checkpoint of other vectors", "leave out --resume"];
            fails(&folder, &train("y.npy", &resume("4", own)), BAD_INPUT, &words);
            for weights in others {
                let words = ["s.safetensors: is a checkpoint of other weights", "leave out --resume"];
                fails(&folder, &train("x.npy", &resume("4", weights)), BAD_INPUT, &words);
            }
            let words = ["--iterations 1: s.safetensors has moved its codewords 2 times"];
            fails(&folder, &train("x.npy", &resume("1", own)), USAGE, &words);
            assert!(std::fs::read(folder.path("s.safetensors")).unwrap() == state);
            folder.ok(&train("wide.npy", &resume("4", own)));
            assert!(folder.read("e.npy") == whole, "{memory} {own:?}");
        }
    }
    // A state that cannot be one: the last number of its last codeword, or of its curve, which comes before the codewords.
    let resume = train("x.npy", &["--resume", "--weights", "w.npy"]);
    let state = std::fs::read(folder.path("s.safetensors")).unwrap();
    let damaged = |from_end: usize, bytes: &[u8]| {
        let mut state = state.clone();
        let at = state.len() - from_end;
        state[at..][..bytes.len()].copy_from_slice(bytes);
        folder.write("s.safetensors", &state);
    };
    damaged(4, &f32::NAN.to_le_bytes());
    fails(&folder, &resume, BAD_INPUT, &["s.safetensors: codeword 7 holds NaN in column 249"]);
    damaged(4 * 8 * D + 8, &f64::NAN.to_le_bytes());
    fails(&folder, &resume, BAD_INPUT, &["s.safetensors: curve of the state", "got NaN", "leave out --resume"]);
    // One of a version that did not look at its vectors.
    let mark = state.windows(12).position(|it| it == b"vectors_xxh3").unwrap();
    damaged(state.len() - mark, b"vectors_none");
    fails(&folder, &resume, BAD_INPUT, &["s.safetensors: does not say of which vectors it is", "leave out --resume"]);
    folder.write("s.safetensors", &state);
    folder.ok(&resume);
}

#[test]
fn samples_batches_and_columns_know_their_vectors_too() {
    let folder = Folder::new();
    let (n, d) = (300, 6);
    let x: Vec<f32> = (0..n * d).map(|i| (i % 251) as f32 / 8.0).collect();
    let columns: Vec<f32> = (0..n * d).map(|p| x[p % n * d + p / n]).collect();
    let mut other = x.clone();
    other.iter_mut().for_each(|value| *value += 1.0);
    folder.f32("x.npy", &[n, d], &x);
    folder.f32("y.npy", &[n, d], &other);
    folder.write("f.npy", &[npy_header("<f4", true, "(300, 6)"), bytes(&columns)].concat());
    folder.f32("w.npy", &[n], &(0..n).map(|i| (i % 7) as f32).collect::<Vec<f32>>());
    let base = ["train", "-k", "4", "-o", "e.npy", "--force", "--checkpoint", "s.safetensors", "--iterations"];
    for more in [
        &["--sample", "100"][..],
        &["--minibatch", "50"],
        &["--sample", "300"],
        &["--sample", "1000", "--weights", "w.npy"],
    ] {
        let args = |x, iterations, rest: &[&'static str]| [&base[..], &[iterations, x], more, rest].concat();
        folder.ok(&args("f.npy", "5", &[]));
        let whole = folder.read("e.npy");
        folder.ok(&args("x.npy", "2", &[]));
        let words = ["s.safetensors: is a checkpoint of other vectors"];
        fails(&folder, &args("y.npy", "5", &["--resume"]), BAD_INPUT, &words);
        folder.ok(&args("f.npy", "5", &["--resume"]));
        assert!(folder.read("e.npy") == whole, "{more:?}");
    }
    // A sample of all is all. Its marks as Python's xxhash 3 makes them: with v = numpy.arange(1800) % 251 / 8 as '<f4', and
    // numpy.arange(300) % 7, xxhash.xxh3_64(v.tobytes()).hexdigest().
    let file = std::fs::read(folder.path("s.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!((&*metadata["vectors_xxh3"], &*metadata["weights_xxh3"]), ("74e3ab67a35a49ec", "9eb055b9a2842e0e"));
    folder.ok(&[&base[..], &["5", "x.npy", "--weights", "w.npy", "--resume"]].concat());
}

#[test]
fn batches_and_samples_stay_within_the_memory_that_nothing_is_said_of() {
    let (folder, _) = sample();
    // Takes no space on the disk; nothing is read of it.
    folder.sparse_f32("big.npy", 4_000_000, 64);
    let dry = "--dry-run";
    for more in [&[][..], &[dry]] {
        let batch = [&["train", "x.npy", "-k", "8", "-o", "e.npy", "--minibatch", "300000"], more].concat();
        let words = ["--max-memory 256.0 MiB", "needs at least", "fewer vectors for a --minibatch"];
        fails(&folder, &batch, USAGE, &words);
        let sample = [&["train", "big.npy", "-k", "8", "-o", "e.npy", "--sample", "2000000"], more].concat();
        fails(&folder, &sample, USAGE, &["--max-memory 256.0 MiB", "needs at least", "smaller sample"]);
    }
    // The start that asks for more than there is, and the one that does not.
    folder.sparse_f32("long.npy", 70_000_000, 2);
    let long = ["train", "long.npy", "-k", "8", "-o", "e.npy", dry];
    fails(&folder, &long, USAGE, &["--max-memory 256.0 MiB", "needs at least", "or start with --init random"]);
    folder.ok(&[&long[..], &["--init", "random"]].concat());
    let plan = |more: &[&str]| {
        let args = ["train", "big.npy", "-o", "e.npy", "--init", "random", "--dry-run"];
        folder.run(&[&args, more].concat()).status.code()
    };
    assert_eq!(plan(&["-k", "8", "--minibatch", "500000"]), Some(0));
    assert_eq!(plan(&["-k", "8", "--minibatch", "2000000", "--max-memory", "1G"]), Some(0));
    // The starts of a sample, and of the parts of a vector, are counted by these.
    for start in ["hierarchical", "progressive"] {
        let of = |more: &[&str]| {
            let args = ["train", "big.npy", "-k", "64", "-o", "e.npy", "--init", start, "--dry-run", "--max-memory"];
            folder.run(&[&args, more].concat()).status.code()
        };
        // A few vectors take 256 bytes each, and half of that again or 280; the codewords 272 KiB.
        assert_eq!(of(&["2M", "--sample", "1000"]), Some(0), "{start}");
        assert_eq!(of(&["1M", "--sample", "1500"]), Some(2), "{start}");
        // Of 16,384 vectors, the parts: 48 or 312 bytes each with their codewords.
        let parts = ["--quantizer", "pq", "-m", "8", "--sample", "20000"];
        assert_eq!(of(&[&["12M"], &parts[..]].concat()), Some(0), "{start}");
    }
    // As many codewords as are asked for, and no more than a limit that is.
    assert_eq!(plan(&["-k", "200000"]), Some(0));
    assert_eq!(plan(&["-k", "200000", "--max-memory", "256M"]), Some(USAGE));
    // What is said to do does.
    for more in [
        &["-k", "9"][..],
        &["-k", "23", "--minibatch", "333"],
        &["-k", "3", "--sample", "1717"],
        &["-k", "31", "--init", "kmeans||"],
    ] {
        let with = |memory: &str| {
            folder.run(&[&["train", "x.npy", "-o", "e.npy", "--dry-run", "--max-memory", memory], more].concat())
        };
        let text = stderr(&with("1K"));
        let needed = text.split("needs at least ").nth(1).and_then(|it| it.split(" for this").next()).expect(&text);
        assert_eq!(with(&needed.replace(' ', "")).status.code(), Some(0), "{more:?}: {text}");
    }
}

#[test]
fn vectors_along_several_axes_are_learned_alike_in_either_order() {
    let folder = Folder::new();
    let (shape, d) = ([7usize, 30, 11], 6usize);
    let n: usize = shape.iter().product();
    let (x, weights) = (noise(n * d, 8), noise(n, 9).iter().map(|w| w.abs()).collect::<Vec<f32>>());
    // What has the first axis running fastest, by its index along every axis.
    let in_columns = |values: &[f32], width: usize| -> Vec<f32> {
        let of = |p: usize| {
            let (a, b, c) = (p % 7, p / 7 % 30, p / 210 % 11);
            values[((a * 30 + b) * 11 + c) * width + p / n]
        };
        (0..values.len()).map(of).collect()
    };
    folder.f32("c.npy", &[7, 30, 11, 6], &x);
    folder.f32("wc.npy", &[7, 30, 11], &weights);
    folder.f32("w.npy", &[n], &weights);
    let header = |shape: &str| npy_header("<f4", true, shape);
    folder.write("f.npy", &[header("(7, 30, 11, 6)"), bytes(&in_columns(&x, d))].concat());
    folder.write("wf.npy", &[header("(7, 30, 11)"), bytes(&in_columns(&weights, 1))].concat());
    let trainings = [
        &["--init", "random"][..],
        &["--iterations", "3"],
        &["--sample", "500"],
        &["--minibatch", "100"],
        &["--quantizer", "pq", "-m", "3"],
        &["--quantizer", "rvq", "-m", "2", "--sample", "900"],
    ];
    let learn = |x: &str, more: &[&str]| {
        let args = ["train", x, "-k", "9", "--seed", "2", "-o", "e.npy", "--force"];
        folder.ok(&[&args, more].concat());
        folder.read("e.npy")
    };
    for more in trainings {
        assert!(learn("f.npy", more) == learn("c.npy", more), "{more:?}");
    }
    let weighted = |x: &str, w: &str| learn(x, &["--init", "random", "--weights", w]);
    let expected = weighted("c.npy", "w.npy");
    for (x, w) in
        [("c.npy", "wc.npy"), ("c.npy", "wf.npy"), ("f.npy", "w.npy"), ("f.npy", "wc.npy"), ("f.npy", "wf.npy")]
    {
        assert!(weighted(x, w) == expected, "{x} {w}");
    }
    assert!(learn("c.npy", &["--init", "random"]) != expected, "weights count");

    // A vector is named by its index, whichever way it is found.
    let mut bad = x;
    bad[((3 * 30 + 17) * 11 + 5) * d + 4] = f32::INFINITY;
    folder.write("f.npy", &[header("(7, 30, 11, 6)"), bytes(&in_columns(&bad, d))].concat());
    let args = ["train", "f.npy", "-k", "9", "-o", "n.npy"];
    for more in [&[][..], &["--minibatch", "5000"], &["--quantizer", "pq", "-m", "2"]] {
        fails(&folder, &[&args, more].concat(), BAD_INPUT, &["f.npy: vector", "at [3, 17, 5], holds inf in column 4"]);
    }
    // More of them than fit into memory would have to be gathered one by one.
    folder.write("f.npy", &[header("(2, 3000, 100)"), bytes(&noise(600_000, 1))].concat());
    let args = ["train", "f.npy", "-k", "3", "-o", "n.npy", "--init", "random", "--max-memory", "2300K"];
    fails(&folder, &args, USAGE, &["--max-memory 2.2 MiB", "f.npy, along several axes in Fortran order", "C order"]);
    // What is said to do does.
    let text = stderr(&folder.run(&args));
    let needed = text.split("which takes ").nth(1).and_then(|it| it.split(';').next()).expect(&text);
    folder.ok(&[&args[..9], &[&needed.replace(' ', "")]].concat());
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_flat_for_more_vectors_than_it_holds() {
    let folder = Folder::new();
    folder.sparse_f32("x.npy", 1 << 20, 256);
    let report = folder.json(&["train", "x.npy", "-k", "2", "-o", "e.npy", "--init", "random", "--iterations", "1"]);
    // All rows equal: two codewords of the same zeros, and the higher has no rows.
    assert_eq!((&report["streamed"], &report["inertia"], &report["dead"]), (&true.into(), &0.0.into(), &1.into()));
    assert!(folder.read_f32("e.npy", "(2, 256)") == [0.0; 512]);
    // Few of many vectors, and of their weights, which are a file of 100 MB and would be 400.
    folder.sparse_f32("long.npy", 100_000_000, 1);
    folder.array("w.npy", "|u1", &[100_000_000], vec![1; 100_000_000]);
    let args = ["train", "long.npy", "-k", "2", "-o", "f.npy", "--sample", "1000", "--weights", "w.npy"];
    folder.ok(&[&args[..], &["--max-memory", "16M"]].concat());
    // The largest of all children so far: every other run of this program is small.
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("usage");
    let peak = usage.max_rss() >> 10;
    println!("1 GiB learned from in {} s with {peak} MiB resident", report["seconds"]["total"]);
    assert!(peak < 300, "{peak} MiB");
}

#[test]
fn every_file_that_is_written_is_told() {
    let (folder, _) = sample();
    let args =
        ["train", "x.npy", "-k", "3", "-o", "e.npy", "--init", "random", "--iterations", "1", "--codes", "c.npy"];
    let args = [&args[..], &["--plot", "p.svg", "--checkpoint", "s.safetensors"]].concat();
    let expected = ["codebook e.npy", "codes c.npy", "plot p.svg", "checkpoint s.safetensors"];
    let told = |report: serde_json::Value| {
        let outputs = report["outputs"].as_array().unwrap().iter();
        outputs
            .map(|it| format!("{} {}", it["role"].as_str().unwrap(), it["path"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(folder.json(&[&args[..], &["--dry-run"]].concat())), expected);
    let text = folder.ok(&[&args[..], &["--dry-run"]].concat());
    for line in ["write plot", "p.svg", "write checkpoint", "s.safetensors"] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(folder.names(), ["x.npy"]);
    assert_eq!(told(folder.json(&args)), expected);
    assert_eq!(folder.names(), ["c.npy", "e.npy", "p.svg", "s.safetensors", "x.npy"]);
}
