//! The short form of the rows that k-means++ passes over changes no byte of the start: every start against the same by the
//! distances of all rows to every codeword.

use crate::common::{Numbers, cases, matrix, scaled};
use codeword::{Device, Element, Error, Init, KMeans, MatrixView, bf16, f16};

fn start<T: Element>(params: &KMeans, sketch: bool, x: MatrixView<'_, T>, weights: Option<&[f32]>) -> Vec<u32> {
    let params = params.clone().iterations(0).sketch(sketch);
    let fit = params.fit_with(x, weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
    let codewords = fit.codebook.codewords().unwrap();
    (0..fit.codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect()
}

fn same<T: Element>(name: &str, k: usize, x: MatrixView<'_, T>, weights: Option<&[f32]>) {
    for seed in 0..2 {
        let params = KMeans::new(k).seed(seed);
        assert!(start(&params, true, x, weights) == start(&params, false, x, weights), "{name}, seed {seed}");
    }
}

#[test]
fn starts_are_the_same_with_a_short_form_and_without() {
    let mut numbers = Numbers::new(91);
    // Whole strips of 64 rows, one more or less; one thread and all of them; depths with kernels of their own; odd ones.
    let shapes = [
        (2048, 8, 40),
        (2049, 4, 33),
        (2047, 16, 64),
        (700, 3, 90),
        (130, 1, 70),
        (65, 129, 65),
        (40_000, 7, 12),
        (9000, 40, 20),
    ];
    for (n, d, k) in shapes.into_iter().take(scaled(shapes.len()).max(7)) {
        let x = matrix(numbers.gaussians(n * d), n, d);
        same(&format!("{n} x {d}, k={k}"), k, x.view(), None);
        let weights: Vec<f32> = (0..n).map(|i| if i % 9 == 0 { 0.0 } else { numbers.uniform() }).collect();
        let k = k.min(n - n.div_ceil(9));
        same(&format!("{n} x {d}, k={k}, weights"), k, x.view(), Some(&weights));
    }
}

#[test]
fn starts_of_columns_and_of_shorter_types_are_the_same() {
    let mut numbers = Numbers::new(17);
    let (n, d, k) = (900, 24, 60);
    let x = matrix(numbers.gaussians(n * d), n, d);
    same("columns", k, x.view().columns(5..13).unwrap(), None);
    let short: Vec<f16> = x.as_slice().iter().map(|&value| f16::from_f32(value)).collect();
    same("f16", k, MatrixView::new(&short, n, d).unwrap(), None);
    let short: Vec<bf16> = x.as_slice().iter().map(|&value| bf16::from_f32(value)).collect();
    same("bf16", k, MatrixView::new(&short, n, d).unwrap(), None);
    // k-means|| thins its candidates in the same way, with weights.
    let params = KMeans::new(k).init(Init::Parallel);
    assert!(start(&params, true, x.view(), None) == start(&params, false, x.view(), None));
}

#[test]
fn starts_of_adversarial_rows_are_the_same() {
    for (n, k, d) in [(333, 40, 6), (150, 70, 16), (90, 33, 19)] {
        for case in cases::adversarial(n, k, d) {
            same(&case.name, k, case.x.view(), None);
        }
    }
    let mut numbers = Numbers::new(3);
    // With many ties, and fewer different rows than codewords.
    for (d, magnitude) in [(1, 20), (2, 3), (8, 1)] {
        same("integers", 80, matrix(numbers.integers(1000 * d, magnitude), 1000, d).view(), None);
    }
}

#[test]
fn starts_at_every_scale_are_the_same() {
    let mut numbers = Numbers::new(5);
    let (n, d, k) = (400, 9, 80);
    let values = numbers.gaussians(n * d);
    let at = |scale: f64, shift: f64| {
        let value = |&value: &f32| ((f64::from(value) + shift) * scale).clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        matrix(values.iter().map(value).collect(), n, d)
    };
    // Squares overflow, or nearly; squares underflow, some or all; f32 itself does.
    for scale in [1e38, 1e30, 3e19, 1e18, 1.0, 1e-18, 1e-20, 3e-22, 1e-25, 1e-38, 1e-44] {
        // Far from 0 the short form loses as much as rows differ by, or all of that.
        for shift in [0.0, 30.0, 300.0, 1e5] {
            same(&format!("scale {scale}, shift {shift}"), k, at(scale, shift).view(), None);
        }
    }
    let mixed = (0..n * d).map(|i| values[i] * 10f32.powi(i as i32 / d as i32 % 60 - 35)).collect();
    same("mixed", k, matrix(mixed, n, d).view(), None);
}
