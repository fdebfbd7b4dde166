//! The header of a `.npy` file: what the array is, and where its elements start.

use super::literal::{self, Entries, brief};
use super::{Fault, MAX_RANK, Scalar, array_bytes};
use crate::error::{Error, Result};
use std::path::Path;

pub(in crate::io) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Headers of plain arrays are a few hundred bytes; only structured dtypes, which are refused, write long ones.
const MAX_TEXT: usize = 1 << 20;

/// NumPy pads its headers so that the elements start at a multiple of this …
const ALIGN: usize = 64;
/// … and leaves room for the growing axis to reach this many digits.
const GROWTH_DIGITS: usize = 21;

/// What a `.npy` file says of its array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the elements.
    pub scalar: Scalar,
    /// Whether the most significant byte comes first; false for 1-byte elements.
    pub big_endian: bool,
    /// Whether the first axis runs fastest.
    pub fortran_order: bool,
    /// Length of each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// Position of the first element in the file.
    pub data_start: u64,
}

impl Header {
    /// The header to write for an array of little-endian elements.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the array could not be addressed, or has more than 64 axes.
    pub fn new(scalar: Scalar, shape: &[usize], fortran_order: bool) -> Result<Header> {
        let mut header = Header { scalar, big_endian: false, fortran_order, shape: shape.to_vec(), data_start: 0 };
        header.check()?;
        header.data_start = header.to_bytes().len() as u64;
        Ok(header)
    }

    /// Reads a header from the first bytes of a file; `file` is its name for messages. Bytes after the header are
    /// ignored. `dtype` is what the caller takes the elements for: `Bf16` reads 2-byte voids and u16 as bf16;
    /// anything else must be what the file says.
    ///
    /// # Errors
    /// - [`Error::Format`] for anything but a header of version 1 to 3 that describes an array of numbers; complex
    ///   numbers, booleans, strings, dates, structured and pickled arrays are refused by name.
    pub fn parse(file: &Path, prefix: &[u8], dtype: Option<Scalar>) -> Result<Header> {
        Header::parse_bytes(prefix, dtype).map_err(|fault| fault.at(file))
    }

    fn parse_bytes(prefix: &[u8], dtype: Option<Scalar>) -> std::result::Result<Header, Fault> {
        let (text_start, data_start) = header_extent(prefix)?;
        let Some(bytes) = prefix.get(..data_start) else {
            return Err(Fault::new(format!("a header of {data_start} bytes"), format!("{} bytes", prefix.len())));
        };
        let entries = literal::parse(bytes, text_start)?;
        let (scalar, big_endian) = scalar(entries.descr, dtype)?;
        if array_bytes(scalar, &entries.shape).is_none() {
            return Err(Fault::new(
                "an array that this machine can address",
                format!("shape {:?} of {}", entries.shape, scalar.name()),
            ));
        }
        let Entries { fortran_order, shape, .. } = entries;
        Ok(Header { scalar, big_endian, fortran_order, shape, data_start: data_start as u64 })
    }

    /// The bytes that NumPy would write before the elements of this array: version 1 where it fits, else 2.
    pub fn to_bytes(&self) -> Vec<u8> {
        let order = if self.fortran_order { "True" } else { "False" };
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        let descr = self.descr();
        let mut text =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({}{comma}), }}", shape.join(", "));
        let growing = if self.fortran_order { shape.last() } else { shape.first() };
        let spare = growing.map_or(0, |digits| GROWTH_DIGITS.saturating_sub(digits.len()));
        text.extend(std::iter::repeat_n(' ', spare));

        // NumPy pads by 1 to ALIGN bytes, never by none.
        let padded = |preamble: usize| (preamble + text.len() + 1) / ALIGN * ALIGN + ALIGN;
        let mut bytes = MAGIC.to_vec();
        let len = match u16::try_from(padded(10) - 10) {
            Ok(len) => {
                bytes.extend([1, 0]);
                bytes.extend(len.to_le_bytes());
                padded(10)
            }
            Err(_) => {
                bytes.extend([2, 0]);
                bytes.extend(((padded(12) - 12) as u32).to_le_bytes());
                padded(12)
            }
        };
        bytes.extend(text.as_bytes());
        bytes.resize(len - 1, b' ');
        bytes.push(b'\n');
        bytes
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        product(&self.shape)
    }

    /// Number of rows: the product of the leading axes.
    pub(super) fn rows(&self) -> usize {
        product(self.leading())
    }

    /// Length of a row: the last axis.
    pub(in crate::io) fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The axes before the last.
    pub(super) fn leading(&self) -> &[usize] {
        self.shape.split_last().map_or(&[], |(_, leading)| leading)
    }

    /// Whether the elements of a row lie apart.
    pub(super) fn strided(&self) -> bool {
        self.fortran_order && self.rows() > 1 && self.cols() > 1
    }

    /// Whether the elements have the other byte order than this machine.
    pub(super) fn swapped(&self) -> bool {
        self.scalar.size() > 1 && self.big_endian != cfg!(target_endian = "big")
    }

    /// Refuses what no reader could address; the fields are public, so callers may have changed them.
    pub(super) fn check(&self) -> Result<()> {
        let shape_error = |expected: String, got: String| Err(Error::Shape { op: "npy::Header", expected, got });
        if self.shape.len() > MAX_RANK {
            return shape_error(format!("at most {MAX_RANK} axes"), self.shape.len().to_string());
        }
        if array_bytes(self.scalar, &self.shape).is_none() {
            let got = format!("shape {:?} of {}", self.shape, self.scalar.name());
            return shape_error("an array that this machine can address".into(), got);
        }
        Ok(())
    }

    fn descr(&self) -> String {
        let order = match (self.scalar.size(), self.big_endian) {
            (1, _) => '|',
            (_, false) => '<',
            (_, true) => '>',
        };
        let kind = match self.scalar {
            // What NumPy writes for the bfloat16 of ml_dtypes.
            Scalar::Bf16 => 'V',
            Scalar::F16 | Scalar::F32 | Scalar::F64 => 'f',
            Scalar::I8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => 'i',
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => 'u',
        };
        format!("{order}{kind}{}", self.scalar.size())
    }
}

fn product(lengths: &[usize]) -> usize {
    lengths.iter().fold(1, |product, &len| product.saturating_mul(len))
}

/// Where the text of a header starts and where it ends, from the first 12 bytes of a file.
pub(in crate::io) fn header_extent(prefix: &[u8]) -> std::result::Result<(usize, usize), Fault> {
    if !prefix.starts_with(MAGIC) {
        let start = &prefix[..prefix.len().min(8)];
        return Err(Fault::new("a .npy file (it starts with \"\\x93NUMPY\")", format!("\"{}\"", start.escape_ascii())));
    }
    let cut = || Fault::new("a .npy header", format!("{} bytes in all", prefix.len()));
    let (text_start, len) = match *prefix.get(6..8).ok_or_else(cut)? {
        [1, 0] => match *prefix.get(8..10).ok_or_else(cut)? {
            [a, b] => (10, u32::from(u16::from_le_bytes([a, b]))),
            _ => return Err(cut()),
        },
        [2 | 3, 0] => match *prefix.get(8..12).ok_or_else(cut)? {
            [a, b, c, d] => (12, u32::from_le_bytes([a, b, c, d])),
            _ => return Err(cut()),
        },
        [major, minor] => return Err(Fault::new(".npy format 1.0, 2.0 or 3.0", format!("{major}.{minor}"))),
        _ => return Err(cut()),
    };
    match usize::try_from(len) {
        Ok(len) if len <= MAX_TEXT => Ok((text_start, text_start + len)),
        _ => Err(Fault::new(format!("a .npy header of at most {MAX_TEXT} bytes"), format!("{len} bytes"))),
    }
}

/// Element type and byte order (big endian?) of a dtype string.
fn scalar(descr: &str, dtype: Option<Scalar>) -> std::result::Result<(Scalar, bool), Fault> {
    let (order, kind) = match descr.as_bytes().first() {
        Some(order @ (b'<' | b'>' | b'|' | b'=')) => (Some(order), &descr[1..]),
        _ => (None, descr),
    };
    let found = match (kind, dtype) {
        ("V2" | "u2", Some(Scalar::Bf16)) => Scalar::Bf16,
        ("f2", _) => Scalar::F16,
        ("f4", _) => Scalar::F32,
        ("f8", _) => Scalar::F64,
        ("i1", _) => Scalar::I8,
        ("i2", _) => Scalar::I16,
        ("i4", _) => Scalar::I32,
        ("i8", _) => Scalar::I64,
        ("u1", _) => Scalar::U8,
        ("u2", _) => Scalar::U16,
        ("u4", _) => Scalar::U32,
        ("u8", _) => Scalar::U64,
        _ => return Err(refused(descr, kind)),
    };
    let big_endian = match order {
        _ if found.size() == 1 => false,
        Some(b'<') => false,
        Some(b'>') => true,
        // A plain void has no byte order of its own; bf16 is written by little-endian machines.
        Some(b'|') if kind == "V2" => false,
        _ => return Err(Fault::new("a dtype that names its byte order ('<' or '>')", format!("'{}'", brief(descr)))),
    };
    match dtype {
        Some(asked) if asked != found => {
            let expected = match asked {
                Scalar::Bf16 => "2-byte voids or u2, which can be taken for bf16".into(),
                asked => format!("{}, as asked for", asked.name()),
            };
            Err(Fault::new(expected, format!("{} ('{descr}')", found.name())))
        }
        _ => Ok((found, big_endian)),
    }
}

/// Why a dtype is not read, and what to do about it.
fn refused(descr: &str, kind: &str) -> Fault {
    let (what, way_out) = match kind.as_bytes().first() {
        Some(b'O') => ("pickled objects", "pickled objects are never loaded: save with dtype float32"),
        Some(b'b' | b'?') => ("booleans", "save with .astype('uint8')"),
        Some(b'c') => ("complex numbers", "save .real and .imag apart, or .view('float32')"),
        Some(b'S' | b'a' | b'U') => ("strings", "save numbers"),
        Some(b'M' | b'm') => ("dates or times", "save with .astype('int64')"),
        Some(b'V') if kind == "V2" => ("2-byte voids", "if they are bf16, say so (--dtype bf16)"),
        Some(b'V') => ("raw bytes", "save with dtype float32"),
        Some(b'f') => ("floats of an unknown size", "save with dtype float64"),
        _ => ("an unknown dtype", "save with dtype float32"),
    };
    Fault::new(
        format!("f16, f32, f64 or integers of 1 to 8 bytes; {way_out}"),
        format!("{what} (dtype '{}')", brief(descr)),
    )
}
