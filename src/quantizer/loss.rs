//! The losses of a vector quantizer and their gradients, for training loops that have no automatic ones.

use crate::backend::{SENTINEL, Sums, accumulate, check_columns, check_labels, check_len};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use rayon::prelude::*;

/// What the two losses between vectors z and their codewords z_q weigh; sg is the stop-gradient. An f64 is the beta of
/// [`VqLoss::Standard`].
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, MatrixView, VqLoss, quantize};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 4.0], 2, 1)?, &Device::cpu())?;
/// let z = MatrixView::new(&[1.0f32, 5.0], 2, 1)?;
/// let loss = |loss: VqLoss| quantize(z, &codebook, loss, AssignOptions::default()).map(|q| q.loss);
/// assert_eq!(loss(VqLoss::Standard { beta: 0.25 })?, 1.0 + 0.25);
/// assert_eq!(loss(VqLoss::Legacy { beta: 0.25 })?, 0.25 + 1.0); // the same value, other gradients
/// assert_eq!(loss(VqLoss::Ema { beta: 0.25 })?, 0.25);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum VqLoss {
    /// mean (z_q - sg(z))^2 + beta mean (sg(z_q) - z)^2: equation 3 of VQ-VAE; taming-transformers with `legacy=False`.
    Standard {
        /// The weight of the commitment loss; VQ-VAE and VQGAN take 0.25.
        beta: f64,
    },
    /// beta mean (z_q - sg(z))^2 + mean (sg(z_q) - z)^2: what taming-transformers computes with `legacy=True`, its
    /// default, and so what published VQGAN models were trained with.
    Legacy {
        /// The weight of the codebook loss.
        beta: f64,
    },
    /// beta mean (sg(z_q) - z)^2 alone, where an [`EmaCodebook`](crate::EmaCodebook) moves the codewords.
    Ema {
        /// The weight of the commitment loss.
        beta: f64,
    },
}

impl From<f64> for VqLoss {
    fn from(beta: f64) -> VqLoss {
        VqLoss::Standard { beta }
    }
}

impl VqLoss {
    /// The weights of the codebook loss and of the commitment loss.
    pub(super) fn weights(self, op: &'static str) -> Result<(f64, f64)> {
        let (VqLoss::Standard { beta } | VqLoss::Legacy { beta } | VqLoss::Ema { beta }) = self;
        if !(beta >= 0.0 && beta.is_finite()) {
            let (expected, got) = ("finite and not negative".into(), beta.to_string());
            return Err(Error::InvalidParameter { op, name: "beta", expected, got });
        }
        Ok(match self {
            VqLoss::Standard { beta } => (1.0, beta),
            VqLoss::Legacy { beta } => (beta, 1.0),
            VqLoss::Ema { beta } => (0.0, beta),
        })
    }
}

/// The gradient of the loss with respect to the vectors `z`, `[n, d]`: that of the commitment loss, weight w, and what
/// arrives at z_q, `upstream`, `[n, d]`, which a straight-through estimator hands on as it is:
///
/// g_it = upstream_it + 2 w / (n d) (z_it - e_jt), j the label of row i.
///
/// n counts the rows that have a label, as in the mean; a row labelled [`SENTINEL`] gets what arrives, or zeros. f64,
/// each operation rounded on its own: the factor 2 w / (n d), then difference, product, sum, and at last the rounding
/// to f32. A NaN in a row shows.
///
/// # Errors
/// - [`Error::Shape`] where columns, labels or `upstream` do not fit.
/// - [`Error::CodeOutOfRange`] naming the first label that is neither below k nor [`SENTINEL`].
/// - [`Error::InvalidParameter`] where beta is negative or not finite.
/// - Those of [`Codebook::codewords`].
///
/// ```
/// use codeword::{Codebook, Device, MatrixView, vector_gradient};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 4.0], 2, 1)?, &Device::cpu())?;
/// let z = MatrixView::new(&[1.0f32, 6.0], 2, 1)?;
/// let arrives = MatrixView::new(&[0.5f32, 0.0], 2, 1)?;
/// let gradient = vector_gradient(z, &codebook, &[0, 1], 0.25, Some(arrives))?;
/// assert_eq!(gradient.as_slice(), &[0.5 + 0.25, 0.5]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn vector_gradient<T: Element>(
    z: MatrixView<'_, T>,
    codebook: &Codebook,
    labels: &[u32],
    loss: impl Into<VqLoss>,
    upstream: Option<MatrixView<'_, f32>>,
) -> Result<Matrix<f32>> {
    const OP: &str = "vector_gradient";
    let (_, weight) = loss.into().weights(OP)?;
    let (n, d) = check(OP, z, codebook, labels)?;
    if let Some(upstream) = upstream.filter(|upstream| (upstream.rows(), upstream.cols()) != (n, d)) {
        let got = format!("{} x {}", upstream.rows(), upstream.cols());
        return Err(Error::Shape { op: OP, expected: format!("an upstream gradient of {n} x {d}"), got });
    }
    let codewords = codebook.codewords()?;
    let factor = factor(weight, labels.iter().filter(|&&label| label != SENTINEL).count(), d);
    let mut gradient = vec![0.0; n * d];
    let of_row = |wide: &mut Vec<f32>, (i, gradient): (usize, &mut [f32])| {
        if let Some(upstream) = upstream {
            gradient.copy_from_slice(upstream.row(i));
        }
        if labels[i] != SENTINEL {
            let row = T::as_f32(z.row(i), wide).iter().zip(codewords.row(labels[i] as usize));
            for (g, (&z, &e)) in gradient.iter_mut().zip(row) {
                *g = (f64::from(*g) + factor * (f64::from(z) - f64::from(e))) as f32;
            }
        }
    };
    gradient.par_chunks_mut(d).enumerate().with_min_len(rows_of_a_task(d)).for_each_init(Vec::new, of_row);
    Matrix::new(gradient, n, d)
}

/// The gradient of the loss with respect to the codewords, `[k, d]`: that of the codebook loss, weight w, gathered from
/// the vectors `z`, `[n, d]`, by their labels:
///
/// g_jt = 2 w / (n d) (n_j e_jt - s_jt), n_j and s_jt count and sum of the rows labelled j as [`accumulate`] adds them.
///
/// n counts the rows that have a label. f64, each operation rounded on its own: the factor, the product n_j e_jt, then
/// difference, product, and at last the rounding to f32; the same bits with every instruction set and thread count. A
/// NaN in a row shows.
///
/// # Errors
/// - Those of [`vector_gradient`] and [`accumulate`].
///
/// ```
/// use codeword::{Codebook, Device, MatrixView, codebook_gradient};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 4.0], 2, 1)?, &Device::cpu())?;
/// let z = MatrixView::new(&[1.0f32, 6.0, 3.0, 4.0], 4, 1)?;
/// let gradient = codebook_gradient(z, &codebook, &[0, 1, 1, 1], 0.25)?;
/// assert_eq!(gradient.as_slice(), &[-0.5, -0.5]); // 2 / 4 x (0 - 1), 2 / 4 x (3 x 4 - 13)
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn codebook_gradient<T: Element>(
    z: MatrixView<'_, T>,
    codebook: &Codebook,
    labels: &[u32],
    loss: impl Into<VqLoss>,
) -> Result<Matrix<f32>> {
    const OP: &str = "codebook_gradient";
    let (weight, _) = loss.into().weights(OP)?;
    let (_, d) = check(OP, z, codebook, labels)?;
    let Sums { counts, sums, .. } = accumulate(z, labels, None, codebook.k())?;
    let codewords = codebook.codewords()?;
    let factor = factor(weight, counts.iter().sum::<u64>() as usize, d);
    let mut gradient = vec![0.0; sums.len()];
    let of_codeword = |(j, (gradient, sums)): (usize, (&mut [f32], &[f64]))| {
        for (g, (&e, &sum)) in gradient.iter_mut().zip(codewords.row(j).iter().zip(sums)) {
            *g = (factor * (counts[j] as f64 * f64::from(e) - sum)) as f32;
        }
    };
    let of_codewords = gradient.par_chunks_mut(d).zip(sums.par_chunks(d)).enumerate();
    of_codewords.with_min_len(rows_of_a_task(d)).for_each(of_codeword);
    Matrix::new(gradient, codebook.k(), d)
}

/// Rows and columns of `z`, which fit, as do the labels.
fn check<T: Element>(
    op: &'static str,
    z: MatrixView<'_, T>,
    codebook: &Codebook,
    labels: &[u32],
) -> Result<(usize, usize)> {
    check_columns(op, z.cols(), codebook)?;
    check_len(op, "labels", z.rows(), labels.len())?;
    check_labels(op, labels, codebook.k())?;
    Ok((z.rows(), z.cols()))
}

/// 2 w / (n d), and 0 where there is nothing: the mean is 0 then.
fn factor(weight: f64, n: usize, d: usize) -> f64 {
    if n == 0 { 0.0 } else { 2.0 * weight / (n as f64 * d as f64) }
}

/// About 64 KiB of f32.
fn rows_of_a_task(d: usize) -> usize {
    (16 * 1024 / d).max(1)
}
