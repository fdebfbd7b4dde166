//! Rotations that suit a product quantizer, learned from vectors. A rotated vector is the row times the matrix.

use super::product::ProductQuantizer;
use crate::backend::{AssignStats, accumulate, cross, gram, identity, multiply_into, orthogonal, svd};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kmeans::{Init, KMeans, KMeansFit, SourceFit, Step};
use crate::matrix::{Element, Matrix, MatrixView};
use rayon::prelude::*;

/// How often codewords move between two rotations.
const MOVES: usize = 1;

/// A rotation `[d, d]` with how its parts were learned, and the sum of their inertias.
pub(super) struct Learned {
    pub rotation: Matrix<f32>,
    pub parts: Vec<SourceFit>,
    inertia: f64,
    /// Of all rotations that were tried.
    pub stats: AssignStats,
}

/// The rotation that changes nothing.
pub(super) fn none(d: usize) -> Result<Matrix<f32>> {
    rounded(&identity(d), d)
}

/// The rows of `x` times `rotation`; nothing where one of them leaves f32.
pub(super) fn rotated<T: Element>(x: MatrixView<'_, T>, rotation: &Matrix<f32>) -> Result<Option<Matrix<f32>>> {
    let mut rotated = vec![0.0; x.rows() * x.cols()];
    multiply_into(T::any(x), rotation.view(), None, &mut rotated)?;
    match rotated.par_iter().all(|value| value.is_finite()) {
        true => Matrix::new(rotated, x.rows(), x.cols()).map(Some),
        false => Ok(None),
    }
}

/// The non-parametric solution (Ge, He, Ke, Sun 2013, section 3.1): in turn, codewords move for the rotation there is, and
/// the rotation becomes the best there is for the codewords. Neither raises the distortion, but for rounding; the best of all
/// is returned. None where the rotated rows leave f32 at once. `observe` is given the rotation, from 0, and the part.
pub(super) fn alternate<T: Element, E: From<Error> + Send>(
    x: MatrixView<'_, T>,
    mut rotation: Matrix<f32>,
    product: ProductQuantizer,
    outer: usize,
    device: &Device,
    mut observe: impl FnMut(usize, usize, Step) -> Result<(), E>,
) -> Result<Option<Learned>, E> {
    let mut codebooks = product.codebooks().to_vec();
    let (mut best, mut stats): (Option<Learned>, _) = (None, AssignStats::default());
    for turn in 0..=outer {
        let Some(rows) = rotated(x, &rotation)? else { break };
        let fits = moved(rows.view(), &codebooks, device, |part, step| observe(turn, part, step))?;
        drop(rows);
        codebooks = fits.iter().map(|fit| fit.codebook.clone()).collect();
        let inertia = fits.iter().map(|fit| fit.inertia).sum();
        stats = fits.iter().fold(stats, |sum, fit| sum + fit.stats);
        if best.as_ref().is_none_or(|best| inertia < best.inertia) {
            let parts = fits.iter().map(KMeansFit::without_rows).collect();
            best = Some(Learned { rotation: rotation.clone(), parts, inertia, stats });
        }
        if turn < outer {
            let told = || observe(turn, fits.len() - 1, Step::Rotation);
            let next = procrustes(x, &fits, &rotation, told)?;
            // Then nothing moves any more but codewords.
            if next == rotation && fits.iter().all(|fit| fit.converged) {
                break;
            }
            rotation = next;
        }
    }
    Ok(best.map(|best| Learned { stats, ..best }))
}

/// Codewords moved on from where they are.
fn moved<E: From<Error> + Send>(
    rotated: MatrixView<'_, f32>,
    codebooks: &[Codebook],
    device: &Device,
    mut observe: impl FnMut(usize, Step) -> Result<(), E>,
) -> Result<Vec<KMeansFit>, E> {
    let width = codebooks[0].d();
    let fit = |(s, codebook): (usize, &Codebook)| {
        let from = KMeans::new(codebook.k()).init(Init::Given(codebook.clone())).iterations(MOVES);
        from.fit_with(rotated.columns(s * width..(s + 1) * width)?, None, device, |step| observe(s, step))
    };
    codebooks.iter().enumerate().map(fit).collect()
}

/// The best rotation for codewords: the orthogonal matrix nearest to X^T Y, where row i of Y are the codewords of row i of X.
fn procrustes<T: Element, E: From<Error>>(
    x: MatrixView<'_, T>,
    fits: &[KMeansFit],
    before: &Matrix<f32>,
    mut told: impl FnMut() -> Result<(), E>,
) -> Result<Matrix<f32>, E> {
    let d = x.cols();
    let codewords = fits.iter().map(|fit| fit.codebook.codewords()).collect::<Result<Vec<_>>>()?;
    let row = |i: usize, row: &mut [f32]| {
        let parts = row.chunks_exact_mut(d / fits.len());
        for ((part, fit), codewords) in parts.zip(fits).zip(&codewords) {
            part.copy_from_slice(codewords.row(fit.assignment.labels[i] as usize));
        }
    };
    let products = cross(T::any(x), d, row, &mut told)?;
    let before: Vec<f64> = before.as_slice().iter().map(|&value| value.into()).collect();
    Ok(rounded(&orthogonal(products, &before, d, told)?, d)?)
}

/// The principal components of the rows, dealt out to m parts so that the products of their variances are alike (Ge, He, Ke,
/// Sun 2013, section 3.2): from the largest on, each to the part with the smallest product that has room.
pub(super) fn principal<T: Element, E: From<Error>>(
    x: MatrixView<'_, T>,
    m: usize,
    mut told: impl FnMut() -> Result<(), E>,
) -> Result<Matrix<f32>, E> {
    let (n, d) = (x.rows(), x.cols());
    let sums = accumulate(x, &vec![0; n], None, 1)?.sums;
    let mut covariance = gram(x, &mut told)?;
    for (row, &a) in covariance.chunks_exact_mut(d).zip(&sums) {
        row.iter_mut().zip(&sums).for_each(|(value, &b)| *value -= a * b / n as f64);
    }
    // Symmetric: rows are columns.
    let svd = svd(&covariance, d, told)?;
    let mut rotation = vec![0.0; d * d];
    for (to, from) in deal(&svd.s, m).into_iter().flatten().enumerate() {
        (0..d).for_each(|t| rotation[t * d + to] = svd.v[from * d + t]);
    }
    Ok(rounded(&rotation, d)?)
}

/// Which of `variances`, descending, each of m parts of one size gets.
fn deal(variances: &[f64], m: usize) -> Vec<Vec<usize>> {
    let d = variances.len();
    // What is not above rounding counts as the smallest that is. With that as unit none is below 1, as a part without any is.
    let noise = variances.first().map_or(0.0, |largest| largest * d as f64 * f64::EPSILON);
    let smallest = variances.iter().rev().copied().find(|&variance| variance > noise);
    let mut parts = vec![(Product::ONE, Vec::new()); m];
    for (i, &variance) in variances.iter().enumerate() {
        let room = parts.iter_mut().filter(|(_, part)| part.len() < d / m);
        // The first of the smallest. There is room for all: m divides d.
        if let Some((product, part)) = room.reduce(|a, b| if b.0 < a.0 { b } else { a }) {
            *product = product.times(smallest.map_or(1.0, |smallest| (variance / smallest).max(1.0)));
            part.push(i);
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// A product of numbers of 1 and above, of any size: 2^exponent times the fraction, which is 1 to below 2.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Product {
    exponent: u64,
    fraction: f64,
}

impl Product {
    const ONE: Product = Product { exponent: 0, fraction: 1.0 };

    fn times(self, factor: f64) -> Product {
        let product = self.fraction * factor;
        let exponent = (product.to_bits() >> 52) - 1023;
        let fraction = f64::from_bits((product.to_bits() & ((1 << 52) - 1)) | 1023 << 52);
        Product { exponent: self.exponent + exponent, fraction }
    }
}

/// `[d, d]`, each entry rounded to f32.
fn rounded(values: &[f64], d: usize) -> Result<Matrix<f32>> {
    Matrix::new(values.iter().map(|&value| value as f32).collect(), d, d)
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn parts_get_variances_of_like_products() {
        // 8 | 4, 2: the smallest product so far has room until it is full.
        assert_eq!(deal(&[8.0, 4.0, 2.0, 1.0], 2), [vec![0, 3], vec![1, 2]]);
        assert_eq!(deal(&[16.0, 8.0, 1.0, 1.0, 1.0, 1.0], 2), [vec![0, 4, 5], vec![1, 2, 3]]);
        // The unit does not matter, equal ones go to the first part.
        assert_eq!(deal(&[8e-300, 4e-300, 2e-300, 1e-300], 2), [vec![0, 3], vec![1, 2]]);
        assert_eq!(deal(&[1.0; 4], 4), [[0], [1], [2], [3]]);
        // Nothing below rounding decides anything.
        assert_eq!(deal(&[4.0, 2.0, 1e-20, 0.0], 2), [vec![0, 3], vec![1, 2]]);
        assert_eq!(deal(&[0.0; 4], 2), [vec![0, 1], vec![2, 3]]);
        // Products beyond f64.
        let steep: Vec<f64> = (0..64).map(|i| 1e13 * 0.7f64.powi(i)).collect();
        let parts = deal(&steep, 2);
        let middle = |part: &[usize]| part.iter().sum::<usize>() as f64 / 32.0;
        assert!((middle(&parts[0]) - middle(&parts[1])).abs() <= 1.0, "{parts:?}");
        assert!(deal(&[], 3).iter().all(Vec::is_empty));
    }
}
