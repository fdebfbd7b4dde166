//! The distances of queries to codewords, and their sums for codes.

use crate::quantizer::packed::Packed;
use rayon::prelude::*;

/// The tables of some queries.
pub(super) struct Tables {
    packed: Packed,
    entries: Vec<f32>,
    /// Of every query and sub-quantizer the least entry.
    least: Vec<f32>,
}

/// The table of a query, `[m, k]`.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    packed: Packed,
    entries: &'a [f32],
    least: &'a [f32],
}

impl Tables {
    /// Of entries `[n, m, k]`.
    pub fn new(packed: Packed, entries: Vec<f32>) -> Tables {
        let least_of = |part: &[f32]| part.iter().fold(f32::INFINITY, |least, &entry| least.min(entry));
        let least = entries.par_chunks_exact(packed.k()).map(least_of).collect();
        Tables { packed, entries, least }
    }

    pub fn queries(&self) -> usize {
        self.least.len() / self.packed.m()
    }

    pub fn of_query(&self, query: usize) -> Table<'_> {
        let (m, k) = (self.packed.m(), self.packed.k());
        let (entries, least) = (&self.entries[query * m * k..][..m * k], &self.least[query * m..][..m]);
        Table { packed: self.packed, entries, least }
    }
}

impl<'a> Table<'a> {
    /// Of the sub-quantizers from s on their entries and the least of them.
    pub fn parts(self, s: usize) -> impl Iterator<Item = (&'a [f32], f32)> {
        let k = self.packed.k();
        self.entries[s * k..].chunks_exact(k).zip(self.least[s..].iter().copied())
    }

    /// What entries, less the least of their sub-quantizer, are to be multiplied with for this limit: 255 over what is left
    /// to them. None where no code can be below.
    pub fn scale(self, limit: f32) -> Option<f32> {
        let least: f64 = self.least.iter().copied().map(f64::from).sum();
        let reach = f64::from(limit) / (1.0 - (self.least.len() as f64 + 2.0) * 2f64.powi(-24)) - least;
        // The sum of least entries may be infinite, and rules all out; there is no NaN. Rounded down by more than the few
        // roundings of a byte can add.
        (reach > 0.0).then(|| (255.0 / reach * (1.0 - 2f64.powi(-20))).min(f64::from(f32::MAX)) as f32)
    }

    /// The f32 sums of some codes, which do not wait for each other.
    #[inline]
    pub fn sums<const N: usize>(self, codes: [&[u8]; N]) -> [f32; N] {
        let (packed, mut sums) = (self.packed, [0.0; N]);
        match (packed.bits(), packed.k()) {
            (8, 256) => {
                for (s, part) in self.entries.as_chunks::<256>().0.iter().enumerate() {
                    for (sum, code) in sums.iter_mut().zip(codes) {
                        *sum += part[usize::from(code[s])];
                    }
                }
            }
            (4, 16) => {
                let (pairs, last) = self.entries.as_chunks::<32>();
                for (i, pair) in pairs.iter().enumerate() {
                    for (sum, code) in sums.iter_mut().zip(codes) {
                        *sum += pair[usize::from(code[i] & 15)];
                        *sum += pair[usize::from(code[i] >> 4) + 16];
                    }
                }
                if !last.is_empty() {
                    for (sum, code) in sums.iter_mut().zip(codes) {
                        *sum += last[usize::from(code[pairs.len()] & 15)];
                    }
                }
            }
            (_, k) => {
                for (s, part) in self.entries.chunks_exact(k).enumerate() {
                    for (sum, code) in sums.iter_mut().zip(codes) {
                        *sum += part[packed.number(code, s) as usize];
                    }
                }
            }
        }
        sums
    }
}
