//! The numbers of the sub-quantizers or stages of every vector.

use crate::cli::args::{Encode, Global};
use crate::cli::composed::{self, Composed};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::model::{self, Model};
use crate::cli::output::{self, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::ranked::Files;
use crate::cli::report::{self, Clock, Report, shape_text};
use crate::cli::stream::{Block, Stream};
use crate::cli::values::{Policy, Quantizer};
use codeword::Precision;
use codeword::io::npy::Scalar;
use serde_json::json;

pub fn run(args: &Encode, global: &Global, vectors: &Vectors, model: &Model, mut clock: Clock) -> Result<()> {
    check(args, model, global)?;
    let (n, d, k, m) = (vectors.n, vectors.d, model.k, model.m);
    let targets = targets(args, vectors, model)?;
    output::check(&targets, &[&vectors.reader, &model.reader], global)?;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only(&format!("encode with {}", model.quantizer.described()))?;

    let of_codes = composed::encoding(model, args.beam);
    let of_vectors = if args.reconstruction.is_some() { 4 * d as u64 + composed::decoding(model) } else { 0 };
    let cost = RowCost {
        buffer: 4 * d as u64 + 4 * m as u64,
        scratch: of_vectors + of_codes,
        work: composed::work(model).saturating_mul(args.beam.map_or(1, u64::from)),
    };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let plan = Plan {
            verb: "encode",
            inputs: &inputs,
            targets: &targets,
            also: &[],
            n,
            cost,
            passes: 1,
            blocks,
            device: &device,
            precision: Some(Precision::Exact),
        };
        return plan.print(global);
    }

    let quantizer = Composed::load(model, &device, &mut clock)?;
    let mut files = Files::create(&targets, m, n)?;
    let compute = |block: &mut Block| {
        block.codes = quantizer.encode_block(block, vectors, args.beam)?;
        Ok(())
    };
    let stream = Stream { verb: "encode", n, unit: "vectors", blocks, global };
    let (times, rounded) = stream.run_vectors(vectors, compute, |block| {
        let explain = |error| vectors.explain(error, block.first, "remove it");
        files.write(block, |numbers, rows| quantizer.decode_numbers(numbers, rows).map_err(explain))
    })?;
    output::commit(files.outputs, global.force)?;

    let seconds = clock.stop(times);
    if global.json {
        let (verb, dtype, precision) = ("encode", vectors.reader.header().scalar, Some(Precision::Exact));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: None };
        let quantizer = model.quantizer.name();
        let outputs = report::targets(&targets);
        return report.print(json!({"quantizer": quantizer, "m": m, "rounded_rows": rounded, "outputs": outputs}));
    }
    let written = &targets[0];
    let what = format!("{} {} codes", shape_text(&written.header.shape), written.header.scalar.name());
    global.say(&format!("{}: {what} in {}", written.path.display(), seconds.text(n)));
    if rounded > 0 {
        global.say(&format!("{rounded} vectors were rounded to f32 before they were encoded"));
    }
    Ok(())
}

/// Refuses what only codes by a codebook have.
fn check(args: &Encode, model: &Model, global: &Global) -> Result<()> {
    model::check_exact(global)?;
    if args.beam.is_some() && model.quantizer != Quantizer::Rvq {
        let message = format!(
            "--beam: encode has this for residual quantizers only, and MODEL is {}; leave it out",
            model.quantizer.described()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if args.beam.is_some() && model.around.is_some() {
        let message = "--beam: encode has this for residual quantizers without projections, cosines and stages that share them only, and MODEL has some; \
                       leave it out";
        return Err(Failure::new(Exit::Usage, message));
    }
    let flag = [
        (args.top_k.is_some(), "--top-k"),
        (args.distances.is_some(), "--distances"),
        (args.non_finite.non_finite == Policy::Sentinel, "--non-finite sentinel"),
    ];
    match flag.iter().find(|(given, _)| *given) {
        Some((_, flag)) => {
            let message = format!(
                "{flag}: encode has this for codebooks only, and MODEL is {}; leave it out",
                model.quantizer.described()
            );
            Err(Failure::new(Exit::Usage, message))
        }
        None => Ok(()),
    }
}

/// The files to write, the codes first.
fn targets(args: &Encode, vectors: &Vectors, model: &Model) -> Result<Vec<Target>> {
    let reader = &vectors.reader;
    let mut shape = reader.leading().to_vec();
    shape.push(model.m);
    let mut targets = vec![Target::new("codes", &args.output, super::code_dtype(args, model)?, &shape, reader)?];
    if let Some(path) = &args.reconstruction {
        targets.push(Target::new("reconstruction", path, Scalar::F32, &reader.header().shape, reader)?);
    }
    Ok(targets)
}
