//! Rows on their way into the pass over pairs of 16-bit integers: centred, scaled, rounded.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::fixed_panels::{FixedPanels, NORM, OFF, to_integer};
use super::lanes::{Lanes, sum};
use super::rows::{MAX_SHIFT, RowKind, power_of_two, prefetch, shift_of, sq_norm};
use crate::matrix::{Element, MatrixView};

/// Half a squared norm has no more bits.
pub(super) const MAX_COARSER: i32 = 31;
/// Values that are centred, scaled and rounded at a time: rows are padded to a multiple with zeros.
pub(super) const STEP: usize = 32;
/// Rows that are packed together: what is measured of them fills a register.
pub(super) const GROUP: usize = 8;
/// Bytes of rows that are on their way from memory while others are packed.
const AHEAD: usize = 8192;
/// What a few roundings of f32 can take off: more than 32 of them.
const UP: f32 = 1.0 + 1.0 / 262_144.0;

/// What rows are packed by.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// In whole steps, zeros after it.
    pub mean: &'a [f32],
    pub d: usize,
    /// The exponent of the codebook's scale.
    pub shift: i32,
    /// A and G of [`super::fixed_panels`], rounded up.
    pub norm: f32,
    pub residual: f32,
}

/// A block of rows: `[tiles][rows][row_len]` integers, every row in its own scale. See [`super::fixed_panels`].
#[derive(Default)]
pub(super) struct FixedRows {
    rows: Vec<i16>,
    row_len: usize,
    tile_rows: usize,
    /// Per row of whole tiles how much coarser its scale is than the codebook's.
    shifts: Vec<i32>,
    /// Per row what its sums can be off: infinite for a row that is not packed.
    pub bounds: Vec<f32>,
    pub kinds: Vec<RowKind>,
    /// `[GROUP][row_len]`.
    centred: Vec<f32>,
    wide: Vec<f32>,
}

impl FixedRows {
    pub fn pack<T: Element>(&mut self, x: MatrixView<'_, T>, panels: &FixedPanels) {
        let n = x.rows();
        self.tile_rows = panels.fixed_kernels.rows;
        let padded = n.next_multiple_of(self.tile_rows);
        self.row_len = panels.terms().mean.len();
        // What an earlier block left beyond the last row does no harm.
        self.rows.resize(padded * self.row_len, 0);
        self.shifts.resize(padded, 0);
        self.bounds.resize(n, 0.0);
        self.kinds.clear();
        self.kinds.resize(n, RowKind::Packed);
        self.centred.resize(GROUP * self.row_len, 0.0);
        let groups = self.rows.chunks_mut(GROUP * self.row_len).zip(self.shifts.chunks_mut(GROUP));
        let groups = groups.zip(self.bounds.chunks_mut(GROUP).zip(self.kinds.chunks_mut(GROUP)));
        let ahead = AHEAD.div_ceil(GROUP * size_of::<T>() * panels.d) * GROUP;
        for (i, ((out, shifts), (bounds, kinds))) in groups.enumerate() {
            let soon = i * GROUP + ahead;
            (soon..n.min(soon + GROUP)).for_each(|row| prefetch(x.row(row)));
            let x = x.block(i * GROUP..n.min((i + 1) * GROUP)).as_f32(&mut self.wide);
            panels.fixed_kernels.pack_rows(x, panels.terms(), &mut self.centred, out, shifts, bounds);
            for (row, (kind, bound)) in kinds.iter_mut().zip(bounds).enumerate() {
                if bound.is_infinite() {
                    let is_finite = x.row(row).iter().all(|value| value.is_finite());
                    *kind = if is_finite { RowKind::Wild } else { RowKind::NonFinite };
                }
            }
        }
    }

    /// Every tile with the shifts of its rows.
    pub fn tiles(&self) -> impl ExactSizeIterator<Item = (&[i16], &[i32])> {
        // No division by zero before the first block.
        let tile_rows = self.tile_rows.max(1);
        self.rows.chunks_exact((tile_rows * self.row_len).max(1)).zip(self.shifts.chunks_exact(tile_rows))
    }
}

/// Centres, scales and rounds a group of rows or what is left of them, by way of `[GROUP][row_len]` values, to
/// `[rows][row_len]` integers; and writes how far they shift half the squared norms and what their sums can be
/// off: infinite for a row with a component that is not finite, or not after centring.
///
/// A row is scaled so that its norm is [`NORM`] at most after rounding, or as the codebook where it is shorter. The terms of
/// its bound are f32, rounded less often than [`UP`] allows; a sum of d squares in any order is off by a factor 1 + (d + 4) 2^-23 at most,
/// and by d squares below 2^-149, which are lost.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn pack_rows<L: Lanes>(
    x: MatrixView<'_, f32>,
    terms: Terms<'_>,
    centred: &mut [f32],
    out: &mut [i16],
    shifts: &mut [i32],
    bounds: &mut [f32],
) {
    let (n, d, row_len) = (x.rows().min(GROUP), terms.d, centred.len() / GROUP);
    let up = 1.0 + (d + 36) as f32 * f32::EPSILON;
    let lost = f32::from_bits(d as u32);
    // The scale in which squares are summed: none where the sums are far from the ends of f32's range, which proves
    // besides that all components are finite.
    let (mut own, mut sums, mut is_finite) = ([0i32; GROUP], [1.0f32; GROUP], [true; GROUP]);
    for (i, centred) in centred.chunks_exact_mut(row_len).enumerate().take(n) {
        // SAFETY: as the caller promises.
        sums[i] = unsafe { centre::<L>(x.row(i), terms.mean, centred) };
        if !(1e-25..1e25).contains(&sums[i]) {
            (own[i], sums[i], is_finite[i]) = measure(centred);
        }
    }
    // Half the exponent of room^2 / sum, rounded down: see [`super::fixed_panels::shift_to_norm`].
    let room = (NORM - 0.5 * (d as f64).sqrt() - 1.0) as f32;
    let room = (room * room).next_down().to_bits() as i32;
    let (mut exponents, mut scales) = ([0i32; GROUP], [0.0f32; GROUP]);
    for i in 0..GROUP {
        sums[i] = sums[i] * up + lost;
        // Of a finite row not below -121: components are below 4 in the scale 2^own, and own is -126 or more; or own is 0
        // and the norm below 2^42.
        let exponent = own[i] + ((room - sums[i].to_bits() as i32) >> 24);
        exponents[i] = terms.shift.min(exponent).max(-MAX_SHIFT);
        scales[i] = power_of_two(exponents[i]);
    }
    let mut residuals = [0.0f32; GROUP];
    for (i, (centred, out)) in centred.chunks_exact(row_len).zip(out.chunks_exact_mut(row_len)).enumerate().take(n) {
        // SAFETY: as the caller promises.
        residuals[i] = unsafe { quantize::<L>(centred, scales[i], out) };
    }
    let mut found = [0.0f32; GROUP];
    for i in 0..GROUP {
        let norm = sums[i].sqrt() * UP * power_of_two((exponents[i] - own[i]).max(-MAX_SHIFT));
        // Centring rounded a component by 2^-24 of itself; scaling one below 2^-126 by less than 2^-149.
        let rho = (residuals[i] * up + lost).sqrt() * UP + norm * f32::EPSILON + lost;
        let bound = (rho * terms.norm + (norm + rho) * terms.residual) * UP + OFF as f32;
        found[i] = if is_finite[i] { bound } else { f32::INFINITY };
    }
    for (i, (shift, bound)) in shifts.iter_mut().zip(bounds).enumerate().take(n) {
        (*shift, *bound) = ((terms.shift - exponents[i]).min(MAX_COARSER), found[i]);
    }
}

/// Of a centred row, zeros after it: the exponent that brings its largest component to [1, 4), or as near as a scale can, the
/// sum of squares there, and whether it is finite.
#[cold]
fn measure(centred: &[f32]) -> (i32, f32, bool) {
    // NaN and infinity are the largest bits of all.
    let largest = centred.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    let own = shift_of(largest);
    (own, sq_norm(centred, power_of_two(own)), largest < f32::INFINITY.to_bits())
}

/// Writes `row - mean`, each difference rounded once, in whole steps with zeros after the row, and returns the sum of their
/// squares: f32 squares in f32 sums.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn centre<L: Lanes>(row: &[f32], mean: &[f32], out: &mut [f32]) -> f32 {
    let mut sums = [0.0f32; STEP];
    let ((means, _), (out, _)) = (mean.as_chunks::<STEP>(), out.as_chunks_mut::<STEP>());
    let (steps, rest) = row.as_chunks::<STEP>();
    for ((values, mean), out) in steps.iter().zip(means).zip(out.iter_mut()) {
        *out = centre_step(*values, mean, &mut sums);
    }
    if !rest.is_empty() {
        let mut values = [0.0; STEP];
        values[..rest.len()].copy_from_slice(rest);
        out[steps.len()] = centre_step(values, &means[steps.len()], &mut sums);
    }
    // SAFETY: as the caller promises.
    unsafe { sum::<L, STEP>(sums) }
}

#[inline(always)]
fn centre_step(mut values: [f32; STEP], mean: &[f32; STEP], sums: &mut [f32; STEP]) -> [f32; STEP] {
    for lane in 0..STEP {
        values[lane] -= mean[lane];
        sums[lane] = values[lane].mul_add(values[lane], sums[lane]);
    }
    values
}

/// Scales a centred row of whole steps, rounds it to the integers of `out`, and returns the squared norm of what rounding
/// took off: f32 squares in f32 sums. The differences are exact: below 2^15 the integer part is a multiple of a value's
/// last bit.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn quantize<L: Lanes>(row: &[f32], scale: f32, out: &mut [i16]) -> f32 {
    let mut sums = [0.0f32; STEP];
    let ((steps, _), (out, _)) = (row.as_chunks::<STEP>(), out.as_chunks_mut::<STEP>());
    for (values, out) in steps.iter().zip(out) {
        for lane in 0..STEP {
            let value = values[lane] * scale;
            let (bits, rounded) = to_integer(value);
            out[lane] = bits as i16;
            sums[lane] = (value - rounded).mul_add(value - rounded, sums[lane]);
        }
    }
    // SAFETY: as the caller promises.
    unsafe { sum::<L, STEP>(sums) }
}
