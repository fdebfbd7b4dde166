//! Codes against the tables of up to 64 queries, block after block.
//!
//! The limit of a query is the distance that as many codes as it asks for have at most: what is not below it is not among the
//! nearest. Bytes bound the sums of codes from below ([`super::bytes`]), those of 64 queries side by side
//! ([`crate::backend::cpu::lookups`]); the codes that are left get their f32 sum. What is found is the same as without.

use super::bytes::Bytes;
use super::hits::{Best, Hit};
use super::tables::{Table, Tables};
use crate::backend::Isa;
use crate::backend::cpu::lookups::{self, ByteTable, Found, LANES, Lanes};
use crate::quantizer::packed::Packed;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of the codes of a block.
const BLOCK_BYTES: usize = 1 << 17;
/// Codes that are looked at before there is a limit.
const FIRST: usize = 256;
/// Parts of a block that are handed to their queries one after the other: lists of 8 bytes for each code of the block where all are
/// for all of 64 queries.
const PARTS: usize = 32;
/// A limit that is lower by so little is not worth new bytes.
const WORTH: f32 = 0.98;

/// How codes are gone through.
pub(super) struct Scan {
    isa: Isa,
    code_size: usize,
    /// None: codes are summed up one by one.
    bytes: Option<Bytes>,
}

impl Scan {
    pub fn new(packed: Packed, isa: Isa) -> Scan {
        Scan { isa, code_size: packed.code_size(), bytes: Bytes::of(packed) }
    }

    /// Codes of a block.
    pub fn block(&self) -> usize {
        (BLOCK_BYTES / self.code_size).clamp(1024, 16384)
    }

    /// Looks at some of these codes, the first of them number `first`.
    fn look(&self, table: Table<'_>, first: u32, codes: &[u8], which: &[u32], best: &mut Best) {
        let code = |i: u32| &codes[i as usize * self.code_size..][..self.code_size];
        let (fours, others) = which.as_chunks::<4>();
        for &four in fours {
            let sums = table.sums(four.map(code));
            sums.into_iter().zip(four).for_each(|(sum, i)| best.consider(first + i, sum));
        }
        for &i in others {
            let [sum] = table.sums([code(i)]);
            best.consider(first + i, sum);
        }
    }
}

/// The limits of some queries that threads share.
pub(super) struct Limits(Vec<AtomicU32>);

impl Limits {
    pub fn new(queries: usize) -> Limits {
        Limits(std::iter::repeat_with(|| AtomicU32::new(f32::INFINITY.to_bits())).take(queries).collect())
    }

    /// What is the limit of a query for who has found these.
    fn get(&self, query: usize, best: &Best) -> f32 {
        // Another thread's codes may have higher numbers, and lose to an equal one of these.
        best.limit().min(f32::from_bits(self.0[query].load(Relaxed)).next_up())
    }

    fn tell(&self, query: usize, best: &Best) {
        // Distances are not negative: the order of their bits is theirs.
        self.0[query].fetch_min(best.limit().to_bits(), Relaxed);
    }
}

/// What one thread has found of some queries, [`LANES`] at most.
pub(super) struct Batch {
    queries: Range<usize>,
    of_queries: Vec<Best>,
    /// Codes looked at so far.
    seen: usize,
    tables: Vec<ByteTable>,
    /// The limits that the bytes are for.
    limits: [f32; LANES],
    /// Bytes of a block of codes that are none.
    space: Vec<u8>,
    found: Vec<Found>,
    /// Some of them by queries.
    which: Vec<Vec<u32>>,
}

impl Batch {
    pub fn new(scan: &Scan, queries: Range<usize>, r: usize) -> Batch {
        // Of a query that is not there no code is below; of one without a limit all are.
        let mut entry = Lanes([255; LANES]);
        entry.0[..queries.len()].fill(0);
        Batch {
            of_queries: queries.clone().map(|_| Best::new(r)).collect(),
            which: vec![Vec::new(); queries.len()],
            queries,
            seen: 0,
            tables: vec![[entry; 256]; scan.bytes.map_or(0, Bytes::count)],
            limits: [f32::INFINITY; LANES],
            space: Vec::new(),
            found: Vec::new(),
        }
    }

    pub fn into_sorted(self) -> Vec<Vec<Hit>> {
        self.of_queries.into_iter().map(Best::into_sorted).collect()
    }

    /// A block of codes, the first of them number `first`. The more have been seen, the lower the limits, and the more go by
    /// with one set of bytes.
    pub fn add(&mut self, scan: &Scan, tables: &Tables, shared: &Limits, first: u32, codes: &[u8]) {
        let mut space = std::mem::take(&mut self.space);
        let bytes = scan.bytes.map(|layout| (layout, layout.of_codes(codes, &mut space)));
        let (size, count) = (scan.code_size, codes.len() / scan.code_size);
        let mut start = 0;
        while start < count {
            let end = count.min(start + self.seen.max(FIRST));
            let some = &codes[start * size..end * size];
            let mut limits = [f32::INFINITY; LANES];
            for (query, (limit, best)) in limits.iter_mut().zip(&self.of_queries).enumerate() {
                *limit = shared.get(query, best);
            }
            self.found.clear();
            match bytes {
                Some((layout, bytes)) if limits != [f32::INFINITY; LANES] => {
                    for (lane, (query, &limit)) in self.queries.clone().zip(&limits).enumerate() {
                        self.renew(layout, lane, tables.of_query(query), limit);
                    }
                    let bytes = &bytes[start * layout.count()..end * layout.count()];
                    lookups::below(scan.isa, bytes, &self.tables, &mut self.found);
                }
                // A block has fewer than 2^32 codes.
                _ => self.found.extend((0..(end - start) as u32).map(|code| (code, u64::MAX))),
            }
            for found in self.found.chunks(count.div_ceil(PARTS).max(1)) {
                self.which.iter_mut().for_each(Vec::clear);
                for &(code, mut queries) in found {
                    while let Some(which) = self.which.get_mut(queries.trailing_zeros() as usize) {
                        which.push(code);
                        queries &= queries - 1;
                    }
                }
                // One query after the other: its table stays in the cache.
                let of_queries = self.of_queries.iter_mut().zip(self.queries.clone()).zip(&self.which);
                for (lane, ((best, query), which)) in of_queries.enumerate() {
                    scan.look(tables.of_query(query), first + start as u32, some, which, best);
                    shared.tell(lane, best);
                }
            }
            self.seen += end - start;
            start = end;
        }
        self.space = space;
    }

    /// Makes the bytes of a query for this limit, where those there are for one much higher.
    fn renew(&mut self, layout: Bytes, lane: usize, table: Table<'_>, limit: f32) {
        if limit == f32::INFINITY || limit >= self.limits[lane] * WORTH {
            return;
        }
        self.limits[lane] = limit;
        let (scale, mut entries) = (table.scale(limit), [255; 256]);
        for (b, of_byte) in self.tables.iter_mut().enumerate() {
            if let Some(scale) = scale {
                layout.entries(table, b, scale, &mut entries);
            }
            of_byte.iter_mut().zip(entries).for_each(|(lanes, entry)| lanes.0[lane] = entry);
        }
    }
}
