//! k-means gives what its documentation says, byte for byte: against a transcription in rational arithmetic, against
//! scikit-learn, and on every kind of degenerate input.

use crate::common::{Numbers, codebook, matrix, scaled};
use codeword::backend::reference;
use codeword::{
    AssignOptions, Device, Element, Error, Init, KMeans, KMeansFit, Matrix, MatrixView, Step, assign, bf16, f16,
};

fn fit<T: Element>(params: &KMeans, x: MatrixView<'_, T>) -> KMeansFit {
    params.fit(x, &Device::cpu()).unwrap()
}

/// Everything about a fit that is promised in bits.
fn bits(fit: &KMeansFit) -> (Vec<u32>, Vec<u32>, Vec<u32>, Vec<u64>) {
    let codewords = fit.codebook.codewords().unwrap();
    let codewords = (0..fit.codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    let distances = fit.assignment.sq_distances.iter().map(|value| value.to_bits()).collect();
    let curve = fit.curve.iter().map(|value| value.to_bits()).collect();
    (codewords, fit.assignment.labels.clone(), distances, curve)
}

#[test]
fn whole_runs_are_those_of_a_transcription_in_rational_arithmetic() {
    let mut lines = include_str!("../golden/kmeans.txt").lines();
    let mut cases = 0;
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["case", name, n, k, d, init, seed, iterations, n_init, batch] = words[..] else {
            panic!("no case: {line}")
        };
        let [n, k, d, iterations, n_init, batch] =
            [n, k, d, iterations, n_init, batch].map(|word| word.parse::<usize>().unwrap());
        let mut words = |letter: &str| -> Vec<&str> {
            let line = lines.next().expect("another line");
            line.strip_prefix(letter).unwrap_or_else(|| panic!("{name}: {line}")).split_whitespace().collect()
        };
        let hex = |word: &str| u32::from_str_radix(word, 16).expect("eight digits");
        let mut numbers = |letter: &str, rows: usize| -> Vec<f32> {
            (0..rows).flat_map(|_| words(letter)).map(|word| f32::from_bits(hex(word))).collect()
        };
        let rows = numbers("x", n);
        let weights: Vec<f32> = rows.iter().step_by(d + 1).copied().collect();
        let x = matrix(rows.chunks_exact(d + 1).flat_map(|row| &row[1..]).copied().collect(), n, d);
        let init = match init {
            "random" => Init::RandomRows,
            "plus_plus" => Init::PlusPlus,
            "parallel" => Init::Parallel,
            "hierarchical" => Init::Hierarchical,
            _ => Init::Given(codebook(matrix(numbers("e", k), k, d).view())),
        };
        let codewords: Vec<u32> = numbers("c", k).iter().map(|value| value.to_bits()).collect();
        let labels: Vec<u32> = words("labels").iter().map(|word| word.parse().unwrap()).collect();
        let curve: Vec<u64> = words("curve").iter().map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        let run: usize = words("run")[0].parse().unwrap();

        let params = KMeans::new(k).init(init).seed(seed.parse().unwrap()).iterations(iterations).n_init(n_init);
        let params = if batch > 0 { params.minibatch(batch) } else { params };
        let weights = weights.iter().any(|&weight| weight != 1.0).then_some(&weights[..]);
        let got = params.fit_with(x.view(), weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
        let (got_codewords, got_labels, _, got_curve) = bits(&got);
        assert_eq!(got_codewords, codewords, "{name}: codewords");
        assert_eq!(got_labels, labels, "{name}: labels");
        assert_eq!(got_curve, curve, "{name}: curve {:?}", got.curve);
        assert_eq!((got.run, got.iterations()), (run, curve.len() - 1), "{name}");
        cases += 1;
    }
    assert_eq!(cases, 34);
}

/// The rows of tests/golden/kmeans_sklearn.py.
fn rows(n: usize, d: usize) -> Matrix<f32> {
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / 16_777_216.0 - 0.5
    };
    let place = |i: usize| ((i / d * 7 + i % d) % 10) as f64 / 4.0;
    matrix((0..n * d).map(|i| (draw() + draw() + draw() + place(i)) as f32).collect(), n, d)
}

#[test]
fn the_inertia_is_that_of_scikit_learn_from_the_same_start() {
    for line in include_str!("../golden/kmeans_sklearn.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [n, d, k, iterations] = [0, 1, 2, 3].map(|i| words[i].parse::<usize>().unwrap());
        let expected: f64 = words[4].parse().unwrap();
        let x = rows(n, d);
        let start = codebook(x.view().row_range(0..k).unwrap());
        let got = fit(&KMeans::new(k).init(Init::Given(start)).iterations(iterations), x.view());
        println!("{line}: {}", got.inertia);
        assert!((got.inertia - expected).abs() <= 1e-6 * expected, "{line}: {}", got.inertia);
    }
}

#[test]
fn labels_and_inertia_belong_to_the_codebook_that_is_returned() {
    let (n, d, k) = (scaled(4000), 20, 30);
    let x = matrix(Numbers::new(71).gaussians(n * d), n, d);
    for iterations in [0, 1, 3] {
        let got = fit(&KMeans::new(k).iterations(iterations).seed(5), x.view());
        assert!(!got.converged && got.iterations() == iterations);
        assert_eq!(got.assignment, assign(x.view(), &got.codebook, AssignOptions::default()).unwrap());
        let codewords = got.codebook.codewords().unwrap();
        let expected = reference::metrics(x.view(), codewords, &got.assignment.labels).inertia;
        // Every distance was rounded to 24 bits.
        assert!((got.inertia - expected).abs() <= 2f64.powi(-24) * expected, "{} {expected}", got.inertia);
        assert_eq!(got.curve.last(), Some(&got.inertia));
        let rows = got.stats.first + got.stats.second + got.stats.f64 + got.stats.exact;
        assert_eq!(rows, (n * (iterations + 1)) as u64, "every pass is counted");
    }
}

#[test]
fn the_inertia_never_rises_and_ends_where_nothing_improves() {
    let mut numbers = Numbers::new(72);
    for (n, d, k) in [(600, 2, 9), (500, 7, 40), (300, 1, 5)] {
        let x = matrix(numbers.gaussians(n * d), n, d);
        let got = fit(&KMeans::new(k).iterations(500), x.view());
        assert!(got.converged && got.iterations() < 500, "{} iterations", got.iterations());
        let rises = got.curve.windows(2).filter(|pair| pair[1] > pair[0] * (1.0 + 1e-7)).count();
        assert_eq!(rises, 0, "{:?}", got.curve);
        let again = fit(&KMeans::new(k).init(Init::Given(got.codebook.clone())), x.view());
        assert!((again.inertia - got.inertia).abs() <= 1e-7 * got.inertia, "one more start changes nothing");
        // A tolerance ends it after the first move that gains less.
        let early = fit(&KMeans::new(k).iterations(500).tolerance(0.01), x.view());
        let gains: Vec<f64> = early.curve.windows(2).map(|pair| (pair[0] - pair[1]) / pair[0]).collect();
        let (last, others) = gains.split_last().unwrap();
        assert!(early.converged && *last <= 0.01 && others.iter().all(|&gain| gain > 0.01), "{gains:?}");
    }
}

#[test]
fn threads_and_the_way_rows_are_stored_change_no_bit() {
    // Blocks of 2^18 / d rows: several of them, and a codeword that has many.
    let (n, d, k) = (scaled(9000), 130, 12);
    let mut numbers = Numbers::new(73);
    let values: Vec<f16> = numbers.gaussians(n * d).iter().map(|&v| f16::from_f32(v)).collect();
    let halves = matrix(values, n, d);
    let wide = matrix(halves.as_slice().iter().map(|v| v.to_f32()).collect(), n, d);
    for init in [Init::RandomRows, Init::PlusPlus, Init::Hierarchical, Init::Progressive] {
        let params = KMeans::new(k).init(init).iterations(4).n_init(2).seed(1);
        let expected = bits(&fit(&params, wide.view()));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| bits(&fit(&params, wide.view()))) == expected, "{threads} threads");
        }
        assert!(bits(&fit(&params, halves.view())) == expected, "f16");
        let mut padded = vec![f32::NAN; n * (d + 3)];
        for (to, from) in padded.chunks_exact_mut(d + 3).zip(wide.as_slice().chunks_exact(d)) {
            to[1..=d].copy_from_slice(from);
        }
        let columns = MatrixView::new(&padded, n, d + 3).unwrap().columns(1..d + 1).unwrap();
        assert!(bits(&fit(&params, columns)) == expected, "columns of wider rows");
        assert!(bits(&fit(&params.clone().seed(2), wide.view())) != expected, "another seed");
    }
}

#[test]
fn degenerate_rows_are_learned_as_documented() {
    // All rows equal, at every scale; of bf16 too.
    for value in [0.0f32, -0.0, 1e-45, 3.25, bf16::MAX.to_f32()] {
        let x = matrix(vec![bf16::from_f32(value); 5 * 3], 5, 3);
        let got = fit(&KMeans::new(4).n_init(2), x.view());
        let expected = bf16::from_f32(value).to_f32();
        let codewords = got.codebook.codewords().unwrap();
        assert!((0..4).all(|j| codewords.row(j) == [expected; 3]), "{value}");
        assert!(got.converged && got.inertia == 0.0 && got.assignment.labels == [0; 5] && got.run == 0);
    }
    // As many codewords as rows, duplicates among them: every row is a codeword.
    let x = matrix(vec![1.0f32, 2.0, 2.0, 5.0, 7.0, 5.0], 6, 1);
    for init in [Init::RandomRows, Init::PlusPlus, Init::Hierarchical, Init::Progressive] {
        for seed in 0..20 {
            let got = fit(&KMeans::new(6).init(init.clone()).seed(seed), x.view());
            assert_eq!((got.inertia, got.converged), (0.0, true), "seed {seed}");
        }
    }
    // One codeword: the mean, whatever the start.
    let got = fit(&KMeans::new(1).init(Init::RandomRows), x.view());
    assert_eq!(got.codebook.codewords().unwrap().row(0), [22.0 / 6.0]);
    // Distances beyond f32: means are right, the inertia is not a number that f32 could add to.
    let x = matrix(vec![3e38f32, -3e38, 2.9e38, -2.9e38], 4, 1);
    let got = fit(&KMeans::new(1), x.view());
    assert_eq!((got.codebook.codewords().unwrap().row(0), got.inertia), (&[0.0f32][..], f64::INFINITY));
    let got = fit(&KMeans::new(2), x.view());
    assert_eq!(got.assignment.labels[0], got.assignment.labels[2]);
    assert_ne!(got.assignment.labels[0], got.assignment.labels[1]);
}

#[test]
fn rows_of_no_weight_are_labelled_and_count_nowhere() {
    let mut numbers = Numbers::new(74);
    let (n, d, k) = (200, 3, 6);
    let mut x = numbers.gaussians(n * d);
    // Far away, where they would draw every codeword.
    x.extend([1e6f32; 3]);
    x.extend([-1e6f32; 3]);
    let all = matrix(x, n + 2, d);
    let few = all.view().row_range(0..n).unwrap();
    let weights: Vec<f32> = (0..n).map(|_| 1.0).chain([0.0, 0.0]).collect();
    for init in [Init::RandomRows, Init::PlusPlus, Init::Hierarchical, Init::Progressive] {
        let params = KMeans::new(k).init(init).seed(6);
        let got = params.fit_with(all.view(), Some(&weights), &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
        let expected = fit(&params, few);
        assert_eq!(bits(&got).0, bits(&expected).0);
        assert_eq!(got.inertia.to_bits(), expected.inertia.to_bits());
        assert_eq!(got.assignment.labels.len(), n + 2);
    }
}

#[test]
fn every_step_is_told_and_an_error_of_the_observer_ends_it() {
    let x = matrix(Numbers::new(75).gaussians(300), 100, 3);
    let params = KMeans::new(4).iterations(2).n_init(2);
    let mut steps = Vec::new();
    let tell = |step| {
        steps.push(step);
        Ok::<(), Error>(())
    };
    params.fit_with(x.view(), None, &Device::cpu(), tell).unwrap();
    // Every pass is one block here: 3 for the start, 3 that label.
    let is_detail = |step: &Step| matches!(step, Step::Rows { .. } | Step::Moved { .. });
    let details: Vec<Step> = steps.iter().copied().filter(is_detail).collect();
    let of_run = |run: usize| {
        let rows = move |iteration| Step::Rows { run, iteration, rows: 100 };
        let labelled = (0..3).flat_map(move |it| [Step::Moved { run, iteration: it }, rows(Some(it))]);
        [rows(None); 3].into_iter().chain(labelled)
    };
    assert_eq!(details, of_run(0).chain(of_run(1)).collect::<Vec<_>>());
    steps.retain(|step| !is_detail(step));
    let starts = |run: usize| (1..=4).map(move |codewords| Step::Start { run, codewords });
    let told: Vec<Step> = steps.iter().copied().filter(|step| matches!(step, Step::Start { .. })).collect();
    assert_eq!(told, starts(0).chain(starts(1)).collect::<Vec<_>>());
    let Step::Iteration { run: 1, iteration: 2, before: Some(before), inertia } = steps[13] else {
        panic!("{steps:?}")
    };
    assert!(steps.len() == 14 && before > inertia);
    assert!(matches!(steps[4], Step::Iteration { run: 0, iteration: 0, before: None, .. }));

    #[derive(Debug)]
    enum Halt {
        Stopped,
        Error(Error),
    }
    impl From<Error> for Halt {
        fn from(error: Error) -> Halt {
            Halt::Error(error)
        }
    }
    for last in [1, 7] {
        let mut told = 0;
        let stop = |_| {
            told += 1;
            if told == last { Err(Halt::Stopped) } else { Ok(()) }
        };
        assert!(matches!(params.fit_with(x.view(), None, &Device::cpu(), stop), Err(Halt::Stopped)));
        assert_eq!(told, last);
    }
    let refused = KMeans::new(0).fit_with(x.view(), None, &Device::cpu(), |_| Ok::<(), Halt>(()));
    assert!(matches!(refused, Err(Halt::Error(Error::InvalidParameter { name: "k", .. }))));
}

#[test]
fn what_cannot_be_learned_is_refused_by_name() {
    let x = matrix(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
    let message = |params: KMeans, weights: Option<&[f32]>| {
        let refused = params.fit_with(x.view(), weights, &Device::cpu(), |_| Ok::<(), Error>(()));
        refused.unwrap_err().to_string()
    };
    let given = || Init::Given(codebook(x.view()));
    for (params, weights, expected) in [
        (KMeans::new(0), None, "k-means: k must be from 1 to 4294967294, got 0"),
        (KMeans::new(4), None, "k-means: expected at least 4 vectors, as many as codewords, got 3"),
        (KMeans::new(2).n_init(0), None, "k-means: n_init must be at least 1, got 0"),
        (KMeans::new(2).tolerance(1.0), None, "k-means: tolerance must be at least 0 and below 1, got 1"),
        (KMeans::new(2).tolerance(-0.5), None, "k-means: tolerance must be at least 0 and below 1, got -0.5"),
        (KMeans::new(2).tolerance(f64::NAN), None, "k-means: tolerance must be at least 0 and below 1, got NaN"),
        (KMeans::new(2).init(given()), None, "k-means: expected a codebook of 2 x 2 to start from, got 3 x 2"),
        (
            KMeans::new(3).init(given()).n_init(2),
            None,
            "k-means: n_init must be 1 with a given codebook or state, for all runs would be one, got 2",
        ),
        (
            KMeans::new(2),
            Some(&[0.0, 1.0, 0.0][..]),
            "k-means: expected at least 2 vectors of weight above 0, as many as codewords, got 1",
        ),
        (
            KMeans::new(1),
            Some(&[0.0; 3][..]),
            "k-means: expected at least 1 vectors of weight above 0, as many as codewords, got 0",
        ),
        (KMeans::new(1), Some(&[1.0; 2][..]), "k-means: expected 3 weights, got 2"),
        (
            KMeans::new(1),
            Some(&[1.0, f32::NAN, 1.0][..]),
            "k-means: weights must be finite and not negative, got NaN for row 1",
        ),
    ] {
        assert_eq!(message(params, weights), expected);
    }
    for init in [Init::RandomRows, Init::PlusPlus, Init::Hierarchical, Init::Progressive] {
        let mut bad = x.as_slice().to_vec();
        (bad[3], bad[4]) = (f32::INFINITY, f32::NAN);
        let refused = KMeans::new(1).init(init).fit(MatrixView::new(&bad, 3, 2).unwrap(), &Device::cpu()).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { what: "vector", row: 1, col: 1, .. }), "{refused}");
    }
    let empty = MatrixView::<f32>::new(&[], 3, 0).unwrap();
    let refused = KMeans::new(1).fit(empty, &Device::cpu()).unwrap_err().to_string();
    assert_eq!(refused, "k-means: expected vectors of at least one column, got 3 x 0");
}

#[test]
fn the_progressive_start_finds_the_line_that_rows_lie_on() {
    // Two clusters on a line that is none of the axes: one principal component tells them apart.
    let values: Vec<f32> = [0.0, 1.0, 2.0, 30.0, 31.0, 35.0].iter().flat_map(|t| [*t, 2.0 * t, -t]).collect();
    let x = matrix(values, 6, 3);
    let fit = fit(&KMeans::new(2).init(Init::Progressive).iterations(0), x.view());
    let mut codewords: Vec<[f32; 3]> =
        (0..2).map(|j| fit.codebook.codewords().unwrap().row(j).try_into().unwrap()).collect();
    codewords.sort_by(|a, b| a[0].total_cmp(&b[0]));
    for (got, expected) in codewords.iter().flatten().zip([1.0, 2.0, -1.0, 32.0, 64.0, -32.0]) {
        assert!((got - expected).abs() < 1e-5, "{codewords:?}");
    }
    // Values that leave f32 when they are turned are learned from as they are.
    let huge = matrix(vec![f32::MAX, f32::MAX, f32::MAX, f32::MAX, -f32::MAX, -f32::MAX, -f32::MAX, -f32::MAX], 4, 2);
    let fit = self::fit(&KMeans::new(2).init(Init::Progressive), huge.view());
    assert_eq!(fit.assignment.labels[0], fit.assignment.labels[1]);
    assert_ne!(fit.assignment.labels[0], fit.assignment.labels[2]);
}
