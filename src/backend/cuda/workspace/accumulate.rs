//! Sums by label and their means: the second half of a training step whose vectors and codewords stay on the device.

use super::{Workspace, resident};
use crate::backend::cuda::accumulate::SumsOut;
use crate::backend::cuda::block::Status;
use crate::backend::cuda::caller::{Memory, MemoryMut, read, write};
use crate::backend::cuda::matrix::MatrixView;
use crate::backend::cuda::means::means;
use crate::backend::{check_columns, check_len};
use crate::error::{Error, Result};
use crate::matrix::Element;

impl<T: Element> Workspace<T> {
    /// Adds up the rows of `x`, `[n, d]`, by their `labels`, n values below k or [`crate::SENTINEL`], with `weights`, n
    /// values, where rows count differently: [`crate::accumulate`] on the device, with the same bits. How many rows carry
    /// each label goes to `counts`, `[k]`, their weights added up to `totals`, `[k]`, the rows times their weights added up
    /// to `sums`, `[k, d]` row-major; what these held is lost.
    ///
    /// A row whose label is neither below k nor a sentinel counts nowhere, and the next [`Workspace::check`] is an error.
    /// Weights are taken as they are: one that is negative or not finite shows in the sums.
    ///
    /// The first call takes about 13 + d / 4 bytes more for each row, of up to 2^20 rows or 2^28 elements, and 4 k; so does
    /// one of more rows than all before it.
    ///
    /// # Errors
    /// - [`Error::Shape`] where columns, labels (n), weights (n), counts (k), totals (k) or sums (k d) do not fit, or there
    ///   are 2^32 rows or more.
    /// - [`Error::DeviceMismatch`] where memory lies on another device.
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn accumulate(
        &mut self,
        x: MatrixView<'_, T>,
        labels: &dyn Memory<u32>,
        weights: Option<&dyn Memory<f32>>,
        counts: &mut dyn MemoryMut<u64>,
        totals: &mut dyn MemoryMut<f64>,
        sums: &mut dyn MemoryMut<f64>,
    ) -> Result<()> {
        const OP: &str = "accumulate";
        let (n, k, d) = (x.rows(), self.codebook.k(), self.codebook.d());
        check_columns(OP, x.cols(), &self.codebook)?;
        check_len(OP, "labels", n, labels.len())?;
        if let Some(weights) = weights {
            check_len(OP, "weights", n, weights.len())?;
        }
        check_len(OP, "counts", k, counts.len())?;
        check_len(OP, "totals", k, totals.len())?;
        // Codewords of so many values are there, so that the product fits.
        check_len(OP, "sums", k * d, sums.len())?;
        if u32::try_from(n).is_err() {
            return Err(Error::Shape { op: OP, expected: "fewer than 2^32 rows".into(), got: n.to_string() });
        }
        let Workspace { block, sorter, queue, codebook, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (x, _x) = x.read(OP, "vectors", &stream)?;
        let (labels, _labels) = read(OP, "labels", labels, &stream)?;
        let (weights, _weights) = weights.map(|weights| read(OP, "weights", weights, &stream)).transpose()?.unzip();
        let (counts, _counts) = write(OP, "counts", counts, &stream)?;
        let (totals, _totals) = write(OP, "totals", totals, &stream)?;
        let (sums, _sums) = write(OP, "sums", sums, &stream)?;
        let mut to = SumsOut { counts, totals, sums };
        to.clear(queue)?;
        let sizes = (codebook.k, codebook.d);
        sorter.accumulate(queue, &x, &labels, weights, sizes, &mut to, &mut block.status.write().from(Status::BAD_CODE))
    }

    /// Writes the means of what [`Workspace::accumulate`] added up into `codewords`, `[k, d]` row-major: the quotients of
    /// `sums` and `totals`, rounded once to the nearest f32, ties to even, as [`crate::Sums::mean_into`] does it. Codewords
    /// whose rows weigh nothing stay as they are. [`crate::Codebook::from_cuda`] and [`Workspace::set_codebook`] go on with
    /// them.
    ///
    /// # Errors
    /// - [`Error::Shape`] where totals (k), sums or codewords (k d) do not fit.
    /// - [`Error::DeviceMismatch`] where memory lies on another device.
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn means(
        &mut self,
        totals: &dyn Memory<f64>,
        sums: &dyn Memory<f64>,
        codewords: &mut dyn MemoryMut<f32>,
    ) -> Result<()> {
        const OP: &str = "means";
        let (k, d) = (self.codebook.k(), self.codebook.d());
        check_len(OP, "totals", k, totals.len())?;
        check_len(OP, "sums", k * d, sums.len())?;
        check_len(OP, "components", k * d, codewords.len())?;
        let Workspace { means_facts, queue, codebook, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (totals, _totals) = read(OP, "totals", totals, &stream)?;
        let (sums, _sums) = read(OP, "sums", sums, &stream)?;
        let (mut codewords, _codewords) = write(OP, "codewords", codewords, &stream)?;
        queue.zero(&mut means_facts.write())?;
        means(queue, &totals, &sums, (codebook.k, codebook.d), &mut codewords, &mut means_facts.write())
    }
}
