//! Sums of bytes that a code looks up in the tables of 64 queries at once: which of them stay below 255.
//!
//! An entry of a table is a byte for each query, side by side: a cache line. One load and one addition look a number up for 32
//! or 64 queries, however few bits it has, with nothing but additions of bytes that saturate, which every vector unit has.

use super::isa::Isa;

/// Queries whose bytes lie side by side.
pub(crate) const LANES: usize = 64;

/// A byte for each query, in one cache line: half as much, and every load still fetches all of it.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lanes(pub [u8; LANES]);

/// What a byte of a code is looked up in.
pub(crate) type ByteTable = [Lanes; 256];

/// A code that is among those asked for, by its place, and a bit for every query of which it is.
pub(crate) type Found = (u32, u64);

/// Adds to `found`, in order, every code, of as many bytes as there are tables, whose entries add up to less than 255 for some
/// query.
pub(crate) fn below(isa: Isa, codes: &[u8], tables: &[ByteTable], found: &mut Vec<Found>) {
    if tables.is_empty() {
        return;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") =>
        {
            // SAFETY: the processor has AVX-512 F and BW, as was just asked.
            unsafe { avx512(codes, tables, found) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avx2") => {
            // SAFETY: the processor has AVX2, as was just asked.
            unsafe { avx2(codes, tables, found) }
        }
        _ => body(codes, tables, found),
    }
}

/// # Safety
/// The processor has AVX-512 F and BW.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512(codes: &[u8], tables: &[ByteTable], found: &mut Vec<Found>) {
    body(codes, tables, found);
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(codes: &[u8], tables: &[ByteTable], found: &mut Vec<Found>) {
    body(codes, tables, found);
}

/// Two codes side by side, whose sums do not wait for each other.
#[inline(always)]
fn body(codes: &[u8], tables: &[ByteTable], found: &mut Vec<Found>) {
    let (m, mut first) = (tables.len(), 0);
    for two in codes.chunks(2 * m) {
        // A last one by itself is looked at twice and told once.
        let (a, b) = two.split_at(m);
        let b = if b.is_empty() { a } else { b };
        let (mut of_a, mut of_b) = ([0; LANES], [0; LANES]);
        for ((table, &a), &b) in tables.iter().zip(a).zip(b) {
            of_a = sum(of_a, &table[usize::from(a)]);
            of_b = sum(of_b, &table[usize::from(b)]);
        }
        if least(of_a, of_b) != [255; LANES] {
            tell(&[of_a, of_b][..two.len() / m], first, found);
        }
        first += 2;
    }
}

#[inline(always)]
fn sum(mut sum: [u8; LANES], entry: &Lanes) -> [u8; LANES] {
    for (sum, &entry) in sum.iter_mut().zip(&entry.0) {
        *sum = sum.saturating_add(entry);
    }
    sum
}

#[inline(always)]
fn least(mut a: [u8; LANES], b: [u8; LANES]) -> [u8; LANES] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = b.min(*a);
    }
    a
}

/// The top bits of the bytes of a word.
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Few codes in a hundred come here: what this needs of registers is not to be taken from the others.
#[cold]
#[inline(never)]
fn tell(sums: &[[u8; LANES]], first: u32, found: &mut Vec<Found>) {
    for (code, sum) in (first..).zip(sums) {
        let mut queries = 0;
        for (i, eight) in sum.as_chunks::<8>().0.iter().enumerate() {
            // The top bit of every byte that is not 255 in the sum and so not 0 here; then these bits side by side.
            let left = !u64::from_le_bytes(*eight);
            let tops = (((left & !TOPS) + !TOPS) | left) & TOPS;
            queries |= ((tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
        }
        if queries != 0 {
            found.push((code, queries));
        }
    }
}
