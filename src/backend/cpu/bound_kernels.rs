//! The kernels of [`super::bounds`], and the only doors to them: bounds, and codewords of a group, in the lanes of registers.
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`BoundKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`BoundKernels::of`]);
//! 2. `stride` is a multiple of [`PANEL`], `lower` holds `stride` values a row, and `high` that many.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.

use super::isa::{Isa, table_of};
use super::lanes::{Lanes, Plain};
use super::small_kernels::PANEL;
use super::small_nearest::least;
use crate::matrix::MatrixView;

/// Groups of codewords that a mask has room for.
pub(super) const MAX_GROUPS: usize = 64;

/// Infinity in the lane of a codeword that does not count; none for the last.
static WITHOUT: [[f32; PANEL]; PANEL + 1] = {
    let mut without = [[f32::NEG_INFINITY; PANEL]; PANEL + 1];
    let mut lane = 0;
    while lane < PANEL {
        without[lane][lane] = f32::INFINITY;
        lane += 1;
    }
    without
};

/// For every byte the numbers of its bits that are set, ascending, and then anything.
static BITS: [[u8; 8]; 256] = {
    let mut bits = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut count) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                bits[byte][count] = bit;
                count += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    bits
};

/// The kernels of one instruction set.
pub(super) struct BoundKernels {
    open: unsafe fn(rows: &Rows<'_>, high: &[f32], groups: usize, found: &mut Found),
    visit: unsafe fn(x: MatrixView<'_, f32>, groups: &Groups<'_>, rows: &mut Rows<'_>, found: &mut Found),
}

/// What is known of a block of rows.
pub(super) struct Rows<'a> {
    /// Position of the codeword of each.
    pub positions: &'a mut [u32],
    /// Its squared distance: the real number rounded to the nearest f32.
    pub sq_distances: &'a [f32],
    /// `[rows, stride]`: bounds, each with what its group had moved by ([`super::bounds`]).
    pub lower: &'a mut [f32],
    pub stride: usize,
}

/// Codewords in groups.
pub(super) struct Groups<'a> {
    /// How many codewords, and their dimensions.
    pub k: usize,
    pub d: usize,
    /// `[groups][d][PANEL]`, infinite where there is none.
    pub panels: &'a [[f32; PANEL]],
    /// What each group has moved by, `[stride]`, rounded up, and down.
    pub high: &'a [f32],
    pub low: &'a [f32],
}

/// A row of a block and a group of codewords: the row in the upper bits.
type Pair = u32;
const GROUP_BITS: u32 = MAX_GROUPS.ilog2();

/// What a visit found.
#[derive(Default)]
pub(super) struct Found {
    /// Rows that have another codeword now.
    pub changed: Vec<u32>,
    /// Rows for which the sums leave several codewords, with where the positions of these end in `candidates`.
    pub ties: Vec<(u32, usize)>,
    pub candidates: Vec<u32>,
    /// How many groups have to be looked into; the first of `pairs` say which, row after row. There is room for more, which is
    /// not filled again and again.
    pub visits: usize,
    pairs: Vec<Pair>,
    uppers: Vec<f32>,
    /// The least sum of each, then the bound that follows.
    least_of: Vec<f32>,
    /// Those with a codeword that can be the nearest, the first of these.
    near: Vec<Pair>,
    sums: Vec<[f32; PANEL]>,
}

/// Room for so many values at least.
fn grow<V: Copy + Default>(values: &mut Vec<V>, len: usize) {
    if values.len() < len {
        values.resize(len, V::default());
    }
}

impl BoundKernels {
    /// The kernels of `isa`, or of the portable set where the processor lacks it.
    pub fn of(isa: Isa) -> &'static BoundKernels {
        // Check 1.
        table_of!(isa)
    }

    /// Finds the groups whose bounds do not tell that all of their codewords are farther from a row than its own.
    pub fn open(&self, rows: &Rows<'_>, groups: &Groups<'_>, found: &mut Found) {
        let count = groups.panels.len() / groups.d;
        assert!(count <= MAX_GROUPS, "masks have room");
        assert!(rows.stride.is_multiple_of(PANEL) && groups.high.len() == rows.stride, "check 2");
        assert!(rows.lower.len() == rows.sq_distances.len() * rows.stride && count <= rows.stride, "check 2");
        // SAFETY: checks 1 and 2.
        unsafe { (self.open)(rows, groups.high, count, found) }
    }

    /// Looks into these: renews their bounds, and finds the codewords that can be the nearest.
    pub fn visit(&self, x: MatrixView<'_, f32>, groups: &Groups<'_>, rows: &mut Rows<'_>, found: &mut Found) {
        // SAFETY: check 1.
        unsafe { (self.visit)(x, groups, rows, found) }
    }
}

/// What the rounding of a sum of so many squares can be off, and a hair, relative to it.
#[inline(always)]
pub(super) fn slack(d: usize) -> f32 {
    (d + 16) as f32 * (f32::EPSILON / 2.0)
}

/// What the sum of a codeword can be at most where it is the nearest, given that of another.
#[inline(always)]
pub(super) fn limit_of(sum: f32, slack: f32) -> f32 {
    sum * (1.0 + 2.0 * slack) + f32::from_bits(1 << 14)
}

/// The real distance is not below this, given the rounded sum of squares.
#[inline(always)]
fn lower_of(sum: f32, slack: f32) -> f32 {
    let sq = sum.min(f32::MAX) * (1.0 - slack) - f32::from_bits(1 << 14);
    sq.max(0.0).sqrt() * (1.0 - 4.0 * f32::EPSILON)
}

/// The real distance is not above this, given its square, rounded once.
#[inline(always)]
pub(super) fn upper_of(sq_distance: f32) -> f32 {
    (sq_distance * (1.0 + 2.0 * f32::EPSILON) + f32::from_bits(1 << 2)).sqrt() * (1.0 + 2.0 * f32::EPSILON)
}

/// # Safety
/// Checks 1 and 2.
#[inline(always)]
unsafe fn open<L: Lanes>(rows: &Rows<'_>, high: &[f32], groups: usize, stride: usize, found: &mut Found) {
    let Found { visits, pairs, uppers, .. } = found;
    uppers.clear();
    uppers.extend(rows.sq_distances.iter().map(|&sq_distance| upper_of(sq_distance)));
    grow(pairs, uppers.len() * groups + 8);
    let (mut count, all) = (0, u64::MAX >> (MAX_GROUPS - groups));
    for (i, (&upper, lower)) in uppers.iter().zip(rows.lower.chunks_exact(stride)).enumerate() {
        let mut mask = 0;
        // SAFETY: check 1; the registers are the `stride` values of a row, and of `high`.
        unsafe {
            let upper = L::splat(upper);
            for at in (0..stride).step_by(L::WIDTH) {
                let reach = upper.add(L::load(high.as_ptr().add(at)));
                mask |= u64::from(L::load(lower.as_ptr().add(at)).up_to(reach)) << at;
            }
        }
        mask &= all;
        // Eight at a time without a branch, which the processor could not guess.
        for first in (0..stride).step_by(8) {
            let byte = (mask >> first & 0xff) as usize;
            let base = (i as u32) << GROUP_BITS | first as u32;
            if let Some(to) = pairs[count..].first_chunk_mut::<8>() {
                for (to, &bit) in to.iter_mut().zip(&BITS[byte]) {
                    *to = base + u32::from(bit);
                }
            }
            count += byte.count_ones() as usize;
        }
    }
    *visits = count;
}

/// Squared distances of z to a panel of codewords, rounded: two sums each, of every second dimension.
///
/// # Safety
/// Check 1.
#[inline(always)]
unsafe fn sq_l2<L: Lanes, const PARTS: usize>(z: &[f32], panel: &[[f32; PANEL]]) -> [L; PARTS] {
    const { assert!(PARTS * L::WIDTH == PANEL) }
    // SAFETY: the parts of a step are its PANEL values.
    unsafe {
        let mut sums = [[L::splat(0.0); PARTS]; 2];
        let (z, z_last) = z.as_chunks::<2>();
        let (steps, last) = panel.as_chunks::<2>();
        for (z, steps) in z.iter().zip(steps) {
            for half in 0..2 {
                let z = L::splat(z[half]);
                for part in 0..PARTS {
                    let difference = z.sub(L::load(steps[half].as_ptr().add(part * L::WIDTH)));
                    sums[half][part] = difference.mul_add(difference, sums[half][part]);
                }
            }
        }
        for (&z, step) in z_last.iter().zip(last) {
            for part in 0..PARTS {
                let difference = L::splat(z).sub(L::load(step.as_ptr().add(part * L::WIDTH)));
                sums[0][part] = difference.mul_add(difference, sums[0][part]);
            }
        }
        let [mut sums, others] = sums;
        for part in 0..PARTS {
            sums[part] = sums[part].add(others[part]);
        }
        sums
    }
}

/// Squared distances to the codewords of a group, that of position `own` infinite.
///
/// # Safety
/// Check 1.
#[inline(always)]
unsafe fn others<L: Lanes, const PARTS: usize>(
    z: &[f32],
    d: usize,
    groups: &Groups<'_>,
    group: usize,
    own: u32,
) -> [L; PARTS] {
    let own = own as usize;
    let without = &WITHOUT[if group == own / PANEL { own % PANEL } else { PANEL }];
    // SAFETY: check 1; the parts are the PANEL values.
    unsafe {
        let mut sums = sq_l2::<L, PARTS>(&z[..d], &groups.panels[group * d..][..d]);
        for part in 0..PARTS {
            sums[part] = sums[part].max(L::load(without.as_ptr().add(part * L::WIDTH)));
        }
        sums
    }
}

/// # Safety
/// Check 1.
#[inline(always)]
unsafe fn visit<L: Lanes, const PARTS: usize>(
    x: MatrixView<'_, f32>,
    d: usize,
    groups: &Groups<'_>,
    rows: &mut Rows<'_>,
    found: &mut Found,
) {
    let slack = slack(d);
    let Found { changed, ties, candidates, visits, pairs, near, least_of, sums, .. } = found;
    changed.clear();
    ties.clear();
    candidates.clear();
    grow(near, *visits + 1);
    grow(least_of, *visits);
    let (pairs, least_of, near) = (&pairs[..*visits], &mut least_of[..*visits], &mut near[..*visits + 1]);
    for (&pair, least_of) in pairs.iter().zip(least_of.iter_mut()) {
        let (i, group) = ((pair >> GROUP_BITS) as usize, pair as usize % MAX_GROUPS);
        // SAFETY: check 1.
        *least_of = unsafe { least(others::<L, PARTS>(x.row(i), d, groups, group, rows.positions[i])) };
    }
    // Without a branch, which the processor could not guess; and by itself, for a place that follows from the sum before keeps the
    // next sums waiting.
    let mut count = 0;
    for (&pair, &least_of) in pairs.iter().zip(least_of.iter()) {
        near[count] = pair;
        count += usize::from(least_of <= limit_of(rows.sq_distances[(pair >> GROUP_BITS) as usize], slack));
    }
    // Many roots at a time.
    least_of.iter_mut().for_each(|least_of| *least_of = lower_of(*least_of, slack));
    for (&pair, bound) in pairs.iter().zip(least_of.iter()) {
        let (i, group) = ((pair >> GROUP_BITS) as usize, pair as usize % MAX_GROUPS);
        rows.lower[i * rows.stride + group] = bound + groups.low[group];
    }
    for near in near[..count].chunk_by(|a, b| a >> GROUP_BITS == b >> GROUP_BITS) {
        let i = (near[0] >> GROUP_BITS) as usize;
        let (own, sq_distance) = (rows.positions[i] as usize, rows.sq_distances[i]);
        sums.resize(near.len(), [0.0; PANEL]);
        let mut best = sq_distance;
        for (stored, &pair) in sums.iter_mut().zip(near) {
            // SAFETY: check 1; parts are those of PANEL values.
            unsafe {
                let of_group = others::<L, PARTS>(x.row(i), d, groups, pair as usize % MAX_GROUPS, own as u32);
                best = best.min(least(of_group));
                for (part, of_group) in of_group.iter().enumerate() {
                    of_group.store(stored[part * L::WIDTH..][..L::WIDTH].as_mut_ptr());
                }
            }
        }
        let (first, limit) = (candidates.len(), limit_of(best, slack));
        if sq_distance <= limit {
            candidates.push(own as u32);
        }
        for (sums, &pair) in sums.iter().zip(near) {
            for (lane, &sum) in sums.iter().enumerate() {
                let position = pair as usize % MAX_GROUPS * PANEL + lane;
                // Infinite sums are within an infinite limit, and so is what is no codeword.
                if sum <= limit && position != own && position < groups.k {
                    candidates.push(position as u32);
                }
            }
        }
        if candidates.len() - first != 1 {
            ties.push((i as u32, candidates.len()));
            continue;
        }
        let new = candidates[first] as usize;
        candidates.truncate(first);
        if new == own {
            continue;
        }
        changed.push(i as u32);
        rows.positions[i] = new as u32;
        let lower = &mut rows.lower[i * rows.stride..][..rows.stride];
        // Now the new one does not count in its group, and the old one does.
        for (sums, &pair) in sums.iter().zip(near) {
            let group = pair as usize % MAX_GROUPS;
            if group == new / PANEL {
                let others = sums.iter().enumerate().filter(|&(lane, _)| lane != new % PANEL);
                let least = others.map(|(_, &sum)| sum).fold(f32::INFINITY, f32::min);
                lower[group] = lower_of(least, slack) + groups.low[group];
            }
        }
        let group = own / PANEL;
        lower[group] = lower[group].min(lower_of(sq_distance, slack) + groups.low[group]);
    }
}

/// Compiles the kernels for one instruction set. Known depths and strides unroll.
macro_rules! stamp {
    ($module:ident, $features:literal, $lanes:ty) => {
        mod $module {
            use super::*;

            pub static KERNELS: BoundKernels = BoundKernels { open, visit };
            const PARTS: usize = PANEL / <$lanes as Lanes>::WIDTH;

            #[target_feature(enable = $features)]
            unsafe fn open(rows: &Rows<'_>, high: &[f32], groups: usize, found: &mut Found) {
                // SAFETY: the caller made the checks.
                unsafe {
                    match rows.stride {
                        PANEL => super::open::<$lanes>(rows, high, groups, PANEL, found),
                        stride => super::open::<$lanes>(rows, high, groups, stride, found),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn visit(x: MatrixView<'_, f32>, groups: &Groups<'_>, rows: &mut Rows<'_>, found: &mut Found) {
                // SAFETY: the caller made the check.
                unsafe {
                    match groups.d {
                        4 => super::visit::<$lanes, PARTS>(x, 4, groups, rows, found),
                        8 => super::visit::<$lanes, PARTS>(x, 8, groups, rows, found),
                        16 => super::visit::<$lanes, PARTS>(x, 16, groups, rows, found),
                        d => super::visit::<$lanes, PARTS>(x, d, groups, rows, found),
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

unsafe fn open_plain(rows: &Rows<'_>, high: &[f32], groups: usize, found: &mut Found) {
    // SAFETY: plain Rust, for any processor; the caller made check 2.
    unsafe { open::<Plain>(rows, high, groups, rows.stride, found) }
}

unsafe fn visit_plain(x: MatrixView<'_, f32>, groups: &Groups<'_>, rows: &mut Rows<'_>, found: &mut Found) {
    // SAFETY: plain Rust, for any processor.
    unsafe { visit::<Plain, { PANEL / <Plain as Lanes>::WIDTH }>(x, groups.d, groups, rows, found) }
}

static PORTABLE: BoundKernels = BoundKernels { open: open_plain, visit: visit_plain };
