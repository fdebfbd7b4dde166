//! The kernels for few dimensions, and the only doors to them: rows in the lanes of a register, codewords broadcast.
//!
//! Best and second best of a row stay in its own lane, so that nothing is merged across lanes.
//! A tile of rows is `[d][rows]`, a panel of codewords `[PANEL / QUAD][d + 1][QUAD]` with minus half the squared norms
//! first, then its bound B (see [`super::small_panels`]).
//!
//! Every unsafe block here rests on these checks, made by the safe methods of [`SmallKernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`SmallKernels::of`]);
//! 2. `tile.len() == d * rows` and `norms.len() == rows`;
//! 3. `panels.len()` is `panel_len(d)` times the number of panels;
//! 4. the state holds `3 * rows` values, or the values of the panels `rows` for each.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.

use super::isa::{Isa, table_of};
use super::lanes::{Lanes, Plain};
use super::small_nearest;
use super::small_rows;
use std::ops::Range;

/// Codewords of a panel. Twice as many would spare a quarter of an operation per score, and cost twice the f64 sums.
pub(super) const PANEL: usize = 16;
/// Codewords whose sums are in registers at a time.
pub(super) const QUAD: usize = 4;
/// Values of a packed panel.
pub(super) fn panel_len(d: usize) -> usize {
    PANEL * (d + 1) + 1
}

/// The kernels of one instruction set.
pub(super) struct SmallKernels {
    /// Rows of a tile.
    pub rows: usize,
    best: BestFn,
    values: ValuesFn,
    place: PlaceFn,
    certain: CertainFn,
    nearest: NearestFn,
}

type BestFn = unsafe fn(tile: *const f32, norms: *const f32, panels: *const f32, d: usize, ids: Range<u32>, *mut f32);
type ValuesFn = unsafe fn(tile: *const f32, norms: *const f32, panels: *const f32, d: usize, count: usize, *mut f32);
type PlaceFn = unsafe fn(plain: &[f32], tile: &mut [f32], mean: &[f32], scale: f32, norms: &mut [f32]);
type CertainFn = unsafe fn(state: &[f32], norms: &[f32], bounds: &[[f32; 2]], panels: &mut [u32]);
type NearestFn = unsafe fn(plain: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]);

impl SmallKernels {
    /// The kernels of `isa`, or of the portable set where the processor lacks it.
    pub fn of(isa: Isa) -> &'static SmallKernels {
        // Check 1.
        table_of!(isa)
    }

    /// Values of state of a tile: per row the best value of a panel, the second best, and the number of the panel that
    /// had the best.
    pub fn state_len(&self) -> usize {
        3 * self.rows
    }

    /// State before the first panel.
    pub fn reset(&self, state: &mut [f32]) {
        for tile in state.chunks_exact_mut(self.state_len()) {
            tile[..2 * self.rows].fill(f32::NEG_INFINITY);
            tile[2 * self.rows..].fill(0.0);
        }
    }

    /// Merges the values of consecutive panels, the first of them number `first`, into the state of a tile.
    pub fn best(&self, tile: &[f32], norms: &[f32], panels: &[f32], d: usize, first: usize, state: &mut [f32]) {
        let count = self.count(tile, norms, panels, d);
        assert_eq!(state.len(), self.state_len(), "check 4");
        let ids = first as u32..(first + count) as u32;
        // SAFETY: checks 1 to 4.
        unsafe { (self.best)(tile.as_ptr(), norms.as_ptr(), panels.as_ptr(), d, ids, state.as_mut_ptr()) }
    }

    /// Writes the values of all panels, `[panels][rows]`.
    pub fn values(&self, tile: &[f32], norms: &[f32], panels: &[f32], d: usize, values: &mut [f32]) {
        let count = self.count(tile, norms, panels, d);
        assert_eq!(values.len(), count * self.rows, "check 4");
        // SAFETY: checks 1 to 4.
        unsafe { (self.values)(tile.as_ptr(), norms.as_ptr(), panels.as_ptr(), d, count, values.as_mut_ptr()) }
    }

    /// Number of panels.
    fn count(&self, tile: &[f32], norms: &[f32], panels: &[f32], d: usize) -> usize {
        assert!(tile.len() == d * self.rows && norms.len() == self.rows, "check 2");
        assert_eq!(panels.len() % panel_len(d), 0, "check 3");
        panels.len() / panel_len(d)
    }

    /// See [`small_rows::place`].
    pub fn place(&self, plain: &[f32], tile: &mut [f32], mean: &[f32], scale: f32, norms: &mut [f32]) {
        // SAFETY: check 1.
        unsafe { (self.place)(plain, tile, mean, scale, norms) }
    }

    /// See [`small_rows::certain`].
    pub fn certain(&self, state: &[f32], norms: &[f32], bounds: &[[f32; 2]], panels: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.certain)(state, norms, bounds, panels) }
    }

    /// See [`small_nearest::nearest`].
    pub fn nearest(&self, plain: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]) {
        // SAFETY: check 1.
        unsafe { (self.nearest)(plain, panels, codewords, d, positions) }
    }
}

/// The value of one panel for every row of a tile: its largest sum, and the bound.
///
/// # Safety
/// Checks 1 to 3; `panel` is one of the panels.
#[inline(always)]
unsafe fn value<L: Lanes, const REGS: usize>(
    tile: *const f32,
    norms: *const f32,
    panel: *const f32,
    d: usize,
) -> [L; REGS] {
    let rows = REGS * L::WIDTH;
    // SAFETY: t < d, so every read of the tile lies within its d * rows values and every one of a quad within its
    // (d + 1) * QUAD; PANEL / QUAD of these and one value more are a panel.
    unsafe {
        let mut most = [L::splat(f32::NEG_INFINITY); REGS];
        for quad in 0..PANEL / QUAD {
            let quad = panel.add(quad * QUAD * (d + 1));
            let mut sums = [[L::splat(0.0); REGS]; QUAD];
            for j in 0..QUAD {
                sums[j] = [L::splat(*quad.add(j)); REGS];
            }
            for t in 0..d {
                let mut z = [L::splat(0.0); REGS];
                for reg in 0..REGS {
                    z[reg] = L::load(tile.add(t * rows + reg * L::WIDTH));
                }
                for j in 0..QUAD {
                    let e = L::splat(*quad.add((t + 1) * QUAD + j));
                    for reg in 0..REGS {
                        sums[j][reg] = z[reg].mul_add(e, sums[j][reg]);
                    }
                }
            }
            for reg in 0..REGS {
                let (low, high) = (sums[0][reg].max(sums[1][reg]), sums[2][reg].max(sums[3][reg]));
                most[reg] = most[reg].max(low.max(high));
            }
        }
        let bound = L::splat(*panel.add(PANEL * (d + 1)));
        for reg in 0..REGS {
            most[reg] = L::load(norms.add(reg * L::WIDTH)).mul_add(bound, most[reg]);
        }
        most
    }
}

/// # Safety
/// Checks 1 to 4.
#[inline(always)]
unsafe fn best<L: Lanes, const REGS: usize>(
    tile: *const f32,
    norms: *const f32,
    mut panels: *const f32,
    d: usize,
    ids: Range<u32>,
    state: *mut f32,
) {
    let rows = REGS * L::WIDTH;
    // SAFETY: by check 3 a whole panel lies ahead for every id; by check 4 the state has three values for every row.
    unsafe {
        let mut best = [L::splat(0.0); REGS];
        let (mut second, mut panel) = (best, best);
        for reg in 0..REGS {
            let state = state.add(reg * L::WIDTH);
            (best[reg], second[reg], panel[reg]) =
                (L::load(state), L::load(state.add(rows)), L::load(state.add(2 * rows)));
        }
        for id in ids {
            let values = value::<L, REGS>(tile, norms, panels, d);
            for reg in 0..REGS {
                panel[reg] = values[reg].if_greater(best[reg], L::splat(f32::from_bits(id)), panel[reg]);
                second[reg] = second[reg].max(values[reg].min(best[reg]));
                best[reg] = best[reg].max(values[reg]);
            }
            panels = panels.add(panel_len(d));
        }
        for reg in 0..REGS {
            let state = state.add(reg * L::WIDTH);
            best[reg].store(state);
            second[reg].store(state.add(rows));
            panel[reg].store(state.add(2 * rows));
        }
    }
}

/// # Safety
/// Checks 1 to 4.
#[inline(always)]
unsafe fn values<L: Lanes, const REGS: usize>(
    tile: *const f32,
    norms: *const f32,
    panels: *const f32,
    d: usize,
    count: usize,
    out: *mut f32,
) {
    for panel in 0..count {
        // SAFETY: panel < count, in bounds by check 3; by check 4 every panel has a value for every row.
        unsafe {
            let values = value::<L, REGS>(tile, norms, panels.add(panel * panel_len(d)), d);
            for reg in 0..REGS {
                values[reg].store(out.add((panel * REGS + reg) * L::WIDTH));
            }
        }
    }
}

/// Compiles the bodies of this file, of [`small_rows`] and of [`small_nearest`] for one instruction set.
macro_rules! stamp {
    ($module:ident, $features:literal, $lanes:ty, $regs:literal) => {
        mod $module {
            use super::*;

            pub static KERNELS: SmallKernels = SmallKernels { rows: ROWS, best, values, place, certain, nearest };
            const PARTS: usize = PANEL / <$lanes as Lanes>::WIDTH;
            const ROWS: usize = $regs * <$lanes as Lanes>::WIDTH;

            #[target_feature(enable = $features)]
            unsafe fn best(t: *const f32, n: *const f32, p: *const f32, d: usize, ids: Range<u32>, state: *mut f32) {
                // SAFETY: the caller made the checks. Known depths unroll.
                unsafe {
                    match d {
                        4 => super::best::<$lanes, $regs>(t, n, p, 4, ids, state),
                        8 => super::best::<$lanes, $regs>(t, n, p, 8, ids, state),
                        16 => super::best::<$lanes, $regs>(t, n, p, 16, ids, state),
                        _ => super::best::<$lanes, $regs>(t, n, p, d, ids, state),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn values(t: *const f32, n: *const f32, p: *const f32, d: usize, count: usize, out: *mut f32) {
                // SAFETY: the caller made the checks.
                unsafe { super::values::<$lanes, $regs>(t, n, p, d, count, out) }
            }

            #[target_feature(enable = $features)]
            unsafe fn place(plain: &[f32], tile: &mut [f32], mean: &[f32], scale: f32, norms: &mut [f32]) {
                match mean.len() {
                    4 => small_rows::place::<ROWS>(plain, 4, tile, mean, scale, norms),
                    8 => small_rows::place::<ROWS>(plain, 8, tile, mean, scale, norms),
                    16 => small_rows::place::<ROWS>(plain, 16, tile, mean, scale, norms),
                    d => small_rows::place::<ROWS>(plain, d, tile, mean, scale, norms),
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn certain(state: &[f32], norms: &[f32], bounds: &[[f32; 2]], panels: &mut [u32]) {
                small_rows::certain::<ROWS>(state, norms, bounds, panels)
            }

            #[target_feature(enable = $features)]
            unsafe fn nearest(z: &[f32], panels: &[u32], codewords: &[f32], d: usize, positions: &mut [u32]) {
                // SAFETY: the caller made the checks.
                unsafe {
                    match d {
                        4 => small_nearest::nearest::<$lanes, PARTS, PANEL>(z, panels, codewords, 4, positions),
                        8 => small_nearest::nearest::<$lanes, PARTS, PANEL>(z, panels, codewords, 8, positions),
                        16 => small_nearest::nearest::<$lanes, PARTS, PANEL>(z, panels, codewords, 16, positions),
                        _ => small_nearest::nearest::<$lanes, PARTS, PANEL>(z, panels, codewords, d, positions),
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
stamp!(avx512, "avx512f", std::arch::x86_64::__m512, 4);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, "avx2,fma", std::arch::x86_64::__m256, 2);
#[cfg(target_arch = "aarch64")]
stamp!(neon, "neon", std::arch::aarch64::float32x4_t, 2);

const PLAIN_REGS: usize = 2;
const PLAIN_ROWS: usize = PLAIN_REGS * <Plain as Lanes>::WIDTH;

static PORTABLE: SmallKernels = SmallKernels {
    rows: PLAIN_ROWS,
    best: best::<Plain, PLAIN_REGS>,
    values: values::<Plain, PLAIN_REGS>,
    place: |plain, tile, mean, scale, norms| {
        small_rows::place::<PLAIN_ROWS>(plain, mean.len(), tile, mean, scale, norms)
    },
    certain: small_rows::certain::<PLAIN_ROWS>,
    nearest: small_nearest::nearest::<Plain, { PANEL / <Plain as Lanes>::WIDTH }, PANEL>,
};
