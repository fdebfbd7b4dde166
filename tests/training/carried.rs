//! Bounds that are carried from one iteration to the next change no byte of what k-means learns: every fit against the same
//! without them.

use crate::common::{Numbers, cases, codebook, matrix, scaled};
use codeword::backend::carried::Carry;
use codeword::{Device, Element, Error, Init, KMeans, KMeansFit, MatrixView, Step, bf16, f16};

/// Everything about a fit that is promised in bits.
type Bits = (Vec<u32>, Vec<u32>, Vec<u32>, Vec<u64>, bool);

fn bits(fit: &KMeansFit) -> Bits {
    let codewords = fit.codebook.codewords().unwrap();
    let codewords = (0..fit.codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    let distances = fit.assignment.sq_distances.iter().map(|value| value.to_bits()).collect();
    let curve = fit.curve.iter().map(|value| value.to_bits()).collect();
    (codewords, fit.assignment.labels.clone(), distances, curve, fit.converged)
}

fn learned<T: Element>(params: &KMeans, carry: Carry, x: MatrixView<'_, T>, weights: Option<&[f32]>) -> KMeansFit {
    params.clone().carry(carry).fit_with(x, weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap()
}

/// The fit, which is the same however bounds are carried.
fn same<T: Element>(name: &str, params: &KMeans, x: MatrixView<'_, T>, weights: Option<&[f32]>) -> KMeansFit {
    let without = learned(params, Carry::Never, x, weights);
    for carry in [Carry::Always, Carry::WherePays] {
        let with = learned(params, carry, x, weights);
        assert!(bits(&with) == bits(&without), "{name}: {carry:?}");
        let stats = with.stats;
        let rows = x.rows() as u64 * with.curve.len() as u64;
        assert_eq!(stats.first + stats.second + stats.f64 + stats.exact, rows, "{name}: {carry:?}");
    }
    without
}

#[test]
fn fits_are_the_same_with_bounds_and_without() {
    let mut numbers = Numbers::new(311);
    // Whole groups, one codeword more or less, one group, several registers of bounds, the most there can be; few
    // dimensions and many, of which some have kernels of their own.
    let shapes = [
        (2100, 16, 256),
        (1500, 8, 255),
        (1025, 4, 257),
        (1300, 3, 17),
        (900, 1, 16),
        (500, 5, 2),
        (2500, 2, 300),
        (3000, 7, 1024),
        (400, 40, 33),
        (300, 129, 48),
        (700, 16, 256),
    ];
    for (n, d, k) in shapes.into_iter().take(scaled(shapes.len()).max(4)) {
        let x = matrix(numbers.gaussians(n * d), n, d);
        let weights: Vec<f32> = (0..n).map(|i| if i % 9 == 0 { 0.0 } else { numbers.uniform() }).collect();
        for seed in 0..3 {
            let params = KMeans::new(k).init(Init::RandomRows).iterations(12).seed(seed);
            let fit = same(&format!("{n} x {d}, k={k}, seed {seed}"), &params, x.view(), None);
            assert!(fit.iterations() > 1);
            let name = format!("{n} x {d}, k={k}, seed {seed}, weights");
            let k = k.min(n - n.div_ceil(9));
            same(&name, &KMeans::new(k).init(Init::RandomRows).iterations(9).seed(seed), x.view(), Some(&weights));
        }
    }
}

#[test]
fn fits_of_adversarial_rows_and_codewords_are_the_same() {
    for (n, k, d) in [(333, 40, 6), (150, 70, 16), (90, 33, 19)] {
        for case in cases::adversarial(n, k, d) {
            let init = Init::Given(codebook(case.codewords.view()));
            let params = KMeans::new(k).init(init).iterations(6);
            same(&case.name, &params, case.x.view(), None);
            // The rows themselves, which may be few different ones.
            same(&case.name, &KMeans::new(k).init(Init::RandomRows).iterations(6), case.x.view(), None);
        }
    }
}

#[test]
fn fits_of_integers_with_their_many_ties_are_the_same() {
    let mut numbers = Numbers::new(17);
    for (d, magnitude) in [(1, 40), (2, 4), (3, 2), (8, 1), (16, 1)] {
        let (n, k) = (1200, 40);
        let x = matrix(numbers.integers(n * d, magnitude), n, d);
        for seed in 0..4 {
            let params = KMeans::new(k).init(Init::RandomRows).iterations(15).seed(seed);
            same(&format!("integers up to {magnitude}, d={d}, seed {seed}"), &params, x.view(), None);
            // Codewords that are integers, too, so that rows lie in the middle of many.
            let start = numbers.integers(k * d, magnitude);
            let params = KMeans::new(k).init(Init::Given(codebook(matrix(start, k, d).view()))).iterations(15);
            same(&format!("given integers up to {magnitude}, d={d}"), &params, x.view(), None);
        }
    }
}

#[test]
fn fits_at_every_scale_are_the_same() {
    let mut numbers = Numbers::new(5);
    let (n, d, k) = (700, 8, 50);
    let values = numbers.gaussians(n * d);
    // Squares overflow, or nearly; squares underflow, some or all; f32 itself does.
    for scale in [1e38, 1e30, 3e19, 1e18, 1e10, 1e-10, 1e-18, 1e-20, 3e-22, 1e-25, 1e-38, 1e-44] {
        let scaled: Vec<f32> = values.iter().map(|&value| (f64::from(value) * scale) as f32).collect();
        let x = matrix(scaled.iter().map(|value| value.clamp(f32::MIN, f32::MAX)).collect(), n, d);
        same(&format!("scale {scale}"), &KMeans::new(k).init(Init::RandomRows).iterations(8), x.view(), None);
        // Around a point far away, where sums of differences have few digits.
        let shifted = matrix(x.as_slice().iter().map(|&value| value + 1000.0 * scale as f32).collect(), n, d);
        if shifted.as_slice().iter().all(|value| value.is_finite()) {
            same(&format!("scale {scale}, shifted"), &KMeans::new(k).init(Init::RandomRows), shifted.view(), None);
        }
    }
    // All scales in one set of rows.
    let mixed = (0..n * d).map(|i| values[i] * 10f32.powi(i as i32 / d as i32 % 60 - 35)).collect();
    same("mixed", &KMeans::new(k).init(Init::RandomRows), matrix(mixed, n, d).view(), None);
}

#[test]
fn codewords_that_die_or_coincide_on_the_way_are_followed() {
    let mut numbers = Numbers::new(23);
    let (n, d, k) = (900, 4, 64);
    // Clumps far apart.
    let clump = |i: usize| if i.is_multiple_of(3) { 100.0 } else { 0.0 };
    let x = matrix((0..n * d).map(|i| clump(i / d) + numbers.gaussian()).collect(), n, d);
    // Far codewords have no rows: each goes to a row of its own.
    let far = (0..k * d).map(|i| if i < 20 * d { numbers.gaussian() } else { 1e3 + (i / d) as f32 }).collect();
    let init = Init::Given(codebook(matrix(far, k, d).view()));
    let fit = same("far", &KMeans::new(k).init(init), x.view(), None);
    assert!(fit.iterations() > 3);
    // Copies among the codewords, which separate later.
    let few = numbers.gaussians(5 * d);
    let copies = (0..k).flat_map(|j| few[j % 5 * d..][..d].to_vec()).collect();
    same("copies", &KMeans::new(k).init(Init::Given(codebook(matrix(copies, k, d).view()))), x.view(), None);
    // Fewer different rows than codewords.
    let rows = (0..n).flat_map(|i| few[i % 5 * d..][..d].to_vec()).collect();
    same("few rows", &KMeans::new(k).init(Init::RandomRows), matrix(rows, n, d).view(), None);
    // Weights that take a codeword's rows from it.
    let weights: Vec<f32> = (0..n).map(|i| if x.view().row(i)[0] > 0.5 { 0.0 } else { 1.0 }).collect();
    same("weights", &KMeans::new(40).init(Init::RandomRows), x.view(), Some(&weights));
}

#[test]
fn elements_strides_runs_and_threads_make_no_difference() {
    let mut numbers = Numbers::new(71);
    let (n, d, k) = (3000, 10, 100);
    let x = matrix(numbers.gaussians(n * d), n, d);
    let halves: Vec<f16> = x.as_slice().iter().map(|&value| f16::from_f32(value)).collect();
    let brains: Vec<bf16> = x.as_slice().iter().map(|&value| bf16::from_f32(value)).collect();
    let params = KMeans::new(k).init(Init::RandomRows).iterations(8).n_init(2).tolerance(1e-4);
    same("f16", &params, MatrixView::new(&halves, n, d).unwrap(), None);
    same("bf16", &params, MatrixView::new(&brains, n, d).unwrap(), None);
    same("columns", &params, x.view().columns(2..9).unwrap(), None);
    let alone = bits(&learned(&params, Carry::Never, x.view(), None));
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let fit = pool.install(|| learned(&params, Carry::Always, x.view(), None));
        assert!(bits(&fit) == alone, "{threads} threads");
    }
}

#[test]
fn a_run_goes_on_from_a_state_to_the_same_bytes() {
    let (n, d, k) = (2000, 6, 80);
    let x = matrix(Numbers::new(9).gaussians(n * d), n, d);
    let params = KMeans::new(k).init(Init::RandomRows).iterations(20);
    let expected = bits(&learned(&params, Carry::Never, x.view(), None));
    let mut states = Vec::new();
    let mut source = codeword::RowSource::held(x.view());
    let carrying = params.clone().carry(Carry::Always);
    let keep = |step: Step, state: Option<&codeword::KMeansState>| {
        if let (Step::Moved { .. }, Some(state)) = (step, state) {
            states.push(state.clone());
        }
        Ok::<(), Error>(())
    };
    carrying.fit_source(&mut source, None, &Device::cpu(), keep).unwrap();
    for state in [&states[1], &states[7], &states[15]] {
        let resumed = params.clone().init(Init::Resume(state.clone()));
        assert!(bits(&learned(&resumed, Carry::Always, x.view(), None)) == expected);
    }
}

#[test]
fn bounds_settle_most_rows_of_a_training_that_settles_down() {
    let (n, d, k) = (20_000, 4, 256);
    let x = matrix(Numbers::new(3).gaussians(n * d), n, d);
    let params = KMeans::new(k).init(Init::RandomRows).iterations(15);
    // Where rows are passed over there is nothing to decide again.
    let again = |carry: Carry| {
        let stats = learned(&params, carry, x.view(), None).stats;
        stats.second + stats.f64 + stats.exact
    };
    assert!(again(Carry::WherePays) * 2 < again(Carry::Never), "bounds are carried where they pay");
}

#[test]
fn a_row_that_is_no_vector_is_named_as_without_bounds() {
    let (n, d) = (600, 3);
    let mut values = Numbers::new(3).gaussians(n * d);
    values[417 * d + 1] = f32::NAN;
    for carry in [Carry::Always, Carry::WherePays, Carry::Never] {
        let params = KMeans::new(20).init(Init::RandomRows).carry(carry);
        let error = params.fit(matrix(values.clone(), n, d).view(), &Device::cpu()).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 417, col: 1, .. }), "{error}");
    }
}
