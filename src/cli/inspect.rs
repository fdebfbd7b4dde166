//! `codeword inspect`: what a file holds.

use crate::cli::args::{self, Global, Inspect};
use crate::cli::exit::Result;
use crate::cli::input::Vectors;
use crate::cli::plan::{Blocks, RowCost};
use crate::cli::report::{print_json, print_table, shape_text, size_text};
use crate::cli::stream::{Block, Stream};
use codeword::io::npy::Reader;
use serde_json::{Value, json};

/// Bytes of values that are read without being asked to.
const SMALL: u64 = 64 << 20;

pub fn run(args: &Inspect, global: &Global) -> Result<()> {
    let reader = crate::cli::input::open(&args.file, args.dtype)?;
    let bytes = reader.elements().saturating_mul(reader.header().scalar.size()) as u64;
    // A single number has no vectors; a plan reads no values.
    let wanted = !global.dry_run && (args.values || bytes <= SMALL);
    let has_values = wanted && !reader.header().shape.is_empty() && reader.elements() > 0;
    let values = if has_values { Some(Values::of(args, global)?) } else { None };
    if global.json {
        print_json(&json(&reader, bytes, values.as_ref()))
    } else {
        print_table(&table(&reader, bytes, values.as_ref()))
    }
}

fn json(reader: &Reader, bytes: u64, values: Option<&Values>) -> Value {
    let header = reader.header();
    let has_vectors = !header.shape.is_empty();
    json!({
        "verb": "inspect",
        "file": reader.file().display().to_string(),
        "dtype": header.scalar.name(),
        "big_endian": header.big_endian,
        "fortran_order": header.fortran_order,
        "shape": header.shape,
        "bytes": bytes,
        "data_start": header.data_start,
        "n": has_vectors.then(|| reader.rows()),
        "d": has_vectors.then(|| reader.cols()),
        "metadata": reader.metadata(),
        "values": values.map(|it| json!({
            "min": it.min,
            "max": it.max,
            "mean_norm": it.mean_norm(),
            "non_finite_rows": it.non_finite_rows,
            "first_non_finite_row": it.first_non_finite_row,
            "rounded_rows": it.rounded_rows,
        })),
    })
}

fn table(reader: &Reader, bytes: u64, values: Option<&Values>) -> Vec<[String; 3]> {
    let header = reader.header();
    let row = |label: &str, value: String, remark: String| [label.into(), value, remark];
    let byte_order = match (header.scalar.size(), header.big_endian) {
        (1, _) => "",
        (_, true) => "big-endian",
        (_, false) => "little-endian",
    };
    let order = if header.fortran_order { "Fortran order" } else { "C order" };
    let file_size = std::fs::metadata(reader.file()).map_or("unknown".into(), |it| size_text(it.len()));
    let is_float = header.scalar.is_float();
    let mut rows = vec![
        row("file", file_size, reader.file().display().to_string()),
        row("elements", header.scalar.name().into(), byte_order.into()),
        row("shape", shape_text(&header.shape), order.into()),
        row("data", size_text(bytes), format!("from byte {}", header.data_start)),
    ];
    if !header.shape.is_empty() {
        let codes = if is_float { String::new() } else { format!("or {} codes", reader.elements()) };
        rows.push(row("vectors", format!("{} x {}", reader.rows(), reader.cols()), codes));
    }
    rows.extend(reader.metadata().iter().map(|(key, value)| row(key, value.clone(), "metadata".into())));
    if let Some(it) = values {
        rows.push(row("values", format!("{} to {}", it.min, it.max), String::new()));
        if is_float {
            rows.push(row("mean norm", format!("{:.6}", it.mean_norm()), "Euclidean, of the finite vectors".into()));
            let which = it.first_non_finite_row.map_or(String::new(), |first| format!("the first is vector {first}"));
            rows.push(row("NaN or infinite", format!("{} vectors", it.non_finite_rows), which));
        }
        if it.rounded_rows > 0 {
            rows.push(row("rounded", format!("{} vectors", it.rounded_rows), "f32 cannot hold them exactly".into()));
        }
    } else if bytes > SMALL {
        rows.push(row("values", "not read".into(), "--values reads them".into()));
    }
    rows
}

/// What one pass over the values finds.
struct Values {
    min: f32,
    max: f32,
    norms: f64,
    finite_rows: u64,
    non_finite_rows: u64,
    first_non_finite_row: Option<usize>,
    rounded_rows: u64,
}

impl Values {
    fn of(args: &Inspect, global: &Global) -> Result<Values> {
        let vectors = Vectors::open(&args::Vectors { x: args.file.clone(), dtype: args.dtype })?;
        let (n, d) = (vectors.n, vectors.d);
        let cost = RowCost { buffer: 4 * d as u64, scratch: 0, work: 0 };
        let stream = Stream { verb: "inspect", n, unit: "vectors", blocks: Blocks::new(n, cost, 1, global)?, global };
        let mut it = Values {
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            norms: 0.0,
            finite_rows: 0,
            non_finite_rows: 0,
            first_non_finite_row: None,
            rounded_rows: 0,
        };
        let compute = |block: &mut Block| {
            for (i, x) in block.x.chunks_exact(d).enumerate() {
                it.add(block.first + i, x);
            }
            Ok(())
        };
        let (_, rounded) = stream.run_vectors(&vectors, compute, |_| Ok(()))?;
        it.rounded_rows = rounded;
        Ok(it)
    }

    fn add(&mut self, row: usize, x: &[f32]) {
        if x.iter().all(|v| v.is_finite()) {
            self.finite_rows += 1;
            self.norms += x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        } else {
            self.non_finite_rows += 1;
            self.first_non_finite_row.get_or_insert(row);
        }
        for &v in x {
            // Of two numbers one of which is NaN, these take the other.
            self.min = self.min.min(v);
            self.max = self.max.max(v);
        }
    }

    fn mean_norm(&self) -> f64 {
        self.norms / self.finite_rows as f64
    }
}
