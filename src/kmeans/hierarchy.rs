//! A start for thousands of codewords: k-means within parts of the rows.

use super::init::random_rows;
use super::labels::{Labels, assign};
use super::random::Random;
use super::source::len;
use super::{KMeans, Problem, Step};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Matrix, MatrixView};
use rayon::prelude::*;

/// Rows that the parts are found from, for each part.
const SAMPLE: usize = 256;
/// How often codewords are moved, those of the parts and those within one.
const ITERATIONS: usize = 10;
/// Parts whose rows are in memory at once; they are worked on side by side.
const AT_ONCE: usize = 16;

/// Codewords of two levels, as [`Init::Hierarchical`](super::Init::Hierarchical) tells.
pub(super) fn hierarchical<E: From<Error> + Send>(
    problem: &mut Problem<'_, '_, E>,
    run: usize,
    random: &mut Random,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<Matrix<f32>, E> {
    let (d, k, weights) = (problem.source.cols(), problem.k, problem.weights);
    let rows = rows_of_parts(problem, run, random, observe)?;
    let counts: Vec<usize> = rows.iter().map(Vec::len).collect();
    let shares = shares(&counts, k);
    let seeds: Vec<u64> = rows.iter().map(|_| random.seed()).collect();

    let mut codewords = Vec::new();
    let parts: Vec<usize> = (0..rows.len()).filter(|&part| shares[part] > 0).collect();
    for some in parts.chunks(AT_ONCE) {
        let mut held = Vec::with_capacity(some.len());
        for &part in some {
            held.push((part, problem.source.finite_rows_at(&rows[part])?));
        }
        let within = |(part, values): &(usize, Vec<f32>)| {
            let weights: Option<Vec<f32>> =
                weights.0.map(|weights| rows[*part].iter().map(|&row| weights[row]).collect());
            let params = KMeans::new(shares[*part]).seed(seeds[*part]).iterations(ITERATIONS);
            let x = MatrixView::new(values, counts[*part], d)?;
            // On the processor, wherever assignments are made: a part is little work.
            let fit = params.fit_with(x, weights.as_deref(), &Device::Cpu, untold)?;
            let codewords = fit.codebook.codewords()?;
            Ok((0..shares[*part]).flat_map(|j| codewords.row(j)).copied().collect())
        };
        let learned: Vec<Result<Vec<f32>>> = held.par_iter().with_max_len(1).map(within).collect();
        for part in learned {
            codewords.extend(part?);
        }
        observe(Step::Start { run, codewords: codewords.len() / d })?;
    }
    Ok(Matrix::new(codewords, k, d)?)
}

/// The rows of each part that weigh something: those nearest to one codeword of the upper level.
fn rows_of_parts<E: From<Error> + Send>(
    problem: &mut Problem<'_, '_, E>,
    run: usize,
    random: &mut Random,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<Vec<Vec<usize>>, E> {
    let (n, weights) = (problem.source.rows(), problem.weights);
    let count = problem.k.isqrt();
    let heavy = weights.0.map_or(n, |weights| weights.iter().filter(|&&weight| weight > 0.0).count());
    let sample = heavy.min(count.saturating_mul(SAMPLE));
    let sample = random_rows(problem.source, weights, sample, random)?;
    let upper: Codebook =
        KMeans::new(count).seed(random.seed()).iterations(ITERATIONS).fit(sample.view(), problem.device)?.codebook;
    let (mut labels, mut parts) = (Labels::new(n, false), vec![Vec::new(); count]);
    problem.source.each_block(|first, x| {
        let rows = first..first + len(x);
        let (labels, sq_distances) = labels.of(rows.clone());
        assign(x, first, &upper, labels, sq_distances)?;
        for (i, &label) in rows.clone().zip(&*labels).filter(|&(i, _)| weights.weight(i) > 0.0) {
            parts[label as usize].push(i);
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
