//! Sums of squares of rows, to the last bit the same everywhere: f64, eight running sums over every eighth element,
//! added in pairs, every operation rounded on its own.

use crate::backend::SENTINEL;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Of every row z its sum of squares and that of z - z_q, where z_q is the codeword of its label; zeros where the
/// label is a sentinel. Other labels are below k.
pub(crate) fn sq_sums<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    labels: &[u32],
) -> Vec<(f64, f64)> {
    // About 64 KiB per task: a row alone is too little work to hand to a thread.
    let rows = (16 * 1024 / x.cols().max(1)).max(1);
    let of_row = |wide: &mut Vec<f32>, (i, &label): (usize, &u32)| match label {
        SENTINEL => (0.0, 0.0),
        label => {
            let (z, e) = (T::as_f32(x.row(i), wide), codewords.row(label as usize));
            (sum(z, e, |z, _| z), sum(z, e, |z, e| z - e))
        }
    };
    labels.par_iter().enumerate().with_min_len(rows).map_init(Vec::new, of_row).collect()
}

#[inline(always)]
fn sum(z: &[f32], e: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0f64; 8];
    for (z, e) in z.chunks(8).zip(e.chunks(8)) {
        for (sum, (&z, &e)) in sums.iter_mut().zip(z.iter().zip(e)) {
            let value = term(f64::from(z), f64::from(e));
            *sum += value * value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
