//! The nearest codewords of every vector.

use crate::cli::args::{Encode, Global};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::model::Model;
use crate::cli::output::{self, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::ranked::Files;
use crate::cli::report::{self, Clock, Report, count_text, shape_text};
use crate::cli::shares::Shares;
use crate::cli::stream::{Block, Stream};
use codeword::io::npy::Scalar;
use codeword::{AssignOptions, AssignStats, Error, Precision, decode_into};
use serde_json::json;

const WAY_OUT: &str = "remove or repair it, or give such vectors a code of their own with --non-finite sentinel";

pub fn run(args: &Encode, global: &Global, vectors: &Vectors, model: &Model, mut clock: Clock) -> Result<()> {
    if args.beam.is_some() {
        let message = "--beam: encode has this for residual quantizers only, and MODEL is a codebook; leave it out";
        return Err(Failure::new(Exit::Usage, message));
    }
    let (n, d, k) = (vectors.n, vectors.d, model.k);
    let r = args.top_k.map_or(1, |r| r as usize);
    if r > k {
        let message =
            format!("--top-k {r}: {} has only {k} codewords; ask for at most that many", model.reader.file().display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let targets = targets(args, vectors, model)?;
    output::check(&targets, &[&vectors.reader, &model.reader], global)?;
    let devices = global.open_devices()?;
    let options = AssignOptions {
        precision: global.precision_or(Precision::Exact),
        non_finite: args.non_finite.non_finite.into(),
    };

    let cost = RowCost {
        buffer: 4 * d as u64 + 8 * r as u64,
        scratch: if args.reconstruction.is_some() { 4 * d as u64 } else { 0 },
        work: (k as u64).saturating_mul(d as u64),
    };
    let blocks = Blocks::new(n, cost, devices.pace(), global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let precision = Some(options.precision);
        let plan = Plan {
            verb: "encode",
            inputs: &inputs,
            targets: &targets,
            also: &[],
            n,
            cost,
            passes: 1,
            blocks,
            device: &devices,
            precision,
        };
        return plan.print(global);
    }

    let shares = Shares::new(model.load(&devices.0[0], &mut clock)?, &devices.0[1..])?;
    let mut files = Files::create(&targets, r, n)?;
    let mut stats = AssignStats::default();
    let stream = Stream { verb: "encode", n, unit: "vectors", blocks, global };
    let compute = |block: &mut Block| {
        stats += nearest(block, d, args.top_k, &shares, options)
            .map_err(|error| vectors.explain(error, block.first, WAY_OUT))?;
        Ok(())
    };
    let mut first_choices = Vec::new();
    let mut decode = |codes: &[u32], rows: &mut Vec<f32>| {
        let mut nearest = codes;
        if r > 1 {
            first_choices.clear();
            first_choices.extend(codes.iter().step_by(r));
            nearest = &first_choices;
        }
        rows.resize(nearest.len() * d, 0.0);
        decode_into(nearest, shares.first(), rows).or_exit(Exit::Failed)
    };
    let (times, rounded) = stream.run_vectors(vectors, compute, |block| files.write(block, &mut decode))?;
    output::commit(files.outputs, global.force)?;

    let seconds = clock.stop(times);
    if global.json {
        let (verb, dtype, precision) = ("encode", vectors.reader.header().scalar, Some(options.precision));
        let report = Report { verb, device: &devices, n, d, k, dtype, precision, seconds, tiers: Some(stats) };
        return report.print(json!({"rounded_rows": rounded, "outputs": report::targets(&targets)}));
    }
    let codes = &targets[0];
    let what = format!("{} {} codes", shape_text(&codes.header.shape), codes.header.scalar.name());
    global.say(&format!("{}: {what} in {}{}", codes.path.display(), seconds.text(n), certified_text(stats)));
    if rounded > 0 {
        global.say(&format!("{rounded} vectors were rounded to f32 before they were encoded"));
    }
    Ok(())
}

/// The files to write, the codes first.
fn targets(args: &Encode, vectors: &Vectors, model: &Model) -> Result<Vec<Target>> {
    let reader = &vectors.reader;
    let mut shape = reader.leading().to_vec();
    shape.extend(args.top_k.map(|r| r as usize));
    let mut targets = vec![Target::new("codes", &args.output, super::code_dtype(args, model)?, &shape, reader)?];
    if let Some(path) = &args.distances {
        targets.push(Target::new("distances", path, Scalar::F32, &shape, reader)?);
    }
    if let Some(path) = &args.reconstruction {
        targets.push(Target::new("reconstruction", path, Scalar::F32, &reader.header().shape, reader)?);
    }
    Ok(targets)
}

/// Fills in the codes and distances of a block.
fn nearest(
    block: &mut Block,
    d: usize,
    r: Option<u32>,
    shares: &Shares,
    options: AssignOptions,
) -> std::result::Result<AssignStats, Error> {
    let (mut codes, mut sq_distances) = (std::mem::take(&mut block.codes), std::mem::take(&mut block.sq_distances));
    // The ring of buffers was planned for so many values.
    let len = block.rows * r.unwrap_or(1) as usize;
    codes.resize(len, 0);
    sq_distances.resize(len, 0.0);
    let stats = shares.nearest(&block.x[..block.rows * d], d, r, options, &mut codes, &mut sq_distances)?;
    (block.codes, block.sq_distances) = (codes, sq_distances);
    Ok(stats)
}

/// `, 97.1 % settled by the first pass`, where there were any.
fn certified_text(stats: AssignStats) -> String {
    let all = stats.first + stats.second + stats.f64 + stats.exact;
    match all {
        0 => String::new(),
        _ if stats.first == all => format!(", all {} settled by the first pass", count_text(all as f64)),
        _ => format!(", {:.1} % settled by the first pass", 100.0 * stats.first as f64 / all as f64),
    }
}
