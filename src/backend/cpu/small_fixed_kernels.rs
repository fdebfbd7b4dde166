//! The kernels for few dimensions that multiply pairs of 16-bit integers, and the only doors to them: rows in the lanes of a
//! register, codewords broadcast.
//!
//! As in [`super::small_kernels`] the sums say which panel has the nearest codeword; their low bits, which say next to
//! nothing of it, carry the number of the panel. A tile of rows is `[half][ROWS]` pairs, a panel of codewords
//! `[half + 1][PANEL]` words with minus half the squared norms first: broadcast one by one for all rows, or eight at once
//! beside one row.
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`SmallFixedKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`SmallFixedKernels::of`]);
//! 2. `tile.len() == half * ROWS` and `shifts.len() == ROWS`;
//! 3. `panels.len()` is `panel_len(half)` times the number of panels;
//! 4. the state holds `2 * ROWS` values, or the values of the panels `ROWS` for each;
//! 5. rows as they came are `ROWS` of d columns, `(ROWS - 1) * stride + d` elements, and room for the same in columns has
//!    `ROWS` values for each of these;
//! 6. a row is one of the `ROWS` of a tile.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::isa::Isa;
use super::small_fixed_rows::Terms;
use crate::matrix::MatrixView;
use std::ops::Range;

/// Codewords of a panel: one register of AVX2.
pub(super) const PANEL: usize = 8;
/// Codewords whose sums are in registers at a time.
pub(super) const QUAD: usize = 4;
/// Rows of a tile: two registers of AVX2, one of AVX-512.
pub(super) const ROWS: usize = 16;
/// Values of state of a tile: per row the largest key of a panel, and the second largest.
pub(super) const STATE: usize = 2 * ROWS;

/// Words of a packed panel.
pub(super) fn panel_len(half: usize) -> usize {
    PANEL * (half + 1)
}

/// The kernels of one instruction set.
pub(super) struct SmallFixedKernels {
    /// Dimensions from which they are faster than f32.
    pub min_d: usize,
    best: unsafe fn(Tile<'_>, panels: &[i32], ids: Range<i32>, low: i32, state: &mut [i32]),
    values: unsafe fn(Tile<'_>, panels: &[i32], values: &mut [i32]),
    place: PlaceFn,
    nearest: NearestFn,
    above: unsafe fn(Tile<'_>, row: usize, panel: &[i32], limit: i32) -> u32,
}

type PlaceFn = unsafe fn(
    MatrixView<'_, f32>,
    Terms<'_>,
    steps: &mut [f32],
    tile: &mut [i32],
    shifts: &mut [i32],
    bounds: &mut [f32],
);
type NearestFn =
    unsafe fn(Tile<'_>, Panels<'_>, state: &[i32], bounds: &[f32], panels: &mut [u32], positions: &mut [u32]);

/// All panels.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub words: &'a [i32],
    /// The bits of a key that carry the number of a panel.
    pub low: i32,
    /// Codewords: what follows the last of them is padding.
    pub codewords: usize,
}

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
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Avx512Vnni if isa.is_available() => Some(&avx512vnni::KERNELS),
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

    /// Rows as they came, `[ROWS, d]`, into a tile: see [`super::small_fixed_rows::place`]. `steps` is room for as many
    /// values; of an odd number of dimensions one more, for each row a zero.
    pub fn place(
        &self,
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        steps: &mut [f32],
        tile: &mut [i32],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        let d = terms.mean.len();
        assert!((x.rows(), x.cols()) == (ROWS, d) && steps.len() >= ROWS * d, "check 5");
        assert_eq!(x.elements().len(), (ROWS - 1) * x.row_stride() + d, "check 5");
        // SAFETY: checks 1 and 5.
        unsafe { (self.place)(x, terms, steps, tile, shifts, bounds) }
    }

    /// Of every row of a tile the panel that has the nearest codeword, given the state after all of them and the rows'
    /// bounds, where that is certain ([`super::small_fixed_rows::certain`]); and the position of that codeword where no
    /// other of the panel can be as near. Else [`OPEN`](super::small_nearest::OPEN).
    pub fn nearest(
        &self,
        tile: Tile<'_>,
        panels: Panels<'_>,
        state: &[i32],
        bounds: &[f32],
        certain: &mut [u32],
        positions: &mut [u32],
    ) {
        self.count(tile, panels.words);
        // SAFETY: checks 1 to 3.
        unsafe { (self.nearest)(tile, panels, state, bounds, certain, positions) }
    }

    /// A bit for every codeword of a panel whose sum with row `row` of a tile lies above `limit`.
    pub fn above(&self, tile: Tile<'_>, row: usize, panel: &[i32], limit: i32) -> u32 {
        assert_eq!(self.count(tile, panel), 1, "check 3");
        assert!(row < ROWS, "check 6");
        // SAFETY: checks 1, 2, 3 and 6.
        unsafe { (self.above)(tile, row, panel, limit) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::small_fixed_rows;
    use super::super::small_nearest::OPEN;
    use super::*;
    use std::arch::x86_64::*;

    pub static KERNELS: SmallFixedKernels = SmallFixedKernels { min_d: 7, best, values, place, nearest, above };

    /// ROWS words.
    ///
    /// # Safety
    /// Check 1; so many are readable.
    #[inline(always)]
    unsafe fn load(from: *const i32) -> [__m256i; 2] {
        // SAFETY: as promised.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    /// The largest sum of a panel for every row of a tile. No row is in a scale of its own unless `COARSER`.
    ///
    /// # Safety
    /// Checks 1 to 3; `panel` is one of the panels. The loop over pairs is not unrolled: sums of integers may be formed in
    /// any order, and the compiler's takes more registers than there are.
    #[inline(always)]
    unsafe fn value<const COARSER: bool>(
        tile: *const i32,
        shifts: [__m256i; 2],
        panel: *const i32,
        half: usize,
    ) -> [__m256i; 2] {
        // SAFETY: t < half, so every read of the tile lies within its half * ROWS words and every one of a panel within
        // its (half + 1) * PANEL.
        unsafe {
            let mut most = [_mm256_set1_epi32(i32::MIN); 2];
            for quad in 0..PANEL / QUAD {
                let quad = panel.add(quad * QUAD);
                let mut sums = [[_mm256_setzero_si256(); 2]; QUAD];
                for j in 0..QUAD {
                    let negated = _mm256_set1_epi32(*quad.add(j));
                    for reg in 0..2 {
                        sums[j][reg] = if COARSER { _mm256_srav_epi32(negated, shifts[reg]) } else { negated };
                    }
                }
                for t in 0..half {
                    let z = load(tile.add(t * ROWS));
                    for j in 0..QUAD {
                        let e = _mm256_set1_epi32(*quad.add((t + 1) * PANEL + j));
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
        // SAFETY: checks 1 to 4.
        unsafe {
            match tile.shifts.iter().all(|&shift| shift == 0) {
                true => best_of::<false>(tile, panels, ids, low, state),
                false => best_of::<true>(tile, panels, ids, low, state),
            }
        }
    }

    /// # Safety
    /// Checks 1 to 4.
    #[inline(always)]
    unsafe fn best_of<const COARSER: bool>(
        tile: Tile<'_>,
        panels: &[i32],
        ids: Range<i32>,
        low: i32,
        state: &mut [i32],
    ) {
        let (half, state) = (tile.half(), state.as_mut_ptr());
        // SAFETY: by check 3 a whole panel lies ahead for every id; by check 4 the state has two values for every row.
        unsafe {
            let (shifts, high) = (load(tile.shifts.as_ptr()), _mm256_set1_epi32(!low));
            let (mut best, mut second) = (load(state), load(state.add(ROWS)));
            let mut panel = panels.as_ptr();
            for id in ids {
                let most = value::<COARSER>(tile.pairs.as_ptr(), shifts, panel, half);
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
                let most = value::<true>(tile.pairs.as_ptr(), load(tile.shifts.as_ptr()), panel.as_ptr(), half);
                for reg in 0..2 {
                    _mm256_storeu_si256(values.as_mut_ptr().add(8 * reg).cast(), most[reg]);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn place(
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        steps: &mut [f32],
        tile: &mut [i32],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        // SAFETY: the caller made the checks.
        unsafe { place_any(x, terms, steps, tile, shifts, bounds) }
    }

    /// # Safety
    /// Checks 1 and 5.
    #[inline(always)]
    pub(super) unsafe fn place_any(
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        steps: &mut [f32],
        tile: &mut [i32],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        let d = terms.mean.len();
        // SAFETY: as promised. Known depths unroll.
        unsafe {
            match d {
                8 => transpose(x, 8, steps),
                16 => transpose(x, 16, steps),
                _ => transpose(x, d, steps),
            }
        }
        match d {
            8 => small_fixed_rows::place(steps, 8, terms, tile, shifts, bounds),
            16 => small_fixed_rows::place(steps, 16, terms, tile, shifts, bounds),
            _ => small_fixed_rows::place(steps, d, terms, tile, shifts, bounds),
        }
    }

    /// `[ROWS, d]` to `[d][ROWS]`, eight rows of four dimensions at a time: what is written is read in as wide registers
    /// right after.
    ///
    /// # Safety
    /// Checks 1 and 5.
    #[inline(always)]
    unsafe fn transpose(x: MatrixView<'_, f32>, d: usize, steps: &mut [f32]) {
        let (from, stride, fours) = (x.elements().as_ptr(), x.row_stride(), d - d % 4);
        for eight in (0..ROWS).step_by(8) {
            for t in (0..fours).step_by(4) {
                // SAFETY: row eight + 7 is one of ROWS, and t + 3 below d.
                unsafe {
                    let four = |row: usize| _mm_loadu_ps(from.add((eight + row) * stride + t));
                    let both = |row: usize| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(four(row)), four(row + 4));
                    let (low, high) = ([both(0), both(1)], [both(2), both(3)]);
                    let (low, high) = (
                        [_mm256_unpacklo_ps(low[0], low[1]), _mm256_unpackhi_ps(low[0], low[1])],
                        [_mm256_unpacklo_ps(high[0], high[1]), _mm256_unpackhi_ps(high[0], high[1])],
                    );
                    for pair in 0..2 {
                        let to = steps.as_mut_ptr().add((t + 2 * pair) * ROWS + eight);
                        _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(low[pair], high[pair]));
                        _mm256_storeu_ps(to.add(ROWS), _mm256_shuffle_ps::<0xee>(low[pair], high[pair]));
                    }
                }
            }
        }
        for t in fours..d {
            for row in 0..ROWS {
                steps[t * ROWS + row] = x.row(row)[t];
            }
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn nearest(
        tile: Tile<'_>,
        panels: Panels<'_>,
        state: &[i32],
        bounds: &[f32],
        certain: &mut [u32],
        positions: &mut [u32],
    ) {
        // SAFETY: the caller made the checks.
        unsafe { nearest_any(tile, panels, state, bounds, certain, positions) }
    }

    /// # Safety
    /// Checks 1 to 3.
    #[inline(always)]
    pub(super) unsafe fn nearest_any(
        tile: Tile<'_>,
        panels: Panels<'_>,
        state: &[i32],
        bounds: &[f32],
        certain: &mut [u32],
        positions: &mut [u32],
    ) {
        // SAFETY: as promised. Known depths unroll.
        unsafe {
            match tile.half() {
                4 => nearest_of(tile, 4, panels, state, bounds, certain, positions),
                8 => nearest_of(tile, 8, panels, state, bounds, certain, positions),
                half => nearest_of(tile, half, panels, state, bounds, certain, positions),
            }
        }
    }

    /// # Safety
    /// Checks 1 to 3; `half` is that of the tile.
    #[inline(always)]
    unsafe fn nearest_of(
        tile: Tile<'_>,
        half: usize,
        panels: Panels<'_>,
        state: &[i32],
        bounds: &[f32],
        certain: &mut [u32],
        positions: &mut [u32],
    ) {
        let mut limits = [0; ROWS];
        small_fixed_rows::certain(state, bounds, panels.low, certain, &mut limits);
        for (row, (position, &panel)) in positions.iter_mut().zip(certain.iter()).enumerate().take(ROWS) {
            *position = OPEN;
            if panel == OPEN {
                continue;
            }
            let first = panel as usize * PANEL;
            let words = &panels.words[first * (half + 1)..][..panel_len(half)];
            // SAFETY: row < ROWS; the words are those of a panel.
            let lanes = unsafe { lanes_above(tile, half, row, words, limits[row]) };
            // Padding repeats the last codeword.
            let lanes = lanes & (u32::MAX >> (32 - (panels.codewords - first).min(PANEL)));
            if lanes.is_power_of_two() {
                *position = first as u32 + lanes.trailing_zeros();
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn above(tile: Tile<'_>, row: usize, panel: &[i32], limit: i32) -> u32 {
        // SAFETY: the caller made the checks.
        unsafe { lanes_above(tile, tile.half(), row, panel, limit) }
    }

    /// # Safety
    /// Checks 1, 2, 3 of one panel, and 6; `half` is that of the tile.
    #[inline(always)]
    unsafe fn lanes_above(tile: Tile<'_>, half: usize, row: usize, panel: &[i32], limit: i32) -> u32 {
        // SAFETY: row < ROWS and t < half, so that every pair lies within the tile and every step within the panel.
        unsafe {
            let step = |t: usize| _mm256_loadu_si256(panel.as_ptr().add(t * PANEL).cast());
            let mut sums = _mm256_srav_epi32(step(0), _mm256_set1_epi32(tile.shifts[row]));
            for t in 0..half {
                let z = _mm256_set1_epi32(*tile.pairs.as_ptr().add(t * ROWS + row));
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(z, step(t + 1)));
            }
            let above = _mm256_cmpgt_epi32(sums, _mm256_set1_epi32(limit));
            _mm256_movemask_ps(_mm256_castsi256_ps(above)) as u32
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use super::*;
    use std::arch::x86_64::*;

    /// A codeword of a panel is looked for as with AVX2: a register of its is a panel.
    pub static KERNELS: SmallFixedKernels =
        SmallFixedKernels { min_d: 5, best, values, place, nearest, above: avx2::above };

    /// The largest sum of a panel for every row of a tile. No row is in a scale of its own unless `COARSER`. All codewords at
    /// once: as many sums must be on their way, for one takes four cycles and two begin in each.
    ///
    /// # Safety
    /// Checks 1 to 3; `panel` is one of the panels.
    #[inline(always)]
    unsafe fn value<const COARSER: bool>(tile: *const i32, shifts: __m512i, panel: *const i32, half: usize) -> __m512i {
        // SAFETY: t < half, so every read of the tile lies within its half * ROWS words and every one of a panel within
        // its (half + 1) * PANEL.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); PANEL];
            for j in 0..PANEL {
                let negated = _mm512_set1_epi32(*panel.add(j));
                sums[j] = if COARSER { _mm512_srav_epi32(negated, shifts) } else { negated };
            }
            for t in 0..half {
                let z = _mm512_loadu_si512(tile.add(t * ROWS).cast());
                for j in 0..PANEL {
                    let e = _mm512_set1_epi32(*panel.add((t + 1) * PANEL + j));
                    sums[j] = _mm512_dpwssd_epi32(sums[j], z, e);
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let low = _mm512_max_epi32(_mm512_max_epi32(a, b), _mm512_max_epi32(c, d));
            let high = _mm512_max_epi32(_mm512_max_epi32(e, f), _mm512_max_epi32(g, h));
            _mm512_max_epi32(low, high)
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn best(tile: Tile<'_>, panels: &[i32], ids: Range<i32>, low: i32, state: &mut [i32]) {
        // SAFETY: checks 1 to 4. Known depths unroll.
        unsafe {
            match (tile.shifts.iter().all(|&shift| shift == 0), tile.half()) {
                (true, 4) => best_of::<false>(tile, 4, panels, ids, low, state),
                (true, 8) => best_of::<false>(tile, 8, panels, ids, low, state),
                (true, half) => best_of::<false>(tile, half, panels, ids, low, state),
                (false, half) => best_of::<true>(tile, half, panels, ids, low, state),
            }
        }
    }

    /// # Safety
    /// Checks 1 to 4; `half` is that of the tile.
    #[inline(always)]
    unsafe fn best_of<const COARSER: bool>(
        tile: Tile<'_>,
        half: usize,
        panels: &[i32],
        ids: Range<i32>,
        low: i32,
        state: &mut [i32],
    ) {
        let state = state.as_mut_ptr();
        // SAFETY: by check 3 a whole panel lies ahead for every id; by check 4 the state has two values for every row.
        unsafe {
            let (shifts, high) = (_mm512_loadu_si512(tile.shifts.as_ptr().cast()), _mm512_set1_epi32(!low));
            let (mut best, mut second) = (_mm512_loadu_si512(state.cast()), _mm512_loadu_si512(state.add(ROWS).cast()));
            let mut panel = panels.as_ptr();
            for id in ids {
                let most = value::<COARSER>(tile.pairs.as_ptr(), shifts, panel, half);
                // (most & high) | id.
                let key = _mm512_ternarylogic_epi32::<0xea>(most, high, _mm512_set1_epi32(id));
                second = _mm512_max_epi32(second, _mm512_min_epi32(best, key));
                best = _mm512_max_epi32(best, key);
                panel = panel.add(panel_len(half));
            }
            _mm512_storeu_si512(state.cast(), best);
            _mm512_storeu_si512(state.add(ROWS).cast(), second);
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn values(tile: Tile<'_>, panels: &[i32], values: &mut [i32]) {
        let half = tile.half();
        for (panel, values) in panels.chunks_exact(panel_len(half)).zip(values.chunks_exact_mut(ROWS)) {
            // SAFETY: a whole panel, by check 3; ROWS values to write.
            unsafe {
                let shifts = _mm512_loadu_si512(tile.shifts.as_ptr().cast());
                let most = value::<true>(tile.pairs.as_ptr(), shifts, panel.as_ptr(), half);
                _mm512_storeu_si512(values.as_mut_ptr().cast(), most);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn place(
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        steps: &mut [f32],
        tile: &mut [i32],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        // SAFETY: the caller made the checks.
        unsafe { avx2::place_any(x, terms, steps, tile, shifts, bounds) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn nearest(
        tile: Tile<'_>,
        panels: Panels<'_>,
        state: &[i32],
        bounds: &[f32],
        certain: &mut [u32],
        positions: &mut [u32],
    ) {
        // SAFETY: the caller made the checks.
        unsafe { avx2::nearest_any(tile, panels, state, bounds, certain, positions) }
    }
}
