//! Product quantizers on the command line: learned, used and judged as the library does and as a hand computes, for any
//! memory and number of threads; and what does not fit is refused with the way out.

use crate::common::data;
use crate::support::{BAD_INPUT, Folder, USAGE, assert_header, bytes, fails, noise, npy_header, stderr, tensors};
use codeword::{Device, Init, KMeans, MatrixView, ProductQuantizer};
use serde_json::{Value, json};
use std::time::Duration;

/// Two sub-quantizers of three codewords of two dimensions.
const CODEBOOKS: [f32; 12] = [0.0, 0.0, 4.0, 0.0, 0.0, 4.0, 1.0, 1.0, 5.0, 1.0, 9.0, 9.0];
/// Four vectors; the third lies between two codewords in both parts.
const X: [f32; 16] = [1.0, 0.0, 1.0, 2.0, 3.0, 1.0, 5.0, 0.0, 2.0, 0.0, 3.0, 1.0, 0.0, 5.0, 4.0, 1.0];
const CODES: [u8; 8] = [0, 0, 1, 1, 0, 0, 2, 1];
const DECODED: [f32; 16] = [0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 5.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 4.0, 5.0, 1.0];

/// The example worked out by hand: model pq.npy, vectors x.npy, codes c.npy, queries q.npy with their ground truth g.npy.
fn by_hand() -> Folder {
    let folder = Folder::new();
    folder.f32("pq.npy", &[2, 3, 2], &CODEBOOKS);
    folder.f32("x.npy", &[4, 4], &X);
    folder.array("c.npy", "|u1", &[4, 2], CODES.to_vec());
    folder.f32("q.npy", &[2, 4], &[0.0, 1.0, 1.0, 1.0, 4.0, 0.0, 5.0, 1.0]);
    let truth = [2i64, 0, 1, 3];
    folder.array("g.npy", "<i8", &[2, 2], truth.iter().flat_map(|id| id.to_le_bytes()).collect());
    folder
}

const PQ: [&str; 4] = ["-c", "pq.npy", "--quantizer", "pq"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, &PQ, more].concat()
}

#[test]
fn encode_and_decode_are_those_of_a_hand() {
    let folder = by_hand();
    folder.ok(&with(&["encode", "x.npy", "-o", "new.npy", "--reconstruction", "r.npy"], &[]));
    assert_eq!(folder.read_u8("new.npy", "(4, 2)"), CODES);
    assert_eq!(folder.read_f32("r.npy", "(4, 4)"), DECODED);
    folder.ok(&with(&["decode", "c.npy", "-o", "back.npy"], &[]));
    assert_eq!(folder.read("back.npy"), folder.read("r.npy"));
    let report = folder.json(&with(&["encode", "x.npy", "-o", "wide.npy", "--code-dtype", "u16"], &[]));
    assert_header(&folder.read("wide.npy").0, "<u2", false, "(4, 2)");
    assert_eq!(
        [&report["quantizer"], &report["m"], &report["k"], &report["d"]],
        [&json!("pq"), &json!(2), &json!(3), &json!(4)]
    );
    folder.ok(&with(&["decode", "wide.npy", "-o", "again.npy"], &[]));
    assert_eq!(folder.read("again.npy"), folder.read("r.npy"));
}

#[test]
fn models_say_what_they_are_and_fortran_order_is_read() {
    let folder = by_hand();
    let metadata = json!({"quantizer": "pq", "m": "2", "k": "3", "d": "4"});
    folder.write("pq.safetensors", &tensors(&metadata, &[2, 3, 2], &CODEBOOKS));
    folder.ok(&["encode", "x.npy", "-c", "pq.safetensors", "-o", "t.npy"]);
    assert_eq!(folder.read_u8("t.npy", "(4, 2)"), CODES);
    folder.ok(&["encode", "x.npy", "-c", "pq.safetensors", "--quantizer", "pq", "-o", "u.npy"]);
    // The first axis runs fastest.
    let turned: Vec<f32> =
        (0..2).flat_map(|t| (0..3).flat_map(move |j| [0, 1].map(|s| CODEBOOKS[6 * s + 2 * j + t]))).collect();
    folder.write("turned.npy", &[npy_header("<f4", true, "(2, 3, 2)"), bytes(&turned)].concat());
    folder.ok(&["encode", "x.npy", "-c", "turned.npy", "--quantizer", "pq", "-o", "f.npy"]);
    assert_eq!(folder.read_u8("f.npy", "(4, 2)"), CODES);
}

#[test]
fn leading_axes_and_storage_order_are_kept() {
    let folder = by_hand();
    folder.f32("one.npy", &[4], &X[4..8]);
    folder.ok(&with(&["encode", "one.npy", "-o", "c1.npy", "--reconstruction", "r1.npy"], &[]));
    assert_eq!(folder.read_u8("c1.npy", "(2,)"), [1, 1]);
    assert_eq!(folder.read_f32("r1.npy", "(4,)"), DECODED[4..8]);
    folder.ok(&with(&["decode", "c1.npy", "-o", "d1.npy"], &[]));
    assert_eq!(folder.read("d1.npy"), folder.read("r1.npy"));

    // x[i][j] is vector 2 i + j; in Fortran order element [i][j][t] lies at i + 2 j + 4 t.
    let mut turned = [0.0; 16];
    (0..16).for_each(|at| turned[at] = X[4 * (2 * (at % 2) + at / 2 % 2) + at / 4]);
    folder.write("f.npy", &[npy_header("<f4", true, "(2, 2, 4)"), bytes(&turned)].concat());
    folder.ok(&with(&["encode", "f.npy", "-o", "cf.npy", "--reconstruction", "rf.npy"], &[]));
    let (header, codes) = folder.read("cf.npy");
    assert_header(&header, "|u1", true, "(2, 2, 2)");
    let expected: Vec<u8> = (0..8).map(|at| CODES[2 * (2 * (at % 2) + at / 2 % 2) + at / 4]).collect();
    assert_eq!(codes, expected);
    // One vector at a time.
    folder.ok(&with(&["decode", "cf.npy", "-o", "df.npy", "--max-memory", "200"], &[]));
    assert_eq!(folder.read("df.npy"), folder.read("rf.npy"));
    assert_header(&folder.read("df.npy").0, "<f4", true, "(2, 2, 4)");
    folder.ok(&with(&["encode", "f.npy", "-o", "small.npy", "--max-memory", "200"], &[]));
    assert_eq!(folder.read("small.npy"), folder.read("cf.npy"));

    folder.f32("none.npy", &[0, 4], &[]);
    folder.ok(&with(&["encode", "none.npy", "-o", "c0.npy"], &[]));
    assert!(folder.read_u8("c0.npy", "(0, 2)").is_empty());
    folder.ok(&with(&["decode", "c0.npy", "-o", "d0.npy"], &[]));
    assert!(folder.read_f32("d0.npy", "(0, 4)").is_empty());
}

#[test]
fn eval_is_that_of_a_hand() {
    let folder = by_hand();
    let report = folder.json(&with(&["eval", "x.npy"], &[]));
    let close = |at: &Value, expected: f64| {
        let got = at.as_f64().unwrap_or_else(|| panic!("{at} in {report}"));
        assert!((got - expected).abs() <= 1e-12 * expected, "{got}, expected {expected}");
    };
    close(&report["inertia"], 15.0);
    close(&report["distortion"], 3.75);
    close(&report["mse"], 15.0 / 16.0);
    close(&report["snr_db"], 10.0 * (97.0f64 / 15.0).log10());
    close(&report["rate"], 2.0 * 3f64.log2());
    let parts = report["parts"].as_array().expect("an array");
    assert_eq!((parts.len(), &report["quantizer"], &report["m"]), (2, &json!("pq"), &json!(2)));
    // Used 2, 1 and 1 times; 2, 2 and 0 times.
    for (part, [mse, distortion, perplexity, utilization], dead) in
        [(0, [1.0, 2.0, 2f64.powf(1.5), 1.0], 0), (1, [0.875, 1.75, 2.0, 2.0 / 3.0], 1)]
    {
        close(&parts[part]["mse"], mse);
        close(&parts[part]["distortion"], distortion);
        close(&parts[part]["perplexity"], perplexity);
        close(&parts[part]["utilization"], utilization);
        assert_eq!(parts[part]["dead"], dead);
    }
    let text = folder.ok(&with(&["eval", "x.npy"], &["--max-memory", "200"]));
    for words in [
        "distortion       3.750000",
        "SNR",
        "8.107 dB",
        "3.170 bits",
        "sub-quantizer 1  0.875000",
        "66.67 % used, 1 dead",
    ] {
        assert!(text.contains(words), "'{words}' in: {text}");
    }
    // Nothing is lost: a number that JSON has no form for.
    folder.f32("exact.npy", &[4, 4], &DECODED);
    assert_eq!(folder.json(&with(&["eval", "exact.npy"], &[]))["snr_db"], Value::Null);
}

#[test]
fn search_is_that_of_a_hand() {
    let folder = by_hand();
    let search = ["search", "q.npy", "--codes", "c.npy", "-k", "3", "-o", "i.npy", "--distances", "d.npy"];
    let text = folder.ok(&with(&search, &["--ground-truth", "g.npy"]));
    // Two codes are one vector: the lower number comes first.
    assert_eq!(folder.read_u32("i.npy", "(2, 3)"), [0, 2, 3, 1, 0, 2]);
    assert_eq!(folder.read_f32("d.npy", "(2, 3)"), [1.0, 1.0, 25.0, 0.0, 32.0, 32.0]);
    assert!(text.starts_with("recall@1  0.5000  of the queries") && text.lines().count() == 1, "{text}");
    let report = folder.json(&with(&search, &["--ground-truth", "g.npy", "--force"]));
    assert_eq!(report["recall"], json!({"1": 0.5}));
    assert_eq!([&report["n"], &report["codes"], &report["neighbors"]], [&json!(2), &json!(4), &json!(3)]);
    assert!(report["queries_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
    assert_eq!(report["outputs"][1]["role"], "distances");
    assert_eq!(folder.json(&with(&search, &["--force"]))["recall"], Value::Null);

    // The first query as its code is the first and third vector itself; the second one is two codewords.
    let report = folder.json(&with(&search, &["--symmetric", "--force"]));
    assert_eq!(folder.read_u32("i.npy", "(2, 3)"), [0, 2, 1, 1, 0, 2]);
    assert_eq!(folder.read_f32("d.npy", "(2, 3)"), [0.0, 0.0, 32.0, 0.0, 32.0, 32.0]);
    assert_eq!(report["symmetric"], true);

    // A single query, and one query more than axes of it: in Fortran order.
    folder.f32("one.npy", &[4], &[4.0, 0.0, 5.0, 1.0]);
    folder.ok(&with(&["search", "one.npy", "--codes", "c.npy", "-k", "4", "-o", "one_ids.npy"], &[]));
    assert_eq!(folder.read_u32("one_ids.npy", "(4,)"), [1, 0, 2, 3]);
    let turned = [0.0, 4.0, 1.0, 0.0, 1.0, 5.0, 1.0, 1.0];
    folder.write("f.npy", &[npy_header("<f4", true, "(2, 4)"), bytes(&turned)].concat());
    folder.write("cf.npy", &[npy_header("|u1", true, "(4, 2)"), vec![0, 1, 0, 2, 0, 1, 0, 1]].concat());
    let truth: Vec<u8> = [0u16, 1, 3, 3].iter().flat_map(|id| id.to_le_bytes()).collect();
    folder.write("gf.npy", &[npy_header("<u2", true, "(2, 2)"), truth].concat());
    let search = ["search", "f.npy", "--codes", "cf.npy", "-k", "3", "-o", "fi.npy", "--ground-truth", "gf.npy"];
    assert_eq!(folder.json(&with(&search, &[]))["recall"], json!({"1": 1.0}));
    let (header, ids) = folder.read("fi.npy");
    assert_header(&header, "<u4", true, "(2, 3)");
    assert_eq!(ids, [0u32, 1, 2, 0, 3, 2].iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
    folder.f32("none.npy", &[0, 4], &[]);
    folder.ok(&with(&["search", "none.npy", "--codes", "c.npy", "-k", "1", "-o", "none_ids.npy"], &[]));
    assert!(folder.read_u32("none_ids.npy", "(0, 1)").is_empty());
}

/// 900 vectors of 12 dimensions in x.npy.
fn random() -> (Folder, Vec<f32>) {
    let folder = Folder::new();
    let x = noise(900 * 12, 3);
    folder.f32("x.npy", &[900, 12], &x);
    (folder, x)
}

fn learned(x: &[f32], m: usize, params: &KMeans) -> Vec<f32> {
    let x = MatrixView::new(x, x.len() / 12, 12).unwrap();
    let quantizer = ProductQuantizer::train(x, m, params, &Device::cpu()).unwrap();
    let mut values = Vec::new();
    for codebook in quantizer.codebooks() {
        let codewords = codebook.codewords().unwrap();
        (0..codewords.rows()).for_each(|j| values.extend(codewords.row(j)));
    }
    values
}

#[test]
fn train_writes_what_the_library_learns() {
    let (folder, x) = random();
    let train = ["train", "x.npy", "--quantizer", "pq", "-m", "3", "-k", "16", "--device", "cpu"];
    let learn = |more: &[&str]| {
        folder.ok(&[&train[..], &["-o", "e.npy", "--force"], more].concat());
        folder.read_f32("e.npy", "(3, 16, 4)")
    };
    assert_eq!(learn(&[]), learned(&x, 3, &KMeans::new(16)));
    let more = ["--init", "random", "--seed", "7", "--iterations", "3", "--n-init", "2"];
    let params = KMeans::new(16).init(Init::RandomRows).seed(7).iterations(3).n_init(2);
    assert_eq!(learn(&more), learned(&x, 3, &params));
    let params = KMeans::new(16).init(Init::Parallel).tolerance(0.01);
    assert_eq!(learn(&["--init", "kmeans||", "--tolerance", "0.01"]), learned(&x, 3, &params));
    let few = learn(&["--sample", "200", "--iterations", "2"]);
    assert_eq!(learn(&["--sample", "200", "--iterations", "2", "--threads", "1", "--max-memory", "40K"]), few);
    assert!(few != learn(&["--iterations", "2"]));

    let report = folder.json(&[&train[..], &["-o", "e.safetensors", "--iterations", "4"]].concat());
    let x = MatrixView::new(&x, 900, 12).unwrap();
    let model = learned(&noise(900 * 12, 3), 3, &KMeans::new(16).iterations(4));
    let quantizer = ProductQuantizer::new(MatrixView::new(&model, 48, 4).unwrap(), 3, &Device::cpu()).unwrap();
    let decoded = quantizer.decode(&quantizer.encode(x).unwrap()).unwrap();
    let mut sum = 0.0;
    for s in 0..3 {
        let of_part = |i: usize| {
            let (x, decoded) = (&x.row(i)[4 * s..4 * s + 4], &decoded.view().row(i)[4 * s..4 * s + 4]);
            x.iter().zip(decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let distortion = (0..900).map(of_part).sum::<f64>() / 900.0;
        let part = &report["parts"][s];
        let told = part["distortion"].as_f64().unwrap();
        assert!((told - distortion).abs() <= 1e-5 * distortion, "{told} {distortion}");
        assert_eq!((part["iterations"].as_u64(), part["curve"].as_array().map(Vec::len)), (Some(4), Some(5)));
        sum += told;
    }
    assert!((report["distortion"].as_f64().unwrap() - sum).abs() <= 1e-12 * sum);
    assert_eq!(
        (&report["quantizer"], &report["m"], &report["outputs"][0]["shape"]),
        (&json!("pq"), &json!(3), &json!([3, 16, 4]))
    );

    let seen = folder.json(&["inspect", "e.safetensors"]);
    let metadata = json!({"format": "codeword", "version": env!("CARGO_PKG_VERSION"), "quantizer": "pq", "m": "3", "k": "16", "d": "12"});
    assert_eq!((&seen["metadata"], &seen["shape"]), (&metadata, &json!([3, 16, 4])));
    let text = folder.ok(&["inspect", "e.safetensors"]);
    assert!(text.contains("quantizer") && text.contains("(3, 16, 4)"), "{text}");
    // What was written is a model, and the same one in both forms.
    folder.ok(&["encode", "x.npy", "-c", "e.safetensors", "-o", "c.npy"]);
    learn(&["--iterations", "4"]);
    folder.ok(&["encode", "x.npy", "-c", "e.npy", "--quantizer", "pq", "-o", "d.npy"]);
    assert_eq!(folder.read("c.npy"), folder.read("d.npy"));
    assert_eq!(
        folder.read_u8("c.npy", "(900, 3)"),
        quantizer
            .encode(x)
            .map(|codes| quantizer.unpack(&codes).unwrap())
            .unwrap()
            .iter()
            .map(|&v| v as u8)
            .collect::<Vec<_>>()
    );

    let plan = folder.json(&[&train[..], &["-o", "new.npy", "--dry-run", "--n-init", "2"]].concat());
    assert_eq!((&plan["passes"], &plan["outputs"][0]["shape"]), (&json!(52), &json!([3, 16, 4])));
    assert!(!folder.path("new.npy").exists());
    let output = folder.run(&[&train[..], &["-o", "new.npy", "--progress", "always", "--iterations", "2"]].concat());
    let text = stderr(&output);
    assert!(text.contains("100 % 8100/8100 vectors, part 3/3, pass 3/3"), "{text}");
    assert!(text.contains("new.npy: (3, 16, 4) f32 codebooks in "), "{text}");
}

#[test]
fn memory_and_threads_change_no_byte() {
    let (folder, x) = random();
    folder.f32("q.npy", &[70, 12], &noise(70 * 12, 9));
    // More than a byte for a number.
    folder.ok(&[
        "train",
        "x.npy",
        "--quantizer",
        "pq",
        "-m",
        "4",
        "-k",
        "300",
        "--iterations",
        "1",
        "-o",
        "e.safetensors",
    ]);
    let model = ["-c", "e.safetensors"];
    let run = |name: &str, more: &[&str]| {
        let [codes, back, ids, distances, reconstruction] =
            ["c", "b", "i", "d", "r"].map(|what| format!("{what}{name}.npy"));
        folder
            .ok(&[&["encode", "x.npy", "-o", &codes, "--reconstruction", &reconstruction], &model[..], more].concat());
        folder.ok(&[&["decode", &codes, "-o", &back], &model[..], more].concat());
        let judged = folder.json(&[&["eval", "x.npy"], &model[..], more].concat());
        let search = ["search", "q.npy", "--codes", &codes, "-k", "20", "-o", &ids, "--distances", &distances];
        let more = if more.contains(&"--max-memory") { &["--max-memory", "775K", "--threads", "1"][..] } else { more };
        folder.ok(&[&search[..], &model, more].concat());
        let files = [codes, back, ids, distances, reconstruction].map(|name| folder.read(&name));
        (files, judged["distortion"].clone(), judged["parts"].clone())
    };
    let all = run("0", &[]);
    assert_header(&all.0[0].0, "<u2", false, "(900, 4)");
    assert_eq!(all.0[1], all.0[4], "decoded and reconstructed");
    for (i, more) in [["--threads", "1"], ["--threads", "5"], ["--max-memory", "2K"]].iter().enumerate() {
        assert!(run(&(i + 1).to_string(), more) == all, "{more:?}");
    }

    // And all is that of the library.
    let x = MatrixView::new(&x, 900, 12).unwrap();
    let quantizer = ProductQuantizer::train(x, 4, &KMeans::new(300).iterations(1), &Device::cpu()).unwrap();
    let codes = quantizer.encode(x).unwrap();
    let numbers: Vec<u8> =
        quantizer.unpack(&codes).unwrap().iter().flat_map(|&number| (number as u16).to_le_bytes()).collect();
    assert_eq!(all.0[0].1, numbers);
    assert_eq!(all.0[1].1, bytes(quantizer.decode(&codes).unwrap().as_slice()));
    let queries = noise(70 * 12, 9);
    let found = quantizer.search(&codes, MatrixView::new(&queries, 70, 12).unwrap(), 20).unwrap();
    assert_eq!(all.0[2].1, found.ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
    assert_eq!(all.0[3].1, bytes(&found.sq_distances));
}

#[test]
fn training_that_makes_no_sense_is_refused_with_the_way_out() {
    let folder = by_hand();
    folder.ok(&["train", "x.npy", "-k", "2", "-o", "vq.npy"]);
    folder.f32("w.npy", &[4], &[1.0; 4]);
    let mut bad = X;
    (bad[15], bad[9]) = (f32::NAN, f32::INFINITY);
    folder.f32("bad.npy", &[4, 4], &bad);
    let train = ["train", "x.npy", "--quantizer", "pq", "-m", "2", "-k", "2", "-o", "new.npy"];
    for flags in [
        &["--minibatch", "2"][..],
        &["--weights", "w.npy"],
        &["--start", "vq.npy"],
        &["--checkpoint", "c.safetensors"],
        &["--checkpoint", "c.safetensors", "--resume"],
        &["--plot", "p.svg"],
        &["--codes", "codes.npy"],
    ] {
        fails(&folder, &[&train, flags].concat(), USAGE, &[flags[0], "--quantizer vq only", "leave it out"]);
    }
    fails(&folder, &[&train[..], &["--precision", "fast"]].concat(), USAGE, &["--precision fast", "leave it out"]);
    let needed = ["--max-memory 100 bytes", "held in memory", "which takes", "--sample"];
    fails(&folder, &[&train[..], &["--max-memory", "100"]].concat(), USAGE, &needed);
    let sample = ["--sample", "3", "--max-memory", "100"];
    fails(&folder, &[&train[..], &sample].concat(), USAGE, &["--max-memory 100 bytes", "needs at least"]);
    fails(&folder, &[&train[..], &["--sample", "1"]].concat(), USAGE, &["--sample 1", "at least 2 vectors"]);
    let parts = |m: &str, k: &str, quantizer: &str| {
        ["train", "x.npy", "--quantizer", quantizer, "-m", m, "-k", k, "-o", "new.npy"].map(String::from)
    };
    for (args, code, words) in [
        (parts("3", "2", "pq"), USAGE, ["-m 3: expected a divisor of the 4 dimensions", "(those up to 128: 1 2 4)"]),
        (parts("8", "2", "pq"), USAGE, ["-m 8: expected a divisor", "columns of zeros"]),
        (parts("2", "70000", "pq"), USAGE, ["-k 70000: expected at most 65536", "with -m"]),
        (parts("2", "5", "pq"), BAD_INPUT, ["x.npy: expected at least 5 vectors", "got 4"]),
        (parts("2", "2", "vq"), USAGE, ["-m 2: a codebook has no sub-quantizers", "--quantizer pq"]),
    ] {
        fails(&folder, &args.each_ref().map(String::as_str), code, &words);
    }
    let no_m = ["train", "x.npy", "--quantizer", "pq", "-k", "2", "-o", "new.npy"];
    fails(&folder, &no_m, USAGE, &["--quantizer pq: expected -m M too", "divisor of the dimensions"]);
    let mut of_bad = train;
    of_bad[1] = "bad.npy";
    // The first vector of all, not of the first part; of a sample by its place in the file.
    fails(&folder, &of_bad, BAD_INPUT, &["bad.npy: vector 2 holds inf in column 1", "remove or repair it"]);
    for wrong in [&["--quantizer", "rvq"][..], &["--quantizer", "pq", "-m", "0"], &["--quantizer", "pq", "-m", "-1"]] {
        let output = folder.run(&[&["train", "x.npy", "-k", "2", "-o", "new.npy"], wrong].concat());
        assert_eq!(output.status.code(), Some(USAGE), "{wrong:?}: {}", stderr(&output));
    }
}

#[test]
fn a_model_of_another_kind_is_refused_with_the_way_out() {
    let folder = by_hand();
    folder.ok(&["train", "x.npy", "-k", "2", "-o", "vq.safetensors"]);
    folder.write("pq.safetensors", &tensors(&json!({"quantizer": "pq"}), &[2, 3, 2], &CODEBOOKS));
    folder.write("lsq.safetensors", &tensors(&json!({"quantizer": "lsq"}), &[2, 3, 2], &CODEBOOKS));
    folder.write("flat.safetensors", &tensors(&json!({"quantizer": "pq"}), &[6, 2], &CODEBOOKS));
    folder.f32("vq.npy", &[3, 4], &CODEBOOKS);
    folder.f32("empty.npy", &[2, 0, 2], &[]);
    folder.f32("many.npy", &[1, 65537, 1], &[0.0; 65537]);
    let mut bad = CODEBOOKS;
    bad[9] = f32::NAN;
    folder.f32("bad.npy", &[2, 3, 2], &bad);
    for verb in [
        &["encode", "x.npy", "-o", "new.npy"][..],
        &["decode", "c.npy", "-o", "new.npy"],
        &["eval", "x.npy"],
        &["search", "q.npy", "--codes", "c.npy", "-k", "1", "-o", "new.npy"],
    ] {
        let check = |more: &[&str], code: i32, words: &[&str]| fails(&folder, &[verb, more].concat(), code, words);
        let words = ["pq.npy: expected a codebook of shape (k, d), got (2, 3, 2)", "--quantizer pq", "(m, k, d/m)"];
        check(&["-c", "pq.npy"], BAD_INPUT, &words);
        check(&["-c", "lsq.safetensors"], BAD_INPUT, &["lsq.safetensors", "lsq, which this version cannot use"]);
        check(
            &["-c", "flat.safetensors"],
            BAD_INPUT,
            &["codebooks of shape (m, k, d/m), as the quantizer pq has, got (6, 2)"],
        );
        check(
            &["-c", "vq.npy", "--quantizer", "pq"],
            BAD_INPUT,
            &["the quantizer pq has, got (3, 4)", "(k, d) is the quantizer vq"],
        );
        check(&["-c", "empty.npy", "--quantizer", "pq"], BAD_INPUT, &["got (2, 0, 2)", "at least one codeword"]);
        check(
            &["-c", "many.npy", "--quantizer", "pq"],
            BAD_INPUT,
            &["got (1, 65537, 1)", "65536 codewords are the most"],
        );
        check(
            &["-c", "vq.safetensors", "--quantizer", "pq"],
            USAGE,
            &["--quantizer pq", "quantizer vq", "leave out the flag"],
        );
        check(
            &["-c", "pq.safetensors", "--quantizer", "vq"],
            USAGE,
            &["--quantizer vq", "quantizer pq", "leave out the flag"],
        );
        let words = ["bad.npy: codeword 1 of sub-quantizer 1 holds NaN in column 1", "retrain"];
        check(&["-c", "bad.npy", "--quantizer", "pq"], BAD_INPUT, &words);
        let output = folder.run(&[verb, &["-c", "pq.npy", "--quantizer", "lsq"]].concat());
        assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
    }
    let distances = ["distances", "x.npy", "-o", "new.npy", "-c"];
    fails(&folder, &[&distances[..], &["pq.npy"]].concat(), BAD_INPUT, &["shape (k, d), got (2, 3, 2)"]);
    fails(
        &folder,
        &[&distances[..], &["pq.safetensors"]].concat(),
        BAD_INPUT,
        &["which is what distances takes", "quantizer pq"],
    );
    let start = ["train", "x.npy", "-k", "3", "-o", "new.npy", "--start", "pq.safetensors"];
    fails(&folder, &start, BAD_INPUT, &["which is what --start takes", "quantizer pq"]);
    let search = ["search", "q.npy", "--codes", "c.npy", "-k", "1", "-o", "new.npy", "-c", "vq.npy"];
    fails(&folder, &search, BAD_INPUT, &["vq.npy: expected a product quantizer", "(3, 4)", "train --quantizer pq"]);
}

#[test]
fn what_only_a_codebook_has_is_refused_for_a_product_quantizer() {
    let folder = by_hand();
    let mut bad = X;
    bad[6] = f32::NAN;
    folder.f32("bad.npy", &[2, 2, 4], &bad);
    folder.f32("narrow.npy", &[2, 3], &[0.0; 6]);
    let encode = |x, more: &[&'static str]| with(&["encode", x, "-o", "new.npy"], more);
    let only = "for codebooks only, and MODEL is a product quantizer";
    fails(&folder, &encode("x.npy", &["--top-k", "2"]), USAGE, &["--top-k", only]);
    fails(&folder, &encode("x.npy", &["--distances", "d.npy"]), USAGE, &["--distances", only]);
    fails(&folder, &encode("x.npy", &["--non-finite", "sentinel"]), USAGE, &["--non-finite sentinel", only]);
    fails(&folder, &encode("x.npy", &["--precision", "fast"]), USAGE, &["--precision fast", "exact only"]);
    fails(&folder, &encode("x.npy", &["--max-memory", "10"]), USAGE, &["--max-memory 10 bytes", "allow at least"]);
    fails(
        &folder,
        &encode("bad.npy", &[]),
        BAD_INPUT,
        &["bad.npy: vector 1, at [0, 1], holds NaN in column 2", "repair"],
    );
    fails(&folder, &encode("narrow.npy", &[]), BAD_INPUT, &["narrow.npy: expected vectors of 4 columns", "got 3"]);
    let eval = |x, more: &[&'static str]| with(&["eval", x], more);
    fails(&folder, &eval("x.npy", &["--beta", "0.5"]), USAGE, &["--beta", only]);
    fails(&folder, &eval("x.npy", &["--non-finite", "sentinel"]), USAGE, &["--non-finite sentinel", only]);
    fails(&folder, &eval("x.npy", &["--precision", "fast"]), USAGE, &["--precision fast", "exact only"]);
    fails(&folder, &eval("bad.npy", &[]), BAD_INPUT, &["bad.npy: vector 1, at [0, 1], holds NaN in column 2"]);
    let plan = folder.json(&encode("x.npy", &["--dry-run", "--reconstruction", "r.npy"]));
    assert_eq!((&plan["outputs"][0]["shape"], plan["outputs"].as_array().map(Vec::len)), (&json!([4, 2]), Some(2)));
    assert!(!folder.path("new.npy").exists());
}

#[test]
fn codes_that_do_not_fit_are_refused_with_the_way_out() {
    let folder = by_hand();
    folder.array("wide.npy", "|u1", &[4, 3], vec![0; 12]);
    folder.array("one.npy", "|u1", &[], vec![0]);
    folder.array("high.npy", "|u1", &[2, 2, 2], vec![0, 0, 1, 1, 0, 3, 0, 0]);
    folder.array("flat.npy", "|u1", &[4, 2], vec![0, 0, 1, 1, 0, 3, 0, 0]);
    folder.write("turned.npy", &[npy_header("|u1", true, "(4, 2)"), vec![0, 0, 2, 0, 0, 1, 9, 0]].concat());
    let decode = |codes| with(&["decode", codes, "-o", "new.npy"], &[]);
    let words = ["expected codes of 2 numbers along the last axis", "pq.npy", "name the model"];
    fails(&folder, &decode("wide.npy"), BAD_INPUT, &[&words[..], &["wide.npy", "(4, 3)"]].concat());
    fails(&folder, &decode("one.npy"), BAD_INPUT, &[&words[..], &["one.npy", "()"]].concat());
    fails(&folder, &decode("x.npy"), BAD_INPUT, &["x.npy: expected integer codes, got f32"]);
    let words = ["names no codeword", "pq.npy holds 3 (codes 0 to 2)"];
    fails(&folder, &decode("high.npy"), BAD_INPUT, &[&words[..], &["code 3 at position 5, at [1, 0, 1],"]].concat());
    fails(&folder, &decode("turned.npy"), BAD_INPUT, &[&words[..], &["code 9 at position 6, at [2, 1],"]].concat());

    let search = |codes, more: &[&'static str]| with(&["search", "q.npy", "--codes", codes, "-o", "new.npy"], more);
    let some = |codes| search(codes, &["-k", "1"]);
    fails(&folder, &some("wide.npy"), BAD_INPUT, &["wide.npy", "codes of 2 numbers", "(4, 3)"]);
    fails(&folder, &some("high.npy"), BAD_INPUT, &["high.npy: expected codes of shape (n, m)", "(2, 2, 2)", "reshape"]);
    fails(&folder, &some("flat.npy"), BAD_INPUT, &[&words[..], &["code 3 at position 5, at [2, 1],"]].concat());
    fails(&folder, &search("c.npy", &["-k", "5"]), USAGE, &["-k 5: c.npy holds only 4 codes", "at most that many"]);
    fails(&folder, &search("c.npy", &["-k", "1", "--precision", "fast"]), USAGE, &["--precision fast", "exact only"]);
    // 4 bytes of codes, tables of 4 x 128 x 6, and for the thread 2 x 16 KiB, 4 x 42 and 24 x 128: 38.2 KiB, and a query.
    let words = ["--max-memory 1.0 KiB", "holds all codes in memory", "takes at least 38."];
    fails(&folder, &search("c.npy", &["-k", "1", "--max-memory", "1K", "--threads", "1"]), USAGE, &words);
    fails(
        &folder,
        &search("c.npy", &["-k", "1", "--distances", "new.npy"]),
        USAGE,
        &["named for both ids and distances"],
    );
    folder.f32("narrow.npy", &[2, 3], &[0.0; 6]);
    let narrow = with(&["search", "narrow.npy", "--codes", "c.npy", "-k", "1", "-o", "new.npy"], &[]);
    fails(&folder, &narrow, BAD_INPUT, &["narrow.npy: expected vectors of 4 columns", "got 3"]);
    folder.f32("bad.npy", &[2, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]);
    let bad = with(&["search", "bad.npy", "--codes", "c.npy", "-k", "1", "-o", "new.npy"], &[]);
    fails(&folder, &bad, BAD_INPUT, &["bad.npy: vector 1 holds NaN in column 2", "repair"]);

    let truth = |file| search("c.npy", &["-k", "1", "--ground-truth", file]);
    let words = ["expected integer ids of shape (2, 1) or wider", "name the ground truth"];
    for (name, shape) in [("three.npy", &[3usize, 2][..]), ("list.npy", &[2]), ("no.npy", &[2, 0])] {
        folder.array(name, "|u1", shape, vec![0; shape.iter().product()]);
        fails(&folder, &truth(name), BAD_INPUT, &[&words[..], &[name]].concat());
    }
    folder.f32("f.npy", &[2, 1], &[0.0; 2]);
    fails(&folder, &truth("f.npy"), BAD_INPUT, &[&words[..], &["f.npy", "got f32 of shape (2, 1)"]].concat());
    folder.array("far.npy", "|u1", &[2, 2], vec![3, 9, 4, 0]);
    fails(
        &folder,
        &truth("far.npy"),
        BAD_INPUT,
        &["far.npy: names 4 as nearest to query 1", "only 4 codes (ids 0 to 3)"],
    );
    folder.array("minus.npy", "|i1", &[2, 1], vec![0, 255]);
    fails(&folder, &truth("minus.npy"), BAD_INPUT, &["minus.npy", "-1"]);

    let plan = folder.json(&search("c.npy", &["-k", "2", "--dry-run", "--ground-truth", "g.npy"]));
    let roles: Vec<&Value> = plan["inputs"].as_array().unwrap().iter().map(|input| &input["role"]).collect();
    assert_eq!(roles, ["queries", "codes", "codebook", "ground truth"]);
    assert_eq!((&plan["outputs"][0]["shape"], &plan["outputs"][0]["dtype"]), (&json!([2, 2]), &json!("u32")));
    assert!(!folder.path("new.npy").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_leaves_no_file() {
    let folder = Folder::new();
    folder.f32("x.npy", &[20_000, 16], &noise(20_000 * 16, 3));
    let before = folder.names();
    let args = ["train", "x.npy", "--quantizer", "pq", "-m", "4", "-k", "200", "-o", "e.npy", "--n-init", "100000"];
    let output = folder.interrupted(&args, Duration::from_millis(100));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(stderr(&output), "codeword: interrupted; no output was written\n");
    assert_eq!(folder.names(), before);
}

#[test]
fn siftsmall_gets_the_codes_of_faiss_and_its_recall() {
    let Some(of_data) = data::folder() else { return };
    let folder = Folder::new();
    let path = |name: &str| of_data.join(name).to_str().expect("UTF-8").to_string();
    let (base, queries, truth) =
        (path("siftsmall/base_f32.npy"), path("siftsmall/query_f32.npy"), path("siftsmall/groundtruth_i32.npy"));
    let codebook = path("faiss_ref/pq_m8_codebook_f32.npy");
    let model = ["-c", &codebook, "--quantizer", "pq"];
    folder.ok(&[&["encode", &base, "-o", "c.npy"], &model[..]].concat());
    let (expected, shape) = data::array::<u8>("faiss_ref/pq_m8_codes_u8.npy");
    assert_eq!((shape, folder.read_u8("c.npy", "(10000, 8)")), (vec![10_000, 8], expected));

    let search = ["search", &queries, "--codes", "c.npy", "-k", "100", "-o", "i.npy", "--ground-truth", &truth];
    let report = folder.json(&[&search[..], &model].concat());
    let (ids, (nearest, _)) =
        (folder.read_u32("i.npy", "(100, 100)"), data::array::<i32>("siftsmall/groundtruth_i32.npy"));
    for r in [1, 10, 100] {
        let is_found = |&q: &usize| ids[100 * q..][..r].contains(&(nearest[100 * q] as u32));
        let recall = (0..100).filter(is_found).count() as f64 / 100.0;
        assert_eq!(report["recall"][r.to_string()], json!(recall), "{report}");
    }
    // Equal distances aside these are the lists of faiss, so the first ids are.
    let (of_faiss, _) = data::array::<i32>("faiss_ref/pq_m8_adc_top100_ids_i32.npy");
    let same = (0..100).filter(|q| ids[100 * q] == of_faiss[100 * q] as u32).count();
    println!("{same} of 100 first ids are those of faiss, {}", report["recall"]);
    assert!(same >= 97, "{same}");
    let text = folder.ok(&[&search[..], &model, &["--force", "-q"]].concat());
    let shares: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let told: Vec<f64> = shares.iter().map(|share| share.parse().expect("a number")).collect();
    let in_json: Vec<f64> = ["1", "10", "100"].iter().filter_map(|r| report["recall"][r].as_f64()).collect();
    assert_eq!(told, in_json, "{text}");
}
