//! The parameters of a codebook that follows its batches, and what it starts from.

use super::{EmaCodebook, EmaState, OP};
use crate::backend::{check_len, normalize};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kmeans::KMeans;
use crate::matrix::{Element, MatrixView};

/// How a codebook follows the vectors it sees, and what it starts from: the parameters of an [`EmaCodebook`].
///
/// ```
/// use codeword::{Codebook, Device, Ema, MatrixView};
/// let start = Codebook::new(MatrixView::new(&[0.0f32, 10.0], 2, 1)?, &Device::cpu())?;
/// let ema = Ema::new().decay(0.5).threshold(0.25).seed(7).start(&start)?;
/// assert_eq!(ema.state().sizes, [0.25, 0.25]);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Ema {
    pub(super) decay: f64,
    pub(super) epsilon: f64,
    pub(super) threshold: f64,
    pub(super) seed: u64,
    pub(super) cosine: bool,
}

impl Default for Ema {
    fn default() -> Ema {
        Ema { decay: 0.99, epsilon: 1e-5, threshold: 0.0, seed: 0, cosine: false }
    }
}

impl Ema {
    /// Decay 0.99, epsilon 1e-5, nothing revived, seed 0, Euclidean.
    pub fn new() -> Ema {
        Ema::default()
    }

    /// What is left of an average after a step, from 0 to below 1. With 0 only the last batch counts.
    pub fn decay(self, decay: f64) -> Ema {
        Ema { decay, ..self }
    }

    /// What the Laplace smoothing adds to every cluster size, from 1e-30 to 1.
    pub fn epsilon(self, epsilon: f64) -> Ema {
        Ema { epsilon, ..self }
    }

    /// The cluster size, in rows per batch, below which a codeword is dead and revived, at most 2^32; with 0 none is.
    /// EnCodec takes 2. A threshold suits a batch size: k codewords share n rows.
    pub fn threshold(self, threshold: f64) -> Ema {
        Ema { threshold, ..self }
    }

    /// What the choice of rows for dead codewords follows from.
    pub fn seed(self, seed: u64) -> Ema {
        Ema { seed, ..self }
    }

    /// Whether vectors and codewords are compared by their directions: both at length 1, as [`normalize`] makes them.
    pub fn cosine(self, cosine: bool) -> Ema {
        Ema { cosine, ..self }
    }

    /// Starts from the codewords of `codebook`, on its device; under [`Ema::cosine`] from their directions. Each
    /// begins with the size of a revived one: the threshold, or 1 where that is 0.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] for parameters outside their range.
    /// - Those of [`Codebook::codewords`], and under [`Ema::cosine`] of [`normalize`].
    pub fn start(&self, codebook: &Codebook) -> Result<EmaCodebook> {
        let size = if self.threshold > 0.0 { self.threshold } else { 1.0 };
        self.start_with(codebook, vec![size; codebook.k()])
    }

    /// Starts from what `kmeans` learns of a first batch, `[n, d]`, for `device`; under [`Ema::cosine`] from the
    /// directions of the means of its directions. Each codeword begins with the number of its rows as its size, at
    /// least 1. The batch counts as no step: it can be the first one's too.
    ///
    /// # Errors
    /// - Those of [`Ema::start`] and [`KMeans::fit`]: fewer rows than codewords, for one.
    ///
    /// ```
    /// use codeword::{Device, Ema, KMeans, MatrixView};
    /// let batch = MatrixView::new(&[0.0f32, 1.0, 10.0, 12.0, 11.0], 5, 1)?;
    /// let ema = Ema::new().start_kmeans(&KMeans::new(2).seed(1), batch, &Device::cpu())?;
    /// let mut sizes = ema.state().sizes.clone();
    /// sizes.sort_by(f64::total_cmp);
    /// assert_eq!(sizes, [2.0, 3.0]);
    /// # Ok::<(), codeword::Error>(())
    /// ```
    pub fn start_kmeans<T: Element>(
        &self,
        kmeans: &KMeans,
        batch: MatrixView<'_, T>,
        device: &Device,
    ) -> Result<EmaCodebook> {
        self.check()?;
        let fit = match self.cosine {
            true => kmeans.fit(normalize(batch)?.view(), device)?,
            false => kmeans.fit(batch, device)?,
        };
        let mut rows = vec![0u64; fit.codebook.k()];
        fit.assignment.labels.iter().for_each(|&label| rows[label as usize] += 1);
        self.start_with(&fit.codebook, rows.iter().map(|&rows| rows.max(1) as f64).collect())
    }

    fn start_with(&self, codebook: &Codebook, sizes: Vec<f64>) -> Result<EmaCodebook> {
        self.check()?;
        let codebook = match self.cosine {
            true => Codebook::new(normalize(codebook.codewords()?)?.view(), codebook.device())?,
            false => codebook.clone(),
        };
        let codewords = codebook.codewords()?;
        let of_codeword = |(j, &size): (usize, &f64)| codewords.row(j).iter().map(move |&e| size * f64::from(e));
        let sums = sizes.iter().enumerate().flat_map(of_codeword).collect();
        let state = EmaState { step: 0, sizes, sums };
        Ok(EmaCodebook { params: self.clone(), codebook, state })
    }

    /// Goes on from a codebook and a state that were saved, with the bits of a run that was never interrupted where the
    /// parameters are the same. The codewords of other programs go with their state likewise: PyTorch modules call
    /// them `embed`, `cluster_size` and `embed_avg`.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] for parameters outside their range, sizes that are negative, not finite or above
    ///   2^64, sums that are not finite or above 2^192, and under [`Ema::cosine`] codewords that have not length 1.
    /// - [`Error::Shape`] where there is not one size per codeword, or not one sum per component.
    /// - Those of [`Codebook::codewords`].
    pub fn restore(&self, codebook: &Codebook, state: EmaState) -> Result<EmaCodebook> {
        self.check()?;
        let (k, d) = (codebook.k(), codebook.d());
        check_len(OP, "sizes", k, state.sizes.len())?;
        check_len(OP, "sums", k * d, state.sums.len())?;
        let (most, widest) = (64f64.exp2(), 192f64.exp2());
        if let Some(j) = state.sizes.iter().position(|size| !(0.0..=most).contains(size)) {
            let got = format!("{} for codeword {j}", state.sizes[j]);
            return Err(invalid("sizes", "from 0 to 2^64", got));
        }
        if let Some(i) = state.sums.iter().position(|sum| !(-widest..=widest).contains(sum)) {
            let got = format!("{} for codeword {}", state.sums[i], i / d);
            return Err(invalid("sums", "from -2^192 to 2^192", got));
        }
        if self.cosine {
            let codewords = codebook.codewords()?;
            // Every component was rounded to 24 bits.
            let is_unit = |sq: f64| (1.0 - 22f64.exp2().recip()..=1.0 + 22f64.exp2().recip()).contains(&sq);
            let sq = |j: usize| codewords.row(j).iter().map(|&e| f64::from(e) * f64::from(e)).sum::<f64>();
            if let Some(j) = (0..k).find(|&j| !is_unit(sq(j))) {
                let got = format!("length {} of codeword {j}", sq(j).sqrt());
                return Err(invalid("codebook", "of length 1 in every codeword; start from it instead", got));
            }
        }
        Ok(EmaCodebook { params: self.clone(), codebook: codebook.clone(), state })
    }

    fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.decay) {
            return Err(invalid("decay", "at least 0 and below 1", self.decay));
        }
        if !(1e-30..=1.0).contains(&self.epsilon) {
            return Err(invalid("epsilon", "from 1e-30 to 1", self.epsilon));
        }
        if !(0.0..=32f64.exp2()).contains(&self.threshold) {
            return Err(invalid("threshold", "from 0 to 2^32", self.threshold));
        }
        Ok(())
    }
}

fn invalid(name: &'static str, expected: &str, got: impl ToString) -> Error {
    Error::InvalidParameter { op: OP, name, expected: expected.into(), got: got.to_string() }
}
