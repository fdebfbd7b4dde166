//! A codebook packed as pairs of bf16, for units that multiply and add two of them at once.
//!
//! With z' = z - mean and e' = e - mean, scaled by powers of two, and z^, e^ what bf16 makes of them, a panel holds
//! `WIDTH` codewords as `[depth, WIDTH]` words of 32 bits, h = ceil(d / 2), depth = h + 3:
//!
//! | step | codeword j | row i | product |
//! |---|---|---|---|
//! | t < h | pair e^_jt, e^_j(t+h) | pair z^_it, z^_i(t+h) | part of z^.e^ |
//! | h | A_j = \|e'_j\| up, f32 | rho_i >= \|z'_i - z^_i\| | what rounding z' costs |
//! | h + 1 | B_j, f32 | \|z^_i\| up | what rounding e' and summing cost |
//! | h + 2 | \|e'_j\|^2 / 2, f32 | -c | the other part of -s |
//!
//! As in [`super::panels`] the sum is **minus a lower bound of the score** s_j = |e'_j|^2 / 2 - z'.e'_j, for every
//! codeword with a bound of its own, so that a codeword a hundred times longer weakens only itself. With u = 2^-24:
//!
//! - z'.e' - z^.e^ = (z' - z^).e' + z^.(e' - e^), at most rho |e'| + |z^| gamma with gamma_j >= |e'_j - e^_j|. Both
//!   are measured against the exact z' and e', so that whatever made z^ and e^ is covered: the f32 subtraction of the
//!   mean (for z', which is measured from that difference, rho has u |z'| more), scaling, rounding, flushing.
//! - A product of two bf16 is an f32 value. On its way through the sum it is rounded at most twice in each of the h
//!   steps (once per product, or once for the pair and once for the sum: processors may differ), then once by each of
//!   the steps h and h + 1. A sum in any order that rounds at most r times on the way of each term is within
//!   r u / (1 - r u) of sum |z^_t e^_t| <= |z^||e^| (Higham 2002, section 3.1). So r = 2 h + 2, and
//!   eps = (r + 6) u / (1 - (r + 6) u), where the six more cover that f64 makes e' and gamma.
//! - The terms of steps h and h + 1 are rounded too, by each of them once: A and B = gamma + eps |e^| are a millionth
//!   larger than needed, 2^-20 = 16 u.
//! - The last step rounds the half, and the sum; c is smaller by 4 u for the former, the reader of the score allows for
//!   the latter ([`lower`]).
//! - `vdpbf16ps` takes subnormal operands and results for zero, whatever the control register says: z^ and e^ are
//!   flushed before rho and gamma are measured, and of the products and sums each pair of dimensions loses less than
//!   8 times 2^-126 ([`PairPanels::tiny`]).
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::centre::{largest_magnitude, mean_of};
use super::kernels::Kernels;
use super::pair_kernels::{PairKernels, WIDTH};
use super::panels::{U, lower, relative_error, threshold};
use super::rows::{power_of_two, shift_of};
use super::shares;
use crate::matrix::MatrixView;
use rayon::prelude::*;
use std::ops::Range;

/// Dimensions from which pairs pay: with 32 they take as long as f32, for the steps that are not pairs and the second look
/// cost what they gain; with 64 four fifths of it.
const MIN_D: usize = 33;
/// Dimensions beyond which summing costs as much of the bound as rounding to bf16.
const MAX_D: usize = 1 << 15;

pub(super) struct PairPanels {
    /// Of the same processor: direct sums, centring, reading the state.
    pub(super) kernels: &'static Kernels,
    pub(super) pair_kernels: &'static PairKernels,
    pub(super) d: usize,
    /// As in [`super::panels::Panels`].
    pub(super) mean: Option<Vec<f32>>,
    pub(super) shift: i32,
    pub(super) labels: Vec<u32>,
    packed: Vec<u32>,
    /// A, B and half the squared norm of every codeword.
    terms: Vec<[f32; 3]>,
}

/// Squared norms of a codeword in f64: of e', of e^, and of their difference.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SqNorms {
    pub exact: f64,
    pub rounded: f64,
    pub residual: f64,
}

impl PairPanels {
    /// Of the distinct codewords, those of `labels`. None where pairs do not pay.
    pub(super) fn new(
        codewords: MatrixView<'_, f32>,
        labels: &[u32],
        kernels: &'static Kernels,
        pair_kernels: &'static PairKernels,
    ) -> Option<PairPanels> {
        let d = codewords.cols();
        if !(MIN_D..=MAX_D).contains(&d) {
            return None;
        }
        let (mean, largest) = match mean_of(codewords, labels) {
            Some((mean, largest)) => (Some(mean), largest),
            None => (None, largest_magnitude(codewords, labels, None)),
        };
        let shift = shift_of(largest.to_bits());
        let (packed, terms) = (Vec::new(), vec![[0.0; 3]; labels.len()]);
        let mut panels = PairPanels { kernels, pair_kernels, d, mean, shift, labels: labels.to_vec(), packed, terms };
        panels.pack(codewords);
        Some(panels)
    }

    /// Codewords packed, padding excluded.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Steps that are pairs: dimension t goes with dimension t + half.
    pub fn half(&self) -> usize {
        self.d.div_ceil(2)
    }

    /// Steps of depth.
    pub fn depth(&self) -> usize {
        self.half() + 3
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.labels.len().div_ceil(WIDTH)
    }

    /// Words of a panel.
    pub fn panel_len(&self) -> usize {
        self.depth() * WIDTH
    }

    /// See [`shares::runs`].
    pub fn runs(&self, share: &Range<usize>, words: usize) -> impl Iterator<Item = (usize, &[u32])> {
        shares::runs(&self.packed, self.panel_len(), share, words, 1)
    }

    fn pack(&mut self, codewords: MatrixView<'_, f32>) {
        let (depth, half) = (self.depth(), self.half());
        let scale = power_of_two(self.shift);
        let summing = relative_error(2 * half + 2);
        let (mean, kernels) = (self.mean.as_deref(), self.pair_kernels);
        let zeros = vec![0.0; self.d];
        let mean = mean.unwrap_or(&zeros);
        self.packed = vec![0; self.count() * depth * WIDTH];
        self.packed
            .par_chunks_exact_mut(depth * WIDTH)
            .zip(self.terms.par_chunks_mut(WIDTH))
            .zip(self.labels.par_chunks(WIDTH))
            .for_each_init(
                || vec![0.0; 2 * half],
                |rounded, ((panel, terms), labels)| {
                    // Padding: minus infinity, whatever the row.
                    panel[(half + 2) * WIDTH..].fill(f32::INFINITY.to_bits());
                    for (lane, &label) in labels.iter().enumerate() {
                        let norms = kernels.round_codeword(codewords.row(label as usize), mean, scale, rounded);
                        kernels.interleave_codeword(rounded, &mut panel[lane..]);
                        // next_up: the conversion rounds to nearest.
                        let up = |value: f64| ((value * (1.0 + 2f64.powi(-20))) as f32).next_up();
                        let bound = norms.residual.sqrt() + summing * norms.rounded.sqrt();
                        terms[lane] = [up(norms.exact.sqrt()), up(bound), (0.5 * norms.exact) as f32];
                        for (step, term) in terms[lane].iter().enumerate() {
                            panel[(half + step) * WIDTH + lane] = term.to_bits();
                        }
                    }
                },
            );
    }

    /// What underflow can add to a score. A pair can lose both products, their sum and the running sum, each below
    /// 2^-126; the steps that are not pairs lose less than they do in [`super::panels`].
    pub fn tiny(&self) -> f64 {
        (self.d as f64 + 8.0) * 2f64.powi(-122)
    }

    /// No real score of a codeword lies below this, given the kernel's.
    pub fn lower(&self, score: f32) -> f64 {
        lower(score, self.tiny())
    }

    /// The largest score of the kernel that [`PairPanels::lower`] puts above `limit`; rounded down.
    pub fn threshold(&self, limit: f64) -> f32 {
        threshold(limit, self.tiny())
    }

    /// The real score of the codeword at `position` does not lie above this, given the kernel's score, and the row's
    /// rho, norm and ratio.
    pub fn upper(&self, position: usize, score: f32, rho: f32, norm: f32, ratio: f32) -> f64 {
        let [exact, bound, half] = self.terms[position].map(f64::from);
        let bound = 2.0 * (f64::from(rho) * exact + f64::from(norm) * bound);
        let score = f64::from(score);
        -score + U * score.abs() + bound * 1.000_001 + 8.0 * U * f64::from(ratio) * half + self.tiny()
    }
}

/// The bf16 nearest to `value`, ties to even, subnormals to zero. Finite values below 4 only.
#[inline(always)]
fn to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f32::from_bits(if rounded & 0x7f80_0000 == 0 { 0 } else { rounded })
}

/// Scales a centred row, rounds it to `out`, and returns the squared norms of the rounded row and of what rounding
/// took off: f32 sums of f32 squares. The differences are exact.
#[inline(always)]
pub(super) fn round_row(row: &[f32], scale: f32, out: &mut [f32]) -> (f32, f32) {
    let (mut norm, mut residual) = ([0.0f32; 16], [0.0f32; 16]);
    let (head, tail) = row.as_chunks::<16>();
    let (out_head, out_tail) = out.as_chunks_mut::<16>();
    let mut chunks = out_head.iter_mut();
    for (values, out) in head.iter().zip(&mut chunks) {
        for lane in 0..16 {
            let value = values[lane] * scale;
            let rounded = to_bf16(value);
            out[lane] = rounded;
            norm[lane] += rounded * rounded;
            residual[lane] += (value - rounded) * (value - rounded);
        }
    }
    let rest = chunks.next().map_or(out_tail, |chunk| &mut chunk[..]);
    for (lane, (value, out)) in tail.iter().zip(rest).enumerate() {
        let value = value * scale;
        let rounded = to_bf16(value);
        *out = rounded;
        norm[lane] += rounded * rounded;
        residual[lane] += (value - rounded) * (value - rounded);
    }
    (sum(norm), sum(residual))
}

/// Centres and scales a codeword, rounds it to `out`, and measures it against the real numbers in f64.
#[inline(always)]
pub(super) fn round_codeword(row: &[f32], mean: &[f32], scale: f32, out: &mut [f32]) -> SqNorms {
    let mut sums = [[0.0f64; 16]; 3];
    for ((row, mean), out) in row.chunks(16).zip(mean.chunks(16)).zip(out.chunks_mut(16)) {
        for (lane, ((&value, &mean), out)) in row.iter().zip(mean).zip(out).enumerate() {
            *out = to_bf16((value - mean) * scale);
            let (exact, rounded) = ((f64::from(value) - f64::from(mean)) * f64::from(scale), f64::from(*out));
            sums[0][lane] += exact * exact;
            sums[1][lane] += rounded * rounded;
            sums[2][lane] += (exact - rounded) * (exact - rounded);
        }
    }
    let [exact, rounded, residual] = sums.map(sum);
    SqNorms { exact, rounded, residual }
}

/// Pairs value t with value t + half and writes them to `to`, STRIDE words from pair to pair. Two halves of bf16 values.
#[inline(always)]
pub(super) fn interleave<const STRIDE: usize>(rounded: &[f32], to: &mut [u32]) {
    let (low, high) = rounded.split_at(rounded.len() / 2);
    let pair = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits();
    let (low_head, low_tail) = low.as_chunks::<16>();
    let (high_head, high_tail) = high.as_chunks::<16>();
    for (step, (low, high)) in low_head.iter().zip(high_head).enumerate() {
        let to = &mut to[step * 16 * STRIDE..][..15 * STRIDE + 1];
        for lane in 0..16 {
            to[lane * STRIDE] = pair(low[lane], high[lane]);
        }
    }
    for (step, (&low, &high)) in (low_head.len() * 16..).zip(low_tail.iter().zip(high_tail)) {
        to[step * STRIDE] = pair(low, high);
    }
}

/// The sum, in halves: no term waits for all before it.
#[inline(always)]
fn sum<T: Copy + std::ops::AddAssign>(mut lanes: [T; 16]) -> T {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}
