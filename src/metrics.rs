//! How well a codebook represents vectors.

use crate::backend::{SENTINEL, check_columns, check_labels, check_len, sq_sums};
use crate::codebook::Codebook;
use crate::error::Result;
use crate::matrix::{Element, MatrixView};

/// How well a codebook represents vectors, and how it is used.
///
/// Each is one number about n vectors; the n x k matrix of [`crate::pairwise_sq_l2`] is something else. Means over
/// no vectors are 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Vectors counted.
    pub n: u64,
    /// Rows with a sentinel label, left out of everything else.
    pub skipped: u64,
    /// Sum of squared distances to the own codeword.
    pub inertia: f64,
    /// Sum of squared elements of the vectors.
    pub energy: f64,
    /// inertia / n: mean squared distance per vector.
    pub distortion: f64,
    /// inertia / (n d): mean squared error per element, the L2 loss between vectors and their codewords.
    pub mse: f64,
    /// 10 log10(sum z^2 / sum (z - z_q)^2), in decibels; infinite where nothing is lost.
    pub snr_db: f64,
    /// exp(-sum p ln p) of the code usage p: 1 where one codeword serves all, k where all serve equally.
    pub perplexity: f64,
    /// Share of codewords used.
    pub utilization: f64,
    /// Codewords never used.
    pub dead: u64,
    /// How often each codeword was used, `[k]`.
    pub histogram: Vec<u64>,
}

/// The metrics of `x` under the labels that [`crate::assign`] gave it, or any others.
///
/// # Errors
/// - Those of [`MetricsSum::add`].
///
/// ```
/// use codeword::{AssignOptions, Codebook, Device, MatrixView, assign, metrics};
/// let codebook = Codebook::new(MatrixView::new(&[0.0f32, 10.0], 2, 1)?, &Device::cpu())?;
/// let x = MatrixView::new(&[1.0f32, 2.0, 9.0], 3, 1)?;
/// let m = metrics(x, &codebook, &assign(x, &codebook, AssignOptions::default())?.labels)?;
/// assert_eq!((m.inertia, m.distortion, m.mse), (6.0, 2.0, 2.0));
/// assert_eq!((m.histogram, m.utilization), (vec![2, 1], 1.0));
/// # Ok::<(), codeword::Error>(())
/// ```
pub fn metrics<T: Element>(x: MatrixView<'_, T>, codebook: &Codebook, labels: &[u32]) -> Result<Metrics> {
    let mut sum = MetricsSum::new(codebook);
    sum.add(x, labels)?;
    Ok(sum.finish())
}

/// Metrics gathered block by block. How the rows are split into blocks changes no bit of the sums: they are f64, of
/// squared f64 differences, in an order that depends on the row's number and d alone. Nothing overflows or
/// underflows: every f32 squared is a normal f64.
#[derive(Clone, Debug)]
pub struct MetricsSum {
    codebook: Codebook,
    n: u64,
    skipped: u64,
    inertia: OrderedSum,
    energy: OrderedSum,
    histogram: Vec<u64>,
}

impl MetricsSum {
    /// Starts at zero.
    pub fn new(codebook: &Codebook) -> Self {
        let sum = OrderedSum::new(codebook.d());
        MetricsSum {
            codebook: codebook.clone(),
            n: 0,
            skipped: 0,
            inertia: sum.clone(),
            energy: sum,
            histogram: vec![0; codebook.k()],
        }
    }

    /// What a device summed up over `rows` rows from the first on: the histogram, and of every block of
    /// [`block_rows`] the sums of squares of its rows and of their differences from their codewords.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_blocks(codebook: &Codebook, rows: u64, histogram: Vec<u64>, blocks: &[[f64; 2]]) -> Self {
        let n = histogram.iter().sum();
        let sum = |part: usize| OrderedSum::of_blocks(codebook.d(), rows, blocks.iter().map(|block| block[part]));
        let (energy, inertia) = (sum(0), sum(1));
        MetricsSum { codebook: codebook.clone(), n, skipped: rows - n, inertia, energy, histogram }
    }

    /// Adds the rows of `x` with their labels.
    ///
    /// # Errors
    /// - [`Error::Shape`](crate::Error::Shape) where columns or labels do not fit.
    /// - [`Error::CodeOutOfRange`](crate::Error::CodeOutOfRange) naming the first label that is neither below k nor
    ///   [`SENTINEL`]; nothing is added.
    /// - Those of [`Codebook::codewords`]: nothing is added.
    pub fn add<T: Element>(&mut self, x: MatrixView<'_, T>, labels: &[u32]) -> Result<()> {
        const OP: &str = "metrics";
        check_columns(OP, x.cols(), &self.codebook)?;
        check_len(OP, "labels", x.rows(), labels.len())?;
        check_labels(OP, labels, self.codebook.k())?;
        for (&label, (energy, error)) in labels.iter().zip(sq_sums(T::any(x), labels, &self.codebook)?) {
            if label == SENTINEL {
                self.skipped += 1;
            } else {
                self.n += 1;
                self.histogram[label as usize] += 1;
            }
            // Zeros of a skipped row: it keeps its place in the order.
            self.inertia.add(error);
            self.energy.add(energy);
        }
        Ok(())
    }

    /// The metrics of all rows added.
    pub fn finish(&self) -> Metrics {
        let (inertia, energy) = (self.inertia.total(), self.energy.total());
        let per = |count: f64| if count > 0.0 { inertia / count } else { 0.0 };
        let n = self.n as f64;
        let (perplexity, utilization, dead) = usage(&self.histogram);
        Metrics {
            n: self.n,
            skipped: self.skipped,
            inertia,
            energy,
            distortion: per(n),
            mse: per(n * self.codebook.d() as f64),
            snr_db: if inertia == 0.0 { f64::INFINITY } else { 10.0 * (energy / inertia).log10() },
            perplexity,
            utilization,
            dead,
            histogram: self.histogram.clone(),
        }
    }
}

/// Perplexity, utilization and codewords never used.
pub(crate) fn usage(histogram: &[u64]) -> (f64, f64, u64) {
    let (k, n) = (histogram.len(), histogram.iter().sum::<u64>());
    let dead = histogram.iter().filter(|&&count| count == 0).count();
    let perplexity = if n == 0 { 0.0 } else { entropy(histogram, n as f64).exp() };
    (perplexity, (k - dead) as f64 / k as f64, dead as u64)
}

/// -sum p ln p in nats.
fn entropy(histogram: &[u64], n: f64) -> f64 {
    let used = histogram.iter().filter(|&&count| count > 0).map(|&count| count as f64 / n);
    // Not below zero: one codeword gives -1 ln 1 = -0.
    used.map(|p| -p * p.ln()).sum::<f64>().max(0.0)
}

/// An f64 sum of one value per row in an order that does not depend on how the rows arrive: one after the other
/// within blocks whose size follows from d, then blocks pairwise, as a binary counter carries.
#[derive(Clone, Debug)]
pub(crate) struct OrderedSum {
    block_rows: u64,
    rows: u64,
    current: f64,
    /// Sums of 2^level blocks, levels falling.
    carried: Vec<(u32, f64)>,
}

/// Rows of a block of an ordered sum: about 1 MiB of f32.
pub(crate) fn block_rows(d: usize) -> u32 {
    ((1 << 18) / d.max(1)).max(1) as u32
}

impl OrderedSum {
    pub(crate) fn new(d: usize) -> Self {
        OrderedSum { block_rows: block_rows(d).into(), rows: 0, current: 0.0, carried: Vec::new() }
    }

    /// The sum of `rows` values, given those of their blocks.
    #[cfg(feature = "cuda")]
    fn of_blocks(d: usize, rows: u64, blocks: impl Iterator<Item = f64>) -> Self {
        let mut sum = OrderedSum::new(d);
        let mut left = rows;
        for block in blocks {
            (sum.rows, sum.current) = (left.min(sum.block_rows), block);
            left -= sum.rows;
            sum.carry_if_full();
        }
        sum
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.current += value;
        self.rows += 1;
        self.carry_if_full();
    }

    fn carry_if_full(&mut self) {
        if self.rows < self.block_rows {
            return;
        }
        let (mut level, mut sum) = (0, self.current);
        while let Some((_, left)) = self.carried.pop_if(|&mut (top, _)| top == level) {
            sum += left;
            level += 1;
        }
        self.carried.push((level, sum));
        (self.rows, self.current) = (0, 0.0);
    }

    pub(crate) fn total(&self) -> f64 {
        self.carried.iter().rev().fold(self.current, |sum, &(_, block)| sum + block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_summed_pairwise() {
        let mut sum = OrderedSum::new(1 << 18);
        // One row a block. Pairwise, ((1 + tiny) + (big - big)) keeps what a running sum would lose:
        for value in [2f64.powi(-60), 2f64.powi(-60), 1.0, -1.0] {
            sum.add(value);
        }
        assert_eq!(sum.total(), 2f64.powi(-59));
        assert_eq!(sum.carried.len(), 1);
        sum.add(3.0);
        assert_eq!(sum.carried, [(2, 2f64.powi(-59)), (0, 3.0)]);
    }

    #[test]
    fn entropy_of_known_usage() {
        assert_eq!(entropy(&[5, 0, 0], 5.0), 0.0);
        approx::assert_relative_eq!(entropy(&[2, 2, 2, 2], 8.0).exp(), 4.0, max_relative = 1e-15);
    }
}
