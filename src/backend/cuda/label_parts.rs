//! Launch of kernels/label_parts.cu.

use super::codebook::DeviceCodebook;
use super::memory::{Buffer, Out};
use super::queue::Queue;
use super::rows::{Packing, Rows};
use super::rows_tensor::{TensorCodewords, width};
use super::shapes::{LABEL_PARTS_CHUNK, LABEL_PARTS_ROWS, LABEL_PARTS_WARPS, LABEL_PARTS_WIDTH};
use super::tensor;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Blocks that a multiprocessor has registers for, of the kernels for few dimensions and of the others.
const BLOCKS: u32 = 6;
const WIDE_BLOCKS: u32 = 5;

/// Bytes of dynamic shared memory at most: what every device has, less what the kernel has anyway.
const SHARED: u32 = 92 << 10;

/// Bytes of shared memory that a block takes beside: its own, and those of the system.
const SHARED_BESIDE: u32 = 5600 + 1024;

/// Bytes that need not be asked for.
const SHARED_UNASKED: u32 = 32 << 10;

/// Distinct codewords at most: more have not been tried.
const CODEWORDS: u32 = 1024;

/// The least shift of a scale, where values next to the largest f32 stay longer than others (kernels/common.cuh).
const LEAST_SHIFT: i32 = -126;

/// Words of a part in device memory: seven addresses, then the number of distinct codewords and the shift.
pub(super) const WORDS: usize = 8;

/// Whether the kernel serves a codebook, on tensor cores that are trusted: not of many dimensions, not if shared memory does
/// not hold it, nor for values next to the largest f32, whose squares are too large for it, nor where there is nothing to
/// choose from. And codewords have to be apart, or more of them reach the threshold than a list holds: that is a distance of
/// some (1/m)^(2/d) of the squared norms where they fill their space.
pub(super) fn serves(codebook: &DeviceCodebook) -> bool {
    let DeviceCodebook { m, d, shift, .. } = *codebook;
    let are_apart = f64::from(m).powf(2.0 / f64::from(d)) <= 256.0;
    d <= LABEL_PARTS_WIDTH && (2..=CODEWORDS).contains(&m) && shared(m, d) <= SHARED && shift > LEAST_SHIFT && are_apart
}

/// A codebook as the kernel reads it: valid as long as both are there.
pub(super) fn words(codebook: &DeviceCodebook, codewords: &TensorCodewords) -> [u64; WORDS] {
    assert!(codewords.hold(codebook.m, width(codebook.d)), "check 2");
    assert!(codebook.k as usize * codebook.d as usize <= codebook.codewords.read().len(), "check 2");
    [
        codewords.halves.read().address(),
        codewords.lengths.read().address(),
        codewords.bounds.read().address(),
        codewords.half_sq_norms.read().address(),
        codebook.labels.read().address(),
        codebook.codewords.read().address(),
        codebook.mean.read().address(),
        u64::from(codebook.m) | u64::from(codebook.shift as u32) << 32,
    ]
}

/// The codebooks of all parts.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    codebooks: &'a [&'a DeviceCodebook],
    /// What a sum on tensor cores can be off, relative to the magnitudes in it.
    eps: f32,
}

impl<'a> Parts<'a> {
    /// None where the kernel does not serve.
    ///
    /// # Errors
    /// - [`crate::Error::Cuda`] where the device fails.
    pub fn new(op: &'static str, codebooks: &'a [&'a DeviceCodebook]) -> Result<Option<Parts<'a>>> {
        let Some(&first) = codebooks.first() else { return Ok(None) };
        let serve = codebooks.iter().all(|codebook| serves(codebook)) && i32::try_from(codebooks.len()).is_ok();
        if !serve || !tensor::are_known(&first.context) {
            return Ok(None);
        }
        let Some(eps) = tensor::accumulation(op, &first.context, 16 * eights(first.d).div_ceil(2) as usize)? else {
            return Ok(None);
        };
        if !tensor::eights_are_trusted(&first.context) {
            return Ok(None);
        }
        // Made here, where waiting for the device is no surprise.
        codebooks.iter().try_for_each(|codebook| codebook.tensor(op).map(drop))?;
        Ok(Some(Parts { codebooks, eps: (eps * (1.0 + 1e-6)) as f32 }))
    }

    pub fn len(&self) -> usize {
        self.codebooks.len()
    }

    /// The words of all.
    pub fn words(&self, op: &'static str) -> Result<Vec<u64>> {
        let words = self.codebooks.iter().map(|codebook| Ok(words(codebook, codebook.tensor(op)?)));
        Ok(words.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// The labels, `[parts, n]`, of the rows of `x`, whose columns are those of the parts side by side; `table` are their words.
/// `kinds`, where given, get what rows are, `[parts, n]`.
#[allow(clippy::too_many_arguments)] // the two sides, how, and where to
pub(super) fn label_parts(
    queue: &Queue,
    parts: &Parts<'_>,
    table: &Buffer<u64>,
    x: &Rows<'_>,
    packing: Packing,
    labels: &mut Out<'_, u32>,
    kinds: Option<&mut Buffer<u32>>,
    status: &mut Buffer<u64>,
) -> Result<()> {
    let Some(&first) = parts.codebooks.first() else { return Ok(()) };
    if x.n == 0 {
        return Ok(());
    }
    let (n, d) = (u32::try_from(x.n).unwrap_or(u32::MAX), first.d);
    assert!(x.n == n as usize && x.hold(parts.len() * d as usize), "check 2");
    assert!(x.n * parts.len() <= labels.len() && WORDS * parts.len() <= table.read().len(), "check 2");
    assert!(kinds.as_ref().is_none_or(|kinds| x.n * parts.len() <= kinds.read().len()), "check 2");
    assert!(parts.codebooks.iter().all(|codebook| codebook.d == d), "check 2");
    let is_narrow = d <= 16;
    let entry = match (x.dtype, is_narrow) {
        (Dtype::F32, true) => "label_parts_f32",
        (Dtype::F16, true) => "label_parts_f16",
        (Dtype::Bf16, true) => "label_parts_bf16",
        (Dtype::F32, false) => "label_parts_wide_f32",
        (Dtype::F16, false) => "label_parts_wide_f16",
        (Dtype::Bf16, false) => "label_parts_wide_bf16",
    };
    let shared = parts.codebooks.iter().map(|codebook| shared(codebook.m, d)).max().unwrap_or(0);
    // There are fewer than 2^31 parts.
    let blocks = if is_narrow { BLOCKS } else { WIDE_BLOCKS };
    let blocks = queue.context.blocks_each(shared + SHARED_BESIDE, blocks);
    let config = config(n, parts.len() as u32, shared, queue.context.waves(blocks));
    // Labels that may be fast are exact here, but nobody is told what that took.
    let (stride, report, counts) = (x.stride as u64, u32::from(packing.report), u32::from(!packing.plain));
    let kinds = kinds.map_or(0, |kinds| kinds.write().address());
    let function = queue.context.function("label_parts", entry)?;
    if shared > SHARED_UNASKED {
        // Always the most: others may launch it for other codebooks at the same time.
        queue.allow_shared(&function, entry, SHARED)?;
    }
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride).arg(table).arg(labels).arg(&kinds).arg(status);
    launch.arg(&packing.first_row).arg(&n).arg(&d).arg(&report).arg(&counts).arg(&parts.eps);
    launch.arg(&first.bounds.sq_l2_f64);
    // SAFETY: checks 1 to 4; the addresses in the table are those of the codebooks that `parts` borrows.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// Eights of dimensions of an operand: those of the values, and one that makes a bound of a product.
fn eights(d: u32) -> u32 {
    d.div_ceil(8) + 1
}

/// Bytes of shared memory for a codebook: for each row and chunk of its codewords the words of four threads; the mean; labels,
/// and operands of as many codewords as pass by at a time.
fn shared(m: u32, d: u32) -> u32 {
    let reaches = m.div_ceil(LABEL_PARTS_CHUNK).saturating_mul(16 * LABEL_PARTS_ROWS);
    let codewords = m.saturating_add(15).saturating_mul(16 * eights(d.min(LABEL_PARTS_WIDTH)) + 4);
    reaches.saturating_add(4 * LABEL_PARTS_WIDTH).saturating_add(codewords)
}

/// As many blocks of a part as there are places, or fewer that take equally many turns, for each fills its shared memory
/// first; all parts of the same rows side by side.
fn config(n: u32, parts: u32, shared: u32, places: u32) -> LaunchConfig {
    let turns = n.div_ceil(LABEL_PARTS_ROWS);
    let each = turns.div_ceil(places.div_ceil(parts).clamp(1, 65_535));
    LaunchConfig {
        grid_dim: (parts, turns.div_ceil(each), 1),
        block_dim: (LABEL_PARTS_WARPS * 32, 1, 1),
        shared_mem_bytes: shared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_full_and_no_block_is_without_rows() {
        assert_eq!(config(1, 6, 0, 660).grid_dim, (6, 1, 1));
        // 7813 turns: 72 for each of 109 blocks of a part, where there are places for 110.
        assert_eq!(config(1_000_000, 6, 0, 660).grid_dim, (6, 109, 1));
        assert_eq!(config(131_072, 1, 0, 660).grid_dim, (1, 512, 1));
        assert_eq!(config(2 * LABEL_PARTS_ROWS + 1, 1, 0, 660).grid_dim, (1, 3, 1));
        assert_eq!(config(u32::MAX, 1000, 0, 660).grid_dim, (1000, 1, 1));
        assert!(config(u32::MAX, 1, 0, u32::MAX).grid_dim.1 <= 65_535);
    }

    #[test]
    fn codebooks_of_a_byte_fit_shared_memory() {
        let noted = |chunks: u32| 128 + chunks * 2048;
        assert_eq!(shared(1, 1), noted(1) + 16 * (2 * 16 + 4));
        assert_eq!(shared(256, 16), noted(2) + 271 * (3 * 16 + 4));
        assert_eq!(shared(300, 28), noted(3) + 315 * (5 * 16 + 4));
        for d in 1..=LABEL_PARTS_WIDTH {
            assert!(shared(256, d) <= SHARED);
        }
        assert!(shared(1024, 24) <= SHARED && shared(1024, 25) > SHARED);
        assert!(shared(909, 32) <= SHARED && shared(910, 32) > SHARED);
        assert!(shared(u32::MAX, u32::MAX) > SHARED);
    }
}
