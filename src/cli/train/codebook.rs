//! A codebook learned from vectors.

use super::Halt;
use super::checkpoint::Checkpoint;
use super::files::{self, Outputs};
use super::follow::Follow;
use super::memory::{self, Place};
use super::rows::{self, Rows};
use crate::cli::args::{self, Global, Train};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::{self, Vectors};
use crate::cli::model::Model;
use crate::cli::output;
use crate::cli::pipeline::Times;
use crate::cli::plan::{Plan, RowCost};
use crate::cli::report::{self, Clock, Report, number, shape_text};
use crate::cli::signals::STOP;
use crate::cli::values::InitChoice;
use codeword::io::npy::Reader;
use codeword::{Device, KMeansState, Precision, Step};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub fn run(args: &Train, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let vectors = Vectors::open(&args.vectors)?;
    let (n, d, k) = (vectors.n, vectors.d, args.k as usize);
    let weights = args.weights.as_deref().map(|file| open_weights(file, &vectors)).transpose()?;
    let start = args.start.as_deref().map(|file| open_start(file, k, &vectors)).transpose()?;
    super::check(args, &vectors, global)?;
    let targets = files::targets(args, &vectors)?;
    let mut inputs = vec![("vectors", &vectors.reader)];
    inputs.extend(weights.as_ref().map(|reader| ("weights", reader)));
    inputs.extend(start.as_ref().map(|model| ("start", &model.reader)));
    files::check(args, &targets, &inputs, global)?;
    let mut checkpoint = args.checkpoint.as_deref().map(|path| Checkpoint::new(path, args, &vectors));
    let resumed = checkpoint.as_mut().filter(|_| args.resume).map(|it| it.read(args.iterations)).transpose()?;
    let device = global.open_devices()?.only("train")?;

    let (place, blocks, kept) = memory::plan(args, &vectors, &device, global)?;
    let learned_from = if let Place::Sample(count) = place { count } else { n };
    let labelled = super::labelled(args, learned_from);
    if global.dry_run {
        let passes = (labelled / learned_from.max(1) as u64) as usize;
        let work = (k as u64).saturating_mul(d as u64).saturating_mul(passes as u64);
        let cost = RowCost { buffer: 4 * d as u64, scratch: 0, work };
        let precision = Some(Precision::Exact);
        let plan = Plan {
            verb: "train",
            inputs: &inputs,
            targets: &targets,
            also: &files::also(args),
            n: learned_from,
            cost,
            passes,
            blocks,
            device: &device,
            precision,
        };
        return plan.print(global);
    }

    let ended = |halt: Halt, checkpoint: Option<&Checkpoint>| match halt {
        Halt::Stopped => interrupted(args, checkpoint),
        Halt::Failed(failure) => failure,
        Halt::Library(error) => super::explain(error, &vectors, args.checkpoint.as_deref()),
    };
    if place == Place::File && start.is_none() && !args.resume && args.init == InitChoice::PlusPlus {
        global.say(&format!(
            "the vectors do not fit into --max-memory with what training needs beside them, and kmeans++ reads them {} times; \
             allow more, or start with --init 'kmeans||'",
            k - 1
        ));
    }
    let rows = Rows::load(place, &vectors, args.seed, &mut clock).map_err(|halt| ended(halt, checkpoint.as_ref()))?;
    let weights = weights.zip(args.weights.as_deref());
    let weights = weights.map(|(reader, file)| clock.load(|| rows.weights(&reader, file, k))).transpose();
    let weights = weights.map_err(|failure| ended(failure.into(), checkpoint.as_ref()))?;
    if let (Some((_, rounded @ 1..)), Some(file)) = (&weights, &args.weights) {
        log::warn!("{}: {rounded} weights were rounded to f32", file.display());
    }
    if let Some(checkpoint) = &mut checkpoint {
        let of_vectors = clock.load(|| rows.fingerprint(blocks.rows));
        let of_vectors = of_vectors.map_err(|failure| ended(failure.into(), Some(checkpoint)))?;
        checkpoint.bind(of_vectors, weights.as_ref().map(|(weights, _)| rows::fingerprint(weights)))?;
    }
    let checkpoint = checkpoint.as_ref();
    let start = start.map(|model| model.load(&Device::cpu(), &mut clock)).transpose()?;
    let params = kept.apply(super::params(args, start, resumed.clone()));
    let mut outputs = Outputs::create(args, &targets)?;

    let mut follow = Follow::new(args, learned_from, labelled, resumed.as_ref(), global);
    let observe = |step: Step, state: Option<&KMeansState>| {
        if STOP.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        follow.step(step);
        match (checkpoint, step, state) {
            (Some(checkpoint), Step::Moved { .. }, Some(state)) => match checkpoint.write(state) {
                // Stopped while it was written: the one before stays.
                Err(_) if STOP.load(Ordering::Relaxed) => Err(Halt::Stopped),
                written => Ok(written?),
            },
            _ => Ok(()),
        }
    };
    let weights = weights.as_ref().map(|(weights, _)| &weights[..]);
    let fit = clock.prepare(|| params.fit_source(&mut rows.source(blocks.rows), weights, &device, observe)).map_err(
        |halt| match halt {
            Halt::Library(error) => ended(Halt::Library(rows.in_file(error)), checkpoint),
            halt => ended(halt, checkpoint),
        },
    )?;
    drop(follow);

    let writing = Instant::now();
    outputs.write_model(args.quantizer, &[&fit.codebook], None)?;
    outputs.write_plot(&fit.curve, &fit.counts)?;
    if let Some(codes) = &mut outputs.codes {
        let written = files::write_codes(codes, &vectors, &fit.codebook, blocks, global);
        written.map_err(|failure| ended(failure.into(), checkpoint))?;
    }
    let committed = output::commit(outputs.into_all(), global.force);
    committed.map_err(|failure| ended(failure.into(), checkpoint))?;
    let seconds = clock.stop(Times { write: writing.elapsed(), ..Times::default() });
    let (rounded, dead) = (rows.rounded(), fit.counts.iter().filter(|&&count| count == 0).count());
    if global.json {
        let (verb, dtype, precision) = ("train", vectors.reader.header().scalar, Some(Precision::Exact));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: Some(fit.stats) };
        // An infinite number has no form in JSON: it is null.
        return report.print(json!({
            "rounded_rows": rounded,
            "learned_from": learned_from,
            "streamed": place == Place::File,
            "minibatch": args.minibatch,
            "inertia": fit.inertia,
            "iterations": fit.iterations(),
            "converged": fit.converged,
            "curve": fit.curve,
            "dead": dead,
            "seed": args.seed,
            "run": fit.run,
            "outputs": report::outputs(&targets, &files::also(args)),
        }));
    }
    let shape = shape_text(&targets[0].header.shape);
    let (inertia, iterations, total) = (number(fit.inertia), fit.iterations(), seconds.total);
    let end = if fit.converged { ", converged" } else { "" };
    let of = if learned_from < n { format!(" of a sample of {learned_from}") } else { String::new() };
    let path = args.output.display();
    global.say(&format!(
        "{path}: {shape} f32 codebook in {total:.2} s, inertia {inertia}{of} after {iterations} iterations{end}"
    ));
    if dead > 0 {
        global.say(&format!(
            "{dead} codewords are nearest to no vector: there are fewer different vectors, or too few iterations"
        ));
    }
    if rounded > 0 {
        global.say(&format!("{rounded} vectors were rounded to f32 before they were learned from"));
    }
    Ok(())
}

/// Ended by Ctrl-C.
fn interrupted(args: &Train, checkpoint: Option<&Checkpoint>) -> Failure {
    match checkpoint.and_then(Checkpoint::left) {
        Some(path) => {
            let (path, how) =
                (path.display(), if args.resume { "the same again goes" } else { "--resume in place of a start goes" });
            let message = format!("interrupted; no codebook was written; {how} on from {path}");
            Failure::new(Exit::Interrupted, message)
        }
        None => Failure::interrupted(),
    }
}

/// Opens the weights, one for each vector, in C order or along the same axes.
fn open_weights(file: &Path, vectors: &Vectors) -> Result<Reader> {
    let reader = input::open(file, None)?;
    let (shape, leading) = (&reader.header().shape, vectors.reader.leading());
    let bad = |expected: String| {
        let message = format!("{}: expected {expected}, got shape {}", file.display(), shape_text(shape));
        Err(Failure::new(Exit::BadInput, message))
    };
    match shape[..] == [vectors.n] || shape == leading {
        true => Ok(reader),
        false => bad(format!("one weight for each of {} vectors", vectors.n)),
    }
}

/// Opens the codebook to start from.
fn open_start(file: &Path, k: usize, vectors: &Vectors) -> Result<Model> {
    let model = Model::open_codebook(&args::Codebook { codebook: file.into(), codebook_dtype: None }, "--start")?;
    model.check_fits(vectors)?;
    if model.k != k {
        let message = format!(
            "{}: expected {k} codewords to start from, got {}; ask for that many with -k",
            file.display(),
            model.k
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    Ok(model)
}
