//! Where the vectors are while they are learned from, within the memory given.

use crate::cli::args::{Global, Train};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::{PIECE, Vectors};
use crate::cli::order::Order;
use crate::cli::plan::{Blocks, DEFAULT_MEMORY, MAX_BUFFER};
use crate::cli::report::{least_text, size_text};
use crate::cli::values::{InitChoice, Quantizer};
use codeword::backend::carried::{self, Carry};
use codeword::backend::sketched;
use codeword::{Device, KMeans};

/// Where the vectors are while they are learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Memory,
    File,
    /// So many of them in memory.
    Sample(usize),
}

/// What is kept beside the vectors where there is memory left: it makes the training faster, and changes no result.
#[derive(Clone, Copy)]
pub struct Kept {
    /// What one pass over them learned, for the next.
    carry: Carry,
    /// A short form of them, for k-means++.
    sketch: bool,
}

impl Kept {
    const NOTHING: Kept = Kept { carry: Carry::Never, sketch: false };

    pub fn apply(self, params: KMeans) -> KMeans {
        params.carry(self.carry).sketch(self.sketch)
    }
}

/// How the vectors are learned from within the memory given, and what is kept beside them.
pub fn plan(args: &Train, vectors: &Vectors, device: &Device, global: &Global) -> Result<(Place, Blocks, Kept)> {
    let (n, d, k) = (vectors.n as u64, vectors.d as u64, u64::from(args.k));
    // While the start is sought, and for every row in memory its label and distance.
    let start = match (args.start.is_some() || args.resume, args.init) {
        (true, _) => 0,
        (false, InitChoice::PlusPlus) => 4,
        (false, InitChoice::Parallel) => 8,
        // Its part, and its number while that is learned from.
        (false, InitChoice::Hierarchical) => 12,
        (false, InitChoice::Random | InitChoice::Progressive) if args.weights.is_some() => 8,
        (false, InitChoice::Random | InitChoice::Progressive) => 0,
    };
    // Of the vectors that are learned from, or the parts of these: candidates, twice where they grow, and the rows of some parts.
    let width = match args.quantizer {
        Quantizer::Vq | Quantizer::Rvq => d,
        Quantizer::Pq | Quantizer::Opq => d / u64::from(args.m.unwrap_or(1).max(1)),
    };
    let learned = args.sample.map_or(n, |sample| n.min(sample.into()));
    let in_short = sketched::bytes_per_row(width as usize) as u64;
    let of_start = match (args.start.is_some() || args.resume, args.init) {
        (false, InitChoice::Parallel) => k.saturating_mul(100 * width),
        (false, InitChoice::Hierarchical) => {
            let rows = learned.min(k.saturating_mul(256));
            rows.saturating_mul(4 * width + in_short).min(256 << 20)
        }
        (false, InitChoice::Progressive) => {
            let rows = learned.min(k.saturating_mul(256));
            // Their components, or what the first of them are made of.
            let turned = rows.saturating_mul(280).max(rows.min(4096) * 768);
            rows.saturating_mul(4 * width).saturating_add(turned).saturating_add(1536 * width)
        }
        _ => 0,
    };
    // What the stages before leave of the vectors, or how a rotation has them, with labels and distances of every part.
    let changed = match args.quantizer {
        Quantizer::Vq | Quantizer::Pq => 0,
        Quantizer::Opq => 8 * d + 8 * u64::from(args.m.unwrap_or(1)),
        Quantizer::Rvq => 8 * d,
    };
    let beside = start + if args.weights.is_some() { 4 } else { 0 } + changed;
    // Codewords old and new, and sums; the forms they are packed in, by 16; and some numbers about each.
    let of_codewords =
        k.saturating_add(k.next_multiple_of(16)).saturating_mul(16 * d).saturating_add(k.saturating_mul(80));
    let of_codebooks = match args.quantizer {
        Quantizer::Vq | Quantizer::Pq => of_codewords,
        // Some d x d matrices of f64, and 1024 rows.
        Quantizer::Opq => {
            let of_rotation = d.saturating_mul(d).saturating_mul(80).saturating_add(8192 * (d + 24));
            of_codewords.saturating_add(of_rotation)
        }
        Quantizer::Rvq => of_codewords.saturating_mul(args.m.unwrap_or(1).into()),
    };
    let codebook = of_codebooks.saturating_add(of_start);
    // The rows of a batch with positions, the order they are read in, labels and distances.
    let batch = args.minibatch.map_or(0, |rows| u64::from(rows).saturating_mul(4 * d + 24));
    let fixed = codebook.saturating_add(batch);
    let in_memory = |rows: u64| rows.saturating_mul(4 * d + 8 + 4 + beside).saturating_add(fixed);
    // What is carried from pass to pass, where there is memory left.
    let carried = match (device, args.minibatch) {
        (Device::Cpu, None) => carried::bytes_per_row(args.k as usize) as u64,
        _ => 0,
    };
    // And before, while the start is sought.
    let sketched = match (args.start.is_some() || args.resume, args.init) {
        (false, InitChoice::PlusPlus) => in_short,
        _ => 0,
    };
    let limit = global.max_memory.map_or(DEFAULT_MEMORY, |size| size.0);
    let keeping = |rows: u64, memory: u64| {
        let with = |per_row: u64| memory.saturating_add(rows.saturating_mul(per_row));
        let (carry, sketch) = (with(carried) <= limit, with(sketched) <= limit);
        let most = with(if carry { carried } else { 0 }).max(with(if sketch { sketched } else { 0 }));
        (most, Kept { carry: if carry { Carry::WherePays } else { Carry::Never }, sketch })
    };
    // What the codewords themselves and their start need comes on top of a limit that nobody asked for.
    let (most, given) = match global.max_memory {
        Some(_) => (limit, ""),
        None => (limit.saturating_add(codebook), " (where nothing else is said)"),
    };
    // Refuses what needs so much. Of its parts the largest says what else can be done.
    let refuse_beyond = |least: u64, parts: &[(u64, &str)]| {
        if least <= most {
            return Ok(());
        }
        let way_out = parts.iter().max_by_key(|(bytes, _)| *bytes).map_or("", |(_, way_out)| way_out);
        let (limit, least) = (size_text(limit), least_text(least));
        let message =
            format!("--max-memory {limit}{given}: train needs at least {least} for this; allow that{way_out}");
        Err(Failure::new(Exit::Usage, message))
    };
    // Fewer than 16 codewords are packed as 16.
    let fewer = if k > 16 { ", or learn fewer codewords (-k)" } else { "" };
    let (of_batch, of_codebook) = ((batch, ", or take fewer vectors for a --minibatch"), (codebook, fewer));
    if let Some(sample) = args.sample.map(u64::from).filter(|&sample| sample < n) {
        // Their numbers, and how these are drawn.
        let memory = in_memory(sample).saturating_add(sample.saturating_mul(8)).max(sample.saturating_mul(72));
        refuse_beyond(memory, &[of_batch, of_codebook, (memory - fixed.min(memory), ", or draw a smaller sample")])?;
        let (memory, kept) = keeping(sample, memory);
        return Ok((Place::Sample(sample as usize), Blocks { rows: sample as usize, buffers: 1, memory }, kept));
    }
    // With what it is read into first where it is put in order.
    let is_other = Order::of_rows(&vectors.reader).is_other();
    let all = in_memory(n).saturating_add(if is_other { n.saturating_mul(4 * d).min(PIECE as u64) } else { 0 });
    let only_held = is_other || args.quantizer != Quantizer::Vq;
    if all <= limit || only_held && all <= most {
        let (memory, kept) = keeping(n, all);
        return Ok((Place::Memory, Blocks { rows: vectors.n, buffers: 1, memory }, kept));
    }
    if only_held {
        let (limit, all, file) = (size_text(limit), least_text(all), vectors.reader.file().display());
        let why = match args.quantizer {
            Quantizer::Vq => format!(
                "the vectors of {file}, along several axes in Fortran order, lie there in another order than they are learned \
                 in, and are held in memory, which takes {all}; allow that, save them in C order (numpy.ascontiguousarray)"
            ),
            quantizer => format!(
                "the vectors that {} is learned from are held in memory, which takes {all} with all else; allow that",
                quantizer.described()
            ),
        };
        let message = format!("--max-memory {limit}{given}: {why}, or train on a --sample");
        return Err(Failure::new(Exit::Usage, message));
    }
    // Two blocks, whole ones of the order in which rows are added up, with labels and distances of one of them.
    let one = ((1 << 18) / d).max(1).min(n);
    let (per_row, of_rows) = (8 * d + 12, n.saturating_mul(beside));
    let fixed = fixed.saturating_add(of_rows);
    let a_sample = ", or train on a --sample";
    let parts = [
        of_batch,
        of_codebook,
        (n.saturating_mul(start), if args.weights.is_some() { a_sample } else { ", or start with --init random" }),
        (n.saturating_mul(beside - start), a_sample),
        (one * per_row, a_sample),
    ];
    refuse_beyond(fixed.saturating_add(one * per_row).min(all), &parts)?;
    let rows = (limit.saturating_sub(fixed) / per_row).min(MAX_BUFFER / (4 * d)) / one * one;
    let rows = rows.max(one).min(n);
    let memory = fixed.saturating_add(rows * per_row);
    Ok((Place::File, Blocks { rows: rows as usize, buffers: 2, memory }, Kept::NOTHING))
}
