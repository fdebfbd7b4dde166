//! Passes over the same rows again and again, by codewords that move: what one pass learned of distances serves the next.

use super::AssignStats;
use super::cpu::bounds::{self, Bounds};
use super::cpu::on_host::OnHost;
use crate::codebook::{Codebook, Placed};
use crate::matrix::{AnyView, Element, Matrix, MatrixView, on_view};

/// Rows that are labelled with bounds from the first pass on, to learn when that pays for all.
const SCOUTS: usize = 256;
/// Bounds are carried from when the scouts look into less than this share of the groups on, half or, in many dimensions, a
/// quarter: a look into a group takes about twice as long as in a pass without bounds, in many dimensions three times (measured
/// with AVX2). The bounds of the scouts are older than those of all rows will be, which look into half as many.
const BEGIN: [f64; 2] = [0.5, 0.25];
const MANY: usize = 64;
/// And no longer, for good, where all rows look into more than this share.
const END: f64 = 0.5;
/// Bytes that bounds take at most where nobody demands them: memory that is granted may not be there.
const MOST: usize = 1 << 30;
/// Passes that the first with bounds, which looks into all groups, has to be worth.
const PASSES: usize = 4;

/// When bounds are carried.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carry {
    /// Where they pay.
    #[default]
    WherePays,
    /// From the second pass on, wherever they can be.
    Always,
    /// Never.
    Never,
}

/// What passes over rows in host memory by codewords on the processor carry from one to the next: bounds of distances, and at
/// first those of a few rows. Labels, distances and all that follows from them are those of passes without.
pub(crate) struct Carried<'a> {
    carry: Carry,
    x: AnyView<'a>,
    scouts: Option<Scouts>,
    bounds: Option<Bounds>,
    /// Groups that the last pass looked into; none where it was the first with bounds, which looks into all.
    visits: Option<usize>,
    /// Of the last pass, where it had no bounds.
    labels: Vec<u32>,
    /// Whether bounds were tried: they are not a second time.
    ended: bool,
}

/// A few rows of all.
struct Scouts {
    rows: Matrix<f32>,
    bounds: Bounds,
}

/// Bytes that this takes for each row of a training of `k` codewords by the processor: bounds and two labels.
pub fn bytes_per_row(k: usize) -> usize {
    if bounds::can_be(k) { 4 * bounds::stride(k) + 8 } else { 0 }
}

impl<'a> Carried<'a> {
    /// For up to `passes` passes over all rows of `x`, finite ones, by `k` codewords. None where nothing is to be carried.
    pub fn new(carry: Carry, x: AnyView<'a>, k: usize, passes: usize) -> Option<Carried<'a>> {
        let (n, d) = on_view!(x, x => (x.rows(), x.cols()));
        let is_wanted = match carry {
            Carry::Never => false,
            Carry::Always => true,
            Carry::WherePays => passes > PASSES && n.saturating_mul(bytes_per_row(k)) <= MOST,
        };
        (is_wanted && bounds::can_be(k) && d <= bounds::MAX_D).then_some(Carried {
            carry,
            x,
            scouts: None,
            bounds: None,
            visits: None,
            labels: Vec::new(),
            ended: false,
        })
    }

    /// The next pass is by these codewords, and `left` passes follow at most.
    pub fn begin(&mut self, codebook: &Codebook, left: usize) {
        #[cfg_attr(not(feature = "cuda"), expect(irrefutable_let_patterns, reason = "all lie there"))]
        let Placed::Cpu(host) = codebook.placed() else { return };
        let n = on_view!(self.x, x => x.rows());
        // Equal codewords would have every row of theirs look twice, and then for the lower index.
        if host.distinct() < codebook.k() {
            (self.scouts, self.bounds) = (None, None);
            return;
        }
        if let Some(bounds) = &mut self.bounds {
            bounds.follow(host);
            let visits = self.visits.replace(0);
            if self.carry == Carry::WherePays && visits.is_some_and(|visits| share(visits, n, codebook.k()) > END) {
                (self.bounds, self.ended) = (None, true);
            }
            return;
        }
        let pays = match self.carry {
            Carry::WherePays => !self.ended && left >= PASSES && self.scout(host),
            _ => true,
        };
        if pays && self.labels.len() == n {
            (self.scouts, self.visits) = (None, None);
            self.bounds = Bounds::new(host, n);
            self.ended = self.bounds.is_none();
            if let Some(bounds) = &mut self.bounds {
                bounds.start_from(&self.labels);
            }
        }
    }

    /// Whether bounds would pay, by what a few rows had to look into.
    fn scout(&mut self, host: &OnHost) -> bool {
        match &mut self.scouts {
            Some(scouts) => scouts.bounds.follow(host),
            none => *none = on_view!(self.x, x => scouts(x, host)),
        }
        let Some(Scouts { rows, bounds }) = &mut self.scouts else { return false };
        let (mut labels, mut sq_distances) = ([0; SCOUTS], [0.0; SCOUTS]);
        let n = rows.rows();
        let (_, visits) = bounds.assign(rows.view(), 0, host, &mut labels[..n], &mut sq_distances[..n]);
        share(visits, n, host.codewords.rows()) < BEGIN[usize::from(rows.cols() > MANY)]
    }

    /// Labels a block of the rows, from row `first` on. None where no bounds are carried.
    pub fn assign(
        &mut self,
        x: AnyView<'_>,
        first: usize,
        codebook: &Codebook,
        labels: &mut [u32],
        sq_distances: &mut [f32],
    ) -> Option<AssignStats> {
        #[cfg_attr(not(feature = "cuda"), expect(irrefutable_let_patterns, reason = "all lie there"))]
        let Placed::Cpu(host) = codebook.placed() else { return None };
        let bounds = self.bounds.as_mut()?;
        let (stats, visits) = on_view!(x, x => bounds.assign(x, first, host, labels, sq_distances));
        if let Some(all) = &mut self.visits {
            *all += visits;
        }
        Some(stats)
    }

    /// What a pass without bounds gave the rows from `first` on.
    pub fn keep(&mut self, first: usize, labels: &[u32]) {
        self.labels.truncate(first);
        // Without memory for them there is none for bounds, either.
        let left = on_view!(self.x, x => x.rows()).saturating_sub(first);
        if !self.ended && self.labels.len() == first && self.labels.try_reserve_exact(left).is_ok() {
            self.labels.extend_from_slice(labels);
        }
    }
}

/// Of all groups, those that rows looked into.
fn share(visits: usize, n: usize, k: usize) -> f64 {
    visits as f64 / (n * bounds::groups(k)) as f64
}

/// Rows from all over `x`.
fn scouts<T: Element>(x: MatrixView<'_, T>, host: &OnHost) -> Option<Scouts> {
    let n = x.rows().min(SCOUTS);
    let mut rows = vec![0.0; n * x.cols()];
    for (i, row) in rows.chunks_exact_mut(x.cols()).enumerate() {
        T::widen(x.row((i as u128 * x.rows() as u128 / n as u128) as usize), row);
    }
    Some(Scouts { rows: Matrix::new(rows, n, x.cols()).ok()?, bounds: Bounds::new(host, n)? })
}
