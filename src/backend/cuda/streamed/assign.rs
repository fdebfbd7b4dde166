//! Nearest codeword of rows in host memory.

use super::results::{Results, stats};
use crate::backend::cuda::block::Block;
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
        buffers.results.start(queue, &mut buffers.block)?;
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebook, options)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        lane.buffers.results.hand_over(&mut labels[range.clone()], &mut sq_distances[range])
    };
    if let ControlFlow::Break(row) = lanes.run(n, submit, collect)? {
        return Ok(Err(row));
    }
    let stats = stats(n, lanes.iter_mut().map(|lane| &lane.buffers.results))?;
    lanes.keep(OP, codebook, kept)?;
    Ok(Ok(stats))
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    staging: Pinned<u8>,
    input: Buffer<u8>,
    block: Block,
    filter: Filter,
    results: Results,
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
            results: Results::new(queue, rows)?,
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype) -> usize {
        codebook.d as usize * dtype.size() + Block::bytes_per_row(codebook, dtype) + Results::bytes_each()
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
        let Buffers { staging, input, block, filter, results } = self;
        let n = x.rows();
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let rows = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
        let packing = Packing::for_assign(first_row, options);
        let (mut labels, mut sq_distances) = results.out();
        block.assign(queue, codebook, filter, &rows, packing, &mut labels, &mut sq_distances)?;
        results.fetch(queue, block, n)
    }
}
