//! The contract: the operations every device offers, as free functions. Each checks shapes and values once, then
//! hands over to the device of the codebook. Nothing above this module knows which device that is, and nothing
//! below it knows what a quantizer is.

mod assignment;
#[doc(hidden)]
pub mod carried;
pub(crate) mod cpu;
pub mod cuda;
#[doc(hidden)]
pub mod preparation;
#[doc(hidden)]
pub mod reference;
pub(crate) mod scan;
#[doc(hidden)]
pub mod sketched;
mod sums;
pub(crate) mod training;

use crate::codebook::{Codebook, Placed};
use crate::error::{Error, Result};
use crate::matrix::{AnyView, Element, Matrix, MatrixView, on_view};
pub use assignment::{AssignOptions, AssignStats, Assignment, NonFinite, Precision, TopK};
pub use cpu::isa::Isa;
pub(crate) use cpu::svd::{Svd, identity};
pub use sums::Sums;
pub(crate) use sums::quotients;

/// The label of a row that holds a NaN or an infinity, under [`NonFinite::Sentinel`]. Decodes to a row of NaN.
pub const SENTINEL: u32 = u32::MAX;

/// The nearest codeword of every row of `x`, `[n, d]`, and the squared distance to it.
///
/// Under [`Precision::Exact`] the label of row i is the lowest j that minimises the real number
/// sum_t (x_it - e_jt)^2 of the stored values, and the distance is that real number rounded to the nearest f32
/// (ties to even; +Inf above `f32::MAX`). Both are functions of the data alone: no order of summation, instruction
/// set, thread count or split into batches changes a bit. Under [`Precision::Fast`] the label may be another
/// codeword within rounding; the distance is still the rounded real one to that codeword.
///
/// One pass over `x`, parallel over the caller's rayon pool; memory beyond the result does not depend on n.
///
/// # Errors
/// - [`Error::Shape`] where `x` has another number of columns than the codewords.
/// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity, unless
///   [`NonFinite::Sentinel`] asks for [`SENTINEL`] labels.
/// - [`Error::Cuda`] where the device refuses, for want of memory say; likewise in the other operations.
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, MatrixView, assign};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 0.0, 1.0, 1.0], 2, 2)?, &Device::cpu())?;
/// let x = MatrixView::new(&[0.9f32, 0.8, 0.5, 0.5], 2, 2)?;
/// let nearest = assign(x, &codebook, AssignOptions::default())?;
/// assert_eq!(nearest.labels, [1, 0]); // the second row is as far from both: the lower index wins
/// assert_eq!(nearest.sq_distances, [0.05, 0.5]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn assign<T: Element>(x: MatrixView<'_, T>, codebook: &Codebook, options: AssignOptions) -> Result<Assignment> {
    let (mut labels, mut sq_distances) = (vec![0; x.rows()], vec![0.0; x.rows()]);
    let stats = assign_into(x, codebook, options, &mut labels, &mut sq_distances)?;
    Ok(Assignment { labels, sq_distances, stats })
}

/// [`assign`] into slices of n values that the caller reuses. After an error their contents are unspecified.
///
/// # Errors
/// - Those of [`assign`], and [`Error::Shape`] where a slice has not one value per row.
pub fn assign_into<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &Codebook,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<AssignStats> {
    const OP: &str = "assign";
    check_columns(OP, x.cols(), codebook)?;
    check_len(OP, "labels", x.rows(), labels.len())?;
    check_len(OP, "distances", x.rows(), sq_distances.len())?;
    let outcome = assign_any(T::any(x), codebook, options, labels, sq_distances)?;
    outcome.map_err(|row| non_finite(OP, x, row, SENTINEL_WAY_OUT))
}

/// The first row that is not finite, where that is an error, in place of an outcome.
type OrRow<T> = std::result::Result<T, usize>;

fn assign_any(
    x: AnyView<'_>,
    codebook: &Codebook,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<OrRow<AssignStats>> {
    match codebook.placed() {
        Placed::Cpu(host) => Ok(on_view!(x, x => host.assign(x, options, labels, sq_distances))),
        #[cfg(feature = "cuda")]
        Placed::Cuda(resident) => {
            on_view!(x, x => cuda::streamed::assign::assign(x, resident, options, labels, sq_distances))
        }
    }
}

/// The codes of the rows of `x`, whose columns are those of the codebooks side by side, all of as many dimensions: the
/// labels of their parts, `bits` each from the lowest on, one after the other in whole bytes. None where the processor does
/// it, which is as fast part by part.
///
/// # Errors
/// - [`Error::Shape`] where `codes` has not as many bytes.
/// - [`Error::Cuda`] where a device fails.
pub(crate) fn encode_parts(
    x: AnyView<'_>,
    codebooks: &[Codebook],
    bits: u32,
    codes: &mut [u8],
) -> Result<Option<OrRow<()>>> {
    let code_size = codebooks.len().saturating_mul(bits as usize).div_ceil(8);
    let n = on_view!(&x, x => x.rows());
    check_len("encode", "bytes of codes", n.saturating_mul(code_size), codes.len())?;
    #[cfg(feature = "cuda")]
    {
        let residents = codebooks.iter().map(|codebook| match codebook.placed() {
            Placed::Cpu(_) => None,
            Placed::Cuda(resident) => Some(&**resident),
        });
        let residents: Option<Vec<_>> = residents.collect();
        if let Some(residents) = residents {
            return on_view!(x, x => cuda::streamed::encode_parts::encode_parts(x, &residents, bits, codes)).map(Some);
        }
    }
    let _ = (x, codebooks, bits, codes);
    Ok(None)
}

/// The `r` nearest codewords of every row of `x`, nearest first, equal distances by index.
///
/// Order and distances are those of the real numbers, as in [`assign`]; repeated codewords all appear.
///
/// In the counts of [`TopK::stats`], `first` are the rows for which the filter pass left exactly r candidates, `f64`
/// those with more, `exact` those whose order took exact sums; there is no second look here.
///
/// One pass over `x`, in blocks. On the CPU the candidates of a row, r and few more as a rule, are sorted. On a CUDA
/// device a row takes 16 k bytes while its block is there, and each candidate is compared with every other: r^2
/// comparisons a row are nothing for tens and thousands of times the filter pass for r in the ten thousands.
///
/// # Errors
/// - [`Error::InvalidParameter`] where `r` is 0 or above k.
/// - Those of [`assign`].
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, MatrixView, top_k};
/// let codebook = Codebook::new(MatrixView::new(&[4.0f32, 1.0, 2.0], 3, 1)?, &Device::cpu())?;
/// let nearest = top_k(MatrixView::new(&[1.5f32], 1, 1)?, &codebook, 3, AssignOptions::default())?;
/// assert_eq!(nearest.labels, [1, 2, 0]);
/// assert_eq!(nearest.sq_distances, [0.25, 0.25, 6.25]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn top_k<T: Element>(x: MatrixView<'_, T>, codebook: &Codebook, r: usize, options: AssignOptions) -> Result<TopK> {
    const OP: &str = "top_k";
    check_columns(OP, x.cols(), codebook)?;
    check_r(OP, r, codebook.k())?;
    let len = checked_len(OP, x.rows(), r)?;
    let (mut labels, mut sq_distances) = (vec![0; len], vec![0.0; len]);
    let outcome = top_k_any(T::any(x), codebook, r, options, &mut labels, &mut sq_distances)?;
    let stats = outcome.map_err(|row| non_finite(OP, x, row, SENTINEL_WAY_OUT))?;
    Ok(TopK { r, labels, sq_distances, stats })
}

fn top_k_any(
    x: AnyView<'_>,
    codebook: &Codebook,
    r: usize,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<OrRow<AssignStats>> {
    match codebook.placed() {
        Placed::Cpu(host) => {
            let (codewords, panels) = (host.codewords.view(), host.panels());
            Ok(on_view!(x, x => cpu::top_k::top_k(x, codewords, panels, r, options, labels, sq_distances)))
        }
        #[cfg(feature = "cuda")]
        Placed::Cuda(resident) => {
            on_view!(x, x => cuda::streamed::top_k::top_k(x, resident, r, options, labels, sq_distances))
        }
    }
}

/// The squared Euclidean distance of every row of `x`, `[n, d]`, to every codeword, `[k, d]`: a matrix, `[n, k]`.
///
/// **Not an L2 loss.** This is n x k numbers, one per pair, for looking at neighbourhoods, soft assignments or
/// other programs' argmin; it takes 4 n k bytes. An L2 loss compares each vector with one other, its own codeword,
/// and is a single number: see [`crate::quantize`] and [`crate::Metrics`], which never form this matrix. For labels
/// use [`assign`]: the lowest entry of a rounded row need not be the nearest codeword.
///
/// Under [`Precision::Fast`] each entry is max(0, |x'|^2 + |e'|^2 - 2 x'.e') in f32, where x' and e' are taken
/// relative to the mean of the codewords if that shortens them. It is within
/// (d + 16) 2^-24 (|x| + 3 max_j |e_j|)^2 of the real number (plus 2^-126 for underflow). Rows for which a squared
/// norm would overflow f32 are computed as under [`Precision::Exact`]: direct sums in f64, the real number rounded
/// to the nearest f32. No entry is NaN.
///
/// # Errors
/// - [`Error::Shape`] where `x` has another number of columns than the codewords, or n k overflows.
/// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity.
///
/// ```
/// use codeword::{Codebook, Device, MatrixView, Precision, pairwise_sq_l2};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 0.0, 3.0, 4.0], 2, 2)?, &Device::cpu())?;
/// let x = MatrixView::new(&[0.0f32, 0.0], 1, 2)?;
/// assert_eq!(pairwise_sq_l2(x, &codebook, Precision::Exact)?.as_slice(), &[0.0, 25.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn pairwise_sq_l2<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &Codebook,
    precision: Precision,
) -> Result<Matrix<f32>> {
    let mut out = vec![0.0; checked_len("pairwise_sq_l2", x.rows(), codebook.k())?];
    pairwise_sq_l2_into(x, codebook, precision, &mut out)?;
    Matrix::new(out, x.rows(), codebook.k())
}

/// [`pairwise_sq_l2`] into a slice of n k values that the caller reuses.
///
/// # Errors
/// - Those of [`pairwise_sq_l2`], and [`Error::Shape`] where `out` has another length.
pub fn pairwise_sq_l2_into<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &Codebook,
    precision: Precision,
    out: &mut [f32],
) -> Result<()> {
    const OP: &str = "pairwise_sq_l2";
    check_columns(OP, x.cols(), codebook)?;
    check_len(OP, "distances", checked_len(OP, x.rows(), codebook.k())?, out.len())?;
    let outcome = pairwise_sq_l2_any(T::any(x), codebook, precision, out)?;
    outcome.map_err(|row| non_finite(OP, x, row, "remove the vector"))
}

fn pairwise_sq_l2_any(x: AnyView<'_>, codebook: &Codebook, precision: Precision, out: &mut [f32]) -> Result<OrRow<()>> {
    match codebook.placed() {
        Placed::Cpu(host) => {
            let (codewords, panels) = (host.codewords.view(), host.panels());
            Ok(on_view!(x, x => cpu::pairwise_sq_l2::pairwise_sq_l2(x, codewords, panels, precision, out)))
        }
        #[cfg(feature = "cuda")]
        Placed::Cuda(resident) => {
            on_view!(x, x => cuda::streamed::pairwise_sq_l2::pairwise_sq_l2(x, resident, precision, out))
        }
    }
}

/// The codewords of `codes`, `[n, d]`. [`SENTINEL`] gives a row of NaN.
///
/// # Errors
/// - [`Error::CodeOutOfRange`] naming the first code that is neither below k nor [`SENTINEL`].
///
/// ```
/// use codeword::{Codebook, Device, MatrixView, decode};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 0.5, 3.0, 4.0], 2, 2)?, &Device::cpu())?;
/// assert_eq!(decode(&[1, 0, 1], &codebook)?.as_slice(), &[3.0, 4.0, 0.0, 0.5, 3.0, 4.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn decode(codes: &[u32], codebook: &Codebook) -> Result<Matrix<f32>> {
    let mut out = vec![0.0; checked_len("decode", codes.len(), codebook.d())?];
    decode_into(codes, codebook, &mut out)?;
    Matrix::new(out, codes.len(), codebook.d())
}

/// [`decode`] into a slice of n d values that the caller reuses.
///
/// # Errors
/// - Those of [`decode`], and [`Error::Shape`] where `out` has another length.
pub fn decode_into(codes: &[u32], codebook: &Codebook, out: &mut [f32]) -> Result<()> {
    const OP: &str = "decode";
    check_len(OP, "vectors", checked_len(OP, codes.len(), codebook.d())?, out.len())?;
    match codebook.placed() {
        Placed::Cpu(host) => cpu::gather::gather(codes, host.codewords.view(), out),
        #[cfg(feature = "cuda")]
        Placed::Cuda(resident) => cuda::streamed::decode::decode(codes, resident, out)?,
    }
    .map_err(|position| Error::CodeOutOfRange { op: OP, position, code: codes[position], k: codebook.k() })
}

/// Adds up the rows of `x`, `[n, d]`, by their labels, below `k` each, with `weights` where rows count differently: the
/// second half of a step of k-means or of a moving average. Rows labelled [`SENTINEL`] count nowhere.
///
/// The sums are the same bits with every instruction set, thread count and device: f64 additions of w_i x_it, which is
/// exact, each rounded on its own, in one order. Rows are cut into blocks of max(1, floor(2^18 / d)), from row 0 on.
/// The rows of one label in one block are added in ascending order, from zero; then those sums, block after block, from
/// zero. Weights are added in the same order.
///
/// One pass over `x`, in host memory and by the processor, wherever assignments are made; rows that lie on a GPU are added
/// up there by `cuda::Workspace::accumulate`. Takes 8 k d + 24 k bytes for the result and 4 n for the order of the rows.
///
/// # Errors
/// - [`Error::Shape`] where there is not one label, or not one weight, per row, rows have no columns, there are 2^32
///   rows or more, 2^32 - 1 labels or more, or k d overflows.
/// - [`Error::CodeOutOfRange`] naming the first label that is neither below `k` nor [`SENTINEL`].
/// - [`Error::InvalidParameter`] naming the first weight that is negative or not finite, and where `CODEWORD_ISA` names
///   an instruction set that this processor lacks.
///
/// A NaN or an infinity in a row shows in its sums.
///
/// ```
/// use codeword::{MatrixView, accumulate};
/// let x = MatrixView::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2)?;
/// let sums = accumulate(x, &[1, 0, 1], None, 2)?;
/// assert_eq!((sums.counts.as_slice(), sums.sums.as_slice()), (&[1, 2][..], &[3.0, 4.0, 6.0, 8.0][..]));
/// let mut mean = [0.0; 2];
/// assert!(sums.mean_into(1, &mut mean));
/// assert_eq!(mean, [3.0, 4.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn accumulate<T: Element>(x: MatrixView<'_, T>, labels: &[u32], weights: Option<&[f32]>, k: usize) -> Result<Sums> {
    const OP: &str = "accumulate";
    check_len(OP, "labels", x.rows(), labels.len())?;
    if let Some(weights) = weights {
        check_weights(OP, x.rows(), weights)?;
    }
    checked_len(OP, k, x.cols())?;
    if x.cols() == 0 {
        let (expected, got) = ("rows of at least one column".into(), format!("{} x 0", x.rows()));
        return Err(Error::Shape { op: OP, expected, got });
    }
    if u32::try_from(x.rows()).is_err() {
        let (expected, got) = ("fewer than 2^32 rows".into(), x.rows().to_string());
        return Err(Error::Shape { op: OP, expected, got });
    }
    if k >= SENTINEL as usize {
        return Err(Error::Shape { op: OP, expected: "fewer than 2^32 - 1 labels".into(), got: k.to_string() });
    }
    check_labels(OP, labels, k)?;
    Ok(accumulate_any(T::any(x), labels, weights, k, Isa::selected()?))
}

fn accumulate_any(x: AnyView<'_>, labels: &[u32], weights: Option<&[f32]>, k: usize, isa: Isa) -> Sums {
    on_view!(x, x => cpu::accumulate::accumulate(x, labels, weights, k, isa))
}

/// [`accumulate`] of further rows: those before them, already in `sums`, are whole blocks of its order. Labels are
/// below k, weights were checked.
pub(crate) fn accumulate_onto(sums: &mut Sums, x: AnyView<'_>, labels: &[u32], weights: Option<&[f32]>) -> Result<()> {
    let isa = Isa::selected()?;
    on_view!(x, x => cpu::accumulate::accumulate_onto(sums, x, labels, weights, isa));
    Ok(())
}

/// The rows of `x`, `[n, d]`, times the matrix `by`, `[d, e]`, into `out`, `[n, e]`. Each component is one f64 sum of
/// products, which are exact, from t = 0 on, every addition rounded on its own, then that of the `bias`, of e values,
/// and then rounded to f32. The processor makes it, wherever assignments are made: the same bits everywhere.
pub(crate) fn multiply_into(
    x: AnyView<'_>,
    by: MatrixView<'_, f32>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    let isa = Isa::selected()?;
    on_view!(x, x => cpu::multiply::multiply(x, by, bias, isa, out));
    Ok(())
}

/// x^T y of `x`, `[n, d]`, and of the rows, each of e values, that `row` gives, in f64, `[d, e]` row-major: likewise by the
/// processor, exact products added row after row within blocks of 128, then block after block. `tell` is called from time to time,
/// and its error handed back.
pub(crate) fn cross<E: From<Error>>(
    x: AnyView<'_>,
    e: usize,
    row: impl Fn(usize, &mut [f32]) + Sync,
    tell: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let isa = Isa::selected()?;
    on_view!(x, x => cpu::multiply::cross(x, e, row, isa, tell))
}

/// x^T x of `x`, `[n, d]`: [`cross`] of its own rows.
pub(crate) fn gram<T: Element, E: From<Error>>(
    x: MatrixView<'_, T>,
    tell: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    cross(T::any(x), x.cols(), |i, row| T::widen(x.row(i), row), tell)
}

/// Singular values and vectors of `a`, finite, `[d, d]`, column after column, in f64: likewise. `tell` is called from time to time,
/// and its error handed back.
pub(crate) fn svd<E: From<Error>>(a: &[f64], d: usize, tell: impl FnMut() -> Result<(), E>) -> Result<Svd, E> {
    Svd::new(a, d, Isa::selected()?, tell)
}

/// The orthogonal matrix with the largest trace of its transpose times `a`, finite, which is also the nearest to it (Schoenemann
/// 1966, orthogonal Procrustes): likewise, `[d, d]` row-major. Directions that `a` does not tell are those of `near`, which is
/// orthogonal.
pub(crate) fn orthogonal<E: From<Error>>(
    a: Vec<f64>,
    near: &[f64],
    d: usize,
    tell: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    cpu::polar::orthogonal(a, near, d, Isa::selected()?, tell)
}

/// The rows of `x`, `[n, d]`, at length 1: what a codebook of cosines (VQGAN with L2-normalised codes, DAC) quantizes.
/// Among vectors of length 1 the nearest is the one with the largest cosine, and labels are exact for what this stores.
///
/// Each component is z_t / |z|, the quotient of two f64 rounded once to f32; |z| is the square root of the sum of the
/// squares in f64: eight running sums over every eighth component, added in pairs as ((a + b) + (c + d)) +
/// ((e + f) + (g + h)), every operation rounded on its own. The same bits with every instruction set and thread count.
/// Nothing overflows or underflows.
///
/// # Errors
/// - [`Error::Shape`] where rows have no columns, or n d overflows.
/// - [`Error::NonFinite`] or [`Error::InvalidParameter`] naming the first row that holds a NaN or an infinity, or nothing
///   but zeros and so has no direction.
///
/// ```
/// use codeword::{MatrixView, normalize};
/// let x = MatrixView::new(&[3.0f32, -4.0, 0.0, 1e-30], 2, 2)?;
/// assert_eq!(normalize(x)?.as_slice(), &[0.6, -0.8, 0.0, 1.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn normalize<T: Element>(x: MatrixView<'_, T>) -> Result<Matrix<f32>> {
    normalize_where("normalize", x, |_| true)
}

/// [`normalize`], where rows that `counts` denies may be anything.
pub(crate) fn normalize_where<T: Element>(
    op: &'static str,
    x: MatrixView<'_, T>,
    counts: impl Fn(usize) -> bool,
) -> Result<Matrix<f32>> {
    let (n, d) = (x.rows(), x.cols());
    if d == 0 {
        return Err(Error::Shape { op, expected: "rows of at least one column".into(), got: format!("{n} x 0") });
    }
    let mut units = vec![0.0; checked_len(op, n, d)?];
    on_view!(T::any(x), x => cpu::normalize::normalize(x, &mut units));
    let is_bad = |(i, unit): &(usize, &[f32])| counts(*i) && unit[0].is_nan();
    match units.chunks_exact(d).enumerate().find(is_bad) {
        None => Matrix::new(units, n, d),
        Some((row, _)) if x.row(row).iter().all(|value| value.to_f32() == 0.0) => {
            let expected = "free of rows of zeros, which have no direction".into();
            Err(Error::InvalidParameter { op, name: "x", expected, got: format!("zeros in row {row}") })
        }
        Some((row, _)) => Err(non_finite(op, x, row, "remove the vector")),
    }
}

/// Of every row its sum of squares and that of its difference from the codeword of its label; zeros where the label
/// is [`SENTINEL`]. f64, in a fixed order. Shapes and labels were checked.
pub(crate) fn sq_sums(x: AnyView<'_>, labels: &[u32], codebook: &Codebook) -> Result<Vec<(f64, f64)>> {
    // On any device: the rows are in host memory, and one pass over them there costs less than the way to the device.
    let (codewords, isa) = (codebook.codewords()?, Isa::selected()?);
    Ok(on_view!(x, x => cpu::sq_sums::sq_sums(x, codewords, labels, isa)))
}

const SENTINEL_WAY_OUT: &str = "remove the vector, or ask for sentinel codes";

pub(crate) fn check_columns(op: &'static str, cols: usize, codebook: &Codebook) -> Result<()> {
    if cols != codebook.d() {
        let expected = format!("vectors of {} columns, as the codewords have", codebook.d());
        return Err(Error::Shape { op, expected, got: cols.to_string() });
    }
    Ok(())
}

pub(crate) fn check_r(op: &'static str, r: usize, k: usize) -> Result<()> {
    if r == 0 || r > k {
        let expected = format!("from 1 to {k}, the number of codewords");
        return Err(Error::InvalidParameter { op, name: "r", expected, got: r.to_string() });
    }
    Ok(())
}

pub(crate) fn check_len(op: &'static str, what: &str, expected: usize, got: usize) -> Result<()> {
    if expected != got {
        return Err(Error::Shape { op, expected: format!("{expected} {what}"), got: got.to_string() });
    }
    Ok(())
}

/// Every label is below `k`, or the sentinel.
pub(crate) fn check_labels(op: &'static str, labels: &[u32], k: usize) -> Result<()> {
    match labels.iter().position(|&label| label != SENTINEL && label as usize >= k) {
        None => Ok(()),
        Some(position) => Err(Error::CodeOutOfRange { op, position, code: labels[position], k }),
    }
}

/// One weight per row, finite and not negative.
pub(crate) fn check_weights(op: &'static str, rows: usize, weights: &[f32]) -> Result<()> {
    check_len(op, "weights", rows, weights.len())?;
    match weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        None => Ok(()),
        Some(row) => {
            let (expected, got) = ("finite and not negative".into(), format!("{} for row {row}", weights[row]));
            Err(Error::InvalidParameter { op, name: "weights", expected, got })
        }
    }
}

/// Which of two vectors of one length is nearer to `z` in the real numbers.
pub(crate) fn nearer(z: &[f32], a: &[f32], b: &[f32]) -> std::cmp::Ordering {
    cpu::exact::nearer(z, a, b)
}

pub(crate) fn checked_len(op: &'static str, rows: usize, cols: usize) -> Result<usize> {
    // A vector cannot hold more than isize::MAX bytes.
    rows.checked_mul(cols).filter(|&len| len <= isize::MAX as usize / 8).ok_or_else(|| Error::Shape {
        op,
        expected: "a result that fits the address space".into(),
        got: format!("{rows} x {cols}"),
    })
}

pub(crate) fn non_finite<T: Element>(
    op: &'static str,
    x: MatrixView<'_, T>,
    row: usize,
    way_out: &'static str,
) -> Error {
    let values = x.row(row).iter().map(|value| value.to_f32());
    let (col, got) = values.enumerate().find(|(_, value)| !value.is_finite()).unwrap_or((0, f32::NAN));
    Error::NonFinite { op, what: "vector", row, col, got, way_out }
}
