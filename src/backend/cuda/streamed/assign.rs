//! Nearest codeword of rows in host memory.

use crate::backend::cuda::assign::{Again, assign as filter};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::distance::distance;
use crate::backend::cuda::lane::{Lane, Plan, in_blocks, stage};
use crate::backend::cuda::look::look;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::{RowBlock, STATUS, rows};
use crate::backend::{AssignOptions, AssignStats, NonFinite, Precision};
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use cudarc::driver::CudaSlice;
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
    let plan = Plan::new(OP, codebook, n, Buffers::bytes_per_row(codebook, T::DTYPE))?;
    let lane = |_| {
        let queue = Queue::new(OP, &codebook.context)?;
        let buffers = Buffers::new(&queue, codebook, T::DTYPE, plan.rows)?;
        Ok(Lane::new(queue, buffers))
    };
    let mut lanes: Vec<Lane<Buffers>> = (0..plan.lanes).map(lane).collect::<Result<_>>()?;
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebook, options.precision)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let on_host = &lane.buffers.on_host;
        labels[range.clone()].copy_from_slice(&on_host.labels.as_slice()?[..range.len()]);
        sq_distances[range.clone()].copy_from_slice(&on_host.sq_distances.as_slice()?[..range.len()]);
        match (options.non_finite, on_host.status.as_slice()?[0]) {
            (NonFinite::Error, bad) if bad != u64::MAX => Ok(ControlFlow::Break(bad as usize)),
            _ => Ok(ControlFlow::Continue(())),
        }
    };
    if let ControlFlow::Break(row) = in_blocks(&mut lanes, n, plan.rows as usize, submit, collect)? {
        return Ok(Err(row));
    }
    // Every row that is neither bad nor looked at again was settled by the first pass.
    let mut stats = AssignStats { first: n as u64, ..AssignStats::default() };
    for lane in &lanes {
        if let [_, bad, second, f64, exact] = *lane.buffers.on_host.status.as_slice()? {
            stats.first -= bad + second + f64 + exact;
            stats += AssignStats { first: 0, second, f64, exact };
        }
    }
    Ok(Ok(stats))
}

/// What a block needs.
struct Buffers {
    staging: Pinned<u8>,
    block: RowBlock,
    labels: CudaSlice<u32>,
    sq_distances: CudaSlice<f32>,
    again: Again,
    on_host: Results,
}

/// Where results arrive.
struct Results {
    labels: Pinned<u32>,
    sq_distances: Pinned<f32>,
    status: Pinned<u64>,
}

impl Buffers {
    fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32) -> Result<Buffers> {
        let rows = capacity as usize;
        Ok(Buffers {
            staging: queue.alloc_pinned(rows * codebook.d as usize * dtype.size())?,
            block: RowBlock::new(queue, codebook, dtype, capacity)?,
            labels: queue.alloc(rows)?,
            sq_distances: queue.alloc(rows)?,
            again: Again { rows: queue.alloc(rows)?, count: queue.alloc(1)? },
            on_host: Results {
                labels: queue.alloc_pinned(rows)?,
                sq_distances: queue.alloc_pinned(rows)?,
                status: queue.alloc_pinned(STATUS.len())?,
            },
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        RowBlock::bytes_per_row(codebook, dtype) + 3 * 4
    }

    /// Queues the work on `x`, whose first row is row `first_row` of the call.
    fn submit<T: Element>(
        &mut self,
        queue: &Queue,
        x: MatrixView<'_, T>,
        first_row: u64,
        codebook: &DeviceCodebook,
        precision: Precision,
    ) -> Result<()> {
        let Buffers { staging, block, labels, sq_distances, again, on_host } = self;
        let (rows_here, fast) = (x.rows(), precision == Precision::Fast);
        // A block has at most `capacity` rows.
        let n = rows_here as u32;
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut block.input)?;
        rows(queue, codebook, block, first_row, n, fast)?;
        if codebook.m > 1 {
            queue.zero(&mut again.count)?;
            filter(queue, codebook, block, n, fast, labels, again)?;
            look(queue, codebook, block, n, again, labels)?;
        } else {
            // Nothing to choose from: the first codeword is the only one.
            queue.zero(labels)?;
        }
        distance(queue, codebook, block, n, labels, sq_distances)?;
        queue.copy_out(labels, &mut on_host.labels.as_mut_slice()?[..rows_here])?;
        queue.copy_out(sq_distances, &mut on_host.sq_distances.as_mut_slice()?[..rows_here])?;
        queue.copy_out(&block.status, on_host.status.as_mut_slice()?)
    }
}
