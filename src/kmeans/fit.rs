//! What training gives, and what it tells on the way.

use crate::backend::{AssignStats, Assignment};
use crate::codebook::Codebook;
use crate::matrix::Matrix;

/// What k-means learned. Labels, distances and inertia belong to this very codebook, converged or not.
#[derive(Clone, Debug)]
pub struct KMeansFit {
    /// k codewords, on the device that was asked for.
    pub codebook: Codebook,
    /// What [`assign`](crate::assign) gives for the rows and this codebook.
    pub assignment: Assignment,
    /// Sum over the rows of weight times squared distance: of the distances above, each the real number rounded to f32,
    /// in f64, in an order that n and d decide. Infinite where one of them is.
    pub inertia: f64,
    /// The inertia of the start and after every iteration: the last one is the inertia above.
    pub curve: Vec<f64>,
    /// Whether it ended because nothing changed any more, or not enough; else the iterations were used up.
    pub converged: bool,
    /// The run, from 0, that had the lowest inertia.
    pub run: usize,
    /// How many rows each tier settled, in all passes of this run together.
    pub stats: AssignStats,
}

impl KMeansFit {
    /// How often the codewords were moved.
    pub fn iterations(&self) -> usize {
        self.curve.len() - 1
    }

    /// What there is to say without single rows, and the labels of these.
    pub(crate) fn into_parts(self) -> (SourceFit, Vec<u32>) {
        (self.without_rows(), self.assignment.labels)
    }

    /// All but what it holds of single rows.
    pub(crate) fn without_rows(&self) -> SourceFit {
        let mut counts = vec![0; self.codebook.k()];
        self.assignment.labels.iter().for_each(|&label| counts[label as usize] += 1);
        let (codebook, curve) = (self.codebook.clone(), self.curve.clone());
        let KMeansFit { inertia, converged, run, stats, .. } = *self;
        SourceFit { codebook, counts, inertia, curve, converged, run, stats }
    }
}

/// What k-means learned from a [`RowSource`](crate::RowSource): as [`KMeansFit`], without anything of single rows.
#[derive(Clone, Debug)]
pub struct SourceFit {
    /// k codewords, on the device that was asked for.
    pub codebook: Codebook,
    /// Rows that each codeword is nearest to, `[k]`.
    pub counts: Vec<u64>,
    /// As [`KMeansFit::inertia`].
    pub inertia: f64,
    /// As [`KMeansFit::curve`].
    pub curve: Vec<f64>,
    /// As [`KMeansFit::converged`].
    pub converged: bool,
    /// As [`KMeansFit::run`].
    pub run: usize,
    /// As [`KMeansFit::stats`].
    pub stats: AssignStats,
}

impl SourceFit {
    /// How often the codewords were moved.
    pub fn iterations(&self) -> usize {
        self.curve.len() - 1
    }

    /// With the labels of the last pass.
    pub(super) fn with(self, assignment: Assignment) -> KMeansFit {
        let SourceFit { codebook, inertia, curve, converged, run, stats, .. } = self;
        KMeansFit { codebook, assignment, inertia, curve, converged, run, stats }
    }
}

/// Where a run stands between two iterations: whoever keeps it can go on from there ([`Init::Resume`](crate::Init)).
#[derive(Clone, Debug, PartialEq)]
pub struct KMeansState {
    /// The codewords that rows are to be labelled by next, `[k, d]`.
    pub codewords: Matrix<f32>,
    /// The inertia of the start and after every iteration so far, but not that of these codewords.
    pub curve: Vec<f64>,
    /// With [`KMeans::minibatch`](crate::KMeans::minibatch) the weight of the rows that each codeword has seen, `[k]`;
    /// else empty.
    pub weights: Vec<f64>,
}

/// What training tells as it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// [`Init::PlusPlus`](crate::Init::PlusPlus) has picked another codeword, or the end of
    /// [`Init::Parallel`](crate::Init::Parallel) has, or [`Init::Hierarchical`](crate::Init::Hierarchical) has learned
    /// those of some more parts.
    Start {
        /// The run, from 0.
        run: usize,
        /// How many are picked.
        codewords: usize,
    },
    /// Another block of rows has been worked on.
    Rows {
        /// The run, from 0.
        run: usize,
        /// How often the codewords have been moved; none while the start is sought, or rows are brought to a device.
        iteration: Option<usize>,
        /// Rows so far in this pass.
        rows: usize,
    },
    /// Every row has been labelled, or every row of a batch.
    Iteration {
        /// The run, from 0.
        run: usize,
        /// How often the codewords have been moved.
        iteration: usize,
        /// The inertia now.
        inertia: f64,
        /// The inertia before the last move; none at the start.
        before: Option<f64>,
    },
    /// A rotation is sought ([`OptimizedProductQuantizer`](crate::OptimizedProductQuantizer)): told again and again, so that the
    /// training can be ended meanwhile.
    Rotation,
    /// There are new codewords: the start, or those of the last move. A [`KMeansState`] that is kept now goes on here.
    Moved {
        /// The run, from 0.
        run: usize,
        /// How often the codewords have been moved.
        iteration: usize,
    },
}
