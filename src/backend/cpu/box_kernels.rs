//! The search of [`super::box_panels`], and the only door to it: boxes and codewords in the lanes of registers.
//!
//! The check that the unsafe blocks cite, made by the safe method of [`BoxKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`BoxKernels::of`]).

use super::box_panels::Boxes;
use super::isa::{Isa, table_of};
use super::lanes::{Lanes, Plain};
use super::small_kernels::PANEL;
use super::small_nearest::{OPEN, least, limit_of, sq_l2, up_to};

/// The sides of [`PANEL`] boxes: per dimension the lower ones and the upper ones.
pub(super) type Sides = [[f32; PANEL]; 2];

/// Candidates of a row that are kept: more are rare, and so is what looking at all costs.
const CANDIDATES: usize = 64;

/// The search of one instruction set.
pub(super) struct BoxKernels {
    search: unsafe fn(rows: &[f32], boxes: Boxes<'_>, found: &mut Found),
}

/// What a search found.
#[derive(Default)]
pub(super) struct Found {
    /// Per row the position of its codeword, [`OPEN`] where more than one can be the nearest.
    pub positions: Vec<u32>,
    /// Of the rows that are open the positions that can be the nearest, and for every row where its own end. None for a row
    /// that is open means all: sums that overflowed tell nothing, and more than [`CANDIDATES`] are not kept.
    pub candidates: Vec<u32>,
    pub ends: Vec<usize>,
    /// Panels looked at, of all rows.
    pub visits: usize,
    /// Rows whose sums overflowed.
    pub overflows: usize,
    /// Squared distances to the boxes of runs; the panels visited, each with its least sum.
    runs: Vec<[f32; PANEL]>,
    visited: Vec<(usize, f32)>,
}

impl BoxKernels {
    /// The kernels of `isa`, or of the portable set where the processor lacks it.
    pub fn of(isa: Isa) -> &'static BoxKernels {
        // Check 1.
        table_of!(isa)
    }

    /// Searches for every row, `[rows][d]`, all of them finite.
    pub fn search(&self, rows: &[f32], boxes: Boxes<'_>, found: &mut Found) {
        // SAFETY: check 1.
        unsafe { (self.search)(rows, boxes, found) }
    }
}

/// Squared distances from z to boxes, none where it lies within; rounded.
///
/// # Safety
/// Check 1.
#[inline(always)]
unsafe fn to_boxes<L: Lanes, const PARTS: usize>(z: &[f32], sides: &[Sides]) -> [L; PARTS] {
    const { assert!(PARTS * L::WIDTH == PANEL) }
    // SAFETY: the parts of a side are its PANEL values.
    unsafe {
        let mut sums = [L::splat(0.0); PARTS];
        for (&z, [low, high]) in z.iter().zip(sides) {
            let z = L::splat(z);
            for (part, sum) in sums.iter_mut().enumerate() {
                let below = L::load(low.as_ptr().add(part * L::WIDTH)).sub(z);
                let above = z.sub(L::load(high.as_ptr().add(part * L::WIDTH)));
                let outside = below.max(above).max(L::splat(0.0));
                *sum = outside.mul_add(outside, *sum);
            }
        }
        sums
    }
}

/// # Safety
/// Check 1.
#[inline(always)]
unsafe fn search<L: Lanes, const PARTS: usize>(rows: &[f32], d: usize, boxes: Boxes<'_>, found: &mut Found) {
    let Found { positions, candidates, ends, visits, overflows, runs, visited } = found;
    positions.clear();
    candidates.clear();
    ends.clear();
    (*visits, *overflows) = (0, 0);
    // SAFETY: check 1; every index is checked.
    unsafe {
        for z in rows.chunks_exact(d) {
            // The run whose box is the nearest, its nearest panel, and how near the codewords of that are.
            runs.clear();
            let (mut nearest_run, mut nearest) = (0, f32::INFINITY);
            for (block, sides) in boxes.runs.chunks_exact(d).enumerate() {
                let distances = to_boxes::<L, PARTS>(z, sides);
                let block_least = least(distances);
                if block_least < nearest {
                    nearest = block_least;
                    nearest_run = block * PANEL + up_to(distances, block_least).trailing_zeros() as usize;
                }
                let mut stored = [0.0; PANEL];
                for (part, distance) in distances.iter().enumerate() {
                    distance.store(stored[part * L::WIDTH..][..L::WIDTH].as_mut_ptr());
                }
                runs.push(stored);
            }
            let distances = to_boxes::<L, PARTS>(z, &boxes.panels[nearest_run * d..][..d]);
            let panel = nearest_run * PANEL + up_to(distances, least(distances)).trailing_zeros() as usize;
            let mut best = least(sq_l2::<L, PARTS, PANEL>(z, boxes.codewords_of(panel, d)));
            // Every panel whose box is no farther. Nothing is known of sums that overflowed.
            visited.clear();
            let overflow = limit_of(best) == f32::INFINITY;
            for (block, runs) in runs.iter().enumerate().take(if overflow { 0 } else { runs.len() }) {
                let mut distances = [L::splat(0.0); PARTS];
                for (part, distance) in distances.iter_mut().enumerate() {
                    *distance = L::load(runs[part * L::WIDTH..][..L::WIDTH].as_ptr());
                }
                let mut near_runs = up_to(distances, limit_of(best));
                while near_runs != 0 {
                    let run = block * PANEL + near_runs.trailing_zeros() as usize;
                    near_runs &= near_runs - 1;
                    let distances = to_boxes::<L, PARTS>(z, &boxes.panels[run * d..][..d]);
                    let mut near_panels = up_to(distances, limit_of(best));
                    while near_panels != 0 {
                        let panel = run * PANEL + near_panels.trailing_zeros() as usize;
                        near_panels &= near_panels - 1;
                        *visits += 1;
                        let sum = least(sq_l2::<L, PARTS, PANEL>(z, boxes.codewords_of(panel, d)));
                        if sum <= limit_of(best) {
                            visited.push((panel, sum));
                            best = if sum < best { sum } else { best };
                        }
                    }
                }
            }
            // What is left within the limit, now that it is known.
            let (limit, first) = (limit_of(best), candidates.len());
            for &(panel, sum) in visited.iter() {
                if sum <= limit {
                    let mut lanes = up_to(sq_l2::<L, PARTS, PANEL>(z, boxes.codewords_of(panel, d)), limit);
                    while lanes != 0 {
                        candidates.push((panel * PANEL) as u32 + lanes.trailing_zeros());
                        lanes &= lanes - 1;
                    }
                }
            }
            *overflows += usize::from(overflow);
            match candidates[first..] {
                [only] => {
                    positions.push(only);
                    candidates.truncate(first);
                }
                _ => positions.push(OPEN),
            }
            if candidates.len() - first > CANDIDATES {
                candidates.truncate(first);
            }
            ends.push(candidates.len());
        }
    }
}

/// Compiles [`search`] for one instruction set. Known depths unroll.
macro_rules! stamp {
    ($module:ident, $features:literal, $lanes:ty) => {
        mod $module {
            use super::*;

            pub static KERNELS: BoxKernels = BoxKernels { search };
            const PARTS: usize = PANEL / <$lanes as Lanes>::WIDTH;

            #[target_feature(enable = $features)]
            unsafe fn search(rows: &[f32], boxes: Boxes<'_>, found: &mut Found) {
                // SAFETY: the caller made the check.
                unsafe {
                    match boxes.d {
                        4 => super::search::<$lanes, PARTS>(rows, 4, boxes, found),
                        8 => super::search::<$lanes, PARTS>(rows, 8, boxes, found),
                        d => super::search::<$lanes, PARTS>(rows, d, boxes, found),
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
stamp!(avx512, "avx512f", std::arch::x86_64::__m512);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, "avx2,fma", std::arch::x86_64::__m256);
#[cfg(target_arch = "aarch64")]
stamp!(neon, "neon", std::arch::aarch64::float32x4_t);

unsafe fn search_plain(rows: &[f32], boxes: Boxes<'_>, found: &mut Found) {
    // SAFETY: plain Rust, for any processor.
    unsafe { search::<Plain, { PANEL / <Plain as Lanes>::WIDTH }>(rows, boxes.d, boxes, found) }
}

static PORTABLE: BoxKernels = BoxKernels { search: search_plain };
