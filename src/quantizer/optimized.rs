//! Optimized product quantization: a product quantizer behind a rotation that is learned with it (Ge, He, Ke, Sun 2013).

use super::product::{ProductFit, ProductQuantizer, of_whole_rows};
use super::rotation::{Learned, alternate, none, principal, rotated};
use crate::backend::{AssignStats, checked_len, gram, multiply_into};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kmeans::{KMeans, SourceFit, Step};
use crate::matrix::{Element, Matrix, MatrixView};
use crate::search::Neighbors;

/// Vectors that are rotated at a time.
const BLOCK: usize = 16384;
/// How far the products of the columns of a rotation may be from 0 and 1.
const TOLERANCE: f64 = 1e-5;

/// A rotation R, `[d, d]`, and a [`ProductQuantizer`] of rotated vectors x R. Distances stay what they are, but what goes
/// together can come to lie in one part: where dimensions are correlated, codes of the same length lose less.
///
/// Each component of a rotated vector is sum_t x_t R_tj in f64, from t = 0 on, of exact products, every addition rounded on
/// its own, and then rounded to f32: the same bits with every instruction set, thread count and device. So are codes, and
/// what is learned.
///
/// ```
/// use codeword::{Device, KMeans, MatrixView, OptimizedProductQuantizer};
/// // Dimensions 0 and 2 go together, and 1 and 3.
/// let row = |i: usize| [(i % 16) as f32, (i / 16) as f32, (i % 16) as f32 + 0.5, (i / 16) as f32];
/// let values: Vec<f32> = (0..256).flat_map(row).collect();
/// let x = MatrixView::new(&values, 256, 4)?;
///
/// let quantizer = OptimizedProductQuantizer::train(x, 2, &KMeans::new(16), 20, &Device::best())?;
/// let codes = quantizer.encode(x)?;
/// let nearest = quantizer.search(&codes, MatrixView::new(&values[..4], 1, 4)?, 1)?;
/// let decoded = quantizer.decode(&codes)?;
/// assert!((decoded.as_slice()[nearest.ids[0] as usize * 4] - values[0]).abs() < 1.0);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone)]
pub struct OptimizedProductQuantizer {
    rotation: Matrix<f32>,
    /// Its transpose: the way back.
    back: Matrix<f32>,
    product: ProductQuantizer,
}

/// What [`OptimizedProductQuantizer::train_with`] learned.
#[derive(Clone)]
pub struct OptimizedFit {
    /// Rotation and sub-quantizers.
    pub quantizer: OptimizedProductQuantizer,
    /// Sum of the squared errors of all rows: of what they are decoded to, in f64; infinite where one leaves f32.
    pub sq_error: f64,
    /// How each sub-quantizer was learned last: of rows as the rotation that is kept turns them.
    pub parts: Vec<SourceFit>,
    /// How many rows each tier settled, in all passes of all rounds together.
    pub stats: AssignStats,
}

impl OptimizedProductQuantizer {
    /// A given rotation, `[d, d]`, and a quantizer of vectors that it has rotated. faiss keeps the transpose of R.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the rotation is not d x d.
    /// - [`Error::NonFinite`] naming its first row that holds a NaN or an infinity.
    /// - [`Error::InvalidParameter`] where it is not orthogonal: an entry of R^T R is more than 10^-5 from that of the
    ///   identity.
    pub fn new(rotation: Matrix<f32>, product: ProductQuantizer) -> Result<OptimizedProductQuantizer> {
        const OP: &str = "OptimizedProductQuantizer::new";
        let d = product.d();
        if (rotation.rows(), rotation.cols()) != (d, d) {
            let (expected, got) = (
                format!("a rotation of {d} x {d}, as the quantizer has {d} dimensions"),
                format!("{} x {}", rotation.rows(), rotation.cols()),
            );
            return Err(Error::Shape { op: OP, expected, got });
        }
        check_finite(OP, "row of the rotation", "train the rotation again", &rotation)?;
        let products = gram(rotation.view(), || Ok::<(), Error>(()))?;
        let off = |at: usize| (products[at] - f64::from(at.is_multiple_of(d + 1))).abs();
        let worst = (0..d * d).fold(0, |worst, at| if off(at) > off(worst) { at } else { worst });
        if off(worst) > TOLERANCE {
            let expected = format!("orthogonal: its columns of length 1, their products 0, to within {TOLERANCE}");
            let got = format!("{} for columns {} and {}", products[worst], worst / d, worst % d);
            return Err(Error::InvalidParameter { op: OP, name: "rotation", expected, got });
        }
        OptimizedProductQuantizer::of(rotation, product)
    }

    /// Of a rotation that is known to be one.
    fn of(rotation: Matrix<f32>, product: ProductQuantizer) -> Result<OptimizedProductQuantizer> {
        let (d, r) = (rotation.cols(), rotation.as_slice());
        let back = Matrix::new((0..d * d).map(|at| r[at % d * d + at / d]).collect(), d, d)?;
        Ok(OptimizedProductQuantizer { rotation, back, product })
    }

    /// Learns rotation and m sub-quantizers from the rows of `x`, `[n, d]`.
    ///
    /// A product quantizer is trained as [`ProductQuantizer::train`] does, with these parameters. From it, and from another
    /// one that is trained on the principal components of the rows, dealt out to the parts so that the products of their
    /// variances are alike, rotation and codewords are made to fit each other: `outer` times the codewords move, once and by
    /// all rows, and then the rotation becomes the best for them (the non-parametric solution of the paper). 20 times is
    /// plenty as a rule. Of the first quantizer, without a rotation, and the best on either way, the one with the least
    /// squared error over the rows of `x` is kept, the first among equals: never one that is worse than
    /// [`ProductQuantizer::train`] gives. With one part no rotation changes anything, and none is sought.
    ///
    /// All rows are used: some 10,000 to 100,000 of many are enough, but have to be picked by the caller. Each of the 2
    /// `outer` steps takes n d^2 multiplications in f64, two assignments of all rows in every part, and for the rotation as many
    /// multiplications again and about 28 d^3; the principal components take as long as a few rotations. Memory beside `x`:
    /// 8 n d bytes, 8 m n, 88 d^2, 8 KiB times d, and what [`KMeans::fit`] takes for one part.
    ///
    /// # Errors
    /// - Those of [`ProductQuantizer::train`], in its name.
    pub fn train<T: Element>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        outer: usize,
        device: &Device,
    ) -> Result<OptimizedProductQuantizer> {
        let fit = OptimizedProductQuantizer::train_with(x, m, params, outer, device, |_, _, _| Ok::<(), Error>(()))?;
        Ok(fit.quantizer)
    }

    /// [`OptimizedProductQuantizer::train`], told step by step: an error of `observe` ends the training and is handed back.
    /// It is given the round and the sub-quantizer that is learned in it. Round 0 learns without a rotation, rounds 1 to
    /// `outer` + 1 move the codewords for one rotation after the other; `outer` + 2 learns on the principal components, and
    /// as many rounds follow. Rounds that would change nothing are left out.
    ///
    /// # Errors
    /// - Those of [`OptimizedProductQuantizer::train`] and of `observe`.
    pub fn train_with<T: Element, E: From<Error> + Send>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        outer: usize,
        device: &Device,
        mut observe: impl FnMut(usize, usize, Step) -> Result<(), E>,
    ) -> Result<OptimizedFit, E> {
        checked_len("OptimizedProductQuantizer::train", x.cols(), x.cols())?;
        let ProductFit { quantizer: plain, parts } =
            ProductQuantizer::train_with(x, m, params, device, |part, step| observe(0, part, step))?;
        let mut stats = total(&parts);
        let quantizer = OptimizedProductQuantizer::of(none(x.cols())?, plain.clone())?;
        let mut best = OptimizedFit { sq_error: quantizer.sq_error(x)?, quantizer, parts, stats };
        if m == 1 {
            return Ok(best);
        }
        let mut consider = |learned: Option<Learned>| {
            let Some(Learned { rotation, parts, stats, .. }) = learned else { return Ok(AssignStats::default()) };
            let codebooks = parts.iter().map(|part| part.codebook.clone()).collect();
            let quantizer = OptimizedProductQuantizer::of(rotation, plain.with_codebooks(codebooks))?;
            let sq_error = quantizer.sq_error(x)?;
            if sq_error < best.sq_error {
                best = OptimizedFit { quantizer, sq_error, parts, stats };
            }
            Ok::<_, Error>(stats)
        };
        stats += consider(alternate(x, none(x.cols())?, plain.clone(), outer, device, |turn, part, step| {
            observe(1 + turn, part, step)
        })?)?;
        let principal = principal(x, m, || observe(outer + 2, 0, Step::Rotation))?;
        if let Some(rows) = rotated(x, &principal)? {
            let told = |part, step| observe(outer + 2, part, step);
            let ProductFit { quantizer: product, parts } =
                ProductQuantizer::train_with(rows.view(), m, params, device, told)?;
            drop(rows);
            stats += total(&parts);
            stats += consider(alternate(x, principal, product, outer, device, |turn, part, step| {
                observe(outer + 3 + turn, part, step)
            })?)?;
        }
        Ok(OptimizedFit { stats, ..best })
    }

    /// R, `[d, d]`.
    pub fn rotation(&self) -> &Matrix<f32> {
        &self.rotation
    }

    /// The quantizer of rotated vectors.
    pub fn product(&self) -> &ProductQuantizer {
        &self.product
    }

    /// The rows of `x`, `[n, d]`, rotated, `[n, d]`.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `x` has not d columns.
    /// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity, or that leaves f32 when it is rotated.
    pub fn rotate<T: Element>(&self, x: MatrixView<'_, T>) -> Result<Matrix<f32>> {
        self.rotate_rows("OptimizedProductQuantizer::rotate", x)
    }

    fn rotate_rows<T: Element>(&self, op: &'static str, x: MatrixView<'_, T>) -> Result<Matrix<f32>> {
        self.product.check_columns(op, x.cols())?;
        times(op, "rotated vector", x, &self.rotation).map_err(|error| match error {
            // A row that is finite, and leaves f32, is the first: one that is not would have been named before.
            Error::NonFinite { row, .. } if x.row(row).iter().all(|value| value.to_f32().is_finite()) => error,
            error => of_whole_rows(op, x, 0, error),
        })
    }

    /// The codes of the rows of `x`, `[n, d]`: those of [`ProductQuantizer::encode`] of the rotated rows, 16,384 of which are
    /// in memory at a time.
    ///
    /// # Errors
    /// - Those of [`rotate`](OptimizedProductQuantizer::rotate).
    /// - [`Error::Cuda`] where a device fails.
    pub fn encode<T: Element>(&self, x: MatrixView<'_, T>) -> Result<Vec<u8>> {
        const OP: &str = "OptimizedProductQuantizer::encode";
        self.product.check_columns(OP, x.cols())?;
        let mut codes = Vec::with_capacity(checked_len(OP, x.rows(), self.product.code_size())?);
        for first in (0..x.rows()).step_by(BLOCK) {
            let rows = x.block(first..x.rows().min(first + BLOCK));
            let rotated = self.rotate_rows(OP, rows).map_err(|error| error.of_part_at(first, 0))?;
            codes.extend(self.product.encode(rotated.view())?);
        }
        Ok(codes)
    }

    /// The vectors that `codes` stand for, `[n, d]`: those of [`ProductQuantizer::decode`], rotated back by the transpose of
    /// R, each component as [`rotate`](OptimizedProductQuantizer::rotate) makes its own.
    ///
    /// # Errors
    /// - Those of [`ProductQuantizer::decode`], in its name.
    /// - [`Error::NonFinite`] naming the first vector that leaves f32 when it is rotated back.
    pub fn decode(&self, codes: &[u8]) -> Result<Matrix<f32>> {
        let decoded = self.product.decode(codes)?;
        times("OptimizedProductQuantizer::decode", "decoded vector", decoded.view(), &self.back)
    }

    /// The `r` codes nearest to each query, `[n, d]`: those that [`ProductQuantizer::search`] finds for the rotated queries,
    /// which take 4 n d bytes.
    ///
    /// # Errors
    /// - Those of [`rotate`](OptimizedProductQuantizer::rotate), and those of [`ProductQuantizer::search`], in its name.
    pub fn search<T: Element>(&self, codes: &[u8], queries: MatrixView<'_, T>, r: usize) -> Result<Neighbors> {
        let rotated = self.rotate_rows("OptimizedProductQuantizer::search", queries)?;
        self.product.search(codes, rotated.view(), r)
    }

    /// The squared error of all rows of `x`, in f64, row after row; infinite where a vector leaves f32 on the way.
    fn sq_error<T: Element>(&self, x: MatrixView<'_, T>) -> Result<f64> {
        let mut sum = 0.0;
        for first in (0..x.rows()).step_by(BLOCK) {
            let rows = x.block(first..x.rows().min(first + BLOCK));
            let decoded = match self.encode(rows).and_then(|codes| self.decode(&codes)) {
                Err(Error::NonFinite { .. }) => return Ok(f64::INFINITY),
                decoded => decoded?,
            };
            for (i, decoded) in decoded.as_slice().chunks_exact(x.cols()).enumerate() {
                for (x, y) in rows.row(i).iter().zip(decoded) {
                    let difference = f64::from(x.to_f32()) - f64::from(*y);
                    sum += difference * difference;
                }
            }
        }
        Ok(sum)
    }
}

fn total(parts: &[SourceFit]) -> AssignStats {
    parts.iter().fold(AssignStats::default(), |sum, part| sum + part.stats)
}

/// The rows of `x` times `by`, all of them finite: else the first that is not is named as `what`.
fn times<T: Element>(
    op: &'static str,
    what: &'static str,
    x: MatrixView<'_, T>,
    by: &Matrix<f32>,
) -> Result<Matrix<f32>> {
    let (n, d) = (x.rows(), by.cols());
    let mut out = vec![0.0; checked_len(op, n, d)?];
    multiply_into(T::any(x), by.view(), None, &mut out)?;
    let out = Matrix::new(out, n, d)?;
    check_finite(op, what, "scale the vectors down, so that their lengths stay within f32", &out)?;
    Ok(out)
}

fn check_finite(op: &'static str, what: &'static str, way_out: &'static str, matrix: &Matrix<f32>) -> Result<()> {
    match matrix.as_slice().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, col, got) = (at / matrix.cols(), at % matrix.cols(), matrix.as_slice()[at]);
            Err(Error::NonFinite { op, what, row, col, got, way_out })
        }
    }
}
