//! Codebooks that learn batch by batch: moving averages of how many rows each codeword serves, and of their sum.

mod params;
mod revive;

use super::random::Random;
use crate::backend::cpu::normalize::direction;
use crate::backend::{AssignOptions, Assignment, SENTINEL, Sums, accumulate, assign, quotients};
use crate::backend::{check_columns, check_len, non_finite, normalize, normalize_where};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use crate::metrics::usage;
pub use params::Ema;
use rayon::prelude::*;

const OP: &str = "EMA";

/// What an [`EmaCodebook`] remembers beside its codewords. Save both to go on later ([`Ema::restore`]).
#[derive(Clone, Debug, PartialEq)]
pub struct EmaState {
    /// Steps made. The random numbers of a step follow from the seed and this.
    pub step: u64,
    /// Moving average of the rows per batch of each codeword: its cluster size N, `[k]`.
    pub sizes: Vec<f64>,
    /// Moving average of the sum of these rows: m, `[k, d]` row-major.
    pub sums: Vec<f64>,
}

/// A codebook that follows its vectors by exponential moving averages, in place of the codebook loss (van den Oord,
/// Vinyals, Kavukcuoglu 2017, appendix A.1; the smoothing of Sonnet and of VQGAN's `EMAVectorQuantizer`).
///
/// One step, [`EmaCodebook::update`], with the labels of a batch under the codebook as it was before:
///
/// 1. n_j and s_j, `[d]`, are count and sum of the rows labelled j, as [`accumulate`] adds them.
/// 2. N_j = decay N_j + (1 - decay) n_j, and likewise m_j = decay m_j + (1 - decay) s_j.
/// 3. n = N_0 + N_1 + …, from zero; size_j = (N_j + epsilon) / (n + k epsilon) n.
/// 4. e_j = m_j / size_j, the real quotient rounded once to f32.
/// 5. Where N_j is below the threshold, codeword j is dead and revived: e_j becomes a row of the batch,
///    N_j the threshold, m_j = N_j e_j.
///
/// All of it is f64, each operation rounded on its own in the order written, so that state and codewords are the same
/// bytes with every instruction set, thread count and device, which may make the labels.
///
/// Under [`Ema::cosine`] the rows are those of [`normalize`], and e_j = m_j / |m_j| by the same rule, whatever the size,
/// where n_j is not 0.
///
/// Rows for dead codewords are drawn from the batch, each as likely as any other, none twice, passing over those that
/// equal a codeword or are without a label; where rows run out, codewords of higher index stay dead for now. Random
/// rows follow the density of the vectors, as EnCodec and vector-quantize-pytorch choose them; the farthest rows, which
/// k-means takes, would be the outliers of an encoder that is still learning. A revived codeword lives on where
/// the next batch has as many rows for it as the threshold says. The draw is a Fisher-Yates shuffle of the labelled rows
/// by ChaCha8, keyed by the seed as in [`KMeans`](crate::KMeans), with the number of the step, from 1, as its stream.
///
/// | input | outcome |
/// |---|---|
/// | no rows, or none with a label | [`Error::Shape`] |
/// | fewer rows than codewords | a step; for [`Ema::start_kmeans`] [`Error::Shape`] |
/// | a row with a NaN or an infinity | [`Error::NonFinite`] names the first; rows labelled [`SENTINEL`] may be anything |
/// | a row of zeros | a vector like others; under [`Ema::cosine`] [`Error::InvalidParameter`] names the first |
/// | a codeword without rows in the batch | moves towards zero as its size nears epsilon, and not at all under [`Ema::cosine`] |
/// | under [`Ema::cosine`] sums that cancel to zero | the codeword stays |
/// | a codeword beyond f32, from vectors near its ends | [`Error::NonFinite`] |
/// | all rows equal codewords, and some codewords are dead | none is revived |
///
/// After an error nothing has changed.
///
/// Takes 8 k d + 8 k bytes beside the codebook. A step takes the labels and distances of the batch, 12 bytes a row, two
/// passes over it, and 12 k d bytes until it is done; with cosines a copy of the batch as f32 and a third pass.
///
/// ```
/// use codeword::{Codebook, Device, Ema, MatrixView, quantize};
/// let start = Codebook::new(MatrixView::new(&[0.0f32, 0.0, 1.0, 1.0], 2, 2)?, &Device::best())?;
/// let mut ema = Ema::new().decay(0.5).start(&start)?;
///
/// let batch = MatrixView::new(&[1.5f32, 2.0, 2.5, 4.0, -1.0, 0.0], 3, 2)?;
/// let step = ema.update(batch)?;
/// assert_eq!(step.assignment.labels, [1, 1, 0]);
/// assert_eq!((step.usage.rows, step.usage.utilization), (3, 1.0));
/// assert_eq!(ema.state().sizes, [1.0, 1.5]); // 0.5 x 1 + 0.5 x 1, 0.5 x 1 + 0.5 x 2
/// assert_eq!(ema.state().sums[2..], [2.5, 3.5]); // 0.5 x (1, 1) + 0.5 x (4, 6)
/// assert!((ema.codebook().codewords()?.row(1)[0] - 2.5 / 1.5).abs() < 1e-5);
///
/// // Where the labels are there already, from a forward pass on whatever device, nothing is assigned again.
/// let forward = quantize(batch, ema.codebook(), 0.25, Default::default())?;
/// ema.update_labelled(batch, &forward.assignment.labels)?;
///
/// // What a checkpoint holds, and the way back.
/// let (codebook, state) = (ema.codebook().clone(), ema.state().clone());
/// let again = Ema::new().decay(0.5).restore(&codebook, state)?;
/// assert_eq!(again.state(), ema.state());
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EmaCodebook {
    params: Ema,
    codebook: Codebook,
    state: EmaState,
}

/// What [`EmaCodebook::update`] returns.
#[derive(Clone, Debug)]
pub struct EmaStep {
    /// Labels and squared distances under the codebook before the step.
    pub assignment: Assignment,
    /// How the batch used that codebook.
    pub usage: EmaUsage,
}

/// How a batch used a codebook, and which codewords that left dead.
#[derive(Clone, Debug, PartialEq)]
pub struct EmaUsage {
    /// Rows with a label.
    pub rows: u64,
    /// exp(-sum p ln p) of the usage p, as in [`crate::Metrics`].
    pub perplexity: f64,
    /// Share of codewords that the batch used.
    pub utilization: f64,
    /// Codewords that the batch did not use.
    pub unused: u64,
    /// Codewords whose size fell below the threshold.
    pub dead: u64,
    /// How many of these became rows of the batch.
    pub revived: u64,
}

impl EmaCodebook {
    /// The codebook as it is now, prepared for its device.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// What is remembered beside the codewords.
    pub fn state(&self) -> &EmaState {
        &self.state
    }

    /// One step: assigns the rows of `x`, `[n, d]`, on the codebook's device and moves the codewords.
    ///
    /// # Errors
    /// - [`Error::Shape`] where there is no row, or `x` has another number of columns than the codewords.
    /// - [`Error::NonFinite`] naming the first row that holds a NaN or an infinity, or a codeword that leaves f32.
    /// - Those of [`normalize`] under [`Ema::cosine`], of [`assign`] and of [`Codebook::new`].
    pub fn update<T: Element>(&mut self, x: MatrixView<'_, T>) -> Result<EmaStep> {
        check_columns(OP, x.cols(), &self.codebook)?;
        match self.params.cosine {
            true => self.assign_and_move(normalize(x)?.view()),
            false => self.assign_and_move(x),
        }
    }

    fn assign_and_move<T: Element>(&mut self, x: MatrixView<'_, T>) -> Result<EmaStep> {
        let assignment = assign(x, &self.codebook, AssignOptions::default())?;
        let usage = self.move_codewords(x, &assignment.labels)?;
        Ok(EmaStep { assignment, usage })
    }

    /// [`EmaCodebook::update`] with the labels that the rows have, from [`assign`] say: on a CUDA device, within
    /// [`crate::quantize`], or with sentinels. Under [`Ema::cosine`] `x` is as [`EmaCodebook::update`]
    /// takes it, and the labels are those of [`normalize`]d rows.
    ///
    /// # Errors
    /// - Those of [`EmaCodebook::update`], rows labelled [`SENTINEL`] excepted.
    /// - [`Error::Shape`] where there is not one label per row, or no row has one.
    /// - [`Error::CodeOutOfRange`] naming the first label that is neither below k nor [`SENTINEL`].
    pub fn update_labelled<T: Element>(&mut self, x: MatrixView<'_, T>, labels: &[u32]) -> Result<EmaUsage> {
        check_columns(OP, x.cols(), &self.codebook)?;
        check_len(OP, "labels", x.rows(), labels.len())?;
        match self.params.cosine {
            true => self.move_codewords(normalize_where(OP, x, |i| labels[i] != SENTINEL)?.view(), labels),
            false => self.move_codewords(x, labels),
        }
    }

    /// Steps 1 to 5. Nothing is kept before everything has succeeded.
    fn move_codewords<T: Element>(&mut self, x: MatrixView<'_, T>, labels: &[u32]) -> Result<EmaUsage> {
        let (k, d) = (self.codebook.k(), self.codebook.d());
        let Sums { counts, mut sums, .. } = accumulate(x, labels, None, k)?;
        let rows = counts.iter().sum();
        if rows == 0 {
            let (expected, got) = ("at least one vector with a label".into(), format!("none of {}", x.rows()));
            return Err(Error::Shape { op: OP, expected, got });
        }
        // No sum of f32 leaves f64: something in a row was not finite.
        if !sums.iter().fold(true, |finite, sum| finite & sum.is_finite()) {
            let is_bad = |&i: &usize| labels[i] != SENTINEL && x.row(i).iter().any(|v| !v.to_f32().is_finite());
            return Err(non_finite(OP, x, (0..x.rows()).find(is_bad).unwrap_or(0), "remove the vector"));
        }
        let (kept, new) = (self.params.decay, 1.0 - self.params.decay);
        let averaged = |(&size, &count): (&f64, &u64)| kept * size + new * count as f64;
        let mut sizes: Vec<f64> = self.state.sizes.iter().zip(&counts).map(averaged).collect();
        let before = self.state.sums.par_chunks(d);
        sums.par_chunks_mut(d).zip(before).with_min_len(self.rows_of_a_task()).for_each(|(sums, before)| {
            sums.iter_mut().zip(before).for_each(|(sum, &before)| *sum = kept * before + new * *sum);
        });
        let mut codewords = self.codewords_of(&counts, &sizes, &sums)?;
        let dead: Vec<usize> = (0..k).filter(|&j| sizes[j] < self.params.threshold).collect();
        let mut random = Random::new(self.params.seed, self.state.step.wrapping_add(1));
        let revived = revive::revive(x, labels, &dead, &mut codewords, &mut random);
        for &j in &dead[..revived] {
            sizes[j] = self.params.threshold;
            let sums = &mut sums[j * d..][..d];
            sums.iter_mut().zip(&codewords[j * d..]).for_each(|(sum, &e)| *sum = sizes[j] * f64::from(e));
        }
        self.codebook = Codebook::new(MatrixView::new(&codewords, k, d)?, self.codebook.device())?;
        self.state = EmaState { step: self.state.step.wrapping_add(1), sizes, sums };
        let (perplexity, utilization, unused) = usage(&counts);
        let (dead, revived) = (dead.len() as u64, revived as u64);
        Ok(EmaUsage { rows, perplexity, utilization, unused, dead, revived })
    }

    /// Steps 3 and 4.
    fn codewords_of(&self, counts: &[u64], sizes: &[f64], sums: &[f64]) -> Result<Vec<f32>> {
        let d = self.codebook.d();
        let before = self.codebook.codewords()?;
        let mut codewords: Vec<f32> = (0..sizes.len()).flat_map(|j| before.row(j)).copied().collect();
        let total = sizes.iter().fold(0.0, |total, size| total + size);
        let smoothed = total + sizes.len() as f64 * self.params.epsilon;
        let rows = codewords.par_chunks_mut(d).zip(sums.par_chunks(d)).zip(sizes.par_iter().zip(counts));
        rows.with_min_len(self.rows_of_a_task()).for_each(|((e, m), (&size, &count))| {
            if self.params.cosine {
                // Without rows it stays: its sum goes to zero, and is rounded to nothing but noise on the way. Without a
                // direction it stays, too.
                if count > 0 {
                    direction(&mut m.to_vec(), e);
                }
                return;
            }
            let size = (size + self.params.epsilon) / smoothed * total;
            quotients(m, size, e);
        });
        match codewords.iter().position(|e| !e.is_finite()) {
            None => Ok(codewords),
            Some(i) => {
                let (row, col, got) = (i / d, i % d, codewords[i]);
                let way_out = "scale the vectors down";
                Err(Error::NonFinite { op: OP, what: "codeword", row, col, got, way_out })
            }
        }
    }

    /// About 64 KiB of codewords.
    fn rows_of_a_task(&self) -> usize {
        (16 * 1024 / self.codebook.d()).max(1)
    }
}
