//! The pass for few dimensions, for [`super::assign`].
//!
//! f32 values of panels say which panel has the nearest codeword, f32 sums of differences over that panel which codeword
//! it is. A row whose panel is certain but not the codeword looks again at that panel alone.

use super::assign::{Packed, Pass, Verdict};
use super::kernels::Kernels;
use super::rows::RowKind;
use super::shares;
use super::small_kernels::PANEL;
use super::small_nearest::OPEN;
use super::small_panels::SmallPanels;
use super::small_rows::SmallRows;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Floats of panels in a run: half of a common first-level cache, the other half is for a tile.
pub(super) const RUN_FLOATS: usize = 4096;
/// Rows of a block: they stay in a second-level cache, packed and as they came.
pub(super) const BLOCK_ROWS: usize = 1024;

impl Packed for SmallPanels {
    type Pass = PassSmall;

    fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn block_rows(&self) -> usize {
        BLOCK_ROWS
    }
}

/// Buffers of the pass.
#[derive(Default)]
pub(super) struct PassSmall {
    rows: SmallRows,
    state: Vec<f32>,
    /// Per row of whole tiles the panel that has its codeword, [`OPEN`] where that is not certain.
    certain: Vec<u32>,
    /// Per row of whole tiles the position of its codeword, [`OPEN`] where that is not certain.
    nearest: Vec<u32>,
    tile: Vec<f32>,
    norms: Vec<f32>,
    values: Vec<f32>,
    found: Vec<u32>,
}

impl PassSmall {
    /// The best value of row `i`, and the panel that has it.
    fn best(&self, panels: &SmallPanels, i: usize) -> (f32, usize) {
        let rows = panels.small_kernels.rows;
        let state = &self.state[i / rows * 3 * rows..][..3 * rows];
        (state[i % rows], state[2 * rows + i % rows].to_bits() as usize)
    }
}

impl Pass for PassSmall {
    type Codebook = SmallPanels;

    /// Exact only, as the sums of differences are.
    fn pack<T: Element>(&mut self, panels: &SmallPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.pack(x, panels);
    }

    fn run(&mut self, panels: &SmallPanels, threads: usize) {
        let (kernels, d) = (panels.small_kernels, panels.d);
        let (per_tile, tiles, rows) = (kernels.state_len(), self.rows.tiles().count(), &self.rows);
        let shares = shares::shares(threads, panels.count(), 1, panels.panel_len() * tiles * kernels.rows);
        self.state.resize(shares.len() * tiles * per_tile, 0.0);
        kernels.reset(&mut self.state);
        shares.par_iter().zip(self.state.par_chunks_exact_mut(tiles * per_tile)).for_each(|(share, state)| {
            for (first, run) in panels.runs(share, RUN_FLOATS) {
                for ((tile, norms), state) in rows.tiles().zip(state.chunks_exact_mut(per_tile)) {
                    kernels.best(tile, norms, run, d, first, state);
                }
            }
        });
        let (state, later) = self.state.split_at_mut(tiles * per_tile);
        for (share, later) in shares[1..].iter().zip(later.chunks_exact(tiles * per_tile)) {
            shares::merge_scores(state, later, kernels.rows, share.start as u32);
        }
        self.certain.resize(tiles * kernels.rows, OPEN);
        self.nearest.resize(tiles * kernels.rows, OPEN);
        let states = self.state.chunks_exact(per_tile).zip(self.certain.chunks_exact_mut(kernels.rows));
        let nearest = self.nearest.chunks_exact_mut(kernels.rows).zip(self.rows.plain());
        for (((state, certain), (positions, plain)), (_, norms)) in states.zip(nearest).zip(self.rows.tiles()) {
            kernels.certain(state, norms, &panels.bounds, certain);
            kernels.nearest(plain, certain, &panels.exact, d, positions);
        }
    }

    fn kinds(&self) -> &[RowKind] {
        &self.rows.kinds
    }

    #[inline]
    fn verdict(&self, panels: &SmallPanels, i: usize) -> Verdict {
        if self.nearest[i] != OPEN {
            return Verdict { position: self.nearest[i] as usize, open: None };
        }
        let (value, panel) = self.best(panels, i);
        Verdict { position: panel * PANEL, open: Some(panels.upper(panel, value, self.rows.norm(i))) }
    }

    /// The panel where that is certain; else, tile by tile, the values of all panels once more.
    fn candidates(&mut self, panels: &SmallPanels, rows: &[(usize, f64)], mut each: impl FnMut(usize, &mut Vec<u32>)) {
        let (kernels, d) = (panels.small_kernels, panels.d);
        let (ties, open): (Vec<_>, Vec<_>) = rows.iter().partition(|&&(i, _)| self.certain[i] != OPEN);
        for (i, _) in ties {
            self.found.clear();
            self.found.extend_from_slice(panels.labels_of(self.certain[i] as usize));
            each(i, &mut self.found);
        }
        self.tile.resize(kernels.rows * d, 0.0);
        self.norms.resize(kernels.rows, 0.0);
        self.values.resize(if open.is_empty() { 0 } else { kernels.rows * panels.count() }, 0.0);
        for group in open.chunks(kernels.rows) {
            for (to, &(i, _)) in group.iter().enumerate() {
                self.rows.copy(i, kernels.rows, &mut self.tile, to);
                self.norms[to] = self.rows.norm(i);
            }
            kernels.values(&self.tile, &self.norms, panels.all(), d, &mut self.values);
            for (row, &(i, limit)) in group.iter().enumerate() {
                let threshold = panels.threshold(limit);
                self.found.clear();
                for (panel, &value) in self.values[row..].iter().step_by(kernels.rows).enumerate() {
                    if value >= threshold {
                        self.found.extend_from_slice(panels.labels_of(panel));
                    }
                }
                each(i, &mut self.found);
            }
        }
    }
}
