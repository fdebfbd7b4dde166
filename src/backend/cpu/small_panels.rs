//! A codebook of few dimensions, packed for the pass that has rows in the lanes of its registers.
//!
//! A panel is [`PANEL`] codewords. With z' = z - mean and e' = e - mean, both scaled by the codebook's power of two,
//! and z^, e^ what f32 makes of them, the pass sums a_ij = -h_j + z^_i1 e^_j1 + ... + z^_id e^_jd in this order,
//! where h_j is (1 - g) |e'_j|^2 / 2: minus the score s_ij = |e'_j|^2 / 2 - z'_i.e'_j, and a hair more. Of a panel it
//! keeps the largest sum alone, m, and adds what the products of any can be off: its value is v = m + |z_i| B.
//!
//! The bound, with u = 2^-24:
//! - z^ and e^ are one rounded subtraction each: of every product, 2 u.
//! - A product may round on its own (no FMA), then in each of at most d sums; h once when it is made, then in d sums.
//!   Sums of products that round at most r times are within r u / (1 - r u) of the sum of magnitudes (Higham 2002,
//!   section 3.1), which is at most |z^||e^| + h. r = d + 3 covers all of these; g = [`relative_error`] has 4 more.
//! - Components of e^ are below 4, those of a row in the pass below 2^60. Half a subnormal lost in e^, d times, costs
//!   d 2^-150 |z|, which B has on top of g |e^|; lost in z^, a product, a sum or h, it is covered by [`tiny`], as in
//!   [`super::panels`].
//!
//! So **-v is a lower bound of the scores of the panel, and -v + 2 |z| B + C an upper bound of its best**: of the
//! latter C = 2 g |e'|^2 / 2 undoes what h has too little. B and C are the largest of the panel, and 2^-20 = 16 u
//! larger than needed; the rounding of v is left to the reader. One codeword a hundred times longer than the others
//! so weakens the panel it is in, and for the rows that are nearest to this panel only: its own h has its own error.
//! [`super::small_rows::certain`] compares. Which codeword of the panel it is, [`super::small_nearest`] says.

use super::centre::{largest_magnitude, mean_of};
use super::kernels::Kernels;
use super::panels::{U, relative_error, threshold, tiny};
use super::rows::{power_of_two, shift_of};
use super::shares;
use super::small_kernels::{PANEL, QUAD, SmallKernels, panel_len};
use crate::matrix::MatrixView;
use rayon::prelude::*;
use std::ops::Range;

/// Dimensions up to which this pass is the faster one.
const MAX_D: usize = 16;

pub(super) struct SmallPanels {
    /// Of the same processor: direct sums.
    pub(super) kernels: &'static Kernels,
    pub(super) small_kernels: &'static SmallKernels,
    pub(super) d: usize,
    /// Zeros where nothing is centred.
    pub(super) mean: Vec<f32>,
    /// As in [`super::panels::Panels`].
    pub(super) shift: i32,
    pub(super) labels: Vec<u32>,
    /// `[panels][panel_len(d)]`, see [`super::small_kernels`].
    packed: Vec<f32>,
    /// `[panels][d][PANEL]`: the codewords as they came; infinite where there is none.
    pub(super) exact: Vec<f32>,
    /// B and C of every panel.
    pub(super) bounds: Vec<[f32; 2]>,
}

impl SmallPanels {
    /// Of the distinct codewords, those of `labels`. None where the dimensions are too many.
    pub(super) fn new(
        codewords: MatrixView<'_, f32>,
        labels: &[u32],
        kernels: &'static Kernels,
        small_kernels: &'static SmallKernels,
    ) -> Option<SmallPanels> {
        let d = codewords.cols();
        if d > MAX_D {
            return None;
        }
        let (mean, largest) = match mean_of(codewords, labels) {
            Some(centred) => centred,
            None => (vec![0.0; d], largest_magnitude(codewords, labels, None)),
        };
        let shift = shift_of(largest.to_bits());
        let (packed, exact, bounds) = (Vec::new(), Vec::new(), Vec::new());
        let mut panels =
            SmallPanels { kernels, small_kernels, d, mean, shift, labels: labels.to_vec(), packed, exact, bounds };
        panels.pack(codewords);
        Some(panels)
    }

    fn pack(&mut self, codewords: MatrixView<'_, f32>) {
        let (d, len, scale) = (self.d, panel_len(self.d), power_of_two(self.shift));
        let (mean, error) = (&self.mean, relative_error(d + 1));
        let count = self.labels.len().div_ceil(PANEL);
        self.packed = vec![0.0; count * len];
        self.exact = vec![f32::INFINITY; count * d * PANEL];
        self.bounds = vec![[0.0; 2]; count];
        self.packed
            .par_chunks_exact_mut(len)
            .zip(self.exact.par_chunks_exact_mut(d * PANEL))
            .zip(&mut self.bounds)
            .zip(self.labels.par_chunks(PANEL))
            .with_min_len(16)
            .for_each(|(((packed, exact), bounds), labels)| {
                let (mut sq_norm, mut half) = (0.0f64, 0.0f64);
                for lane in 0..PANEL {
                    let quad = &mut packed[lane / QUAD * QUAD * (d + 1)..][..QUAD * (d + 1)];
                    let Some(&label) = labels.get(lane) else {
                        // Padding: minus infinity, whatever the row.
                        quad[lane % QUAD] = f32::NEG_INFINITY;
                        continue;
                    };
                    let (mut rounded, mut real) = (0.0f64, 0.0f64);
                    for (t, (&value, &mean)) in codewords.row(label as usize).iter().zip(mean).enumerate() {
                        let centred = (value - mean) * scale;
                        quad[(t + 1) * QUAD + lane % QUAD] = centred;
                        exact[t * PANEL + lane] = value;
                        rounded += f64::from(centred) * f64::from(centred);
                        let centred = (f64::from(value) - f64::from(mean)) * f64::from(scale);
                        real += centred * centred;
                    }
                    quad[lane % QUAD] = (-0.5 * real * (1.0 - error)) as f32;
                    (sq_norm, half) = (sq_norm.max(rounded), half.max(0.5 * real));
                }
                // next_up: the conversion rounds to nearest.
                let up = |value: f64| ((value * (1.0 + 2f64.powi(-20))) as f32).next_up();
                *bounds = [up(sq_norm.sqrt() * error + d as f64 * 2f64.powi(-149)), up(2.0 * half * error)];
                packed[len - 1] = bounds[0];
            });
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.bounds.len()
    }

    /// All panels.
    pub fn all(&self) -> &[f32] {
        &self.packed
    }

    /// Words of a panel.
    pub fn panel_len(&self) -> usize {
        panel_len(self.d)
    }

    /// See [`shares::runs`].
    pub fn runs(&self, share: &Range<usize>, floats: usize) -> impl Iterator<Item = (usize, &[f32])> {
        shares::runs(&self.packed, self.panel_len(), share, floats, 1)
    }

    /// Labels of a panel.
    pub fn labels_of(&self, panel: usize) -> &[u32] {
        &self.labels[panel * PANEL..self.labels.len().min((panel + 1) * PANEL)]
    }

    /// The real score of the best codeword of the panel does not lie above this, given the kernel's value of the panel
    /// and the row's norm.
    pub fn upper(&self, panel: usize, value: f32, norm: f32) -> f64 {
        let [b, c] = self.bounds[panel].map(f64::from);
        let value = f64::from(value);
        -value + U * value.abs() + (2.0 * f64::from(norm) * b + c) * 1.000_001 + tiny(self.d)
    }

    /// The largest value of a panel, all of whose codewords have real scores above `limit`; rounded down.
    pub fn threshold(&self, limit: f64) -> f32 {
        threshold(limit, tiny(self.d))
    }
}
