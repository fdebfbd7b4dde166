//! `codeword encode`: the codes of every vector, by whatever the model quantizes with.

mod codebook;
mod composed;

use crate::cli::args::{Encode, Global};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::model::Model;
use crate::cli::report::Clock;
use crate::cli::values::{CodeDtype, Policy, Quantizer};
use codeword::io::npy::Scalar;

pub fn run(args: &Encode, global: &Global) -> Result<()> {
    let clock = Clock::start();
    let vectors = Vectors::open(&args.vectors)?;
    let model = Model::open(&args.model)?;
    model.check_fits(&vectors)?;
    match model.quantizer {
        Quantizer::Vq => codebook::run(args, global, &vectors, &model, clock),
        _ => composed::run(args, global, &vectors, &model, clock),
    }
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
