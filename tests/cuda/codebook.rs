//! A codebook prepared on the device is, bit for bit, the one that the CPU prepares. Every test runs in a child process
//! on the simulated driver, which executes the real kernels and reports what they do wrong.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, matrix};
use crate::simulated::{self, Machine};
use codeword::backend::preparation::Preparation;
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::{CudaStream, DevicePtr, DeviceRepr};
use codeword::cuda::{self, Context, Raw, Workspace};
use codeword::{
    AssignOptions, Codebook, Device, Element, Error, Matrix, MatrixView, assign, bf16, decode, f16, metrics,
};
use std::sync::Arc;

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

fn context() -> Context {
    match cuda() {
        Device::Cuda(context) => context,
        other => panic!("{other}"),
    }
}

/// A codebook of rows that lie on the device, `stride` elements apart, with `gap` between them.
fn resident<T: Element + DeviceRepr>(
    rows: MatrixView<'_, T>,
    gap: T,
    stride: usize,
    context: &Context,
    stream: &Arc<CudaStream>,
) -> codeword::Result<Codebook> {
    let (k, d) = (rows.rows(), rows.cols());
    let mut values = vec![gap; (k - 1) * stride + d];
    for (j, to) in values.chunks_mut(stride).enumerate() {
        to[..d].copy_from_slice(rows.row(j));
    }
    let values = stream.clone_htod(&values).expect("memory for the codewords");
    Codebook::from_cuda(cuda::MatrixView::with_stride(&values, k, d, stride)?, context, stream)
}

fn rounded<T: Element>(values: &Matrix<f32>, round: impl Fn(f32) -> T) -> Matrix<T> {
    matrix(values.as_slice().iter().map(|&v| round(v)).collect(), values.rows(), values.cols())
}

fn preparation<E: Element>(name: &str, codewords: MatrixView<'_, E>, device: &Device) -> Preparation {
    let codebook = Codebook::new(codewords, device).unwrap_or_else(|e| panic!("{name}: {e}"));
    codebook.preparation().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Asserts that two preparations agree to the last bit.
fn assert_same(name: &str, got: &Preparation, expected: &Preparation) {
    assert_eq!(got.labels, expected.labels, "{name}: labels of the distinct codewords");
    assert_eq!(got.positions, expected.positions, "{name}: positions");
    assert_same_bits(&format!("{name}: mean"), &got.mean, &expected.mean);
    assert_eq!(got.shift, expected.shift, "{name}: shift");
    assert_same_bits(&format!("{name}: packed"), &got.packed, &expected.packed);
    let (got, expected) = (got.max_sq_norm, expected.max_sq_norm);
    assert_eq!(got.to_bits(), expected.to_bits(), "{name}: largest squared norm {got:e}, expected {expected:e}");
}

/// Whether anything was centred.
fn assert_prepares_as_on_the_cpu(name: &str, device: &Device, values: Vec<f32>, k: usize, d: usize) -> bool {
    let codewords = matrix(values, k, d);
    let expected = preparation(name, codewords.view(), &Device::cpu());
    assert_same(name, &preparation(name, codewords.view(), device), &expected);
    expected.mean.iter().any(|&mean| mean != 0.0)
}

#[test]
fn codewords_of_every_kind_are_prepared_as_on_the_cpu() {
    Machine::new().pass("codebook::codewords_of_every_kind_are_prepared_as_on_the_cpu", || {
        let device = cuda();
        let mut numbers = Numbers::new(51);
        let (k, d) = (150, 37);
        for case in cases::adversarial(1, k, d) {
            assert_prepares_as_on_the_cpu(&case.name, &device, case.codewords.as_slice().to_vec(), k, d);
        }
        let far: Vec<f32> = numbers.gaussians(k * d).iter().map(|v| 1e6 + v).collect();
        assert!(assert_prepares_as_on_the_cpu("far from the origin", &device, far.clone(), k, d));
        // One outlier drags the mean so far that it helps nobody.
        let mut outlier = numbers.gaussians(k * d);
        outlier[70 * d..][..d].fill(1e9);
        assert!(!assert_prepares_as_on_the_cpu("one far outlier", &device, outlier, k, d));
        // The same with more columns than a block has threads.
        let mut outlier = numbers.gaussians(3 * 1100);
        outlier[1100..2200].fill(1e9);
        assert!(!assert_prepares_as_on_the_cpu("one far outlier, long", &device, outlier, 3, 1100));
        // Beside the mean of these, differences overflow f32, and nothing is centred.
        let huge = (0..k * d).map(|i| if i / d == 3 { f32::MIN } else { f32::MAX - (i % 7) as f32 * 1e32 }).collect();
        assert!(!assert_prepares_as_on_the_cpu("differences beyond f32", &device, huge, k, d));
        // The mean shortens them by one step of f64.
        let nearly = [1.0, 2f32.powi(-26), -1.0, 2f32.powi(-26)];
        assert!(assert_prepares_as_on_the_cpu("medians a step apart", &device, nearly.to_vec(), 2, 2));
        let smallest = (0..k * d).map(|i| f32::from_bits((i * i % 9) as u32)).collect();
        assert_prepares_as_on_the_cpu("the smallest numbers", &device, smallest, k, d);
    });
}

#[test]
fn sizes_around_every_tile_are_prepared_as_on_the_cpu() {
    Machine::new().pass("codebook::sizes_around_every_tile_are_prepared_as_on_the_cpu", || {
        let device = cuda();
        let mut numbers = Numbers::new(52);
        // Codewords by 8 in a block, 64 in a run, 1024 in a scan; columns by 32 in a warp, 256 in a block.
        for (k, d) in [
            (1, 1),
            (1, 33),
            (2, 1),
            (7, 31),
            (8, 32),
            (9, 255),
            (63, 256),
            (64, 257),
            (65, 3),
            (127, 64),
            (129, 513),
            (1023, 2),
            (1024, 1),
            (1025, 5),
            (2051, 4),
        ] {
            let name = format!("{k} x {d}");
            let offset = numbers.gaussian() * 10.0;
            let values = numbers.gaussians(k * d).iter().map(|v| v + offset).collect();
            assert_prepares_as_on_the_cpu(&name, &device, values, k, d);
            // Few different values: for small d nearly all codewords repeat others.
            let values = numbers.integers(k * d, 1);
            assert_prepares_as_on_the_cpu(&format!("{name}, integers"), &device, values, k, d);
        }
    });
}

#[test]
fn repeated_codewords_keep_the_lowest_label_whatever_the_order_of_threads() {
    for seed in [0, 1, 2] {
        let card = Machine::new().set("SEED", seed);
        card.pass("codebook::repeated_codewords_keep_the_lowest_label_whatever_the_order_of_threads", || {
            let device = cuda();
            let (k, d) = (700, 3);
            // Label j is codeword j % 97 again, with zeros of either sign in its last column.
            let value = |j: usize, t: usize| match t {
                2 => [0.0, -0.0][j / 97 % 2],
                t => (j % 97 * (t + 1)) as f32,
            };
            let codewords = matrix((0..k * d).map(|i| value(i / d, i % d)).collect(), k, d);
            let got = preparation("copies", codewords.view(), &device);
            assert_eq!(got.labels, (0..97).collect::<Vec<u32>>());
            assert_eq!(got.positions, (0..k as u32).map(|j| j % 97).collect::<Vec<u32>>());
            assert_same("copies", &got, &preparation("copies", codewords.view(), &Device::cpu()));
            for values in [vec![-3.5; k * d], vec![-0.0; k * d]] {
                let codewords = matrix(values, k, d);
                let codebook = Codebook::new(codewords.view(), &device).unwrap();
                assert_eq!(codebook.duplicates(), k - 1);
                let got = codebook.preparation().unwrap();
                assert_eq!((got.labels, got.positions), (vec![0], vec![0; k]));
            }
        });
    }
}

#[test]
fn codewords_of_any_type_that_lie_on_the_device_give_the_codebook_and_labels_of_those_from_the_host() {
    let name =
        "codebook::codewords_of_any_type_that_lie_on_the_device_give_the_codebook_and_labels_of_those_from_the_host";
    Machine::new().pass(name, || {
        fn assert_as_from_the_host<T: Element + DeviceRepr>(name: &str, e: &Matrix<T>, nan: T, x: &Matrix<f32>) {
            let context = context();
            let stream = context.new_stream().unwrap();
            let (k, d) = (e.rows(), e.cols());
            let on_host = Codebook::new(e.view(), &Device::cpu()).unwrap();
            for stride in [d, d + 3] {
                let name = format!("{name}, {}, stride {stride}", T::DTYPE.name());
                // The gaps hold NaN: whoever looks at them finds out.
                let codebook = resident(e.view(), nan, stride, &context, &stream).unwrap();
                assert_eq!((codebook.k(), codebook.d(), codebook.dtype()), (k, d, T::DTYPE), "{name}");
                assert_eq!(codebook.duplicates(), on_host.duplicates(), "{name}");
                assert_same(&name, &codebook.preparation().unwrap(), &on_host.preparation().unwrap());

                let (labels, sq_distances) = reference::nearest(x.view(), e.view());
                let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
                assert_same_labels(&name, &got.labels, &labels, 1);
                assert_same_bits(&name, &got.sq_distances, &sq_distances);

                // What works on the host fetches the codewords.
                let expected = metrics(x.view(), &on_host, &labels).unwrap();
                assert_eq!(metrics(x.view(), &codebook, &labels).unwrap(), expected, "{name}");
                let wide: Vec<f32> = e.as_slice().iter().map(|v| v.to_f32()).collect();
                assert_same_bits(&name, codebook.codewords().unwrap().row(k - 1), &wide[(k - 1) * d..]);
                let decoded: Vec<f32> =
                    labels.iter().flat_map(|&label| wide[label as usize * d..][..d].to_vec()).collect();
                assert_same_bits(&name, decode(&labels, &codebook).unwrap().as_slice(), &decoded);
            }
        }
        let mut numbers = Numbers::new(53);
        for (n, k, d) in [(9, 1, 1), (20, 67, 33), (7, 66, 513)] {
            // Far from the origin, and with one codeword twice.
            let mut values: Vec<f32> = numbers.gaussians(k * d).iter().map(|v| v + 50.0).collect();
            values.copy_within(..d, (k - 1) * d);
            let e = matrix(values, k, d);
            let x = matrix(numbers.gaussians(n * d).iter().map(|v| v + 50.0).collect(), n, d);
            let name = format!("{k} x {d}");
            assert_as_from_the_host(&name, &e, f32::NAN, &x);
            assert_as_from_the_host(&name, &rounded(&e, f16::from_f32), f16::NAN, &x);
            assert_as_from_the_host(&name, &rounded(&e, bf16::from_f32), bf16::NAN, &x);
            let subnormal = rounded(&e, |v| f16::from_bits(v.to_bits() as u16 % 8));
            assert_as_from_the_host(&name, &subnormal, f16::NAN, &rounded(&x, |v| v * 1e-8));
        }
    });
}

#[test]
fn a_codeword_that_is_not_finite_is_named_with_its_column_and_value() {
    Machine::new().pass("codebook::a_codeword_that_is_not_finite_is_named_with_its_column_and_value", || {
        fn assert_named<T: Element + DeviceRepr>(dirty: &Matrix<T>, row: usize, col: usize, value: f32) {
            let context = context();
            let stream = context.new_stream().unwrap();
            let error = resident(dirty.view(), dirty.as_slice()[dirty.cols() - 1], dirty.cols() + 1, &context, &stream)
                .unwrap_err();
            let text = error.to_string();
            let Error::NonFinite { op, what, row: at, col: column, got, .. } = error else { panic!("{text}") };
            assert_eq!((op, what, at, column), ("Codebook::from_cuda", "codeword", row, col), "{text}");
            assert!(got == value || got.is_nan() && value.is_nan(), "{text}, expected {value}");
        }
        let (k, d) = (45, 70);
        let clean = Numbers::new(54).gaussians(k * d);
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        for (row, col, value) in
            [(0, 0, nan), (17, 69, infinity), (17, 33, -infinity), (30, 31, nan), (3, 48, infinity), (44, 69, -nan)]
        {
            let mut dirty = clean.clone();
            // Others further down, and further right in an earlier lane.
            dirty[44 * d + 69] = infinity;
            if col < 64 {
                dirty[row * d + 64] = nan;
            }
            dirty[row * d + col] = value;
            let dirty = matrix(dirty, k, d);
            assert_named(&dirty, row, col, value);
            assert_named(&rounded(&dirty, f16::from_f32), row, col, value);
            assert_named(&rounded(&dirty, bf16::from_f32), row, col, value);
        }
        // The largest numbers are numbers.
        assert_named(&matrix(vec![f16::MAX, f16::INFINITY], 1, 2), 0, 1, infinity);
        assert_named(&matrix(vec![f32::MIN, infinity], 1, 2), 0, 1, infinity);
    });
}

#[test]
fn a_codebook_that_changes_on_the_device_every_step_never_passes_through_the_host() {
    if !simulated::is_available() {
        return;
    }
    let name = "codebook::a_codebook_that_changes_on_the_device_every_step_never_passes_through_the_host";
    for seed in [0, 5] {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let output = Machine::new().set("SEED", seed).set("TRACE", trace.display()).run(name, || {
            let context = context();
            let stream = context.new_stream().unwrap();
            let (n, k, d) = (40, 300, 24);
            let mut numbers = Numbers::new(55);
            let x = matrix(numbers.gaussians(n * d), n, d);
            let steps: Vec<Matrix<f32>> = (0..3).map(|_| matrix(numbers.gaussians(k * d), k, d)).collect();
            let on_device = stream.clone_htod(x.as_slice()).unwrap();
            let updates: Vec<_> = steps.iter().map(|e| stream.clone_htod(e.as_slice()).unwrap()).collect();
            let mut codewords = stream.alloc_zeros::<f32>(k * d).unwrap();
            let mut labels = stream.alloc_zeros::<u32>(n).unwrap();
            let mut sq_distances = stream.alloc_zeros::<f32>(n).unwrap();
            for (i, (step, update)) in steps.iter().zip(&updates).enumerate() {
                // Queued, and not done when the codebook is asked for.
                stream.memcpy_dtod(update, &mut codewords).unwrap();
                // SAFETY: `codewords` lives on, and `stream` is where it is written.
                let raw = unsafe { Raw::<f32>::new(codewords.device_ptr(&stream).0, k * d, &stream) };
                let memory: &dyn cuda::Memory<f32> = if i % 2 == 0 { &codewords } else { &raw };
                let view = cuda::MatrixView::new(memory, k, d).unwrap();
                let codebook = Codebook::from_cuda(view, &context, &stream).unwrap();
                let mut workspace = Workspace::<f32>::new(&codebook, &stream, n).unwrap();
                let rows = cuda::MatrixView::new(&on_device, n, d).unwrap();
                workspace.assign(rows, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
                workspace.check().unwrap();
                let expected = reference::nearest(x.view(), step.view());
                let name = format!("step {i}");
                assert_same_labels(&name, &stream.clone_dtoh(&labels).unwrap(), &expected.0, 1);
                assert_same_bits(&name, &stream.clone_dtoh(&sq_distances).unwrap(), &expected.1);
            }
        });
        assert!(output.status.success(), "{}", simulated::text(&output));
        let trace = std::fs::read_to_string(trace).unwrap();
        let bytes = |line: &str| {
            let rest = line.strip_prefix("submit ").filter(|rest| rest.split(' ').any(|word| word == "copy_dtoh"))?;
            rest.split(' ').find_map(|word| word.strip_prefix("bytes=")?.parse::<usize>().ok())
        };
        let largest = trace.lines().filter_map(bytes).max().expect("labels, distances and facts come back");
        assert_eq!(largest, 40 * 4, "only labels and distances; the codebook has 28800 bytes");
    }
}

#[test]
fn what_cannot_be_a_codebook_on_the_device_is_refused() {
    let card = Machine::new().set("DEVICES", 2);
    card.pass("codebook::what_cannot_be_a_codebook_on_the_device_is_refused", || {
        let context = context();
        let stream = context.new_stream().unwrap();
        let values = stream.clone_htod(&[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let empty = cuda::MatrixView::with_stride(&values, 0, 2, 2).unwrap();
        assert_eq!(
            Codebook::from_cuda(empty, &context, &stream).unwrap_err().to_string(),
            "Codebook::from_cuda: expected from 1 to 4294967294 codewords of at least one dimension, got 0 x 2"
        );
        let Device::Cuda(second) = Device::cuda(1).unwrap() else { panic!("a CUDA device") };
        let view = cuda::MatrixView::new(&values, 2, 2).unwrap();
        for (context, stream) in [(&second, &stream), (&context, &second.new_stream().unwrap())] {
            let error = Codebook::from_cuda(view, context, stream).unwrap_err();
            assert!(matches!(error, Error::DeviceMismatch { op: "Codebook::from_cuda", .. }), "{error}");
        }
        assert_eq!(Codebook::from_cuda(view, &context, &stream).unwrap().k(), 2);
    });
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "codebook::each_refused_allocation_is_an_error_and_leaves_nothing_behind";
    let work = || {
        let (k, d) = (20, 5);
        let e = Numbers::new(56).gaussians(k * d);
        let context = context();
        let stream = context.new_stream().unwrap();
        let Ok(values) = stream.clone_htod(&e) else { return println!("outcome: no codewords") };
        let view = cuda::MatrixView::new(&values, k, d).unwrap();
        match Codebook::from_cuda(view, &context, &stream).and_then(|codebook| codebook.codewords().map(|_| ())) {
            Ok(()) => println!("outcome: done"),
            Err(Error::Cuda { op, got, .. }) => println!("outcome: {op} {got}"),
            Err(error) => println!("outcome: {error}"),
        }
    };
    let mut refusals = 0;
    for nth in 2.. {
        let output = Machine::new().set("FAIL_ALLOC", nth).run(name, work);
        let text = simulated::text(&output);
        assert!(output.status.success(), "allocation {nth}: {}\n{text}", output.status);
        if text.contains("outcome: done") {
            break;
        }
        assert!(text.contains("outcome: Codebook::from_cuda CUDA_ERROR_OUT_OF_MEMORY"), "allocation {nth}: {text}");
        refusals += 1;
    }
    // Codewords, packed, mean, labels, positions, hashes, table, slots, sums, facts.
    assert_eq!(refusals, 12);
}
