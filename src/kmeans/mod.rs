//! k-means: codewords learned from vectors, to the byte the same wherever and however often it is done.

mod init;
mod lloyd;
mod random;

use crate::backend::training::Training;
use crate::backend::{AssignStats, Assignment, check_weights, non_finite};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use random::Random;
use rayon::prelude::*;

const OP: &str = "k-means";

/// Which codewords k-means starts from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Init {
    /// k different rows, each as likely as any other. Costs nothing.
    RandomRows,
    /// k-means++ (Arthur and Vassilvitskii 2007): rows picked one after the other with a probability that grows with
    /// the squared distance to those picked before. k - 1 passes over the rows on the processor, each with one
    /// codeword: for thousands of codewords that takes longer than the iterations.
    #[default]
    PlusPlus,
    /// The codewords of this codebook, k of them, on whatever device.
    Given(Codebook),
}

/// Lloyd's k-means with exact labels. The same seed and rows give the same codebook, byte for byte, with every
/// instruction set, thread count, device and memory limit.
///
/// Each iteration assigns every row to its nearest codeword ([`assign`](crate::assign)) and moves every codeword to
/// the mean of its rows ([`accumulate`](crate::accumulate), the quotient rounded once to f32). A codeword that no row
/// of any weight is nearest to is moved to the row with the largest share in the inertia, the second such codeword to
/// the second largest and so on, the lowest row among equals, passing over rows that equal another codeword; where no
/// row is left that is off its codeword, it stays where it is. That and the mean never raise the inertia, but for
/// rounding.
///
/// Random numbers are those of ChaCha8 with the seed (8 bytes, little-endian, then zeros) as its key and the number of
/// the run as its stream.
///
/// | input | outcome |
/// |---|---|
/// | fewer rows than codewords, or fewer with a weight above 0 | [`Error::Shape`] |
/// | fewer different rows than codewords, all rows equal, say | every row becomes a codeword, if iterations last; others are copies or stay |
/// | k = 1 | the mean of all rows |
/// | a row with a NaN or an infinity | [`Error::NonFinite`] names the first |
/// | rows of weight 0 | labelled, and counted nowhere else |
/// | rows whose squared distance leaves f32 | the inertia is infinite, so that it chooses no run and no row among these; labels and means are not affected |
/// | rows so near each other that squared distances round to 0 in f32, 10^-24 apart, say | they have no share in the inertia: k-means++ picks them by weight, codewords without rows stay |
///
/// ```
/// use codeword::{Device, KMeans, MatrixView};
/// let x = MatrixView::new(&[0.0f32, 1.0, 10.0, 12.0, 1.0, 11.0], 6, 1)?;
/// let fit = KMeans::new(2).seed(3).fit(x, &Device::best())?;
/// let mut codewords = fit.codebook.codewords()?.row(0).to_vec();
/// codewords.extend(fit.codebook.codewords()?.row(1));
/// codewords.sort_by(f32::total_cmp);
/// assert_eq!(codewords, [2.0 / 3.0, 11.0]);
/// assert_eq!(fit.assignment.labels[0], fit.assignment.labels[1]);
/// assert!(fit.converged && fit.curve.is_sorted_by(|a, b| a >= b));
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KMeans {
    k: usize,
    init: Init,
    iterations: usize,
    tolerance: f64,
    seed: u64,
    n_init: usize,
}

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
}

/// What [`KMeans::fit_with`] tells as it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// [`Init::PlusPlus`] has picked another codeword.
    Start {
        /// The run, from 0.
        run: usize,
        /// How many are picked.
        codewords: usize,
    },
    /// Every row has been labelled.
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
}

impl KMeans {
    /// `k` codewords, started by k-means++, 25 iterations at most, one run, tolerance 0, seed 0.
    pub fn new(k: usize) -> KMeans {
        KMeans { k, init: Init::default(), iterations: 25, tolerance: 0.0, seed: 0, n_init: 1 }
    }

    /// Where to start.
    pub fn init(self, init: Init) -> KMeans {
        KMeans { init, ..self }
    }

    /// How often to move the codewords at most; with 0 the start itself is the result.
    pub fn iterations(self, iterations: usize) -> KMeans {
        KMeans { iterations, ..self }
    }

    /// Stop after a move that lowers the inertia by no more than this share of it, from 0 to below 1. With 0 only a
    /// codebook that nothing improves any more ends it early.
    pub fn tolerance(self, tolerance: f64) -> KMeans {
        KMeans { tolerance, ..self }
    }

    /// What the random numbers follow from.
    pub fn seed(self, seed: u64) -> KMeans {
        KMeans { seed, ..self }
    }

    /// How many runs to make, each with another start; the one with the lowest inertia counts, the first among equals.
    pub fn n_init(self, n_init: usize) -> KMeans {
        KMeans { n_init, ..self }
    }

    /// Learns codewords from the rows of `x`, `[n, d]`, for `device`, which assigns the rows in every iteration. A CUDA
    /// device with room for the rows gets a copy of them, once, and adds them up as well; then only distances come back,
    /// and codewords where one has no rows. Without that room, which the log tells, the rows pass through it in every
    /// iteration, and the processor adds them up ([`accumulate`](crate::accumulate)). Takes 12 bytes per row, 28 where a
    /// codeword has no rows, 8 more with several runs, and about 16 k d bytes beside `x` and a prepared codebook, two with
    /// several runs; on a CUDA device the rows, 8 to 22 bytes for each, and about 30 k d.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] for k = 0 or beyond 2^32 - 2, `n_init` = 0, several runs from one given codebook,
    ///   and a tolerance outside [0, 1).
    /// - [`Error::Shape`] where there are fewer rows than codewords, no columns, 2^32 rows or more, or a given codebook
    ///   has another shape.
    /// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity.
    /// - Those of [`Codebook::new`] and [`assign`](crate::assign).
    pub fn fit<T: Element>(&self, x: MatrixView<'_, T>, device: &Device) -> Result<KMeansFit> {
        self.fit_with(x, None, device, |_| Ok::<(), Error>(()))
    }

    /// [`KMeans::fit`] of rows that count as often as their `weights` say, told step by step: an error of `observe`
    /// ends the training and is handed back.
    ///
    /// # Errors
    /// - Those of [`KMeans::fit`] and of `observe`.
    /// - [`Error::Shape`] where there is not one weight per row, or fewer rows than codewords have a weight above 0.
    /// - [`Error::InvalidParameter`] naming the first weight that is negative or not finite.
    ///
    /// ```
    /// use codeword::{Device, Error, KMeans, MatrixView, Step};
    /// let x = MatrixView::new(&[0.0f32, 1.0, 5.0, 9.0], 4, 1)?;
    /// let fit = KMeans::new(1).fit_with(x, Some(&[3.0, 1.0, 0.0, 0.0]), &Device::cpu(), |step| {
    ///     if let Step::Iteration { iteration, inertia, .. } = step {
    ///         println!("{iteration}: {inertia}");
    ///     }
    ///     Ok::<(), Error>(())
    /// })?;
    /// assert_eq!((fit.codebook.codewords()?.row(0), fit.inertia), (&[0.25f32][..], 0.75));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fit_with<T: Element, E: From<Error>>(
        &self,
        x: MatrixView<'_, T>,
        weights: Option<&[f32]>,
        device: &Device,
        mut observe: impl FnMut(Step) -> Result<(), E>,
    ) -> Result<KMeansFit, E> {
        self.check(x, weights)?;
        let problem = Problem { x, weights, k: self.k };
        let mut rows = Training::new(x, weights, self.k, device)?;
        let mut best: Option<KMeansFit> = None;
        for run in 0..self.n_init {
            let mut random = Random::new(self.seed, run as u64);
            let start = match &self.init {
                Init::RandomRows => init::random_rows(&problem, &mut random)?,
                Init::PlusPlus => init::plus_plus(&problem, run, &mut random, &mut observe)?,
                Init::Given(codebook) => {
                    let codewords = codebook.codewords()?;
                    let rows = (0..self.k).flat_map(|j| codewords.row(j)).copied().collect();
                    Matrix::new(rows, self.k, codewords.cols())?
                }
            };
            let fit = lloyd::lloyd(self, &problem, &mut rows, run, start, device, &mut observe)?;
            if best.as_ref().is_none_or(|best| fit.inertia < best.inertia) {
                best = Some(fit);
            }
        }
        // There was a first run: that was checked.
        Ok(best.ok_or_else(|| invalid("n_init", "at least 1", "0"))?)
    }

    /// Parameters, sizes and values, once.
    fn check<T: Element>(&self, x: MatrixView<'_, T>, weights: Option<&[f32]>) -> Result<()> {
        let (n, d, k) = (x.rows(), x.cols(), self.k);
        if k == 0 || k >= u32::MAX as usize {
            return Err(invalid("k", "from 1 to 4294967294", k));
        }
        if self.n_init == 0 {
            return Err(invalid("n_init", "at least 1", 0));
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            return Err(invalid("tolerance", "at least 0 and below 1", self.tolerance));
        }
        let shape = |expected: String, got: String| Err(Error::Shape { op: OP, expected, got });
        if let Init::Given(codebook) = &self.init {
            if self.n_init > 1 {
                return Err(invalid("n_init", "1 with a given codebook, for all runs would be one", self.n_init));
            }
            if (codebook.k(), codebook.d()) != (k, d) {
                let got = format!("{} x {}", codebook.k(), codebook.d());
                return shape(format!("a codebook of {k} x {d} to start from"), got);
            }
        }
        if d == 0 {
            return shape("vectors of at least one column".into(), format!("{n} x 0"));
        }
        if u32::try_from(n).is_err() {
            return shape("fewer than 2^32 vectors".into(), n.to_string());
        }
        let mut heavy = n;
        if let Some(weights) = weights {
            check_weights(OP, n, weights)?;
            heavy = weights.iter().filter(|&&weight| weight > 0.0).count();
        }
        if heavy < k {
            let of_weight = if weights.is_some() { " of weight above 0" } else { "" };
            let expected = format!("at least {k} vectors{of_weight}, as many as codewords");
            return shape(expected, heavy.to_string());
        }
        // Without a way out in the middle, so that it runs at the speed of memory.
        let is_bad = |i: usize| !x.row(i).iter().fold(true, |finite, value| finite & value.to_f32().is_finite());
        match (0..n).into_par_iter().with_min_len(256).position_first(is_bad) {
            Some(row) => Err(non_finite(OP, x, row, "remove the vector")),
            None => Ok(()),
        }
    }
}

fn invalid(name: &'static str, expected: &str, got: impl ToString) -> Error {
    Error::InvalidParameter { op: OP, name, expected: expected.into(), got: got.to_string() }
}

/// What is to be learned from.
struct Problem<'a, T> {
    x: MatrixView<'a, T>,
    weights: Option<&'a [f32]>,
    k: usize,
}

impl<T: Element> Problem<'_, T> {
    fn weight(&self, i: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[i].into())
    }

    /// The share of row `i` in the inertia: exact. Rows of no weight have none, however far they are.
    fn share(&self, i: usize, sq_distances: &[f32]) -> f64 {
        match self.weight(i) {
            0.0 => 0.0,
            weight => weight * f64::from(sq_distances[i]),
        }
    }

    /// Appends row `i` as f32.
    fn push_row(&self, i: usize, to: &mut Vec<f32>) {
        to.extend(self.x.row(i).iter().map(|value| value.to_f32()));
    }
}
