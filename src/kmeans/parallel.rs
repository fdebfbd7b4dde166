//! The start of k-means||: few passes, each of which picks many rows at once.

use super::init::{pick, plus_plus, total};
use super::labels::{Labels, assign, filled};
use super::random::Random;
use super::source::{RowSource, len};
use super::stop::Stop;
use super::{OP, Problem, Step};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Matrix, MatrixView};

/// Passes that pick candidates.
const ROUNDS: usize = 5;

/// k-means|| (Bahmani et al. 2012, algorithm 2, with l = 2k and 5 rounds): a first row by weight; then, round by round,
/// every row with probability min(1, l share / sum of shares), its share being weight times the squared distance to the
/// nearest candidate of the rounds before. The candidates, weighed by the rows nearest to them, are thinned to k by
/// k-means++.
pub(super) fn parallel(
    problem: &mut Problem<'_, '_>,
    sketch: bool,
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
) -> Result<Matrix<f32>, Stop> {
    let (n, d, k, weights) = (problem.source.rows(), problem.source.cols(), problem.k, problem.weights);
    let (mut nearest, mut owner) = (filled(n, f32::INFINITY)?, filled(n, 0u32)?);
    let first = pick(n, |i| weights.weight(i), random.unit());
    // Some row weighs something: that was checked.
    let mut candidates = problem.source.finite_rows_at(&[first.unwrap_or(0)])?;
    let (mut labels, mut compared) = (Labels::new(n, false)?, 0);
    for round in 0..=ROUNDS {
        let Ok(base) = u32::try_from(compared / d) else {
            let (expected, got) = ("fewer than 2^32 candidates".into(), (compared / d).to_string());
            return Err(Stop::Error(Error::InvalidParameter { op: OP, name: "k", expected, got }));
        };
        let new = &candidates[compared..];
        let codebook = Codebook::new(MatrixView::new(new, new.len() / d, d)?, problem.device)?;
        problem.source.each_block(|first, x| {
            let rows = first..first + len(x);
            let (labels, sq_distances) = labels.of(rows.clone());
            assign(x, first, &codebook, labels, sq_distances)?;
            for (i, (&label, &sq_distance)) in rows.clone().zip(labels.iter().zip(&*sq_distances)) {
                // A distance beyond f32 counts as the largest. Equally near candidates: the one that was there before.
                let sq_distance = sq_distance.min(f32::MAX);
                if sq_distance < nearest[i] {
                    (nearest[i], owner[i]) = (sq_distance, base.saturating_add(label));
                }
            }
            observe(Step::Rows { run, iteration: None, rows: rows.end })
        })?;
        compared = candidates.len();
        if round == ROUNDS {
            break;
        }
        let share = |i: usize| weights.share(i, nearest[i]);
        let (sum, l) = (total(n, share), 2.0 * k as f64);
        // A number is drawn for every row, whatever its share. Rows without one are never picked.
        let picked: Vec<usize> = (0..n).filter(|&i| random.unit() * sum < l * share(i)).collect();
        if picked.is_empty() {
            break;
        }
        candidates.extend(problem.source.finite_rows_at(&picked)?);
    }
    let mut of_candidates = vec![0.0; candidates.len() / d];
    owner.iter().enumerate().for_each(|(i, &owner)| of_candidates[owner as usize] += weights.weight(i));
    let mut source: RowSource<'_, Stop> = RowSource::held(MatrixView::new(&candidates, of_candidates.len(), d)?);
    plus_plus(&mut source, |j| of_candidates[j], (k, sketch), run, random, observe)
}
