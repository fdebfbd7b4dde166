//! Launch of kernels/means.cu.

use super::accumulate::config;
use super::memory::{In, Out};
use super::queue::Queue;
use super::shapes::MEANS_THREADS;
use crate::error::Result;
use cudarc::driver::PushKernelArg;

/// Words of the facts: whether a mean differs from what it replaced, and how many were left alone.
pub(super) const FACTS: usize = 2;

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
    if k == 0 {
        return Ok(());
    }
    let components = u64::from(k) * u64::from(d);
    let holds = |len: usize| len as u64 >= components;
    assert!(totals.len() >= k as usize && holds(sums.len()) && holds(means.len()) && facts.len() >= FACTS, "check 2");
    let config = config(k, d, MEANS_THREADS);
    let function = queue.context.function("means", "means_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(totals).arg(sums).arg(means).arg(facts).arg(&k).arg(&d);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch("means_f32", &mut launch, config) }
}
