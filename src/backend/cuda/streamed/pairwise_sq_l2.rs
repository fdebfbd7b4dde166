//! The full matrix of squared distances of rows in host memory.

use crate::backend::Precision;
use crate::backend::cuda::block::{BadValue, Block, Status};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::lane::{Lane, Lanes, RowSize, stage};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::Rows;
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
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
    let kept = &codebook.idle.pairwise_sq_l2;
    let row = RowSize { dtype: T::DTYPE, bytes: Buffers::bytes_per_row(codebook, T::DTYPE), per_lane: 0 };
    let buffers = |queue: &Queue, rows| Buffers::new(queue, codebook, T::DTYPE, rows);
    let mut lanes = Lanes::new(OP, codebook, kept, n, row, buffers)?;
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        Status::clear(queue, &mut buffers.block.status.write())?;
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebook, precision)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { on_host, status, .. } = &lane.buffers;
        out[range.start * k..range.end * k].copy_from_slice(&on_host.as_slice()?[..range.len() * k]);
        match Status::of_words(status.as_slice()?).bad_value {
            Some(BadValue { row, .. }) => Ok(ControlFlow::Break(row as usize)),
            None => Ok(ControlFlow::Continue(())),
        }
    };
    match lanes.run(n, submit, collect)? {
        ControlFlow::Break(row) => Ok(Err(row)),
        ControlFlow::Continue(()) => lanes.keep(OP, codebook, kept).map(Ok),
    }
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    staging: Pinned<u8>,
    input: Buffer<u8>,
    block: Block,
    out: Buffer<f32>,
    on_host: Pinned<f32>,
    status: Pinned<u64>,
}

impl Buffers {
    fn new(queue: &Queue, codebook: &DeviceCodebook, dtype: Dtype, capacity: u32) -> Result<Buffers> {
        let rows = capacity as usize;
        let bytes = rows * codebook.d as usize * dtype.size();
        Ok(Buffers {
            staging: queue.alloc_pinned(bytes)?,
            input: queue.alloc(bytes)?,
            block: Block::new(queue, codebook, dtype, capacity)?,
            out: queue.alloc(rows * codebook.k as usize)?,
            on_host: queue.alloc_pinned(rows * codebook.k as usize)?,
            status: queue.alloc_pinned(Status::WORDS)?,
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        codebook.d as usize * dtype.size() + Block::bytes_per_row(codebook, dtype) + 4 * codebook.k as usize
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
        let Buffers { staging, input, block, out, on_host, status } = self;
        let n = x.rows();
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let rows = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
        block.pairwise_sq_l2(queue, codebook, &rows, first_row, precision, &mut out.write())?;
        queue.copy_out(out.read(), &mut on_host.as_mut_slice()?[..n * codebook.k as usize])?;
        queue.copy_out(block.status.read(), status.as_mut_slice()?)
    }
}
