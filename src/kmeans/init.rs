//! The codewords that k-means starts from.

use super::labels::filled;
use super::random::Random;
use super::source::{RowSource, at_row, len};
use super::stop::Stop;
use super::{Step, Weights};
use crate::backend::sketched::Sketched;
use crate::backend::{Precision, pairwise_sq_l2_into};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::Result;
use crate::matrix::{Matrix, MatrixView, on_view};
use rayon::prelude::*;
use std::collections::HashMap;

/// Rows that are added up together when one is picked.
const PICK_ROWS: usize = 4096;
/// So many times these rows one thread adds up sooner than others are awake.
const ALONE: usize = 16;

/// k different rows, uniformly, of those that weigh something.
pub(super) fn random_rows(
    source: &mut RowSource<'_, Stop>,
    weights: Weights<'_>,
    k: usize,
    random: &mut Random,
) -> Result<Matrix<f32>, Stop> {
    let (n, d) = (source.rows(), source.cols());
    let rows = match weights.0 {
        None => draw(n, k, random),
        Some(weights) => {
            let heavy: Vec<usize> = (0..n).filter(|&i| weights[i] > 0.0).collect();
            draw(heavy.len(), k, random).into_iter().map(|i| heavy[i]).collect()
        }
    };
    Ok(Matrix::new(source.finite_rows_at(&rows)?, k, d)?)
}

/// `count` different numbers below `n`, of which there are that many, by the first swaps of a Fisher-Yates shuffle.
pub(super) fn draw(n: usize, count: usize, random: &mut Random) -> Vec<usize> {
    // Only positions that are not in their place any more.
    let mut moved = HashMap::new();
    let mut draw = |i: usize| {
        let j = i + random.below((n - i) as u64) as usize;
        let picked = moved.get(&j).copied().unwrap_or(j);
        let displaced = moved.get(&i).copied().unwrap_or(i);
        moved.insert(j, displaced);
        picked
    };
    (0..count).map(&mut draw).collect()
}

/// k-means++ (Arthur and Vassilvitskii 2007): a first row by weight, then each by weight times the squared distance to
/// the nearest codeword so far; by weight alone where all rows coincide with codewords. Some row weighs something. Rows that
/// are held are finite. With `sketch` they are kept in short where that pays.
pub(super) fn plus_plus(
    source: &mut RowSource<'_, Stop>,
    weight: impl Fn(usize) -> f64 + Sync,
    (k, sketch): (usize, bool),
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
) -> Result<Matrix<f32>, Stop> {
    let (n, d) = (source.rows(), source.cols());
    let (mut nearest, mut distances) = (filled(n, f32::INFINITY)?, Vec::new());
    let mut codewords = Vec::new();
    let mut sketched = match source.view() {
        Some(x) if sketch => Sketched::new(x, k)?,
        _ => None,
    };
    for chosen in 0..k {
        // A distance beyond f32 counts as the largest.
        let by_distance = |i: usize| weight(i) * f64::from(nearest[i].min(f32::MAX));
        let part = random.unit();
        let row = match chosen {
            0 => pick(n, &weight, part),
            _ => pick(n, by_distance, part).or_else(|| pick(n, &weight, part)),
        };
        codewords.extend(source.finite_rows_at(&[row.unwrap_or(0)])?);
        observe(Step::Start { run, codewords: chosen + 1 })?;
        if chosen + 1 == k {
            break;
        }
        if let Some(sketched) = &mut sketched {
            sketched.meet(&codewords[chosen * d..], &mut nearest);
            observe(Step::Rows { run, iteration: None, rows: n })?;
        } else {
            // On the processor, wherever assignments are made: one codeword is less work than the way of the rows.
            let one = Codebook::new(MatrixView::new(&codewords[chosen * d..], 1, d)?, &Device::Cpu)?;
            source.each_block(|first, x| {
                distances.resize(len(x), 0.0);
                on_view!(x, x => pairwise_sq_l2_into(x, &one, Precision::Exact, &mut distances))
                    .map_err(|error| at_row(error, first))?;
                let nearest = &mut nearest[first..][..distances.len()];
                nearest.par_iter_mut().zip(&distances).with_min_len(PICK_ROWS).for_each(|(a, &b)| *a = a.min(b));
                observe(Step::Rows { run, iteration: None, rows: first + distances.len() })
            })?;
        }
    }
    Ok(Matrix::new(codewords, k, d)?)
}

/// The sum of the shares of some rows, f64, row after row within blocks of 4096, then block after block.
pub(super) fn total(n: usize, share: impl Fn(usize) -> f64 + Sync) -> f64 {
    block_sums(n, share).iter().sum()
}

/// By one thread where they are few, four side by side: the next number added to a sum waits for the one before.
fn block_sums(n: usize, share: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    const SIDE_BY_SIDE: usize = 4;
    let blocks = n.div_ceil(PICK_ROWS);
    let mut sums = vec![0.0; blocks];
    let of_some = |(some, sums): (usize, &mut [f64])| {
        let first = some * SIDE_BY_SIDE * PICK_ROWS;
        if first + SIDE_BY_SIDE * PICK_ROWS <= n {
            let mut side_by_side = [0.0; SIDE_BY_SIDE];
            for i in first..first + PICK_ROWS {
                for (block, sum) in side_by_side.iter_mut().enumerate() {
                    *sum += share(i + block * PICK_ROWS);
                }
            }
            sums.copy_from_slice(&side_by_side);
        } else {
            let blocks = (some * SIDE_BY_SIDE..).zip(sums);
            blocks.for_each(|(block, sum)| *sum = rows_of(n, block).map(&share).sum());
        }
    };
    match blocks <= ALONE {
        true => sums.chunks_mut(SIDE_BY_SIDE).enumerate().for_each(of_some),
        false => sums.par_chunks_mut(SIDE_BY_SIDE).enumerate().for_each(of_some),
    }
    sums
}

fn rows_of(n: usize, block: usize) -> std::ops::Range<usize> {
    block * PICK_ROWS..n.min((block + 1) * PICK_ROWS)
}

/// The row at the given part of the way, in [0, 1), along the sum of all `shares`, which are finite and not negative;
/// None where they are all zero. The sum is [`total`].
pub(super) fn pick(n: usize, share: impl Fn(usize) -> f64 + Sync, part: f64) -> Option<usize> {
    let blocks = block_sums(n, &share);
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
    for i in rows_of(n, last?) {
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
