//! The exact oracle itself, against rational arithmetic done elsewhere. Everything else is judged by this oracle.

mod common;

use codeword::backend::reference::{losses, metrics, nearest, pairwise, sq_distance, top_k, top_k_unfiltered};
use codeword::{MatrixView, SENTINEL, bf16, f16};
use common::{assert_same_bits, assert_same_labels, cases, golden, matrix};

#[test]
fn labels_and_distances_equal_rational_arithmetic_bit_for_bit() {
    let golden = golden::load();
    assert!(golden.len() > 200, "{} cases", golden.len());
    for case in &golden {
        let (x, e) = (case.x.view(), case.codewords.view());
        let r = e.rows().min(3);
        let labels: Vec<u32> = case.nearest.iter().flatten().map(|near| near.0).collect();
        let distances: Vec<f32> = case.nearest.iter().flatten().map(|near| near.1).collect();
        for (got_labels, got_distances) in [top_k(x, e, r), top_k_unfiltered(x, e, r)] {
            assert_same_labels(&case.name, &got_labels, &labels, r);
            assert_same_bits(&case.name, &got_distances, &distances);
        }
        let first = |all: Vec<u32>| all.into_iter().step_by(r).collect::<Vec<_>>();
        assert_same_labels(&case.name, &nearest(x, e).0, &first(labels), 1);
        let all = pairwise(x, e);
        for (i, near) in case.nearest.iter().enumerate() {
            for &(label, distance) in near {
                assert_eq!(all[i * e.rows() + label as usize].to_bits(), distance.to_bits(), "{} row {i}", case.name);
            }
        }
    }
}

#[test]
fn the_golden_file_holds_what_f64_gets_wrong() {
    // A file that plain f64 sums pass would prove nothing.
    let (mut wrong_labels, mut wrong_distances) = (0, 0);
    for case in golden::load() {
        for (i, near) in case.nearest.iter().enumerate() {
            let distance = |j: usize| -> f64 {
                let pairs = case.x.view().row(i).iter().zip(case.codewords.view().row(j));
                pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
            };
            let all: Vec<f64> = (0..case.codewords.rows()).map(distance).collect();
            let best = (0..all.len()).min_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap();
            wrong_labels += usize::from(best as u32 != near[0].0);
            wrong_distances += usize::from((all[near[0].0 as usize] as f32).to_bits() != near[0].1.to_bits());
        }
    }
    assert!(wrong_labels >= 5 && wrong_distances >= 20, "{wrong_labels} labels, {wrong_distances} distances");
}

#[test]
fn the_f64_sieve_drops_no_codeword_that_exact_arithmetic_keeps() {
    for (n, k, d) in [(19, 40, 3), (11, 23, 17), (5, 70, 130)] {
        for case in cases::adversarial(n, k, d) {
            for r in [1, 2, 9] {
                let (x, e) = (case.x.view(), case.codewords.view());
                let ((labels, distances), (all_labels, all_distances)) = (top_k(x, e, r), top_k_unfiltered(x, e, r));
                assert_same_labels(&case.name, &labels, &all_labels, r);
                assert_same_bits(&case.name, &distances, &all_distances);
            }
        }
    }
}

#[test]
fn distances_compare_as_real_numbers_where_their_roundings_agree() {
    let tiny = f32::from_bits(1);
    // 1 + 2^-298 against 1 against 1 + 2^-296, all of which round to 1.
    let [plain, above, further] = [[1.0, 0.0], [1.0, tiny], [1.0, 2.0 * tiny]].map(|e| sq_distance(&[0.0, 0.0], &e));
    assert!(plain < above && above < further);
    assert!([plain, above, further].iter().all(|d| d.to_f32() == 1.0));
    assert_eq!(sq_distance(&[3.0f32, -4.0], &[0.0f32, 0.0]), sq_distance(&[5.0f32], &[-0.0f32]));
    assert!(sq_distance(&[f32::MAX], &[f32::MIN]) > sq_distance(&[f32::MAX], &[0.0f32]));
    assert_eq!(sq_distance(&[f32::MAX], &[0.0f32]).to_f32(), f32::INFINITY);
}

#[test]
fn sixteen_bit_types_are_taken_as_the_numbers_they_stand_for() {
    let x = [f16::from_f32(1.5), f16::from_bits(1)];
    let e = [bf16::from_f32(-2.5), bf16::from_bits(1)];
    assert_eq!(sq_distance(&x, &e), sq_distance(&[1.5f32, 2f32.powi(-24)], &[-2.5f32, 2f32.powi(-133)]));
}

#[test]
fn rows_that_are_not_finite_get_the_sentinel() {
    let x = [1.0f32, f32::NAN, 0.0, 0.0, f32::NEG_INFINITY, 2.0];
    let e = [0.0f32, 0.0, 3.0, 3.0];
    let (x, e) = (MatrixView::new(&x, 3, 2).unwrap(), MatrixView::new(&e, 2, 2).unwrap());
    let (labels, distances) = nearest(x, e);
    assert_eq!(labels, [SENTINEL, 0, SENTINEL]);
    assert_same_bits("sentinel", &distances, &[f32::NAN, 0.0, f32::NAN]);
}

#[test]
fn metrics_equal_values_worked_out_by_hand() {
    // Squared distances 1, 4, 0, 5; the sentinel row is left out. Squared norms 1, 8, 9, 16 + 25.
    let x = matrix(vec![1.0f32, 0.0, 2.0, 2.0, 0.0, 3.0, f32::NAN, 0.0, 4.0, 5.0], 5, 2);
    let e = matrix(vec![0.0f32, 0.0, 2.0, 0.0, 0.0, 3.0, 9.0, 9.0, 5.0, 3.0], 5, 2);
    let labels = [0, 1, 2, SENTINEL, 4];
    let m = metrics(x.view(), e.view(), &labels);
    assert_eq!((m.n, m.skipped, m.dead), (4, 1, 1));
    assert_eq!(m.histogram, [1, 1, 1, 0, 1]);
    assert_eq!((m.inertia, m.distortion, m.mse, m.utilization), (10.0, 2.5, 1.25, 0.8));
    // Four codewords used equally often; 59 of energy over 10 of error.
    assert!((m.perplexity - 4.0).abs() < 1e-12, "{}", m.perplexity);
    assert!((m.snr_db - 7.708_520_116_421_442).abs() < 1e-12, "{}", m.snr_db);
    assert_eq!(losses(x.view(), e.view(), &labels, 0.25), (1.25, 0.3125));

    let same = metrics(e.view(), e.view(), &[0, 1, 2, 3, 4]);
    assert_eq!((same.inertia, same.snr_db, same.dead), (0.0, f64::INFINITY, 0));
    let none = metrics(x.view(), e.view(), &[SENTINEL; 5]);
    assert_eq!((none.n, none.skipped, none.mse, none.dead), (0, 5, 0.0, 5));
}
