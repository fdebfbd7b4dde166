//! The r nearest codewords of every row, by the same bounds as [`super::assign`].

use super::blocks::{FirstBad, block_rows};
use super::direct::{f64_bound, f64_is_exact};
use super::exact::{self, ExactSum, round_sq_l2};
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use crate::backend::{AssignOptions, AssignStats, Precision, SENTINEL};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;
use std::cmp::Ordering;

/// Fills `[n, r]` labels and distances. Returns the first row that holds a NaN or an infinity, unless the options
/// ask for sentinels. `1 <= r <= k`.
pub(crate) fn top_k<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    panels: &Panels,
    r: usize,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<AssignStats, usize> {
    let block = block_rows(panels);
    let first_bad = FirstBad::new(options.non_finite);
    let stats = labels
        .par_chunks_mut(block * r)
        .zip(sq_distances.par_chunks_mut(block * r))
        .enumerate()
        .map_init(Workspace::default, |workspace, (i, (labels, sq_distances))| {
            let start = i * block;
            if first_bad.settles(start) {
                return AssignStats::default();
            }
            let x = x.block(start..start + labels.len() / r);
            let job = Job { x, codewords, panels, r, precision: options.precision };
            workspace.run(&job, labels, sq_distances, |bad| first_bad.report(start + bad))
        })
        .reduce(AssignStats::default, |a, b| a + b);
    first_bad.or(stats)
}

struct Job<'a, T> {
    x: MatrixView<'a, T>,
    codewords: MatrixView<'a, f32>,
    panels: &'a Panels,
    r: usize,
    precision: Precision,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    scores: Vec<f32>,
    keys: Vec<u64>,
    order: Vec<u32>,
    candidates: Vec<Candidate>,
    sum: ExactSum,
    wide: Vec<f32>,
}

struct Candidate {
    label: u32,
    /// What Fast ranks by: the negated score.
    rank: f32,
    sq_l2: f64,
}

/// Ascending keys are descending scores, ascending positions where these are equal: numbers compare in one instruction.
fn key(score: f32, position: u32) -> u64 {
    // As `f32::total_cmp`; its order of signed integers is that of unsigned ones with the sign bit turned.
    let bits = score.to_bits() as i32;
    let ascending = (bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31;
    u64::from(!ascending) << 32 | u64::from(position)
}

impl Workspace {
    fn run<T: Element>(
        &mut self,
        job: &Job<'_, T>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
        mut report_bad: impl FnMut(usize),
    ) -> AssignStats {
        let (panels, kernels) = (job.panels, job.panels.kernels);
        let stride = panels.padded_len();
        let score = match job.precision {
            Precision::Exact => Score::LowerBound,
            Precision::Fast => Score::Plain,
        };
        self.rows.pack(job.x, panels, score);
        self.scores.resize(kernels.rows * stride, 0.0);
        let mut stats = AssignStats::default();
        for t in 0..self.rows.tiles().len() {
            let tile = self.rows.tile(t);
            kernels.scores(tile, panels.all(), panels.depth(), &mut self.scores, stride);
            for row in 0..kernels.rows.min(job.x.rows() - t * kernels.rows) {
                let i = t * kernels.rows + row;
                let labels = &mut labels[i * job.r..(i + 1) * job.r];
                let sq_distances = &mut sq_distances[i * job.r..(i + 1) * job.r];
                if self.rows.kinds[i] == RowKind::NonFinite {
                    report_bad(i);
                    labels.fill(SENTINEL);
                    sq_distances.fill(f32::NAN);
                    continue;
                }
                self.select(job, i, row * stride);
                self.settle(job, i, labels, sq_distances, &mut stats);
            }
        }
        stats
    }

    /// Candidates of row `i`, whose scores start at `at`: every codeword that can be among the r nearest.
    fn select<T: Element>(&mut self, job: &Job<'_, T>, i: usize, at: usize) {
        let panels = job.panels;
        let scores = &self.scores[at..at + panels.len()];
        // With repeated codewords fewer than r distinct ones can be enough; never mind, the rest is sorted out later.
        let r = job.r.min(panels.len());
        if self.rows.kinds[i] == RowKind::Packed && r < panels.len() {
            self.keys.clear();
            self.keys.extend(scores.iter().zip(0..).map(|(&score, position)| key(score, position)));
            self.keys.select_nth_unstable(r - 1);
            self.order.clear();
            self.order.extend(self.keys[..r].iter().map(|&key| key as u32));
            if job.precision == Precision::Exact {
                // The r-th smallest score lies below the largest upper bound of any r codewords.
                let (norm, ratio) = (self.rows.norms[i], self.rows.ratios[i]);
                let upper = |&j: &u32| panels.upper(j as usize, scores[j as usize], norm, ratio);
                let limit = self.order.iter().map(upper).fold(f64::NEG_INFINITY, f64::max);
                let threshold = panels.threshold(limit);
                self.order.clear();
                self.order.extend((0..).zip(scores).filter(|&(_, &score)| score >= threshold).map(|(j, _)| j));
            }
        } else {
            self.order.clear();
            self.order.extend(0..panels.len() as u32);
        }
        let z = T::as_f32(job.x.row(i), &mut self.wide);
        self.candidates.clear();
        for &position in &self.order {
            let codeword = job.codewords.row(panels.labels[position as usize] as usize);
            let (sq_l2, rank) = (panels.kernels.sq_l2_f64(z, codeword), -scores[position as usize]);
            // In Fast, a wild row has no usable scores.
            let rank = if self.rows.kinds[i] == RowKind::Packed { rank } else { sq_l2 as f32 };
            self.candidates.extend(panels.twins(position as usize).map(|label| Candidate { label, rank, sq_l2 }));
        }
    }

    /// Sorts the candidates and writes the first r.
    fn settle<T: Element>(
        &mut self,
        job: &Job<'_, T>,
        i: usize,
        labels: &mut [u32],
        sq_distances: &mut [f32],
        stats: &mut AssignStats,
    ) {
        let Workspace { candidates, sum, wide, .. } = self;
        let z = T::as_f32(job.x.row(i), wide);
        let codeword = |label: u32| job.codewords.row(label as usize);
        let mut exact_used = false;
        let bound = 2.0 * f64_bound(z.len());
        let apart = |a: &Candidate, b: &Candidate| (a.sq_l2 - b.sq_l2).abs() > bound * (a.sq_l2 + b.sq_l2);
        // Neighbours that are apart leave no other two that are not.
        candidates.sort_unstable_by(|a, b| a.sq_l2.total_cmp(&b.sq_l2));
        let f64_decides = candidates.is_sorted_by(apart) || {
            let largest = candidates.last().map_or(0.0, |last| last.sq_l2) * (1.0 + bound);
            f64_is_exact(z, candidates.iter().map(|candidate| codeword(candidate.label)), largest)
        };
        let mut compare = |a: &Candidate, b: &Candidate| match job.precision {
            Precision::Fast => a.rank.total_cmp(&b.rank).then(a.label.cmp(&b.label)),
            Precision::Exact => {
                let order = if f64_decides || apart(a, b) {
                    a.sq_l2.total_cmp(&b.sq_l2)
                } else if a.sq_l2 == 0.0 || codeword(a.label) == codeword(b.label) {
                    // Both zero, or repetitions of one codeword.
                    Ordering::Equal
                } else {
                    exact_used = true;
                    exact::compare(z, codeword(a.label), codeword(b.label), sum)
                };
                order.then(a.label.cmp(&b.label))
            }
        };
        if labels.len() < candidates.len() {
            candidates.select_nth_unstable_by(labels.len(), &mut compare);
        }
        candidates[..labels.len()].sort_unstable_by(compare);
        match (job.precision, exact_used, candidates.len() > labels.len()) {
            (Precision::Fast, ..) | (_, false, false) => stats.first += 1,
            (_, false, true) => stats.f64 += 1,
            (_, true, _) => stats.exact += 1,
        }
        for (candidate, (label, sq_distance)) in candidates.iter().zip(labels.iter_mut().zip(sq_distances)) {
            *label = candidate.label;
            *sq_distance = round_sq_l2(z, codeword(candidate.label), candidate.sq_l2, sum);
        }
    }
}
