//! A quantizer of several codebooks learned from vectors.

use super::Halt;
use super::files::{self, Outputs};
use super::follow::Follow;
use super::memory::{self, Place};
use super::rows::Rows;
use crate::cli::args::{Global, Train};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::model::MOST_OF_PART;
use crate::cli::output;
use crate::cli::pipeline::Times;
use crate::cli::plan::{Plan, RowCost};
use crate::cli::report::{self, Clock, Report, number, shape_text};
use crate::cli::signals::STOP;
use crate::cli::values::Quantizer;
use codeword::{
    AssignStats, Codebook, Device, KMeans, Matrix, MatrixView, OptimizedProductQuantizer, Precision, ProductQuantizer,
    ResidualQuantizer, SourceFit, Step,
};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub fn run(args: &Train, m: usize, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    check_flags(args)?;
    let vectors = Vectors::open(&args.vectors)?;
    let (n, d, k) = (vectors.n, vectors.d, args.k as usize);
    super::check(args, &vectors, global)?;
    if args.quantizer != Quantizer::Rvq {
        check_parts(m, &vectors)?;
    }
    let targets = files::targets(args, &vectors)?;
    let inputs = [("vectors", &vectors.reader)];
    files::check(args, &targets, &inputs, global)?;
    let device = global.open_devices()?.only("train")?;

    let (place, blocks, kept) = memory::plan(args, &vectors, &device, global)?;
    let learned_from = if let Place::Sample(count) = place { count } else { n };
    // Of each part; and of all of them where they move on for a rotation, once and to be judged.
    let labelled = super::labelled(args, learned_from);
    let passes = labelled / learned_from.max(1) as u64;
    let moves = super::rounds(args).saturating_sub(2).saturating_mul(2);
    let starts = if args.quantizer == Quantizer::Opq { 2 } else { 1 };
    let labelled = passes.saturating_mul(starts).saturating_add(moves).saturating_mul(learned_from as u64);
    if global.dry_run {
        let passes = (labelled / learned_from.max(1) as u64) as usize;
        let of_all = if args.quantizer == Quantizer::Rvq { m as u64 } else { 1 };
        let work = (k as u64).saturating_mul(d as u64).saturating_mul(passes as u64).saturating_mul(of_all);
        let plan = Plan {
            verb: "train",
            inputs: &inputs,
            targets: &targets,
            also: &[],
            n: learned_from,
            cost: RowCost { buffer: 4 * d as u64, scratch: 0, work },
            passes,
            blocks,
            device: &device,
            precision: Some(Precision::Exact),
        };
        return plan.print(global);
    }

    let ended = |halt: Halt| match halt {
        Halt::Stopped => Failure::interrupted(),
        Halt::Failed(failure) => failure,
        Halt::Library(error) => super::explain(error, &vectors, None),
    };
    let rows = Rows::load(place, &vectors, args.seed, &mut clock).map_err(ended)?;
    let Some(x) = rows.held() else {
        return Err(Failure::new(Exit::Failed, "the vectors to learn from are not in memory"));
    };
    let params = kept.apply(super::params(args, None, None));
    let mut outputs = Outputs::create(args, &targets)?;

    let mut follow = Follow::new(args, learned_from, labelled.saturating_mul(m as u64), None, global);
    let observe = |round: usize, part: usize, step: Step| {
        if STOP.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        let is_start = round == 0 || round == super::rotations(args) + 2;
        follow.step_of_part(round * m + part, if is_start { passes } else { 2 }, step);
        Ok(())
    };
    let fit = clock.prepare(|| Fit::learn(args, x, m, &params, &device, observe)).map_err(|halt| match halt {
        Halt::Library(error) => ended(Halt::Library(rows.in_file(error))),
        halt => ended(halt),
    })?;
    drop(follow);

    let writing = Instant::now();
    outputs.write_model(args.quantizer, &fit.codebooks.iter().collect::<Vec<_>>(), fit.rotation.as_ref())?;
    output::commit(outputs.into_all(), global.force)?;
    let seconds = clock.stop(Times { write: writing.elapsed(), ..Times::default() });

    let rounded = rows.rounded();
    let inertia = fit.inertia;
    let dead = |part: &SourceFit| part.counts.iter().filter(|&&count| count == 0).count();
    if global.json {
        let (verb, dtype, precision) = ("train", vectors.reader.header().scalar, Some(Precision::Exact));
        let tiers = Some(fit.tiers);
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers };
        let of_part = |part: &SourceFit| {
            json!({
                "inertia": part.inertia,
                "distortion": part.inertia / learned_from as f64,
                "iterations": part.iterations(),
                "converged": part.converged,
                "curve": part.curve,
                "dead": dead(part),
                "run": part.run,
            })
        };
        // An infinite number has no form in JSON: it is null.
        return report.print(json!({
            "quantizer": args.quantizer.name(),
            "m": m,
            "rounded_rows": rounded,
            "learned_from": learned_from,
            "inertia": inertia,
            "distortion": inertia / learned_from as f64,
            "parts": fit.parts.iter().map(of_part).collect::<Vec<_>>(),
            "seed": args.seed,
            "outputs": report::targets(&targets),
        }));
    }
    let shape = shape_text(&targets[0].header.shape);
    let (distortion, total) = (number(inertia / learned_from as f64), seconds.total);
    let of = if learned_from < n { format!(" of a sample of {learned_from}") } else { String::new() };
    let path = args.output.display();
    global.say(&format!("{path}: {shape} f32 codebooks in {total:.2} s, distortion {distortion}{of}"));
    let dead: usize = fit.parts.iter().map(dead).sum();
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

/// What any of them comes to.
struct Fit {
    codebooks: Vec<Codebook>,
    rotation: Option<Matrix<f32>>,
    inertia: f64,
    /// How each sub-quantizer or stage was learned, of an optimised one for the rotation that is kept.
    parts: Vec<SourceFit>,
    tiers: AssignStats,
}

impl Fit {
    fn plain(codebooks: &[Codebook], inertia: f64, parts: Vec<SourceFit>) -> Fit {
        let tiers = parts.iter().fold(AssignStats::default(), |sum, part| sum + part.stats);
        Fit { codebooks: codebooks.to_vec(), rotation: None, inertia, parts, tiers }
    }

    /// Tells the round of an optimised one, the part, and the step.
    fn learn(
        args: &Train,
        x: MatrixView<'_, f32>,
        m: usize,
        params: &KMeans,
        device: &Device,
        mut observe: impl FnMut(usize, usize, Step) -> std::result::Result<(), Halt>,
    ) -> std::result::Result<Fit, Halt> {
        match args.quantizer {
            Quantizer::Vq | Quantizer::Pq => {
                let fit = ProductQuantizer::train_with(x, m, params, device, |part, step| observe(0, part, step))?;
                let inertia = fit.parts.iter().map(|part| part.inertia).sum();
                Ok(Fit::plain(fit.quantizer.codebooks(), inertia, fit.parts))
            }
            Quantizer::Opq => {
                let outer = super::rotations(args);
                let fit = OptimizedProductQuantizer::train_with(x, m, params, outer, device, observe)?;
                let codebooks = fit.quantizer.product().codebooks().to_vec();
                let rotation = Some(fit.quantizer.rotation().clone());
                Ok(Fit { codebooks, rotation, inertia: fit.sq_error, parts: fit.parts, tiers: fit.stats })
            }
            Quantizer::Rvq => {
                let fit = ResidualQuantizer::train_with(x, m, params, device, |part, step| observe(0, part, step))?;
                // What the last stage leaves is what all together do.
                let inertia = fit.stages.last().map_or(0.0, |stage| stage.inertia);
                Ok(Fit::plain(fit.quantizer.codebooks(), inertia, fit.stages))
            }
        }
    }
}

/// Refuses what only the training of a codebook has.
fn check_flags(args: &Train) -> Result<()> {
    let usage = |message: String| Err(Failure::new(Exit::Usage, message));
    let flags = [
        (args.minibatch.is_some(), "--minibatch"),
        (args.weights.is_some(), "--weights"),
        (args.start.is_some(), "--start"),
        (args.checkpoint.is_some(), "--checkpoint"),
        (args.plot.is_some(), "--plot"),
        (args.codes.is_some(), "--codes"),
    ];
    if let Some((_, flag)) = flags.iter().find(|(given, _)| *given) {
        return usage(format!("{flag}: train has this with --quantizer vq only; leave it out"));
    }
    if args.k as usize > MOST_OF_PART {
        let (most, part) = (MOST_OF_PART, args.quantizer.part());
        return usage(format!(
            "-k {}: expected at most {most} codewords for a {part}, whose numbers have 16 bits; ask for fewer, and for more \
             {part}s with -m",
            args.k
        ));
    }
    Ok(())
}

/// Refuses parts of unequal lengths.
fn check_parts(m: usize, vectors: &Vectors) -> Result<()> {
    let d = vectors.d;
    if d.is_multiple_of(m) {
        return Ok(());
    }
    let divisors: Vec<String> = (1..=d.min(128)).filter(|&m| d.is_multiple_of(m)).map(|m| m.to_string()).collect();
    let message = format!(
        "-m {m}: expected a divisor of the {d} dimensions of {} (those up to 128: {}); name one of them, or append columns of \
         zeros to the vectors",
        vectors.reader.file().display(),
        divisors.join(" ")
    );
    Err(Failure::new(Exit::Usage, message))
}
