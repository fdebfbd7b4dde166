//! Labels and distances on their way back to the host, with what the kernels counted.

use crate::backend::AssignStats;
use crate::backend::cuda::block::{BadValue, Block, Status};
use crate::backend::cuda::memory::{Buffer, Out};
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::error::Result;
use std::ops::ControlFlow;

/// Room for the results of a block, on the device and where they arrive.
pub(super) struct Results {
    labels: Buffer<u32>,
    sq_distances: Buffer<f32>,
    labels_on_host: Pinned<u32>,
    sq_distances_on_host: Pinned<f32>,
    status: Pinned<u64>,
}

impl Results {
    /// Room for `len` labels and distances.
    pub fn new(queue: &Queue, len: usize) -> Result<Results> {
        Ok(Results {
            labels: queue.alloc(len)?,
            sq_distances: queue.alloc(len)?,
            labels_on_host: queue.alloc_pinned(len)?,
            sq_distances_on_host: queue.alloc_pinned(len)?,
            status: queue.alloc_pinned(Status::WORDS)?,
        })
    }

    /// Bytes of device memory that one label and its distance take.
    pub fn bytes_each() -> usize {
        size_of::<u32>() + size_of::<f32>()
    }

    /// Forgets what earlier calls counted, in the block too.
    pub fn start(&mut self, queue: &Queue, block: &mut Block) -> Result<()> {
        self.status.as_mut_slice()?.copy_from_slice(&Status::NOTHING);
        Status::clear(queue, &mut block.status.write())
    }

    /// Where the kernels write.
    pub fn out(&mut self) -> (Out<'_, u32>, Out<'_, f32>) {
        (self.labels.write(), self.sq_distances.write())
    }

    /// Queues the way back of the first `len`.
    pub fn fetch(&mut self, queue: &Queue, block: &Block, len: usize) -> Result<()> {
        queue.copy_out(self.labels.read(), &mut self.labels_on_host.as_mut_slice()?[..len])?;
        queue.copy_out(self.sq_distances.read(), &mut self.sq_distances_on_host.as_mut_slice()?[..len])?;
        queue.copy_out(block.status.read(), self.status.as_mut_slice()?)
    }

    /// Hands over what was fetched, when the stream is through; breaks off at a row that is not finite.
    pub fn hand_over(&self, labels: &mut [u32], sq_distances: &mut [f32]) -> Result<ControlFlow<usize>> {
        labels.copy_from_slice(&self.labels_on_host.as_slice()?[..labels.len()]);
        sq_distances.copy_from_slice(&self.sq_distances_on_host.as_slice()?[..sq_distances.len()]);
        match self.status()?.bad_value {
            Some(BadValue { row, .. }) => Ok(ControlFlow::Break(row as usize)),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn status(&self) -> Result<Status> {
        Ok(Status::of_words(self.status.as_slice()?))
    }
}

/// The tiers of a call of `n` rows, whose lanes have these results. The words of a lane count on through its blocks; a
/// lane that had none counted nothing.
pub(super) fn stats<'a>(n: usize, results: impl Iterator<Item = &'a Results>) -> Result<AssignStats> {
    let mut stats = AssignStats { first: n as u64, ..AssignStats::default() };
    for results in results {
        let Status { bad, second, f64, exact, .. } = results.status()?;
        stats.first -= bad + second + f64 + exact;
        stats += AssignStats { first: 0, second, f64, exact };
    }
    Ok(stats)
}
