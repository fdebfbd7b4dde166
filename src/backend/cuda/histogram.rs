//! Launch of kernels/histogram.cu.

use super::memory::{In, Out};
use super::queue::Queue;
use super::shapes::HISTOGRAM_THREADS;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Adds to `counts`, `[k]`, how often each codeword is among the first `n` labels. `bad` is lowered to what tells the
/// first label that is neither below k nor the sentinel: its position times 2^32, plus the label.
pub(super) fn histogram(
    queue: &Queue,
    labels: &In<'_, u32>,
    n: u32,
    k: u32,
    counts: &mut Out<'_, u64>,
    bad: &mut Out<'_, u64>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    assert!(n as usize <= labels.len() && k as usize <= counts.len() && bad.len() > 0, "check 2");
    let config = config(n, queue.context.waves(8));
    let function = queue.context.function("histogram", "histogram_u32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(labels).arg(counts).arg(bad).arg(&n).arg(&k);
    // SAFETY: checks 1 to 3; the kernel checks the labels itself.
    unsafe { queue.launch("histogram_u32", &mut launch, config) }
}

/// Blocks take labels in turn; no more of them than keep the device busy, for each adds its counts to all others'.
fn config(n: u32, waves: u32) -> LaunchConfig {
    let blocks = n.div_ceil(HISTOGRAM_THREADS).clamp(1, waves.max(1));
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (HISTOGRAM_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_labels_take_few_blocks_and_many_no_more_than_there_are_places() {
        assert_eq!(config(1, 500).grid_dim, (1, 1, 1));
        assert_eq!(config(HISTOGRAM_THREADS + 1, 500).grid_dim, (2, 1, 1));
        assert_eq!(config(u32::MAX, 500).grid_dim, (500, 1, 1));
    }
}
