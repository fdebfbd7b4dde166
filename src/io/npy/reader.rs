//! Blocks of rows or codes out of a file.

use super::header::Header;
use super::{COLUMNS, Fault, PIECE, SEGMENT, Scalar, convert, positioned};
use crate::error::{Error, Result};
use crate::io::open::{self, Array};
use crate::io::vecs;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// An array in a file of any format that is read, in blocks. `&Reader` can be shared by threads.
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: PathBuf,
    header: Header,
    /// Whether every row follows its dimension in the file.
    has_dimensions: bool,
    metadata: BTreeMap<String, String>,
    tensors: Vec<String>,
}

impl Reader {
    /// Opens `file` and checks its header and its size; reads no elements. A file that starts with NumPy's magic
    /// bytes is a `.npy` file whatever its name; one named `.safetensors` is read as [`Reader::open_tensor`] says.
    /// `dtype` as in [`Header::parse`].
    ///
    /// The formats of vector search benchmarks (`.fvecs`, `.fbin`, …) are known by their names, as the table in
    /// [`crate::io`] says. The dimension in front of a row is checked when that row is read.
    ///
    /// Bytes after the last element are ignored with a warning in the log, as NumPy ignores them (`np.save` can append
    /// several arrays to one file; ground truth in `.ibin` files is followed by distances). Not so in `.safetensors`,
    /// `.fvecs`, `.ivecs` and `.bvecs` files, whose length must be what they say.
    ///
    /// # Errors
    /// - [`Error::Io`] where the file cannot be opened or read.
    /// - [`Error::Format`] for anything but a whole array of numbers.
    pub fn open(file: &Path, dtype: Option<Scalar>) -> Result<Reader> {
        Reader::open_tensor(file, None, dtype)
    }

    /// Like [`Reader::open`], with the name of the tensor in a `.safetensors` file. Without a name it is
    /// `codebook`, `codewords` or `vectors`, or else the only one.
    ///
    /// # Errors
    /// - as [`Reader::open`].
    /// - [`Error::Format`] where there is no such tensor, or several and no name; the message lists the names.
    pub fn open_tensor(file: &Path, name: Option<&str>, dtype: Option<Scalar>) -> Result<Reader> {
        let Array { file: open, header, has_dimensions, metadata, names } = open::array(file, name, dtype)?;
        Ok(Reader { file: open, path: file.to_path_buf(), header, has_dimensions, metadata, tensors: names })
    }

    /// What the file says of its array.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file's name, as it was opened.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// The free-form entries of a `.safetensors` file; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The names of all tensors of a `.safetensors` file, sorted; empty for other formats.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    /// Number of vectors: the product of the leading axes.
    pub fn rows(&self) -> usize {
        self.header.rows()
    }

    /// Length of a vector: the last axis.
    pub fn cols(&self) -> usize {
        self.header.cols()
    }

    /// The axes before the last.
    pub fn leading(&self) -> &[usize] {
        self.header.leading()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.header.elements()
    }

    /// Index of row `p` along each leading axis.
    pub fn row_index(&self, p: usize) -> Vec<usize> {
        unravel(p, self.leading(), self.header.fortran_order)
    }

    /// Reads the rows from `first` on into `out`, row-major, as f32: f64 and integers are rounded to nearest-even,
    /// NaN and infinities stay what they are. Returns how many rows hold an element that f32 cannot hold.
    ///
    /// Little-endian f32 in C order is read straight into `out`; everything else goes through `scratch` (its
    /// contents mean nothing, it only saves allocations) in pieces of at most 256 KiB, or one row where that is more
    /// (C order), or up to 16 columns of up to 16,384 rows (Fortran order). Where dimensions lie between the rows
    /// (`.fvecs`, `.ivecs`, `.bvecs`), each call allocates up to 256 KiB beside it.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `out` is not a whole number of rows, or ends past the last one.
    /// - [`Error::Format`] naming the first row with a finite f64 beyond the largest f32, and for a single number of
    ///   shape (), which holds one code but no vector; or the first row that has another dimension than row 0.
    /// - [`Error::Io`] where the file cannot be read.
    pub fn read_rows(&self, first: usize, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<u64> {
        let (cols, scalar) = (self.cols(), self.header.scalar);
        if self.header.shape.is_empty() {
            return Err(Fault::new("vectors along the last axis", "a single number (shape ())").at(&self.path));
        }
        if out.is_empty() {
            return Ok(0);
        }
        if cols == 0 || !out.len().is_multiple_of(cols) {
            return Err(Error::InvalidParameter {
                op: "read_rows",
                name: "out",
                expected: format!("a whole number of rows of {cols}"),
                got: format!("{} elements", out.len()),
            });
        }
        within("read_rows", first, out.len() / cols, self.rows())?;
        if self.header.strided() {
            return self.read_columns(first, out, scratch);
        }
        if scalar == Scalar::F32 {
            let bytes = bytemuck::cast_slice_mut(out);
            self.read_elements(first * cols, bytes)?;
            return Ok(0);
        }
        let step = (PIECE / (cols * scalar.size())).max(1);
        let mut inexact = 0;
        for (i, piece) in out.chunks_mut(step * cols).enumerate() {
            let row = first + i * step;
            let bytes = grown(scratch, piece.len() * scalar.size());
            self.read_elements(row * cols, bytes)?;
            convert::widen(scalar, bytes, piece);
            if !convert::always_exact(scalar) {
                let rows = bytes.chunks(cols * scalar.size()).zip(piece.chunks(cols));
                inexact += self.count(row, rows.map(|(bytes, out)| convert::loss(scalar, bytes, out)))?;
            }
        }
        Ok(inexact)
    }

    /// [`Reader::read_rows`] where the elements of a row lie apart: tiles of [`SEGMENT`] rows x [`COLUMNS`] columns
    /// are read column by column and transposed, so that rows of `out` are written by whole cache lines.
    fn read_columns(&self, first: usize, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<u64> {
        let (n, cols, scalar) = (self.rows(), self.cols(), self.header.scalar);
        let mut inexact = 0;
        let tallest = SEGMENT.min(out.len() / cols);
        let mut tile = vec![0f32; tallest * COLUMNS.min(cols)];
        let mut flags = vec![0u8; tallest];
        for (i, block) in out.chunks_mut(SEGMENT * cols).enumerate() {
            let row = first + i * SEGMENT;
            let rows = block.len() / cols;
            let flags = &mut flags[..rows];
            flags.fill(0);
            for t in (0..cols).step_by(COLUMNS) {
                let width = COLUMNS.min(cols - t);
                for (c, column) in tile.chunks_mut(rows).take(width).enumerate() {
                    let bytes = grown(scratch, rows * scalar.size());
                    self.read_elements(row + n * (t + c), bytes)?;
                    convert::widen(scalar, bytes, column);
                    convert::mark(scalar, bytes, column, flags);
                }
                for (r, out) in block.chunks_mut(cols).enumerate() {
                    for (c, slot) in out[t..t + width].iter_mut().enumerate() {
                        *slot = tile[c * rows + r];
                    }
                }
            }
            inexact += self.count(row, flags.iter().copied())?;
        }
        Ok(inexact)
    }

    /// Reads the elements from `first` on, in storage order, as f32, whatever rows they are in. Returns how many f32 cannot
    /// hold. Rounding, `scratch` and errors as in [`Reader::read_rows`].
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `out` ends past the last element.
    /// - [`Error::Format`] naming the first finite f64 beyond the largest f32, or the first row that has another dimension
    ///   than row 0.
    /// - [`Error::Io`] where the file cannot be read.
    pub fn read_values(&self, first: usize, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<u64> {
        let scalar = self.header.scalar;
        within("read_values", first, out.len(), self.elements())?;
        if scalar == Scalar::F32 {
            self.read_elements(first, bytemuck::cast_slice_mut(out))?;
            return Ok(0);
        }
        let (step, mut inexact) = (PIECE / scalar.size(), 0);
        for (i, piece) in out.chunks_mut(step).enumerate() {
            let bytes = grown(scratch, piece.len() * scalar.size());
            self.read_elements(first + i * step, bytes)?;
            convert::widen(scalar, bytes, piece);
            if convert::always_exact(scalar) {
                continue;
            }
            for (at, (element, value)) in bytes.chunks(scalar.size()).zip(piece.chunks(1)).enumerate() {
                let flags = convert::loss(scalar, element, value);
                if flags & convert::OVERFLOW != 0 {
                    let index = unravel(first + i * step + at, &self.header.shape, self.header.fortran_order);
                    // Of the types that f32 cannot always hold only f64 goes beyond it.
                    let element = element.first_chunk().map_or(f64::NAN, |&bytes| f64::from_ne_bytes(bytes));
                    let got = format!("{element:e} at index {index:?}");
                    return Err(
                        self.format(format!("numbers that f32 can hold (up to {:e}); scale the data", f32::MAX), got)
                    );
                }
                inexact += u64::from(flags & convert::INEXACT);
            }
        }
        Ok(inexact)
    }

    /// Reads the elements from `first` on, in storage order, as codes. `scratch` as in [`Reader::read_rows`].
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `out` ends past the last element.
    /// - [`Error::Format`] where the elements are not integers, or naming the first that is negative or beyond u32, or
    ///   the first row that has another dimension than row 0.
    /// - [`Error::Io`] where the file cannot be read.
    pub fn read_codes(&self, first: usize, out: &mut [u32], scratch: &mut Vec<u8>) -> Result<()> {
        let scalar = self.header.scalar;
        if scalar.is_float() {
            return Err(self.format("codes of an integer dtype", format!("{} (vectors?)", scalar.name())));
        }
        within("read_codes", first, out.len(), self.elements())?;
        if scalar == Scalar::U32 {
            return self.read_elements(first, bytemuck::cast_slice_mut(out));
        }
        let step = PIECE / scalar.size();
        for (i, piece) in out.chunks_mut(step).enumerate() {
            let start = first + i * step;
            let bytes = grown(scratch, piece.len() * scalar.size());
            self.read_elements(start, bytes)?;
            if !convert::codes(scalar, bytes, piece)
                && let Some((at, value)) = convert::first_bad_code(scalar, bytes)
            {
                let index = unravel(start + at, &self.header.shape, self.header.fortran_order);
                return Err(self.format(format!("codes from 0 to {}", u32::MAX), format!("{value} at index {index:?}")));
            }
        }
        Ok(())
    }

    /// Fills `bytes` with the elements from position `first` on, in this machine's byte order.
    fn read_elements(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        let size = self.header.scalar.size();
        if self.has_dimensions {
            vecs::read_elements(&self.file, &self.path, &self.header, first, bytes)?;
        } else {
            let offset = self.header.data_start + (first * size) as u64;
            positioned::read_exact(&self.file, bytes, offset).map_err(|source| Error::Io {
                file: self.path.clone(),
                doing: "read",
                source,
            })?;
        }
        if self.header.swapped() {
            convert::swap(bytes, size);
        }
        Ok(())
    }

    /// Number of rows that were rounded, from the flags of the rows from `first` on.
    fn count(&self, first: usize, flags: impl Iterator<Item = u8>) -> Result<u64> {
        let mut inexact = 0;
        for (row, flags) in (first..).zip(flags) {
            if flags & convert::OVERFLOW != 0 {
                return Err(self.overflow(row)?);
            }
            inexact += u64::from(flags & convert::INEXACT);
        }
        Ok(inexact)
    }

    /// The error for the first element of `row` that is finite and beyond the largest f32.
    fn overflow(&self, row: usize) -> Result<Error> {
        let (stride, start) = if self.header.strided() { (self.rows(), row) } else { (1, row * self.cols()) };
        let mut got = format!("a larger number in row {row}");
        for col in 0..self.cols() {
            let mut bytes = [0; 8];
            self.read_elements(start + col * stride, &mut bytes)?;
            let value = f64::from_ne_bytes(bytes);
            if value.is_finite() && (value as f32).is_infinite() {
                let index = self.row_index(row);
                got = format!("{value:e} in row {row}, column {col}");
                if index.len() > 1 {
                    got = format!("{got} (index {index:?})");
                }
                break;
            }
        }
        Ok(self.format(format!("numbers that f32 can hold (up to {:e}); scale the data", f32::MAX), got))
    }

    fn format(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Fault::new(expected, got).at(&self.path)
    }
}

/// The first `len` bytes of a buffer that is made longer where needed.
fn grown(scratch: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    &mut scratch[..len]
}

/// `count` things from `first` on lie within `total`.
pub(super) fn within(op: &'static str, first: usize, count: usize, total: usize) -> Result<()> {
    match first.checked_add(count) {
        Some(end) if end <= total => Ok(()),
        _ => Err(Error::InvalidParameter {
            op,
            name: "first",
            expected: format!("such that {count} from there on lie within {total}"),
            got: first.to_string(),
        }),
    }
}

/// Index along each axis of the element at `position` in storage order.
fn unravel(mut position: usize, shape: &[usize], fortran_order: bool) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    let mut axis = |i: usize| {
        index[i] = position % shape[i].max(1);
        position /= shape[i].max(1);
    };
    if fortran_order {
        (0..shape.len()).for_each(&mut axis)
    } else {
        (0..shape.len()).rev().for_each(&mut axis)
    }
    index
}
