//! `codeword decode`: the codewords that codes stand for.

use crate::cli::args::{Decode, Global};
use crate::cli::codes::{self, Codes};
use crate::cli::composed::{self, Composed};
use crate::cli::exit::Result;
use crate::cli::model::Model;
use crate::cli::output::{self, Output, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, shape_text};
use crate::cli::stream::{Block, Stream};
use crate::cli::values::Quantizer;
use codeword::io::npy::Scalar;
use codeword::{Codebook, Error, decode_into};
use serde_json::json;

pub fn run(args: &Decode, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let reader = codes::open(&args.codes)?;
    let dtype = reader.header().scalar;
    let model = Model::open(&args.model)?;
    let mut codes = Codes::new(&reader, &model)?;
    let (n, d, k, m) = (codes.n, model.d, model.k, model.m as u64);
    let mut shape = match model.quantizer {
        Quantizer::Vq => reader.header().shape.clone(),
        _ => reader.leading().to_vec(),
    };
    shape.push(d);
    let mut target = Target::new("vectors", &args.output, Scalar::F32, &shape, &reader)?;
    // One axis of codes has no order that could be inherited.
    target.header.fortran_order &= reader.header().shape.len() > 1;
    let targets = [target];
    output::check(&targets, &[&reader, &model.reader], global)?;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("decode")?;

    let scratch = composed::decoding(&model);
    let cost = RowCost { buffer: 4 * m + 4 * d as u64, scratch, work: 0 };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("codes", &reader), ("codebook", &model.reader)];
        let plan = Plan {
            verb: "decode",
            inputs: &inputs,
            targets: &targets,
            also: &[],
            n,
            cost,
            passes: 1,
            blocks,
            device: &device,
            precision: None,
        };
        return plan.print(global);
    }

    let loaded = match model.quantizer {
        Quantizer::Vq => Loaded::Codebook(model.load(&device, &mut clock)?),
        _ => Loaded::Composed(Composed::load(&model, &device, &mut clock)?),
    };
    let [target] = &targets;
    let mut output = Output::create(target.clone())?;
    let read = |block: &mut Block| codes.read(block.first, block.rows, &mut block.codes);
    let compute = |block: &mut Block| {
        loaded.decode(block, d).map_err(|error| codes::explain(error, block.first, n, &reader, &model))
    };
    let stream = Stream { verb: "decode", n, unit: "codes", blocks, global };
    let times = stream.run(read, compute, |block| output.write_rows(block.first, &block.x))?;
    output::commit(vec![output], global.force)?;

    let seconds = clock.stop(times);
    if global.json {
        let verb = "decode";
        let report = Report { verb, device: &device, n, d, k, dtype, precision: None, seconds, tiers: None };
        let (quantizer, outputs) = (model.quantizer.name(), report::targets(&targets));
        return report.print(json!({"quantizer": quantizer, "m": m, "outputs": outputs}));
    }
    let shape = shape_text(&shape);
    global.say(&format!("{}: {shape} f32 vectors in {}", args.output.display(), seconds.text(n)));
    Ok(())
}

/// What makes vectors of codes.
enum Loaded {
    Codebook(Codebook),
    Composed(Composed),
}

impl Loaded {
    fn decode(&self, block: &mut Block, d: usize) -> std::result::Result<(), Error> {
        block.x.resize(block.rows * d, 0.0);
        match self {
            Loaded::Codebook(codebook) => decode_into(&block.codes, codebook, &mut block.x),
            Loaded::Composed(quantizer) => quantizer.decode_numbers(&block.codes, &mut block.x),
        }
    }
}
