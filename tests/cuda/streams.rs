//! Memory that other streams and other handles of the device use: it is waited for, and not freed too early. The
//! simulated driver finds work that nothing orders, whatever order it happened to run in.

use crate::common::{Numbers, assert_same_labels, matrix};
use crate::simulated::Machine;
use codeword::backend::reference;
use codeword::cuda::cudarc::driver::CudaContext;
use codeword::cuda::{Context, MatrixView, Workspace};
use codeword::{AssignOptions, Codebook, Device, Error, Matrix};

const SHAPE: [usize; 3] = [40, 12, 7];

/// A handle of the device, of which a process may have several.
fn context() -> Context {
    match Device::cuda(0).expect("the simulated device opens") {
        Device::Cuda(context) => context,
        other => panic!("a CUDA device, not {other}"),
    }
}

/// Vectors, a codebook on the device of `context`, and the labels of the vectors.
fn data(context: &Context) -> (Matrix<f32>, Codebook, Vec<u32>) {
    let [n, k, d] = SHAPE;
    let mut numbers = Numbers::new(91);
    let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
    let codebook = Codebook::new(e.view(), &Device::Cuda(context.clone())).unwrap();
    let labels = reference::nearest(x.view(), e.view()).0;
    (x, codebook, labels)
}

/// Runs `body` on machines that do work as late as they may, and at random moments.
fn pass(test: &str, body: fn()) {
    for seed in [0, 1, 2] {
        Machine::new().set("SEED", seed).pass(test, body);
    }
}

#[test]
fn memory_of_another_handle_on_its_default_stream_is_waited_for_and_kept() {
    pass("streams::memory_of_another_handle_on_its_default_stream_is_waited_for_and_kept", || {
        let context = context();
        let ([n, _, d], (x, codebook, expected)) = (SHAPE, data(&context));
        // A handle without a stream of its own records no events.
        let foreign = CudaContext::new(0).unwrap().default_stream();
        let values = foreign.clone_htod(x.as_slice()).unwrap();
        let (mut labels, mut sq_distances) = (foreign.alloc_zeros(n).unwrap(), foreign.alloc_zeros(n).unwrap());
        let mut workspace = Workspace::new(&codebook, &context.new_stream().unwrap(), 64).unwrap();
        let view = MatrixView::new(&values, n, d).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        drop(values);
        assert_same_labels("foreign", &foreign.clone_dtoh(&labels).unwrap(), &expected, 1);
        workspace.check().unwrap();
    });
}

#[test]
fn a_workspace_on_the_default_stream_of_another_handle() {
    pass("streams::a_workspace_on_the_default_stream_of_another_handle", || {
        let context = context();
        let ([n, _, d], (x, codebook, expected)) = (SHAPE, data(&context));
        let stream = context.new_stream().unwrap();
        let values = stream.clone_htod(x.as_slice()).unwrap();
        let (mut labels, mut sq_distances) = (stream.alloc_zeros(n).unwrap(), stream.alloc_zeros(n).unwrap());
        let foreign = CudaContext::new(0).unwrap().default_stream();
        let mut workspace = Workspace::new(&codebook, &foreign, 64).unwrap();
        let view = MatrixView::new(&values, n, d).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        drop(values);
        workspace.check().unwrap();
        assert_same_labels("foreign", &stream.clone_dtoh(&labels).unwrap(), &expected, 1);
    });
}

#[test]
fn a_codebook_of_another_handle_is_freed_after_its_last_use() {
    pass("streams::a_codebook_of_another_handle_is_freed_after_its_last_use", || {
        let context = context();
        let ([n, _, d], (x, first, _)) = (SHAPE, data(&context));
        let (_, second, expected) = data(&self::context());
        let stream = context.new_stream().unwrap();
        let values = stream.clone_htod(x.as_slice()).unwrap();
        let (mut labels, mut sq_distances) = (stream.alloc_zeros(n).unwrap(), stream.alloc_zeros(n).unwrap());
        let mut workspace = Workspace::new(&first, &stream, 64).unwrap();
        workspace.set_codebook(&second).unwrap();
        let view = MatrixView::new(&values, n, d).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        drop(second);
        workspace.set_codebook(&first).unwrap();
        workspace.check().unwrap();
        assert_same_labels("second", &stream.clone_dtoh(&labels).unwrap(), &expected, 1);
    });
}

#[test]
fn the_default_stream_per_thread_is_refused() {
    pass("streams::the_default_stream_per_thread_is_refused", || {
        let context = context();
        let (x, codebook, _) = data(&context);
        let stream = context.cuda().per_thread_stream();
        let error = Workspace::<f32>::new(&codebook, &stream, 64).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { name: "stream", .. }), "{error}");
        let codewords = context.new_stream().unwrap().clone_htod(x.as_slice()).unwrap();
        let codewords = MatrixView::new(&codewords, SHAPE[0], SHAPE[2]).unwrap();
        let error = Codebook::from_cuda(codewords, &context, &stream).unwrap_err();
        assert!(error.to_string().contains("another one on every thread"), "{error}");
    });
}

#[test]
fn a_bad_row_and_a_bad_code_are_both_told_one_after_the_other() {
    pass("streams::a_bad_row_and_a_bad_code_are_both_told_one_after_the_other", || {
        let context = context();
        let ([n, k, d], (x, codebook, _)) = (SHAPE, data(&context));
        let stream = context.new_stream().unwrap();
        let mut values = x.as_slice().to_vec();
        values[5 * d + 2] = f32::NAN;
        let values = stream.clone_htod(&values).unwrap();
        let mut labels = stream.clone_htod(&vec![k as u32; n]).unwrap();
        let (mut decoded, mut sq_distances) = (stream.alloc_zeros(n * d).unwrap(), stream.alloc_zeros(n).unwrap());
        let mut workspace = Workspace::new(&codebook, &stream, 64).unwrap();
        workspace.decode(&labels, &mut decoded).unwrap();
        let view = MatrixView::new(&values, n, d).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        let first = workspace.check().unwrap_err();
        assert!(matches!(first, Error::NonFinite { row: 5, col: 2, .. }), "{first}");
        let second = workspace.check().unwrap_err();
        assert!(matches!(second, Error::CodeOutOfRange { position: 0, code: 12, .. }), "{second}");
        workspace.check().unwrap();
    });
}
