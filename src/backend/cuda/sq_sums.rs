//! Launches of kernels/sq_sums.cu.

use super::codebook::DeviceCodebook;
use super::memory::{In, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::SQ_SUMS_THREADS;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Lanes of a row.
const LANES: u32 = 8;

/// Of each of the rows, fewer than 2^32, the sum of squares and that of its difference from the codeword of its label:
/// `sums`, `[n, 2]`, with zeros where the label is not below k. Bit for bit those of [`crate::backend::cpu::sq_sums`].
pub(super) fn sq_sums(
    queue: &Queue,
    codebook: &DeviceCodebook,
    x: &Rows<'_>,
    labels: &In<'_, u32>,
    sums: &mut Out<'_, f64>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.hold(codebook.d as usize) && x.n <= u32::MAX as usize, "checks 2 and 3");
    assert!(x.n <= labels.len() && 2 * x.n <= sums.len(), "check 2");
    let (n, stride) = (x.n as u32, x.stride as u64);
    let entry = match x.dtype {
        Dtype::F32 => "sq_sums_f32",
        Dtype::F16 => "sq_sums_f16",
        Dtype::Bf16 => "sq_sums_bf16",
    };
    let config = config(n);
    let function = queue.context.function("sq_sums", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride).arg(&codebook.codewords).arg(labels).arg(sums);
    launch.arg(&n).arg(&codebook.k).arg(&codebook.d);
    // SAFETY: checks 1 to 3; the kernel checks the labels itself.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// The sums of `n` rows, `[n, 2]`, added up within blocks of `block_rows`, one row after the other: `blocks`,
/// `[ceil(n / block_rows), 2]`.
pub(super) fn sq_sums_blocks(
    queue: &Queue,
    sums: &In<'_, f64>,
    n: u32,
    block_rows: u32,
    blocks: &mut Out<'_, f64>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let config = blocks_config(n, block_rows);
    assert!(2 * n as usize <= sums.len() && 2 * config.grid_dim.0 as usize <= blocks.len(), "check 2");
    let function = queue.context.function("sq_sums", "sq_sums_blocks_f64")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(sums).arg(blocks).arg(&n).arg(&block_rows);
    // SAFETY: checks 1 to 3.
    unsafe { queue.launch("sq_sums_blocks_f64", &mut launch, config) }
}

/// Eight lanes per row.
fn config(n: u32) -> LaunchConfig {
    let blocks = n.div_ceil(SQ_SUMS_THREADS / LANES);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (SQ_SUMS_THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A warp per block of rows.
fn blocks_config(n: u32, block_rows: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.div_ceil(block_rows.max(1)), 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_eight_lanes_and_every_block_a_warp() {
        let rows = SQ_SUMS_THREADS / LANES;
        for (n, blocks) in [(1, 1), (rows, 1), (rows + 1, 2), (u32::MAX, u32::MAX.div_ceil(rows))] {
            assert_eq!(config(n).grid_dim, (blocks, 1, 1), "{n}");
        }
        assert_eq!(blocks_config(1025, 1024).grid_dim, (2, 1, 1));
        assert_eq!(blocks_config(1024, 1024).grid_dim, (1, 1, 1));
    }
}
