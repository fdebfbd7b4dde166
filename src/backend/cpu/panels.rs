//! A codebook packed for the filter pass.
//!
//! With z' = z - mean and e' = e - mean the score s_j = |e'_j|^2 / 2 - z'.e'_j ranks codewords like their distance.
//! A panel holds `width` codewords as `[depth, width]`, depth = d + 2:
//!
//! | step | codeword j | row i | product |
//! |---|---|---|---|
//! | t < d | e'_jt, scaled | z'_it, scaled | part of z'.e' |
//! | d | bound_j | \|z'_i\| rounded up | what the rounded sum can be off |
//! | d + 1 | \|e'_j\|^2 / 2, scaled | -c | the other part of -s |
//!
//! So the dot product over the depth is at most -s_j less what rounding can have done to it: **minus a lower
//! bound of the score**, for every codeword with a bound of its own. Rounding errors of the last two steps are
//! left to the reader ([`Panels::lower`], [`Panels::upper`]).
//!
//! The bound: with u = 2^-24, every component of z' and e' is one rounded subtraction (2 u |z'||e'| in all), and a
//! sum of products in any order that rounds at most r times on the way of each is within r u / (1 - r u) of
//! sum |z'_t e'_t| <= |z'||e'| (Higham 2002, section 3.1). So bound_j = (r + 6) u / (1 - (r + 6) u) |e'_j|,
//! rounded up. What underflows is below [`Panels::tiny`].

use super::centre::{distinct, lane_sum, largest_magnitude, mean_of};
use super::filter::roundings;
use super::kernels::Kernels;
use super::rows::{MAX_SHIFT, power_of_two, shift_of};
use super::shares;
use crate::matrix::MatrixView;
use rayon::prelude::*;
use std::ops::Range;

/// Unit roundoff of f32, and a hair: the bounds themselves are computed in f64.
pub(crate) const U: f64 = 1.000_001 / 16_777_216.0;

pub(crate) struct Panels {
    pub(super) kernels: &'static Kernels,
    pub(super) d: usize,
    /// Subtracted from codewords and rows, where that shortens most codewords.
    pub(crate) mean: Option<Vec<f32>>,
    /// Codewords are scaled by 2^shift: their largest magnitude comes to lie in [1, 4), or below where they are
    /// subnormal.
    pub(crate) shift: i32,
    packed: Vec<f32>,
    /// Label of every packed codeword, ascending: a codeword that repeats an earlier one is not packed.
    pub(crate) labels: Vec<u32>,
    /// (label, label of its repetition), ascending.
    pub(crate) repeats: Vec<(u32, u32)>,
    bounds: Vec<f32>,
    halves: Vec<f32>,
    /// Twice the largest of `halves`, in the codewords' own scale: the largest squared norm after centring.
    pub(crate) max_sq_norm: f64,
}

impl Panels {
    pub(super) fn new(codewords: MatrixView<'_, f32>, kernels: &'static Kernels) -> Panels {
        let d = codewords.cols();
        let (labels, repeats) = distinct(codewords);
        let (mean, largest) = match mean_of(codewords, &labels) {
            Some((mean, largest)) => (Some(mean), largest),
            None => (None, largest_magnitude(codewords, &labels, None)),
        };
        let shift = shift_of(largest.to_bits());
        let mut panels = Panels {
            kernels,
            d,
            mean,
            shift,
            packed: Vec::new(),
            repeats,
            bounds: vec![0.0; labels.len()],
            halves: vec![0.0; labels.len()],
            max_sq_norm: 0.0,
            labels,
        };
        panels.pack(codewords);
        panels
    }

    /// Steps of depth: the dimensions, the bound, half the squared norm.
    pub fn depth(&self) -> usize {
        self.d + 2
    }

    /// Codewords packed, padding excluded.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Packed positions, padding included; scores of padding are minus infinity.
    pub fn padded_len(&self) -> usize {
        self.labels.len().next_multiple_of(self.kernels.width)
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.labels.len().div_ceil(self.kernels.width)
    }

    /// All panels.
    pub fn all(&self) -> &[f32] {
        &self.packed
    }

    /// Words of a panel.
    pub fn panel_len(&self) -> usize {
        self.depth() * self.kernels.width
    }

    /// See [`shares::runs`].
    pub fn runs(&self, share: &Range<usize>, floats: usize) -> impl Iterator<Item = (usize, &[f32])> {
        shares::runs(&self.packed, self.panel_len(), share, floats, 1)
    }

    fn pack(&mut self, codewords: MatrixView<'_, f32>) {
        let (depth, width, d) = (self.depth(), self.kernels.width, self.d);
        let scale = power_of_two(self.shift);
        let error = bound_per_norm(d);
        self.packed = vec![0.0; self.padded_len() * depth];
        let mean = self.mean.as_deref();
        let labels = &self.labels;
        self.packed
            .par_chunks_exact_mut(depth * width)
            .zip(self.bounds.par_chunks_mut(width))
            .zip(self.halves.par_chunks_mut(width))
            .zip(labels.par_chunks(width))
            .for_each(|(((panel, bounds), halves), labels)| {
                // Padding: minus infinity, whatever the row.
                panel[(d + 1) * width..].fill(f32::INFINITY);
                for (lane, &label) in labels.iter().enumerate() {
                    let row = codewords.row(label as usize);
                    let mean = |t: usize| mean.map_or(0.0, |mean| mean[t]);
                    let packed = |t: usize| (row[t] - mean(t)) * scale;
                    for t in 0..d {
                        panel[t * width + lane] = packed(t);
                    }
                    let sq_norm = lane_sum(d, |t| f64::from(packed(t)) * f64::from(packed(t)));
                    let half = lane_sum(d, |t| {
                        let real = (f64::from(row[t]) - f64::from(mean(t))) * f64::from(scale);
                        0.5 * real * real
                    });
                    // next_up: the conversion rounds to nearest.
                    bounds[lane] = ((sq_norm.sqrt() * error) as f32).next_up();
                    halves[lane] = half as f32;
                    panel[d * width + lane] = bounds[lane];
                    panel[(d + 1) * width + lane] = halves[lane];
                }
            });
        let largest = self.halves.iter().fold(0.0f32, |max, &half| max.max(half));
        self.max_sq_norm = max_sq_norm(largest, self.shift);
    }

    /// The packed codewords as rows, `[len, depth]`.
    pub fn row_major(&self) -> Vec<f32> {
        let (depth, width) = (self.depth(), self.kernels.width);
        let column = |position: usize| {
            let panel = &self.packed[position / width * depth * width..][..depth * width];
            panel[position % width..].iter().step_by(width).copied()
        };
        (0..self.len()).flat_map(column).collect()
    }

    /// [`tiny`] of this codebook.
    pub fn tiny(&self) -> f64 {
        tiny(self.d)
    }

    /// No real score of a codeword lies below this, given the kernel's (see [`super::rows::Score::LowerBound`]).
    pub fn lower(&self, score: f32) -> f64 {
        lower(score, self.tiny())
    }

    /// The largest score of the kernel that [`Panels::lower`] puts above `limit`; rounded down.
    pub fn threshold(&self, limit: f64) -> f32 {
        threshold(limit, self.tiny())
    }

    /// The real score of the codeword at `position` does not lie above this, given the kernel's score, the row's
    /// norm and ratio.
    pub fn upper(&self, position: usize, score: f32, norm: f32, ratio: f32) -> f64 {
        let score = f64::from(score);
        let bound = 2.0 * f64::from(norm) * f64::from(self.bounds[position]);
        let half = 8.0 * U * f64::from(ratio) * f64::from(self.halves[position]);
        -score + U * score.abs() + bound * 1.000_001 + half + self.tiny()
    }

    /// Labels of the codewords equal to the packed one at `position`, itself first, ascending.
    pub fn twins(&self, position: usize) -> impl Iterator<Item = u32> {
        let label = self.labels[position];
        let start = self.repeats.partition_point(|&(first, _)| first < label);
        let twins = self.repeats[start..].iter().take_while(move |&&(first, _)| first == label);
        std::iter::once(label).chain(twins.map(|&(_, twin)| twin))
    }
}

/// The real score is not below this where the kernel's was rounded once, beside what `tiny` and its own bound cover.
pub(super) fn lower(score: f32, tiny: f64) -> f64 {
    let score = f64::from(score);
    -score - U * score.abs() - tiny
}

/// The largest score of the kernel that [`lower`] puts above `limit`; rounded down.
pub(super) fn threshold(limit: f64, tiny: f64) -> f32 {
    let score = -limit - tiny;
    ((score - 2.0 * U * score.abs()) as f32).next_down()
}

/// What underflow can add to a score. Components are below 4 in the scale of the tile, so that half a subnormal lost in
/// one of a pair, or in their product, adds at most 4 times 2^-150, three times a step.
pub(crate) fn tiny(d: usize) -> f64 {
    (d as f64 + 8.0) * 2f64.powi(-146)
}

/// The bound of a codeword over its packed norm.
pub(crate) fn bound_per_norm(d: usize) -> f64 {
    relative_error(roundings(d + 2))
}

/// What a sum can be off that rounds this often on the way of each product, centring and the norms' own roundings
/// included, relative to the product of the norms. Negative where the bound says nothing.
pub(super) fn relative_error(roundings: usize) -> f64 {
    let error = (roundings + 6) as f64 * U;
    error / (1.0 - error)
}

/// Bounds for cross terms z'.e' that are summed in any order, by a unit that may flush subnormal operands and results.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyOrder {
    /// Times the row's norm makes the packed bounds those of such a sum: 1 up to a depth of one chunk.
    pub widening: f32,
    /// What underflow can add to a score.
    pub tiny: f64,
}

#[cfg(feature = "cuda")]
impl AnyOrder {
    /// Those of `d` dimensions.
    pub fn new(d: usize) -> AnyOrder {
        // As many roundings as in one chunk of the whole depth.
        let (packed, wide) = (bound_per_norm(d), relative_error(d + 4));
        let widening = match wide / packed {
            ratio if ratio <= 1.0 && wide > 0.0 => 1.0,
            // Above what a product with it rounds away.
            ratio if wide > 0.0 => ((ratio * (1.0 + 2f64.powi(-20))) as f32).next_up(),
            // More products than such a bound covers.
            _ => f32::INFINITY,
        };
        // As `tiny`, with 2^-126 in place of 2^-150 for each of what a step can lose: two operands, each below 4 times
        // the other's loss, their product, and the sum.
        AnyOrder { widening, tiny: (d as f64 + 8.0) * 2f64.powi(-122) }
    }
}

/// The largest squared norm after centring, from the largest half of one in the scale of the panels.
pub(crate) fn max_sq_norm(half: f32, shift: i32) -> f64 {
    let scale = f64::from(power_of_two(shift));
    2.0 * f64::from(half) / (scale * scale)
}

const _: () = assert!(MAX_SHIFT < 127, "a scale is a normal number");
