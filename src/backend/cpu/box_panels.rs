//! Many codewords of few dimensions, laid out so that most of them need no look: panels of codewords that lie together,
//! each in a box.
//!
//! The codewords are halved across their widest dimension, again and again (a k-d tree: Friedman, Bentley and Finkel
//! 1977), down to runs of [`PANEL`] panels and panels of [`PANEL`] codewords; the layout is the tree. A row goes to the
//! nearest box first, and then to every panel whose box is no farther than the best codeword seen so far.
//!
//! All sums are f32 sums of squared differences of the values as they came, off by no more than
//! [`limit_of`](super::small_nearest) allows, relative to themselves: those of codewords by at most 21 u and what
//! underflows, as [`super::small_nearest`] has it. The distance to a box is a sum of as many squares, each of a rounded
//! difference from a side, or zero: it is off by no more. With D the real squared distance of a codeword that is the
//! nearest, s the least sum at any time and b the computed distance of a box that has it, so b <= D (1 + 21 u) + 17 t
//! with t = 2^-149, for no point of a box is nearer than the box, and D <= s (1 + 21 u + ...) + 18 t: b is within the
//! limit, s (1 + 48 u) + 64 t, and so is the codeword's own sum. Where one codeword is left, it is the nearest; else
//! those that are left are the candidates.
//!
//! How many panels a row has to look into depends on the data. Whether this pays is tried with rows amidst the codewords
//! ([`BoxPanels::new`]). Rows of another kind can need more: within a shell of codewords that are all about as far away they
//! look into every panel, and take three times as long as a look at all codewords would (measured, 8191 on a sphere).

use super::box_kernels::{BoxKernels, Found, Sides};
use super::isa::Isa;
use super::kernels::Kernels;
use super::small_fixed_kernels::SmallFixedKernels;
use super::small_kernels::PANEL;
use crate::matrix::MatrixView;

/// Dimensions up to which the bounds hold; with more than eight boxes hardly ever pay.
const MAX_D: usize = 16;
/// Codewords of a run.
const RUN: usize = PANEL * PANEL;
/// Rows that are tried, about.
const SAMPLE: usize = 64;
/// Cycles of a Zen 3 with AVX2, about: of a search, of every panel it looks into, and of a panel where all are looked at,
/// in each dimension and besides. Other processors have their own: half the time is asked for, so that one whose look at all is
/// up to twice as fast loses nothing, and less of VNNI.
const SEARCH: f64 = 350.0;
const VISIT: f64 = 120.0;
const PANEL_STEP: f64 = 1.2;
const PANEL_END: f64 = 1.0;
/// What a search may take of a look at all; and where that is by VNNI, which is faster. (On a Zen 5 it is by a fifth with 8
/// dimensions and 16,384 codewords, and boxes by more than a third with 6.)
const ASKED: f64 = 0.5;
const ASKED_OF_VNNI: f64 = 0.3;

pub(super) struct BoxPanels {
    /// Of the same processor: direct sums.
    pub(super) kernels: &'static Kernels,
    pub(super) box_kernels: &'static BoxKernels,
    pub(super) d: usize,
    /// Label of every position: within a panel they ascend, from panel to panel they do not.
    pub(super) labels: Vec<u32>,
    /// `[panels][d][PANEL]`: the codewords as they came; infinite where there is none.
    codewords: Vec<[f32; PANEL]>,
    /// `[runs][d]` sides of the panels of a run, and `[runs / PANEL][d]` of the runs.
    panels: Vec<Sides>,
    runs: Vec<Sides>,
}

/// What a search reads.
#[derive(Clone, Copy)]
pub(super) struct Boxes<'a> {
    pub d: usize,
    pub codewords: &'a [[f32; PANEL]],
    pub panels: &'a [Sides],
    pub runs: &'a [Sides],
}

impl<'a> Boxes<'a> {
    /// The codewords of a panel, `[d][PANEL]`.
    #[inline(always)]
    pub fn codewords_of(&self, panel: usize, d: usize) -> &'a [[f32; PANEL]] {
        &self.codewords[panel * d..][..d]
    }
}

impl BoxPanels {
    /// Of the distinct codewords, those of `labels`. None where this does not pay.
    pub(super) fn new(codewords: MatrixView<'_, f32>, labels: &[u32], isa: Isa) -> Option<BoxPanels> {
        let fixed = SmallFixedKernels::of(isa).filter(|fixed| codewords.cols() >= fixed.min_d);
        let asked = match isa {
            Isa::Avx512Bf16 | Isa::Avx512Vnni if fixed.is_some() => ASKED_OF_VNNI,
            _ => ASKED,
        };
        // One visit at least: no need to try where that is too much.
        if codewords.cols() > MAX_D || !worth(1.0, labels.len(), codewords.cols(), asked) {
            return None;
        }
        let boxes = BoxPanels::arranged(codewords, labels.to_vec(), Kernels::of(isa), BoxKernels::of(isa));
        boxes.pays(codewords, asked).then_some(boxes)
    }

    /// Whether it pays or not.
    fn arranged(
        codewords: MatrixView<'_, f32>,
        mut labels: Vec<u32>,
        kernels: &'static Kernels,
        box_kernels: &'static BoxKernels,
    ) -> BoxPanels {
        let d = codewords.cols();
        arrange(&mut labels, codewords);
        let mut packed = vec![[f32::INFINITY; PANEL]; labels.len().div_ceil(PANEL) * d];
        for (panel, labels) in packed.chunks_exact_mut(d).zip(labels.chunks(PANEL)) {
            for (lane, &label) in labels.iter().enumerate() {
                for (step, &value) in panel.iter_mut().zip(codewords.row(label as usize)) {
                    step[lane] = value;
                }
            }
        }
        let panels = sides(labels.chunks(PANEL), d, codewords);
        let runs = sides(labels.chunks(RUN), d, codewords);
        BoxPanels { kernels, box_kernels, d, labels, codewords: packed, panels, runs }
    }

    /// What a search reads.
    pub fn boxes(&self) -> Boxes<'_> {
        let BoxPanels { d, codewords, panels, runs, .. } = self;
        Boxes { d: *d, codewords, panels, runs }
    }

    /// Whether rows look into few panels: those halfway between two codewords of a panel are in the midst of them.
    fn pays(&self, codewords: MatrixView<'_, f32>, asked: f64) -> bool {
        let panels = self.labels.chunks(PANEL);
        let step = panels.len().div_ceil(SAMPLE);
        let between = |labels: &[u32]| {
            let ends = [labels[0], labels[labels.len() - 1]].map(|label| codewords.row(label as usize));
            ends[0].iter().zip(ends[1]).map(|(a, b)| 0.5 * a + 0.5 * b).collect::<Vec<f32>>()
        };
        let rows: Vec<f32> = panels.step_by(step).flat_map(between).collect();
        let mut found = Found::default();
        self.box_kernels.search(&rows, self.boxes(), &mut found);
        let visits = found.visits as f64 / (rows.len() / self.d) as f64;
        // Rows whose sums overflow visit nothing.
        found.overflows == 0 && worth(visits, self.labels.len(), self.d, asked)
    }
}

/// Whether a search that looks into so many panels is the faster way.
fn worth(visits: f64, k: usize, d: usize, asked: f64) -> bool {
    let panels = k.div_ceil(PANEL) as f64;
    SEARCH + VISIT * visits < asked * panels * (PANEL_STEP * d as f64 + PANEL_END)
}

/// Puts the labels in the order of a tree: see above. Equal values by label, so that there is one order.
pub(super) fn arrange(labels: &mut [u32], codewords: MatrixView<'_, f32>) {
    if labels.len() <= PANEL {
        return labels.sort_unstable();
    }
    let value = |label: u32, t: usize| codewords.row(label as usize)[t];
    let (low, high) = extent(labels, codewords);
    let width = |&t: &usize| high[t] - low[t];
    let widest =
        (0..codewords.cols().min(MAX_D)).max_by(|a, b| width(a).total_cmp(&width(b)).then(b.cmp(a))).unwrap_or(0);
    let unit = if labels.len() > RUN { RUN } else { PANEL };
    let middle = labels.len().div_ceil(unit).div_ceil(2) * unit;
    labels.select_nth_unstable_by(middle, |&a, &b| value(a, widest).total_cmp(&value(b, widest)).then(a.cmp(&b)));
    let (lower, upper) = labels.split_at_mut(middle);
    rayon::join(|| arrange(lower, codewords), || arrange(upper, codewords));
}

/// The least and the largest value in each dimension.
fn extent(labels: &[u32], codewords: MatrixView<'_, f32>) -> ([f32; MAX_D], [f32; MAX_D]) {
    let (mut low, mut high) = ([f32::INFINITY; MAX_D], [f32::NEG_INFINITY; MAX_D]);
    for &label in labels {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(codewords.row(label as usize)) {
            (*low, *high) = (low.min(value), high.max(value));
        }
    }
    (low, high)
}

/// The sides of the boxes of groups of labels, [`PANEL`] boxes at a time; none is so far away as what is no box.
fn sides<'a>(groups: std::slice::Chunks<'a, u32>, d: usize, codewords: MatrixView<'_, f32>) -> Vec<Sides> {
    let mut sides = vec![[[f32::INFINITY; PANEL], [f32::NEG_INFINITY; PANEL]]; groups.len().div_ceil(PANEL) * d];
    for (i, labels) in groups.enumerate() {
        let (low, high) = extent(labels, codewords);
        for (t, sides) in sides[i / PANEL * d..][..d].iter_mut().enumerate() {
            (sides[0][i % PANEL], sides[1][i % PANEL]) = (low[t], high[t]);
        }
    }
    sides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::centre::distinct;
    use crate::backend::cpu::isa::Isa;
    use crate::backend::cpu::small_nearest::OPEN;
    use crate::matrix::Matrix;

    /// Numbers between -1 and 1.
    fn numbers(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn sq_l2(z: &[f32], e: &[f32]) -> f64 {
        z.iter().zip(e).map(|(&z, &e)| (f64::from(z) - f64::from(e)).powi(2)).sum()
    }

    #[test]
    fn a_search_finds_what_a_look_at_all_codewords_finds() {
        // A panel, one more codeword, a run, one more, two levels of runs.
        for (k, d) in [(2, 1), (16, 3), (17, 2), (256, 4), (257, 5), (1000, 8), (5000, 3), (2000, 16)] {
            let e = Matrix::new(numbers(k * d, k as u64), k, d).unwrap();
            for scale in [1.0, 30.0, 1e6] {
                let rows: Vec<f32> = numbers(50 * d, 9).iter().map(|v| v * scale).collect();
                for isa in Isa::available() {
                    let boxes =
                        BoxPanels::arranged(e.view(), (0..k as u32).collect(), Kernels::of(isa), BoxKernels::of(isa));
                    let mut found = Found::default();
                    boxes.box_kernels.search(&rows, boxes.boxes(), &mut found);
                    for (i, z) in rows.chunks_exact(d).enumerate() {
                        let distances: Vec<f64> = (0..k).map(|j| sq_l2(z, e.view().row(j))).collect();
                        let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
                        let start = if i == 0 { 0 } else { found.ends[i - 1] };
                        let candidates = &found.candidates[start..found.ends[i]];
                        let is_near = |&position: &u32| {
                            let distance = distances[boxes.labels[position as usize] as usize];
                            distance <= least * (1.0 + 1e-5)
                        };
                        let name = format!("{k} x {d}, scale {scale}, {}, row {i}", isa.name());
                        match found.positions[i] {
                            OPEN if candidates.is_empty() => {
                                let near = distances.iter().filter(|&&distance| distance <= least * (1.0 + 1e-5));
                                assert!(near.count() > 64, "{name}: all, for a few");
                            }
                            OPEN => {
                                assert!(candidates.len() > 1 && candidates.iter().all(is_near), "{name}");
                                let nearest = |&p: &u32| distances[boxes.labels[p as usize] as usize] == least;
                                assert!(candidates.iter().any(nearest), "{name}");
                            }
                            position => {
                                assert!(candidates.is_empty(), "{name}");
                                assert_eq!(distances[boxes.labels[position as usize] as usize], least, "{name}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn boxes_pay_for_many_codewords_of_few_dimensions_alone() {
        let pays = |values: Vec<f32>, d: usize| {
            let e = Matrix::new(values.clone(), values.len() / d, d).unwrap();
            BoxPanels::new(e.view(), &distinct(e.view()).0, Isa::Portable).is_some()
        };
        assert!(pays(numbers(8192 * 2, 1), 2));
        assert!(pays(numbers(8192 * 4, 2), 4));
        // Ties are no overflow.
        assert!(pays((0..16384).map(|j| j as f32).collect(), 1), "integers");
        assert!(
            pays((0..16384 * 2).map(|i| if i % 2 == 0 { i / 2 / 128 } else { i / 2 % 128 } as f32).collect(), 2),
            "grid"
        );
        assert!(!pays(numbers(256 * 4, 3), 4), "few");
        assert!(!pays(numbers(4096 * 16, 4), 16), "16 dimensions");
        // Squares that underflow or overflow tell nothing.
        assert!(!pays(numbers(8192 * 4, 5).iter().map(|v| v * 1e-30).collect(), 4), "tiny");
        assert!(!pays(numbers(8192 * 4, 6).iter().map(|v| v * 1e30).collect(), 4), "huge");
    }
}
