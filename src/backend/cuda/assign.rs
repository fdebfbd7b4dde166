//! Launch of kernels/assign.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::shapes::SCORE_ROWS;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Threads of a block of the score tile.
pub(super) const SCORE_THREADS: u32 = 256;

/// The rows that the filter pass leaves open.
pub(super) struct Again {
    /// `[capacity]`.
    pub rows: Buffer<u32>,
    /// One number.
    pub count: Buffer<u32>,
}

/// Labels of the first `n` rows of a packed block; those that the filter pass cannot settle go to the block's `again`,
/// whose count is zero before.
pub(super) fn assign(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    n: u32,
    fast: bool,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    assert!(n <= block.capacity && n as usize <= labels.len(), "check 2");
    let (depth, fast) = (codebook.depth(), u32::from(fast));
    let config = config(n);
    let function = queue.context.function("assign", "assign_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&block.packed).arg(&block.facts).arg(&block.kinds).arg(&codebook.packed).arg(&codebook.labels);
    launch.arg(labels).arg(&mut block.again.rows).arg(&mut block.again.count).arg(&n).arg(&codebook.m).arg(&depth);
    launch.arg(&codebook.bounds.unit).arg(&codebook.bounds.tiny).arg(&fast);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("assign_f32", &mut launch, config) }
}

/// A block of threads per tile of rows.
fn config(n: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.div_ceil(SCORE_ROWS), 1, 1), block_dim: (SCORE_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::filter;
    use crate::backend::cuda::shapes::SCORE_CHUNK;

    #[test]
    fn every_row_has_a_tile() {
        for (n, blocks) in [(1, 1), (SCORE_ROWS, 1), (SCORE_ROWS + 1, 2), (2 * SCORE_ROWS + 3, 3)] {
            assert_eq!(config(n).grid_dim, (blocks, 1, 1), "{n}");
        }
    }

    #[test]
    fn the_kernel_rounds_no_more_often_than_the_bounds_of_the_codebook_assume() {
        assert_eq!(SCORE_CHUNK as usize, filter::CHUNK);
    }
}
