//! Mini-batch k-means: every step looks at a few rows only.

use super::labels::{Labels, assign, label};
use super::random::Random;
use super::stop::{Observe, Stop};
use super::{KMeans, KMeansState, Problem, SourceFit, Step, Weights};
use crate::backend::AssignStats;
use crate::codebook::Codebook;
use crate::error::Result;
use crate::matrix::{Element, Matrix, MatrixView};

/// Moves the codewords by all batches, then labels every row once.
pub(super) fn minibatch(
    params: &KMeans,
    batch: usize,
    problem: &mut Problem<'_, '_>,
    run: usize,
    mut state: KMeansState,
    labels: &mut Labels,
    observe: &mut Observe<'_>,
) -> Result<SourceFit, Stop> {
    let (n, d, weights) = (problem.source.rows(), problem.source.cols(), problem.weights);
    let (mut of_batch, mut all) = (Labels::new(batch, true)?, AssignStats::default());
    loop {
        let iteration = state.curve.len();
        observe(Step::Moved { run, iteration }, Some(&state))?;
        let codebook = Codebook::new(state.codewords.view(), problem.device)?;
        let before = state.curve.last().copied();
        if iteration >= params.iterations {
            let tell = |rows| observe(Step::Rows { run, iteration: Some(iteration), rows }, Some(&state));
            let pass = label(problem, &codebook, false, labels, None, tell)?;
            all += pass.stats;
            let inertia = pass.inertia;
            observe(Step::Iteration { run, iteration, inertia, before }, Some(&state))?;
            state.curve.push(inertia);
            let (counts, curve) = (pass.counts, state.curve);
            return Ok(SourceFit { codebook, counts, inertia, curve, converged: false, run, stats: all });
        }
        // A stream for every batch, so that a run can go on from any of them.
        let mut random = Random::new(params.seed, (run as u64).wrapping_add((iteration as u64 + 1) << 32));
        let mut rows: Vec<usize> = (0..batch).map(|_| random.below(n as u64) as usize).collect();
        rows.sort_unstable();
        let x = problem.source.finite_rows_at(&rows)?;
        let (labels, sq_distances) = of_batch.of(0..batch);
        all += assign(f32::any(MatrixView::new(&x, batch, d)?), 0, &codebook, labels, sq_distances)?;
        // What the sum over all rows would be if they were like these.
        let shares = rows.iter().zip(&*sq_distances).map(|(&i, &sq_distance)| weights.share(i, sq_distance));
        let inertia = shares.fold(0.0, |sum, share| sum + share) * (n as f64 / batch as f64);
        observe(Step::Iteration { run, iteration, inertia, before }, Some(&state))?;
        state.curve.push(inertia);
        state.codewords = moved(&state.codewords, &mut state.weights, &x, &rows, labels, weights)?;
    }
}

/// The codewords after a batch (Sculley 2010, algorithm 1): for each of its rows, in their order, v += w, eta = w / v and
/// e = (1 - eta) e + eta z, where v is the weight of all rows that the codeword has seen. Each operation is rounded to
/// f64, the codeword to f32 after the batch.
fn moved(
    codewords: &Matrix<f32>,
    seen: &mut [f64],
    x: &[f32],
    rows: &[usize],
    labels: &[u32],
    weights: Weights<'_>,
) -> Result<Matrix<f32>> {
    let (k, d) = (codewords.rows(), codewords.cols());
    let mut wide: Vec<f64> = codewords.as_slice().iter().map(|&value| value.into()).collect();
    for ((&i, z), &label) in rows.iter().zip(x.chunks_exact(d)).zip(labels) {
        let (weight, j) = (weights.weight(i), label as usize);
        if weight == 0.0 {
            continue;
        }
        seen[j] += weight;
        let eta = weight / seen[j];
        for (e, &z) in wide[j * d..][..d].iter_mut().zip(z) {
            *e = (1.0 - eta) * *e + eta * f64::from(z);
        }
    }
    Matrix::new(wide.iter().map(|&value| value as f32).collect(), k, d)
}
