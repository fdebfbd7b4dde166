//! One block of codes after the other against the tables of all queries.
//!
//! With a limit that codes have to stay below, most are ruled out by bytes: for entry t of table s,
//!
//! ```text
//! q = floor((t - least_s) 255 / (L - sum_s least_s)), 255 at most,     L = limit / (1 - (m + 2) 2^-24)
//! ```
//!
//! Where the q of a code add up to 255 or more, its entries add up to L or more in the real numbers. Their f32 sum rounds
//! m - 1 times, all terms being positive, so it is not below the limit. Bytes are looked up 64 at a time
//! ([`crate::backend::cpu::lookups`]); the codes that are left get their f32 sum. What is found is the same as without.

use super::hits::{Best, Hit};
use crate::backend::Isa;
use crate::backend::cpu::lookups::{GROUP, Lookups};
use crate::quantizer::packed::Packed;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of the numbers of a block: they stay in a second-level cache.
const BLOCK_BYTES: usize = 1 << 17;
/// A limit that is lower by so little is not worth new bytes.
const WORTH: f32 = 0.99;

/// How codes are gone through.
pub(super) struct Scan {
    packed: Packed,
    lookups: Option<&'static Lookups>,
    block: usize,
}

impl Scan {
    pub fn new(packed: Packed, isa: Isa) -> Scan {
        let m = packed.m();
        // The bound of sums says nothing about millions of terms.
        let lookups = if m < 1 << 20 { Lookups::of(isa, packed.k()) } else { None };
        let block = (BLOCK_BYTES / m).clamp(1024, 16384) / GROUP * GROUP;
        Scan { packed, lookups, block }
    }

    /// Codes of a block.
    pub fn block(&self) -> usize {
        self.block
    }

    pub fn code_size(&self) -> usize {
        self.packed.code_size()
    }

    /// Entries of the table of one query.
    pub fn table_len(&self) -> usize {
        self.packed.m() * self.packed.k()
    }

    /// The f32 sum of a code.
    #[inline]
    fn sum(&self, table: &[f32], code: &[u8]) -> f32 {
        let (packed, tables) = (self.packed, table.chunks_exact(self.packed.k()));
        match packed.bits() {
            8 => code.iter().zip(tables).fold(0.0, |sum, (&byte, table)| sum + table[usize::from(byte)]),
            4 => {
                let numbers = code.iter().flat_map(|&byte| [byte & 15, byte >> 4]);
                numbers.zip(tables).fold(0.0, |sum, (number, table)| sum + table[usize::from(number)])
            }
            _ => tables.enumerate().fold(0.0, |sum, (s, table)| sum + table[packed.number(code, s) as usize]),
        }
    }

    /// Looks at every one of some codes, the first of them number `first`.
    fn exhaustive(&self, table: &[f32], first: u32, codes: &[u8], best: &mut Best) {
        let (m, size) = (self.packed.m(), self.code_size());
        if (self.packed.bits(), self.packed.k()) != (8, 256) {
            for (code, id) in codes.chunks_exact(size).zip(first..) {
                best.consider(id, self.sum(table, code));
            }
            return;
        }
        // Four at a time, whose sums do not wait for each other.
        let (tables, _) = table.as_chunks::<256>();
        let mut fours = codes.chunks_exact(4 * m);
        let mut id = first;
        for four in &mut fours {
            let ((a, b), (c, d)) = (four[..2 * m].split_at(m), four[2 * m..].split_at(m));
            let mut sums = [0.0; 4];
            for ((((table, &a), &b), &c), &d) in tables.iter().zip(a).zip(b).zip(c).zip(d) {
                sums[0] += table[usize::from(a)];
                sums[1] += table[usize::from(b)];
                sums[2] += table[usize::from(c)];
                sums[3] += table[usize::from(d)];
            }
            sums.iter().zip(id..).for_each(|(&sq_distance, id)| best.consider(id, sq_distance));
            // Wraps behind the last code there can be.
            id = id.wrapping_add(4);
        }
        for (code, id) in fours.remainder().chunks_exact(m).zip(id..) {
            best.consider(id, self.sum(table, code));
        }
    }
}

/// A distance for every query that r codes have at most: what is beyond is not among the nearest, whoever looks at it.
pub(super) struct Limits(Vec<AtomicU32>);

impl Limits {
    pub fn new(queries: usize) -> Limits {
        Limits(std::iter::repeat_with(|| AtomicU32::new(f32::INFINITY.to_bits())).take(queries).collect())
    }
}

/// What one thread has found of every query.
pub(super) struct Lists {
    of_queries: Vec<List>,
    /// Numbers of a block, `[m, block]`.
    columns: Vec<u8>,
    masks: Vec<u64>,
}

struct List {
    best: Best,
    /// Codes looked at so far.
    seen: usize,
    bytes: Vec<u8>,
    /// The limit that the bytes are for.
    limit: f32,
}

impl Lists {
    pub fn new(scan: &Scan, queries: usize, r: usize) -> Lists {
        let bytes = scan.lookups.map_or(0, |lookups| scan.packed.m() * lookups.entries());
        let columns = if scan.lookups.is_some() { scan.packed.m() * scan.block } else { 0 };
        let list = || List { best: Best::new(r), seen: 0, bytes: vec![0; bytes], limit: f32::INFINITY };
        Lists {
            of_queries: std::iter::repeat_with(list).take(queries).collect(),
            columns: vec![0; columns],
            masks: vec![0; scan.block / 64],
        }
    }

    /// A block of codes, the first of them number `first`.
    pub fn add(&mut self, scan: &Scan, tables: &[f32], limits: &Limits, first: u32, codes: &[u8]) {
        let Lists { of_queries, columns, masks } = self;
        let tables = tables.chunks_exact(scan.table_len());
        let Some(lookups) = scan.lookups else {
            for (list, table) in of_queries.iter_mut().zip(tables) {
                scan.exhaustive(table, first, codes, &mut list.best);
            }
            return;
        };
        // Columns of fewer codes than a block lie as far apart; what is left there of another block does no harm.
        transpose(scan, codes, columns);
        let block = Block { scan, lookups, first, codes, columns };
        for ((list, table), limit) in of_queries.iter_mut().zip(tables).zip(&limits.0) {
            list.add(&block, table, limit, masks);
        }
    }

    pub fn into_sorted(self) -> Vec<Vec<Hit>> {
        self.of_queries.into_iter().map(|list| list.best.into_sorted()).collect()
    }
}

/// Some codes and their numbers in columns.
struct Block<'a> {
    scan: &'a Scan,
    lookups: &'static Lookups,
    first: u32,
    codes: &'a [u8],
    columns: &'a [u8],
}

impl List {
    /// The codes of a block. The more have been seen, the lower the limit, and the more go by with one set of bytes.
    fn add(&mut self, block: &Block<'_>, table: &[f32], shared: &AtomicU32, masks: &mut [u64]) {
        let (stride, size) = (block.scan.block, block.scan.code_size());
        let count = block.codes.len() / size;
        let mut start = 0;
        while start < count {
            // Another thread's codes may have higher numbers, and lose to an equal one of these.
            let elsewhere = f32::from_bits(shared.load(Relaxed)).next_up();
            let limit = self.best.limit().min(elsewhere);
            let step = if limit < self.best.limit() { count } else { self.seen.max(GROUP) / GROUP * GROUP };
            let end = count.min(start + step);
            if limit == f32::INFINITY {
                let codes = &block.codes[start * size..end * size];
                block.scan.exhaustive(table, block.first + start as u32, codes, &mut self.best);
            } else if self.renew(block, table, limit) {
                let masks = &mut masks[..(end - start).div_ceil(GROUP) * GROUP / 64];
                block.lookups.below(block.columns, stride, start, &self.bytes, masks);
                self.consider(block, table, start..end, masks);
            }
            self.seen += end - start;
            start = end;
            shared.fetch_min(self.best.limit().to_bits(), Relaxed);
        }
    }

    /// The codes of a range whose bits are set.
    fn consider(&mut self, block: &Block<'_>, table: &[f32], range: Range<usize>, masks: &[u64]) {
        for (from, &mask) in (range.start..).step_by(64).zip(masks) {
            let mut left = mask;
            while left != 0 {
                let i = from + left.trailing_zeros() as usize;
                left &= left - 1;
                if i < range.end {
                    let code = &block.codes[i * block.scan.code_size()..][..block.scan.code_size()];
                    self.best.consider(block.first + i as u32, block.scan.sum(table, code));
                }
            }
        }
    }

    /// Makes the bytes for this limit, where those there are for one much higher. False where no code can be below.
    fn renew(&mut self, block: &Block<'_>, table: &[f32], limit: f32) -> bool {
        if self.limit != f32::INFINITY && limit >= self.limit * WORTH {
            return true;
        }
        let (m, k) = (block.scan.packed.m(), block.scan.packed.k());
        let least_of = |table: &[f32]| table.iter().fold(f32::INFINITY, |least, &entry| least.min(entry));
        let least: f64 = table.chunks_exact(k).map(|table| f64::from(least_of(table))).sum();
        let reach = f64::from(limit) / (1.0 - (m as f64 + 2.0) * 2f64.powi(-24)) - least;
        // The sum of least entries may be infinite, and rules all out; there is no NaN.
        if reach <= 0.0 {
            return false;
        }
        // Rounded down by more than the two roundings below can add.
        let scale = (255.0 / reach * (1.0 - 2f64.powi(-20))).min(f64::from(f32::MAX)) as f32;
        for (bytes, table) in self.bytes.chunks_exact_mut(block.lookups.entries()).zip(table.chunks_exact(k)) {
            let least = least_of(table);
            for (byte, &entry) in bytes.iter_mut().zip(table) {
                *byte = ((entry - least) * scale).min(255.0) as u8;
            }
        }
        self.limit = limit;
        true
    }
}

/// The numbers of the codes of a block, those of one sub-quantizer beside each other. What follows the last is unspecified.
fn transpose(scan: &Scan, codes: &[u8], columns: &mut [u8]) {
    let (packed, size, block) = (scan.packed, scan.code_size(), scan.block);
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let mut put = |s: usize, i: usize, numbers: u64| {
        if s < packed.m() {
            columns[s * block + i..][..8].copy_from_slice(&numbers.to_le_bytes());
        }
    };
    match packed.bits() {
        8 => by_eights(size, codes, put),
        4 => by_eights(size, codes, |byte, i, numbers| {
            put(2 * byte, i, numbers & LOW);
            put(2 * byte + 1, i, numbers >> 4 & LOW);
        }),
        // At most 8 bits.
        _ => {
            for (s, column) in columns.chunks_exact_mut(block).enumerate() {
                let codes = column.iter_mut().zip(codes.chunks_exact(size));
                codes.for_each(|(number, code)| *number = packed.number(code, s) as u8);
            }
        }
    }
}

/// Gives `put` byte b of codes i to i + 7, the first of them lowest, for all b and for every eighth i.
fn by_eights(size: usize, codes: &[u8], mut put: impl FnMut(usize, usize, u64)) {
    for (eight, codes) in codes.chunks(8 * size).enumerate() {
        for first in (0..size).step_by(8) {
            let mut rows = [0; 8];
            for (row, code) in rows.iter_mut().zip(codes.chunks_exact(size)) {
                let bytes = &code[first..size.min(first + 8)];
                *row = match bytes.first_chunk::<8>() {
                    Some(bytes) => u64::from_le_bytes(*bytes),
                    None => bytes.iter().rev().fold(0, |row, &byte| row << 8 | u64::from(byte)),
                };
            }
            // The 8 x 8 bytes change places with those across the diagonal: halves, quarters, single ones.
            for (apart, bits, mask) in
                [(4, 32, 0x0000_0000_ffff_ffff), (2, 16, 0x0000_ffff_0000_ffff), (1, 8, 0x00ff_00ff_00ff_00ff)]
            {
                for row in (0..8).filter(|row| row & apart == 0) {
                    let swapped = (rows[row] >> bits ^ rows[row + apart]) & mask;
                    rows[row + apart] ^= swapped;
                    rows[row] ^= swapped << bits;
                }
            }
            rows.iter().zip(first..size).for_each(|(&row, byte)| put(byte, 8 * eight, row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_codes_of_any_size_stand_in_columns() {
        for (m, k, n) in [(1, 256, 9), (8, 256, 64), (11, 200, 37), (16, 16, 40), (7, 16, 21), (5, 40, 30), (1, 2, 8)] {
            let packed = Packed::new("test", m, k).unwrap();
            let scan = Scan { packed, lookups: None, block: 256 };
            let numbers: Vec<u32> = (0..n * m).map(|i| (i * i + 7 * i / 3) as u32 % k as u32).collect();
            let mut columns = vec![0xff; m * 256];
            transpose(&scan, &packed.pack("test", &numbers).unwrap(), &mut columns);
            for (i, of_code) in numbers.chunks(m).enumerate() {
                let column: Vec<u32> = (0..m).map(|s| columns[s * 256 + i].into()).collect();
                assert_eq!(column, of_code, "{m} x {k}, code {i}");
            }
        }
    }
}
