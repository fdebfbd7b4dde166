//! What training refuses before it looks at a row.

use super::{Init, KMeans, KMeansState, OP};
use crate::backend::check_weights;
use crate::error::{Error, Result};

impl KMeans {
    /// Parameters, sizes and weights, once.
    pub(super) fn check(&self, n: usize, d: usize, weights: Option<&[f32]>) -> Result<()> {
        let k = self.k;
        if k == 0 || k >= u32::MAX as usize {
            return Err(invalid("k", "from 1 to 4294967294", k));
        }
        if self.n_init == 0 {
            return Err(invalid("n_init", "at least 1", 0));
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            return Err(invalid("tolerance", "at least 0 and below 1", self.tolerance));
        }
        match self.minibatch {
            Some(0) => return Err(invalid("minibatch", "at least 1 row", 0)),
            Some(_) if self.tolerance > 0.0 => {
                return Err(invalid("tolerance", "0 with mini-batches, whose inertia is an estimate", self.tolerance));
            }
            _ => {}
        }
        let shape = |expected: String, got: String| Err(Error::Shape { op: OP, expected, got });
        let single = matches!(self.init, Init::Given(_) | Init::Resume(_));
        if single && self.n_init > 1 {
            return Err(invalid("n_init", "1 with a given codebook or state, for all runs would be one", self.n_init));
        }
        let given = match &self.init {
            Init::Given(codebook) => Some((codebook.k(), codebook.d())),
            Init::Resume(state) => Some((state.codewords.rows(), state.codewords.cols())),
            _ => None,
        };
        if let Some(given) = given.filter(|&given| given != (k, d)) {
            return shape(format!("a codebook of {k} x {d} to start from"), format!("{} x {}", given.0, given.1));
        }
        if let Init::Resume(state) = &self.init {
            self.check_state(state)?;
        }
        if d == 0 {
            return shape("vectors of at least one column".into(), format!("{n} x 0"));
        }
        let mut heavy = n;
        if let Some(weights) = weights {
            check_weights(OP, n, weights)?;
            heavy = weights.iter().filter(|&&weight| weight > 0.0).count();
        }
        if heavy < k {
            let of_weight = if weights.is_some() { " of weight above 0" } else { "" };
            let expected = format!("at least {k} vectors{of_weight}, as many as codewords");
            return shape(expected, heavy.to_string());
        }
        Ok(())
    }

    /// Whether a state is one of a training with these parameters.
    fn check_state(&self, state: &KMeansState) -> Result<()> {
        let moves = state.curve.len();
        if moves > self.iterations {
            let expected = format!("at least the {moves} of the state to go on from");
            return Err(invalid("iterations", &expected, self.iterations));
        }
        let seen = if self.minibatch.is_some() { self.k } else { 0 };
        if state.weights.len() != seen {
            let expected = format!("{seen}, one for each codeword with mini-batches and else none");
            return Err(invalid("weights of the state", &expected, state.weights.len()));
        }
        if let Some(inertia) = state.curve.iter().find(|inertia| inertia.is_nan() || **inertia < 0.0) {
            return Err(invalid("curve of the state", "numbers that are not negative", inertia));
        }
        match state.weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            Some(weight) => Err(invalid("weights of the state", "finite and not negative", weight)),
            None => Ok(()),
        }
    }
}

pub(super) fn invalid(name: &'static str, expected: &str, got: impl ToString) -> Error {
    Error::InvalidParameter { op: OP, name, expected: expected.into(), got: got.to_string() }
}
