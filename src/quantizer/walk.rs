//! Through the stages of a residual quantizer with a block of vectors.

use super::product::Stop;
use super::residual::{of_residual, of_vector, take};
use super::stages::Stages;
use crate::error::Result;
use crate::matrix::{AnyView, Element, MatrixView};

/// A stage: the ones it is among, its number there, and that among all.
pub(super) type At<'a> = (&'a Stages, usize, usize);

/// What a walk through the stages needs for a block of rows, kept for the next.
pub(super) struct Work {
    /// Columns, `stride` apart.
    pub labels: Vec<u32>,
    stride: usize,
    /// What the stages before leave, where later ones need it.
    left: Vec<f32>,
    part: Vec<f32>,
}

impl Work {
    pub fn new(m: usize, stride: usize) -> Work {
        Work { labels: vec![0; m * stride], stride, left: Vec::new(), part: Vec::new() }
    }

    /// Goes through all stages with a block of rows, of which `first` come before: `visit` is given each of them, what it
    /// quantizes, and its labels, to read or to write.
    pub fn walk<T: Element, E>(
        &mut self,
        op: &'static str,
        all: &[Stages],
        rows: MatrixView<'_, T>,
        first: usize,
        mut visit: impl FnMut(At<'_>, AnyView<'_>, &mut [u32]) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let (n, d) = (rows.rows(), rows.cols());
        let Work { labels, stride, left, part } = self;
        let (stride, mut before) = (*stride, 0);
        for (i, stages) in all.iter().enumerate() {
            let labels = &mut labels[before * stride..][..stages.m() * stride];
            let mut visit = |s: usize, x: AnyView<'_>, labels: &mut [u32]| visit((stages, s, before + s), x, labels);
            if i == 0 || stages.are_on_vectors() {
                let told = stages.walk(op, rows, labels, stride, &mut visit);
                told.map_err(|stop| stop.told(|error| of_vector(op, error, rows, first)))?;
            } else {
                let told = stages.walk(op, MatrixView::new(left, n, d)?, labels, stride, &mut visit);
                told.map_err(|stop| stop.told(|error| of_residual(op, error).of_part_at(first, 0)))?;
            }
            if all[i + 1..].iter().any(|later| !later.are_on_vectors()) {
                if i == 0 {
                    left.resize(n * d, 0.0);
                    rows.widen_into(left);
                }
                part.resize(n * d, 0.0);
                stages.decode_into(labels, stride, stages.m(), part)?;
                take(left, part);
            }
            before += stages.m();
        }
        Ok(())
    }
}
