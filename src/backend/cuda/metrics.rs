//! What metrics need of vectors and labels on the device: sums over blocks of rows, and how often each codeword is used.

use super::codebook::DeviceCodebook;
use super::histogram::histogram;
use super::memory::In;
use super::queue::Queue;
use super::rows::Rows;
use super::sq_sums::{sq_sums, sq_sums_blocks};
use crate::error::{Error, Result};
use crate::metrics::block_rows;

/// Rows whose sums are on the device at once.
const CHUNK_ROWS: usize = 1 << 20;

pub(super) struct Sums {
    /// `[k]`.
    pub histogram: Vec<u64>,
    /// Of every block of [`block_rows`], the sum of squares and that of differences.
    pub blocks: Vec<[f64; 2]>,
}

impl Sums {
    /// The sums of all rows of `x`, as many as there are labels; waits for the stream.
    ///
    /// # Errors
    /// - [`Error::Shape`] where there are 2^32 rows or more.
    /// - [`Error::CodeOutOfRange`] naming the first label that is neither below k nor the sentinel.
    pub fn of(queue: &Queue, codebook: &DeviceCodebook, x: &Rows<'_>, labels: &In<'_, u32>) -> Result<Sums> {
        let too_many = |_| Error::Shape { op: queue.op, expected: "fewer than 2^32 rows".into(), got: x.n.to_string() };
        let n = u32::try_from(x.n).map_err(too_many)?;
        let per_block = block_rows(codebook.d as usize);
        // Whole blocks.
        let chunk = (CHUNK_ROWS / per_block as usize).max(1) * per_block as usize;
        let n_blocks = n.div_ceil(per_block) as usize;

        let (mut counts, mut bad) = (queue.alloc(codebook.k as usize)?, queue.alloc(1)?);
        let (mut sums, mut blocks) = (queue.alloc(2 * x.n.min(chunk))?, queue.alloc(2 * n_blocks)?);
        queue.zero(&mut counts.write())?;
        queue.fill(&mut bad.write(), 0xff)?;
        histogram(queue, labels, n, codebook.k, &mut counts.write(), &mut bad.write())?;
        for start in (0..x.n).step_by(chunk) {
            let rows = x.block(start..x.n.min(start + chunk));
            sq_sums(queue, codebook, &rows, &labels.from(start), &mut sums.write())?;
            // A chunk has no more rows than there are.
            let first_block = start / per_block as usize;
            let mut out = blocks.write();
            sq_sums_blocks(queue, &sums.read(), rows.n as u32, per_block, &mut out.from(2 * first_block))?;
        }

        let mut on_host = Sums { histogram: vec![0; codebook.k as usize], blocks: vec![[0.0; 2]; n_blocks] };
        let mut bad_on_host = [u64::MAX];
        queue.copy_out(counts.read(), &mut on_host.histogram)?;
        queue.copy_out(bad.read(), &mut bad_on_host)?;
        queue.copy_out(blocks.read(), on_host.blocks.as_flattened_mut())?;
        queue.synchronize()?;
        match bad_on_host {
            [u64::MAX] => Ok(on_host),
            [bad] => {
                let (position, code, k) = ((bad >> 32) as usize, bad as u32, codebook.k as usize);
                Err(Error::CodeOutOfRange { op: queue.op, position, code, k })
            }
        }
    }
}
