//! Linear maps with a bias, as layers of codecs have them before and behind a codebook.

use crate::backend::{check_len, checked_len, multiply_into, non_finite};
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};

/// W x + b of vectors x, W of `[to, from]`.
#[derive(Clone)]
pub(super) struct Projection {
    /// W^T, `[from, to]`: rows of vectors are multiplied from the left.
    by: Matrix<f32>,
    bias: Option<Vec<f32>>,
}

impl Projection {
    pub fn new<T: Element>(op: &'static str, weight: MatrixView<'_, T>, bias: Option<&[f32]>) -> Result<Projection> {
        let (to, from) = (weight.rows(), weight.cols());
        if to == 0 || from == 0 {
            let expected = "a weight of at least one row and one column".into();
            return Err(Error::Shape { op, expected, got: format!("{to} x {from}") });
        }
        let mut by = vec![0.0; checked_len(op, from, to)?];
        for j in 0..to {
            for (t, value) in weight.row(j).iter().enumerate() {
                let got = value.to_f32();
                if !got.is_finite() {
                    let (what, way_out) = ("row of the weight", "repair it, or export the model again");
                    return Err(Error::NonFinite { op, what, row: j, col: t, got, way_out });
                }
                by[t * to + j] = got;
            }
        }
        if let Some(bias) = bias {
            check_len(op, "values of the bias, as the weight has rows", to, bias.len())?;
            if let Some(j) = bias.iter().position(|value| !value.is_finite()) {
                let (expected, got) = ("finite; export the model again".into(), format!("{} as value {j}", bias[j]));
                return Err(Error::InvalidParameter { op, name: "bias", expected, got });
            }
        }
        Ok(Projection { by: Matrix::new(by, from, to)?, bias: bias.map(<[f32]>::to_vec) })
    }

    pub fn from(&self) -> usize {
        self.by.rows()
    }

    pub fn to(&self) -> usize {
        self.by.cols()
    }

    /// Of rows of any values, into `out`, `[n, to]`: what leaves f32 is infinite there, or NaN.
    pub fn apply<T: Element>(&self, x: MatrixView<'_, T>, out: &mut [f32]) -> Result<()> {
        multiply_into(T::any(x), self.by.view(), self.bias.as_deref(), out)
    }

    /// Likewise, all of it finite: else the first row that is not is named, as a vector where it was none before.
    pub fn apply_finite<T: Element>(&self, op: &'static str, x: MatrixView<'_, T>, out: &mut [f32]) -> Result<()> {
        self.apply(x, out)?;
        // A value that is not finite shows in every component: its product with any weight is not finite either.
        let Some(at) = out.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let (row, col, got) = (at / self.to(), at % self.to(), out[at]);
        if !x.row(row).iter().all(|value| value.to_f32().is_finite()) {
            return Err(non_finite(op, x, row, "remove the vector"));
        }
        let way_out = "scale the vectors down, so that they stay within f32";
        Err(Error::NonFinite { op, what: "projected vector", row, col, got, way_out })
    }
}
