//! Training on rows that are read block by block gives the bytes of training in memory, holds no more than it says,
//! goes on from any state that was kept, and names what it cannot learn.

use crate::common::{Numbers, codebook, matrix, scaled};
use codeword::{
    Codebook, Device, Error, Init, KMeans, KMeansState, Matrix, MatrixView, RowSource, SourceFit, Step, f16,
};
use std::cell::RefCell;
use std::sync::Mutex;

/// A source that copies rows out of a matrix, in blocks of 2^18 / d rows.
fn source(x: &Matrix<f32>) -> RowSource<'_, Error> {
    let d = x.cols();
    let read = move |first: usize, out: &mut [f32]| {
        out.copy_from_slice(&x.as_slice()[first * d..][..out.len()]);
        Ok(())
    };
    RowSource::new(x.rows(), d, read).with_block_rows(1)
}

fn fit(params: &KMeans, x: &Matrix<f32>, weights: Option<&[f32]>) -> SourceFit {
    params.fit_source(&mut source(x), weights, &Device::cpu(), |_, _| Ok(())).unwrap()
}

type Bits = (Vec<u32>, Vec<u64>, bool, usize);

fn bits(codebook: &Codebook, curve: &[f64], converged: bool, run: usize) -> Bits {
    let codewords = codebook.codewords().unwrap();
    let codewords = (0..codebook.k()).flat_map(|j| codewords.row(j)).map(|value| value.to_bits()).collect();
    (codewords, curve.iter().map(|value| value.to_bits()).collect(), converged, run)
}

fn bits_of(fit: &SourceFit) -> Bits {
    bits(&fit.codebook, &fit.curve, fit.converged, fit.run)
}

#[test]
fn blocks_that_are_read_give_the_bytes_of_rows_in_memory() {
    let mut numbers = Numbers::new(91);
    // 52, 1 and 13,107 rows a block; the last block not full.
    for (n, d, k) in [(120, 5000, 7), (4, 140_000, 2), (scaled(14_000), 20, 9)] {
        let mut values = numbers.gaussians((n - 2) * d);
        values.extend_from_within(..2 * d);
        let x = matrix(values, n, d);
        let weights: Vec<f32> = (0..n).map(|i| if i % 7 == 0 { 0.0 } else { numbers.uniform() }).collect();
        // Codewords far away get no row: rows from several blocks take their places.
        let far: Vec<f32> = (0..k).flat_map(|j| vec![if j == 0 { 0.0 } else { 1e4 * j as f32 }; d]).collect();
        let given = Init::Given(codebook(matrix(far, k, d).view()));
        for init in [Init::RandomRows, Init::PlusPlus, Init::Parallel, Init::Hierarchical, Init::Progressive, given] {
            for weights in [None, Some(&weights[..])] {
                // Takes long in many dimensions, and looks at weights as the others do.
                if matches!(init, Init::Progressive) && weights.is_some() && d > 100 {
                    continue;
                }
                let n_init = if matches!(init, Init::Given(_) | Init::Progressive) { 1 } else { 2 };
                let lloyd = KMeans::new(k).init(init.clone()).iterations(2).seed(5).n_init(n_init);
                for params in [lloyd.clone(), lloyd.clone().tolerance(0.3), lloyd.minibatch(37)] {
                    let in_memory =
                        params.fit_with(x.view(), weights, &Device::cpu(), |_| Ok::<(), Error>(())).unwrap();
                    let expected = bits(&in_memory.codebook, &in_memory.curve, in_memory.converged, in_memory.run);
                    let got = fit(&params, &x, weights);
                    assert!(bits_of(&got) == expected, "{n} x {d}, {params:?}");
                    assert_eq!(got.inertia.to_bits(), in_memory.inertia.to_bits());
                    let mut counts = vec![0; k];
                    in_memory.assignment.labels.iter().for_each(|&label| counts[label as usize] += 1);
                    assert_eq!((got.counts, got.stats), (counts, in_memory.stats));
                }
            }
        }
    }
}

#[test]
fn threads_block_sizes_and_element_types_change_no_bit() {
    let (n, d, k) = (scaled(20_000), 30, 12);
    let halves = matrix(Numbers::new(92).gaussians(n * d).iter().map(|&v| f16::from_f32(v)).collect(), n, d);
    let x = matrix(halves.as_slice().iter().map(|v| v.to_f32()).collect(), n, d);
    for params in [KMeans::new(k).init(Init::Parallel).iterations(2), KMeans::new(k).minibatch(100)] {
        let expected = bits_of(&fit(&params, &x, None));
        for (threads, rows) in [(1, 1), (3, 9000), (2, usize::MAX)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut source = source(&x).with_block_rows(rows);
            let again = pool.install(|| params.fit_source(&mut source, None, &Device::cpu(), |_, _| Ok(())).unwrap());
            assert!(bits_of(&again) == expected, "{threads} threads, blocks of {rows}");
        }
        let mut held: RowSource<'_, Error> = RowSource::held(halves.view());
        let again = params.fit_source(&mut held, None, &Device::cpu(), |_, _| Ok(())).unwrap();
        assert!(bits_of(&again) == expected, "f16 in memory");
    }
}

#[test]
fn rows_are_read_as_often_and_in_pieces_as_documented() {
    let (n, d, k) = (1000, 1000, 6);
    let x = matrix(Numbers::new(93).gaussians(n * d), n, d);
    // Blocks of 262 rows; 600 are two of them.
    for (init, extra) in [(Init::RandomRows, 0), (Init::PlusPlus, k - 1), (Init::Parallel, 6)] {
        let asked = Mutex::new(Vec::new());
        let read = |first: usize, out: &mut [f32]| {
            asked.lock().unwrap().push((first, out.len() / d));
            out.copy_from_slice(&x.as_slice()[first * d..][..out.len()]);
            Ok::<(), Error>(())
        };
        let mut source = RowSource::new(n, d, read).with_block_rows(600);
        let params = KMeans::new(k).init(init).iterations(2);
        params.fit_source(&mut source, None, &Device::cpu(), |_, _| Ok(())).unwrap();
        let asked = asked.lock().unwrap();
        let blocks: Vec<_> = asked.iter().copied().filter(|&(_, rows)| rows > 1).collect();
        assert_eq!(blocks, [(0, 524), (524, 476)].repeat(3 + extra));
    }
}

#[test]
fn training_goes_on_from_every_state_with_the_same_bytes() {
    let (n, d, k) = (900, 700, 10);
    let x = matrix(Numbers::new(94).gaussians(n * d), n, d);
    let far: Vec<f32> = (0..k).flat_map(|j| vec![100.0 * j as f32; d]).collect();
    let given = Init::Given(codebook(matrix(far, k, d).view()));
    let params = KMeans::new(k).init(given).iterations(5).seed(3);
    for params in [params.clone(), params.clone().tolerance(0.01), params.minibatch(50)] {
        let states: RefCell<Vec<KMeansState>> = RefCell::default();
        let keep = |step, state: Option<&KMeansState>| {
            // At any step, but not before there is a start.
            let state = state.expect("a start");
            let mut states = states.borrow_mut();
            match step {
                Step::Moved { iteration, .. } => {
                    assert_eq!((states.len(), state.curve.len()), (iteration, iteration));
                    states.push(state.clone());
                }
                _ => assert_eq!(states.last(), Some(state)),
            }
            Ok(())
        };
        let whole = params.fit_source(&mut source(&x), None, &Device::cpu(), keep).unwrap();
        let states = states.into_inner();
        assert_eq!(states.len(), whole.curve.len());
        for state in states {
            let resumed = params.clone().init(Init::Resume(state.clone()));
            assert!(bits_of(&fit(&resumed, &x, None)) == bits_of(&whole), "from {}", state.curve.len());
            // Fewer iterations than were made, and mini-batches where there were none.
            let refused = |params: KMeans| params.fit(x.view(), &Device::cpu()).unwrap_err().to_string();
            if let made @ 1.. = state.curve.len() {
                let text = format!("iterations must be at least the {made} of the state to go on from, got 0");
                assert!(refused(resumed.clone().iterations(0)).contains(&text));
                for inertia in [f64::NAN, -1.0] {
                    let curve = [&state.curve[1..], &[inertia]].concat();
                    let state = KMeansState { curve, ..state.clone() };
                    let text = refused(resumed.clone().init(Init::Resume(state)));
                    assert!(text.contains("curve of the state must be numbers that are not negative"), "{text}");
                }
            }
            if state.weights.is_empty() {
                assert!(refused(resumed.tolerance(0.0).minibatch(5)).contains("weights of the state must be 10"));
            } else {
                assert!(refused(KMeans::new(k).init(Init::Resume(state))).contains("weights of the state must be 0"));
            }
        }
    }
}

#[test]
fn the_first_row_that_is_not_finite_is_named() {
    let (n, d, k) = (700, 1500, 3);
    let mut values = Numbers::new(95).gaussians(n * d);
    // In the second and third block; every other row behind the first one too.
    values[300 * d + 2] = f32::NEG_INFINITY;
    (301..n).step_by(2).for_each(|i| values[i * d] = f32::NAN);
    let x = matrix(values, n, d);
    let lloyd = KMeans::new(k);
    for init in [Init::RandomRows, Init::PlusPlus, Init::Parallel, Init::Hierarchical, Init::Progressive] {
        for params in [lloyd.clone(), lloyd.clone().minibatch(400)] {
            let params = params.init(init.clone());
            let refused = params.fit_source(&mut source(&x), None, &Device::cpu(), |_, _| Ok(())).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "k-means: vector 300 holds -inf in column 2; remove the vector",
                "{params:?}"
            );
        }
    }
}

#[test]
fn errors_of_reading_and_observing_end_it_between_blocks() {
    #[derive(Debug, PartialEq)]
    enum Halt {
        Read(usize),
        Stopped,
        Failed(String),
    }
    impl From<Error> for Halt {
        fn from(error: Error) -> Halt {
            Halt::Failed(error.to_string())
        }
    }
    let (n, d) = (1000, 1 << 16);
    let from = |bad: usize| {
        RowSource::new(n, d, move |first, out: &mut [f32]| {
            out.fill(1.0);
            if (first..first + out.len() / d).contains(&bad) { Err(Halt::Read(bad)) } else { Ok(()) }
        })
        .with_block_rows(4)
    };
    let params = KMeans::new(1).init(Init::Given(codebook(matrix(vec![0.5f32; d], 1, d).view())));
    let learn = |bad: usize, last: usize| {
        let observe = |step: Step, _: Option<&KMeansState>| match step {
            Step::Rows { rows, .. } if rows == last => Err(Halt::Stopped),
            _ => Ok(()),
        };
        params.fit_source(&mut from(bad), None, &Device::cpu(), observe).unwrap_err()
    };
    assert_eq!(learn(701, 1004), Halt::Read(701));
    // The block before the one that cannot be read.
    assert_eq!(learn(8, 8), Halt::Stopped);
    assert_eq!(learn(5000, 996), Halt::Stopped);
    let refused = KMeans::new(1001).fit_source(&mut from(5000), None, &Device::cpu(), |_, _| Ok(())).unwrap_err();
    let text = "k-means: expected at least 1001 vectors, as many as codewords, got 1000";
    assert_eq!(refused, Halt::Failed(text.into()));
    // A block that no memory holds: an error, and nothing else.
    let mut huge = RowSource::new(3, usize::MAX / 2, |_, _: &mut [f32]| Ok::<(), Error>(()));
    let refused = KMeans::new(2).fit_source(&mut huge, None, &Device::cpu(), |_, _| Ok(())).unwrap_err();
    assert!(matches!(refused, Error::Shape { .. }), "{refused}");
}

#[test]
fn samples_are_different_rows_each_as_likely() {
    let (n, d) = (200, 3);
    let x = matrix((0..n * d).map(|i| i as f32).collect(), n, d);
    let mut drawn = vec![0; n];
    for seed in 0..500 {
        let (rows, values) = source(&x).sample(40, seed).unwrap();
        assert!(rows.len() == 40 && rows.is_sorted_by(|a, b| a < b), "{rows:?}");
        assert!((0..40).all(|i| values.view().row(i) == x.view().row(rows[i])));
        let (same, _) = RowSource::<Error>::held(x.view()).sample(40, seed).unwrap();
        assert_eq!(same, rows);
        rows.iter().for_each(|&i| drawn[i] += 1);
    }
    // 100 expected, standard deviation 9.
    assert!(drawn.iter().all(|times| (55..145).contains(times)), "{drawn:?}");
    for count in [n, n + 1, usize::MAX] {
        let (rows, values) = source(&x).sample(count, 1).unwrap();
        assert!(rows == (0..n).collect::<Vec<_>>() && values == x);
    }
    assert_eq!(source(&x).sample(0, 1).unwrap().1.rows(), 0);
}

#[test]
fn degenerate_rows_are_learned_by_batches_and_by_rounds_as_documented() {
    // All rows equal, fewer different rows than codewords, as many codewords as rows, a batch larger than all rows.
    for (rows, k) in [(vec![2.5f32; 9], 4), (vec![1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 5), (vec![3.0, 1.0, 4.0, 1.5], 4)] {
        let n = rows.len();
        let x = matrix(rows, n, 1);
        for seed in 0..20 {
            let got = fit(&KMeans::new(k).init(Init::Parallel).seed(seed), &x, None);
            assert_eq!((got.inertia, got.converged), (0.0, true), "seed {seed}, {x:?}");
            let got = fit(&KMeans::new(k).minibatch(50).seed(seed), &x, None);
            assert!(!got.converged && got.iterations() == 25 && got.inertia.is_finite());
            assert_eq!(got.counts.iter().sum::<u64>(), n as u64);
        }
    }
    // One codeword that sees batches of all rows stays between the smallest and the largest; rows of no weight move
    // nothing and are labelled.
    let x = matrix(vec![1.0f32, 1e30, 2.0, 3.0], 4, 1);
    let weights = [1.0, 0.0, 2.0, 1.0];
    for init in [Init::RandomRows, Init::PlusPlus, Init::Parallel, Init::Hierarchical, Init::Progressive] {
        let got = fit(&KMeans::new(1).init(init).minibatch(30), &x, Some(&weights));
        let codeword = got.codebook.codewords().unwrap().row(0)[0];
        assert!((1.5..2.5).contains(&codeword) && got.counts == [4], "{codeword}");
        let expected: f64 =
            [1.0, 2.0, 3.0].iter().zip([1.0, 2.0, 1.0]).map(|(z, w)| w * (z - codeword).powi(2) as f64).sum();
        assert!((got.inertia - expected).abs() < 1e-5 * expected);
    }
    let one = MatrixView::new(&[1.0f32, 2.0], 2, 1).unwrap();
    let refused = |params: KMeans| params.fit(one, &Device::cpu()).unwrap_err().to_string();
    // More than there is memory for.
    let text = format!("k-means: expected as many vectors as there is memory for a number each, got {}", usize::MAX);
    assert_eq!(refused(KMeans::new(1).minibatch(usize::MAX)), text);
    let mut endless = RowSource::new(usize::MAX, 1, |_, _: &mut [f32]| Ok::<(), Error>(()));
    for init in [Init::PlusPlus, Init::Parallel] {
        let params = KMeans::new(1).init(init);
        let error = params.fit_source(&mut endless, None, &Device::cpu(), |_, _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(refused(KMeans::new(1).minibatch(0)), "k-means: minibatch must be at least 1 row, got 0");
    let text = "k-means: tolerance must be 0 with mini-batches, whose inertia is an estimate, got 0.5";
    assert_eq!(refused(KMeans::new(1).minibatch(2).tolerance(0.5)), text);
}
