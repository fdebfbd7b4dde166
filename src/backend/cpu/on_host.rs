//! A codebook prepared for the CPU, in the forms its instruction set works with.

use super::assign::assign;
use super::fixed_kernels::FixedKernels;
use super::fixed_panels::FixedPanels;
use super::isa::Isa;
use super::kernels::Kernels;
use super::pair_kernels::PairKernels;
use super::pair_panels::PairPanels;
use super::panels::Panels;
use super::small_kernels::SmallKernels;
use super::small_panels::SmallPanels;
use crate::backend::{AssignOptions, AssignStats, Precision};
use crate::matrix::{Element, Matrix, MatrixView};
use std::sync::OnceLock;

/// The codewords as they came, and packed: for rows in the lanes where dimensions are few, as pairs of bf16 or
/// of 16-bit integers where the instruction set has a use for them, and as f32 for everything else, which is not packed before something asks for it
/// where one of the others serves. An exact assignment alone never does, and would pay for both.
pub(crate) struct OnHost {
    pub codewords: Matrix<f32>,
    isa: Isa,
    small: Option<SmallPanels>,
    pairs: Option<PairPanels>,
    fixed: Option<FixedPanels>,
    panels: OnceLock<Panels>,
}

impl OnHost {
    pub fn new(codewords: Matrix<f32>, isa: Isa) -> OnHost {
        let small = SmallPanels::new(codewords.view(), Kernels::of(isa), SmallKernels::of(isa));
        let pairs = PairKernels::of(isa).and_then(|pairs| PairPanels::new(codewords.view(), Kernels::of(isa), pairs));
        let fixed = FixedKernels::of(isa).and_then(|fixed| FixedPanels::new(codewords.view(), Kernels::of(isa), fixed));
        let host = OnHost { codewords, isa, small, pairs, fixed, panels: OnceLock::new() };
        if host.small.is_none() && host.pairs.is_none() && host.fixed.is_none() {
            host.panels();
        }
        host
    }

    /// The f32 form; packed by the first call where another form serves.
    pub fn panels(&self) -> &Panels {
        self.panels.get_or_init(|| Panels::new(self.codewords.view(), Kernels::of(self.isa)))
    }

    /// Codewords that no other of lower index equals.
    pub fn distinct(&self) -> usize {
        match (&self.small, &self.pairs, &self.fixed) {
            (Some(small), ..) => small.labels.len(),
            (_, Some(pairs), _) => pairs.len(),
            (_, _, Some(fixed)) => fixed.len(),
            _ => self.panels().len(),
        }
    }

    /// See [`assign`]. [`Precision::Fast`] ranks f32 scores.
    pub fn assign<T: Element>(
        &self,
        x: MatrixView<'_, T>,
        options: AssignOptions,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> Result<AssignStats, usize> {
        let codewords = self.codewords.view();
        match (options.precision, &self.small, &self.pairs, &self.fixed) {
            (Precision::Exact, Some(small), ..) => assign(x, codewords, small, options, labels, sq_distances),
            (Precision::Exact, _, Some(pairs), _) => assign(x, codewords, pairs, options, labels, sq_distances),
            (Precision::Exact, _, _, Some(fixed)) => assign(x, codewords, fixed, options, labels, sq_distances),
            _ => assign(x, codewords, self.panels(), options, labels, sq_distances),
        }
    }
}
