//! A block of rows on its way through the kernels: its buffers, its status, and the chains of launches that rows from
//! the host and rows on the device share.

use super::assign::Again;
use super::codebook::DeviceCodebook;
use super::distance::distance;
use super::filter::Filter;
use super::look::look;
use super::memory::{Buffer, Out};
use super::pairwise_sq_l2::{by_norms, direct};
use super::queue::Queue;
use super::rows::{Packing, Rows, rows};
use super::top_k::{Candidates, scores, top_k as select};
use crate::backend::{AssignStats, Precision};
use crate::error::Result;
use crate::matrix::Dtype;

/// Buffers for up to `capacity` rows of `dtype`, used by one stream.
pub(super) struct Block {
    pub capacity: u32,
    pub dtype: Dtype,
    /// `[capacity, d]` f32, where rows are not: for what reads no other type.
    pub wide: Option<Buffer<f32>>,
    /// `[capacity, d + 2]`.
    pub packed: Buffer<f32>,
    /// `[capacity, 4]`.
    pub facts: Buffer<f32>,
    /// `[capacity]`.
    pub kinds: Buffer<u32>,
    pub again: Again,
    /// Words as in kernels/common.cuh; see [`Status`].
    pub status: Buffer<u64>,
}

impl Block {
    pub fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32) -> Result<Block> {
        let (rows, d) = (capacity as usize, codebook.d as usize);
        let mut block = Block {
            capacity,
            dtype,
            wide: if dtype == Dtype::F32 { None } else { Some(queue.alloc(rows * d)?) },
            packed: queue.alloc(rows * (d + 2))?,
            facts: queue.alloc(rows * 4)?,
            kinds: queue.alloc(rows)?,
            again: Again { rows: queue.alloc(rows)?, count: queue.alloc(1)? },
            status: queue.alloc(Status::WORDS)?,
        };
        Status::clear(queue, &mut block.status.write())?;
        Ok(block)
    }

    /// Bytes that one row takes.
    pub fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        let d = codebook.d as usize;
        let wide = if dtype == Dtype::F32 { 0 } else { 4 * d };
        wide + (d + 2) * 4 + 4 * 4 + 4 + 4
    }

    /// Labels and distances of the rows of `x`, scored by `filter`.
    #[allow(clippy::too_many_arguments)]
    pub fn assign(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        filter: &mut Filter,
        x: &Rows<'_>,
        packing: Packing,
        labels: &mut Out<'_, u32>,
        sq_distances: &mut Out<'_, f32>,
    ) -> Result<()> {
        self.label(queue, codebook, filter, x, packing, labels)?;
        distance(queue, codebook, self, x, filter.widens(), labels, sq_distances)
    }

    /// Labels of the rows of `x`, scored by `filter`: of those that are not finite the sentinel.
    pub fn label(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        filter: &mut Filter,
        x: &Rows<'_>,
        packing: Packing,
        labels: &mut Out<'_, u32>,
    ) -> Result<()> {
        if matches!(filter, Filter::AtOnce) {
            return filter.assign(queue, codebook, self, x, packing, labels);
        }
        filter.pack(queue, codebook, x, self, packing)?;
        queue.zero(&mut self.again.count.write())?;
        if codebook.m > 1 {
            filter.assign(queue, codebook, self, x, packing, labels)?;
            return look(queue, codebook, self, x, filter.widens(), labels);
        }
        // Nothing to choose from, only rows that get the sentinel: what is left open has label 0, the only one there is.
        filter.assign(queue, codebook, self, x, Packing { plain: true, ..packing }, labels)
    }

    /// The `r` nearest codewords of the rows of `x`, `[n, r]`.
    #[allow(clippy::too_many_arguments)] // where it runs, the two sides, how, and where to
    pub fn top_k(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        x: &Rows<'_>,
        r: u32,
        packing: Packing,
        candidates: &mut Candidates,
        labels: &mut Out<'_, u32>,
        sq_distances: &mut Out<'_, f32>,
    ) -> Result<()> {
        rows(queue, codebook, x, self, packing)?;
        // A block has at most `capacity` rows.
        scores(queue, codebook, self, x.n as u32, candidates)?;
        select(queue, codebook, self, x, r, packing.plain, candidates, labels, sq_distances)
    }

    /// All squared distances of the rows of `x`, `[n, k]`.
    pub fn pairwise_sq_l2(
        &mut self,
        queue: &Queue,
        codebook: &DeviceCodebook,
        x: &Rows<'_>,
        first_row: u64,
        precision: Precision,
        out: &mut Out<'_, f32>,
    ) -> Result<()> {
        let exact = precision == Precision::Exact;
        rows(queue, codebook, x, self, Packing { first_row, plain: true, report: true })?;
        if !exact {
            by_norms(queue, codebook, self, x.n as u32, out)?;
        }
        direct(queue, codebook, self, x, exact, out)
    }
}

/// What kernels tell the host beside their results. The words live until they are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The lowest row, column and value that is not finite.
    pub bad_value: Option<BadValue>,
    /// The lowest position of a code that names no codeword, and the code.
    pub bad_code: Option<(u64, u32)>,
    /// Rows that are not finite.
    pub bad: u64,
    /// Rows that were settled by f32, f64 and exact sums.
    pub second: u64,
    pub f64: u64,
    pub exact: u64,
}

/// A NaN or an infinity, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadValue {
    pub row: u64,
    pub col: usize,
    pub got: f32,
}

impl PartialEq for BadValue {
    fn eq(&self, other: &Self) -> bool {
        (self.row, self.col, self.got.to_bits()) == (other.row, other.col, other.got.to_bits())
    }
}

impl Eq for BadValue {}

impl BadValue {
    /// As kernels write it, see `bad_value_key` in kernels/common.cuh; all bits where there is none.
    pub fn of_key(key: u64) -> Option<BadValue> {
        let got = match key & 3 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            _ => return None,
        };
        Some(BadValue { row: key >> 28, col: (key >> 2 & 0x3ff_ffff) as usize, got })
    }
}

impl Status {
    pub const WORDS: usize = Status::NOTHING.len();
    /// Nothing bad, nothing counted.
    pub const NOTHING: [u64; 6] = [u64::MAX, u64::MAX, 0, 0, 0, 0];
    /// Where the lowest code is that names no codeword.
    pub const BAD_CODE: usize = 1;
    /// The first words are minima, the others counts.
    const MINIMA: usize = 2;

    /// [`Status::NOTHING`].
    pub fn clear(queue: &Queue, words: &mut Out<'_, u64>) -> Result<()> {
        queue.fill(words, 0xff)?;
        queue.zero(&mut words.from(Status::MINIMA))
    }

    /// What the words mean.
    pub fn of_words(words: &[u64]) -> Status {
        let word = |i: usize| words.get(i).copied().unwrap_or(Status::NOTHING[i]);
        let bad_code = (word(1) != u64::MAX).then_some((word(1) >> 32, word(1) as u32));
        let bad_value = BadValue::of_key(word(0));
        Status { bad_value, bad_code, bad: word(2), second: word(3), f64: word(4), exact: word(5) }
    }

    /// The tiers of `rows` rows: those that are neither bad nor looked at again were settled by the first pass.
    pub fn stats(&self, rows: u64) -> AssignStats {
        let Status { bad, second, f64, exact, .. } = *self;
        AssignStats { first: rows.saturating_sub(bad + second + f64 + exact), second, f64, exact }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_reads_as_kernels_write_it() {
        let nothing = Status::of_words(&[u64::MAX, u64::MAX, 0, 1, 2, 3]);
        assert_eq!((nothing.bad_value, nothing.bad_code), (None, None));
        assert_eq!(nothing.stats(10), AssignStats { first: 4, second: 1, f64: 2, exact: 3 });
        let words = [5 << 28 | 7 << 2 | 2, 9 << 32 | 300, 1, 0, 0, 0];
        let bad = Status::of_words(&words);
        assert_eq!(bad.bad_value, Some(BadValue { row: 5, col: 7, got: f32::NEG_INFINITY }));
        assert_eq!(bad.bad_code, Some((9, 300)));
    }
}
