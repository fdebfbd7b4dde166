//! Launches of kernels/assign_tensor.cu, and of kernels/assign_tensor_sm90a.cu on compute capability 9.0.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::context::Context;
use super::memory::{Buffer, Out};
use super::ptx::Arch;
use super::queue::Queue;
use super::rows_tensor::{TensorCodewords, halves_len, width};
use super::shapes::{TENSOR_COLS, TENSOR_ROWS, TENSOR_THREADS, WGMMA_ROWS, WGMMA_SHARED, WGMMA_THREADS};
use super::short_list::ShortLists;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Blocks that a multiprocessor holds, of both passes of assign_tensor.cu.
const TENSOR_BLOCKS: u32 = 2;

/// The blocks of the design of `assign_tensor_f16` that a device gets.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    rows: u32,
    threads: u32,
    shared: u32,
    per_multiprocessor: u32,
    /// Whether a block takes one tile of rows after the other.
    in_turn: bool,
}

impl Blocks {
    const COMPUTE_80: Blocks = Blocks {
        rows: TENSOR_ROWS,
        threads: TENSOR_THREADS,
        shared: 0,
        per_multiprocessor: TENSOR_BLOCKS,
        in_turn: false,
    };
    const COMPUTE_90A: Blocks =
        Blocks { rows: WGMMA_ROWS, threads: WGMMA_THREADS, shared: WGMMA_SHARED, per_multiprocessor: 1, in_turn: true };

    fn of(context: &Context) -> Result<Blocks> {
        Ok(match context.arch("assign_tensor")? {
            Arch::Compute80 => Blocks::COMPUTE_80,
            Arch::Compute90a => Blocks::COMPUTE_90A,
        })
    }

    /// A block of threads per tile of rows, or as many as there are places where blocks take tiles in turn; and the
    /// codewords in as many parts as leave no place idle.
    fn config(self, n: u32, m: u32, multiprocessors: u32) -> LaunchConfig {
        let places = multiprocessors.saturating_mul(self.per_multiprocessor);
        let (rows, cols) = (n.div_ceil(self.rows), m.div_ceil(TENSOR_COLS));
        let run = cols.div_ceil((places / rows).clamp(1, cols));
        LaunchConfig {
            grid_dim: (if self.in_turn { rows.min(places) } else { rows }, cols.div_ceil(run), 1),
            block_dim: (self.threads, 1, 1),
            shared_mem_bytes: self.shared,
        }
    }

    /// Words of the parts of up to `n` rows.
    fn parts_len(self, n: usize, m: u32, multiprocessors: u32) -> usize {
        let tiles = m.div_ceil(TENSOR_COLS) as usize;
        let rows = multiprocessors as usize * (self.per_multiprocessor * self.rows) as usize;
        if tiles == 1 { 0 } else { 4 * n.saturating_mul(tiles).min(rows) }
    }
}

/// Labels of the first `n` rows of `halves`, packed by `rows_tensor`; those that the filter pass cannot settle go to the
/// block's `again`, whose count is zero before, and their thresholds to `lists`. `parts` has [`parts_len`] words for these
/// sizes, or more.
#[allow(clippy::too_many_arguments)]
pub(super) fn assign_tensor(
    queue: &Queue,
    codebook: &DeviceCodebook,
    codewords: &TensorCodewords,
    block: &mut Block,
    halves: &Buffer<u16>,
    n: u32,
    fast: bool,
    parts: &mut Buffer<u32>,
    lists: &mut ShortLists,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let (rows, width) = (n as usize, width(codebook.d));
    let blocks = Blocks::of(&queue.context)?;
    let config = blocks.config(n, codebook.m, queue.context.waves(1));
    let splits = config.grid_dim.1;
    assert!(n <= block.capacity && rows <= labels.len() && halves_len(rows, width) <= halves.read().len(), "check 2");
    assert!(codewords.hold(codebook.m, width), "check 2");
    assert!(lists.hold(rows), "check 2");
    assert!(splits == 1 || 4 * splits as usize * rows <= parts.read().len(), "check 2");
    // Three roundings of the score in place of one.
    let (unit, tiny, fast) = (4.0 * codebook.bounds.unit, codebook.bounds.any_order.tiny, u32::from(fast));
    let function = queue.context.function("assign_tensor", "assign_tensor_f16")?;
    if blocks.shared > 0 {
        queue.allow_shared(&function, "assign_tensor_f16", blocks.shared)?;
    }
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(halves).arg(&block.facts).arg(&block.kinds).arg(&codewords.halves);
    launch.arg(&codewords.lengths).arg(&codewords.bounds).arg(&codewords.half_sq_norms).arg(&codebook.labels);
    launch.arg(&mut *labels).arg(&mut block.again.rows).arg(&mut block.again.count);
    launch.arg(&mut lists.thresholds).arg(&mut lists.counts).arg(&mut *parts);
    launch.arg(&n).arg(&codebook.m).arg(&width).arg(&unit).arg(&tiny).arg(&fast);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("assign_tensor_f16", &mut launch, config) }?;
    if splits == 1 {
        return Ok(());
    }

    let function = queue.context.function("assign_tensor", "assign_tensor_merge_f16")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&*parts).arg(&block.facts).arg(&block.kinds);
    launch.arg(&codewords.lengths).arg(&codewords.bounds).arg(&codewords.half_sq_norms).arg(&codebook.labels);
    launch.arg(labels).arg(&mut block.again.rows).arg(&mut block.again.count);
    launch.arg(&mut lists.thresholds).arg(&mut lists.counts);
    launch.arg(&splits).arg(&n).arg(&codebook.m).arg(&unit).arg(&tiny).arg(&fast);
    // SAFETY: checks 1 to 4; the launch above wrote `splits` parts of every row.
    unsafe { queue.launch("assign_tensor_merge_f16", &mut launch, merge_config(n)) }
}

/// Lists the codewords that can be the nearest of the rows that `assign_tensor` left open, of the first `n`.
pub(super) fn list_tensor(
    queue: &Queue,
    codebook: &DeviceCodebook,
    codewords: &TensorCodewords,
    block: &Block,
    halves: &Buffer<u16>,
    n: u32,
    lists: &mut ShortLists,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let width = width(codebook.d);
    assert!(halves_len(n as usize, width) <= halves.read().len() && lists.hold(n as usize), "check 2");
    assert!(codewords.hold(codebook.m, width), "check 2");
    let config = list_config(n, codebook.m, queue.context.waves(TENSOR_BLOCKS));
    let function = queue.context.function("assign_tensor", "assign_tensor_list_f16")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(halves).arg(&block.facts).arg(&codewords.halves);
    launch.arg(&codewords.lengths).arg(&codewords.bounds).arg(&codewords.half_sq_norms);
    launch.arg(&block.again.rows).arg(&block.again.count).arg(&lists.thresholds).arg(&mut lists.counts);
    launch.arg(&mut lists.positions).arg(&codebook.m).arg(&width);
    // SAFETY: checks 1 to 4; the rows of `again` are those that `assign_tensor` listed, below n.
    unsafe { queue.launch("assign_tensor_list_f16", &mut launch, config) }
}

/// Words of the parts of up to `n` rows on this device.
pub(super) fn parts_len(context: &Context, n: usize, m: u32) -> Result<usize> {
    Ok(Blocks::of(context)?.parts_len(n, m, context.waves(1)))
}

/// Blocks take tiles in turn: nobody on the host knows how many rows are open.
fn list_config(n: u32, m: u32, places: u32) -> LaunchConfig {
    let tiles = u64::from(n.div_ceil(TENSOR_ROWS)) * u64::from(m.div_ceil(TENSOR_COLS));
    // Not above `places`.
    let blocks = tiles.clamp(1, u64::from(places.max(1))) as u32;
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (TENSOR_THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A thread per row.
fn merge_config(n: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(TENSOR_THREADS), 1, 1),
        block_dim: (TENSOR_THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_rows_have_blocks_as_far_as_there_are_places_or_tiles() {
        assert_eq!(list_config(1, 1, 264).grid_dim, (1, 1, 1));
        assert_eq!(list_config(129, 257, 264).grid_dim, (6, 1, 1));
        assert_eq!(list_config(u32::MAX, u32::MAX, 264).grid_dim, (264, 1, 1));
    }

    #[test]
    fn every_row_has_a_tile_and_every_block_some_codewords_and_room_for_its_part() {
        for (blocks, places) in [(Blocks::COMPUTE_80, 216), (Blocks::COMPUTE_90A, 108)] {
            for m in [1, 128, 129, 1000, 70_000, u32::MAX / 128 * 128] {
                for n in [1, 127, 128, 129, 256, 257, 5000, 1_000_000] {
                    let (rows, splits, _) = blocks.config(n, m, 108).grid_dim;
                    let tiles = m.div_ceil(TENSOR_COLS);
                    assert!((rows - 1) * blocks.rows < n, "{n} x {m}");
                    assert!(rows * blocks.rows >= n || blocks.in_turn && rows == places, "{n} x {m}");
                    // As the kernel computes its run of tiles from the grid.
                    assert!(
                        u64::from((tiles - 1) / splits + 1) * u64::from(splits - 1) < u64::from(tiles),
                        "{n} x {m}"
                    );
                    assert!(splits == 1 || rows * splits <= places, "{n} x {m}: {rows} x {splits}");
                    // A plan is made for whole tiles of rows.
                    let room = blocks.parts_len((n as usize).next_multiple_of(TENSOR_ROWS as usize), m, 108);
                    assert!(splits == 1 || 4 * splits as usize * n as usize <= room, "{n} x {m}: {splits}");
                }
            }
        }
    }
}
