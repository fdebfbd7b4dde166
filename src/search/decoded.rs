//! Search by distances to the vectors that codes stand for, which are decoded block by block.

use super::hits::Hit;
use super::{Neighbors, check};
use crate::backend::{AssignOptions, nearer, non_finite, top_k};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use crate::quantizer::residual::ResidualQuantizer;
use std::cmp::Ordering;

/// Values of the vectors that are decoded at a time: 32 MiB of f32.
const BLOCK: usize = 1 << 23;

impl ResidualQuantizer {
    /// The `r` codes nearest to each query, `[n, d]`, by the distance of the query to the vector that a code stands for
    /// ([`decode`](ResidualQuantizer::decode)): in the order of the real numbers, equal distances by number, each distance
    /// rounded once, as [`top_k`](crate::top_k) has it. All codes are looked at, block by block, on the device of the
    /// codebooks: 32 MiB of vectors, or 1024 of them, for which a search takes up to seven times as much.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where r is 0 or more than there are codes.
    /// - [`Error::Shape`] where the queries have not d columns, or `codes` are not whole codes, or 2^32 and more.
    /// - [`Error::CodeOutOfRange`] with the first position among all m n numbers that names no codeword.
    /// - [`Error::NonFinite`] naming the first query that holds a NaN or an infinity, or the first code whose sum is
    ///   beyond f32.
    /// - [`Error::Cuda`] where a device fails.
    pub fn search<T: Element>(&self, codes: &[u8], queries: MatrixView<'_, T>, r: usize) -> Result<Neighbors> {
        const OP: &str = "ResidualQuantizer::search";
        self.check_columns(OP, queries.cols())?;
        let packed = self.packed();
        check(OP, packed.count(OP, codes)?, r)?;
        packed.check(OP, codes)?;
        let bad = |i: &usize| queries.row(*i).iter().any(|value| !value.to_f32().is_finite());
        if let Some(row) = (0..queries.rows()).find(bad) {
            return Err(non_finite(OP, queries, row, "remove the query"));
        }
        let (mut found, mut wide): (Vec<Vec<Hit>>, Vec<f32>) = (vec![Vec::new(); queries.rows()], Vec::new());
        let block = (BLOCK / self.d()).max(1024);
        for (i, some) in codes.chunks(block * self.code_size()).enumerate() {
            let vectors = self.decode(some)?;
            let first = i * block;
            let codebook = Codebook::new(vectors.view(), self.codebooks()[0].device())
                .map_err(|error| of_sums(OP, error).of_part_at(first, 0))?;
            let r_here = r.min(vectors.rows());
            let nearest = top_k(queries, &codebook, r_here, AssignOptions::default())?;
            let lists = nearest.labels.chunks(r_here).zip(nearest.sq_distances.chunks(r_here));
            for (q, (found, (ids, sq_distances))) in found.iter_mut().zip(lists).enumerate() {
                let hits = ids.iter().zip(sq_distances);
                // Below 2^32, as all codes are.
                let hits = hits.map(|(&id, &sq_distance)| Hit { sq_distance, id: first as u32 + id }).collect();
                let query = T::as_f32(queries.row(q), &mut wide);
                *found = self.merged(std::mem::take(found), hits, r, codes, query)?;
            }
        }
        let mut neighbors = Neighbors { r, ..Neighbors::default() };
        neighbors.extend(found);
        Ok(neighbors)
    }

    /// The first r of two lists in the order of the real numbers, all ids of `a` below those of `b`. Distances that are
    /// equal once they are rounded need not be.
    fn merged(&self, a: Vec<Hit>, b: Vec<Hit>, r: usize, codes: &[u8], query: &[f32]) -> Result<Vec<Hit>> {
        if a.is_empty() {
            return Ok(b);
        }
        let code = |hit: &Hit| &codes[hit.id as usize * self.code_size()..][..self.code_size()];
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        let mut merged = Vec::with_capacity(r.min(a.len() + b.len()));
        while merged.len() < r {
            let next = match (a.peek(), b.peek()) {
                (Some(of_a), Some(of_b)) => {
                    let order = match of_a.sq_distance.total_cmp(&of_b.sq_distance) {
                        Ordering::Equal if code(of_a) != code(of_b) => {
                            let (left, right) = (self.decode(code(of_a))?, self.decode(code(of_b))?);
                            nearer(query, left.as_slice(), right.as_slice())
                        }
                        order => order,
                    };
                    if order == Ordering::Greater { b.next() } else { a.next() }
                }
                (Some(_), None) => a.next(),
                (None, _) => b.next(),
            };
            match next {
                Some(hit) => merged.push(hit),
                None => break,
            }
        }
        Ok(merged)
    }
}

/// An error about decoded vectors.
fn of_sums(op: &'static str, error: Error) -> Error {
    let way_out = "scale the codewords down: their sum is beyond f32";
    match error {
        Error::NonFinite { row, col, got, .. } => Error::NonFinite { op, what: "code", row, col, got, way_out },
        error => error,
    }
}
