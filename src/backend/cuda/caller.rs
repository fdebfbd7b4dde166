//! Memory of callers: what can be given to the operations of [`crate::cuda`], and how its use is ordered with other work.

use super::memory::{In, Out};
use super::queue::refused;
use crate::error::{Error, Result};
use crate::matrix::Element;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop};
use std::marker::PhantomData;
use std::sync::Arc;

mod sealed {
    /// Only what is known to hold the memory that it says.
    pub trait Sealed {}
}

/// Device memory to read: `CudaSlice`, `CudaView` or `CudaViewMut` of `cudarc`, or [`Raw`].
pub trait Memory<T>: DevicePtr<T> + sealed::Sealed {
    /// Whether its uses on different streams are ordered by events.
    #[doc(hidden)]
    fn has_events(&self) -> bool {
        self.stream().context().is_managing_stream_synchronization()
    }
}

/// Device memory to write: `CudaSlice` or `CudaViewMut` of `cudarc`, or [`Raw`].
pub trait MemoryMut<T>: DevicePtrMut<T> + Memory<T> {}

impl<T> sealed::Sealed for CudaSlice<T> {}
impl<T> Memory<T> for CudaSlice<T> {}
impl<T> MemoryMut<T> for CudaSlice<T> {}
impl<T> sealed::Sealed for CudaView<'_, T> {}
impl<T> Memory<T> for CudaView<'_, T> {}
impl<T> sealed::Sealed for CudaViewMut<'_, T> {}
impl<T> Memory<T> for CudaViewMut<'_, T> {}
impl<T> MemoryMut<T> for CudaViewMut<'_, T> {}

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
    /// - The values are there, in memory of the device of `stream`, until everything queued on `stream` is done,
    ///   whatever is queued by then by the calls that they are given to.
    /// - Everything else that writes them, or reads those that are given as an output, is ordered with `stream`: queued on
    ///   it, or waited for by events. (A call that works on another stream orders the two.)
    /// - Those given as an output share no byte with another argument of the call.
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

impl Raw<u8> {
    /// `len` bytes of codes at `address`.
    ///
    /// # Safety
    /// That of [`Raw::new`].
    pub unsafe fn codes(address: CUdeviceptr, len: usize, stream: &Arc<CudaStream>) -> Self {
        Raw { address, len, stream: stream.clone(), values: PhantomData }
    }
}

impl Raw<u64> {
    /// `len` counts at `address`.
    ///
    /// # Safety
    /// That of [`Raw::new`].
    pub unsafe fn counts(address: CUdeviceptr, len: usize, stream: &Arc<CudaStream>) -> Self {
        Raw { address, len, stream: stream.clone(), values: PhantomData }
    }
}

impl Raw<f64> {
    /// `len` sums at `address`.
    ///
    /// # Safety
    /// That of [`Raw::new`].
    pub unsafe fn sums(address: CUdeviceptr, len: usize, stream: &Arc<CudaStream>) -> Self {
        Raw { address, len, stream: stream.clone(), values: PhantomData }
    }
}

impl<T> sealed::Sealed for Raw<T> {}

impl<T> Memory<T> for Raw<T> {
    fn has_events(&self) -> bool {
        false
    }
}

impl<T> MemoryMut<T> for Raw<T> {}

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

/// A use of the caller's memory. When it ends, everything that is ordered with that memory is ordered with the work
/// queued meanwhile.
pub(super) struct Use<'a> {
    _recorded: SyncOnDrop<'a>,
    _joined: Option<Joined>,
}

/// Two streams, the first of which waits in the end for what was queued on the second.
struct Joined {
    waiting: Arc<CudaStream>,
    stream: Arc<CudaStream>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let Joined { waiting, stream } = self;
        // Without an event, for want of memory say, the host has to wait. If that fails too, the device is lost.
        if waiting.join(stream).is_err() {
            let _ = stream.synchronize();
        }
    }
}

/// Memory of the caller for launches on `stream` to read; they wait for what writes it now.
pub(super) fn read<'a, T>(
    op: &'static str,
    what: &'static str,
    values: &'a dyn Memory<T>,
    stream: &'a Arc<CudaStream>,
) -> Result<(In<'a, T>, Use<'a>)> {
    let joined = order(op, what, values.stream(), values.has_events(), stream)?;
    let (address, recorded) = values.device_ptr(stream);
    check_alignment::<T>(op, what, address)?;
    // SAFETY: a Memory holds so many values there; `Use` orders the launches with others.
    Ok((unsafe { In::new(address, values.len()) }, Use { _recorded: recorded, _joined: joined }))
}

/// Memory of the caller for launches on `stream` to write; they wait for what uses it now.
pub(super) fn write<'a, T>(
    op: &'static str,
    what: &'static str,
    values: &'a mut dyn MemoryMut<T>,
    stream: &'a Arc<CudaStream>,
) -> Result<(Out<'a, T>, Use<'a>)> {
    let joined = order(op, what, values.stream(), values.has_events(), stream)?;
    let len = values.len();
    let (address, recorded) = values.device_ptr_mut(stream);
    check_alignment::<T>(op, what, address)?;
    // SAFETY: as in `read`, and the memory is borrowed alone.
    Ok((unsafe { Out::new(address, len) }, Use { _recorded: recorded, _joined: joined }))
}

/// Makes `stream` wait for what is queued on the stream of some memory, unless events say what to wait for: those that
/// one handle of the device keeps (`cudarc` counts streams for each).
fn order(
    op: &'static str,
    what: &'static str,
    memory: &Arc<CudaStream>,
    has_events: bool,
    stream: &Arc<CudaStream>,
) -> Result<Option<Joined>> {
    check_place(op, what, memory, stream)?;
    if memory.cu_stream() == stream.cu_stream() || (has_events && Arc::ptr_eq(memory.context(), stream.context())) {
        return Ok(None);
    }
    check_stream(op, memory)?;
    stream.join(memory).map_err(|error| refused(op, format!("waiting for the stream of the {what}"), error))?;
    Ok(Some(Joined { waiting: memory.clone(), stream: stream.clone() }))
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

/// A stream has to be the same one on every thread.
pub(super) fn check_stream(op: &'static str, stream: &CudaStream) -> Result<()> {
    // CU_STREAM_PER_THREAD
    if stream.cu_stream() as usize != 2 {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        op,
        name: "stream",
        expected: "a stream of its own, or the default stream of the device".into(),
        got: "the default stream per thread, which is another one on every thread".into(),
    })
}

/// Kernels read and write whole values.
fn check_alignment<T>(op: &'static str, what: &'static str, address: CUdeviceptr) -> Result<()> {
    let size = size_of::<T>() as CUdeviceptr;
    if address.is_multiple_of(size) {
        return Ok(());
    }
    let (expected, got) = (format!("{what} at a multiple of {size} bytes"), format!("{address:#x}"));
    Err(Error::Shape { op, expected, got })
}
