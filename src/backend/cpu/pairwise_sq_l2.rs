//! The full matrix of squared distances.

use super::blocks::{BLOCK_FLOATS, FirstBad, block_rows};
use super::exact::{ExactSum, round_sq_l2};
use super::filter::dot;
use super::lanes::Lanes;
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use crate::backend::{NonFinite, Precision};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Distances of a block: some MiB.
const BLOCK: usize = 1 << 20;
/// Codewords that all tiles of a block meet before the next: of few dimensions, they stay in a first-level cache.
const RUN: usize = 512;

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
    let first_bad = FirstBad::new(NonFinite::Error);
    out.par_chunks_mut(block * k).enumerate().for_each_init(Workspace::default, |workspace, (i, out)| {
        let start = i * block;
        let job = Job { x: x.block(start..start + out.len() / k), codewords, panels, precision };
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
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    some: Vec<f32>,
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
            if !is_fast || self.rows.expansions(i, 1)[0].is_none() {
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
        let Workspace { rows, some, .. } = self;
        let (panels, kernels, k) = (job.panels, job.panels.kernels, job.codewords.rows());
        let (depth, width, tile_rows) = (panels.depth(), kernels.width, kernels.rows);
        for (first, run) in panels.runs(&(0..panels.count()), BLOCK_FLOATS.min(RUN * depth)) {
            let (first, padded) = (first * width, run.len() / depth);
            // Without the padding.
            let labels = &panels.labels[first..panels.labels.len().min(first + padded)];
            some.resize(tile_rows * padded, 0.0);
            for (i, out) in out.chunks_mut(tile_rows * k).enumerate() {
                let (tile, expansions) = (rows.tile(i), rows.expansions(i * tile_rows, tile_rows));
                // Distances of whole tiles to whole panels are written where they belong, for rows go on as the panels do
                // where no codeword repeats another.
                let whole = match out.len() == tile_rows * k && panels.repeats.is_empty() {
                    true => labels.len() / width * width,
                    false => 0,
                };
                let (straight, rest) = run.split_at(whole * depth);
                kernels.distances(tile, straight, depth, expansions, &mut out[first..], k);
                let stride = padded - whole;
                kernels.distances(tile, rest, depth, expansions, some, stride);
                for (out, some) in out.chunks_exact_mut(k).zip(some.chunks_exact(stride.max(1))) {
                    labels[whole..].iter().zip(some).for_each(|(&label, &distance)| out[label as usize] = distance);
                }
            }
        }
        for out in out.chunks_exact_mut(k) {
            panels.repeats.iter().for_each(|&(label, repeat)| out[repeat as usize] = out[label as usize]);
        }
    }
}

/// Distances `max(0, |z|^2 - factor * score)` of the rows of a tile to the codewords of `count` panels. Factor is a power of two,
/// and only where their product underflows it matters whether an instruction set rounds that. Rows without an expansion, and
/// padding, get any, through a NaN perhaps.
///
/// # Safety
/// Checks 1 to 3, 5 and 6 of [`super::kernels`].
#[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
#[inline(always)]
pub(super) unsafe fn distances<L: Lanes, const ROWS: usize, const REGS: usize>(
    tile: *const f32,
    panels: *const f32,
    depth: usize,
    count: usize,
    expansions: &[Option<(f32, f32)>],
    out: *mut f32,
    stride: usize,
) {
    let (mut sq_norms, mut factors) = ([0.0; ROWS], [0.0; ROWS]);
    for ((sq_norm, factor), expansion) in sq_norms.iter_mut().zip(&mut factors).zip(expansions) {
        let expansion = expansion.unwrap_or_default();
        (*sq_norm, *factor) = (expansion.0, -expansion.1);
    }
    let (width, last) = (REGS * L::WIDTH, depth - 1);
    for panel in 0..count {
        // SAFETY: panel < count, by check 3 in bounds, and by check 5 its last step; by check 6 row * stride + count * width is.
        unsafe {
            let (from, to) = (panels.add(panel * depth * width), out.add(panel * width));
            // The step between has the bounds, which do not count.
            let products = dot::<L, ROWS, REGS>(tile, from, depth - 2);
            for row in 0..ROWS {
                let half = L::splat(*tile.add(last * ROWS + row));
                let (sq_norm, factor) = (L::splat(sq_norms[row]), L::splat(factors[row]));
                for reg in 0..REGS {
                    let score = L::load(from.add((last * REGS + reg) * L::WIDTH)).mul_add(half, products[row][reg]);
                    let distance = score.mul_add(factor, sq_norm).max(L::splat(0.0));
                    distance.store(to.add(row * stride + reg * L::WIDTH));
                }
            }
        }
    }
}
