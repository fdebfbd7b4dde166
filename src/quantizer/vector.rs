//! The vector quantizer as VQ-VAE and VQGAN use it: codewords in place of vectors, and the losses between them.

use crate::backend::{AssignOptions, Assignment, assign, decode};
use crate::codebook::Codebook;
use crate::error::Result;
use crate::matrix::{Element, Matrix, MatrixView};
use crate::metrics::metrics;
use crate::quantizer::loss::VqLoss;

/// What [`quantize`] returns. With sg the stop-gradient, both losses have the value of the L2 loss; they differ in
/// what they pull: the codewords, or the vectors.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The nearest codewords themselves, `[n, d]`: what a straight-through estimator hands on, without the rounding of
    /// z + sg(z_q - z). Its gradient goes to z as it is: see [`vector_gradient`](crate::vector_gradient).
    pub z_q: Matrix<f32>,
    /// Labels and squared distances.
    pub assignment: Assignment,
    /// mean (z_q - z)^2 over all elements: the L2 loss, one number.
    pub mse: f64,
    /// mean (z_q - sg(z))^2 times its weight, which moves codewords to their vectors.
    pub codebook_loss: f64,
    /// mean (sg(z_q) - z)^2 times its weight, beta as a rule, which commits vectors to their codewords.
    pub commitment_loss: f64,
    /// Both together.
    pub loss: f64,
}

impl Quantized {
    /// With the losses that follow from `mse` and the weights of codebook and commitment loss.
    pub(super) fn new(z_q: Matrix<f32>, assignment: Assignment, mse: f64, weights: (f64, f64)) -> Quantized {
        let (codebook_loss, commitment_loss) = (weights.0 * mse, weights.1 * mse);
        Quantized { z_q, assignment, mse, codebook_loss, commitment_loss, loss: codebook_loss + commitment_loss }
    }
}

/// Replaces every row of `z`, `[n, d]`, by its nearest codeword (van den Oord, Vinyals, Kavukcuoglu 2017,
/// equations 2 and 3).
///
/// `loss` says what the losses weigh; an f64 is the beta of VQ-VAE and VQGAN, 0.25 as a rule. Means are f64, of f64 differences, in an
/// order that depends on n and d alone. Sentinel rows are NaN in `z_q` and left out of the means.
///
/// # Errors
/// - [`Error::InvalidParameter`](crate::Error::InvalidParameter) where beta is negative or not finite.
/// - Those of [`assign`].
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, MatrixView, quantize};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 0.0, 1.0, 1.0], 2, 2)?, &Device::cpu())?;
/// let z = MatrixView::new(&[0.5f32, 0.0, 1.0, 1.5], 2, 2)?;
/// let q = quantize(z, &codebook, 0.25, AssignOptions::default())?;
/// assert_eq!(q.z_q.as_slice(), &[0.0, 0.0, 1.0, 1.0]);
/// assert_eq!((q.mse, q.codebook_loss, q.commitment_loss), (0.125, 0.125, 0.03125));
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn quantize<T: Element>(
    z: MatrixView<'_, T>,
    codebook: &Codebook,
    loss: impl Into<VqLoss>,
    options: AssignOptions,
) -> Result<Quantized> {
    let weights = loss.into().weights("quantize")?;
    let assignment = assign(z, codebook, options)?;
    let mse = metrics(z, codebook, &assignment.labels)?.mse;
    let z_q = decode(&assignment.labels, codebook)?;
    Ok(Quantized::new(z_q, assignment, mse, weights))
}
