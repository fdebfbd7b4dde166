//! Sums of bytes that codes look up in tables, 64 codes at a time: which of them stay below 255.
//!
//! Every unsafe block here rests on these checks, made by [`Lookups::below`]:
//! 1. a table of functions is handed out only for an instruction set that the processor has ([`Lookups::of`]);
//! 2. `tables.len()` is `entries` times the number of columns;
//! 3. `columns.len()` is `stride` times the number of columns;
//! 4. the masks stand for whole groups of [`GROUP`] codes, which end within `stride`.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such functions yet.

use super::isa::Isa;

/// Codes of a group.
pub(crate) const GROUP: usize = 256;

/// The functions of one instruction set for tables of one size.
pub(crate) struct Lookups {
    entries: usize,
    below: BelowFn,
}

type BelowFn = unsafe fn(Pass);

struct Pass {
    columns: *const u8,
    stride: usize,
    m: usize,
    tables: *const u8,
    masks: *mut u64,
    groups: usize,
}

impl Lookups {
    /// What `isa` has for numbers below `k`; none where looking up one by one is no slower.
    pub fn of(
        isa: Isa,
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] k: usize,
    ) -> Option<&'static Lookups> {
        match isa {
            // Check 1.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Avx512 if isa.is_available() && is_x86_feature_detected!("avx512bw") => match k {
                ..=16 => Some(&x86::WIDE_16),
                17..=256 if is_x86_feature_detected!("avx512vbmi") => Some(&x86::WIDE_256),
                _ => None,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if isa.is_available() && k <= 16 => Some(&x86::NARROW_16),
            _ => None,
        }
    }

    /// Entries of a table.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// A bit for every code from `first` on, of whose columns, `stride` apart and with a table each, the entries add up to
    /// less than 255. Numbers are below [`entries`](Lookups::entries).
    pub fn below(&self, columns: &[u8], stride: usize, first: usize, tables: &[u8], masks: &mut [u64]) {
        let m = tables.len() / self.entries;
        assert_eq!(tables.len(), m * self.entries, "check 2");
        assert_eq!(columns.len(), m * stride, "check 3");
        let count = masks.len() * 64;
        assert!(first <= stride && count <= stride - first && count.is_multiple_of(GROUP), "check 4");
        // An offset of no column at all would lie outside.
        let (columns, tables, groups) = (columns[first.min(columns.len())..].as_ptr(), tables.as_ptr(), count / GROUP);
        // SAFETY: checks 1 to 4.
        unsafe { (self.below)(Pass { columns, stride, m, tables, masks: masks.as_mut_ptr(), groups }) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    pub static WIDE_256: Lookups = Lookups { entries: 256, below: wide_256 };
    pub static WIDE_16: Lookups = Lookups { entries: 16, below: wide_16 };
    pub static NARROW_16: Lookups = Lookups { entries: 16, below: narrow_16 };

    /// # Safety
    /// Checks 1 to 4.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn wide_256(pass: Pass) {
        let Pass { columns, stride, m, tables, masks, groups } = pass;
        for group in 0..groups {
            let mut sums = [_mm512_setzero_si512(); 4];
            for s in 0..m {
                // SAFETY: a table has 256 bytes by check 2, and the group lies within its column by checks 3 and 4.
                unsafe {
                    let table = tables.add(s * 256);
                    let (a, b) = (_mm512_loadu_si512(table.cast()), _mm512_loadu_si512(table.add(64).cast()));
                    let (c, d) = (_mm512_loadu_si512(table.add(128).cast()), _mm512_loadu_si512(table.add(192).cast()));
                    for (quarter, sum) in sums.iter_mut().enumerate() {
                        let at = columns.add(s * stride + group * GROUP + quarter * 64);
                        let number = _mm512_loadu_si512(at.cast());
                        let (low, high) =
                            (_mm512_permutex2var_epi8(a, number, b), _mm512_permutex2var_epi8(c, number, d));
                        let entry = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(number), high);
                        *sum = _mm512_adds_epu8(*sum, entry);
                    }
                }
            }
            for (quarter, sum) in sums.into_iter().enumerate() {
                let mask = _mm512_cmpneq_epi8_mask(sum, _mm512_set1_epi8(-1));
                // SAFETY: check 4.
                unsafe { masks.add(group * 4 + quarter).write(mask) }
            }
        }
    }

    /// # Safety
    /// Checks 1 to 4.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn wide_16(pass: Pass) {
        let Pass { columns, stride, m, tables, masks, groups } = pass;
        for group in 0..groups {
            let mut sums = [_mm512_setzero_si512(); 4];
            for s in 0..m {
                // SAFETY: a table has 16 bytes by check 2, and the group lies within its column by checks 3 and 4.
                unsafe {
                    let table = _mm512_broadcast_i32x4(_mm_loadu_si128(tables.add(s * 16).cast()));
                    for (quarter, sum) in sums.iter_mut().enumerate() {
                        let at = columns.add(s * stride + group * GROUP + quarter * 64);
                        let number = _mm512_loadu_si512(at.cast());
                        *sum = _mm512_adds_epu8(*sum, _mm512_shuffle_epi8(table, number));
                    }
                }
            }
            for (quarter, sum) in sums.into_iter().enumerate() {
                let mask = _mm512_cmpneq_epi8_mask(sum, _mm512_set1_epi8(-1));
                // SAFETY: check 4.
                unsafe { masks.add(group * 4 + quarter).write(mask) }
            }
        }
    }

    /// # Safety
    /// Checks 1 to 4.
    #[target_feature(enable = "avx2")]
    unsafe fn narrow_16(pass: Pass) {
        let Pass { columns, stride, m, tables, masks, groups } = pass;
        for group in 0..groups {
            let mut sums = [_mm256_setzero_si256(); 8];
            for s in 0..m {
                // SAFETY: a table has 16 bytes by check 2, and the group lies within its column by checks 3 and 4.
                unsafe {
                    let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.add(s * 16).cast()));
                    for (eighth, sum) in sums.iter_mut().enumerate() {
                        let at = columns.add(s * stride + group * GROUP + eighth * 32);
                        let number = _mm256_loadu_si256(at.cast());
                        *sum = _mm256_adds_epu8(*sum, _mm256_shuffle_epi8(table, number));
                    }
                }
            }
            let below = |sum| !(_mm256_movemask_epi8(_mm256_cmpeq_epi8(sum, _mm256_set1_epi8(-1))) as u32);
            for (quarter, sums) in sums.chunks_exact(2).enumerate() {
                let mask = u64::from(below(sums[0])) | u64::from(below(sums[1])) << 32;
                // SAFETY: check 4.
                unsafe { masks.add(group * 4 + quarter).write(mask) }
            }
        }
    }
}
