//! Nearest codeword of every row: filter pass, certificate, another look where it fails, rounded distance.

use super::blocks::FirstBad;
use super::exact::round_exact_sq_l2;
use super::kernels::Kernels;
use super::look::{Look, Tier};
use super::rows::RowKind;
use super::shares;
use crate::backend::{AssignOptions, AssignStats, Precision, SENTINEL};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// A codebook packed for one kind of filter pass.
pub(super) trait Packed: Sync {
    /// Buffers of a pass.
    type Pass: Pass<Codebook = Self>;
    /// Kernels for direct sums.
    fn kernels(&self) -> &'static Kernels;
    /// Labels of the distinct codewords by position. Ascending, where a pass has rows that are wild.
    fn labels(&self) -> &[u32];
    /// Rows of a block: whole tiles.
    fn block_rows(&self) -> usize;
}

/// A filter pass over a block of rows, with what can be asked after it.
pub(super) trait Pass: Default + Send {
    type Codebook;
    /// Packs the rows.
    fn pack<T: Element>(&mut self, codebook: &Self::Codebook, x: MatrixView<'_, T>, precision: Precision);
    /// Scores the packed rows, by up to `threads` threads.
    fn run(&mut self, codebook: &Self::Codebook, threads: usize);
    fn kinds(&self) -> &[RowKind];
    /// The winner of row `i`, a packed one.
    fn verdict(&self, codebook: &Self::Codebook, i: usize) -> Verdict;
    /// Gives `each` every row of the list, packed, with the labels whose real score may not lie above its limit.
    fn candidates(&mut self, codebook: &Self::Codebook, rows: &[(usize, f64)], each: impl FnMut(usize, &mut Vec<u32>));
}

/// What the filter pass says about a row.
pub(super) struct Verdict {
    /// Position of the winner in the packed codebook.
    pub position: usize,
    /// Where another can be as near: the winner's real score does not lie above this.
    pub open: Option<f64>,
}

impl Verdict {
    /// That of a winner whose real score does not lie above `upper`, where no other lies below `others`.
    pub fn new(position: usize, upper: f64, others: f64) -> Verdict {
        // Written so that a NaN is not certified.
        let certified = others > upper;
        Verdict { position, open: (!certified).then_some(upper) }
    }
}

/// Assigns all rows of `x`. `labels` and `sq_distances` have one value per row.
///
/// Returns the first row that holds a NaN or an infinity, unless the options ask for sentinels.
pub(super) fn assign<T: Element, C: Packed>(
    x: MatrixView<'_, T>,
    codewords: MatrixView<'_, f32>,
    packed: &C,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<AssignStats, usize> {
    let block = packed.block_rows();
    let first_bad = FirstBad::new(options.non_finite);
    let threads = shares::threads_of_a_block(x.rows(), block);
    let stats = labels
        .par_chunks_mut(block)
        .zip(sq_distances.par_chunks_mut(block))
        .enumerate()
        .map_init(Workspace::<C::Pass>::default, |workspace, (i, (labels, sq_distances))| {
            let start = i * block;
            if first_bad.settles(start) {
                return AssignStats::default();
            }
            let x = x.block(start..start + labels.len());
            let job = Job { x, codewords, packed, precision: options.precision, threads };
            let (stats, bad) = workspace.assign(&job, labels, sq_distances);
            if let Some(bad) = bad {
                first_bad.report(start + bad);
            }
            stats
        })
        .reduce(AssignStats::default, |a, b| a + b);
    first_bad.or(stats)
}

struct Job<'a, T, C> {
    x: MatrixView<'a, T>,
    codewords: MatrixView<'a, f32>,
    packed: &'a C,
    precision: Precision,
    /// For the pass over a block.
    threads: usize,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Workspace<P> {
    pass: P,
    again: Vec<(usize, f64)>,
    wild: Vec<u32>,
    look: Look,
    wide: Vec<f32>,
}

impl<P: Pass<Codebook: Packed>> Workspace<P> {
    /// One block. Returns the first row that is not finite, which got sentinels.
    fn assign<T: Element>(
        &mut self,
        job: &Job<'_, T, P::Codebook>,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> (AssignStats, Option<usize>) {
        let packed = job.packed;
        let mut stats = AssignStats::default();
        self.pass.pack(packed, job.x, job.precision);
        // Seldom is a row anything else; that is seen faster than which of them.
        let are_packed = self.pass.kinds().iter().fold(true, |all, &kind| all & (kind == RowKind::Packed));
        self.again.clear();
        if packed.labels().len() > 1 {
            self.pass.run(packed, job.threads);
            for (i, (label, &kind)) in labels.iter_mut().zip(self.pass.kinds()).enumerate() {
                if kind == RowKind::Packed {
                    let Verdict { position, open } = self.pass.verdict(packed, i);
                    *label = packed.labels()[position];
                    if let (Precision::Exact, Some(upper)) = (job.precision, open) {
                        self.again.push((i, upper));
                    }
                }
            }
            self.look_again(job, are_packed, labels, &mut stats);
        } else {
            labels.fill(packed.labels()[0]);
        }
        let kinds = if are_packed { &[] } else { self.pass.kinds() };
        let bad: Vec<usize> =
            kinds.iter().enumerate().filter(|kind| *kind.1 == RowKind::NonFinite).map(|(i, _)| i).collect();
        stats.first = (labels.len() - bad.len()) as u64 - (stats.second + stats.f64 + stats.exact);
        self.distances(job, &bad, labels, sq_distances);
        (stats, bad.first().copied())
    }

    /// Settles the rows of `self.again`, and those that are wild.
    fn look_again<T: Element>(
        &mut self,
        job: &Job<'_, T, P::Codebook>,
        are_packed: bool,
        labels: &mut [u32],
        stats: &mut AssignStats,
    ) {
        let Workspace { pass, again, wild, look, wide } = self;
        let packed = job.packed;
        let mut settle = |i: usize, candidates: &mut Vec<u32>| {
            let z = T::as_f32(job.x.row(i), wide);
            let (label, tier) = look.nearest(packed.kernels(), z, candidates, |j| job.codewords.row(j as usize));
            labels[i] = label;
            match tier {
                Tier::Second => stats.second += 1,
                Tier::F64 => stats.f64 += 1,
                Tier::Exact => stats.exact += 1,
            }
        };
        pass.candidates(packed, again, &mut settle);
        let kinds = if are_packed { &[] } else { pass.kinds() };
        for (i, _) in kinds.iter().enumerate().filter(|&(_, &kind)| kind == RowKind::Wild) {
            wild.clear();
            wild.extend_from_slice(packed.labels());
            settle(i, wild);
        }
    }

    /// The rounded distance of every row to its codeword; `bad` are those that are not finite.
    fn distances<T: Element>(
        &mut self,
        job: &Job<'_, T, P::Codebook>,
        bad: &[usize],
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) {
        // They have no label; any will do until they get theirs.
        for &i in bad {
            labels[i] = 0;
        }
        let x = job.x.as_f32(&mut self.wide);
        job.packed.kernels().sq_distances(x, job.codewords, labels, sq_distances);
        for &i in bad {
            (labels[i], sq_distances[i]) = (SENTINEL, 0.0);
        }
        // Seldom is one left, which is seen faster than which.
        if sq_distances.iter().fold(false, |left, sq_distance| left | sq_distance.is_nan()) {
            for (i, sq_distance) in sq_distances.iter_mut().enumerate().filter(|(_, sq_distance)| sq_distance.is_nan())
            {
                *sq_distance = round_exact_sq_l2(x.row(i), job.codewords.row(labels[i] as usize), &mut self.look.sum);
            }
        }
        for &i in bad {
            sq_distances[i] = f32::NAN;
        }
    }
}
