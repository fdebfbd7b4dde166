//! Codes in a file: a number for each vector, or m of them along the last axis.

use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, index_text};
use crate::cli::model::Model;
use crate::cli::order::multi_index;
use crate::cli::report::shape_text;
use crate::cli::values::Quantizer;
use codeword::Error;
use codeword::io::npy::Reader;
use std::path::Path;

/// Opens codes of any kind.
pub fn open(file: &Path) -> Result<Reader> {
    let reader = input::open(file, None)?;
    let dtype = reader.header().scalar;
    if dtype.is_float() {
        let message = format!(
            "{}: expected integer codes, got {}; name the file that encode wrote",
            file.display(),
            dtype.name()
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    Ok(reader)
}

/// Codes that a model is to make vectors of, m numbers for each.
pub struct Codes<'a> {
    pub reader: &'a Reader,
    model: &'a Model,
    pub n: usize,
    scratch: Vec<u8>,
    column: Vec<u32>,
}

impl<'a> Codes<'a> {
    /// Refuses codes of another number of sub-quantizers or stages.
    pub fn new(reader: &'a Reader, model: &'a Model) -> Result<Codes<'a>> {
        let shape = &reader.header().shape;
        let n = match model.quantizer {
            Quantizer::Vq => reader.elements(),
            _ => reader.rows(),
        };
        if model.quantizer != Quantizer::Vq && (shape.is_empty() || reader.cols() != model.m) {
            let message = format!(
                "{}: expected codes of {} numbers along the last axis, as {} has {}s, got shape {}; name the model that \
                 the codes were made with",
                reader.file().display(),
                model.m,
                model.reader.file().display(),
                model.quantizer.part(),
                shape_text(shape)
            );
            return Err(Failure::new(Exit::BadInput, message));
        }
        Ok(Codes { reader, model, n, scratch: Vec::new(), column: Vec::new() })
    }

    /// Reads the numbers of `rows` vectors from `first` on, m for each.
    pub fn read(&mut self, first: usize, rows: usize, numbers: &mut Vec<u32>) -> Result<()> {
        let m = self.model.m;
        numbers.resize(rows * m, 0);
        if !self.reader.header().fortran_order {
            return self.reader.read_codes(first * m, numbers, &mut self.scratch).or_exit(Exit::BadInput);
        }
        // In Fortran order the first numbers of all vectors come first, then all second ones, and so on.
        self.column.resize(rows, 0);
        for s in 0..m {
            let at = s * self.n + first;
            self.reader.read_codes(at, &mut self.column, &mut self.scratch).or_exit(Exit::BadInput)?;
            numbers.iter_mut().skip(s).step_by(m).zip(&self.column).for_each(|(number, &read)| *number = read);
        }
        Ok(())
    }
}

/// Puts the position of a wrong number among those from vector `first` of `n` on in terms of the file.
pub fn explain(error: Error, first: usize, n: usize, codes: &Reader, model: &Model) -> Failure {
    if let Error::NonFinite { row, col, got, .. } = error {
        let message = format!(
            "{}: vector {} of these codes would hold {got} in column {col}, beyond f32; scale the codewords of {} down",
            codes.file().display(),
            first + row,
            model.reader.file().display()
        );
        return Failure::new(Exit::BadInput, message);
    }
    let Error::CodeOutOfRange { position, code, k, .. } = error else {
        return Failure { exit: Exit::of(&error), error: error.into() };
    };
    let (header, (row, s)) = (codes.header(), (first + position / model.m, position % model.m));
    let position = if header.fortran_order { s * n + row } else { row * model.m + s };
    let position = index_text(&multi_index(&header.shape, header.fortran_order, position), position);
    let message = format!(
        "{}: code {code} at position {position} names no codeword: {} holds {k} (codes 0 to {}); name the codebook that the \
         codes were made with",
        codes.file().display(),
        model.reader.file().display(),
        k - 1
    );
    Failure::new(Exit::BadInput, message)
}
