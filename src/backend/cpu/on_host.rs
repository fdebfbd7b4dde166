//! A codebook prepared for the CPU, in the forms its instruction set works with.

use super::assign::assign;
use super::box_panels::BoxPanels;
use super::centre::distinct;
use super::fixed_kernels::FixedKernels;
use super::fixed_panels::FixedPanels;
use super::isa::Isa;
use super::kernels::Kernels;
use super::pair_kernels::PairKernels;
use super::pair_panels::PairPanels;
use super::panels::Panels;
use super::small_fixed_kernels::SmallFixedKernels;
use super::small_fixed_panels::SmallFixedPanels;
use super::small_kernels::SmallKernels;
use super::small_panels::SmallPanels;
use crate::backend::{AssignOptions, AssignStats, Precision};
use crate::matrix::{Element, Matrix, MatrixView};
use std::sync::OnceLock;

/// The codewords as they came, and packed for exact assignments; and as f32 panels for everything else, which are not
/// packed before something asks for them where another form serves. An exact assignment alone never does, and would pay for
/// both.
pub(crate) struct OnHost {
    pub codewords: Matrix<f32>,
    isa: Isa,
    form: Form,
    panels: OnceLock<Panels>,
}

/// What serves exact assignments.
enum Form {
    /// Few dimensions and many codewords: boxes of those that lie together.
    Boxes(BoxPanels),
    /// Few dimensions: rows in the lanes.
    Small(SmallPanels),
    /// The same over pairs of 16-bit integers, where the instruction set multiplies them sooner.
    SmallFixed(SmallFixedPanels),
    /// Pairs of 16-bit integers, likewise.
    Fixed(FixedPanels),
    /// Pairs of bf16, where the instruction set multiplies them and codewords of very different lengths have no unit in common.
    Pairs(PairPanels),
    /// The f32 panels.
    F32,
}

impl Form {
    fn of(codewords: MatrixView<'_, f32>, isa: Isa) -> Form {
        let kernels = Kernels::of(isa);
        let (labels, _) = distinct(codewords);
        if let Some(boxes) = BoxPanels::new(codewords, &labels, isa) {
            return Form::Boxes(boxes);
        }
        let fixed = SmallFixedKernels::of(isa);
        if let Some(fixed) = fixed.and_then(|fixed| SmallFixedPanels::new(codewords, &labels, kernels, fixed)) {
            return Form::SmallFixed(fixed);
        }
        if let Some(small) = SmallPanels::new(codewords, &labels, kernels, SmallKernels::of(isa)) {
            return Form::Small(small);
        }
        let fixed = FixedKernels::of(isa);
        if let Some(fixed) = fixed.and_then(|fixed| FixedPanels::new(codewords, &labels, kernels, fixed)) {
            return Form::Fixed(fixed);
        }
        let pairs = PairKernels::of(isa);
        let pairs = pairs.and_then(|pairs| PairPanels::new(codewords, &labels, kernels, pairs));
        pairs.map_or(Form::F32, Form::Pairs)
    }
}

impl OnHost {
    pub fn new(codewords: Matrix<f32>, isa: Isa) -> OnHost {
        // Into the pool once: every step by itself would wait for it.
        let (form, panels) = rayon::scope(|_| {
            let form = Form::of(codewords.view(), isa);
            let panels = matches!(form, Form::F32).then(|| Panels::new(codewords.view(), Kernels::of(isa)));
            (form, panels)
        });
        OnHost { codewords, isa, form, panels: panels.map_or_else(OnceLock::new, OnceLock::from) }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The f32 form; packed by the first call where another form serves. Outside the cell: a thread that waits there for its
    /// part of the work may take up other work of the pool, which may ask for the same panels. Of two that are packed one
    /// is dropped.
    pub fn panels(&self) -> &Panels {
        match self.panels.get() {
            Some(panels) => panels,
            None => {
                let panels = Panels::new(self.codewords.view(), Kernels::of(self.isa));
                self.panels.get_or_init(|| panels)
            }
        }
    }

    /// Codewords that no other of lower index equals.
    pub fn distinct(&self) -> usize {
        match &self.form {
            Form::Boxes(boxes) => boxes.labels.len(),
            Form::Small(small) => small.labels.len(),
            Form::SmallFixed(fixed) => fixed.labels.len(),
            Form::Pairs(pairs) => pairs.len(),
            Form::Fixed(fixed) => fixed.len(),
            Form::F32 => self.panels().len(),
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
        match (options.precision, &self.form) {
            (Precision::Exact, Form::Boxes(boxes)) => assign(x, codewords, boxes, options, labels, sq_distances),
            (Precision::Exact, Form::Small(small)) => assign(x, codewords, small, options, labels, sq_distances),
            (Precision::Exact, Form::SmallFixed(fixed)) => assign(x, codewords, fixed, options, labels, sq_distances),
            (Precision::Exact, Form::Pairs(pairs)) => assign(x, codewords, pairs, options, labels, sq_distances),
            (Precision::Exact, Form::Fixed(fixed)) => assign(x, codewords, fixed, options, labels, sq_distances),
            (Precision::Exact, Form::F32) | (Precision::Fast, _) => {
                assign(x, codewords, self.panels(), options, labels, sq_distances)
            }
        }
    }
}
