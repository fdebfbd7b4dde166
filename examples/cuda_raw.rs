//! Vectors that another library holds on the GPU, given by address: a tensor of PyTorch (`data_ptr()` and
//! `torch.cuda.current_stream().cuda_stream`), an array of CuPy (`.data.ptr`, `stream.ptr`), or memory of another
//! version of `cudarc`. Nothing is copied.
//!
//!     cargo run --release --example cuda_raw

use codeword::cuda::cudarc::driver::sys::{CUdeviceptr, CUstream};
use codeword::cuda::{Context, MatrixView, Raw, Workspace};
use codeword::{AssignOptions, Codebook, Device};

/// Labels and squared distances of `n` vectors of `d` dimensions, all in memory of the other library.
///
/// # Safety
/// At `x` lie n d values, at `labels` and `sq_distances` there is room for n; they stay there until the work queued on
/// `stream` is done, and everything else that touches them is queued on `stream` too.
#[allow(clippy::too_many_arguments)] // addresses and sizes, as the other library knows them
unsafe fn assign_tensor(
    context: &Context,
    codebook: &Codebook,
    stream: CUstream,
    x: CUdeviceptr,
    n: usize,
    d: usize,
    labels: CUdeviceptr,
    sq_distances: CUdeviceptr,
) -> codeword::Result<()> {
    // SAFETY: the other library keeps its stream; what lies where, the caller says.
    let (stream, x, mut labels, mut sq_distances) = unsafe {
        let stream = context.cuda().wrap_borrowed_stream(stream);
        let x = Raw::<f32>::new(x, n * d, &stream);
        let labels = Raw::labels(labels, n, &stream);
        let sq_distances = Raw::<f32>::new(sq_distances, n, &stream);
        (stream, x, labels, sq_distances)
    };
    // A program that does this often makes the workspace once per stream.
    let mut workspace = Workspace::new(codebook, &stream, 65_536)?;
    workspace.assign(MatrixView::new(&x, n, d)?, AssignOptions::default(), &mut labels, &mut sq_distances)?;
    workspace.check().map(|_| ())
}

/// Runs it.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::cuda(0)?;
    let Device::Cuda(context) = &device else { return Err("not a CUDA device".into()) };
    let codewords = [0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let codebook = Codebook::new(codeword::MatrixView::new(&codewords, 4, 2)?, &device)?;

    let library = other_library::Tensors::new(&[0.9, 0.2, 0.4, 0.7, 0.5, 0.5])?;
    let (x, labels, sq_distances) = library.addresses();
    // SAFETY: the tensors live until the end of `main`, and their library works on that stream alone.
    unsafe { assign_tensor(context, &codebook, library.stream(), x, 3, 2, labels, sq_distances)? };
    for (i, (label, sq_distance)) in library.results()?.into_iter().enumerate() {
        println!("vector {i}: code {label}, squared distance {sq_distance}");
    }
    Ok(())
}

/// Stands for PyTorch, CuPy and the like: has memory and a stream of its own, and hands out their addresses.
mod other_library {
    use codeword::cuda::cudarc::driver::sys::{CUdeviceptr, CUstream};
    use codeword::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError};
    use std::sync::Arc;

    pub struct Tensors {
        stream: Arc<CudaStream>,
        x: CudaSlice<f32>,
        labels: CudaSlice<u32>,
        sq_distances: CudaSlice<f32>,
    }

    impl Tensors {
        pub fn new(values: &[f32]) -> Result<Tensors, DriverError> {
            let stream = CudaContext::new(0)?.new_stream()?;
            let n = values.len() / 2;
            Ok(Tensors {
                x: stream.clone_htod(values)?,
                labels: stream.alloc_zeros(n)?,
                sq_distances: stream.alloc_zeros(n)?,
                stream,
            })
        }

        pub fn stream(&self) -> CUstream {
            self.stream.cu_stream()
        }

        pub fn addresses(&self) -> (CUdeviceptr, CUdeviceptr, CUdeviceptr) {
            let stream = &self.stream;
            (self.x.device_ptr(stream).0, self.labels.device_ptr(stream).0, self.sq_distances.device_ptr(stream).0)
        }

        pub fn results(&self) -> Result<Vec<(u32, f32)>, DriverError> {
            let (labels, distances) =
                (self.stream.clone_dtoh(&self.labels)?, self.stream.clone_dtoh(&self.sq_distances)?);
            Ok(labels.into_iter().zip(distances).collect())
        }
    }
}
