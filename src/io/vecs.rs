//! Arrays of vector search benchmarks, laid out as the table in [`crate::io`] says.

use super::npy::{Fault, Header, PIECE, Scalar, array_bytes, positioned};
use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Bytes of the dimension in front of a row.
const DIMENSION: usize = 4;

/// What a file is by its name.
#[derive(Clone, Copy)]
pub(super) struct Format {
    name: &'static str,
    scalar: Scalar,
    /// Whether every row follows its dimension; else one head says it for all.
    pub(super) has_dimensions: bool,
}

const FORMATS: [Format; 7] = [
    Format { name: "fvecs", scalar: Scalar::F32, has_dimensions: true },
    Format { name: "ivecs", scalar: Scalar::I32, has_dimensions: true },
    Format { name: "bvecs", scalar: Scalar::U8, has_dimensions: true },
    Format { name: "fbin", scalar: Scalar::F32, has_dimensions: false },
    Format { name: "ibin", scalar: Scalar::I32, has_dimensions: false },
    Format { name: "u8bin", scalar: Scalar::U8, has_dimensions: false },
    Format { name: "i8bin", scalar: Scalar::I8, has_dimensions: false },
];

impl Format {
    pub(super) fn of(path: &Path) -> Option<Format> {
        let extension = path.extension()?;
        FORMATS.into_iter().find(|format| extension.eq_ignore_ascii_case(format.name))
    }

    /// What the array is, from the first bytes of a file of `size` bytes. With `has_dimensions` the file is exactly as
    /// long as the shape says; else that is still to be checked.
    pub(super) fn header(
        self,
        start: &[u8],
        size: u64,
        name: Option<&str>,
        dtype: Option<Scalar>,
    ) -> std::result::Result<Header, Fault> {
        let Format { name: format, scalar, has_dimensions } = self;
        if let Some(name) = name {
            let expected = format!("a .safetensors file with a tensor '{name}'");
            return Err(Fault::new(expected, format!("a .{format} file")));
        }
        if let Some(asked) = dtype.filter(|&asked| asked != scalar) {
            let got = format!("{}, as every .{format} file holds", scalar.name());
            return Err(Fault::new(format!("{}, as asked for", asked.name()), got));
        }
        let (n, d, data_start) = if has_dimensions { rows(scalar, start, size)? } else { head(start)? };
        // Lengths beyond usize, on small machines, are beyond what can be addressed as well.
        let shape = [n, d].map(|len| usize::try_from(len).unwrap_or(usize::MAX)).to_vec();
        if array_bytes(scalar, &shape).is_none() {
            let got = format!("shape {shape:?} of {}", scalar.name());
            return Err(Fault::new("an array that this machine can address", got));
        }
        Ok(Header { scalar, big_endian: false, fortran_order: false, shape, data_start })
    }
}

/// Rows, dimension and place of the first element where every row follows its dimension.
fn rows(scalar: Scalar, start: &[u8], size: u64) -> std::result::Result<(u64, u64, u64), Fault> {
    let Some(&dimension) = start.first_chunk() else {
        return Err(Fault::new("a dimension of 4 bytes in front of the first row", format!("{size} bytes in all")));
    };
    let dimension = i32::from_le_bytes(dimension);
    let Some(d) = u64::try_from(dimension).ok().filter(|&d| d > 0) else {
        return Err(Fault::new("a dimension of at least 1 in front of the first row", dimension.to_string()));
    };
    let pitch = DIMENSION as u64 + d * scalar.size() as u64;
    if !size.is_multiple_of(pitch) {
        let expected = format!("whole rows of {pitch} bytes, as the dimension {d} in front of the first one says");
        return Err(Fault::new(expected, format!("{size} bytes (cut short?)")));
    }
    Ok((size / pitch, d, DIMENSION as u64))
}

/// Rows, dimension and place of the first element where they stand once, at the start.
fn head(start: &[u8]) -> std::result::Result<(u64, u64, u64), Fault> {
    match start.first_chunk() {
        Some(&[n0, n1, n2, n3, d0, d1, d2, d3]) => {
            let number = |bytes| u64::from(u32::from_le_bytes(bytes));
            Ok((number([n0, n1, n2, n3]), number([d0, d1, d2, d3]), 8))
        }
        None => Err(Fault::new("8 bytes with the number of rows and the dimension", format!("{} in all", start.len()))),
    }
}

/// Fills `bytes` with the elements from position `first` on, of rows that each follow their dimension. In every row
/// that is read from, it must be that of the first row.
pub(super) fn read_elements(
    file: &File,
    path: &Path,
    header: &Header,
    first: usize,
    mut bytes: &mut [u8],
) -> Result<()> {
    let read = |buf: &mut [u8], at| {
        positioned::read_exact(file, buf, at).map_err(|source| Error::Io {
            file: path.to_path_buf(),
            doing: "read",
            source,
        })
    };
    let row_bytes = header.cols() * header.scalar.size();
    let pitch = DIMENSION + row_bytes;
    let mut at = first * header.scalar.size();
    let mut piece = Vec::new();
    while !bytes.is_empty() {
        let (row, within) = (at / row_bytes, at % row_bytes);
        let start = row as u64 * pitch as u64;
        let out;
        if within > 0 || pitch > PIECE {
            // What is left of one row goes straight to its place.
            (out, bytes) = bytes.split_at_mut((row_bytes - within).min(bytes.len()));
            let mut dimension = [0; DIMENSION];
            read(&mut dimension, start)?;
            check(path, header, row, dimension)?;
            read(out, start + (DIMENSION + within) as u64)?;
        } else {
            // One read for each short row would be slow: a piece of the file is read, and rows are copied out of it.
            (out, bytes) = bytes.split_at_mut((PIECE / pitch * row_bytes).min(bytes.len()));
            piece.resize(out.len() + out.len().div_ceil(row_bytes) * DIMENSION, 0);
            read(&mut piece, start)?;
            for ((row, out), stored) in (row..).zip(out.chunks_mut(row_bytes)).zip(piece.chunks(pitch)) {
                if let Some((&dimension, elements)) = stored.split_first_chunk() {
                    check(path, header, row, dimension)?;
                    out.copy_from_slice(elements);
                }
            }
        }
        at += out.len();
    }
    Ok(())
}

/// Refuses a row of another dimension than the first one.
fn check(path: &Path, header: &Header, row: usize, dimension: [u8; DIMENSION]) -> Result<()> {
    let (d, dimension) = (header.cols(), i32::from_le_bytes(dimension));
    if usize::try_from(dimension).is_ok_and(|dimension| dimension == d) {
        return Ok(());
    }
    let expected = format!("the dimension {d} in front of every row, as in front of the first");
    Err(Fault::new(expected, format!("{dimension} in front of row {row}")).at(path))
}
