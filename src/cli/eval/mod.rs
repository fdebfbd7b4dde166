//! `codeword eval`: how well a model represents vectors.

mod codebook;
mod composed;

use crate::cli::args::{Eval, Global};
use crate::cli::exit::Result;
use crate::cli::input::Vectors;
use crate::cli::model::Model;
use crate::cli::report::Clock;
use crate::cli::values::Quantizer;

pub fn run(args: &Eval, global: &Global) -> Result<()> {
    let clock = Clock::start();
    let vectors = Vectors::open(&args.vectors)?;
    let model = Model::open(&args.model)?;
    model.check_fits(&vectors)?;
    match model.quantizer {
        Quantizer::Vq => codebook::run(args, global, &vectors, &model, clock),
        _ => composed::run(args, global, &vectors, &model, clock),
    }
}

/// `25.809 dB`, `inf` where nothing is lost.
fn decibels(value: f64) -> String {
    if value.is_finite() { format!("{value:.3} dB") } else { value.to_string() }
}
