//! The r nearest codewords of every row, by the same bounds as [`super::assign`].
//!
//! Scores are made a few hundred at a time: a [`Shortlist`] of every row takes in those that can be among the best. Where rows are few,
//! every thread has a share of the codewords and lists of its own, which become one. Rows whose lists were given up are scored
//! once more, a tile at a time, and have one list of all codewords in turn.

use super::blocks::{BLOCK_FLOATS, FirstBad, block_rows};
use super::direct::{f64_bound, f64_is_exact};
use super::exact::{self, ExactSum, round_sq_l2};
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use super::shares;
use super::shortlist::{Shortlist, key, of_key};
use crate::backend::{AssignOptions, AssignStats, Precision, SENTINEL};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::ops::Range;

/// Codewords whose scores a tile has at a time.
const LOOK: usize = 256;
/// Keys that the lists of a block begin with, about, or those of a tile: 8 MiB. Where scores tell little apart, they grow to some
/// eight times as much before they are given up.
const BLOCK_KEYS: usize = 1 << 20;

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
    let block = block_rows(panels).min((BLOCK_KEYS / (2 * r)).max(1).next_multiple_of(panels.kernels.rows));
    let threads = shares::threads_of_a_block(x.rows(), block);
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
            // With repeated codewords fewer than r distinct ones can be enough; never mind, the rest is sorted out later.
            let best = r.min(panels.len());
            let job = Job { x, codewords, panels, r, best, precision: options.precision, threads };
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
    /// r, or all distinct codewords where these are fewer.
    best: usize,
    precision: Precision,
    /// For the scores of a block.
    threads: usize,
}

impl<T: Element> Job<'_, T> {
    /// The least score that can be among the best of row `i`, given the best so far.
    fn least(&self, rows: &PackedRows, i: usize, best: &[u64]) -> f32 {
        match self.precision {
            Precision::Fast => best.iter().map(|&key| of_key(key).0).fold(f32::INFINITY, f32::min),
            // The r-th smallest score lies below the largest upper bound of any r codewords.
            Precision::Exact => {
                let upper = |&key: &u64| {
                    let (score, position) = of_key(key);
                    self.panels.upper(position as usize, score, rows.norms[i], rows.ratios[i])
                };
                self.panels.threshold(best.iter().map(upper).fold(f64::NEG_INFINITY, f64::max))
            }
        }
    }

    /// Adds the codeword at a position and those it stands for; without a rank, that is the distance.
    fn candidates(&self, z: &[f32], position: u32, rank: Option<f32>, candidates: &mut Vec<Candidate>) {
        let codeword = self.codewords.row(self.panels.labels[position as usize] as usize);
        let sq_l2 = self.panels.kernels.sq_l2_f64(z, codeword);
        let rank = rank.unwrap_or(sq_l2 as f32);
        let labels = self.panels.twins(position as usize);
        candidates.extend(labels.map(|label| Candidate { label, rank, sq_l2 }));
    }

    /// Shows the lists of all rows the scores of a share of the panels.
    fn scan(&self, rows: &PackedRows, share: &Range<usize>, lists: &mut [Shortlist], scores: &mut Vec<f32>) {
        let (panels, kernels, depth) = (self.panels, self.panels.kernels, self.panels.depth());
        let look = (LOOK / kernels.width).max(1);
        scores.resize(kernels.rows * look * kernels.width, 0.0);
        for (first, run) in panels.runs(share, BLOCK_FLOATS) {
            for (t, (tile, lists)) in rows.tiles().zip(lists.chunks_mut(kernels.rows)).enumerate() {
                for (i, some) in run.chunks(look * panels.panel_len()).enumerate() {
                    let (stride, position) = (some.len() / depth, (share.start + first + i * look) * kernels.width);
                    // Without the padding.
                    let count = stride.min(panels.len() - position);
                    kernels.scores(tile, some, depth, &mut scores[..kernels.rows * stride], stride);
                    for (row, list) in (t * kernels.rows..).zip(lists.iter_mut()) {
                        if rows.kinds[row] == RowKind::Packed {
                            let scores = &scores[row % kernels.rows * stride..][..count];
                            list.offer(kernels, scores, position as u32, self.best, |best| self.least(rows, row, best));
                        }
                    }
                }
            }
        }
    }
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    /// `[shares][rows]`.
    lists: Vec<Shortlist>,
    list: Shortlist,
    again: Vec<usize>,
    tile: Vec<f32>,
    scores: Vec<f32>,
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

impl Workspace {
    fn run<T: Element>(
        &mut self,
        job: &Job<'_, T>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
        mut report_bad: impl FnMut(usize),
    ) -> AssignStats {
        let (panels, n) = (job.panels, job.x.rows());
        let score = match job.precision {
            Precision::Exact => Score::LowerBound,
            Precision::Fast => Score::Plain,
        };
        self.rows.pack(job.x, panels, score);
        let shares = shares::shares(job.threads, panels.count(), 1, panels.panel_len() * n);
        self.lists.resize(shares.len() * n, Shortlist::default());
        self.lists.iter_mut().for_each(|list| list.reset(job.best));
        let rows = &self.rows;
        let lists = shares.par_iter().zip(self.lists.par_chunks_mut(n));
        lists.for_each_init(Vec::new, |scores, (share, lists)| job.scan(rows, share, lists, scores));

        let mut stats = AssignStats::default();
        self.again.clear();
        for i in 0..n {
            let [from, to] = [i, i + 1].map(|row| row * job.r);
            let (labels, sq_distances) = (&mut labels[from..to], &mut sq_distances[from..to]);
            let mut of_shares = self.lists[i..].iter().step_by(n);
            match self.rows.kinds[i] {
                RowKind::NonFinite => {
                    report_bad(i);
                    labels.fill(SENTINEL);
                    sq_distances.fill(f32::NAN);
                    continue;
                }
                RowKind::Wild => self.all(job, i),
                RowKind::Packed if of_shares.any(|list| list.given_up) => {
                    self.again.push(i);
                    continue;
                }
                RowKind::Packed => {
                    self.list.reset(job.best);
                    for of_share in self.lists[i..].iter().step_by(n) {
                        self.list.keys.extend_from_slice(&of_share.keys);
                    }
                    self.select(job, i);
                }
            }
            self.settle(job, i, labels, sq_distances, &mut stats);
        }
        let (kernels, stride) = (panels.kernels, panels.padded_len());
        self.tile.resize(kernels.rows * panels.depth(), 0.0);
        self.scores.resize(if self.again.is_empty() { 0 } else { kernels.rows * stride }, 0.0);
        for first in (0..self.again.len()).step_by(kernels.rows) {
            let group = first..self.again.len().min(first + kernels.rows);
            for (to, &i) in self.again[group.clone()].iter().enumerate() {
                self.rows.copy_column(i, kernels.rows, &mut self.tile, to);
            }
            kernels.scores(&self.tile, panels.all(), panels.depth(), &mut self.scores, stride);
            for (row, at) in group.enumerate() {
                let i = self.again[at];
                self.list.reset(job.best);
                let scores = &self.scores[row * stride..][..panels.len()];
                self.list.keys.extend(scores.iter().zip(0..).map(|(&score, position)| key(score, position)));
                self.select(job, i);
                let [from, to] = [i, i + 1].map(|row| row * job.r);
                self.settle(job, i, &mut labels[from..to], &mut sq_distances[from..to], &mut stats);
            }
        }
        stats
    }

    /// Candidates of row `i`, whose list has all that can be one: every codeword that can be among the r nearest.
    fn select<T: Element>(&mut self, job: &Job<'_, T>, i: usize) {
        let Workspace { rows, list, candidates, wide, .. } = self;
        let z = T::as_f32(job.x.row(i), wide);
        list.cut(job.best, |best| job.least(rows, i, best));
        let kept = match job.precision {
            Precision::Fast => job.best,
            Precision::Exact => list.keys.len(),
        };
        candidates.clear();
        for &key in &list.keys[..kept] {
            let (score, position) = of_key(key);
            job.candidates(z, position, Some(-score), candidates);
        }
    }

    /// All codewords for a wild row, which has no usable scores.
    fn all<T: Element>(&mut self, job: &Job<'_, T>, i: usize) {
        let z = T::as_f32(job.x.row(i), &mut self.wide);
        self.candidates.clear();
        (0..job.panels.len() as u32).for_each(|position| job.candidates(z, position, None, &mut self.candidates));
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
