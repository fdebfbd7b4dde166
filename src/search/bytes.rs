//! Codes as bytes with a table each.
//!
//! With a limit that codes have to stay below, most are ruled out by bytes: for entry t of table s,
//!
//! ```text
//! q = floor((t - least_s) 255 / (L - sum_s least_s)), 255 at most,     L = limit / (1 - (m + 2) 2^-24)
//! ```
//!
//! Where the q of a code add up to 255 or more, its entries add up to L or more in the real numbers. Their f32 sum rounds
//! m - 1 times, all terms being positive, so it is not below the limit.
//!
//! A table is that of a byte of a code, whatever numbers it holds: of two 4-bit numbers its entries are the 256 sums that
//! they can have, rounded down once. Numbers that do not fill bytes, of 3 bits say, get a byte each first.

use super::tables::Table;
use crate::quantizer::packed::Packed;

/// Bytes of a code, half of which sums lose on the average of the 255 that count.
const MOST: usize = 512;

#[derive(Clone, Copy)]
pub(super) struct Bytes {
    packed: Packed,
    /// Numbers of a byte.
    numbers: usize,
}

impl Bytes {
    /// None where numbers are longer than a byte, or so many that what rounding down takes off is nearly all there is.
    pub fn of(packed: Packed) -> Option<Bytes> {
        let numbers = match packed.bits() {
            1 | 2 | 4 => 8 / packed.bits() as usize,
            ..=8 => 1,
            _ => return None,
        };
        let bytes = Bytes { packed, numbers };
        (bytes.count() <= MOST).then_some(bytes)
    }

    /// Bytes of a code.
    pub fn count(self) -> usize {
        self.packed.m().div_ceil(self.numbers)
    }

    /// These codes as they are, where they are bytes; else their numbers, in `space`.
    pub fn of_codes<'a>(self, codes: &'a [u8], space: &'a mut Vec<u8>) -> &'a [u8] {
        if 8 % self.packed.bits() == 0 {
            return codes;
        }
        space.clear();
        for code in codes.chunks_exact(self.packed.code_size()) {
            // At most 7 bits.
            space.extend((0..self.packed.m()).map(|s| self.packed.number(code, s) as u8));
        }
        space
    }

    /// The entries of byte `b`, the scale being that of [`Table::scale`].
    pub fn entries(self, table: Table<'_>, b: usize, scale: f32, entries: &mut [u8; 256]) {
        // Rounded down, or to the integer below: so is what is half less, to the nearest, which adding 2^23 does. 255 stays.
        let byte = |sum: f32| (((sum * scale).min(255.5) - 0.5).max(0.0) + 8_388_608.0).to_bits() as u8;
        let mut parts = table.parts(b * self.numbers);
        if self.numbers == 1 {
            if let Some((part, least)) = parts.next() {
                entries.iter_mut().zip(part).for_each(|(entry, &value)| *entry = byte(value - least));
            }
            return;
        }
        // For every number of the next part the sums of those before. What follows the last part of a code, whatever it is,
        // counts for nothing, as does a number that names no codeword and has been refused.
        let (mut sums, mut count) = ([0.0f32; 256], 1);
        for _ in 0..self.numbers {
            let (part, before) = (parts.next(), sums);
            for (number, sums) in sums.chunks_exact_mut(count).take(1 << self.packed.bits()).enumerate() {
                let more = part.and_then(|(part, least)| Some(part.get(number)? - least)).unwrap_or(0.0);
                sums.iter_mut().zip(&before).for_each(|(sum, before)| *sum = before + more);
            }
            count <<= self.packed.bits();
        }
        entries.iter_mut().zip(sums).for_each(|(entry, sum)| *entry = byte(sum));
    }
}
