//! The codewords that k-means starts from.

use super::random::Random;
use super::{Problem, Step};
use crate::backend::{Precision, pairwise_sq_l2_into};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use rayon::prelude::*;
use std::collections::HashMap;

/// Rows that are added up together when one is picked.
const PICK_ROWS: usize = 4096;

/// k different rows, uniformly, by the first k swaps of a Fisher-Yates shuffle of the rows that weigh something.
pub(super) fn random_rows<T: Element>(problem: &Problem<'_, T>, random: &mut Random) -> Result<Matrix<f32>> {
    let heavy: Option<Vec<usize>> =
        problem.weights.map(|weights| (0..weights.len()).filter(|&i| weights[i] > 0.0).collect());
    let n = heavy.as_ref().map_or(problem.x.rows(), Vec::len);
    // Only positions that are not in their place any more.
    let mut moved = HashMap::new();
    let mut codewords = Vec::with_capacity(problem.k * problem.x.cols());
    for i in 0..problem.k {
        let j = i + random.below((n - i) as u64) as usize;
        let picked = moved.get(&j).copied().unwrap_or(j);
        let displaced = moved.get(&i).copied().unwrap_or(i);
        moved.insert(j, displaced);
        problem.push_row(heavy.as_ref().map_or(picked, |heavy| heavy[picked]), &mut codewords);
    }
    Matrix::new(codewords, problem.k, problem.x.cols())
}

/// k-means++ (Arthur and Vassilvitskii 2007): a first row by weight, then each by weight times the squared distance to
/// the nearest codeword so far; by weight alone where all rows coincide with codewords.
pub(super) fn plus_plus<T: Element, E: From<Error>>(
    problem: &Problem<'_, T>,
    run: usize,
    random: &mut Random,
    observe: &mut impl FnMut(Step) -> Result<(), E>,
) -> Result<Matrix<f32>, E> {
    let (n, d) = (problem.x.rows(), problem.x.cols());
    let (mut nearest, mut distances) = (vec![f32::INFINITY; n], vec![0.0; n]);
    let mut codewords = Vec::with_capacity(problem.k * d);
    for chosen in 0..problem.k {
        let by_weight = |i: usize| problem.weight(i);
        // A distance beyond f32 counts as the largest.
        let by_distance = |i: usize| problem.weight(i) * f64::from(nearest[i].min(f32::MAX));
        let row = match chosen {
            0 => pick(n, by_weight, random.unit()),
            _ => {
                let part = random.unit();
                pick(n, by_distance, part).or_else(|| pick(n, by_weight, part))
            }
        };
        // Some row weighs something: that was checked.
        problem.push_row(row.unwrap_or(0), &mut codewords);
        observe(Step::Start { run, codewords: chosen + 1 })?;
        if chosen + 1 < problem.k {
            // On the processor, wherever assignments are made: one codeword is less work than the way of the rows.
            let one = MatrixView::new(&codewords[chosen * d..], 1, d)?;
            pairwise_sq_l2_into(problem.x, &Codebook::new(one, &Device::Cpu)?, Precision::Exact, &mut distances)?;
            nearest.par_iter_mut().zip(&distances).with_min_len(PICK_ROWS).for_each(|(a, &b)| *a = a.min(b));
        }
    }
    Ok(Matrix::new(codewords, problem.k, d)?)
}

/// The row at the given part of the way, in [0, 1), along the sum of all `shares`, which are finite and not negative;
/// None where they are all zero. The sum is f64, row after row within blocks of 4096, then block after block.
fn pick(n: usize, share: impl Fn(usize) -> f64 + Sync, part: f64) -> Option<usize> {
    let rows = |block: usize| block * PICK_ROWS..n.min((block + 1) * PICK_ROWS);
    let blocks: Vec<f64> =
        (0..n.div_ceil(PICK_ROWS)).into_par_iter().map(|block| rows(block).map(&share).sum()).collect();
    let goal = part * blocks.iter().sum::<f64>();
    let mut passed = 0.0;
    // Rounding may leave the goal beyond the end: then it is the last row that has a share.
    let mut last = None;
    for (block, &sum) in blocks.iter().enumerate().filter(|&(_, &sum)| sum > 0.0) {
        last = Some(block);
        if passed + sum > goal {
            break;
        }
        passed += sum;
    }
    let mut picked = None;
    for i in rows(last?) {
        let share = share(i);
        if share > 0.0 {
            picked = Some(i);
            passed += share;
            if passed > goal {
                break;
            }
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn a_row_is_picked_by_its_share_of_the_sum() {
        let shares = [0.0, 1.0, 0.0, 2.0, 1.0, 0.0];
        let at = |part: f64| pick(6, |i| shares[i], part);
        assert_eq!([0.0, 0.24, 0.25, 0.74, 0.75, 0.999].map(at), [1, 1, 3, 3, 4, 4].map(Some));
        assert_eq!(pick(6, |_| 0.0, 0.5), None);
        assert_eq!(pick(0, |_| 1.0, 0.5), None);
        // 10,000 equal shares, in three blocks, the last of them not full.
        for row in [0, 4095, 4096, 8191, 8192, 9999] {
            assert_eq!(pick(10_000, |_| 1.0, (row as f64 + 0.5) / 10_000.0), Some(row));
        }
        // Shares that vanish beside the first: the goal is never passed again.
        assert_eq!(pick(3, |i| if i == 0 { 1.0 } else { 1e-30 }, 1.0 - f64::EPSILON / 2.0), Some(0));
    }
}
