//! Launches of kernels/accumulate.cu.

use super::label_order::LabelOrder;
use super::memory::{Buffer, In, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::{ACCUMULATE_LONG, ACCUMULATE_THREADS};
use crate::error::Result;
use crate::matrix::Dtype;
use crate::metrics::block_rows;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Sums by label that launches add to: what [`crate::Sums`] is in host memory.
pub(super) struct SumsOut<'a> {
    /// `[k]`.
    pub counts: Out<'a, u64>,
    /// `[k]`.
    pub totals: Out<'a, f64>,
    /// `[k, d]`.
    pub sums: Out<'a, f64>,
}

impl SumsOut<'_> {
    /// Sets all to zero.
    pub fn clear(&mut self, queue: &Queue) -> Result<()> {
        queue.zero(&mut self.counts)?;
        queue.zero(&mut self.totals)?;
        queue.zero(&mut self.sums)
    }
}

/// What long segments add up to.
pub(super) struct Segments {
    d: u32,
    /// `[capacity]`.
    ends: Buffer<u32>,
    /// `[ceil(capacity / ACCUMULATE_LONG)]`.
    weights: Buffer<f64>,
    /// `[ceil(capacity / ACCUMULATE_LONG), d]`.
    parts: Buffer<f64>,
}

impl Segments {
    /// Room for up to `capacity` rows of `d` components.
    pub fn new(queue: &Queue, capacity: u32, d: u32) -> Result<Segments> {
        // Blocks of few rows have no long segments.
        let slots = if may_be_long(d) { slots(capacity) as usize } else { 0 };
        Ok(Segments {
            d,
            ends: queue.alloc(capacity as usize)?,
            weights: queue.alloc(slots)?,
            parts: queue.alloc(slots * d as usize)?,
        })
    }
}

/// Adds the rows of `x`, of which the first begins a block, to the sums of their labels, by which `order` has sorted them;
/// `segments` have room for so many.
pub(super) fn accumulate(
    queue: &Queue,
    x: &Rows<'_>,
    labels: &In<'_, u32>,
    weights: Option<In<'_, f32>>,
    order: &LabelOrder,
    segments: &mut Segments,
    to: &mut SumsOut<'_>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    let (k, d) = (order.k, segments.d);
    assert!(x.hold(d as usize) && x.n <= order.capacity as usize && x.n <= segments.ends.read().len(), "check 2");
    assert!(x.n <= labels.len() && weights.is_none_or(|weights| x.n <= weights.len()), "check 2");
    assert!(to.counts.len() >= k as usize && to.totals.len() >= k as usize, "check 2");
    assert!(to.sums.len() as u64 >= u64::from(k) * u64::from(d), "check 2");
    // At most the capacity.
    let (n, stride, block_rows, order_in) = (x.n as u32, x.stride as u64, block_rows(d as usize), order.order());
    let (long_entry, entry) = entries(x.dtype, weights.is_some());

    queue.zero(&mut segments.ends.write().first(x.n))?;
    if may_be_long(d) {
        let function = queue.context.function("accumulate", long_entry)?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(&x.values).arg(&stride);
        if let Some(weights) = &weights {
            launch.arg(weights);
        }
        launch.arg(labels).arg(&order_in).arg(&mut segments.ends);
        if weights.is_some() {
            launch.arg(&mut segments.weights);
        }
        launch.arg(&mut segments.parts).arg(&n).arg(&d).arg(&block_rows);
        // SAFETY: checks 1 to 4: the order was written by the launches of `label_order` for these labels.
        unsafe { queue.launch(long_entry, &mut launch, config(slots(n), d, ACCUMULATE_THREADS)) }?;
    }

    let function = queue.context.function("accumulate", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride);
    if let Some(weights) = &weights {
        launch.arg(weights);
    }
    launch.arg(&order_in).arg(&order.starts).arg(&segments.ends);
    if weights.is_some() {
        launch.arg(&segments.weights);
    }
    launch.arg(&segments.parts).arg(&mut to.counts).arg(&mut to.totals).arg(&mut to.sums);
    launch.arg(&k).arg(&d).arg(&block_rows);
    // SAFETY: checks 1 to 4: order and starts were written by the launches of `label_order`, ends by the one above.
    unsafe { queue.launch(entry, &mut launch, config(k, d, ACCUMULATE_THREADS)) }
}

/// Whether a block has rows enough for a long segment.
fn may_be_long(d: u32) -> bool {
    block_rows(d as usize) >= ACCUMULATE_LONG
}

/// How many long segments `n` rows can have.
fn slots(n: u32) -> u32 {
    n.div_ceil(ACCUMULATE_LONG)
}

/// Of long segments, and of codewords.
fn entries(dtype: Dtype, weighted: bool) -> (&'static str, &'static str) {
    match (dtype, weighted) {
        (Dtype::F32, false) => ("accumulate_segments_f32", "accumulate_f32"),
        (Dtype::F16, false) => ("accumulate_segments_f16", "accumulate_f16"),
        (Dtype::Bf16, false) => ("accumulate_segments_bf16", "accumulate_bf16"),
        (Dtype::F32, true) => ("accumulate_segments_weighted_f32", "accumulate_weighted_f32"),
        (Dtype::F16, true) => ("accumulate_segments_weighted_f16", "accumulate_weighted_f16"),
        (Dtype::Bf16, true) => ("accumulate_segments_weighted_bf16", "accumulate_weighted_bf16"),
    }
}

/// A thread per component of each of `count` rows; short ones share a block.
pub(super) fn config(count: u32, d: u32, threads: u32) -> LaunchConfig {
    let each = threads / d.clamp(1, threads).next_power_of_two();
    // The extents of a grid end at 2^31 - 1 and 65535; what lies beyond is taken in turn.
    let grid_dim = (count.div_ceil(each).min(i32::MAX as u32), d.div_ceil(threads).clamp(1, 65535), 1);
    LaunchConfig { grid_dim, block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_a_thread_and_short_rows_share_a_block() {
        assert_eq!(config(129, 1, 128).grid_dim, (2, 1, 1));
        assert_eq!(config(5, 64, 128).grid_dim, (3, 1, 1));
        assert_eq!(config(5, 65, 128).grid_dim, (5, 1, 1));
        assert_eq!(config(5, 129, 128).grid_dim, (5, 2, 1));
        assert_eq!(config(u32::MAX - 1, 1 << 26, 128).grid_dim, (i32::MAX as u32, 65535, 1));
    }

    #[test]
    fn a_segment_is_long_only_where_blocks_are() {
        assert!(may_be_long(1) && may_be_long(8192) && !may_be_long(8193) && !may_be_long(1 << 26));
        assert_eq!((slots(1), slots(ACCUMULATE_LONG), slots(ACCUMULATE_LONG + 1)), (1, 1, 2));
    }
}
