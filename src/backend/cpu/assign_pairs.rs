//! The filter pass over pairs of bf16, for [`super::assign`].
//!
//! bf16 leaves more rows open than f32 does, a quarter of Gaussian ones, so their candidates must not cost another pass:
//! they come from the maxima of [`super::groups`].

use super::assign::{Packed, Pass, Verdict};
use super::blocks::BLOCK_FLOATS;
use super::groups::Groups;
use super::kernels::Kernels;
use super::pair_kernels::{LANES, ROWS, STATE, WIDTH};
use super::pair_panels::PairPanels;
use super::pair_rows::{PairRows, RowTerms};
use super::rows::RowKind;
use super::shares;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

impl Packed for PairPanels {
    type Pass = PassPairs;

    fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn block_rows(&self) -> usize {
        // With the maxima of their scores: beside a run of panels they stay in a second-level cache of 1 MiB.
        let words = self.depth() + Groups::of(self.count(), 1).count * LANES;
        (2 * BLOCK_FLOATS / words).clamp(1, 4096).next_multiple_of(ROWS)
    }
}

/// Buffers of the pass.
#[derive(Default)]
pub(super) struct PassPairs {
    rows: PairRows,
    state: Vec<f32>,
    /// `[tiles][groups][ROWS][LANES]`.
    maxima: Vec<f32>,
    hits: Vec<(u32, u32)>,
    found: Vec<u32>,
}

impl Pass for PassPairs {
    type Codebook = PairPanels;

    /// Exact only: f32 ranks better and costs what its promise says.
    fn pack<T: Element>(&mut self, panels: &PairPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.pack(x, panels);
    }

    /// Runs every panel past every tile; the panels of a run stay in the cache.
    fn run(&mut self, panels: &PairPanels, threads: usize) {
        let PassPairs { rows, state, maxima, .. } = self;
        let (kernels, groups, tiles) = (panels.pair_kernels, Groups::of(panels.count(), 1), rows.tiles().len());
        let shares = shares::shares(threads, panels.count(), groups.panels, panels.panel_len() * tiles * ROWS);
        state.resize(shares.len() * tiles * ROWS * STATE, 0.0);
        panels.kernels.reset(state);
        maxima.resize(tiles * groups.count * ROWS * LANES, 0.0);
        let lines = groups.split(maxima, &shares, ROWS * LANES);
        let states = state.par_chunks_exact_mut(tiles * ROWS * STATE);
        shares.par_iter().zip(states).zip(lines).for_each(|((share, state), mut lines)| {
            for (first, run) in panels.runs(share, BLOCK_FLOATS) {
                let states = state.chunks_exact_mut(ROWS * STATE).zip(&mut lines);
                for (tile, (state, maxima)) in rows.tiles().zip(states) {
                    kernels.best(tile, run, panels.depth(), first, groups.panels, state, maxima);
                }
            }
        });
        let (state, later) = state.split_at_mut(tiles * ROWS * STATE);
        for (share, later) in shares[1..].iter().zip(later.chunks_exact(tiles * ROWS * STATE)) {
            shares::merge_scores(state, later, LANES, (share.start * (WIDTH / LANES)) as u32);
        }
    }

    fn kinds(&self) -> &[RowKind] {
        &self.rows.kinds
    }

    fn verdict(&self, panels: &PairPanels, i: usize) -> Verdict {
        let best = panels.kernels.read(&self.state[i * STATE..(i + 1) * STATE]);
        let RowTerms { rho, norm, ratio } = self.rows.terms[i];
        let upper = panels.upper(best.position, best.score, rho, norm, ratio);
        // No rival at all is minus infinity.
        let others = if best.runner_up == f32::NEG_INFINITY { f64::INFINITY } else { panels.lower(best.runner_up) };
        Verdict::new(best.position, upper, others)
    }

    fn candidates(&mut self, panels: &PairPanels, rows: &[(usize, f64)], mut each: impl FnMut(usize, &mut Vec<u32>)) {
        let groups = Groups::of(panels.count(), 1);
        let per_tile = groups.count * ROWS * LANES;
        for &(i, limit) in rows {
            let maxima = &self.maxima[i / ROWS * per_tile..][..per_tile];
            self.hits.clear();
            panels.pair_kernels.hits(maxima, i % ROWS, panels.threshold(limit), &mut self.hits);
            groups.labels(&self.hits, &panels.labels, LANES, WIDTH, &mut self.found);
            each(i, &mut self.found);
        }
    }
}
