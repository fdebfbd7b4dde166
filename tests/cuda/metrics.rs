//! Losses and usage of vectors and labels on a CUDA device are those of the CPU, to the last bit. Every test runs in a
//! child process on the simulated driver, which executes the real kernels and reports what they do wrong.

use crate::common::{Numbers, matrix};
use crate::simulated::Machine;
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::CudaStream;
use codeword::cuda::{MatrixView, Workspace};
use codeword::{Codebook, Device, Element, Error, Metrics, SENTINEL, bf16, f16, metrics};
use std::sync::Arc;

/// A new stream of the device.
fn stream(device: &Device) -> Arc<CudaStream> {
    match device {
        Device::Cuda(context) => context.new_stream().expect("another stream"),
        other => panic!("a CUDA device is wanted, got {other}"),
    }
}

/// Metrics on the device of the first n of rows that lie `stride` apart.
fn on_device<T: Element + codeword::cuda::cudarc::driver::DeviceRepr>(
    values: &[T],
    labels: &[u32],
    codewords: codeword::MatrixView<'_, f32>,
    stride: usize,
) -> codeword::Result<Metrics> {
    let device = Device::cuda(0)?;
    let codebook = Codebook::new(codewords, &device)?;
    let stream = stream(&device);
    let (x, on_device) = (stream.clone_htod(values).unwrap(), stream.clone_htod(labels).unwrap());
    let x = MatrixView::with_stride(&x, labels.len(), codewords.cols(), stride)?;
    Workspace::<T>::new(&codebook, &stream, 64)?.metrics(x, &on_device)
}

/// Asserts that the device gives what the CPU gives, and that this is about what the oracle gives.
fn assert_same<T: Element + codeword::cuda::cudarc::driver::DeviceRepr>(
    name: &str,
    values: &[T],
    labels: &[u32],
    codewords: codeword::MatrixView<'_, f32>,
    stride: usize,
) {
    let got = on_device(values, labels, codewords, stride).unwrap_or_else(|error| panic!("{name}: {error}"));
    let x = codeword::MatrixView::with_stride(values, labels.len(), codewords.cols(), stride).unwrap();
    let expected = metrics(x, &Codebook::new(codewords, &Device::cpu()).unwrap(), labels).unwrap();
    assert_eq!(got, expected, "{name}");
    for (what, got, expected) in [
        ("inertia", got.inertia, expected.inertia),
        ("SNR", got.snr_db, expected.snr_db),
        ("perplexity", got.perplexity, expected.perplexity),
    ] {
        assert_eq!(got.to_bits(), expected.to_bits(), "{name}: {what}");
    }
    let oracle = reference::metrics(x, codewords, labels);
    assert_eq!((got.n, got.skipped, &got.histogram), (oracle.n, oracle.skipped, &oracle.histogram), "{name}");
    assert!(
        (got.inertia - oracle.inertia).abs() <= 1e-10 * oracle.inertia,
        "{name}: {} {}",
        got.inertia,
        oracle.inertia
    );
}

/// Labels below k, every seventh or so a sentinel.
fn labels(numbers: &mut Numbers, n: usize, k: usize) -> Vec<u32> {
    (0..n).map(|_| if numbers.below(7) == 0 { SENTINEL } else { numbers.below(k) as u32 }).collect()
}

#[test]
fn metrics_on_the_device_are_those_of_the_cpu() {
    Machine::new().pass("metrics::metrics_on_the_device_are_those_of_the_cpu", || {
        let mut numbers = Numbers::new(51);
        // Eight running sums; blocks of 2^18 / d rows: from none to eleven and a part.
        for (n, k, d) in [
            (1, 1, 1),
            (33, 3, 2),
            (31, 5, 7),
            (32, 4, 8),
            (65, 9, 9),
            (100, 7, 33),
            (300, 3, 1000),
            (23, 2, 100_003),
            (7, 3, 300_000),
        ] {
            for scale in [1.0f32, 1e-40, 1e37] {
                let mut draw = |rows: usize| -> Vec<f32> {
                    (0..rows * d).map(|_| numbers.gaussian() * scale * 2f32.powi(-(numbers.below(30) as i32))).collect()
                };
                let (x, e) = (draw(n), matrix(draw(k), k, d));
                let labels = labels(&mut numbers, n, k);
                assert_same(&format!("{n} x {k} x {d} at {scale:e}"), &x, &labels, e.view(), d);
            }
        }
    });
}

#[test]
fn types_and_gaps_between_rows() {
    Machine::new().pass("metrics::types_and_gaps_between_rows", || {
        let mut numbers = Numbers::new(52);
        let (n, k, d, stride) = (70, 6, 13, 17);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let labels = labels(&mut numbers, n, k);
        // The gaps hold NaN: whoever looks at them finds out.
        let mut x = vec![f32::NAN; (n - 1) * stride + d];
        for row in x.chunks_mut(stride) {
            row[..d].copy_from_slice(&numbers.gaussians(d));
        }
        assert_same("f32", &x, &labels, e.view(), stride);
        let half: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
        assert_same("f16", &half, &labels, e.view(), stride);
        let brain: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
        assert_same("bf16", &brain, &labels, e.view(), stride);
    });
}

#[test]
fn no_rows_and_sentinels_alone() {
    Machine::new().pass("metrics::no_rows_and_sentinels_alone", || {
        let e = matrix(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
        assert_same("sentinels", &[1.0f32; 10], &[SENTINEL; 5], e.view(), 2);
        let device = Device::cuda(0).unwrap();
        let codebook = Codebook::new(e.view(), &device).unwrap();
        let stream = stream(&device);
        let (x, labels) = (stream.clone_htod(&[1.0f32]).unwrap(), stream.clone_htod(&[1u32]).unwrap());
        let (x, none) = (x.slice(..0), labels.slice(..0));
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 4).unwrap();
        let got = workspace.metrics(MatrixView::new(&x, 0, 2).unwrap(), &none).unwrap();
        let nothing = codeword::MatrixView::<f32>::new(&[], 0, 2).unwrap();
        assert_eq!(got, metrics(nothing, &Codebook::new(e.view(), &Device::cpu()).unwrap(), &[]).unwrap());
    });
}

#[test]
fn usage_of_few_codewords_and_of_more_than_a_block_can_hold() {
    // Also with blocks and threads in random order.
    for seed in 0..3 {
        let machine = Machine::new().set("SEED", seed);
        machine.pass("metrics::usage_of_few_codewords_and_of_more_than_a_block_can_hold", || {
            let mut numbers = Numbers::new(53);
            for k in [1, 2, 4095, 4096, 4097, 6000] {
                let e = matrix((0..k).map(|j| j as f32).collect(), k, 1);
                // One codeword takes most of the rows.
                let labels: Vec<u32> =
                    (0..3000).map(|i| if i % 3 > 0 { k as u32 - 1 } else { numbers.below(k) as u32 }).collect();
                assert_same(&format!("{k} codewords"), &numbers.gaussians(3000), &labels, e.view(), 1);
            }
        });
    }
}

#[test]
fn more_rows_than_are_summed_at_once() {
    // Without the checks of single accesses: other tests run the same kernels with them.
    Machine::new().set("CHECK", 0).pass("metrics::more_rows_than_are_summed_at_once", || {
        let mut numbers = Numbers::new(54);
        let (n, d) = ((1 << 20) + 300_000, 1);
        let few = numbers.gaussians(1000);
        let x: Vec<f32> = (0..n * d).map(|i| few[i % 1000] * (1.0 + i as f32)).collect();
        let labels: Vec<u32> = (0..n).map(|i| u32::from(i % 3 == 0)).collect();
        assert_same("long", &x, &labels, matrix(vec![0.5f32, -0.5], 2, 1).view(), d);
    });
}

#[test]
fn a_label_out_of_range_is_named_and_what_does_not_fit_is_refused() {
    Machine::new().pass("metrics::a_label_out_of_range_is_named_and_what_does_not_fit_is_refused", || {
        for k in [5, 5000] {
            let e = matrix((0..k).map(|j| j as f32).collect(), k, 1);
            let mut labels = vec![SENTINEL; 2000];
            labels[1999] = k as u32;
            labels[1500] = u32::MAX - 1;
            let error = on_device(&[1.0f32; 2000], &labels, e.view(), 1).unwrap_err();
            let named =
                matches!(error, Error::CodeOutOfRange { op: "metrics", position: 1500, code, .. } if code == u32::MAX - 1);
            assert!(named, "{error:?}");
        }
        let e = matrix(vec![1.0f32, 2.0, 3.0, 4.0], 2, 2);
        let device = Device::cuda(0).unwrap();
        let (codebook, stream) = (Codebook::new(e.view(), &device).unwrap(), stream(&device));
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 4).unwrap();
        let (x, labels) = (stream.clone_htod(&[0.0f32; 6]).unwrap(), stream.clone_htod(&[0u32; 3]).unwrap());
        let error = workspace.metrics(MatrixView::new(&x, 2, 3).unwrap(), &labels).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "metrics", .. }), "{error:?}");
        let error = workspace.metrics(MatrixView::new(&x, 3, 2).unwrap(), &labels.slice(..2)).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "metrics", .. }), "{error:?}");
    });
}

#[test]
fn labels_that_the_workspace_wrote_are_measured_without_a_check_between() {
    Machine::new().pass("metrics::labels_that_the_workspace_wrote_are_measured_without_a_check_between", || {
        let mut numbers = Numbers::new(55);
        let (n, k, d) = (150, 12, 6);
        let (mut x, e) = (numbers.gaussians(n * d), matrix(numbers.gaussians(k * d), k, d));
        x[100 * d + 3] = f32::INFINITY;
        let device = Device::cuda(0).unwrap();
        let (codebook, stream) = (Codebook::new(e.view(), &device).unwrap(), stream(&device));
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 64).unwrap();
        let on_device = stream.clone_htod(&x).unwrap();
        let mut labels = stream.alloc_zeros::<u32>(n).unwrap();
        let mut sq_distances = stream.alloc_zeros::<f32>(n).unwrap();
        let view = MatrixView::new(&on_device, n, d).unwrap();
        workspace.assign(view, codeword::AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        let got = workspace.metrics(view, &labels).unwrap();
        assert_eq!((got.n, got.skipped), (149, 1));
        let on_host = codeword::MatrixView::new(&x, n, d).unwrap();
        let (nearest, _) = reference::nearest(on_host, e.view());
        assert_eq!(got, metrics(on_host, &Codebook::new(e.view(), &Device::cpu()).unwrap(), &nearest).unwrap());
        // The bad row is still to be told.
        let error = workspace.check().unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 100, col: 3, .. }), "{error:?}");
    });
}
