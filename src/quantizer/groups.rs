//! Vectors in groups of columns, also called heads, each quantized on its own.

use crate::backend::{AssignOptions, AssignStats, Assignment, assign, decode};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use crate::metrics::metrics;
use crate::quantizer::loss::VqLoss;
use crate::quantizer::vector::Quantized;

/// [`quantize`](crate::quantize) with a codebook for every group of columns of `z`, `[n, d]`: the first takes as many
/// as it has dimensions, the second the next ones, d in all. `codebooks` may hold one codebook several times.
///
/// Labels and distances are `[n, h]` row-major, h codebooks; `z_q` is `[n, d]`. The losses are means over all elements:
/// the sum of the groups' squared differences, group after group, over their number. Gradients are those of the
/// groups' columns ([`vector_gradient`](crate::vector_gradient)) times their share of the n d elements.
///
/// One pass over `z` for every group, each as [`assign`] makes it.
///
/// # Errors
/// - [`Error::Shape`] where there is no codebook, or their dimensions are not d together.
/// - [`Error::NonFinite`] naming the first row of the first group that has a NaN or an infinity in it.
/// - Those of [`quantize`](crate::quantize).
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, Ema, EmaCodebook, MatrixView, quantize, quantize_groups};
/// let values = [0.1f32, 0.0, 0.9, 1.0, 1.1, 0.9, 4.0, 4.5];
/// let z = MatrixView::new(&values, 2, 4)?;
/// let zero_one = Codebook::new(MatrixView::new(&[0.0f32, 0.0, 1.0, 1.0], 2, 2)?, &Device::cpu())?;
/// let five = Codebook::new(MatrixView::new(&[5.0f32, 5.0], 1, 2)?, &Device::cpu())?;
///
/// // Two groups, each with its own codebook, which follows its columns.
/// let q = quantize_groups(z, &[zero_one.clone(), five.clone()], 0.25, AssignOptions::default())?;
/// assert_eq!(q.assignment.labels, [0, 0, 1, 0]);
/// assert_eq!(q.z_q.as_slice(), &[0.0, 0.0, 5.0, 5.0, 1.0, 1.0, 5.0, 5.0]);
/// let mut emas = [Ema::new().start(&zero_one)?, Ema::new().start(&five)?];
/// for (group, ema) in emas.iter_mut().enumerate() {
///     ema.update(z.columns(2 * group..2 * group + 2)?)?;
/// }
///
/// // A codebook that all groups share takes rows without gaps as more and shorter ones.
/// let rows = z.reshape(4, 2)?;
/// let q = quantize(rows, &zero_one, 0.25, AssignOptions::default())?;
/// assert_eq!(q.assignment.labels, [0, 1, 1, 1]); // [n, h] again
/// Ema::new().start(&zero_one)?.update(rows)?;
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn quantize_groups<T: Element>(
    z: MatrixView<'_, T>,
    codebooks: &[Codebook],
    loss: impl Into<VqLoss>,
    options: AssignOptions,
) -> Result<Quantized> {
    const OP: &str = "quantize_groups";
    let weights = loss.into().weights(OP)?;
    let (n, d, h) = (z.rows(), z.cols(), codebooks.len());
    let dimensions: usize = codebooks.iter().map(Codebook::d).sum();
    if h == 0 || dimensions != d {
        let expected = format!("vectors of {dimensions} columns for {h} codebooks, of which there is one at least");
        return Err(Error::Shape { op: OP, expected, got: d.to_string() });
    }
    let (mut labels, mut sq_distances) = (vec![0; n * h], vec![0.0; n * h]);
    let (mut z_q, mut stats) = (vec![0.0; n * d], AssignStats::default());
    let (mut inertia, mut elements, mut start) = (0.0, 0.0, 0);
    for (group, codebook) in codebooks.iter().enumerate() {
        let columns = start..start + codebook.d();
        let part = z.columns(columns.clone())?;
        let nearest = assign(part, codebook, options).map_err(|error| error.of_part_at(0, start))?;
        let of_part = metrics(part, codebook, &nearest.labels)?;
        inertia += of_part.inertia;
        elements += of_part.n as f64 * codebook.d() as f64;
        stats += nearest.stats;
        let codewords = decode(&nearest.labels, codebook)?;
        for i in 0..n {
            labels[i * h + group] = nearest.labels[i];
            sq_distances[i * h + group] = nearest.sq_distances[i];
            z_q[i * d..][columns.clone()].copy_from_slice(codewords.view().row(i));
        }
        start = columns.end;
    }
    let mse = if elements > 0.0 { inertia / elements } else { 0.0 };
    let assignment = Assignment { labels, sq_distances, stats };
    Ok(Quantized::new(Matrix::new(z_q, n, d)?, assignment, mse, weights))
}
