//! `codeword train`: a model learned from vectors.

mod checkpoint;
mod codebook;
mod composed;
mod files;
mod follow;
mod memory;
mod plot;
mod rows;

use crate::cli::args::{Global, Train};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::report::shape_text;
use crate::cli::values::{InitChoice, Quantizer};
use codeword::{Codebook, Error, Init, KMeans, KMeansState, Precision};
use std::path::Path;

pub fn run(args: &Train, global: &Global) -> Result<()> {
    if args.rotations.is_some() && args.quantizer != Quantizer::Opq {
        let message = "--rotations: train has this with --quantizer opq only; leave it out";
        return Err(Failure::new(Exit::Usage, message));
    }
    match (args.quantizer, args.m) {
        (Quantizer::Vq, None) => codebook::run(args, global),
        (Quantizer::Vq, Some(m)) => {
            let message =
                format!("-m {m}: a codebook has no sub-quantizers; leave it out, or add --quantizer pq or rvq");
            Err(Failure::new(Exit::Usage, message))
        }
        (_, Some(m)) => composed::run(args, m as usize, global),
        (quantizer, None) => {
            let what = match quantizer {
                Quantizer::Rvq => "stages",
                _ => "sub-quantizers: a divisor of the dimensions",
            };
            let message = format!("--quantizer {}: expected -m M too, the number of {what}", quantizer.name());
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Why training ended early.
pub enum Halt {
    Stopped,
    Failed(Failure),
    Library(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Library(error)
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Halt {
        match failure.exit {
            Exit::Interrupted => Halt::Stopped,
            _ => Halt::Failed(failure),
        }
    }
}

/// Times that all sub-quantizers are learned: once, or for each rotation from either start of an optimised one, and for each
/// start.
fn rounds(args: &Train) -> u64 {
    if args.quantizer == Quantizer::Opq { 2 * (rotations(args) as u64 + 2) } else { 1 }
}

fn rotations(args: &Train) -> usize {
    args.rotations.map_or(20, |rotations| rotations as usize)
}

/// Rows to label in all, the start left out.
fn labelled(args: &Train, n: usize) -> u64 {
    let (n, iterations) = (n as u64, u64::from(args.iterations));
    let run = match args.minibatch {
        None => iterations.saturating_add(1).saturating_mul(n),
        Some(batch) => iterations.saturating_mul(batch.into()).saturating_add(n),
    };
    run.saturating_mul(args.n_init.into())
}

/// Refuses what cannot be learned before anything is read.
fn check(args: &Train, vectors: &Vectors, global: &Global) -> Result<()> {
    if global.precision_or(Precision::Exact) == Precision::Fast {
        let message =
            "--precision fast: train decides labels exactly, or its result would depend on the device; leave it out";
        return Err(Failure::new(Exit::Usage, message));
    }
    if vectors.n < args.k as usize {
        let message = format!(
            "{}: expected at least {} vectors, as many as codewords, got {} of shape {}; ask for fewer with -k",
            vectors.reader.file().display(),
            args.k,
            vectors.n,
            shape_text(&vectors.reader.header().shape)
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    if let Some(sample) = args.sample.filter(|&sample| sample < args.k) {
        let message = format!(
            "--sample {sample}: expected at least {} vectors, as many as codewords; draw more, or ask for fewer with -k",
            args.k
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if vectors.d == 0 {
        let shape = shape_text(&vectors.reader.header().shape);
        let message =
            format!("{}: expected vectors of at least one column, got shape {shape}", args.vectors.x.display());
        return Err(Failure::new(Exit::BadInput, message));
    }
    Ok(())
}

fn params(args: &Train, start: Option<Codebook>, resumed: Option<KMeansState>) -> KMeans {
    let init = match (resumed, start, args.init) {
        (Some(state), ..) => Init::Resume(state),
        (_, Some(codebook), _) => Init::Given(codebook),
        (_, _, InitChoice::Random) => Init::RandomRows,
        (_, _, InitChoice::PlusPlus) => Init::PlusPlus,
        (_, _, InitChoice::Parallel) => Init::Parallel,
        (_, _, InitChoice::Hierarchical) => Init::Hierarchical,
        (_, _, InitChoice::Progressive) => Init::Progressive,
    };
    let (iterations, n_init) = (args.iterations as usize, args.n_init as usize);
    let params = KMeans::new(args.k as usize)
        .init(init)
        .iterations(iterations)
        .tolerance(args.tolerance)
        .seed(args.seed)
        .n_init(n_init);
    match args.minibatch {
        Some(rows) => params.minibatch(rows as usize),
        None => params,
    }
}

/// Puts an error of the library in terms of the files.
fn explain(error: Error, vectors: &Vectors, checkpoint: Option<&Path>) -> Failure {
    match (error, checkpoint) {
        (Error::InvalidParameter { name, expected, got, .. }, Some(file)) if name.ends_with("of the state") => {
            let message = format!("{}: {name} must be {expected}, got {got}; leave out --resume", file.display());
            Failure::new(Exit::BadInput, message)
        }
        (error, _) => vectors.explain(error, 0, "remove or repair it"),
    }
}
