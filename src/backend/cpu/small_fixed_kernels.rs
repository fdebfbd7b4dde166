//! The kernels for few dimensions that multiply pairs of 16-bit integers, and the only doors to them: rows in the lanes of a
//! register, codewords broadcast.
//!
//! As in [`super::small_kernels`] the sums say which panel has the nearest codeword; their low bits, which say next to
//! nothing of it, carry the number of the panel. A tile of rows is `[half][ROWS]` pairs, a panel of codewords
//! `[PANEL / QUAD][half + 1][QUAD]` words with minus half the squared norms first.
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`SmallFixedKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`SmallFixedKernels::of`]);
//! 2. `tile.len() == half * ROWS` and `shifts.len() == ROWS`;
//! 3. `panels.len()` is `panel_len(half)` times the number of panels;
//! 4. the state holds `2 * ROWS` values, or the values of the panels `ROWS` for each.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::isa::Isa;
use super::small_fixed_rows::Terms;
use std::ops::Range;

/// Codewords of a panel: one register of those whose f32 sums say which it is.
pub(super) const PANEL: usize = 8;
/// Codewords whose sums are in registers at a time.
pub(super) const QUAD: usize = 4;
/// Rows of a tile: two registers.
pub(super) const ROWS: usize = 16;
/// Values of state of a tile: per row the largest key of a panel, and the second largest.
pub(super) const STATE: usize = 2 * ROWS;

/// Words of a packed panel.
pub(super) fn panel_len(half: usize) -> usize {
    PANEL * (half + 1)
}

/// The kernels of one instruction set.
pub(super) struct SmallFixedKernels {
    best: unsafe fn(Tile<'_>, panels: &[i32], ids: Range<i32>, low: i32, state: &mut [i32]),
    values: unsafe fn(Tile<'_>, panels: &[i32], values: &mut [i32]),
    place: PlaceFn,
    certain: unsafe fn(state: &[i32], bounds: &[f32], low: i32, panels: &mut [u32]),
    nearest: NearestFn,
}

type PlaceFn = unsafe fn(plain: &[f32], Terms<'_>, tile: &mut [i32], shifts: &mut [i32], bounds: &mut [f32]);
type NearestFn = unsafe fn(plain: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]);

/// A tile of rows.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub pairs: &'a [i32],
    /// Per row how far half the squared norms are shifted to come into its scale.
    pub shifts: &'a [i32],
}

impl Tile<'_> {
    /// Pairs of a row.
    fn half(&self) -> usize {
        self.pairs.len() / ROWS
    }
}

impl SmallFixedKernels {
    /// The kernels of `isa`; none where it has no such instructions, or the processor lacks it.
    pub fn of(isa: Isa) -> Option<&'static SmallFixedKernels> {
        match isa {
            // Check 1.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if isa.is_available() => Some(&avx2::KERNELS),
            _ => None,
        }
    }

    /// Merges the keys of consecutive panels, the first of them number `first`, into the state of a tile; `low` are the
    /// bits that carry the number.
    pub fn best(&self, tile: Tile<'_>, panels: &[i32], first: usize, low: i32, state: &mut [i32]) {
        let count = self.count(tile, panels);
        assert_eq!(state.len(), STATE, "check 4");
        // SAFETY: checks 1 to 4.
        unsafe { (self.best)(tile, panels, first as i32..(first + count) as i32, low, state) }
    }

    /// Writes the largest sum of every panel, `[panels][ROWS]`.
    pub fn values(&self, tile: Tile<'_>, panels: &[i32], values: &mut [i32]) {
        let count = self.count(tile, panels);
        assert_eq!(values.len(), count * ROWS, "check 4");
        // SAFETY: checks 1 to 4.
        unsafe { (self.values)(tile, panels, values) }
    }

    /// Number of panels.
    fn count(&self, tile: Tile<'_>, panels: &[i32]) -> usize {
        let len = panel_len(tile.half());
        assert!(tile.pairs.len() == tile.half() * ROWS && tile.shifts.len() == ROWS, "check 2");
        assert_eq!(panels.len() % len, 0, "check 3");
        panels.len() / len
    }

    /// See [`super::small_fixed_rows::place`].
    pub fn place(&self, plain: &[f32], terms: Terms<'_>, tile: &mut [i32], shifts: &mut [i32], bounds: &mut [f32]) {
        // SAFETY: check 1.
        unsafe { (self.place)(plain, terms, tile, shifts, bounds) }
    }

    /// See [`super::small_fixed_rows::certain`].
    pub fn certain(&self, state: &[i32], bounds: &[f32], low: i32, panels: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.certain)(state, bounds, low, panels) }
    }

    /// See [`super::small_nearest::nearest`].
    pub fn nearest(&self, plain: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.nearest)(plain, panels, codewords, d, positions) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::{small_fixed_rows, small_nearest};
    use super::*;
    use std::arch::x86_64::*;

    pub static KERNELS: SmallFixedKernels = SmallFixedKernels { best, values, place, certain, nearest };

    /// ROWS words.
    ///
    /// # Safety
    /// Check 1; so many are readable.
    #[inline(always)]
    unsafe fn load(from: *const i32) -> [__m256i; 2] {
        // SAFETY: as promised.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    /// The largest sum of a panel for every row of a tile.
    ///
    /// # Safety
    /// Checks 1 to 3; `panel` is one of the panels. The loop over pairs is not unrolled: sums of integers may be formed in
    /// any order, and the compiler's takes more registers than there are.
    #[inline(always)]
    unsafe fn value(tile: *const i32, shifts: [__m256i; 2], panel: *const i32, half: usize) -> [__m256i; 2] {
        // SAFETY: t < half, so every read of the tile lies within its half * ROWS words and every one of a quad within
        // its (half + 1) * QUAD; PANEL / QUAD of these are a panel.
        unsafe {
            let mut most = [_mm256_set1_epi32(i32::MIN); 2];
            for quad in 0..PANEL / QUAD {
                let quad = panel.add(quad * QUAD * (half + 1));
                let mut sums = [[_mm256_setzero_si256(); 2]; QUAD];
                for j in 0..QUAD {
                    let negated = _mm256_set1_epi32(*quad.add(j));
                    sums[j] = [_mm256_srav_epi32(negated, shifts[0]), _mm256_srav_epi32(negated, shifts[1])];
                }
                for t in 0..half {
                    let z = load(tile.add(t * ROWS));
                    for j in 0..QUAD {
                        let e = _mm256_set1_epi32(*quad.add((t + 1) * QUAD + j));
                        for reg in 0..2 {
                            sums[j][reg] = _mm256_add_epi32(sums[j][reg], _mm256_madd_epi16(z[reg], e));
                        }
                    }
                }
                for reg in 0..2 {
                    let low = _mm256_max_epi32(sums[0][reg], sums[1][reg]);
                    let high = _mm256_max_epi32(sums[2][reg], sums[3][reg]);
                    most[reg] = _mm256_max_epi32(most[reg], _mm256_max_epi32(low, high));
                }
            }
            most
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn best(tile: Tile<'_>, panels: &[i32], ids: Range<i32>, low: i32, state: &mut [i32]) {
        let (half, state) = (tile.half(), state.as_mut_ptr());
        // SAFETY: by check 3 a whole panel lies ahead for every id; by check 4 the state has two values for every row.
        unsafe {
            let (shifts, high) = (load(tile.shifts.as_ptr()), _mm256_set1_epi32(!low));
            let (mut best, mut second) = (load(state), load(state.add(ROWS)));
            let mut panel = panels.as_ptr();
            for id in ids {
                let most = value(tile.pairs.as_ptr(), shifts, panel, half);
                for reg in 0..2 {
                    let key = _mm256_or_si256(_mm256_and_si256(most[reg], high), _mm256_set1_epi32(id));
                    second[reg] = _mm256_max_epi32(second[reg], _mm256_min_epi32(best[reg], key));
                    best[reg] = _mm256_max_epi32(best[reg], key);
                }
                panel = panel.add(panel_len(half));
            }
            for reg in 0..2 {
                _mm256_storeu_si256(state.add(8 * reg).cast(), best[reg]);
                _mm256_storeu_si256(state.add(ROWS + 8 * reg).cast(), second[reg]);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn values(tile: Tile<'_>, panels: &[i32], values: &mut [i32]) {
        let half = tile.half();
        for (panel, values) in panels.chunks_exact(panel_len(half)).zip(values.chunks_exact_mut(ROWS)) {
            // SAFETY: a whole panel, by check 3; ROWS values to write.
            unsafe {
                let most = value(tile.pairs.as_ptr(), load(tile.shifts.as_ptr()), panel.as_ptr(), half);
                for reg in 0..2 {
                    _mm256_storeu_si256(values.as_mut_ptr().add(8 * reg).cast(), most[reg]);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn place(plain: &[f32], terms: Terms<'_>, tile: &mut [i32], shifts: &mut [i32], bounds: &mut [f32]) {
        match terms.mean.len() {
            8 => small_fixed_rows::place(plain, 8, terms, tile, shifts, bounds),
            16 => small_fixed_rows::place(plain, 16, terms, tile, shifts, bounds),
            d => small_fixed_rows::place(plain, d, terms, tile, shifts, bounds),
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn certain(state: &[i32], bounds: &[f32], low: i32, panels: &mut [u32]) {
        small_fixed_rows::certain(state, bounds, low, panels)
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn nearest(z: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]) {
        // SAFETY: the caller made the check. Known depths unroll.
        unsafe {
            match d {
                8 => small_nearest::nearest::<__m256, 1, PANEL>(z, panels, codewords, 8, positions),
                16 => small_nearest::nearest::<__m256, 1, PANEL>(z, panels, codewords, 16, positions),
                _ => small_nearest::nearest::<__m256, 1, PANEL>(z, panels, codewords, d, positions),
            }
        }
    }
}
