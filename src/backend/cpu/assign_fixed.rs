//! The filter pass over pairs of 16-bit integers, for [`super::assign`].
//!
//! Of Gaussian rows 2 % (128 dimensions, 256 codewords) to 11 % (256 dimensions, 16,384) stay open: as with bf16 their
//! candidates come from the maxima of [`super::groups`].

use super::assign::{Packed, Pass, Verdict};
use super::blocks::BLOCK_FLOATS;
use super::fixed_kernels::WIDTH;
use super::fixed_panels::FixedPanels;
use super::fixed_rows::FixedRows;
use super::kernels::Kernels;
use super::rows::RowKind;
use super::shares;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

impl Packed for FixedPanels {
    type Pass = PassFixed;

    fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn block_rows(&self) -> usize {
        let words = self.half() + self.groups().count * self.fixed_kernels.lanes;
        (BLOCK_FLOATS / words).clamp(1, 4096).next_multiple_of(self.fixed_kernels.rows)
    }
}

/// Buffers of the pass.
#[derive(Default)]
pub(super) struct PassFixed {
    rows: FixedRows,
    state: Vec<i32>,
    /// `[tiles][groups][rows][lanes]`.
    maxima: Vec<i32>,
    hits: Vec<(u32, u32)>,
    found: Vec<u32>,
}

impl Pass for PassFixed {
    type Codebook = FixedPanels;

    /// Exact only: f32 ranks better and costs what its promise says.
    fn pack<T: Element>(&mut self, panels: &FixedPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.pack(x, panels);
    }

    /// Runs every panel past every tile; the panels of a run stay in the cache.
    fn run(&mut self, panels: &FixedPanels, threads: usize) {
        let PassFixed { rows, state, maxima, .. } = self;
        let (kernels, groups, tiles) = (panels.fixed_kernels, panels.groups(), rows.tiles().len());
        let (per_tile, lines) = (kernels.rows * kernels.state_len(), kernels.rows * kernels.lanes);
        let shares = shares::shares(threads, panels.count(), groups.panels, panels.panel_len() * tiles * kernels.rows);
        state.resize(shares.len() * tiles * per_tile, 0);
        kernels.reset(state);
        maxima.resize(tiles * groups.count * lines, 0);
        let lines = groups.split(maxima, &shares, lines);
        let states = state.par_chunks_exact_mut(tiles * per_tile);
        shares.par_iter().zip(states).zip(lines).for_each(|((share, state), mut lines)| {
            for (first, run) in panels.runs(share, BLOCK_FLOATS) {
                let states = state.chunks_exact_mut(per_tile).zip(&mut lines);
                for ((tile, shifts), (state, maxima)) in rows.tiles().zip(states) {
                    kernels.best(tile, shifts, run, panels.half(), first, groups.panels, state, maxima);
                }
            }
        });
        let (state, later) = state.split_at_mut(tiles * per_tile);
        for (share, later) in shares[1..].iter().zip(later.chunks_exact(tiles * per_tile)) {
            shares::merge_keys(state, later, kernels.lanes, (share.start * (WIDTH / kernels.lanes)) as i32);
        }
    }

    fn kinds(&self) -> &[RowKind] {
        &self.rows.kinds
    }

    fn verdict(&self, panels: &FixedPanels, i: usize) -> Verdict {
        let (kernels, len) = (panels.fixed_kernels, panels.fixed_kernels.state_len());
        let best = kernels.read(&self.state[i * len..(i + 1) * len]);
        let bound = f64::from(self.rows.bounds[i]);
        Verdict::new(best.position, panels.upper(best.key, bound), panels.lower(best.runner_up, bound))
    }

    fn candidates(&mut self, panels: &FixedPanels, rows: &[(usize, f64)], mut each: impl FnMut(usize, &mut Vec<u32>)) {
        let (kernels, groups) = (panels.fixed_kernels, panels.groups());
        let per_tile = groups.count * kernels.rows * kernels.lanes;
        for &(i, limit) in rows {
            let maxima = &self.maxima[i / kernels.rows * per_tile..][..per_tile];
            let threshold = panels.threshold(limit, f64::from(self.rows.bounds[i]));
            self.hits.clear();
            kernels.hits(maxima, i % kernels.rows, threshold, &mut self.hits);
            groups.labels(&self.hits, &panels.labels, kernels.lanes, WIDTH, &mut self.found);
            each(i, &mut self.found);
        }
    }
}
