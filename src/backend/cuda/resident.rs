//! Rows that stay on the device while a training passes over them, and what is made of them there: labels, sums by label,
//! means, the next codebook. Only labels, distances, counts of tiers and, where codewords have no rows, means go to the host.

use super::accumulate::SumsOut;
use super::block::{Block, Status};
use super::codebook::DeviceCodebook;
use super::context::Context;
use super::filter::{Filter, FilterPlan};
use super::lane::stage;
use super::means::{FACTS, means};
use super::memory::Buffer;
use super::queue::Queue;
use super::rows::{Packing, Rows};
use super::short_list::ShortLists;
use super::sums::Sorter;
use crate::backend::training::Means;
use crate::backend::{AssignOptions, AssignStats};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{AnyView, Dtype, Element, MatrixView, on_view};

const OP: &str = "k-means";

/// Device memory for what a block of rows needs beside the rows, as long as that is more than one.
const BLOCK_BYTES: usize = 64 << 20;

/// Bytes of rows that are copied to the device at a time, where there are gaps between them.
const STAGE_BYTES: usize = 16 << 20;

pub(crate) struct Resident {
    queue: Queue,
    dtype: Dtype,
    n: usize,
    k: u32,
    d: u32,
    /// `[n, d]`, as stored, without gaps.
    x: Buffer<u8>,
    weights: Option<Buffer<f32>>,
    labels: Buffer<u32>,
    sq_distances: Buffer<f32>,
    sorter: Sorter,
    counts: Buffer<u64>,
    totals: Buffer<f64>,
    sums: Buffer<f64>,
    means: Buffer<f32>,
    means_facts: Buffer<u32>,
    work: Option<Work>,
}

/// What a block of rows is assigned with.
struct Work {
    block: Block,
    filter: Filter,
    /// Distinct codewords that the filter has room for.
    m: u32,
}

impl Resident {
    /// Room on the device for `n` rows of `cols` components, and for a training of `k` codewords on them; none where there
    /// is none, which is logged. The rows are not there yet.
    pub fn with_room(
        context: &Context,
        dtype: Dtype,
        (n, cols): (usize, usize),
        weights: Option<&[f32]>,
        k: usize,
    ) -> Result<Option<Resident>> {
        let (free, _) = context.memory(OP)?;
        let needed = bytes(n, cols, k, dtype, weights.is_some());
        // A quarter stays free: cuBLAS takes some, and allocations are rounded up.
        let fits = needed <= free - free / 4 && u32::try_from(n).is_ok();
        let (Ok(k), Ok(d), true) = (u32::try_from(k), u32::try_from(cols), fits && n > 0) else {
            log::info!(
                "{n} vectors of {cols} dimensions and {k} codewords take {needed} bytes of cuda:{}, of which {free} may be \
                 used: the vectors pass through it in every iteration",
                context.ordinal()
            );
            return Ok(None);
        };
        let queue = Queue::new(OP, context)?;
        let codewords = k as usize * cols;
        Ok(Some(Resident {
            dtype,
            n,
            k,
            d,
            x: queue.alloc(n * cols * dtype.size())?,
            weights: weights.map(|weights| queue.upload(weights)).transpose()?,
            labels: queue.alloc(n)?,
            sq_distances: queue.alloc(n)?,
            sorter: Sorter::default(),
            counts: queue.alloc(k as usize)?,
            totals: queue.alloc(k as usize)?,
            sums: queue.alloc(codewords)?,
            means: queue.alloc(codewords)?,
            means_facts: queue.alloc(FACTS)?,
            work: None,
            queue,
        }))
    }

    /// Copies the rows of `x` to the device, where they are those from `first` on.
    pub fn put(&mut self, first: usize, x: AnyView<'_>) -> Result<()> {
        on_view!(x, x => self.put_rows(first, x))
    }

    fn put_rows<T: Element>(&mut self, first: usize, x: MatrixView<'_, T>) -> Result<()> {
        let (n, row) = (x.rows(), x.cols() * T::DTYPE.size());
        assert!(T::DTYPE == self.dtype && x.cols() == self.d as usize && first + n <= self.n, "check 2");
        if let Some(elements) = x.gapless() {
            let bytes: &[u8] = bytemuck::cast_slice(elements);
            self.queue.copy_in(bytes, &mut self.x.write().from(first * row))?;
            // The caller's memory may be page-locked, and is read when the copy runs.
            return self.queue.synchronize();
        }
        let rows_each = (STAGE_BYTES / row).clamp(1, n);
        let mut staging = vec![0; rows_each * row];
        for start in (0..n).step_by(rows_each) {
            let staged = stage(x.block(start..n.min(start + rows_each)), &mut staging);
            // Pageable memory: it has been read when this returns.
            self.queue.copy_in(staged, &mut self.x.write().from((first + start) * row))?;
        }
        Ok(())
    }

    /// Labels every row.
    pub fn assign(&mut self, codebook: &DeviceCodebook) -> Result<AssignStats> {
        let mut words = [0; Status::WORDS];
        let queued = self.queue_assign(codebook, &mut words);
        // Whatever became of it: the codebook may go when this returns.
        let waited = self.queue.synchronize();
        queued.and(waited)?;
        Ok(Status::of_words(&words).stats(self.n as u64))
    }

    /// The labels and squared distances that the last assignment gave the rows from `first` on, as many as there is room
    /// for.
    pub fn results(&self, first: usize, labels: &mut [u32], sq_distances: &mut [f32]) -> Result<()> {
        let (of_rows, distances) = (self.labels.read(), self.sq_distances.read());
        self.queue.copy_out(of_rows.from(first), labels)?;
        self.queue.copy_out(distances.from(first), sq_distances)?;
        self.queue.synchronize()
    }

    fn queue_assign(&mut self, codebook: &DeviceCodebook, words: &mut [u64; Status::WORDS]) -> Result<()> {
        self.fit(codebook)?;
        let Resident { queue, labels, sq_distances, work, .. } = self;
        let Some(Work { block, filter, .. }) = work else { return Ok(()) };
        let x = Rows { values: self.x.read(), dtype: self.dtype, n: self.n, stride: self.d as usize };
        let capacity = block.capacity as usize;
        for start in (0..x.n).step_by(capacity) {
            let rows = x.block(start..x.n.min(start + capacity));
            let packing = Packing::for_assign(start as u64, AssignOptions::default());
            let (mut labels, mut sq_distances) = (labels.write(), sq_distances.write());
            let to = (&mut labels.from(start), &mut sq_distances.from(start));
            block.assign(queue, codebook, filter, &rows, packing, to.0, to.1)?;
        }
        queue.copy_out(block.status.read(), words)?;
        Status::clear(queue, &mut block.status.write())
    }

    /// Makes room to assign by `codebook`.
    fn fit(&mut self, codebook: &DeviceCodebook) -> Result<()> {
        let (queue, n) = (&self.queue, self.n);
        let Some(work) = &mut self.work else {
            let plan = FilterPlan::new(OP, codebook, n)?;
            let row = Block::bytes_per_row(codebook, self.dtype) + plan.bytes_per_row();
            let rows = (BLOCK_BYTES / row).clamp(1, n);
            let plan = FilterPlan::new(OP, codebook, rows)?;
            // There are fewer than 2^32 rows.
            let capacity = rows as u32;
            let block = Block::new(queue, codebook, self.dtype, capacity)?;
            self.work = Some(Work { block, filter: Filter::new(queue, plan, capacity)?, m: codebook.m });
            return Ok(());
        };
        if work.m != codebook.m || !work.filter.serves(OP, codebook)? {
            let plan = FilterPlan::new(OP, codebook, work.block.capacity as usize)?;
            work.filter.refit(queue, plan, work.block.capacity)?;
            work.m = codebook.m;
        }
        Ok(())
    }

    /// The means of the rows of each label.
    pub fn means(&mut self, codebook: &DeviceCodebook) -> Result<Means> {
        let mut facts = [0; FACTS];
        let queued = self.queue_means(codebook, &mut facts);
        let waited = self.queue.synchronize();
        queued.and(waited)?;
        match facts {
            [0, 0] => Ok(Means::Same),
            [_, 0] => {
                let (k, d) = (self.k as usize, self.d as usize);
                let rows = Rows { values: self.means.read().as_bytes(), dtype: Dtype::F32, n: k, stride: d };
                let context = &self.queue.context;
                let next = DeviceCodebook::of_rows("Codebook::new", context, &rows, d, &self.queue.stream)?;
                Ok(Means::Next(Codebook::on_cuda(context, next, Dtype::F32)))
            }
            [_, dead] => self.with_dead(dead as usize),
        }
    }

    fn queue_means(&mut self, codebook: &DeviceCodebook, on_host: &mut [u32; FACTS]) -> Result<()> {
        let sizes = (self.k, self.d);
        let x = Rows { values: self.x.read(), dtype: self.dtype, n: self.n, stride: self.d as usize };
        let Resident { queue, sorter, work, counts, totals, sums, means: to, means_facts, .. } = self;
        let Some(Work { block, .. }) = work else { return Ok(()) };
        let mut out = SumsOut { counts: counts.write(), totals: totals.write(), sums: sums.write() };
        out.clear(queue)?;
        // Labels that the device made are in range.
        let bad = &mut block.status.write();
        let weights = self.weights.as_ref().map(Buffer::read);
        sorter.accumulate(queue, &x, &self.labels.read(), weights, sizes, &mut out, &mut bad.from(Status::BAD_CODE))?;
        queue.copy(codebook.codewords.read(), &mut to.write())?;
        queue.zero(&mut means_facts.write())?;
        means(queue, &totals.read(), &sums.read(), sizes, &mut to.write(), &mut means_facts.write())?;
        queue.copy_out(means_facts.read(), on_host)
    }

    /// Means of which `dead` were left alone, on the host.
    fn with_dead(&self, dead: usize) -> Result<Means> {
        let (mut means, mut totals) = (vec![0.0; self.k as usize * self.d as usize], vec![0.0f64; self.k as usize]);
        self.queue.copy_out(self.means.read(), &mut means)?;
        self.queue.copy_out(self.totals.read(), &mut totals)?;
        self.queue.synchronize()?;
        let mut left = Vec::with_capacity(dead);
        let weighs = |j: usize| totals[j] > 0.0;
        left.extend((0..totals.len()).filter(|&j| !weighs(j)));
        Ok(Means::Dead { means, dead: left })
    }

    /// What to say of a codebook that lies on `device`.
    pub fn elsewhere(&self, device: &Device) -> Error {
        let expected = format!("a codebook on cuda:{}, where the vectors are", self.queue.context.ordinal());
        Error::DeviceMismatch { op: OP, what: "codebook", expected, got: device.to_string() }
    }
}

/// Device memory that a training takes: rows and what is one for each, what sorts them and a block of them takes, sums,
/// means, and two codebooks, of which one is being prepared.
fn bytes(n: usize, d: usize, k: usize, dtype: Dtype, weighted: bool) -> usize {
    let per_row = d.saturating_mul(dtype.size()) + 8 + if weighted { 4 } else { 0 };
    // With what tensor cores want of rows and codewords.
    let block = n.saturating_mul(14 * d + 60 + ShortLists::BYTES_PER_ROW).min(BLOCK_BYTES);
    let per_codeword = d.saturating_mul(34) + 300;
    let total = n.saturating_mul(per_row).saturating_add(k.saturating_mul(per_codeword));
    total.saturating_add(Sorter::bytes(n, k, d)).saturating_add(block)
}
