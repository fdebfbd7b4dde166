//! The r nearest codewords of rows in host memory.

use crate::backend::cuda::block::{BadValue, Block, Status};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::lane::{Lane, Lanes, RowSize, stage};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::{Packing, Rows};
use crate::backend::cuda::top_k::Candidates;
use crate::backend::{AssignOptions, AssignStats};
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use std::ops::{ControlFlow, Range};

const OP: &str = "top_k";

/// Fills `[n, r]` labels and distances, `1 <= r <= k`.
///
/// The inner error is the first row that holds a NaN or an infinity, unless the options ask for sentinels.
pub(crate) fn top_k<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &DeviceCodebook,
    r: usize,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<std::result::Result<AssignStats, usize>> {
    let n = x.rows();
    if n == 0 {
        return Ok(Ok(AssignStats::default()));
    }
    let kept = &codebook.idle.top_k;
    let row = RowSize { dtype: T::DTYPE, bytes: Buffers::bytes_per_row(codebook, T::DTYPE, r), per_lane: 0 };
    let buffers = |queue: &Queue, rows| Buffers::new(queue, codebook, T::DTYPE, rows, r);
    let mut lanes = Lanes::new(OP, codebook, kept, n, row, buffers)?;
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        Status::clear(queue, &mut buffers.block.status.write())?;
        buffers.on_host.status.as_mut_slice()?.copy_from_slice(&Status::NOTHING);
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), codebook, r, Packing::for_assign(range.start as u64, options))
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let (on_host, len) = (&lane.buffers.on_host, range.len() * r);
        let results = range.start * r..range.end * r;
        labels[results.clone()].copy_from_slice(&on_host.labels.as_slice()?[..len]);
        sq_distances[results].copy_from_slice(&on_host.sq_distances.as_slice()?[..len]);
        match on_host.status()?.bad_value {
            Some(BadValue { row, .. }) => Ok(ControlFlow::Break(row as usize)),
            None => Ok(ControlFlow::Continue(())),
        }
    };
    if let ControlFlow::Break(row) = lanes.run(n, submit, collect)? {
        return Ok(Err(row));
    }
    // The words of a lane count on through its blocks; a lane that had none counted nothing.
    let mut stats = AssignStats { first: n as u64, ..AssignStats::default() };
    for lane in lanes.iter_mut() {
        let Status { bad, f64, exact, .. } = lane.buffers.on_host.status()?;
        stats.first -= bad + f64 + exact;
        stats += AssignStats { f64, exact, ..AssignStats::default() };
    }
    lanes.keep(OP, codebook, kept)?;
    Ok(Ok(stats))
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    staging: Pinned<u8>,
    input: Buffer<u8>,
    block: Block,
    candidates: Candidates,
    labels: Buffer<u32>,
    sq_distances: Buffer<f32>,
    on_host: Results,
}

/// Where results arrive.
struct Results {
    labels: Pinned<u32>,
    sq_distances: Pinned<f32>,
    status: Pinned<u64>,
}

impl Results {
    fn status(&self) -> Result<Status> {
        Ok(Status::of_words(self.status.as_slice()?))
    }
}

impl Buffers {
    fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32, r: usize) -> Result<Buffers> {
        let rows = capacity as usize;
        let bytes = rows * codebook.d as usize * dtype.size();
        Ok(Buffers {
            staging: queue.alloc_pinned(bytes)?,
            input: queue.alloc(bytes)?,
            block: Block::new(queue, codebook, dtype, capacity)?,
            candidates: Candidates::new(queue, codebook, capacity)?,
            labels: queue.alloc(rows * r)?,
            sq_distances: queue.alloc(rows * r)?,
            on_host: Results {
                labels: queue.alloc_pinned(rows * r)?,
                sq_distances: queue.alloc_pinned(rows * r)?,
                status: queue.alloc_pinned(Status::WORDS)?,
            },
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype, r: usize) -> usize {
        let input = codebook.d as usize * dtype.size();
        input + Block::bytes_per_row(codebook, dtype) + Candidates::bytes_per_row(codebook) + 2 * 4 * r
    }

    /// Queues the work on `x`.
    fn submit<T: Element>(
        &mut self,
        queue: &Queue,
        x: MatrixView<'_, T>,
        codebook: &DeviceCodebook,
        r: usize,
        packing: Packing,
    ) -> Result<()> {
        let Buffers { staging, input, block, candidates, labels, sq_distances, on_host } = self;
        let (n, results) = (x.rows(), x.rows() * r);
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let x = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
        let (labels_out, distances_out) = (&mut labels.write(), &mut sq_distances.write());
        // r is at most k, which fits.
        block.top_k(queue, codebook, &x, r as u32, packing, candidates, labels_out, distances_out)?;
        queue.copy_out(labels.read(), &mut on_host.labels.as_mut_slice()?[..results])?;
        queue.copy_out(sq_distances.read(), &mut on_host.sq_distances.as_mut_slice()?[..results])?;
        queue.copy_out(block.status.read(), on_host.status.as_mut_slice()?)
    }
}
