//! Sums of products of f16 as the models of tensor cores have them, a second time beside the simulated device's own
//! (tests/emulator/src/tensor.cpp), in exact numbers.

use codeword::f16;

/// A number in units of 2^-48, of which every product of two f16 and every sum of such is a multiple.
pub fn units(x: f16) -> i128 {
    (f64::from(x) * 2f64.powi(24)) as i128
}

/// The exponent of an f16, that of the least normal number for all below it.
fn exponent(x: f16) -> i32 {
    (f64::from(x).abs().log2().floor() as i32).max(-14)
}

/// Cut off towards zero to a multiple of 2^`unit`.
fn cut_off(value: i128, unit: i32) -> i128 {
    let by = unit + 48;
    if by > 0 { value / (1 << by) * (1 << by) } else { value }
}

/// Where the leading bit of a value in units of 2^-48 is.
fn leading(value: i128) -> i32 {
    value.unsigned_abs().ilog2() as i32 - 48
}

/// The sum of products as the model has it, in units of 2^-48: steps of so many products, all cut off to so many
/// fractional bits of the largest term.
pub fn modelled(a: &[f16], b: &[f16], (products, bits): (usize, i32)) -> i128 {
    let mut sum = 0i128;
    for (a, b) in a.chunks(products).zip(b.chunks(products)) {
        let terms: Vec<(i128, i32)> =
            a.iter().zip(b).map(|(&a, &b)| (units(a) * units(b), exponent(a) + exponent(b))).collect();
        let of_sum = (sum != 0).then(|| leading(sum));
        let exponents = terms.iter().filter(|term| term.0 != 0).map(|term| term.1);
        let Some(top) = exponents.chain(of_sum).max() else { continue };
        let total: i128 = terms.iter().map(|term| term.0).chain([sum]).map(|value| cut_off(value, top - bits)).sum();
        // To the 24 bits of an f32, towards zero.
        sum = if total == 0 { 0 } else { cut_off(total, leading(total) - 23) };
    }
    sum
}
