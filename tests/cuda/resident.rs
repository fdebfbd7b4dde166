//! Vectors that lie on the device and results that stay there: the same bits, in the caller's stream, with nothing
//! waiting behind the caller's back. On the simulated driver, in child processes.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, golden, matrix, total};
use crate::simulated::{self, Machine};
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::sys::CUdeviceptr;
use codeword::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use codeword::cuda::{Context, MatrixView, Raw, Workspace};
use codeword::{
    AssignOptions, AssignStats, Codebook, Device, Element, Error, Matrix, NonFinite, Precision, SENTINEL, bf16, decode,
    f16, pairwise_sq_l2, top_k,
};
use std::sync::Arc;

fn context(ordinal: usize) -> Context {
    match Device::cuda(ordinal).expect("the simulated device opens") {
        Device::Cuda(context) => context,
        other => panic!("a CUDA device, not {other}"),
    }
}

fn on_device<E: Element>(context: &Context, codewords: &Matrix<E>) -> Codebook {
    Codebook::new(codewords.view(), &Device::Cuda(context.clone())).expect("a codebook of finite numbers")
}

/// A workspace, and what an assignment needs, on a stream of their own.
struct Setup {
    stream: Arc<CudaStream>,
    codebook: Codebook,
}

impl Setup {
    fn new<E: Element>(codewords: &Matrix<E>) -> Setup {
        let context = context(0);
        Setup { stream: context.new_stream().unwrap(), codebook: on_device(&context, codewords) }
    }

    fn workspace<T: Element>(&self, rows: usize) -> Workspace<T> {
        Workspace::new(&self.codebook, &self.stream, rows).unwrap()
    }

    fn upload<T: Element + codeword::cuda::cudarc::driver::DeviceRepr>(&self, values: &[T]) -> CudaSlice<T> {
        self.stream.clone_htod(values).unwrap()
    }

    /// Labels and distances of `n` rows.
    fn room(&self, n: usize) -> (CudaSlice<u32>, CudaSlice<f32>) {
        (self.stream.alloc_zeros(n).unwrap(), self.stream.alloc_zeros(n).unwrap())
    }

    fn download(&self, (labels, sq_distances): &(CudaSlice<u32>, CudaSlice<f32>)) -> (Vec<u32>, Vec<f32>) {
        (self.stream.clone_dtoh(labels).unwrap(), self.stream.clone_dtoh(sq_distances).unwrap())
    }
}

/// Assigns `x` in blocks of `rows`, and asserts that the oracle says the same.
fn assert_same<T: Element + codeword::cuda::cudarc::driver::DeviceRepr>(
    name: &str,
    x: &Matrix<T>,
    codewords: &Matrix<f32>,
    rows: usize,
) -> AssignStats {
    let setup = Setup::new(codewords);
    let mut workspace = setup.workspace::<T>(rows);
    let values = setup.upload(x.as_slice());
    let mut room = setup.room(x.rows());
    let view = MatrixView::new(&values, x.rows(), x.cols()).unwrap();
    workspace.assign(view, AssignOptions::default(), &mut room.0, &mut room.1).unwrap();
    let stats = workspace.check().unwrap();
    let (labels, sq_distances) = setup.download(&room);
    let (nearest, distances) = reference::nearest(x.view(), codewords.view());
    assert_same_labels(name, &labels, &nearest, 1);
    assert_same_bits(name, &sq_distances, &distances);
    assert_eq!(total(stats), x.rows() as u64, "{name}: {stats:?}");
    stats
}

#[test]
fn labels_and_distances_are_those_of_exact_arithmetic_in_blocks_of_any_size() {
    Machine::new().pass("resident::labels_and_distances_are_those_of_exact_arithmetic_in_blocks_of_any_size", || {
        for case in cases::adversarial(29, 66, 5) {
            assert_same(&case.name, &case.x, &case.codewords, 1000);
        }
        // A driver allocates nothing for no rows.
        for case in golden::load().into_iter().filter(|case| case.x.rows() > 0) {
            assert_same(&case.name, &case.x, &case.codewords, 3);
        }
        let mut numbers = Numbers::new(51);
        let (n, k, d) = (135, 20, 9);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        for rows in [1, 7, 64, 134, 135, 136] {
            assert_same(&format!("blocks of {rows}"), &x, &e, rows);
        }
    });
}

#[test]
fn vectors_of_any_type_with_gaps_between_the_rows() {
    Machine::new().pass("resident::vectors_of_any_type_with_gaps_between_the_rows", || {
        fn with_gaps<T: Element + codeword::cuda::cudarc::driver::DeviceRepr>(
            name: &str,
            round: impl Fn(f32) -> T,
            nan: T,
        ) {
            let (n, k, d, stride) = (23, 17, 11, 14);
            let mut numbers = Numbers::new(52);
            let e = matrix(numbers.gaussians(k * d), k, d);
            let x = matrix(numbers.gaussians(n * d).into_iter().map(round).collect(), n, d);
            assert_same(name, &x, &e, 10);
            // NaN between the rows, and none after the last.
            let mut gaps = vec![nan; (n - 1) * stride + d];
            for (i, row) in gaps.chunks_mut(stride).enumerate() {
                row[..d].copy_from_slice(x.view().row(i));
            }
            let setup = Setup::new(&e);
            let mut workspace = setup.workspace::<T>(10);
            let (values, mut room) = (setup.upload(&gaps), setup.room(n));
            let view = MatrixView::with_stride(&values, n, d, stride).unwrap();
            workspace.assign(view, AssignOptions::default(), &mut room.0, &mut room.1).unwrap();
            workspace.check().unwrap();
            let (labels, sq_distances) = setup.download(&room);
            let (nearest, distances) = reference::nearest(x.view(), e.view());
            assert_same_labels(name, &labels, &nearest, 1);
            assert_same_bits(name, &sq_distances, &distances);
        }
        with_gaps("f32", |v| v, f32::NAN);
        with_gaps("f16", f16::from_f32, f16::NAN);
        with_gaps("bf16", bf16::from_f32, bf16::NAN);
    });
}

#[test]
fn distance_matrix_and_decoded_vectors_equal_those_of_the_host_path() {
    Machine::new().pass("resident::distance_matrix_and_decoded_vectors_equal_those_of_the_host_path", || {
        let (n, k, d) = (37, 21, 6);
        let mut numbers = Numbers::new(53);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let setup = Setup::new(&e);
        let mut workspace = setup.workspace::<f32>(16);
        let values = setup.upload(x.as_slice());
        for precision in [Precision::Fast, Precision::Exact] {
            let mut out = setup.stream.alloc_zeros::<f32>(n * k).unwrap();
            workspace.pairwise_sq_l2(MatrixView::new(&values, n, d).unwrap(), precision, &mut out).unwrap();
            workspace.check().unwrap();
            let expected = pairwise_sq_l2(x.view(), &setup.codebook, precision).unwrap();
            let got = setup.stream.clone_dtoh(&out).unwrap();
            assert_same_bits(&format!("{precision:?}"), &got, expected.as_slice());
        }
        let codes: Vec<u32> = (0..n as u32).map(|i| if i == 5 { SENTINEL } else { i * 7 % k as u32 }).collect();
        let on_device = setup.stream.clone_htod(&codes).unwrap();
        let mut out = setup.stream.alloc_zeros::<f32>(n * d).unwrap();
        workspace.decode(&on_device, &mut out).unwrap();
        workspace.check().unwrap();
        let got = setup.stream.clone_dtoh(&out).unwrap();
        assert_same_bits("decoded", &got, decode(&codes, &setup.codebook).unwrap().as_slice());
    });
}

#[test]
fn the_r_nearest_codewords_are_those_of_the_cpu() {
    Machine::new().pass("resident::the_r_nearest_codewords_are_those_of_the_cpu", || {
        for case in cases::adversarial(21, 34, 4) {
            let (n, k, d) = (case.x.rows(), case.codewords.rows(), case.x.cols());
            let setup = Setup::new(&case.codewords);
            let on_cpu = Codebook::new(case.codewords.view(), &Device::cpu()).unwrap();
            let values = setup.upload(case.x.as_slice());
            let mut workspace = setup.workspace::<f32>(8);
            for r in [1, 3, k] {
                let mut labels = setup.stream.alloc_zeros::<u32>(n * r).unwrap();
                let mut sq_distances = setup.stream.alloc_zeros::<f32>(n * r).unwrap();
                let x = MatrixView::new(&values, n, d).unwrap();
                workspace.top_k(x, r, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
                assert_eq!(total(workspace.check().unwrap()), n as u64);
                let expected = top_k(case.x.view(), &on_cpu, r, AssignOptions::default()).unwrap();
                let got = setup.download(&(labels, sq_distances));
                assert_same_labels(&case.name, &got.0, &expected.labels, r);
                assert_same_bits(&case.name, &got.1, &expected.sq_distances);
            }
            let mut room = setup.room(n);
            let x = MatrixView::new(&values, n, d).unwrap();
            let error = workspace.top_k(x, k + 1, AssignOptions::default(), &mut room.0, &mut room.1).unwrap_err();
            assert!(matches!(error, Error::InvalidParameter { name: "r", .. }), "{error}");
        }
    });
}

#[test]
fn a_workspace_goes_on_with_another_codebook() {
    Machine::new().pass("resident::a_workspace_goes_on_with_another_codebook", || {
        let (n, d) = (60, 5);
        let mut numbers = Numbers::new(57);
        let x = matrix(numbers.gaussians(n * d), n, d);
        let first = matrix(numbers.gaussians(7 * d), 7, d);
        let Setup { stream, codebook } = Setup::new(&first);
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 25).unwrap();
        // The workspace alone holds it from here on.
        drop(codebook);
        let values = stream.clone_htod(x.as_slice()).unwrap();
        for k in [7, 19, 3] {
            let codewords = matrix(numbers.gaussians(k * d), k, d);
            workspace.set_codebook(&on_device(&context(0), &codewords)).unwrap();
            let mut labels = stream.alloc_zeros::<u32>(n * 2).unwrap();
            let mut sq_distances = stream.alloc_zeros::<f32>(n * 2).unwrap();
            let view = MatrixView::new(&values, n, d).unwrap();
            workspace.top_k(view, 2, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
            let (mut one_label, mut one_distance) = (labels.slice_mut(..n), sq_distances.slice_mut(..n));
            workspace.assign(view, AssignOptions::default(), &mut one_label, &mut one_distance).unwrap();
            assert_eq!(total(workspace.check().unwrap()), 2 * n as u64);
            let got = stream.clone_dtoh(&labels).unwrap();
            assert_same_labels("next codebook", &got[..n], &reference::nearest(x.view(), codewords.view()).0, 1);
        }
        let other = on_device(&context(0), &matrix(vec![0.0f32; 4], 1, 4));
        let error = workspace.set_codebook(&other).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    });
}

#[test]
fn nothing_waits_for_the_device_before_check() {
    if !simulated::is_available() {
        return;
    }
    let name = "resident::nothing_waits_for_the_device_before_check";
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    // Work of this device runs when somebody waits for it, and not before.
    let output = Machine::new().set("SEED", 0).set("TRACE", trace.display()).run(name, || {
        let lines = || {
            let file = std::env::var("CODEWORD_SIM_TRACE").expect("set above");
            std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (n, k, d) = (300, 9, 8);
        let mut numbers = Numbers::new(54);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let setup = Setup::new(&e);
        let mut workspace = setup.workspace::<f32>(100);
        let values = setup.upload(&numbers.gaussians(n * d));
        let x = MatrixView::new(&values, n, d).unwrap();
        let (mut room, mut out) = (setup.room(n), setup.stream.alloc_zeros::<f32>(n * k).unwrap());
        let mut all = |workspace: &mut Workspace<f32>| {
            workspace.assign(x, AssignOptions::default(), &mut room.0, &mut room.1).unwrap();
            workspace.pairwise_sq_l2(x, Precision::Fast, &mut out).unwrap();
            let mut decoded = out.slice_mut(..n * d);
            workspace.decode(&room.0, &mut decoded).unwrap();
        };
        // Kernels are loaded in the first round.
        all(&mut workspace);
        workspace.check().unwrap();
        let before = lines().len();
        for _ in 0..3 {
            all(&mut workspace);
        }
        let queued = lines().split_off(before);
        assert!(queued.iter().filter(|line| line.contains(" launch ")).count() > 30, "{queued:#?}");
        let ran: Vec<_> = queued.iter().filter(|line| line.starts_with("run ")).collect();
        assert!(ran.is_empty(), "somebody waited: {ran:#?}");
        let took: Vec<_> = queued.iter().filter(|line| line.starts_with("allocate ")).collect();
        assert!(took.is_empty(), "memory was taken: {took:#?}");
        workspace.check().unwrap();
        assert!(lines().split_off(before).iter().any(|line| line.starts_with("run ")));
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn check_names_the_first_bad_row_and_forgets_it() {
    Machine::new().pass("resident::check_names_the_first_bad_row_and_forgets_it", || {
        let (n, k, d) = (50, 4, 70);
        let mut numbers = Numbers::new(55);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let setup = Setup::new(&e);
        let mut workspace = setup.workspace::<f32>(16);
        let clean = numbers.gaussians(n * d);
        let mut dirty = clean.clone();
        for (row, col, value) in [(41, 3, f32::NAN), (37, 69, f32::INFINITY), (37, 40, f32::NEG_INFINITY)] {
            dirty[row * d + col] = value;
        }
        let (clean, dirty, mut room) = (setup.upload(&clean), setup.upload(&dirty), setup.room(n));
        let x = |values| MatrixView::new(values, n, d).unwrap();
        let options = AssignOptions::default();
        workspace.assign(x(&clean), options, &mut room.0, &mut room.1).unwrap();
        let stats = workspace.check().unwrap();
        assert_eq!(total(stats), n as u64);
        let (expected, _) = setup.download(&room);

        workspace.assign(x(&dirty), options, &mut room.0, &mut room.1).unwrap();
        let error = workspace.check().unwrap_err();
        assert!(
            matches!(error, Error::NonFinite { row: 37, col: 40, got, .. } if got == f32::NEG_INFINITY),
            "{error:?}"
        );
        let (labels, sq_distances) = setup.download(&room);
        for i in 0..n {
            let bad = i == 37 || i == 41;
            assert_eq!(labels[i], if bad { SENTINEL } else { expected[i] }, "row {i}");
            assert_eq!(sq_distances[i].is_nan(), bad, "row {i}");
        }

        // Asked for, sentinels are no error; and nothing of the error before is left.
        let sentinel = AssignOptions { non_finite: NonFinite::Sentinel, ..options };
        workspace.assign(x(&dirty), sentinel, &mut room.0, &mut room.1).unwrap();
        assert_eq!(total(workspace.check().unwrap()), n as u64 - 2);
        assert_eq!(setup.download(&room).0, labels);

        let codes = setup.stream.clone_htod(&[3u32, SENTINEL, 900, 4, 0]).unwrap();
        let mut out = setup.stream.alloc_zeros::<f32>(5 * d).unwrap();
        workspace.decode(&codes, &mut out).unwrap();
        let error = workspace.check().unwrap_err();
        assert!(matches!(error, Error::CodeOutOfRange { position: 2, code: 900, k: 4, .. }), "{error:?}");
        workspace.check().unwrap();
    });
}

#[test]
fn memory_of_others_goes_in_by_its_address_and_work_on_other_streams_is_waited_for() {
    Machine::new().pass(
        "resident::memory_of_others_goes_in_by_its_address_and_work_on_other_streams_is_waited_for",
        || {
            let (n, k, d) = (40, 12, 7);
            let mut numbers = Numbers::new(56);
            let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
            let (nearest, distances) = reference::nearest(x.view(), e.view());

            // Another library: its own handle of the same device, its own stream, its own memory.
            let other = CudaContext::new(0).unwrap();
            let foreign = other.new_stream().unwrap();
            let values = foreign.clone_htod(x.as_slice()).unwrap();
            let mut labels = foreign.alloc_zeros::<u32>(n).unwrap();
            let mut sq_distances = foreign.alloc_zeros::<f32>(n).unwrap();

            let context = context(0);
            let codebook = on_device(&context, &e);
            {
                // SAFETY: `foreign` outlives the borrowed stream.
                let stream = unsafe { context.cuda().wrap_borrowed_stream(foreign.cu_stream()) };
                let address = |(address, _used): (CUdeviceptr, _)| -> CUdeviceptr {
                    let _: codeword::cuda::cudarc::driver::SyncOnDrop = _used;
                    address
                };
                let (from, to) = (address(values.device_ptr(&foreign)), address(labels.device_ptr_mut(&foreign)));
                let distances_to = address(sq_distances.device_ptr_mut(&foreign));
                // SAFETY: so many values lie there until the end of this test, and all work is queued on one stream.
                let (raw_x, mut raw_labels, mut raw_distances) = unsafe {
                    (
                        Raw::<f32>::new(from, n * d, &stream),
                        Raw::labels(to, n, &stream),
                        Raw::<f32>::new(distances_to, n, &stream),
                    )
                };
                let mut workspace = Workspace::new(&codebook, &stream, 64).unwrap();
                let view = MatrixView::new(&raw_x, n, d).unwrap();
                workspace.assign(view, AssignOptions::default(), &mut raw_labels, &mut raw_distances).unwrap();
                workspace.check().unwrap();

                // SAFETY: never read: it is refused.
                let crooked = unsafe { Raw::<f32>::new(from + 2, d, &stream) };
                let view = MatrixView::new(&crooked, 1, d).unwrap();
                let mut room = (stream.alloc_zeros::<u32>(1).unwrap(), stream.alloc_zeros::<f32>(1).unwrap());
                let error = workspace.assign(view, AssignOptions::default(), &mut room.0, &mut room.1).unwrap_err();
                assert!(error.to_string().contains("multiple of 4 bytes"), "{error}");
            }
            assert_same_labels("raw", &foreign.clone_dtoh(&labels).unwrap(), &nearest, 1);
            assert_same_bits("raw", &foreign.clone_dtoh(&sq_distances).unwrap(), &distances);

            // The same memory as what it is, on a stream that is not the one it was written on and is read on.
            let written = foreign.clone_htod(x.as_slice()).unwrap();
            let mut labels = foreign.alloc_zeros::<u32>(n).unwrap();
            let mut sq_distances = foreign.alloc_zeros::<f32>(n).unwrap();
            let mut workspace = Workspace::new(&codebook, &context.new_stream().unwrap(), 64).unwrap();
            let view = MatrixView::new(&written, n, d).unwrap();
            workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
            // Gone before anything ran.
            drop(workspace);
            drop(codebook);
            drop(written);
            assert_same_labels("typed", &foreign.clone_dtoh(&labels).unwrap(), &nearest, 1);
            assert_same_bits("typed", &foreign.clone_dtoh(&sq_distances).unwrap(), &distances);
        },
    );
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_runs() {
    let two = Machine::new().set("DEVICES", 2);
    two.pass("resident::what_does_not_fit_together_is_refused_before_anything_runs", || {
        let e = matrix(vec![0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0], 3, 2);
        let setup = Setup::new(&e);
        let mut workspace = setup.workspace::<f32>(8);
        let values = setup.upload(&[0.0f32; 8]);
        let mut room = setup.room(4);
        let options = AssignOptions::default();
        let text = |error: Error| error.to_string();

        assert_eq!(
            text(MatrixView::new(&values, 3, 2).map(|_| ()).unwrap_err()),
            "cuda::MatrixView::new: expected 3 x 2 elements, got 8"
        );
        for (rows, cols, stride) in [(3, 3, 3), (2, 3, 2), (usize::MAX, 2, usize::MAX)] {
            let error = MatrixView::with_stride(&values, rows, cols, stride).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
        let wide = MatrixView::new(&values, 2, 4).unwrap();
        let error = workspace.assign(wide, options, &mut room.0, &mut room.1).unwrap_err();
        assert_eq!(text(error), "assign: expected vectors of 2 columns, as the codewords have, got 4");
        let none = values.slice(..0);
        let (mut no_labels, mut no_distances) = (room.0.slice_mut(..0), room.1.slice_mut(..0));
        let nothing = MatrixView::new(&none, 0, 2).unwrap();
        workspace.assign(nothing, options, &mut no_labels, &mut no_distances).unwrap();
        let x = MatrixView::new(&values, 4, 2).unwrap();
        let mut few = setup.room(3);
        let error = workspace.assign(x, options, &mut few.0, &mut room.1).unwrap_err();
        assert_eq!(text(error), "assign: expected 4 labels, got 3");
        let error = workspace.assign(x, options, &mut room.0, &mut few.1).unwrap_err();
        assert_eq!(text(error), "assign: expected 4 distances, got 3");
        let error = workspace.pairwise_sq_l2(x, Precision::Fast, &mut room.1).unwrap_err();
        assert_eq!(text(error), "pairwise_sq_l2: expected 12 distances, got 4");
        let error = workspace.decode(&few.0, &mut room.1).unwrap_err();
        assert_eq!(text(error), "decode: expected 6 values, got 4");
        assert!(matches!(
            Workspace::<f32>::new(&setup.codebook, &setup.stream, 0).map(|_| ()).unwrap_err(),
            Error::InvalidParameter { name: "rows", .. }
        ));

        // Another device, and none.
        let stream = context(1).new_stream().unwrap();
        let elsewhere = stream.clone_htod(&[0.0f32; 8]).unwrap();
        let x_elsewhere = MatrixView::new(&elsewhere, 4, 2).unwrap();
        let error = workspace.assign(x_elsewhere, options, &mut room.0, &mut room.1).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { what: "vectors", .. }), "{error}");
        assert!(error.to_string().contains("vectors on cuda:0, got cuda:1"), "{error}");
        let mut labels = stream.alloc_zeros::<u32>(4).unwrap();
        let error = workspace.assign(x, options, &mut labels, &mut room.1).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { what: "labels", .. }), "{error}");
        let error = Workspace::<f32>::new(&setup.codebook, &stream, 8).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { what: "codebook", .. }), "{error}");
        let on_cpu = Codebook::new(e.view(), &Device::cpu()).unwrap();
        let error = Workspace::<f32>::new(&on_cpu, &setup.stream, 8).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("got cpu"), "{error}");
        workspace.check().unwrap();
    });
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "resident::each_refused_allocation_is_an_error_and_leaves_nothing_behind";
    let refusals = Machine::new().refuse_each(name, || {
        let e = matrix(vec![0.0f32, 1.0, 2.0, 3.0], 2, 2);
        let context = context(0);
        let codebook = Codebook::new(e.view(), &Device::Cuda(context.clone()))?;
        Workspace::<f16>::new(&codebook, &context.new_stream()?, 100).map(|_| ())
    });
    assert!(refusals > 10, "{refusals}");
}

/// Runs the `main` of an example as the test of that name, and asserts that it prints the lines.
fn assert_prints(test: &str, main: fn() -> Result<(), Box<dyn std::error::Error>>, lines: &[&str]) {
    if !simulated::is_available() {
        return;
    }
    let output = Machine::new().run(test, || main().expect("the example passes"));
    let text = simulated::text(&output);
    assert!(output.status.success(), "{text}");
    for line in lines {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[path = "../../examples/cuda_typed.rs"]
mod cuda_typed;

#[test]
fn the_example_of_typed_memory_prints_the_nearest_corners() {
    // Vector 333 is a third along one side and four sixths along the other.
    let lines =
        ["vector 0 [0.00, 0.00]: code 0,", "vector 333 [0.33, 0.67]: code 1,", "vector 999 [1.00, 0.83]: code 3,"];
    assert_prints("resident::the_example_of_typed_memory_prints_the_nearest_corners", cuda_typed::main, &lines);
}

#[path = "../../examples/cuda_raw.rs"]
mod cuda_raw;

#[test]
fn the_example_of_addresses_prints_the_nearest_corners() {
    // The last vector is as far from all corners: the lowest code.
    let lines = ["vector 0: code 2,", "vector 1: code 1,", "vector 2: code 0, squared distance 0.5"];
    assert_prints("resident::the_example_of_addresses_prints_the_nearest_corners", cuda_raw::main, &lines);
}
