//! Launch of kernels/distance.cu.

use super::codebook::DeviceCodebook;
use super::queue::Queue;
use super::rows::RowBlock;
use super::shapes::DISTANCE_WARPS;
use crate::error::Result;
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

/// The rounded distance of the first `n` rows of the block to their codewords; rows that are not finite get the
/// sentinel and a NaN.
pub(super) fn distance(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &RowBlock,
    n: u32,
    labels: &mut CudaSlice<u32>,
    sq_distances: &mut CudaSlice<f32>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let rows = n as usize;
    assert!(n <= block.capacity && rows <= labels.len() && rows <= sq_distances.len(), "check 2");
    let config = config(n);
    let function = queue.context.function("distance", "distance_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(block.as_f32()).arg(&codebook.codewords).arg(&block.kinds).arg(labels).arg(sq_distances);
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
