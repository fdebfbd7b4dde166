//! Launch of kernels/look.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Out;
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::LOOK_WARPS;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Settles the rows of the block's `again`; its status counts how. `widened`: the block has the rows as f32.
pub(super) fn look(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    x: &Rows<'_>,
    widened: bool,
    labels: &mut Out<'_, u32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.n <= labels.len(), "check 2");
    let (z, z_stride, dtype) = x.stored(codebook, &block.wide, widened);
    let entry = match dtype {
        Dtype::F32 => "look_f32",
        Dtype::F16 => "look_f16",
        Dtype::Bf16 => "look_bf16",
    };
    let (f32_relative, f32_tiny) = codebook.bounds.sq_l2_f32;
    let config = config(x.n as u32, queue.context.waves(4));
    let function = queue.context.function("look", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&codebook.codewords).arg(&codebook.labels);
    launch
        .arg(&block.again.rows)
        .arg(&block.again.count)
        .arg(labels)
        .arg(&mut block.status)
        .arg(&codebook.m)
        .arg(&codebook.d);
    launch.arg(&f32_relative).arg(&f32_tiny).arg(&codebook.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; the rows of `again` are those that assign.cu listed, below n.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// Blocks take rows in turn: nobody on the host knows how many there are, and few are.
fn config(n: u32, waves: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.min(waves).max(1), 1, 1), block_dim: (LOOK_WARPS * 32, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_blocks_than_rows_or_places_for_them() {
        assert_eq!(config(3, 528).grid_dim, (3, 1, 1));
        assert_eq!(config(1_000_000, 528).grid_dim, (528, 1, 1));
    }
}
