//! The pass for few dimensions over pairs of 16-bit integers, for [`super::assign`]: as [`super::assign_small`], with sums
//! that round nothing but are made of rounded operands.

use super::assign::{Packed, Pass, Verdict};
use super::assign_small::{BLOCK_ROWS, RUN_FLOATS};
use super::kernels::Kernels;
use super::rows::RowKind;
use super::shares;
use super::small_fixed_kernels::{PANEL, ROWS, STATE, Tile};
use super::small_fixed_panels::SmallFixedPanels;
use super::small_fixed_rows::SmallFixedRows;
use super::small_nearest::OPEN;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

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

    /// Exact only: what the sums leave open is settled by direct ones.
    fn pack<T: Element>(&mut self, panels: &SmallFixedPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.pack(x, panels);
    }

    fn run(&mut self, panels: &SmallFixedPanels, threads: usize) {
        let (kernels, low) = (panels.fixed_kernels, panels.low());
        let PassSmallFixed { rows, state, certain, nearest, .. } = self;
        let shares = shares::shares(threads, panels.count(), 1, panels.panel_len() * rows.tiles() * ROWS);
        state.clear();
        state.resize(shares.len() * rows.tiles() * STATE, i32::MIN);
        shares.par_iter().zip(state.par_chunks_exact_mut(rows.tiles() * STATE)).for_each(|(share, state)| {
            for (first, run) in panels.runs(share, RUN_FLOATS) {
                for (i, state) in state.chunks_exact_mut(STATE).enumerate() {
                    kernels.best(rows.tile(i), run, first, low, state);
                }
            }
        });
        let (state, later) = state.split_at_mut(rows.tiles() * STATE);
        for (share, later) in shares[1..].iter().zip(later.chunks_exact(rows.tiles() * STATE)) {
            shares::merge_keys(state, later, ROWS, share.start as i32);
        }
        certain.resize(rows.tiles() * ROWS, OPEN);
        nearest.resize(rows.tiles() * ROWS, OPEN);
        let found = certain.chunks_exact_mut(ROWS).zip(nearest.chunks_exact_mut(ROWS));
        for (i, (state, (certain, nearest))) in state.chunks_exact(STATE).zip(found).enumerate() {
            kernels.nearest(rows.tile(i), panels.all(), state, rows.bounds(i), certain, nearest);
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

    /// Among the codewords of the panel where that is certain; else, tile by tile, of all panels whose values say so.
    fn candidates(
        &mut self,
        panels: &SmallFixedPanels,
        rows: &[(usize, f64)],
        mut each: impl FnMut(usize, &mut Vec<u32>),
    ) {
        let PassSmallFixed { rows: packed, certain, pairs, shifts, values, found, .. } = self;
        let (ties, open): (Vec<_>, Vec<_>) = rows.iter().partition(|&&(i, _)| certain[i] != OPEN);
        for (i, limit) in ties {
            found.clear();
            panels.labels_from(
                certain[i] as usize,
                packed.tile(i / ROWS),
                i % ROWS,
                panels.least(limit, packed.bound(i)),
                found,
            );
            each(i, found);
        }
        pairs.resize(panels.half() * ROWS, 0);
        shifts.resize(ROWS, 0);
        values.resize(if open.is_empty() { 0 } else { ROWS * panels.count() }, 0);
        for group in open.chunks(ROWS) {
            for (to, &(i, _)) in group.iter().enumerate() {
                packed.copy(i, pairs, shifts, to);
            }
            let tile = Tile { pairs, shifts };
            panels.fixed_kernels.values(tile, panels.all().words, values);
            for (row, &(i, limit)) in group.iter().enumerate() {
                let least = panels.least(limit, packed.bound(i));
                found.clear();
                for (panel, &value) in values[row..].iter().step_by(ROWS).enumerate() {
                    if value >= least {
                        panels.labels_from(panel, tile, row, least, found);
                    }
                }
                each(i, found);
            }
        }
    }
}
