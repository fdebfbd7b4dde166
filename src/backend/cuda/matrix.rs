//! Matrices and memory that lie on a CUDA device already, whoever allocated them.

use super::context::Context;
use super::memory::In;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::matrix::Element;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop};
use std::marker::PhantomData;
use std::sync::Arc;

/// Rows on a CUDA device, `[rows, cols]`, row-major, maybe with gaps between them: what [`crate::MatrixView`] is for
/// host memory.
///
/// The values are a `CudaSlice` or `CudaView` of `cudarc`, or [`Raw`] memory of anybody else.
#[derive(Clone, Copy)]
pub struct MatrixView<'a, T> {
    values: &'a dyn DevicePtr<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T: Element> MatrixView<'a, T> {
    /// `rows * cols` values without gaps.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `values` holds another number of them.
    pub fn new(values: &'a dyn DevicePtr<T>, rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(values.len()) {
            return Err(Error::Shape {
                op: "cuda::MatrixView::new",
                expected: format!("{rows} x {cols} elements"),
                got: values.len().to_string(),
            });
        }
        Ok(MatrixView { values, rows, cols, stride: cols })
    }

    /// Rows whose first elements lie `stride` elements apart; what lies between them is not read.
    ///
    /// # Errors
    /// - [`Error::Shape`] where rows overlap or reach beyond `values`.
    pub fn with_stride(values: &'a dyn DevicePtr<T>, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let needed = match rows {
            0 => Some(0),
            _ => (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(cols)),
        };
        if stride < cols || needed.is_none_or(|needed| needed > values.len()) {
            return Err(Error::Shape {
                op: "cuda::MatrixView::with_stride",
                expected: format!("{rows} rows of {cols} elements, {stride} apart"),
                got: format!("{} elements", values.len()),
            });
        }
        Ok(MatrixView { values, rows, cols, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The rows for launches on `stream`, which waits for what writes them now; others wait for these launches from
    /// when the second value is dropped.
    pub(super) fn read<'s>(&'s self, op: &'static str, stream: &'s CudaStream) -> Result<(Rows<'s>, SyncOnDrop<'s>)> {
        check_place(op, "vectors", self.values.stream(), stream)?;
        let (address, used) = self.values.device_ptr(stream);
        check_alignment::<T>(op, "vectors", address)?;
        // SAFETY: `values` says so, for as long as it is borrowed; `stream` and `used` order the launches with others.
        let values = unsafe { In::new(address, self.values.len() * size_of::<T>()) };
        Ok((Rows { values, dtype: T::DTYPE, n: self.rows, stride: self.stride }, used))
    }
}

/// Device memory that something else manages: another version of `cudarc`, PyTorch, CuPy, a C library. It goes wherever
/// a `CudaSlice` goes in this module.
///
/// ```no_run
/// use codeword::cuda::{Context, MatrixView, Raw};
/// use codeword::cuda::cudarc::driver::sys::{CUdeviceptr, CUstream};
/// # fn example(context: &Context, address: CUdeviceptr, foreign: CUstream) -> codeword::Result<()> {
/// // The stream on which the other library works. Whoever owns it keeps it for as long as this is used.
/// let stream = unsafe { context.cuda().wrap_borrowed_stream(foreign) };
/// // 1000 vectors of 256 dimensions, which that library keeps until the stream is through.
/// let x = unsafe { Raw::<f32>::new(address, 1000 * 256, &stream) };
/// let x = MatrixView::new(&x, 1000, 256)?;
/// # let _ = x; Ok(()) }
/// ```
pub struct Raw<T> {
    address: CUdeviceptr,
    len: usize,
    stream: Arc<CudaStream>,
    values: PhantomData<T>,
}

impl<T: Element> Raw<T> {
    /// `len` values at `address` that are f32, f16 or bf16.
    ///
    /// # Safety
    /// - The values are there, in memory of the device of `stream`, aligned to their size, until everything that they
    ///   are given to has run.
    /// - They are given to a [`super::workspace::Workspace`] on this very `stream`, or with it to
    ///   [`crate::Codebook::from_cuda`]. Everything else that writes them, or
    ///   reads those that are given as an output, is queued on it too, or ordered with it by events: none is recorded for
    ///   raw memory.
    pub unsafe fn new(address: CUdeviceptr, len: usize, stream: &Arc<CudaStream>) -> Self {
        Raw { address, len, stream: stream.clone(), values: PhantomData }
    }
}

impl Raw<u32> {
    /// `len` labels or codes at `address`.
    ///
    /// # Safety
    /// That of [`Raw::new`].
    pub unsafe fn labels(address: CUdeviceptr, len: usize, stream: &Arc<CudaStream>) -> Self {
        Raw { address, len, stream: stream.clone(), values: PhantomData }
    }
}

impl<T> DeviceSlice<T> for Raw<T> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl<T> DevicePtr<T> for Raw<T> {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::Record(None))
    }
}

impl<T> DevicePtrMut<T> for Raw<T> {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::Record(None))
    }
}

/// Memory and stream have to belong to one context.
pub(super) fn check_place(
    op: &'static str,
    what: &'static str,
    memory: &CudaStream,
    stream: &CudaStream,
) -> Result<()> {
    if memory.context() == stream.context() {
        return Ok(());
    }
    let place = |stream: &CudaStream| format!("cuda:{}", stream.context().ordinal());
    let (expected, got) = (place(stream), place(memory));
    let got = if expected == got { format!("another context of {got}") } else { got };
    Err(Error::DeviceMismatch { op, what, expected, got })
}

/// Kernels read and write whole values.
pub(super) fn check_alignment<T>(op: &'static str, what: &'static str, address: CUdeviceptr) -> Result<()> {
    let size = size_of::<T>() as CUdeviceptr;
    if address.is_multiple_of(size) {
        return Ok(());
    }
    let (expected, got) = (format!("{what} at a multiple of {size} bytes"), format!("{address:#x}"));
    Err(Error::Shape { op, expected, got })
}

impl Context {
    /// A new stream of this device, for work that shall not wait for other work.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn new_stream(&self) -> Result<Arc<CudaStream>> {
        self.cuda().new_stream().map_err(|error| super::queue::refused("Context::new_stream", "a stream", error))
    }
}
