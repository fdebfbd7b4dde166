//! Rows on their way into the pass over pairs of bf16: centred, scaled, rounded, laid out as tiles.

use super::pair_kernels::ROWS;
use super::pair_panels::PairPanels;
use super::panels::U;
use super::rows::{RowKind, SHRINK, norm_up, place, power_of_two};
use crate::matrix::{Element, MatrixView};

/// What the bounds of a row need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowTerms {
    /// At least the norm of what rounding took off, and at least that of the rounded row, in the tile's scale.
    pub rho: f32,
    pub norm: f32,
    /// c: the row's scale over the codebook's, a power of two, at most 1.
    pub ratio: f32,
}

/// A block of rows: `[tiles][depth][ROWS]` words of 32 bits, the last three steps f32; see [`super::pair_panels`].
#[derive(Default)]
pub(super) struct PairRows {
    tiles: Vec<u32>,
    tile_len: usize,
    pub terms: Vec<RowTerms>,
    pub kinds: Vec<RowKind>,
    centred: Vec<f32>,
    rounded: Vec<f32>,
    wide: Vec<f32>,
}

impl PairRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &PairPanels) {
        let (kernels, d, half) = (panels.pair_kernels, panels.d, panels.half());
        self.tile_len = panels.depth() * ROWS;
        // What an earlier block left in the columns of rows that are not packed does no harm, and is not cleared.
        self.tiles.resize(x.rows().div_ceil(ROWS) * self.tile_len, 0);
        self.terms.clear();
        self.kinds.clear();
        self.centred.resize(d, 0.0);
        self.rounded.resize(2 * half, 0.0);
        for i in 0..x.rows() {
            let row = T::as_f32(x.row(i), &mut self.wide);
            let magnitude = panels.kernels.centre_row(row, panels.mean.as_deref(), &mut self.centred);
            let (kind, _, shift) = place(row, magnitude, panels.shift);
            let mut terms = RowTerms { rho: 0.0, norm: 0.0, ratio: 1.0 };
            if kind == RowKind::Packed {
                let column = &mut self.tiles[i / ROWS * self.tile_len..][..self.tile_len][i % ROWS..];
                let scale = power_of_two(shift);
                let (norm, residual) = kernels.round_row(&self.centred, scale, &mut self.rounded);
                kernels.interleave_row(&self.rounded, column);
                let (norm, residual) = (norm_up(norm, d, 1.0), norm_up(residual, d, 1.0));
                let rho = rho(norm, residual, d);
                terms = RowTerms { rho, norm, ratio: power_of_two(shift - panels.shift) };
                for (step, value) in [rho, norm, -terms.ratio * SHRINK].into_iter().enumerate() {
                    column[(half + step) * ROWS] = value.to_bits();
                }
            }
            self.terms.push(terms);
            self.kinds.push(kind);
        }
    }

    pub fn tiles(&self) -> std::slice::ChunksExact<'_, u32> {
        self.tiles.chunks_exact(self.tile_len)
    }
}

/// At least |z' - z^|, from the norm of z^ and of what rounding took off a z' that subtraction had rounded (u |z'|) and
/// scaling may have made subnormal (2^-150 a component).
fn rho(norm: f32, residual: f32, d: usize) -> f32 {
    let (norm, residual) = (f64::from(norm), f64::from(residual));
    let rho = residual + 1.01 * U * (norm + residual) + d as f64 * 2f64.powi(-149);
    ((rho * (1.0 + 2f64.powi(-22))) as f32).next_up()
}
