//! How well a product quantizer represents vectors, as a whole and part by part.

use crate::cli::args::{Eval, Global};
use crate::cli::codes;
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::model::{self, Model};
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, number};
use crate::cli::stream::{Block, Stream};
use crate::cli::values::Policy;
use codeword::{Metrics, MetricsSum, Precision};
use serde_json::json;

pub fn run(args: &Eval, global: &Global, vectors: &Vectors, model: &Model, mut clock: Clock) -> Result<()> {
    check(args, global)?;
    let (n, d, k, m) = (vectors.n, vectors.d, model.k, model.m);
    let width = d / m;
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("eval")?;

    // Codes as numbers and packed, and those of one part.
    let scratch = 6 * m as u64 + 4;
    let cost = RowCost { buffer: 4 * d as u64, scratch, work: (k as u64).saturating_mul(d as u64) };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let plan = Plan {
            verb: "eval",
            inputs: &inputs,
            targets: &[],
            n,
            cost,
            passes: 1,
            blocks,
            device: &device,
            precision: Some(Precision::Exact),
        };
        return plan.print(global);
    }

    let quantizer = model.load_product(&device, &mut clock)?;
    let mut sums: Vec<MetricsSum> = quantizer.codebooks().iter().map(MetricsSum::new).collect();
    let mut of_part: Vec<u32> = Vec::new();
    let compute = |block: &mut Block| {
        let numbers = codes::of_block(block, vectors, &quantizer)?;
        let x = block.view(d).or_exit(Exit::BadInput)?;
        for (s, sum) in sums.iter_mut().enumerate() {
            of_part.clear();
            of_part.extend(numbers.iter().skip(s).step_by(m));
            let columns = x.columns(s * width..(s + 1) * width);
            columns.and_then(|part| sum.add(part, &of_part)).or_exit(Exit::Failed)?;
        }
        Ok(())
    };
    let stream = Stream { verb: "eval", n, unit: "vectors", blocks, global };
    let (times, rounded) = stream.run_vectors(vectors, compute, |_| Ok(()))?;
    let (seconds, parts) = (clock.stop(times), sums.iter().map(MetricsSum::finish).collect::<Vec<_>>());
    let whole = Whole::of(&parts, n, d);

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
            "distortion": whole.distortion,
            "mse": whole.mse,
            "snr_db": whole.snr_db,
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
        row("distortion", number(whole.distortion), "mean squared distance per vector"),
        row("mse", number(whole.mse), "mean squared error per element: the L2 loss"),
        row("SNR", super::decibels(whole.snr_db), "signal to noise ratio"),
        row("rate", format!("{:.3} bits", model.rate()), "per vector"),
    ]);
    if rounded > 0 {
        rows.push(row("rounded", rounded.to_string(), "vectors that f32 could not hold exactly"));
    }
    rows.extend(parts.iter().enumerate().map(|(s, part)| {
        let (perplexity, used, dead) = (number(part.perplexity), 100.0 * part.utilization, part.dead);
        let remark = format!("mse, perplexity {perplexity}, {used:.2} % used, {dead} dead");
        [format!("sub-quantizer {s}"), number(part.mse), remark]
    }));
    report::print_table(&rows)
}

/// Refuses what only a codebook is judged by.
fn check(args: &Eval, global: &Global) -> Result<()> {
    model::check_exact(global)?;
    let flag = match (args.beta, args.non_finite.non_finite) {
        (Some(_), _) => "--beta",
        (None, Policy::Sentinel) => "--non-finite sentinel",
        (None, Policy::Error) => return Ok(()),
    };
    let message = format!("{flag}: eval has this for codebooks only, and MODEL is a product quantizer; leave it out");
    Err(Failure::new(Exit::Usage, message))
}

/// All parts together: their squared errors and their energies add up.
struct Whole {
    inertia: f64,
    distortion: f64,
    mse: f64,
    snr_db: f64,
}

impl Whole {
    fn of(parts: &[Metrics], n: usize, d: usize) -> Whole {
        let inertia: f64 = parts.iter().map(|part| part.inertia).sum();
        let energy: f64 = parts.iter().map(|part| part.energy).sum();
        // Of no vectors 0, as in the library.
        let distortion = inertia / n.max(1) as f64;
        let snr_db = if inertia == 0.0 { f64::INFINITY } else { 10.0 * (energy / inertia).log10() };
        Whole { inertia, distortion, mse: distortion / d as f64, snr_db }
    }
}
