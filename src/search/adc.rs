//! Asymmetric distance computation: queries as they are against vectors as their codes say (Jegou, Douze, Schmid 2011).

use super::hits::{Hit, merged};
use super::scan::{Batch, Limits, Scan};
use super::tables::Tables;
use super::{Neighbors, check};
use crate::backend::cpu::lookups::LANES;
use crate::backend::{Isa, Precision, checked_len, pairwise_sq_l2_into};
use crate::error::Result;
use crate::matrix::{Element, MatrixView};
use crate::quantizer::product::{ProductQuantizer, of_whole_rows};
use rayon::prelude::*;

/// Queries whose tables are in memory at a time.
const QUERIES: usize = 128;
/// Neighbours that one thread keeps of all these queries together, at most, where there is more than one query.
const KEPT: usize = 1 << 21;

impl ProductQuantizer {
    /// Tables of squared distances, `[n, m, k]`: of part s of a query to codeword j of sub-quantizer s, each the real
    /// number rounded once to f32 ([`pairwise_sq_l2`](crate::pairwise_sq_l2)).
    ///
    /// # Errors
    /// - [`Error::Shape`](crate::Error::Shape) where the queries have not d columns, or the tables cannot be addressed.
    /// - [`Error::NonFinite`](crate::Error::NonFinite) naming the first query that holds a NaN or an infinity.
    /// - [`Error::Cuda`](crate::Error::Cuda) where a device fails.
    pub fn lut<T: Element>(&self, queries: MatrixView<'_, T>) -> Result<Vec<f32>> {
        self.tables("ProductQuantizer::lut", queries)
    }

    pub(super) fn tables<T: Element>(&self, op: &'static str, queries: MatrixView<'_, T>) -> Result<Vec<f32>> {
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
    /// Tables are made by the device of the codebooks, which goes through the codes as well; those are in host memory.
    ///
    /// A CUDA device gets them in blocks, once for up to 1024 queries: as many as have tables and lists, 4 m k + 24 r +
    /// 8204 bytes each, in 64 MiB or an eighth of the memory that is free or may be used, whichever is less; where that
    /// does not hold those of four, the processor goes through the codes, which the log tells as a
    /// warning. Device memory of up to three times that for each of two streams, with as much page-locked memory of the host for codes
    /// and keys, and the host has the tables of these queries twice.
    ///
    /// On the processor, where codewords are numbered in 8 bits at most, bytes that bound the entries of a table from
    /// below are added up first, for 64 queries at once, and only codes that may be among the nearest get the sum that counts:
    /// a search for one query takes a fifth to a third of the time of one for 64. (Codes of more than 512 bytes are summed up as
    /// they are.) Takes 4 m k bytes for each of 128 queries beside the result. A thread takes 16 KiB for each byte of a code, or
    /// each number where these do not fill bytes, half a MiB or 1024 m bytes, and 24 r bytes for each of 64 queries; there are fewer
    /// queries at a time where r is above 16,384.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`](crate::Error::InvalidParameter) where r is 0 or more than there are codes.
    /// - [`Error::Shape`](crate::Error::Shape) where the queries have not d columns, or `codes` are not whole codes, or
    ///   2^32 and more.
    /// - [`Error::CodeOutOfRange`](crate::Error::CodeOutOfRange) with the first position among all m n numbers that names
    ///   no codeword.
    /// - [`Error::NonFinite`](crate::Error::NonFinite) naming the first query that holds a NaN or an infinity.
    /// - [`Error::Cuda`](crate::Error::Cuda) where a device fails.
    pub fn search<T: Element>(&self, codes: &[u8], queries: MatrixView<'_, T>, r: usize) -> Result<Neighbors> {
        self.search_as("ProductQuantizer::search", codes, queries, r)
    }

    /// The `r` codes nearest to each of the codes `queries` by symmetric distances (SDC): those between the two vectors that
    /// the codes stand for, summed as in [`search`](ProductQuantizer::search). Queries are only needed as codes then, at the
    /// price of a second quantization error. They are decoded, to 4 d bytes for each.
    ///
    /// # Errors
    /// - Those of [`search`](ProductQuantizer::search) and, of the queries, [`decode`](ProductQuantizer::decode).
    pub fn search_symmetric(&self, codes: &[u8], queries: &[u8], r: usize) -> Result<Neighbors> {
        // Entries for a codeword as the query are the distances between codewords, whoever asks for them.
        self.search_as("ProductQuantizer::search_symmetric", codes, self.decode(queries)?.view(), r)
    }

    fn search_as<T: Element>(
        &self,
        op: &'static str,
        codes: &[u8],
        queries: MatrixView<'_, T>,
        r: usize,
    ) -> Result<Neighbors> {
        self.check_columns(op, queries.cols())?;
        let packed = self.packed();
        check(op, packed.count(op, codes)?, r)?;
        packed.check(op, codes)?;
        if let Some(found) = self.search_on_device(op, codes, queries, r)? {
            return Ok(found);
        }
        let scan = Scan::new(packed, Isa::selected()?);
        let mut neighbors = Neighbors { r, ..Neighbors::default() };
        let batch = (KEPT / r).clamp(1, QUERIES);
        for first in (0..queries.rows()).step_by(batch) {
            let some = queries.block(first..queries.rows().min(first + batch));
            let tables = self.tables(op, some).map_err(|error| of_whole_rows(op, some, first, error))?;
            neighbors.extend(nearest(&scan, &Tables::new(packed, tables), codes, self.code_size(), r));
        }
        Ok(neighbors)
    }
}

/// The r nearest codes by the table of each query, in order.
fn nearest(scan: &Scan, tables: &Tables, codes: &[u8], code_size: usize, r: usize) -> Vec<Vec<Hit>> {
    let queries = tables.queries();
    // Some pieces for each thread, but no single blocks: whoever begins a piece makes a batch's bytes, which takes as long as one.
    let (batches, blocks) = (queries.div_ceil(LANES), codes.len().div_ceil(scan.block() * code_size));
    let least = (blocks * batches / (2 * rayon::current_num_threads())).max(2);
    let of_batch = |batch: usize| {
        let some = batch * LANES..queries.min((batch + 1) * LANES);
        let limits = Limits::new(some.len());
        let add = |mut batch: Batch, (i, codes): (usize, &[u8])| {
            // Below 2^32, as all codes are.
            batch.add(scan, tables, &limits, (i * scan.block()) as u32, codes);
            batch
        };
        codes
            .par_chunks(scan.block() * code_size)
            .enumerate()
            .with_min_len(least)
            .fold(|| Batch::new(scan, some.clone(), r), add)
            .map(Batch::into_sorted)
            .reduce(Vec::new, |a, b| match a.is_empty() {
                true => b,
                false => a.into_iter().zip(b).map(|(a, b)| merged(a, b, r)).collect(),
            })
    };
    (0..batches).into_par_iter().with_max_len(1).flat_map_iter(of_batch).collect()
}
