//! Products of matrices, to the last bit the same everywhere: every component is one f64 sum, from the first term on, of
//! products of two f32, which are exact, or of two f64, each rounded. Threads share rows and lanes share columns; neither changes
//! the order of a sum.

use super::doubles::Doubles;
use super::isa::Isa;
use super::kernels::Kernels;
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Rows that share each row of the other factor while it is in the first-level cache, where they are too few for panels of it.
const TILE: usize = 8;
/// Rows from which on the other factor is worth packing.
const PACKS: usize = 64;
/// Values of the rows of a block at most: as f64 they fit a second-level cache beside a panel.
const BLOCK_VALUES: usize = 1 << 15;
/// Rows of a block that is turned over while it is in a cache.
const SQUARE: usize = 16;
/// Rows of a block of [`cross`], and those of some blocks that are packed at a time.
const BLOCK: usize = 128;
const PACKED: usize = 8 * BLOCK;

/// x times `by`, `[n, d]` and `[d, e]`, each component rounded to f32 at its end, where its `bias` has been added. `out` holds
/// n e values. Of 64 rows and more, 8 d e bytes beside.
pub(crate) fn multiply<T: Element>(
    x: MatrixView<'_, T>,
    by: MatrixView<'_, f32>,
    bias: Option<&[f32]>,
    isa: Isa,
    out: &mut [f32],
) {
    if by.cols() == 0 {
        return;
    }
    match x.rows() < PACKS {
        true => multiply_few(x, by, bias, Kernels::of(isa), out),
        false => multiply_many(x, by, bias, Kernels::of(isa), out),
    }
}

fn multiply_few<T: Element>(
    x: MatrixView<'_, T>,
    by: MatrixView<'_, f32>,
    bias: Option<&[f32]>,
    kernels: &Kernels,
    out: &mut [f32],
) {
    let e = by.cols();
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
        out.chunks_exact_mut(e).zip(sums.chunks_exact(e)).for_each(|(out, sums)| round(sums, bias, out));
    };
    out.par_chunks_mut(TILE * e).enumerate().for_each_init(Default::default, of_tile);
}

/// Sums in registers: those of some rows and a panel of columns at a time.
fn multiply_many<T: Element>(
    x: MatrixView<'_, T>,
    by: MatrixView<'_, f32>,
    bias: Option<&[f32]>,
    kernels: &Kernels,
    out: &mut [f32],
) {
    let (d, e, rows, width) = (x.cols(), by.cols(), kernels.product_rows, kernels.product_width);
    let panels = panels(d, e, width, |t| by.row(t));
    // Tiles `[d][rows]` of x, and `[rows][width]` sums.
    let of_block = |(tiles, wide, sums): &mut (Vec<f64>, Vec<f32>, Vec<f64>), (i, out): (usize, &mut [f32])| {
        let count = out.len() / e;
        sums.resize(rows * width, 0.0);
        tiles.resize(count.div_ceil(rows) * rows * d, 0.0);
        for row in 0..count {
            let values = T::as_f32(x.row(i * block_rows(d, rows) + row), wide);
            let lane = tiles[row / rows * rows * d..].iter_mut().skip(row % rows).step_by(rows);
            lane.zip(values).for_each(|(to, &value)| *to = value.into());
        }
        for panel in 0..e.div_ceil(width) {
            let steps = &panels[panel * d * width..][..d * width];
            let columns = panel * width..e.min((panel + 1) * width);
            let bias = bias.map(|bias| &bias[columns.clone()]);
            for (tile, out) in out.chunks_mut(rows * e).enumerate() {
                kernels.exact_products(&tiles[tile * rows * d..][..rows * d], steps, sums);
                for (sums, out) in sums.chunks_exact(width).zip(out.chunks_exact_mut(e)) {
                    round(sums, bias, &mut out[columns.clone()]);
                }
            }
        }
    };
    out.par_chunks_mut(block_rows(d, rows) * e).enumerate().for_each_init(Default::default, of_block);
}

/// Rows of a block, of tiles of so many.
fn block_rows(d: usize, rows: usize) -> usize {
    (BLOCK_VALUES / d.max(1)).clamp(rows, 8 * rows) / rows * rows
}

/// `[panels][d][width]` of a matrix `[d, e]`, given its rows.
fn panels<'a, V: Copy + Into<f64> + Sync + 'a>(
    d: usize,
    e: usize,
    width: usize,
    row: impl Fn(usize) -> &'a [V] + Sync,
) -> Vec<f64> {
    let mut panels = vec![0.0; e.div_ceil(width) * d * width];
    panels.par_chunks_exact_mut((d * width).max(1)).enumerate().for_each(|(panel, steps)| {
        let columns = panel * width..e.min((panel + 1) * width);
        for (t, step) in steps.chunks_exact_mut(width).enumerate() {
            step.iter_mut().zip(&row(t)[columns.clone()]).for_each(|(to, &value)| *to = value.into());
        }
    });
    panels
}

/// `left` times `right`, `[d, d]` row-major in f64; where it `is_symmetric` by half of the work.
pub(super) fn times(left: &[f64], right: &[f64], d: usize, is_symmetric: bool, kernels: &Kernels, out: &mut [f64]) {
    if d == 0 {
        return;
    }
    let (rows, width) = (kernels.product_rows, kernels.product_width);
    let panels = panels(d, d, width, |t| &right[t * d..][..d]);
    let block = block_rows(d, rows);
    let of_block = |(tiles, sums): &mut (Vec<f64>, Vec<f64>), (i, out): (usize, &mut [f64])| {
        sums.resize(rows * width, 0.0);
        tiles.resize((out.len() / d).div_ceil(rows) * rows * d, 0.0);
        for (row, values) in left[i * block * d..].chunks_exact(d).take(out.len() / d).enumerate() {
            let lane = tiles[row / rows * rows * d..].iter_mut().skip(row % rows).step_by(rows);
            lane.zip(values).for_each(|(to, &value)| *to = value);
        }
        // What lies left of the diagonal is right of it, too.
        for panel in if is_symmetric { i * block / width } else { 0 }..d.div_ceil(width) {
            let steps = &panels[panel * d * width..][..d * width];
            let columns = panel * width..d.min((panel + 1) * width);
            for (tile, out) in out.chunks_mut(rows * d).enumerate() {
                kernels.products(&tiles[tile * rows * d..][..rows * d], steps, sums);
                for (sums, out) in sums.chunks_exact(width).zip(out.chunks_exact_mut(d)) {
                    out[columns.clone()].copy_from_slice(&sums[..columns.len()]);
                }
            }
        }
    };
    out.par_chunks_mut(block * d).enumerate().for_each_init(Default::default, of_block);
    if is_symmetric {
        for first in (0..d).step_by(SQUARE) {
            for i in first..d {
                for j in first..d.min(first + SQUARE).min(i) {
                    out[i * d + j] = out[j * d + i];
                }
            }
        }
    }
}

/// Rows as columns, `[d, d]`.
pub(super) fn transposed(matrix: &[f64], d: usize, out: &mut [f64]) {
    out.par_chunks_mut((SQUARE * d).max(1)).enumerate().for_each(|(square, out)| {
        for t in 0..d {
            for (i, out) in (square * SQUARE..).zip(out.chunks_exact_mut(d)) {
                out[t] = matrix[t * d + i];
            }
        }
    });
}

/// Of sums, as many as `out` holds.
fn round(sums: &[f64], bias: Option<&[f32]>, out: &mut [f32]) {
    match bias {
        None => out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum as f32),
        Some(bias) => {
            let with_bias = sums.iter().zip(bias).map(|(&sum, &bias)| sum + f64::from(bias));
            out.iter_mut().zip(with_bias).for_each(|(out, sum)| *out = sum as f32);
        }
    }
}

/// The sums of the products of a tile of rows, `[depth][ROWS]`, and a panel of columns, `[depth][REGS * WIDTH]`:
/// `[ROWS][REGS * WIDTH]`, each from the first step on. Products are rounded where they are not known to be EXACT.
///
/// # Safety
/// Checks 1 and 8 of [`super::kernels`].
#[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
#[inline(always)]
pub(super) unsafe fn products<D: Doubles, const ROWS: usize, const REGS: usize, const EXACT: bool>(
    tile: *const f64,
    panel: *const f64,
    depth: usize,
    sums: *mut f64,
) {
    // SAFETY: by check 8 every step is in bounds, and so are the sums.
    unsafe {
        let mut all = [[D::splat(0.0); REGS]; ROWS];
        for step in 0..depth {
            let mut columns = [D::splat(0.0); REGS];
            for reg in 0..REGS {
                columns[reg] = D::load(panel.add((step * REGS + reg) * D::WIDTH));
            }
            for row in 0..ROWS {
                let value = D::splat(*tile.add(step * ROWS + row));
                for reg in 0..REGS {
                    all[row][reg] = match EXACT {
                        true => all[row][reg].plus_exact(value, columns[reg]),
                        false => all[row][reg].plus(value, columns[reg]),
                    };
                }
            }
        }
        for row in 0..ROWS {
            for reg in 0..REGS {
                all[row][reg].store(sums.add((row * REGS + reg) * D::WIDTH));
            }
        }
    }
}

/// x^T y of `x`, `[n, d]`, and the rows, of e values each, that `row` gives: `[d, e]`. Terms are added row after row within blocks
/// of 128 rows, from zero, then block after block. `tell` is called between some of them, and its error handed back.
pub(crate) fn cross<T: Element, E>(
    x: MatrixView<'_, T>,
    e: usize,
    row: impl Fn(usize, &mut [f32]) + Sync,
    isa: Isa,
    mut tell: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let (kernels, n, d) = (Kernels::of(isa), x.rows(), x.cols());
    let (rows, width) = (kernels.product_rows, kernels.product_width);
    let padded = e.next_multiple_of(width);
    let mut out = vec![0.0; d * e];
    if out.is_empty() {
        return Ok(out);
    }
    let mut packed = Vec::new();
    for first in (0..n).step_by(PACKED) {
        tell()?;
        // `[blocks][panels][steps][width]`
        let last = n.min(first + PACKED);
        packed.resize((last - first) * padded, 0.0);
        packed.par_chunks_mut(BLOCK * padded).enumerate().for_each_init(Vec::new, |wide, (block, packed)| {
            wide.resize(e, 0.0);
            let steps = packed.len() / padded;
            for step in 0..steps {
                row(first + block * BLOCK + step, wide);
                for (panel, values) in wide.chunks(width).enumerate() {
                    let to = &mut packed[(panel * steps + step) * width..][..values.len()];
                    to.iter_mut().zip(values).for_each(|(to, &value)| *to = value.into());
                }
            }
        });
        let of_tile = |(tile, wide, sums): &mut (Vec<f64>, Vec<f32>, Vec<f64>), (i, out): (usize, &mut [f64])| {
            sums.resize(rows * width, 0.0);
            let columns = i * rows..d.min((i + 1) * rows);
            for (block, packed) in packed.chunks(BLOCK * padded).enumerate() {
                let steps = packed.len() / padded;
                tile.resize(steps * rows, 0.0);
                for (step, to) in tile.chunks_exact_mut(rows).enumerate() {
                    let values = T::as_f32(&x.row(first + block * BLOCK + step)[columns.clone()], wide);
                    to.iter_mut().zip(values).for_each(|(to, &value)| *to = value.into());
                }
                for (panel, packed) in packed.chunks_exact(steps * width).enumerate() {
                    kernels.exact_products(tile, packed, sums);
                    for (out, sums) in out.chunks_exact_mut(e).zip(sums.chunks_exact(width)) {
                        out[panel * width..].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                    }
                }
            }
        };
        out.par_chunks_mut(rows * e).enumerate().for_each_init(Default::default, of_tile);
    }
    Ok(out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use std::convert::Infallible;

    /// Numbers in (-1, 1), the same everywhere.
    pub fn numbers(count: usize, mut state: u64) -> Vec<f64> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / 2f64.powi(52) - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn assert_bits(name: &str, got: &[f64], expected: impl Fn(usize) -> f64) {
        let other = (0..got.len()).find(|&at| got[at].to_bits() != expected(at).to_bits());
        assert_eq!(other, None, "{name}");
    }

    #[test]
    fn products_of_rows_are_the_documented_sums() {
        // Whole blocks of 128 rows, and of 1024 that are packed, one more or less; columns that fill no tile.
        for (n, d, e) in [(0, 3, 2), (1, 1, 1), (128, 8, 24), (300, 13, 29), (1024, 5, 3), (1300, 17, 50)] {
            let of = |count, seed| numbers(count, seed).iter().map(|&value| value as f32).collect();
            let (x, y) = (Matrix::new(of(n * d, 1), n, d).unwrap(), Matrix::new(of(n * e, 2), n, e).unwrap());
            let sum_of = |at: usize| {
                let product = |t: usize| f64::from(x.view().row(t)[at / e]) * f64::from(y.view().row(t)[at % e]);
                let block = |first: usize| (first..n.min(first + BLOCK)).fold(0.0, |sum, t| sum + product(t));
                (0..n).step_by(BLOCK).fold(0.0, |sum, first| sum + block(first))
            };
            for isa in Isa::available() {
                let row = |t: usize, to: &mut [f32]| to.copy_from_slice(y.view().row(t));
                let Ok(sums) = cross(x.view(), e, row, isa, || Ok::<(), Infallible>(()));
                assert_bits(&format!("{n} x {d} and {e}, {isa:?}"), &sums, sum_of);
            }
        }
    }

    #[test]
    fn products_of_matrices_are_sums_from_the_first_term_on() {
        for d in [1, 2, 7, 8, 24, 25, 65, 130] {
            let (a, b) = (numbers(d * d, 3), numbers(d * d, 4));
            let mut turned = vec![0.0; d * d];
            transposed(&a, d, &mut turned);
            assert_bits("transposed", &turned, |at| a[at % d * d + at / d]);
            for kernels in Isa::available().into_iter().map(Kernels::of) {
                let of = |left: &[f64], right: &[f64], at: usize| {
                    (0..d).fold(0.0, |sum, t| sum + left[at / d * d + t] * right[t * d + at % d])
                };
                let mut out = vec![f64::NAN; d * d];
                times(&a, &b, d, false, kernels, &mut out);
                assert_bits(&format!("{d}"), &out, |at| of(&a, &b, at));
                times(&turned, &a, d, true, kernels, &mut out);
                assert_bits(&format!("{d}, symmetric"), &out, |at| of(&turned, &a, at));
            }
        }
    }
}
