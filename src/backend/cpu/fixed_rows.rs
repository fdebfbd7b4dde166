//! Rows on their way into the pass over pairs of 16-bit integers: centred, scaled, rounded.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::fixed_kernels::ROWS;
use super::fixed_panels::{FixedPanels, shift_to_norm, to_integer};
use super::panels::U;
use super::rows::{RowKind, power_of_two, shift_of};
use crate::matrix::{Element, MatrixView};

/// Half a squared norm has no more bits.
pub(super) const MAX_COARSER: i32 = 31;

/// Values that are centred, scaled and rounded at a time: rows are padded to a multiple with zeros.
const STEP: usize = 32;

/// A block of rows: `[tiles][ROWS][row_len]` integers, every row in its own scale. See [`super::fixed_panels`].
#[derive(Default)]
pub(super) struct FixedRows {
    rows: Vec<i16>,
    row_len: usize,
    /// Per row of whole tiles how much coarser its scale is than the codebook's.
    shifts: Vec<i32>,
    /// Per row what its sums can be off.
    pub bounds: Vec<f64>,
    pub kinds: Vec<RowKind>,
    centred: Vec<f32>,
    wide: Vec<f32>,
}

impl FixedRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &FixedPanels) {
        let (kernels, d) = (panels.fixed_kernels, panels.d);
        let padded = x.rows().next_multiple_of(ROWS);
        self.row_len = d.next_multiple_of(STEP);
        // What an earlier block left in rows that are not packed has norms as small: it does no harm.
        self.rows.resize(padded * self.row_len, 0);
        self.shifts.resize(padded, 0);
        self.bounds.clear();
        self.kinds.clear();
        self.centred.resize(self.row_len, 0.0);
        for (i, out) in self.rows.chunks_exact_mut(self.row_len).take(x.rows()).enumerate() {
            let row = T::as_f32(x.row(i), &mut self.wide);
            let mean = panels.mean.as_deref();
            let (mut kind, mut bound) = (RowKind::Packed, 0.0);
            // The scale in which the squares are measured: none where they are far from the ends of f32's range, which
            // proves besides that all values are finite.
            let mut measured = (0, kernels.centre_row(row, mean, &mut self.centred));
            if !(1e-25..1e25).contains(&measured.1) {
                let magnitude = panels.kernels.centre_row(row, mean, &mut self.centred[..d]);
                let own = shift_of(magnitude);
                measured = (own, kernels.sq_norm(&self.centred, power_of_two(own)));
                if !f32::from_bits(magnitude).is_finite() {
                    kind = if row.iter().all(|value| value.is_finite()) { RowKind::Wild } else { RowKind::NonFinite };
                }
            }
            if kind == RowKind::Packed {
                let (own, sq_norm) = (measured.0, sq_norm_up(measured.1, d));
                // Not below -121: components are below 4 in the scale 2^own, and own is -126 or more; or own is 0 and
                // the norm below 2^42.
                let shift = panels.shift.min(own + shift_to_norm(sq_norm, d));
                let residual = sq_norm_up(kernels.quantize_row(&self.centred, power_of_two(shift), out), d).sqrt();
                let norm = sq_norm.sqrt() * f64::from(power_of_two(shift)) / f64::from(power_of_two(own));
                // Centring rounded a component by u of itself; scaling one below 2^-126 by less than 2^-149.
                let rho = residual + 1.01 * U * norm + d as f64 * 2f64.powi(-149);
                bound = panels.bound(rho, norm + rho);
                self.shifts[i] = (panels.shift - shift).min(MAX_COARSER);
            }
            self.kinds.push(kind);
            self.bounds.push(bound);
        }
    }

    /// Every tile with the shifts of its rows.
    pub fn tiles(&self) -> impl ExactSizeIterator<Item = (&[i16], &[i32])> {
        // No division by zero before the first block.
        self.rows.chunks_exact((ROWS * self.row_len).max(1)).zip(self.shifts.chunks_exact(ROWS))
    }
}

/// What a sum of `d` squares is at most, given the rounded sum of rounded squares. Squares below 2^-149 are lost, `d` of them
/// at most: the second term stands for them.
fn sq_norm_up(sum: f32, d: usize) -> f64 {
    let d = d as f64;
    f64::from(sum) * (1.0 + (d + 4.0) * 2f64.powi(-23)) + d * 2f64.powi(-149)
}

/// Writes `row - mean`, each difference rounded once, and returns the sum of their squares: f32 squares in f32 sums. What
/// `out` has beyond the row stays as it is, and counts: zeros.
#[inline(always)]
pub(super) fn centre(row: &[f32], mean: Option<&[f32]>, out: &mut [f32]) -> f32 {
    let mut sums = [0.0f32; STEP];
    let (out_steps, _) = out.as_chunks_mut::<STEP>();
    for (step, out) in out_steps.iter_mut().enumerate() {
        let (row, mean) = (&row[step * STEP..], mean.map(|mean| &mean[step * STEP..]));
        match (row.first_chunk::<STEP>(), mean.map(|mean| mean.first_chunk::<STEP>())) {
            (Some(row), Some(Some(mean))) => {
                for lane in 0..STEP {
                    out[lane] = row[lane] - mean[lane];
                }
            }
            (Some(row), None) => *out = *row,
            _ => {
                for (lane, (out, &value)) in out.iter_mut().zip(row).enumerate() {
                    *out = value - mean.map_or(0.0, |mean| mean[lane]);
                }
            }
        }
        for lane in 0..STEP {
            sums[lane] += out[lane] * out[lane];
        }
    }
    sum(sums)
}

/// The sum of the squares of a scaled row of whole steps: f32 squares in f32 sums.
#[inline(always)]
pub(super) fn sq_norm(row: &[f32], scale: f32) -> f32 {
    let mut sums = [0.0f32; STEP];
    let (steps, _) = row.as_chunks::<STEP>();
    for values in steps {
        for lane in 0..STEP {
            let value = values[lane] * scale;
            sums[lane] += value * value;
        }
    }
    sum(sums)
}

/// Scales a centred row of whole steps, rounds it to the integers of `out`, and returns the squared norm of what rounding
/// took off: f32 squares in f32 sums. The differences are exact: below 2^15 the integer part is a multiple of a value's
/// last bit.
#[inline(always)]
pub(super) fn quantize(row: &[f32], scale: f32, out: &mut [i16]) -> f32 {
    let mut sums = [0.0f32; STEP];
    let ((steps, _), (out, _)) = (row.as_chunks::<STEP>(), out.as_chunks_mut::<STEP>());
    for (values, out) in steps.iter().zip(out) {
        for lane in 0..STEP {
            let value = values[lane] * scale;
            let (bits, rounded) = to_integer(value);
            out[lane] = bits as i16;
            sums[lane] += (value - rounded) * (value - rounded);
        }
    }
    sum(sums)
}

/// The sum, in halves: no term waits for all before it.
#[inline(always)]
fn sum(mut lanes: [f32; STEP]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}
