//! Launch of kernels/rows.cu, and the block of rows that it fills.

use super::codebook::DeviceCodebook;
use super::queue::Queue;
use super::shapes::ROWS_PER_BLOCK;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

/// A block of rows on the device, as stored and as the filter pass reads it.
pub(super) struct RowBlock {
    pub capacity: u32,
    pub dtype: Dtype,
    /// `[capacity, d]` of `dtype`.
    pub input: CudaSlice<u8>,
    /// `[capacity, d]` f32, where the input is not.
    pub wide: Option<CudaSlice<u8>>,
    /// `[capacity, d + 2]`.
    pub packed: CudaSlice<f32>,
    /// `[capacity, 4]`.
    pub facts: CudaSlice<f32>,
    /// `[capacity]`.
    pub kinds: CudaSlice<u32>,
    /// Words as in kernels/common.cuh.
    pub status: CudaSlice<u64>,
}

/// What the status counts, and the word of each.
pub(super) const STATUS: [u64; 5] = [u64::MAX, 0, 0, 0, 0];

impl RowBlock {
    pub fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32) -> Result<RowBlock> {
        let (rows, d) = (capacity as usize, codebook.d as usize);
        Ok(RowBlock {
            capacity,
            dtype,
            input: queue.alloc(rows * d * dtype.size())?,
            wide: if dtype == Dtype::F32 { None } else { Some(queue.alloc(rows * d * size_of::<f32>())?) },
            packed: queue.alloc(rows * (d + 2))?,
            facts: queue.alloc(rows * 4)?,
            kinds: queue.alloc(rows)?,
            status: queue.upload(&STATUS)?,
        })
    }

    /// Bytes of one row in all buffers.
    pub fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        let d = codebook.d as usize;
        let stored = if dtype == Dtype::F32 { 4 } else { dtype.size() + 4 };
        d * stored + (d + 2) * 4 + 4 * 4 + 4
    }

    /// The rows as f32, `[capacity, d]`.
    pub fn as_f32(&self) -> &CudaSlice<u8> {
        self.wide.as_ref().unwrap_or(&self.input)
    }
}

/// Packs the first `n` rows of the block, whose first is row `first_row` of the call; `plain` leaves out the bound.
pub(super) fn rows(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut RowBlock,
    first_row: u64,
    n: u32,
    plain: bool,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    assert!(n <= block.capacity, "check 2");
    let entry = match block.dtype {
        Dtype::F32 => "rows_f32",
        Dtype::F16 => "rows_f16",
        Dtype::Bf16 => "rows_bf16",
    };
    let plain = u32::from(plain);
    let config = config(n);
    let function = queue.context.function("rows", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&block.input);
    if let Some(wide) = &mut block.wide {
        launch.arg(wide);
    }
    launch.arg(&codebook.mean).arg(&mut block.packed).arg(&mut block.facts).arg(&mut block.kinds);
    launch.arg(&mut block.status).arg(&first_row).arg(&n).arg(&codebook.d);
    launch.arg(&codebook.shift).arg(&codebook.max_sq_norm).arg(&plain);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// A warp per row.
fn config(n: u32) -> LaunchConfig {
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
}
