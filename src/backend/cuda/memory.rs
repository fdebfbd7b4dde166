//! Device memory as launches see it: who owns it ([`Buffer`]), who reads it ([`In`]), who writes it ([`Out`]).
//!
//! A launch takes addresses and knows nothing of events. Buffers belong to one stream and need none; memory of a caller
//! is waited for once, where it comes in, and its use recorded once, when the call has queued its work.

use crate::matrix::Element;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaSlice, DevicePtr, LaunchArgs, PushKernelArg};
use std::marker::PhantomData;

/// Values that launches read.
pub(crate) struct In<'a, T> {
    address: CUdeviceptr,
    len: usize,
    memory: PhantomData<&'a [T]>,
}

impl<T> Clone for In<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<'_, T> {}

impl<'a, T> In<'a, T> {
    /// `len` values at `address`.
    ///
    /// # Safety
    /// They are there, and nobody writes them, for as long as work that this is queued for can run.
    pub unsafe fn new(address: CUdeviceptr, len: usize) -> Self {
        In { address, len, memory: PhantomData }
    }

    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// From value `start` on; nothing where there are no more.
    pub fn from(&self, start: usize) -> In<'a, T> {
        let start = start.min(self.len);
        // SAFETY: a part of what is there.
        unsafe { In::new(self.address + (start * size_of::<T>()) as CUdeviceptr, self.len - start) }
    }
}

impl<'a, T: Element> In<'a, T> {
    /// The same memory, byte by byte.
    pub fn as_bytes(self) -> In<'a, u8> {
        In { address: self.address, len: self.len * size_of::<T>(), memory: PhantomData }
    }
}

/// Values that launches write, and may read.
pub(crate) struct Out<'a, T> {
    address: CUdeviceptr,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

impl<T> Out<'_, T> {
    /// `len` values at `address`.
    ///
    /// # Safety
    /// They are there, and nobody else reads or writes them, for as long as work that this is queued for can run.
    pub unsafe fn new(address: CUdeviceptr, len: usize) -> Self {
        Out { address, len, memory: PhantomData }
    }

    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// From value `start` on; nothing where there are no more.
    pub fn from(&mut self, start: usize) -> Out<'_, T> {
        let start = start.min(self.len);
        // SAFETY: a part of what is there, and the whole cannot be used beside it.
        unsafe { Out::new(self.address + (start * size_of::<T>()) as CUdeviceptr, self.len - start) }
    }

    /// The first `len` values, or all.
    pub fn first(&mut self, len: usize) -> Out<'_, T> {
        Out { address: self.address, len: len.min(self.len), memory: PhantomData }
    }
}

/// Device memory that only work of one stream touches, the one that it is freed on; so its order needs no events.
pub(crate) struct Buffer<T> {
    address: CUdeviceptr,
    slice: CudaSlice<T>,
}

impl<T> Buffer<T> {
    pub fn new(slice: CudaSlice<T>) -> Self {
        // Nothing was queued before on this memory but its allocation, in its own stream.
        let address = slice.device_ptr(slice.stream()).0;
        Buffer { address, slice }
    }

    pub fn read(&self) -> In<'_, T> {
        // SAFETY: the memory is freed by its stream, after what was queued before; the borrow keeps writers away.
        unsafe { In::new(self.address, self.slice.len()) }
    }

    pub fn write(&mut self) -> Out<'_, T> {
        // SAFETY: as above; the borrow keeps everybody away.
        unsafe { Out::new(self.address, self.slice.len()) }
    }
}

// A launch copies its arguments, so that the borrows may end with it.
// SAFETY: the parameter is an address of 8 bytes, as device pointers are.
unsafe impl<'a, 'b: 'a, T> PushKernelArg<&'b In<'_, T>> for LaunchArgs<'a> {
    fn arg(&mut self, arg: &'b In<'_, T>) -> &mut Self {
        self.arg(&arg.address)
    }
}

// SAFETY: as above.
unsafe impl<'a, 'b: 'a, T> PushKernelArg<&'b mut Out<'_, T>> for LaunchArgs<'a> {
    fn arg(&mut self, arg: &'b mut Out<'_, T>) -> &mut Self {
        self.arg(&arg.address)
    }
}

// SAFETY: as above.
unsafe impl<'a, 'b: 'a, T> PushKernelArg<&'b Buffer<T>> for LaunchArgs<'a> {
    fn arg(&mut self, arg: &'b Buffer<T>) -> &mut Self {
        self.arg(&arg.address)
    }
}

// SAFETY: as above.
unsafe impl<'a, 'b: 'a, T> PushKernelArg<&'b mut Buffer<T>> for LaunchArgs<'a> {
    fn arg(&mut self, arg: &'b mut Buffer<T>) -> &mut Self {
        self.arg(&arg.address)
    }
}
