//! Sums of rows by label, to the last bit the same everywhere: rows are put in the order of their labels by a stable
//! counting sort, and every codeword adds up its own, segment by segment. Threads share codewords, and the segments of
//! a codeword that has many rows; lanes share components. Neither changes the order of a single sum.

use super::isa::Isa;
use super::kernels::Kernels;
use super::rows::prefetch;
use crate::backend::{SENTINEL, Sums};
use crate::matrix::{AnyView, Element, MatrixView};
use crate::metrics::block_rows;
use rayon::prelude::*;
use std::ops::Range;

/// Segments of one codeword from which on threads share them, and how many are in memory at once.
const WAVE: usize = 64;

/// Bytes of the rows that are asked for before their turn: those of one codeword lie anywhere, and the processor cannot guess. At
/// least 6 rows of them, and no more than 32.
const AHEAD: usize = 1 << 11;

/// Adds up the rows of `x`, fewer than 2^32 of at least one column, by their labels: below `k` or sentinels, one for
/// each row, as are the weights.
pub(crate) fn accumulate<T: Element>(
    x: MatrixView<'_, T>,
    labels: &[u32],
    weights: Option<&[f32]>,
    k: usize,
    isa: Isa,
) -> Sums {
    let mut sums = Sums::zero(k, x.cols());
    accumulate_onto(&mut sums, x, labels, weights, isa);
    sums
}

/// As [`accumulate`], on top of the sums of the rows before these, which are whole blocks: the bits are those of all
/// rows at once.
pub(crate) fn accumulate_onto<T: Element>(
    onto: &mut Sums,
    x: MatrixView<'_, T>,
    labels: &[u32],
    weights: Option<&[f32]>,
    isa: Isa,
) {
    let d = x.cols();
    let (ends, order) = sort(labels, onto.counts.len());
    let job = Job { x, weights, order: &order, block_rows: block_rows(d), kernels: Kernels::of(isa) };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let counts: Vec<u64> = starts.zip(&ends).map(|(start, end)| (end - start) as u64).collect();
    let of_codewords = onto.sums.par_chunks_mut(d).zip(&mut onto.weights).zip(counts.par_iter().zip(&ends));
    of_codewords.for_each_init(Part::default, |part, ((sum, total), (&count, &end))| {
        part.values.resize(d, 0.0);
        job.sum(end - count as usize..end, part, sum, total);
    });
    onto.counts.iter_mut().zip(&counts).for_each(|(all, &count)| *all += count);
    if weights.is_none() {
        onto.weights.iter_mut().zip(&onto.counts).for_each(|(total, &count)| *total = count as f64);
    }
}

/// The rows in the order of their labels, those of one label in their own order, without those of sentinels; and where
/// each label's end.
fn sort(labels: &[u32], k: usize) -> (Vec<usize>, Vec<u32>) {
    let mut next = vec![0; k];
    let labelled = || labels.iter().zip(0u32..).filter(|&(&label, _)| label != SENTINEL);
    labelled().for_each(|(&label, _)| next[label as usize] += 1);
    let mut start = 0;
    for next in &mut next {
        start += std::mem::replace(next, start);
    }
    let mut order = vec![0; start];
    for (&label, row) in labelled() {
        let place = &mut next[label as usize];
        order[*place] = row;
        *place += 1;
    }
    (next, order)
}

struct Job<'a, T> {
    x: MatrixView<'a, T>,
    weights: Option<&'a [f32]>,
    order: &'a [u32],
    block_rows: u32,
    kernels: &'static Kernels,
}

/// The sum of a segment, and a row as f32.
#[derive(Default)]
struct Part {
    values: Vec<f64>,
    weight: f64,
    wide: Vec<f32>,
}

impl<T: Element> Job<'_, T> {
    /// Adds a codeword's rows, a range of the order, to `sum` and their weights to `total`.
    fn sum(&self, rows: Range<usize>, part: &mut Part, sum: &mut [f64], total: &mut f64) {
        let mut add = |part: &Part| {
            sum.iter_mut().zip(&part.values).for_each(|(sum, &value)| *sum += value);
            *total += part.weight;
        };
        if rows.len() / WAVE < self.block_rows as usize {
            for segment in self.segments(rows) {
                self.sum_segment(segment, part);
                add(part);
            }
            return;
        }
        let segments: Vec<Range<usize>> = self.segments(rows).collect();
        for wave in segments.chunks(WAVE) {
            let sum_segment = |segment: &Range<usize>| {
                let mut part = Part { values: vec![0.0; self.x.cols()], ..Part::default() };
                self.sum_segment(segment.clone(), &mut part);
                part
            };
            let parts: Vec<Part> = wave.par_iter().map(sum_segment).collect();
            parts.iter().for_each(&mut add);
        }
    }

    /// A codeword's rows, cut where blocks end.
    fn segments(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut next = rows.start;
        let in_one = |&a: &u32, &b: &u32| a / self.block_rows == b / self.block_rows;
        self.order[rows].chunk_by(in_one).map(move |segment| {
            let start = next;
            next += segment.len();
            start..next
        })
    }

    /// The sum of some rows, one after the other from zero.
    fn sum_segment(&self, rows: Range<usize>, part: &mut Part) {
        part.values.fill(0.0);
        part.weight = 0.0;
        let order = &self.order[rows.start..];
        if let (AnyView::F32(x), None) = (T::any(self.x), self.weights) {
            return self.kernels.sum_rows(x, order, rows.len(), &mut part.values);
        }
        let ahead = ahead::<T>(self.x.cols());
        for (place, &row) in order[..rows.len()].iter().enumerate() {
            let z = T::as_f32(next_row(self.x, order, place, ahead), &mut part.wide);
            match self.weights {
                None => self.kernels.add_row(z, &mut part.values),
                Some(weights) => {
                    let weight = f64::from(weights[row as usize]);
                    self.kernels.add_weighted_row(z, weight, &mut part.values);
                    part.weight += weight;
                }
            }
        }
    }
}

/// Adds the first `count` of some rows to `sum`, one after the other. Sums of few dimensions, as the parts of product quantizers
/// have, stay in registers.
#[inline(always)]
pub(super) fn sum_rows(x: MatrixView<'_, f32>, order: &[u32], count: usize, sum: &mut [f64]) {
    match x.cols() {
        4 => sum_known::<4>(x, order, count, sum),
        8 => sum_known::<8>(x, order, count, sum),
        16 => sum_known::<16>(x, order, count, sum),
        32 => sum_known::<32>(x, order, count, sum),
        d => {
            let ahead = ahead::<f32>(d);
            for place in 0..count {
                add_row(next_row(x, order, place, ahead), sum);
            }
        }
    }
}

// Without closures: those are not built for the instruction set.
#[inline(always)]
fn sum_known<const D: usize>(x: MatrixView<'_, f32>, order: &[u32], count: usize, sum: &mut [f64]) {
    let Some(sum) = sum.first_chunk_mut::<D>() else { return };
    let (mut sums, ahead) = (*sum, ahead::<f32>(D));
    for place in 0..count {
        if let Some(&row) = order.get(place + ahead)
            && let Some(soon) = x.row(row as usize).first_chunk::<D>()
        {
            prefetch(soon);
        }
        let Some(z) = x.row(order[place] as usize).first_chunk::<D>() else { return };
        for t in 0..D {
            sums[t] += f64::from(z[t]);
        }
    }
    *sum = sums;
}

/// How many rows before its turn a row is asked for.
#[inline(always)]
fn ahead<T>(d: usize) -> usize {
    (AHEAD / (d * size_of::<T>())).clamp(6, 32)
}

/// A row in its turn; one whose turn comes later is asked for.
#[inline(always)]
fn next_row<'a, T: Element>(x: MatrixView<'a, T>, order: &[u32], place: usize, ahead: usize) -> &'a [T] {
    if let Some(&row) = order.get(place + ahead) {
        prefetch(x.row(row as usize));
    }
    x.row(order[place] as usize)
}

/// Adds a row, each component rounded on its own.
#[inline(always)]
pub(super) fn add_row(row: &[f32], sum: &mut [f64]) {
    for (sum, &value) in sum.iter_mut().zip(row) {
        *sum += f64::from(value);
    }
}

/// As [`add_row`], times a weight that was an f32: such products are exact.
#[inline(always)]
pub(super) fn add_weighted_row(row: &[f32], weight: f64, sum: &mut [f64]) {
    for (sum, &value) in sum.iter_mut().zip(row) {
        *sum += f64::from(value) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_label_and_stay_in_order() {
        assert_eq!(sort(&[2, 0, SENTINEL, 2, 0, 3], 5), (vec![2, 2, 4, 5, 5], vec![1, 4, 0, 3, 5]));
        assert_eq!(sort(&[], 2), (vec![0, 0], vec![]));
    }
}
