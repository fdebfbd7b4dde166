//! Which codeword of its panel is the nearest to a row, for the passes of few dimensions over f32: f32 sums of differences of the
//! codewords as they came, a panel at once.
//!
//! The check that the unsafe blocks cite is the first of [`super::small_kernels`].
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.

use super::lanes::Lanes;

/// Position of no codeword, number of no panel.
pub(super) const OPEN: u32 = u32::MAX;

/// What the computed squared distance of a codeword can be at most where it is the nearest, given the least of them.
///
/// Sums of squared differences in f32, of up to 16 dimensions: [`super::direct::f32_bound`] has r = 21 u for these, and
/// 17 2^-149 for what underflows. The real squared distance of a sum s lies within s (1 -+ r) -+ 17 2^-149, so that a
/// codeword can be as near as that of the least sum where s (1 - r) <= least (1 + r) + 34 2^-149. The limit is
/// above that with its own roundings: 48 u for 42 u, and 64 2^-149 for 35. A sum that overflowed lies above any limit
/// that did not.
#[inline(always)]
pub(super) fn limit_of(least: f32) -> f32 {
    least * (1.0 + 24.0 * f32::EPSILON) + f32::from_bits(1 << 6)
}

/// Squared distances of z to a panel of codewords, rounded. PARTS registers are a panel.
///
/// # Safety
/// Check 1.
#[inline(always)]
pub(super) unsafe fn sq_l2<L: Lanes, const PARTS: usize, const PANEL: usize>(
    z: &[f32],
    codewords: &[[f32; PANEL]],
) -> [L; PARTS] {
    const { assert!(PARTS * L::WIDTH == PANEL) }
    // SAFETY: the parts of a step are its PANEL values.
    unsafe {
        let mut sums = [L::splat(0.0); PARTS];
        for (&z, step) in z.iter().zip(codewords) {
            let z = L::splat(z);
            for part in 0..PARTS {
                let difference = z.sub(L::load(step.as_ptr().add(part * L::WIDTH)));
                sums[part] = difference.mul_add(difference, sums[part]);
            }
        }
        sums
    }
}

/// The least of a panel's values.
///
/// # Safety
/// Check 1.
#[inline(always)]
pub(super) unsafe fn least<L: Lanes, const PARTS: usize>(values: [L; PARTS]) -> f32 {
    // SAFETY: check 1.
    unsafe {
        let mut least = values[0];
        for part in 1..PARTS {
            least = least.min(values[part]);
        }
        least.least()
    }
}

/// A bit for every value of a panel that is `limit` or less.
///
/// # Safety
/// Check 1.
#[inline(always)]
pub(super) unsafe fn up_to<L: Lanes, const PARTS: usize>(values: [L; PARTS], limit: f32) -> u32 {
    // SAFETY: check 1.
    unsafe {
        let (mut lanes, limit) = (0, L::splat(limit));
        for part in 0..PARTS {
            lanes |= values[part].up_to(limit) << (part * L::WIDTH);
        }
        lanes
    }
}

/// Writes the position of the codeword nearest to each row of a tile, `[rows][d]` as they came, whose panel is known;
/// [`OPEN`] where it is not, or more than one of its codewords can be the nearest. The codewords are all panels as they
/// came, `[panels][d][PANEL]`.
///
/// # Safety
/// Check 1.
#[inline(always)]
pub(super) unsafe fn nearest<L: Lanes, const PARTS: usize, const PANEL: usize>(
    plain: &[f32],
    panels: &[u32],
    codewords: &[f32],
    d: usize,
    positions: &mut [u32],
) {
    let (steps, _) = codewords.as_chunks::<PANEL>();
    for (position, (z, &panel)) in positions.iter_mut().zip(plain.chunks_exact(d).zip(panels)) {
        *position = OPEN;
        if panel != OPEN {
            let panel = panel as usize;
            // SAFETY: check 1.
            let lanes = unsafe {
                let sums = sq_l2::<L, PARTS, PANEL>(z, &steps[panel * d..][..d]);
                up_to(sums, limit_of(least(sums)))
            };
            if lanes.is_power_of_two() {
                *position = (panel * PANEL) as u32 + lanes.trailing_zeros();
            }
        }
    }
}
