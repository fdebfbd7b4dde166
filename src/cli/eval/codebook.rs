//! How well a codebook represents vectors.

use crate::cli::args::{Eval, Global};
use crate::cli::exit::{Exit, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::model::Model;
use crate::cli::plan::{Blocks, Plan, RowCost};
use crate::cli::report::{self, Clock, Report, number};
use crate::cli::stream::{Block, Stream};
use codeword::{AssignOptions, AssignStats, Metrics, MetricsSum, Precision, assign};
use serde_json::json;

const WAY_OUT: &str = "remove or repair it, or leave such vectors out with --non-finite sentinel";

pub fn run(args: &Eval, global: &Global, vectors: &Vectors, model: &Model, mut clock: Clock) -> Result<()> {
    let (n, d, k, beta) = (vectors.n, vectors.d, model.k, args.beta.unwrap_or(0.25));
    let devices = global.open_devices()?;
    let pace = devices.pace();
    let device = devices.only("eval")?;
    let options = AssignOptions {
        precision: global.precision_or(Precision::Exact),
        non_finite: args.non_finite.non_finite.into(),
    };

    let cost = RowCost { buffer: 4 * d as u64 + 8, scratch: 0, work: (k as u64).saturating_mul(d as u64) };
    let blocks = Blocks::new(n, cost, pace, global)?;
    if global.dry_run {
        let inputs = [("vectors", &vectors.reader), ("codebook", &model.reader)];
        let precision = Some(options.precision);
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
            precision,
        };
        return plan.print(global);
    }

    let codebook = model.load(&device, &mut clock)?;
    let (mut stats, mut sum) = (AssignStats::default(), MetricsSum::new(&codebook));
    let compute = |block: &mut Block| {
        let x = block.view(d).or_exit(Exit::BadInput)?;
        let assignment = assign(x, &codebook, options).map_err(|error| vectors.explain(error, block.first, WAY_OUT))?;
        stats += assignment.stats;
        sum.add(x, &assignment.labels).or_exit(Exit::Failed)
    };
    let stream = Stream { verb: "eval", n, unit: "vectors", blocks, global };
    let (times, rounded) = stream.run_vectors(vectors, compute, |_| Ok(()))?;
    let (seconds, metrics) = (clock.stop(times), sum.finish());

    let dtype = vectors.reader.header().scalar;
    let rate = model.rate();
    if global.json {
        let (verb, precision) = ("eval", Some(options.precision));
        let report = Report { verb, device: &device, n, d, k, dtype, precision, seconds, tiers: Some(stats) };
        // An infinite number has no form in JSON: snr_db is null where nothing is lost.
        return report.print(json!({
            "rounded_rows": rounded,
            "skipped_rows": metrics.skipped,
            "beta": beta,
            "inertia": metrics.inertia,
            "distortion": metrics.distortion,
            "mse": metrics.mse,
            "codebook_loss": metrics.mse,
            "commitment_loss": beta * metrics.mse,
            "snr_db": metrics.snr_db,
            "perplexity": metrics.perplexity,
            "utilization": metrics.utilization,
            "dead": metrics.dead,
            "rate": rate,
        }));
    }
    let mut rows = vec![
        ["vectors".into(), format!("{n} x {d} {}", dtype.name()), vectors.reader.file().display().to_string()],
        ["codewords".into(), k.to_string(), model.reader.file().display().to_string()],
    ];
    rows.extend(table(&metrics, beta, rate, k));
    if rounded > 0 {
        rows.push(["rounded".into(), rounded.to_string(), "vectors that f32 could not hold exactly".into()]);
    }
    if metrics.skipped > 0 {
        rows.push([
            "skipped".into(),
            metrics.skipped.to_string(),
            "vectors with a NaN or an infinity, left out".into(),
        ]);
    }
    report::print_table(&rows)
}

fn table(metrics: &Metrics, beta: f64, rate: f64, k: usize) -> Vec<[String; 3]> {
    let row = |label: &str, value: String, remark: &str| [label.into(), value, remark.into()];
    vec![
        row("distortion", number(metrics.distortion), "mean squared distance per vector"),
        row("mse", number(metrics.mse), "mean squared error per element: the L2 loss"),
        row("codebook loss", number(metrics.mse), ""),
        row("commitment loss", number(beta * metrics.mse), &format!("with beta = {beta}")),
        row("SNR", super::decibels(metrics.snr_db), "signal to noise ratio"),
        row("perplexity", number(metrics.perplexity), &format!("of at most {k}: exp of the entropy of code usage")),
        row("utilization", format!("{:.2} %", 100.0 * metrics.utilization), "codewords used"),
        row("dead codewords", metrics.dead.to_string(), "codewords never used"),
        row("rate", format!("{rate:.3} bits"), "per vector"),
    ]
}
