//! Launches of kernels/accumulate.cu.

use super::label_order::LabelOrder;
use super::memory::{In, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::ACCUMULATE_THREADS;
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

/// Adds the rows of `x`, of `d` elements each, of which the first begins a block, to the sums of their labels, `k` of
/// them, by which `order` has sorted them.
pub(super) fn accumulate(
    queue: &Queue,
    x: &Rows<'_>,
    weights: Option<In<'_, f32>>,
    order: &LabelOrder,
    d: u32,
    to: &mut SumsOut<'_>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    let (k, stride, block_rows) = (order.k, x.stride as u64, block_rows(d as usize));
    assert!(x.hold(d as usize) && x.n <= order.capacity as usize, "check 2");
    assert!(weights.is_none_or(|weights| x.n <= weights.len()), "check 2");
    assert!(to.counts.len() >= k as usize && to.totals.len() >= k as usize && holds(to.sums.len(), k, d), "check 2");
    let entry = match (x.dtype, weights.is_some()) {
        (Dtype::F32, false) => "accumulate_f32",
        (Dtype::F16, false) => "accumulate_f16",
        (Dtype::Bf16, false) => "accumulate_bf16",
        (Dtype::F32, true) => "accumulate_weighted_f32",
        (Dtype::F16, true) => "accumulate_weighted_f16",
        (Dtype::Bf16, true) => "accumulate_weighted_bf16",
    };
    let (config, order_in) = (config(k, d), order.order());
    let function = queue.context.function("accumulate", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride);
    if let Some(weights) = &weights {
        launch.arg(weights);
    }
    launch.arg(&order_in).arg(&order.starts).arg(&mut to.counts).arg(&mut to.totals).arg(&mut to.sums);
    launch.arg(&k).arg(&d).arg(&block_rows);
    // SAFETY: checks 1 to 4: rows and starts were written by the launches of `label_order`.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// Words of the facts of [`means`]: whether a mean differs from what it replaced, and how many were left alone.
pub(super) const MEANS_FACTS: usize = 2;

/// Writes the means of `k` sums of `d` components, `[k, d]`, over `means`, but for those whose rows weigh nothing. `facts`
/// were zero, or go on.
pub(super) fn means(
    queue: &Queue,
    totals: &In<'_, f64>,
    sums: &In<'_, f64>,
    (k, d): (u32, u32),
    means: &mut Out<'_, f32>,
    facts: &mut Out<'_, u32>,
) -> Result<()> {
    assert!(totals.len() >= k as usize && holds(sums.len(), k, d) && holds(means.len(), k, d), "check 2");
    assert!(facts.len() >= MEANS_FACTS, "check 2");
    let config = config(k, d);
    let function = queue.context.function("accumulate", "accumulate_means_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(totals).arg(sums).arg(means).arg(facts).arg(&k).arg(&d);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch("accumulate_means_f32", &mut launch, config) }
}

/// Whether `len` values are `[k, d]`, or more.
fn holds(len: usize, k: u32, d: u32) -> bool {
    len as u64 >= u64::from(k) * u64::from(d)
}

/// A thread per component of a codeword; short ones share a block.
fn config(k: u32, d: u32) -> LaunchConfig {
    let each = ACCUMULATE_THREADS / d.clamp(1, ACCUMULATE_THREADS).next_power_of_two();
    // The extents of a grid end at 2^31 - 1 and 65535; what lies beyond is taken in turn.
    let grid_dim = (k.div_ceil(each).min(i32::MAX as u32), d.div_ceil(ACCUMULATE_THREADS).clamp(1, 65535), 1);
    LaunchConfig { grid_dim, block_dim: (ACCUMULATE_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_a_thread_and_short_codewords_share_a_block() {
        assert_eq!(config(ACCUMULATE_THREADS + 1, 1).grid_dim, (2, 1, 1));
        assert_eq!(config(5, ACCUMULATE_THREADS / 2).grid_dim, (3, 1, 1));
        assert_eq!(config(5, ACCUMULATE_THREADS / 2 + 1).grid_dim, (5, 1, 1));
        assert_eq!(config(5, ACCUMULATE_THREADS + 1).grid_dim, (5, 2, 1));
        assert_eq!(config(u32::MAX - 1, 1 << 26).grid_dim, (i32::MAX as u32, 65535, 1));
    }
}
