//! The operations for vectors that lie on the device and results that stay there.

mod accumulate;
pub(crate) mod parts;

use super::block::{BadValue, Block, Status};
use super::caller::{Memory, MemoryMut, check_place, check_stream, read, write};
use super::codebook::DeviceCodebook;
use super::filter::{Filter, FilterPlan};
use super::gather::gather;
use super::matrix::MatrixView;
use super::means;
use super::memory::Buffer;
use super::metrics::Sums;
use super::queue::{Pinned, Queue};
use super::rows::Packing;
use super::sums::Sorter;
use super::top_k::Candidates;
use crate::backend::{AssignOptions, AssignStats, Precision, check_columns, check_len, check_r};
use crate::codebook::{Codebook, Placed};
use crate::error::{Error, Result};
use crate::matrix::Element;
use crate::metrics::{Metrics, MetricsSum};
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// Device memory for what [`Workspace::top_k`] needs between its kernels.
const CANDIDATE_BYTES: usize = 64 << 20;

/// Room on the device to work on vectors of type `T` with one codebook, on one stream. All device memory is taken when
/// it is made, but for that of [`Workspace::top_k`], [`Workspace::accumulate`] and [`Workspace::metrics`].
///
/// Every operation whose results stay on the device puts its work into the stream and returns; nothing waits for the
/// device. What the work found, rows that are not finite above all, [`Workspace::check`] tells, which does wait. Kernels
/// are loaded when they are used first, and the driver may wait for the device then.
///
/// Memory that is in use on other streams is waited for on the device, and results are in place for work that is queued
/// later on the same stream, or on any other through memory of `cudarc`. `cudarc` remembers the last reader of a slice:
/// one that several streams read at a time has to be kept, and not written, until all are through.
///
/// ```no_run
/// use codeword::cuda::{MatrixView, Workspace};
/// use codeword::{AssignOptions, Codebook, Device};
///
/// let device = Device::cuda(0)?;
/// let Device::Cuda(context) = &device else { unreachable!() };
/// let codewords = codeword::MatrixView::new(&[0.0f32, 0.0, 1.0, 1.0], 2, 2)?;
/// let codebook = Codebook::new(codewords, &device)?;
///
/// let stream = context.new_stream()?;
/// let mut workspace = Workspace::<f32>::new(&codebook, &stream, 65_536)?;
///
/// // Vectors that some other kernel wrote, and room for what comes out.
/// let x = stream.clone_htod(&[0.9f32, 0.8, 0.1, 0.2]).unwrap();
/// let mut labels = stream.alloc_zeros::<u32>(2).unwrap();
/// let mut sq_distances = stream.alloc_zeros::<f32>(2).unwrap();
/// workspace.assign(MatrixView::new(&x, 2, 2)?, AssignOptions::default(), &mut labels, &mut sq_distances)?;
///
/// workspace.check()?; // waits, and is an error if a vector was not finite
/// assert_eq!(stream.clone_dtoh(&labels).unwrap(), [1, 0]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub struct Workspace<T> {
    // Before the codebook: its memory goes first.
    block: Block,
    candidates: Option<Candidates>,
    sorter: Sorter,
    /// What [`Workspace::means`] finds, and nobody asks for.
    means_facts: Buffer<u32>,
    filter: Filter,
    queue: Queue,
    on_host: Pinned<u64>,
    /// Rows that got labels since the last check.
    rows: u64,
    /// What the last check found beside its error.
    bad_code: Option<(u64, u32)>,
    codebook: Codebook,
    elements: std::marker::PhantomData<T>,
}

impl<T: Element> Workspace<T> {
    /// Room for blocks of `rows` vectors on `stream`; longer inputs go through in so many blocks. About
    /// 8 d + 60 bytes a row, 4 d more for 16-bit vectors, 2 d + 150 for tensor cores, whose part of 2 d is for whole 128
    /// rows.
    ///
    /// # Errors
    /// - [`Error::DeviceMismatch`] where the codebook lies elsewhere.
    /// - [`Error::InvalidParameter`] where `rows` is 0 or 2^32 or more, or `stream` is the default stream per thread.
    /// - [`Error::Cuda`] where the device has no memory left for it.
    pub fn new(codebook: &Codebook, stream: &Arc<CudaStream>, rows: usize) -> Result<Self> {
        const OP: &str = "Workspace::new";
        let resident = resident(OP, codebook)?;
        check_place(OP, "codebook", resident.context.stream(), stream)?;
        check_stream(OP, stream)?;
        let capacity = u32::try_from(rows).ok().filter(|&rows| rows > 0).ok_or_else(|| Error::InvalidParameter {
            op: OP,
            name: "rows",
            expected: format!("from 1 to {}", u32::MAX),
            got: rows.to_string(),
        })?;
        let queue = Queue { op: OP, context: resident.context.clone(), stream: stream.clone() };
        Ok(Workspace {
            block: Block::new(&queue, resident, T::DTYPE, capacity)?,
            candidates: None,
            sorter: Sorter::default(),
            means_facts: queue.alloc(means::FACTS)?,
            filter: Filter::new(&queue, FilterPlan::new(OP, resident, rows)?, capacity)?,
            on_host: queue.alloc_pinned(Status::WORDS)?,
            rows: 0,
            bad_code: None,
            codebook: codebook.clone(),
            queue,
            elements: std::marker::PhantomData,
        })
    }

    /// The codebook.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// Goes on with another codebook of as many dimensions: the next step of a training loop. Nothing waits, and memory
    /// is taken only where it has another number of distinct codewords, or where tensor cores read it for the first time.
    /// What was counted since the last [`Workspace::check`] stays.
    ///
    /// # Errors
    /// - [`Error::Shape`] where it has other dimensions.
    /// - [`Error::DeviceMismatch`] where it lies elsewhere.
    /// - [`Error::Cuda`] where the device has no memory left; the workspace goes on with the codebook before.
    pub fn set_codebook(&mut self, codebook: &Codebook) -> Result<()> {
        const OP: &str = "Workspace::set_codebook";
        let (before, next) = (resident(OP, &self.codebook)?, resident(OP, codebook)?);
        check_place(OP, "codebook", next.context.stream(), &self.queue.stream)?;
        if before.d != next.d {
            let expected = format!("codewords of {} dimensions, for which there is room", before.d);
            return Err(Error::Shape { op: OP, expected, got: next.d.to_string() });
        }
        if before.m != next.m || !self.filter.serves(OP, next)? {
            self.queue.op = OP;
            let capacity = self.block.capacity;
            let plan = FilterPlan::new(OP, next, capacity as usize)?;
            self.filter.refit(&self.queue, plan, capacity)?;
        }
        if before.k != next.k {
            self.candidates = None;
        }
        let context = next.context.clone();
        release(&self.codebook, &self.queue.stream);
        self.queue.context = context;
        self.codebook = codebook.clone();
        Ok(())
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.queue.stream
    }

    /// The nearest codeword of every row of `x`, `[n, d]`, and the squared distance to it: [`crate::assign`] on the
    /// device, with the same bits.
    ///
    /// A row that holds a NaN or an infinity gets the label [`crate::SENTINEL`] and a NaN; under
    /// [`crate::NonFinite::Error`] the next [`Workspace::check`] is an error that names it.
    ///
    /// # Errors
    /// - [`Error::Shape`] where columns, labels (n) or distances (n) do not fit.
    /// - [`Error::DeviceMismatch`] where memory lies on another device.
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn assign(
        &mut self,
        x: MatrixView<'_, T>,
        options: AssignOptions,
        labels: &mut dyn MemoryMut<u32>,
        sq_distances: &mut dyn MemoryMut<f32>,
    ) -> Result<()> {
        const OP: &str = "assign";
        check_columns(OP, x.cols(), &self.codebook)?;
        check_len(OP, "labels", x.rows(), labels.len())?;
        check_len(OP, "distances", x.rows(), sq_distances.len())?;
        let Workspace { block, filter, queue, codebook, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (x, _x) = x.read(OP, "vectors", &stream)?;
        let (mut labels, _labels) = write(OP, "labels", labels, &stream)?;
        let (mut sq_distances, _sq_distances) = write(OP, "distances", sq_distances, &stream)?;
        for start in (0..x.n).step_by(block.capacity as usize) {
            let rows = x.block(start..x.n.min(start + block.capacity as usize));
            let packing = Packing::for_assign(start as u64, options);
            let (labels, sq_distances) = (&mut labels.from(start), &mut sq_distances.from(start));
            block.assign(queue, codebook, filter, &rows, packing, labels, sq_distances)?;
        }
        self.rows += x.n as u64;
        Ok(())
    }

    /// The `r` nearest codewords of every row of `x`, nearest first, into `[n, r]` labels and distances:
    /// [`crate::top_k`] on the device, with the same bits. The first call takes 16 k bytes more for each row of a block,
    /// of which there are so many that this stays below 64 MiB
    /// and half of what is free.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `r` is 0 or above k.
    /// - Those of [`Workspace::assign`].
    pub fn top_k(
        &mut self,
        x: MatrixView<'_, T>,
        r: usize,
        options: AssignOptions,
        labels: &mut dyn MemoryMut<u32>,
        sq_distances: &mut dyn MemoryMut<f32>,
    ) -> Result<()> {
        const OP: &str = "top_k";
        check_columns(OP, x.cols(), &self.codebook)?;
        check_r(OP, r, self.codebook.k())?;
        // Memory of so many values is there, so that the product fits.
        check_len(OP, "labels", x.rows().saturating_mul(r), labels.len())?;
        check_len(OP, "distances", x.rows().saturating_mul(r), sq_distances.len())?;
        let Workspace { block, queue, codebook, candidates, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let candidates = match candidates {
            Some(candidates) => candidates,
            None => {
                let bytes = CANDIDATE_BYTES.min(codebook.context.memory(OP)?.0 / 2);
                let rows = (bytes / Candidates::bytes_per_row(codebook)).clamp(1, block.capacity as usize);
                // At most the block's capacity.
                candidates.insert(Candidates::new(queue, codebook, rows as u32)?)
            }
        };
        let rows_each = candidates.rows as usize;
        let (x, _x) = x.read(OP, "vectors", &stream)?;
        let (mut labels, _labels) = write(OP, "labels", labels, &stream)?;
        let (mut sq_distances, _sq_distances) = write(OP, "distances", sq_distances, &stream)?;
        for start in (0..x.n).step_by(rows_each) {
            let rows = x.block(start..x.n.min(start + rows_each));
            let packing = Packing::for_assign(start as u64, options);
            let (mut labels, mut sq_distances) = (labels.from(start * r), sq_distances.from(start * r));
            block.top_k(queue, codebook, &rows, r as u32, packing, candidates, &mut labels, &mut sq_distances)?;
        }
        self.rows += x.n as u64;
        Ok(())
    }

    /// The squared distance of every row of `x`, `[n, d]`, to every codeword, `[n, k]` row-major into `out`:
    /// [`crate::pairwise_sq_l2`] on the device. Rows that are not finite are left to [`Workspace::check`]; their
    /// distances mean nothing.
    ///
    /// # Errors
    /// - Those of [`Workspace::assign`].
    pub fn pairwise_sq_l2(
        &mut self,
        x: MatrixView<'_, T>,
        precision: Precision,
        out: &mut dyn MemoryMut<f32>,
    ) -> Result<()> {
        const OP: &str = "pairwise_sq_l2";
        check_columns(OP, x.cols(), &self.codebook)?;
        let k = self.codebook.k();
        // Memory of so many values is there, so that the product fits.
        check_len(OP, "distances", x.rows().saturating_mul(k), out.len())?;
        let Workspace { block, queue, codebook, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (x, _x) = x.read(OP, "vectors", &stream)?;
        let (mut out, _out) = write(OP, "distances", out, &stream)?;
        for start in (0..x.n).step_by(block.capacity as usize) {
            let rows = x.block(start..x.n.min(start + block.capacity as usize));
            block.pairwise_sq_l2(queue, codebook, &rows, start as u64, precision, &mut out.from(start * k))?;
        }
        Ok(())
    }

    /// The codewords of `codes`, `[n, d]` row-major into `out`: [`crate::decode`] on the device. A code that names no
    /// codeword gives a row of NaN, and unless it is [`crate::SENTINEL`], the next [`Workspace::check`] is an error.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `out` has not n d values, or there are 2^32 codes or more.
    /// - [`Error::DeviceMismatch`] where memory lies on another device.
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn decode(&mut self, codes: &dyn Memory<u32>, out: &mut dyn MemoryMut<f32>) -> Result<()> {
        const OP: &str = "decode";
        let (n, d) = (codes.len(), self.codebook.d());
        check_len(OP, "values", n.saturating_mul(d), out.len())?;
        let too_many = |_| Error::Shape { op: OP, expected: "fewer than 2^32 codes".into(), got: n.to_string() };
        let n = u32::try_from(n).map_err(too_many)?;
        let Workspace { block, queue, codebook, .. } = self;
        queue.op = OP;
        let (codebook, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (codes, _codes) = read(OP, "codes", codes, &stream)?;
        let (mut out, _out) = write(OP, "values", out, &stream)?;
        gather(queue, codebook, &codes, n, &mut out, &mut block.status.write().from(Status::BAD_CODE))
    }

    /// How well the codebook represents the rows of `x`, `[n, d]`, under `labels`, n values: [`crate::metrics()`] of
    /// vectors and labels on the device, with the same bits.
    ///
    /// **Waits for the stream**: the result is on the host. Takes 8 k bytes of device memory for the time being, 16 for
    /// every block of 2^18 numbers of `x`, and 16 a row for up to 2^20 rows.
    ///
    /// # Errors
    /// - [`Error::Shape`] where columns or labels do not fit, or there are 2^32 rows or more.
    /// - [`Error::CodeOutOfRange`] naming the first label that is neither below k nor [`crate::SENTINEL`].
    /// - [`Error::DeviceMismatch`] where memory lies on another device.
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn metrics(&mut self, x: MatrixView<'_, T>, labels: &dyn Memory<u32>) -> Result<Metrics> {
        const OP: &str = "metrics";
        check_columns(OP, x.cols(), &self.codebook)?;
        check_len(OP, "labels", x.rows(), labels.len())?;
        let Workspace { queue, codebook, .. } = self;
        queue.op = OP;
        let (resident, stream) = (resident(OP, codebook)?, queue.stream.clone());
        let (x, _x) = x.read(OP, "vectors", &stream)?;
        let (labels, _labels) = read(OP, "labels", labels, &stream)?;
        let sums = Sums::of(queue, resident, &x, &labels)?;
        Ok(MetricsSum::of_blocks(codebook, x.n as u64, sums.histogram, &sums.blocks).finish())
    }

    /// Waits for the stream, and tells what the work since the last check found: how many rows each tier of
    /// [`Workspace::assign`] and [`Workspace::top_k`] settled.
    ///
    /// # Errors
    /// - [`Error::NonFinite`] naming the first row of its call that holds a NaN or an infinity; of several calls since
    ///   the last check, the lowest such row.
    /// - [`Error::CodeOutOfRange`] naming likewise the first code that names no codeword. Where both happened, the check
    ///   after the first.
    /// - [`Error::Cuda`] where the device failed.
    pub fn check(&mut self) -> Result<AssignStats> {
        const OP: &str = "check";
        let Workspace { block, queue, on_host, .. } = self;
        queue.op = OP;
        queue.copy_out(block.status.read(), on_host.as_mut_slice()?)?;
        let cleared = Status::clear(queue, &mut block.status.write());
        // First of all: the copy writes memory that goes with the workspace.
        queue.synchronize()?;
        cleared?;
        let status = Status::of_words(on_host.as_slice()?);
        let rows = std::mem::take(&mut self.rows);
        let bad_code = self.bad_code.take().or(status.bad_code);
        if let Some(BadValue { row, col, got }) = status.bad_value {
            let way_out = "remove the vector, or ask for sentinel codes";
            // One error at a time: the next check tells the other.
            self.bad_code = bad_code;
            return Err(Error::NonFinite { op: OP, what: "vector", row: row as usize, col, got, way_out });
        }
        if let Some((position, code)) = bad_code {
            return Err(Error::CodeOutOfRange { op: OP, position: position as usize, code, k: self.codebook.k() });
        }
        Ok(status.stats(rows))
    }
}

impl<T> Drop for Workspace<T> {
    fn drop(&mut self) {
        release(&self.codebook, &self.queue.stream);
    }
}

/// The codebook may be freed on its own stream after this: not before the kernels queued on `stream` have read it.
fn release(codebook: &Codebook, stream: &Arc<CudaStream>) {
    let Placed::Cuda(resident) = codebook.placed() else { return };
    // Without an event, for want of memory say, the host has to wait. If that fails too, the device is lost.
    if resident.context.stream().join(stream).is_err() {
        let _ = stream.synchronize();
    }
}

/// What the device holds of the codebook.
fn resident<'a>(op: &'static str, codebook: &'a Codebook) -> Result<&'a DeviceCodebook> {
    match codebook.placed() {
        Placed::Cuda(resident) => Ok(resident),
        Placed::Cpu(_) => Err(Error::DeviceMismatch {
            op,
            what: "codebook",
            expected: "a codebook that was prepared for a CUDA device".into(),
            got: codebook.device().to_string(),
        }),
    }
}
