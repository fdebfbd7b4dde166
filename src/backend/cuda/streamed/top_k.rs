//! The r nearest codewords of rows in host memory.

use super::results::{Results, stats};
use crate::backend::cuda::block::Block;
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
        buffers.results.start(queue, &mut buffers.block)?;
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), codebook, r, Packing::for_assign(range.start as u64, options))
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let range = range.start * r..range.end * r;
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
    candidates: Candidates,
    results: Results,
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
            results: Results::new(queue, rows * r)?,
        })
    }

    /// Bytes of device memory that one row takes.
    fn bytes_per_row(codebook: &DeviceCodebook, dtype: Dtype, r: usize) -> usize {
        let input = codebook.d as usize * dtype.size();
        input + Block::bytes_per_row(codebook, dtype) + Candidates::bytes_per_row(codebook) + Results::bytes_each() * r
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
        let Buffers { staging, input, block, candidates, results } = self;
        let n = x.rows();
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let x = Rows { values: input.read(), dtype: T::DTYPE, n, stride: x.cols() };
        let (mut labels, mut sq_distances) = results.out();
        // r is at most k, which fits.
        block.top_k(queue, codebook, &x, r as u32, packing, candidates, &mut labels, &mut sq_distances)?;
        results.fetch(queue, block, n * r)
    }
}
