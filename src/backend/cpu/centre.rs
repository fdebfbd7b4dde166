//! Which codewords are distinct, and what is subtracted from them before they are packed.
//!
//! Every sum here has one order, the same on the CPU and in kernels/prepare.cu, so that a codebook prepared on either
//! is the same bit for bit.

use crate::matrix::MatrixView;
use rayon::prelude::*;

/// Distinct codewords in one running sum of a column: `PREPARE_RUN` of kernels/shapes.h.
const RUN: usize = 64;

/// Numbers that are worth a task of their own.
const GRAIN: usize = 1 << 14;

/// As many codewords of d dimensions.
pub(super) fn grain(d: usize) -> usize {
    GRAIN.div_ceil(d.max(1))
}

/// Labels of the distinct codewords, and every repetition with the label it repeats. Equal numbers are equal:
/// 0 and -0 too.
pub(super) fn distinct(codewords: MatrixView<'_, f32>) -> (Vec<u32>, Vec<(u32, u32)>) {
    let k = codewords.rows();
    let factors: Vec<u64> = (1..=codewords.cols() as u64).map(mixed).collect();
    let hash = |j: u32| {
        let row = codewords.row(j as usize).iter().zip(&factors);
        row.fold(0u64, |sum, (&value, &factor)| {
            sum.wrapping_add(u64::from((value + 0.0).to_bits()).wrapping_mul(factor))
        })
    };
    let mut order: Vec<(u64, u32)> =
        (0..k as u32).into_par_iter().with_min_len(grain(codewords.cols())).map(|j| (hash(j), j)).collect();
    order.par_sort_unstable();
    let mut repeats = Vec::new();
    for run in order.chunk_by(|a, b| a.0 == b.0) {
        // One hash: nearly always one codeword, or copies of one. The first of each kind is kept.
        let mut kinds: Vec<u32> = Vec::with_capacity(1);
        for &(_, j) in run {
            match kinds.iter().find(|&&kind| codewords.row(kind as usize) == codewords.row(j as usize)) {
                Some(&kind) => repeats.push((kind, j)),
                None => kinds.push(j),
            }
        }
    }
    repeats.sort_unstable();
    let mut repeated = vec![false; k];
    for &(_, j) in &repeats {
        repeated[j as usize] = true;
    }
    ((0..k as u32).filter(|&j| !repeated[j as usize]).collect(), repeats)
}

/// A number with the bits of another well mixed: a step of SplitMix64 (Steele, Lea and Flood 2014). A sum of products with
/// such numbers seldom is the same for two vectors (multilinear hashing), and needs no product before the next.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) | 1
}

/// The mean of the distinct codewords and the largest magnitude of a component around it, or none where it does not
/// shorten the median codeword: one far outlier drags the mean along.
pub(super) fn mean_of(codewords: MatrixView<'_, f32>, labels: &[u32]) -> Option<(Vec<f32>, f32)> {
    let d = codewords.cols();
    let run = |labels: &[u32]| {
        let rows = labels.iter().map(|&label| codewords.row(label as usize));
        rows.fold(vec![0.0f64; d], |sums, row| add(sums, row.iter().map(|&value| f64::from(value))))
    };
    let runs: Vec<Vec<f64>> = labels.par_chunks(RUN).with_min_len(grain(d * RUN)).map(run).collect();
    let sums = runs.iter().fold(vec![0.0f64; d], |sums, run| add(sums, run.iter().copied()));
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / labels.len() as f64) as f32).collect();
    let median = |mean: Option<&[f32]>| {
        let sq_norm = |&label: &u32| {
            let row = codewords.row(label as usize);
            lane_sum(d, |t| {
                let value = f64::from(row[t]) - mean.map_or(0.0, |mean| f64::from(mean[t]));
                value * value
            })
        };
        let mut norms: Vec<f64> = labels.par_iter().with_min_len(grain(d)).map(sq_norm).collect();
        let middle = norms.len() / 2;
        *norms.select_nth_unstable_by(middle, f64::total_cmp).1
    };
    let largest = largest_magnitude(codewords, labels, Some(&mean));
    // A difference that overflows f32 rules centring out as well.
    (largest.is_finite() && median(Some(&mean)) < median(None)).then_some((mean, largest))
}

/// Sums with one more term each.
fn add(mut sums: Vec<f64>, terms: impl Iterator<Item = f64>) -> Vec<f64> {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    sums
}

/// The largest magnitude of a component, of its rounded difference from the mean where there is one.
pub(super) fn largest_magnitude(codewords: MatrixView<'_, f32>, labels: &[u32], mean: Option<&[f32]>) -> f32 {
    let largest = |label: &u32| {
        let row = codewords.row(*label as usize).iter().enumerate();
        row.fold(0.0f32, |max, (t, &value)| max.max((value - mean.map_or(0.0, |mean| mean[t])).abs()))
    };
    labels.par_iter().with_min_len(grain(codewords.cols())).map(largest).reduce(|| 0.0, f32::max)
}

/// The sum of `term(t)` for t below `d` as a warp of 32 lanes forms it: every 32nd term in a lane, then the upper half of
/// the lanes added to the lower one until one is left.
#[inline(always)]
pub(super) fn lane_sum(d: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0f64; 32];
    let whole = d - d % 32;
    for start in (0..whole).step_by(32) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for t in whole..d {
        sums[t - whole] += term(t);
    }
    for half in [16, 8, 4, 2, 1] {
        let (lower, upper) = sums.split_at_mut(half);
        lower.iter_mut().zip(upper).for_each(|(lower, upper)| *lower += *upper);
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cuda")]
    #[test]
    fn the_kernel_sums_as_many_codewords_in_a_run() {
        assert_eq!(RUN, crate::backend::cuda::shapes::PREPARE_RUN as usize);
    }

    #[test]
    fn lanes_are_summed_in_halves() {
        // Alone, the small number is lost beside 1; added to others of its kind first, it is not.
        let tiny = 2f64.powi(-53);
        let term = |t: usize| if t == 0 { 1.0 } else { tiny };
        let expected = [16, 8, 4, 2, 1].iter().fold(1.0, |sum, &half| sum + tiny * f64::from(16 / half));
        assert_eq!(lane_sum(32, term), expected);
        // The terms of a lane come one after the other.
        assert_eq!(lane_sum(65, |t| [1.0, tiny, tiny][t / 32] * f64::from(u8::from(t % 32 == 0))), 1.0);
        assert_eq!(lane_sum(3, |t| t as f64), 3.0);
    }
}
