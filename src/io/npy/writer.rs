//! Blocks of rows, codes or values into a file.

use super::header::Header;
use super::reader::within;
use super::written::Written;
use super::{COLUMNS, PIECE, SEGMENT, Scalar, convert, positioned};
use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A `.npy` file that is written in blocks, in any order; [`Writer::finish`] checks that none is missing.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    header: Header,
    written: Written,
    scratch: Vec<u8>,
}

impl Writer {
    /// Writes `header` at the start of `file`, which must be empty and open for writing; `path` is its name for
    /// messages. The header's `data_start` is set to where the elements start.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the array could not be addressed.
    /// - [`Error::Format`] where the file is not empty.
    /// - [`Error::Io`] where the header cannot be written.
    pub fn new(file: File, path: &Path, mut header: Header) -> Result<Writer> {
        header.check()?;
        let bytes = header.to_bytes();
        header.data_start = bytes.len() as u64;
        let writer =
            Writer { file, path: path.to_path_buf(), header, written: Written::default(), scratch: Vec::new() };
        let size = writer.file.metadata().map_err(|e| writer.io("write", e))?.len();
        if size > 0 {
            return Err(Error::Format {
                file: writer.path,
                expected: "an empty file to write to".into(),
                got: format!("{size} bytes"),
            });
        }
        positioned::write_all(&writer.file, &bytes, 0).map_err(|e| writer.io("write", e))?;
        Ok(writer)
    }

    /// Writes whole rows from row `first` on (row-major); the header says f32. In a Fortran-order file each
    /// column is written apart: large blocks are faster.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where the header says another type, `rows` is not a whole number of rows, or
    ///   ends past the last one.
    /// - [`Error::Io`] where the file cannot be written.
    pub fn write_rows(&mut self, first: usize, rows: &[f32]) -> Result<()> {
        let cols = self.header.cols();
        self.expect("write_rows", &[Scalar::F32])?;
        if rows.is_empty() {
            return Ok(());
        }
        if cols == 0 || !rows.len().is_multiple_of(cols) {
            return Err(Error::InvalidParameter {
                op: "write_rows",
                name: "rows",
                expected: format!("a whole number of rows of {cols}"),
                got: format!("{} elements", rows.len()),
            });
        }
        within("write_rows", first, rows.len() / cols, self.header.rows())?;
        if !self.header.strided() {
            return self.put(first * cols, bytemuck::cast_slice(rows));
        }
        let n = self.header.rows();
        let mut tile = vec![0f32; SEGMENT.min(rows.len() / cols) * COLUMNS.min(cols)];
        for (i, block) in rows.chunks(SEGMENT * cols).enumerate() {
            let (row, height) = (first + i * SEGMENT, block.len() / cols);
            for t in (0..cols).step_by(COLUMNS) {
                let width = COLUMNS.min(cols - t);
                for (r, values) in block.chunks(cols).enumerate() {
                    for (c, &value) in values[t..t + width].iter().enumerate() {
                        tile[c * height + r] = value;
                    }
                }
                for (c, column) in tile.chunks(height).take(width).enumerate() {
                    self.put(row + n * (t + c), bytemuck::cast_slice(column))?;
                }
            }
        }
        Ok(())
    }

    /// Writes codes from element `first` on, in storage order; the header says u8, u16 or u32.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where the header says another type, a code does not fit it (nothing is written
    ///   then), or `codes` end past the last element.
    /// - [`Error::Io`] where the file cannot be written.
    pub fn write_codes(&mut self, first: usize, codes: &[u32]) -> Result<()> {
        let scalar = self.expect("write_codes", &[Scalar::U8, Scalar::U16, Scalar::U32])?;
        within("write_codes", first, codes.len(), self.header.elements())?;
        let largest = u32::MAX >> (32 - 8 * scalar.size());
        if let Some(at) = codes.iter().position(|&code| code > largest) {
            return Err(Error::InvalidParameter {
                op: "write_codes",
                name: "codes",
                expected: format!("0 to {largest} ({})", scalar.name()),
                got: format!("{} at position {}", codes[at], first + at),
            });
        }
        if scalar == Scalar::U32 {
            return self.put(first, bytemuck::cast_slice(codes));
        }
        let mut narrow = Vec::with_capacity(PIECE.min(codes.len() * scalar.size()));
        for (i, piece) in codes.chunks(PIECE / scalar.size()).enumerate() {
            narrow.clear();
            match scalar {
                Scalar::U8 => narrow.extend(piece.iter().map(|&code| code as u8)),
                _ => narrow.extend(piece.iter().flat_map(|&code| (code as u16).to_ne_bytes())),
            }
            self.put(first + i * (PIECE / scalar.size()), &narrow)?;
        }
        Ok(())
    }

    /// Writes values from element `first` on, in storage order; the header says f32.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where the header says another type, or `values` end past the last element.
    /// - [`Error::Io`] where the file cannot be written.
    pub fn write_values(&mut self, first: usize, values: &[f32]) -> Result<()> {
        self.expect("write_values", &[Scalar::F32])?;
        within("write_values", first, values.len(), self.header.elements())?;
        self.put(first, bytemuck::cast_slice(values))
    }

    /// Checks that every element has been written, and has the operating system store the file before it is handed
    /// back.
    ///
    /// # Errors
    /// - [`Error::Shape`] naming the first element that was not written.
    /// - [`Error::Io`] where the file cannot be stored.
    pub fn finish(self) -> Result<File> {
        let elements = self.header.elements();
        if let Some(at) = self.written.first_missing(elements) {
            return Err(Error::Shape {
                op: "Writer::finish",
                expected: format!("all {elements} elements of {} written", self.path.display()),
                got: format!("none at position {at}"),
            });
        }
        self.file.sync_all().map_err(|e| self.io("store", e))?;
        Ok(self.file)
    }

    /// Writes elements, given as bytes in this machine's order, from position `first` on. The caller has checked
    /// that they lie within the array.
    fn put(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let size = self.header.scalar.size();
        let mut offset = self.header.data_start + (first * size) as u64;
        let result = if self.header.swapped() {
            bytes.chunks(PIECE).try_for_each(|piece| {
                self.scratch.clear();
                self.scratch.extend_from_slice(piece);
                convert::swap(&mut self.scratch, size);
                positioned::write_all(&self.file, &self.scratch, offset)?;
                offset += piece.len() as u64;
                Ok(())
            })
        } else {
            positioned::write_all(&self.file, bytes, offset)
        };
        result.map_err(|e| self.io("write", e))?;
        self.written.add(first, first + bytes.len() / size);
        Ok(())
    }

    fn expect(&self, op: &'static str, scalars: &[Scalar]) -> Result<Scalar> {
        let scalar = self.header.scalar;
        if scalars.contains(&scalar) {
            return Ok(scalar);
        }
        let names: Vec<_> = scalars.iter().map(|s| s.name()).collect();
        Err(Error::InvalidParameter {
            op,
            name: "header",
            expected: format!("of {}", names.join(", ")),
            got: scalar.name().into(),
        })
    }

    fn io(&self, doing: &'static str, source: std::io::Error) -> Error {
        Error::Io { file: self.path.clone(), doing, source }
    }
}
