//! Squared distances by direct differences, for any instruction set, and how far off they can be.

use super::exact::round_f64;
use super::lanes::{Lanes, sum};
use crate::matrix::MatrixView;

/// Relative and absolute bound of [`sq_l2_f32`]; none for vectors so long that f32 says nothing.
pub(crate) fn f32_bound(d: usize) -> Option<(f64, f64)> {
    // On the way of each term: the difference (twice, it is squared), the square, its running sum, the sum of sums.
    let roundings = d.div_ceil(16) + 16 + 4;
    let error = roundings as f64 * 2f64.powi(-24);
    // A square that underflows is off by half a subnormal.
    (error < 0.5).then(|| (error / (1.0 - error), (d as f64 + 1.0) * 2f64.powi(-149)))
}

/// Relative bound of [`sq_l2_f64`], in any order of its sum: every difference, square and addition rounds once.
/// Nothing underflows: the square of the smallest f32 is a normal f64.
pub(crate) fn f64_bound(d: usize) -> f64 {
    (d as f64 + 4.0) * 2f64.powi(-53)
}

/// Whether [`sq_l2_f64`] rounded nothing for any of the codewords, none of which is as far as `largest`.
///
/// Where all components are multiples of 2^q, so are differences, and squares and their sums are multiples of 2^2q.
/// Below 2^(53 + 2q) such numbers are f64 values. Integers and coarse grids are like that, and ties are common there.
pub(super) fn f64_is_exact<'a>(z: &[f32], codewords: impl Iterator<Item = &'a [f32]>, largest: f64) -> bool {
    let grid = |row: &[f32]| row.iter().map(|&value| lowest_bit(value)).min().unwrap_or(i32::MAX);
    let q = codewords.map(grid).fold(grid(z), i32::min);
    // 2q is at least -298 and, where any component is not zero, at most 254; both powers are f64 values.
    q == i32::MAX || largest < 2f64.powi(53 + 2 * q)
}

/// Exponent of the lowest bit that is set; the largest number for zero, a multiple of everything.
fn lowest_bit(value: f32) -> i32 {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32, bits & 0x7f_ffff);
    match (exponent, fraction) {
        (0, 0) => i32::MAX,
        (0, _) => -149 + fraction.trailing_zeros() as i32,
        _ => exponent - 150 + (fraction | 0x80_0000).trailing_zeros() as i32,
    }
}

/// Squared distances of rows to the codewords of their labels, correctly rounded; NaN where [`sq_l2_f64`] does not tell.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn sq_distances<L: Lanes>(
    x: MatrixView<'_, f32>,
    codewords: MatrixView<'_, f32>,
    labels: &[u32],
    sq_distances: &mut [f32],
) {
    // SAFETY: as the caller promises.
    unsafe {
        // Known lengths unroll.
        match x.cols() {
            4 => sq_distances_of::<L, 4>(x, codewords, labels, sq_distances),
            8 => sq_distances_of::<L, 8>(x, codewords, labels, sq_distances),
            16 => sq_distances_of::<L, 16>(x, codewords, labels, sq_distances),
            d => {
                for (i, (&label, sq_distance)) in labels.iter().zip(sq_distances).enumerate() {
                    let sum = sq_l2_f64::<L>(x.row(i), codewords.row(label as usize));
                    *sq_distance = round_f64(sum, d).unwrap_or(f32::NAN);
                }
            }
        }
    }
}

/// Four rows at a time, whose sums are rounded together.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn sq_distances_of<L: Lanes, const D: usize>(
    x: MatrixView<'_, f32>,
    codewords: MatrixView<'_, f32>,
    labels: &[u32],
    sq_distances: &mut [f32],
) {
    const FOUR: usize = 4;
    for (four, (labels, sq_distances)) in labels.chunks(FOUR).zip(sq_distances.chunks_mut(FOUR)).enumerate() {
        let mut parts = [[f64::NAN; FOUR]; FOUR];
        for (row, &label) in labels.iter().enumerate() {
            let (z, e) = (x.row(four * FOUR + row), codewords.row(label as usize));
            if let ([z], [e]) = (z.as_chunks::<D>().0, e.as_chunks::<D>().0) {
                parts[row] = [0.0; FOUR];
                for (z, e) in z.as_chunks::<FOUR>().0.iter().zip(e.as_chunks::<FOUR>().0) {
                    // SAFETY: as the caller promises.
                    parts[row] = unsafe { L::plus_squares(parts[row], z, e) };
                }
            }
        }
        let mut rounded = [0.0; FOUR];
        for row in 0..FOUR {
            let [a, b, c, d] = parts[row];
            rounded[row] = round_f64((a + b) + (c + d), D).unwrap_or(f32::NAN);
        }
        sq_distances.copy_from_slice(&rounded[..labels.len()]);
    }
}

/// Sixteen sums, each over every sixteenth element.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn sq_l2_f32<L: Lanes>(z: &[f32], e: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (z_head, z_tail) = z.as_chunks::<16>();
    let (e_head, e_tail) = e.as_chunks::<16>();
    for (z, e) in z_head.iter().zip(e_head) {
        for lane in 0..16 {
            let difference = z[lane] - e[lane];
            sums[lane] += difference * difference;
        }
    }
    for (lane, (z, e)) in z_tail.iter().zip(e_tail).enumerate() {
        sums[lane] += (z - e) * (z - e);
    }
    // SAFETY: as the caller promises.
    unsafe { sum::<L, 16>(sums) }
}

/// As [`sq_l2_f32`], in f64: four times four sums; what is left of the dimensions by fours.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn sq_l2_f64<L: Lanes>(z: &[f32], e: &[f32]) -> f64 {
    let ((z_fours, z_tail), (e_fours, e_tail)) = (z.as_chunks(), e.as_chunks());
    let ((z_head, z_rest), (e_head, e_rest)) = (z_fours.as_chunks::<4>(), e_fours.as_chunks::<4>());
    let mut sums = [0.0f64; 4];
    if !z_head.is_empty() {
        let mut parts = [sums; 4];
        for (z, e) in z_head.iter().zip(e_head) {
            for part in 0..4 {
                // SAFETY: as the caller promises.
                parts[part] = unsafe { L::plus_squares(parts[part], &z[part], &e[part]) };
            }
        }
        let [a, b, c, d] = parts;
        sums = std::array::from_fn(|lane| (a[lane] + b[lane]) + (c[lane] + d[lane]));
    }
    for (z, e) in z_rest.iter().zip(e_rest) {
        // SAFETY: as the caller promises.
        sums = unsafe { L::plus_squares(sums, z, e) };
    }
    let mut sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    for (&z, &e) in z_tail.iter().zip(e_tail) {
        let difference = f64::from(z) - f64::from(e);
        sum += difference * difference;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Plain;
    use super::*;

    #[test]
    fn the_lowest_bit_of_known_numbers() {
        for (value, bit) in [(1.0, 0), (-6.0, 1), (0.75, -2), (f32::MAX, 104), (1e-45, -149), (3e-45, -148)] {
            assert_eq!(lowest_bit(value), bit, "{value}");
        }
        assert_eq!(lowest_bit(-0.0), i32::MAX);
    }

    #[test]
    fn sums_are_called_exact_only_where_no_bit_can_be_lost() {
        // SAFETY: any processor has plain lanes.
        let exact = |z: &[f32], e: &[f32]| f64_is_exact(z, [e].into_iter(), unsafe { sq_l2_f64::<Plain>(z, e) });
        assert!(exact(&[3.0, 180.0], &[-7.0, 0.0]));
        assert!(exact(&[0.5, 0.25], &[1e6, 0.0]));
        assert!(exact(&[0.0; 3], &[0.0; 3]));
        // 1 + 2^-60 needs 61 bits.
        assert!(!exact(&[1.0, 2f32.powi(-30)], &[0.0, 0.0]));
        assert!(!exact(&[f32::MAX], &[f32::from_bits(1)]));
    }
}
