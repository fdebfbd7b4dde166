//! `codeword decode`: the codewords that codes stand for.

use crate::cli::args::{Decode, Global};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, Model, index_text, multi_index};
use crate::cli::output::{self, Output, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, shape_text};
use crate::cli::stream::{Block, Stream};
use codeword::io::npy::{Reader, Scalar};
use codeword::{Error, decode_into};
use serde_json::json;

pub fn run(args: &Decode, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let codes = input::open(&args.codes, None)?;
    let dtype = codes.header().scalar;
    if dtype.is_float() {
        let message = format!(
            "{}: expected integer codes, got {}; name the file that encode wrote",
            args.codes.display(),
            dtype.name()
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    let model = Model::open(&args.model)?;
    let (n, d, k) = (codes.elements(), model.d, model.k);
    let mut shape = codes.header().shape.clone();
    shape.push(d);
    let mut target = Target::new("vectors", &args.output, Scalar::F32, &shape, &codes)?;
    // One axis of codes has no order that could be inherited.
    target.header.fortran_order &= shape.len() > 2;
    let targets = [target];
    output::check(&targets, &[&codes, &model.reader], global)?;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("decode")?;

    let cost = RowCost { buffer: 4 + 4 * d as u64, scratch: 0, work: 0 };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("codes", &codes), ("codebook", &model.reader)];
        let plan = Plan {
            verb: "decode",
            inputs: &inputs,
            targets: &targets,
            n,
            cost,
            passes: 1,
            blocks,
            device: &device,
            precision: None,
        };
        return plan.print(global);
    }

    let codebook = model.load(&device, &mut clock)?;
    let [target] = &targets;
    let mut output = Output::create(target.clone())?;
    let mut scratch = Vec::new();
    let read = |block: &mut Block| {
        block.codes.resize(block.rows, 0);
        codes.read_codes(block.first, &mut block.codes, &mut scratch).or_exit(Exit::BadInput)
    };
    let compute = |block: &mut Block| {
        block.x.resize(block.rows * d, 0.0);
        decode_into(&block.codes, &codebook, &mut block.x).map_err(|error| explain(error, block.first, &codes, &model))
    };
    let stream = Stream { verb: "decode", n, unit: "codes", blocks, global };
    let times = stream.run(read, compute, |block| output.write_rows(block.first, &block.x))?;
    output::commit(vec![output], global.force)?;

    let seconds = clock.stop(times);
    if global.json {
        let verb = "decode";
        let report = Report { verb, device: &device, n, d, k, dtype, precision: None, seconds, tiers: None };
        return report.print(json!({"outputs": report::targets(&targets)}));
    }
    let shape = shape_text(&shape);
    global.say(&format!("{}: {shape} f32 vectors in {}", args.output.display(), seconds.text(n)));
    Ok(())
}

/// Puts the position of a wrong code in terms of the whole file.
fn explain(error: Error, first: usize, codes: &Reader, model: &Model) -> Failure {
    match error {
        Error::CodeOutOfRange { position, code, k, .. } => {
            let position = first + position;
            let header = codes.header();
            let position = index_text(&multi_index(&header.shape, header.fortran_order, position), position);
            let message = format!(
                "{}: code {code} at position {position} names no codeword: {} holds {k} (codes 0 to {}); name the codebook \
                 that the codes were made with",
                codes.file().display(),
                model.reader.file().display(),
                k - 1
            );
            Failure::new(Exit::BadInput, message)
        }
        error => Failure { exit: Exit::of(&error), error: error.into() },
    }
}
