//! Rotations learned with product quantizers: exact sums, never worse than without, the same bytes everywhere.

use crate::common;

use crate::common::{Numbers, assert_same_bits, data, matrix, scaled, sq_l2};
use codeword::{
    Device, Error, Init, Isa, KMeans, Matrix, MatrixView, OptimizedProductQuantizer, ProductQuantizer, Step, bf16,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// The test that children run.
const LEARN: &str = "optimized::as_child_learn";

/// Mean squared error of a vector.
fn msqe(x: &Matrix<f32>, decoded: &Matrix<f32>) -> f64 {
    assert_eq!((x.rows(), x.cols()), (decoded.rows(), decoded.cols()));
    let errors = (0..x.rows()).map(|i| sq_l2(x.view().row(i), decoded.view().row(i)));
    errors.sum::<f64>() / x.rows() as f64
}

fn msqe_of_product(x: &Matrix<f32>, quantizer: &ProductQuantizer) -> f64 {
    msqe(x, &quantizer.decode(&quantizer.encode(x.view()).unwrap()).unwrap())
}

fn msqe_of(x: &Matrix<f32>, quantizer: &OptimizedProductQuantizer) -> f64 {
    msqe(x, &quantizer.decode(&quantizer.encode(x.view()).unwrap()).unwrap())
}

/// The largest entry of R^T R - I and R R^T - I, in f64.
fn off_orthogonal(rotation: &Matrix<f32>) -> f64 {
    let (d, r) = (rotation.rows(), rotation.as_slice());
    assert_eq!(d, rotation.cols());
    let mut off = 0.0f64;
    for a in 0..d {
        for b in 0..d {
            let of_rows: f64 = (0..d).map(|t| f64::from(r[a * d + t]) * f64::from(r[b * d + t])).sum();
            let of_columns: f64 = (0..d).map(|t| f64::from(r[t * d + a]) * f64::from(r[t * d + b])).sum();
            off = off.max((of_rows - f64::from(a == b)).abs()).max((of_columns - f64::from(a == b)).abs());
        }
    }
    off
}

/// Each component of the rows times a matrix: one f64 sum of products from the first on, rounded once.
fn product(x: &Matrix<f32>, by: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let component = |i: usize, j: usize| {
        let terms = x.view().row(i).iter().enumerate().map(|(t, &value)| f64::from(value) * f64::from(by(t, j)));
        terms.fold(0.0, |sum, term| sum + term) as f32
    };
    (0..x.rows()).flat_map(|i| (0..x.cols()).map(move |j| (i, j))).map(|(i, j)| component(i, j)).collect()
}

/// Gaussians with a random covariance whose eigenvalues fall by `fall` from one to the next, and with a mean.
fn correlated(numbers: &mut Numbers, n: usize, d: usize, fall: f32) -> Matrix<f32> {
    let mixing = numbers.gaussians(d * d);
    let mean = numbers.gaussians(d);
    let mut values = Vec::with_capacity(n * d);
    for _ in 0..n {
        let source: Vec<f32> = (0..d).map(|t| numbers.gaussian() * fall.powi(t as i32)).collect();
        let mixed = |j: usize| (0..d).map(|t| source[t] * mixing[t * d + j]).sum::<f32>() + mean[j];
        values.extend((0..d).map(mixed));
    }
    matrix(values, n, d)
}

/// A turn by 3-4-5 in the planes of dimensions 0 and 1, 2 and 3 and so on, then of 1 and 2, 3 and 4.
fn turned(d: usize) -> Matrix<f32> {
    let mut r: Vec<f32> = (0..d * d).map(|i| if i % (d + 1) == 0 { 1.0 } else { 0.0 }).collect();
    for j in (0..d.saturating_sub(1)).step_by(2).chain((1..d.saturating_sub(1)).step_by(2)) {
        for row in r.chunks_exact_mut(d) {
            (row[j], row[j + 1]) = (0.6 * row[j] - 0.8 * row[j + 1], 0.8 * row[j] + 0.6 * row[j + 1]);
        }
    }
    matrix(r, d, d)
}

/// A quantizer of random codewords behind [`turned`].
fn random(numbers: &mut Numbers, m: usize, k: usize, width: usize) -> OptimizedProductQuantizer {
    let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
    let product = ProductQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    OptimizedProductQuantizer::new(turned(m * width), product).unwrap()
}

fn bytes(quantizer: &OptimizedProductQuantizer) -> u64 {
    let mut hasher = DefaultHasher::new();
    quantizer.rotation().as_slice().iter().for_each(|value| value.to_bits().hash(&mut hasher));
    for codebook in quantizer.product().codebooks() {
        let codewords = codebook.codewords().unwrap();
        (0..codebook.k()).flat_map(|j| codewords.row(j)).for_each(|value| value.to_bits().hash(&mut hasher));
    }
    hasher.finish()
}

#[test]
fn vectors_are_rotated_and_rotated_back_by_the_documented_sums() {
    let mut numbers = Numbers::new(81);
    for (n, m, k, width) in [(1, 1, 2, 1), (7, 3, 5, 1), (8, 2, 16, 4), (9, 1, 3, 13), (67, 4, 17, 5), (200, 7, 40, 19)]
    {
        let quantizer = random(&mut numbers, m, k, width);
        let (d, r) = (m * width, quantizer.rotation().as_slice());
        let x = matrix(numbers.gaussians(n * d), n, d);
        let rotated = quantizer.rotate(x.view()).unwrap();
        assert_same_bits("rotated", rotated.as_slice(), &product(&x, |t, j| r[t * d + j]));

        let codes = quantizer.encode(x.view()).unwrap();
        assert_eq!(codes, quantizer.product().encode(rotated.view()).unwrap());
        let decoded = quantizer.decode(&codes).unwrap();
        let before = quantizer.product().decode(&codes).unwrap();
        assert_same_bits("decoded", decoded.as_slice(), &product(&before, |t, j| r[j * d + t]));
        // Codewords of random numbers are farther from each other than from themselves rotated and rotated back.
        assert_eq!(quantizer.encode(decoded.view()).unwrap(), codes, "{n} x {d}");
    }
}

#[test]
fn elements_of_16_bits_gaps_between_rows_and_batches_change_no_byte() {
    let mut numbers = Numbers::new(82);
    // More rows than are rotated at a time.
    let (n, few) = (scaled(40_000), numbers.gaussians(1009 * 9));
    let quantizer = random(&mut numbers, 4, 20, 2);
    let values: Vec<bf16> = (0..n * 9).map(|i| bf16::from_f32(few[i % few.len()])).collect();
    let x = MatrixView::new(&values, n, 9).unwrap().columns(1..9).unwrap();
    let wide = matrix((0..n).flat_map(|i| x.row(i).iter().map(|v| v.to_f32())).collect(), n, 8);
    let codes = quantizer.encode(wide.view()).unwrap();
    assert_eq!(quantizer.encode(x).unwrap(), codes);
    let parts = (0..n).step_by(777).flat_map(|i| quantizer.encode(x.row_range(i..n.min(i + 777)).unwrap()).unwrap());
    assert!(parts.eq(codes.iter().copied()));
    assert_eq!(quantizer.rotate(x).unwrap(), quantizer.rotate(wide.view()).unwrap());
    let queries = x.row_range(0..3).unwrap();
    let rotated = quantizer.rotate(queries).unwrap();
    let found = quantizer.search(&codes, queries, 50).unwrap();
    assert_eq!(found, quantizer.product().search(&codes, rotated.view(), 50).unwrap());
}

#[test]
fn distances_are_those_to_the_decoded_vectors() {
    let mut numbers = Numbers::new(83);
    let (n, m, width) = (400, 6, 4);
    let d = m * width;
    let quantizer = random(&mut numbers, m, 256, width);
    let x = matrix(numbers.gaussians(n * d), n, d);
    let queries = matrix(numbers.gaussians(5 * d), 5, d);
    let codes = quantizer.encode(x.view()).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    let got = quantizer.search(&codes, queries.view(), n).unwrap();
    for q in 0..5 {
        for (&id, &sq_distance) in got.ids[q * n..][..n].iter().zip(&got.sq_distances[q * n..]) {
            let (query, vector) = (queries.view().row(q), decoded.view().row(id as usize));
            let real = sq_l2(query, vector);
            // Query and vector are rounded to f32 once each when they are rotated, the rotation was before; the sums as of
            // a product quantizer.
            let lengths = sq_l2(query, &vec![0.0; d]).sqrt() + sq_l2(vector, &vec![0.0; d]).sqrt();
            let bound = 2f64.powi(-24) * (2.0 * m as f64 * real + 8.0 * lengths * (real.sqrt() + lengths * 1e-7));
            assert!((f64::from(sq_distance) - real).abs() <= bound, "{sq_distance}, {real}, {bound:e}");
        }
    }
}

#[test]
fn never_worse_than_a_product_quantizer_on_what_it_learned_from() {
    let mut numbers = Numbers::new(84);
    let cpu = Device::cpu();
    for (n, d, m, k, fall) in [
        (scaled(2000), 16, 4, 16, 0.8),
        (scaled(1500), 24, 8, 8, 0.9),
        (scaled(1500), 15, 5, 32, 1.0),
        (scaled(1000), 12, 12, 4, 0.7),
        (scaled(900), 14, 2, 64, 0.5),
        (scaled(900), 10, 1, 20, 0.5),
    ] {
        let x = correlated(&mut numbers, n, d, fall);
        for params in
            [KMeans::new(k).seed(3), KMeans::new(k).init(Init::RandomRows).iterations(2), KMeans::new(k).minibatch(64)]
        {
            let plain = msqe_of_product(&x, &ProductQuantizer::train(x.view(), m, &params, &cpu).unwrap());
            let mut before = plain;
            for outer in [0, 1, 10] {
                let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, outer, &cpu).unwrap();
                let off = off_orthogonal(quantizer.rotation());
                assert!(off <= 1e-5, "{n} x {d}, m={m}: {off:e} off an orthogonal matrix");
                let optimized = msqe_of(&x, &quantizer);
                println!("{n} x {d}, m={m}, k={k}, {outer} times: {plain:.4}, with a rotation {optimized:.4}");
                assert!(optimized <= plain * (1.0 + 1e-12), "{n} x {d}, m={m}: {optimized}, without {plain}");
                // More steps go on from the end of fewer, and what is rotated is rounded to f32.
                assert!(optimized <= before * (1.0 + 1e-5), "{n} x {d}, m={m}, {outer} times: {optimized}, {before}");
                before = optimized;
            }
        }
    }
}

#[test]
fn strong_correlations_are_made_use_of() {
    let mut numbers = Numbers::new(85);
    for (n, d, m, k) in [(scaled(4000), 32, 8, 16), (scaled(3000), 20, 4, 64)] {
        let x = correlated(&mut numbers, n, d, 0.75);
        let params = KMeans::new(k.min(n / 4));
        let plain = msqe_of_product(&x, &ProductQuantizer::train(x.view(), m, &params, &Device::cpu()).unwrap());
        let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, 20, &Device::cpu()).unwrap();
        let optimized = msqe_of(&x, &quantizer);
        println!("{n} x {d}, m={m}, k={k}: {plain:.3}, with a rotation {optimized:.3}");
        assert!(optimized < 0.7 * plain, "{optimized}, without {plain}");
    }
}

#[test]
fn data_that_is_no_cloud_is_learned_from_all_the_same() {
    let cpu = Device::cpu();
    let mut numbers = Numbers::new(86);
    let train = |x: &Matrix<f32>, m, k| {
        let params = KMeans::new(k);
        let plain = msqe_of_product(x, &ProductQuantizer::train(x.view(), m, &params, &cpu).unwrap());
        let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, 5, &cpu).unwrap();
        assert!(off_orthogonal(quantizer.rotation()) <= 1e-5);
        let optimized = msqe_of(x, &quantizer);
        assert!(optimized <= plain * (1.0 + 1e-12), "{optimized}, without {plain}");
        (optimized, quantizer)
    };
    let identity = |d: usize| (0..d * d).map(|i| if i % (d + 1) == 0 { 1.0 } else { 0.0 }).collect::<Vec<f32>>();

    // One dimension, one part: no rotation.
    let (_, quantizer) = train(&matrix(numbers.gaussians(50), 50, 1), 1, 4);
    assert_eq!(quantizer.rotation().as_slice(), [1.0]);
    // All rows equal, or zero: nothing is lost, and nothing is rotated.
    for value in [0.0, 3.25, 1e30] {
        let (error, quantizer) = train(&matrix(vec![value; 30 * 6], 30, 6), 3, 4);
        assert_eq!((error, quantizer.rotation().as_slice()), (0.0, identity(6).as_slice()));
    }
    // Rows in a plane of twelve dimensions; dimensions that are always 0; a part as wide as a number.
    let (left, right) = (numbers.gaussians(300 * 2), numbers.gaussians(2 * 12));
    let plane = |i: usize| left[i / 12 * 2] * right[i % 12] + left[i / 12 * 2 + 1] * right[12 + i % 12];
    for m in [3, 12] {
        train(&matrix((0..300 * 12).map(plane).collect(), 300, 12), m, 16);
    }
    let sparse: Vec<f32> =
        (0..200 * 8).map(|i| if i % 3 == 0 && i % 8 < 5 { numbers.gaussian() } else { 0.0 }).collect();
    train(&matrix(sparse, 200, 8), 4, 8);
    // As many rows as codewords, and fewer than dimensions.
    train(&matrix(numbers.gaussians(5 * 16), 5, 16), 2, 5);
    // Of any size.
    for scale in [1e-42, 1e-20, 1e15] {
        let x = correlated(&mut numbers, 300, 8, 0.7);
        train(&matrix(x.as_slice().iter().map(|v| v * scale).collect(), 300, 8), 4, 8);
    }
    // Rotated, some would leave f32: without a rotation none does.
    let huge: Vec<f32> = (0..40 * 4).map(|i| if i / 4 % 2 == 0 { 3.4e38 } else { -3.3e38 }).collect();
    train(&matrix(huge, 40, 4), 2, 2);
}

#[test]
fn siftsmall_is_encoded_better_than_without_a_rotation() {
    let Some(_) = data::folder_for_figures() else { return };
    let (x, queries) = (data::f32_matrix("siftsmall/base_f32.npy"), data::f32_matrix("siftsmall/query_f32.npy"));
    let (truth, _) = data::array::<i32>("siftsmall/groundtruth_i32.npy");
    // Mean squared errors, and R@1, 10, 100, after 20 times: 20127, .54 .91 1.0 with m = 8; 9206, .73 .98 1.0 with m = 16.
    let all = [(8, 256, 5, 0.95), (16, 256, 3, 0.97)];
    for &(m, k, outer, part) in if common::seeds().0.count() == 1 { &all[..1] } else { &all } {
        let (params, start) = (KMeans::new(k), Instant::now());
        let product = ProductQuantizer::train(x.view(), m, &params, &Device::cpu()).unwrap();
        let (plain, of_product) = (msqe_of_product(&x, &product), start.elapsed());
        let start = Instant::now();
        let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, outer, &Device::cpu()).unwrap();
        let time = start.elapsed();
        let optimized = msqe_of(&x, &quantizer);
        let codes = quantizer.encode(x.view()).unwrap();
        let got = quantizer.search(&codes, queries.view(), 100).unwrap();
        let recall = |r: usize| {
            let of_query = |q: &usize| got.ids[q * 100..][..r].contains(&(truth[q * 100] as u32));
            (0..queries.rows()).filter(of_query).count() as f64 / queries.rows() as f64
        };
        let recalls = [1, 10, 100].map(recall);
        println!(
            "{m} x {k}, {outer} times: {plain:.0} in {of_product:.1?}, with a rotation {optimized:.0} in {time:.1?}, R@1, 10, \
             100 {recalls:?}"
        );
        assert!(off_orthogonal(quantizer.rotation()) <= 1e-5);
        assert!(optimized <= part * plain, "{optimized}, without {plain}");
    }
}

#[test]
fn the_rotation_that_hides_a_product_of_few_vectors_is_found() {
    // Four vectors in each of four parts, and a turn by 5-12-13 that mixes the parts.
    let mut numbers = Numbers::new(88);
    let (n, d, m) = (600, 8, 4);
    let mut values = Vec::new();
    for _ in 0..n {
        let mut row: Vec<f32> =
            (0..m).flat_map(|_| [[3.0, 1.0], [-3.0, 1.0], [1.0, 4.0], [0.0, -3.0]][numbers.below(4)]).collect();
        for j in [1, 3, 5] {
            let (a, b) = (row[j], row[j + 1]);
            (row[j], row[j + 1]) = ((12.0 * a - 5.0 * b) / 13.0, (5.0 * a + 12.0 * b) / 13.0);
        }
        values.extend(row);
    }
    let x = matrix(values, n, d);
    let params = KMeans::new(4).n_init(5);
    let plain = msqe_of_product(&x, &ProductQuantizer::train(x.view(), m, &params, &Device::cpu()).unwrap());
    let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, 50, &Device::cpu()).unwrap();
    let optimized = msqe_of(&x, &quantizer);
    println!("{plain:.4}, with a rotation {optimized:e}");
    assert!(plain > 1.0 && optimized < 1e-6, "{optimized}, without {plain}");
}

#[test]
fn a_training_ends_where_it_is_told_to_while_a_rotation_is_sought() {
    let mut numbers = Numbers::new(88);
    let x = correlated(&mut numbers, 300, 40, 0.9);
    let train = |ends_at: usize| {
        let (mut sought, mut last) = (0, None);
        let fit =
            OptimizedProductQuantizer::train_with(x.view(), 4, &KMeans::new(5), 2, &Device::cpu(), |round, _, step| {
                last = Some((round, step));
                sought += usize::from(step == Step::Rotation);
                if sought == ends_at {
                    Err(Error::Shape { op: "told", expected: "to go on".into(), got: "an end".into() })
                } else {
                    Ok(())
                }
            });
        (fit.err().map(|error| error.to_string()), sought, last)
    };
    let (ended, all, _) = train(usize::MAX);
    assert_eq!(ended, None);
    // Four rotations, each in many steps, and the principal components.
    assert!(all > 4 * 10, "{all}");
    for ends_at in [1, 2, all / 2, all] {
        let (ended, sought, last) = train(ends_at);
        assert!(ended.is_some() && sought == ends_at, "{ended:?}, {sought}");
        assert!(matches!(last, Some((_, Step::Rotation))), "nothing is told after it: {last:?}");
    }
}

/// Cases that are learned with every number of threads and every instruction set.
fn learned() -> Vec<u64> {
    let mut numbers = Numbers::new(87);
    // Of more than 192 dimensions threads share what a principal axis takes.
    let cases = [(scaled(3000), 33, 3, 20), (scaled(2000), 16, 8, 7), (scaled(1000), 10, 2, 50), (400, 194, 2, 5)];
    let learn = |(n, d, m, k)| {
        let x = correlated(&mut numbers, n, d, 0.9);
        bytes(&OptimizedProductQuantizer::train(x.view(), m, &KMeans::new(k), 4, &Device::cpu()).unwrap())
    };
    cases.map(learn).to_vec()
}

#[test]
fn every_number_of_threads_learns_the_same_bytes() {
    let expected = learned();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(learned), expected, "{threads} threads");
    }
}

#[test]
fn every_instruction_set_learns_the_same_bytes() {
    let expected = format!("learned {:x?}", learned());
    for isa in Isa::available().into_iter().map(Isa::name) {
        let output = common::child(LEARN, isa);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&expected), "{isa}: {expected}, got {text}");
    }
}

#[test]
fn as_child_learn() {
    if common::is_child(LEARN) {
        println!("learned {:x?}", learned());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let cpu = Device::cpu();
    let text = |error: Option<Error>| error.expect("an error").to_string();
    let x = matrix((0..48).map(|i| (i * i % 17) as f32).collect(), 8, 6);
    let train = |x: &Matrix<f32>, m, k| {
        let error = OptimizedProductQuantizer::train(x.view(), m, &KMeans::new(k), 3, &cpu).err();
        let of_product = ProductQuantizer::train(x.view(), m, &KMeans::new(k), &cpu).err();
        let error = text(error);
        assert_eq!(error, text(of_product));
        error
    };
    assert!(train(&x, 4, 2).contains("m must be a divisor of the 6 dimensions"));
    assert!(train(&x, 0, 2).contains("m must be a divisor"));
    assert!(train(&x, 2, 70_000).contains("k must be 1 to 65536"));
    assert!(train(&x, 2, 9).contains("expected at least 9 vectors, as many as codewords, got 8"));
    assert!(train(&matrix(vec![], 0, 6), 2, 1).contains("at least 1 vectors"));
    let mut bad = x.as_slice().to_vec();
    (bad[7 * 6], bad[2 * 6 + 5]) = (f32::NAN, f32::INFINITY);
    let bad = matrix(bad, 8, 6);
    assert!(train(&bad, 2, 2).contains("vector 2 holds inf in column 5"));

    let product = ProductQuantizer::train(x.view(), 2, &KMeans::new(3), &cpu).unwrap();
    let new = |r: Matrix<f32>| text(OptimizedProductQuantizer::new(r, product.clone()).err());
    assert!(new(turned(5)).contains("a rotation of 6 x 6, as the quantizer has 6 dimensions, got 5 x 5"));
    assert!(new(matrix(vec![0.0; 30], 6, 5)).contains("got 6 x 5"));
    let with = |at: usize, value: f32| {
        let mut r = turned(6).as_slice().to_vec();
        r[at] = value;
        new(matrix(r, 6, 6))
    };
    assert!(with(2 * 6 + 1, f32::NAN).contains("row of the rotation 2 holds NaN in column 1"));
    assert!(with(35, 100.0).contains("rotation must be orthogonal"));
    let mut scaled = turned(6).as_slice().to_vec();
    scaled.iter_mut().skip(4).step_by(6).for_each(|value| *value *= 1.00002);
    assert!(new(matrix(scaled.clone(), 6, 6)).contains("got 1.00004"));
    scaled.iter_mut().skip(4).step_by(6).for_each(|value| *value *= 0.99998);
    assert!(OptimizedProductQuantizer::new(matrix(scaled, 6, 6), product.clone()).is_ok());
    // A reflection is as good.
    let mut mirror = turned(6).as_slice().to_vec();
    mirror.iter_mut().step_by(6).for_each(|value| *value = -*value);
    assert!(OptimizedProductQuantizer::new(matrix(mirror, 6, 6), product.clone()).is_ok());

    let quantizer = OptimizedProductQuantizer::new(turned(6), product).unwrap();
    for error in [
        quantizer.rotate(bad.view()).err(),
        quantizer.encode(bad.view()).err(),
        quantizer.search(&[0], bad.view(), 1).err(),
    ] {
        let error = text(error);
        assert!(error.starts_with("OptimizedProductQuantizer::"), "{error}");
        assert!(error.contains("vector 2 holds inf in column 5; remove the vector"), "{error}");
    }
    // The row of all, not of the block.
    let mut late = vec![0.0f32; 16_500 * 6];
    (late[16_390 * 6 + 3], late[16_400 * 6]) = (f32::NAN, f32::NAN);
    let error = text(quantizer.encode(matrix(late, 16_500, 6).view()).err());
    assert!(error.contains("vector 16390 holds NaN in column 3"), "{error}");
    let mut huge = vec![1.0f32; 18];
    huge[6..12].fill(f32::MAX);
    let error = text(quantizer.encode(matrix(huge, 3, 6).view()).err());
    assert!(error.contains("rotated vector 1 holds inf") && error.contains("scale the vectors down"), "{error}");

    let narrow = matrix(vec![0.0; 5], 1, 5);
    for error in [
        quantizer.rotate(narrow.view()).err(),
        quantizer.encode(narrow.view()).err(),
        quantizer.search(&[0], narrow.view(), 1).err(),
    ] {
        let error = text(error);
        assert!(error.contains("vectors of 6 columns, 3 for each of 2 parts, got 5"), "{error}");
    }
    assert!(matches!(quantizer.decode(&[0b1111]), Err(Error::CodeOutOfRange { position: 0, code: 3, k: 3, .. })));
    assert!(text(quantizer.search(&[0], x.view(), 2).err()).contains("r must be 1 to the 1 codes there are, got 2"));
    // Nothing at all is no error.
    let empty = MatrixView::new(&[] as &[f32], 0, 6).unwrap();
    assert_eq!(quantizer.rotate(empty).unwrap().rows(), 0);
    assert!(quantizer.encode(empty).unwrap().is_empty());
    assert_eq!(quantizer.decode(&[]).unwrap().rows(), 0);
    assert!(quantizer.search(&[0], empty, 1).unwrap().ids.is_empty());
}
