//! Product quantization: vectors cut into m sub-vectors, each with a codebook of its own (Jegou, Douze, Schmid 2011).

use super::packed::Packed;
use crate::backend::{AssignOptions, SENTINEL, assign_into, checked_len, decode_into, encode_parts, non_finite};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kmeans::{KMeans, RowSource, SourceFit, Step};
use crate::matrix::{Element, Matrix, MatrixView};
use std::fmt::Write as _;

/// Vectors that are encoded or decoded at a time: their labels stay in the caches.
const BLOCK: usize = 16384;

/// m sub-quantizers of k codewords, `[m, k, d/m]`: sub-quantizer s takes columns s d/m to (s + 1) d/m of a vector and
/// names its nearest codeword by a number of b bits, the least that hold k - 1.
///
/// # Codes
///
/// The code of a vector is [`code_size`](ProductQuantizer::code_size) = ceil(m b / 8) bytes: the m numbers one after
/// the other, each from its lowest bit, from the lowest bit of the first byte on; what is left of the last byte is 0.
/// With 256 codewords that is a byte for each sub-quantizer, with 65,536 a little-endian u16. It is the layout of faiss.
///
/// ```
/// use codeword::{Device, KMeans, MatrixView, ProductQuantizer};
/// let values: Vec<f32> = (0..400).map(|i| ((i * 37) % 101) as f32).collect();
/// let x = MatrixView::new(&values, 100, 4)?;
///
/// // Two sub-quantizers of 16 codewords: a byte for a vector of four floats.
/// let quantizer = ProductQuantizer::train(x, 2, &KMeans::new(16), &Device::best())?;
/// let codes = quantizer.encode(x)?;
/// assert_eq!((quantizer.code_size(), codes.len()), (1, 100));
/// assert_eq!(quantizer.encode(quantizer.decode(&codes)?.view())?, codes);
///
/// let query = MatrixView::new(&values[..4], 1, 4)?;
/// let nearest = quantizer.search(&codes, query, 10)?;
/// assert_eq!(nearest.ids.len(), 10);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone)]
pub struct ProductQuantizer {
    codebooks: Vec<Codebook>,
    packed: Packed,
}

/// What [`ProductQuantizer::train_with`] learned.
#[derive(Clone)]
pub struct ProductFit {
    /// The sub-quantizers.
    pub quantizer: ProductQuantizer,
    /// How each of them was learned.
    pub parts: Vec<SourceFit>,
}

/// What ends a training: errors of rows are told of whole rows, those of the caller as they are.
pub(super) enum Stop<E> {
    Library(Error),
    Observer(E),
}

impl<E> Stop<E> {
    /// Puts an error of the library in other terms.
    pub fn told(self, tell: impl FnOnce(Error) -> Error) -> Stop<E> {
        match self {
            Stop::Library(error) => Stop::Library(tell(error)),
            stop => stop,
        }
    }
}

impl<E> From<Error> for Stop<E> {
    fn from(error: Error) -> Stop<E> {
        Stop::Library(error)
    }
}

impl ProductQuantizer {
    /// Sub-quantizers with given codebooks, one after the other in `codewords`, `[m k, d/m]`.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where m does not divide the number of codewords, or k is not 1 to 65,536.
    /// - Those of [`Codebook::new`]; a codeword that is not finite is named by its row of `codewords`.
    pub fn new<T: Element>(codewords: MatrixView<'_, T>, m: usize, device: &Device) -> Result<ProductQuantizer> {
        let (codebooks, packed) = super::packed::codebooks("ProductQuantizer::new", codewords, m, device)?;
        Ok(ProductQuantizer { codebooks, packed })
    }

    /// Learns m sub-quantizers from the rows of `x`, `[n, d]`, each by k-means on its columns with these parameters, the
    /// seed raised by its number. On the CPU the columns are copied part by part, 4 n d / m bytes.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where m does not divide d, or k is not 1 to 65,536.
    /// - Those of [`KMeans::fit`].
    pub fn train<T: Element>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        device: &Device,
    ) -> Result<ProductQuantizer> {
        Ok(ProductQuantizer::train_with(x, m, params, device, |_, _| Ok::<(), Error>(()))?.quantizer)
    }

    /// [`ProductQuantizer::train`], told step by step with the number of the sub-quantizer that is learned: an error of
    /// `observe` ends the training and is handed back.
    ///
    /// # Errors
    /// - Those of [`ProductQuantizer::train`] and of `observe`.
    ///
    /// ```
    /// use codeword::{Device, Error, KMeans, MatrixView, ProductQuantizer};
    /// let x = MatrixView::new(&[0.0f32, 5.0, 0.0, 7.0, 9.0, 5.0, 9.0, 7.0], 4, 2)?;
    /// let fit = ProductQuantizer::train_with(x, 2, &KMeans::new(1), &Device::cpu(), |s, step| {
    ///     println!("sub-quantizer {s}: {step:?}");
    ///     Ok::<(), Error>(())
    /// })?;
    /// assert_eq!((fit.parts[0].inertia, fit.parts[1].inertia), (81.0, 4.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn train_with<T: Element, E: From<Error> + Send>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        device: &Device,
        mut observe: impl FnMut(usize, Step) -> Result<(), E>,
    ) -> Result<ProductFit, E> {
        const OP: &str = "ProductQuantizer::train";
        let d = x.cols();
        if m == 0 || !d.is_multiple_of(m) {
            let got = with_divisors(m, d);
            let expected = format!("a divisor of the {d} dimensions; append columns of zeros for others");
            return Err(Error::InvalidParameter { op: OP, name: "m", expected, got }.into());
        }
        let packed = Packed::new(OP, m, params.k())?;
        let width = d / m;
        // On the processor a part's columns are copied once: every iteration goes through them twice, and rows of a few
        // components far apart take as long to fetch as whole ones.
        let mut copy = vec![0.0f32; if matches!(device, Device::Cpu) { checked_len(OP, x.rows(), width)? } else { 0 }];
        let learn = |s: usize| {
            let params = params.clone().raise_seed(s as u64);
            let columns = x.columns(s * width..(s + 1) * width)?;
            let mut part = if matches!(device, Device::Cpu) {
                columns.widen_into(&mut copy);
                RowSource::held(MatrixView::new(&copy, x.rows(), width)?)
            } else {
                RowSource::held(columns)
            };
            let fit = params.fit_source(&mut part, None, device, |step, _| observe(s, step).map_err(Stop::Observer));
            fit.map_err(|stop| match stop {
                Stop::Library(error) => of_whole_rows(OP, x, 0, error).into(),
                Stop::Observer(error) => error,
            })
        };
        let parts: Vec<SourceFit> = (0..m).map(learn).collect::<Result<_, E>>()?;
        let codebooks = parts.iter().map(|part| part.codebook.clone()).collect();
        Ok(ProductFit { quantizer: ProductQuantizer { codebooks, packed }, parts })
    }

    /// Number of sub-quantizers.
    pub fn m(&self) -> usize {
        self.codebooks.len()
    }

    /// Codewords of each.
    pub fn k(&self) -> usize {
        self.packed.k()
    }

    /// Dimensions of a vector.
    pub fn d(&self) -> usize {
        self.m() * self.codebooks[0].d()
    }

    /// Bits of the number of a codeword.
    pub fn bits(&self) -> u32 {
        self.packed.bits()
    }

    /// Bytes of the code of a vector.
    pub fn code_size(&self) -> usize {
        self.packed.code_size()
    }

    /// The codebooks of the sub-quantizers.
    pub fn codebooks(&self) -> &[Codebook] {
        &self.codebooks
    }

    /// The codes of the rows of `x`, `[n, d]`: in each part the exactly nearest codeword, the lowest among equals. The
    /// same bytes with every instruction set, thread count, device and split into batches.
    ///
    /// A CUDA device gets the rows once for all parts, in blocks of up to 64 MiB with what is computed from them.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `x` has not d columns.
    /// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity.
    /// - [`Error::Cuda`] where a device fails.
    pub fn encode<T: Element>(&self, x: MatrixView<'_, T>) -> Result<Vec<u8>> {
        const OP: &str = "ProductQuantizer::encode";
        self.check_columns(OP, x.cols())?;
        let (n, m, width) = (x.rows(), self.m(), self.codebooks[0].d());
        let mut codes = vec![0; checked_len(OP, n, self.code_size())?];
        if let Some(outcome) = encode_parts(T::any(x), &self.codebooks, self.bits(), &mut codes)? {
            return outcome.map(|()| codes).map_err(|row| non_finite(OP, x, row, "remove the vector"));
        }
        let block = BLOCK.min(n);
        let (mut labels, mut sq_distances) = (vec![SENTINEL; m * block], vec![0.0; block]);
        for (i, codes) in codes.chunks_mut(self.code_size() * BLOCK).enumerate() {
            let first = i * BLOCK;
            let rows = x.block(first..n.min(first + BLOCK));
            let count = rows.rows();
            for (s, (codebook, labels)) in self.codebooks.iter().zip(labels.chunks_mut(block)).enumerate() {
                let part = rows.columns(s * width..(s + 1) * width)?;
                let (labels, sq_distances) = (&mut labels[..count], &mut sq_distances[..count]);
                assign_into(part, codebook, AssignOptions::default(), labels, sq_distances)
                    .map_err(|error| of_whole_rows(OP, rows, first, error))?;
            }
            self.packed.pack_columns(&labels, block, codes);
        }
        Ok(codes)
    }

    /// The vectors that `codes` stand for, `[n, d]`.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `codes` is not a whole number of codes.
    /// - [`Error::CodeOutOfRange`] with the first position among all m n numbers that names no codeword.
    /// - [`Error::Cuda`] where a device fails.
    pub fn decode(&self, codes: &[u8]) -> Result<Matrix<f32>> {
        const OP: &str = "ProductQuantizer::decode";
        let n = self.packed.count(OP, codes)?;
        self.packed.check(OP, codes)?;
        let (d, width) = (self.d(), self.codebooks[0].d());
        let mut out = vec![0.0; checked_len(OP, n, d)?];
        let block = BLOCK.min(n);
        let (mut numbers, mut part) = (vec![0; block], vec![0.0; block * width]);
        for (codes, out) in codes.chunks(self.code_size() * BLOCK).zip(out.chunks_mut(d * BLOCK)) {
            let count = codes.len() / self.code_size();
            for (s, codebook) in self.codebooks.iter().enumerate() {
                let (numbers, part) = (&mut numbers[..count], &mut part[..count * width]);
                self.packed.unpack_column(codes, s, numbers);
                decode_into(numbers, codebook, part)?;
                for (out, part) in out.chunks_exact_mut(d).zip(part.chunks_exact(width)) {
                    out[s * width..][..width].copy_from_slice(part);
                }
            }
        }
        Matrix::new(out, n, d)
    }

    /// The numbers of the codewords, `[n, m]`, as codes.
    ///
    /// # Errors
    /// - [`Error::Shape`] where there are not m for each vector.
    /// - [`Error::CodeOutOfRange`] naming the first that names no codeword.
    pub fn pack(&self, numbers: &[u32]) -> Result<Vec<u8>> {
        self.packed.pack("ProductQuantizer::pack", numbers)
    }

    /// The numbers of the codewords, `[n, m]`, that make up `codes`.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `codes` is not a whole number of codes.
    pub fn unpack(&self, codes: &[u8]) -> Result<Vec<u32>> {
        self.packed.count("ProductQuantizer::unpack", codes)?;
        Ok(self.packed.unpack(codes))
    }

    /// With other codebooks, as many and of the same shape.
    pub(super) fn with_codebooks(&self, codebooks: Vec<Codebook>) -> ProductQuantizer {
        ProductQuantizer { codebooks, packed: self.packed }
    }

    pub(crate) fn packed(&self) -> Packed {
        self.packed
    }

    pub(crate) fn check_columns(&self, op: &'static str, cols: usize) -> Result<()> {
        if cols != self.d() {
            let expected =
                format!("vectors of {} columns, {} for each of {} parts", self.d(), self.d() / self.m(), self.m());
            return Err(Error::Shape { op, expected, got: cols.to_string() });
        }
        Ok(())
    }
}

/// m, and what it might have been.
fn with_divisors(m: usize, d: usize) -> String {
    let mut text = format!("{m} (those up to 128:");
    for divisor in (1..=d.min(128)).filter(|&divisor| d.is_multiple_of(divisor)) {
        // Writing to a text does not fail.
        let _ = write!(text, " {divisor}");
    }
    text + ")"
}

/// What went wrong with some columns of a block of rows from `first` on, told of all: the first row that is not finite.
pub(crate) fn of_whole_rows<T: Element>(op: &'static str, x: MatrixView<'_, T>, first: usize, error: Error) -> Error {
    let Error::NonFinite { .. } = error else { return error };
    let is_bad = |&i: &usize| x.row(i).iter().any(|value| !value.to_f32().is_finite());
    let Some(row) = (0..x.rows()).find(is_bad) else { return error };
    non_finite(op, x, row, "remove the vector").of_part_at(first, 0)
}
