//! Lloyd's iteration: label every row, move every codeword to the mean of its rows, again.

use super::farthest::farthest;
use super::labels::{Labels, Moves, label};
use super::stop::{Observe, Stop};
use super::{KMeans, KMeansState, Problem, SourceFit, Step};
use crate::backend::AssignStats;
use crate::backend::carried::Carried;
use crate::backend::training::Means;
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::Result;
use crate::matrix::Matrix;

/// Iterates from `state` until the parameters say that it is enough.
pub(super) fn lloyd(
    params: &KMeans,
    problem: &mut Problem<'_, '_>,
    run: usize,
    mut state: KMeansState,
    labels: &mut Labels,
    observe: &mut Observe<'_>,
) -> Result<SourceFit, Stop> {
    let mut all = AssignStats::default();
    // The codebook of the codewords of `state`, where it was made on the device.
    let mut ready = None;
    let held = if matches!(problem.device, Device::Cpu) { problem.source.view() } else { None };
    let mut carried = held.and_then(|x| Carried::new(params.carry, x, params.k, params.iterations));
    loop {
        let iteration = state.curve.len();
        observe(Step::Moved { run, iteration }, Some(&state))?;
        let codebook = match ready.take() {
            Some(codebook) => codebook,
            None => Codebook::new(state.codewords.view(), problem.device)?,
        };
        let tell = |rows| observe(Step::Rows { run, iteration: Some(iteration), rows }, Some(&state));
        if let Some(carried) = &mut carried {
            carried.begin(&codebook, params.iterations.saturating_sub(iteration));
        }
        // The last pass moves nothing.
        let pass = label(problem, &codebook, iteration < params.iterations, labels, carried.as_mut(), tell)?;
        all += pass.stats;
        let (inertia, before) = (pass.inertia, state.curve.last().copied());
        observe(Step::Iteration { run, iteration, inertia, before }, Some(&state))?;
        state.curve.push(inertia);
        // A tolerance of 0 leaves that to the codewords: an inertia may be too large to show a gain. Written so that an
        // inertia beyond f64 does not end it.
        let gains_little = |before: f64| inertia >= before - params.tolerance * before;
        let mut converged = params.tolerance > 0.0 && before.is_some_and(gains_little);
        if let (false, Some(moves)) = (converged, pass.moves) {
            let next;
            (next, ready) = moved(problem, &codebook, &state.codewords, moves, labels)?;
            if next != state.codewords {
                state.codewords = next;
                continue;
            }
            converged = true;
        }
        return Ok(SourceFit {
            codebook,
            counts: pass.counts,
            inertia,
            curve: state.curve,
            converged,
            run,
            stats: all,
        });
    }
}

/// The mean of the rows of every codeword; the farthest rows in place of codewords that have none. With its codebook, where
/// that is there already.
fn moved(
    problem: &mut Problem<'_, '_>,
    codebook: &Codebook,
    codewords: &Matrix<f32>,
    moves: Moves,
    labels: &mut Labels,
) -> Result<(Matrix<f32>, Option<Codebook>), Stop> {
    let (k, d) = (codewords.rows(), codewords.cols());
    let (mut moved, dead) = match moves {
        Moves::Means(Means::Next(next)) => {
            let codewords = next.codewords()?;
            let rows = (0..k).flat_map(|j| codewords.row(j)).copied().collect();
            return Ok((Matrix::new(rows, k, d)?, Some(next)));
        }
        Moves::Means(Means::Same) => return Ok((codewords.clone(), None)),
        Moves::Means(Means::Dead { means, dead }) => (means, dead),
        Moves::Sums(sums) => {
            let mut moved = codewords.as_slice().to_vec();
            let of_codewords = moved.chunks_exact_mut(d).enumerate();
            let dead = of_codewords.filter_map(|(j, mean)| (!sums.mean_into(j, mean)).then_some(j)).collect();
            (moved, dead)
        }
    };
    if !dead.is_empty() {
        for (&j, row) in dead.iter().zip(farthest(problem, codebook, labels, dead.len(), &moved)?) {
            moved[j * d..][..d].copy_from_slice(&row);
        }
    }
    Ok((Matrix::new(moved, k, d)?, None))
}
