//! The scan of [`super::adc`] by the device of the codebooks: the same sums, and the same codes found.

use super::Neighbors;
use super::hits::Hit;
use crate::backend::scan::{DeviceScan, GROUP, Numbers};
use crate::error::Result;
use crate::matrix::{Element, MatrixView};
use crate::quantizer::packed::Packed;
use crate::quantizer::product::{ProductQuantizer, of_whole_rows};
use rayon::prelude::*;

impl ProductQuantizer {
    /// [`ProductQuantizer::search`] where a device goes through the codes, which are checked as r is; none where the
    /// processor does.
    pub(super) fn search_on_device<T: Element>(
        &self,
        op: &'static str,
        codes: &[u8],
        queries: MatrixView<'_, T>,
        r: usize,
    ) -> Result<Option<Neighbors>> {
        let (packed, n) = (self.packed(), codes.len() / self.code_size());
        let Some(numbers) = numbers(packed) else { return Ok(None) };
        let Some(scan) = DeviceScan::new(op, &self.codebooks()[0], numbers, n, queries.rows(), r)? else {
            return Ok(None);
        };
        let mut neighbors = Neighbors { r, ..Neighbors::default() };
        for first in (0..queries.rows()).step_by(scan.queries()) {
            let some = queries.block(first..queries.rows().min(first + scan.queries()));
            let tables = self.tables(op, some).map_err(|error| of_whole_rows(op, some, first, error))?;
            let size = packed.code_size();
            let keys = scan.keys(op, &tables, n, |range, words| {
                write_words(packed, numbers, &codes[range.start * size..range.end * size], words);
            })?;
            neighbors.extend(keys.into_par_iter().map(|keys| nearest(keys, r)).collect());
        }
        Ok(Some(neighbors))
    }
}

/// The first r of the codes with these keys, in order.
fn nearest(mut keys: Vec<u64>, r: usize) -> Vec<Hit> {
    keys.sort_unstable();
    let hit = |key: u64| Hit { sq_distance: f32::from_bits((key >> 32) as u32), id: key as u32 };
    keys.into_iter().take(r).map(hit).collect()
}

/// Codes as a device reads them: numbers of 4, 8 or 16 bits, whichever holds them first.
fn numbers(packed: Packed) -> Option<Numbers> {
    let bits = packed.bits().next_power_of_two().max(4);
    Some(Numbers { m: u32::try_from(packed.m()).ok()?, k: u32::try_from(packed.k()).ok()?, bits })
}

/// Fills `words` with those of some codes, as many groups as they take.
fn write_words(packed: Packed, numbers: Numbers, codes: &[u8], words: &mut [u32]) {
    let (width, size) = (numbers.words(), packed.code_size());
    let group = |(words, codes): (&mut [u32], &[u8])| {
        words.fill(0);
        for (i, code) in codes.chunks_exact(size).enumerate() {
            let to = words[i..].iter_mut().step_by(GROUP);
            if packed.bits() == numbers.bits {
                to.zip(code.chunks(4)).for_each(|(word, bytes)| *word = little_endian(bytes));
            } else {
                let each = 32 / numbers.bits as usize;
                to.enumerate().for_each(|(w, word)| {
                    let numbers_of_word = (w * each..packed.m().min((w + 1) * each)).rev();
                    *word = numbers_of_word.fold(0, |word, s| word << numbers.bits | packed.number(code, s));
                });
            }
        }
    };
    // A few microseconds each: not worth a task of its own.
    words.par_chunks_mut(GROUP * width).zip(codes.par_chunks(GROUP * size)).with_min_len(64).for_each(group);
}

/// Up to four bytes, the first of them lowest.
fn little_endian(bytes: &[u8]) -> u32 {
    match bytes.first_chunk() {
        Some(&bytes) => u32::from_le_bytes(bytes),
        None => bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_numbers_of_codes_of_any_size() {
        for (m, k) in [(1, 2), (3, 8), (8, 16), (9, 16), (5, 40), (8, 256), (33, 256), (3, 1000), (2, 65536)] {
            let packed = Packed::new("test", m, k).unwrap();
            let numbers = numbers(packed).unwrap();
            let n = GROUP + 5;
            let of_codes: Vec<u32> = (0..n * m).map(|i| (i * i + 7 * i / 3) as u32 % k as u32).collect();
            let mut words = vec![u32::MAX; 2 * GROUP * numbers.words()];
            write_words(packed, numbers, &packed.pack("test", &of_codes).unwrap(), &mut words);
            let (each, mask) = (32 / numbers.bits as usize, (1u64 << numbers.bits) as u32 - 1);
            let number = |i: usize, s: usize| {
                let word = words[(i / GROUP * numbers.words() + s / each) * GROUP + i % GROUP];
                word >> (s % each * numbers.bits as usize) & mask
            };
            for i in 0..n {
                let got: Vec<u32> = (0..m).map(|s| number(i, s)).collect();
                assert_eq!(got, of_codes[i * m..][..m], "{m} x {k}, code {i}");
            }
            assert!((n..2 * GROUP).all(|i| number(i, 0) == 0), "{m} x {k}: what is no code is zeros");
        }
    }
}
