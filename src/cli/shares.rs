//! Several devices side by side: each takes its share of the rows of a block, and writes its part of the results.

use crate::cli::exit::{OrExit, Result};
use codeword::{AssignOptions, AssignStats, Codebook, Device, Error, MatrixView, assign_into, top_k};
use std::ops::Range;

/// A codebook, on every device that works with it.
pub struct Shares(Vec<Codebook>);

impl Shares {
    /// Prepares `codebook`, which lies on the first device, for the others.
    pub fn new(codebook: Codebook, others: &[Device]) -> Result<Shares> {
        let mut codebooks = vec![codebook];
        for device in others {
            let codebook = codebooks[0].codewords().and_then(|codewords| Codebook::new(codewords, device));
            codebooks.push(codebook.or_exit(crate::cli::exit::Exit::Failed)?);
        }
        Ok(Shares(codebooks))
    }

    /// The codebook on the first device.
    pub fn first(&self) -> &Codebook {
        &self.0[0]
    }

    /// The `r` nearest codewords of every row of `x`, `[n, d]` without gaps, into `[n, r]`; without `r`, the nearest.
    pub fn nearest(
        &self,
        x: &[f32],
        d: usize,
        r: Option<u32>,
        options: AssignOptions,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> std::result::Result<AssignStats, Error> {
        let width = r.map_or(1, |r| r as usize);
        let work = |codebook: &Codebook, x: &[f32], labels: &mut [u32], sq_distances: &mut [f32]| {
            let x = MatrixView::new(x, x.len() / d, d)?;
            if r.is_none() {
                return assign_into(x, codebook, options, labels, sq_distances);
            }
            let top = top_k(x, codebook, width, options)?;
            labels.copy_from_slice(&top.labels);
            sq_distances.copy_from_slice(&top.sq_distances);
            Ok(top.stats)
        };
        if let [codebook] = &self.0[..] {
            return work(codebook, x, labels, sq_distances);
        }
        let (mut labels, mut sq_distances) = (labels, sq_distances);
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for (codebook, rows) in self.0.iter().zip(split(x.len() / d, self.0.len())) {
                let (my_labels, rest) = labels.split_at_mut(rows.len() * width);
                labels = rest;
                let (my_distances, rest) = sq_distances.split_at_mut(rows.len() * width);
                sq_distances = rest;
                let (part, start) = (&x[rows.start * d..rows.end * d], rows.start);
                running.push((start, scope.spawn(move || work(codebook, part, my_labels, my_distances))));
            }
            let mut stats = Ok(AssignStats::default());
            for (start, thread) in running {
                // A thread that panicked goes on panicking here.
                let part = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                // The error of the first rows is the one that counts.
                stats = stats.and_then(|sum| Ok(sum + part.map_err(|error| further_down(error, start))?));
            }
            stats
        })
    }
}

/// `n` rows in equal runs, as far as that goes.
fn split(n: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| {
        let cut = |i: usize| (n as u128 * i as u128 / parts as u128) as usize;
        cut(i)..cut(i + 1)
    })
}

/// The error of a row that a share counts from its own start.
fn further_down(mut error: Error, start: usize) -> Error {
    if let Error::NonFinite { row, .. } = &mut error {
        *row += start;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use codeword::NonFinite;

    fn shares(count: usize, codewords: &[f32], k: usize, d: usize) -> Shares {
        let codebook = Codebook::new(MatrixView::new(codewords, k, d).unwrap(), &Device::cpu()).unwrap();
        Shares::new(codebook, &vec![Device::cpu(); count - 1]).unwrap()
    }

    #[test]
    fn shares_cover_all_rows_once() {
        for (n, parts) in [(0, 3), (2, 3), (10, 3), (9, 3), (7, 1), (usize::MAX, 5)] {
            let shares: Vec<_> = split(n, parts).collect();
            assert_eq!((shares[0].start, shares[parts - 1].end), (0, n));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn any_number_of_devices_gives_the_results_of_one() {
        let (n, d) = (23, 2);
        let x: Vec<f32> = (0..n * d).map(|i| (i * i % 17) as f32).collect();
        let e: Vec<f32> = (0..5 * d).map(|i| (i * 3 % 16) as f32).collect();
        let run = |count: usize, r: Option<u32>| {
            let width = r.unwrap_or(1) as usize;
            let (mut labels, mut sq_distances) = (vec![99; n * width], vec![-1.0; n * width]);
            let shares = shares(count, &e, 5, d);
            shares.nearest(&x, d, r, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
            (labels, sq_distances)
        };
        for r in [None, Some(1), Some(3)] {
            for count in [2, 3, 24] {
                assert_eq!(run(count, r), run(1, r), "{count} devices, {r:?}");
            }
        }
    }

    #[test]
    fn the_first_bad_row_is_named_by_its_place_in_the_block() {
        let mut x = [0.0f32; 12];
        (x[7], x[10]) = (f32::NAN, f32::INFINITY);
        let (mut labels, mut sq_distances) = ([0; 12], [0.0; 12]);
        let mut nearest = |non_finite| {
            let options = AssignOptions { non_finite, ..AssignOptions::default() };
            shares(4, &[0.0, 1.0], 2, 1).nearest(&x, 1, None, options, &mut labels, &mut sq_distances)
        };
        assert!(matches!(nearest(NonFinite::Error), Err(Error::NonFinite { row: 7, .. })));
        let stats = nearest(NonFinite::Sentinel).unwrap();
        assert_eq!(stats.first + stats.second + stats.f64 + stats.exact, 10);
    }
}
