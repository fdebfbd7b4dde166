//! The vectors that a training learns from: in memory where they fit, else read in every pass, or a sample of them.

use super::Halt;
use super::memory::Place;
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, Vectors, index_text};
use crate::cli::order::{Order, multi_index};
use crate::cli::report::Clock;
use crate::cli::signals::STOP;
use codeword::io::npy::Reader;
use codeword::{Error, Matrix, MatrixView, RowSource};
use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use twox_hash::XxHash3_64;

/// The vectors, ready to be learned from, in C order.
pub struct Rows<'a> {
    vectors: &'a Vectors,
    held: Option<Matrix<f32>>,
    /// Which vectors they are, where they are a sample.
    pub sample: Option<Vec<usize>>,
    /// Vectors that f32 could not hold exactly, in the last pass.
    rounded: AtomicU64,
}

impl<'a> Rows<'a> {
    /// Reads what is to be in memory.
    pub fn load(
        place: Place,
        vectors: &'a Vectors,
        seed: u64,
        clock: &mut Clock,
    ) -> std::result::Result<Rows<'a>, Halt> {
        let mut rows = Rows { vectors, held: None, sample: None, rounded: AtomicU64::new(0) };
        match place {
            Place::File => {}
            Place::Memory => {
                let (values, rounded) = clock.load(|| input::read_all(&vectors.reader))?;
                rows.rounded = AtomicU64::new(rounded);
                rows.held = Some(Matrix::new(values, vectors.n, vectors.d)?);
            }
            Place::Sample(count) => {
                let rounded = AtomicU64::new(0);
                let (sample, held) = clock.load(|| from_file(vectors, &rounded, 1).sample(count, seed))?;
                (rows.sample, rows.held, rows.rounded) = (Some(sample), Some(held), rounded);
            }
        }
        Ok(rows)
    }

    /// A source of them, in blocks of so many where they are read.
    pub fn source(&self, block_rows: usize) -> RowSource<'_, Halt> {
        match &self.held {
            Some(held) => RowSource::held(held.view()),
            None => from_file(self.vectors, &self.rounded, block_rows),
        }
    }

    /// Those that are in memory.
    pub fn held(&self) -> Option<MatrixView<'_, f32>> {
        self.held.as_ref().map(Matrix::view)
    }

    pub fn rounded(&self) -> u64 {
        self.rounded.load(Ordering::Relaxed)
    }

    /// The weights of `file` that go with them. Also returns how many f32 could not hold exactly.
    pub fn weights(&self, reader: &Reader, file: &Path, k: usize) -> Result<(Vec<f32>, u64)> {
        let (n, name, order) = (self.vectors.n, file.display(), Order::of_numbers(reader));
        let count = self.sample.as_ref().map_or(n, Vec::len);
        let mut weights: Vec<f32> = Vec::new();
        if weights.try_reserve_exact(count).is_err() {
            return Err(Failure::new(Exit::Failed, format!("{name}: there is not enough memory for {count} weights")));
        }
        weights.resize(count, 0.0);
        let (mut piece, mut scratch, mut rounded) = (vec![0.0; PART.min(n)], Vec::new(), 0);
        for first in (0..n).step_by(PART) {
            if STOP.load(Ordering::Relaxed) {
                return Err(Failure::interrupted());
            }
            let piece = &mut piece[..PART.min(n - first)];
            rounded += reader.read_values(first, piece, &mut scratch).or_exit(Exit::BadInput)?;
            for (position, &weight) in (first..).zip(&*piece) {
                let i = order.number(position);
                // Those that are not drawn are looked at, too.
                if !(weight.is_finite() && weight >= 0.0) {
                    let i = index_text(&multi_index(&reader.header().shape, false, i), i);
                    let message = format!("{name}: weights must be finite and not negative, got {weight} for row {i}");
                    return Err(Failure::new(Exit::BadInput, message));
                }
                match self.sample.as_ref().map(|sample| sample.binary_search(&i)) {
                    None => weights[i] = weight,
                    Some(Ok(place)) => weights[place] = weight,
                    Some(Err(_)) => {}
                }
            }
        }
        let heavy = weights.iter().filter(|&&weight| weight > 0.0).count();
        if heavy < k {
            let drawn = if self.sample.is_some() { format!(" of {count} that are drawn") } else { String::new() };
            let expected = format!("at least {k} vectors of weight above 0{drawn}, as many as codewords");
            return Err(Failure::new(Exit::BadInput, format!("{name}: expected {expected}, got {heavy}")));
        }
        Ok((weights, rounded))
    }

    /// An error about these rows as one about the vectors of the file, in its order.
    pub fn in_file(&self, error: Error) -> Error {
        match error {
            // A vector, or what became of it.
            Error::NonFinite { op, what, row, col, got, way_out } if what != "codeword" => {
                let row = self.sample.as_ref().and_then(|sample| sample.get(row)).copied().unwrap_or(row);
                Error::NonFinite {
                    op,
                    what,
                    row: Order::of_rows(&self.vectors.reader).position(row),
                    col,
                    got,
                    way_out,
                }
            }
            error => error,
        }
    }

    /// What tells these vectors from others, for one more pass over those that are not held, so many at a time.
    pub fn fingerprint(&self, rows: usize) -> Result<String> {
        if let Some(held) = &self.held {
            return Ok(fingerprint(held.as_slice()));
        }
        let (n, d, mut hasher) = (self.vectors.n, self.vectors.d, XxHash3_64::new());
        let rows = rows.clamp(1, n.max(1));
        let (mut block, mut scratch) = (vec![0.0; rows * d], Vec::new());
        for first in (0..n).step_by(rows) {
            if STOP.load(Ordering::Relaxed) {
                return Err(Failure::interrupted());
            }
            let block = &mut block[..rows.min(n - first) * d];
            self.vectors.reader.read_rows(first, block, &mut scratch).or_exit(Exit::BadInput)?;
            hasher.write(bytemuck::cast_slice(block));
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// Weights that are read at a time.
const PART: usize = 1 << 18;

/// The XXH3 of numbers, which tells whether they are the same.
pub fn fingerprint(values: &[f32]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytemuck::cast_slice(values)))
}

/// Vectors that are read in every pass. `rounded` counts anew from the first vector on.
fn from_file<'a>(vectors: &'a Vectors, rounded: &'a AtomicU64, block_rows: usize) -> RowSource<'a, Halt> {
    let (mut scratch, order) = (Vec::new(), Order::of_rows(&vectors.reader));
    let read = move |first: usize, out: &mut [f32]| {
        if STOP.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        let mut read =
            |position, out: &mut [f32]| vectors.reader.read_rows(position, out, &mut scratch).or_exit(Exit::BadInput);
        let lossy = match order.is_other() {
            false => read(first, out)?,
            true => {
                let rows = (first..).zip(out.chunks_mut(vectors.d));
                rows.map(|(i, row)| read(order.position(i), row)).sum::<Result<u64>>()?
            }
        };
        match first {
            0 => rounded.store(lossy, Ordering::Relaxed),
            _ => _ = rounded.fetch_add(lossy, Ordering::Relaxed),
        }
        Ok(())
    };
    RowSource::new(vectors.n, vectors.d, read).with_block_rows(block_rows)
}
