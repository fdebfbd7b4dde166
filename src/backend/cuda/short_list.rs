//! Launch of kernels/short_list.cu, and what `assign_tensor_list_f16` of kernels/assign_tensor.cu leaves it.

use super::assign::Again;
use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::{SHORT_LIST, SHORT_LIST_WARPS};
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Blocks that a multiprocessor holds.
const BLOCKS: u32 = 4;

/// Of every open row, in the order of the block's `again`, the codewords that can be the nearest.
pub(super) struct ShortLists {
    /// `[capacity]`: the least score of such a codeword.
    pub thresholds: Buffer<f32>,
    /// `[capacity]`: how many there are.
    pub counts: Buffer<u32>,
    /// `[capacity, SHORT_LIST]`: the first that were found.
    pub positions: Buffer<u32>,
    /// The rows that are still open in the end.
    pub left: Again,
}

impl ShortLists {
    /// Bytes that one row takes.
    pub const BYTES_PER_ROW: usize = 4 + 4 + 4 * SHORT_LIST as usize + 4;

    pub fn new(queue: &Queue, capacity: u32) -> Result<ShortLists> {
        let rows = capacity as usize;
        Ok(ShortLists {
            thresholds: queue.alloc(rows)?,
            counts: queue.alloc(rows)?,
            positions: queue.alloc(rows * SHORT_LIST as usize)?,
            left: Again { rows: queue.alloc(rows)?, count: queue.alloc(1)? },
        })
    }

    /// Whether they have room for so many rows.
    pub fn hold(&self, rows: usize) -> bool {
        rows <= self.counts.read().len()
            && rows <= self.thresholds.read().len()
            && rows * SHORT_LIST as usize <= self.positions.read().len()
            && rows <= self.left.rows.read().len()
    }
}

/// Settles the rows of the block's `again` of which the lists leave one codeword that is nearest; the block's status
/// counts how. Then `again` are the others.
pub(super) fn short_list(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    lists: &mut ShortLists,
    x: &Rows<'_>,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.n <= labels.len() && lists.hold(x.n), "check 2");
    queue.zero(&mut lists.left.count.write())?;
    let (z, z_stride, dtype) = x.stored(codebook, &block.wide, false);
    let entry = match dtype {
        Dtype::F32 => "short_list_f32",
        Dtype::F16 => "short_list_f16",
        Dtype::Bf16 => "short_list_bf16",
    };
    let config = config(x.n as u32, queue.context.waves(BLOCKS));
    let function = queue.context.function("short_list", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&codebook.codewords).arg(&codebook.labels);
    launch.arg(&block.again.rows).arg(&block.again.count).arg(&lists.counts).arg(&lists.positions);
    launch.arg(labels).arg(&mut lists.left.rows).arg(&mut lists.left.count).arg(&mut block.status);
    launch.arg(&codebook.d).arg(&codebook.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; the rows of `again` are those that the filter pass listed, below n, and positions of lists
    // those of codewords.
    unsafe { queue.launch(entry, &mut launch, config) }?;
    std::mem::swap(&mut block.again, &mut lists.left);
    Ok(())
}

/// Warps take rows in turn: nobody on the host knows how many there are, and few are.
fn config(n: u32, waves: u32) -> LaunchConfig {
    let blocks = n.div_ceil(SHORT_LIST_WARPS).min(waves).max(1);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (SHORT_LIST_WARPS * 32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_warp_for_every_row_as_far_as_there_are_places() {
        assert_eq!(config(1, 528).grid_dim, (1, 1, 1));
        assert_eq!(config(17, 528).grid_dim, (3, 1, 1));
        assert_eq!(config(1_000_000, 528).grid_dim, (528, 1, 1));
    }
}
