//! Launches of kernels/rows_tensor.cu.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::label_parts;
use super::memory::Buffer;
use super::queue::Queue;
use super::rows::{Packing, Rows, lanes};
use super::shapes::{ROWS_PER_BLOCK, TENSOR_ALIGN, TENSOR_COLS, TENSOR_TILE, TENSOR_WARP_PACKS};
use crate::error::{Error, Result};
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Halves of a vector of 16-bit operands.
pub(super) fn width(d: u32) -> u32 {
    d.next_multiple_of(TENSOR_ALIGN)
}

/// Halves of so many vectors, in whole tiles: see kernels/tensor_tiles.cuh.
pub(super) fn halves_len(vectors: usize, width: u32) -> usize {
    vectors.next_multiple_of(TENSOR_TILE as usize) * width as usize
}

/// Packs the rows as operands of tensor cores: `halves`, tiles of `[capacity, width]`, and the block's facts, kinds and
/// status.
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
    assert!(halves_len(x.n, width(codebook.d)) <= halves.read().len(), "check 2");
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

/// Lanes for every two rows, several rows for every warp, and whole tiles.
fn rows_config(n: u32, d: u32) -> LaunchConfig {
    let rows = ROWS_PER_BLOCK * TENSOR_WARP_PACKS.max(64 / lanes(width(d)));
    let blocks = n.div_ceil(TENSOR_TILE) * (TENSOR_TILE / rows);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (ROWS_PER_BLOCK * 32, 1, 1), shared_mem_bytes: 0 }
}

/// A warp for every two codewords, of whole tiles.
fn codewords_config(padded: u32) -> LaunchConfig {
    let blocks = padded / (2 * ROWS_PER_BLOCK);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (ROWS_PER_BLOCK * 32, 1, 1), shared_mem_bytes: 0 }
}

/// The distinct codewords as operands of tensor cores.
pub(super) struct TensorCodewords {
    /// Tiles of `[m, width]` f16.
    pub halves: Buffer<u16>,
    /// `[m]` each, padded to whole tiles: norms, bounds on what rounding adds per norm of a row, half squared norms.
    pub lengths: Buffer<f32>,
    pub bounds: Buffer<f32>,
    pub half_sq_norms: Buffer<f32>,
    /// What label_parts.cu wants to know of the codebook, where it serves.
    pub words: Buffer<u64>,
}

impl TensorCodewords {
    /// Whether all that is read of `m` codewords is there: whole tiles of everything.
    pub fn hold(&self, m: u32, width: u32) -> bool {
        let padded = (m as usize).next_multiple_of(TENSOR_COLS as usize);
        halves_len(m as usize, width) <= self.halves.read().len()
            && [&self.lengths, &self.bounds, &self.half_sq_norms].iter().all(|terms| padded <= terms.read().len())
    }

    /// Rounds the packed codewords, whose sums of products are off by `accumulation` times the norms.
    pub fn new(queue: &Queue, codebook: &DeviceCodebook, accumulation: f64) -> Result<TensorCodewords> {
        let (m, d) = (codebook.m, codebook.d);
        let padded = m.checked_next_multiple_of(TENSOR_COLS).ok_or_else(|| Error::Shape {
            op: queue.op,
            expected: format!("at most {} distinct codewords for tensor cores", u32::MAX / TENSOR_COLS * TENSOR_COLS),
            got: m.to_string(),
        })?;
        let mut codewords = TensorCodewords {
            halves: queue.alloc(halves_len(m as usize, width(d)))?,
            lengths: queue.alloc(padded as usize)?,
            bounds: queue.alloc(padded as usize)?,
            half_sq_norms: queue.alloc(padded as usize)?,
            words: queue.alloc(label_parts::WORDS)?,
        };
        assert!(m as usize * codebook.depth() as usize <= codebook.packed.read().len(), "check 2");
        let words = label_parts::words(codebook, &codewords);
        queue.copy_in(&words, &mut codewords.words.write())?;
        let TensorCodewords { halves, lengths, bounds, half_sq_norms, .. } = &mut codewords;
        let entry = "rows_tensor_codewords_f32";
        let function = queue.context.function("rows_tensor", entry)?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(&codebook.packed).arg(halves).arg(lengths).arg(bounds).arg(half_sq_norms);
        launch.arg(&m).arg(&d).arg(&accumulation);
        // SAFETY: checks 1 to 3; the kernel reads no index from memory.
        unsafe { queue.launch(entry, &mut launch, codewords_config(padded)) }?;
        Ok(codewords)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_every_tile_has_its_lanes_and_a_warp_several_rows() {
        for (d, rows) in [(1, 128), (16, 128), (17, 64), (32, 64), (33, 64), (300, 64), (1 << 26, 64)] {
            assert_eq!(rows_config(1000 * 128, d).grid_dim.0, 1000 * 128 / rows, "{d}");
            assert_eq!(rows_config(1000 * 128 + 1, d).grid_dim.0, 1001 * 128 / rows, "{d}");
        }
        assert_eq!(codewords_config(3 * 128).grid_dim.0, 3 * 8);
    }

    #[test]
    fn halves_are_whole_steps_of_products_and_whole_tiles() {
        for (d, expected) in [(1, 16), (15, 16), (16, 16), (17, 32), (255, 256), (1 << 26, 1 << 26)] {
            assert_eq!(width(d), expected, "{d}");
        }
        for (vectors, expected) in [(0, 0), (1, 128), (128, 128), (129, 256)] {
            assert_eq!(halves_len(vectors, 48), expected * 48, "{vectors}");
        }
    }
}
