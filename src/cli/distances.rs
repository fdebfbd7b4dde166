//! `codeword distances`: the squared distance of every vector to every codeword.

use crate::cli::args::{Distances, Global};
use crate::cli::exit::Result;
use crate::cli::input::Vectors;
use crate::cli::model::Model;
use crate::cli::output::{self, Output, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, shape_text};
use crate::cli::stream::{Block, Stream};
use codeword::io::npy::Scalar;
use codeword::{Precision, pairwise_sq_l2_into};
use serde_json::json;

pub fn run(args: &Distances, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let vectors = Vectors::open(&args.vectors)?;
    let model = Model::open_codebook(&args.codebook, "distances")?;
    model.check_fits(&vectors)?;
    let (n, d, k) = (vectors.n, vectors.d, model.k);
    let mut shape = vectors.reader.leading().to_vec();
    shape.push(k);
    let targets = [Target::new("distances", &args.output, Scalar::F32, &shape, &vectors.reader)?];
    output::check(&targets, &[&vectors.reader, &model.reader], global)?;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("distances")?;
    let precision = global.precision_or(Precision::Fast);

    let cost = RowCost { buffer: 4 * (d as u64 + k as u64), scratch: 0, work: (k as u64).saturating_mul(d as u64) };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let precision = Some(precision);
        let plan = Plan {
            verb: "distances",
            inputs: &inputs,
            targets: &targets,
            also: &[],
            n,
            cost,
            passes: 1,
            blocks,
            device: &device,
            precision,
        };
        return plan.print(global);
    }

    let codebook = model.load(&device, &mut clock)?;
    let [target] = &targets;
    let mut output = Output::create(target.clone())?;
    let compute = |block: &mut Block| {
        let mut sq_distances = std::mem::take(&mut block.sq_distances);
        sq_distances.resize(block.rows * k, 0.0);
        let done = block.view(d).and_then(|x| pairwise_sq_l2_into(x, &codebook, precision, &mut sq_distances));
        block.sq_distances = sq_distances;
        done.map_err(|error| vectors.explain(error, block.first, "remove or repair it"))
    };
    let stream = Stream { verb: "distances", n, unit: "vectors", blocks, global };
    let write = |block: &mut Block| output.write_rows(block.first, &block.sq_distances);
    let (times, rounded) = stream.run_vectors(&vectors, compute, write)?;
    output::commit(vec![output], global.force)?;

    let seconds = clock.stop(times);
    if global.json {
        let (verb, dtype, precision) = ("distances", vectors.reader.header().scalar, Some(precision));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: None };
        return report.print(json!({"rounded_rows": rounded, "outputs": report::targets(&targets)}));
    }
    let shape = shape_text(&shape);
    global.say(&format!("{}: {shape} squared distances in {}", args.output.display(), seconds.text(n)));
    Ok(())
}
