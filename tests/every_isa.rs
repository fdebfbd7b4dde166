//! The same labels, distances and sums with every set of vector instructions this machine has, one process each: the choice
//! is made once per process, by the environment variable `CODEWORD_ISA`.
//!
//! Under an emulator without registered binary formats, `CODEWORD_TEST_RUNNER` names the command, with arguments
//! separated by spaces, that runs a test binary.

mod common;

use codeword::backend::reference;
use codeword::{Codebook, Device, Ema, Error, Init, Isa, KMeans, MatrixView, accumulate};
use common::{Numbers, assert_exact, cases, child, golden, is_child, is_required, matrix, scaled};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Output;

/// Asserts success and that the child did what it was made for: a filter that matches no test succeeds too.
fn assert_done(isa: &str, output: &Output, done: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{isa}: {}\n{text}\n{errors}", output.status);
    assert!(text.contains(done), "{isa}: the child did not say {done:?}\n{text}\n{errors}");
}

#[test]
fn labels_and_distances_are_exact_on_every_isa() {
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    println!("instruction sets of this machine: {}", available.join(", "));
    assert!(available.contains(&"portable"));
    for isa in Isa::ALL.iter().map(|isa| isa.name()) {
        if available.contains(&isa) {
            let output = child("as_child_compare_with_exact_arithmetic", isa);
            assert_done(isa, &output, &format!("exact on {isa}"));
        } else {
            assert!(!is_required(isa), "CODEWORD_TEST_REQUIRE contains {isa}, which this machine lacks");
            if isa == "avx2" && cfg!(target_arch = "x86_64") {
                println!("skipped: this machine lacks avx2");
            }
        }
    }
}

#[test]
fn as_child_compare_with_exact_arithmetic() {
    if !is_child("as_child_compare_with_exact_arithmetic") {
        return;
    }
    let isa = Isa::selected().expect("the set that the parent found").name();
    assert_eq!(std::env::var("CODEWORD_ISA").as_deref(), Ok(isa));
    for case in golden::load() {
        if case.x.rows() > 0 {
            assert_exact(&case.name, case.x.view(), case.codewords.view());
        }
    }
    // Sizes on either side of tiles and panels, and past one chunk of 512 dimensions.
    let shapes = [(13, 33, 7), (29, 17, 16), (7, 70, 33), (15, 31, 1), (9, 23, 515)];
    for (n, k, d) in shapes.into_iter().take(scaled(shapes.len()).max(2)) {
        for case in cases::adversarial(n, k, d) {
            assert_exact(&case.name, case.x.view(), case.codewords.view());
            let labels: Vec<u32> = (0..case.x.rows()).map(|i| (i * i % k) as u32).collect();
            let (sums, _) = reference::accumulate(case.x.view(), &labels, None, k);
            let got = accumulate(case.x.view(), &labels, None, k).unwrap().sums;
            assert!(got.iter().zip(&sums).all(|(a, b)| a.to_bits() == b.to_bits()), "{}: sums", case.name);
        }
    }
    // Sums that stay in registers.
    for d in [4, 8, 16, 32] {
        let (n, k) = (700, 9);
        let x = matrix(Numbers::new(93).gaussians(n * d), n, d);
        let labels: Vec<u32> = (0..n).map(|i| (i * i % k) as u32).collect();
        let (sums, _) = reference::accumulate(x.view(), &labels, None, k);
        let got = accumulate(x.view(), &labels, None, k).unwrap().sums;
        assert!(got.iter().zip(&sums).all(|(a, b)| a.to_bits() == b.to_bits()), "sums of {d} dimensions");
    }
    println!("exact on {isa}");
}

#[test]
fn k_means_learns_the_same_bytes_on_every_isa() {
    let learned = |isa: Isa| {
        let output = child("as_child_learn_a_codebook", isa.name());
        assert_done(isa.name(), &output, "learned ");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| Some(line[line.find("learned ")?..].to_string()));
        lines.collect::<Vec<_>>()
    };
    let portable = learned(Isa::Portable);
    assert_eq!(portable.len(), 36);
    for isa in Isa::available() {
        assert_eq!(learned(isa), portable, "{}", isa.name());
    }
}

#[test]
fn as_child_learn_a_codebook() {
    if !is_child("as_child_learn_a_codebook") {
        return;
    }
    for (n, d, k) in [(scaled(3000), 67, 40), (scaled(4000), 5, 100), (scaled(2000), 16, 33)] {
        let x = matrix(Numbers::new(91).gaussians(n * d), n, d);
        let weights: Vec<f32> = x.as_slice().iter().step_by(d).map(|v| v.abs()).collect();
        let params = KMeans::new(k).seed(1).iterations(5);
        let starts = [Init::PlusPlus, Init::RandomRows, Init::Parallel, Init::Hierarchical, Init::Progressive];
        let trainings = starts.map(|init| params.clone().init(init)).into_iter().chain([params.minibatch(300)]);
        let trainings = trainings.flat_map(|params| [(params.clone(), None), (params, Some(&weights[..]))]);
        for (i, (params, weights)) in trainings.enumerate() {
            let fit = params.fit_with(x.view(), weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
            let codewords = fit.codebook.codewords().unwrap();
            let mut hasher = DefaultHasher::new();
            for j in 0..k {
                codewords.row(j).iter().for_each(|value| value.to_bits().hash(&mut hasher));
            }
            (&fit.assignment.labels, fit.curve.iter().map(|v| v.to_bits()).collect::<Vec<_>>()).hash(&mut hasher);
            println!("learned {n} x {d}, k={k}, {i}: {:016x}, inertia {}", hasher.finish(), fit.inertia);
        }
    }
}

#[test]
fn a_codebook_follows_its_batches_to_the_same_bytes_on_every_isa() {
    let followed = |isa: Isa| {
        let output = child("as_child_follow_batches", isa.name());
        assert_done(isa.name(), &output, "followed ");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| Some(line[line.find("followed ")?..].to_string()));
        lines.collect::<Vec<_>>()
    };
    let portable = followed(Isa::Portable);
    assert_eq!(portable.len(), 4);
    for isa in Isa::available() {
        assert_eq!(followed(isa), portable, "{}", isa.name());
    }
}

#[test]
fn as_child_follow_batches() {
    if !is_child("as_child_follow_batches") {
        return;
    }
    for (n, d, k) in [(scaled(2000), 67, 40), (scaled(3000), 5, 100)] {
        for cosine in [false, true] {
            let mut numbers = Numbers::new(92);
            let start = common::codebook(matrix(numbers.gaussians(k * d), k, d).view());
            let params = Ema::new().decay(0.9).threshold(n as f64 / k as f64 / 2.0).cosine(cosine);
            let mut ema = params.start(&start).unwrap();
            let mut hasher = DefaultHasher::new();
            for _ in 0..4 {
                let batch = matrix(numbers.gaussians(n * d), n, d);
                let step = ema.update(batch.view()).unwrap();
                (&step.assignment.labels, step.usage.revived).hash(&mut hasher);
            }
            let codewords = ema.codebook().codewords().unwrap();
            (0..k).flat_map(|j| codewords.row(j)).for_each(|value| value.to_bits().hash(&mut hasher));
            let state = ema.state().sizes.iter().chain(&ema.state().sums);
            state.for_each(|value| value.to_bits().hash(&mut hasher));
            println!("followed {n} x {d}, k={k}, {cosine}: {:016x}", hasher.finish());
        }
    }
}

#[test]
fn an_unknown_isa_is_an_error_that_lists_the_known_ones() {
    assert_done("nonsense", &child("as_child_refuse_an_unknown_isa", "nonsense"), "refused");
}

#[test]
fn as_child_refuse_an_unknown_isa() {
    if is_child("as_child_refuse_an_unknown_isa") {
        assert_refused(Isa::selected().unwrap_err());
        println!("refused");
    }
}

#[test]
fn a_codebook_under_an_unknown_isa_is_the_same_error() {
    assert_done("nonsense", &child("as_child_refuse_a_codebook", "nonsense"), "refused");
}

#[test]
fn as_child_refuse_a_codebook() {
    if is_child("as_child_refuse_a_codebook") {
        let codewords = MatrixView::new(&[1.0f32, 2.0], 2, 1).unwrap();
        assert_refused(Codebook::new(codewords, &Device::cpu()).unwrap_err());
        println!("refused");
    }
}

fn assert_refused(error: Error) {
    let text = error.to_string();
    assert!(matches!(error, Error::InvalidParameter { name: "CODEWORD_ISA", .. }), "{text}");
    assert!(text.contains("nonsense") && text.contains("portable"), "{text}");
}
