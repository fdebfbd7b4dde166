//! k-means: codewords learned from vectors, to the byte the same wherever and however often it is done.

mod check;
mod ema;
mod farthest;
mod fit;
mod hierarchy;
mod init;
mod labels;
mod lloyd;
mod minibatch;
mod parallel;
mod progressive;
mod random;
mod source;
mod stop;

use crate::backend::carried::Carry;
use crate::backend::training::Training;
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
pub use ema::{Ema, EmaCodebook, EmaState, EmaStep, EmaUsage};
pub use fit::{KMeansFit, KMeansState, SourceFit, Step};
use labels::Labels;
use random::Random;
pub use source::RowSource;
use stop::{Observe, Stop, with_own_errors};

const OP: &str = "k-means";

/// Which codewords k-means starts from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Init {
    /// k different rows, each as likely as any other. Costs nothing.
    RandomRows,
    /// k-means++ (Arthur and Vassilvitskii 2007): rows picked one after the other with a probability that grows with
    /// the squared distance to those picked before. k - 1 passes over the rows on the processor, each with one
    /// codeword: over a short form of 2 d + 10 bytes for each, up to 1 GiB of all, where they are in memory. For thousands
    /// of codewords that takes longer than the iterations.
    #[default]
    PlusPlus,
    /// k-means|| (Bahmani et al. 2012): five rounds that pick about 2k rows each with a probability that grows with the
    /// squared distance to those picked before, thinned to k by k-means++ among them alone. Six passes over the rows,
    /// which together take as long as about ten iterations.
    Parallel,
    /// For thousands of codewords: k-means within parts of the rows. The floor of sqrt(k) codewords are learned from at
    /// most 256 times as many random rows, whose weights do not count; every row belongs to the nearest. Each part has
    /// its share of k, in proportion to its rows of a weight above 0, by largest remainders, and learns so many codewords
    /// from these rows, at most 256 random ones for each. Both levels start by k-means++ and move codewords ten times at
    /// most. Takes about as long as one iteration of sqrt(k) times 30 codewords, 4 bytes a row and 8 for each of the parts
    /// at hand, and 256 MiB of their rows with the short form of k-means++, or those of one part that has more, without.
    Hierarchical,
    /// For rows much like noise, as late stages of a [`ResidualQuantizer`](crate::ResidualQuantizer) have them: of at most
    /// 256 k random rows, whose weights do not count, the first principal components, 64 at most, and codewords moved ten
    /// times in the first of them, from there in the first two, four and so on to all; the means of the rows then nearest are
    /// the start. Takes as long as some 20 iterations in as many dimensions as there are components, 4 d + 280 bytes for each
    /// of the rows, 3 MiB at least where there are 4096, and 1.5 KB for each dimension. Where a row leaves f32 when it is
    /// turned, the first dimensions take the place of the components.
    Progressive,
    /// The codewords of this codebook, k of them, on whatever device.
    Given(Codebook),
    /// Where an earlier training of one run was when its state was kept, with the same parameters: ends with the same
    /// bytes as if it had never stopped. More iterations than before go on from its end.
    Resume(KMeansState),
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
/// | k = 1 | the mean of all rows; with mini-batches of those drawn |
/// | k-means\|\| meets fewer candidates than codewords, for want of different rows say | some codewords start as copies, which the first iteration moves as those without rows |
/// | mini-batches of more rows than there are | rows drawn several times count several times |
/// | a sample of fewer rows than codewords | [`Error::Shape`], as of rows |
/// | a row with a NaN or an infinity | [`Error::NonFinite`] names the first; of a [`RowSource`] once a pass meets it |
/// | rows of weight 0 | labelled, and counted as rows of their codeword and nowhere else |
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
    minibatch: Option<usize>,
    carry: Carry,
    sketch: bool,
}

impl KMeans {
    /// `k` codewords, started by k-means++, 25 iterations at most, one run, tolerance 0, seed 0.
    pub fn new(k: usize) -> KMeans {
        KMeans {
            k,
            init: Init::default(),
            iterations: 25,
            tolerance: 0.0,
            seed: 0,
            n_init: 1,
            minibatch: None,
            carry: Carry::default(),
            sketch: true,
        }
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

    /// When bounds are carried from one iteration to the next. Changes no result.
    #[doc(hidden)]
    pub fn carry(self, carry: Carry) -> KMeans {
        KMeans { carry, ..self }
    }

    /// Whether k-means++ keeps rows that are held in short, where that pays. Changes no result.
    #[doc(hidden)]
    pub fn sketch(self, sketch: bool) -> KMeans {
        KMeans { sketch, ..self }
    }

    /// Number of codewords to learn.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// The same with another seed, for one of several that are learned beside each other.
    pub(crate) fn raise_seed(self, by: u64) -> KMeans {
        KMeans { seed: self.seed.wrapping_add(by), ..self }
    }

    /// How many runs to make, each with another start; the one with the lowest inertia counts, the first among equals.
    pub fn n_init(self, n_init: usize) -> KMeans {
        KMeans { n_init, ..self }
    }

    /// Mini-batches of `rows` rows (Sculley 2010) in place of Lloyd's iteration: an iteration draws that many rows, each
    /// uniformly from all of them, again and again the same where it falls so, and moves the codewords by these alone.
    /// For each, in ascending order, with w its weight, j its nearest codeword and v_j the weight of all rows that j has
    /// seen so far: v_j = v_j + w, eta = w / v_j, e_j = (1 - eta) e_j + eta z, every operation rounded to f64, and e_j to
    /// f32 after the batch. A codeword that sees no row stays.
    ///
    /// All iterations are made, and then one pass labels every row: labels and the inertia are those of the result. The
    /// curve before is an estimate: the inertia of the batch, before it moved anything, times n / `rows`. Batch i of run
    /// r draws from stream r + 2^32 (i + 1).
    pub fn minibatch(self, rows: usize) -> KMeans {
        KMeans { minibatch: Some(rows), ..self }
    }

    /// Learns codewords from the rows of `x`, `[n, d]`, for `device`, which assigns the rows in every iteration. A CUDA
    /// device with room for the rows gets a copy of them, once, and adds them up as well; then labels and distances come
    /// back, and codewords. Without that room, which the log tells, and for mini-batches, the rows pass through it in
    /// every iteration, and the processor adds them up ([`accumulate`](crate::accumulate)). Takes 8 bytes per row, 16 with
    /// several runs, and about 16 k d bytes beside `x` and a prepared codebook, two with several runs; and while a start
    /// is sought, 2 d + 14 bytes per row for k-means++, or 4 where that short form would be more than 1 GiB, rows have more than
    /// 4096 dimensions or codewords are fewer than 8, 8 and 100 k d for
    /// k-means||, 12 for the hierarchical start. On a CUDA device the rows, 8 to 22 bytes for each, and about 30 k d.
    ///
    /// On the processor, with 17 to 1024 codewords, an iteration leaves the next a lower bound of the distances to every 16
    /// codewords (Yinyang k-means, Ding et al. 2015): where codewords move little, most labels follow from these. That takes
    /// 64 bytes per row for every 256 codewords begun, from when a few rows show that it pays, 4 more per row and 16 k d
    /// more; it is not done where the bytes of the rows were more than 1 GiB. It changes no result but the tiers in
    /// [`KMeansFit::stats`].
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] for k = 0 or beyond 2^32 - 2, `n_init` = 0, several runs from one given codebook or
    ///   state, a tolerance outside [0, 1), batches of no rows or with a tolerance, and a state of other parameters.
    /// - [`Error::Shape`] where there are fewer rows than codewords, no columns, or a given codebook has another shape.
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
    pub fn fit_with<T: Element, E: From<Error> + Send>(
        &self,
        x: MatrixView<'_, T>,
        weights: Option<&[f32]>,
        device: &Device,
        mut observe: impl FnMut(Step) -> Result<(), E>,
    ) -> Result<KMeansFit, E> {
        let mut source = RowSource::held(x);
        let (fit, labels) = with_own_errors(
            &mut source,
            |step, _| observe(step),
            |source, observe| self.learn(source, weights, device, true, observe),
        )?;
        Ok(fit.with(labels.into_assignment()))
    }

    /// [`KMeans::fit_with`] of rows that need not be in memory: the same codebook, inertia and curve, to the last bit.
    /// `observe` is also given where the training stands, once there is a start.
    ///
    /// Of rows that are not held in memory nothing is held but what a start needs while it is sought: 4 bytes for k-means++, 8 for k-means||, 12 for
    /// the hierarchical start, 8 for random rows with weights; the batch, where there are mini-batches, with 16 bytes a
    /// row. Every iteration reads the rows once, and once more after a pass in which a codeword had no rows; k-means++
    /// reads them k - 1 times, k-means|| six times, the hierarchical start once and then by single rows, as random rows
    /// and mini-batches do. A CUDA device with room for all rows reads them once, before the start is sought, and keeps
    /// them for all iterations, but for those that look for a new place for a codeword; mini-batches do not.
    ///
    /// # Errors
    /// - Those of [`KMeans::fit_with`] and of reading.
    pub fn fit_source<E: From<Error> + Send>(
        &self,
        source: &mut RowSource<'_, E>,
        weights: Option<&[f32]>,
        device: &Device,
        observe: impl FnMut(Step, Option<&KMeansState>) -> Result<(), E>,
    ) -> Result<SourceFit, E> {
        let train = |source: &mut RowSource<'_, Stop>, observe: &mut Observe<'_>| {
            self.learn(source, weights, device, false, observe)
        };
        Ok(with_own_errors(source, observe, train)?.0)
    }

    /// All runs. Labels are of all rows where that is wanted.
    fn learn(
        &self,
        source: &mut RowSource<'_, Stop>,
        weights: Option<&[f32]>,
        device: &Device,
        with_labels: bool,
        observe: &mut Observe<'_>,
    ) -> Result<(SourceFit, Labels), Stop> {
        self.check(source.rows(), source.cols(), weights)?;
        if source.view().is_some() {
            source.check_finite()?;
        }
        // Mini-batches read single rows.
        let on_device = match self.minibatch {
            None => self.on_device(source, weights, device, &mut |step| observe(step, None))?,
            Some(_) => None,
        };
        let mut problem = Problem { source, weights: Weights(weights), k: self.k, device, on_device };
        let mut best: Option<(SourceFit, Labels)> = None;
        for run in 0..self.n_init {
            let state = self.start(&mut problem, run, &mut |step| observe(step, None))?;
            let mut labels = Labels::new(problem.source.rows(), with_labels)?;
            let fit = match self.minibatch {
                None => lloyd::lloyd(self, &mut problem, run, state, &mut labels, observe)?,
                Some(batch) => minibatch::minibatch(self, batch, &mut problem, run, state, &mut labels, observe)?,
            };
            if best.as_ref().is_none_or(|(best, _)| fit.inertia < best.inertia) {
                best = Some((fit, labels));
            }
        }
        // There was a first run: that was checked.
        Ok(best.ok_or_else(|| check::invalid("n_init", "at least 1", "0"))?)
    }

    /// The rows on the device, where it has room for them.
    fn on_device(
        &self,
        source: &mut RowSource<'_, Stop>,
        weights: Option<&[f32]>,
        device: &Device,
        observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
    ) -> Result<Option<Training>, Stop> {
        let shape = (source.rows(), source.cols());
        let Some(mut training) = Training::new(source.dtype(), shape, weights, self.k, device)? else {
            return Ok(None);
        };
        let is_read = source.view().is_none();
        source.each_block(|first, x| {
            if is_read {
                source::check_block(first, x)?;
                observe(Step::Rows { run: 0, iteration: None, rows: first + source::len(x) })?;
            }
            Ok(training.put(first, x)?)
        })?;
        Ok(Some(training))
    }

    /// Where a run starts.
    fn start(
        &self,
        problem: &mut Problem<'_, '_>,
        run: usize,
        observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
    ) -> Result<KMeansState, Stop> {
        let mut random = Random::new(self.seed, run as u64);
        let weights = problem.weights;
        let codewords = match &self.init {
            Init::RandomRows => init::random_rows(problem.source, weights, self.k, &mut random)?,
            Init::PlusPlus => init::plus_plus(
                problem.source,
                |i| weights.weight(i),
                (self.k, self.sketch),
                run,
                &mut random,
                observe,
            )?,
            Init::Parallel => parallel::parallel(problem, self.sketch, run, &mut random, observe)?,
            Init::Hierarchical => hierarchy::hierarchical(problem, run, &mut random, observe)?,
            Init::Progressive => progressive::progressive(problem, run, &mut random, observe)?,
            Init::Given(codebook) => {
                let codewords = codebook.codewords()?;
                let rows = (0..self.k).flat_map(|j| codewords.row(j)).copied().collect();
                Matrix::new(rows, self.k, codewords.cols())?
            }
            Init::Resume(state) => return Ok(state.clone()),
        };
        let seen = if self.minibatch.is_some() { self.k } else { 0 };
        Ok(KMeansState { codewords, curve: Vec::new(), weights: vec![0.0; seen] })
    }
}

/// What is to be learned from.
struct Problem<'p, 's> {
    source: &'p mut RowSource<'s, Stop>,
    weights: Weights<'p>,
    k: usize,
    device: &'p Device,
    /// The rows again, where the device has room for them.
    on_device: Option<Training>,
}

/// What every row counts: 1 where nothing else is said.
#[derive(Clone, Copy)]
struct Weights<'a>(Option<&'a [f32]>);

impl Weights<'_> {
    fn weight(&self, i: usize) -> f64 {
        self.0.map_or(1.0, |weights| weights[i].into())
    }

    /// The share of row `i` in the inertia: exact. Rows of no weight have none, however far they are.
    fn share(&self, i: usize, sq_distance: f32) -> f64 {
        match self.weight(i) {
            0.0 => 0.0,
            weight => weight * f64::from(sq_distance),
        }
    }
}
