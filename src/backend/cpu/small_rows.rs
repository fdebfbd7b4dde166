//! Rows of few dimensions: on their way into the pass of [`super::small_kernels`], and what is made of its outcome.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what becomes vectors.

use super::rows::{RowKind, power_of_two};
use super::small_nearest::OPEN;
use super::small_panels::SmallPanels;
use crate::matrix::{Element, MatrixView};

/// Components of a row in the pass, in the scale of the codebook, are no larger; sums of squares and of products with
/// codewords stay far from overflow.
const LIMIT: f32 = (1u64 << 60) as f32;

/// A block of rows, `[tiles][rows][d]`, and the same as tiles, `[tiles][d][rows]`, centred and scaled.
#[derive(Default)]
pub(super) struct SmallRows {
    /// The rows as they came, and zeros after the last.
    plain: Vec<f32>,
    tiles: Vec<f32>,
    tile_len: usize,
    /// Norm in the codebook's scale, rounded up; infinite for a row that is not in its tile. As many as whole tiles
    /// have rows.
    norms: Vec<f32>,
    pub kinds: Vec<RowKind>,
}

impl SmallRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &SmallPanels) {
        let (d, rows) = (panels.d, panels.small_kernels.rows);
        let count = x.rows().div_ceil(rows);
        self.tile_len = d * rows;
        self.plain.resize(count * self.tile_len, 0.0);
        let (whole, rest) = self.plain.split_at_mut(x.rows() * d);
        x.widen_into(whole);
        rest.fill(0.0);
        self.tiles.resize(count * self.tile_len, 0.0);
        self.norms.resize(count * rows, 0.0);
        let scale = power_of_two(panels.shift);
        let tiles = self.tiles.chunks_exact_mut(self.tile_len).zip(self.norms.chunks_exact_mut(rows));
        for (plain, (tile, norms)) in self.plain.chunks_exact(self.tile_len).zip(tiles) {
            panels.small_kernels.place(plain, tile, &panels.mean, scale, norms);
        }
        kinds_of(&self.norms[..x.rows()], &self.plain, d, &mut self.kinds);
    }

    /// The rows of every tile as they came.
    pub fn plain(&self) -> std::slice::ChunksExact<'_, f32> {
        self.plain.chunks_exact(self.tile_len.max(1))
    }

    /// Every tile with the norms of its rows.
    pub fn tiles(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        // No division by zero before the first block.
        let rows = self.norms.len() / (self.tiles.len() / self.tile_len.max(1)).max(1);
        self.tiles.chunks_exact(self.tile_len.max(1)).zip(self.norms.chunks_exact(rows.max(1)))
    }

    /// The norm of row `i`.
    pub fn norm(&self, i: usize) -> f32 {
        self.norms[i]
    }

    /// Copies row `i` into row `to` of another tile.
    pub fn copy(&self, i: usize, rows: usize, tile: &mut [f32], to: usize) {
        let from = &self.tiles[i / rows * self.tile_len..][..self.tile_len][i % rows..];
        for (to, from) in tile[to..].iter_mut().step_by(rows).zip(from.iter().step_by(rows)) {
            *to = *from;
        }
    }
}

/// The kinds of rows, `[rows][d]` as they came, of which those that are packed have a finite mark.
fn kinds_of(marks: &[f32], plain: &[f32], d: usize, kinds: &mut Vec<RowKind>) {
    kinds.clear();
    kinds.extend(marks.iter().zip(plain.chunks_exact(d)).map(|(mark, plain)| {
        if mark.is_finite() {
            RowKind::Packed
        } else if plain.iter().all(|value| value.is_finite()) {
            RowKind::Wild
        } else {
            RowKind::NonFinite
        }
    }));
}

/// Centres and scales the rows of a tile, `[ROWS][d]`, to `[d][ROWS]`, and writes their norms, rounded up. A row with a
/// component beyond [`LIMIT`], or none that is finite, gets an infinite norm and zeros.
///
/// The norm: d rounded squares in a rounded sum, which is off by (d + 1) 2^-24 at most, and a rounded root; 2^-18 is
/// four times that for 16 dimensions. Squares that underflow lose 2^-149 each, 2^-140 is more than 16 of these.
#[inline(always)]
pub(super) fn place<const ROWS: usize>(
    plain: &[f32],
    d: usize,
    tile: &mut [f32],
    mean: &[f32],
    scale: f32,
    norms: &mut [f32],
) {
    transpose::<ROWS>(plain, d, tile);
    let (steps, _) = tile.as_chunks_mut::<ROWS>();
    let mut largest = [0u32; ROWS];
    let mut sums = [0.0f32; ROWS];
    for (step, &mean) in steps.iter_mut().zip(mean) {
        for lane in 0..ROWS {
            let value = (step[lane] - mean) * scale;
            step[lane] = value;
            // NaN and infinity are the largest bits of all.
            largest[lane] = largest[lane].max(value.to_bits() & 0x7fff_ffff);
            sums[lane] += value * value;
        }
    }
    for lane in 0..ROWS {
        let norm = (sums[lane] + f32::from_bits(1 << 9)).sqrt() * (1.0 + 1.0 / 262_144.0);
        norms[lane] = if largest[lane] <= LIMIT.to_bits() { norm } else { f32::INFINITY };
    }
    if norms.iter().any(|norm| norm.is_infinite()) {
        for step in steps {
            for lane in 0..ROWS {
                step[lane] = if norms[lane].is_infinite() { 0.0 } else { step[lane] };
            }
        }
    }
}

/// `[ROWS][d]` to `[d][ROWS]`, four by four while there are four dimensions.
#[inline(always)]
fn transpose<const ROWS: usize>(plain: &[f32], d: usize, tile: &mut [f32]) {
    for (lane, rows) in plain.chunks_exact(4 * d).enumerate() {
        let fours = d - d % 4;
        for t in (0..fours).step_by(4) {
            transpose_square(&rows[t..], d, &mut tile[t * ROWS + 4 * lane..], ROWS);
        }
        for t in fours..d {
            for row in 0..4 {
                tile[t * ROWS + 4 * lane + row] = rows[row * d + t];
            }
        }
    }
}

/// Four rows of four values, `from_stride` apart, to four columns `to_stride` apart.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_square(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    use std::arch::x86_64::{__m128, _MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_setzero_ps, _mm_storeu_ps};
    assert!(from.len() >= 3 * from_stride + 4 && to.len() >= 3 * to_stride + 4);
    // SAFETY: every x86-64 has SSE; the last four values of either begin at thrice the stride.
    unsafe {
        let mut square: [__m128; 4] = [_mm_setzero_ps(); 4];
        for row in 0..4 {
            square[row] = _mm_loadu_ps(from.as_ptr().add(row * from_stride));
        }
        let [a, b, c, d] = &mut square;
        _MM_TRANSPOSE4_PS(a, b, c, d);
        for column in 0..4 {
            _mm_storeu_ps(to.as_mut_ptr().add(column * to_stride), square[column]);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose_square(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    for row in 0..4 {
        for column in 0..4 {
            to[column * to_stride + row] = from[row * from_stride + column];
        }
    }
}

/// Of the rows of a tile, the panel with the best value where it has the nearest codeword and no other panel has one as
/// near; else [`OPEN`].
///
/// A panel's value v = m + |z| B is rounded: once, or the product too, which B has room for (see
/// [`super::small_panels`]). No score of another panel lies below -v2 - u |v2| - tiny, where v2 is the second best
/// value, and the best codeword of the panel with the best value v1 not above -v1 + u |v1| + 2 |z| B + C + tiny. So
/// the row is certain where v1 - v2 > 2 |z| B + C + u (|v1| + |v2|) + 2 tiny. Both sides are computed in f32: their
/// seven roundings, 7 u, are within the factor 1 + 2^-20, and what they lose below the range of f32 is within 2^-136,
/// more than ten times the two [`super::panels::tiny`] of 16 dimensions. Written so that NaN, ties and infinities are
/// not certain. (Of rows that are not packed nobody asks.)
#[inline(always)]
pub(super) fn certain<const ROWS: usize>(state: &[f32], norms: &[f32], bounds: &[[f32; 2]], panels: &mut [u32]) {
    // No panel but one: no values have to say which.
    if bounds.len() == 1 {
        return panels.fill(0);
    }
    let (lines, _) = state.as_chunks::<ROWS>();
    let ([best, second, panel], (norms, _)) = (&lines[..3], norms.as_chunks::<ROWS>()) else { return };
    let mut terms = [[0.0f32; ROWS]; 2];
    for lane in 0..ROWS {
        let [b, c] = bounds[panel[lane].to_bits() as usize];
        (terms[0][lane], terms[1][lane]) = (b, c);
    }
    for lane in 0..ROWS {
        let off = 2.0 * norms[0][lane] * terms[0][lane] + terms[1][lane];
        let rounding = (best[lane].abs() + second[lane].abs()) * (f32::EPSILON / 2.0);
        let needed = (off + rounding + f32::from_bits(1 << 13)) * (1.0 + 1.0 / 1_048_576.0);
        panels[lane] = if best[lane] - second[lane] > needed { panel[lane].to_bits() } else { OPEN };
    }
}
