//! Directions of vectors, to the last bit the same everywhere: every operation rounded on its own, in one order.

use crate::backend::sums::quotient;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// The directions of rows of at least one column, without gaps. A row that has none, for zeros or a NaN, is NaN all over.
pub(crate) fn normalize<T: Element>(x: MatrixView<'_, T>, out: &mut [f32]) {
    // About 64 KiB per task: a row alone is too little work to hand to a thread.
    let rows = (16 * 1024 / x.cols()).max(1);
    let of_row = |wide: &mut (Vec<f32>, Vec<f64>), (i, unit): (usize, &mut [f32])| {
        let (narrow, values) = wide;
        values.clear();
        values.extend(T::as_f32(x.row(i), narrow).iter().map(|&value| f64::from(value)));
        if !direction(values, unit) {
            unit.fill(f32::NAN);
        }
    };
    out.par_chunks_mut(x.cols()).enumerate().with_min_len(rows).for_each_init(Default::default, of_row);
}

/// Writes `values` over their length, as [`crate::normalize`] documents it. Where they have no direction, being all
/// zero, or an infinity among them, leaves `unit` as it is and returns false. A NaN among them shows.
pub(crate) fn direction(values: &[f64], unit: &mut [f32]) -> bool {
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    if largest == 0.0 || largest.is_infinite() {
        return false;
    }
    // A power of two, so exact: no square of what matters leaves f64, and no other bit changes.
    let exponent = (largest.to_bits() >> 52).clamp(1, 2045);
    let scale = f64::from_bits((2046 - exponent) << 52);
    let mut sums = [0.0f64; 8];
    for part in values.chunks(8) {
        for (sum, &value) in sums.iter_mut().zip(part) {
            let value = value * scale;
            *sum += value * value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let length = (((a + b) + (c + d)) + ((e + f) + (g + h))).sqrt();
    for (unit, &value) in unit.iter_mut().zip(values) {
        *unit = quotient(value * scale, length);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_any_size_have_their_direction() {
        // 2^-1074 is the smallest f64, 2^1023 the largest power of two.
        for exponent in [-1074, -1022, -600, 0, 600, 1020] {
            let unit_of = |values: [f64; 3]| {
                let mut unit = [7.0; 3];
                assert!(direction(&values, &mut unit));
                unit
            };
            let scale = if exponent < -1022 { f64::from_bits(1) } else { f64::from(exponent).exp2() };
            assert_eq!(unit_of([0.0, 4.0 * scale, -3.0 * scale]), [0.0, 0.8, -0.6], "2^{exponent}");
        }
        assert!(!direction(&[0.0, -0.0], &mut [7.0; 2]));
        assert!(!direction(&[1.0, f64::INFINITY], &mut [7.0; 2]));
    }
}
