//! Launches of kernels/label_order.cu, in their order, and what they work on.

use super::memory::{Buffer, In, Out};
use super::queue::Queue;
use super::shapes::{ORDER_DIGIT_BITS, ORDER_THREADS, ORDER_TILE};
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Rows in the order of their labels, and room to make it. Lengths are those in the header of kernels/label_order.cu:
/// check 2 of every launch here.
pub(super) struct LabelOrder {
    /// Rows at most.
    pub capacity: u32,
    /// Labels are below it.
    pub k: u32,
    /// `[k + 1]`: where the rows of each label begin, and where the last ones end.
    pub starts: Buffer<u32>,
    order: Buffer<u32>,
    other: Buffer<u32>,
    counts: Buffer<u32>,
    totals: Buffer<u32>,
}

impl LabelOrder {
    /// Room for up to `capacity` rows, fewer than 2^32 - 1, with labels below `k`, at least 1.
    pub fn new(queue: &Queue, capacity: u32, k: u32) -> Result<LabelOrder> {
        let (rows, tiles) = (capacity as usize, tiles(capacity) as usize);
        Ok(LabelOrder {
            capacity,
            k,
            starts: queue.alloc(k as usize + 1)?,
            order: queue.alloc(rows)?,
            other: queue.alloc(rows)?,
            counts: queue.alloc((tiles << ORDER_DIGIT_BITS).max(1))?,
            totals: queue.alloc(1 << ORDER_DIGIT_BITS)?,
        })
    }

    /// The rows, those of one label side by side and ascending: those of label j from `starts[j]` on.
    pub fn order(&self) -> In<'_, u32> {
        self.order.read()
    }

    /// Puts the first `n` rows in the order of their labels. `bad` is lowered to what tells the first label that is
    /// neither below k nor the sentinel: its position, of which the first is `first`, times 2^32, plus the label.
    pub fn sort(
        &mut self,
        queue: &Queue,
        labels: &In<'_, u32>,
        first: u64,
        n: u32,
        bad: &mut Out<'_, u64>,
    ) -> Result<()> {
        assert!(n <= self.capacity && n as usize <= labels.len() && bad.len() > 0, "check 2");
        for shift in shifts(self.k) {
            self.pass(queue, labels, first, n, shift, bad)?;
            std::mem::swap(&mut self.order, &mut self.other);
        }
        let config = config((u64::from(self.k) + 1).div_ceil(ORDER_THREADS.into()) as u32);
        let function = queue.context.function("label_order", "label_order_starts_u32")?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(labels).arg(&self.order).arg(&mut self.starts).arg(&n).arg(&self.k);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("label_order_starts_u32", &mut launch, config) }
    }

    /// Sorts `order` by the digit at `shift` into `other`.
    fn pass(
        &mut self,
        queue: &Queue,
        labels: &In<'_, u32>,
        first: u64,
        n: u32,
        shift: u32,
        bad: &mut Out<'_, u64>,
    ) -> Result<()> {
        // No row at all places: NO_ROW of the kernels.
        queue.fill(&mut self.other.write().first(n as usize), 0xff)?;
        let (tiles, k) = (tiles(n), self.k);
        if n == 0 {
            return Ok(());
        }
        let function = queue.context.function("label_order", "label_order_count_u32")?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(labels).arg(&self.order).arg(&mut self.counts).arg(bad);
        launch.arg(&first).arg(&n).arg(&k).arg(&tiles).arg(&shift);
        // SAFETY: checks 1 to 4; the kernel checks the labels itself.
        unsafe { queue.launch("label_order_count_u32", &mut launch, config(tiles)) }?;

        let function = queue.context.function("label_order", "label_order_scan_u32")?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(&mut self.counts).arg(&mut self.totals).arg(&tiles);
        // SAFETY: checks 1 to 3.
        unsafe { queue.launch("label_order_scan_u32", &mut launch, config(1 << ORDER_DIGIT_BITS)) }?;

        let function = queue.context.function("label_order", "label_order_scatter_u32")?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(labels).arg(&self.order).arg(&self.counts).arg(&self.totals).arg(&mut self.other);
        launch.arg(&n).arg(&k).arg(&tiles).arg(&shift);
        // SAFETY: checks 1 to 4: places follow from the counts of the same labels.
        unsafe { queue.launch("label_order_scatter_u32", &mut launch, config(tiles)) }
    }
}

/// Blocks of rows.
fn tiles(n: u32) -> u32 {
    n.div_ceil(ORDER_TILE)
}

/// Where the digits of labels below `k` are, the lowest first: one at least.
fn shifts(k: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).step_by(ORDER_DIGIT_BITS as usize).take_while(move |&shift| shift == 0 || (k - 1) >> shift > 0)
}

fn config(blocks: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (ORDER_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_digit_for_every_eight_bits() {
        for (k, passes) in [(1, 1), (2, 1), (256, 1), (257, 2), (65536, 2), (65537, 3), (u32::MAX - 1, 4)] {
            assert_eq!(shifts(k).collect::<Vec<_>>(), [0, 8, 16, 24][..passes], "{k}");
        }
    }

    #[test]
    fn the_last_tile_may_be_partly_empty_but_none_is_missing() {
        for (n, expected) in [(0, 0), (1, 1), (ORDER_TILE, 1), (ORDER_TILE + 1, 2)] {
            assert_eq!(tiles(n), expected, "{n}");
        }
    }
}
