//! A pass that labels every row.

use super::source::{at_row, len};
use super::stop::Stop;
use super::{OP, Problem};
use crate::backend::carried::Carried;
use crate::backend::training::Means;
use crate::backend::{AssignOptions, AssignStats, Assignment, Sums, accumulate_onto, assign_into};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{AnyView, on_view};
use crate::metrics::OrderedSum;
use std::ops::Range;

/// Rows whose labels and distances come from the device at a time.
const RESULTS: usize = 1 << 18;

/// Labels and distances: of all rows where these are in memory, else of the block at hand.
pub(super) struct Labels {
    pub all: bool,
    labels: Vec<u32>,
    sq_distances: Vec<f32>,
    /// Of the last pass.
    stats: AssignStats,
}

/// A value for each of `n` rows, of which a source may claim more than there is memory for.
pub(super) fn filled<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    if values.try_reserve_exact(n).is_err() {
        let expected = "as many vectors as there is memory for a number each".into();
        return Err(Error::Shape { op: OP, expected, got: n.to_string() });
    }
    values.resize(n, value);
    Ok(values)
}

/// What a pass adds up.
pub(super) struct Pass {
    pub inertia: f64,
    /// Rows of each label.
    pub counts: Vec<u64>,
    pub stats: AssignStats,
    pub moves: Option<Moves>,
}

/// What tells where codewords move.
pub(super) enum Moves {
    Sums(Sums),
    /// Of rows on the device.
    Means(Means),
}

impl Labels {
    /// Of all `n` rows, or of blocks of them.
    pub fn new(n: usize, all: bool) -> Result<Labels> {
        let held = if all { n } else { 0 };
        let (labels, sq_distances) = (filled(held, 0)?, filled(held, 0.0)?);
        Ok(Labels { all, labels, sq_distances, stats: AssignStats::default() })
    }

    /// Those of some rows. Of a block, whatever the block before left there.
    pub fn of(&mut self, rows: Range<usize>) -> (&mut [u32], &mut [f32]) {
        let range = if self.all { rows } else { 0..rows.len() };
        if self.labels.len() < range.end {
            self.labels.resize(range.end, 0);
            self.sq_distances.resize(range.end, 0.0);
        }
        (&mut self.labels[range.clone()], &mut self.sq_distances[range])
    }

    /// Those of the last pass.
    pub fn into_assignment(self) -> Assignment {
        Assignment { labels: self.labels, sq_distances: self.sq_distances, stats: self.stats }
    }
}

/// Labels every row, with what is `carried` from the passes before, and finds out where codewords move where `with_moves` asks
/// for it. `tell` hears how many are done after every block.
pub(super) fn label(
    problem: &mut Problem<'_, '_>,
    codebook: &Codebook,
    with_moves: bool,
    labels: &mut Labels,
    mut carried: Option<&mut Carried<'_>>,
    mut tell: impl FnMut(usize) -> Result<(), Stop>,
) -> Result<Pass, Stop> {
    let (k, d, weights) = (codebook.k(), codebook.d(), problem.weights);
    let (mut inertia, mut counts, mut stats) = (OrderedSum::new(d), vec![0; k], AssignStats::default());
    if let Some(on_device) = &mut problem.on_device {
        let (n, stats) = (problem.source.rows(), on_device.assign(codebook)?);
        for first in (0..n).step_by(RESULTS) {
            let rows = first..n.min(first + RESULTS);
            let (of_rows, sq_distances) = labels.of(rows.clone());
            on_device.results(first, of_rows, sq_distances)?;
            for ((i, &label), &sq_distance) in rows.zip(&*of_rows).zip(&*sq_distances) {
                counts[label as usize] += 1;
                inertia.add(weights.share(i, sq_distance));
            }
        }
        let means = with_moves.then(|| on_device.means(codebook)).transpose()?;
        tell(n)?;
        labels.stats = stats;
        return Ok(Pass { inertia: inertia.total(), counts, stats, moves: means.map(Moves::Means) });
    }
    let mut sums = with_moves.then(|| Sums::zero(k, d));
    problem.source.each_block(|first, x| {
        let rows = first..first + len(x);
        let (labels, sq_distances) = labels.of(rows.clone());
        let by_bounds = carried.as_mut().and_then(|carried| carried.assign(x, first, codebook, labels, sq_distances));
        stats += match by_bounds {
            Some(stats) => stats,
            None => assign(x, first, codebook, labels, sq_distances)?,
        };
        if let (None, Some(carried)) = (by_bounds, &mut carried) {
            carried.keep(first, labels);
        }
        let (labels, sq_distances) = (&*labels, &*sq_distances);
        let count = || {
            for ((i, &label), &sq_distance) in rows.clone().zip(labels).zip(sq_distances) {
                counts[label as usize] += 1;
                inertia.add(weights.share(i, sq_distance));
            }
        };
        let add_up = || match &mut sums {
            Some(sums) => accumulate_onto(sums, x, labels, weights.0.map(|weights| &weights[rows.clone()])),
            None => Ok(()),
        };
        // One goes through the rows in their order, the other sorts them first: neither keeps more than a thread busy.
        rayon::join(count, add_up).1?;
        tell(rows.end)
    })?;
    labels.stats = stats;
    Ok(Pass { inertia: inertia.total(), counts, stats, moves: sums.map(Moves::Sums) })
}

/// Labels a block that starts at row `first`.
pub(super) fn assign(
    x: AnyView<'_>,
    first: usize,
    codebook: &Codebook,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<AssignStats> {
    let options = AssignOptions::default();
    on_view!(x, x => assign_into(x, codebook, options, labels, sq_distances)).map_err(|error| at_row(error, first))
}
