//! `codeword search`: the codes nearest to queries.

use crate::cli::args::{self, Global, Search};
use crate::cli::codes::{self, Codes};
use crate::cli::composed::{self, Composed};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::model::{self, Model};
use crate::cli::output::{self, Target};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::ranked::Files;
use crate::cli::recall::{self, Recall};
use crate::cli::report::{self, Clock, Report, count_text, least_text, shape_text, size_text};
use crate::cli::signals::STOP;
use crate::cli::stream::{Block, Stream};
use crate::cli::values::{Quantizer, Size};
use codeword::Precision;
use codeword::io::npy::{Reader, Scalar};
use serde_json::json;
use std::sync::atomic::Ordering;

/// Queries whose tables the library has in memory at a time.
const QUERIES: u64 = 128;
/// Neighbours that a thread of it keeps of all these, at most.
const KEPT: u64 = 1 << 21;
/// Codes that are read at a time.
const CODES: usize = 1 << 16;
/// Sums of a block of queries, some tenths of a second: Ctrl-C is heard at that pace.
const MAX_SUMS: u64 = 1 << 30;
/// The same of numbers that a byte holds.
const MAX_BYTE_SUMS: u64 = 1 << 32;
/// Queries that a block has even so: bytes are looked up for 64 at once, or for fewer in vain.
const MIN_QUERIES: u64 = 16;
const MIN_BYTE_QUERIES: u64 = 64;
const MIN_ON_DEVICE: u64 = 1024;
/// Bytes of a code that have tables.
const MOST_BYTES: u64 = 512;
/// The same where all codes are decoded for each block.
const MIN_DECODED: u64 = 1024;

pub fn run(args: &Search, global: &Global) -> Result<()> {
    let mut clock = Clock::start();
    let queries = Vectors::open(&args::Vectors { x: args.queries.clone(), dtype: args.dtype })?;
    let model = Model::open(&args.model)?;
    check_searchable(args, &model)?;
    model::check_exact(global)?;
    model.check_fits(&queries)?;
    let reader = codes::open(&args.codes)?;
    let codes = Codes::new(&reader, &model)?;
    check_codes(args, &reader)?;
    let truth = args.ground_truth.as_deref().map(|file| recall::open(file, queries.n)).transpose()?;
    let (n, d, k, m, r) = (queries.n, queries.d, model.k, model.m, args.k as usize);
    let targets = targets(args, &queries)?;
    let mut inputs = vec![("queries", &queries.reader), ("codes", &reader), ("codebook", &model.reader)];
    inputs.extend(truth.as_ref().map(|reader| ("ground truth", reader)));
    output::check(&targets, &inputs.iter().map(|&(_, reader)| reader).collect::<Vec<_>>(), global)?;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("search")?;

    // Numbers to add up for a query, or to multiply.
    let of_code = if model.quantizer == Quantizer::Rvq { d } else { m };
    let sums = (codes.n as u64).saturating_mul(of_code as u64);
    let tables = composed::work(&model);
    let cost = RowCost {
        buffer: 4 * d as u64 + 8 * r as u64,
        scratch: 8 * r as u64 + if args.symmetric { 8 * d as u64 } else { 0 } + composed::encoding(&model, None),
        work: sums.saturating_add(tables),
    };
    let on_device = (pace > 1).then(|| global.max_memory.map_or(u64::MAX, |given| given.0));
    let held = held(&model, codes.n, queries.n, r, on_device);
    let limit = beside(held, cost, global)?;
    let (most, least) = match model.quantizer {
        Quantizer::Rvq => (MAX_SUMS, MIN_DECODED),
        _ if k <= 256 => (MAX_BYTE_SUMS, MIN_BYTE_QUERIES),
        _ => (MAX_SUMS, MIN_QUERIES),
    };
    // A device goes through the codes once for as many queries as there are at a time.
    let least = if pace > 1 { least.max(MIN_ON_DEVICE) } else { least };
    let block_rows = (most.saturating_mul(pace) / sums.max(1)).max(least) as usize;
    let mut blocks = Blocks::within(n, cost, pace, limit)?.at_most(block_rows, n, cost);
    blocks.memory = blocks.memory.saturating_add(held);
    if global.dry_run {
        let plan = Plan {
            verb: "search",
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

    let quantizer = Composed::load(&model, &device, &mut clock)?;
    let mut recall = truth.map(|reader| clock.load(|| Recall::load(&reader, codes.n, r))).transpose()?;
    let number = codes.n;
    let packed = clock.load(|| load(codes, &model, &quantizer))?;
    let mut files = Files::create(&targets, r, n)?;
    let compute = |block: &mut Block| {
        let found = block.view(d).and_then(|x| quantizer.search(&packed, x, r, args.symmetric));
        let found = found.map_err(|error| queries.explain(error, block.first, "remove or repair it"))?;
        if let Some(recall) = &mut recall {
            recall.count(block.first, &found.ids);
        }
        (block.codes, block.sq_distances) = (found.ids, found.sq_distances);
        Ok(())
    };
    let stream = Stream { verb: "search", n, unit: "queries", blocks, global };
    // Nothing is decoded: there is no such output.
    let (times, rounded) = stream.run_vectors(&queries, compute, |block| files.write(block, |_, _| Ok(())))?;
    output::commit(files.outputs, global.force)?;

    // Of the search alone: codes are read once, however many queries come.
    let per_second = n as f64 / times.compute.as_secs_f64().max(1e-9);
    let seconds = clock.stop(times);
    if global.json {
        let (verb, dtype, precision) = ("search", queries.reader.header().scalar, Some(Precision::Exact));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: None };
        return report.print(json!({
            "quantizer": model.quantizer.name(),
            "m": m,
            "codes": number,
            "neighbors": r,
            "symmetric": args.symmetric,
            "rounded_rows": rounded,
            "queries_per_second": per_second,
            "recall": recall.map(|recall| recall.json()),
            "outputs": report::targets(&targets),
        }));
    }
    let (path, shape, total) = (args.output.display(), shape_text(&targets[0].header.shape), seconds.total);
    let rate = count_text(per_second);
    global.say(&format!("{path}: {shape} u32 ids in {total:.2} s, {rate} queries/s among {number} codes"));
    if rounded > 0 {
        global.say(&format!("{rounded} queries were rounded to f32 before they were searched for"));
    }
    let rows: Vec<_> = recall.iter().flat_map(Recall::shares).map(|(rank, share)| recall_row(rank, share)).collect();
    report::print_table(&rows)
}

fn recall_row(rank: usize, share: f64) -> [String; 3] {
    let among = if rank == 1 { "is the first id".into() } else { format!("is among the first {rank} ids") };
    [format!("recall@{rank}"), format!("{share:.4}"), format!("of the queries: their true nearest vector {among}")]
}

/// Refuses models whose codes are not searched.
fn check_searchable(args: &Search, model: &Model) -> Result<()> {
    match model.quantizer {
        Quantizer::Pq | Quantizer::Opq => Ok(()),
        Quantizer::Rvq if args.symmetric => {
            let message = "--symmetric: codes of residual quantizers are decoded to be compared; leave it out";
            Err(Failure::new(Exit::Usage, message))
        }
        Quantizer::Rvq => Ok(()),
        Quantizer::Vq => {
            let message = format!(
                "{}: expected a product quantizer or another of several numbers, got a codebook of shape {}; search needs \
                 one that train --quantizer pq, opq or rvq wrote",
                model.reader.file().display(),
                shape_text(&model.reader.header().shape)
            );
            Err(Failure::new(Exit::BadInput, message))
        }
    }
}

/// Refuses codes that have no number to be named by, or too few of them.
fn check_codes(args: &Search, codes: &Reader) -> Result<()> {
    let (file, shape) = (codes.file().display(), &codes.header().shape);
    if shape.len() != 2 {
        let message = format!(
            "{file}: expected codes of shape (n, m), whose numbers are the ids, got {}; reshape them",
            shape_text(shape)
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    let n = codes.rows();
    if u32::try_from(n).is_err() {
        let message =
            format!("{file}: expected fewer than 2^32 codes, whose numbers are u32, got {n}; search them in parts");
        return Err(Failure::new(Exit::BadInput, message));
    }
    if args.k as usize > n {
        let message = format!("-k {}: {file} holds only {n} codes; ask for at most that many neighbours", args.k);
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

/// The files to write, the ids first.
fn targets(args: &Search, queries: &Vectors) -> Result<Vec<Target>> {
    let mut shape = queries.reader.leading().to_vec();
    shape.push(args.k as usize);
    let mut targets = vec![Target::new("ids", &args.output, Scalar::U32, &shape, &queries.reader)?];
    if let Some(path) = &args.distances {
        targets.push(Target::new("distances", path, Scalar::F32, &shape, &queries.reader)?);
    }
    Ok(targets)
}

/// Memory for the packed codes and the ground truth, for the tables of some queries, and for what threads find, or a device of
/// which so much may be used.
fn held(model: &Model, codes: usize, queries: usize, r: usize, on_device: Option<u64>) -> u64 {
    let packed = (codes as u64).saturating_mul(model.code_size() as u64);
    let beside = packed.saturating_add(4 * queries as u64);
    if model.quantizer == Quantizer::Rvq {
        return beside.saturating_add(composed::searching(codes, model.d));
    }
    let (m, k) = (model.m as u64, model.k as u64);
    if let Some(most) = on_device {
        // A pass: tables of its queries twice, and keys, those of a lane, of another, and of both.
        let (table, keys) = ((4 * m).saturating_mul(k), 8 * r as u64);
        let each = table.saturating_add(3 * keys).saturating_add(8204);
        let of_pass = ((64 << 20).min(most / 8) / each).min(1024).min((queries as u64).next_multiple_of(4));
        if of_pass >= 4 {
            return beside.saturating_add(of_pass.saturating_mul(2 * table + 3 * keys));
        }
    }
    let tables = (4 * QUERIES).saturating_mul(m).saturating_mul(k);
    // Of a thread: a table for each byte of a code, numbers of a block of codes, those of them that are looked at, and the
    // nearest of two pieces, which wait for each other.
    let byte_tables = if k <= 256 { m.min(MOST_BYTES) << 14 } else { 0 };
    let in_block = ((1 << 17) / model.code_size()).clamp(1024, 16384).min(codes) as u64;
    let block = in_block.saturating_mul(m.saturating_add(40));
    let found = 24 * KEPT.min(QUERIES * r as u64).max(r as u64);
    let of_thread = byte_tables.saturating_add(block).saturating_add(found);
    let of_threads = of_thread.saturating_mul(rayon::current_num_threads() as u64);
    beside.saturating_add(tables).saturating_add(of_threads)
}

/// The memory for the queries beside what is held, where it is limited.
fn beside(held: u64, cost: RowCost, global: &Global) -> Result<Option<Size>> {
    let Some(given) = global.max_memory else { return Ok(None) };
    match given.0.checked_sub(held).filter(|&left| left >= Blocks::least(cost)) {
        Some(left) => Ok(Some(Size(left))),
        None => {
            let (given, needed) = (size_text(given.0), least_text(held.saturating_add(Blocks::least(cost))));
            let message = format!(
                "--max-memory {given}: search holds all codes in memory, and with what it works on that takes \
                 at least {needed}; allow it, or search the codes in parts"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Reads all codes, packed.
fn load(mut codes: Codes<'_>, model: &Model, quantizer: &Composed) -> Result<Vec<u8>> {
    let (n, size, reader) = (codes.n, model.code_size(), codes.reader);
    let mut packed = Vec::new();
    // The file is as large as its shape says, but it may be sparse, and memory is not.
    if n.checked_mul(size).is_none_or(|bytes| packed.try_reserve_exact(bytes).is_err()) {
        let bytes = size_text((n as u64).saturating_mul(size as u64));
        let message = format!("{}: needs {bytes} of memory, and there is not that much", reader.file().display());
        return Err(Failure::new(Exit::Failed, message));
    }
    let mut numbers = Vec::new();
    for first in (0..n).step_by(CODES) {
        if STOP.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        codes.read(first, CODES.min(n - first), &mut numbers)?;
        let some = quantizer.pack(&numbers).map_err(|error| codes::explain(error, first, n, reader, model))?;
        packed.extend_from_slice(&some);
    }
    Ok(packed)
}
