//! Beam search through the stages of a residual quantizer.

use super::residual::subtract;
use crate::backend::{AssignOptions, checked_len, top_k};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// The sums kept for each of some vectors, the nearest first.
pub(super) struct Beam {
    n: usize,
    d: usize,
    widest: usize,
    /// Sums kept for each vector so far.
    kept: usize,
    /// Stages so far.
    stages: usize,
    /// What each sum leaves of its vector, `[n, kept, d]`.
    left: Vec<f32>,
    /// The numbers of its codewords, `[n, kept, stages]`.
    numbers: Vec<u32>,
}

impl Beam {
    /// Of the rows of `x`: nothing is taken off them yet.
    pub fn new<T: Element>(x: MatrixView<'_, T>, widest: usize) -> Beam {
        let (n, d) = (x.rows(), x.cols());
        let mut left = vec![0.0; n * d];
        x.widen_into(&mut left);
        Beam { n, d, widest, kept: 1, stages: 0, left, numbers: Vec::new() }
    }

    /// One stage more. Of the last one only the nearest sum is kept. An error names the vector whose residual is not finite.
    pub fn extend(&mut self, codebook: &Codebook, last: bool) -> Result<()> {
        let (n, d, kept, stages) = (self.n, self.d, self.kept, self.stages);
        let left = MatrixView::new(&self.left, checked_len("beam search", n, kept)?, d)?;
        let r = if last { 1 } else { self.widest.min(codebook.k()) };
        let nearest = top_k(left, codebook, r, AssignOptions::default()).map_err(|error| match error {
            Error::NonFinite { op, what, row, col, got, way_out } => {
                Error::NonFinite { op, what, row: row / kept, col, got, way_out }
            }
            error => error,
        })?;
        let keep = if last { 1 } else { self.widest.min(kept * r) };

        // For each vector the nearest of its `kept` r new sums: where they come from and what is taken off.
        let mut chosen = vec![(0u32, 0u32); n * keep];
        let of_vectors = nearest.sq_distances.par_chunks(kept * r).zip(nearest.labels.par_chunks(kept * r));
        chosen.par_chunks_mut(keep).zip(of_vectors).for_each_init(
            Vec::new,
            |order, (chosen, (sq_distances, labels))| {
                order.clear();
                order.extend(0..sq_distances.len());
                // Of one sum the next codewords come in order, those of equal distance by index.
                let by_distance = |&a: &usize, &b: &usize| sq_distances[a].total_cmp(&sq_distances[b]).then(a.cmp(&b));
                if keep < order.len() {
                    order.select_nth_unstable_by(keep - 1, by_distance);
                    order.truncate(keep);
                }
                order.sort_unstable_by(by_distance);
                chosen.iter_mut().zip(order).for_each(|(chosen, at)| *chosen = ((*at / r) as u32, labels[*at]));
            },
        );

        let mut numbers = vec![0; n * keep * (stages + 1)];
        let mut next = vec![0.0; if last { 0 } else { checked_len("beam search", n * keep, d)? }];
        let labels: Vec<u32> = chosen.iter().map(|&(_, label)| label).collect();
        for (at, (&(from, label), numbers)) in chosen.iter().zip(numbers.chunks_exact_mut(stages + 1)).enumerate() {
            let from = at / keep * kept + from as usize;
            numbers[..stages].copy_from_slice(&self.numbers[from * stages..][..stages]);
            numbers[stages] = label;
        }
        if !last {
            next.par_chunks_exact_mut(d).zip(chosen.par_iter()).enumerate().for_each(|(at, (to, &(from, _)))| {
                to.copy_from_slice(&self.left[(at / keep * kept + from as usize) * d..][..d]);
            });
            subtract(&mut next, &labels, codebook)?;
        }
        (self.left, self.numbers, self.kept, self.stages) = (next, numbers, keep, stages + 1);
        Ok(())
    }

    /// The numbers of the nearest sums, stage after stage, `[stages, n]`.
    pub fn columns(&self, m: usize) -> Vec<u32> {
        let of_vector = |i: usize| &self.numbers[i * self.kept * self.stages..][..self.stages];
        (0..m).flat_map(|s| (0..self.n).map(move |i| of_vector(i)[s])).collect()
    }
}
