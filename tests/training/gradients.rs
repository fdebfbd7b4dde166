//! Gradients of the vector quantizer's losses are what finite differences say, in the bits of the documented order.

use crate::common::{Numbers, codebook, matrix};
use codeword::backend::reference;
use codeword::{
    AssignOptions, Element, Error, MatrixView, SENTINEL, VqLoss, bf16, codebook_gradient, quantize, vector_gradient,
};

const LOSSES: [VqLoss; 3] =
    [VqLoss::Standard { beta: 0.25 }, VqLoss::Legacy { beta: 0.25 }, VqLoss::Ema { beta: 0.75 }];

/// The weights of codebook and commitment loss, written down once more.
fn weights(loss: VqLoss) -> (f64, f64) {
    match loss {
        VqLoss::Standard { beta } => (1.0, beta),
        VqLoss::Legacy { beta } => (beta, 1.0),
        VqLoss::Ema { beta } => (0.0, beta),
        _ => panic!("another loss"),
    }
}

/// mean (e - z)^2 over the rows that have a label.
fn mean_square(z: &[f64], e: &[f64], labels: &[u32], d: usize) -> f64 {
    let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] != SENTINEL).collect();
    let of_row = |&i: &usize| (0..d).map(move |t| (e[labels[i] as usize * d + t] - z[i * d + t]).powi(2)).sum::<f64>();
    rows.iter().map(of_row).sum::<f64>() / (rows.len() * d) as f64
}

/// The slope of `f` at `at`: of a parabola, exact but for rounding.
fn slope(f: impl Fn(&[f64]) -> f64, at: &[f64], i: usize) -> f64 {
    let moved = |by: f64| {
        let mut moved = at.to_vec();
        moved[i] += by;
        f(&moved)
    };
    (moved(0.125) - moved(-0.125)) / 0.25
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut numbers = Numbers::new(121);
    for (n, k, d) in [(1, 1, 1), (7, 3, 2), (23, 5, 9)] {
        let (z, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let upstream = matrix(numbers.gaussians(n * d), n, d);
        let codebook = codebook(e.view());
        let mut labels = quantize(z.view(), &codebook, 0.25, AssignOptions::default()).unwrap().assignment.labels;
        if n > 1 {
            labels[n / 2] = SENTINEL;
        }
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
        let (z_64, e_64, u) = (wide(z.as_slice()), wide(e.as_slice()), wide(upstream.as_slice()));
        for loss in LOSSES {
            let (of_codewords, of_vectors) = weights(loss);
            // What follows z_q is linear here; the stop-gradient makes z_q = z + constant there.
            let of_z = |z: &[f64]| {
                let after = z.iter().zip(&u).map(|(z, u)| z * u).sum::<f64>();
                after + of_vectors * mean_square(z, &e_64, &labels, d)
            };
            let got = vector_gradient(z.view(), &codebook, &labels, loss, Some(upstream.view())).unwrap();
            let alone = vector_gradient(z.view(), &codebook, &labels, loss, None).unwrap();
            for (i, &g) in got.as_slice().iter().enumerate() {
                let expected = slope(of_z, &z_64, i);
                assert!((f64::from(g) - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{g} {expected}");
                let expected = expected - u[i];
                assert!((f64::from(alone.as_slice()[i]) - expected).abs() <= 1e-6, "{loss:?}, without upstream");
            }
            let of_e = |e: &[f64]| of_codewords * mean_square(&z_64, e, &labels, d);
            let got = codebook_gradient(z.view(), &codebook, &labels, loss).unwrap();
            for (i, &g) in got.as_slice().iter().enumerate() {
                let expected = slope(of_e, &e_64, i);
                assert!((f64::from(g) - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{g} {expected}");
            }
        }
    }
}

#[test]
fn losses_weigh_their_terms_as_they_are_named() {
    let mut numbers = Numbers::new(122);
    let (z, e) = (matrix(numbers.gaussians(200), 40, 5), matrix(numbers.gaussians(35), 7, 5));
    for loss in LOSSES {
        let got = quantize(z.view(), &codebook(e.view()), loss, AssignOptions::default()).unwrap();
        let (of_codewords, of_vectors) = weights(loss);
        assert_eq!((got.codebook_loss, got.commitment_loss), (of_codewords * got.mse, of_vectors * got.mse));
        assert_eq!(got.loss, got.codebook_loss + got.commitment_loss);
    }
}

/// `n` rows of wild magnitudes, every element type and layout through one door.
fn assert_bits<T: Element>(z: MatrixView<'_, T>, e: &[f32], k: usize, labels: &[u32]) {
    let (n, d) = (z.rows(), z.cols());
    let codebook = codebook(MatrixView::new(e, k, d).unwrap());
    let rows = labels.iter().filter(|&&label| label != SENTINEL).count();
    let factor = |weight: f64| 2.0 * weight / (rows as f64 * d as f64);
    let (sums, _) = reference::accumulate(z, labels, None, k);
    let count = |j: usize| labels.iter().filter(|&&label| label as usize == j).count() as f64;
    let of_codebook: Vec<u32> = (0..k * d)
        .map(|i| (factor(1.0) * (count(i / d) * f64::from(e[i]) - sums[i])) as f32)
        .map(f32::to_bits)
        .collect();
    let of_vector = |i: usize| match labels[i / d] {
        SENTINEL => 0.0f32,
        label => {
            let difference = f64::from(z.row(i / d)[i % d].to_f32()) - f64::from(e[label as usize * d + i % d]);
            (factor(0.25) * difference) as f32
        }
    };
    let of_vectors: Vec<u32> = (0..n * d).map(|i| of_vector(i).to_bits()).collect();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let got = pool.install(|| codebook_gradient(z, &codebook, labels, 0.25)).unwrap();
        assert!(got.as_slice().iter().map(|g| g.to_bits()).eq(of_codebook.iter().copied()), "{n} x {d}: codebook");
        let got = pool.install(|| vector_gradient(z, &codebook, labels, 0.25, None)).unwrap();
        assert!(got.as_slice().iter().map(|g| g.to_bits()).eq(of_vectors.iter().copied()), "{n} x {d}: vectors");
    }
}

#[test]
fn gradients_have_the_bits_of_the_documented_order() {
    let mut numbers = Numbers::new(123);
    // Rows of one block of sums, and of many.
    for (n, k, d) in [(300, 7, 5), (900, 11, 1031)] {
        let mut wild = |count: usize| -> Vec<f32> {
            (0..count).map(|_| numbers.gaussian() * (numbers.below(40) as f32 - 20.0).exp2()).collect()
        };
        let (z, e) = (wild(n * (d + 2)), wild(k * d));
        let labels: Vec<u32> = (0..n as u32).map(|i| if i % 9 == 4 { SENTINEL } else { i * i % k as u32 }).collect();
        let columns = |d: usize| 1..d + 1;
        assert_bits(MatrixView::new(&z, n, d + 2).unwrap().columns(columns(d)).unwrap(), &e, k, &labels);
        let halves: Vec<bf16> = z.iter().map(|&v| bf16::from_f32(v)).collect();
        assert_bits(MatrixView::new(&halves, n, d + 2).unwrap().columns(columns(d)).unwrap(), &e, k, &labels);
    }
}

#[test]
fn rows_without_a_label_and_no_rows_at_all_pull_nothing() {
    let codebook = codebook(matrix(vec![1.0f32, 2.0], 2, 1).view());
    let z = matrix(vec![f32::NAN, 5.0], 2, 1);
    let upstream = matrix(vec![3.0f32, -1.0], 2, 1);
    let got = vector_gradient(z.view(), &codebook, &[SENTINEL, 1], 0.5, Some(upstream.view())).unwrap();
    assert_eq!(got.as_slice(), [3.0, -1.0 + 3.0]);
    assert_eq!(codebook_gradient(z.view(), &codebook, &[SENTINEL, 1], 0.5).unwrap().as_slice(), [0.0, -6.0]);
    let got = vector_gradient(z.view(), &codebook, &[SENTINEL; 2], 0.5, Some(upstream.view())).unwrap();
    assert_eq!(got.as_slice(), upstream.as_slice());
    let none = MatrixView::<f32>::new(&[], 0, 1).unwrap();
    assert_eq!(codebook_gradient(none, &codebook, &[], 0.5).unwrap().as_slice(), [0.0, 0.0]);
    assert_eq!(vector_gradient(none, &codebook, &[], 0.5, None).unwrap().rows(), 0);
    // A NaN with a label shows where it belongs.
    let got = vector_gradient(z.view(), &codebook, &[0, 1], 0.5, None).unwrap();
    assert!(got.as_slice()[0].is_nan() && got.as_slice()[1] == 1.5);
    let got = codebook_gradient(z.view(), &codebook, &[0, 1], 0.5).unwrap();
    assert!(got.as_slice()[0].is_nan() && got.as_slice()[1] == -3.0);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let codebook = codebook(matrix(vec![1.0f32, 2.0, 3.0, 4.0], 2, 2).view());
    let z = matrix(vec![0.0f32; 6], 3, 2);
    let both = |z: MatrixView<'_, f32>, labels: &[u32], beta: f64| {
        let of_vectors = vector_gradient(z, &codebook, labels, beta, None).unwrap_err().to_string();
        let of_codewords = codebook_gradient(z, &codebook, labels, beta).unwrap_err().to_string();
        [of_vectors, of_codewords]
    };
    let ops = ["vector_gradient", "codebook_gradient"];
    for beta in [-0.1, f64::NAN, f64::INFINITY] {
        let expected = ops.map(|op| format!("{op}: beta must be finite and not negative, got {beta}"));
        assert_eq!(both(z.view(), &[0; 3], beta), expected);
    }
    assert_eq!(both(z.view(), &[0; 2], 1.0), ops.map(|op| format!("{op}: expected 3 labels, got 2")));
    let expected = ops.map(|op| format!("{op}: expected vectors of 2 columns, as the codewords have, got 3"));
    assert_eq!(both(matrix(vec![0.0f32; 6], 2, 3).view(), &[0; 2], 1.0), expected);
    let expected = "code 2 at position 1 names no codeword; the codebook holds 2 (codes 0 to 1)";
    assert_eq!(both(z.view(), &[0, 2, 9], 1.0), ops.map(|op| format!("{op}: {expected}")));
    let upstream = matrix(vec![0.0f32; 6], 2, 3);
    let refused = vector_gradient(z.view(), &codebook, &[0; 3], 0.25, Some(upstream.view())).unwrap_err();
    assert!(matches!(refused, Error::Shape { .. }));
    assert_eq!(refused.to_string(), "vector_gradient: expected an upstream gradient of 3 x 2, got 2 x 3");
}
