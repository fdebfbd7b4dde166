//! Launch of kernels/gather.cu.

use super::codebook::DeviceCodebook;
use super::memory::{In, Out};
use super::queue::Queue;
use super::shapes::GATHER_THREADS;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Fills the first `n` rows of `out`, `[n, d]`, with the codewords of `codes`. `bad` is lowered to what tells the first code
/// that names none: its position times 2^32, plus the code.
pub(super) fn gather(
    queue: &Queue,
    codebook: &DeviceCodebook,
    codes: &In<'_, u32>,
    n: u32,
    out: &mut Out<'_, f32>,
    bad: &mut Out<'_, u64>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    assert!(n as usize <= codes.len() && n as usize * codebook.d as usize <= out.len(), "check 2");
    let rows = u64::from(n);
    let config = config(n, codebook.d, queue.context.waves(16));
    let function = queue.context.function("gather", "gather_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(codes).arg(&codebook.codewords).arg(out).arg(&rows).arg(&codebook.k).arg(&codebook.d).arg(bad);
    // SAFETY: checks 1 to 3; the kernel checks the codes itself.
    unsafe { queue.launch("gather_f32", &mut launch, config) }
}

/// Rows are taken in turn, each by at most a warp.
fn config(n: u32, d: u32, waves: u32) -> LaunchConfig {
    let rows_per_block = GATHER_THREADS / d.clamp(1, 32).next_power_of_two();
    let blocks = n.div_ceil(rows_per_block).clamp(1, waves);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (GATHER_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rows_share_a_warp() {
        assert_eq!(config(GATHER_THREADS, 1, 1000).grid_dim, (1, 1, 1));
        assert_eq!(config(GATHER_THREADS, 32, 1000).grid_dim, (32, 1, 1));
        assert_eq!(config(u32::MAX, 300, 1000).grid_dim, (1000, 1, 1));
    }
}
