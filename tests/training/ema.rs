//! A codebook that follows its batches has the bytes that its documentation says: against a transcription, whatever the
//! threads, element types and interruptions, and on every kind of degenerate batch.

use crate::common::{Numbers, codebook, matrix, scaled};
use codeword::{
    AssignOptions, Codebook, Device, Element, Ema, EmaCodebook, EmaState, Error, KMeans, Matrix, MatrixView, NonFinite,
    SENTINEL, accumulate, assign, bf16, f16, metrics, normalize, quantize,
};

/// Everything that is promised in bits.
fn bits(ema: &EmaCodebook) -> (Vec<u32>, Vec<u64>, Vec<u64>, u64) {
    let codewords = ema.codebook().codewords().unwrap();
    let codewords = (0..codewords.rows()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    let of = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect();
    (codewords, of(&ema.state().sizes), of(&ema.state().sums), ema.state().step)
}

#[test]
fn steps_are_those_of_a_transcription() {
    let mut lines = include_str!("../golden/ema.txt").lines();
    let mut cases = 0;
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["case", name, k, d, decay, epsilon, threshold, seed, cosine, steps] = words[..] else { panic!("{line}") };
        let [k, d, steps] = [k, d, steps].map(|word| word.parse::<usize>().unwrap());
        let [decay, epsilon, threshold] = [decay, epsilon, threshold].map(|word| word.parse::<f64>().unwrap());
        let mut words = |letter: &str| -> Vec<&str> {
            let line = lines.next().expect("another line");
            line.strip_prefix(letter).unwrap_or_else(|| panic!("{name}: {line}")).split_whitespace().collect()
        };
        let hex = |word: &str| u64::from_str_radix(word, 16).expect("hexadecimal digits");
        let numbers = |words: &[&str]| words.iter().map(|word| f32::from_bits(hex(word) as u32)).collect::<Vec<f32>>();
        let start: Vec<f32> = (0..k).flat_map(|_| numbers(&words("e"))).collect();
        let params = Ema::new().decay(decay).epsilon(epsilon).threshold(threshold);
        let params = params.seed(seed.parse().unwrap()).cosine(cosine == "1");
        let mut ema = params.start(&codebook(matrix(start, k, d).view())).unwrap();
        for step in 1..=steps {
            let n: usize = words("step")[0].parse().unwrap();
            let x: Vec<f32> = (0..n).flat_map(|_| numbers(&words("x"))).collect();
            let got = ema.update(MatrixView::new(&x, n, d).unwrap()).unwrap();
            let labels: Vec<u32> = words("labels").iter().map(|word| word.parse().unwrap()).collect();
            assert_eq!(got.assignment.labels, labels, "{name}, step {step}");
            let (codewords, sizes, sums, steps) = bits(&ema);
            assert_eq!(sizes, words("N").into_iter().map(hex).collect::<Vec<_>>(), "{name}, step {step}: sizes");
            let expected: Vec<u64> = (0..k).flat_map(|_| words("m")).map(hex).collect();
            assert_eq!(sums, expected, "{name}, step {step}: sums");
            let expected: Vec<u32> = (0..k).flat_map(|_| words("e")).map(|word| hex(word) as u32).collect();
            assert_eq!(codewords, expected, "{name}, step {step}: codewords");
            assert_eq!(steps, step as u64);
            let usage = words("usage");
            let [rows, unused, dead, revived] = [0, 2, 3, 4].map(|i| usage[i].parse::<u64>().unwrap());
            let got = got.usage;
            assert_eq!((got.rows, got.unused, got.dead, got.revived), (rows, unused, dead, revived), "{name}");
            assert_eq!(got.utilization, (k as u64 - unused) as f64 / k as f64);
            let perplexity: f64 = usage[1].parse().unwrap();
            approx::assert_relative_eq!(got.perplexity, perplexity, max_relative = 1e-12);
        }
        cases += 1;
    }
    assert_eq!(cases, 9);
}

/// `steps` steps with batches of `n` rows.
fn run<T: Element>(mut ema: EmaCodebook, batches: &[MatrixView<'_, T>]) -> (Vec<u32>, Vec<u64>, Vec<u64>, u64) {
    for &batch in batches {
        ema.update(batch).unwrap();
    }
    bits(&ema)
}

#[test]
fn threads_and_the_way_rows_are_stored_change_no_bit() {
    // Blocks of 2^18 / d rows: several of them, and a codeword that has many.
    let (n, d, k) = (scaled(6000), 130, 40);
    let mut numbers = Numbers::new(101);
    let values: Vec<f16> = numbers.gaussians(2 * n * d).iter().map(|&v| f16::from_f32(v)).collect();
    let halves = matrix(values, 2 * n, d);
    let wide = matrix(halves.as_slice().iter().map(|v| v.to_f32()).collect(), 2 * n, d);
    let mut padded = vec![f32::NAN; 2 * n * (d + 3)];
    for (to, from) in padded.chunks_exact_mut(d + 3).zip(wide.as_slice().chunks_exact(d)) {
        to[1..=d].copy_from_slice(from);
    }
    let columns = MatrixView::new(&padded, 2 * n, d + 3).unwrap().columns(1..d + 1).unwrap();
    let start = codebook(wide.view().row_range(0..k).unwrap());
    fn two<T: Element>(x: MatrixView<'_, T>) -> [MatrixView<'_, T>; 2] {
        let n = x.rows() / 2;
        [x.row_range(0..n).unwrap(), x.row_range(n..2 * n).unwrap()]
    }
    for cosine in [false, true] {
        let params = Ema::new().decay(0.9).threshold(n as f64 / k as f64).seed(1).cosine(cosine);
        let ema = || params.start(&start).unwrap();
        let expected = run(ema(), &two(wide.view()));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| run(ema(), &two(wide.view()))) == expected, "{threads} threads");
        }
        assert!(run(ema(), &two(halves.view())) == expected, "f16");
        assert!(run(ema(), &two(columns)) == expected, "columns of wider rows");
        let other = params.clone().seed(2).start(&start).unwrap();
        assert!(run(other, &two(wide.view())) != expected, "another seed revives other rows");
    }
}

#[test]
fn a_run_that_is_saved_and_restored_goes_on_as_if_nothing_had_happened() {
    let mut numbers = Numbers::new(102);
    let (n, k, d) = (60, 9, 5);
    let start = matrix(numbers.gaussians(k * d), k, d);
    let batches: Vec<Matrix<f32>> = (0..6).map(|_| matrix(numbers.gaussians(n * d), n, d)).collect();
    for cosine in [false, true] {
        let params = Ema::new().decay(0.7).threshold(4.0).seed(8).cosine(cosine);
        let mut whole = params.start(&codebook(start.view())).unwrap();
        let mut parts = whole.clone();
        let mut revived = 0;
        for batch in &batches {
            revived += whole.update(batch.view()).unwrap().usage.revived;
            // What is in a checkpoint: k d codewords, and the state.
            let saved = parts.codebook().codewords().unwrap();
            let saved: Vec<f32> = (0..k).flat_map(|j| saved.row(j).to_vec()).collect();
            let EmaState { step, sizes, sums } = parts.state().clone();
            let loaded = codebook(matrix(saved, k, d).view());
            parts = params.restore(&loaded, EmaState { step, sizes, sums }).unwrap();
            parts.update(batch.view()).unwrap();
            assert_eq!(bits(&parts), bits(&whole));
        }
        assert!(revived > 0, "the random numbers of later steps are met");
    }
}

#[test]
fn labels_from_elsewhere_make_the_same_step_and_sentinels_count_nowhere() {
    let mut numbers = Numbers::new(103);
    let (n, k, d) = (200, 12, 9);
    let start = codebook(matrix(numbers.gaussians(k * d), k, d).view());
    let mut x = numbers.gaussians(n * d);
    for cosine in [false, true] {
        let params = Ema::new().decay(0.8).threshold(16.0).cosine(cosine);
        let plain = matrix(x.clone(), n, d);
        let (mut ema, mut labelled) = (params.start(&start).unwrap(), params.start(&start).unwrap());
        let step = ema.update(plain.view()).unwrap();
        let usage = labelled.update_labelled(plain.view(), &step.assignment.labels).unwrap();
        assert_eq!((bits(&labelled), &usage), (bits(&ema), &step.usage));
        // Labels are those of the codebook before the step; the usage is that of the metrics.
        let before = params.start(&start).unwrap().codebook().clone();
        let seen = if cosine { normalize(plain.view()).unwrap() } else { plain };
        assert_eq!(step.assignment, assign(seen.view(), &before, AssignOptions::default()).unwrap());
        let expected = metrics(seen.view(), &before, &step.assignment.labels).unwrap();
        assert_eq!(usage.perplexity, expected.perplexity);
        assert_eq!((usage.utilization, usage.unused), (expected.utilization, expected.dead));
        assert!(usage.dead > 0 && usage.revived == usage.dead);
    }
    // Rows that are not numbers in between: neither counted nor revived.
    let clean = matrix(x.clone(), n, d);
    (0..50).for_each(|i| x.splice(4 * i * d..4 * i * d, [f32::NAN; 9]).for_each(drop));
    let dirty = matrix(x, n + 50, d);
    let sentinels = AssignOptions { non_finite: NonFinite::Sentinel, ..Default::default() };
    let params = Ema::new().decay(0.8).threshold(16.0);
    let (mut ema, mut other) = (params.start(&start).unwrap(), params.start(&start).unwrap());
    let quantized = quantize(dirty.view(), &start, 0.25, sentinels).unwrap();
    let usage = ema.update_labelled(dirty.view(), &quantized.assignment.labels).unwrap();
    assert_eq!(usage.rows, n as u64);
    // The order in which rows are drawn is that of the labelled ones, as if the others were not there.
    assert_eq!(usage, other.update(clean.view()).unwrap().usage);
    assert_eq!(bits(&ema), bits(&other));
    let mut ema = Ema::new().cosine(true).start(&start).unwrap();
    ema.update_labelled(dirty.view(), &quantized.assignment.labels).unwrap();
}

#[test]
fn a_start_by_k_means_has_its_codewords_and_the_sizes_of_its_clusters() {
    let (n, k, d) = (300, 7, 4);
    let x = matrix(Numbers::new(104).gaussians(n * d), n, d);
    let kmeans = KMeans::new(k).seed(5).iterations(3);
    let fit = kmeans.fit(x.view(), &Device::cpu()).unwrap();
    let ema = Ema::new().start_kmeans(&kmeans, x.view(), &Device::cpu()).unwrap();
    let counts = accumulate(x.view(), &fit.assignment.labels, None, k).unwrap().counts;
    assert_eq!(ema.state().sizes, counts.iter().map(|&c| c as f64).collect::<Vec<_>>());
    let (got, expected) = (ema.codebook().codewords().unwrap(), fit.codebook.codewords().unwrap());
    for (j, &count) in counts.iter().enumerate() {
        assert_eq!(got.row(j), expected.row(j));
        let sums = expected.row(j).iter().map(|&e| f64::from(e) * count as f64);
        assert_eq!(ema.state().sums[j * d..][..d], sums.collect::<Vec<_>>());
    }
    // Copies of codewords have no rows, and a size of 1 all the same.
    let x = matrix(vec![2.0f32; 6], 6, 1);
    let ema = Ema::new().start_kmeans(&KMeans::new(3), x.view(), &Device::cpu()).unwrap();
    assert_eq!((ema.state().sizes.as_slice(), ema.state().step), (&[6.0, 1.0, 1.0][..], 0));
    // Cosines: directions of the means of directions.
    let x = matrix(vec![3.0f32, 0.0, 0.0, 0.5, -7.0, 0.0], 3, 2);
    let ema = Ema::new().cosine(true).start_kmeans(&KMeans::new(1), x.view(), &Device::cpu()).unwrap();
    assert_eq!(ema.codebook().codewords().unwrap().row(0), [0.0, 1.0]);
}

#[test]
fn codewords_end_where_the_means_of_their_rows_are() {
    // The same batch again and again: the averages tend to its sums, and codewords to its means.
    let mut numbers = Numbers::new(105);
    let centres = [[-4.0f32, 0.0], [4.0, 0.0], [0.0, 5.0]];
    let x: Vec<f32> = (0..300).flat_map(|i| centres[i % 3].map(|c| c + 0.1 * numbers.gaussian())).collect();
    let x = matrix(x, 300, 2);
    let start = codebook(matrix(vec![-1.0f32, 0.0, 1.0, 0.0, 0.0, 2.0], 3, 2).view());
    let mut ema = Ema::new().decay(0.9).start(&start).unwrap();
    (0..400).for_each(|_| drop(ema.update(x.view()).unwrap()));
    let labels = (0..300).map(|i| i % 3).collect::<Vec<u32>>();
    let sums = accumulate(x.view(), &labels, None, 3).unwrap();
    for j in 0..3 {
        let mut mean = [0.0; 2];
        assert!(sums.mean_into(j, &mut mean));
        for (&e, mean) in ema.codebook().codewords().unwrap().row(j).iter().zip(mean) {
            // The smoothing pulls all sizes together by less than k epsilon / N.
            assert!((e - mean).abs() < 1e-5 * 5.0, "{e} {mean}");
        }
    }
}

#[test]
fn dead_codewords_come_back_and_the_codebook_is_used() {
    let mut numbers = Numbers::new(106);
    let (n, k, d) = (512, 32, 3);
    // All codewords far off: one serves everything.
    let start = matrix((0..k * d).map(|i| 50.0 + i as f32).collect(), k, d);
    for cosine in [false, true] {
        let mut ema = Ema::new().decay(0.8).threshold(2.0).cosine(cosine).start(&codebook(start.view())).unwrap();
        let batch = matrix(numbers.gaussians(n * d), n, d);
        let usage = ema.update(batch.view()).unwrap().usage;
        assert!(usage.unused > 20 && usage.dead > 20 && usage.revived == usage.dead, "{usage:?}");
        // Each revived codeword is a row of the batch, and no two are one.
        let seen = if cosine { normalize(batch.view()).unwrap() } else { batch };
        let codewords = ema.codebook().codewords().unwrap();
        let is_row = |j: &usize| (0..n).any(|i| seen.view().row(i) == codewords.row(*j));
        assert_eq!((0..k).filter(is_row).count() as u64, usage.revived);
        assert_eq!(ema.codebook().duplicates(), 0);
        let size_2 = ema.state().sizes.iter().filter(|&&size| size == 2.0).count() as u64;
        assert_eq!(size_2, usage.revived);
        for _ in 0..20 {
            let batch = matrix(numbers.gaussians(n * d), n, d);
            ema.update(batch.view()).unwrap();
        }
        let batch = matrix(numbers.gaussians(n * d), n, d);
        let usage = ema.update(batch.view()).unwrap().usage;
        assert!(usage.perplexity > 0.6 * k as f64 && usage.utilization > 0.95, "{usage:?}");
    }
}

#[test]
fn degenerate_batches_do_as_documented() {
    let start = codebook(matrix(vec![1.0f32, 0.0, 0.0, 1.0], 2, 2).view());
    let step = |params: Ema, x: &[f32]| -> Result<(EmaCodebook, u64), Error> {
        let mut ema = params.start(&start)?;
        let before = bits(&ema);
        let x = MatrixView::new(x, x.len() / 2, 2)?;
        match ema.update(x) {
            Ok(step) => Ok((ema, step.usage.revived)),
            Err(error) => {
                assert_eq!(bits(&ema), before, "after {error}");
                Err(error)
            }
        }
    };
    let message = |params: Ema, x: &[f32]| step(params, x).unwrap_err().to_string();
    let codewords = |ema: &EmaCodebook| ema.codebook().codewords().unwrap().row(1).to_vec();
    let expected = "EMA: expected at least one vector with a label, got none of 0";
    assert_eq!(message(Ema::new(), &[]), expected);
    assert_eq!(message(Ema::new().cosine(true), &[]), expected);
    // One row, fewer than codewords.
    let (ema, _) = step(Ema::new().decay(0.5), &[2.0, 0.0]).unwrap();
    assert_eq!(
        (ema.state().sizes.as_slice(), ema.state().sums.as_slice()),
        (&[1.0, 0.5][..], &[1.5, 0.0, 0.0, 0.5][..])
    );
    for cosine in [false, true] {
        let refused = step(Ema::new().cosine(cosine), &[0.0, 1.0, 1.0, f32::NAN, f32::INFINITY, 0.0]).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { what: "vector", row: 1, col: 1, .. }), "{refused}");
    }
    // Zeros.
    let (ema, _) = step(Ema::new().decay(0.0), &[0.0; 4]).unwrap();
    assert_eq!(ema.state().sizes, [2.0, 0.0]);
    let expected = "normalize: x must be free of rows of zeros, which have no direction, got zeros in row 1";
    assert_eq!(message(Ema::new().cosine(true), &[1.0, 1.0, 0.0, -0.0, f32::NAN, 0.0]), expected);
    // A codeword that nothing is nearest to moves to zero, or stays where directions count.
    let (ema, _) = step(Ema::new().decay(0.0), &[3.0, 0.0]).unwrap();
    assert_eq!(codewords(&ema), [0.0, 0.0]);
    let (ema, _) = step(Ema::new().decay(0.0).cosine(true), &[3.0, 0.0]).unwrap();
    assert_eq!(codewords(&ema), [0.0, 1.0]);
    let (mut ema, _) = step(Ema::new().decay(0.01).cosine(true), &[3.0, 0.0]).unwrap();
    for _ in 0..1000 {
        ema.update(MatrixView::new(&[3.0f32, 0.0], 1, 2).unwrap()).unwrap();
    }
    assert_eq!(codewords(&ema), [0.0, 1.0], "sums have long left f64");
    // No bit of it changes while its sum goes through the smallest f64.
    let start = matrix(vec![1.0f32, 0.0, -0.6, 0.8], 2, 2);
    let mut ema = Ema::new().decay(0.5).cosine(true).start(&codebook(start.view())).unwrap();
    let before = codewords(&ema);
    for _ in 0..1200 {
        ema.update(MatrixView::new(&[3.0f32, 0.0], 1, 2).unwrap()).unwrap();
        assert_eq!(codewords(&ema), before);
    }
    // Near the end of f32: means are fine, and what the smoothing throws over the end is told.
    let (ema, _) = step(Ema::new().decay(0.0).epsilon(1e-9), &[2e38, 0.0, 2e38, 1e38]).unwrap();
    assert!((ema.codebook().codewords().unwrap().row(0)[0] / 2e38 - 1.0).abs() < 1e-6);
    let error = step(Ema::new().decay(0.0).epsilon(1.0), &[3e38, 0.0]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { what: "codeword", row: 0, col: 0, .. }), "{error}");
    assert!(error.to_string().starts_with("EMA: codeword 0 holds inf in column 0; scale"), "{error}");
    // All rows equal the codeword that they make: nothing to revive the other with.
    let (ema, revived) = step(Ema::new().decay(0.0).epsilon(1e-30).threshold(1.0), &[2.0, 0.0, 2.0, 0.0]).unwrap();
    assert_eq!((ema.codebook().codewords().unwrap().row(0), revived), (&[2.0f32, 0.0][..], 0));
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    let start = codebook(matrix(vec![1.0f32, 0.0, 0.0, 2.0], 2, 2).view());
    let message = |params: Ema| params.start(&start).unwrap_err().to_string();
    for decay in [-0.1, 1.0, f64::NAN] {
        assert_eq!(message(Ema::new().decay(decay)), format!("EMA: decay must be at least 0 and below 1, got {decay}"));
    }
    for epsilon in [0.0, 2.0, f64::NAN] {
        assert_eq!(
            message(Ema::new().epsilon(epsilon)),
            format!("EMA: epsilon must be from 1e-30 to 1, got {epsilon}")
        );
    }
    for threshold in [-1.0, f64::INFINITY, f64::NAN] {
        let expected = format!("EMA: threshold must be from 0 to 2^32, got {threshold}");
        assert_eq!(message(Ema::new().threshold(threshold)), expected);
    }
    let zeros = codebook(matrix(vec![1.0f32, 0.0, 0.0, 0.0], 2, 2).view());
    let refused = Ema::new().cosine(true).start(&zeros).unwrap_err().to_string();
    assert_eq!(refused, "normalize: x must be free of rows of zeros, which have no direction, got zeros in row 1");

    let x = matrix(vec![1.0f32, 0.0, -1.0, 0.0], 2, 2);
    let kmeans = |params: Ema, k: usize| params.start_kmeans(&KMeans::new(k), x.view(), &Device::cpu()).unwrap_err();
    assert_eq!(kmeans(Ema::new(), 3).to_string(), "k-means: expected at least 3 vectors, as many as codewords, got 2");
    assert!(matches!(kmeans(Ema::new().cosine(true), 1), Error::InvalidParameter { name: "x", .. }), "a mean of zero");

    let mut ema = Ema::new().start(&start).unwrap();
    let before = bits(&ema);
    let message = |error: Error| error.to_string();
    let wide = matrix(vec![1.0f32; 6], 2, 3);
    let expected = "EMA: expected vectors of 2 columns, as the codewords have, got 3";
    assert_eq!(message(ema.update(wide.view()).unwrap_err()), expected);
    assert_eq!(message(ema.update_labelled(wide.view(), &[0, 0]).unwrap_err()), expected);
    let refused = ema.update_labelled(x.view(), &[0]).unwrap_err();
    assert_eq!(message(refused), "EMA: expected 2 labels, got 1");
    let refused = ema.update_labelled(x.view(), &[1, 2]).unwrap_err();
    assert!(matches!(refused, Error::CodeOutOfRange { position: 1, code: 2, k: 2, .. }), "{refused}");
    let refused = ema.update_labelled(x.view(), &[SENTINEL; 2]).unwrap_err();
    assert_eq!(message(refused), "EMA: expected at least one vector with a label, got none of 2");
    let bad = matrix([f16::NAN, f16::ONE, f16::ONE, f16::NEG_INFINITY].to_vec(), 2, 2);
    for cosine in [false, true] {
        let mut ema = Ema::new().cosine(cosine).start(&start).unwrap();
        let refused = ema.update_labelled(bad.view(), &[SENTINEL, 0]).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { what: "vector", row: 1, col: 1, .. }), "{refused}");
    }
    assert_eq!(bits(&ema), before);

    let state = |sizes: &[f64], sums: &[f64]| EmaState { step: 3, sizes: sizes.to_vec(), sums: sums.to_vec() };
    let refused = |state| Ema::new().restore(&start, state).unwrap_err().to_string();
    assert_eq!(refused(state(&[1.0], &[0.0; 4])), "EMA: expected 2 sizes, got 1");
    assert_eq!(refused(state(&[1.0; 2], &[0.0; 3])), "EMA: expected 4 sums, got 3");
    for size in [-1.0, f64::NAN, 1e30] {
        let expected = format!("EMA: sizes must be from 0 to 2^64, got {size} for codeword 1");
        assert_eq!(refused(state(&[1.0, size], &[0.0; 4])), expected);
    }
    for sum in [f64::NAN, -1e60] {
        let expected = format!("EMA: sums must be from -2^192 to 2^192, got {sum} for codeword 1");
        assert_eq!(refused(state(&[1.0; 2], &[0.0, 0.0, sum, 0.0])), expected);
    }
    let refused = Ema::new().cosine(true).restore(&start, state(&[1.0; 2], &[0.0; 4])).unwrap_err().to_string();
    let expected =
        "EMA: codebook must be of length 1 in every codeword; start from it instead, got length 2 of codeword 1";
    assert_eq!(refused, expected);
}

#[test]
fn codewords_of_16_bits_and_bf16_batches_are_followed_as_the_numbers_they_are() {
    let codewords: Vec<bf16> = [0.5f32, 2.0, -1.0].map(bf16::from_f32).to_vec();
    let start = Codebook::new(matrix(codewords, 3, 1).view(), &Device::cpu()).unwrap();
    let mut ema = Ema::new().decay(0.5).start(&start).unwrap();
    assert_eq!(ema.state().sums, [0.5, 2.0, -1.0]);
    let batch = matrix([3.0f32, 0.25].map(bf16::from_f32).to_vec(), 2, 1);
    assert_eq!(ema.update(batch.view()).unwrap().assignment.labels, [1, 0]);
    assert_eq!(ema.state().sums, [0.375, 2.5, -0.5]);
}
