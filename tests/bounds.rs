//! What is not exact keeps the bound that the documentation states: fast labels, and the full distance matrix.

mod common;

use codeword::backend::reference;
use codeword::{AssignOptions, MatrixView, Precision, assign, pairwise_sq_l2};
use common::{Numbers, assert_same_bits, cases, codebook, matrix, rows, scaled};

const FAST: AssignOptions = AssignOptions { precision: Precision::Fast, non_finite: codeword::NonFinite::Error };

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Squared distance in f64, good to (d + 3) 2^-53 of itself.
fn sq_distance(x: &[f32], e: &[f32]) -> f64 {
    x.iter().zip(e).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

fn longest(codewords: MatrixView<'_, f32>) -> f64 {
    (0..codewords.rows()).map(|j| norm(codewords.row(j))).fold(0.0, f64::max)
}

/// The unit roundoff of f32.
const U: f64 = 1.0 / 16_777_216.0;

#[test]
fn a_fast_label_is_nearly_the_nearest_and_its_distance_is_exact() {
    // With u = 2^-24 and z', e' centred by some m with |m| <= max|e|: each operand is rounded once (u |z'|, u |e'|),
    // the dot of d terms errs by d u |z'| |e'|, h = |e'|^2 / 2 and the final subtraction by (d + 2) u of themselves.
    // A score so errs by E <= (d + 8) u (|z'| |e'| + |e'|^2 / 2) <= (d + 8) u (|z'| + |e'|)^2 / 2. The winner's true
    // score is within 2E of the best, its squared distance within 4E, and |z'| + |e'| <= |z| + 3 max|e|.
    let mut numbers = Numbers::new(31);
    let mut sets = cases::adversarial(scaled(120), 50, 23);
    sets.extend(cases::adversarial(scaled(60), 30, 130));
    sets.push(cases::Case {
        name: "gaussian".into(),
        x: matrix(numbers.gaussians(1000 * 32), 1000, 32),
        codewords: matrix(numbers.gaussians(256 * 32), 256, 32),
    });
    for case in sets {
        let (x, e) = (case.x.view(), case.codewords.view());
        let got = assign(x, &codebook(e), FAST).unwrap();
        // Rows so far from the codebook that f32 would overflow are looked at in f64, even here.
        assert!(got.stats.first == x.rows() as u64 || case.name.contains("far away"), "{}: {:?}", case.name, got.stats);
        let distances: Vec<f32> =
            (0..x.rows()).map(|i| reference::sq_distance(x.row(i), e.row(got.labels[i] as usize)).to_f32()).collect();
        assert_same_bits(&case.name, &got.sq_distances, &distances);
        let d = x.cols() as f64;
        for i in 0..x.rows() {
            let best = (0..e.rows()).map(|j| sq_distance(x.row(i), e.row(j))).fold(f64::INFINITY, f64::min);
            let excess = sq_distance(x.row(i), e.row(got.labels[i] as usize)) - best;
            let reach = norm(x.row(i)) + 3.0 * longest(e);
            let bound = 2.0 * (d + 8.0) * U * reach * reach;
            assert!(excess <= bound, "{} row {i}: {excess:e} beyond the nearest, bound {bound:e}", case.name);
        }
    }
}

#[test]
fn a_fast_label_of_copies_is_the_lowest_index() {
    let (n, k, d) = (scaled(500), 37, 19);
    let mut numbers = Numbers::new(32);
    let base = numbers.gaussians(k * d);
    let copies: Vec<f32> = base.iter().chain(&base).chain(&base).copied().collect();
    let x = matrix(numbers.gaussians(n * d), n, d);
    let got = assign(x.view(), &codebook(MatrixView::new(&copies, 3 * k, d).unwrap()), FAST).unwrap();
    assert!(got.labels.iter().all(|&label| (label as usize) < k));
    let zeros = vec![0.0f32; 300 * d];
    let got = assign(x.view(), &codebook(MatrixView::new(&zeros, 300, d).unwrap()), FAST).unwrap();
    assert!(got.labels.iter().all(|&label| label == 0));
}

#[test]
fn the_exact_distance_matrix_is_the_real_numbers_rounded_once() {
    for (n, k, d) in [(17, 40, 9), (23, 9, 140)] {
        for case in cases::adversarial(n, k, d) {
            let (x, e) = (case.x.view(), case.codewords.view());
            let exact = reference::pairwise(x, e);
            let got = pairwise_sq_l2(x, &codebook(e), Precision::Exact).unwrap();
            assert_eq!((got.rows(), got.cols()), (n, k));
            common::assert_same_bits(&case.name, got.as_slice(), &exact);
        }
    }
}

#[test]
fn the_distance_matrix_by_norms_stays_within_its_bound_and_is_never_nan() {
    // Three sums of d products, each within d u of its absolute value, then three roundings more:
    // (d + 8) u (|z| + |e|)^2. Where a squared norm overflows, the direct form takes over.
    // Whole tiles and panels and what is left of them, one dimension, one codeword, and dimensions around the 512 that are summed
    // in one go.
    let shapes = [(17, 40, 9), (23, 9, 140), (13, 33, 1), (7, 1, 5), (7, 33, 511), (7, 17, 513), (5, 18, 1031)];
    for (n, k, d) in shapes {
        for case in cases::adversarial(n, k, d) {
            let (x, e) = (case.x.view(), case.codewords.view());
            let exact = reference::pairwise(x, e);
            let got = pairwise_sq_l2(x, &codebook(e), Precision::Fast).unwrap();
            for i in 0..n {
                for j in 0..k {
                    let (got, real) = (got.view().row(i)[j], sq_distance(x.row(i), e.row(j)));
                    let norms = norm(x.row(i)) + norm(e.row(j));
                    let place = format!("{} at {i}, {j}: {got:e} for {real:e}", case.name);
                    assert!(got >= 0.0, "{place}");
                    // Every product that underflows loses up to 2^-149, whatever its size.
                    let floor = (3.0 * d as f64 + 8.0) * f64::from(f32::from_bits(1));
                    let bound = (d as f64 + 8.0) * U * norms * norms + floor;
                    let within = match got.is_infinite() {
                        true => real + bound > f64::from(f32::MAX),
                        false => (f64::from(got) - real).abs() <= bound,
                    };
                    assert!(within, "{place}, bound {bound:e}");
                    if norm(x.row(i)).powi(2).max(norm(e.row(j)).powi(2)) > 1.001 * f64::from(f32::MAX) {
                        assert_eq!(got.to_bits(), exact[i * k + j].to_bits(), "{place}: not the direct form");
                    }
                }
            }
        }
    }
}

#[test]
fn a_distance_matrix_of_many_codewords_is_that_of_its_rows() {
    // More codewords than are scored at a time, rows of a length that no register divides, and codewords that repeat others, with
    // more after them.
    let (n, d) = (2100, 3);
    let mut numbers = Numbers::new(33);
    let x = matrix(numbers.gaussians(n * d), n, d);
    for (k, copies) in [(2003, 0), (1500, 503)] {
        let mut e = numbers.gaussians((k + copies) * d);
        e.copy_within(..copies * d, k / 2 * d);
        let codebook = codebook(MatrixView::new(&e, k + copies, d).unwrap());
        let all = pairwise_sq_l2(x.view(), &codebook, Precision::Fast).unwrap();
        for first in (0..n).step_by(100) {
            let some = pairwise_sq_l2(rows(&x, first..first + 100), &codebook, Precision::Fast).unwrap();
            let of_all = &all.as_slice()[first * (k + copies)..][..100 * (k + copies)];
            assert_same_bits("rows", of_all, some.as_slice());
        }
        for i in 0..5 {
            for j in 0..k + copies {
                let (z, e) = (x.view().row(i), &e[j * d..][..d]);
                let norms = norm(z) + norm(e);
                let off = (f64::from(all.view().row(i)[j]) - sq_distance(z, e)).abs();
                assert!(off <= (d as f64 + 8.0) * U * norms * norms, "row {i}, codeword {j}");
            }
        }
    }
}

#[test]
fn no_codeword_is_less_than_no_distance_away_in_the_distance_matrix() {
    // Every row is a codeword: the norms and the product cancel, and what rounding left of them has any sign.
    let (k, d) = (64, 37);
    let e = matrix(Numbers::new(34).gaussians(k * d), k, d);
    let got = pairwise_sq_l2(e.view(), &codebook(e.view()), Precision::Fast).unwrap();
    let own: Vec<f32> = (0..k).map(|i| got.view().row(i)[i]).collect();
    assert!(own.iter().all(|&distance| distance >= 0.0), "{own:?}");
    assert!(own.iter().filter(|&&distance| distance > 0.0).count() > k / 8, "nothing was rounded: {own:?}");
}
