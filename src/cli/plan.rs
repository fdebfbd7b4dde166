//! How much memory goes into which blocks, and the plan that `--dry-run` prints.

use crate::cli::args::Global;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::output::Target;
use crate::cli::report::{self, count_text, least_text, shape_text, size_text};
use crate::cli::values::Size;
use codeword::Precision;
use codeword::io::npy::{Header, Reader};
use serde_json::json;
use std::path::Path;

/// Buffers in the ring: one each for reading, computing and writing, and one to even out their jitter.
const BUFFERS: usize = 4;
/// Memory for buffers where `--max-memory` does not say.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// Bytes beyond which a buffer gains nothing and only delays the first result.
pub const MAX_BUFFER: u64 = 32 << 20;
/// Multiply-adds of a block, some tenths of a second of a processor: progress moves and Ctrl-C is heard at that pace.
const MAX_WORK: u64 = 1 << 33;
/// Rows that a block has even so, or the cores would run idle between blocks.
const MIN_ROWS: u64 = 1024;

/// What one row costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowCost {
    /// Bytes in each buffer: the row and everything computed from it.
    pub buffer: u64,
    /// Bytes outside the ring, besides the small pieces that files are converted in.
    pub scratch: u64,
    /// Multiply-adds.
    pub work: u64,
}

/// How the rows are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub rows: usize,
    pub buffers: usize,
    /// Bytes of all buffers and the scratch space.
    pub memory: u64,
}

impl Blocks {
    /// The split of `n` rows, for devices `pace` times as fast as a processor.
    pub fn new(n: usize, cost: RowCost, pace: u64, global: &Global) -> Result<Blocks> {
        Blocks::within(n, cost, pace, global.max_memory)
    }

    /// As [`Blocks::new`], with a limit of its own.
    pub fn within(n: usize, cost: RowCost, pace: u64, max_memory: Option<Size>) -> Result<Blocks> {
        let per_row = Blocks::least(cost);
        let limit = match max_memory {
            Some(size) if size.0 < per_row => {
                let message = format!(
                    "--max-memory {} holds no ring of {BUFFERS} buffers: one row in each takes {}; allow at least that",
                    size_text(size.0),
                    least_text(per_row)
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            Some(size) => size.0,
            None => DEFAULT_MEMORY,
        };
        let rows = (limit / per_row)
            .min(MAX_BUFFER / cost.buffer.max(1))
            .min((MAX_WORK.saturating_mul(pace) / cost.work.max(1)).max(MIN_ROWS))
            .max(1)
            .min(n.max(1) as u64);
        // Fits: at most n.
        Ok(Blocks::of(rows as usize, n, cost))
    }

    /// The memory below which there is no split.
    pub fn least(cost: RowCost) -> u64 {
        cost.buffer.saturating_mul(BUFFERS as u64).saturating_add(cost.scratch).max(1)
    }

    /// The same in blocks of at most so many rows.
    pub fn at_most(self, rows: usize, n: usize, cost: RowCost) -> Blocks {
        Blocks::of(self.rows.min(rows), n, cost)
    }

    fn of(rows: usize, n: usize, cost: RowCost) -> Blocks {
        let buffers = n.div_ceil(rows).clamp(1, BUFFERS);
        let memory =
            (rows as u64).saturating_mul(cost.buffer.saturating_mul(buffers as u64).saturating_add(cost.scratch));
        Blocks { rows, buffers, memory }
    }
}

/// What a verb is going to do.
pub struct Plan<'a> {
    pub verb: &'static str,
    /// Inputs with their roles.
    pub inputs: &'a [(&'static str, &'a Reader)],
    pub targets: &'a [Target],
    /// Other files to write, with their roles.
    pub also: &'a [(&'static str, &'a Path)],
    pub n: usize,
    /// Of all passes.
    pub cost: RowCost,
    /// Over the rows, at most.
    pub passes: usize,
    pub blocks: Blocks,
    pub device: &'a dyn std::fmt::Display,
    pub precision: Option<Precision>,
}

impl Plan<'_> {
    /// Prints it.
    pub fn print(&self, global: &Global) -> Result<()> {
        if global.json {
            return report::print_json(&self.json());
        }
        let mut rows = vec![[format!("{} (dry run)", self.verb), "nothing is written".into(), String::new()]];
        let array = |header: &Header| {
            let bytes = header.elements().saturating_mul(header.scalar.size()) as u64;
            format!("{} {}, {}", shape_text(&header.shape), header.scalar.name(), size_text(bytes))
        };
        for (role, reader) in self.inputs {
            rows.push([format!("read {role}"), array(reader.header()), reader.file().display().to_string()]);
        }
        for target in self.targets {
            rows.push([format!("write {}", target.role), array(&target.header), target.path.display().to_string()]);
        }
        for (role, path) in self.also {
            rows.push([format!("write {role}"), String::new(), path.display().to_string()]);
        }
        let Blocks { rows: block_rows, buffers, memory } = self.blocks;
        let blocks = self.n.div_ceil(block_rows);
        rows.push([
            "blocks".into(),
            format!("{blocks} of {block_rows} rows"),
            format!("{buffers} buffers, {}", size_text(memory)),
        ]);
        if self.cost.work > 0 {
            let work = self.n as f64 * self.cost.work as f64;
            let passes = match self.passes {
                1 => "one pass over the vectors".into(),
                passes => format!("at most {passes} passes over the vectors"),
            };
            rows.push(["work".into(), format!("{} multiply-adds", count_text(work)), passes]);
        }
        let precision = self.precision.map(|precision| precision_text(precision).to_string());
        rows.push(["device".into(), self.device.to_string(), precision.unwrap_or_default()]);
        report::print_table(&rows)
    }

    fn json(&self) -> serde_json::Value {
        let describe = |(role, reader): &(&'static str, &Reader)| {
            let header = reader.header();
            json!({
                "role": role,
                "path": reader.file().display().to_string(),
                "dtype": header.scalar.name(),
                "shape": header.shape,
                "fortran_order": header.fortran_order,
            })
        };
        json!({
            "verb": self.verb,
            "dry_run": true,
            "device": self.device.to_string(),
            "precision": self.precision.map(precision_text),
            "n": self.n,
            "inputs": self.inputs.iter().map(describe).collect::<Vec<_>>(),
            "outputs": report::outputs(self.targets, self.also),
            "block_rows": self.blocks.rows,
            "blocks": self.n.div_ceil(self.blocks.rows),
            "buffers": self.blocks.buffers,
            "memory": self.blocks.memory,
            "multiply_adds": self.n as f64 * self.cost.work as f64,
            "passes": self.passes,
        })
    }
}

/// The name `--precision` knows it by.
pub fn precision_text(precision: Precision) -> &'static str {
    match precision {
        Precision::Exact => "exact",
        Precision::Fast => "fast",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Args;
    use clap::Parser;

    fn global(max_memory: Option<u64>) -> Global {
        let Args { mut global, .. } = Args::parse_from(["codeword", "doctor"]);
        global.max_memory = max_memory.map(Size);
        global
    }

    #[test]
    fn the_ring_stays_within_the_memory_given() {
        for buffer in [4, 512, 4096, 1 << 20, 5 << 20] {
            for scratch in [0, buffer, 3 * buffer] {
                for work in [0, 1 << 10, 1 << 24] {
                    for limit in [40 << 20, 1 << 28, 1 << 34] {
                        let cost = RowCost { buffer, scratch, work };
                        let blocks = Blocks::new(1 << 30, cost, 1, &global(Some(limit))).unwrap();
                        let actual = blocks.rows as u64 * (blocks.buffers as u64 * buffer + scratch);
                        assert!(
                            blocks.rows >= 1 && actual <= limit && actual == blocks.memory,
                            "{cost:?} {limit} {blocks:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_file_is_one_block_in_one_buffer() {
        let blocks = Blocks::new(10, RowCost { buffer: 100, scratch: 50, work: 1 }, 1, &global(None)).unwrap();
        assert_eq!(blocks, Blocks { rows: 10, buffers: 1, memory: 10 * 150 });
        assert_eq!(Blocks::new(0, RowCost::default(), 1, &global(None)).unwrap().rows, 1);
    }

    #[test]
    fn too_little_memory_for_one_row_is_told_with_the_amount_that_would_do() {
        let cost = RowCost { buffer: 1000, scratch: 96, work: 1 };
        let failure = Blocks::new(10, cost, 1, &global(Some(4095))).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.error.to_string().contains("4.0 KiB"), "{:#}", failure.error);
        assert!(Blocks::new(10, cost, 1, &global(Some(4096))).is_ok());
        // Without a limit of the user's, a huge row is given what it needs.
        assert_eq!(Blocks::new(10, RowCost { buffer: 1 << 40, ..cost }, 1, &global(None)).unwrap().rows, 1);
    }
}
