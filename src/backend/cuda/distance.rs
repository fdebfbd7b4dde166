//! Launch of kernels/distance.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Out;
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::DISTANCE_WARPS;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// The rounded distance of the rows of `x`, which the block holds packed, to their codewords; rows that are not finite get the
/// sentinel and a NaN.
pub(super) fn distance(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &Block,
    x: &Rows<'_>,
    labels: &mut Out<'_, u32>,
    sq_distances: &mut Out<'_, f32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.n <= labels.len() && x.n <= sq_distances.len(), "check 2");
    let n = x.n as u32;
    let (z, z_stride) = x.as_f32(codebook, &block.wide);
    let config = config(n);
    let function = queue.context.function("distance", "distance_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&codebook.codewords).arg(&block.kinds).arg(labels).arg(sq_distances);
    launch.arg(&n).arg(&codebook.d).arg(&codebook.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; the labels of finite rows come from assign.cu and look.cu.
    unsafe { queue.launch("distance_f32", &mut launch, config) }
}

/// A warp per row.
fn config(n: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(DISTANCE_WARPS), 1, 1),
        block_dim: (DISTANCE_WARPS * 32, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_warp() {
        for (n, blocks) in [(1, 1), (DISTANCE_WARPS, 1), (DISTANCE_WARPS + 1, 2)] {
            assert_eq!(config(n).grid_dim, (blocks, 1, 1), "{n}");
        }
    }
}
