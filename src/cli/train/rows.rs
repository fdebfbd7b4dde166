//! The vectors that a training learns from: in memory where they fit, else read in every pass, or a sample of them.

use super::Halt;
use crate::cli::args::{Global, Train};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, Vectors};
use crate::cli::plan::{Blocks, DEFAULT_MEMORY, MAX_BUFFER};
use crate::cli::report::{Clock, size_text};
use crate::cli::signals::STOP;
use crate::cli::values::{InitChoice, Quantizer};
use codeword::backend::carried::{Carry, bytes_per_row};
use codeword::io::npy::Reader;
use codeword::{Device, Error, Matrix, MatrixView, RowSource};
use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use twox_hash::XxHash3_64;

/// Where the vectors are while they are learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Memory,
    File,
    /// So many of them in memory.
    Sample(usize),
}

/// How the vectors are learned from within the memory given, and whether what one pass over them learned serves the next.
pub fn plan(args: &Train, vectors: &Vectors, device: &Device, global: &Global) -> Result<(Place, Blocks, Carry)> {
    let (n, d, k) = (vectors.n as u64, vectors.d as u64, u64::from(args.k));
    // While the start is sought, and for every row in memory its label and distance.
    let start = match (args.start.is_some() || args.resume, args.init) {
        (true, _) => 0,
        (false, InitChoice::PlusPlus) => 4,
        (false, InitChoice::Parallel) => 8,
        // Its part, and its number while that is learned from.
        (false, InitChoice::Hierarchical) => 12,
        (false, InitChoice::Random | InitChoice::Progressive) if args.weights.is_some() => 8,
        (false, InitChoice::Random | InitChoice::Progressive) => 0,
    };
    // Candidates, twice where they grow, and the rows of some parts.
    let of_start = match (args.start.is_some() || args.resume, args.init) {
        (false, InitChoice::Parallel) => k.saturating_mul(100 * d),
        (false, InitChoice::Hierarchical) => n.min(k.saturating_mul(256)).saturating_mul(4 * d).min(256 << 20),
        (false, InitChoice::Progressive) => {
            let rows = n.min(k.saturating_mul(256));
            // Their components, or what the first of them are made of.
            let turned = rows.saturating_mul(268).max(rows.min(4096) * 768);
            rows.saturating_mul(4 * d).saturating_add(turned).saturating_add(1536 * d)
        }
        _ => 0,
    };
    // What the stages before leave of the vectors, or how a rotation has them, with labels and distances of every part.
    let changed = match args.quantizer {
        Quantizer::Vq | Quantizer::Pq => 0,
        Quantizer::Opq => 8 * d + 8 * u64::from(args.m.unwrap_or(1)),
        Quantizer::Rvq => 8 * d,
    };
    let beside = start + if args.weights.is_some() { 4 } else { 0 } + changed;
    // Codewords old and new, sums, and the packed forms of a codebook; the rows of a batch.
    let of_codebooks = match args.quantizer {
        Quantizer::Vq | Quantizer::Pq => k.saturating_mul(32 * d),
        // The sums of whole rows by label, and some d x d matrices of f64.
        Quantizer::Opq => k.saturating_mul(48 * d).saturating_add(d.saturating_mul(d).saturating_mul(80)),
        Quantizer::Rvq => k.saturating_mul(32 * d).saturating_mul(args.m.unwrap_or(1).into()),
    };
    let codebook = of_codebooks.saturating_add(of_start);
    // With positions, the order they are read in, labels and distances.
    let batch = args.minibatch.map_or(0, |rows| u64::from(rows).saturating_mul(4 * d + 24));
    let fixed = codebook.saturating_add(batch);
    let in_memory = |rows: u64| rows.saturating_mul(4 * d + 8 + 4 + beside).saturating_add(fixed);
    // What is carried from pass to pass, where there is memory left.
    let carried = match (device, args.minibatch) {
        (Device::Cpu, None) => bytes_per_row(args.k as usize) as u64,
        _ => 0,
    };
    let carrying = |rows: u64, memory: u64, limit: u64| {
        let all = memory.saturating_add(rows.saturating_mul(carried));
        if all <= limit { (all, Carry::WherePays) } else { (memory, Carry::Never) }
    };
    let limit = global.max_memory.map_or(DEFAULT_MEMORY, |size| size.0);
    let refused = |least: u64, way_out: &str| {
        // What the codewords themselves need comes on top of a limit that nobody asked for.
        let most = if global.max_memory.is_some() { limit } else { limit.saturating_add(codebook) };
        if least <= most {
            return Ok(());
        }
        let message = format!(
            "--max-memory {}{}: train needs at least {} for this; allow that, or {way_out}",
            size_text(limit),
            if global.max_memory.is_some() { "" } else { " (where nothing else is said)" },
            size_text(least)
        );
        Err(Failure::new(Exit::Usage, message))
    };
    if let Some(sample) = args.sample.map(u64::from).filter(|&sample| sample < n) {
        let memory = in_memory(sample);
        let way_out = if batch > memory / 2 { SMALLER_BATCHES } else { "draw a smaller sample" };
        refused(memory, way_out)?;
        let (memory, carry) = carrying(sample, memory, limit);
        return Ok((Place::Sample(sample as usize), Blocks { rows: sample as usize, buffers: 1, memory }, carry));
    }
    let all = in_memory(n);
    if all <= limit {
        let (memory, carry) = carrying(n, all, limit);
        return Ok((Place::Memory, Blocks { rows: vectors.n, buffers: 1, memory }, carry));
    }
    if args.quantizer != Quantizer::Vq {
        let message = format!(
            "--max-memory {}: the vectors that {} is learned from are held in memory, which takes {}; allow that, or train \
             on a --sample",
            size_text(limit),
            args.quantizer.described(),
            size_text(all)
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    // Two blocks, whole ones of the order in which rows are added up, with labels and distances of one of them.
    let one = ((1 << 18) / d).max(1).min(n);
    let (per_row, fixed) = (8 * d + 12, fixed.saturating_add(n.saturating_mul(beside)));
    let least = fixed.saturating_add(one * per_row).min(all);
    refused(least, if batch > least / 2 { SMALLER_BATCHES } else { "train on a --sample" })?;
    if vectors.in_other_order() {
        let message = format!(
            "{}: vectors along several axes in Fortran order lie in the file in another order than they are learned in, and \
             are learned in memory only, which takes {}; allow that with --max-memory, or save them in C order \
             (numpy.ascontiguousarray)",
            vectors.reader.file().display(),
            size_text(all)
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let rows = (limit.saturating_sub(fixed) / per_row).min(MAX_BUFFER / (4 * d)) / one * one;
    let rows = rows.max(one).min(n);
    let memory = fixed.saturating_add(rows * per_row);
    Ok((Place::File, Blocks { rows: rows as usize, buffers: 2, memory }, Carry::Never))
}

const SMALLER_BATCHES: &str = "take fewer vectors for a --minibatch";

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

    /// The weights of `file` that go with them, as they are in memory.
    pub fn weights(&self, reader: &Reader, file: &Path) -> Result<(Vec<f32>, u64)> {
        let (weights, rounded) = input::read_all(reader)?;
        let Some(sample) = &self.sample else { return Ok((weights, rounded)) };
        // Here, where the row in the file is known, and those that are not drawn are seen.
        if let Some(i) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let (file, got) = (file.display(), weights[i]);
            let message = format!("{file}: weights must be finite and not negative, got {got} for row {i}");
            return Err(Failure::new(Exit::BadInput, message));
        }
        Ok((sample.iter().map(|&i| weights[i]).collect(), rounded))
    }

    /// An error about these rows as one about the vectors of the file, in its order.
    pub fn in_file(&self, error: Error) -> Error {
        match error {
            // A vector, or what became of it.
            Error::NonFinite { op, what, row, col, got, way_out } if what != "codeword" => {
                let row = self.sample.as_ref().and_then(|sample| sample.get(row)).copied().unwrap_or(row);
                Error::NonFinite { op, what, row: self.vectors.position(row), col, got, way_out }
            }
            error => error,
        }
    }

    /// What tells these vectors from others, for one more pass over those that are not held.
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(held) = &self.held {
            return Ok(fingerprint(held.as_slice()));
        }
        let (n, d, mut hasher) = (self.vectors.n, self.vectors.d, XxHash3_64::new());
        let rows = HASHED.div_ceil(d).min(n);
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

/// Numbers that are hashed at a time.
const HASHED: usize = 1 << 18;

/// The XXH3 of numbers, which tells whether they are the same.
pub fn fingerprint(values: &[f32]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytemuck::cast_slice(values)))
}

/// Vectors that are read in every pass. `rounded` counts anew from the first vector on.
fn from_file<'a>(vectors: &'a Vectors, rounded: &'a AtomicU64, block_rows: usize) -> RowSource<'a, Halt> {
    let mut scratch = Vec::new();
    let read = move |first: usize, out: &mut [f32]| {
        if STOP.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        let lossy = match vectors.in_other_order() {
            false => vectors.reader.read_rows(first, out, &mut scratch).or_exit(Exit::BadInput)?,
            true => (first..).zip(out.chunks_mut(vectors.d)).try_fold(0, |lossy, (i, row)| {
                let read = vectors.reader.read_rows(vectors.position(i), row, &mut scratch);
                Ok::<u64, Halt>(lossy + read.or_exit(Exit::BadInput)?)
            })?,
        };
        match first {
            0 => rounded.store(lossy, Ordering::Relaxed),
            _ => _ = rounded.fetch_add(lossy, Ordering::Relaxed),
        }
        Ok(())
    };
    RowSource::new(vectors.n, vectors.d, read).with_block_rows(block_rows)
}
