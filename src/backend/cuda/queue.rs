//! A stream of one operation: where its memory comes from, and where its copies and launches go. What the driver
//! refuses becomes an error of the operation.

use super::context::Context;
use super::memory::{Buffer, In, Out};
use crate::error::{Error, Result};
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC;
use cudarc::driver::sys::{CUdeviceptr, CUresult};
use cudarc::driver::{
    CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchArgs, LaunchConfig, PinnedHostSlice, ValidAsZeroBits,
    result,
};
use std::sync::Arc;

/// The stream and the operation it works for.
#[derive(Clone)]
pub(crate) struct Queue {
    pub op: &'static str,
    pub context: Context,
    pub stream: Arc<CudaStream>,
}

impl Queue {
    /// A stream of its own for `op`.
    pub fn new(op: &'static str, context: &Context) -> Result<Queue> {
        let stream = context.cuda().new_stream().map_err(|error| refused(op, "a stream", error))?;
        Ok(Queue { op, context: context.clone(), stream })
    }

    /// Device memory for `len` values. What it holds is not defined before a kernel or copy writes it.
    pub fn alloc<T: DeviceRepr>(&self, len: usize) -> Result<Buffer<T>> {
        // A driver refuses to allocate nothing.
        let len = len.max(1);
        // SAFETY: no Rust code reads device memory; kernels and copies write every value before they read it, which the
        // simulated driver of the tests checks.
        let slice = unsafe { self.stream.alloc(len) }
            .map_err(|error| refused(self.op, format!("{} of device memory", words(len, size_of::<T>())), error))?;
        Ok(Buffer::new(slice))
    }

    /// Page-locked host memory of `len` zeros: copies from and to it run beside kernels.
    pub fn alloc_pinned<T: DeviceRepr + ValidAsZeroBits>(&self, len: usize) -> Result<Pinned<T>> {
        let len = len.max(1);
        let asked = || format!("{} of page-locked host memory", words(len, size_of::<T>()));
        let refused = |error| refused(self.op, asked(), error);
        // Flags 0: memory that the CPU reads must not be write-combined.
        // SAFETY: the memory is set to zero right below, before anybody reads it.
        let mut pinned = unsafe { self.context.cuda().alloc_pinned_with_flags(len, 0) }.map_err(refused)?;
        let start: *mut T = pinned.as_mut_ptr().map_err(refused)?;
        // SAFETY: `start` begins `len` values of T, and all bits zero are a T.
        unsafe { start.write_bytes(0, len) };
        Ok(Pinned { op: self.op, slice: pinned })
    }

    /// Device memory holding `values`.
    pub fn upload<T: DeviceRepr>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.alloc(values.len())?;
        self.copy_in(values, &mut buffer.write())?;
        Ok(buffer)
    }

    /// Copies `values` to the start of `to`. Where they are page-locked, they are read when the copy runs.
    pub fn copy_in<T: DeviceRepr>(&self, values: &[T], to: &mut Out<'_, T>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        assert!(values.len() <= to.len(), "check 2");
        let copy = || {
            self.stream.context().bind_to_thread()?;
            // SAFETY: check 2. Pageable values are staged before the call returns; page-locked ones belong to a lane,
            // which waits for its stream before it touches them or goes, where the device still answers.
            unsafe { result::memcpy_htod_async(to.address(), values, self.stream.cu_stream()) }
        };
        let asked = || format!("a copy of {} to the device", words(values.len(), size_of::<T>()));
        copy().map_err(|error| refused(self.op, asked(), error))
    }

    /// Copies the start of `from` to `values`, which are there once the stream is through.
    pub fn copy_out<T: DeviceRepr>(&self, from: In<'_, T>, values: &mut [T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        assert!(values.len() <= from.len(), "check 2");
        let asked = format!("a copy of {} from the device", words(values.len(), size_of::<T>()));
        let mut copy = || {
            self.stream.context().bind_to_thread()?;
            // SAFETY: check 2. Pageable values are there before the call returns; page-locked ones belong to a lane, as in
            // `copy_in`, or to a workspace, which waits right after it queued the copy, whatever else failed.
            unsafe { result::memcpy_dtoh_async(values, from.address(), self.stream.cu_stream()) }
        };
        copy().map_err(|error| refused(self.op, asked, error))
    }

    /// Copies the start of `from` over all of `to`, within the device.
    pub fn copy<T: DeviceRepr>(&self, from: In<'_, T>, to: &mut Out<'_, T>) -> Result<()> {
        assert!(to.len() <= from.len(), "check 2");
        let copy = || {
            self.stream.context().bind_to_thread()?;
            let bytes = to.len() * size_of::<T>();
            // SAFETY: check 2, and what is written is borrowed alone.
            unsafe { result::memcpy_dtod_async(to.address(), from.address(), bytes, self.stream.cu_stream()) }
        };
        let asked = || format!("a copy of {} on the device", words(to.len(), size_of::<T>()));
        copy().map_err(|error| refused(self.op, asked(), error))
    }

    /// Sets all of `to` to zero.
    pub fn zero<T: DeviceRepr + ValidAsZeroBits>(&self, to: &mut Out<'_, T>) -> Result<()> {
        self.set(to.address(), 0, to.len() * size_of::<T>())
    }

    /// Sets every byte of `to`.
    pub fn fill<T: bytemuck::AnyBitPattern>(&self, to: &mut Out<'_, T>, byte: u8) -> Result<()> {
        self.set(to.address(), byte, to.len() * size_of::<T>())
    }

    fn set(&self, address: CUdeviceptr, byte: u8, bytes: usize) -> Result<()> {
        let set = || {
            self.stream.context().bind_to_thread()?;
            // SAFETY: so many bytes are there, and bytes like these are values of their type.
            unsafe { result::memset_d8_async(address, byte, bytes, self.stream.cu_stream()) }
        };
        set().map_err(|error| refused(self.op, "setting device memory", error))
    }

    /// Waits until everything queued is done.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| refused(self.op, "waiting for the device", error))
    }

    /// Lets launches of `function` ask for so many bytes of dynamic shared memory: more than 48 KB need that.
    pub fn allow_shared(&self, function: &CudaFunction, entry: &str, bytes: u32) -> Result<()> {
        let asked = || format!("{bytes} bytes of shared memory for {entry}");
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        let allowed = self.context.cuda().bind_to_thread().and_then(|()| function.set_attribute(DYNAMIC, bytes));
        allowed.map_err(|error| refused(self.op, asked(), error))
    }

    /// Puts a launch of `entry` into the queue.
    ///
    /// # Safety
    /// Checks 1 to 4 of [`super`].
    pub unsafe fn launch(&self, entry: &str, launch: &mut LaunchArgs<'_>, config: LaunchConfig) -> Result<()> {
        // SAFETY: the caller made the checks.
        match unsafe { launch.launch(config) } {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(self.op, format!("a launch of {entry} on {:?} blocks", config.grid_dim), error)),
        }
    }
}

/// Page-locked host memory. Its owner waits for the stream before it touches what a copy still uses.
pub(crate) struct Pinned<T> {
    op: &'static str,
    slice: PinnedHostSlice<T>,
}

impl<T: ValidAsZeroBits> Pinned<T> {
    pub fn as_slice(&self) -> Result<&[T]> {
        self.slice.as_slice().map_err(|error| refused(self.op, "page-locked host memory", error))
    }

    pub fn as_mut_slice(&mut self) -> Result<&mut [T]> {
        self.slice.as_mut_slice().map_err(|error| refused(self.op, "page-locked host memory", error))
    }
}

/// What the driver refused, as an error of `op`.
pub(super) fn refused(op: &'static str, asked: impl Into<String>, error: DriverError) -> Error {
    let way_out = match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            "free memory on the device (nvidia-smi shows who holds it), use a smaller codebook, or use the CPU"
        }
        _ => "see what `codeword doctor` says about the device, or use the CPU",
    };
    Error::Cuda { op, asked: asked.into(), got: name_of(error), way_out, source: Some(Box::new(error)) }
}

/// The driver's own name of an error.
pub(super) fn name_of(error: DriverError) -> String {
    format!("{:?}", error.0)
}

/// An amount of memory in words.
fn words(len: usize, size: usize) -> String {
    match len.saturating_mul(size) {
        bytes @ 0..10_000 => format!("{bytes} bytes"),
        bytes @ 10_000..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        bytes => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}
