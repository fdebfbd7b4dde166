//! Stages of a residual quantizer with what codecs put around their codebooks: projections, and lookup by cosine.

use super::packed;
use super::product::Stop;
use super::projection::Projection;
use super::residual::{add, of_residual, subtract};
use crate::backend::{AssignOptions, assign_into, checked_len, decode_into, normalize_where};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{AnyView, Element, Matrix, MatrixView, on_view};

/// One stage of a [`ResidualQuantizer`](crate::ResidualQuantizer), or several that share what is around them: a projection of
/// the vectors before the first and one of the sum behind the last, both optional, and lookup by cosine where asked for.
///
/// Stages take a vector x of d dimensions to z of as many. With weights W of `[w, d]` and V of `[d, w]`, biases b and c, and
/// codewords of w dimensions:
///
/// - r = W x + b, or x where nothing projects it;
/// - every stage takes the codeword e nearest to r, then r becomes r - e. By cosine that is the codeword whose direction is
///   nearest to the direction of r, which is to say the one with the largest cosine; e itself keeps its length;
/// - z = V (e_0 + e_1 + ...) + c, or that sum where nothing projects it.
///
/// The quantizer takes z off x and hands what is left to the next [`Stages`]; x is the sum of all z. The kinds of codecs:
///
/// | | stages |
/// |---|---|
/// | EnCodec, SoundStream | [`ResidualQuantizer::new`](crate::ResidualQuantizer::new) |
/// | DAC | for each codebook its own projections, and cosines |
/// | Mimi | a semantic stage and some acoustic ones, each of both behind projections of its own and [on the vectors](Stages::on_vectors) |
///
/// # In bits
///
/// A component of a projected vector is sum_t w_jt x_t in f64, from t = 0 on, of exact products, every addition rounded on its
/// own, then b_j is added, and that is rounded to f32. Directions are those of [`normalize`](crate::normalize), of codewords and
/// of vectors, and labels are exact for them. Residuals and sums are made in f32 as in a quantizer without any of this. So
/// codes and decoded vectors are the same bytes with every instruction set, thread count and device. The processor projects
/// and normalises; labels and codewords come from the device of the codebooks.
///
/// ```
/// use codeword::{Device, MatrixView, ResidualQuantizer, Stages};
/// let device = Device::cpu();
/// // Weights that take 3 dimensions to 2 and back.
/// let down = MatrixView::new(&[1.0f32, 0.0, 0.0, 0.0, 1.0, 0.0], 2, 3)?;
/// let up = MatrixView::new(&[1.0f32, 0.0, 0.0, 1.0, 0.0, 0.0], 3, 2)?;
///
/// // As in DAC: each stage has its own way down and up, with biases, and compares directions.
/// let stage = |codewords: &[f32]| {
///     let stage = Stages::new(MatrixView::new(codewords, 3, 2)?, 1, &device)?.cosine()?;
///     stage.project_in(down, Some(&[0.5, 0.0]))?.project_out(up, Some(&[0.0, 0.0, 1.0]))
/// };
/// let coarse = stage(&[4.0, 0.0, 0.0, 3.0, -5.0, 0.0])?;
/// let fine = stage(&[0.5, 0.0, 0.0, 0.5, 0.0, -0.5])?;
/// let quantizer = ResidualQuantizer::from_stages(vec![coarse, fine])?;
/// let codes = quantizer.encode(MatrixView::new(&[0.0f32, 7.0, 2.0], 1, 3)?)?;
/// // (0.5, 7) goes along (0, 3). What is left is (0, 4, 1), of which (0.5, 4) goes along (0, 0.5).
/// assert_eq!(quantizer.unpack(&codes)?, [1, 1]);
/// assert_eq!(quantizer.decode(&codes)?.as_slice(), [0.0, 3.5, 2.0]);
///
/// // As in Mimi: one stage, and some others that share their projections, both of the vector; their sum stands for it.
/// let half = |codewords: &[f32], m: usize| {
///     let stages = Stages::new(MatrixView::new(codewords, 2 * m, 2)?, m, &device)?;
///     stages.project_in(down, None)?.project_out(up, None)
/// };
/// let semantic = half(&[0.0, 0.0, 0.0, 4.0], 1)?;
/// let acoustic = half(&[0.0, 0.0, 2.0, 2.0, 0.0, 1.0, 1.0, 0.0], 2)?.on_vectors();
/// let quantizer = ResidualQuantizer::from_stages(vec![semantic, acoustic])?;
/// let codes = quantizer.encode(MatrixView::new(&[2.0f32, 3.0, 9.0], 1, 3)?)?;
/// assert_eq!(quantizer.unpack(&codes)?, [1, 1, 0]); // (0, 4), and (2, 2) + (0, 1)
/// assert_eq!(quantizer.decode(&codes)?.as_slice(), [2.0, 7.0, 0.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone)]
pub struct Stages {
    codebooks: Vec<Codebook>,
    /// By cosine: codebooks of the directions of the codewords, among which labels are sought.
    directions: Option<Vec<Codebook>>,
    input: Option<Projection>,
    output: Option<Projection>,
    on_vectors: bool,
}

impl Stages {
    /// Stages with given codebooks, one after the other in `codewords`, `[m k, w]`, with nothing around them.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where m does not divide the number of codewords, or k is not 1 to 65,536.
    /// - Those of [`Codebook::new`]; a codeword that is not finite is named by its row of `codewords`.
    pub fn new<T: Element>(codewords: MatrixView<'_, T>, m: usize, device: &Device) -> Result<Stages> {
        let (codebooks, _) = packed::codebooks("Stages::new", codewords, m, device)?;
        Ok(Stages { codebooks, directions: None, input: None, output: None, on_vectors: false })
    }

    /// One stage with that codebook and nothing around it.
    pub(super) fn plain(codebook: Codebook) -> Stages {
        Stages { codebooks: vec![codebook], directions: None, input: None, output: None, on_vectors: false }
    }

    /// Seeks codewords by cosine: among their directions, of which that of a vector is as near as its cosine with them is
    /// large. A vector of zeros has none: its cosines count as equal, and it gets codeword 0.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] naming the first codeword of zeros.
    /// - [`Error::Cuda`] where the device has no memory left.
    pub fn cosine(mut self) -> Result<Stages> {
        const OP: &str = "Stages::cosine";
        let direction = |(s, codebook): (usize, &Codebook)| {
            let codewords = codebook.codewords()?;
            if let Some(j) = (0..codewords.rows()).find(|&j| is_zero(codewords.row(j))) {
                let expected =
                    "free of zeros, which have no direction; write a copy of another codeword over it, which is never chosen \
                                where it is a later one"
                        .into();
                let got = format!("zeros in row {}", s * codewords.rows() + j);
                return Err(Error::InvalidParameter { op: OP, name: "codewords", expected, got });
            }
            Codebook::new(normalize_where(OP, codewords, |_| true)?.view(), codebook.device())
        };
        self.directions = Some(self.codebooks.iter().enumerate().map(direction).collect::<Result<_>>()?);
        Ok(self)
    }

    /// Projects vectors before the first stage: by `weight`, `[w, d]`, as linear layers and convolutions of width 1 keep
    /// theirs, and by a bias of w values.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the weight has not as many rows as codewords have dimensions, has no columns, or the bias
    ///   has not as many values.
    /// - [`Error::NonFinite`] or [`Error::InvalidParameter`] naming the first NaN or infinity in weight or bias.
    pub fn project_in<T: Element>(mut self, weight: MatrixView<'_, T>, bias: Option<&[f32]>) -> Result<Stages> {
        const OP: &str = "Stages::project_in";
        if weight.rows() != self.width() {
            let expected = format!("a weight of {} rows, as codewords have dimensions", self.width());
            return Err(Error::Shape { op: OP, expected, got: sizes(weight) });
        }
        self.input = Some(Projection::new(OP, weight, bias)?);
        Ok(self)
    }

    /// Projects the sum of the codewords: by `weight`, `[d, w]`, and by a bias of d values.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the weight has not as many columns as codewords have dimensions, has no rows, or the bias
    ///   has not one value for each of these.
    /// - [`Error::NonFinite`] or [`Error::InvalidParameter`] naming the first NaN or infinity in weight or bias.
    pub fn project_out<T: Element>(mut self, weight: MatrixView<'_, T>, bias: Option<&[f32]>) -> Result<Stages> {
        const OP: &str = "Stages::project_out";
        if weight.cols() != self.width() {
            let expected = format!("a weight of {} columns, as codewords have dimensions", self.width());
            return Err(Error::Shape { op: OP, expected, got: sizes(weight) });
        }
        self.output = Some(Projection::new(OP, weight, bias)?);
        Ok(self)
    }

    /// Quantizes the vectors themselves, whatever the stages before leave of them.
    pub fn on_vectors(mut self) -> Stages {
        self.on_vectors = true;
        self
    }

    /// Number of stages.
    pub fn m(&self) -> usize {
        self.codebooks.len()
    }

    pub(super) fn codebooks(&self) -> &[Codebook] {
        &self.codebooks
    }

    /// Dimensions of a codeword.
    pub(super) fn width(&self) -> usize {
        self.codebooks[0].d()
    }

    /// Dimensions of what is quantized, and of what that is decoded to.
    pub(super) fn ends(&self) -> (usize, usize) {
        let or_width = |end: Option<usize>| end.unwrap_or(self.width());
        (or_width(self.input.as_ref().map(Projection::from)), or_width(self.output.as_ref().map(Projection::to)))
    }

    pub(super) fn are_on_vectors(&self) -> bool {
        self.on_vectors
    }

    /// Whether there is nothing around the codebooks.
    pub(super) fn are_plain(&self) -> bool {
        self.directions.is_none() && self.input.is_none() && self.output.is_none() && !self.on_vectors
    }

    /// Goes through the stages with the rows of `x`: `visit` is given the number of a stage, what it quantizes, and its labels,
    /// to read or to write. They are columns in `labels`, `stride` apart.
    pub(super) fn walk<T: Element, E>(
        &self,
        op: &'static str,
        x: MatrixView<'_, T>,
        labels: &mut [u32],
        stride: usize,
        visit: &mut impl FnMut(usize, AnyView<'_>, &mut [u32]) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let (n, width) = (x.rows(), self.width());
        let holds = self.input.is_some() || self.m() > 1;
        let mut left = vec![0.0; if holds { checked_len(op, n, width)? } else { 0 }];
        match &self.input {
            Some(projection) => projection.apply_finite(op, x, &mut left)?,
            None if holds => x.widen_into(&mut left),
            None => {}
        }
        for (s, (labels, codebook)) in labels.chunks_mut(stride).zip(&self.codebooks).enumerate() {
            let labels = &mut labels[..n];
            match (s, &self.input) {
                // As they are: 16-bit vectors need not be widened.
                (0, None) => visit(s, T::any(x), labels)?,
                _ => visit(s, f32::any(MatrixView::new(&left, n, width)?), labels)
                    .map_err(|stop| stop.told(|error| of_residual(op, error)))?,
            }
            if s + 1 < self.m() {
                subtract(&mut left, labels, codebook)?;
            }
        }
        Ok(())
    }

    /// The labels of rows in stage `s`, exactly the nearest.
    pub(super) fn nearest(
        &self,
        op: &'static str,
        s: usize,
        x: AnyView<'_>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> Result<()> {
        let options = AssignOptions::default();
        let Some(directions) = &self.directions else {
            on_view!(x, x => assign_into(x, &self.codebooks[s], options, labels, sq_distances))?;
            return Ok(());
        };
        let (units, zeros) = on_view!(x, x => units(op, x))?;
        assign_into(units.view(), &directions[s], options, labels, sq_distances)?;
        zeros.into_iter().for_each(|row| labels[row] = 0);
        Ok(())
    }

    /// What the labels of the first `stages` of these stand for, in `out`, `[n, d]`. They are columns in `labels`, `stride` apart.
    pub(super) fn decode_into(&self, labels: &[u32], stride: usize, stages: usize, out: &mut [f32]) -> Result<()> {
        let n = out.len() / self.ends().1;
        match &self.output {
            None => self.sum_into(labels, stride, stages, n, out),
            Some(projection) => {
                let mut sum = vec![0.0; n * self.width()];
                self.sum_into(labels, stride, stages, n, &mut sum)?;
                projection.apply(MatrixView::new(&sum, n, self.width())?, out)
            }
        }
    }

    fn sum_into(&self, labels: &[u32], stride: usize, stages: usize, n: usize, sum: &mut [f32]) -> Result<()> {
        let mut part = vec![0.0; if stages > 1 { sum.len() } else { 0 }];
        for (s, (labels, codebook)) in labels.chunks(stride).zip(&self.codebooks[..stages]).enumerate() {
            if s == 0 {
                decode_into(&labels[..n], codebook, sum)?;
            } else {
                decode_into(&labels[..n], codebook, &mut part)?;
                add(sum, &part);
            }
        }
        Ok(())
    }
}

/// The directions of rows, and which rows have none, being zeros: they stay zeros.
fn units<T: Element>(op: &'static str, x: MatrixView<'_, T>) -> Result<(Matrix<f32>, Vec<usize>)> {
    let is_zero = |row: usize| is_zero(x.row(row));
    let (n, width) = (x.rows(), x.cols());
    let mut units = normalize_where(op, x, |row| !is_zero(row))?.into_vec();
    let zeros: Vec<usize> = (0..n).filter(|row| units[row * width].is_nan()).collect();
    zeros.iter().for_each(|row| units[row * width..][..width].fill(0.0));
    Ok((Matrix::new(units, n, width)?, zeros))
}

fn is_zero<T: Element>(row: &[T]) -> bool {
    row.iter().all(|value| value.to_f32() == 0.0)
}

fn sizes<T: Element>(matrix: MatrixView<'_, T>) -> String {
    format!("{} x {}", matrix.rows(), matrix.cols())
}
