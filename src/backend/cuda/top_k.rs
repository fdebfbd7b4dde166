//! Launches of kernels/top_k.cu.

use super::assign::SCORE_THREADS;
use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::{SCORE_COLS, SCORE_ROWS, TOP_K_THREADS};
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// What lies between the filter pass and the result: every codeword may turn out to be a candidate.
pub(super) struct Candidates {
    /// The capacity.
    pub rows: u32,
    /// `[capacity, k]`.
    pub scores: Buffer<f32>,
    /// `[capacity, k]`.
    pub labels: Buffer<u32>,
    /// `[capacity, k]`.
    pub values: Buffer<f64>,
}

impl Candidates {
    pub fn new(queue: &Queue, codebook: &DeviceCodebook, capacity: u32) -> Result<Candidates> {
        let len = capacity as usize * codebook.k as usize;
        Ok(Candidates {
            rows: capacity,
            scores: queue.alloc(len)?,
            labels: queue.alloc(len)?,
            values: queue.alloc(len)?,
        })
    }

    /// Bytes that one row takes.
    pub fn bytes_per_row(codebook: &DeviceCodebook) -> usize {
        codebook.k as usize * (4 + 4 + 8)
    }
}

/// Scores of the first `n` rows of a packed block with every codeword.
pub(super) fn scores(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &Block,
    n: u32,
    candidates: &mut Candidates,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let (k, depth) = (codebook.k, codebook.depth());
    assert!(n <= block.capacity && n as usize * k as usize <= candidates.scores.read().len(), "check 2");
    let config = score_config(n, k);
    let function = queue.context.function("top_k", "top_k_scores_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&block.packed).arg(&codebook.packed).arg(&codebook.positions).arg(&mut candidates.scores);
    launch.arg(&n).arg(&k).arg(&depth);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("top_k_scores_f32", &mut launch, config) }
}

/// The `r` nearest codewords of the rows of `x`, which are packed in the block and whose scores are there; its status
/// counts how rows were settled. `1 <= r <= k`.
#[allow(clippy::too_many_arguments)]
pub(super) fn top_k(
    queue: &Queue,
    codebook: &DeviceCodebook,
    block: &mut Block,
    x: &Rows<'_>,
    r: u32,
    fast: bool,
    candidates: &mut Candidates,
    labels: &mut Out<'_, u32>,
    sq_distances: &mut Out<'_, f32>,
) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    let (k, d) = (codebook.k, codebook.d);
    let (len, results) = (x.n * k as usize, x.n * r as usize);
    assert!(x.n <= block.capacity as usize && x.hold(d as usize), "check 2");
    assert!(len <= candidates.labels.read().len() && len <= candidates.values.read().len(), "check 2");
    assert!(1 <= r && r <= k && results <= labels.len() && results <= sq_distances.len(), "check 2");
    let (z, z_stride) = x.as_f32(codebook, &block.wide);
    let fast = u32::from(fast);
    let config = config(x.n as u32);
    let function = queue.context.function("top_k", "top_k_f32")?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&z).arg(&z_stride).arg(&block.facts).arg(&block.kinds);
    launch.arg(&codebook.codewords).arg(&codebook.packed).arg(&codebook.positions);
    launch.arg(&candidates.scores).arg(&mut candidates.labels).arg(&mut candidates.values);
    launch.arg(labels).arg(sq_distances).arg(&mut block.status).arg(&k).arg(&d).arg(&r);
    launch.arg(&codebook.bounds.unit).arg(&codebook.bounds.tiny).arg(&codebook.bounds.sq_l2_f64).arg(&fast);
    // SAFETY: checks 1 to 4.
    unsafe { queue.launch("top_k_f32", &mut launch, config) }
}

/// A block of threads per tile of scores; where the grid ends, blocks take codewords in turn.
fn score_config(n: u32, k: u32) -> LaunchConfig {
    let grid_dim = (n.div_ceil(SCORE_ROWS), k.div_ceil(SCORE_COLS).min(65_535), 1);
    LaunchConfig { grid_dim, block_dim: (SCORE_THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A block of threads per row.
fn config(n: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (n, 1, 1), block_dim: (TOP_K_THREADS, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_block_and_every_score_a_tile() {
        assert_eq!(config(7).grid_dim, (7, 1, 1));
        assert_eq!(score_config(SCORE_ROWS + 1, SCORE_COLS).grid_dim, (2, 1, 1));
        assert_eq!(score_config(1, SCORE_COLS + 1).grid_dim, (1, 2, 1));
        // The second axis of a grid ends at 65535.
        assert_eq!(score_config(1, u32::MAX - 1).grid_dim, (1, 65_535, 1));
    }
}
