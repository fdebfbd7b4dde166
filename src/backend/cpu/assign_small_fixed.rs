//! The pass for few dimensions over pairs of 16-bit integers, for [`super::assign`]: as [`super::assign_small`], with sums
//! that round nothing but are made of rounded operands.

use super::assign::{Packed, Pass, Verdict};
use super::assign_small::{BLOCK_ROWS, RUN_FLOATS};
use super::kernels::Kernels;
use super::rows::RowKind;
use super::small_fixed_kernels::{PANEL, ROWS, STATE, Tile};
use super::small_fixed_panels::SmallFixedPanels;
use super::small_fixed_rows::SmallFixedRows;
use super::small_nearest::OPEN;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};

impl Packed for SmallFixedPanels {
    type Pass = PassSmallFixed;

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
pub(super) struct PassSmallFixed {
    rows: SmallFixedRows,
    state: Vec<i32>,
    /// Per row of whole tiles the panel that has its codeword, [`OPEN`] where that is not certain.
    certain: Vec<u32>,
    /// Per row of whole tiles the position of its codeword, [`OPEN`] where that is not certain.
    nearest: Vec<u32>,
    pairs: Vec<i32>,
    shifts: Vec<i32>,
    values: Vec<i32>,
    found: Vec<u32>,
}

impl PassSmallFixed {
    /// The largest key of row `i`.
    fn key(&self, i: usize) -> i32 {
        self.state[i / ROWS * STATE + i % ROWS]
    }
}

impl Pass for PassSmallFixed {
    type Codebook = SmallFixedPanels;

    /// Exact only, as the sums of differences are.
    fn pack<T: Element>(&mut self, panels: &SmallFixedPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.pack(x, panels);
    }

    fn run(&mut self, panels: &SmallFixedPanels) {
        let (kernels, d, low) = (panels.fixed_kernels, panels.d, panels.low());
        let tiles = self.rows.tiles().len();
        self.state.clear();
        self.state.resize(tiles * STATE, i32::MIN);
        for (first, run) in panels.runs(RUN_FLOATS) {
            for (tile, state) in self.rows.tiles().zip(self.state.chunks_exact_mut(STATE)) {
                kernels.best(tile, run, first, low, state);
            }
        }
        self.certain.resize(tiles * ROWS, OPEN);
        self.nearest.resize(tiles * ROWS, OPEN);
        let states = self.state.chunks_exact(STATE).zip(self.certain.chunks_exact_mut(ROWS));
        let nearest = self.nearest.chunks_exact_mut(ROWS).zip(self.rows.plain());
        for (((state, certain), (positions, plain)), bounds) in states.zip(nearest).zip(self.rows.bounds()) {
            kernels.certain(state, bounds, low, certain);
            kernels.nearest(plain, certain, &panels.exact, d, positions);
        }
    }

    fn kinds(&self) -> &[RowKind] {
        &self.rows.kinds
    }

    #[inline]
    fn verdict(&self, panels: &SmallFixedPanels, i: usize) -> Verdict {
        if self.nearest[i] != OPEN {
            return Verdict { position: self.nearest[i] as usize, open: None };
        }
        let key = self.key(i);
        Verdict { position: panels.panel_of(key) * PANEL, open: Some(panels.upper(key, self.rows.bound(i))) }
    }

    /// The panel where that is certain; else, tile by tile, the values of all panels once more.
    fn candidates(
        &mut self,
        panels: &SmallFixedPanels,
        rows: &[(usize, f64)],
        mut each: impl FnMut(usize, &mut Vec<u32>),
    ) {
        let (ties, open): (Vec<_>, Vec<_>) = rows.iter().partition(|&&(i, _)| self.certain[i] != OPEN);
        for (i, _) in ties {
            self.found.clear();
            self.found.extend_from_slice(panels.labels_of(self.certain[i] as usize));
            each(i, &mut self.found);
        }
        self.pairs.resize(panels.half() * ROWS, 0);
        self.shifts.resize(ROWS, 0);
        self.values.resize(if open.is_empty() { 0 } else { ROWS * panels.count() }, 0);
        for group in open.chunks(ROWS) {
            for (to, &(i, _)) in group.iter().enumerate() {
                self.rows.copy(i, &mut self.pairs, &mut self.shifts, to);
            }
            let tile = Tile { pairs: &self.pairs, shifts: &self.shifts };
            panels.fixed_kernels.values(tile, panels.all(), &mut self.values);
            for (row, &(i, limit)) in group.iter().enumerate() {
                let threshold = panels.threshold(limit, self.rows.bound(i));
                self.found.clear();
                for (panel, &value) in self.values[row..].iter().step_by(ROWS).enumerate() {
                    if value >= threshold {
                        self.found.extend_from_slice(panels.labels_of(panel));
                    }
                }
                each(i, &mut self.found);
            }
        }
    }
}
