//! Sums of squares of rows, to the last bit the same everywhere: f64, eight running sums over every eighth element,
//! added in pairs, every operation rounded on its own.

use super::isa::Isa;
use super::kernels::Kernels;
use crate::backend::SENTINEL;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Of every row z its sum of squares and that of z - z_q, where z_q is the codeword of its label; zeros where the
/// label is a sentinel. Other labels are below k.
pub(crate) fn sq_sums<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    labels: &[u32],
    isa: Isa,
) -> Vec<(f64, f64)> {
    let kernels = Kernels::of(isa);
    // About 64 KiB per task: a row alone is too little work to hand to a thread.
    let rows = (16 * 1024 / x.cols().max(1)).max(1);
    let of_row = |wide: &mut Vec<f32>, (i, &label): (usize, &u32)| match label {
        SENTINEL => (0.0, 0.0),
        label => kernels.sq_sums(T::as_f32(x.row(i), wide), codewords.row(label as usize)),
    };
    labels.par_iter().enumerate().with_min_len(rows).map_init(Vec::new, of_row).collect()
}

/// Those of one row. One after the other: side by side the compiler pairs them, lane by lane.
#[inline(always)]
pub(super) fn of_row(z: &[f32], e: &[f32]) -> (f64, f64) {
    (sum(z, z, |z, _| z), sum(z, e, |z, e| z - e))
}

/// No multiply-add: squares are rounded before they are added.
#[inline(always)]
fn sum(z: &[f32], e: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0f64; 8];
    let ((z_head, z_tail), (e_head, e_tail)) = (z.as_chunks::<8>(), e.as_chunks::<8>());
    for (z, e) in z_head.iter().zip(e_head) {
        for lane in 0..8 {
            let value = term(f64::from(z[lane]), f64::from(e[lane]));
            sums[lane] += value * value;
        }
    }
    for (sum, (&z, &e)) in sums.iter_mut().zip(z_tail.iter().zip(e_tail)) {
        let value = term(f64::from(z), f64::from(e));
        *sum += value * value;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_the_same_bits() {
        let mut state = 1u32;
        let mut numbers = |count: usize| -> Vec<f32> {
            let mut draw = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            };
            (0..count).map(|_| draw() * draw() * draw()).collect()
        };
        for d in [1, 3, 7, 8, 9, 15, 16, 17, 64, 100, 1031] {
            let (z, e) = (numbers(d), numbers(d));
            // As the documentation of this file has it, one operation after the other.
            let sum = |term: &dyn Fn(usize) -> f64| {
                let lane = |lane: usize| (lane..d).step_by(8).fold(0.0, |sum, t| sum + term(t) * term(t));
                let [a, b, c, d, e, f, g, h] = std::array::from_fn(lane);
                ((a + b) + (c + d)) + ((e + f) + (g + h))
            };
            let expected = [sum(&|t| f64::from(z[t])), sum(&|t| f64::from(z[t]) - f64::from(e[t]))];
            for isa in Isa::available() {
                let (energy, error) = Kernels::of(isa).sq_sums(&z, &e);
                let bits = [energy, error].map(f64::to_bits);
                assert_eq!(bits, expected.map(f64::to_bits), "{d} dimensions, {}", isa.name());
            }
        }
    }
}
