//! Products of matrices, to the last bit the same everywhere: every component is one f64 sum, from the first term on, of
//! products of two f32, which are exact. Threads share rows and lanes share columns; neither changes the order of a sum.

use super::isa::Isa;
use super::kernels::Kernels;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Rows that share each row of the other factor while it is in the first-level cache.
const TILE: usize = 8;
/// Rows of a block of [`gram`]: they stay in the caches while their columns are gone through.
const BLOCK: usize = 64;

/// x times `by`, `[n, d]` and `[d, e]`, each component rounded to f32 at its end, where its `bias` has been added. `out` holds
/// n e values.
pub(crate) fn multiply<T: Element>(
    x: MatrixView<'_, T>,
    by: MatrixView<'_, f32>,
    bias: Option<&[f32]>,
    isa: Isa,
    out: &mut [f32],
) {
    let (kernels, e) = (Kernels::of(isa), by.cols());
    let of_tile = |(sums, wide): &mut (Vec<f64>, Vec<f32>), (tile, out): (usize, &mut [f32])| {
        let count = out.len() / e;
        sums.clear();
        sums.resize(count * e, 0.0);
        wide.resize(count * x.cols(), 0.0);
        x.block(tile * TILE..tile * TILE + count).widen_into(wide);
        for t in 0..x.cols() {
            for (row, sums) in wide.chunks_exact(x.cols()).zip(sums.chunks_exact_mut(e)) {
                kernels.add_weighted_row(by.row(t), row[t].into(), sums);
            }
        }
        if let Some(bias) = bias {
            let of_rows = sums.chunks_exact_mut(e);
            of_rows.for_each(|sums| sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += f64::from(*bias)));
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum as f32);
    };
    if e > 0 {
        out.par_chunks_mut(TILE * e).enumerate().for_each_init(Default::default, of_tile);
    }
}

/// x^T x of `x`, `[n, d]`: `[d, d]`. Terms are added row after row within blocks of 64 rows, from zero, then block after block.
pub(crate) fn gram<T: Element>(x: MatrixView<'_, T>, isa: Isa) -> Vec<f64> {
    let (kernels, n, d) = (Kernels::of(isa), x.rows(), x.cols());
    let mut sums = vec![0.0; d * d];
    let of_group = |(part, wide): &mut (Vec<f64>, Vec<f32>), (group, sums): (usize, &mut [f64])| {
        part.resize(d, 0.0);
        for first in (0..n).step_by(BLOCK) {
            let rows = x.block(first..n.min(first + BLOCK));
            wide.resize(rows.rows() * d, 0.0);
            rows.widen_into(wide);
            for (a, sums) in (group * TILE..).zip(sums.chunks_exact_mut(d)) {
                part.fill(0.0);
                wide.chunks_exact(d).for_each(|row| kernels.add_weighted_row(row, row[a].into(), part));
                sums.iter_mut().zip(&*part).for_each(|(sum, part)| *sum += part);
            }
        }
    };
    if d > 0 {
        sums.par_chunks_mut(TILE * d).enumerate().for_each_init(Default::default, of_group);
    }
    sums
}
