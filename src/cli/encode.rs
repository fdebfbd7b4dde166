//! `codeword encode`: the nearest codewords of every vector.

use crate::cli::args::{Encode, Global};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{Model, Vectors};
use crate::cli::output::{self, Output, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, count_text, shape_text};
use crate::cli::shares::Shares;
use crate::cli::stream::{Block, Stream};
use crate::cli::values::{CodeDtype, Policy};
use codeword::io::npy::Scalar;
use codeword::{AssignOptions, AssignStats, Codebook, Error, Precision, decode_into};
use serde_json::json;

const WAY_OUT: &str = "remove or repair it, or give such vectors a code of their own with --non-finite sentinel";

pub fn run(args: &Encode, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let vectors = Vectors::open(&args.vectors)?;
    let model = Model::open(&args.model)?;
    model.check_fits(&vectors)?;
    let (n, d, k) = (vectors.n, vectors.d, model.k);
    let r = args.top_k.map_or(1, |r| r as usize);
    if r > k {
        let message =
            format!("--top-k {r}: {} has only {k} codewords; ask for at most that many", model.reader.file().display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let targets = targets(args, &vectors, &model)?;
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
    let mut files = Files::create(&targets, args, shares.first(), n)?;
    let mut stats = AssignStats::default();
    let stream = Stream { verb: "encode", n, unit: "vectors", blocks, global };
    let compute = |block: &mut Block| {
        stats += nearest(block, d, args.top_k, &shares, options)
            .map_err(|error| vectors.explain(error, block.first, WAY_OUT))?;
        Ok(())
    };
    let (times, rounded) = stream.run_vectors(&vectors, compute, |block| files.write(block))?;
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
    let mut targets = vec![Target::new("codes", &args.output, code_dtype(args, model)?, &shape, reader)?];
    if let Some(path) = &args.distances {
        targets.push(Target::new("distances", path, Scalar::F32, &shape, reader)?);
    }
    if let Some(path) = &args.reconstruction {
        targets.push(Target::new("reconstruction", path, Scalar::F32, &reader.header().shape, reader)?);
    }
    Ok(targets)
}

/// The element type of the codes.
fn code_dtype(args: &Encode, model: &Model) -> Result<Scalar> {
    let last = model.k - 1;
    let sentinel = args.non_finite.non_finite == Policy::Sentinel;
    let dtype = match args.code_dtype {
        Some(CodeDtype::U8 | CodeDtype::U16) if sentinel => {
            let message =
                "--code-dtype u8 and u16 have no room for the sentinel code 4294967295; leave it out or use u32";
            return Err(Failure::new(Exit::Usage, message));
        }
        Some(dtype) if last > dtype.largest() => {
            let message = format!(
                "--code-dtype: {} codewords need codes up to {last}, and this type ends at {}; leave it out",
                model.k,
                dtype.largest()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Some(dtype) => dtype,
        None if sentinel => CodeDtype::U32,
        None => CodeDtype::smallest(model.k),
    };
    Ok(dtype.scalar())
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

/// The files being written, in the order of the targets.
struct Files<'a> {
    outputs: Vec<Output>,
    distances: Option<usize>,
    reconstruction: Option<usize>,
    codebook: &'a Codebook,
    /// Codes per row, and how many elements lie between those of one row: 1, or n in Fortran order.
    r: usize,
    stride: usize,
    /// Reconstructed vectors, and one column of a top-k block.
    rows: Vec<f32>,
    column: (Vec<u32>, Vec<f32>),
}

impl<'a> Files<'a> {
    fn create(targets: &[Target], args: &Encode, codebook: &'a Codebook, n: usize) -> Result<Files<'a>> {
        let at = |role| targets.iter().position(|target| target.role == role);
        let in_columns = args.top_k.is_some() && targets[0].header.fortran_order;
        Ok(Files {
            outputs: targets.iter().cloned().map(Output::create).collect::<Result<_>>()?,
            distances: at("distances"),
            reconstruction: at("reconstruction"),
            codebook,
            r: args.top_k.map_or(1, |r| r as usize),
            stride: if in_columns { n } else { 1 },
            rows: Vec::new(),
            column: Default::default(),
        })
    }

    fn write(&mut self, block: &mut Block) -> Result<()> {
        if self.stride == 1 {
            let first = block.first * self.r;
            self.outputs[0].write_codes(first, &block.codes)?;
            if let Some(i) = self.distances {
                self.outputs[i].write_values(first, &block.sq_distances)?;
            }
        } else {
            self.write_columns(block)?;
        }
        let Some(i) = self.reconstruction else { return Ok(()) };
        let nearest: &[u32] = if self.r == 1 {
            &block.codes
        } else {
            self.column.0.clear();
            self.column.0.extend(block.codes.iter().step_by(self.r));
            &self.column.0
        };
        self.rows.resize(block.rows * self.codebook.d(), 0.0);
        decode_into(nearest, self.codebook, &mut self.rows).or_exit(Exit::Failed)?;
        self.outputs[i].write_rows(block.first, &self.rows)
    }

    /// In Fortran order the first choices of all rows come first, then all second choices, and so on.
    fn write_columns(&mut self, block: &Block) -> Result<()> {
        for choice in 0..self.r {
            let first = choice * self.stride + block.first;
            let (codes, values) = &mut self.column;
            codes.clear();
            codes.extend(block.codes.iter().skip(choice).step_by(self.r));
            self.outputs[0].write_codes(first, codes)?;
            if let Some(i) = self.distances {
                values.clear();
                values.extend(block.sq_distances.iter().skip(choice).step_by(self.r));
                self.outputs[i].write_values(first, values)?;
            }
        }
        Ok(())
    }
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
