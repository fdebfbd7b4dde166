//! How well a quantizer of several numbers represents vectors, as a whole, and by sub-quantizer or stage.

use crate::cli::args::{Eval, Global};
use crate::cli::composed::{self, Composed};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::model::{self, Model};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, number};
use crate::cli::stream::{Block, Stream};
use crate::cli::values::Policy;
use codeword::{MatrixView, Metrics, MetricsSum, Precision};
use rayon::prelude::*;
use serde_json::json;

pub fn run(args: &Eval, global: &Global, vectors: &Vectors, model: &Model, mut clock: Clock) -> Result<()> {
    check(args, model, global)?;
    let (n, d, k, m) = (vectors.n, vectors.d, model.k, model.m);
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("eval")?;

    // Codes as numbers and packed, those of one part and what they stand for, and the vectors decoded.
    let (of_codes, of_vectors) = (composed::encoding(model, None), composed::decoding(model));
    let scratch = of_codes + of_vectors + 4 * m as u64 + 4 + 12 * d as u64;
    let cost = RowCost { buffer: 4 * d as u64, scratch, work: composed::work(model) };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let plan = Plan {
            verb: "eval",
            inputs: &inputs,
            targets: &[],
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
    let mut parts = Parts::new(&quantizer);
    let (mut whole, mut decoded) = (Whole::default(), Vec::new());
    let compute = |block: &mut Block| {
        let numbers = quantizer.encode_block(block, vectors, None)?;
        let x = block.view(d).or_exit(Exit::BadInput)?;
        parts.add(&quantizer, x, &numbers).or_exit(Exit::Failed)?;
        quantizer
            .decode_numbers(&numbers, &mut decoded)
            .map_err(|error| vectors.explain(error, block.first, "remove it"))?;
        whole.add(x, &decoded);
        Ok(())
    };
    let stream = Stream { verb: "eval", n, unit: "vectors", blocks, global };
    let (times, rounded) = stream.run_vectors(vectors, compute, |_| Ok(()))?;
    let (seconds, parts) = (clock.stop(times), parts.0.iter().map(MetricsSum::finish).collect::<Vec<_>>());
    // Of no vectors 0, as in the library.
    let distortion = whole.inertia / n.max(1) as f64;
    let (mse, snr_db) = (distortion / d as f64, whole.snr_db());

    let dtype = vectors.reader.header().scalar;
    if global.json {
        let (verb, precision) = ("eval", Some(Precision::Exact));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: None };
        let of_part = |part: &Metrics| {
            json!({
                "inertia": part.inertia,
                "distortion": part.distortion,
                "mse": part.mse,
                "snr_db": part.snr_db,
                "perplexity": part.perplexity,
                "utilization": part.utilization,
                "dead": part.dead,
            })
        };
        // An infinite number has no form in JSON: snr_db is null where nothing is lost.
        return report.print(json!({
            "quantizer": model.quantizer.name(),
            "m": m,
            "rounded_rows": rounded,
            "inertia": whole.inertia,
            "distortion": distortion,
            "mse": mse,
            "snr_db": snr_db,
            "rate": model.rate(),
            "parts": parts.iter().map(of_part).collect::<Vec<_>>(),
        }));
    }
    let mut rows = vec![
        ["vectors".into(), format!("{n} x {d} {}", dtype.name()), vectors.reader.file().display().to_string()],
        ["codewords".into(), format!("{m} x {k}"), model.reader.file().display().to_string()],
    ];
    let row = |label: &str, value: String, remark: &str| [label.into(), value, remark.into()];
    rows.extend([
        row("distortion", number(distortion), "mean squared distance per vector"),
        row("mse", number(mse), "mean squared error per element: the L2 loss"),
        row("SNR", super::decibels(snr_db), "signal to noise ratio"),
        row("rate", format!("{:.3} bits", model.rate()), "per vector"),
    ]);
    if rounded > 0 {
        rows.push(row("rounded", rounded.to_string(), "vectors that f32 could not hold exactly"));
    }
    rows.extend(parts.iter().enumerate().map(|(s, part)| {
        let (perplexity, used, dead) = (number(part.perplexity), 100.0 * part.utilization, part.dead);
        let remark = format!("mse, perplexity {perplexity}, {used:.2} % used, {dead} dead");
        [format!("{} {s}", model.quantizer.part()), number(part.mse), remark]
    }));
    report::print_table(&rows)
}

/// Refuses what only a codebook is judged by.
fn check(args: &Eval, model: &Model, global: &Global) -> Result<()> {
    model::check_exact(global)?;
    let flag = match (args.beta, args.non_finite.non_finite) {
        (Some(_), _) => "--beta",
        (None, Policy::Sentinel) => "--non-finite sentinel",
        (None, Policy::Error) => return Ok(()),
    };
    let described = model.quantizer.described();
    let message = format!("{flag}: eval has this for codebooks only, and MODEL is {described}; leave it out");
    Err(Failure::new(Exit::Usage, message))
}

/// Each codebook on the vectors that it labels: the columns of a product quantizer, rotated ones of an optimised one, what
/// the stages before leave of a residual one.
struct Parts(Vec<MetricsSum>);

impl Parts {
    fn new(quantizer: &Composed) -> Parts {
        Parts(quantizer.codebooks().iter().map(MetricsSum::new).collect())
    }

    fn add(&mut self, quantizer: &Composed, x: MatrixView<'_, f32>, numbers: &[u32]) -> codeword::Result<()> {
        let m = self.0.len();
        let column = |s: usize| -> Vec<u32> { numbers.iter().skip(s).step_by(m).copied().collect() };
        let mut of_columns = |x: MatrixView<'_, f32>| {
            let width = x.cols() / m;
            let mut sums = self.0.iter_mut().enumerate();
            sums.try_for_each(|(s, sum)| sum.add(x.columns(s * width..(s + 1) * width)?, &column(s)))
        };
        match quantizer {
            Composed::Product(_) => of_columns(x),
            Composed::Optimized(quantizer) => of_columns(quantizer.rotate(x)?.view()),
            Composed::Residual(quantizer) => {
                let codes = quantizer.pack(numbers)?;
                quantizer.each_stage(x, &codes, |s, left, labels| self.0[s].add(left, labels))
            }
        }
    }
}

/// What is lost of all vectors, and what there was of them.
#[derive(Default)]
struct Whole {
    inertia: f64,
    energy: f64,
}

impl Whole {
    /// Row after row, so that blocks of any size give the same bits.
    fn add(&mut self, x: MatrixView<'_, f32>, decoded: &[f32]) {
        let of_row = |(row, decoded): (usize, &[f32])| {
            x.row(row).iter().zip(decoded).fold((0.0, 0.0), |(error, energy), (&x, &y)| {
                let (x, y) = (f64::from(x), f64::from(y));
                (error + (x - y) * (x - y), energy + x * x)
            })
        };
        let rows: Vec<(f64, f64)> = decoded.par_chunks_exact(x.cols()).enumerate().map(of_row).collect();
        for (error, energy) in rows {
            self.inertia += error;
            self.energy += energy;
        }
    }

    fn snr_db(&self) -> f64 {
        if self.inertia == 0.0 { f64::INFINITY } else { 10.0 * (self.energy / self.inertia).log10() }
    }
}
