//! Codes of rows that lie on the device, whose parts have codebooks of their own, and that stay there.

use super::resident;
use crate::backend::cuda::block::{BadValue, Status};
use crate::backend::cuda::caller::{MemoryMut, check_place, check_stream, write};
use crate::backend::cuda::codebook::{DeviceCodebook, MAX_DIMENSIONS};
use crate::backend::cuda::first_bad::first_bad;
use crate::backend::cuda::matrix::MatrixView;
use crate::backend::cuda::pack_codes::code_size;
use crate::backend::cuda::parts::{Encoder, Work};
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::backend::cuda::rows::Rows;
use crate::backend::{AssignStats, check_len};
use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::matrix::Element;
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// Room on the device for the codes of rows of type `T`, whose columns are those of the codebooks side by side, all of as
/// many dimensions.
pub(crate) struct PartsWorkspace<T> {
    // Before the codebooks: its memory goes first.
    encoder: Encoder,
    queue: Queue,
    on_host: Pinned<u64>,
    capacity: usize,
    bits: u32,
    /// Columns of a row.
    d: u32,
    /// Rows that got codes since the last check.
    rows: u64,
    codebooks: Vec<Codebook>,
    elements: std::marker::PhantomData<T>,
}

impl<T: Element> PartsWorkspace<T> {
    /// For one or more codebooks, blocks of `rows` and labels of `bits` each.
    pub fn new(
        op: &'static str,
        codebooks: &[Codebook],
        bits: u32,
        stream: &Arc<CudaStream>,
        rows: usize,
    ) -> Result<Self> {
        let residents = residents(op, codebooks)?;
        let mut places = residents.iter().map(|resident| resident.context.stream());
        places.try_for_each(|place| check_place(op, "codebook", place, stream))?;
        check_stream(op, stream)?;
        let context = residents.first().map(|first| first.context.clone());
        let (Some(context), Some(capacity)) = (context, u32::try_from(rows).ok().filter(|&rows| rows > 0)) else {
            let expected = format!("from 1 to {}", u32::MAX);
            return Err(Error::InvalidParameter { op, name: "rows", expected, got: rows.to_string() });
        };
        let d: usize = codebooks.iter().map(Codebook::d).sum();
        if d > MAX_DIMENSIONS {
            let expected = format!("at most {MAX_DIMENSIONS} dimensions on a CUDA device");
            return Err(Error::Shape { op, expected, got: d.to_string() });
        }
        let queue = Queue { op, context, stream: stream.clone() };
        let work = Work::new(op, &residents, rows)?;
        // As a whole before anything is queued: its end is that of the work.
        let mut workspace = PartsWorkspace {
            on_host: queue.alloc_pinned(Status::WORDS)?,
            encoder: Encoder::new(&queue, &residents, &work, T::DTYPE, capacity)?,
            queue,
            capacity: rows,
            bits,
            d: d as u32,
            rows: 0,
            codebooks: codebooks.to_vec(),
            elements: std::marker::PhantomData,
        };
        workspace.try_out()?;
        Ok(workspace)
    }

    /// Encodes a row of zeros, and forgets it: what loads the kernels is refused here, where there is not the memory, and
    /// never between the launches of a call.
    fn try_out(&mut self) -> Result<()> {
        let PartsWorkspace { encoder, queue, codebooks, bits, d, .. } = self;
        let residents = residents(queue.op, codebooks)?;
        let cols = *d as usize;
        let mut row = queue.alloc::<u8>(cols * T::DTYPE.size())?;
        let mut code = queue.alloc::<u8>(code_size(residents.len(), *bits))?;
        encoder.begin(queue, &residents)?;
        queue.zero(&mut row.write())?;
        let rows = Rows { values: row.read(), dtype: T::DTYPE, n: 1, stride: cols };
        encoder.encode(queue, &residents, &rows, 0, *bits, &mut code.write())?;
        first_bad(queue, &rows, *d, 0, &mut encoder.status().write())?;
        Status::clear(queue, &mut encoder.status().write())
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.queue.stream
    }

    /// Queues the codes of the rows of `x`, which has the columns of all parts.
    pub fn encode(&mut self, op: &'static str, x: MatrixView<'_, T>, codes: &mut dyn MemoryMut<u8>) -> Result<()> {
        let PartsWorkspace { encoder, queue, codebooks, bits, capacity, d, .. } = self;
        let size = code_size(codebooks.len(), *bits);
        // Memory of so many bytes is there, so that the product fits.
        check_len(op, "bytes of codes", x.rows().saturating_mul(size), codes.len())?;
        queue.op = op;
        let (residents, stream) = (residents(op, codebooks)?, queue.stream.clone());
        let (x, _x) = x.read(op, "vectors", &stream)?;
        let (mut codes, _codes) = write(op, "codes", codes, &stream)?;
        for start in (0..x.n).step_by(*capacity) {
            let rows = x.block(start..x.n.min(start + *capacity));
            encoder.encode(queue, &residents, &rows, start as u64, *bits, &mut codes.from(start * size))?;
            first_bad(queue, &rows, *d, start as u64, &mut encoder.status().write())?;
        }
        self.rows += x.n as u64;
        Ok(())
    }

    /// Waits for the stream, and tells what the work since the last check found.
    pub fn check(&mut self, op: &'static str) -> Result<AssignStats> {
        let PartsWorkspace { encoder, queue, on_host, codebooks, .. } = self;
        queue.op = op;
        queue.copy_out(encoder.status().read(), on_host.as_mut_slice()?)?;
        let cleared = Status::clear(queue, &mut encoder.status().write());
        // First of all: the copy writes memory that goes with the workspace.
        queue.synchronize()?;
        cleared?;
        let rows = std::mem::take(&mut self.rows);
        let status = Status::of_words(on_host.as_slice()?);
        if let Some(BadValue { row, col, got }) = status.bad_value {
            let way_out = "remove the vector";
            return Err(Error::NonFinite { op, what: "vector", row: row as usize, col, got, way_out });
        }
        Ok(status.stats(rows * codebooks.len() as u64))
    }
}

impl<T> Drop for PartsWorkspace<T> {
    fn drop(&mut self) {
        self.codebooks.iter().for_each(|codebook| super::release(codebook, &self.queue.stream));
    }
}

fn residents<'a>(op: &'static str, codebooks: &'a [Codebook]) -> Result<Vec<&'a DeviceCodebook>> {
    codebooks.iter().map(|codebook| resident(op, codebook)).collect()
}
