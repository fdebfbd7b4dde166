//! The search of boxes, for [`super::assign`].

use super::assign::{Packed, Pass, Verdict};
use super::box_kernels::Found;
use super::box_panels::BoxPanels;
use super::kernels::Kernels;
use super::rows::RowKind;
use super::small_nearest::OPEN;
use crate::backend::Precision;
use crate::matrix::{Element, MatrixView};

/// Rows of a block.
const BLOCK_ROWS: usize = 1024;

impl Packed for BoxPanels {
    type Pass = PassBoxes;

    fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn block_rows(&self) -> usize {
        BLOCK_ROWS
    }
}

/// Buffers of the pass.
#[derive(Default)]
pub(super) struct PassBoxes {
    /// The rows as they came; a codeword for those that are not finite, which so are the quickest to find.
    rows: Vec<f32>,
    kinds: Vec<RowKind>,
    found: Found,
    labels: Vec<u32>,
}

impl Pass for PassBoxes {
    type Codebook = BoxPanels;

    /// Exact only, as the sums of differences are.
    fn pack<T: Element>(&mut self, boxes: &BoxPanels, x: MatrixView<'_, T>, _: Precision) {
        self.rows.resize(x.rows() * boxes.d, 0.0);
        x.widen_into(&mut self.rows);
        self.kinds.clear();
        for row in self.rows.chunks_exact_mut(boxes.d) {
            let finite = row.iter().all(|value| value.is_finite());
            if !finite {
                let codeword = boxes.boxes().codewords_of(0, boxes.d);
                row.iter_mut().zip(codeword).for_each(|(value, step)| *value = step[0]);
            }
            self.kinds.push(if finite { RowKind::Packed } else { RowKind::NonFinite });
        }
    }

    fn run(&mut self, boxes: &BoxPanels, _: usize) {
        boxes.box_kernels.search(&self.rows, boxes.boxes(), &mut self.found);
    }

    fn kinds(&self) -> &[RowKind] {
        &self.kinds
    }

    #[inline]
    fn verdict(&self, _: &BoxPanels, i: usize) -> Verdict {
        match self.found.positions[i] {
            OPEN => Verdict { position: 0, open: Some(f64::INFINITY) },
            position => Verdict { position: position as usize, open: None },
        }
    }

    fn candidates(&mut self, boxes: &BoxPanels, rows: &[(usize, f64)], mut each: impl FnMut(usize, &mut Vec<u32>)) {
        for &(i, _) in rows {
            let start = i.checked_sub(1).map_or(0, |before| self.found.ends[before]);
            let positions = &self.found.candidates[start..self.found.ends[i]];
            self.labels.clear();
            match positions {
                [] => self.labels.extend_from_slice(&boxes.labels),
                _ => self.labels.extend(positions.iter().map(|&position| boxes.labels[position as usize])),
            }
            self.labels.sort_unstable();
            each(i, &mut self.labels);
        }
    }
}
