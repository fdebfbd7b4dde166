//! Launches of kernels/assign.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::shapes::{SCORE_COLS, SCORE_ROWS};
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Threads of a block of the score tile.
pub(super) const SCORE_THREADS: u32 = 256;

/// Blocks of the score tile that a multiprocessor holds.
pub(super) const SCORE_BLOCKS: u32 = 2;

/// The rows that the filter pass leaves open.
pub(super) struct Again {
    /// `[capacity]`.
    pub rows: Buffer<u32>,
    /// One number.
    pub count: Buffer<u32>,
}

/// Labels of the first `n` rows of a packed block; those that the filter pass cannot settle go to the block's `again`,
/// whose count is zero before. `parts` has [`parts_len`] words for these sizes, or more.
pub(super) fn assign(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    n: u32,
    fast: bool,
    parts: &mut Buffer<u32>,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let rows = n as usize;
    let config = config(n, codebook.m, queue.context.waves(SCORE_BLOCKS));
    let splits = config.grid_dim.1;
    assert!(n <= block.capacity && rows <= labels.len(), "check 2");
    assert!(splits == 1 || 4 * splits as usize * rows <= parts.read().len(), "check 2");
    let (depth, fast, bounds) = (codebook.depth(), u32::from(fast), &codebook.bounds);
    let function = queue.context.function("assign", "assign_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&block.packed).arg(&block.facts).arg(&block.kinds).arg(&codebook.packed);
    launch.arg(&codebook.packed_bounds).arg(&codebook.packed_halves).arg(&codebook.labels);
    launch.arg(&mut *labels).arg(&mut block.again.rows).arg(&mut block.again.count).arg(&mut *parts);
    launch.arg(&n).arg(&codebook.m).arg(&depth).arg(&bounds.unit).arg(&bounds.tiny).arg(&fast);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("assign_f32", &mut launch, config) }?;
    if splits == 1 {
        return Ok(());
    }

    let function = queue.context.function("assign", "assign_merge_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&*parts).arg(&block.facts).arg(&block.kinds);
    launch.arg(&codebook.packed_bounds).arg(&codebook.packed_halves).arg(&codebook.labels);
    launch.arg(labels).arg(&mut block.again.rows).arg(&mut block.again.count);
    launch.arg(&splits).arg(&n).arg(&codebook.m).arg(&bounds.unit).arg(&bounds.tiny).arg(&fast);
    // SAFETY: checks 1 to 4; the launch above wrote `splits` parts of every row.
    unsafe { queue.launch("assign_merge_f32", &mut launch, merge_config(n)) }
}

/// Words of the parts of up to `n` rows, where the device holds `places` blocks.
pub(super) fn parts_len(n: usize, m: u32, places: u32) -> usize {
    let tiles = m.div_ceil(SCORE_COLS) as usize;
    if tiles == 1 { 0 } else { 4 * n.saturating_mul(tiles).min(places as usize * SCORE_ROWS as usize) }
}

/// A block of threads per tile of rows, and the codewords in as many parts as leave no place idle.
fn config(n: u32, m: u32, places: u32) -> LaunchConfig {
    let (rows, cols) = (n.div_ceil(SCORE_ROWS), m.div_ceil(SCORE_COLS));
    let run = cols.div_ceil((places / rows).clamp(1, cols));
    LaunchConfig { grid_dim: (rows, cols.div_ceil(run), 1), block_dim: (SCORE_THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A thread per row.
fn merge_config(n: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.div_ceil(SCORE_THREADS), 1, 1), block_dim: (SCORE_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::filter;
    use crate::backend::cuda::shapes::SCORE_CHUNK;

    #[test]
    fn every_row_has_a_tile_and_every_codeword_a_part() {
        for (n, blocks) in [(1, 1), (SCORE_ROWS, 1), (SCORE_ROWS + 1, 2), (2 * SCORE_ROWS + 3, 3)] {
            assert_eq!(config(n, 1, 264).grid_dim, (blocks, 1, 1), "{n}");
        }
        for (n, m, places) in [(1, 100_000, 264), (5000, 1024, 216), (128 * 200, 70_000, 264), (1, u32::MAX - 1, 264)] {
            let (rows, splits, _) = config(n, m, places).grid_dim;
            let tiles = m.div_ceil(SCORE_COLS);
            // No block without a tile: the kernel gives each as many as it computes from the grid.
            assert!(tiles.div_ceil(splits) * (splits - 1) < tiles, "{n} x {m}: {splits}");
            assert!(splits == 1 || rows * splits <= places, "{n} x {m}: {rows} x {splits}");
        }
        assert_eq!(config(128 * 132, 4096, 264).grid_dim, (132, 2, 1));
        assert_eq!(config(128 * 264, 4096, 264).grid_dim, (264, 1, 1));
    }

    #[test]
    fn the_parts_of_every_block_have_room() {
        for m in [1, 128, 129, 5000, 100_000] {
            for capacity in [1, 127, 1000, 20_000, 70_000] {
                let room = parts_len(capacity as usize, m, 264);
                for n in [1, capacity / 7 + 1, capacity / 2 + 1, capacity] {
                    let splits = config(n, m, 264).grid_dim.1 as usize;
                    assert!(splits == 1 || 4 * splits * n as usize <= room, "{n} of {capacity} x {m}: {splits}");
                }
            }
        }
    }

    #[test]
    fn the_kernel_rounds_no_more_often_than_the_bounds_of_the_codebook_assume() {
        assert_eq!(SCORE_CHUNK as usize, filter::CHUNK);
    }
}
