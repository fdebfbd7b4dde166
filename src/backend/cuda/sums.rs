//! Sums by label of rows on the device: some at a time are sorted by label and added up.

use super::accumulate::{Segments, SumsOut, accumulate};
use super::label_order::LabelOrder;
use super::memory::{In, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::ACCUMULATE_LONG;
use crate::error::Result;
use crate::metrics::block_rows;

/// Rows that are added up at once, at most.
const CHUNK_ROWS: usize = 1 << 20;

/// Their elements, at most.
const CHUNK_ELEMENTS: usize = 1 << 28;

/// Rows of `d` components that are added up at once: whole blocks, the sums of which go on where those before ended.
fn chunk_rows(d: usize) -> usize {
    let per_block = block_rows(d) as usize;
    (CHUNK_ROWS.min(CHUNK_ELEMENTS / d.max(1)) / per_block).max(1) * per_block
}

/// Room to sort rows by label and to add them up, kept from call to call.
#[derive(Default)]
pub(super) struct Sorter(Option<(LabelOrder, Segments)>);

impl Sorter {
    /// Adds the rows of `x`, of `d` components and fewer than 2^32, of which the first begins a block, to the sums of their
    /// labels, below `k`. `bad` is lowered to what tells the first label that is neither that nor the sentinel. A sorter
    /// serves one `d`.
    #[allow(clippy::too_many_arguments)] // where it runs, what comes in, its sizes, and where to
    pub fn accumulate(
        &mut self,
        queue: &Queue,
        x: &Rows<'_>,
        labels: &In<'_, u32>,
        weights: Option<In<'_, f32>>,
        (k, d): (u32, u32),
        to: &mut SumsOut<'_>,
        bad: &mut Out<'_, u64>,
    ) -> Result<()> {
        let chunk = chunk_rows(d as usize);
        // At most CHUNK_ROWS: a block has fewer.
        let rows = x.n.min(chunk) as u32;
        let (order, segments) = match &mut self.0 {
            Some(kept) if kept.0.k == k && kept.0.capacity >= rows => kept,
            kept => kept.insert((LabelOrder::new(queue, rows, k)?, Segments::new(queue, rows, d)?)),
        };
        for start in (0..x.n).step_by(chunk) {
            let rows = x.block(start..x.n.min(start + chunk));
            let (labels, weights) = (labels.from(start), weights.map(|weights| weights.from(start)));
            order.sort(queue, &labels, start as u64, rows.n as u32, bad)?;
            accumulate(queue, &rows, &labels, weights, order, segments, to)?;
        }
        Ok(())
    }

    /// Bytes of device memory that `n` rows of `d` components with `k` labels take, about.
    pub fn bytes(n: usize, k: usize, d: usize) -> usize {
        let rows = n.min(chunk_rows(d));
        // Two orders, counts by tile, ends; the parts of long segments.
        rows * 13 + rows.div_ceil(ACCUMULATE_LONG as usize).saturating_mul(8 * (d + 1)) + k.saturating_mul(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_up_in_whole_blocks() {
        for d in [1, 3, 128, 1000, 1 << 18, 1 << 26] {
            let (chunk, block) = (chunk_rows(d), block_rows(d) as usize);
            assert!(chunk.is_multiple_of(block) && (block..=CHUNK_ROWS).contains(&chunk), "{d}: {chunk} of {block}");
            assert!(chunk * d <= CHUNK_ELEMENTS, "{d}: {chunk}");
        }
    }
}
