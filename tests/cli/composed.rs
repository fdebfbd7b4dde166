//! Residual and optimised product quantizers on the command line: learned, used and judged as the library does and as a hand
//! computes, for any memory and number of threads; and what does not fit is refused with the way out.

use crate::common::{data, sq_l2};
use crate::support::{BAD_INPUT, Folder, USAGE, all_tensors, assert_header, bytes, fails, noise, stderr, tensors};
use codeword::{
    Device, Init, KMeans, MatrixView, OptimizedProductQuantizer, ProductQuantizer, ResidualQuantizer, Stages,
};
use serde_json::{Value, json};

/// Two stages of three codewords of two dimensions.
const STAGES: [f32; 12] = [0.0, 0.0, 8.0, 0.0, 0.0, 8.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0];
/// Four vectors; the last lies between two codewords of the first stage.
const X: [f32; 8] = [1.0, 0.0, 8.0, 2.0, 0.0, 7.0, 4.0, 0.0];
const CODES: [u8; 8] = [0, 1, 1, 2, 2, 0, 0, 1];
const DECODED: [f32; 8] = [1.0, 0.0, 8.0, 2.0, 0.0, 8.0, 1.0, 0.0];

fn by_hand() -> Folder {
    let folder = Folder::new();
    folder.f32("e.npy", &[2, 3, 2], &STAGES);
    folder.f32("x.npy", &[4, 2], &X);
    folder
}

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, &["-c", "e.npy", "--quantizer", "rvq"], more].concat()
}

fn close(at: &Value, expected: f64) {
    let got = at.as_f64().unwrap_or_else(|| panic!("{at}"));
    assert!((got - expected).abs() <= 1e-12 * expected.abs(), "{got}, expected {expected}");
}

#[test]
fn residual_codes_are_those_of_a_hand() {
    let folder = by_hand();
    let encode = ["encode", "x.npy", "-o", "c.npy", "--reconstruction", "r.npy"];
    let report = folder.json(&with(&encode, &[]));
    assert_eq!(folder.read_u8("c.npy", "(4, 2)"), CODES);
    assert_eq!(folder.read_f32("r.npy", "(4, 2)"), DECODED);
    assert_eq!([&report["quantizer"], &report["m"], &report["d"]], [&json!("rvq"), &json!(2), &json!(2)]);
    folder.ok(&with(&["decode", "c.npy", "-o", "d.npy"], &[]));
    assert_eq!(folder.read("d.npy"), folder.read("r.npy"));
    // A model that says so itself.
    let metadata = json!({"quantizer": "rvq", "m": "2", "k": "3", "d": "2"});
    folder.write("e.safetensors", &tensors(&metadata, &[2, 3, 2], &STAGES));
    folder.ok(&["encode", "x.npy", "-c", "e.safetensors", "-o", "s.npy"]);
    assert_eq!(folder.read("s.npy"), folder.read("c.npy"));

    // 13.6 by the nearest codeword of the first stage, 13 by the other.
    folder.f32("y.npy", &[2], &[4.4, 1.2]);
    folder.ok(&with(&["encode", "y.npy", "-o", "greedy.npy"], &[]));
    folder.ok(&with(&["encode", "y.npy", "-o", "beam.npy", "--beam", "2"], &[]));
    assert_eq!((folder.read_u8("greedy.npy", "(2,)"), folder.read_u8("beam.npy", "(2,)")), (vec![1, 2], vec![0, 1]));

    folder.f32("q.npy", &[1, 2], &[8.0, 1.0]);
    let search = ["search", "q.npy", "--codes", "c.npy", "-k", "3", "-o", "i.npy", "--distances", "w.npy"];
    folder.ok(&with(&search, &[]));
    assert_eq!(folder.read_u32("i.npy", "(1, 3)"), [1, 0, 3]);
    assert_eq!(folder.read_f32("w.npy", "(1, 3)"), [1.0, 50.0, 50.0]);
}

#[test]
fn eval_tells_what_each_stage_leaves() {
    let folder = by_hand();
    let report = folder.json(&with(&["eval", "x.npy"], &[]));
    close(&report["inertia"], 10.0);
    close(&report["distortion"], 2.5);
    close(&report["mse"], 1.25);
    close(&report["snr_db"], 10.0 * 13.4f64.log10());
    close(&report["rate"], 2.0 * 3f64.log2());
    let parts = report["parts"].as_array().expect("an array");
    assert_eq!(parts.len(), 2);
    for (part, distortion) in parts.iter().zip([5.5, 2.5]) {
        close(&part["distortion"], distortion);
        // Used 2, 1 and 1 times by either.
        close(&part["perplexity"], 2f64.powf(1.5));
    }
    let text = folder.ok(&with(&["eval", "x.npy"], &["--max-memory", "200"]));
    assert!(text.contains("stage 0") && text.contains("stage 1") && text.contains("2.5"), "{text}");
}

/// Codewords of several codebooks, one after the other.
fn values(codebooks: &[codeword::Codebook]) -> Vec<f32> {
    let of = |codebook: &codeword::Codebook| {
        let codewords = codebook.codewords().unwrap();
        (0..codewords.rows()).flat_map(|j| codewords.row(j).to_vec()).collect::<Vec<_>>()
    };
    codebooks.iter().flat_map(of).collect()
}

/// What a verb writes of numbers below 256.
fn narrow(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().map(|&number| number as u8).collect()
}

#[test]
fn residual_quantizers_are_learned_and_used_as_by_the_library() {
    let folder = Folder::new();
    let (values_x, values_q) = (noise(900 * 12, 3), noise(70 * 12, 9));
    folder.f32("x.npy", &[900, 12], &values_x);
    folder.f32("q.npy", &[70, 12], &values_q);
    let train = ["train", "x.npy", "--quantizer", "rvq", "-m", "3", "-k", "16", "--device", "cpu"];
    let report = folder.json(&[&train[..], &["-o", "e.safetensors", "--init", "hierarchical", "--seed", "5"]].concat());
    let (x, queries) = (MatrixView::new(&values_x, 900, 12).unwrap(), MatrixView::new(&values_q, 70, 12).unwrap());
    let params = KMeans::new(16).init(Init::Hierarchical).seed(5);
    let quantizer = ResidualQuantizer::train(x, 3, &params, &Device::cpu()).unwrap();
    folder.ok(&[&train[..], &["-o", "e.npy", "--init", "hierarchical", "--seed", "5", "--threads", "1"]].concat());
    assert_eq!(folder.read_f32("e.npy", "(3, 16, 12)"), values(quantizer.codebooks()));
    let seen = folder.json(&["inspect", "e.safetensors"]);
    assert_eq!(seen["metadata"]["quantizer"], "rvq");
    assert_eq!(seen["metadata"]["d"], "12");

    let codes = quantizer.encode(x).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    let error = sq_l2(&values_x, decoded.as_slice());
    let told = report["inertia"].as_f64().unwrap();
    assert!((told - error).abs() <= 1e-5 * error, "{told} {error}");
    let of_stages: Vec<f64> = (0..3).filter_map(|s| report["parts"][s]["inertia"].as_f64()).collect();
    assert!(of_stages.windows(2).all(|pair| pair[1] < pair[0]) && of_stages.len() == 3, "{of_stages:?}");

    let beam = quantizer.encode_beam(x, 4).unwrap();
    let found = quantizer.search(&codes, queries, 20).unwrap();
    let limits: [&[&str]; 4] = [&[], &["--threads", "1"], &["--threads", "5"], &["--max-memory", "600K"]];
    for (i, more) in limits.iter().enumerate() {
        let model = [&["-c", "e.safetensors", "--force"], *more].concat();
        folder.ok(&[&["encode", "x.npy", "-o", "c.npy", "--reconstruction", "r.npy"], &model[..]].concat());
        folder.ok(&[&["encode", "x.npy", "-o", "b.npy", "--beam", "4"], &model[..]].concat());
        assert_eq!(folder.read_u8("c.npy", "(900, 3)"), narrow(&quantizer.unpack(&codes).unwrap()), "{i}");
        assert_eq!(folder.read_u8("b.npy", "(900, 3)"), narrow(&quantizer.unpack(&beam).unwrap()), "{i}");
        assert_eq!(folder.read("r.npy").1, bytes(decoded.as_slice()), "{i}");
        folder.ok(&[&["search", "q.npy", "--codes", "c.npy", "-k", "20", "-o", "i.npy"], &model[..]].concat());
        assert_eq!(folder.read_u32("i.npy", "(70, 20)"), found.ids, "{i}");
        let judged = folder.json(&[&["eval", "x.npy", "-c", "e.safetensors"], *more].concat());
        close(&judged["inertia"], error);
    }
    let plan = folder.json(&[&train[..], &["-o", "new.npy", "--dry-run"]].concat());
    assert_eq!(plan["outputs"][0]["shape"], json!([3, 16, 12]));
    let output = folder.run(&[&train[..], &["-o", "new.npy", "--progress", "always", "--iterations", "2"]].concat());
    assert!(stderr(&output).contains("100 % 8100/8100 vectors, part 3/3, pass 3/3"), "{}", stderr(&output));
}

#[test]
fn optimised_product_quantizers_are_learned_and_used_as_by_the_library() {
    let folder = Folder::new();
    // Dimensions that go together are far apart.
    let values_x: Vec<f32> =
        noise(600 * 4, 3).chunks(4).flat_map(|x| [x[0], x[1], x[0] + x[2] / 8.0, x[1] + x[3] / 8.0]).collect();
    folder.f32("x.npy", &[600, 4], &values_x);
    let train = ["train", "x.npy", "--quantizer", "opq", "-m", "2", "-k", "16", "--device", "cpu", "--iterations", "8"];
    let report = folder.json(&[&train[..], &["-o", "e.safetensors", "--rotations", "5"]].concat());
    let x = MatrixView::new(&values_x, 600, 4).unwrap();
    let params = KMeans::new(16).iterations(8);
    let quantizer = OptimizedProductQuantizer::train(x, 2, &params, 5, &Device::cpu()).unwrap();
    let (header, data) = folder.read_tensors("e.safetensors");
    assert_eq!((&header["rotation"]["shape"], &header["codebooks"]["shape"]), (&json!([4, 4]), &json!([2, 16, 2])));
    let expected = [bytes(&values(quantizer.product().codebooks())), bytes(quantizer.rotation().as_slice())].concat();
    assert_eq!(data, expected);

    let codes = quantizer.encode(x).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    let error = sq_l2(&values_x, decoded.as_slice());
    close(&report["inertia"], error);
    // Of the parts as they were learned last, with all rows in every pass.
    let parts = report["parts"].as_array().expect("an array");
    let of_parts: f64 = parts.iter().filter_map(|part| part["inertia"].as_f64()).sum();
    assert!(parts.len() == 2 && (of_parts - error).abs() <= 1e-5 * error, "{of_parts} {error}");
    assert!(parts.iter().all(|part| part["dead"] == 0 && part["iterations"] == 1), "{parts:?}");
    let tiers: u64 = report["tiers"].as_object().expect("tiers").values().filter_map(Value::as_u64).sum();
    assert!(tiers.is_multiple_of(600) && tiers > 600 * 2 * 9, "{tiers}");
    // Better than without a rotation, which these vectors need.
    let plain =
        ProductQuantizer::train_with(x, 2, &params, &Device::cpu(), |_, _| Ok::<(), codeword::Error>(())).unwrap();
    assert!(error < 0.7 * plain.parts.iter().map(|part| part.inertia).sum::<f64>());

    let found = quantizer.search(&codes, x, 3).unwrap();
    let symmetric = quantizer.product().search_symmetric(&codes, &codes, 3).unwrap();
    for more in [&["--threads", "1"][..], &["--max-memory", "400K"]] {
        let model = [&["-c", "e.safetensors", "--force"], more].concat();
        folder.ok(&[&["encode", "x.npy", "-o", "c.npy"], &model[..]].concat());
        assert_eq!(folder.read_u8("c.npy", "(600, 2)"), narrow(&quantizer.product().unpack(&codes).unwrap()));
        folder.ok(&[&["decode", "c.npy", "-o", "d.npy"], &model[..]].concat());
        assert_eq!(folder.read("d.npy").1, bytes(decoded.as_slice()));
        let search = ["search", "x.npy", "--codes", "c.npy", "-k", "3", "-o", "i.npy"];
        folder.ok(&[&search[..], &model].concat());
        assert_eq!(folder.read_u32("i.npy", "(600, 3)"), found.ids);
        folder.ok(&[&search[..], &["--symmetric"], &model].concat());
        assert_eq!(folder.read_u32("i.npy", "(600, 3)"), symmetric.ids);
        let judged = folder.json(&[&["eval", "x.npy", "-c", "e.safetensors"], more].concat());
        close(&judged["inertia"], error);
        assert_eq!(judged["parts"].as_array().map(Vec::len), Some(2));
    }
}

/// A codec of three stages of 16 codewords of 4 dimensions for vectors of 12: each with its own projections and biases and by
/// cosine, or one and two that share projections, both on the vectors. The file, and the same by the library.
fn codec(is_shared: bool) -> (Vec<u8>, ResidualQuantizer) {
    let (m, k, w, d) = (3, 16, 4, 12);
    let runs: &[usize] = if is_shared { &[1, 2] } else { &[1, 1, 1] };
    let p = runs.len();
    let codewords = noise(m * k * w, 5);
    let [down, up] =
        [noise(p * w * d, 6), noise(p * d * w, 7)].map(|it| it.iter().map(|v| v / 16.0).collect::<Vec<_>>());
    let [bias_down, bias_up] = [noise(p * w, 8), noise(p * d, 9)];
    let mut tensors: Vec<(&str, &[usize], &[f32])> = vec![("codebooks", &[3, 16, 4], &codewords)];
    let shapes = [[p, w, d], [p, d, w]];
    tensors.extend([("in_weight", &shapes[0][..], &down[..]), ("out_weight", &shapes[1][..], &up[..])]);
    let of_biases = [[p, w], [p, d]];
    let metadata = if is_shared {
        json!({"quantizer": "rvq", "stages": "1 2", "on_vectors": "true"})
    } else {
        tensors.extend([("in_bias", &of_biases[0][..], &bias_down[..]), ("out_bias", &of_biases[1][..], &bias_up[..])]);
        json!({"quantizer": "rvq", "cosine": "true"})
    };
    let mut first = 0;
    let of_run = |(i, &count): (usize, &usize)| {
        let own = MatrixView::new(&codewords[first * k * w..][..count * k * w], count * k, w).unwrap();
        first += count;
        let stages = Stages::new(own, count, &Device::cpu()).unwrap();
        let stages = if is_shared { stages.on_vectors() } else { stages.cosine().unwrap() };
        let bias = |all: &[f32], len: usize| (!is_shared).then(|| all[i * len..][..len].to_vec());
        let down = MatrixView::new(&down[i * w * d..][..w * d], w, d).unwrap();
        let up = MatrixView::new(&up[i * d * w..][..d * w], d, w).unwrap();
        let stages = stages.project_in(down, bias(&bias_down, w).as_deref()).unwrap();
        stages.project_out(up, bias(&bias_up, d).as_deref()).unwrap()
    };
    let stages = runs.iter().enumerate().map(of_run).collect();
    (all_tensors(&metadata, &tensors), ResidualQuantizer::from_stages(stages).unwrap())
}

#[test]
fn codecs_with_projections_and_cosines_are_used_as_by_the_library() {
    let folder = Folder::new();
    let (values_x, values_q) = (noise(900 * 12, 3), noise(7 * 12, 4));
    folder.f32("x.npy", &[900, 12], &values_x);
    folder.f32("q.npy", &[7, 12], &values_q);
    let (x, queries) = (MatrixView::new(&values_x, 900, 12).unwrap(), MatrixView::new(&values_q, 7, 12).unwrap());
    for is_shared in [false, true] {
        let (file, quantizer) = codec(is_shared);
        folder.write("codec.safetensors", &file);
        let codes = quantizer.encode(x).unwrap();
        let decoded = quantizer.decode(&codes).unwrap();
        let found = quantizer.search(&codes, queries, 20).unwrap();
        let mut latents = 0.0;
        quantizer
            .each_stage(x, &codes, |s, left, labels| {
                let codewords = quantizer.codebooks()[s].codewords()?;
                let error = |(i, &label): (usize, &u32)| sq_l2(left.row(i), codewords.row(label as usize));
                latents += if s == 2 { labels.iter().enumerate().map(error).sum() } else { 0.0 };
                Ok::<(), codeword::Error>(())
            })
            .unwrap();
        for more in [&[][..], &["--threads", "1"], &["--max-memory", "600K"]] {
            let model = [&["-c", "codec.safetensors", "--force"], more].concat();
            folder.ok(&[&["encode", "x.npy", "-o", "c.npy", "--reconstruction", "r.npy"], &model[..]].concat());
            assert_eq!(folder.read_u8("c.npy", "(900, 3)"), narrow(&quantizer.unpack(&codes).unwrap()));
            assert_eq!(folder.read("r.npy").1, bytes(decoded.as_slice()));
            folder.ok(&[&["decode", "c.npy", "-o", "d.npy"], &model[..]].concat());
            assert_eq!(folder.read("d.npy"), folder.read("r.npy"));
            folder.ok(&[&["search", "q.npy", "--codes", "c.npy", "-k", "20", "-o", "i.npy"], &model[..]].concat());
            assert_eq!(folder.read_u32("i.npy", "(7, 20)"), found.ids);
            let judged = folder.json(&[&["eval", "x.npy", "-c", "codec.safetensors"], more].concat());
            close(&judged["inertia"], sq_l2(&values_x, decoded.as_slice()));
            close(&judged["parts"][2]["inertia"], latents);
            assert_eq!(judged["d"], 12);
        }
    }
    let beam = ["encode", "x.npy", "-c", "codec.safetensors", "-o", "n.npy", "--beam", "2"];
    fails(&folder, &beam, USAGE, &["--beam", "without projections, cosines", "leave it out"]);
}

#[test]
fn codecs_that_do_not_fit_together_are_refused_with_the_way_out() {
    let folder = Folder::new();
    folder.f32("x.npy", &[1, 3], &[1.0, 2.0, 3.0]);
    // Two stages of two codewords of one dimension, for vectors of three.
    let codebooks: (&str, &[usize], &[f32]) = ("codebooks", &[2, 2, 1], &[1.0, 2.0, 1.0, 2.0]);
    let down: (&str, &[usize], &[f32]) = ("in_weight", &[2, 1, 3], &[1.0; 6]);
    let up: (&str, &[usize], &[f32]) = ("out_weight", &[2, 3, 1], &[1.0; 6]);
    let encode = ["encode", "x.npy", "-c", "e.safetensors", "-o", "n.npy"];
    let refused = |more: Value, tensors: &[(&str, &[usize], &[f32])], words: &[&str]| {
        let mut metadata = json!({"quantizer": "rvq"});
        for (key, value) in more.as_object().expect("an object") {
            metadata[key] = value.clone();
        }
        folder.write("e.safetensors", &all_tensors(&metadata, tensors));
        fails(&folder, &encode, BAD_INPUT, &[&["e.safetensors"], words].concat());
    };
    let none = || json!({});
    refused(none(), &[codebooks, down], &["out_weight back to the 3 dimensions", "got none; add them"]);
    refused(none(), &[codebooks, up], &["out_weight of shape (2, 1, 1)", "got (2, 3, 1)"]);
    let one = ("in_weight", &[1, 1, 3][..], &[1.0; 3][..]);
    refused(none(), &[codebooks, one, up], &["in_weight of shape (2, 1, d)", "got (1, 1, 3)", "the entry stages"]);
    refused(json!({"stages": "2"}), &[codebooks, one, up], &["out_weight of shape (1, 3, 1)", "got (2, 3, 1)"]);
    refused(json!({"stages": "1 2"}), &[codebooks, down, up], &["make up the 2 stages", "got '1 2'"]);
    refused(json!({"stages": "two"}), &[codebooks, down, up], &["make up the 2 stages", "got 'two'"]);
    refused(json!({"cosine": "yes"}), &[codebooks, down, up], &["cosine of true or false", "got 'yes'"]);
    let bias = ("in_bias", &[2, 2][..], &[0.0; 4][..]);
    refused(none(), &[codebooks, down, up, bias], &["in_bias of shape (2, 1)", "got (2, 2); reshape it"]);
    refused(none(), &[codebooks, ("out_bias", &[2, 3], &[0.0; 6])], &["out_weight beside out_bias", "got none"]);
    refused(
        none(),
        &[codebooks, ("in_weights", &[2, 1, 3], &[1.0; 6])],
        &["in_weight, in_bias", "a tensor in_weights"],
    );
    let nan = ("in_weight", &[2, 1, 3][..], &[1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0][..]);
    refused(none(), &[codebooks, nan, up], &["stage 1: ", "row of the weight 0 holds NaN in column 1", "export"]);
    let zero = ("codebooks", &[2, 2, 1][..], &[1.0, 2.0, 1.0, 0.0][..]);
    refused(json!({"cosine": "true"}), &[zero, down, up], &["stage 1: ", "zeros in row 1", "write a copy"]);
    let infinite = ("codebooks", &[2, 2, 1][..], &[1.0, 2.0, 1.0, f32::INFINITY][..]);
    refused(none(), &[infinite, down, up], &["codeword 1 of stage 1 holds inf in column 0"]);
    // Of no other quantizer they mean anything.
    refused(json!({"quantizer": "pq", "cosine": "true"}), &[codebooks], &["no entry cosine", "--quantizer rvq"]);
    refused(json!({"quantizer": "pq"}), &[codebooks, down], &["no tensor in_weight", "take the tensor in_weight out"]);
    // Said to be plain, they are, and a beam goes through them.
    folder.write("e.safetensors", &all_tensors(&json!({"quantizer": "rvq", "cosine": "false"}), &[codebooks]));
    folder.f32("z.npy", &[1, 1], &[2.5]);
    folder.ok(&["encode", "z.npy", "-c", "e.safetensors", "-o", "b.npy", "--beam", "2"]);
    // What fits, for vectors of other dimensions.
    folder.write("e.safetensors", &all_tensors(&json!({"quantizer": "rvq"}), &[codebooks, down, up]));
    folder.f32("y.npy", &[1, 2], &[0.0; 2]);
    let other = ["encode", "y.npy", "-c", "e.safetensors", "-o", "n.npy"];
    fails(&folder, &other, BAD_INPUT, &["vectors of 3 columns, as those of e.safetensors have, got 2"]);
    folder.ok(&encode);
}

#[test]
fn what_does_not_fit_is_refused_with_the_way_out() {
    let folder = by_hand();
    folder.ok(&with(&["encode", "x.npy", "-o", "c.npy"], &[]));
    let train = ["train", "x.npy", "-k", "2", "-o", "n.npy"];
    let learn = |more: &[&'static str]| [&train[..], more].concat();
    fails(&folder, &learn(&["--quantizer", "rvq"]), USAGE, &["--quantizer rvq", "-m M", "stages"]);
    fails(&folder, &learn(&["--quantizer", "opq", "-m", "2"]), USAGE, &["n.npy", "rotation", ".safetensors"]);
    fails(&folder, &learn(&["--rotations", "3"]), USAGE, &["--rotations", "opq only", "leave it out"]);
    let parts = ["--quantizer", "opq", "-m", "3"];
    fails(&folder, &[&train[..4], &["-o", "n.safetensors"], &parts].concat(), USAGE, &["-m 3", "divisor", "1 2"]);
    let memory = ["--quantizer", "rvq", "-m", "2", "--max-memory", "100"];
    fails(&folder, &learn(&memory), USAGE, &["a residual quantizer", "held in memory", "--sample"]);

    let encode = ["encode", "x.npy", "-o", "n.npy"];
    fails(&folder, &with(&encode, &["--top-k", "2"]), USAGE, &["--top-k", "a residual quantizer", "leave it out"]);
    assert_eq!(folder.run(&with(&encode, &["--beam", "0"])).status.code(), Some(USAGE));
    let as_pq = ["-c", "e.npy", "--quantizer", "pq", "--beam", "2"];
    folder.f32("wide.npy", &[1, 4], &[0.0; 4]);
    fails(
        &folder,
        &[&["encode", "wide.npy", "-o", "n.npy"], &as_pq[..]].concat(),
        USAGE,
        &["--beam", "a product quantizer"],
    );
    fails(&folder, &with(&["encode", "wide.npy", "-o", "n.npy"], &[]), BAD_INPUT, &["vectors of 2 columns", "got 4"]);
    let no_kind = ["encode", "x.npy", "-o", "n.npy", "-c", "e.npy"];
    fails(&folder, &no_kind, BAD_INPUT, &["(2, 3, 2)", "--quantizer pq", "rvq"]);
    let search = ["search", "x.npy", "--codes", "c.npy", "-k", "1", "-o", "n.npy"];
    fails(&folder, &with(&search, &["--symmetric"]), USAGE, &["--symmetric", "residual", "leave it out"]);
    folder.array("three.npy", "|u1", &[2, 3], vec![0; 6]);
    let decode = ["decode", "three.npy", "-o", "n.npy"];
    fails(&folder, &with(&decode, &[]), BAD_INPUT, &["2 numbers", "stages", "(2, 3)"]);
    folder.array("high.npy", "|u1", &[2, 2], vec![0, 1, 2, 3]);
    fails(&folder, &with(&["decode", "high.npy", "-o", "n.npy"], &[]), BAD_INPUT, &["code 3", "[1, 1]", "0 to 2"]);
    let beyond: Vec<f32> = STAGES.iter().enumerate().map(|(i, &x)| if i == 9 { f32::NAN } else { x }).collect();
    folder.f32("nan.npy", &[2, 3, 2], &beyond);
    let of_nan = ["encode", "x.npy", "-o", "n.npy", "-c", "nan.npy", "--quantizer", "rvq"];
    fails(&folder, &of_nan, BAD_INPUT, &["codeword 1 of stage 1", "NaN", "column 1"]);

    // A rotation is missing, or is none.
    let opq = json!({"quantizer": "opq", "m": "2", "k": "3", "d": "4"});
    folder.write("bare.safetensors", &tensors(&opq, &[2, 3, 2], &STAGES));
    let bare = ["encode", "wide.npy", "-o", "n.npy", "-c", "bare.safetensors"];
    fails(&folder, &bare, BAD_INPUT, &["bare.safetensors", "rotation"]);
}

#[test]
fn siftsmall_gets_the_codes_of_faiss() {
    let Some(of_data) = data::folder() else { return };
    let folder = Folder::new();
    let path = |name: &str| of_data.join(name).to_str().expect("UTF-8").to_string();
    let (base, stages) = (path("siftsmall/base_f32.npy"), path("faiss_ref/rvq4x256_codebooks_f32.npy"));
    folder.ok(&["encode", &base, "-c", &stages, "--quantizer", "rvq", "-o", "c.npy"]);
    let (expected, shape) = data::array::<u8>("faiss_ref/rvq4x256_codes_u8.npy");
    assert_eq!((shape, folder.read_u8("c.npy", "(10000, 4)")), (vec![10_000, 4], expected));
    assert_header(&folder.read("c.npy").0, "|u1", false, "(10000, 4)");
}

#[test]
fn vectors_beyond_f32_are_named_by_their_place_in_the_file() {
    let folder = Folder::new();
    // The last code of two stages is a sum beyond f32.
    folder.f32("big.npy", &[2, 2, 1], &[0.0, 3e38, 0.0, 3e38]);
    let mut codes = vec![0; 2 * 500];
    codes[998..].fill(1);
    folder.array("c.npy", "|u1", &[500, 2], codes);
    let decode = ["decode", "c.npy", "-c", "big.npy", "--quantizer", "rvq", "-o", "n.npy"];
    for limit in [&[][..], &["--max-memory", "1K"]] {
        let words = ["c.npy: vector 499 of", "inf in column 0", "scale the codewords of big.npy"];
        fails(&folder, &[&decode[..], limit].concat(), BAD_INPUT, &words);
    }
    // What a stage leaves of a vector.
    let mut x = vec![0.0; 400];
    x[301] = -3e38;
    folder.f32("x.npy", &[400, 1], &x);
    folder.f32("only.npy", &[2, 1, 1], &[3e38, 0.0]);
    let encode = ["encode", "x.npy", "-c", "only.npy", "--quantizer", "rvq", "-o", "n.npy"];
    for limit in [&[][..], &["--max-memory", "1K"]] {
        fails(&folder, &[&encode[..], limit].concat(), BAD_INPUT, &["x.npy", "residual 301", "-inf", "scale"]);
    }
    // What comes out of two stages is beyond f32 where the vector is not.
    x[301] = 3.4e38;
    folder.f32("x.npy", &[400, 1], &x);
    folder.f32("over.npy", &[2, 2, 1], &[0.0, 3e38, 0.0, 5e37]);
    let encode =
        ["encode", "x.npy", "-c", "over.npy", "--quantizer", "rvq", "-o", "n.npy", "--reconstruction", "r.npy"];
    for limit in [&[][..], &["--max-memory", "1K"]] {
        fails(&folder, &[&encode[..], limit].concat(), BAD_INPUT, &["x.npy", "decoded vector 301 holds inf", "scale"]);
    }
    // A rotation that is none.
    let twice: Vec<f32> = (0..4).map(|i| if i % 3 == 0 { 2.0 } else { 0.0 }).collect();
    folder.write("opq.safetensors", &with_rotation(&twice));
    folder.f32("y.npy", &[1, 2], &[0.0; 2]);
    let encode = ["encode", "y.npy", "-c", "opq.safetensors", "-o", "n.npy"];
    fails(
        &folder,
        &encode,
        BAD_INPUT,
        &["opq.safetensors: expected a rotation", "orthogonal", "train the model again"],
    );
    folder.write("opq.safetensors", &with_rotation(&[1.0, 0.0, f32::NAN, 1.0]));
    fails(&folder, &encode, BAD_INPUT, &["the rotation holds NaN in row 1, column 0", "train the model again"]);
}

/// A model of two parts of one codeword of one dimension each, with that rotation.
fn with_rotation(rotation: &[f32]) -> Vec<u8> {
    let header = json!({
        "__metadata__": {"quantizer": "opq"},
        "codebooks": {"dtype": "F32", "shape": [2, 1, 1], "data_offsets": [0, 8]},
        "rotation": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]},
    });
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8], &bytes(rotation)].concat()
}
