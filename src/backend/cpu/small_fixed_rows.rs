//! Rows of few dimensions on their way into the pass over pairs of 16-bit integers, and what is made of its outcome.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what becomes vectors.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::fixed_panels::{NORM, OFF, to_integer};
use super::fixed_rows::MAX_COARSER;
use super::rows::{MAX_SHIFT, RowKind, power_of_two};
use super::small_fixed_kernels::{ROWS, Tile};
use super::small_fixed_panels::SmallFixedPanels;
use super::small_nearest::OPEN;
use crate::matrix::{Element, MatrixView};

/// Dimensions of a tile, at most.
pub(super) const MAX_D: usize = 16;
/// What roundings of f32 can take off a sum of as many squares, and of what is made of it: more than 32 of them.
const UP: f32 = 1.0 + 1.0 / 262_144.0;
/// What rows are placed by: the mean, the exponent of the codebook's scale, A and G of [`super::fixed_panels`].
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub mean: &'a [f32],
    pub shift: i32,
    pub norm: f32,
    pub residual: f32,
}

/// A block of rows as tiles, `[tiles][half][ROWS]`, every row in its own scale.
#[derive(Default)]
pub(super) struct SmallFixedRows {
    /// Rows of a tile that are not there as f32, and zeros after the last; and a tile in columns.
    plain: Vec<f32>,
    steps: Vec<f32>,
    pairs: Vec<i32>,
    /// Per row of whole tiles how much coarser its scale is than the codebook's, and what its sums can be off: infinite for
    /// a row that is not packed.
    shifts: Vec<i32>,
    bounds: Vec<f32>,
    pub kinds: Vec<RowKind>,
    d: usize,
}

impl SmallFixedRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &SmallFixedPanels) {
        self.d = panels.d;
        let (d, half, padded) = (panels.d, panels.half(), x.rows().next_multiple_of(ROWS));
        // What an odd last dimension is paired with stays zero.
        self.steps.clear();
        self.steps.resize(ROWS * 2 * half, 0.0);
        self.pairs.resize(padded * half, 0);
        self.shifts.resize(padded, 0);
        self.bounds.resize(padded, 0.0);
        self.kinds.clear();
        self.kinds.resize(x.rows(), RowKind::Packed);
        let terms = panels.terms();
        let tiles = self.pairs.chunks_exact_mut(ROWS * half).zip(self.shifts.chunks_exact_mut(ROWS));
        let tiles = tiles.zip(self.bounds.chunks_exact_mut(ROWS)).zip(self.kinds.chunks_mut(ROWS));
        for (i, (((pairs, shifts), bounds), kinds)) in tiles.enumerate() {
            let rows = x.block(i * ROWS..x.rows().min((i + 1) * ROWS));
            let whole = if rows.rows() == ROWS {
                rows.as_f32(&mut self.plain)
            } else {
                self.plain.clear();
                self.plain.resize(ROWS * d, 0.0);
                rows.widen_into(&mut self.plain[..rows.rows() * d]);
                MatrixView::of_rows(&self.plain, d)
            };
            panels.fixed_kernels.place(whole, terms, &mut self.steps, pairs, shifts, bounds);
            for (row, (kind, bound)) in kinds.iter_mut().zip(bounds).enumerate() {
                if bound.is_infinite() {
                    let is_finite = whole.row(row).iter().all(|value| value.is_finite());
                    *kind = if is_finite { RowKind::Wild } else { RowKind::NonFinite };
                }
            }
        }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.shifts.len() / ROWS
    }

    /// Tile `i`.
    pub fn tile(&self, i: usize) -> Tile<'_> {
        let len = ROWS * self.d.div_ceil(2);
        Tile { pairs: &self.pairs[i * len..][..len], shifts: &self.shifts[i * ROWS..][..ROWS] }
    }

    /// The bounds of tile `i`.
    pub fn bounds(&self, i: usize) -> &[f32] {
        &self.bounds[i * ROWS..][..ROWS]
    }

    /// The bound of row `i`.
    pub fn bound(&self, i: usize) -> f32 {
        self.bounds[i]
    }

    /// Copies row `i` into row `to` of another tile.
    pub fn copy(&self, i: usize, pairs: &mut [i32], shifts: &mut [i32], to: usize) {
        let tile_len = ROWS * self.d.div_ceil(2);
        let from = &self.pairs[i / ROWS * tile_len..][..tile_len][i % ROWS..];
        for (to, from) in pairs[to..].iter_mut().step_by(ROWS).zip(from.iter().step_by(ROWS)) {
            *to = *from;
        }
        shifts[to] = self.shifts[i];
    }
}

/// Centres, scales and rounds the rows of a tile, in columns `[d][ROWS]` as they came, to `[half][ROWS]` pairs, and writes
/// how far they shift half the squared norms and what their sums can be off: infinite for a row with a component that is
/// not finite, or not after centring.
///
/// A row is scaled so that its norm is 2^15 at most after rounding, or as the codebook where it is shorter; all as in
/// [`super::fixed_rows`]: sums of squares, roots and products of these round less often than [`UP`] allows. Squares below
/// 2^-149 are lost, 16 at most: 2^-140 stands for them.
#[inline(always)]
pub(super) fn place(
    steps: &mut [f32],
    d: usize,
    terms: Terms<'_>,
    tile: &mut [i32],
    shifts: &mut [i32],
    bounds: &mut [f32],
) {
    const LOST: f32 = f32::from_bits(1 << 9);
    let (steps, _) = steps.as_chunks_mut::<ROWS>();
    let (steps, Some(shifts), Some(bounds)) =
        (&mut steps[..d.next_multiple_of(2)], shifts.first_chunk_mut::<ROWS>(), bounds.first_chunk_mut::<ROWS>())
    else {
        return;
    };
    // The scale in which squares are summed: none where the sums are far from the ends of f32's range, which proves
    // besides that all components are finite.
    let (mut own, mut sums) = ([0i32; ROWS], [0.0f32; ROWS]);
    for (step, &mean) in steps[..d].iter_mut().zip(terms.mean) {
        for lane in 0..ROWS {
            step[lane] -= mean;
            sums[lane] = step[lane].mul_add(step[lane], sums[lane]);
        }
    }
    let mut is_finite = [true; ROWS];
    let mut all = true;
    for lane in 0..ROWS {
        all &= (sums[lane] > 1e-25) & (sums[lane] < 1e25);
    }
    if !all {
        (own, sums, is_finite) = measure(&steps[..d]);
    }
    // Half the exponent of room^2 / sum, rounded down: see [`super::fixed_panels::shift_to_norm`].
    let room = (NORM - 0.5 * (d as f64).sqrt() - 1.0) as f32;
    let room = (room * room).next_down().to_bits() as i32;
    let (mut exponents, mut scales) = ([0i32; ROWS], [0.0f32; ROWS]);
    for lane in 0..ROWS {
        sums[lane] = sums[lane] * UP + LOST;
        let shift = own[lane] + ((room - sums[lane].to_bits() as i32) >> 24);
        let shift = terms.shift.min(shift).max(-MAX_SHIFT);
        (exponents[lane], scales[lane]) = (shift, power_of_two(shift));
        shifts[lane] = (terms.shift - shift).min(MAX_COARSER);
    }
    let mut residuals = [0.0f32; ROWS];
    let (pairs, _) = steps.as_chunks::<2>();
    let (tile, _) = tile.as_chunks_mut::<ROWS>();
    for (pair, to) in pairs.iter().zip(tile) {
        for lane in 0..ROWS {
            let [low, high] = [pair[0][lane] * scales[lane], pair[1][lane] * scales[lane]];
            let [(low_bits, low_rounded), (high_bits, high_rounded)] = [low, high].map(to_integer);
            let (low_off, high_off) = (low - low_rounded, high - high_rounded);
            residuals[lane] = high_off.mul_add(high_off, low_off.mul_add(low_off, residuals[lane]));
            to[lane] = (low_bits & 0xffff | high_bits << 16) as i32;
        }
    }
    for lane in 0..ROWS {
        // The power is not above 2^78; one below 2^-126 is less than the unit by far, and may be that.
        let norm = sums[lane].sqrt() * UP * power_of_two((exponents[lane] - own[lane]).max(-MAX_SHIFT));
        // Centring rounded a component by 2^-24 of itself.
        let rho = (residuals[lane] * UP + LOST).sqrt() * UP + norm * f32::EPSILON;
        let bound = (rho * terms.norm + (norm + rho) * terms.residual) * UP + OFF as f32;
        bounds[lane] = if is_finite[lane] { bound } else { f32::INFINITY };
    }
}

/// Of columns of centred rows: the exponents that bring their largest components to [1, 4), or as near as a scale can, the
/// sums of squares there, and which rows are finite.
#[cold]
fn measure(steps: &[[f32; ROWS]]) -> ([i32; ROWS], [f32; ROWS], [bool; ROWS]) {
    let (mut own, mut sums, mut is_finite) = ([0i32; ROWS], [0.0f32; ROWS], [true; ROWS]);
    for lane in 0..ROWS {
        // NaN and infinity are the largest bits of all.
        let largest = steps.iter().fold(0, |largest, step| (step[lane].to_bits() & 0x7fff_ffff).max(largest));
        is_finite[lane] = largest < f32::INFINITY.to_bits();
        own[lane] = (127 - (largest >> 23) as i32).clamp(-MAX_SHIFT, MAX_SHIFT);
        let scale = power_of_two(own[lane]);
        sums[lane] = steps.iter().fold(0.0, |sum, step| sum + step[lane] * scale * (step[lane] * scale));
    }
    (own, sums, is_finite)
}

/// Of the rows of a tile, the panel with the largest key where it has the nearest codeword and no other panel has one as
/// near; else [`OPEN`]. And, where that is certain, a sum that the nearest codeword lies above.
///
/// No score of another panel lies below -(k2 + low) - E, where k2 is the second largest key without its number and E the
/// row's bound, and the best of the panel with the largest key k1 not above -k1 + E. So the row is certain where
/// k1 - k2 > 2 E + low, and a codeword of its panel with a sum below k1 - 2 E is not the nearest. Halves fit 32 bits; their
/// difference is rounded once to f32, for which the factor stands. Written so that an infinite bound is not certain.
#[inline(always)]
pub(super) fn certain(state: &[i32], bounds: &[f32], low: i32, panels: &mut [u32], limits: &mut [i32; ROWS]) {
    /// 2^23: the last bit of a f32 of this binade is worth 1.
    const UNIT: f32 = 8_388_608.0;
    const STEP: i32 = 512;
    let (lines, _) = state.as_chunks::<ROWS>();
    let ([best, second], (bounds, _), (panels, _)) =
        (&lines[..2], bounds.as_chunks::<ROWS>(), panels.as_chunks_mut::<ROWS>())
    else {
        return;
    };
    let half_low = 0.5 * low as f32 + 1.0;
    for lane in 0..ROWS {
        let gap = (best[lane] & !low) / 2 - (second[lane] & !low) / 2;
        let needed = (bounds[0][lane] + half_low) * UP;
        panels[0][lane] = if gap as f32 > needed { (best[lane] & low) as u32 } else { OPEN };
        // 2 E in steps, two more than it has: for its rounding, and that of the sum. Where the row is certain, 2 E is below
        // 2^32, and what is left above the least number, for the second key is.
        let steps = (bounds[0][lane] * (2.0 / STEP as f32) + 2.0 + UNIT).to_bits() & 0x7f_ffff;
        limits[lane] = (best[lane] & !low).wrapping_sub((steps * STEP as u32) as i32);
    }
}
