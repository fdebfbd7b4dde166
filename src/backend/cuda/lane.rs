//! Rows that come from the host, in blocks that fit the card. Blocks take lanes in turn; each lane has a stream and
//! buffers of its own, so that the copies of one run beside the kernels of the other.

use super::codebook::DeviceCodebook;
use super::queue::Queue;
use super::shapes::SCORE_ROWS;
use crate::error::{Error, Result};
use crate::matrix::{Dtype, Element, MatrixView};
use rayon::prelude::*;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// Lanes of a call that has more than one block: one copies while the other computes.
const LANES: usize = 2;

/// Device memory of one lane's buffers beyond which longer blocks gain nothing.
const BLOCK_BYTES: usize = 64 << 20;

/// Device memory of a call's rows from which on they go in several blocks even if they fit at once: the first ones then
/// compute while the others are on their way.
const SPLIT_BYTES: usize = 16 << 20;

/// Bytes from which on several threads write the staging buffer: one alone is slower than the way to the device.
const STAGE_BYTES: usize = 1 << 20;

/// A card keeps the lanes of a call for the next one where they take no more than one part in so many of it.
const KEPT_PART: usize = 8;

/// A stream, what its kernels work on, and the rows that are under way.
pub(super) struct Lane<B> {
    pub queue: Queue,
    pub buffers: B,
    pending: Option<Range<usize>>,
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
struct Plan {
    pub rows: u32,
    pub lanes: usize,
}

impl Plan {
    /// The plan for `n` rows that take `row.bytes` of device memory each, in lanes that take `row.per_lane` more.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where not a single row fits what is free.
    fn new(op: &'static str, codebook: &DeviceCodebook, n: usize, row: RowSize) -> Result<Plan> {
        let (free, total) = codebook.context.memory(op)?;
        Plan::of(free, n, row.bytes, row.per_lane).ok_or_else(|| Error::Cuda {
            op,
            asked: format!("{} bytes of device memory for one vector and its results", row.bytes + row.per_lane),
            got: format!("{free} bytes of {total} that may be used"),
            way_out: "free memory on the device (nvidia-smi shows who holds it), raise the limit, or use the CPU",
            source: None,
        })
    }

    fn of(free: usize, n: usize, bytes_per_row: usize, bytes_per_lane: usize) -> Option<Plan> {
        // An eighth stays free: allocations are rounded up, and the driver needs some.
        let fits = |lanes: usize| {
            let bytes = ((free - free / 8) / lanes).saturating_sub(bytes_per_lane);
            bytes.min(BLOCK_BYTES.max(bytes_per_row)) / bytes_per_row.max(1)
        };
        if n <= fits(1) && n.saturating_mul(bytes_per_row) <= SPLIT_BYTES {
            return Some(Plan { rows: u32::try_from(n).ok()?.max(1), lanes: 1 });
        }
        let lanes = if fits(LANES) > 0 { LANES } else { 1 };
        let tile = SCORE_ROWS as usize;
        // Two blocks a lane, or more.
        let rows = match fits(lanes).min(n.div_ceil(2 * lanes).next_multiple_of(tile)) {
            0 => return None,
            rows if rows < tile => rows,
            rows => rows / tile * tile,
        };
        // BLOCK_BYTES bounds it, as a row has more than one byte.
        Some(Plan { rows: u32::try_from(rows).ok()?, lanes })
    }
}

/// What one row takes on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowSize {
    /// As it is stored.
    pub dtype: Dtype,
    /// With everything computed from it.
    pub bytes: usize,
    /// What a lane takes beside its rows.
    pub per_lane: usize,
}

/// The lanes of a call, made for its size or kept from one before.
pub(super) struct Lanes<B> {
    plan: Plan,
    row: RowSize,
    lanes: Vec<Lane<B>>,
}

impl<B> Lanes<B> {
    /// Lanes for `n` rows: those `kept`, where they serve, else new ones with the buffers that `buffers` makes for a
    /// number of rows.
    pub fn new(
        op: &'static str,
        codebook: &DeviceCodebook,
        kept: &Kept<B>,
        n: usize,
        row: RowSize,
        buffers: impl Fn(&Queue, u32) -> Result<B>,
    ) -> Result<Lanes<B>> {
        if let Some(lanes) = kept.take()
            && (lanes.row.dtype, lanes.row.bytes) == (row.dtype, row.bytes)
            && (n <= lanes.plan.rows as usize || lanes.plan.lanes == LANES)
        {
            return Ok(lanes);
        }
        // What other operations keep is free memory for this one, if it is short of it, and counts where a limit was set. If
        // not, operations that take turns would have each other's lanes made anew in every call.
        let (free, _) = codebook.context.memory(op)?;
        let of = |free| Plan::of(free, n, row.bytes, row.per_lane);
        if codebook.context.is_limited() || of(free) != of(usize::MAX) {
            codebook.idle.clear();
        }
        let plan = Plan::new(op, codebook, n, row)?;
        let lane = |_| {
            let queue = Queue::new(op, &codebook.context)?;
            let buffers = buffers(&queue, plan.rows)?;
            Ok(Lane { queue, buffers, pending: None })
        };
        Ok(Lanes { plan, row, lanes: (0..plan.lanes).map(lane).collect::<Result<_>>()? })
    }

    /// [`in_blocks`] of the rows that were planned for, or of fewer.
    pub fn run(
        &mut self,
        n: usize,
        submit: impl FnMut(&mut Lane<B>, Range<usize>) -> Result<()>,
        collect: impl FnMut(&mut Lane<B>, Range<usize>) -> Result<ControlFlow<usize>>,
    ) -> Result<ControlFlow<usize>> {
        in_blocks(&mut self.lanes, n, self.plan.rows as usize, submit, collect)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane<B>> {
        self.lanes.iter_mut()
    }

    /// Leaves the lanes, all of whose work is done, to the next call, if they are no burden to others.
    pub fn keep(self, op: &'static str, codebook: &DeviceCodebook, kept: &Kept<B>) -> Result<()> {
        let rows = self.row.bytes.saturating_mul(self.plan.rows as usize);
        let bytes = rows.saturating_add(self.row.per_lane).saturating_mul(self.plan.lanes);
        if bytes <= codebook.context.memory(op)?.1 / KEPT_PART {
            kept.put(self);
        }
        Ok(())
    }
}

/// Room for the lanes of one operation between calls.
pub(super) struct Kept<B>(Mutex<Option<Lanes<B>>>);

impl<B> Default for Kept<B> {
    fn default() -> Self {
        Kept(Mutex::new(None))
    }
}

impl<B> Kept<B> {
    fn take(&self) -> Option<Lanes<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, lanes: Lanes<B>) {
        // Where calls ran side by side, the last one's lanes stay.
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(lanes);
        drop(before);
    }

    pub fn clear(&self) {
        drop(self.take());
    }
}

/// Passes rows 0 to `n` through the lanes in blocks of `block`. `submit` queues the work of some rows; `collect` gets
/// the lane back, in ascending order of rows, when that work is done, and may break off with a row.
fn in_blocks<B>(
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
    let len = x.rows() * row;
    let copy = |(i, to): (usize, &mut [u8])| to.copy_from_slice(bytemuck::cast_slice(x.row(i)));
    if len < STAGE_BYTES {
        bytes[..len].chunks_exact_mut(row).enumerate().for_each(copy);
    } else {
        let rows_each = (STAGE_BYTES / 4 / row).max(1);
        bytes[..len].par_chunks_exact_mut(row).enumerate().with_min_len(rows_each).for_each(copy);
    }
    &bytes[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_that_fits_is_one_block_and_much_is_several() {
        assert_eq!(Plan::of(1 << 30, 1000, 2000, 0), Some(Plan { rows: 1000, lanes: 1 }));
        assert_eq!(Plan::of(1 << 30, 10_000, 2000, 0), Some(Plan { rows: 2560, lanes: 2 }));
        assert_eq!(Plan::of(1 << 30, 1, 2000, 0), Some(Plan { rows: 1, lanes: 1 }));
    }

    #[test]
    fn blocks_are_whole_tiles_and_leave_some_memory_free() {
        for (free, bytes_per_row) in [(64 << 20, 3000), (1 << 20, 3000), (80 << 30, 3000), (64 << 20, 100)] {
            let plan = Plan::of(free, 100_000_000, bytes_per_row, 0).unwrap();
            assert_eq!((plan.lanes, plan.rows % SCORE_ROWS), (LANES, 0), "{plan:?}");
            assert!(plan.rows as usize * plan.lanes * bytes_per_row <= free - free / 8, "{plan:?}");
        }
    }

    #[test]
    fn little_memory_makes_small_blocks_and_less_than_a_row_none() {
        assert_eq!(Plan::of(16_000, 100, 1000, 0), Some(Plan { rows: 7, lanes: 2 }));
        assert_eq!(Plan::of(1600, 100, 1000, 0), Some(Plan { rows: 1, lanes: 1 }));
        assert_eq!(Plan::of(1000, 100, 1000, 0), None);
        assert_eq!(Plan::of(0, 100, 1000, 0), None);
    }

    #[test]
    fn rows_longer_than_a_block_should_be_are_taken_one_by_one() {
        assert_eq!(Plan::of(80 << 30, 10, 1 << 30, 0), Some(Plan { rows: 1, lanes: 2 }));
    }

    #[test]
    fn what_a_lane_takes_once_is_no_room_for_rows() {
        assert_eq!(Plan::of(16_000, 100, 1000, 3000), Some(Plan { rows: 4, lanes: 2 }));
        assert_eq!(Plan::of(16_000, 100, 1000, 13_000), Some(Plan { rows: 1, lanes: 1 }));
        assert_eq!(Plan::of(16_000, 100, 1000, 14_000), None);
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
