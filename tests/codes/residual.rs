//! Residual quantization against codes that faiss made of real data, the slow way, and exhaustive search.

use crate::common;

use crate::common::{Numbers, assert_same_bits, data, matrix, rows, sq_l2};
use codeword::backend::reference;
use codeword::{Device, Error, Init, KMeans, Matrix, MatrixView, ResidualQuantizer, bf16};

/// Stages of random codewords, each a third of the one before.
fn random(numbers: &mut Numbers, m: usize, k: usize, d: usize) -> (Matrix<f32>, ResidualQuantizer) {
    let scale = |s: usize| 3f32.powi(-(s as i32));
    let codewords =
        (0..m).flat_map(|s| numbers.gaussians(k * d).into_iter().map(move |value| value * scale(s))).collect();
    let codewords = matrix(codewords, m * k, d);
    let quantizer = ResidualQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    (codewords, quantizer)
}

fn mean_error(x: &Matrix<f32>, decoded: &Matrix<f32>) -> f64 {
    (0..x.rows()).map(|i| sq_l2(x.view().row(i), decoded.view().row(i))).sum::<f64>() / x.rows() as f64
}

#[test]
fn every_stage_takes_the_codeword_nearest_to_what_is_left() {
    let mut numbers = Numbers::new(81);
    for (m, k, d, n) in
        [(1, 7, 3, 50), (3, 16, 5, 200), (4, 256, 16, 150), (2, 300, 40, 90), (5, 1, 2, 9), (3, 5, 1, 1)]
    {
        let (codewords, quantizer) = random(&mut numbers, m, k, d);
        let x = matrix(numbers.gaussians(n * d), n, d);
        let mut left = x.as_slice().to_vec();
        let mut sums = vec![0.0f32; n * d];
        let mut expected = vec![0; n * m];
        for s in 0..m {
            let stage = rows(&codewords, s * k..(s + 1) * k);
            let (labels, _) = reference::nearest(MatrixView::new(&left, n, d).unwrap(), stage);
            for (i, &label) in labels.iter().enumerate() {
                expected[i * m + s] = label;
                for t in 0..d {
                    let codeword = stage.row(label as usize)[t];
                    left[i * d + t] -= codeword;
                    sums[i * d + t] = if s == 0 { codeword } else { sums[i * d + t] + codeword };
                }
            }
            let codes = quantizer.encode(x.view()).unwrap();
            let partial = quantizer.decode_stages(&codes, s + 1).unwrap();
            assert_same_bits("partial sums", partial.as_slice(), &sums);
        }
        let codes = quantizer.encode(x.view()).unwrap();
        assert_eq!(quantizer.unpack(&codes).unwrap(), expected, "{m} x {k}, d={d}");
        assert_eq!(quantizer.pack(&expected).unwrap(), codes);
        assert_same_bits("sums", quantizer.decode(&codes).unwrap().as_slice(), &sums);
        assert_eq!((quantizer.m(), quantizer.k(), quantizer.d()), (m, k, d));
        assert_eq!(quantizer.encode_beam(x.view(), 1).unwrap(), codes, "a beam of one");
    }
}

#[test]
fn batches_threads_gaps_between_rows_and_elements_of_16_bits_change_no_byte() {
    let mut numbers = Numbers::new(82);
    let (m, k, d) = (3, 20, 6);
    // More rows than are worked on at a time.
    let n = common::scaled(20_000);
    let (_, quantizer) = random(&mut numbers, m, k, d);
    let values: Vec<bf16> = numbers.gaussians(n * 7).into_iter().map(bf16::from_f32).collect();
    let x = MatrixView::new(&values, n, 7).unwrap().columns(1..7).unwrap();
    let wide = matrix((0..n).flat_map(|i| x.row(i).iter().map(|v| v.to_f32())).collect(), n, d);
    let (greedy, beam) = (quantizer.encode(wide.view()).unwrap(), quantizer.encode_beam(wide.view(), 4).unwrap());
    assert_eq!(quantizer.encode(x).unwrap(), greedy);
    assert_eq!(quantizer.encode_beam(x, 4).unwrap(), beam);
    let parts: Vec<u8> =
        (0..n).step_by(997).flat_map(|i| quantizer.encode_beam(rows(&wide, i..n.min(i + 997)), 4).unwrap()).collect();
    assert_eq!(parts, beam);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            assert_eq!(quantizer.encode(wide.view()).unwrap(), greedy, "{threads} threads");
            assert_eq!(quantizer.encode_beam(rows(&wide, 0..500), 4).unwrap(), beam[..500 * quantizer.code_size()]);
        });
    }
}

#[test]
fn a_beam_that_keeps_everything_finds_the_nearest_of_all_sums() {
    let mut numbers = Numbers::new(83);
    for (m, k, d) in [(2, 5, 3), (3, 4, 2), (3, 6, 5), (1, 9, 2)] {
        // Whole numbers: nothing is rounded.
        let codewords = matrix(numbers.integers(m * k * d, 9), m * k, d);
        let quantizer = ResidualQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
        let x = matrix(numbers.integers(60 * d, 20), 60, d);
        let full = k.pow(m as u32 - 1).max(1);
        let decoded = quantizer.decode(&quantizer.encode_beam(x.view(), full).unwrap()).unwrap();
        let all: Vec<u32> =
            (0..k.pow(m as u32)).flat_map(|i| (0..m).map(move |s| (i / k.pow(s as u32) % k) as u32)).collect();
        let sums = quantizer.decode(&quantizer.pack(&all).unwrap()).unwrap();
        for i in 0..60 {
            let least =
                (0..sums.rows()).map(|j| sq_l2(x.view().row(i), sums.view().row(j))).fold(f64::INFINITY, f64::min);
            assert_eq!(sq_l2(x.view().row(i), decoded.view().row(i)), least, "{m} x {k}, d={d}, vector {i}");
        }
    }
}

#[test]
fn wider_beams_leave_less_error() {
    let mut numbers = Numbers::new(84);
    let (_, quantizer) = random(&mut numbers, 4, 32, 8);
    let x = matrix(numbers.gaussians(1500 * 8), 1500, 8);
    let error = |codes: Vec<u8>| mean_error(&x, &quantizer.decode(&codes).unwrap());
    let greedy = error(quantizer.encode(x.view()).unwrap());
    let errors: Vec<f64> = [1, 2, 5, 32].map(|beam| error(quantizer.encode_beam(x.view(), beam).unwrap())).to_vec();
    assert_eq!(errors[0], greedy);
    assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
}

#[test]
fn siftsmall_is_encoded_as_faiss_does() {
    let Some(_) = data::folder() else { return };
    let x = data::f32_matrix("siftsmall/base_f32.npy");
    let (codewords, shape) = data::array::<f32>("faiss_ref/rvq4x256_codebooks_f32.npy");
    assert_eq!(shape, [4, 256, 128]);
    let quantizer = ResidualQuantizer::new(matrix(codewords, 1024, 128).view(), 4, &Device::cpu()).unwrap();
    let (expected, _) = data::array::<u8>("faiss_ref/rvq4x256_codes_u8.npy");
    let codes = quantizer.encode(x.view()).unwrap();
    let differences = codes.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert_eq!((codes.len(), differences), (expected.len(), 0));
    let greedy = mean_error(&x, &quantizer.decode(&codes).unwrap());
    let beam = mean_error(&x, &quantizer.decode(&quantizer.encode_beam(x.view(), 8).unwrap()).unwrap());
    println!("mean squared error: greedy {greedy:.0}, with a beam of 8 {beam:.0}");
    assert!(beam < greedy);
}

#[test]
fn codebooks_of_a_speech_codec_give_back_their_own_sums() {
    let Some(_) = data::folder() else { return };
    let stages: Vec<f32> =
        (1..4).flat_map(|s| data::array::<f32>(&format!("lpcnet/ceps_codebook{s}_1024x17_f32.npy")).0).collect();
    let quantizer = ResidualQuantizer::new(matrix(stages, 3 * 1024, 17).view(), 3, &Device::cpu()).unwrap();
    let mut numbers = Numbers::new(85);
    let codes: Vec<u32> = (0..600 * 3).map(|_| numbers.below(1024) as u32).collect();
    let frames = quantizer.decode(&quantizer.pack(&codes).unwrap()).unwrap();
    let error = |codes: &[u8]| mean_error(&frames, &quantizer.decode(codes).unwrap());
    let (greedy, beam) =
        (error(&quantizer.encode(frames.view()).unwrap()), error(&quantizer.encode_beam(frames.view(), 32).unwrap()));
    println!("frames that are sums of codewords: mean squared error {greedy:.4} greedy, {beam:.4} with a beam of 32");
    // The sum itself leaves nothing; a beam finds it, or one nearly as near, more often.
    assert!(beam < 0.5 * greedy, "{beam} {greedy}");
}

#[test]
fn siftsmall_is_learned_as_well_as_faiss_learns_it() {
    let Some(_) = data::folder_for_figures() else { return };
    let (x, queries) = (data::f32_matrix("siftsmall/base_f32.npy"), data::f32_matrix("siftsmall/query_f32.npy"));
    let (truth, _) = data::array::<i32>("siftsmall/groundtruth_i32.npy");
    // golden/rvq_recall.py: mean squared error, and the share of the queries whose nearest vector comes first.
    let expected = [(2, 41047.0, 0.143), (4, 28095.0, 0.403), (8, 15706.0, 0.595)];
    let (seeds, apart) = common::seeds();
    let count = seeds.clone().count();
    let stages = if count == 1 { 4 } else { 8 };
    let (mut errors, mut found) = ([0.0; 8], [0; 8]);
    for seed in seeds {
        // Residuals of late stages are noise: a start that spreads codewords far ends some percent higher.
        let params = KMeans::new(256).init(Init::Progressive).seed(100 * seed);
        let quantizer = ResidualQuantizer::train(x.view(), stages, &params, &Device::cpu()).unwrap();
        let codes = quantizer.encode(x.view()).unwrap();
        let mut before = f64::INFINITY;
        for m in 1..=stages {
            // The first stages are learned as if there were no more.
            let decoded = quantizer.decode_stages(&codes, m).unwrap();
            let error = mean_error(&x, &decoded);
            assert!(error <= before, "stage {m} raises the error of what it was learned from: {error} {before}");
            before = error;
            errors[m - 1] += error / count as f64;
            let nearest = codeword::top_k(
                queries.view(),
                &codeword::Codebook::new(decoded.view(), &Device::cpu()).unwrap(),
                1,
                Default::default(),
            );
            let nearest = nearest.unwrap().labels;
            found[m - 1] += nearest.iter().enumerate().filter(|&(q, &id)| truth[q * 100] as u32 == id).count();
        }
    }
    for (m, expected, first) in expected.into_iter().filter(|&(m, ..)| m <= stages) {
        let (error, recall) = (errors[m - 1], found[m - 1] as f64 / (100 * count) as f64);
        println!(
            "{m} x 256: error {error:.0}, faiss {expected} ({:+.2} %); R@1 {recall:.3}, faiss {first}",
            100.0 * (error / expected - 1.0)
        );
        assert!(error <= 1.01 * expected, "{m} stages: {error}, faiss {expected}");
        assert!(recall >= first - apart, "{m} stages: {recall}, faiss {first}");
    }
}

#[test]
fn a_search_finds_the_nearest_decoded_vectors_with_ties_in_order() {
    let mut numbers = Numbers::new(86);
    let (m, k, d, n) = (3, 9, 4, 2000);
    let codewords = matrix(numbers.integers(m * k * d, 3), m * k, d);
    let quantizer = ResidualQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    let codes: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
    let codes = quantizer.pack(&codes).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    let queries = matrix(numbers.integers(7 * d, 5), 7, d);
    for r in [1, 60, n] {
        let got = quantizer.search(&codes, queries.view(), r).unwrap();
        for q in 0..7 {
            let distance = |i: usize| sq_l2(queries.view().row(q), decoded.view().row(i)) as f32;
            let mut all: Vec<(f32, u32)> = (0..n).map(|i| (distance(i), i as u32)).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let (distances, ids): (Vec<f32>, Vec<u32>) = all[..r].iter().copied().unzip();
            assert_eq!(got.ids[q * r..][..r], ids, "query {q}");
            assert_same_bits("distances", &got.sq_distances[q * r..][..r], &distances);
        }
    }
}

#[test]
fn a_search_goes_by_the_real_numbers_within_and_across_blocks() {
    // Squared distances of 1 + 2^-40 and 1, which f32 does not tell apart; and of 9e40 and 4e40, which are beyond it.
    for values in [[1.0, 2f32.powi(-20), 1.0, 0.0], [3e20, 0.0, 2e20, 0.0]] {
        let near = ResidualQuantizer::new(matrix(values.to_vec(), 2, 2).view(), 1, &Device::cpu()).unwrap();
        let codes = near.pack(&[0, 1]).unwrap();
        let query = matrix(vec![0.0; 2], 1, 2);
        assert_eq!(near.search(&codes, query.view(), 1).unwrap().ids, [1]);
        assert_eq!(near.search(&codes, query.view(), 2).unwrap().ids, [1, 0]);

        // So long that a block has 1024 vectors.
        let d = 8192;
        let mut codewords = vec![0.0; 2 * d];
        codewords[..2].copy_from_slice(&values[..2]);
        codewords[d..d + 2].copy_from_slice(&values[2..]);
        let long = ResidualQuantizer::new(matrix(codewords, 2, d).view(), 1, &Device::cpu()).unwrap();
        let numbers: Vec<u32> = (0..1100).map(|i| u32::from(i == 7 || i == 1060)).collect();
        let codes = long.pack(&numbers).unwrap();
        let got = long.search(&codes, matrix(vec![0.0; d], 1, d).view(), 1090).unwrap();
        let others = (0..1100).filter(|&i| i != 7 && i != 1060);
        assert_eq!(got.ids, [7, 1060].into_iter().chain(others).take(1090).collect::<Vec<u32>>());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let cpu = Device::cpu();
    let x = matrix((0..24).map(|i| i as f32).collect(), 8, 3);
    let text = |error: Error| error.to_string();
    let train = |m, k| text(ResidualQuantizer::train(x.view(), m, &KMeans::new(k), &cpu).err().unwrap());
    assert_eq!(train(0, 2), "ResidualQuantizer::train: m must be at least 1, got 0");
    assert!(train(2, 9).contains("9"), "{}", train(2, 9));
    let quantizer = ResidualQuantizer::new(matrix(vec![1.0; 4 * 3], 4, 3).view(), 2, &cpu).unwrap();
    let narrow = matrix(vec![0.0; 8], 4, 2);
    assert_eq!(
        text(quantizer.encode(narrow.view()).unwrap_err()),
        "ResidualQuantizer::encode: expected vectors of 3 columns, got 2"
    );
    assert_eq!(
        text(quantizer.encode_beam(x.view(), 0).unwrap_err()),
        "ResidualQuantizer::encode_beam: beam must be 1 to 256, got 0"
    );
    assert_eq!(
        text(quantizer.decode_stages(&[0], 3).unwrap_err()),
        "ResidualQuantizer::decode_stages: stages must be 1 to the 2 there are, got 3"
    );
    // The first vector that is not finite, and what a stage leaves of vectors that are.
    let mut bad = vec![0.0; 12];
    bad[7] = f32::NAN;
    for error in [
        quantizer.encode(matrix(bad.clone(), 4, 3).view()).unwrap_err(),
        quantizer.encode_beam(matrix(bad.clone(), 4, 3).view(), 2).unwrap_err(),
    ] {
        assert!(text(error).contains("vector 2 holds NaN in column 1"));
    }
    let far = ResidualQuantizer::new(matrix(vec![f32::MAX; 6], 2, 3).view(), 2, &cpu).unwrap();
    let mut values = vec![0.0; 9];
    values[3..6].fill(-f32::MAX);
    let values = matrix(values, 3, 3);
    for error in [far.encode(values.view()).unwrap_err(), far.encode_beam(values.view(), 3).unwrap_err()] {
        assert!(text(error).contains("residual 1 holds -inf in column 0; scale"), "vector 1 is left at minus infinity");
    }
    let error = far.search(&[0, 0], x.view(), 1).unwrap_err();
    assert!(text(error).contains("code 0 holds inf in column 0; scale"));
    // No vectors at all.
    assert_eq!(quantizer.encode(matrix::<f32>(vec![], 0, 3).view()).unwrap(), [0u8; 0]);
    assert_eq!(quantizer.encode_beam(matrix::<f32>(vec![], 0, 3).view(), 2).unwrap(), [0u8; 0]);
    assert_eq!(quantizer.decode(&[]).unwrap().rows(), 0);
}
