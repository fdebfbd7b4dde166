//! What tests of sums by label share, on the processor and on a device.

use super::Numbers;
use codeword::SENTINEL;

/// f64 by their bits: equal ones are the same.
pub fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Numbers of many magnitudes: any other order of adding them shows.
pub fn wild(numbers: &mut Numbers, count: usize) -> Vec<f32> {
    (0..count).map(|_| numbers.gaussian() * (numbers.below(60) as f32 - 30.0).exp2()).collect()
}

/// Labels of which some are sentinels; half of all rows have label 0.
pub fn labels(numbers: &mut Numbers, n: usize, k: usize) -> Vec<u32> {
    let label = |numbers: &mut Numbers| match numbers.below(8) {
        0 => SENTINEL,
        1..4 => numbers.below(k) as u32,
        _ => 0,
    };
    (0..n).map(|_| label(numbers)).collect()
}
