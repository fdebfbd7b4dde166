//! The full matrix of squared distances of rows in host memory.

use crate::backend::Precision;
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::lane::{Lane, Plan, in_blocks, stage};
use crate::backend::cuda::pairwise_sq_l2::{by_norms, direct};
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::{RowBlock, STATUS, rows};
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use cudarc::driver::CudaSlice;
use std::ops::{ControlFlow, Range};

const OP: &str = "pairwise_sq_l2";

/// Fills `out`, `[n, k]`. The inner error is the first row that holds a NaN or an infinity.
pub(crate) fn pairwise_sq_l2<T: Element>(
    x: MatrixView<'_, T>,
    codebook: &DeviceCodebook,
    precision: Precision,
    out: &mut [f32],
) -> Result<std::result::Result<(), usize>> {
    let (n, k) = (x.rows(), codebook.k as usize);
    if n == 0 {
        return Ok(Ok(()));
    }
    let plan = Plan::new(OP, codebook, n, RowBlock::bytes_per_row(codebook, T::DTYPE) + 4 * k)?;
    let lane = |_| {
        let queue = Queue::new(OP, &codebook.context)?;
        let buffers = Buffers::new(&queue, codebook, T::DTYPE, plan.rows)?;
        Ok(Lane::new(queue, buffers))
    };
    let mut lanes: Vec<Lane<Buffers>> = (0..plan.lanes).map(lane).collect::<Result<_>>()?;
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebook, precision)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { on_host, status, .. } = &lane.buffers;
        out[range.start * k..range.end * k].copy_from_slice(&on_host.as_slice()?[..range.len() * k]);
        match status.as_slice()?[0] {
            u64::MAX => Ok(ControlFlow::Continue(())),
            bad => Ok(ControlFlow::Break(bad as usize)),
        }
    };
    match in_blocks(&mut lanes, n, plan.rows as usize, submit, collect)? {
        ControlFlow::Break(row) => Ok(Err(row)),
        ControlFlow::Continue(()) => Ok(Ok(())),
    }
}

/// What a block needs.
struct Buffers {
    staging: Pinned<u8>,
    block: RowBlock,
    out: CudaSlice<f32>,
    on_host: Pinned<f32>,
    status: Pinned<u64>,
}

impl Buffers {
    fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32) -> Result<Buffers> {
        let rows = capacity as usize;
        Ok(Buffers {
            staging: queue.alloc_pinned(rows * codebook.d as usize * dtype.size())?,
            block: RowBlock::new(queue, codebook, dtype, capacity)?,
            out: queue.alloc(rows * codebook.k as usize)?,
            on_host: queue.alloc_pinned(rows * codebook.k as usize)?,
            status: queue.alloc_pinned(STATUS.len())?,
        })
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
        let Buffers { staging, block, out, on_host, status } = self;
        let (rows_here, exact) = (x.rows(), precision == Precision::Exact);
        // A block has at most `capacity` rows.
        let n = rows_here as u32;
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut block.input)?;
        rows(queue, codebook, block, first_row, n, true)?;
        if !exact {
            by_norms(queue, codebook, block, n, out)?;
        }
        direct(queue, codebook, block, n, exact, out)?;
        queue.copy_out(out, &mut on_host.as_mut_slice()?[..rows_here * codebook.k as usize])?;
        queue.copy_out(&block.status, status.as_mut_slice()?)
    }
}
