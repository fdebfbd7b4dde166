//! A start for thousands of codewords: k-means within parts of the rows.

use super::init::random_rows;
use super::random::Random;
use super::{KMeans, Problem, Step};
use crate::backend::{AssignOptions, assign_into};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use rayon::prelude::*;

/// Rows that the parts are found from, for each part.
const SAMPLE: usize = 256;
/// How often codewords are moved, those of the parts and those within one.
const ITERATIONS: usize = 10;
/// Parts between two steps that are told; they are worked on side by side.
const TOLD: usize = 16;

/// Codewords of two levels, as [`Init::Hierarchical`](super::Init::Hierarchical) tells.
pub(super) fn hierarchical<T: Element, E: From<Error>>(
    problem: &Problem<'_, T>,
    run: usize,
    random: &mut Random,
    device: &Device,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<Matrix<f32>, E> {
    let (n, d, k) = (problem.x.rows(), problem.x.cols(), problem.k);
    let labels = parts(problem, random, device)?;
    let mut rows = vec![Vec::new(); k.isqrt()];
    for i in (0..n).filter(|&i| problem.weight(i) > 0.0) {
        rows[labels[i] as usize].push(i);
    }
    let counts: Vec<usize> = rows.iter().map(Vec::len).collect();
    let shares = shares(&counts, k);
    let seeds: Vec<u64> = rows.iter().map(|_| random.seed()).collect();

    let mut codewords = Vec::with_capacity(k * d);
    let parts: Vec<usize> = (0..rows.len()).filter(|&part| shares[part] > 0).collect();
    for some in parts.chunks(TOLD) {
        let of_part = |&part: &usize| within(problem, &rows[part], shares[part], seeds[part]);
        let learned: Vec<Result<Vec<f32>>> = some.par_iter().with_max_len(1).map(of_part).collect();
        for part in learned {
            codewords.extend(part?);
        }
        observe(Step::Start { run, codewords: codewords.len() / d })?;
    }
    Ok(Matrix::new(codewords, k, d)?)
}

/// The part of every row: its label among the codewords of the upper level.
fn parts<T: Element>(problem: &Problem<'_, T>, random: &mut Random, device: &Device) -> Result<Vec<u32>> {
    let n = problem.x.rows();
    let count = problem.k.isqrt();
    let sample = problem.heavy().min(count.saturating_mul(SAMPLE));
    let sample = random_rows(&Problem { k: sample, ..*problem }, random)?;
    let upper = KMeans::new(count).seed(random.seed()).iterations(ITERATIONS).fit(sample.view(), device)?;
    let (mut labels, mut sq_distances) = (vec![0; n], vec![0.0; n]);
    assign_into(problem.x, &upper.codebook, AssignOptions::default(), &mut labels, &mut sq_distances)?;
    Ok(labels)
}

/// `k` codewords from these rows. On the processor, wherever assignments are made: a part is little work.
fn within<T: Element>(problem: &Problem<'_, T>, rows: &[usize], k: usize, seed: u64) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(rows.len() * problem.x.cols());
    rows.iter().for_each(|&i| problem.push_row(i, &mut values));
    let weights: Option<Vec<f32>> = problem.weights.map(|weights| rows.iter().map(|&i| weights[i]).collect());
    let x = MatrixView::new(&values, rows.len(), problem.x.cols())?;
    let params = KMeans::new(k).seed(seed).iterations(ITERATIONS);
    let fit = params.fit_with(x, weights.as_deref(), &Device::Cpu, |_| Ok::<(), Error>(()))?;
    let codewords = fit.codebook.codewords()?;
    Ok((0..k).flat_map(|j| codewords.row(j)).copied().collect())
}

/// `k` shared out in proportion to `counts`, whose sum is k or more: what whole numbers leave goes to the largest
/// remainders, the first among equals. No share is larger than its count.
fn shares(counts: &[usize], k: usize) -> Vec<usize> {
    let all: u128 = counts.iter().map(|&count| count as u128).sum();
    let exact = |count: usize| count as u128 * k as u128;
    // Below k and of 2^32 rows at most: they fit.
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
