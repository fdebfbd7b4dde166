//! Directions of vectors, to the last bit the same everywhere: every operation rounded on its own, in one order.

use crate::backend::sums::quotients;
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
pub(crate) fn direction(values: &mut [f64], unit: &mut [f32]) -> bool {
    let mut squares = sum_of_squares(values);
    // Squares of f32 stay within. Others may leave f64: a power of two brings them back, and changes no bit that counts.
    if !(900f64.exp2().recip()..=900f64.exp2()).contains(&squares) {
        let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if largest == 0.0 || largest.is_infinite() {
            return false;
        }
        let exponent = (largest.to_bits() >> 52).clamp(1, 2045);
        let scale = f64::from_bits((2046 - exponent) << 52);
        values.iter_mut().for_each(|value| *value *= scale);
        squares = sum_of_squares(values);
    }
    quotients(values, squares.sqrt(), unit);
    true
}

fn sum_of_squares(values: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let parts = values.chunks_exact(8);
    let rest = parts.remainder();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value * value);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, value)| *sum += value * value);
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_any_size_have_their_direction() {
        // 2^-1074 is the smallest f64, 2^1023 the largest power of two.
        for exponent in [-1074, -1022, -600, 0, 600, 1020] {
            let unit_of = |mut values: [f64; 3]| {
                let mut unit = [7.0; 3];
                assert!(direction(&mut values, &mut unit));
                unit
            };
            let scale = if exponent < -1022 { f64::from_bits(1) } else { f64::from(exponent).exp2() };
            assert_eq!(unit_of([0.0, 4.0 * scale, -3.0 * scale]), [0.0, 0.8, -0.6], "2^{exponent}");
        }
        assert!(!direction(&mut [0.0, -0.0], &mut [7.0; 2]));
        assert!(!direction(&mut [1.0, f64::INFINITY], &mut [7.0; 2]));
    }
}
