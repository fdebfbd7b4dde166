//! The kernels that multiply pairs of 16-bit integers, and the only doors to them.
//!
//! Sums of 32 bits have no rounding of their own: all that a score can be off is what [`super::fixed_panels`] took off
//! the operands. Two multiplications with an addition each do what four fused multiply-adds of f32 do, and a processor
//! with three or four vector units for integers and two for multiply-adds does the former sooner. VNNI has both in one
//! instruction, for twice the products of a fused multiply-add: as many as bf16 has, which leave several times as many rows open.
//!
//! The low half of a score says next to nothing about its rank, so that the number of its register takes that place: a
//! maximum of such keys knows where it comes from.
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`FixedKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`FixedKernels::of`]);
//! 2. `tile.len()` is `rows` times a row of `2 * half` integers or more, and `shifts.len() == rows`;
//! 3. `panels.len()` is `(half + 1) * WIDTH` times the number of panels;
//! 4. the state holds `rows * 2 * lanes` values, that of a row `2 * lanes`;
//! 5. the maxima hold `rows * lanes` values for the group of every panel.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::fixed_panels::SqNorms;
use super::fixed_rows::Terms;
use super::isa::Isa;
use crate::matrix::MatrixView;
use std::ops::Range;

/// Codewords of a panel.
pub(super) const WIDTH: usize = 16;
/// What takes the low half of a score; so many registers there can be.
pub(super) const REGISTERS: usize = 1 << 16;
/// Half a squared norm of padding, negated: below every score.
pub(super) const PADDING: i32 = i32::MIN;

/// The kernels of one instruction set.
pub(super) struct FixedKernels {
    /// Rows of a tile.
    pub rows: usize,
    /// Lanes of a register, a divisor of WIDTH.
    pub lanes: usize,
    /// Panels that a tile meets at a time: a run of panels begins with a multiple, a group has a multiple.
    pub panels: usize,
    best: BestFn,
    read: unsafe fn(state: *const i32) -> BestKeys,
    pack_rows: RowsFn,
    quantize_codeword: CodewordFn,
    hits: HitsFn,
}

type BestFn = unsafe fn(Pass);
type RowsFn = unsafe fn(MatrixView<'_, f32>, Terms<'_>, &mut [f32], out: &mut [i16], &mut [i32], bounds: &mut [f32]);
type CodewordFn = unsafe fn(row: &[f32], mean: &[f32], scale: f32, out: &mut [i16]) -> SqNorms;
type HitsFn = unsafe fn(maxima: &[i32], row: usize, threshold: i32, hits: &mut Vec<(u32, u32)>);

/// The two largest keys of a row over the panels seen so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct BestKeys {
    pub key: i32,
    /// Position of its codeword in the packed codebook.
    pub position: usize,
    pub runner_up: i32,
}

/// One tile against consecutive panels.
struct Pass {
    tile: *const i16,
    /// Integers from row to row.
    stride: usize,
    /// Per row how far half the squared norms are shifted to come into its scale.
    shifts: *const i32,
    /// Whether any.
    is_coarser: bool,
    panels: *const i32,
    half: usize,
    /// Numbers of the panels.
    ids: Range<usize>,
    group: usize,
    state: *mut i32,
    maxima: *mut i32,
}

impl FixedKernels {
    /// The kernels of `isa`; none where it has no such instructions, or the processor lacks it.
    pub fn of(isa: Isa) -> Option<&'static FixedKernels> {
        match isa {
            // Check 1.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if isa.is_available() => Some(&avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Avx512Vnni if isa.is_available() => Some(&avx512vnni::KERNELS),
            _ => None,
        }
    }

    /// Values of state per row: per lane the largest key and the second largest.
    pub fn state_len(&self) -> usize {
        2 * self.lanes
    }

    /// State before the first panel.
    pub fn reset(&self, state: &mut [i32]) {
        state.fill(i32::MIN);
    }

    /// Merges the keys of a tile, `[rows]` rows of `half` pairs or more, against consecutive panels, the first of them number `first`,
    /// into the state, and their largest of every lane and of `group` panels into the maxima, `[groups][rows][lanes]`.
    #[allow(clippy::too_many_arguments)]
    pub fn best(
        &self,
        tile: &[i16],
        shifts: &[i32],
        panels: &[i32],
        half: usize,
        first: usize,
        group: usize,
        state: &mut [i32],
        maxima: &mut [i32],
    ) {
        let count = panels.len() / ((half + 1) * WIDTH);
        let (rows, stride) = (self.rows, tile.len() / self.rows);
        assert!(tile.len() == rows * stride && stride >= 2 * half && shifts.len() == rows, "check 2");
        assert_eq!(panels.len(), count * (half + 1) * WIDTH, "check 3");
        assert_eq!(state.len(), rows * self.state_len(), "check 4");
        assert!(maxima.len() >= (first + count).div_ceil(group) * rows * self.lanes, "check 5");
        // Panels that meet a tile together are of one group.
        assert!(first.is_multiple_of(self.panels) && group.is_multiple_of(self.panels), "whole steps");
        let is_coarser = shifts.iter().any(|&shift| shift != 0);
        let (tile, shifts, panels) = (tile.as_ptr(), shifts.as_ptr(), panels.as_ptr());
        let (ids, state, maxima) = (first..first + count, state.as_mut_ptr(), maxima.as_mut_ptr());
        // SAFETY: checks 1 to 5.
        unsafe { (self.best)(Pass { tile, stride, shifts, is_coarser, panels, half, ids, group, state, maxima }) }
    }

    /// Reads one row's state.
    pub fn read(&self, state: &[i32]) -> BestKeys {
        assert_eq!(state.len(), self.state_len(), "check 4");
        // SAFETY: checks 1 and 4.
        unsafe { (self.read)(state.as_ptr()) }
    }

    /// See [`super::fixed_rows::pack_rows`].
    pub fn pack_rows(
        &self,
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        centred: &mut [f32],
        out: &mut [i16],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        // SAFETY: check 1.
        unsafe { (self.pack_rows)(x, terms, centred, out, shifts, bounds) }
    }

    /// See [`super::fixed_panels::quantize`].
    pub fn quantize_codeword(&self, row: &[f32], mean: &[f32], scale: f32, out: &mut [i16]) -> SqNorms {
        // SAFETY: check 1.
        unsafe { (self.quantize_codeword)(row, mean, scale, out) }
    }

    /// Groups of panels, with a bit for every lane, where the maximum of row `row` of a tile is `threshold` or more.
    pub fn hits(&self, maxima: &[i32], row: usize, threshold: i32, hits: &mut Vec<(u32, u32)>) {
        // SAFETY: check 1.
        unsafe { (self.hits)(maxima, row, threshold, hits) }
    }
}

/// The number of the register that a key carries.
fn register_of(key: i32) -> usize {
    key as usize % REGISTERS
}

/// Groups and lanes of one row of a tile of ROWS; see [`FixedKernels::hits`].
#[inline(always)]
fn hits<const ROWS: usize, const LANES: usize>(maxima: &[i32], row: usize, threshold: i32, hits: &mut Vec<(u32, u32)>) {
    let (lines, _) = maxima.as_chunks::<LANES>();
    for (group, line) in lines.iter().skip(row).step_by(ROWS).enumerate() {
        let mut lanes = 0;
        for (lane, &key) in line.iter().enumerate() {
            lanes |= u32::from(key >= threshold) << lane;
        }
        if lanes != 0 {
            hits.push((group as u32, lanes));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::{fixed_panels, fixed_rows};
    use super::*;
    use std::arch::x86_64::*;

    /// Six take a tenth longer per row on Zen 3, with the same registers to spare: none.
    const ROWS: usize = 5;
    /// Two registers are a panel.
    const LANES: usize = 8;

    pub static KERNELS: FixedKernels =
        FixedKernels { rows: ROWS, lanes: LANES, panels: 1, best, read, pack_rows, quantize_codeword, hits };

    /// Scores of a tile against a panel; no row is in a scale of its own unless `COARSER`. Ten sums stay in registers beside two of codewords, a broadcast pair and a
    /// product.
    ///
    /// # Safety
    /// Checks 1 to 3. A function of its own that returns the sums: indexed further on, they would be kept in memory.
    #[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
    #[inline(always)]
    unsafe fn dot<const COARSER: bool>(
        tile: *const i16,
        stride: usize,
        shifts: *const i32,
        panel: *const i32,
        half: usize,
    ) -> [[__m256i; 2]; ROWS] {
        // SAFETY: every step is below half: each row has a pair there, and the panel WIDTH after its first WIDTH words.
        unsafe {
            let halves = [_mm256_loadu_si256(panel.cast()), _mm256_loadu_si256(panel.add(LANES).cast())];
            let none = _mm256_set1_epi32(PADDING);
            let padding = [_mm256_cmpeq_epi32(halves[0], none), _mm256_cmpeq_epi32(halves[1], none)];
            let mut acc = [halves; ROWS];
            for row in 0..if COARSER { ROWS } else { 0 } {
                let shift = _mm_cvtsi32_si128(*shifts.add(row));
                for reg in 0..2 {
                    let shifted = _mm256_sra_epi32(halves[reg], shift);
                    acc[row][reg] = _mm256_blendv_epi8(shifted, halves[reg], padding[reg]);
                }
            }
            let pairs = panel.add(WIDTH);
            for step in 0..half {
                let e0 = _mm256_loadu_si256(pairs.add(step * WIDTH).cast());
                let e1 = _mm256_loadu_si256(pairs.add(step * WIDTH + LANES).cast());
                for row in 0..ROWS {
                    let z = _mm256_set1_epi32(tile.add(row * stride + 2 * step).cast::<i32>().read_unaligned());
                    acc[row][0] = _mm256_add_epi32(acc[row][0], _mm256_madd_epi16(z, e0));
                    acc[row][1] = _mm256_add_epi32(acc[row][1], _mm256_madd_epi16(z, e1));
                }
            }
            acc
        }
    }

    /// # Safety
    /// Checks 1 to 5.
    #[target_feature(enable = "avx2")]
    unsafe fn best(pass: Pass) {
        // SAFETY: as promised.
        unsafe { if pass.is_coarser { best_of::<true>(pass) } else { best_of::<false>(pass) } }
    }

    /// # Safety
    /// Checks 1 to 5.
    #[inline(always)]
    unsafe fn best_of<const COARSER: bool>(pass: Pass) {
        let Pass { tile, stride, shifts, mut panels, half, ids, group, state, maxima, .. } = pass;
        for id in ids {
            // SAFETY: by check 3 a whole panel lies ahead; by checks 4 and 5 every row has its state and its line of
            // maxima in the group of this panel.
            unsafe {
                let scores = dot::<COARSER>(tile, stride, shifts, panels, half);
                let joins = id % group != 0;
                let line = maxima.add(id / group * ROWS * LANES);
                let registers = [_mm256_set1_epi32(2 * id as i32), _mm256_set1_epi32(2 * id as i32 + 1)];
                for (row, scores) in scores.iter().enumerate() {
                    let state: *mut __m256i = state.add(row * 2 * LANES).cast();
                    let (best, second) = (_mm256_loadu_si256(state), _mm256_loadu_si256(state.add(1)));
                    // The low half of every score from the number of its register.
                    let first = _mm256_blend_epi16::<0x55>(scores[0], registers[0]);
                    let other = _mm256_blend_epi16::<0x55>(scores[1], registers[1]);
                    let (larger, smaller) = (_mm256_max_epi32(first, other), _mm256_min_epi32(first, other));
                    let rival = _mm256_max_epi32(smaller, _mm256_min_epi32(larger, best));
                    _mm256_storeu_si256(state, _mm256_max_epi32(best, larger));
                    _mm256_storeu_si256(state.add(1), _mm256_max_epi32(second, rival));
                    let line: *mut __m256i = line.add(row * LANES).cast();
                    let most = if joins { _mm256_max_epi32(larger, _mm256_loadu_si256(line)) } else { larger };
                    _mm256_storeu_si256(line, most);
                }
                panels = panels.add((half + 1) * WIDTH);
            }
        }
    }

    /// Merges the lanes of one row's state.
    ///
    /// # Safety
    /// Checks 1 and 4.
    #[target_feature(enable = "avx2")]
    unsafe fn read(state: *const i32) -> BestKeys {
        let state: *const __m256i = state.cast();
        // SAFETY: the state is two registers.
        let (largest, second) = unsafe { (_mm256_loadu_si256(state), _mm256_loadu_si256(state.add(1))) };
        let keys = most(largest);
        let holds = _mm256_cmpeq_epi32(largest, keys);
        let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(holds)) as u32;
        let key = _mm256_cvtsi256_si32(keys);
        let others = _mm256_cvtsi256_si32(most(_mm256_blendv_epi8(largest, second, holds)));
        // Where two lanes hold it, neither's second is the runner-up.
        let runner_up = if lanes.is_power_of_two() { others } else { key };
        BestKeys { key, position: register_of(key) * LANES + lanes.trailing_zeros() as usize, runner_up }
    }

    /// The largest of all lanes, in every lane.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn most(lanes: __m256i) -> __m256i {
        let lanes = _mm256_max_epi32(lanes, _mm256_permute2x128_si256::<1>(lanes, lanes));
        let lanes = _mm256_max_epi32(lanes, _mm256_shuffle_epi32::<0b01_00_11_10>(lanes));
        _mm256_max_epi32(lanes, _mm256_shuffle_epi32::<0b10_11_00_01>(lanes))
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_rows(
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        centred: &mut [f32],
        out: &mut [i16],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        // SAFETY: check 1.
        unsafe { fixed_rows::pack_rows::<__m256>(x, terms, centred, out, shifts, bounds) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn quantize_codeword(row: &[f32], mean: &[f32], scale: f32, out: &mut [i16]) -> SqNorms {
        fixed_panels::quantize(row, mean, scale, out)
    }

    #[target_feature(enable = "avx2")]
    unsafe fn hits(maxima: &[i32], row: usize, threshold: i32, hits: &mut Vec<(u32, u32)>) {
        super::hits::<ROWS, LANES>(maxima, row, threshold, hits)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use super::super::{fixed_panels, fixed_rows};
    use super::*;
    use std::arch::x86_64::*;

    const ROWS: usize = 6;
    /// A register is a panel.
    const LANES: usize = 16;
    /// Panels that a tile meets at a time. 24 sums stay in registers beside four of codewords and one of a broadcast pair.
    /// 12 rows by 2 panels take a tenth longer at 32 dimensions, for twice the states that are read and written, and as
    /// long from 128 on.
    const PANELS: usize = 4;

    pub static KERNELS: FixedKernels =
        FixedKernels { rows: ROWS, lanes: LANES, panels: PANELS, best, read, pack_rows, quantize_codeword, hits };

    /// Scores of a tile against COUNT panels, `next` words from one to the next; no row is in a scale of its own unless
    /// `COARSER`.
    ///
    /// # Safety
    /// Checks 1 to 3. A function of its own that returns the sums: indexed further on, they would be kept in memory.
    #[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
    #[inline(always)]
    unsafe fn dot<const COARSER: bool, const COUNT: usize>(
        tile: *const i16,
        stride: usize,
        shifts: *const i32,
        panels: *const i32,
        half: usize,
    ) -> [[__m512i; COUNT]; ROWS] {
        // SAFETY: every step is below half: each row has a pair there, and each of COUNT panels WIDTH words after its first
        // WIDTH.
        unsafe {
            let next = (half + 1) * WIDTH;
            let mut acc = [[_mm512_setzero_si512(); COUNT]; ROWS];
            for panel in 0..COUNT {
                let halves = _mm512_loadu_si512(panels.add(panel * next).cast());
                let padding = _mm512_cmpeq_epi32_mask(halves, _mm512_set1_epi32(PADDING));
                for row in 0..ROWS {
                    acc[row][panel] = halves;
                    if COARSER {
                        let shifted = _mm512_sra_epi32(halves, _mm_cvtsi32_si128(*shifts.add(row)));
                        acc[row][panel] = _mm512_mask_mov_epi32(shifted, padding, halves);
                    }
                }
            }
            for step in 0..half {
                let mut e = [_mm512_setzero_si512(); COUNT];
                for panel in 0..COUNT {
                    e[panel] = _mm512_loadu_si512(panels.add(panel * next + (step + 1) * WIDTH).cast());
                }
                for row in 0..ROWS {
                    let z = _mm512_set1_epi32(tile.add(row * stride + 2 * step).cast::<i32>().read_unaligned());
                    for panel in 0..COUNT {
                        acc[row][panel] = _mm512_dpwssd_epi32(acc[row][panel], z, e[panel]);
                    }
                }
            }
            acc
        }
    }

    /// # Safety
    /// Checks 1 to 5.
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn best(pass: Pass) {
        // SAFETY: as promised.
        unsafe { if pass.is_coarser { best_of::<true>(pass) } else { best_of::<false>(pass) } }
    }

    /// # Safety
    /// Checks 1 to 5.
    #[inline(always)]
    unsafe fn best_of<const COARSER: bool>(mut pass: Pass) {
        // SAFETY: as promised, and so many panels are left.
        unsafe {
            while pass.ids.len() >= PANELS {
                merge::<COARSER, PANELS>(&mut pass);
            }
            match pass.ids.len() {
                3 => merge::<COARSER, 3>(&mut pass),
                2 => merge::<COARSER, 2>(&mut pass),
                1 => merge::<COARSER, 1>(&mut pass),
                _ => (),
            }
        }
    }

    /// Merges the keys of the next COUNT panels, which are of one group.
    ///
    /// # Safety
    /// Checks 1 to 5; there are as many.
    #[inline(always)]
    unsafe fn merge<const COARSER: bool, const COUNT: usize>(pass: &mut Pass) {
        let &mut Pass { tile, stride, shifts, panels, half, ref ids, group, state, maxima, .. } = pass;
        let id = ids.start;
        // SAFETY: by check 3 COUNT panels lie ahead; by checks 4 and 5 every row has its state and its line of maxima in the
        // group of these panels.
        unsafe {
            let [a, b, c, d, e, f] = dot::<COARSER, COUNT>(tile, stride, shifts, panels, half);
            let line = maxima.add(id / group * ROWS * LANES);
            // Every lane, but for the first panels of a group.
            let to = Merge { id, state, line, joins: if id % group != 0 { u16::MAX } else { 0 } };
            // Written out: in a loop that is not unrolled the sums would go through memory.
            merge_row(a, 0, &to);
            merge_row(b, 1, &to);
            merge_row(c, 2, &to);
            merge_row(d, 3, &to);
            merge_row(e, 4, &to);
            merge_row(f, 5, &to);
            pass.panels = panels.add(COUNT * (half + 1) * WIDTH);
        }
        pass.ids.start += COUNT;
    }

    /// What the scores of a tile against panels are merged into.
    struct Merge {
        /// Number of the first panel.
        id: usize,
        state: *mut i32,
        /// Maxima of the panels' group, and the lanes in which there are some already.
        line: *mut i32,
        joins: __mmask16,
    }

    /// Merges the scores of a row.
    ///
    /// # Safety
    /// Check 1; state and line have two and one register for every row up to this.
    #[allow(clippy::needless_range_loop)] // As above.
    #[inline(always)]
    unsafe fn merge_row<const COUNT: usize>(scores: [__m512i; COUNT], row: usize, to: &Merge) {
        // SAFETY: as promised.
        unsafe {
            let (state, line) = (to.state.add(row * 2 * LANES), to.line.add(row * LANES));
            // The low half of every score from the number of its register: (score & high) | register.
            let (mut keys, high) = (scores, _mm512_set1_epi32(!0xffff));
            for panel in 0..COUNT {
                let register = _mm512_set1_epi32((to.id + panel) as i32);
                keys[panel] = _mm512_ternarylogic_epi32::<0xea>(scores[panel], high, register);
            }
            let best = _mm512_loadu_si512(state.cast());
            let mut second = _mm512_loadu_si512(state.add(LANES).cast());
            let mut largest = keys[0];
            for panel in 1..COUNT {
                second = _mm512_max_epi32(second, _mm512_min_epi32(keys[panel], largest));
                largest = _mm512_max_epi32(largest, keys[panel]);
            }
            second = _mm512_max_epi32(second, _mm512_min_epi32(best, largest));
            _mm512_storeu_si512(state.cast(), _mm512_max_epi32(best, largest));
            _mm512_storeu_si512(state.add(LANES).cast(), second);
            let most = _mm512_mask_max_epi32(largest, to.joins, largest, _mm512_loadu_si512(line.cast()));
            _mm512_storeu_si512(line.cast(), most);
        }
    }

    /// Merges the lanes of one row's state.
    ///
    /// # Safety
    /// Checks 1 and 4.
    #[target_feature(enable = "avx512f")]
    unsafe fn read(state: *const i32) -> BestKeys {
        // SAFETY: the state is two registers.
        let (largest, second) =
            unsafe { (_mm512_loadu_si512(state.cast()), _mm512_loadu_si512(state.add(LANES).cast())) };
        let key = _mm512_reduce_max_epi32(largest);
        let holds = _mm512_cmpeq_epi32_mask(largest, _mm512_set1_epi32(key));
        let others = _mm512_reduce_max_epi32(_mm512_mask_mov_epi32(largest, holds, second));
        // Where two lanes hold it, neither's second is the runner-up.
        let runner_up = if holds.is_power_of_two() { others } else { key };
        BestKeys { key, position: register_of(key) * LANES + holds.trailing_zeros() as usize, runner_up }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn pack_rows(
        x: MatrixView<'_, f32>,
        terms: Terms<'_>,
        centred: &mut [f32],
        out: &mut [i16],
        shifts: &mut [i32],
        bounds: &mut [f32],
    ) {
        // SAFETY: check 1.
        unsafe { fixed_rows::pack_rows::<__m512>(x, terms, centred, out, shifts, bounds) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn quantize_codeword(row: &[f32], mean: &[f32], scale: f32, out: &mut [i16]) -> SqNorms {
        fixed_panels::quantize(row, mean, scale, out)
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn hits(maxima: &[i32], row: usize, threshold: i32, hits: &mut Vec<(u32, u32)>) {
        super::hits::<ROWS, LANES>(maxima, row, threshold, hits)
    }
}
