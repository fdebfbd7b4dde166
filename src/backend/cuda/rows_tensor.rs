//! Launches of kernels/rows_tensor.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Buffer;
use super::queue::Queue;
use super::rows::{Packing, Rows, config, lanes};
use super::shapes::{ROWS_PER_BLOCK, TENSOR_ALIGN, TENSOR_COLS, TENSOR_WARP_PACKS};
use crate::error::{Error, Result};
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Halves from one row of 16-bit operands to the next.
pub(super) fn width(d: u32) -> u32 {
    d.next_multiple_of(TENSOR_ALIGN)
}

/// Packs the rows as operands of tensor cores: `halves`, `[capacity, width]`, and the block's facts, kinds and status.
pub(super) fn rows_tensor(
    queue: &Queue,
    codebook: &DeviceCodebook,
    x: &Rows<'_>,
    block: &mut Block,
    packing: Packing,
    halves: &mut Buffer<u16>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.n <= block.capacity as usize && x.hold(codebook.d as usize) && x.dtype == block.dtype, "check 2");
    assert!(x.n * width(codebook.d) as usize <= halves.read().len(), "check 2");
    // A block has at most `capacity` rows.
    let (n, stride) = (x.n as u32, x.stride as u64);
    let (plain, report) = (u32::from(packing.plain), u32::from(packing.report));
    let entry = match x.dtype {
        Dtype::F32 => "rows_tensor_f32",
        Dtype::F16 => "rows_tensor_f16",
        Dtype::Bf16 => "rows_tensor_bf16",
    };
    let function = queue.context.function("rows_tensor", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride);
    launch.arg(&codebook.mean).arg(halves).arg(&mut block.facts).arg(&mut block.kinds);
    launch.arg(&mut block.status).arg(&packing.first_row).arg(&n).arg(&codebook.d);
    launch.arg(&codebook.shift).arg(&plain).arg(&report);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch(entry, &mut launch, rows_config(n, codebook.d)) }
}

/// Lanes for every row, and several rows for every warp.
fn rows_config(n: u32, d: u32) -> LaunchConfig {
    let rows = ROWS_PER_BLOCK * TENSOR_WARP_PACKS.max(32 / lanes(width(d)));
    LaunchConfig { grid_dim: (n.div_ceil(rows), 1, 1), block_dim: (ROWS_PER_BLOCK * 32, 1, 1), shared_mem_bytes: 0 }
}

/// The distinct codewords as operands of tensor cores.
pub(super) struct TensorCodewords {
    /// `[m, width]` f16.
    pub halves: Buffer<u16>,
    /// `[m]` each, padded to whole tiles: norms, bounds on what rounding adds per norm of a row, half squared norms.
    pub lengths: Buffer<f32>,
    pub bounds: Buffer<f32>,
    pub half_sq_norms: Buffer<f32>,
}

impl TensorCodewords {
    /// Rounds the packed codewords, whose sums of products are off by `accumulation` times the norms.
    pub fn new(queue: &Queue, codebook: &DeviceCodebook, accumulation: f64) -> Result<TensorCodewords> {
        let (m, d) = (codebook.m, codebook.d);
        let padded = m.checked_next_multiple_of(TENSOR_COLS).ok_or_else(|| Error::Shape {
            op: queue.op,
            expected: format!("at most {} distinct codewords for tensor cores", u32::MAX / TENSOR_COLS * TENSOR_COLS),
            got: m.to_string(),
        })?;
        let mut codewords = TensorCodewords {
            halves: queue.alloc(m as usize * width(d) as usize)?,
            lengths: queue.alloc(padded as usize)?,
            bounds: queue.alloc(padded as usize)?,
            half_sq_norms: queue.alloc(padded as usize)?,
        };
        assert!(m as usize * codebook.depth() as usize <= codebook.packed.read().len(), "check 2");
        let TensorCodewords { halves, lengths, bounds, half_sq_norms } = &mut codewords;
        let entry = "rows_tensor_codewords_f32";
        let function = queue.context.function("rows_tensor", entry)?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(&codebook.packed).arg(halves).arg(lengths).arg(bounds).arg(half_sq_norms);
        launch.arg(&m).arg(&padded).arg(&d).arg(&accumulation);
        // SAFETY: checks 1 to 3; the kernel reads no index from memory.
        unsafe { queue.launch(entry, &mut launch, config(padded)) }?;
        Ok(codewords)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_lanes_and_a_warp_several_rows() {
        for (d, rows) in [(1, 128), (8, 128), (9, 64), (16, 64), (17, 64), (300, 64), (1 << 26, 64)] {
            assert_eq!(rows_config(1000 * rows, d).grid_dim.0, 1000, "{d}");
            assert_eq!(rows_config(1000 * rows + 1, d).grid_dim.0, 1001, "{d}");
        }
    }

    #[test]
    fn rows_of_halves_are_whole_pieces_of_sixteen_bytes() {
        for (d, expected) in [(1, 8), (7, 8), (8, 8), (9, 16), (255, 256), (1 << 26, 1 << 26)] {
            assert_eq!(width(d), expected, "{d}");
        }
    }
}
