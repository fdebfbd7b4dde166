//! Launch of kernels/distance.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Out;
use super::queue::Queue;
use super::rows::{Rows, lanes};
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
    let config = config(n, codebook.d);
    let function = queue.context.function("distance", "distance_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&codebook.codewords).arg(&block.kinds).arg(labels).arg(sq_distances);
    launch.arg(&n).arg(&codebook.d).arg(&codebook.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; the labels of finite rows come from assign.cu and look.cu.
    unsafe { queue.launch("distance_f32", &mut launch, config) }
}

/// A lane for every four elements of a row, as far as a warp has them.
fn config(n: u32, d: u32) -> LaunchConfig {
    let rows = DISTANCE_WARPS * 32 / lanes(d);
    LaunchConfig { grid_dim: (n.div_ceil(rows), 1, 1), block_dim: (DISTANCE_WARPS * 32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_lanes() {
        for (n, blocks) in [(1, 1), (DISTANCE_WARPS, 1), (DISTANCE_WARPS + 1, 2)] {
            assert_eq!(config(n, 125).grid_dim, (blocks, 1, 1), "{n}");
        }
        for (d, rows) in [(1, 256), (4, 256), (5, 128), (16, 64), (17, 32), (64, 16), (65, 8), (1 << 26, 8)] {
            assert_eq!(config(1000 * rows, d).grid_dim.0, 1000, "{d}");
        }
    }
}
