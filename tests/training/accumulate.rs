//! Sums of rows by label have the bits of the documented order: of a plain loop over blocks, labels and rows.

use crate::common::sums::{bits, labels, wild};
use crate::common::{Numbers, matrix};
use codeword::backend::reference;
use codeword::{Element, Error, MatrixView, Sums, accumulate, bf16, f16};

/// Asserts the bits of the oracle on 1, 2 and 5 threads.
fn assert_bits<T: Element>(name: &str, x: MatrixView<'_, T>, labels: &[u32], weights: Option<&[f32]>, k: usize) {
    let (sums, totals) = reference::accumulate(x, labels, weights, k);
    let counts: Vec<u64> = (0..k as u32).map(|j| labels.iter().filter(|&&label| label == j).count() as u64).collect();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let got = pool.install(|| accumulate(x, labels, weights, k)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((got.d, &got.counts), (x.cols(), &counts), "{name}, {threads} threads");
        assert_eq!(bits(&got.weights), bits(&totals), "{name}, {threads} threads: weights");
        assert!(bits(&got.sums) == bits(&sums), "{name}, {threads} threads: sums");
    }
}

#[test]
fn sums_have_the_bits_of_the_documented_order() {
    let mut numbers = Numbers::new(61);
    // Blocks of 2^18 / d rows: none, parts, several; lanes of 4, 8 and 16 and what they leave; and a codeword with
    // more than 64 blocks of rows, which threads share.
    let sizes = [(0, 3, 4), (1, 1, 1), (300, 7, 5), (5000, 11, 131), (3001, 70, 1024), (700, 3, 100_003)];
    // Sums that stay in registers, of several blocks.
    let known = [(70_000, 3, 4), (40_001, 90, 8), (40_000, 5, 16), (10_000, 7, 32)];
    for (n, k, d) in sizes.into_iter().chain(known) {
        let x = wild(&mut numbers, n * d);
        let labels = labels(&mut numbers, n, k);
        let view = MatrixView::new(&x, n, d).unwrap();
        assert_bits(&format!("{n} x {d}, k={k}"), view, &labels, None, k);
        let weights: Vec<f32> = wild(&mut numbers, n).iter().map(|w| w.abs()).collect();
        assert_bits(&format!("{n} x {d}, k={k}, weighted"), view, &labels, Some(&weights), k);
    }
}

#[test]
fn halves_and_columns_of_wider_rows_are_added_as_the_numbers_they_are() {
    let (n, k, d, stride) = (900, 5, 19, 40);
    let mut numbers = Numbers::new(62);
    let x = wild(&mut numbers, n * stride);
    let labels = labels(&mut numbers, n, k);
    let columns = |from: usize| from..from + d;
    assert_bits("f32", MatrixView::new(&x, n, stride).unwrap().columns(columns(7)).unwrap(), &labels, None, k);
    for d in [4, 8, 16, 32] {
        let part = MatrixView::new(&x, n, stride).unwrap().columns(5..5 + d).unwrap();
        assert_bits(&format!("{d} columns"), part, &labels, None, k);
    }
    let halves: Vec<f16> = x.iter().map(|&v| f16::from_f32(v.clamp(-6e4, 6e4))).collect();
    assert_bits("f16", MatrixView::new(&halves, n, stride).unwrap().columns(columns(0)).unwrap(), &labels, None, k);
    let halves: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let weights: Vec<f32> = (0..n).map(|_| numbers.uniform()).collect();
    let view = MatrixView::new(&halves, n, stride).unwrap().columns(columns(21)).unwrap();
    assert_bits("bf16", view, &labels, Some(&weights), k);
}

#[test]
fn weights_of_one_change_nothing_and_weights_count_as_copies_of_a_row() {
    let x = matrix(vec![1.0f32, -2.0, 0.5, 8.0, 3.0, 3.0], 3, 2);
    let plain = accumulate(x.view(), &[1, 1, 0], None, 3).unwrap();
    assert_eq!(plain, accumulate(x.view(), &[1, 1, 0], Some(&[1.0; 3]), 3).unwrap());
    let expected =
        Sums { counts: vec![1, 2, 0], weights: vec![1.0, 2.0, 0.0], sums: vec![3.0, 3.0, 1.5, 6.0, 0.0, 0.0], d: 2 };
    assert_eq!(plain, expected);
    let weighted = accumulate(x.view(), &[1, 1, 0], Some(&[3.0, 0.5, 0.0]), 3).unwrap();
    assert_eq!(weighted.sums, [0.0, 0.0, 3.25, -2.0, 0.0, 0.0]);
    assert_eq!((weighted.counts.as_slice(), weighted.weights.as_slice()), (&[1, 2, 0][..], &[0.0, 3.5, 0.0][..]));
    let mut mean = [7.0; 2];
    assert!(!weighted.mean_into(0, &mut mean) && !weighted.mean_into(2, &mut mean));
    assert_eq!(mean, [7.0; 2]);
    assert!(weighted.mean_into(1, &mut mean));
    assert_eq!(mean, [3.25 / 3.5, -2.0 / 3.5]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = matrix(vec![1.0f32; 6], 3, 2);
    let message = |labels: &[u32], weights: Option<&[f32]>| {
        let error = accumulate(x.view(), labels, weights, 2).unwrap_err();
        assert!(matches!(error, Error::Shape { .. } | Error::CodeOutOfRange { .. } | Error::InvalidParameter { .. }));
        error.to_string()
    };
    assert_eq!(message(&[0, 1], None), "accumulate: expected 3 labels, got 2");
    assert_eq!(message(&[0; 3], Some(&[1.0])), "accumulate: expected 3 weights, got 1");
    let empty = MatrixView::<f32>::new(&[], 3, 0).unwrap();
    let error = accumulate(empty, &[0; 3], None, 1).unwrap_err().to_string();
    assert_eq!(error, "accumulate: expected rows of at least one column, got 3 x 0");
    assert!(message(&[0, 2, 9], None).contains("code 2 at position 1"));
    for weight in [-1.0, f32::NAN, f32::INFINITY] {
        let expected = format!("accumulate: weights must be finite and not negative, got {weight} for row 2");
        assert_eq!(message(&[0; 3], Some(&[0.0, 1.0, weight])), expected);
    }
}
