//! k-means on a CUDA device learns the bytes that it learns on the CPU, and so does a codebook that follows its batches. Every test runs in a child process on the
//! simulated driver, which executes the real kernels and reports what they do wrong.

use crate::common::{Numbers, matrix};
use crate::simulated::{self, Machine};
use codeword::{
    Codebook, Device, Element, Ema, Error, Init, KMeans, KMeansFit, KMeansState, MatrixView, RowSource, Step, bf16,
    f16, vector_gradient,
};

/// Everything about a fit but the tiers, which devices may differ in.
fn learned(fit: &KMeansFit) -> (Vec<u32>, Vec<u32>, Vec<u32>, Vec<u64>, bool, usize) {
    let codewords = fit.codebook.codewords().unwrap();
    let codewords = (0..fit.codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    let distances = fit.assignment.sq_distances.iter().map(|value| value.to_bits()).collect();
    let curve = fit.curve.iter().map(|value| value.to_bits()).collect();
    (codewords, fit.assignment.labels.clone(), distances, curve, fit.converged, fit.run)
}

#[test]
fn a_device_learns_the_bytes_of_the_cpu() {
    Machine::new().pass("kmeans::a_device_learns_the_bytes_of_the_cpu", || {
        let mut numbers = Numbers::new(81);
        for (n, k, d) in [(300, 7, 24), (150, 40, 3), (90, 90, 5)] {
            let mut values = numbers.gaussians((n - 20) * d);
            // Ties and copies.
            values.extend_from_within(..20 * d);
            let x = matrix(values, n, d);
            let weights: Vec<f32> = (0..n).map(|_| 0.25 + numbers.uniform()).collect();
            let starts = [
                (Init::RandomRows, None),
                (Init::PlusPlus, Some(&weights[..])),
                (Init::Hierarchical, None),
                (Init::Progressive, None),
            ];
            for (init, weights) in starts {
                // Many launches: of few dimensions.
                if matches!(init, Init::Progressive) && d > 3 {
                    continue;
                }
                let params = KMeans::new(k).init(init).iterations(3).n_init(2).seed(7);
                let on = |device: &Device| params.fit_with(x.view(), weights, device, |_| Ok::<(), Error>(())).unwrap();
                let (device, cpu) = (Device::cuda(0).unwrap(), Device::cpu());
                let (got, expected) = (on(&device), on(&cpu));
                assert!(learned(&got) == learned(&expected), "{n} x {d}, k={k}");
                let stats = got.assignment.stats;
                assert_eq!(stats.first + stats.second + stats.f64 + stats.exact, n as u64, "of the last pass");
                assert_eq!((got.codebook.device(), expected.codebook.device()), (&device, &cpu));
                // A codebook of the device as the start.
                let more = params.clone().n_init(1).init(Init::Given(got.codebook));
                let more = |device| learned(&more.fit(x.view(), device).unwrap());
                assert!(more(&device) == more(&cpu), "{n} x {d}, k={k}: from a codebook on the device");
                let limited = learned(&on(&device.with_max_memory(64 * 1024)));
                assert!(limited == learned(&expected), "{n} x {d}, k={k}: with little memory");
            }
        }
        // A codeword without rows, of one component: it is moved to one.
        let x = matrix(numbers.gaussians(50), 50, 1);
        let on = |device: Device| {
            let start = Codebook::new(matrix(vec![-1.0, 1.0, 1.0], 3, 1).view(), &device).unwrap();
            learned(&KMeans::new(3).init(Init::Given(start)).iterations(2).fit(x.view(), &device).unwrap())
        };
        assert!(on(Device::cuda(0).unwrap()) == on(Device::cpu()), "a codeword twice");
    });
}

#[test]
fn rounds_batches_and_states_lead_to_the_bytes_of_the_cpu() {
    Machine::new().pass("kmeans::rounds_batches_and_states_lead_to_the_bytes_of_the_cpu", || {
        let mut numbers = Numbers::new(83);
        let (n, k, d) = (260, 9, 7);
        let x = matrix(numbers.gaussians(n * d), n, d);
        let weights: Vec<f32> = (0..n).map(|i| if i % 9 == 0 { 0.0 } else { numbers.uniform() }).collect();
        let (device, cpu) = (Device::cuda(0).unwrap(), Device::cpu());
        for (params, weights) in [
            (KMeans::new(k).init(Init::Parallel), None),
            (KMeans::new(k).init(Init::Parallel), Some(&weights[..])),
            (KMeans::new(k).init(Init::RandomRows).minibatch(64), None),
            (KMeans::new(k).minibatch(64), Some(&weights[..])),
        ] {
            let params = params.iterations(3).seed(11);
            let train = |params: &KMeans, device: &Device| {
                let mut states: Vec<KMeansState> = Vec::new();
                let keep = |step, state: Option<&KMeansState>| {
                    if let (Step::Moved { .. }, Some(state)) = (step, state) {
                        states.push(state.clone());
                    }
                    Ok::<(), Error>(())
                };
                let mut rows = RowSource::held(x.view());
                let fit = params.fit_source(&mut rows, weights, device, keep).unwrap();
                let codewords = fit.codebook.codewords().unwrap();
                let codewords: Vec<u32> = (0..k).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
                let curve: Vec<u64> = fit.curve.iter().map(|value| value.to_bits()).collect();
                ((codewords, curve, fit.counts), states)
            };
            let ((got, of_device), (expected, of_cpu)) = (train(&params, &device), train(&params, &cpu));
            assert!(got == expected && of_device == of_cpu && of_cpu.len() == 4, "{params:?}");
            // Begun on one and ended on the other.
            for (states, device) in [(&of_cpu, &device), (&of_device, &cpu)] {
                let resumed = params.clone().init(Init::Resume(states[2].clone()));
                assert!(train(&resumed, device).0 == expected, "{params:?} on {device}");
            }
        }
    });
}

#[test]
fn a_codebook_of_a_device_follows_its_batches_to_the_bytes_of_the_cpu() {
    Machine::new().pass("kmeans::a_codebook_of_a_device_follows_its_batches_to_the_bytes_of_the_cpu", || {
        let mut numbers = Numbers::new(82);
        let (n, k, d) = (120, 15, 6);
        let start = matrix(numbers.gaussians(k * d), k, d);
        let batches: Vec<_> = (0..3).map(|_| matrix(numbers.gaussians(n * d), n, d)).collect();
        for cosine in [false, true] {
            let followed = |device: Device| {
                let params = Ema::new().decay(0.6).threshold(6.0).cosine(cosine);
                let mut ema = params.start(&Codebook::new(start.view(), &device).unwrap()).unwrap();
                let mut told = Vec::new();
                for batch in &batches {
                    let step = ema.update(batch.view()).unwrap();
                    let labels = step.assignment.labels;
                    let gradient = vector_gradient(batch.view(), ema.codebook(), &labels, 0.25, None).unwrap();
                    told.push((labels, step.usage, gradient));
                }
                assert_eq!(ema.codebook().device(), &device);
                let codewords = ema.codebook().codewords().unwrap();
                let codewords: Vec<u32> = (0..k).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
                (told, codewords, ema.state().clone())
            };
            let (got, expected) = (followed(Device::cuda(0).unwrap()), followed(Device::cpu()));
            assert!(expected.0.iter().any(|(_, usage, _)| usage.revived > 0));
            assert!(got == expected, "cosine {cosine}");
        }
    });
}

#[test]
fn rows_of_any_type_and_with_gaps_between_them_are_learned_from_on_the_device() {
    fn assert_same<T: Element>(
        name: &str,
        values: &[T],
        weights: &[f32],
        (n, k, d, stride): (usize, usize, usize, usize),
    ) {
        let x = MatrixView::with_stride(values, n, d, stride).unwrap();
        for weights in [None, Some(weights)] {
            let params = KMeans::new(k).init(Init::RandomRows).iterations(4).seed(5);
            let on = |device: Device| params.fit_with(x, weights, &device, |_| Ok::<(), Error>(())).unwrap();
            assert!(learned(&on(Device::cuda(0).unwrap())) == learned(&on(Device::cpu())), "{name}");
        }
    }
    for seed in 0..3 {
        let machine = Machine::new().seed(seed);
        machine.pass("kmeans::rows_of_any_type_and_with_gaps_between_them_are_learned_from_on_the_device", || {
            let mut numbers = Numbers::new(82);
            let (n, k, d, stride) = (211, 5, 9, 13);
            let mut x = vec![f32::NAN; (n - 1) * stride + d];
            for row in x.chunks_mut(stride) {
                row[..d].copy_from_slice(&numbers.gaussians(d));
            }
            let weights: Vec<f32> = (0..n).map(|i| if i % 6 == 0 { 0.0 } else { numbers.uniform() }).collect();
            let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
            let brain: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
            assert_same("f32", &x, &weights, (n, k, d, stride));
            assert_same("f16", &half, &weights, (n, k, d, stride));
            assert_same("bf16", &brain, &weights, (n, k, d, stride));
        });
    }
}

#[test]
fn rows_that_are_read_are_read_once_where_the_device_has_room_for_them() {
    Machine::new().pass("kmeans::rows_that_are_read_are_read_once_where_the_device_has_room_for_them", || {
        let (n, k, d, iterations) = (300, 6, 10, 3);
        let mut values = Numbers::new(84).gaussians(n * d);
        let weights: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
        // A start of which one codeword has no rows: its next place is sought among all of them.
        let mut start: Vec<f32> = values[..k * d].to_vec();
        start[..d].fill(50.0);
        let start = |device: &Device| Init::Given(Codebook::new(matrix(start.clone(), k, d).view(), device).unwrap());
        let learn = |values: &[f32], device: &Device, init: Init, weights: Option<&[f32]>| {
            let mut passes = 0;
            let read = |first: usize, out: &mut [f32]| {
                passes += usize::from(out.len() == n * d);
                out.copy_from_slice(&values[first * d..][..out.len()]);
                Ok::<(), Error>(())
            };
            let params = KMeans::new(k).init(init).iterations(iterations).seed(3);
            let fit = params.fit_source(&mut RowSource::new(n, d, read), weights, device, |_, _| Ok(()))?;
            let codewords = fit.codebook.codewords()?;
            let bits: Vec<u32> = (0..k).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
            let curve: Vec<u64> = fit.curve.iter().map(|value| value.to_bits()).collect();
            Ok::<_, Error>(((bits, curve, fit.counts, fit.converged), passes))
        };
        let (device, cpu) = (Device::cuda(0).unwrap(), Device::cpu());
        let little = device.with_max_memory(16 * 1024);
        for weights in [None, Some(&weights[..])] {
            let (expected, in_each) = learn(&values, &cpu, Init::RandomRows, weights).unwrap();
            assert_eq!(in_each, iterations + 1);
            let (got, passes) = learn(&values, &device, Init::RandomRows, weights).unwrap();
            assert!(got == expected && passes == 1, "{passes} passes");
            let (got, passes) = learn(&values, &little, Init::RandomRows, weights).unwrap();
            assert!(got == expected && passes == in_each, "without room: {passes} passes");
        }
        let (expected, _) = learn(&values, &cpu, start(&cpu), None).unwrap();
        let (got, passes) = learn(&values, &device, start(&device), None).unwrap();
        assert!(got == expected && passes == 2, "a codeword without rows: {passes} passes");
        values[7 * d + 3] = f32::NAN;
        for device in [&device, &little, &cpu] {
            let error = learn(&values, device, start(device), None).unwrap_err();
            assert!(matches!(error, Error::NonFinite { row: 7, col: 3, .. }), "{error}");
        }
    });
}

#[test]
fn rows_and_codewords_go_to_the_device_once() {
    if !simulated::is_available() {
        return;
    }
    let name = "kmeans::rows_and_codewords_go_to_the_device_once";
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = Machine::new().set("TRACE", trace.display()).run(name, || {
        // Bytes of every copy to the device so far.
        let copied = || -> Vec<usize> {
            let file = std::env::var("CODEWORD_SIM_TRACE").expect("set above");
            let text = std::fs::read_to_string(file).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("submit ") && line.contains(" copy_htod "));
            let bytes = lines.map(|line| line.split_once("bytes=").unwrap().1.split(' ').next().unwrap());
            bytes.map(|bytes| bytes.parse().unwrap()).collect()
        };
        let (n, k, d) = (500, 6, 10);
        let x = matrix(Numbers::new(83).gaussians(n * d), n, d);
        let mut before = Vec::new();
        let observe = |step| {
            if let Step::Iteration { .. } = step {
                before.push(copied());
            }
            Ok::<(), Error>(())
        };
        let fit = KMeans::new(k).iterations(5).fit_with(x.view(), None, &Device::cuda(0).unwrap(), observe).unwrap();
        assert_eq!(fit.iterations(), 5);
        assert_eq!(before[0].iter().filter(|&&bytes| bytes >= n * d).count(), 1, "{:?}", before[0]);
        // What is known of a codebook before it is prepared, and nothing else; the first move was made before it was told.
        let later = copied().split_off(before[0].len());
        assert!(later.len() == 4 && later.iter().all(|&bytes| bytes < 64), "{later:?}");
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn each_refused_allocation_of_a_training_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "kmeans::each_refused_allocation_of_a_training_is_an_error_and_leaves_nothing_behind";
    let refusals = Machine::new().refuse_each(name, || {
        let x = [0.0f32, 1.0, 5.0, 7.0];
        let x = MatrixView::new(&x, 4, 1)?;
        KMeans::new(2).init(Init::RandomRows).iterations(1).fit(x, &Device::cuda(0)?).map(|_| ())
    });
    assert!(refusals > 30, "{refusals}");
}
