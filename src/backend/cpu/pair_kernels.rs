//! The kernels that multiply pairs of bf16, and the only doors to them.
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`PairKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`PairKernels::of`]);
//! 2. `tile.len() == depth * ROWS` and `depth >= 3`;
//! 3. `panels.len()` is `depth * WIDTH` times the number of panels;
//! 4. the state holds `ROWS * 3 * LANES` values;
//! 5. the maxima hold `ROWS * LANES` values for the group of every panel.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // No other processor has such a kernel yet.

use super::isa::Isa;
use super::pair_panels::SqNorms;
use std::ops::Range;

/// Rows of a tile.
pub(super) const ROWS: usize = 12;
/// Lanes of a register.
pub(super) const LANES: usize = 16;
/// Codewords of a panel: two registers.
pub(super) const WIDTH: usize = 2 * LANES;
/// Values of state per row, as [`super::kernels::Kernels::state_len`] of the same processor has them.
pub(super) const STATE: usize = 3 * LANES;

/// The kernels of one instruction set.
pub(super) struct PairKernels {
    best: BestFn,
    round_row: RowFn,
    round_codeword: CodewordFn,
    interleave_row: InterleaveFn,
    interleave_codeword: InterleaveFn,
    hits: HitsFn,
}

type BestFn = unsafe fn(Pass);
type RowFn = unsafe fn(row: &[f32], scale: f32, out: &mut [f32]) -> (f32, f32);
type CodewordFn = unsafe fn(row: &[f32], mean: &[f32], scale: f32, out: &mut [f32]) -> SqNorms;
type InterleaveFn = unsafe fn(rounded: &[f32], to: &mut [u32]);
type HitsFn = unsafe fn(maxima: &[f32], row: usize, threshold: f32, hits: &mut Vec<(u32, u32)>);

/// One tile against consecutive panels.
struct Pass {
    tile: *const u32,
    panels: *const u32,
    depth: usize,
    /// Numbers of the panels.
    ids: Range<usize>,
    group: usize,
    state: *mut f32,
    maxima: *mut f32,
}

impl PairKernels {
    /// The kernels of `isa`; none where it has no such instructions, or the processor lacks it.
    pub fn of(isa: Isa) -> Option<&'static PairKernels> {
        match isa {
            // Check 1.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 if isa.is_available() => Some(&avx512bf16::KERNELS),
            _ => None,
        }
    }

    /// Merges the scores of a tile against consecutive panels, the first of them number `first`, into the state, and
    /// their largest of every lane and of `group` panels into the maxima, `[groups][ROWS][LANES]`.
    #[allow(clippy::too_many_arguments)]
    pub fn best(
        &self,
        tile: &[u32],
        panels: &[u32],
        depth: usize,
        first: usize,
        group: usize,
        state: &mut [f32],
        maxima: &mut [f32],
    ) {
        let count = panels.len() / (depth * WIDTH);
        assert!(tile.len() == depth * ROWS && depth >= 3, "check 2");
        assert_eq!(panels.len(), count * depth * WIDTH, "check 3");
        assert_eq!(state.len(), ROWS * STATE, "check 4");
        assert!(maxima.len() >= (first + count).div_ceil(group) * ROWS * LANES, "check 5");
        let (tile, panels) = (tile.as_ptr(), panels.as_ptr());
        let (state, maxima) = (state.as_mut_ptr(), maxima.as_mut_ptr());
        // SAFETY: checks 1 to 5.
        unsafe { (self.best)(Pass { tile, panels, depth, ids: first..first + count, group, state, maxima }) }
    }

    /// See [`super::pair_panels::round_row`].
    pub fn round_row(&self, row: &[f32], scale: f32, out: &mut [f32]) -> (f32, f32) {
        // SAFETY: check 1.
        unsafe { (self.round_row)(row, scale, out) }
    }

    /// See [`super::pair_panels::round_codeword`].
    pub fn round_codeword(&self, row: &[f32], mean: &[f32], scale: f32, out: &mut [f32]) -> SqNorms {
        // SAFETY: check 1.
        unsafe { (self.round_codeword)(row, mean, scale, out) }
    }

    /// See [`super::pair_panels::interleave`]; to a column of a tile.
    pub fn interleave_row(&self, rounded: &[f32], to: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.interleave_row)(rounded, to) }
    }

    /// See [`super::pair_panels::interleave`]; to a column of a panel.
    pub fn interleave_codeword(&self, rounded: &[f32], to: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.interleave_codeword)(rounded, to) }
    }

    /// Groups of panels, with a bit for every lane, where the maximum of row `row` of a tile is `threshold` or more.
    pub fn hits(&self, maxima: &[f32], row: usize, threshold: f32, hits: &mut Vec<(u32, u32)>) {
        // SAFETY: check 1.
        unsafe { (self.hits)(maxima, row, threshold, hits) }
    }
}

/// Groups and lanes of one row; see [`PairKernels::hits`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hits(maxima: &[f32], row: usize, threshold: f32, hits: &mut Vec<(u32, u32)>) {
    let (lines, _) = maxima.as_chunks::<LANES>();
    for (group, line) in lines.iter().skip(row).step_by(ROWS).enumerate() {
        let mut lanes = 0;
        for (lane, &score) in line.iter().enumerate() {
            lanes |= u32::from(score >= threshold) << lane;
        }
        if lanes != 0 {
            hits.push((group as u32, lanes));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512bf16 {
    use super::super::pair_panels;
    use super::*;
    use std::arch::x86_64::*;

    pub static KERNELS: PairKernels = PairKernels {
        best,
        round_row,
        round_codeword,
        interleave_row: interleave::<ROWS>,
        interleave_codeword: interleave::<WIDTH>,
        hits,
    };

    /// Scores of a tile against a panel. 24 sums stay in registers beside two of codewords and one of a broadcast pair.
    ///
    /// # Safety
    /// Checks 1 to 3. A function of its own that returns the sums: indexed further on, they would be kept in memory.
    #[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
    #[inline(always)]
    unsafe fn dot(tile: *const u32, panel: *const u32, depth: usize) -> [[__m512; 2]; ROWS] {
        // SAFETY: every step is below depth: the tile has ROWS words there and the panel WIDTH.
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
            let half = depth - 3;
            for step in 0..half {
                let e0: __m512bh = std::mem::transmute(_mm512_loadu_si512(panel.add(step * WIDTH).cast()));
                let e1: __m512bh = std::mem::transmute(_mm512_loadu_si512(panel.add(step * WIDTH + LANES).cast()));
                for row in 0..ROWS {
                    let z = _mm512_set1_epi32(tile.add(step * ROWS + row).cast::<i32>().read());
                    let z: __m512bh = std::mem::transmute(z);
                    acc[row][0] = _mm512_dpbf16_ps(acc[row][0], e0, z);
                    acc[row][1] = _mm512_dpbf16_ps(acc[row][1], e1, z);
                }
            }
            for step in half..depth {
                let e0 = _mm512_loadu_ps(panel.add(step * WIDTH).cast());
                let e1 = _mm512_loadu_ps(panel.add(step * WIDTH + LANES).cast());
                for row in 0..ROWS {
                    let z = _mm512_set1_ps(tile.add(step * ROWS + row).cast::<f32>().read());
                    acc[row][0] = _mm512_fmadd_ps(e0, z, acc[row][0]);
                    acc[row][1] = _mm512_fmadd_ps(e1, z, acc[row][1]);
                }
            }
            acc
        }
    }

    /// # Safety
    /// Checks 1 to 5.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn best(pass: Pass) {
        let Pass { tile, mut panels, depth, ids, group, state, maxima } = pass;
        for id in ids {
            // SAFETY: by check 3 a whole panel lies ahead; by checks 4 and 5 every row has its state and its line of
            // maxima in the group of this panel.
            unsafe {
                let scores = dot(tile, panels, depth);
                let joins = id % group != 0;
                let line = maxima.add(id / group * ROWS * LANES);
                for (row, &[first, other]) in scores.iter().enumerate() {
                    let state = state.add(row * STATE);
                    let (best, second) = (_mm512_loadu_ps(state), _mm512_loadu_ps(state.add(LANES)));
                    let register = _mm512_loadu_si512(state.add(2 * LANES).cast());
                    let (larger, smaller) = (_mm512_max_ps(first, other), _mm512_min_ps(first, other));
                    // Strictly greater, so that the first of equal scores stays.
                    let in_other = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(other, first);
                    let better = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(larger, best);
                    let here = _mm512_set1_epi32(2 * id as i32);
                    let here = _mm512_mask_add_epi32(here, in_other, here, _mm512_set1_epi32(1));
                    let rival = _mm512_max_ps(smaller, _mm512_min_ps(larger, best));
                    _mm512_storeu_ps(state, _mm512_max_ps(best, larger));
                    _mm512_storeu_ps(state.add(LANES), _mm512_max_ps(second, rival));
                    let register = _mm512_mask_mov_epi32(register, better, here);
                    _mm512_storeu_si512(state.add(2 * LANES).cast(), register);
                    let line = line.add(row * LANES);
                    let most = if joins { _mm512_max_ps(larger, _mm512_loadu_ps(line)) } else { larger };
                    _mm512_storeu_ps(line, most);
                }
                panels = panels.add(depth * WIDTH);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn round_row(row: &[f32], scale: f32, out: &mut [f32]) -> (f32, f32) {
        pair_panels::round_row(row, scale, out)
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn round_codeword(row: &[f32], mean: &[f32], scale: f32, out: &mut [f32]) -> SqNorms {
        pair_panels::round_codeword(row, mean, scale, out)
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn interleave<const STRIDE: usize>(rounded: &[f32], to: &mut [u32]) {
        pair_panels::interleave::<STRIDE>(rounded, to)
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn hits(maxima: &[f32], row: usize, threshold: f32, hits: &mut Vec<(u32, u32)>) {
        super::hits(maxima, row, threshold, hits)
    }
}
