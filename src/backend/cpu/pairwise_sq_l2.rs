//! The full matrix of squared distances.

use super::blocks::{BLOCK_FLOATS, FirstBad, block_rows};
use super::exact::{ExactSum, round_sq_l2};
use super::lanes::Lanes;
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use crate::backend::{NonFinite, Precision};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Distances of a block: some MiB.
const BLOCK: usize = 1 << 20;
/// Codewords whose scores are in memory at a time: those of a tile stay in a first-level cache.
const RUN: usize = 512;
/// Values of a cache line, which every register divides.
const LINE: usize = 16;
/// Distances from which on they go past the caches, which do not hold them anyway: what they would replace there need not be
/// read first.
const PAST_CACHES: usize = 1 << 22;

/// Fills `out`, `[n, k]`. Returns the first row that holds a NaN or an infinity.
pub(crate) fn pairwise_sq_l2<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    panels: &Panels,
    precision: Precision,
    out: &mut [f32],
) -> Result<(), usize> {
    let (k, rows) = (codewords.rows(), panels.kernels.rows);
    let block = block_rows(panels).min((BLOCK / k / rows * rows).max(rows));
    let past_caches = out.len() >= PAST_CACHES;
    let first_bad = FirstBad::new(NonFinite::Error);
    out.par_chunks_mut(block * k).enumerate().for_each_init(Workspace::default, |workspace, (i, out)| {
        let start = i * block;
        let job = Job { x: x.block(start..start + out.len() / k), codewords, panels, precision, past_caches };
        if let Some(bad) = workspace.run(&job, out) {
            first_bad.report(start + bad);
        }
    });
    first_bad.or(())
}

struct Job<'a, T> {
    x: MatrixView<'a, T>,
    codewords: MatrixView<'a, f32>,
    panels: &'a Panels,
    precision: Precision,
    past_caches: bool,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    scores: Vec<f32>,
    distances: Vec<f32>,
    wide: Vec<f32>,
    sum: ExactSum,
}

impl Workspace {
    fn run<T: Element>(&mut self, job: &Job<'_, T>, out: &mut [f32]) -> Option<usize> {
        self.rows.pack(job.x, job.panels, Score::Plain);
        if let Some(bad) = self.rows.kinds.iter().position(|&kind| kind == RowKind::NonFinite) {
            return Some(bad);
        }
        let is_fast = job.precision == Precision::Fast;
        if is_fast {
            self.expand(job, out);
        }
        let (kernels, k) = (job.panels.kernels, job.codewords.rows());
        for (i, out) in out.chunks_exact_mut(k).enumerate() {
            // Exact, or a squared norm that f32 cannot hold: direct sums, exactly rounded.
            if !is_fast || self.rows.expansion(i).is_none() {
                let z = T::as_f32(job.x.row(i), &mut self.wide);
                for (j, out) in out.iter_mut().enumerate() {
                    let e = job.codewords.row(j);
                    *out = round_sq_l2(z, e, kernels.sq_l2_f64(z, e), &mut self.sum);
                }
            }
        }
        None
    }

    /// The distances of all rows that have an expansion, from scores z.e - |e|^2 / 2 in the scale of a tile.
    fn expand<T: Element>(&mut self, job: &Job<'_, T>, out: &mut [f32]) {
        let Workspace { rows, scores, distances, .. } = self;
        let (panels, kernels, k) = (job.panels, job.panels.kernels, job.codewords.rows());
        let no_repeats = panels.repeats.is_empty();
        for (first, run) in panels.runs(BLOCK_FLOATS.min(RUN * panels.depth())) {
            let (first, stride) = (first * kernels.width, run.len() / panels.depth());
            // Without the padding.
            let labels = &panels.labels[first..panels.labels.len().min(first + stride)];
            scores.resize(kernels.rows * stride, 0.0);
            distances.resize(stride, 0.0);
            for (tile, out) in out.chunks_mut(kernels.rows * k).enumerate() {
                kernels.scores(rows.tile(tile), run, panels.depth(), scores, stride);
                for (row, (out, scores)) in out.chunks_exact_mut(k).zip(scores.chunks_exact(stride)).enumerate() {
                    let Some((sq_norm, factor)) = rows.expansion(tile * kernels.rows + row) else { continue };
                    let scores = &scores[..labels.len()];
                    if no_repeats {
                        let out = &mut out[first..first + labels.len()];
                        kernels.expand(scores, sq_norm, factor, out, job.past_caches);
                    } else {
                        kernels.expand(scores, sq_norm, factor, &mut distances[..labels.len()], false);
                        labels.iter().zip(&*distances).for_each(|(&label, &distance)| out[label as usize] = distance);
                    }
                }
            }
        }
        for out in out.chunks_exact_mut(k) {
            panels.repeats.iter().for_each(|&(label, repeat)| out[repeat as usize] = out[label as usize]);
        }
        kernels.fence();
    }
}

/// `max(0, |z|^2 - factor * score)`: factor is a power of two, and only where their product underflows it matters whether an
/// instruction set rounds that.
///
/// # Safety
/// Check 1 of [`super::kernels`].
#[inline(always)]
pub(super) unsafe fn expand<L: Lanes>(scores: &[f32], sq_norm: f32, factor: f32, out: &mut [f32], past_caches: bool) {
    let count = scores.len().min(out.len());
    let (scores, out) = (&scores[..count], &mut out[..count]);
    // Whole lines go past the caches: of one that goes in pieces each would cost as much.
    let (head, step) = match past_caches {
        true => (out.as_ptr().align_offset(LINE * size_of::<f32>()).min(count), LINE),
        false => (0, L::WIDTH),
    };
    let tail = head + (count - head) / step * step;
    // SAFETY: WIDTH values from i on lie before `tail`, in both; those of `out` are aligned where it matters. A line holds a
    // register.
    unsafe {
        let (sq_norm, factor, zero) = (L::splat(sq_norm), L::splat(-factor), L::splat(0.0));
        // What is no whole line in the same registers, or the bits would depend on where `out` lies.
        for (from, to) in [(0, head), (tail, count)] {
            for first in (from..to).step_by(L::WIDTH) {
                let (mut some, range) = ([0.0; LINE], first..to.min(first + L::WIDTH));
                some[..range.len()].copy_from_slice(&scores[range.clone()]);
                let distances = L::load(some.as_ptr()).mul_add(factor, sq_norm).max(zero);
                distances.store(some.as_mut_ptr());
                out[range.clone()].copy_from_slice(&some[..range.len()]);
            }
        }
        for i in (head..tail).step_by(L::WIDTH) {
            let distances = L::load(scores.as_ptr().add(i)).mul_add(factor, sq_norm).max(zero);
            let to = out.as_mut_ptr().add(i);
            if past_caches {
                distances.store_past_caches(to);
            } else {
                distances.store(to);
            }
        }
    }
}
