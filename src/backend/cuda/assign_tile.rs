//! Launch of kernels/assign_tile.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::gemm::Tile;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::shapes::{TILE_ROWS_EACH, TILE_WARPS};
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Joins a tile of cross terms to the state of its rows, `[rows]` of four words; the last run of columns settles them:
/// labels, and those that it cannot settle go to the block's `again`. Runs come in ascending order, from column 0 to m.
pub(super) fn assign_tile(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    tile: &Tile,
    fast: bool,
    state: &mut Buffer<u32>,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if tile.rows == 0 || tile.cols == 0 {
        return Ok(());
    }
    let (rows, last) = (tile.rows as usize, tile.first_row as usize + tile.rows as usize);
    assert!(rows * tile.stride as usize <= tile.cross.read().len() && 4 * rows <= state.read().len(), "check 2");
    assert!(last <= block.capacity as usize && last <= labels.len(), "check 2");
    assert!(tile.stride.is_multiple_of(4) && tile.first_col.is_multiple_of(4) && tile.cols <= tile.stride, "check 2");
    assert!(u64::from(tile.first_col) + u64::from(tile.cols) <= u64::from(codebook.m), "check 2");
    let (depth, fast, bounds) = (codebook.depth(), u32::from(fast), &codebook.bounds);
    let config = config(tile.rows);
    let function = queue.context.function("assign_tile", "assign_tile_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&tile.cross).arg(&block.packed).arg(&block.facts).arg(&block.kinds);
    launch.arg(&codebook.packed_bounds).arg(&codebook.packed_halves).arg(&codebook.labels);
    launch.arg(state).arg(labels).arg(&mut block.again.rows).arg(&mut block.again.count);
    launch.arg(&tile.first_row).arg(&tile.rows).arg(&tile.first_col).arg(&tile.cols).arg(&tile.stride);
    launch.arg(&codebook.m).arg(&depth).arg(&bounds.any_order.widening).arg(&bounds.unit);
    launch.arg(&bounds.any_order.tiny).arg(&fast);
    // SAFETY: checks 1 to 4; the state of a row was written by the launch of the run of columns before.
    unsafe { queue.launch("assign_tile_f32", &mut launch, config) }
}

/// A warp per TILE_ROWS_EACH rows.
fn config(rows: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (rows.div_ceil(TILE_WARPS * TILE_ROWS_EACH), 1, 1),
        block_dim: (TILE_WARPS * 32, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_warp() {
        let rows = TILE_WARPS * TILE_ROWS_EACH;
        for (n, blocks) in [(1, 1), (rows, 1), (rows + 1, 2), (3 * rows - 1, 3)] {
            assert_eq!(config(n).grid_dim, (blocks, 1, 1), "{n}");
        }
    }
}
