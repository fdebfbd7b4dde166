//! Rows on their way into the filter pass: centred, scaled by a power of two, laid out as tiles.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what becomes vectors.

use super::lanes::Lanes;
use super::panels::Panels;
use crate::matrix::{Element, MatrixView};

/// Largest exponent that a scale undoes; beyond, values are subnormal or the scale itself would not fit.
pub(super) const MAX_SHIFT: i32 = 126;

/// The exponent that brings a value whose magnitude has these bits to [1, 2), as far as a scale can.
pub(super) fn shift_of(magnitude_bits: u32) -> i32 {
    (127 - (magnitude_bits >> 23) as i32).clamp(-MAX_SHIFT, MAX_SHIFT)
}

/// 2^exponent; `exponent` within +-126.
#[inline(always)]
pub(super) fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Asks the memory for values that will be read soon: for all lines that they touch, wherever in a line they begin. What follows 64
/// lines the processor guesses.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (first, size) = (values.as_ptr().cast::<i8>(), size_of_val(values));
        for line in (0..size.min(4096)).step_by(64) {
            // SAFETY: a hint about one of the values, which faults nowhere; every x86-64 processor has SSE.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(line)) };
        }
        // SAFETY: the same.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(size.saturating_sub(1))) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Writes `row - mean`, each difference rounded once, and returns the bits of the largest magnitude: infinite or
/// NaN bits where a value is, or where a difference overflows.
#[inline(always)]
pub(super) fn centre_row(row: &[f32], mean: Option<&[f32]>, out: &mut [f32]) -> u32 {
    let mut largest = 0;
    match mean {
        None => {
            for (out, &value) in out.iter_mut().zip(row) {
                *out = value;
                largest = largest.max(value.to_bits() & 0x7fff_ffff);
            }
        }
        Some(mean) => {
            for ((out, &value), &mean) in out.iter_mut().zip(row).zip(mean) {
                let centred = value - mean;
                *out = centred;
                largest = largest.max(centred.to_bits() & 0x7fff_ffff);
            }
        }
    }
    largest
}

/// The sum of the squares of a row in another scale.
#[inline(always)]
pub(super) fn sq_norm(row: &[f32], scale: f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (head, tail) = row.as_chunks::<16>();
    for values in head {
        for lane in 0..16 {
            let value = values[lane] * scale;
            sums[lane] += value * value;
        }
    }
    for (lane, value) in tail.iter().enumerate() {
        let value = value * scale;
        sums[lane] += value * value;
    }
    sums.iter().sum()
}

/// Writes rows, `[ROWS][d]`, each times its scale, as steps of a tile, `[d][ROWS]`: four rows and four steps at a time.
///
/// # Safety
/// Checks 1 and 7 of [`super::kernels`].
#[inline(always)]
pub(super) unsafe fn fill_tile<L: Lanes, const ROWS: usize>(
    rows: *const f32,
    d: usize,
    scales: &[f32],
    steps: *mut f32,
) {
    let mut of_row = [0.0; ROWS];
    of_row.copy_from_slice(scales);
    let (four_rows, four_steps) = (ROWS - ROWS % 4, d - d % 4);
    for row in (0..four_rows).step_by(4) {
        for t in (0..four_steps).step_by(4) {
            // SAFETY: row + 3 < ROWS and t + 3 < d, so that all reads and writes lie within ROWS * d values.
            unsafe {
                let mut block = [[0.0; 4]; 4];
                for i in 0..4 {
                    block[i] =
                        rows.add((row + i) * d + t).cast::<[f32; 4]>().read().map(|value| value * of_row[row + i]);
                }
                let block = L::transpose(block);
                for i in 0..4 {
                    steps.add((t + i) * ROWS + row).cast::<[f32; 4]>().write(block[i]);
                }
            }
        }
    }
    for row in 0..ROWS {
        let done = if row < four_rows { four_steps } else { 0 };
        for t in done..d {
            // SAFETY: row < ROWS and t < d.
            unsafe { *steps.add(t * ROWS + row) = *rows.add(row * d + t) * of_row[row] };
        }
    }
}

/// The square root of a rounded sum of `d` rounded squares, times `factor`, rounded up to what the real norm can be
/// at most. Squares below 2^-149 are lost, `d` of them at most: the second term stands for them.
pub(super) fn norm_up(sum: f32, d: usize, factor: f64) -> f32 {
    let d = d as f64;
    let sum = f64::from(sum) * (1.0 + (d + 4.0) * 2f64.powi(-23)) + d * 2f64.powi(-149);
    ((sum.sqrt() * factor * (1.0 + 2f64.powi(-22))) as f32).max(f32::MIN_POSITIVE)
}

/// Why a row is not in its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// It is.
    Packed,
    /// Finite, but so far from the codebook that the filter's arithmetic would overflow or lose it.
    Wild,
    /// It holds a NaN or an infinity.
    NonFinite,
}

/// Whether a row fits its tile, the exponent that brings its largest magnitude after centring to [1, 4), and the one
/// that brings it into the tile of a codebook scaled by 2^`codewords`: at most that, so that a row much shorter than the
/// codewords keeps their scale.
pub(super) fn place(row: &[f32], magnitude_bits: u32, codewords: i32) -> (RowKind, i32, i32) {
    let own = shift_of(magnitude_bits);
    let tile = own.min(codewords);
    let finite = f32::from_bits(magnitude_bits).is_finite();
    let kind = if finite && codewords - tile <= MAX_SHIFT - 4 {
        RowKind::Packed
    } else if finite || row.iter().all(|value| value.is_finite()) {
        RowKind::Wild
    } else {
        RowKind::NonFinite
    };
    (kind, own, tile)
}

/// A block of rows, packed for the filter: `[tiles][depth][rows]`, where the two last steps of depth pair with
/// those of [`super::panels`]: the row's norm with the bound, and `-c` with half the squared norms.
#[derive(Default)]
pub(super) struct PackedRows {
    tiles: Vec<f32>,
    tile_len: usize,
    /// Norm in the tile's scale, rounded up.
    pub norms: Vec<f32>,
    /// c: the row's scale over the codebook's, a power of two, at most 1.
    pub ratios: Vec<f32>,
    /// Squared norm, and twice the factor from the tile's scores to real ones, where f32 can hold them.
    expansions: Vec<Option<(f32, f32)>>,
    pub kinds: Vec<RowKind>,
    /// Of a tile, `[rows][d]` and `[rows]`.
    centred: Vec<f32>,
    scales: Vec<f32>,
    wide: Vec<f32>,
}

/// What the two last steps of depth are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Score {
    /// A lower bound of the score: the bound counts, and half the norms are shrunk by what they can be off.
    LowerBound,
    /// The score itself.
    Plain,
}

/// `c` of [`Score::LowerBound`] over the true one: covers the rounding of h, of its product and of its sum.
pub(super) const SHRINK: f32 = 1.0 - 4.0 * (f32::EPSILON / 2.0);

impl PackedRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &Panels, score: Score) {
        let (kernels, d, n) = (panels.kernels, panels.d, x.rows());
        let tile_rows = kernels.rows;
        self.tile_len = panels.depth() * tile_rows;
        self.tiles.resize(n.div_ceil(tile_rows) * self.tile_len, 0.0);
        self.norms.clear();
        self.ratios.clear();
        self.kinds.clear();
        self.expansions.clear();
        self.centred.resize(tile_rows * d, 0.0);
        self.scales.resize(tile_rows, 0.0);
        for (t, tile) in self.tiles.chunks_exact_mut(self.tile_len).enumerate() {
            let (steps, terms) = tile.split_at_mut(tile_rows * d);
            // What an earlier tile left beyond the last row is finite: zeros with this scale.
            self.scales.fill(0.0);
            terms.fill(0.0);
            let first = t * tile_rows;
            for (row, centred) in self.centred.chunks_exact_mut(d).enumerate().take(n - first) {
                if first + row + tile_rows < n {
                    prefetch(x.row(first + row + tile_rows));
                }
                let row_of_x = T::as_f32(x.row(first + row), &mut self.wide);
                let magnitude = kernels.centre_row(row_of_x, panels.mean.as_deref(), centred);
                let (kind, own, shift) = place(row_of_x, magnitude, panels.shift);
                let (mut norm, mut ratio, mut expansion) = (0.0, 1.0, None);
                if kind == RowKind::Packed {
                    // Powers of two: nothing rounds but underflow. The norm is measured where the largest magnitude is in [1, 4).
                    let (measure, scale) = (power_of_two(own), power_of_two(shift));
                    let sum = kernels.sq_norm(centred, measure);
                    norm = norm_up(sum, d, f64::from(scale) / f64::from(measure));
                    ratio = power_of_two(shift - panels.shift);
                    expansion = expansion_of(sum, own, shift, panels);
                    self.scales[row] = scale;
                } else {
                    centred.fill(0.0);
                }
                let (bound, half) = match score {
                    Score::LowerBound => (norm, ratio * SHRINK),
                    Score::Plain => (0.0, ratio),
                };
                (terms[row], terms[tile_rows + row]) = (bound, -half);
                self.norms.push(norm);
                self.ratios.push(ratio);
                self.kinds.push(kind);
                self.expansions.push(expansion);
            }
            kernels.fill_tile(&self.centred, d, &self.scales, steps);
        }
        self.expansions.resize(n.next_multiple_of(tile_rows), None);
    }

    /// What turns the plain scores of `count` rows from `first` on into squared distances: the squared norm, and the factor of
    /// the score that is to be taken off. None where f32 could overflow or lose them, and for what fills the last tile.
    pub fn expansions(&self, first: usize, count: usize) -> &[Option<(f32, f32)>] {
        &self.expansions[first..first + count]
    }

    pub fn tile(&self, t: usize) -> &[f32] {
        &self.tiles[t * self.tile_len..(t + 1) * self.tile_len]
    }

    pub fn tiles(&self) -> std::slice::ChunksExact<'_, f32> {
        self.tiles.chunks_exact(self.tile_len)
    }

    /// Copies the column of row `i` to column `to` of another tile.
    pub fn copy_column(&self, i: usize, rows: usize, tile: &mut [f32], to: usize) {
        let from = &self.tiles[i / rows * self.tile_len..][..self.tile_len][i % rows..];
        for (to, from) in tile[to..].iter_mut().step_by(rows).zip(from.iter().step_by(rows)) {
            *to = *from;
        }
    }
}

fn expansion_of(sum: f32, own: i32, shift: i32, panels: &Panels) -> Option<(f32, f32)> {
    let sq_norm = f64::from(sum) * 2f64.powi(-2 * own);
    let exponent = 1 - shift - panels.shift;
    // A quarter of the range: their sum and the cross term stay inside.
    let fits = sq_norm + panels.max_sq_norm < f64::from(f32::MAX) / 4.0 && exponent.abs() <= MAX_SHIFT;
    fits.then(|| (sq_norm as f32, power_of_two(exponent)))
}
