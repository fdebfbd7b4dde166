//! Residual quantization: vectors as sums of codewords, each stage a codebook for what the stages before left over
//! (Juang and Gray 1982; Chen, Guan, Wang 2010).

use super::beam::Beam;
use super::packed::Packed;
use super::product::Stop;
use super::stages::Stages;
use super::walk::{At, Work};
use crate::backend::{checked_len, decode_into, non_finite};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kmeans::{KMeans, SourceFit, Step};
use crate::matrix::{AnyView, Element, Matrix, MatrixView, on_view};
use rayon::prelude::*;

/// Values of the vectors that are worked on at a time: 8 MiB of f32.
const BLOCK: usize = 1 << 21;
/// Values that one thread subtracts or adds at a time.
const PIECE: usize = 1 << 14;
/// The widest beam.
const WIDEST: usize = 256;

/// m stages of k codewords of all d dimensions, `[m, k, d]`: stage 0 quantizes a vector, every later stage what is left of it.
/// A vector is the sum of one codeword of each stage.
///
/// What is left after a stage is `residual - codeword`, one f32 subtraction a component; the sum is
/// `((c_0 + c_1) + c_2) + ...`, each addition rounded to f32. Both are the same bits everywhere, so codes are, too.
///
/// Codes are laid out as those of a [`ProductQuantizer`](crate::ProductQuantizer): the m numbers one after the other, each in
/// the least number of bits that hold k - 1, in [`code_size`](ResidualQuantizer::code_size) bytes.
///
/// Stages may also project vectors to codewords of other dimensions and back, compare by cosine, or look at the vectors
/// themselves, as those of DAC and Mimi: see [`Stages`], of which [`from_stages`](ResidualQuantizer::from_stages) makes a quantizer.
///
/// ```
/// use codeword::{Device, KMeans, MatrixView, ResidualQuantizer};
/// let values: Vec<f32> = (0..400).map(|i| ((i * 37) % 101) as f32).collect();
/// let x = MatrixView::new(&values, 100, 4)?;
///
/// let quantizer = ResidualQuantizer::train(x, 3, &KMeans::new(16), &Device::best())?;
/// let codes = quantizer.encode(x)?;
/// assert_eq!((quantizer.code_size(), codes.len()), (2, 200)); // three numbers of 4 bits
///
/// let (coarse, fine) = (quantizer.decode_stages(&codes, 1)?, quantizer.decode(&codes)?);
/// let error = |y: &[f32]| values.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
/// assert!(error(fine.as_slice()) < error(coarse.as_slice()));
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone)]
pub struct ResidualQuantizer {
    stages: Vec<Stages>,
    /// Those of all stages, one after the other.
    codebooks: Vec<Codebook>,
    packed: Packed,
}

/// What [`ResidualQuantizer::train_with`] learned.
#[derive(Clone)]
pub struct ResidualFit {
    /// The stages.
    pub quantizer: ResidualQuantizer,
    /// How each of them was learned; its inertia is what it leaves of the rows.
    pub stages: Vec<SourceFit>,
}

impl ResidualQuantizer {
    /// Stages with given codebooks, one after the other in `codewords`, `[m k, d]`.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where m does not divide the number of codewords, or k is not 1 to 65,536.
    /// - Those of [`Codebook::new`]; a codeword that is not finite is named by its row of `codewords`.
    pub fn new<T: Element>(codewords: MatrixView<'_, T>, m: usize, device: &Device) -> Result<ResidualQuantizer> {
        let (codebooks, packed) = super::packed::codebooks("ResidualQuantizer::new", codewords, m, device)?;
        Ok(ResidualQuantizer::plain(codebooks, packed))
    }

    fn plain(codebooks: Vec<Codebook>, packed: Packed) -> ResidualQuantizer {
        ResidualQuantizer { stages: codebooks.iter().cloned().map(Stages::plain).collect(), codebooks, packed }
    }

    /// Stages with projections or cosines, one after the other: each quantizes what all before leave of a vector, unless they
    /// are [on the vectors](Stages::on_vectors).
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where there are no stages.
    /// - [`Error::Shape`] where not all have the same number of codewords, or take vectors of the same dimensions and give back
    ///   as many.
    /// - [`Error::DeviceMismatch`] where not all are prepared for the same device.
    pub fn from_stages(stages: Vec<Stages>) -> Result<ResidualQuantizer> {
        const OP: &str = "ResidualQuantizer::from_stages";
        let codebooks: Vec<Codebook> = stages.iter().flat_map(Stages::codebooks).cloned().collect();
        let (Some(first), Some(of_first)) = (codebooks.first(), stages.first()) else {
            let (expected, got) = ("at least one stage".into(), "none".into());
            return Err(Error::InvalidParameter { op: OP, name: "stages", expected, got });
        };
        let (packed, d) = (Packed::new(OP, codebooks.len(), first.k())?, of_first.ends().0);
        if let Some((s, other)) = codebooks.iter().enumerate().find(|(_, codebook)| codebook.k() != first.k()) {
            let expected = format!("{} codewords in every stage, as in stage 0", first.k());
            return Err(Error::Shape { op: OP, expected, got: format!("{} in stage {s}", other.k()) });
        }
        if let Some(other) = codebooks.iter().find(|codebook| codebook.device() != first.device()) {
            let (expected, got) = (first.device().to_string(), other.device().to_string());
            return Err(Error::DeviceMismatch { op: OP, what: "codebooks of all stages", expected, got });
        }
        let mut s = 0;
        for some in &stages {
            let (from, to) = some.ends();
            if (from, to) != (d, d) {
                let expected = format!(
                    "stages from vectors of {d} dimensions to as many, by projections where codewords have others"
                );
                let got = format!("from {from} to {to} in stage {s}");
                return Err(Error::Shape { op: OP, expected, got });
            }
            s += some.m();
        }
        Ok(ResidualQuantizer { stages, codebooks, packed })
    }

    /// Learns m stages from the rows of `x`, `[n, d]`, one after the other: each by k-means with these parameters, the seed
    /// raised by its number, on what the stages before leave of the rows. With one iteration or more no stage raises the
    /// error of the rows it was learned from, but for rounding. Late residuals are much like noise, of which the far rows that
    /// k-means++ picks are poor starts: 4 stages of 256 codewords for siftsmall end with a mean squared error of 28,740 from
    /// there, of 28,140 from [`Init::Hierarchical`](crate::Init::Hierarchical) and of 27,530 from
    /// [`Init::Progressive`](crate::Init::Progressive), 8 stages with about 18,300, 16,600 and 15,400.
    ///
    /// Takes 4 n d bytes for what is left of the rows, 8 MiB or as much again, and what [`KMeans::fit`] takes.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where m is 0, or k is not 1 to 65,536.
    /// - [`Error::NonFinite`] where a residual is beyond f32.
    /// - Those of [`KMeans::fit`].
    pub fn train<T: Element>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        device: &Device,
    ) -> Result<ResidualQuantizer> {
        Ok(ResidualQuantizer::train_with(x, m, params, device, |_, _| Ok::<(), Error>(()))?.quantizer)
    }

    /// [`ResidualQuantizer::train`], told step by step with the number of the stage that is learned: an error of `observe`
    /// ends the training and is handed back.
    ///
    /// # Errors
    /// - Those of [`ResidualQuantizer::train`] and of `observe`.
    ///
    /// ```
    /// use codeword::{Device, Error, KMeans, MatrixView, ResidualQuantizer};
    /// let x = MatrixView::new(&[0.0f32, 1.0, 8.0, 9.0], 4, 1)?;
    /// let fit = ResidualQuantizer::train_with(x, 2, &KMeans::new(2), &Device::cpu(), |s, step| {
    ///     println!("stage {s}: {step:?}");
    ///     Ok::<(), Error>(())
    /// })?;
    /// assert_eq!((fit.stages[0].inertia, fit.stages[1].inertia), (1.0, 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn train_with<T: Element, E: From<Error> + Send>(
        x: MatrixView<'_, T>,
        m: usize,
        params: &KMeans,
        device: &Device,
        mut observe: impl FnMut(usize, Step) -> Result<(), E>,
    ) -> Result<ResidualFit, E> {
        const OP: &str = "ResidualQuantizer::train";
        if m == 0 {
            let (expected, got) = ("at least 1".into(), "0".into());
            return Err(Error::InvalidParameter { op: OP, name: "m", expected, got }.into());
        }
        let packed = Packed::new(OP, m, params.k())?;
        let (n, d) = (x.rows(), x.cols());
        let mut left = vec![0.0; if m > 1 { checked_len(OP, n, d)? } else { 0 }];
        let mut stages = Vec::with_capacity(m.min(1 << 10));
        for s in 0..m {
            let params = params.clone().raise_seed(s as u64);
            let observe = |step| observe(s, step).map_err(Stop::Observer);
            let fit = match s {
                0 => params.fit_with(x, None, device, observe),
                _ => params.fit_with(MatrixView::new(&left, n, d)?, None, device, observe),
            };
            let fit = fit.map_err(|stop| match stop {
                Stop::Library(error) if s > 0 => of_residual(OP, error).into(),
                Stop::Library(error) => error.into(),
                Stop::Observer(error) => error,
            })?;
            let (stage, labels) = fit.into_parts();
            if s == 0 && m > 1 {
                x.widen_into(&mut left);
            }
            if s + 1 < m {
                subtract(&mut left, &labels, &stage.codebook)?;
            }
            stages.push(stage);
        }
        let codebooks = stages.iter().map(|stage| stage.codebook.clone()).collect();
        Ok(ResidualFit { quantizer: ResidualQuantizer::plain(codebooks, packed), stages })
    }

    /// Number of stages.
    pub fn m(&self) -> usize {
        self.codebooks.len()
    }

    /// Codewords of each.
    pub fn k(&self) -> usize {
        self.packed.k()
    }

    /// Dimensions of a vector.
    pub fn d(&self) -> usize {
        self.stages[0].ends().0
    }

    /// Bits of the number of a codeword.
    pub fn bits(&self) -> u32 {
        self.packed.bits()
    }

    /// Bytes of the code of a vector.
    pub fn code_size(&self) -> usize {
        self.packed.code_size()
    }

    /// The codebooks of the stages.
    pub fn codebooks(&self) -> &[Codebook] {
        &self.codebooks
    }

    /// The codes of the rows of `x`, `[n, d]`, greedily: in each stage the codeword exactly nearest to what is left, the
    /// lowest among equals. The same bytes with every instruction set, thread count, device and split into batches.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `x` has not d columns.
    /// - [`Error::NonFinite`] naming a row that holds a NaN or an infinity, the first where no residual and no projection of one
    ///   is beyond f32; else a row of such.
    /// - [`Error::Cuda`] where a device fails.
    pub fn encode<T: Element>(&self, x: MatrixView<'_, T>) -> Result<Vec<u8>> {
        const OP: &str = "ResidualQuantizer::encode";
        self.check_columns(OP, x.cols())?;
        let n = x.rows();
        let mut codes = vec![0; checked_len(OP, n, self.code_size())?];
        let block = self.block_rows().min(n).max(1);
        let (mut work, mut sq_distances) = (Work::new(self.m(), block), vec![0.0; block]);
        for (first, codes) in (0..n).step_by(block).zip(codes.chunks_mut(self.code_size() * block)) {
            let rows = x.block(first..n.min(first + block));
            let nearest = |(stages, s, _): At<'_>, x: AnyView<'_>, labels: &mut [u32]| {
                let sq_distances = &mut sq_distances[..labels.len()];
                stages.nearest(OP, s, x, labels, sq_distances).map_err(Stop::Library)
            };
            match work.walk(OP, &self.stages, rows, first, nearest) {
                Ok(()) => self.packed.pack_columns(&work.labels, block, codes),
                Err(Stop::Library(error) | Stop::Observer(error)) => return Err(error),
            }
        }
        Ok(codes)
    }

    /// Goes through the stages with vectors and their codes, `[n, d]` and n codes, as [`encode`](ResidualQuantizer::encode) does:
    /// `visit` is given the number of a stage, what it quantizes, `[rows, w]` for codewords of w dimensions, and the numbers of the
    /// codewords that the codes name there. Not of all rows at once, but of some after the other; an error of `visit` ends it
    /// and is handed back. For figures of single stages, and for what codecs call latents.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `x` has not d columns, or there is not one code for each row.
    /// - [`Error::CodeOutOfRange`] with the first position among all m n numbers that names no codeword.
    /// - [`Error::NonFinite`] where a projected vector is beyond f32.
    /// - [`Error::Cuda`] where a device fails, and those of `visit`.
    ///
    /// ```
    /// use codeword::{Device, Error, MatrixView, ResidualQuantizer};
    /// let codewords = MatrixView::new(&[0.0f32, 8.0, 0.0, 1.0], 4, 1)?;
    /// let quantizer = ResidualQuantizer::new(codewords, 2, &Device::cpu())?;
    /// let x = MatrixView::new(&[9.0f32, 0.5], 2, 1)?;
    /// let mut seen = Vec::new();
    /// quantizer.each_stage(x, &quantizer.encode(x)?, |s, left, numbers| {
    ///     seen.push((s, left.row(0)[0], left.row(1)[0], numbers.to_vec()));
    ///     Ok::<(), Error>(())
    /// })?;
    /// assert_eq!(seen, [(0, 9.0, 0.5, vec![1, 0]), (1, 1.0, 0.5, vec![1, 0])]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn each_stage<T: Element, E: From<Error>>(
        &self,
        x: MatrixView<'_, T>,
        codes: &[u8],
        mut visit: impl FnMut(usize, MatrixView<'_, f32>, &[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        const OP: &str = "ResidualQuantizer::each_stage";
        self.check_columns(OP, x.cols())?;
        let n = self.packed.count(OP, codes)?;
        if n != x.rows() {
            let expected = format!("a code for each of {} vectors", x.rows());
            return Err(Error::Shape { op: OP, expected, got: n.to_string() }.into());
        }
        self.packed.check(OP, codes)?;
        let block = self.block_rows().min(n).max(1);
        let (mut work, mut wide) = (Work::new(self.m(), block), Vec::new());
        for (first, codes) in (0..n).step_by(block).zip(codes.chunks(self.code_size() * block)) {
            let rows = x.block(first..n.min(first + block));
            for (s, labels) in work.labels.chunks_mut(block).enumerate() {
                self.packed.unpack_column(codes, s, &mut labels[..rows.rows()]);
            }
            let told = |(_, _, s): At<'_>, x: AnyView<'_>, labels: &mut [u32]| {
                let x = on_view!(x, x => x.as_f32(&mut wide));
                visit(s, x, labels).map_err(Stop::Observer)
            };
            work.walk(OP, &self.stages, rows, first, told).map_err(|stop| match stop {
                Stop::Library(error) => error.into(),
                Stop::Observer(error) => error,
            })?;
        }
        Ok(())
    }

    /// Rows that are worked on at a time.
    fn block_rows(&self) -> usize {
        block_rows(self.stages.iter().map(Stages::width).fold(self.d(), usize::max))
    }

    /// As [`encode`](ResidualQuantizer::encode), by beam search: after each stage the `beam` sums nearest to a vector are
    /// kept by their distances rounded to f32, equal ones in the order of those they came from, and the nearest after the last
    /// stage is its code. With a beam
    /// of 1 the codes are those of [`encode`](ResidualQuantizer::encode). Wider beams leave less error on the whole,
    /// though not in every single vector, and take about `beam` times as long. 8 MiB of residuals and of distances, or those of
    /// one vector, are in memory at a time, some of them several times.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `beam` is not 1 to 256, or a stage projects, goes by cosine or is on the vectors: of
    ///   those the nearest in a stage does not say what leaves the nearest sum. Likewise where some, but not all, are one
    ///   [`Stages`], whose sums are rounded otherwise.
    /// - Those of [`encode`](ResidualQuantizer::encode), of whichever residual that is kept.
    pub fn encode_beam<T: Element>(&self, x: MatrixView<'_, T>, beam: usize) -> Result<Vec<u8>> {
        const OP: &str = "ResidualQuantizer::encode_beam";
        self.check_columns(OP, x.cols())?;
        if beam == 0 || beam > WIDEST {
            let expected = format!("1 to {WIDEST}");
            return Err(Error::InvalidParameter { op: OP, name: "beam", expected, got: beam.to_string() });
        }
        if !self.has_beam() {
            let expected =
                "without projections and cosines, none on the vectors, each alone or all together; encode takes any"
                    .into();
            return Err(Error::InvalidParameter { op: OP, name: "stages", expected, got: "others".into() });
        }
        let (n, m, d) = (x.rows(), self.m(), self.d());
        let mut codes = vec![0; checked_len(OP, n, self.code_size())?];
        // Of each vector all sums kept, and as many distances and labels for each of them.
        let block = block_rows(beam * d.max(2 * beam.min(self.k()))).min(n).max(1);
        for (first, codes) in (0..n).step_by(block).zip(codes.chunks_mut(self.code_size() * block)) {
            let rows = x.block(first..n.min(first + block));
            let mut states = Beam::new(rows, beam);
            for (s, codebook) in self.codebooks.iter().enumerate() {
                let last = s + 1 == m;
                states.extend(codebook, last).map_err(|error| match s {
                    0 => of_vector(OP, error, rows, first),
                    _ => of_residual(OP, error).of_part_at(first, 0),
                })?;
            }
            let columns = states.columns(m);
            self.packed.pack_columns(&columns, rows.rows(), codes);
        }
        Ok(codes)
    }

    /// The vectors that `codes` stand for, `[n, d]`. A sum beyond f32 is infinite; projected, that may be NaN.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `codes` is not a whole number of codes.
    /// - [`Error::CodeOutOfRange`] with the first position among all m n numbers that names no codeword.
    /// - [`Error::Cuda`] where a device fails.
    pub fn decode(&self, codes: &[u8]) -> Result<Matrix<f32>> {
        self.decode_first("ResidualQuantizer::decode", codes, self.m())
    }

    /// As [`decode`](ResidualQuantizer::decode), of the first `stages` numbers of every code: coarser.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `stages` is 0 or more than m.
    /// - Those of [`decode`](ResidualQuantizer::decode).
    pub fn decode_stages(&self, codes: &[u8], stages: usize) -> Result<Matrix<f32>> {
        const OP: &str = "ResidualQuantizer::decode_stages";
        if stages == 0 || stages > self.m() {
            let expected = format!("1 to the {} there are", self.m());
            return Err(Error::InvalidParameter { op: OP, name: "stages", expected, got: stages.to_string() });
        }
        self.decode_first(OP, codes, stages)
    }

    fn decode_first(&self, op: &'static str, codes: &[u8], stages: usize) -> Result<Matrix<f32>> {
        let (n, d) = (self.packed.count(op, codes)?, self.d());
        self.packed.check(op, codes)?;
        let mut out = vec![0.0; checked_len(op, n, d)?];
        let block = self.block_rows().min(n).max(1);
        let most = self.stages.iter().map(Stages::m).fold(0, usize::max);
        let (mut labels, mut part) = (vec![0; most * block], vec![0.0; if stages > 1 { block * d } else { 0 }]);
        for (codes, out) in codes.chunks(self.code_size() * block).zip(out.chunks_mut(d * block)) {
            let count = out.len() / d;
            let mut before = 0;
            for some in &self.stages {
                let wanted = some.m().min(stages - before);
                if wanted == 0 {
                    break;
                }
                for (s, labels) in labels.chunks_mut(block).take(wanted).enumerate() {
                    self.packed.unpack_column(codes, before + s, &mut labels[..count]);
                }
                if before == 0 {
                    some.decode_into(&labels, block, wanted, out)?;
                } else {
                    let part = &mut part[..count * d];
                    some.decode_into(&labels, block, wanted, part)?;
                    add(out, part);
                }
                before += wanted;
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
        self.packed.pack("ResidualQuantizer::pack", numbers)
    }

    /// The numbers of the codewords, `[n, m]`, that make up `codes`.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `codes` is not a whole number of codes.
    pub fn unpack(&self, codes: &[u8]) -> Result<Vec<u32>> {
        self.packed.count("ResidualQuantizer::unpack", codes)?;
        Ok(self.packed.unpack(codes))
    }

    pub(crate) fn packed(&self) -> Packed {
        self.packed
    }

    /// Whether a beam knows its way: what a stage leaves is the row it looked at less the codeword it took.
    fn has_beam(&self) -> bool {
        self.stages.iter().all(Stages::are_plain) && (self.stages.len() == 1 || self.stages.len() == self.m())
    }

    pub(crate) fn check_columns(&self, op: &'static str, cols: usize) -> Result<()> {
        if cols != self.d() {
            let expected = format!("vectors of {} columns", self.d());
            return Err(Error::Shape { op, expected, got: cols.to_string() });
        }
        Ok(())
    }
}

/// Rows of so many values that are worked on at a time.
fn block_rows(values: usize) -> usize {
    (BLOCK / values).clamp(1, 16384)
}

/// Adds the values.
pub(super) fn add(sums: &mut [f32], parts: &[f32]) {
    let add = |(sum, part): (&mut [f32], &[f32])| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    sums.par_chunks_mut(PIECE).zip(parts.par_chunks(PIECE)).for_each(add);
}

/// Takes the values off.
pub(super) fn take(rows: &mut [f32], parts: &[f32]) {
    let take = |(row, part): (&mut [f32], &[f32])| row.iter_mut().zip(part).for_each(|(row, part)| *row -= part);
    rows.par_chunks_mut(PIECE).zip(parts.par_chunks(PIECE)).for_each(take);
}

/// Takes the codewords of the labels off the rows.
pub(super) fn subtract(rows: &mut [f32], labels: &[u32], codebook: &Codebook) -> Result<()> {
    let d = codebook.d();
    let mut part = vec![0.0; rows.len().min(block_rows(d) * d)];
    for (rows, labels) in rows.chunks_mut(block_rows(d) * d).zip(labels.chunks(block_rows(d))) {
        let part = &mut part[..rows.len()];
        decode_into(labels, codebook, part)?;
        take(rows, part);
    }
    Ok(())
}

/// An error about a block of vectors, told of all.
pub(super) fn of_vector<T: Element>(op: &'static str, error: Error, rows: MatrixView<'_, T>, first: usize) -> Error {
    match error {
        Error::NonFinite { what: "vector", row, .. } => {
            non_finite(op, rows, row, "remove the vector").of_part_at(first, 0)
        }
        error => error.of_part_at(first, 0),
    }
}

/// An error about residuals: they can be infinite where vectors are not.
pub(super) fn of_residual(op: &'static str, error: Error) -> Error {
    let way_out = "scale the vectors and codewords down: a difference of theirs is beyond f32";
    match error {
        Error::NonFinite { what: "vector", row, col, got, .. } => {
            Error::NonFinite { op, what: "residual", row, col, got, way_out }
        }
        error => error,
    }
}
