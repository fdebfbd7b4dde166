//! Lloyd's iteration: label every row, move every codeword to the mean of its rows, again.

use super::{KMeans, KMeansFit, Problem, Step};
use crate::backend::training::{Means, Training};
use crate::backend::{AssignStats, Assignment};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix};
use crate::metrics::ordered_sum;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

/// Iterates from `codewords` over `rows`, those of the problem, until the parameters say that it is enough.
pub(super) fn lloyd<T: Element, E: From<Error>>(
    params: &KMeans,
    problem: &Problem<'_, T>,
    rows: &mut Training<'_, T>,
    run: usize,
    codewords: Matrix<f32>,
    device: &Device,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<KMeansFit, E> {
    let (n, d) = (problem.x.rows(), problem.x.cols());
    let mut sq_distances = vec![0.0; n];
    let (mut curve, mut all): (Vec<f64>, _) = (Vec::new(), AssignStats::default());
    let mut codebook = Codebook::new(codewords.view(), device)?;
    drop(codewords);
    loop {
        let stats = rows.assign(&codebook, &mut sq_distances)?;
        all += stats;
        let inertia = ordered_sum(d, (0..n).map(|i| problem.share(i, &sq_distances)));
        let before = curve.last().copied();
        curve.push(inertia);
        let iteration = curve.len() - 1;
        observe(Step::Iteration { run, iteration, inertia, before })?;
        // A tolerance of 0 leaves that to the codewords: an inertia may be too large to show a gain. Written so that an
        // inertia beyond f64 does not end it.
        let gains_little = |before: f64| inertia >= before - params.tolerance * before;
        let mut converged = params.tolerance > 0.0 && before.is_some_and(gains_little);
        if !converged && iteration < params.iterations {
            if let Some(next) = moved(problem, rows, &codebook, &sq_distances)? {
                codebook = next;
                continue;
            }
            converged = true;
        }
        let assignment = Assignment { labels: rows.take_labels()?, sq_distances, stats };
        return Ok(KMeansFit { codebook, assignment, inertia, curve, converged, run, stats: all });
    }
}

/// The mean of the rows of every codeword; the farthest rows in place of codewords that have none. Nothing where all
/// codewords stay.
fn moved<T: Element>(
    problem: &Problem<'_, T>,
    rows: &mut Training<'_, T>,
    codebook: &Codebook,
    sq_distances: &[f32],
) -> Result<Option<Codebook>> {
    let d = codebook.d();
    let (mut moved, dead) = match rows.means(codebook)? {
        Means::Host { means, dead } => (means, dead),
        #[cfg(feature = "cuda")]
        Means::Cuda(next) => return Ok(next),
    };
    if !dead.is_empty() {
        for (&j, row) in dead.iter().zip(farthest(problem, sq_distances, dead.len(), &moved)) {
            T::widen(problem.x.row(row), &mut moved[j * d..][..d]);
        }
    }
    let (moved, codewords) = (Matrix::new(moved, problem.k, d)?, codebook.codewords()?);
    match (0..problem.k).all(|j| moved.view().row(j) == codewords.row(j)) {
        true => Ok(None),
        false => Codebook::new(moved.view(), codebook.device()).map(Some),
    }
}

/// The `count` rows that have the largest shares in the inertia, the largest first, equal ones by index, without those
/// that equal one before them or one of `codewords`; fewer where there are no more.
fn farthest<T: Element>(problem: &Problem<'_, T>, sq_distances: &[f32], count: usize, codewords: &[f32]) -> Vec<usize> {
    // Zeros of either sign are equal.
    let key = |values: &[f32]| values.iter().map(|value| (value + 0.0).to_bits()).collect::<Vec<u32>>();
    let mut taken: HashSet<Vec<u32>> = codewords.chunks_exact(problem.x.cols()).map(key).collect();
    let mut shares = Vec::with_capacity(sq_distances.len());
    // Positive numbers are in the order of their bits.
    shares.extend((0..sq_distances.len()).map(|i| (problem.share(i, sq_distances).to_bits(), Reverse(i))));
    let mut shares = BinaryHeap::from(shares);
    let (mut rows, mut values) = (Vec::with_capacity(count), Vec::new());
    while rows.len() < count {
        match shares.pop() {
            Some((share, Reverse(i))) if f64::from_bits(share) > 0.0 => {
                if taken.insert(key(T::as_f32(problem.x.row(i), &mut values))) {
                    rows.push(i);
                }
            }
            _ => break,
        }
    }
    rows
}
