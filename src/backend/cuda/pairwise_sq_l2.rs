//! Launches of kernels/pairwise_sq_l2.cu.

use super::assign::SCORE_THREADS;
use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Out;
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::{PAIRWISE_WARPS, SCORE_COLS, SCORE_ROWS};
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Squared distances by norms, `[n, k]`, of the rows for which f32 can hold them; the others are left out. The block is
/// packed for plain scores.
pub(super) fn by_norms(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &Block,
    n: u32,
    out: &mut Out<'_, f32>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    assert!(n <= block.capacity && n as usize * codebook.k as usize <= out.len(), "check 2");
    let depth = codebook.depth();
    let config = tiles(n, codebook.k);
    let function = queue.context.function("pairwise_sq_l2", "pairwise_sq_l2_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&block.packed).arg(&block.facts).arg(&codebook.packed).arg(&codebook.positions).arg(out);
    launch.arg(&n).arg(&codebook.k).arg(&depth);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("pairwise_sq_l2_f32", &mut launch, config) }
}

/// Rounded real squared distances, `[n, k]`: of all rows, or of those that [`by_norms`] leaves out.
pub(super) fn direct(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &Block,
    x: &Rows<'_>,
    all: bool,
    out: &mut Out<'_, f32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    let n = x.n as u32;
    let (z, z_stride) = x.as_f32(codebook, &block.wide);
    assert!(n <= block.capacity && n as usize * codebook.k as usize <= out.len(), "check 2");
    let all = u32::from(all);
    let config = entries(n, codebook.k, queue.context.waves(8));
    let function = queue.context.function("pairwise_sq_l2", "pairwise_sq_l2_direct_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&block.facts).arg(&codebook.codewords).arg(out);
    launch.arg(&n).arg(&codebook.k).arg(&codebook.d).arg(&codebook.bounds.sq_l2_f64).arg(&all);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch("pairwise_sq_l2_direct_f32", &mut launch, config) }
}

/// A block of threads per tile; the second dimension of a grid ends at 65535, and blocks take columns in turn.
fn tiles(n: u32, k: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(SCORE_ROWS), k.div_ceil(SCORE_COLS).clamp(1, 65535), 1),
        block_dim: (SCORE_THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Warps take entries in turn.
fn entries(n: u32, k: u32, waves: u32) -> LaunchConfig {
    let blocks = (u64::from(n) * u64::from(k)).div_ceil(u64::from(PAIRWISE_WARPS)).clamp(1, u64::from(waves));
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (PAIRWISE_WARPS * 32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_stay_within_what_a_device_takes() {
        assert_eq!(tiles(1, 1).grid_dim, (1, 1, 1));
        assert_eq!(tiles(SCORE_ROWS + 1, 2 * SCORE_COLS + 3).grid_dim, (2, 3, 1));
        assert_eq!(tiles(1, u32::MAX - 1).grid_dim.1, 65535);
        assert_eq!(entries(3, 5, 100).grid_dim, (15u32.div_ceil(PAIRWISE_WARPS), 1, 1));
        assert_eq!(entries(u32::MAX, u32::MAX, 100).grid_dim, (100, 1, 1));
    }
}
