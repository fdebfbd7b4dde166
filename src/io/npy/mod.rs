//! NumPy's `.npy` arrays, read and written in blocks by positioned reads and writes: a [`Reader`] never holds
//! more than the block that was asked for, and can be shared by threads.
//!
//! The last axis of an array is the vector; the axes before it (the leading axes) count the rows.
//!
//! **Rows are numbered in storage order.** In a C-order file that is the usual order. In a Fortran-order file of
//! shape `(n_1, …, n_r, d)` the leading axes run in Fortran order too (the first one fastest), so with
//! `n = n_1 · … · n_r` element `t` of row `p` lies at position `p + n·t`: an n x d column-major matrix. A block of
//! rows is then `d` strided segments of one positioned read each. [`Writer`] mirrors this, and
//! [`Reader::row_index`] names a row by its index along each leading axis.
//!
//! ```
//! use codeword::io::npy::{Header, Reader, Scalar, Writer};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = std::env::temp_dir().join(format!("codeword-npy-{}", std::process::id()));
//! std::fs::create_dir_all(&folder)?;
//! let path = folder.join("vectors.npy");
//!
//! let header = Header::new(Scalar::F32, &[3, 2], false)?;
//! let mut writer = Writer::new(std::fs::File::create(&path)?, &path, header)?;
//! writer.write_rows(0, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! writer.finish()?;
//!
//! let reader = Reader::open(&path, None)?;
//! let mut rows = [0.0; 4];
//! reader.read_rows(1, &mut rows, &mut Vec::new())?;
//! assert_eq!((reader.rows(), reader.cols(), rows), (3, 2, [3.0, 4.0, 5.0, 6.0]));
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```

mod convert;
mod header;
mod literal;
pub(in crate::io) mod positioned;
mod reader;
mod writer;
mod written;

pub use header::Header;
pub(in crate::io) use header::{MAGIC, header_extent};
pub use reader::Reader;
pub use writer::Writer;

/// NumPy itself stops at 64 axes.
const MAX_RANK: usize = 64;

/// Bytes converted at a time: small enough to stay in a core's cache between reading and converting.
pub(in crate::io) const PIECE: usize = 256 << 10;

/// Columns of a Fortran-order array moved together: 16 f32 fill the 64-byte cache line of a row.
const COLUMNS: usize = 16;

/// Rows of a Fortran-order array moved together: one positioned read or write per column and this many rows.
const SEGMENT: usize = 16 << 10;

/// Element types that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32. NumPy has no such type: files hold 2-byte voids or u16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision, NumPy's default.
    F64,
    /// Signed, 1 byte.
    I8,
    /// Signed, 2 bytes.
    I16,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 8 bytes.
    I64,
    /// Unsigned, 1 byte.
    U8,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 8 bytes.
    U64,
}

impl Scalar {
    /// Every scalar, in the order of declaration.
    pub const ALL: [Scalar; 12] = [
        Scalar::F16,
        Scalar::Bf16,
        Scalar::F32,
        Scalar::F64,
        Scalar::I8,
        Scalar::I16,
        Scalar::I32,
        Scalar::I64,
        Scalar::U8,
        Scalar::U16,
        Scalar::U32,
        Scalar::U64,
    ];

    /// `"f16"`, `"bf16"`, `"f32"`, …
    pub fn name(self) -> &'static str {
        match self {
            Scalar::F16 => "f16",
            Scalar::Bf16 => "bf16",
            Scalar::F32 => "f32",
            Scalar::F64 => "f64",
            Scalar::I8 => "i8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::U8 => "u8",
            Scalar::U16 => "u16",
            Scalar::U32 => "u32",
            Scalar::U64 => "u64",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 => 1,
            Scalar::F16 | Scalar::Bf16 | Scalar::I16 | Scalar::U16 => 2,
            Scalar::F32 | Scalar::I32 | Scalar::U32 => 4,
            Scalar::F64 | Scalar::I64 | Scalar::U64 => 8,
        }
    }

    /// Whether the elements are floating point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Scalar::F16 | Scalar::Bf16 | Scalar::F32 | Scalar::F64)
    }
}

/// What a file said and what it should have said; becomes an [`Error::Format`](crate::Error::Format) where the
/// file's name is known.
#[derive(Debug)]
pub(in crate::io) struct Fault {
    pub(in crate::io) expected: String,
    pub(in crate::io) got: String,
}

impl Fault {
    pub(in crate::io) fn new(expected: impl Into<String>, got: impl Into<String>) -> Fault {
        Fault { expected: expected.into(), got: got.into() }
    }

    pub(in crate::io) fn at(self, file: &std::path::Path) -> crate::Error {
        crate::Error::Format { file: file.to_path_buf(), expected: self.expected, got: self.got }
    }
}

/// Bytes of an array of this type and shape, or None where it could not even be addressed. Axes of length 0 count
/// as 1, as NumPy does it, so every product of some of the lengths fits as well.
pub(in crate::io) fn array_bytes(scalar: Scalar, shape: &[usize]) -> Option<usize> {
    let bytes = shape.iter().try_fold(scalar.size(), |product, &len| product.checked_mul(len.max(1)))?;
    (bytes <= isize::MAX as usize).then_some(bytes)
}
