//! Launch of kernels/distance.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Out;
use super::queue::Queue;
use super::rows::{Rows, lanes};
use super::shapes::{DISTANCE_EACH, DISTANCE_WARPS};
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// The rounded distance of the rows of `x`, which the block holds packed, to their codewords; rows that are not finite get the
/// sentinel and a NaN. `widened`: the block has them as f32.
#[allow(clippy::too_many_arguments)] // where it runs, the two sides, and where to
pub(super) fn distance(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &Block,
    x: &Rows<'_>,
    widened: bool,
    labels: &mut Out<'_, u32>,
    sq_distances: &mut Out<'_, f32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.n <= labels.len() && x.n <= sq_distances.len(), "check 2");
    let n = x.n as u32;
    let (z, z_stride, dtype) = x.stored(codebook, &block.wide, widened);
    let entry = match dtype {
        Dtype::F32 => "distance_f32",
        Dtype::F16 => "distance_f16",
        Dtype::Bf16 => "distance_bf16",
    };
    let config = config(n, codebook.d);
    let function = queue.context.function("distance", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&codebook.codewords).arg(&block.kinds).arg(labels).arg(sq_distances);
    launch.arg(&n).arg(&codebook.d).arg(&codebook.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; labels of finite rows are below k, the filter pass and what follows it wrote
    // them; those of other rows are written, and nothing is read by them.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// A lane for every four elements of a row, as far as a warp has them.
fn config(n: u32, d: u32) -> LaunchConfig {
    let rows = DISTANCE_WARPS * DISTANCE_EACH * 32 / lanes(d);
    LaunchConfig { grid_dim: (n.div_ceil(rows), 1, 1), block_dim: (DISTANCE_WARPS * 32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_lanes() {
        for (n, blocks) in [(1, 1), (16, 1), (17, 2)] {
            assert_eq!(config(n, 125).grid_dim, (blocks, 1, 1), "{n}");
        }
        for (d, rows) in [(1, 512), (4, 512), (5, 256), (16, 128), (17, 64), (64, 32), (65, 16), (1 << 26, 16)] {
            assert_eq!(config(1000 * rows, d).grid_dim.0, 1000, "{d}");
        }
    }
}
