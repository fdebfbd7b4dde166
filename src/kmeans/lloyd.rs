//! Lloyd's iteration: label every row, move every codeword to the mean of its rows, again.

use super::{KMeans, KMeansFit, Problem, Step};
use crate::backend::{AssignOptions, AssignStats, Assignment, Sums, accumulate, assign_into};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix};
use crate::metrics::ordered_sum;

/// Iterates from `codewords` until the parameters say that it is enough.
pub(super) fn lloyd<T: Element, E: From<Error>>(
    params: &KMeans,
    problem: &Problem<'_, T>,
    run: usize,
    mut codewords: Matrix<f32>,
    device: &Device,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<KMeansFit, E> {
    let (n, d) = (problem.x.rows(), problem.x.cols());
    let (mut labels, mut sq_distances) = (vec![0; n], vec![0.0; n]);
    let (mut curve, mut all): (Vec<f64>, _) = (Vec::new(), AssignStats::default());
    loop {
        let codebook = Codebook::new(codewords.view(), device)?;
        let stats = assign_into(problem.x, &codebook, AssignOptions::default(), &mut labels, &mut sq_distances)?;
        all += stats;
        let inertia = ordered_sum(d, (0..n).map(|i| problem.share(i, &sq_distances)));
        let before = curve.last().copied();
        curve.push(inertia);
        let iteration = curve.len() - 1;
        observe(Step::Iteration { run, iteration, inertia, before })?;
        // Written so that an inertia beyond f64 does not end it.
        let mut converged = before.is_some_and(|before| inertia >= before - params.tolerance * before);
        if !converged && iteration < params.iterations {
            let next = moved(problem, &codewords, &labels, &sq_distances)?;
            if next != codewords {
                codewords = next;
                continue;
            }
            converged = true;
        }
        let assignment = Assignment { labels, sq_distances, stats };
        return Ok(KMeansFit { codebook, assignment, inertia, curve, converged, run, stats: all });
    }
}

/// The mean of the rows of every codeword; the farthest rows in place of codewords that have none.
fn moved<T: Element>(
    problem: &Problem<'_, T>,
    codewords: &Matrix<f32>,
    labels: &[u32],
    sq_distances: &[f32],
) -> Result<Matrix<f32>> {
    let d = codewords.cols();
    let sums: Sums = accumulate(problem.x, labels, problem.weights, problem.k)?;
    let mut moved = codewords.as_slice().to_vec();
    let dead = moved.chunks_exact_mut(d).enumerate().filter_map(|(j, mean)| (!sums.mean_into(j, mean)).then_some(mean));
    let dead: Vec<&mut [f32]> = dead.collect();
    let rows = farthest(problem, sq_distances, dead.len());
    for (codeword, row) in dead.into_iter().zip(rows) {
        T::widen(problem.x.row(row), codeword);
    }
    Matrix::new(moved, problem.k, d)
}

/// The `count` rows that have the largest shares in the inertia, the largest first, equal ones by index; fewer where
/// fewer have any.
fn farthest<T: Element>(problem: &Problem<'_, T>, sq_distances: &[f32], count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let shares = (0..sq_distances.len()).map(|i| (problem.share(i, sq_distances), i));
    let mut shares: Vec<(f64, usize)> = shares.filter(|&(share, _)| share > 0.0).collect();
    let farther = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if count < shares.len() {
        shares.select_nth_unstable_by(count, farther);
        shares.truncate(count);
    }
    shares.sort_unstable_by(farther);
    shares.into_iter().map(|(_, i)| i).collect()
}
