//! Input files: opened, checked against each other, and errors put in terms of the file as a whole.

use crate::cli::args;
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::order::Order;
use crate::cli::report::size_text;
use crate::cli::signals::STOP;
use crate::cli::values::Reinterpret;
use codeword::Error;
use codeword::io::npy::{Reader, Scalar};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Bytes read at a time: Ctrl-C is heard in between.
pub const PIECE: usize = 32 << 20;

/// Opens an array, after the questions whose answers the operating system words badly.
pub fn open(file: &Path, dtype: Option<Reinterpret>) -> Result<Reader> {
    let name = file.display();
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::BadInput, format!("{name}: no such file; check the path")))
        }
        Ok(metadata) if metadata.is_dir() => {
            let message =
                format!("{name}: is a folder; name a .npy, .safetensors, .fvecs, .fbin or other array file in it");
            Err(Failure::new(Exit::BadInput, message))
        }
        Ok(metadata) if !metadata.is_file() => Err(Failure::new(
            Exit::BadInput,
            format!("{name}: is not a regular file, and blocks are read by position; save it as a file first"),
        )),
        // What else may be wrong with it is told by opening it.
        _ => Reader::open(file, dtype.map(|Reinterpret::Bf16| Scalar::Bf16)).or_exit(Exit::BadInput),
    }
}

/// The vectors X.
pub struct Vectors {
    pub reader: Reader,
    pub n: usize,
    pub d: usize,
}

impl Vectors {
    pub fn open(args: &args::Vectors) -> Result<Vectors> {
        let reader = open(&args.x, args.dtype)?;
        if reader.header().shape.is_empty() {
            let message = format!("{}: expected vectors along the last axis, got a single number", args.x.display());
            return Err(Failure::new(Exit::BadInput, message));
        }
        let (n, d) = (reader.rows(), reader.cols());
        Ok(Vectors { reader, n, d })
    }

    /// The failure behind an error of the library about a block that starts at row `first` of the file.
    pub fn explain(&self, error: Error, first: usize, way_out: &str) -> Failure {
        match error {
            Error::NonFinite { what: "vector", row, col, got, .. } => {
                let row = index_text(&self.reader.row_index(first + row), first + row);
                let file = self.reader.file().display();
                let message = format!("{file}: vector {row} holds {got} in column {col}; {way_out}");
                Failure::new(Exit::BadInput, message)
            }
            // Of what became of a vector on the way, as the residual of a stage.
            Error::NonFinite { op, what, row, col, got, way_out } if what != "codeword" => {
                let error = Error::NonFinite { op, what, row: first + row, col, got, way_out };
                let name = self.reader.file().display().to_string();
                Failure { exit: Exit::of(&error), error: anyhow::Error::new(error).context(name) }
            }
            error => Failure { exit: Exit::of(&error), error: error.into() },
        }
    }
}

/// Reads a whole array, its rows in C order. Also returns how many of them f32 could not hold exactly.
pub fn read_all(reader: &Reader) -> Result<(Vec<f32>, u64)> {
    let (mut values, cols) = (Vec::new(), reader.cols().max(1));
    // The file is as large as its shape says, but it may be sparse, and memory is not.
    if values.try_reserve_exact(reader.elements()).is_err() {
        let bytes = size_text(4 * reader.elements() as u64);
        let message = format!("{}: needs {bytes} of memory, and there is not that much", reader.file().display());
        return Err(Failure::new(Exit::Failed, message));
    }
    values.resize(reader.elements(), 0.0);
    let rows = (PIECE / 4 / cols).max(1);
    let (mut rounded, mut scratch) = (0, Vec::new());
    let mut read = |first: usize, piece: &mut [f32]| -> Result<()> {
        if STOP.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        rounded += reader.read_rows(first, piece, &mut scratch).or_exit(Exit::BadInput)?;
        Ok(())
    };
    let order = Order::of_rows(reader);
    if order.is_other() {
        let mut piece = vec![0.0; (rows * cols).min(values.len())];
        for first in (0..reader.rows()).step_by(rows) {
            let piece = &mut piece[..rows.min(reader.rows() - first) * cols];
            read(first, piece)?;
            for (position, row) in (first..).zip(piece.chunks(cols)) {
                values[order.number(position) * cols..][..cols].copy_from_slice(row);
            }
        }
    } else {
        for (i, piece) in values.chunks_mut(rows * cols).enumerate() {
            read(i * rows, piece)?;
        }
    }
    Ok((values, rounded))
}

/// `7` for element 7 of one axis, `7, at [1, 3]` where there are more axes.
pub fn index_text(index: &[usize], position: usize) -> String {
    match index {
        [] | [_] => position.to_string(),
        _ => format!("{position}, at {index:?},"),
    }
}
