//! Rows that come from the host, in blocks that fit the card. Blocks take lanes in turn; each lane has a stream and
//! buffers of its own, so that the copies of one run beside the kernels of the other.

use super::codebook::DeviceCodebook;
use super::queue::Queue;
use super::shapes::SCORE_ROWS;
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use std::ops::{ControlFlow, Range};

/// Lanes of a call that has more than one block: one copies while the other computes.
const LANES: usize = 2;

/// Device memory of one lane's buffers beyond which longer blocks gain nothing.
const BLOCK_BYTES: usize = 128 << 20;

/// A stream, what its kernels work on, and the rows that are under way.
pub(super) struct Lane<B> {
    pub queue: Queue,
    pub buffers: B,
    pending: Option<Range<usize>>,
}

impl<B> Lane<B> {
    pub fn new(queue: Queue, buffers: B) -> Self {
        Lane { queue, buffers, pending: None }
    }
}

impl<B> Drop for Lane<B> {
    fn drop(&mut self) {
        // Copies may still use the page-locked buffers, which are about to go. There is nobody to hand an error to; the
        // call that drops a busy lane returns the one that made it stop.
        let _ = self.queue.synchronize();
    }
}

/// How many rows a block has, and how many lanes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub rows: u32,
    pub lanes: usize,
}

impl Plan {
    /// The plan for `n` rows that take `bytes_per_row` of device memory each.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where not a single row fits what is free.
    pub fn new(op: &'static str, codebook: &DeviceCodebook, n: usize, bytes_per_row: usize) -> Result<Plan> {
        let (free, total) = codebook.context.memory(op)?;
        Plan::of(free, n, bytes_per_row).ok_or_else(|| Error::Cuda {
            op,
            asked: format!("{bytes_per_row} bytes of device memory for one vector and its results"),
            got: format!("{free} bytes free of {total}"),
            way_out: "free memory on the device (nvidia-smi shows who holds it), or use the CPU",
            source: None,
        })
    }

    fn of(free: usize, n: usize, bytes_per_row: usize) -> Option<Plan> {
        // An eighth stays free: allocations are rounded up, and the driver needs some.
        let fits =
            |lanes: usize| ((free - free / 8) / lanes).min(BLOCK_BYTES.max(bytes_per_row)) / bytes_per_row.max(1);
        if n <= fits(1) {
            return Some(Plan { rows: u32::try_from(n).ok()?.max(1), lanes: 1 });
        }
        let lanes = if fits(LANES) > 0 { LANES } else { 1 };
        let tile = SCORE_ROWS as usize;
        let rows = match fits(lanes) {
            0 => return None,
            rows if rows < tile => rows,
            rows => rows / tile * tile,
        };
        // BLOCK_BYTES bounds it, as a row has more than one byte.
        Some(Plan { rows: u32::try_from(rows).ok()?, lanes })
    }
}

/// Passes rows 0 to `n` through the lanes in blocks of `block`. `submit` queues the work of some rows; `collect` gets
/// the lane back, in ascending order of rows, when that work is done, and may break off with a row.
pub(super) fn in_blocks<B>(
    lanes: &mut [Lane<B>],
    n: usize,
    block: usize,
    mut submit: impl FnMut(&mut Lane<B>, Range<usize>) -> Result<()>,
    mut collect: impl FnMut(&mut Lane<B>, Range<usize>) -> Result<ControlFlow<usize>>,
) -> Result<ControlFlow<usize>> {
    let (blocks, count) = (n.div_ceil(block), lanes.len());
    // As many turns more as there are lanes, to collect what the last blocks made.
    for turn in 0..blocks + count {
        let lane = &mut lanes[turn % count];
        if let Some(rows) = lane.pending.take() {
            lane.queue.synchronize()?;
            if let ControlFlow::Break(row) = collect(lane, rows)? {
                return Ok(ControlFlow::Break(row));
            }
        }
        if turn < blocks {
            let rows = turn * block..n.min((turn + 1) * block);
            submit(lane, rows.clone())?;
            lane.pending = Some(rows);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Writes the rows without gaps into `bytes`, and returns those that it wrote.
pub(super) fn stage<'a, T: Element>(x: MatrixView<'_, T>, bytes: &'a mut [u8]) -> &'a [u8] {
    let row = x.cols() * size_of::<T>();
    for (i, to) in bytes.chunks_exact_mut(row).take(x.rows()).enumerate() {
        to.copy_from_slice(bytemuck::cast_slice(x.row(i)));
    }
    &bytes[..x.rows() * row]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_one_block() {
        assert_eq!(Plan::of(1 << 30, 1000, 2000), Some(Plan { rows: 1000, lanes: 1 }));
        assert_eq!(Plan::of(1 << 30, 1, 2000), Some(Plan { rows: 1, lanes: 1 }));
    }

    #[test]
    fn blocks_are_whole_tiles_and_leave_some_memory_free() {
        for (free, bytes_per_row) in [(64 << 20, 3000), (1 << 20, 3000), (80 << 30, 3000), (64 << 20, 100)] {
            let plan = Plan::of(free, 100_000_000, bytes_per_row).unwrap();
            assert_eq!((plan.lanes, plan.rows % SCORE_ROWS), (LANES, 0), "{plan:?}");
            assert!(plan.rows as usize * plan.lanes * bytes_per_row <= free - free / 8, "{plan:?}");
        }
    }

    #[test]
    fn little_memory_makes_small_blocks_and_less_than_a_row_none() {
        assert_eq!(Plan::of(16_000, 100, 1000), Some(Plan { rows: 7, lanes: 2 }));
        assert_eq!(Plan::of(1600, 100, 1000), Some(Plan { rows: 1, lanes: 1 }));
        assert_eq!(Plan::of(1000, 100, 1000), None);
        assert_eq!(Plan::of(0, 100, 1000), None);
    }

    #[test]
    fn rows_longer_than_a_block_should_be_are_taken_one_by_one() {
        assert_eq!(Plan::of(80 << 30, 10, 1 << 30), Some(Plan { rows: 1, lanes: 2 }));
    }

    #[test]
    fn staging_closes_the_gaps_between_rows() {
        let data = [1.0f32, 2.0, 9.0, 3.0, 4.0];
        let mut bytes = [0xffu8; 20];
        let staged = stage(MatrixView::with_stride(&data, 2, 2, 3).unwrap(), &mut bytes);
        let expected: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(staged, expected);
    }
}
