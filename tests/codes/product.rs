//! Product quantization against what faiss made of real data, exact arithmetic, and codes packed bit by bit.

use crate::common;

use crate::common::{Numbers, assert_same_bits, cut, data, matrix, rows, sq_l2};
use codeword::backend::reference;
use codeword::{Device, Error, KMeans, Matrix, MatrixView, ProductQuantizer, Step, bf16, f16};

/// Sub-quantizers of random codewords.
fn random(numbers: &mut Numbers, m: usize, k: usize, width: usize) -> (Matrix<f32>, ProductQuantizer) {
    let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
    let quantizer = ProductQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    (codewords, quantizer)
}

/// Numbers as a row of bits, the lowest first, in whole bytes for each vector.
fn packed_bit_by_bit(numbers: &[u32], m: usize, bits: usize) -> Vec<u8> {
    let mut codes = Vec::new();
    for of_vector in numbers.chunks(m) {
        let bits: Vec<u8> = of_vector.iter().flat_map(|&n| (0..bits).map(move |b| (n >> b & 1) as u8)).collect();
        codes.extend(bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(b, bit)| bit << b).sum::<u8>()));
    }
    codes
}

#[test]
fn codes_are_the_nearest_codewords_in_as_few_bits_as_they_need() {
    let mut numbers = Numbers::new(71);
    for (m, k, bits) in [
        (3, 1, 1),
        (9, 2, 1),
        (5, 3, 2),
        (7, 16, 4),
        (4, 17, 5),
        (3, 100, 7),
        (6, 256, 8),
        (5, 300, 9),
        (2, 4096, 12),
        (3, 40000, 16),
    ] {
        let (n, width) = (if k > 1000 { 20 } else { 90 }, 3);
        let (codewords, quantizer) = random(&mut numbers, m, k, width);
        assert_eq!((quantizer.m(), quantizer.k(), quantizer.d(), quantizer.bits()), (m, k, 3 * m, bits));
        assert_eq!(quantizer.code_size(), (m * bits as usize).div_ceil(8));
        let x = matrix(numbers.gaussians(n * m * width), n, m * width);
        let mut expected = vec![0; n * m];
        for s in 0..m {
            let part = cut(x.view(), s * width..(s + 1) * width);
            let (labels, _) = reference::nearest(part.view(), rows(&codewords, s * k..(s + 1) * k));
            labels.iter().enumerate().for_each(|(i, &label)| expected[i * m + s] = label);
        }
        let codes = quantizer.encode(x.view()).unwrap();
        assert_eq!(codes, packed_bit_by_bit(&expected, m, bits as usize), "m={m}, k={k}");
        assert_eq!(quantizer.unpack(&codes).unwrap(), expected);
        assert_eq!(quantizer.pack(&expected).unwrap(), codes);

        let decoded = quantizer.decode(&codes).unwrap();
        for (i, of_vector) in expected.chunks(m).enumerate() {
            for (s, &number) in of_vector.iter().enumerate() {
                let codeword = codewords.view().row(s * k + number as usize);
                assert_eq!(&decoded.view().row(i)[s * width..][..width], codeword);
            }
        }
        // Codewords are all different.
        assert_eq!(quantizer.encode(decoded.view()).unwrap(), codes, "m={m}, k={k}: of decoded vectors");
    }
}

#[test]
fn elements_of_16_bits_gaps_between_rows_batches_and_threads_change_no_byte() {
    let mut numbers = Numbers::new(72);
    // More rows than are encoded at a time.
    let (n, m, k, width) = (common::scaled(40_000), 4, 20, 2);
    let (_, quantizer) = random(&mut numbers, m, k, width);
    let few = numbers.gaussians(1009 * 9);
    let values: Vec<bf16> = (0..n * 9).map(|i| bf16::from_f32(few[i % few.len()])).collect();
    let x = MatrixView::new(&values, n, 9).unwrap().columns(1..9).unwrap();
    let wide = matrix((0..n).flat_map(|i| x.row(i).iter().map(|v| v.to_f32())).collect(), n, 8);
    let expected = quantizer.encode(wide.view()).unwrap();
    assert_eq!(quantizer.encode(x).unwrap(), expected);
    let in_parts: Vec<u8> =
        (0..n).step_by(777).flat_map(|i| quantizer.encode(rows(&wide, i..n.min(i + 777))).unwrap()).collect();
    assert_eq!(in_parts, expected);
    let found = quantizer.search(&expected, rows(&wide, 0..3), 50).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| quantizer.encode(wide.view()).unwrap()), expected, "{threads} threads");
        assert!(pool.install(|| quantizer.search(&expected, rows(&wide, 0..3), 50).unwrap()) == found);
    }
    let halves: Vec<f16> = (0..24).map(|i| f16::from_f32(i as f32 / 8.0)).collect();
    let halves = MatrixView::new(&halves, 3, 8).unwrap();
    let wide = matrix((0..24).map(|i| i as f32 / 8.0).collect(), 3, 8);
    assert_eq!(quantizer.encode(halves).unwrap(), quantizer.encode(wide.view()).unwrap());
}

/// What a search finds is what the documented sums say, those of equal distance in order.
fn assert_finds_the_nearest(m: usize, codewords: &Matrix<f32>, numbers: &[u32], queries: &Matrix<f32>, r: usize) {
    let (k, width) = (codewords.rows() / m, codewords.cols());
    let quantizer = ProductQuantizer::new(codewords.view(), m, &Device::cpu()).unwrap();
    let got = quantizer.search(&quantizer.pack(numbers).unwrap(), queries.view(), r).unwrap();
    let tables = quantizer.lut(queries.view()).unwrap();
    for q in 0..queries.rows() {
        let mut table = Vec::new();
        for s in 0..m {
            let part = cut(rows(queries, q..q + 1), s * width..(s + 1) * width);
            table.extend(reference::pairwise(part.view(), rows(codewords, s * k..(s + 1) * k)));
        }
        assert_same_bits("table", &tables[q * m * k..][..m * k], &table);
        let distance = |code: &[u32]| {
            code.iter().enumerate().fold(0.0f32, |sum, (s, &number)| sum + table[s * k + number as usize])
        };
        let mut all: Vec<(f32, u32)> = numbers.chunks(m).map(distance).zip(0..).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (expected, ids): (Vec<f32>, Vec<u32>) = all[..r].iter().copied().unzip();
        assert_eq!(got.ids[q * r..][..r], ids, "m={m}, k={k}, query {q}");
        assert_same_bits("distances", &got.sq_distances[q * r..][..r], &expected);
    }
}

#[test]
fn a_search_finds_all_nearest_codes_by_the_documented_sums_with_ties_in_order() {
    let mut numbers = Numbers::new(73);
    for (m, k, n, r) in [
        (1, 256, 700, 700),
        (5, 256, 1003, 40),
        (8, 256, 70_001, 100),
        (12, 16, 70_001, 3),
        (3, 300, 500, 7),
        (7, 16, 500, 9),
        (4, 5, 333, 333),
        (9, 100, 3000, 50),
        (21, 2, 2001, 30),
        (6, 4, 2003, 30),
        (5, 40, 2005, 30),
        (2, 100, 2007, 30),
        (7, 128, 2009, 30),
        (3, 40, 2011, 30),
        (2, 32, 2013, 30),
        (1, 8, 2015, 30),
    ] {
        let n = common::scaled(n).max(r.min(n));
        let r = r.min(n);
        let width = 2;
        // Whole numbers: distances are often equal.
        let codewords = matrix(numbers.integers(m * k * width, 3), m * k, width);
        let codes: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
        // More queries than are searched for at a time.
        let count = if n > 10_000 { 3 } else { 140 };
        let queries = matrix((0..count * m * width).map(|_| numbers.gaussian()).collect(), count, m * width);
        assert_finds_the_nearest(m, &codewords, &codes, &queries, r);
    }
}

#[test]
fn what_follows_the_last_number_of_a_code_counts_for_nothing() {
    let mut numbers = Numbers::new(78);
    for (m, k, bits) in [(3, 16, 12), (1, 8, 3), (2, 100, 14), (3, 2, 3)] {
        let n = 3000;
        let (_, quantizer) = random(&mut numbers, m, k, 2);
        let x = matrix(numbers.gaussians(n * m * 2), n, m * 2);
        let queries = matrix(numbers.gaussians(70 * m * 2), 70, m * 2);
        let mut codes = quantizer.encode(x.view()).unwrap();
        let expected = quantizer.search(&codes, queries.view(), 10).unwrap();
        let size = quantizer.code_size();
        codes.chunks_mut(size).for_each(|code| code[size - 1] |= (numbers.below(256) << (bits % 8)) as u8);
        assert!(quantizer.search(&codes, queries.view(), 10).unwrap() == expected, "{m} x {k}");
    }
}

#[test]
fn a_search_loses_no_code_whatever_the_distances_are() {
    let mut numbers = Numbers::new(75);
    for (m, k) in [(6, 256), (9, 16), (300, 16), (120, 200)] {
        let n = common::scaled(3000);
        // Values of one size, tiny or beyond the square root of the largest f32, of all sizes, and few different ones.
        for kind in 0..5 {
            let mut value = || match kind {
                0 => 1e-23 * numbers.gaussian(),
                1 => 1e19 * numbers.gaussian(),
                2 => numbers.gaussian() * 10f32.powi(numbers.below(30) as i32 - 15),
                3 => numbers.below(2) as f32,
                _ => 0.0,
            };
            let codewords = matrix((0..m * k).map(|_| value()).collect(), m * k, 1);
            let mut queries: Vec<f32> = (0..4 * m).map(|_| value()).collect();
            let codes: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
            // One that is a vector of the last code: nothing lies nearer.
            for (s, &number) in codes[(n - 1) * m..].iter().enumerate() {
                queries[s] = codewords.as_slice()[s * k + number as usize];
            }
            assert_finds_the_nearest(m, &codewords, &codes, &matrix(queries, 4, m), 20);
        }
        // Codes that come nearer and nearer, each below the limit of all before.
        let codewords = matrix((0..m * k).map(|j| (j % k) as f32).collect(), m * k, 1);
        let codes: Vec<u32> = (0..n).rev().flat_map(|i| (0..m).map(move |s| ((i + s) % n * k / n) as u32)).collect();
        assert_finds_the_nearest(m, &codewords, &codes, &matrix(vec![0.0; m], 1, m), 1);
    }
}

#[test]
fn threads_that_share_what_they_have_found_find_the_same() {
    let mut numbers = Numbers::new(77);
    // Long codes, of which a thread goes through few at a time; their distances are often equal.
    let (m, k, n) = (130, 16, common::scaled(40_000));
    let codewords = matrix(numbers.integers(m * k, 1), m * k, 1);
    let mut codes: Vec<u32> = (0..n * m).map(|_| numbers.below(k) as u32).collect();
    // The same codes again at the end.
    codes.copy_within(..n / 4 * m, n * 3 / 4 * m);
    let queries = matrix(numbers.integers(3 * m, 2), 3, m);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for r in [1, 50] {
            pool.install(|| assert_finds_the_nearest(m, &codewords, &codes, &queries, r));
        }
    }
}

#[test]
fn symmetric_distances_are_those_between_codewords() {
    let mut numbers = Numbers::new(76);
    let (m, k, width, n) = (5, 40, 3, 700);
    let (codewords, quantizer) = random(&mut numbers, m, k, width);
    let x = matrix(numbers.gaussians(n * m * width), n, m * width);
    let codes = quantizer.encode(x.view()).unwrap();
    let queries = quantizer.encode(rows(&x, 100..109)).unwrap();
    let got = quantizer.search_symmetric(&codes, &queries, 30).unwrap();
    let (numbers, of_queries) = (quantizer.unpack(&codes).unwrap(), quantizer.unpack(&queries).unwrap());
    for (q, query) in of_queries.chunks(m).enumerate() {
        let distance = |code: &[u32]| {
            let codeword = |s: usize, number: u32| codewords.view().row(s * k + number as usize);
            (0..m).fold(0.0f32, |sum, s| sum + sq_l2(codeword(s, query[s]), codeword(s, code[s])) as f32)
        };
        let mut all: Vec<(f32, u32)> = numbers.chunks(m).map(distance).zip(0..).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let ids: Vec<u32> = all[..30].iter().map(|&(_, id)| id).collect();
        assert_eq!(got.ids[q * 30..][..30], ids, "query {q}");
        // A vector's own code is at no distance; the first of those with the same code comes first.
        assert_eq!((got.sq_distances[q * 30], all[0].0), (0.0, 0.0));
    }
}

#[test]
fn distances_are_those_to_the_decoded_vectors() {
    let mut numbers = Numbers::new(74);
    let (n, m, width) = (400, 6, 4);
    let (_, quantizer) = random(&mut numbers, m, 256, width);
    let x = matrix(numbers.gaussians(n * m * width), n, m * width);
    let queries = matrix(numbers.gaussians(5 * m * width), 5, m * width);
    let codes = quantizer.encode(x.view()).unwrap();
    let decoded = quantizer.decode(&codes).unwrap();
    let got = quantizer.search(&codes, queries.view(), n).unwrap();
    let (mut of_distances, mut of_vectors) = (0.0, 0.0);
    for q in 0..5 {
        for (&id, &sq_distance) in got.ids[q * n..][..n].iter().zip(&got.sq_distances[q * n..]) {
            let (query, id) = (queries.view().row(q), id as usize);
            let real = sq_l2(query, decoded.view().row(id));
            // m entries rounded once each, and m sums of them.
            assert!((f64::from(sq_distance) - real).abs() <= 2.0 * m as f64 * 2f64.powi(-24) * real);
            of_distances += (sq_l2(query, x.view().row(id)).sqrt() - f64::from(sq_distance).sqrt()).powi(2);
            of_vectors += sq_l2(x.view().row(id), decoded.view().row(id));
        }
    }
    // Jegou, Douze, Schmid 2011, section III-C: the error of distances is at most that of the quantizer.
    assert!(of_distances <= of_vectors, "{of_distances} {of_vectors}");
}

#[test]
fn siftsmall_is_encoded_and_searched_as_faiss_does() {
    let Some(_) = data::folder() else { return };
    let (x, queries) = (data::f32_matrix("siftsmall/base_f32.npy"), data::f32_matrix("siftsmall/query_f32.npy"));
    for m in [8, 16] {
        let (codewords, shape) = data::array::<f32>(&format!("faiss_ref/pq_m{m}_codebook_f32.npy"));
        assert_eq!(shape, [m, 256, 128 / m]);
        let quantizer = ProductQuantizer::new(matrix(codewords, m * 256, 128 / m).view(), m, &Device::cpu()).unwrap();
        let (expected, _) = data::array::<u8>(&format!("faiss_ref/pq_m{m}_codes_u8.npy"));
        let codes = quantizer.encode(x.view()).unwrap();
        let differences = codes.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!((codes.len(), differences), (expected.len(), 0), "m={m}");

        let got = quantizer.search(&codes, queries.view(), 100).unwrap();
        let (ids, _) = data::array::<i32>(&format!("faiss_ref/pq_m{m}_adc_top100_ids_i32.npy"));
        let (distances, _) = data::array::<f32>(&format!("faiss_ref/pq_m{m}_adc_top100_dist_f32.npy"));
        let decoded = quantizer.decode(&codes).unwrap();
        let mut compared = 0;
        for q in 0..queries.rows() {
            let real = |id: u32| sq_l2(queries.view().row(q), decoded.view().row(id as usize));
            let of_query = &got.ids[q * 100..][..100];
            for p in 0..100 {
                let (ours, theirs) = (f64::from(got.sq_distances[q * 100 + p]), f64::from(distances[q * 100 + p]));
                assert!((ours - theirs).abs() <= 1e-5 * theirs, "m={m}, query {q}, place {p}: {ours}, faiss {theirs}");
                // The last has no neighbour to compare with.
                let apart = |a: u32, b: u32| (real(a) - real(b)).abs() > 1e-6 * real(a);
                let before = p == 0 || apart(of_query[p], of_query[p - 1]);
                if before && p < 99 && apart(of_query[p], of_query[p + 1]) {
                    assert_eq!(i64::from(of_query[p]), i64::from(ids[q * 100 + p]), "m={m}, query {q}, place {p}");
                    compared += 1;
                }
            }
        }
        println!("m={m}: {compared} of 10000 places are apart from their neighbours, all with the ids of faiss");
        assert!(compared > 9000, "{compared}");
    }
}

#[test]
fn siftsmall_is_learned_as_well_as_faiss_learns_it() {
    let Some(_) = data::folder_for_figures() else { return };
    let (x, queries) = (data::f32_matrix("siftsmall/base_f32.npy"), data::f32_matrix("siftsmall/query_f32.npy"));
    let (truth, _) = data::array::<i32>("siftsmall/groundtruth_i32.npy");
    // faiss-cpu 1.15.1, 25 iterations, learned from the same rows, the mean of 8 seeds (golden/pq_recall.py): mean squared
    // error of a vector, and the share of the queries whose nearest vector comes first.
    let (seeds, apart) = common::seeds();
    let all = [
        (8, 256, 21941.0, 0.520),
        (16, 16, 32684.0, 0.410),
        (4, 256, 36353.0, 0.305),
        (16, 256, 9867.0, 0.695),
        (32, 256, 3749.0, 0.792),
        (8, 16, 51487.0, 0.186),
    ];
    let count = seeds.clone().count();
    for (m, k, expected, first) in if count == 1 { &all[..2] } else { &all } {
        let (m, k, expected, first) = (*m, *k, *expected, *first);
        let (mut error, mut found) = (0.0, [0; 3]);
        for seed in seeds.clone() {
            let quantizer =
                ProductQuantizer::train(x.view(), m, &KMeans::new(k).seed(100 * seed), &Device::cpu()).unwrap();
            let codes = quantizer.encode(x.view()).unwrap();
            let decoded = quantizer.decode(&codes).unwrap();
            error += (0..x.rows()).map(|i| sq_l2(x.view().row(i), decoded.view().row(i))).sum::<f64>();
            let asymmetric = quantizer.search(&codes, queries.view(), 100).unwrap();
            let of_queries = quantizer.encode(queries.view()).unwrap();
            let symmetric = quantizer.search_symmetric(&codes, &of_queries, 100).unwrap();
            println!(
                "seed {seed}: ADC R@1/10/100 {:?}, SDC {:?}",
                recalls(&asymmetric, &truth),
                recalls(&symmetric, &truth)
            );
            let of_seed = recalls(&asymmetric, &truth);
            found.iter_mut().zip(of_seed).for_each(|(found, of_seed)| *found += of_seed);
        }
        let error = error / (count * x.rows()) as f64;
        let [recall, at_10, at_100] = found.map(|found| f64::from(found) / (100 * count) as f64);
        println!(
            "{m} x {k}: error {error:.0}, faiss {expected} ({:+.2} %); R@1 {recall:.3}, faiss {first}; R@10 {at_10:.3}, R@100 {at_100:.3}",
            100.0 * (error / expected - 1.0)
        );
        assert!(error <= 1.01 * expected, "{m} x {k}: {error}, faiss {expected}");
        assert!(recall >= first - apart, "{m} x {k}: {recall}, faiss {first}");
    }
}

/// How many of 100 queries have their nearest vector among the first 1, 10 and 100.
fn recalls(got: &codeword::Neighbors, truth: &[i32]) -> [u32; 3] {
    [1, 10, 100].map(|among| {
        let is_found = |q: &usize| got.ids[q * got.r..][..among].contains(&(truth[q * 100] as u32));
        (0..100).filter(is_found).count() as u32
    })
}

#[test]
fn every_part_is_what_k_means_learns_of_its_columns_and_told_on_the_way() {
    let mut numbers = Numbers::new(75);
    let (n, m, k, width) = (300, 3, 7, 2);
    let x = matrix(numbers.gaussians(n * m * width), n, m * width);
    let params = KMeans::new(k).iterations(4).n_init(2);
    let mut told = Vec::new();
    let observe = |s: usize, step: Step| {
        if let Step::Iteration { inertia, .. } = step {
            told.push((s, inertia));
        }
        Ok::<(), Error>(())
    };
    let fit = ProductQuantizer::train_with(x.view(), m, &params.clone().seed(20), &Device::cpu(), observe).unwrap();
    let codes = fit.quantizer.encode(x.view()).unwrap();
    let decoded = fit.quantizer.decode(&codes).unwrap();
    for s in 0..m {
        let part = cut(x.view(), s * width..(s + 1) * width);
        let alone = params.clone().seed(20 + s as u64).fit(part.view(), &Device::cpu()).unwrap();
        let codewords = |codebook: &codeword::Codebook| {
            let codewords = codebook.codewords().unwrap();
            (0..k).flat_map(|j| codewords.row(j).to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(codewords(&fit.parts[s].codebook), codewords(&alone.codebook), "part {s}");
        assert_eq!(codewords(&fit.quantizer.codebooks()[s]), codewords(&alone.codebook), "part {s}");
        assert_eq!((fit.parts[s].inertia, &fit.parts[s].curve), (alone.inertia, &alone.curve), "part {s}");
        let of_part = cut(decoded.view(), s * width..(s + 1) * width);
        let error: f64 = (0..n).map(|i| sq_l2(part.view().row(i), of_part.view().row(i))).sum();
        assert!((error - alone.inertia).abs() <= 1e-6 * error, "part {s}: {error} {}", alone.inertia);
        assert_eq!(told.iter().filter(|(part, _)| *part == s).count(), 10, "part {s}");
        assert!(told.contains(&(s, alone.inertia)), "part {s}: {told:?}");
    }
    assert!(told.is_sorted_by_key(|&(s, _)| s));

    // An error of the caller's own type comes back as it is.
    #[derive(Debug, PartialEq)]
    enum Own {
        Enough(usize),
        Library(String),
    }
    impl From<Error> for Own {
        fn from(error: Error) -> Own {
            Own::Library(error.to_string())
        }
    }
    let observe = |s: usize, _: Step| if s == 1 { Err(Own::Enough(s)) } else { Ok(()) };
    let train = |m: usize| ProductQuantizer::train_with(x.view(), m, &params, &Device::cpu(), observe).err().unwrap();
    assert_eq!(train(m), Own::Enough(1));
    assert!(matches!(train(4), Own::Library(message) if message.contains("m must be a divisor")));
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let cpu = Device::cpu();
    let numbers: Vec<f32> = (0..48).map(|i| i as f32).collect();
    let x = matrix(numbers.clone(), 8, 6);
    let text = |error: Error| error.to_string();
    let train = |m, k| text(ProductQuantizer::train(x.view(), m, &KMeans::new(k), &cpu).err().unwrap());
    assert_eq!(
        train(4, 2),
        "ProductQuantizer::train: m must be a divisor of the 6 dimensions; append columns of zeros for others, got 4 (those \
         up to 128: 1 2 3 6)"
    );
    assert!(train(0, 2).contains("m must be a divisor"));
    assert!(train(2, 70_000).contains("k must be 1 to 65536, for codes of 1 to 16 bits, got 70000"));
    assert_eq!(train(2, 9), "k-means: expected at least 9 vectors, as many as codewords, got 8");
    let new = |m| text(ProductQuantizer::new(x.view(), m, &cpu).err().unwrap());
    assert_eq!(new(3), "ProductQuantizer::new: m must be a divisor of the 8 codewords, got 3");
    assert!(new(0).contains("m must be"));
    let mut bad = numbers.clone();
    bad[40] = f32::NAN;
    let bad = matrix(bad, 8, 6);
    let error = text(ProductQuantizer::new(bad.view(), 2, &cpu).err().unwrap());
    assert!(error.contains("codeword 6 holds NaN in column 4"), "{error}");
    let error = text(ProductQuantizer::train(bad.view(), 2, &KMeans::new(2), &cpu).err().unwrap());
    assert!(error.contains("vector 6 holds NaN in column 4"), "{error}");

    // The first row of all, not of the first part.
    let mut late = numbers.clone();
    (late[7 * 6], late[2 * 6 + 5]) = (f32::NAN, f32::INFINITY);
    let late = matrix(late, 8, 6);
    let two = ProductQuantizer::new(matrix(numbers[..18].to_vec(), 6, 3).view(), 2, &cpu).unwrap();
    for error in [
        two.encode(late.view()).err(),
        two.lut(late.view()).err(),
        two.search(&[0; 3], late.view(), 1).err(),
        ProductQuantizer::train(late.view(), 2, &KMeans::new(2), &cpu).err(),
    ] {
        let error = text(error.unwrap());
        assert!(error.contains("vector 2 holds inf in column 5"), "{error}");
    }

    // Two parts of three columns, three codewords: two bits each, one of the four names no codeword.
    let quantizer = ProductQuantizer::new(matrix(numbers[..18].to_vec(), 6, 3).view(), 2, &cpu).unwrap();
    let error = text(quantizer.encode(bad.view()).err().unwrap());
    assert!(error.contains("vector 6 holds NaN in column 4"), "{error}");
    let error = text(quantizer.search(&[0; 4], bad.view(), 1).err().unwrap());
    assert!(error.contains("vector 6 holds NaN in column 4"), "{error}");
    let narrow = MatrixView::new(&numbers[..5], 1, 5).unwrap();
    let error = text(quantizer.encode(narrow).err().unwrap());
    assert!(error.contains("vectors of 6 columns, 3 for each of 2 parts, got 5"), "{error}");
    for (codes, position) in [(vec![0, 0b1100, 0b11], 3), (vec![0, 0, 0b11], 4)] {
        let expected =
            |error: Error| matches!(error, Error::CodeOutOfRange { position: p, code: 3, k: 3, .. } if p == position);
        assert!(expected(quantizer.decode(&codes).unwrap_err()), "{codes:?}");
        assert!(expected(quantizer.search(&codes, x.view(), 1).unwrap_err()), "{codes:?}");
    }
    assert!(matches!(quantizer.pack(&[0, 2, 3, 0]), Err(Error::CodeOutOfRange { position: 2, code: 3, k: 3, .. })));
    assert!(matches!(quantizer.pack(&[0, 2, 1]), Err(Error::Shape { .. })));
    for r in [0, 4] {
        let error = text(quantizer.search(&[0; 3], x.view(), r).err().unwrap());
        assert!(error.contains(&format!("r must be 1 to the 3 codes there are, got {r}")), "{error}");
    }
    // Bytes of two and a half codes.
    let long = ProductQuantizer::new(matrix(numbers[..12].to_vec(), 12, 1).view(), 12, &cpu).unwrap();
    assert_eq!(long.code_size(), 2);
    assert!(matches!(long.decode(&[0; 5]), Err(Error::Shape { .. })));
    // Nothing at all is no error.
    let empty = MatrixView::new(&[] as &[f32], 0, 6).unwrap();
    assert_eq!(quantizer.encode(empty).unwrap(), [0u8; 0]);
    assert_eq!(quantizer.decode(&[]).unwrap().rows(), 0);
    assert!(quantizer.search(&[0; 3], empty, 2).unwrap().ids.is_empty());
}
