//! Sums by label of vectors on a CUDA device, and means of them, have the bits of the documented order: of the oracle's
//! plain loop over blocks, labels and rows. Every test runs in a child process on the simulated driver, which executes the
//! real kernels and reports what they do wrong.

use crate::common::sums::{bits, labels, wild};
use crate::common::{Numbers, matrix};
use crate::simulated::{Machine, pass_on_each};
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::{CudaStream, DeviceRepr};
use codeword::cuda::{MatrixView, Memory, Workspace};
use codeword::{Codebook, Device, Element, Error, SENTINEL, Sums, bf16, f16};
use std::sync::Arc;

/// A new stream of the device.
fn stream(device: &Device) -> Arc<CudaStream> {
    match device {
        Device::Cuda(context) => context.new_stream().expect("another stream"),
        other => panic!("a CUDA device is wanted, got {other}"),
    }
}

/// A workspace whose codebook has the shape of the sums; its codewords play no part in them.
fn workspace<T: Element>(k: usize, d: usize, stream: &Arc<CudaStream>, device: &Device) -> Workspace<T> {
    let codebook = Codebook::new(matrix(vec![0.0f32; k * d], k, d).view(), device).unwrap();
    Workspace::new(&codebook, stream, 8).unwrap()
}

/// The sums on the device of rows that lie `stride` apart, and the means that they give in place of sevens.
fn on_device<T: Element + DeviceRepr>(
    values: &[T],
    labels: &[u32],
    weights: Option<&[f32]>,
    (k, d, stride): (usize, usize, usize),
) -> codeword::Result<(Sums, Vec<f32>)> {
    let device = Device::cuda(0)?;
    let stream = stream(&device);
    let mut workspace = workspace::<T>(k, d, &stream, &device);
    // A driver allocates nothing for no rows.
    let (x, on_device) =
        (stream.clone_htod(&[values, &[T::zeroed()]].concat()), stream.clone_htod(&[labels, &[0]].concat()));
    let (x, on_device) = (x.unwrap(), on_device.unwrap());
    let (x, on_device) = (x.slice(..values.len()), on_device.slice(..labels.len()));
    let x = MatrixView::with_stride(&x, labels.len(), d, stride)?;
    let weights = weights.map(|weights| stream.clone_htod(&[weights, &[0.0]].concat()).unwrap());
    let weights = weights.as_ref().map(|weights| weights.slice(..labels.len()));
    let weights = weights.as_ref().map(|weights| weights as &dyn Memory<f32>);
    // What is there before counts for nothing.
    let mut counts = stream.clone_htod(&vec![9u64; k]).unwrap();
    let mut totals = stream.clone_htod(&vec![9.0f64; k]).unwrap();
    let mut sums = stream.clone_htod(&vec![9.0f64; k * d]).unwrap();
    let mut means = stream.clone_htod(&vec![7.0f32; k * d]).unwrap();
    workspace.accumulate(x, &on_device, weights, &mut counts, &mut totals, &mut sums)?;
    workspace.means(&totals, &sums, &mut means)?;
    workspace.check()?;
    let sums = Sums {
        counts: stream.clone_dtoh(&counts).unwrap(),
        weights: stream.clone_dtoh(&totals).unwrap(),
        sums: stream.clone_dtoh(&sums).unwrap(),
        d,
    };
    Ok((sums, stream.clone_dtoh(&means).unwrap()))
}

/// Asserts that the device gives the bits of the oracle, counts and means included.
fn assert_bits<T: Element + DeviceRepr>(
    name: &str,
    values: &[T],
    labels: &[u32],
    weights: Option<&[f32]>,
    (k, d, stride): (usize, usize, usize),
) {
    let (got, means) =
        on_device(values, labels, weights, (k, d, stride)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let x = codeword::MatrixView::with_stride(values, labels.len(), d, stride).unwrap();
    let (sums, totals) = reference::accumulate(x, labels, weights, k);
    let mut counts = vec![0u64; k];
    labels.iter().filter(|&&label| label != SENTINEL).for_each(|&label| counts[label as usize] += 1);
    assert_eq!(got.counts, counts, "{name}: counts");
    assert_eq!(bits(&got.weights), bits(&totals), "{name}: totals");
    assert!(bits(&got.sums) == bits(&sums), "{name}: sums");
    // Sums::mean_into is proven against integers where it is defined.
    let mut expected = vec![7.0f32; k * d];
    for (j, mean) in expected.chunks_exact_mut(d).enumerate() {
        got.mean_into(j, mean);
    }
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(&means) == bits(&expected), "{name}: means");
}

/// [`assert_bits`] with and without weights, of which every fifth is zero.
fn assert_both(name: &str, numbers: &mut Numbers, x: &[f32], labels: &[u32], (k, d): (usize, usize)) {
    assert_bits(name, x, labels, None, (k, d, d));
    let mut weights: Vec<f32> = wild(numbers, labels.len()).iter().map(|weight| weight.abs()).collect();
    weights.iter_mut().step_by(5).for_each(|weight| *weight = 0.0);
    assert_bits(&format!("{name}, weighted"), x, labels, Some(&weights), (k, d, d));
}

#[test]
fn sums_have_the_bits_of_the_documented_order() {
    let machines = (0..3).map(|seed| Machine::new().seed(seed));
    pass_on_each(machines, "accumulate::sums_have_the_bits_of_the_documented_order", || {
        let mut numbers = Numbers::new(91);
        // Components for a part of a warp, of a block of threads, and for more; more codewords than rows; one digit of a
        // label, and two.
        for (n, k, d) in
            [(0, 3, 4), (1, 1, 1), (31, 5, 7), (300, 7, 5), (97, 257, 3), (211, 11, 31), (65, 3, 128), (67, 2, 129)]
        {
            let (x, labels) = (wild(&mut numbers, n * d), labels(&mut numbers, n, k));
            assert_both(&format!("{n} x {d}, k={k}"), &mut numbers, &x, &labels, (k, d));
        }
    });
}

#[test]
fn rows_of_several_blocks() {
    Machine::new().pass("accumulate::rows_of_several_blocks", || {
        let mut numbers = Numbers::new(98);
        // Blocks of 2^18 / d rows: 512, 4 and 1.
        for (n, k, d) in [(521, 17, 512), (5, 2, 60_013), (2, 2, 131_073)] {
            let (x, labels) = (wild(&mut numbers, n * d), labels(&mut numbers, n, k));
            assert_bits(&format!("{n} x {d}, k={k}"), &x, &labels, None, (k, d, d));
        }
    });
}

#[test]
fn the_sort_is_stable_at_the_edges_of_its_tiles() {
    let machines = (0..4).map(|seed| Machine::new().seed(seed));
    pass_on_each(machines, "accumulate::the_sort_is_stable_at_the_edges_of_its_tiles", || {
        let mut numbers = Numbers::new(92);
        // Two tiles hold 4096 rows, a warp of one 256, a digit 256 values.
        for (n, k) in [(255, 255), (257, 256), (2047, 3), (2048, 255), (2049, 256), (4099, 257), (4096, 700)] {
            let (x, labels) = (wild(&mut numbers, n), labels(&mut numbers, n, k));
            assert_bits(&format!("{n} x 1, k={k}"), &x, &labels, None, (k, 1, 1));
        }
    });
}

#[test]
fn labels_of_three_digits() {
    // Without the checks of single accesses, as codewords are many: other tests run the same kernels with them.
    Machine::new().set("CHECK", 0).pass("accumulate::labels_of_three_digits", || {
        let mut numbers = Numbers::new(96);
        let (n, k) = (67, (1 << 16) + 1);
        let (x, mut labels) = (wild(&mut numbers, n), labels(&mut numbers, n, k));
        // The lowest digits alone would put the last codeword first.
        labels[13] = k as u32 - 1;
        assert_bits("three digits", &x, &labels, None, (k, 1, 1));
    });
}

#[test]
fn segments_that_are_just_long_enough_to_be_added_up_beforehand_and_just_not() {
    let name = "accumulate::segments_that_are_just_long_enough_to_be_added_up_beforehand_and_just_not";
    pass_on_each((0..3).map(|seed| Machine::new().seed(seed)), name, || {
        let mut numbers = Numbers::new(97);
        // 32 rows are long; they begin at any distance from a multiple of that.
        let counts = [31, 32, 1, 33, 0, 63, 64, 2, 65, 31, 31, 97, 32, 32];
        let mut labels: Vec<u32> =
            counts.iter().zip(0..).flat_map(|(&count, label)| std::iter::repeat_n(label, count)).collect();
        for i in (1..labels.len()).rev() {
            labels.swap(i, numbers.below(i + 1));
        }
        let (n, k) = (labels.len(), counts.len());
        let x = wild(&mut numbers, n * 2);
        assert_both("shuffled", &mut numbers, &x, &labels, (k, 2));
        labels.sort();
        assert_both("sorted", &mut numbers, &x, &labels, (k, 2));
        // Blocks of 63 and of 31 rows: some are full of one label.
        for (n, d) in [(130, 4099), (95, 8193)] {
            let labels: Vec<u32> = (0..n).map(|i| u32::from(i < 64 && i % 2 == 1)).collect();
            let x = wild(&mut numbers, n * d);
            assert_bits(&format!("{n} x {d}"), &x, &labels, None, (2, d, d));
        }
    });
}

#[test]
fn one_codeword_has_all_rows_or_none() {
    Machine::new().pass("accumulate::one_codeword_has_all_rows_or_none", || {
        let mut numbers = Numbers::new(93);
        let (n, k, d) = (2503, 300, 3);
        let x = wild(&mut numbers, n * d);
        for label in [0, 150, 299, SENTINEL] {
            assert_both(&format!("all {label}"), &mut numbers, &x, &vec![label; n], (k, d));
        }
    });
}

#[test]
fn types_gaps_between_rows_and_values_at_the_ends_of_f32() {
    Machine::new().pass("accumulate::types_gaps_between_rows_and_values_at_the_ends_of_f32", || {
        let mut numbers = Numbers::new(94);
        let (n, k, d, stride) = (517, 6, 13, 17);
        let labels = labels(&mut numbers, n, k);
        let weights: Vec<f32> = (0..n).map(|_| numbers.uniform()).collect();
        // The gaps hold NaN: whoever looks at them finds out.
        let mut x = vec![f32::NAN; (n - 1) * stride + d];
        for row in x.chunks_mut(stride) {
            row[..d].copy_from_slice(&wild(&mut numbers, d));
        }
        let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v.clamp(-6e4, 6e4))).collect();
        let brain: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
        for weights in [None, Some(&weights[..])] {
            assert_bits("f32", &x, &labels, weights, (k, d, stride));
            assert_bits("f16", &half, &labels, weights, (k, d, stride));
            assert_bits("bf16", &brain, &labels, weights, (k, d, stride));
        }
        // Blocks of 63 rows: a long segment of more components than half a block of threads has, and rows of one label
        // on either side of the end of a block.
        let (n, k, d) = (67, 2, 4099);
        let labels: Vec<u32> = (0..n).map(|i| u32::from(i >= 60 && i != 65)).collect();
        let weights: Vec<f32> = wild(&mut numbers, n).iter().map(|weight| weight.abs()).collect();
        let x = wild(&mut numbers, n * d);
        let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v.clamp(-6e4, 6e4))).collect();
        let brain: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
        assert_bits("blocks, f16", &half, &labels, Some(&weights), (k, d, d));
        assert_bits("blocks, bf16", &brain, &labels, Some(&weights), (k, d, d));
        // Means that are the largest f32, the smallest, half the smallest and zeros of either sign.
        let (largest, tiny) = (f32::MAX, f32::from_bits(1));
        let x = [largest, largest, -largest, tiny, 0.0, tiny, -0.0, -0.0, -tiny, 0.0];
        let labels = [0, 0, 1, 2, 2, 3, 4, 4, 5, 5];
        assert_bits("ends", &x, &labels, None, (7, 1, 1));
        let weights = [largest, largest, tiny, 0.5, 0.5, tiny, 1.0, 0.0, 3.0, 1.0];
        assert_bits("ends, weighted", &x, &labels, Some(&weights), (7, 1, 1));
    });
}

#[test]
fn means_are_rounded_once() {
    Machine::new().pass("accumulate::means_are_rounded_once", || {
        // As in src/backend/sums.rs: f64 quotients that lie in the middle of two f32, with a rest of either sign or none.
        let (mut sums, mut totals, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..200u64 {
            let w = 1 << 52 | step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
            for m in [(1 << 24) + 1, (1 << 24) + 3, (1 << 25) - 1u64] {
                let (total, middle) = (w as f64 * 2f64.powi(-52), m as f64 * 2f64.powi(-24));
                let sum = middle * total;
                // The sum is a multiple of 2^-52, m w one of 2^-76.
                let (sum_76, real_76) = ((sum * 2f64.powi(52)) as u128 * (1 << 24), u128::from(m) * u128::from(w));
                if sum / total != middle {
                    continue;
                }
                let (low, high) = ((m - 1) as f32 * 2f32.powi(-24), (m + 1) as f32 * 2f32.powi(-24));
                let mean = match sum_76.cmp(&real_76) {
                    std::cmp::Ordering::Less => low,
                    std::cmp::Ordering::Equal if m % 4 == 1 => low,
                    _ => high,
                };
                sums.extend([sum, -sum]);
                totals.push(total);
                expected.extend([mean, -mean]);
            }
        }
        let k = totals.len();
        assert!(k > 200, "{k}");
        let device = Device::cuda(0).unwrap();
        let stream = stream(&device);
        let mut workspace = workspace::<f32>(k, 2, &stream, &device);
        let (totals, sums) = (stream.clone_htod(&totals).unwrap(), stream.clone_htod(&sums).unwrap());
        let mut means = stream.alloc_zeros::<f32>(2 * k).unwrap();
        workspace.means(&totals, &sums, &mut means).unwrap();
        assert_eq!(stream.clone_dtoh(&means).unwrap(), expected);
    });
}

#[test]
fn more_rows_than_are_sorted_at_once() {
    // Without the checks of single accesses: other tests run the same kernels with them.
    Machine::new().set("CHECK", 0).pass("accumulate::more_rows_than_are_sorted_at_once", || {
        let mut numbers = Numbers::new(95);
        let (n, k, d) = ((1 << 20) + 300_001, 3, 1);
        let few = wild(&mut numbers, 1009);
        let x: Vec<f32> = (0..n).map(|i| few[i % 1009] * (1.0 + i as f32)).collect();
        let labels: Vec<u32> = (0..n).map(|i| (i % 5) as u32).map(|j| if j < 3 { j } else { 0 }).collect();
        assert_both("long", &mut numbers, &x, &labels, (k, d));
    });
}

#[test]
fn a_label_out_of_range_is_named_and_what_does_not_fit_is_refused() {
    Machine::new().pass("accumulate::a_label_out_of_range_is_named_and_what_does_not_fit_is_refused", || {
        for k in [5, 5000] {
            let mut labels = vec![SENTINEL; 3000];
            labels[2999] = k as u32;
            labels[2500] = u32::MAX - 1;
            let error = on_device(&[1.0f32; 3000], &labels, None, (k, 1, 1)).unwrap_err();
            let named = matches!(error, Error::CodeOutOfRange { position: 2500, code, .. } if code == u32::MAX - 1);
            assert!(named, "{error:?}");
            // The lowest that names none.
            labels[2500] = 0;
            let error = on_device(&[1.0f32; 3000], &labels, None, (k, 1, 1)).unwrap_err();
            let named = matches!(error, Error::CodeOutOfRange { position: 2999, code, .. } if code == k as u32);
            assert!(named, "{error:?}");
        }
        let device = Device::cuda(0).unwrap();
        let stream = stream(&device);
        let mut workspace = workspace::<f32>(3, 2, &stream, &device);
        let (x, labels) = (stream.clone_htod(&[0.0f32; 8]).unwrap(), stream.clone_htod(&[0u32; 4]).unwrap());
        let x = |cols| MatrixView::new(&x, 8 / cols, cols).unwrap();
        let mut counts = stream.alloc_zeros::<u64>(3).unwrap();
        let mut totals = stream.alloc_zeros::<f64>(3).unwrap();
        let mut sums = stream.alloc_zeros::<f64>(6).unwrap();
        let mut means = stream.alloc_zeros::<f32>(6).unwrap();
        let weights = stream.alloc_zeros::<f32>(3).unwrap();
        let text = |outcome: codeword::Result<()>| outcome.unwrap_err().to_string();

        let got = workspace.accumulate(x(4), &labels, None, &mut counts, &mut totals, &mut sums);
        assert_eq!(text(got), "accumulate: expected vectors of 2 columns, as the codewords have, got 4");
        let got = workspace.accumulate(x(2), &labels.slice(..3), None, &mut counts, &mut totals, &mut sums);
        assert_eq!(text(got), "accumulate: expected 4 labels, got 3");
        let got = workspace.accumulate(x(2), &labels, Some(&weights), &mut counts, &mut totals, &mut sums);
        assert_eq!(text(got), "accumulate: expected 4 weights, got 3");
        let got = workspace.accumulate(x(2), &labels, None, &mut counts.slice_mut(..2), &mut totals, &mut sums);
        assert_eq!(text(got), "accumulate: expected 3 counts, got 2");
        let got = workspace.accumulate(x(2), &labels, None, &mut counts, &mut totals.slice_mut(..2), &mut sums);
        assert_eq!(text(got), "accumulate: expected 3 totals, got 2");
        let got = workspace.accumulate(x(2), &labels, None, &mut counts, &mut totals, &mut sums.slice_mut(..5));
        assert_eq!(text(got), "accumulate: expected 6 sums, got 5");
        assert_eq!(text(workspace.means(&totals.slice(..2), &sums, &mut means)), "means: expected 3 totals, got 2");
        assert_eq!(text(workspace.means(&totals, &sums.slice(..3), &mut means)), "means: expected 6 sums, got 3");
        let got = workspace.means(&totals, &sums, &mut means.slice_mut(..5));
        assert_eq!(text(got), "means: expected 6 components, got 5");
    });
}
