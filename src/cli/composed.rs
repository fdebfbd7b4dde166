//! Quantizers whose codes are several numbers, as the verbs use them: the only place that tells one kind from the other.

use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::{self, Vectors};
use crate::cli::model::Model;
use crate::cli::report::{Clock, shape_text};
use crate::cli::stream::Block;
use crate::cli::values::Quantizer;
use codeword::io::npy::Reader;
use codeword::{Codebook, Device, Error, Matrix, MatrixView, Neighbors};
use codeword::{OptimizedProductQuantizer, ProductQuantizer, ResidualQuantizer};

/// Names of the tensors of a model.
pub const CODEBOOKS: &str = "codebooks";
pub const ROTATION: &str = "rotation";

/// Values that the library decodes at a time for a search of residual codes, and how often it holds as many.
const DECODED: u64 = 1 << 23;
const OF_DECODED: u64 = 7;

pub enum Composed {
    Product(ProductQuantizer),
    Optimized(OptimizedProductQuantizer),
    Residual(ResidualQuantizer),
}

type Library<T> = std::result::Result<T, Error>;

impl Composed {
    /// Reads a model that is no single codebook.
    pub fn load(model: &Model, device: &Device, clock: &mut Clock) -> Result<Composed> {
        let mut codewords = model.codewords(clock)?;
        let (m, k, width) = (model.m, model.k, model.width);
        if model.reader.header().fortran_order {
            // There the first codewords of all parts come first, then all second ones, and so on.
            codewords =
                (0..m * k).flat_map(|row| &codewords[(row % k * m + row / k) * width..][..width]).copied().collect();
        }
        let of_file = |error: Error| model.explain(error);
        let view = MatrixView::new(&codewords, m * k, width).map_err(of_file)?;
        if let Some(around) = &model.around {
            return around.load(model, &codewords, device, clock).map(Composed::Residual);
        }
        if model.quantizer == Quantizer::Rvq {
            return clock
                .prepare(|| ResidualQuantizer::new(view, m, device))
                .map(Composed::Residual)
                .map_err(|error| model.explain(error));
        }
        let product = clock.prepare(|| ProductQuantizer::new(view, m, device)).map_err(|error| model.explain(error))?;
        if model.quantizer != Quantizer::Opq {
            return Ok(Composed::Product(product));
        }
        let rotation = clock.load(|| rotation(model))?;
        let optimized = OptimizedProductQuantizer::new(rotation, product).map_err(|error| model.explain(error))?;
        Ok(Composed::Optimized(optimized))
    }

    /// The codes of vectors, of which residual quantizers keep the best `beam` ways to each.
    pub fn encode(&self, x: MatrixView<'_, f32>, beam: Option<u32>) -> Library<Vec<u8>> {
        match (self, beam) {
            (Composed::Product(quantizer), _) => quantizer.encode(x),
            (Composed::Optimized(quantizer), _) => quantizer.encode(x),
            (Composed::Residual(quantizer), None) => quantizer.encode(x),
            (Composed::Residual(quantizer), Some(beam)) => quantizer.encode_beam(x, beam as usize),
        }
    }

    pub fn decode(&self, codes: &[u8]) -> Library<Matrix<f32>> {
        match self {
            Composed::Product(quantizer) => quantizer.decode(codes),
            Composed::Optimized(quantizer) => quantizer.decode(codes),
            Composed::Residual(quantizer) => quantizer.decode(codes),
        }
    }

    pub fn pack(&self, numbers: &[u32]) -> Library<Vec<u8>> {
        match self {
            Composed::Product(quantizer) => quantizer.pack(numbers),
            Composed::Optimized(quantizer) => quantizer.product().pack(numbers),
            Composed::Residual(quantizer) => quantizer.pack(numbers),
        }
    }

    pub fn unpack(&self, codes: &[u8]) -> Library<Vec<u32>> {
        match self {
            Composed::Product(quantizer) => quantizer.unpack(codes),
            Composed::Optimized(quantizer) => quantizer.product().unpack(codes),
            Composed::Residual(quantizer) => quantizer.unpack(codes),
        }
    }

    /// The codes nearest to queries: by their own codes where `symmetric` says so, which residual ones are not.
    pub fn search(&self, codes: &[u8], x: MatrixView<'_, f32>, r: usize, symmetric: bool) -> Library<Neighbors> {
        match (self, symmetric) {
            (Composed::Product(quantizer), false) => quantizer.search(codes, x, r),
            (Composed::Product(quantizer), true) => quantizer.search_symmetric(codes, &quantizer.encode(x)?, r),
            (Composed::Optimized(quantizer), false) => quantizer.search(codes, x, r),
            (Composed::Optimized(quantizer), true) => {
                quantizer.product().search_symmetric(codes, &quantizer.encode(x)?, r)
            }
            (Composed::Residual(quantizer), _) => quantizer.search(codes, x, r),
        }
    }

    pub fn codebooks(&self) -> &[Codebook] {
        match self {
            Composed::Product(quantizer) => quantizer.codebooks(),
            Composed::Optimized(quantizer) => quantizer.product().codebooks(),
            Composed::Residual(quantizer) => quantizer.codebooks(),
        }
    }

    /// The numbers of the vectors of a block, `[rows, m]`.
    pub fn encode_block(&self, block: &Block, vectors: &Vectors, beam: Option<u32>) -> Result<Vec<u32>> {
        let numbers = block.view(vectors.d).and_then(|x| self.encode(x, beam)).and_then(|codes| self.unpack(&codes));
        numbers.map_err(|error| vectors.explain(error, block.first, "remove or repair it"))
    }

    /// The vectors that the numbers stand for, one after the other in `out`; refused where one leaves f32.
    pub fn decode_numbers(&self, numbers: &[u32], out: &mut Vec<f32>) -> Library<()> {
        let vectors = self.decode(&self.pack(numbers)?)?;
        if let Some(at) = vectors.as_slice().iter().position(|value| !value.is_finite()) {
            let (row, col, got) = (at / vectors.cols(), at % vectors.cols(), vectors.as_slice()[at]);
            let (op, way_out) = ("decode", "scale the codewords down: their sum is beyond f32");
            return Err(Error::NonFinite { op, what: "decoded vector", row, col, got, way_out });
        }
        out.clear();
        out.extend_from_slice(vectors.as_slice());
        Ok(())
    }
}

/// Bytes beside the numbers of a vector while it is encoded: its packed code, and what is left of it or its rotated form; of
/// each sum that a beam keeps what is left, old and new, its numbers, and the nearest codewords with their distances.
pub fn encoding(model: &Model, beam: Option<u32>) -> u64 {
    let (m, d, width) = (model.m as u64, model.d as u64, model.width as u64);
    let of_quantizer = match (model.quantizer, beam) {
        // What is left of it there, its direction, and what is taken off, twice.
        (Quantizer::Rvq, _) if model.around.is_some() => 8 * d + 16 * width + 8,
        (Quantizer::Vq | Quantizer::Pq, _) => 0,
        (Quantizer::Opq, _) => 4 * d,
        (Quantizer::Rvq, None) => 8 * d + 8,
        (Quantizer::Rvq, Some(beam)) => {
            let beam = u64::from(beam);
            let of_sum = (8 * d).saturating_add(m.saturating_mul(8)).saturating_add(8 * beam.min(model.k as u64));
            of_sum.saturating_mul(beam)
        }
    };
    m.saturating_mul(6).saturating_add(of_quantizer)
}

/// Multiply-adds of a vector while it is encoded: with every codeword, and in its rotation.
pub fn work(model: &Model) -> u64 {
    let (m, k, width, d) = (model.m as u64, model.k as u64, model.width as u64, model.d as u64);
    let turned = match &model.around {
        Some(around) => around.work(model.width),
        None if model.quantizer == Quantizer::Opq => d.saturating_mul(d),
        None => 0,
    };
    k.saturating_mul(width).saturating_mul(m).saturating_add(turned)
}

/// Bytes of a vector, beside it and its numbers, while it is decoded.
pub fn decoding(model: &Model) -> u64 {
    let (m, d) = (model.m as u64, model.d as u64);
    match model.quantizer {
        Quantizer::Vq => 0,
        // Packed codes, and the vectors once more; twice where they are rotated or added up.
        Quantizer::Pq => m.saturating_mul(2).saturating_add(4 * d),
        Quantizer::Opq | Quantizer::Rvq => {
            let of_width = if model.around.is_some() { 8 * model.width as u64 } else { 0 };
            m.saturating_mul(2).saturating_add(8 * d).saturating_add(of_width)
        }
    }
}

/// Bytes that a search of residual codes takes for the vectors that it decodes.
pub fn searching(codes: usize, d: usize) -> u64 {
    let d = d as u64;
    let rows = (DECODED / d).max(1024).min(codes as u64);
    (4 * OF_DECODED).saturating_mul(d).saturating_mul(rows)
}

/// Reads the rotation beside the codebooks.
fn rotation(model: &Model) -> Result<Matrix<f32>> {
    let file = model.reader.file();
    let reader = Reader::open_tensor(file, Some(ROTATION), None)
        .map_err(|error| Failure { exit: Exit::of(&error), error: error.into() })?;
    let shape = &reader.header().shape;
    if shape[..] != [model.d, model.d] {
        let message = format!(
            "{}: expected a rotation of shape ({}, {}), as its codewords have dimensions, got {}; train the model again",
            file.display(),
            model.d,
            model.d,
            shape_text(shape)
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    let (values, _) = input::read_all(&reader)?;
    Matrix::new(values, model.d, model.d).map_err(|error| model.explain(error))
}
