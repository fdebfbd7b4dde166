//! `codeword train`: a codebook learned from vectors.

use crate::cli::args::{self, Global, Train};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, Model, Vectors};
use crate::cli::output::{self, Output, Target};
use crate::cli::pipeline::Times;
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::progress::Progress;
use crate::cli::report::{self, Clock, Report, number, shape_text, size_text};
use crate::cli::signals::STOP;
use crate::cli::values::{CodeDtype, InitChoice};
use codeword::io::npy::{Reader, Scalar};
use codeword::{Codebook, Device, Error, Init, KMeans, KMeansFit, MatrixView, Precision, Step};
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
    check(args, &vectors, global)?;
    let targets = targets(args, &vectors)?;
    let mut inputs = vec![("vectors", &vectors.reader)];
    inputs.extend(weights.as_ref().map(|reader| ("weights", reader)));
    inputs.extend(start.as_ref().map(|model| ("start", &model.reader)));
    let readers: Vec<&Reader> = inputs.iter().map(|&(_, reader)| reader).collect();
    output::check(&targets, &readers, global)?;
    let device = global.open_devices()?.only("train")?;

    let passes = (args.iterations as usize).saturating_add(1).saturating_mul(args.n_init as usize);
    let work = (k as u64).saturating_mul(d as u64).saturating_mul(passes as u64);
    let blocks = in_memory(args, n, d, global)?;
    if global.dry_run {
        let cost = RowCost { buffer: 4 * d as u64, scratch: 0, work };
        let precision = Some(Precision::Exact);
        let plan = Plan {
            verb: "train",
            inputs: &inputs,
            targets: &targets,
            n,
            cost,
            passes,
            blocks,
            device: &device,
            precision,
        };
        return plan.print(global);
    }

    let (x, rounded) = clock.load(|| input::read_all(&vectors.reader))?;
    let view = MatrixView::new(&x, n, d).or_exit(Exit::BadInput)?;
    let weights = weights.map(|reader| clock.load(|| input::read_all(&reader))).transpose()?;
    if let (Some((_, rounded @ 1..)), Some(file)) = (&weights, &args.weights) {
        log::warn!("{}: {rounded} rows of weights were rounded to f32", file.display());
    }
    let start = start.map(|model| model.load(&Device::cpu(), &mut clock)).transpose()?;
    let mut outputs: Vec<Output> = targets.iter().cloned().map(Output::create).collect::<Result<_>>()?;

    let mut progress = Progress::new(global, "train", passes, "passes");
    let watch = |step| match STOP.load(Ordering::Relaxed) {
        true => Err(Halt::Stopped),
        false => {
            follow(&mut progress, step, k);
            Ok(())
        }
    };
    let weights = weights.as_ref().map(|(weights, _)| &weights[..]);
    let fit =
        clock.prepare(|| params(args, start).fit_with(view, weights, &device, watch)).map_err(|halt| match halt {
            Halt::Stopped => Failure::interrupted(),
            Halt::Failed(error) => explain(error, &vectors, args.weights.as_deref()),
        })?;
    drop(progress);

    let writing = Instant::now();
    write(&mut outputs, &fit)?;
    output::commit(outputs, global.force)?;
    let seconds = clock.stop(Times { write: writing.elapsed(), ..Times::default() });
    let dead = dead(&fit);
    if global.json {
        let (verb, dtype, precision) = ("train", vectors.reader.header().scalar, Some(Precision::Exact));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: Some(fit.stats) };
        // An infinite number has no form in JSON: it is null.
        return report.print(json!({
            "rounded_rows": rounded,
            "inertia": fit.inertia,
            "iterations": fit.iterations(),
            "converged": fit.converged,
            "curve": fit.curve,
            "dead": dead,
            "seed": args.seed,
            "run": fit.run,
            "outputs": report::targets(&targets),
        }));
    }
    let shape = shape_text(&targets[0].header.shape);
    let (inertia, iterations, total) = (number(fit.inertia), fit.iterations(), seconds.total);
    let end = if fit.converged { ", converged" } else { "" };
    let path = args.output.display();
    global.say(&format!(
        "{path}: {shape} f32 codebook in {total:.2} s, inertia {inertia} after {iterations} iterations{end}"
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

/// Why training ended early.
enum Halt {
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
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
    if vectors.d == 0 {
        let shape = shape_text(&vectors.reader.header().shape);
        let message =
            format!("{}: expected vectors of at least one column, got shape {shape}", args.vectors.x.display());
        return Err(Failure::new(Exit::BadInput, message));
    }
    Ok(())
}

/// The files to write, the codebook first.
fn targets(args: &Train, vectors: &Vectors) -> Result<Vec<Target>> {
    if args.output.extension().is_some_and(|it| it.eq_ignore_ascii_case("safetensors")) {
        let message = format!("{}: codebooks are written as .npy; name a .npy file", args.output.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let (reader, k) = (&vectors.reader, args.k as usize);
    let mut targets = vec![Target::new("codebook", &args.output, Scalar::F32, &[k, vectors.d], reader)?.in_c_order()];
    if let Some(path) = &args.codes {
        targets.push(Target::new("codes", path, CodeDtype::smallest(k).scalar(), reader.leading(), reader)?);
    }
    Ok(targets)
}

/// One block of all rows, with what is computed of them, within the limit.
fn in_memory(args: &Train, n: usize, d: usize, global: &Global) -> Result<Blocks> {
    // Labels, distances and the order of the rows; those of the best run so far; a weight.
    let beside = 12 + if args.n_init > 1 { 8 } else { 0 } + if args.weights.is_some() { 4 } else { 0 };
    let rows = (n as u64).saturating_mul(4 * d as u64 + beside);
    // Codewords old and new, sums, and the packed forms of a codebook.
    let memory = rows.saturating_add(u64::from(args.k).saturating_mul(32 * d as u64));
    match global.max_memory {
        Some(size) if size.0 < memory => {
            let message = format!(
                "--max-memory {}: train holds all vectors in memory, about {}; allow that, or train on fewer vectors",
                size_text(size.0),
                size_text(memory)
            );
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(Blocks { rows: n, buffers: 1, memory }),
    }
}

/// Opens the weights, one for each vector in the order in which the vectors are read.
fn open_weights(file: &Path, vectors: &Vectors) -> Result<Reader> {
    let reader = input::open(file, None)?;
    let (shape, leading) = (&reader.header().shape, vectors.reader.leading());
    let bad = |expected: String| {
        let message = format!("{}: expected {expected}, got shape {}", file.display(), shape_text(shape));
        Err(Failure::new(Exit::BadInput, message))
    };
    if shape[..] != [vectors.n] && shape != leading {
        return bad(format!("one weight for each of {} vectors", vectors.n));
    }
    let in_columns = |reader: &Reader, axes: usize| reader.header().fortran_order && axes > 1;
    if in_columns(&reader, shape.len()) || in_columns(&vectors.reader, leading.len()) {
        return bad(
            "weights and vectors in C order (numpy.ascontiguousarray) where there are several axes of them".into()
        );
    }
    Ok(reader)
}

/// Opens the codebook to start from.
fn open_start(file: &Path, k: usize, vectors: &Vectors) -> Result<Model> {
    let model = Model::open(&args::Model { codebook: file.into(), codebook_dtype: None })?;
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

fn params(args: &Train, start: Option<Codebook>) -> KMeans {
    let init = match (start, args.init) {
        (Some(codebook), _) => Init::Given(codebook),
        (None, InitChoice::Random) => Init::RandomRows,
        (None, InitChoice::PlusPlus) => Init::PlusPlus,
        (None, InitChoice::Hierarchical) => Init::Hierarchical,
    };
    let (iterations, n_init) = (args.iterations as usize, args.n_init as usize);
    KMeans::new(args.k as usize)
        .init(init)
        .iterations(iterations)
        .tolerance(args.tolerance)
        .seed(args.seed)
        .n_init(n_init)
}

/// Shows a step: `passes, inertia 5.373e8, -0.52 %`.
fn follow(progress: &mut Progress, step: Step, k: usize) {
    match step {
        Step::Iteration { inertia, before, .. } => {
            let change = before.map(|before| format!(", {:+.3} %", 100.0 * (inertia / before - 1.0)));
            progress.tell(format!("passes, inertia {}{}", number(inertia), change.unwrap_or_default()));
            progress.advance(1);
        }
        Step::Start { codewords, .. } => {
            progress.tell(format!("passes, start {codewords}/{k}"));
            progress.advance(0);
        }
        // What a later version of the library tells.
        _ => {}
    }
}

/// Puts an error of the library in terms of the files.
fn explain(error: Error, vectors: &Vectors, weights: Option<&Path>) -> Failure {
    match (error, weights) {
        (Error::InvalidParameter { name: "weights", expected, got, .. }, Some(file)) => {
            Failure::new(Exit::BadInput, format!("{}: weights must be {expected}, got {got}", file.display()))
        }
        (error, _) => vectors.explain(error, 0, "remove or repair it"),
    }
}

fn write(outputs: &mut [Output], fit: &KMeansFit) -> Result<()> {
    let codewords = fit.codebook.codewords().or_exit(Exit::Failed)?;
    for j in 0..codewords.rows() {
        outputs[0].write_rows(j, codewords.row(j))?;
    }
    match outputs.get_mut(1) {
        Some(codes) => codes.write_codes(0, &fit.assignment.labels),
        None => Ok(()),
    }
}

/// Codewords that no vector is nearest to.
fn dead(fit: &KMeansFit) -> usize {
    let mut used = vec![false; fit.codebook.k()];
    fit.assignment.labels.iter().for_each(|&label| used[label as usize] = true);
    used.iter().filter(|&&used| !used).count()
}
