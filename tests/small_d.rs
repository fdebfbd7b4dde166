//! Vectors of few dimensions, which the CPU has passes of their own for: data that make their bounds count, sizes around
//! panels of 8 and 16 codewords, tiles of 8 to 64 rows and blocks of 1024, and rows that the pass cannot take.

mod common;

use codeword::{AssignOptions, Error, MatrixView, NonFinite, SENTINEL, assign, bf16, f16};
use common::{Numbers, assert_assign_exact, cases, codebook, is_small, matrix, scaled};

/// With their negatives: their mean is zero, so that nothing is centred. A codeword and its rival of the second list
/// end up in different panels.
fn in_two_panels(mut codewords: Vec<f32>, rivals: Vec<f32>, d: usize) -> Vec<f32> {
    assert_eq!(codewords.len(), 16 * d);
    codewords.extend(rivals);
    let negatives: Vec<f32> = codewords.iter().map(|v| -v).collect();
    [codewords, negatives].concat()
}

/// The middle of a and b, moved by about `length` along a direction that is almost in the mirror plane.
fn beside_the_middle(a: &[f32], b: &[f32], length: f32, numbers: &mut Numbers) -> Vec<f32> {
    let mut along: Vec<f32> = numbers.gaussians(a.len());
    let gap: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    let off = dot(&along, &gap) / dot(&gap, &gap);
    along.iter_mut().zip(&gap).for_each(|(v, gap)| *v -= off * gap);
    (0..a.len()).map(|t| (a[t] + b[t]) / 2.0 + length * along[t]).collect()
}

#[test]
fn every_size_around_a_panel_and_a_tile() {
    let mut numbers = Numbers::new(71);
    let codewords = (1..=20).chain([31, 32, 33, 47, 48, 49]);
    for (count, k) in codewords.enumerate() {
        for d in 1..=17 {
            if is_small() && (k + d) % 5 != 0 {
                continue;
            }
            let n = [1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 129][(count + 3 * d) % 13];
            let (x, e) = match (count + d) % 2 {
                0 => (numbers.integers(n * d, 2), numbers.integers(k * d, 2)),
                _ => (numbers.gaussians(n * d), numbers.gaussians(k * d)),
            };
            assert_assign_exact(&format!("{n} x {k} x {d}"), matrix(x, n, d).view(), matrix(e, k, d).view());
        }
    }
}

#[test]
fn adversarial_data_of_every_few_dimensions() {
    for (n, k, d) in [(67, 37, 1), (41, 70, 2), (35, 53, 4), (50, 33, 5), (45, 129, 8), (39, 40, 11), (33, 290, 16)] {
        for case in cases::adversarial(scaled(n), scaled(k), d) {
            assert_assign_exact(&case.name, case.x.view(), case.codewords.view());
        }
    }
}

#[test]
fn what_summing_products_costs() {
    // Rows a few roundings from the middle of a codeword and its rival, and long: rounded products decide the sums.
    let mut numbers = Numbers::new(72);
    for d in [2, 4, 8, 13, 16] {
        for length in [1.0, 30.0, 1e4] {
            let codewords = numbers.gaussians(16 * d);
            let rivals: Vec<f32> = codewords.iter().map(|v| v + numbers.gaussian() / 4.0).collect();
            let mut rows = Vec::new();
            for i in 0..scaled(600) {
                let (a, b) = (&codewords[i % 16 * d..][..d], &rivals[i % 16 * d..][..d]);
                rows.extend(beside_the_middle(a, b, length, &mut numbers));
            }
            let (n, e) = (rows.len() / d, in_two_panels(codewords, rivals, d));
            let name = format!("rounded products, d = {d}, rows {length:e} long");
            assert_assign_exact(&name, matrix(rows, n, d).view(), matrix(e, 64, d).view());
        }
    }
}

#[test]
fn what_summing_norms_costs() {
    // Rows so short that their products are lost beside the norms, which are the same but for the last bits.
    let mut numbers = Numbers::new(73);
    for d in [3, 4, 8, 16] {
        for length in [1e-5, 1e-6, 1e-7] {
            let codewords = numbers.gaussians(16 * d);
            let flipped = |numbers: &mut Numbers| {
                codewords.iter().map(|v| if numbers.below(2) == 0 { *v } else { -v }).collect::<Vec<_>>()
            };
            let (first, second) = (flipped(&mut numbers), flipped(&mut numbers));
            let e =
                in_two_panels(first, second.iter().map(|v| cases::step(*v, numbers.below(3) as i32 - 1)).collect(), d);
            // The shortest codeword and its signs are all that matters: rows at rest decide between these.
            let n = scaled(3000);
            let rows = numbers.gaussians(n * d).into_iter().map(|v| v * length).collect();
            let name = format!("rounded norms, d = {d}, rows {length:e} long");
            assert_assign_exact(&name, matrix(rows, n, d).view(), matrix(e, 64, d).view());
        }
    }
}

#[test]
fn what_underflow_costs() {
    // In the scale of the one long codeword, the others and their products with the rows are subnormal or lost.
    let mut numbers = Numbers::new(74);
    let (n, k, d) = (scaled(300), 70, 6);
    for long in [1.0, 1e38] {
        for scale in [1e-7, 1e-8, 1e-18, 1e-20, 1e-22, 1e-30, 1e-38, 1e-42] {
            let mut draw = |count: usize| numbers.gaussians(count).into_iter().map(|v| v * scale).collect::<Vec<f32>>();
            let (rows, mut codewords) = (draw(n * d), draw(k * d));
            codewords[40 * d..41 * d].fill(long);
            let name = format!("{scale:e} beside {long:e}");
            assert_assign_exact(&name, matrix(rows, n, d).view(), matrix(codewords, k, d).view());
            // Long rows: what a subnormal codeword lost counts as often.
            let mut codewords = draw(k * d);
            codewords[40 * d..41 * d].fill(long);
            let rows = (0..n * d).map(|i| [long, -long][usize::from(i % 5 < 2)] * (1.0 + (i % 7) as f32)).collect();
            let (rows, codewords) = (matrix::<f32>(rows, n, d), matrix(codewords, k, d));
            if rows.as_slice().iter().all(|v| v.is_finite()) {
                assert_assign_exact(&format!("rows beyond, {name}"), rows.view(), codewords.view());
            }
        }
    }
}

#[test]
fn what_f32_differences_cost() {
    // Panels far from the others, so that nothing but sums of differences decides; with AVX2 and from 7 dimensions on, where
    // panels are of 8 codewords, rivals are in two and integers leave the rows to direct sums. Rows a rounding from the middle of two
    // codewords that are as good as one, seen from there.
    let mut numbers = Numbers::new(78);
    for d in [1, 3, 4, 8, 11, 16] {
        for gap in [0.1, 1e-3, 1e-5] {
            let codewords = numbers.gaussians(8 * d);
            let rivals: Vec<f32> = codewords.iter().map(|v| v + gap * numbers.gaussian()).collect();
            let mut rows = Vec::new();
            for i in 0..scaled(600) {
                let (a, b) = (&codewords[i % 8 * d..][..d], &rivals[i % 8 * d..][..d]);
                rows.extend(beside_the_middle(a, b, 0.3, &mut numbers));
            }
            let far = numbers.gaussians(16 * d).into_iter().map(|v| v + 50.0).collect();
            let (n, e) = (rows.len() / d, [codewords, rivals, far].concat());
            let name = format!("f32 differences, d = {d}, {gap:e} apart");
            assert_assign_exact(&name, matrix(rows, n, d).view(), matrix(e, 32, d).view());
        }
    }
}

#[test]
fn squares_that_f32_loses() {
    // Every square of the first codeword is below half of the smallest f32, and lost; the one of the second is not.
    let mut codewords = [[2.6e-23f32; 6], [3.3e-23, 0.0, 0.0, 0.0, 0.0, 0.0]].concat();
    codewords.extend((2..16).flat_map(|j| [1e-20 * j as f32; 6]));
    codewords.extend((0..16).flat_map(|j| [1e-15 * (1 + j) as f32; 6]));
    assert_assign_exact("lost squares", matrix(vec![0.0; 6], 1, 6).view(), matrix(codewords, 32, 6).view());
}

#[test]
fn one_long_codeword_weakens_its_panel_alone() {
    let (n, k, d) = (scaled(6000), 256, 8);
    let mut numbers = Numbers::new(75);
    let (x, plain) = (numbers.gaussians(n * d), numbers.gaussians(k * d));
    let mut long = plain.clone();
    long[k / 2 * d..][..d].iter_mut().for_each(|v| *v *= 1e4);
    let open = |e: Vec<f32>| {
        let stats = assert_assign_exact("long", matrix(x.clone(), n, d).view(), matrix(e, k, d).view()).stats;
        (n as u64 - stats.first) as f64 / n as f64
    };
    let (before, after) = (open(plain), open(long));
    println!("not settled by the first pass: {before:.4} before, {after:.4} after");
    // Integers leave 0.0090 of all rows; a share of few rows varies more.
    let most = if is_small() { 0.02 } else { 0.01 };
    assert!(before < most && after - before < 0.02 + 16.0 / k as f64, "{before} before, {after} after");
}

#[test]
fn rows_that_the_pass_cannot_take_stand_among_others() {
    // Two blocks and a part of a tile; a row beyond the range of the pass now and then, and some without a number.
    let (n, k, d) = (2051, 45, 5);
    let mut numbers = Numbers::new(76);
    let (mut x, e) = (numbers.gaussians(n * d), numbers.gaussians(k * d));
    for i in (0..n).step_by(37) {
        x[i * d + i % d] = [1e19, -3e38, 1e30][i % 3];
    }
    let e = matrix(e, k, d);
    let clean = matrix(x.clone(), n, d);
    let expected = assert_assign_exact("wild rows", clean.view(), e.view());
    let bad = [5, 6, 31, 1023, 1024, 2050];
    for (&i, value) in bad.iter().zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle()) {
        x[i * d + i % d] = value;
    }
    let (x, codebook) = (matrix(x, n, d), codebook(e.view()));
    let error = assign(x.view(), &codebook, AssignOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { row: 5, col: 0, .. }), "{error}");
    let options = AssignOptions { non_finite: NonFinite::Sentinel, ..Default::default() };
    let got = assign(x.view(), &codebook, options).unwrap();
    for i in 0..n {
        if bad.contains(&i) {
            assert_eq!(got.labels[i], SENTINEL, "row {i}");
            assert!(got.sq_distances[i].is_nan(), "row {i}");
        } else {
            assert_eq!(got.labels[i], expected.labels[i], "row {i}");
            assert_eq!(got.sq_distances[i].to_bits(), expected.sq_distances[i].to_bits(), "row {i}");
        }
    }
    assert_eq!(common::total(got.stats), (n - bad.len()) as u64);
}

#[test]
fn blocks_strides_and_element_types() {
    let (k, d, stride) = (40, 7, 12);
    let mut numbers = Numbers::new(77);
    let e = matrix(numbers.gaussians(k * d), k, d);
    for n in [1023, 1024, 1025, 2049] {
        let n = scaled(n);
        let mut data = vec![f32::NAN; n * stride];
        for row in data.chunks_exact_mut(stride) {
            row[3..3 + d].copy_from_slice(&numbers.gaussians(d));
        }
        let x = MatrixView::new(&data, n, stride).unwrap().columns(3..3 + d).unwrap();
        assert_assign_exact(&format!("strided {n}"), x, e.view());
        let halves: Vec<f16> = data.iter().map(|&v| f16::from_f32(v)).collect();
        let x = MatrixView::new(&halves, n, stride).unwrap().columns(3..3 + d).unwrap();
        assert_assign_exact(&format!("f16 {n}"), x, e.view());
        let brains: Vec<bf16> = data.iter().map(|&v| bf16::from_f32(v)).collect();
        let x = MatrixView::new(&brains, n, stride).unwrap().columns(3..3 + d).unwrap();
        assert_assign_exact(&format!("bf16 {n}"), x, e.view());
    }
}

#[test]
fn many_codewords_of_few_dimensions() {
    // Enough for codewords that lie together to be looked at alone: random ones, clusters, ties on a grid, repetitions, and
    // rows of every distance.
    let mut numbers = Numbers::new(77);
    for (k, d) in [(16_384, 1), (16_384, 2), (8200, 3), (8192, 4), (9000, 5)] {
        let n = scaled(60);
        let gaussian = numbers.gaussians(k * d);
        let mut clusters = gaussian.clone();
        for (j, row) in clusters.chunks_exact_mut(d).enumerate() {
            row.iter_mut().for_each(|v| *v = *v * 0.01 + (j % 7) as f32);
        }
        let mut repeated = gaussian.clone();
        repeated.copy_within(..k / 3 * d, k / 2 * d);
        let grid = numbers.integers(k * d, [30_000, 200, 30, 12, 8][d - 1]);
        for (name, e) in [("gaussian", gaussian), ("clusters", clusters), ("repeated", repeated), ("grid", grid)] {
            let mut x = numbers.gaussians(n * d);
            for (i, row) in x.chunks_exact_mut(d).enumerate() {
                let scale = [1.0, 1.0, 3.0, 0.0, 1e3, 1e9, 1e25, 1e-25][i % 8];
                row.iter_mut().for_each(|v| *v *= scale);
                if i % 8 == 1 {
                    // Halfway between two codewords, or on a grid as far from many.
                    let [a, b] = [i * 37 % k, i * 91 % k].map(|j| &e[j * d..][..d]);
                    row.iter_mut().zip(a.iter().zip(b)).for_each(|(v, (a, b))| *v = (a + b) / 2.0);
                }
            }
            assert_assign_exact(&format!("{name}, {k} x {d}"), matrix(x, n, d).view(), matrix(e, k, d).view());
        }
    }
}

#[test]
fn rows_that_are_not_finite_beside_many_codewords() {
    let mut numbers = Numbers::new(78);
    let (n, k, d) = (40, 8192, 4);
    let (mut x, e) = (numbers.gaussians(n * d), matrix(numbers.gaussians(k * d), k, d));
    x[7 * d + 1] = f32::NAN;
    x[20 * d] = f32::INFINITY;
    let options = AssignOptions { non_finite: NonFinite::Sentinel, ..Default::default() };
    let got = assign(matrix(x.clone(), n, d).view(), &codebook(e.view()), options).unwrap();
    let refused = assign(matrix(x.clone(), n, d).view(), &codebook(e.view()), AssignOptions::default());
    assert!(matches!(refused, Err(Error::NonFinite { row: 7, .. })), "{refused:?}");
    assert_eq!((got.labels[7], got.labels[20]), (SENTINEL, SENTINEL));
    let rest: Vec<usize> = (0..n).filter(|&i| i != 7 && i != 20).collect();
    let rows: Vec<f32> = rest.iter().flat_map(|&i| x[i * d..][..d].to_vec()).collect();
    let expected = assert_assign_exact("finite", matrix(rows, rest.len(), d).view(), e.view());
    let labels: Vec<u32> = rest.iter().map(|&i| got.labels[i]).collect();
    assert_eq!(labels, expected.labels);
}

#[test]
fn what_rounding_to_integers_costs() {
    // Norms of signs in 16 dimensions, and of fillers half as long again, are 2^15 units at most where the unit is 2^-12.
    let (d, unit) = (16, 1.0 / 4096.0);
    let mut numbers = Numbers::new(79);
    for _ in 0..scaled(40) {
        let signs: Vec<f32> = (0..d).map(|_| [1.0, -1.0][numbers.below(2)]).collect();
        // Nine components with one part of a unit more, seven with another, at random places.
        let mut mixed = |many: f32, few: f32| {
            let mut parts: Vec<f32> = (0..d).map(|t| if t < 9 { many } else { few }).collect();
            (1..d).rev().for_each(|t| parts.swap(t, numbers.below(t + 1)));
            signs.iter().zip(parts).map(|(sign, part)| sign * (1.0 + part * unit)).collect::<Vec<f32>>()
        };
        // A row across the signs and their negatives: nearer to the signs by a little, but not once it is rounded.
        let across: Vec<f32> = mixed(0.49, -0.51).iter().zip(&signs).map(|(value, sign)| value - sign).collect();
        // Codewords next to a row: the nearer one loses by rounding, the farther one does not.
        let (near, far) = (mixed(0.485, 0.485), mixed(0.49, 0.505));
        let filler =
            |i: usize| signs.iter().enumerate().map(move |(t, sign)| if t == i { -1.5 * sign } else { 1.5 * sign });
        let fillers: Vec<f32> = (0..16).flat_map(filler).collect();
        let between = |first: &[f32], second: &[f32]| {
            let codewords = [first, &fillers, second].concat();
            let negatives: Vec<f32> = codewords.iter().map(|v| -v).collect();
            [codewords, negatives].concat()
        };
        for (name, rows, codewords) in [
            ("rounded row", &across, between(&signs, &fillers[..0])),
            ("rounded codewords", &signs, between(&near, &far)),
            ("rounded codewords side by side", &signs, between(&[&near[..], &far].concat(), &[])),
        ] {
            let k = codewords.len() / d;
            assert_assign_exact(name, matrix(rows.repeat(3), 3, d).view(), matrix(codewords, k, d).view());
        }
    }
}

#[test]
fn rows_that_centring_takes_beyond_f32_are_labelled_all_the_same() {
    // Codewords around a mean near the end of the range, rows near the other end: a difference is no f32.
    let mut numbers = Numbers::new(82);
    for d in [4, 7, 8, 11, 16, 24] {
        let (n, k) = (40, 40);
        let codewords = (0..k * d).map(|_| 2e38 * (1.0 + 0.01 * numbers.gaussian())).collect();
        let rows =
            (0..n).flat_map(|i| vec![[2e38, -2e38, 1.9e38][i % 3]; d]).map(|v| v * (1.0 + 0.01 * numbers.gaussian()));
        let (x, e) = (matrix(rows.collect(), n, d), matrix(codewords, k, d));
        assert_assign_exact(&format!("beyond f32, d = {d}"), x.view(), e.view());
    }
}

#[test]
fn sums_of_integers_at_the_end_of_their_range() {
    for d in [8, 11, 16] {
        let limit = (32_768.0 - 0.5 * (d as f32).sqrt() - 1.0) / (d as f32).sqrt();
        for factor in [0.999_999, 1.0, 1.000_001, 1.5] {
            let along = |part: f32| vec![part * factor * limit; d];
            let parts: Vec<f32> = (0..10).map(|i| 1.0 - 0.07 * i as f32).collect();
            let codewords: Vec<f32> = parts.iter().flat_map(|&part| [along(part), along(-part)].concat()).collect();
            let rows = [1.0, 0.999_95, 0.75, 0.6, 1e-3, -1.0, -0.75, 2.0, -1e4, 1e30, 0.0].map(along).concat();
            assert_assign_exact("long", matrix(rows, 11, d).view(), matrix(codewords, 20, d).view());
        }
    }
}

#[test]
fn ties_of_codewords_far_apart_in_the_order_of_the_search() {
    // A lattice whose labels fall where its coordinates rise. Rows halfway between two of its points; the second coordinate
    // is so small that f64 sums are not exact, and only exact ones know that the two are as near.
    let (side, n) = (128, 127);
    let codewords: Vec<f32> = (0..side * side).rev().flat_map(|j| [(j / side) as f32, (j % side) as f32]).collect();
    let rows: Vec<f32> = (0..n).flat_map(|i| [i as f32 + 0.5, 1.234_567e-12]).collect();
    let got = assert_assign_exact("lattice", matrix(rows, n, 2).view(), matrix(codewords, side * side, 2).view());
    assert_eq!(got.stats.exact, n as u64, "{:?}", got.stats);
}
