//! Launches of kernels/prepare.cu, in their order, and what they work on.

use super::block::BadValue;
use super::memory::Buffer;
use super::queue::Queue;
use super::rows::Rows;
use super::shapes::{PREPARE_COLUMNS, PREPARE_RUN, PREPARE_THREADS, PREPARE_WARPS};
use crate::backend::cpu::panels::{bound_per_norm, max_sq_norm};
use crate::codebook::non_finite;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Words of the facts, as in kernels/prepare.cu, before anything is known.
const FACTS: [u64; 7] = [u64::MAX, 0, 0, 0, 0, 0, 0];

/// k codewords of d dimensions, and everything that is made of them. Lengths are those in the header of
/// kernels/prepare.cu: check 2 of every launch here.
pub(super) struct Work {
    pub k: u32,
    pub d: u32,
    /// `[k, d]`.
    pub codewords: Buffer<f32>,
    /// `[k, d + 2]`, of which the distinct codewords take the first.
    pub packed: Buffer<f32>,
    /// `[k]`: its last two steps once more, of which the distinct codewords take the first.
    pub packed_bounds: Buffer<f32>,
    pub packed_halves: Buffer<f32>,
    /// `[d]`.
    pub mean: Buffer<f32>,
    /// `[k]`, of which the distinct codewords take the first.
    pub labels: Buffer<u32>,
    /// `[k]`.
    pub positions: Buffer<u32>,
    /// `[k]`; then bits of squared norms.
    hashes: Buffer<u64>,
    capacity: u64,
    table: Buffer<u32>,
    /// `[k]`; then bits of squared norms around the mean.
    slots: Buffer<u64>,
    sums: Buffer<f64>,
    facts: Buffer<u64>,
}

/// What the host learns of a prepared codebook: the one thing that it waits for.
pub(super) struct Facts {
    /// Distinct codewords.
    pub m: u32,
    pub shift: i32,
    pub max_sq_norm: f64,
}

impl Work {
    /// Memory for everything; `codewords`, `[k, d]`, may be written later. k and d are at least 1.
    pub fn new(queue: &Queue, codewords: Buffer<f32>, k: u32, d: u32) -> Result<Work> {
        let (rows, cols) = (k as usize, d as usize);
        assert!(codewords.read().len() >= rows * cols, "check 2");
        // Half of the slots stay free.
        let capacity = (2 * rows).next_power_of_two();
        let mut work = Work {
            k,
            d,
            codewords,
            packed: queue.alloc(rows * (cols + 2))?,
            packed_bounds: queue.alloc(rows)?,
            packed_halves: queue.alloc(rows)?,
            mean: queue.alloc(cols)?,
            labels: queue.alloc(rows)?,
            positions: queue.alloc(rows)?,
            hashes: queue.alloc(rows)?,
            capacity: capacity as u64,
            table: queue.alloc(capacity)?,
            slots: queue.alloc(rows)?,
            sums: queue.alloc(rows.div_ceil(PREPARE_RUN as usize) * cols)?,
            facts: queue.upload(&FACTS)?,
        };
        queue.zero(&mut work.table.write())?;
        Ok(work)
    }

    /// Fills the codewords with `x`, k rows of d elements.
    pub fn copy(&mut self, queue: &Queue, x: &Rows<'_>) -> Result<()> {
        assert!(x.n == self.k as usize && x.hold(self.d as usize), "check 2");
        let entry = match x.dtype {
            Dtype::F32 => "prepare_copy_f32",
            Dtype::F16 => "prepare_copy_f16",
            Dtype::Bf16 => "prepare_copy_bf16",
        };
        let stride = x.stride as u64;
        let function = queue.context.function("prepare", entry)?;
        let mut launch = queue.stream.launch_builder(&function);
        launch.arg(&x.values).arg(&mut self.codewords).arg(&stride).arg(&self.k).arg(&self.d);
        // SAFETY: checks 1 to 3; the kernel reads no index from memory.
        unsafe { queue.launch(entry, &mut launch, warp_each(self.k)) }
    }

    /// Prepares the codewords: every launch, and no wait.
    pub fn prepare(&mut self, queue: &Queue) -> Result<()> {
        let (k, d, error) = (self.k, self.d, bound_per_norm(self.d as usize));
        let function = |entry| queue.context.function("prepare", entry);

        let kernel = function("prepare_hash_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch.arg(&self.codewords).arg(&mut self.hashes).arg(&mut self.facts).arg(&k).arg(&d);
        // SAFETY: checks 1 to 3; the kernel reads no index from memory.
        unsafe { queue.launch("prepare_hash_f32", &mut launch, warp_each(k)) }?;

        let kernel = function("prepare_repeats_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch
            .arg(&self.codewords)
            .arg(&self.hashes)
            .arg(&mut self.table)
            .arg(&mut self.slots)
            .arg(&self.capacity)
            .arg(&k)
            .arg(&d);
        // SAFETY: checks 1 to 4: what the table holds was put there by this launch, or is zero.
        unsafe { queue.launch("prepare_repeats_f32", &mut launch, warp_each(k)) }?;

        let kernel = function("prepare_distinct_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch
            .arg(&self.table)
            .arg(&self.slots)
            .arg(&mut self.labels)
            .arg(&mut self.positions)
            .arg(&mut self.facts)
            .arg(&k);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_distinct_f32", &mut launch, alone()) }?;

        let kernel = function("prepare_sums_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch.arg(&self.codewords).arg(&self.labels).arg(&self.facts).arg(&mut self.sums).arg(&d);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_sums_f32", &mut launch, runs(k, d)) }?;

        let kernel = function("prepare_mean_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch.arg(&self.sums).arg(&self.facts).arg(&mut self.mean).arg(&d);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_mean_f32", &mut launch, columns(d)) }?;

        let kernel = function("prepare_norms_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch
            .arg(&self.codewords)
            .arg(&self.labels)
            .arg(&self.mean)
            .arg(&mut self.hashes)
            .arg(&mut self.slots)
            .arg(&mut self.facts)
            .arg(&d);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_norms_f32", &mut launch, warp_each(k)) }?;

        let kernel = function("prepare_centre_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch.arg(&self.hashes).arg(&self.slots).arg(&mut self.mean).arg(&mut self.facts).arg(&d);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_centre_f32", &mut launch, alone()) }?;

        let kernel = function("prepare_pack_f32")?;
        let mut launch = queue.stream.launch_builder(&kernel);
        launch
            .arg(&self.codewords)
            .arg(&self.labels)
            .arg(&self.mean)
            .arg(&mut self.packed)
            .arg(&mut self.packed_bounds)
            .arg(&mut self.packed_halves)
            .arg(&mut self.facts)
            .arg(&error)
            .arg(&d);
        // SAFETY: checks 1 to 4.
        unsafe { queue.launch("prepare_pack_f32", &mut launch, warp_each(k)) }
    }

    /// Waits until all of it is done, whatever became of it, and says what came out.
    pub fn facts(&self, queue: &Queue, prepared: Result<()>) -> Result<Facts> {
        let mut facts = FACTS;
        let copied = prepared.and_then(|()| queue.copy_out(self.facts.read(), &mut facts));
        let waited = queue.synchronize();
        copied.and(waited)?;
        let [bad, distinct, .., shift, half] = facts;
        if let Some(BadValue { row, col, got }) = BadValue::of_key(bad) {
            return Err(non_finite(queue.op, row as usize, col, got));
        }
        // Words of 32 bits that the kernels widened.
        let (shift, half) = (shift as i32, f32::from_bits(half as u32));
        Ok(Facts { m: distinct as u32, shift, max_sq_norm: max_sq_norm(half, shift) })
    }
}

/// A warp per codeword.
fn warp_each(k: u32) -> LaunchConfig {
    config((k.div_ceil(PREPARE_WARPS), 1), PREPARE_WARPS * 32)
}

/// A thread per column, and a block for every run of codewords.
fn runs(k: u32, d: u32) -> LaunchConfig {
    // The second extent of a grid ends at 65535; longer rows are taken in turn.
    config((k.div_ceil(PREPARE_RUN), d.div_ceil(PREPARE_COLUMNS).min(65535)), PREPARE_COLUMNS)
}

/// A thread per column.
fn columns(d: u32) -> LaunchConfig {
    config((d.div_ceil(PREPARE_COLUMNS), 1), PREPARE_COLUMNS)
}

/// One block.
fn alone() -> LaunchConfig {
    config((1, 1), PREPARE_THREADS)
}

fn config((x, y): (u32, u32), threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (x, y, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codeword_has_a_warp_and_every_column_of_a_run_a_thread() {
        for k in [1, PREPARE_WARPS, PREPARE_WARPS + 1, u32::MAX - 1] {
            let warps = u64::from(warp_each(k).grid_dim.0) * u64::from(PREPARE_WARPS);
            // The number of a warp fits 32 bits.
            assert!((u64::from(k)..=1 << 32).contains(&warps), "{k}");
        }
        assert_eq!(runs(PREPARE_RUN + 1, PREPARE_COLUMNS + 1).grid_dim, (2, 2, 1));
        assert_eq!(runs(1, 1 << 26).grid_dim, (1, 65535, 1));
        assert_eq!(columns(PREPARE_COLUMNS + 1).grid_dim, (2, 1, 1));
    }
}
