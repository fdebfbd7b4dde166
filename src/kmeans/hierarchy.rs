//! A start for thousands of codewords: k-means within parts of the rows.

use super::init::{draw, random_rows};
use super::labels::{Labels, assign, filled};
use super::random::Random;
use super::source::len;
use super::stop::Stop;
use super::{KMeans, Problem, Step};
use crate::backend::carried::Carry;
use crate::backend::sketched;
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::Result;
use crate::matrix::{Matrix, MatrixView};
use rayon::prelude::*;

/// Rows that codewords are learned from at most, for each, on either level.
const SAMPLE: usize = 256;
/// How often codewords are moved, those of the parts and those within one.
const ITERATIONS: usize = 10;
/// Parts that are worked on side by side at most, and bytes of their rows, in short too, which a single part may go beyond.
const AT_ONCE: usize = 16;
const BYTES_AT_ONCE: usize = 256 << 20;
/// The stream of random numbers that the rows of a large part are drawn with; its training has the first.
const SAMPLE_STREAM: u64 = 1;
/// The part of a row that weighs nothing.
const NO_PART: u32 = u32::MAX;

/// Codewords of two levels, as [`Init::Hierarchical`](super::Init::Hierarchical) tells.
pub(super) fn hierarchical(
    problem: &mut Problem<'_, '_>,
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
) -> Result<Matrix<f32>, Stop> {
    let (d, k) = (problem.source.cols(), problem.k);
    let of_rows = parts_of_rows(problem, run, random, observe)?;
    let mut counts = vec![0; k.isqrt()];
    of_rows.iter().filter(|&&part| part != NO_PART).for_each(|&part| counts[part as usize] += 1);
    let shares = shares(&counts, k);
    let seeds: Vec<u64> = counts.iter().map(|_| random.seed()).collect();

    let mut codewords = Vec::new();
    let parts: Vec<usize> = (0..counts.len()).filter(|&part| shares[part] > 0).collect();
    let mut left = &parts[..];
    while !left.is_empty() {
        let bytes = |&part: &usize| bytes_in_short(counts[part].min(SAMPLE.saturating_mul(shares[part])), d);
        let mut held = 0;
        let fit = left.iter().take_while(|part| {
            held += bytes(part);
            held <= BYTES_AT_ONCE
        });
        let some;
        (some, left) = left.split_at(fit.count().clamp(1, AT_ONCE.min(left.len())));
        let jobs = jobs(problem, some, &of_rows, &counts, &shares, &seeds)?;
        let learned: Vec<Result<Vec<f32>>> = jobs.par_iter().with_max_len(1).map(|job| job.learn(d)).collect();
        for part in learned {
            codewords.extend(part?);
        }
        observe(Step::Start { run, codewords: codewords.len() / d })?;
    }
    Ok(Matrix::new(codewords, k, d)?)
}

/// Bytes of some rows with their short form.
fn bytes_in_short(rows: usize, d: usize) -> usize {
    rows.saturating_mul(4 * d + sketched::bytes_per_row(d))
}

/// Whether there is room for the short form, too: rows beyond it are held without.
fn fits_in_short(rows: usize, d: usize) -> bool {
    bytes_in_short(rows, d) <= BYTES_AT_ONCE
}

/// `k` codewords to learn from the rows of a part.
struct Job {
    values: Vec<f32>,
    weights: Option<Vec<f32>>,
    k: usize,
    seed: u64,
}

impl Job {
    /// On the processor, wherever assignments are made: a part is little work.
    fn learn(&self, d: usize) -> Result<Vec<f32>> {
        let x = MatrixView::new(&self.values, self.values.len() / d, d)?;
        let params = KMeans::new(self.k).seed(self.seed).iterations(ITERATIONS).carry(Carry::Never);
        let params = params.sketch(fits_in_short(x.rows(), d));
        let fit = params.fit_with(x, self.weights.as_deref(), &Device::Cpu, untold)?;
        let codewords = fit.codebook.codewords()?;
        Ok((0..self.k).flat_map(|j| codewords.row(j)).copied().collect())
    }
}

/// The rows of `some` parts, drawn where there are many, ascending.
fn jobs(
    problem: &mut Problem<'_, '_>,
    some: &[usize],
    of_rows: &[u32],
    counts: &[usize],
    shares: &[usize],
    seeds: &[u64],
) -> Result<Vec<Job>, Stop> {
    let mut slots = vec![None; counts.len()];
    some.iter().enumerate().for_each(|(slot, &part)| slots[part] = Some(slot));
    let mut rows: Vec<Vec<usize>> = some.iter().map(|&part| Vec::with_capacity(counts[part])).collect();
    for (i, &part) in of_rows.iter().enumerate().filter(|&(_, &part)| part != NO_PART) {
        if let Some(slot) = slots[part as usize] {
            rows[slot].push(i);
        }
    }
    let mut jobs = Vec::with_capacity(some.len());
    for (&part, mut rows) in some.iter().zip(rows) {
        let (k, seed, weights) = (shares[part], seeds[part], problem.weights.0);
        let most = SAMPLE.saturating_mul(k);
        if rows.len() > most {
            let mut drawn = draw(rows.len(), most, &mut Random::new(seed, SAMPLE_STREAM));
            drawn.sort_unstable();
            rows = drawn.into_iter().map(|i| rows[i]).collect();
        }
        let values = problem.source.finite_rows_at(&rows)?;
        let weights = weights.map(|weights| rows.iter().map(|&i| weights[i]).collect());
        jobs.push(Job { values, weights, k, seed });
    }
    Ok(jobs)
}

/// The part of each row that weighs something: the codeword of the upper level that is nearest.
fn parts_of_rows(
    problem: &mut Problem<'_, '_>,
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
) -> Result<Vec<u32>, Stop> {
    let (n, weights) = (problem.source.rows(), problem.weights);
    let count = problem.k.isqrt();
    let heavy = weights.0.map_or(n, |weights| weights.iter().filter(|&&weight| weight > 0.0).count());
    let sample = heavy.min(count.saturating_mul(SAMPLE));
    let sample = random_rows(problem.source, weights, sample, random)?;
    let upper = KMeans::new(count).seed(random.seed()).iterations(ITERATIONS).carry(Carry::Never);
    let upper = upper.sketch(fits_in_short(sample.rows(), sample.cols()));
    let upper: Codebook = upper.fit(sample.view(), problem.device)?.codebook;
    let (mut labels, mut parts) = (Labels::new(n, false)?, filled(n, NO_PART)?);
    problem.source.each_block(|first, x| {
        let rows = first..first + len(x);
        let (labels, sq_distances) = labels.of(rows.clone());
        assign(x, first, &upper, labels, sq_distances)?;
        for (i, &label) in rows.clone().zip(&*labels).filter(|&(i, _)| weights.weight(i) > 0.0) {
            parts[i] = label;
        }
        observe(Step::Rows { run, iteration: None, rows: rows.end })
    })?;
    Ok(parts)
}

/// Observes nothing. A function, since a closure would make the type of this training part of its own.
fn untold(_: Step) -> Result<()> {
    Ok(())
}

/// `k` shared out in proportion to `counts`, whose sum is k or more: what whole numbers leave goes to the largest
/// remainders, the first among equals. No share is larger than its count.
fn shares(counts: &[usize], k: usize) -> Vec<usize> {
    let all: u128 = counts.iter().map(|&count| count as u128).sum();
    let exact = |count: usize| count as u128 * k as u128;
    // At most k: they fit.
    let mut shares: Vec<usize> = counts.iter().map(|&count| (exact(count) / all) as usize).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&part| std::cmp::Reverse(exact(counts[part]) % all));
    let left = k - shares.iter().sum::<usize>();
    order[..left].iter().for_each(|&part| shares[part] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_are_in_proportion_and_never_larger_than_their_count() {
        assert_eq!(shares(&[10, 30, 60], 10), [1, 3, 6]);
        assert_eq!(shares(&[1, 1, 1], 2), [1, 1, 0], "the first among equals");
        assert_eq!(shares(&[0, 5, 1], 4), [0, 3, 1]);
        assert_eq!(shares(&[7], 7), [7]);
        for k in 1..=37 {
            let counts = [0, 1, 2, 3, 5, 7, 19];
            let shares = shares(&counts, k);
            assert_eq!(shares.iter().sum::<usize>(), k);
            for (&share, &count) in shares.iter().zip(&counts) {
                assert!(share <= count && (share as f64 - count as f64 * k as f64 / 37.0).abs() < 1.0, "{k}: {share}");
            }
        }
    }
}
