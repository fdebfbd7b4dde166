//! A codebook packed as pairs of 16-bit integers, for processors that multiply and add these sooner than f32.
//!
//! With z' = z - mean and e' = e - mean, scaled by powers of two, and z^, e^ the nearest vectors of integers, a panel
//! holds `WIDTH` codewords as `[h + 1, WIDTH]` words of 32 bits, h = ceil(d / 2):
//!
//! | step | codeword j |
//! |---|---|
//! | 0 | -\|e'_j\|^2 / 2, rounded |
//! | 1 + t | pair e^_j(2t), e^_j(2t+1) |
//!
//! The sum that the kernels form, a_ij = (-|e'_j|^2 / 2 shifted right by r) + z^_i.e^_j, is **minus the score**
//! s_j = |e'_j|^2 / 2 - z'.e'_j in the scale of the row, which is 2^r times coarser than that of the codebook: the
//! larger, the nearer. What it can be off, E:
//!
//! - z'.e' - z^.e^ = (z' - z^).e' + z^.(e' - e^), at most rho A + |z^| G with rho >= |z' - z^|, A >= |e'_j| and
//!   G >= |e'_j - e^_j| for every j. All are measured against the exact z' and e', so that whatever made z^ and e^ is
//!   covered: the f32 subtraction of the mean, scaling, rounding.
//! - Half the squared norm is rounded, by at most 1/2 and what f64 adds to it, and loses less than 1 to the shift.
//!   Together [`OFF`].
//! - The sums have no rounding: |z^| and |e^| are at most [`NORM`], |e'|^2 / 2 at most `NORM`^2 / 2, so every partial
//!   sum of products is within `NORM`^2 = 2^30 (Cauchy, Schwarz) and the whole within 2^30 + 2^29 + 1 < 2^31.
//!
//! A key of the kernels is this sum with its low half replaced: at most [`LOW`] below it or above.
//!
//! One bound for all codewords: a component is rounded by half a unit at most whatever its codeword, and the unit is
//! that of the longest. A codebook whose longest codeword is [`SPREAD`] times as long as half of them is left to bf16 or f32.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::centre::{grain, lane_sum, mean_of};
use super::fixed_kernels::{FixedKernels, PADDING, REGISTERS, WIDTH};
use super::fixed_rows::{STEP, Terms};
use super::groups::Groups;
use super::kernels::Kernels;
use super::rows::{MAX_SHIFT, power_of_two};
use super::shares;
use crate::matrix::MatrixView;
use rayon::prelude::*;
use std::ops::Range;

/// Dimensions from which this pass is the faster one; those of few dimensions have another.
const MIN_D: usize = 17;
/// Dimensions beyond which rounding leaves too many rows open.
const MAX_D: usize = 1 << 15;
/// Norms of rounded vectors are at most this.
pub(super) const NORM: f64 = 32768.0;
/// What half a squared norm can be off, in units of the sum.
pub(super) const OFF: f64 = 2.0;
/// What the low half of a sum can say.
const LOW: f64 = 65535.0;
/// Longest codeword over the median one; see above. With one codeword 7 times as long as the others two thirds of Gaussian
/// rows stay open (256 dimensions, 1024 codewords), and f32 takes 1.4 times as long nevertheless.
const SPREAD: f64 = 8.0;

pub(super) struct FixedPanels {
    /// Of the same processor: direct sums.
    pub(super) kernels: &'static Kernels,
    pub(super) fixed_kernels: &'static FixedKernels,
    pub(super) d: usize,
    /// Zeros where nothing is centred, and up to whole steps of [`super::fixed_rows`].
    mean: Vec<f32>,
    /// Codewords are scaled by 2^shift before they are rounded.
    pub(super) shift: i32,
    pub(super) labels: Vec<u32>,
    packed: Vec<i32>,
    /// A and G.
    norm: f64,
    residual: f64,
}

/// Squared norms of a codeword in f64: of e', and of what rounding took off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SqNorms {
    pub exact: f64,
    pub residual: f64,
}

impl FixedPanels {
    /// Of the distinct codewords, those of `labels`. None where this does not pay.
    pub(super) fn new(
        codewords: MatrixView<'_, f32>,
        labels: &[u32],
        kernels: &'static Kernels,
        fixed_kernels: &'static FixedKernels,
    ) -> Option<FixedPanels> {
        let d = codewords.cols();
        if !(MIN_D..=MAX_D).contains(&d) {
            return None;
        }
        if labels.len().div_ceil(fixed_kernels.lanes) > REGISTERS {
            return None;
        }
        let (mean, shift) = scale_of(codewords, labels)?;
        let mut mean = mean.unwrap_or_default();
        mean.resize(d.next_multiple_of(STEP), 0.0);
        let packed = Vec::new();
        let mut panels = FixedPanels {
            kernels,
            fixed_kernels,
            d,
            mean,
            shift,
            labels: labels.to_vec(),
            packed,
            norm: 0.0,
            residual: 0.0,
        };
        panels.pack(codewords);
        Some(panels)
    }

    /// Codewords packed, padding excluded.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Pairs of a vector.
    pub fn half(&self) -> usize {
        self.d.div_ceil(2)
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.labels.len().div_ceil(WIDTH)
    }

    /// How panels are grouped.
    pub fn groups(&self) -> Groups {
        Groups::of(self.count(), self.fixed_kernels.panels)
    }

    /// Words of a panel.
    pub fn panel_len(&self) -> usize {
        (self.half() + 1) * WIDTH
    }

    /// See [`shares::runs`].
    pub fn runs(&self, share: &Range<usize>, words: usize) -> impl Iterator<Item = (usize, &[i32])> {
        shares::runs(&self.packed, self.panel_len(), share, words, self.fixed_kernels.panels)
    }

    fn pack(&mut self, codewords: MatrixView<'_, f32>) {
        let (half, scale) = (self.half(), power_of_two(self.shift));
        let kernels = self.fixed_kernels;
        let mean = &self.mean[..self.d];
        self.packed = vec![0; self.count() * (half + 1) * WIDTH];
        let largest = self
            .packed
            .par_chunks_exact_mut((half + 1) * WIDTH)
            .zip(self.labels.par_chunks(WIDTH))
            .map_init(
                || vec![0; 2 * half],
                |rounded, (panel, labels)| {
                    panel[..WIDTH].fill(PADDING);
                    let mut largest = SqNorms::default();
                    for (lane, &label) in labels.iter().enumerate() {
                        let norms = kernels.quantize_codeword(codewords.row(label as usize), mean, scale, rounded);
                        panel[lane] = negated_half(norms);
                        let (pairs, _) = rounded.as_chunks::<2>();
                        for (to, &[low, high]) in panel[WIDTH + lane..].iter_mut().step_by(WIDTH).zip(pairs) {
                            *to = pair(low, high);
                        }
                        largest = larger(largest, norms);
                    }
                    largest
                },
            )
            .reduce(SqNorms::default, larger);
        (self.norm, self.residual) = norms_of(largest);
    }

    /// What rows are packed by.
    pub fn terms(&self) -> Terms<'_> {
        // next_up: the conversions round to nearest.
        let [norm, residual] = [self.norm, self.residual].map(|value| (value as f32).next_up());
        Terms { mean: &self.mean, d: self.d, shift: self.shift, norm, residual }
    }

    /// No real score of a codeword lies below this, given its key and the bound of the row.
    pub fn lower(&self, key: i32, bound: f64) -> f64 {
        -(high(key) + LOW) - bound
    }

    /// No real score of a codeword lies above this, given its key and the bound of the row.
    pub fn upper(&self, key: i32, bound: f64) -> f64 {
        -high(key) + bound
    }

    /// The least key that [`FixedPanels::lower`] does not put above `limit`.
    pub fn threshold(&self, limit: f64, bound: f64) -> i32 {
        // A conversion saturates: below all keys then.
        (((-limit - bound - LOW) / 65536.0).ceil() * 65536.0) as i32
    }
}

/// The mean to subtract, if any, and the exponent that brings the longest codeword to [`NORM`]. None for a codebook that one
/// unit does not suit; see above.
pub(super) fn scale_of(codewords: MatrixView<'_, f32>, labels: &[u32]) -> Option<(Option<Vec<f32>>, i32)> {
    let d = codewords.cols();
    let mean = mean_of(codewords, labels).map(|(mean, _)| mean);
    let mean_at = |t: usize| mean.as_ref().map_or(0.0, |mean| f64::from(mean[t]));
    let norm = |&label: &u32| {
        let row = codewords.row(label as usize);
        lane_sum(d, |t| (f64::from(row[t]) - mean_at(t)).powi(2)).sqrt()
    };
    let mut norms: Vec<f64> = labels.par_iter().with_min_len(grain(d)).map(norm).collect();
    let longest = norms.iter().fold(0.0f64, |max, &norm| max.max(norm));
    let middle = norms.len() / 2;
    let median = *norms.select_nth_unstable_by(middle, f64::total_cmp).1;
    let shift = shift_to_norm(longest * longest * (1.0 + 1e-6), d).min(MAX_SHIFT);
    (longest <= SPREAD * median).then_some((mean, shift))
}

/// The larger of each.
pub(super) fn larger(a: SqNorms, b: SqNorms) -> SqNorms {
    SqNorms { exact: a.exact.max(b.exact), residual: a.residual.max(b.residual) }
}

/// A and G.
pub(super) fn norms_of(largest: SqNorms) -> (f64, f64) {
    let up = |sq_norm: f64| sq_norm.sqrt() * (1.0 + 1e-6);
    (up(largest.exact), up(largest.residual))
}

/// Half a squared norm of a codeword as the kernels add it.
pub(super) fn negated_half(norms: SqNorms) -> i32 {
    -(0.5 * norms.exact).round() as i32
}

/// Two integers in a word.
pub(super) fn pair(low: i16, high: i16) -> i32 {
    i32::from(low as u16) | i32::from(high) << 16
}

/// A key without the number of its register: not above the sum it was made of, nor [`LOW`] more below it.
fn high(key: i32) -> f64 {
    f64::from(key & !0xffff)
}

/// The largest exponent that brings a vector of this squared norm, rounded to integers, to a norm of at most [`NORM`].
pub(super) fn shift_to_norm(sq_norm: f64, d: usize) -> i32 {
    let room = NORM - 0.5 * (d as f64).sqrt() - 1.0;
    // The exponent of the quotient, rounded down, for two positive numbers that are not subnormal; half of it is that of
    // the root. A squared norm of zero has any room.
    let quotient = ((room * room).to_bits() as i64 - sq_norm.to_bits() as i64) >> 52;
    (quotient >> 1) as i32
}

/// The integer nearest to `value`, ties to even, as the low half of what this returns, and the same as f32. For
/// magnitudes below 2^22.
#[inline(always)]
pub(super) fn to_integer(value: f32) -> (u32, f32) {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: in this binade the last bit of a f32 is worth 1.
    let shifted = value + MAGIC;
    (shifted.to_bits(), shifted - MAGIC)
}

/// Centres and scales a codeword, rounds it to `out`, and measures it against the real numbers in f64.
#[inline(always)]
pub(super) fn quantize(row: &[f32], mean: &[f32], scale: f32, out: &mut [i16]) -> SqNorms {
    let mut sums = [[0.0f64; 16]; 2];
    for ((row, mean), out) in row.chunks(16).zip(mean.chunks(16)).zip(out.chunks_mut(16)) {
        for (lane, ((&value, &mean), out)) in row.iter().zip(mean).zip(out).enumerate() {
            let (bits, rounded) = to_integer((value - mean) * scale);
            *out = bits as i16;
            let exact = (f64::from(value) - f64::from(mean)) * f64::from(scale);
            let residual = exact - f64::from(rounded);
            sums[0][lane] += exact * exact;
            sums[1][lane] += residual * residual;
        }
    }
    let [exact, residual] = sums.map(|lanes| lanes.iter().sum());
    SqNorms { exact, residual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_the_largest_that_keeps_a_rounded_norm_in_range() {
        for d in [17, 100, MAX_D] {
            let rounded_up = |norm: f64, shift: i32| norm * 2f64.powi(shift) + 0.5 * (d as f64).sqrt() + 1.0;
            for norm in [1e-30, 0.7, 1.0, 1.5, 2.0, 3.999, 32_766.0, 32_767.0, 32_768.0, 1e30] {
                let shift = shift_to_norm(norm * norm, d);
                assert!(rounded_up(norm, shift) <= NORM, "{norm} x 2^{shift}, {d} dimensions");
                assert!(rounded_up(norm, shift + 1) > NORM, "{norm} x 2^{shift} can be larger, {d} dimensions");
            }
        }
        assert!(shift_to_norm(0.0, 17) > MAX_SHIFT);
    }

    #[test]
    fn integers_are_the_nearest_ties_to_even() {
        for (value, integer) in [(0.0, 0), (0.5, 0), (1.5, 2), (-0.5, 0), (-2.5, -2), (-2.51, -3), (32_766.6, 32_767)] {
            let (bits, rounded) = to_integer(value);
            assert_eq!((bits as i16, rounded), (integer, f32::from(integer)), "{value}");
        }
    }
}
