//! Asymmetric distance computation: queries as they are against vectors as their codes say (Jegou, Douze, Schmid 2011).

use crate::backend::{Precision, checked_len, pairwise_sq_l2_into};
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use crate::quantizer::packed::Packed;
use crate::quantizer::product::{ProductQuantizer, of_whole_rows};
use rayon::prelude::*;
use std::collections::BinaryHeap;

/// Queries whose tables are in memory at a time.
const QUERIES: usize = 64;
/// Codes that one thread goes through before others may have the rest.
const CODES: usize = 1 << 16;

/// The codes nearest to each query, nearest first, equal distances by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbors {
    /// How many for each query.
    pub r: usize,
    /// Which codes, by their place, `[n, r]` row-major.
    pub ids: Vec<u32>,
    /// `[n, r]` row-major.
    pub sq_distances: Vec<f32>,
}

impl ProductQuantizer {
    /// Tables of squared distances, `[n, m, k]`: of part s of a query to codeword j of sub-quantizer s, each the real
    /// number rounded once to f32 ([`pairwise_sq_l2`](crate::pairwise_sq_l2)).
    ///
    /// # Errors
    /// - [`Error::Shape`] where the queries have not d columns, or the tables cannot be addressed.
    /// - [`Error::NonFinite`] naming the first query that holds a NaN or an infinity.
    /// - [`Error::Cuda`] where a device fails.
    pub fn lut<T: Element>(&self, queries: MatrixView<'_, T>) -> Result<Vec<f32>> {
        self.tables("ProductQuantizer::lut", queries)
    }

    fn tables<T: Element>(&self, op: &'static str, queries: MatrixView<'_, T>) -> Result<Vec<f32>> {
        self.check_columns(op, queries.cols())?;
        let (n, m, k, width) = (queries.rows(), self.m(), self.k(), self.d() / self.m());
        let (mut tables, mut part) = (vec![0.0; checked_len(op, n, checked_len(op, m, k)?)?], vec![0.0; n * k]);
        for (s, codebook) in self.codebooks().iter().enumerate() {
            let columns = queries.columns(s * width..(s + 1) * width)?;
            pairwise_sq_l2_into(columns, codebook, Precision::Exact, &mut part)
                .map_err(|error| of_whole_rows(op, queries, 0, error))?;
            for (of_query, part) in tables.chunks_exact_mut(m * k).zip(part.chunks_exact(k)) {
                of_query[s * k..][..k].copy_from_slice(part);
            }
        }
        Ok(tables)
    }

    /// The `r` codes nearest to each query, `[n, d]`, by asymmetric distances: the squared distance of the query to the
    /// vector that a code stands for, as the sum of one entry of [`lut`](ProductQuantizer::lut) for each sub-quantizer,
    /// from the first on, every addition rounded to f32. So ids and distances are the same with every instruction set,
    /// thread count and device. All codes are looked at.
    ///
    /// Tables are made by the device of the codebooks; the codes are in host memory and the processor goes through them,
    /// whatever that device is. Takes 4 m k bytes for each of 64 queries beside the result, and a few times 8 r for each thread.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where r is 0 or more than there are codes.
    /// - [`Error::Shape`] where the queries have not d columns, or `codes` are not whole codes, or 2^32 and more.
    /// - [`Error::CodeOutOfRange`] with the first position among all m n numbers that names no codeword.
    /// - [`Error::NonFinite`] naming the first query that holds a NaN or an infinity.
    /// - [`Error::Cuda`] where a device fails.
    pub fn search<T: Element>(&self, codes: &[u8], queries: MatrixView<'_, T>, r: usize) -> Result<Neighbors> {
        const OP: &str = "ProductQuantizer::search";
        self.check_columns(OP, queries.cols())?;
        let n = self.count(OP, codes)?;
        if u32::try_from(n).is_err() {
            let expected = "fewer than 2^32 codes; search them in parts".into();
            return Err(Error::Shape { op: OP, expected, got: n.to_string() });
        }
        if r == 0 || r > n {
            let expected = format!("1 to the {n} codes there are");
            return Err(Error::InvalidParameter { op: OP, name: "r", expected, got: r.to_string() });
        }
        let packed = self.packed();
        packed.check(OP, codes)?;
        let (mut ids, mut sq_distances) = (Vec::new(), Vec::new());
        for first in (0..queries.rows()).step_by(QUERIES) {
            let some = queries.block(first..queries.rows().min(first + QUERIES));
            let tables = self.tables(OP, some).map_err(|error| of_whole_rows(OP, some, first, error))?;
            let found: Vec<Vec<Hit>> =
                tables.par_chunks_exact(self.m() * self.k()).map(|table| nearest(packed, table, codes, r)).collect();
            for hit in found.into_iter().flatten() {
                ids.push(hit.id);
                sq_distances.push(hit.sq_distance);
            }
        }
        Ok(Neighbors { r, ids, sq_distances })
    }
}

/// A code that may be among the nearest: the farthest is the greatest, and among equals the last.
#[derive(Clone, Copy, PartialEq)]
struct Hit {
    sq_distance: f32,
    id: u32,
}

impl Eq for Hit {}

impl Ord for Hit {
    fn cmp(&self, other: &Hit) -> std::cmp::Ordering {
        self.sq_distance.total_cmp(&other.sq_distance).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Hit) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The r nearest codes by one query's table, in order.
fn nearest(packed: Packed, table: &[f32], codes: &[u8], r: usize) -> Vec<Hit> {
    codes
        .par_chunks(CODES * packed.code_size())
        .enumerate()
        .map(|(i, codes)| {
            // Below 2^32, as all codes are.
            let mut best = Best { r, first: (i * CODES) as u32, hits: BinaryHeap::new(), limit: f32::INFINITY };
            if packed.bits() == 8 && packed.k() == 256 {
                scan_bytes(packed.m(), table, codes, &mut best);
            } else {
                scan_bits(packed, table, codes, &mut best);
            }
            best.hits.into_sorted_vec()
        })
        .reduce(Vec::new, |a, b| merged(a, b, r))
}

/// The first r of two ascending lists: whatever the order of merging, the same of all.
fn merged(mut a: Vec<Hit>, b: Vec<Hit>, r: usize) -> Vec<Hit> {
    a.extend(b);
    // Two runs: a merge.
    a.sort();
    a.truncate(r);
    a
}

/// The nearest codes of a block so far.
struct Best {
    r: usize,
    /// The number of the first code of the block.
    first: u32,
    hits: BinaryHeap<Hit>,
    /// What is not below this is not among them: codes come in ascending order.
    limit: f32,
}

impl Best {
    /// Code `i` of the block.
    #[inline]
    fn consider(&mut self, i: usize, sq_distance: f32) {
        if self.hits.len() < self.r {
            self.hits.push(Hit { sq_distance, id: self.first + i as u32 });
        } else if sq_distance < self.limit {
            if let Some(mut farthest) = self.hits.peek_mut() {
                *farthest = Hit { sq_distance, id: self.first + i as u32 };
            }
        } else {
            return;
        }
        if self.hits.len() == self.r {
            self.limit = self.hits.peek().map_or(f32::INFINITY, |farthest| farthest.sq_distance);
        }
    }
}

/// A byte for each sub-quantizer: four codes at a time, whose sums do not wait for each other.
fn scan_bytes(m: usize, table: &[f32], codes: &[u8], best: &mut Best) {
    let (tables, _) = table.as_chunks::<256>();
    let sum = |code: &[u8]| code.iter().zip(tables).fold(0.0, |sum, (&byte, table)| sum + table[usize::from(byte)]);
    let mut fours = codes.chunks_exact(4 * m);
    let mut i = 0;
    for four in &mut fours {
        let ((a, b), (c, d)) = (four[..2 * m].split_at(m), four[2 * m..].split_at(m));
        let mut sums = [0.0; 4];
        for ((((table, &a), &b), &c), &d) in tables.iter().zip(a).zip(b).zip(c).zip(d) {
            sums[0] += table[usize::from(a)];
            sums[1] += table[usize::from(b)];
            sums[2] += table[usize::from(c)];
            sums[3] += table[usize::from(d)];
        }
        for (at, sq_distance) in (i..).zip(sums) {
            best.consider(at, sq_distance);
        }
        i += 4;
    }
    for (at, code) in (i..).zip(fours.remainder().chunks_exact(m)) {
        best.consider(at, sum(code));
    }
}

/// Numbers of any bits.
fn scan_bits(packed: Packed, table: &[f32], codes: &[u8], best: &mut Best) {
    for (i, code) in codes.chunks_exact(packed.code_size()).enumerate() {
        let of_part = |s| table[s * packed.k() + packed.number(code, s) as usize];
        best.consider(i, (0..packed.m()).fold(0.0, |sum, s| sum + of_part(s)));
    }
}
