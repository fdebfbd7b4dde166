//! The full matrix of squared distances.

use super::blocks::{FirstBad, block_rows};
use super::exact::{ExactSum, round_sq_l2};
use super::panels::Panels;
use super::rows::{PackedRows, RowKind, Score};
use crate::backend::{NonFinite, Precision};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Fills `out`, `[n, k]`. Returns the first row that holds a NaN or an infinity.
pub(crate) fn pairwise_sq_l2<T: Element>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    panels: &Panels,
    precision: Precision,
    out: &mut [f32],
) -> Result<(), usize> {
    let (k, block) = (codewords.rows(), block_rows(panels));
    let first_bad = FirstBad::new(NonFinite::Error);
    out.par_chunks_mut(block * k).enumerate().for_each_init(Workspace::default, |workspace, (i, out)| {
        let start = i * block;
        let x = x.block(start..start + out.len() / k);
        if let Some(bad) = workspace.run(x, codewords, panels, precision, out) {
            first_bad.report(start + bad);
        }
    });
    first_bad.or(())
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace {
    rows: PackedRows,
    scores: Vec<f32>,
    wide: Vec<f32>,
    sum: ExactSum,
}

impl Workspace {
    fn run<T: Element>(
        &mut self,
        x: MatrixView<'_, T>,
        codewords: MatrixView<'_, f32>,
        panels: &Panels,
        precision: Precision,
        out: &mut [f32],
    ) -> Option<usize> {
        let (kernels, stride, k) = (panels.kernels, panels.padded_len(), codewords.rows());
        self.rows.pack(x, panels, Score::Plain);
        if let Some(bad) = self.rows.kinds.iter().position(|&kind| kind == RowKind::NonFinite) {
            return Some(bad);
        }
        self.scores.resize(kernels.rows * stride, 0.0);
        for (tile, out) in out.chunks_mut(kernels.rows * k).enumerate() {
            let first = tile * kernels.rows;
            if precision == Precision::Fast {
                let tile = self.rows.tile(tile);
                kernels.scores(tile, panels.all(), panels.depth(), &mut self.scores, stride);
            }
            for (row, out) in out.chunks_exact_mut(k).enumerate() {
                let i = first + row;
                match (precision, self.rows.expansion(i)) {
                    (Precision::Fast, Some((sq_norm, factor))) => {
                        expand(&self.scores[row * stride..], sq_norm, factor, panels, out);
                    }
                    // Exact, or a squared norm that f32 cannot hold: direct sums, exactly rounded.
                    _ => {
                        let z = T::as_f32(x.row(i), &mut self.wide);
                        for (j, out) in out.iter_mut().enumerate() {
                            let e = codewords.row(j);
                            *out = round_sq_l2(z, e, kernels.sq_l2_f64(z, e), &mut self.sum);
                        }
                    }
                }
            }
        }
        None
    }
}

/// `max(0, |z|^2 - factor * score)` for every codeword; a score is z.e - |e|^2 / 2, in the tile's scale.
fn expand(scores: &[f32], sq_norm: f32, factor: f32, panels: &Panels, out: &mut [f32]) {
    let distance = |score: f32| (sq_norm - factor * score).max(0.0);
    if panels.repeats.is_empty() {
        for (out, &score) in out.iter_mut().zip(scores) {
            *out = distance(score);
        }
    } else {
        for (&label, &score) in panels.labels.iter().zip(scores) {
            out[label as usize] = distance(score);
        }
        for &(label, repeat) in &panels.repeats {
            out[repeat as usize] = out[label as usize];
        }
    }
}
