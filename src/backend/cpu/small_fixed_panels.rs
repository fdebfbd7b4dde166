//! A codebook of few dimensions, packed as pairs of 16-bit integers for the pass that has rows in the lanes of its registers.
//!
//! The sums, their units and what they can be off are those of [`super::fixed_panels`]. Of a panel of [`PANEL`] codewords
//! the largest sum counts alone; its low bits are replaced by the number of the panel, as many as there are of these.
//! Which codeword of the panel it is, the same sums say once more. Padding repeats the last codeword: it changes no largest
//! sum.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::fixed_panels::{SqNorms, larger, negated_half, norms_of, pair, quantize, scale_of};
use super::kernels::Kernels;
use super::rows::power_of_two;
use super::shares;
use super::small_fixed_kernels::{PANEL, Panels, SmallFixedKernels, Tile, panel_len};
use super::small_fixed_rows::{MAX_D, Terms};
use crate::matrix::MatrixView;
use rayon::prelude::*;
use std::ops::Range;

/// Codewords from which it is: fewer are one panel of [`super::small_panels`], which needs no sums.
const MIN_K: usize = 17;
/// Panels whose numbers leave the sums enough to say.
const MAX_PANELS: usize = 1 << 14;

pub(super) struct SmallFixedPanels {
    /// Of the same processor: direct sums.
    pub(super) kernels: &'static Kernels,
    pub(super) fixed_kernels: &'static SmallFixedKernels,
    pub(super) d: usize,
    /// Zeros where nothing is centred.
    mean: Vec<f32>,
    /// Codewords are scaled by 2^shift before they are rounded.
    shift: i32,
    pub(super) labels: Vec<u32>,
    /// `[panels][panel_len(half)]`, see [`super::small_fixed_kernels`].
    packed: Vec<i32>,
    /// A and G of [`super::fixed_panels`].
    norm: f64,
    residual: f64,
}

impl SmallFixedPanels {
    /// Of the distinct codewords, those of `labels`. None where this does not pay.
    pub(super) fn new(
        codewords: MatrixView<'_, f32>,
        labels: &[u32],
        kernels: &'static Kernels,
        fixed_kernels: &'static SmallFixedKernels,
    ) -> Option<SmallFixedPanels> {
        let d = codewords.cols();
        if !(fixed_kernels.min_d..=MAX_D).contains(&d) || codewords.rows() < MIN_K {
            return None;
        }
        let count = labels.len().div_ceil(PANEL);
        if labels.len() < MIN_K || count > MAX_PANELS {
            return None;
        }
        let (mean, shift) = scale_of(codewords, labels)?;
        let mean = mean.unwrap_or_else(|| vec![0.0; d]);
        let half = d.div_ceil(2);
        let mut packed = vec![0; count * panel_len(half)];
        let scale = power_of_two(shift);
        let pack = |(packed, labels): (&mut [i32], &[u32])| {
            let mut largest = SqNorms::default();
            let mut rounded = [0i16; MAX_D];
            for lane in 0..PANEL {
                let label = labels[lane.min(labels.len() - 1)];
                let norms = quantize(codewords.row(label as usize), &mean, scale, &mut rounded);
                packed[lane] = negated_half(norms);
                for (t, pairs) in rounded.chunks_exact(2).take(half).enumerate() {
                    packed[(t + 1) * PANEL + lane] = pair(pairs[0], pairs[1]);
                }
                largest = larger(largest, norms);
            }
            largest
        };
        let panels = packed.par_chunks_exact_mut(panel_len(half)).zip(labels.par_chunks(PANEL));
        let largest = panels.with_min_len(32).map(pack).reduce(SqNorms::default, larger);
        let (norm, residual) = norms_of(largest);
        Some(SmallFixedPanels {
            kernels,
            fixed_kernels,
            d,
            mean,
            shift,
            labels: labels.to_vec(),
            packed,
            norm,
            residual,
        })
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.labels.len().div_ceil(PANEL)
    }

    /// Pairs of a vector.
    pub fn half(&self) -> usize {
        self.d.div_ceil(2)
    }

    /// The bits of a key that carry the number of the panel.
    pub fn low(&self) -> i32 {
        self.count().next_power_of_two() as i32 - 1
    }

    /// What rows are placed by.
    pub fn terms(&self) -> Terms<'_> {
        // next_up: the conversions round to nearest.
        let [norm, residual] = [self.norm, self.residual].map(|value| (value as f32).next_up());
        Terms { mean: &self.mean, shift: self.shift, norm, residual }
    }

    /// All panels.
    pub fn all(&self) -> Panels<'_> {
        Panels { words: &self.packed, low: self.low(), codewords: self.labels.len() }
    }

    /// Words of a panel.
    pub fn panel_len(&self) -> usize {
        panel_len(self.half())
    }

    /// See [`shares::runs`].
    pub fn runs(&self, share: &Range<usize>, words: usize) -> impl Iterator<Item = (usize, &[i32])> {
        shares::runs(&self.packed, self.panel_len(), share, words, 1)
    }

    /// Adds the labels of a panel whose sums with row `row` of a tile are `least` or more.
    pub fn labels_from(&self, panel: usize, tile: Tile<'_>, row: usize, least: i32, labels: &mut Vec<u32>) {
        let len = panel_len(self.half());
        // A sum is never as low as the lowest number.
        let lanes = self.fixed_kernels.above(tile, row, &self.packed[panel * len..][..len], least.saturating_sub(1));
        let of_panel = &self.labels[panel * PANEL..self.labels.len().min((panel + 1) * PANEL)];
        labels.extend(of_panel.iter().enumerate().filter(|&(lane, _)| lanes >> lane & 1 == 1).map(|(_, &label)| label));
    }

    /// The number of the panel of a key.
    pub fn panel_of(&self, key: i32) -> usize {
        (key & self.low()) as usize
    }

    /// The real score of the best codeword of a panel does not lie above this, given its key and the row's bound.
    pub fn upper(&self, key: i32, bound: f32) -> f64 {
        -f64::from(key & !self.low()) + f64::from(bound)
    }

    /// The least sum of a codeword whose real score can be `limit` or less, given the row's bound.
    pub fn least(&self, limit: f64, bound: f32) -> i32 {
        // A conversion saturates: below all sums then.
        (-limit - f64::from(bound)).floor() as i32
    }
}
