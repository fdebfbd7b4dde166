//! Launch of kernels/rows.cu, and the rows that it reads.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::{Buffer, In};
use super::queue::Queue;
use super::shapes::ROWS_PER_BLOCK;
use crate::backend::{AssignOptions, NonFinite, Precision};
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};
use std::ops::Range;

/// Rows on the device as somebody stored them, `[n, d]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Bytes, from the first element on.
    pub values: In<'a, u8>,
    pub dtype: Dtype,
    pub n: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Some of the rows.
    pub fn block(&self, range: Range<usize>) -> Rows<'a> {
        Rows { values: self.values.from(range.start * self.stride * self.dtype.size()), n: range.len(), ..*self }
    }

    /// Whether values are there for n rows of `d` elements.
    pub fn hold(&self, d: usize) -> bool {
        let elements = match self.n {
            0 => 0,
            n => (n - 1) * self.stride + d,
        };
        self.stride >= d && elements * self.dtype.size() <= self.values.len()
    }
}

impl Rows<'_> {
    /// The rows as f32, packed rows' `wide` where they are not f32 themselves; and the elements from one to the next.
    pub fn as_f32<'a>(&'a self, codebook: &DeviceCodebook, wide: &'a Option<Buffer<f32>>) -> (In<'a, u8>, u64) {
        match wide {
            Some(wide) => (wide.read().as_bytes(), u64::from(codebook.d)),
            None => (self.values, self.stride as u64),
        }
    }

    /// [`Rows::as_f32`], or without `widened` the rows as they are; and their type.
    pub fn stored<'a>(
        &'a self,
        codebook: &DeviceCodebook,
        wide: &'a Option<Buffer<f32>>,
        widened: bool,
    ) -> (In<'a, u8>, u64, Dtype) {
        if widened {
            let (values, stride) = self.as_f32(codebook, wide);
            return (values, stride, Dtype::F32);
        }
        (self.values, self.stride as u64, self.dtype)
    }
}

/// What rows are packed for.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// Number of the first row in the call, for the status.
    pub first_row: u64,
    /// Leaves out the bound: scores alone are wanted.
    pub plain: bool,
    /// Writes the first row that is not finite to the status.
    pub report: bool,
}

impl Packing {
    /// For the filter pass of an assignment.
    pub fn for_assign(first_row: u64, options: AssignOptions) -> Packing {
        let plain = options.precision == Precision::Fast;
        Packing { first_row, plain, report: options.non_finite == NonFinite::Error }
    }
}

/// Packs the rows into `block`.
pub(super) fn rows(
    queue: &Queue,
    codebook: &DeviceCodebook,
    x: &Rows<'_>,
    block: &mut Block,
    packing: Packing,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.hold(codebook.d as usize) && x.dtype == block.dtype, "check 2");
    // A block has at most `capacity` rows.
    let (n, stride) = (x.n as u32, x.stride as u64);
    let (plain, report) = (u32::from(packing.plain), u32::from(packing.report));
    let entry = match x.dtype {
        Dtype::F32 => "rows_f32",
        Dtype::F16 => "rows_f16",
        Dtype::Bf16 => "rows_bf16",
    };
    let config = config(n);
    let function = queue.context.function("rows", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride);
    if let Some(wide) = &mut block.wide {
        launch.arg(wide);
    }
    launch.arg(&codebook.mean).arg(&mut block.packed).arg(&mut block.facts).arg(&mut block.kinds);
    launch.arg(&mut block.status).arg(&packing.first_row).arg(&n).arg(&codebook.d);
    launch.arg(&codebook.shift).arg(&codebook.max_sq_norm).arg(&plain).arg(&report);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// Lanes that share a row whose elements come in fours; `fours_shift` of kernels/common.cuh.
pub(super) fn lanes(d: u32) -> u32 {
    d.div_ceil(4).next_power_of_two().min(32)
}

/// A warp per row.
pub(super) fn config(n: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(ROWS_PER_BLOCK), 1, 1),
        block_dim: (ROWS_PER_BLOCK * 32, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_of_threads_may_be_partly_idle_but_none_is_missing() {
        for n in [1, ROWS_PER_BLOCK - 1, ROWS_PER_BLOCK, ROWS_PER_BLOCK + 1, u32::MAX] {
            let blocks = u64::from(config(n).grid_dim.0);
            let rows = u64::from(ROWS_PER_BLOCK);
            assert!(blocks * rows >= u64::from(n) && (blocks - 1) * rows < u64::from(n), "{n}");
        }
    }

    #[test]
    fn rows_hold_their_last_element_and_need_no_gap_after_it() {
        // SAFETY: nothing reads the memory.
        let rows = |n, stride, bytes| Rows { values: unsafe { In::new(256, bytes) }, dtype: Dtype::F16, n, stride };
        assert!(rows(3, 5, 26).hold(3));
        assert!(!rows(3, 5, 25).hold(3));
        assert!(!rows(3, 2, 1000).hold(3));
        assert!(rows(0, 3, 0).hold(3));
        let part = rows(3, 5, 26).block(1..3);
        assert_eq!((part.n, part.values.address(), part.values.len()), (2, 266, 16));
    }
}
