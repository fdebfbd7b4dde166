//! Nearest codeword of every row: filter pass, certificate, another look where it fails, rounded distance.

use super::blocks::{BLOCK_FLOATS, FirstBad, block_rows};
use super::exact::{ExactSum, round_sq_l2};
use super::filter::Best;
use super::look::{Look, Tier};
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use crate::backend::{AssignOptions, AssignStats, Precision, SENTINEL};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Assigns all rows of `x`. `labels` and `sq_distances` have one value per row.
///
/// Returns the first row that holds a NaN or an infinity, unless the options ask for sentinels.
pub(crate) fn assign<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    panels: &Panels,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<AssignStats, usize> {
    let block = block_rows(panels);
    let first_bad = FirstBad::new(options.non_finite);
    let stats = labels
        .par_chunks_mut(block)
        .zip(sq_distances.par_chunks_mut(block))
        .enumerate()
        .map_init(Workspace::default, |workspace, (i, (labels, sq_distances))| {
            let start = i * block;
            if first_bad.settles(start) {
                return AssignStats::default();
            }
            let x = x.block(start..start + labels.len());
            let job = Job { x, codewords, panels, precision: options.precision };
            let (stats, bad) = workspace.assign(&job, labels, sq_distances);
            if let Some(bad) = bad {
                first_bad.report(start + bad);
            }
            stats
        })
        .reduce(AssignStats::default, |a, b| a + b);
    first_bad.or(stats)
}

struct Job<'a, T> {
    x: MatrixView<'a, T>,
    codewords: MatrixView<'a, f32>,
    panels: &'a Panels,
    precision: Precision,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    state: Vec<f32>,
    again: Vec<(usize, f64)>,
    tile: Vec<f32>,
    scores: Vec<f32>,
    look: Look,
    wide: Vec<f32>,
}

impl Workspace {
    /// One block. Returns the first row that is not finite, which got sentinels.
    fn assign<T: Element>(
        &mut self,
        job: &Job<'_, T>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> (AssignStats, Option<usize>) {
        let panels = job.panels;
        let mut stats = AssignStats::default();
        let score = match job.precision {
            Precision::Exact => Score::LowerBound,
            Precision::Fast => Score::Plain,
        };
        self.rows.pack(job.x, panels, score);
        let bad = self.rows.kinds.iter().position(|&kind| kind == RowKind::NonFinite);
        self.again.clear();
        if panels.len() > 1 {
            self.filter(panels);
            for (i, label) in labels.iter_mut().enumerate() {
                match self.rows.kinds[i] {
                    RowKind::NonFinite => {}
                    RowKind::Wild => self.again.push((i, f64::INFINITY)),
                    RowKind::Packed => {
                        let best = self.best(panels, i);
                        *label = panels.labels[best.position];
                        let upper = panels.upper(best.position, best.score, self.rows.norms[i], self.rows.ratios[i]);
                        // Written so that a NaN is not certified. No rival at all is minus infinity.
                        let certified = best.runner_up == f32::NEG_INFINITY || panels.lower(best.runner_up) > upper;
                        if job.precision == Precision::Exact && !certified {
                            self.again.push((i, upper));
                        }
                    }
                }
            }
            self.look_again(job, labels, &mut stats);
        } else {
            labels.fill(panels.labels[0]);
        }
        let bad_rows = self.rows.kinds.iter().filter(|&&kind| kind == RowKind::NonFinite).count();
        stats.first = (labels.len() - self.again.len() - bad_rows) as u64;
        self.distances(job, labels, sq_distances);
        (stats, bad)
    }

    /// Runs every panel past every tile; the panels of a run stay in the cache.
    fn filter(&mut self, panels: &Panels) {
        let kernels = panels.kernels;
        let per_tile = kernels.rows * kernels.state_len();
        self.state.resize(self.rows.tiles().len() * per_tile, 0.0);
        kernels.reset(&mut self.state);
        for (first, run) in panels.runs(BLOCK_FLOATS) {
            for (tile, state) in self.rows.tiles().zip(self.state.chunks_exact_mut(per_tile)) {
                kernels.best(tile, run, panels.depth(), first, state);
            }
        }
    }

    fn best(&self, panels: &Panels, i: usize) -> Best {
        let len = panels.kernels.state_len();
        panels.kernels.read(&self.state[i * len..(i + 1) * len])
    }

    /// Settles the rows of `self.again`, tile by tile: the scores once more, now all of them, give the candidates.
    fn look_again<T: Element>(&mut self, job: &Job<'_, T>, labels: &mut [u32], stats: &mut AssignStats) {
        let panels = job.panels;
        let (kernels, depth, stride) = (panels.kernels, panels.depth(), panels.padded_len());
        self.tile.resize(kernels.rows * depth, 0.0);
        self.scores.resize(if self.again.is_empty() { 0 } else { kernels.rows * stride }, 0.0);
        for group in self.again.chunks(kernels.rows) {
            for (to, &(i, _)) in group.iter().enumerate() {
                self.rows.copy_column(i, kernels.rows, &mut self.tile, to);
            }
            if group.iter().any(|&(i, _)| self.rows.kinds[i] == RowKind::Packed) {
                kernels.scores(&self.tile, panels.all(), depth, &mut self.scores, stride);
            }
            for (&(i, upper), scores) in group.iter().zip(self.scores.chunks_exact(stride)) {
                let candidates = &mut self.look.candidates;
                candidates.clear();
                match self.rows.kinds[i] {
                    RowKind::Packed => {
                        let threshold = panels.threshold(upper);
                        let scores = scores[..panels.len()].iter().zip(&panels.labels);
                        candidates.extend(scores.filter(|&(&score, _)| score >= threshold).map(|(_, &label)| label));
                    }
                    _ => candidates.extend_from_slice(&panels.labels),
                }
                let z = T::as_f32(job.x.row(i), &mut self.wide);
                let (label, tier) = self.look.nearest(kernels, z, |j| job.codewords.row(j as usize));
                labels[i] = label;
                match tier {
                    Tier::Second => stats.second += 1,
                    Tier::F64 => stats.f64 += 1,
                    Tier::Exact => stats.exact += 1,
                }
            }
        }
    }

    /// The rounded distance of every row to its codeword.
    fn distances<T: Element>(&mut self, job: &Job<'_, T>, labels: &mut [u32], sq_distances: &mut [f32]) {
        let sum: &mut ExactSum = &mut self.look.sum;
        for (i, (label, sq_distance)) in labels.iter_mut().zip(sq_distances).enumerate() {
            if self.rows.kinds[i] == RowKind::NonFinite {
                (*label, *sq_distance) = (SENTINEL, f32::NAN);
                continue;
            }
            let (z, e) = (T::as_f32(job.x.row(i), &mut self.wide), job.codewords.row(*label as usize));
            *sq_distance = round_sq_l2(z, e, job.panels.kernels.sq_l2_f64(z, e), sum);
        }
    }
}
