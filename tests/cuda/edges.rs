//! Data for which arithmetic loses all that a bound allows it to lose, so that a bound with one term missing gives another
//! label; counts of rows by what settled them; sums in every bit. On the simulated driver, in child processes.

use crate::alone::{open, threads};
use crate::common::{self, Numbers, assert_same_bits, assert_same_labels, matrix};
use crate::filter;
use crate::simulated::{Machine, pass_on_each};
use crate::tiles::in_tiles;
use codeword::backend::cuda::shapes::TENSOR_THREADS;
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::{DeviceRepr, PushKernelArg};
use codeword::cuda::{self, Workspace};
use codeword::{
    AssignOptions, AssignStats, Codebook, Device, Element, Error, Matrix, NonFinite, Precision, SENTINEL, assign, bf16,
    f16, pairwise_sq_l2, top_k,
};

/// The ways to score.
fn machines() -> [Machine; 3] {
    ["simt", "cublas", "tensor"].map(|it| Machine::new().variable("CODEWORD_CUDA_GEMM", it))
}

/// A codebook of these vectors and their opposites, each behind its own: their mean is zero in every arithmetic.
fn symmetric(vectors: &[Vec<f32>]) -> Matrix<f32> {
    let both = vectors.iter().flat_map(|it| it.iter().copied().chain(it.iter().map(|v| -v)));
    matrix(both.collect(), 2 * vectors.len(), vectors[0].len())
}

fn rounded<T: Element>(x: &Matrix<f32>, round: impl Fn(f32) -> T) -> Matrix<T> {
    matrix(x.as_slice().iter().map(|&v| round(v)).collect(), x.rows(), x.cols())
}

/// Asserts that the row, five times, gets the labels of the oracle, and those of `top_k` for every r. Returns what
/// settled the rows of `assign`, and those of `top_k` with r = 1.
fn assert_exact(name: &str, row: Vec<f32>, e: &Matrix<f32>) -> [AssignStats; 2] {
    let (n, d) = (5, row.len());
    let x = matrix(row.repeat(n), n, d);
    let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
    let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
    let (labels, sq_distances) = reference::nearest(x.view(), e.view());
    assert_same_labels(name, &got.labels, &labels, 1);
    assert_same_bits(name, &got.sq_distances, &sq_distances);
    // The same as 16-bit numbers, where they hold it.
    let (half, brain) = (rounded(&x, f16::from_f32), rounded(&x, bf16::from_f32));
    if half.as_slice().iter().zip(x.as_slice()).all(|(half, v)| half.to_f32() == *v) {
        let got = assign(half.view(), &codebook, AssignOptions::default()).unwrap();
        assert_same_labels(&format!("{name}, f16"), &got.labels, &labels, 1);
    }
    if brain.as_slice().iter().zip(x.as_slice()).all(|(brain, v)| brain.to_f32() == *v) {
        let got = assign(brain.view(), &codebook, AssignOptions::default()).unwrap();
        assert_same_labels(&format!("{name}, bf16"), &got.labels, &labels, 1);
    }
    let mut stats = [got.stats, AssignStats::default()];
    for r in 1..=e.rows() {
        let name = format!("{name}, top {r}");
        let got = top_k(x.view(), &codebook, r, AssignOptions::default()).unwrap();
        let (labels, sq_distances) = reference::top_k(x.view(), e.view(), r);
        assert_same_labels(&name, &got.labels, &labels, r);
        assert_same_bits(&name, &got.sq_distances, &sq_distances);
        if r == 1 {
            stats[1] = got.stats;
        }
    }
    stats
}

/// The first of `d` dimensions 1, so that codebooks keep the scale of 1; the others zero.
fn axis(d: usize) -> Vec<f32> {
    (0..d).map(|t| if t == 0 { 1.0 } else { 0.0 }).collect()
}

#[test]
fn sums_that_lose_all_they_may_in_both_directions_certify_nothing_wrong() {
    pass_on_each(machines(), "edges::sums_that_lose_all_they_may_in_both_directions_certify_nothing_wrong", || {
        // Beside the first product, 2, all others of the nearer codeword are 0.99 of half a step and vanish, and those of
        // the farther one 1.02 of it and become a whole one each: the sums are off by nearly all that one bound covers,
        // one down and one up.
        let d = 300;
        let codeword = |first: f32, part: f32| {
            (0..d).map(|t| if t == 0 { first } else { part * 2f32.powi(-12) }).collect::<Vec<f32>>()
        };
        let nearer = codeword(1.0 + 32.0 * 2f32.powi(-24), 0.99);
        let row = (0..d).map(|t| if t == 0 { 2.0 } else { 2f32.powi(-11) }).collect();
        let stats = assert_exact("in both directions", row, &symmetric(&[codeword(1.0, 1.02), nearer]));
        assert_eq!((stats[0].first, stats[1].first), (0, 0), "{stats:?}");
        // The nearer one is seven times as long, and its sum, 28 and 299 parts that vanish, is off by more than twice
        // the bound of the other one, whose sum is exact.
        let shorter = axis(d);
        let nearer = (0..d).map(|t| if t == 0 { 7.0 + 66.0 * 2f32.powi(-20) } else { 0.99 * 2f32.powi(-11) }).collect();
        let row = (0..d).map(|t| if t == 0 { 4.0 } else { 2f32.powi(-9) }).collect();
        let stats = assert_exact("one longer than the other", row, &symmetric(&[shorter, nearer]));
        assert_eq!((stats[0].first, stats[1].first), (0, 0), "{stats:?}");
    });
}

#[test]
fn products_that_underflow_certify_nothing_wrong() {
    pass_on_each(machines(), "edges::products_that_underflow_certify_nothing_wrong", || {
        // In steps of the smallest f32: every product with the nearest is 0.49 and vanishes, and one with the other is
        // 2, which is less than all of them.
        for d in [8, 40] {
            let near = vec![0.49 * 2f32.powi(-89); d];
            let other = axis(d).iter().map(|v| v * 2f32.powi(-88)).collect();
            let row = vec![2f32.powi(-60); d];
            assert_exact("products", row.clone(), &symmetric(&[axis(d), other, near.clone()]));
            // More than the nearest's 19.6 of them where there are 40: what one may be off is what decides.
            let other = axis(d).iter().map(|v| v * 3.0 * 2f32.powi(-89)).collect();
            let e = [near, other, axis(d)];
            assert_exact("products, in other places", row.clone(), &symmetric(&e));
            // With as many far ones that blocks share the codewords.
            let far = (0..64).map(|j| axis(d).iter().map(|v| v * (1.0 + j as f32 / 64.0)).collect());
            let e = symmetric(&e[..2].iter().cloned().chain(far).collect::<Vec<_>>());
            let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
            let x = matrix(row, 1, d);
            let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
            assert_eq!(got.labels, reference::nearest(x.view(), e.view()).0, "split, {d}");
        }
    });
}

#[test]
fn squares_that_underflow_certify_nothing_wrong() {
    pass_on_each(machines(), "edges::squares_that_underflow_certify_nothing_wrong", || {
        // In steps of the smallest f32: the farther one has eight squares of 0.49, which vanish; the nearer one four of
        // 0.51, each of which becomes 1.
        let d = 8;
        let farther = vec![0.98995 * 2f32.powi(-75); d];
        let nearer = (0..d).map(|t| if t % 2 == 0 { 1.01 * 2f32.powi(-75) } else { 0.0 }).collect();
        assert_exact("squares", vec![0.0; d], &symmetric(&[axis(d), farther, nearer]));
    });
}

#[test]
fn sums_of_f64_in_the_wrong_order_settle_nothing() {
    pass_on_each(machines(), "edges::sums_of_f64_in_the_wrong_order_settle_nothing", || {
        // Beside 1, four squares of 0.49 steps of f64 vanish, one of a whole step does not: the farther one is nearer in
        // f64. Every 32nd component is summed by one lane, in their order.
        let d = 161;
        let with = |small: f32, count: usize| {
            let value = move |t: usize| match t {
                0 => 1.0,
                t if t % 32 == 0 && t <= 32 * count => small,
                _ => 0.0,
            };
            (0..d).map(value).collect::<Vec<f32>>()
        };
        let (farther, nearer) = (with(0.7 * 2f32.powi(-26), 4), with(2f32.powi(-26), 1));
        let exact = AssignStats { exact: 5, ..AssignStats::default() };
        let stats = assert_exact("f64", vec![0.0; d], &symmetric(&[farther, nearer]));
        assert_eq!(stats, [exact; 2]);
        // Whole numbers whose sums of squares are 2^54 + 1 and 2^54, or 2^53 + 1 and 2^53, which f64 takes for equals;
        // the farther one comes first. In steps of 1 and of the smallest f32, a subnormal.
        for step in [1.0, f32::from_bits(1)] {
            let [large, less] = [2f32.powi(27) * step, 2f32.powi(26) * step];
            for [farther, nearer] in [[[large, 0.0, step], [large, 0.0, 0.0]], [[less, less, step], [less, less, 0.0]]]
            {
                let e = symmetric(&[farther.to_vec(), nearer.to_vec()]);
                assert_eq!(assert_exact("whole numbers", vec![0.0; 3], &e), [exact; 2]);
            }
        }
    });
}

#[test]
fn rows_are_counted_by_what_settled_them() {
    pass_on_each(machines(), "edges::rows_are_counted_by_what_settled_them", || {
        let none = AssignStats::default();
        let far_apart = symmetric(&[vec![4.0, 0.0], vec![0.0, 4.0]]);
        let stats = assert_exact("by the score", vec![3.0, 1.0], &far_apart);
        assert_eq!(stats[0], AssignStats { first: 5, ..none });
        // Scores are off by more than the two differ, direct differences are not.
        let side_by_side = symmetric(&[vec![1000.0, 0.015625], vec![1000.0, -0.015625]]);
        let stats = assert_exact("by direct f32 sums", vec![1000.0, -0.0078125], &side_by_side);
        // Tensor cores list what is left, and f64 sums compare it.
        let by_f64 = AssignStats { f64: 5, ..none };
        assert_eq!(stats, [if filter::has_lists() { by_f64 } else { AssignStats { second: 5, ..none } }, by_f64]);
        // These differ by 2^-28 of themselves.
        let nearly_equal = symmetric(&[vec![1.0, 2f32.powi(-14)], vec![1.0, 0.0]]);
        let stats = assert_exact("by f64 sums", vec![0.5, 0.0], &nearly_equal);
        assert_eq!(stats, [AssignStats { f64: 5, ..none }; 2]);
        // Equal sums just below the end of what f64 holds to the last bit: 2^52 + 1.
        let large = symmetric(&[vec![2f32.powi(26), 1.0], vec![2f32.powi(26), -1.0]]);
        let stats = assert_exact("by f64 sums that are exact", vec![0.0, 0.0], &large);
        assert_eq!(stats[1], AssignStats { f64: 5, ..none });
        let stats = assert_exact("by exact sums", vec![0.0, 0.0], &far_apart);
        assert_eq!(stats[0], AssignStats { exact: 5, ..none });
    });
}

#[test]
fn codewords_that_are_split_among_blocks_settle_what_they_settle_together() {
    let machines = machines().map(|machine| machine.set("CHECK", 0));
    pass_on_each(machines, "edges::codewords_that_are_split_among_blocks_settle_what_they_settle_together", || {
        let mut numbers = Numbers::new(92);
        let (n, k, d) = (100, 700, 20);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
        assert_same_labels("split", &got.labels, &reference::nearest(x.view(), e.view()).0, 1);
        // A codeword that two blocks had seen would be its own rival.
        assert!(got.stats.first >= 80, "{:?}", got.stats);
    });
}

#[test]
fn a_block_takes_several_tiles_of_codewords_where_rows_are_many() {
    let machines = machines().map(|machine| machine.set("CHECK", 0));
    pass_on_each(machines, "edges::a_block_takes_several_tiles_of_codewords_where_rows_are_many", || {
        // As many tiles of 128 rows as the card has places for blocks, more or less: nothing is left to split. Three
        // tiles of codewords, of two stages of tensor cores each.
        let mut numbers = Numbers::new(93);
        let (n, few, k, d) = (110 * 128 + 5, 37, 260, 40);
        let rows = numbers.gaussians(few * d);
        let x = matrix(rows.iter().copied().cycle().take(n * d).collect(), n, d);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
        let (labels, sq_distances) = reference::nearest(matrix(rows, few, d).view(), e.view());
        let labels: Vec<u32> = labels.into_iter().cycle().take(n).collect();
        assert_same_labels("many rows", &got.labels, &labels, 1);
        let sq_distances: Vec<f32> = sq_distances.into_iter().cycle().take(n).collect();
        assert_same_bits("many rows", &got.sq_distances, &sq_distances);
        assert!(got.stats.first as usize >= n * 3 / 4, "{:?}", got.stats);
    });
}

#[test]
fn fast_labels_of_equal_scores_are_the_lowest() {
    pass_on_each(machines(), "edges::fast_labels_of_equal_scores_are_the_lowest", || {
        // Corners of a cube, in small whole numbers, so that nothing is rounded: all of them, or half, are equally near,
        // and lie in all lanes of a row and in two tiles.
        let (k, d) = (256, 8);
        let sign = |at: usize| if ((at / d) >> (at % d)) & 1 == 1 { 1.0 } else { -1.0 };
        let e = matrix((0..k * d).map(sign).collect(), k, d);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let rows = (0..d).flat_map(|t| (0..d).map(move |s| if s == t { 2.0 } else { 0.0 }));
        let x = matrix(vec![0.0f32; d].into_iter().chain(rows).collect(), d + 1, d);
        let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
        let got = assign(x.view(), &codebook, options).unwrap();
        assert_eq!(got.labels, [0, 1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(got.labels, reference::nearest(x.view(), e.view()).0);
    });
}

#[test]
fn fast_labels_of_rows_too_far_out_for_a_score_are_the_nearest() {
    pass_on_each(machines(), "edges::fast_labels_of_rows_too_far_out_for_a_score_are_the_nearest", || {
        // The difference from the mean, -2.5e38, overflows.
        let (x, e) = (matrix(vec![3e38f32, 0.0], 1, 2), [-3e38f32, -2.5e38, -2e38, -2.6e38, -2.4e38]);
        let e = matrix(e.iter().flat_map(|&v| [v, 0.0]).collect(), 5, 2);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
        assert_eq!(assign(x.view(), &codebook, options).unwrap().labels, [2]);
        for r in 1..=5 {
            assert_eq!(top_k(x.view(), &codebook, r, options).unwrap().labels, [2, 4, 1, 3, 0][..r]);
        }
    });
}

#[test]
fn fast_distances_of_rows_whose_squared_norm_f32_cannot_hold_are_the_rounded_ones() {
    Machine::new().pass(
        "edges::fast_distances_of_rows_whose_squared_norm_f32_cannot_hold_are_the_rounded_ones",
        || {
            // More than a quarter of the largest f32, and less than it.
            let x = matrix(vec![1.5e19f32, 1e18, 1.0, 0.5, -1.8e19, 3.0], 3, 2);
            let e = symmetric(&[vec![1.0, 0.25], vec![3.0, 2.0]]);
            let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
            let got = pairwise_sq_l2(x.view(), &codebook, Precision::Fast).unwrap();
            let expected = reference::pairwise(x.view(), e.view());
            assert!(expected.iter().all(|v| v.is_finite()));
            for row in [0, 2] {
                assert_same_bits("far out", got.view().row(row), &expected[4 * row..][..4]);
            }
            // Row and codewords together are more than a quarter, though neither is, nor the row and half the codewords.
            let x = matrix([0.30f32, 0.31, 0.33, 0.35].map(|part| (part * f32::MAX / 4.0).sqrt()).to_vec(), 4, 1);
            let brain = rounded(&x, bf16::from_f32);
            let x = rounded(&x, |v| bf16::from_f32(v).to_f32());
            let e = symmetric(&[0.90f32, 0.85, 0.81].map(|part| vec![(part * f32::MAX / 4.0).sqrt()]));
            let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
            let expected = reference::pairwise(x.view(), e.view());
            for got in [
                pairwise_sq_l2(x.view(), &codebook, Precision::Fast),
                pairwise_sq_l2(brain.view(), &codebook, Precision::Fast),
            ] {
                assert_same_bits("together", got.unwrap().as_slice(), &expected);
            }
        },
    );
}

#[test]
fn distances_on_either_side_of_the_middle_of_two_f32_are_rounded_to_their_side() {
    Machine::new().pass("edges::distances_on_either_side_of_the_middle_of_two_f32_are_rounded_to_their_side", || {
        // 2^24 + 1, in the middle of two f32, less or more about 2^-46: nearer to it than f64 sums can tell.
        let part = 2f64.powf(-11.5) as f32;
        let row = |by: i32| [4096.0, 1.0 - 2f32.powi(-24), common::cases::step(part, by)];
        let x = matrix([row(-2), row(2)].concat(), 2, 3);
        let e = matrix(vec![0.0f32; 3], 1, 3);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
        assert_eq!(got.sq_distances, [16_777_216.0, 16_777_218.0]);
        assert_eq!(got.sq_distances, reference::nearest(x.view(), e.view()).1);
    });
}

#[test]
fn the_first_of_several_values_that_are_not_finite_is_named() {
    fn assert_named<T: Element + DeviceRepr>(x: &Matrix<T>, row: usize, col: usize) {
        let e = symmetric(&[axis(x.cols())]);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let Device::Cuda(context) = codebook.device() else { unreachable!("it was asked for") };
        let stream = context.new_stream().unwrap();
        let on_device = stream.clone_htod(x.as_slice()).unwrap();
        let (mut labels, mut sq_distances) =
            (stream.alloc_zeros(x.rows()).unwrap(), stream.alloc_zeros(x.rows()).unwrap());
        let mut workspace = Workspace::<T>::new(&codebook, &stream, x.rows()).unwrap();
        let view = cuda::MatrixView::new(&on_device, x.rows(), x.cols()).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        let on_device = workspace.check().map(|_| ());
        let on_host = assign(x.view(), &codebook, AssignOptions::default()).map(|_| ());
        for error in [on_device.unwrap_err(), on_host.unwrap_err()] {
            let named = matches!(error, Error::NonFinite { row: r, col: c, .. } if (r, c) == (row, col));
            assert!(named, "{row}, {col}: {error}");
        }
        // Where sentinels are wanted it is none of them.
        let options = AssignOptions { non_finite: NonFinite::Sentinel, ..AssignOptions::default() };
        let got = assign(x.view(), &codebook, options).unwrap();
        let bad = |i: usize| x.view().row(i).iter().any(|v| v.to_f32().is_nan());
        assert!((0..x.rows()).all(|i| (got.labels[i] == SENTINEL) == bad(i)), "{:?}", got.labels);
    }
    pass_on_each(machines(), "edges::the_first_of_several_values_that_are_not_finite_is_named", || {
        let (n, d) = (20, 100);
        let mut x = vec![1.0f32; n * d];
        // From the end on: later rows, lower and higher columns of the same 32, and others.
        for (row, col) in [(19, 0), (11, 99), (11, 98), (11, 66), (11, 34), (11, 40), (11, 3), (11, 2)] {
            x[row * d + col] = f32::NAN;
            if (row, col) < (11, 66) {
                assert_named(&matrix(x.clone(), n, d), row, x[row * d..].iter().position(|v| v.is_nan()).unwrap());
            }
        }
        assert_named(&matrix(x.iter().map(|&v| f16::from_f32(v)).collect(), n, d), 11, 2);
        assert_named(&matrix(x.iter().map(|&v| bf16::from_f32(v)).collect(), n, d), 11, 2);
    });
}

#[test]
fn sums_of_squares_have_the_bits_of_the_order_in_their_header() {
    Machine::new().pass("edges::sums_of_squares_have_the_bits_of_the_order_in_their_header", || {
        let mut numbers = Numbers::new(91);
        let (n, k, d) = (70usize, 5usize, 45usize);
        // Of different sizes: f64 rounds the sums of their squares.
        let mut draw = |count: usize| -> Vec<f32> {
            (0..count).map(|_| numbers.gaussian() * 2f32.powi(-(numbers.below(20) as i32))).collect()
        };
        let (x, e) = (draw(n * d), draw(k * d));
        let names: Vec<u32> = (0..n).map(|i| if i % 9 == 4 { u32::MAX } else { (i % k) as u32 }).collect();
        // Eight running sums over every eighth, added in pairs.
        let summed = |value: &dyn Fn(usize) -> f64| {
            let mut s = [0.0f64; 8];
            (0..d).for_each(|t| s[t % 8] += value(t) * value(t));
            ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
        };
        let mut expected = Vec::new();
        for (i, &name) in names.iter().enumerate() {
            let at = |t: usize| f64::from(x[i * d + t]);
            let off = |t: usize| at(t) - f64::from(e[name as usize % k * d + t]);
            expected.extend(if name == u32::MAX { [0.0; 2] } else { [summed(&at), summed(&off)] });
        }
        let (stream, kernel) = open("sq_sums", "sq_sums_f32");
        let [x, e] = [&x, &e].map(|it| stream.clone_htod(it).unwrap());
        let names = stream.clone_htod(&names).unwrap();
        let mut sums = stream.alloc_zeros::<f64>(2 * n).unwrap();
        let (n32, k32, d32, stride) = (n as u32, k as u32, d as u32, d as u64);
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&x).arg(&stride).arg(&e).arg(&names).arg(&mut sums).arg(&n32).arg(&k32).arg(&d32);
        // SAFETY: the arguments are those of sq_sums_f32, of the sizes that its header names; eight threads per row.
        unsafe { launch.launch(threads((8 * n).div_ceil(256) as u32, 256)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&sums).unwrap(), expected);

        // Blocks of rows, one row after the other.
        let (stream, kernel) = open("sq_sums", "sq_sums_blocks_f64");
        let sums: Vec<f64> = numbers.gaussians(2 * 1300).iter().map(|&v| f64::from(v) * 1.1).collect();
        let on_device = stream.clone_htod(&sums).unwrap();
        for block_rows in [1, 100, 256, 257, 512, 700, 1299, 1300, 2000] {
            let blocks = 1300usize.div_ceil(block_rows);
            let mut got = stream.alloc_zeros::<f64>(2 * blocks).unwrap();
            let (n32, rows32) = (1300u32, block_rows as u32);
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&on_device).arg(&mut got).arg(&n32).arg(&rows32);
            // SAFETY: the arguments are those of sq_sums_blocks_f64, of the sizes that its header names.
            unsafe { launch.launch(threads(blocks as u32, 32)) }.unwrap();
            let add = |rows: &[f64]| rows.chunks(2).fold([0.0; 2], |[a, b], row| [a + row[0], b + row[1]]);
            let expected: Vec<f64> = sums.chunks(2 * block_rows).flat_map(add).collect();
            assert_eq!(stream.clone_dtoh(&got).unwrap(), expected, "{block_rows}");
        }
    });
}

#[test]
fn scores_have_the_bits_of_the_order_in_their_header() {
    Machine::new().pass("edges::scores_have_the_bits_of_the_order_in_their_header", || {
        let (stream, kernel) = open("top_k", "top_k_scores_f32");
        let mut numbers = Numbers::new(94);
        // Chunks of 512 products each, in FMAs from zero on, that are then added up.
        for depth in [3usize, 512, 513, 1024, 1031, 1600, 2100] {
            let (n, m, k) = (3usize, 4usize, 5usize);
            let (rows, packed) = (numbers.gaussians(n * depth), numbers.gaussians(m * depth));
            let positions = [2u32, 0, 3, 1, 2];
            let chunk = |row: &[f32], e: &[f32]| row.iter().zip(e).fold(0.0f32, |sum, (z, e)| z.mul_add(*e, sum));
            let score = |row: &[f32], e: &[f32]| {
                let sums = row.chunks(512).zip(e.chunks(512)).map(|(row, e)| chunk(row, e));
                sums.reduce(|total, sum| total + sum).expect("there is a chunk")
            };
            let of = |j: u32| &packed[j as usize * depth..][..depth];
            let expected: Vec<f32> =
                rows.chunks(depth).flat_map(|row| positions.map(|position| score(row, of(position)))).collect();
            let [on_rows, on_packed] = [&rows, &packed].map(|it| stream.clone_htod(it).unwrap());
            let on_positions = stream.clone_htod(&positions).unwrap();
            let mut scores = stream.alloc_zeros::<f32>(n * k).unwrap();
            let (n32, k32, depth32) = (n as u32, k as u32, depth as u32);
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&on_rows).arg(&on_packed).arg(&on_positions).arg(&mut scores);
            launch.arg(&n32).arg(&k32).arg(&depth32);
            // SAFETY: the arguments are those of top_k_scores_f32, of the sizes that its header names; one tile.
            unsafe { launch.launch(threads(1, 256)) }.unwrap();
            assert_same_bits(&format!("depth {depth}"), &stream.clone_dtoh(&scores).unwrap(), &expected);
        }
    });
}

#[test]
fn sums_on_tensor_cores_start_from_zero_and_hold_nothing_beyond_the_width() {
    Machine::new().pass("edges::sums_on_tensor_cores_start_from_zero_and_hold_nothing_beyond_the_width", || {
        let (stream, kernel) = open("assign_tensor", "assign_tensor_f16");
        // One row of one number; of 129 codewords, in two tiles, the first and the last are in question: subnormals whose
        // products would be lost beside 1. The row's and the first codeword's low byte is full, the last one's empty:
        // read a second time beyond the width of 16, they would make the first the nearer.
        let (m, padded, width) = (129usize, 256usize, 16usize);
        let bits = [0x00ffu16, 0x0200];
        let mut row = vec![0u16; width];
        row[0] = bits[0];
        let mut codewords = vec![0u16; padded * width];
        codewords[0] = bits[0];
        codewords[128 * width] = bits[1];
        let expected = if f16::from_bits(bits[1]) > f16::from_bits(bits[0]) { 128u32 } else { 0 };
        let mut halves = vec![1e30f32; padded];
        (halves[0], halves[128]) = (0.0, 0.0);
        // The norm, the square and the rounding of the row count nothing; half of the codewords' squares count once.
        let facts = stream.clone_htod(&[0.0f32, 0.0, 0.0, -1.0]).unwrap();
        let [row, codewords] = [&row, &codewords].map(|it| stream.clone_htod(&in_tiles(it, width)).unwrap());
        let halves = stream.clone_htod(&halves).unwrap();
        let zeros = stream.alloc_zeros::<f32>(padded).unwrap();
        let of_codewords: Vec<u32> = (0..m as u32).collect();
        let (kinds, of_codewords) = (stream.alloc_zeros::<u32>(1).unwrap(), stream.clone_htod(&of_codewords).unwrap());
        let [mut labels, mut again, mut count] = [1, 1, 1].map(|len| stream.clone_htod(&vec![7u32; len]).unwrap());
        let mut parts = stream.alloc_zeros::<u32>(4).unwrap();
        let (mut thresholds, mut counts) =
            (stream.alloc_zeros::<f32>(1).unwrap(), stream.alloc_zeros::<u32>(1).unwrap());
        let (n32, m32, width32, fast) = (1u32, m as u32, width as u32, 1u32);
        let (unit, tiny) = (0.0f64, 0.0f64);
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&row).arg(&facts).arg(&kinds).arg(&codewords).arg(&zeros).arg(&zeros).arg(&halves);
        launch.arg(&of_codewords).arg(&mut labels).arg(&mut again).arg(&mut count);
        launch.arg(&mut thresholds).arg(&mut counts).arg(&mut parts);
        launch.arg(&n32).arg(&m32).arg(&width32).arg(&unit).arg(&tiny).arg(&fast);
        // SAFETY: the arguments are those of assign_tensor_f16, of the sizes that its header names; one tile of rows.
        unsafe { launch.launch(threads(1, TENSOR_THREADS)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&labels).unwrap(), [expected]);
    });
}
