//! Metrics and losses are those of the oracle on every kind of data, and do not depend on how rows are split.

mod common;

use codeword::backend::reference;
use codeword::{AssignOptions, Error, Metrics, MetricsSum, NonFinite, SENTINEL, assign, metrics, quantize};
use common::{cases, codebook, matrix};

/// Both sum n d squared f64 differences, in different orders: each is off by (n d + 2) 2^-53 of itself at most.
fn assert_close(name: &str, got: &Metrics, expected: &Metrics, terms: usize) {
    let bound = 2.0 * (terms as f64 + 8.0) * 2f64.powi(-53);
    let close = |what: &str, got: f64, expected: f64, bound: f64| {
        let within = got == expected || (got - expected).abs() <= bound;
        assert!(within, "{name}: {what} is {got:e}, expected {expected:e} within {bound:e}");
    };
    assert_eq!((got.n, got.skipped, got.dead), (expected.n, expected.skipped, expected.dead), "{name}");
    assert_eq!(got.histogram, expected.histogram, "{name}");
    close("inertia", got.inertia, expected.inertia, bound * expected.inertia);
    close("energy", got.energy, expected.energy, bound * expected.energy);
    close("distortion", got.distortion, expected.distortion, bound * expected.distortion);
    close("mse", got.mse, expected.mse, bound * expected.mse);
    close("utilization", got.utilization, expected.utilization, 0.0);
    // Entropy over k terms, and a logarithm of a ratio of two such sums (10 / ln 10 < 5).
    close("perplexity", got.perplexity, expected.perplexity, 1e-12 * expected.perplexity);
    close("SNR", got.snr_db, expected.snr_db, 1e-12 * expected.snr_db.abs() + 10.0 * bound);
}

#[test]
fn metrics_are_those_of_the_oracle_at_every_scale() {
    for (n, k, d) in [(60, 17, 5), (40, 9, 130)] {
        for case in cases::adversarial(n, k, d) {
            let (x, e) = (case.x.view(), case.codewords.view());
            let labels = assign(x, &codebook(e), AssignOptions::default()).unwrap().labels;
            let expected = reference::metrics(x, e, &labels);
            let got = metrics(x, &codebook(e), &labels).unwrap();
            assert_close(&case.name, &got, &expected, n * d);
            assert!(got.inertia.is_finite(), "{}: no f32 is so large that its square leaves f64", case.name);
        }
    }
}

#[test]
fn rows_with_a_sentinel_are_counted_and_left_out() {
    let x = matrix(vec![1.0f32, 2.0, f32::NAN, 0.0, 5.0, 5.0], 3, 2);
    let e = matrix(vec![0.0f32, 0.0, 5.0, 6.0], 2, 2);
    let options = AssignOptions { non_finite: NonFinite::Sentinel, ..Default::default() };
    let quantized = quantize(x.view(), &codebook(e.view()), 0.5, options).unwrap();
    assert_eq!(quantized.assignment.labels, [0, SENTINEL, 1]);
    let m = metrics(x.view(), &codebook(e.view()), &quantized.assignment.labels).unwrap();
    // 1 + 4 and 1, over two rows of two.
    assert_eq!((m.n, m.skipped, m.inertia, m.distortion, m.mse), (2, 1, 6.0, 3.0, 1.5));
    assert_eq!((quantized.mse, quantized.codebook_loss, quantized.commitment_loss), (1.5, 1.5, 0.75));
    let z_q = quantized.z_q.as_slice();
    assert_eq!((&z_q[..2], &z_q[4..]), (&[0.0, 0.0][..], &[5.0, 6.0][..]));
    assert!(z_q[2].is_nan() && z_q[3].is_nan());
}

#[test]
fn losses_are_those_of_the_oracle() {
    for case in cases::adversarial(50, 13, 7) {
        let (x, e) = (case.x.view(), case.codewords.view());
        let got = quantize(x, &codebook(e), 0.25, AssignOptions::default()).unwrap();
        let (codebook_loss, commitment_loss) = reference::losses(x, e, &got.assignment.labels, 0.25);
        let bound = 2.0 * (50.0 * 7.0 + 8.0) * 2f64.powi(-53) * codebook_loss;
        assert!((got.codebook_loss - codebook_loss).abs() <= bound, "{}", case.name);
        assert!((got.commitment_loss - commitment_loss).abs() <= bound, "{}", case.name);
        assert_eq!(got.mse, got.codebook_loss);
    }
    let x = matrix(vec![0.0f32], 1, 1);
    for beta in [-0.1, f64::NAN, f64::INFINITY] {
        let refused = quantize(x.view(), &codebook(x.view()), beta, AssignOptions::default());
        assert!(matches!(refused, Err(Error::InvalidParameter { name: "beta", .. })), "{beta}");
    }
}

#[test]
fn the_split_into_batches_changes_no_bit() {
    // 6 rows a block of the sum: d is so large that splits fall within blocks and on their edges.
    let (n, d) = (41, 40_000);
    let mut numbers = common::Numbers::new(5);
    let x = matrix(numbers.gaussians(n * d), n, d);
    let e = matrix(numbers.gaussians(3 * d), 3, d);
    let codebook = codebook(e.view());
    let labels: Vec<u32> = (0..n as u32).map(|i| if i == 7 { SENTINEL } else { i % 3 }).collect();
    let whole = metrics(x.view(), &codebook, &labels).unwrap();
    for step in [1, 2, 5, 6, 7, 40] {
        let mut sum = MetricsSum::new(&codebook);
        for start in (0..n).step_by(step) {
            let end = n.min(start + step);
            sum.add(x.view().row_range(start..end).unwrap(), &labels[start..end]).unwrap();
        }
        let split = sum.finish();
        assert_eq!(split.inertia.to_bits(), whole.inertia.to_bits(), "{step} rows a batch");
        assert_eq!(split, whole);
    }
}

#[test]
fn labels_that_name_no_codeword_are_refused_and_nothing_is_added() {
    let x = matrix(vec![0.0f32, 1.0], 2, 1);
    let codebook = codebook(x.view());
    let mut sum = MetricsSum::new(&codebook);
    let error = sum.add(x.view(), &[0, 2]).unwrap_err();
    assert!(matches!(error, Error::CodeOutOfRange { position: 1, code: 2, k: 2, .. }), "{error}");
    assert!(matches!(sum.add(x.view(), &[0]), Err(Error::Shape { .. })));
    assert_eq!(sum.finish().n, 0);
}
