//! Codes of rows in host memory whose parts have codebooks of their own: rows go to the device once for all parts, and
//! codes come back.

use crate::backend::cuda::block::{BadValue, Status};
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::lane::{Kept, Lane, Lanes, RowSize, stage};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::pack_codes::code_size;
use crate::backend::cuda::parts::{Encoder, Work};
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::Rows;
use crate::error::Result;
use crate::matrix::{Dtype, Element, MatrixView};
use std::ops::{ControlFlow, Range};

const OP: &str = "encode";

/// Fills `codes` with those of the rows of `x`, whose columns are those of the codebooks side by side, all of as many
/// dimensions: labels of `bits` each.
///
/// The inner error is the first row that holds a NaN or an infinity.
pub(crate) fn encode_parts<T: Element>(
    x: MatrixView<'_, T>,
    codebooks: &[&DeviceCodebook],
    bits: u32,
    codes: &mut [u8],
) -> Result<std::result::Result<(), usize>> {
    let n = x.rows();
    let (Some(&first), true) = (codebooks.first(), n > 0) else { return Ok(Ok(())) };
    let work = Work::new(OP, codebooks, n)?;
    let size = Size { dtype: T::DTYPE, cols: x.cols(), parts: codebooks.len(), code: code_size(codebooks.len(), bits) };
    let row = RowSize {
        dtype: T::DTYPE,
        bytes: x.cols() * T::DTYPE.size() + size.code + work.bytes_per_row(codebooks, T::DTYPE),
        per_lane: work.bytes(codebooks.len()),
    };
    let kept = &first.idle.encode_parts;
    let buffers = |queue: &Queue, rows| Buffers::new(queue, codebooks, size, rows, &work);
    let mut lanes = Lanes::new(OP, first, kept, n, row, buffers)?;
    if lanes.iter_mut().any(|lane| lane.buffers.size != size || !lane.buffers.encoder.serves(&work)) {
        // Made for other codebooks beside the first.
        drop(lanes);
        lanes = Lanes::new(OP, first, &Kept::default(), n, row, buffers)?;
    }
    for Lane { queue, buffers, .. } in lanes.iter_mut() {
        buffers.encoder.begin(queue, codebooks)?;
    }
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Lane { queue, buffers, .. } = lane;
        buffers.submit(queue, x.block(range.clone()), range.start as u64, codebooks, bits)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { codes_on_host, status, .. } = &lane.buffers;
        if let Some(BadValue { row, .. }) = Status::of_words(status.as_slice()?).bad_value {
            return Ok(ControlFlow::Break(row as usize));
        }
        let codes = &mut codes[range.start * size.code..range.end * size.code];
        codes.copy_from_slice(&codes_on_host.as_slice()?[..codes.len()]);
        Ok(ControlFlow::Continue(()))
    };
    if let ControlFlow::Break(row) = lanes.run(n, submit, collect)? {
        return Ok(Err(row));
    }
    lanes.keep(OP, first, kept)?;
    Ok(Ok(()))
}

/// What buffers are made for.
#[derive(Clone, Copy, PartialEq)]
struct Size {
    dtype: Dtype,
    cols: usize,
    parts: usize,
    /// Bytes of a code.
    code: usize,
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    size: Size,
    staging: Pinned<u8>,
    input: Buffer<u8>,
    encoder: Encoder,
    codes: Buffer<u8>,
    codes_on_host: Pinned<u8>,
    status: Pinned<u64>,
}

impl Buffers {
    fn new(queue: &Queue, codebooks: &[&DeviceCodebook], size: Size, capacity: u32, work: &Work) -> Result<Buffers> {
        let rows = capacity as usize;
        let bytes = rows * size.cols * size.dtype.size();
        Ok(Buffers {
            size,
            staging: queue.alloc_pinned(bytes)?,
            input: queue.alloc(bytes)?,
            encoder: Encoder::new(queue, codebooks, work, size.dtype, capacity)?,
            codes: queue.alloc(rows * size.code)?,
            codes_on_host: queue.alloc_pinned(rows * size.code)?,
            status: queue.alloc_pinned(Status::WORDS)?,
        })
    }

    /// Queues the work on `x`, whose first row is row `first_row` of the call.
    fn submit<T: Element>(
        &mut self,
        queue: &Queue,
        x: MatrixView<'_, T>,
        first_row: u64,
        codebooks: &[&DeviceCodebook],
        bits: u32,
    ) -> Result<()> {
        let Buffers { size, staging, input, encoder, codes, codes_on_host, status } = self;
        queue.copy_in(stage(x, staging.as_mut_slice()?), &mut input.write())?;
        let rows = Rows { values: input.read(), dtype: T::DTYPE, n: x.rows(), stride: x.cols() };
        encoder.encode(queue, codebooks, &rows, first_row, bits, &mut codes.write())?;
        queue.copy_out(codes.read(), &mut codes_on_host.as_mut_slice()?[..x.rows() * size.code])?;
        queue.copy_out(encoder.status().read(), status.as_mut_slice()?)
    }
}
