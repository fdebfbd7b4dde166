//! The filter pass over pairs of bf16, for [`super::assign`].
//!
//! bf16 leaves more rows open than f32 does, a quarter of Gaussian ones, so their candidates must not cost another pass.
//! The first one keeps the largest score of every lane over groups of panels, and a row that stays open looks for its
//! candidates there: a maximum that reaches the threshold stands for the codewords of one lane in a group of panels.

use super::assign::{Packed, Pass, Verdict};
use super::blocks::BLOCK_FLOATS;
use super::kernels::Kernels;
use super::pair_kernels::{LANES, ROWS, STATE, WIDTH};
use super::pair_panels::PairPanels;
use super::pair_rows::{PairRows, RowTerms};
use super::rows::RowKind;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};

/// Groups of panels, at most: 8 KiB of maxima for a row. Half as many took 6 % longer with 16,384 codewords of 256
/// dimensions, where a hit then stands for 16 codewords; twice and four times as many, no less.
const GROUPS: usize = 128;

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
        let words = self.depth() + groups(self) * LANES;
        (2 * BLOCK_FLOATS / words).clamp(1, 4096).next_multiple_of(ROWS)
    }
}

/// Panels of a group.
fn group(panels: &PairPanels) -> usize {
    panels.count().div_ceil(GROUPS)
}

/// Groups of panels.
fn groups(panels: &PairPanels) -> usize {
    panels.count().div_ceil(group(panels))
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
    fn run(&mut self, panels: &PairPanels) {
        let (kernels, group) = (panels.pair_kernels, group(panels));
        let (tiles, per_tile) = (self.rows.tiles().len(), groups(panels) * ROWS * LANES);
        self.state.resize(tiles * ROWS * STATE, 0.0);
        panels.kernels.reset(&mut self.state);
        self.maxima.resize(tiles * per_tile, 0.0);
        for (first, run) in panels.runs(BLOCK_FLOATS) {
            let states = self.state.chunks_exact_mut(ROWS * STATE).zip(self.maxima.chunks_exact_mut(per_tile));
            for (tile, (state, maxima)) in self.rows.tiles().zip(states) {
                kernels.best(tile, run, panels.depth(), first, group, state, maxima);
            }
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
        let (per_group, per_tile) = (group(panels), groups(panels) * ROWS * LANES);
        for &(i, limit) in rows {
            let maxima = &self.maxima[i / ROWS * per_tile..][..per_tile];
            self.hits.clear();
            panels.pair_kernels.hits(maxima, i % ROWS, panels.threshold(limit), &mut self.hits);
            self.found.clear();
            for &(group, lanes) in &self.hits {
                let first = group as usize * per_group * WIDTH;
                let end = (first + per_group * WIDTH).min(panels.labels.len());
                // Ascending: one register after the other.
                for register in (first..end).step_by(LANES) {
                    let in_register = &panels.labels[register..end.min(register + LANES)];
                    let hit = |&(lane, _): &(usize, &u32)| lanes >> lane & 1 == 1;
                    self.found.extend(in_register.iter().enumerate().filter(hit).map(|(_, &label)| label));
                }
            }
            each(i, &mut self.found);
        }
    }
}
