//! The slow oracle of the numeric contract, for tests and benches only.
//!
//! Distances are exact: an f32 is an integer of 24 bits times a power of two, so a product of two is an integer of
//! 48 bits times a power of two, and `(z - e)^2 = z^2 - 2ze + e^2` is a sum of such products. They are added up in
//! one long fixed-point integer, which holds every bit from 2^-298 upwards. No floating-point operation decides
//! anything here: nothing is shared with the method of the backends. (A first sieve in f64 only drops codewords that
//! lie farther away by a margin a million times its error; [`top_k_unfiltered`] does without.)

use crate::backend::SENTINEL;
use crate::matrix::{Element, MatrixView};
use crate::metrics::Metrics;
use rayon::prelude::*;
use std::cmp::Ordering;

/// Limbs of 32 bits: products of two f32 end below 2^257, twice that times 2^32 terms below 2^292; from 2^-298 that
/// is 590 bits, and the last limb is left for the sign.
const LIMBS: usize = 20;

/// 2^-298 is the smallest product of two f32, and so the weight of bit 0.
const LOWEST_EXPONENT: i32 = -298;

/// Terms a limb of 64 bits can take, each below 2^32, is 2^31; carries are settled long before that.
const COMPONENTS_PER_CARRY: usize = 1 << 24;

/// A sum of products of f32 as a fixed-point integer. Compares and rounds as the real number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exact {
    /// Weight 2^(32 i - 298); all in 0..2^32 but the last, which is signed.
    limbs: [i64; LIMBS],
}

impl Exact {
    const ZERO: Exact = Exact { limbs: [0; LIMBS] };

    /// Adds `magnitude * 2^(exponent)`, leaving carries behind.
    fn add(&mut self, magnitude: u64, exponent: i32, negative: bool) {
        let position = (exponent - LOWEST_EXPONENT) as usize;
        let shifted = u128::from(magnitude) << (position % 32);
        for (i, limb) in self.limbs[position / 32..][..3].iter_mut().enumerate() {
            let part = (shifted >> (32 * i)) as i64 & 0xffff_ffff;
            *limb += if negative { -part } else { part };
        }
    }

    /// Adds `2^doublings * a * b`.
    fn add_product(&mut self, a: f32, b: f32, doublings: i32, negate: bool) {
        let ((a_negative, a, a_exponent), (b_negative, b, b_exponent)) = (integer(a), integer(b));
        self.add(a * b, a_exponent + b_exponent + doublings, (a_negative != b_negative) != negate);
    }

    /// Moves what overflows a limb into the next one.
    fn carry(&mut self) {
        for i in 0..LIMBS - 1 {
            self.limbs[i + 1] += self.limbs[i] >> 32;
            self.limbs[i] &= 0xffff_ffff;
        }
    }

    fn bit(&self, position: usize) -> bool {
        self.limbs[position / 32] >> (position % 32) & 1 == 1
    }

    /// The nearest f32, to even where two are equally near; infinite from the middle between `f32::MAX` and 2^128.
    pub fn to_f32(&self) -> f32 {
        if self.limbs[LIMBS - 1] < 0 {
            let mut positive = Exact { limbs: self.limbs.map(|limb| -limb) };
            positive.carry();
            return -positive.to_f32();
        }
        let Some(top) = (0..32 * LIMBS).rev().find(|&position| self.bit(position)) else { return 0.0 };
        // An f32 keeps 24 bits, but none below 2^-149, which is bit 149.
        let last = (top.saturating_sub(23)).max(149);
        let mantissa = (last..=top).rev().fold(0u32, |kept, position| kept << 1 | u32::from(self.bit(position)));
        let half = self.bit(last - 1);
        let rest = (0..last - 1).any(|position| self.bit(position));
        let up = half && (rest || mantissa & 1 == 1);
        let exponent = (last - 149) as u32;
        if exponent > 253 {
            return f32::INFINITY;
        }
        // With its hidden bit added in, a mantissa of 24 bits makes the exponent field one more, and a carry out of
        // rounding another one: up to infinity.
        f32::from_bits((exponent << 23) + mantissa + u32::from(up))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        self.limbs.iter().rev().cmp(other.limbs.iter().rev())
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A finite f32 as sign, integer below 2^24 and exponent of two.
fn integer(value: f32) -> (bool, u64, i32) {
    debug_assert!(value.is_finite());
    let (bits, fraction) = (value.to_bits(), value.to_bits() & 0x7f_ffff);
    match (bits >> 23 & 0xff) as i32 {
        0 => (bits >> 31 == 1, u64::from(fraction), -149),
        exponent => (bits >> 31 == 1, u64::from(fraction | 0x80_0000), exponent - 150),
    }
}

/// The squared Euclidean distance of two rows of finite numbers, as the real number it is.
pub fn sq_distance<X: Element, E: Element>(x: &[X], e: &[E]) -> Exact {
    let mut sum = Exact::ZERO;
    for (x, e) in x.chunks(COMPONENTS_PER_CARRY).zip(e.chunks(COMPONENTS_PER_CARRY)) {
        for (&x, &e) in x.iter().zip(e) {
            let (x, e) = (x.to_f32(), e.to_f32());
            sum.add_product(x, x, 0, false);
            sum.add_product(x, e, 1, true);
            sum.add_product(e, e, 0, false);
        }
        sum.carry();
    }
    sum
}

/// The nearest codeword of every row, the lowest index among equals, and the squared distance rounded to f32.
/// A row that holds a NaN or an infinity gives [`SENTINEL`] and NaN. Codewords must be finite.
pub fn nearest<X: Element, E: Element>(x: MatrixView<'_, X>, codewords: MatrixView<'_, E>) -> (Vec<u32>, Vec<f32>) {
    top_k(x, codewords, 1)
}

/// The `r` nearest codewords of every row, by distance and then index, with their rounded squared distances: `[n, r]`
/// each. Non-finite rows as in [`nearest`].
pub fn top_k<X: Element, E: Element>(
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
    r: usize,
) -> (Vec<u32>, Vec<f32>) {
    let codewords = widen(codewords);
    rows(x, r, |row| ranked(row, &codewords, near(row, &codewords, r), r))
}

/// [`top_k`] by exact arithmetic alone.
pub fn top_k_unfiltered<X: Element, E: Element>(
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
    r: usize,
) -> (Vec<u32>, Vec<f32>) {
    let codewords = widen(codewords);
    rows(x, r, |row| ranked(row, &codewords, (0..codewords.len() as u32).collect(), r))
}

/// Every squared distance rounded to f32, `[n, k]`. A row that holds a NaN or an infinity gives NaN.
pub fn pairwise<X: Element, E: Element>(x: MatrixView<'_, X>, codewords: MatrixView<'_, E>) -> Vec<f32> {
    let codewords = widen(codewords);
    let all = |row: &[f32]| codewords.iter().zip(0..).map(|(e, j)| (j, sq_distance(row, e).to_f32())).collect();
    rows(x, codewords.len(), all).1
}

/// Applies `work` to every row of finite numbers, in parallel; it gives `r` labels with their distances.
fn rows<X: Element>(
    x: MatrixView<'_, X>,
    r: usize,
    work: impl Fn(&[f32]) -> Vec<(u32, f32)> + Sync,
) -> (Vec<u32>, Vec<f32>) {
    let per_row = |i: usize| {
        let row: Vec<f32> = x.row(i).iter().map(|v| v.to_f32()).collect();
        if row.iter().all(|v| v.is_finite()) { work(&row) } else { vec![(SENTINEL, f32::NAN); r] }
    };
    (0..x.rows()).into_par_iter().flat_map_iter(per_row).unzip()
}

fn widen<E: Element>(codewords: MatrixView<'_, E>) -> Vec<Vec<f32>> {
    (0..codewords.rows()).map(|j| codewords.row(j).iter().map(|v| v.to_f32()).collect()).collect()
}

/// The codewords that may be among the `r` nearest. An f64 sum of f32 differences squared cannot overflow or
/// underflow (2^-298 to 2^290), so its relative error is below (d + 3) 2^-53: under 1.2e-10 up to a million dimensions,
/// well inside the margin of 1e-9.
fn near(row: &[f32], codewords: &[Vec<f32>], r: usize) -> Vec<u32> {
    if row.len() > 1_000_000 || r == 0 || r >= codewords.len() {
        return (0..codewords.len() as u32).collect();
    }
    let rough: Vec<f64> = codewords.iter().map(|e| sq_distance_f64(row, e)).collect();
    let mut sorted = rough.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let limit = sorted[r - 1] * (1.0 + 1e-9);
    (0..).zip(rough).filter(|&(_, distance)| distance <= limit).map(|(j, _)| j).collect()
}

/// The first `r` of `candidates` by exact distance and then index.
fn ranked(row: &[f32], codewords: &[Vec<f32>], candidates: Vec<u32>, r: usize) -> Vec<(u32, f32)> {
    let mut exact: Vec<(Exact, u32)> =
        candidates.into_iter().map(|j| (sq_distance(row, &codewords[j as usize]), j)).collect();
    exact.sort_unstable();
    exact.iter().take(r).map(|(distance, j)| (*j, distance.to_f32())).collect()
}

/// A direct sum in f64, left to right.
fn sq_distance_f64(x: &[f32], e: &[f32]) -> f64 {
    x.iter().zip(e).map(|(&x, &e)| (f64::from(x) - f64::from(e)).powi(2)).sum()
}

/// The metrics of rows against the codewords their labels name, by one loop in f64. Rows with label [`SENTINEL`]
/// count as skipped and nowhere else. Where no row is left, everything but `skipped`, `dead` and the histogram is 0.
pub fn metrics<X: Element, E: Element>(x: MatrixView<'_, X>, codewords: MatrixView<'_, E>, labels: &[u32]) -> Metrics {
    let codewords = widen(codewords);
    let mut m = Metrics { histogram: vec![0; codewords.len()], ..Default::default() };
    for (i, &label) in labels.iter().enumerate() {
        if label == SENTINEL {
            m.skipped += 1;
            continue;
        }
        let row: Vec<f32> = x.row(i).iter().map(|v| v.to_f32()).collect();
        m.n += 1;
        m.histogram[label as usize] += 1;
        m.inertia += sq_distance_f64(&row, &codewords[label as usize]);
        m.energy += row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    }
    m.dead = m.histogram.iter().filter(|&&uses| uses == 0).count() as u64;
    if m.n > 0 {
        let n = m.n as f64;
        m.distortion = m.inertia / n;
        m.mse = m.distortion / x.cols() as f64;
        m.snr_db = if m.inertia == 0.0 { f64::INFINITY } else { 10.0 * (m.energy / m.inertia).log10() };
        let shares = m.histogram.iter().filter(|&&uses| uses > 0).map(|&uses| uses as f64 / n);
        m.perplexity = (-shares.map(|share| share * share.ln()).sum::<f64>()).exp();
        m.utilization = (codewords.len() as u64 - m.dead) as f64 / codewords.len() as f64;
    }
    m
}

/// The rows of each label added up, `[k, d]`, in the order that [`crate::accumulate`] documents, and their weights.
pub fn accumulate<X: Element>(
    x: MatrixView<'_, X>,
    labels: &[u32],
    weights: Option<&[f32]>,
    k: usize,
) -> (Vec<f64>, Vec<f64>) {
    let d = x.cols();
    let (mut sums, mut totals) = (vec![0.0; k * d], vec![0.0; k]);
    let rows: Vec<usize> = (0..x.rows()).collect();
    for block in rows.chunks((262_144 / d).max(1)) {
        for j in 0..k {
            let (mut sum, mut total) = (vec![0.0; d], 0.0);
            for &i in block.iter().filter(|&&i| labels[i] as usize == j) {
                let weight = weights.map_or(1.0, |weights| f64::from(weights[i]));
                total += weight;
                for (sum, value) in sum.iter_mut().zip(x.row(i)) {
                    *sum += weight * f64::from(value.to_f32());
                }
            }
            totals[j] += total;
            sums[j * d..][..d].iter_mut().zip(sum).for_each(|(all, part)| *all += part);
        }
    }
    (sums, totals)
}

/// The two losses of a VQ-VAE in their forward value, both means over all elements: the codebook loss, which moves
/// codewords to vectors, and `beta` times the same number, which commits vectors to codewords.
pub fn losses<X: Element, E: Element>(
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
    labels: &[u32],
    beta: f64,
) -> (f64, f64) {
    let mse = metrics(x, codewords, labels).mse;
    (mse, beta * mse)
}
