//! The filter pass in f32, for [`super::assign`].

use super::assign::{Packed, Pass, Verdict};
use super::blocks::{BLOCK_FLOATS, block_rows};
use super::kernels::Kernels;
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use super::shares;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

impl Packed for Panels {
    type Pass = PassF32;

    fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn block_rows(&self) -> usize {
        block_rows(self)
    }
}

/// Buffers of the pass.
#[derive(Default)]
pub(super) struct PassF32 {
    rows: PackedRows,
    state: Vec<f32>,
    tile: Vec<f32>,
    scores: Vec<f32>,
    found: Vec<u32>,
}

impl Pass for PassF32 {
    type Codebook = Panels;

    fn pack<T: Element>(&mut self, panels: &Panels, x: MatrixView<'_, T>, precision: Precision) {
        let score = match precision {
            Precision::Exact => Score::LowerBound,
            Precision::Fast => Score::Plain,
        };
        self.rows.pack(x, panels, score);
    }

    /// Runs every panel past every tile; the panels of a run stay in the cache.
    fn run(&mut self, panels: &Panels, threads: usize) {
        let PassF32 { rows, state, .. } = self;
        let (kernels, tiles) = (panels.kernels, rows.tiles().len());
        let per_tile = kernels.rows * kernels.state_len();
        let shares = shares::shares(threads, panels.count(), 1, panels.panel_len() * tiles * kernels.rows);
        state.resize(shares.len() * tiles * per_tile, 0.0);
        kernels.reset(state);
        shares.par_iter().zip(state.par_chunks_exact_mut(tiles * per_tile)).for_each(|(share, state)| {
            for (first, run) in panels.runs(share, BLOCK_FLOATS) {
                for (tile, state) in rows.tiles().zip(state.chunks_exact_mut(per_tile)) {
                    kernels.best(tile, run, panels.depth(), first, state);
                }
            }
        });
        let (state, later) = state.split_at_mut(tiles * per_tile);
        for (share, later) in shares[1..].iter().zip(later.chunks_exact(tiles * per_tile)) {
            let first = share.start * (kernels.width / kernels.lanes);
            shares::merge_scores(state, later, kernels.lanes, first as u32);
        }
    }

    fn kinds(&self) -> &[RowKind] {
        &self.rows.kinds
    }

    fn verdict(&self, panels: &Panels, i: usize) -> Verdict {
        let len = panels.kernels.state_len();
        let best = panels.kernels.read(&self.state[i * len..(i + 1) * len]);
        let upper = panels.upper(best.position, best.score, self.rows.norms[i], self.rows.ratios[i]);
        // No rival at all is minus infinity.
        let others = if best.runner_up == f32::NEG_INFINITY { f64::INFINITY } else { panels.lower(best.runner_up) };
        Verdict::new(best.position, upper, others)
    }

    /// Tile by tile: the scores once more, now all of them.
    fn candidates(&mut self, panels: &Panels, rows: &[(usize, f64)], mut each: impl FnMut(usize, &mut Vec<u32>)) {
        let (kernels, depth, stride) = (panels.kernels, panels.depth(), panels.padded_len());
        self.tile.resize(kernels.rows * depth, 0.0);
        self.scores.resize(if rows.is_empty() { 0 } else { kernels.rows * stride }, 0.0);
        for group in rows.chunks(kernels.rows) {
            for (to, &(i, _)) in group.iter().enumerate() {
                self.rows.copy_column(i, kernels.rows, &mut self.tile, to);
            }
            kernels.scores(&self.tile, panels.all(), depth, &mut self.scores, stride);
            for (&(i, limit), scores) in group.iter().zip(self.scores.chunks_exact(stride)) {
                let threshold = panels.threshold(limit);
                let scores = scores[..panels.len()].iter().zip(&panels.labels);
                self.found.clear();
                self.found.extend(scores.filter(|&(&score, _)| score >= threshold).map(|(_, &label)| label));
                each(i, &mut self.found);
            }
        }
    }
}
