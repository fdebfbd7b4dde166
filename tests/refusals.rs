//! What is refused, and how: by an error that names the first offender, never by a panic and never by a wrong code.

mod common;

use codeword::{AssignOptions, Codebook, Device, Error, MatrixView, NonFinite, SENTINEL};
use codeword::{Precision, backend::reference};
use codeword::{assign, assign_into, bf16, f16, pairwise_sq_l2, top_k};
use common::{Numbers, assert_same_bits, assert_same_labels, codebook, matrix, scaled};

const SENTINELS: AssignOptions = AssignOptions { precision: Precision::Exact, non_finite: NonFinite::Sentinel };

#[test]
fn the_first_bad_row_is_named_whichever_thread_finds_one_first() {
    let (n, k, d) = (scaled(6000), 40, 9);
    let mut numbers = Numbers::new(21);
    let codewords = matrix(numbers.gaussians(k * d), k, d);
    let codebook = codebook(codewords.view());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    for round in 0..40 {
        let mut x = numbers.gaussians(n * d);
        // A few offenders anywhere, or, every third round, in every row from some row on.
        let count = 1 + round % 7;
        let mut bad: Vec<usize> = (0..count).map(|_| numbers.below(n * d)).collect();
        if round % 3 == 0 {
            bad.extend((bad[0] / d..n).map(|row| row * d + numbers.below(d)));
        }
        for &position in &bad {
            x[position] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][numbers.below(3)];
        }
        let first = *bad.iter().min().unwrap();
        let x = MatrixView::new(&x, n, d).unwrap();
        let wanted = (first / d, first % d, x.row(first / d)[first % d].to_bits());
        let outcomes = [
            pool.install(|| assign(x, &codebook, AssignOptions::default()).map(drop)),
            pool.install(|| top_k(x, &codebook, 3, AssignOptions::default()).map(drop)),
            assign(x, &codebook, AssignOptions { precision: Precision::Fast, ..Default::default() }).map(drop),
        ];
        for outcome in outcomes {
            match outcome.unwrap_err() {
                Error::NonFinite { what, row, col, got, .. } => {
                    assert_eq!((what, (row, col, got.to_bits())), ("vector", wanted));
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn the_message_names_row_column_value_and_the_way_out() {
    let codebook = codebook(MatrixView::new(&[0.0f32, 1.0], 2, 1).unwrap());
    let x = [f16::ONE, f16::ZERO, f16::NEG_INFINITY, f16::NAN];
    let error = assign(MatrixView::new(&x, 4, 1).unwrap(), &codebook, AssignOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("vector 2") && text.contains("-inf") && text.contains("column 0"), "{text}");
    assert!(text.contains("sentinel"), "{text}");
}

#[test]
fn the_sentinel_stands_for_bad_rows_and_leaves_the_others_right() {
    let (n, k) = (scaled(703), 40);
    let mut numbers = Numbers::new(22);
    // The last two with a codeword too long for integers of one unit.
    for (share, d, longest) in
        [(2, 9, 1.0), (5, 9, 1.0), (100, 9, 1.0), (3, 33, 1.0), (100, 33, 1.0), (3, 33, 64.0), (100, 33, 64.0)]
    {
        let mut codewords = numbers.gaussians(k * d);
        codewords[..d].iter_mut().for_each(|v| *v *= longest);
        let codewords = matrix(codewords, k, d);
        let mut x = numbers.gaussians(n * d);
        for row in x.chunks_exact_mut(d) {
            if numbers.below(share) == 0 {
                row[numbers.below(d)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][numbers.below(3)];
            }
        }
        let x = MatrixView::new(&x, n, d).unwrap();
        let codebook = codebook(codewords.view());
        let (labels, distances) = reference::nearest(x, codewords.view());
        let got = assign(x, &codebook, SENTINELS).unwrap();
        assert_same_labels("sentinel", &got.labels, &labels, 1);
        assert_same_bits("sentinel", &got.sq_distances, &distances);
        let (labels, distances) = reference::top_k(x, codewords.view(), 4);
        let got = top_k(x, &codebook, 4, SENTINELS).unwrap();
        assert_same_labels("sentinel, top 4", &got.labels, &labels, 4);
        assert_same_bits("sentinel, top 4", &got.sq_distances, &distances);
        let fast = assign(x, &codebook, AssignOptions { precision: Precision::Fast, ..SENTINELS }).unwrap();
        for (i, label) in fast.labels.iter().enumerate() {
            assert_eq!(*label == SENTINEL, x.row(i).iter().any(|v| !v.is_finite()), "row {i}");
        }
    }
}

#[test]
fn the_sentinel_also_stands_alone() {
    let nan = [bf16::NAN; 6];
    let codebook = codebook(MatrixView::new(&[1.0f32, 2.0, 3.0], 1, 3).unwrap());
    let got = assign(MatrixView::new(&nan, 2, 3).unwrap(), &codebook, SENTINELS).unwrap();
    assert_eq!(got.labels, [SENTINEL; 2]);
    assert!(got.sq_distances.iter().all(|d| d.is_nan()));
}

#[test]
fn a_codeword_that_is_not_finite_is_refused_by_name() {
    let mut codewords = vec![0.5f32; 7 * 3];
    codewords[6 * 3] = f32::NAN;
    codewords[4 * 3 + 2] = f32::INFINITY;
    match Codebook::new(MatrixView::new(&codewords, 7, 3).unwrap(), &Device::cpu()).unwrap_err() {
        Error::NonFinite { what, row, col, got, .. } => {
            assert_eq!((what, row, col, got), ("codeword", 4, 2, f32::INFINITY));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn no_codewords_or_no_dimensions_are_refused() {
    for (k, d) in [(0, 0), (0, 5), (3, 0)] {
        let error = Codebook::new(MatrixView::<f32>::new(&[], k, d).unwrap(), &Device::cpu()).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{k} x {d}: {error}");
    }
}

#[test]
fn no_rows_are_an_empty_result() {
    let codebook = codebook(MatrixView::new(&[1.0f32, 2.0, 3.0, 4.0], 2, 2).unwrap());
    let none = MatrixView::<f32>::new(&[], 0, 2).unwrap();
    for options in [AssignOptions::default(), SENTINELS] {
        let got = assign(none, &codebook, options).unwrap();
        assert!(got.labels.is_empty() && got.sq_distances.is_empty());
        assert_eq!(got.stats, Default::default());
        let top = top_k(none, &codebook, 2, options).unwrap();
        assert!(top.r == 2 && top.labels.is_empty() && top.sq_distances.is_empty());
    }
    let all = pairwise_sq_l2(none, &codebook, Precision::Exact).unwrap();
    assert_eq!((all.rows(), all.cols()), (0, 2));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let codebook = codebook(MatrixView::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2).unwrap());
    let data = [0.0f32; 12];
    for (n, d) in [(4, 3), (12, 1), (3, 4)] {
        let x = MatrixView::new(&data, n, d).unwrap();
        assert!(matches!(assign(x, &codebook, SENTINELS), Err(Error::Shape { .. })), "{d} columns");
        assert!(matches!(top_k(x, &codebook, 1, SENTINELS), Err(Error::Shape { .. })), "{d} columns");
        assert!(matches!(pairwise_sq_l2(x, &codebook, Precision::Exact), Err(Error::Shape { .. })), "{d} columns");
    }
    let x = MatrixView::new(&data, 6, 2).unwrap();
    for r in [0, 4, usize::MAX] {
        let error = top_k(x, &codebook, r, AssignOptions::default()).unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { .. } | Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains('3'), "names the number of codewords: {error}");
    }
    assert_eq!(top_k(x, &codebook, 3, AssignOptions::default()).unwrap().labels.len(), 18);
    for (labels, distances) in [(5, 6), (6, 5), (7, 6), (6, 7), (0, 0)] {
        let (mut labels, mut distances) = (vec![0; labels], vec![0.0; distances]);
        let error = assign_into(x, &codebook, AssignOptions::default(), &mut labels, &mut distances).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
}
