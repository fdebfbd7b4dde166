//! Nearest codeword of rows in host memory.

use crate::backend::cuda::block::{BadValue, Block, Status};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::filter::{Filter, FilterPlan};
use crate::backend::cuda::lane::{Lane, Lanes, RowSize, stage};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::{Packing, Rows};
use crate::backend::{AssignOptions, AssignStats};
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use std::ops::{ControlFlow, Range};

const OP: &str = "assign";

/// Assigns all rows of `x`. `labels` and `sq_distances` have one value per row.
///
/// The inner error is the first row that holds a NaN or an infinity, unless the options ask for sentinels.
pub(crate) fn assign<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &DeviceCodebook,
    options: AssignOptions,
    labels: &mut [u32],
    sq_distances: &mut [f32],
) -> Result<std::result::Result<AssignStats, usize>> {
    let n = x.rows();
    if n == 0 {
        return Ok(Ok(AssignStats::default()));
    }
    let kept = &codebook.idle.assign;
    let filter = FilterPlan::new(OP, codebook, n)?;
    let bytes = Buffers::bytes_per_row(codebook, T::DTYPE) + filter.bytes_per_row();
    let row = RowSize { dtype: T::DTYPE, bytes, per_lane: filter.bytes() };
    let buffers = |queue: &Queue, rows| Buffers::new(queue, codebook, T::DTYPE, rows, filter);
    let mut lanes = Lanes::new(OP, codebook, kept, n, row, buffers)?;
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        Status::clear(queue, &mut buffers.block.status.write())?;
        buffers.on_host.status.as_mut_slice()?.copy_from_slice(&Status::NOTHING);
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebook, options)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let on_host = &lane.buffers.on_host;
        labels[range.clone()].copy_from_slice(&on_host.labels.as_slice()?[..range.len()]);
        sq_distances[range.clone()].copy_from_slice(&on_host.sq_distances.as_slice()?[..range.len()]);
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
        let Status { bad, second, f64, exact, .. } = lane.buffers.on_host.status()?;
        stats.first -= bad + second + f64 + exact;
        stats += AssignStats { first: 0, second, f64, exact };
    }
    lanes.keep(OP, codebook, kept)?;
    Ok(Ok(stats))
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    staging: Pinned<u8>,
    input: Buffer<u8>,
    block: Block,
    filter: Filter,
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
    fn new(
        queue: &Queue,
        codebook: &DeviceCodebook,
        dtype: Dtype,
        capacity: u32,
        filter: FilterPlan,
    ) -> Result<Buffers> {
        let rows = capacity as usize;
        let bytes = rows * codebook.d as usize * dtype.size();
        Ok(Buffers {
            staging: queue.alloc_pinned(bytes)?,
            input: queue.alloc(bytes)?,
            block: Block::new(queue, codebook, dtype, capacity)?,
            filter: Filter::new(queue, filter, capacity)?,
            labels: queue.alloc(rows)?,
            sq_distances: queue.alloc(rows)?,
            on_host: Results {
                labels: queue.alloc_pinned(rows)?,
                sq_distances: queue.alloc_pinned(rows)?,
                status: queue.alloc_pinned(Status::WORDS)?,
            },
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        codebook.d as usize * dtype.size() + Block::bytes_per_row(codebook, dtype) + 2 * 4
    }

    /// Queues the work on `x`, whose first row is row `first_row` of the call.
    fn submit<T: Element>(
        &mut self,
        queue: &Queue,
        x: MatrixView<'_, T>,
        first_row: u64,
        codebook: &DeviceCodebook,
        options: AssignOptions,
    ) -> Result<()> {
        let Buffers { staging, input, block, filter, labels, sq_distances, on_host } = self;
        let n = x.rows();
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let rows = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
        let packing = Packing::for_assign(first_row, options);
        let out = (&mut labels.write(), &mut sq_distances.write());
        block.assign(queue, codebook, filter, &rows, packing, out.0, out.1)?;
        queue.copy_out(labels.read(), &mut on_host.labels.as_mut_slice()?[..n])?;
        queue.copy_out(sq_distances.read(), &mut on_host.sq_distances.as_mut_slice()?[..n])?;
        queue.copy_out(block.status.read(), on_host.status.as_mut_slice()?)
    }
}
