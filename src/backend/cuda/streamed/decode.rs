//! Codewords of codes in host memory.

use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::gather::gather;
use crate::backend::cuda::lane::{Lane, Plan, in_blocks};
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::error::Result;
use cudarc::driver::CudaSlice;
use std::ops::{ControlFlow, Range};

const OP: &str = "decode";

/// Fills `out`, `[n, d]`, with the codewords of `codes`; a sentinel gives a row of NaN. The inner error is the position
/// of the first code that names no codeword.
pub(crate) fn decode(
    codes: &[u32],
    codebook: &DeviceCodebook,
    out: &mut [f32],
) -> Result<std::result::Result<(), usize>> {
    let (n, d) = (codes.len(), codebook.d as usize);
    if n == 0 {
        return Ok(Ok(()));
    }
    let plan = Plan::new(OP, codebook, n, 4 + 4 * d)?;
    let lane = |_| {
        let queue = Queue::new(OP, &codebook.context)?;
        let rows = plan.rows as usize;
        let buffers = Buffers {
            staging: queue.alloc_pinned(rows)?,
            codes: queue.alloc(rows)?,
            out: queue.alloc(rows * d)?,
            bad: queue.upload(&[u64::MAX])?,
            out_on_host: queue.alloc_pinned(rows * d)?,
            bad_on_host: queue.alloc_pinned(1)?,
        };
        Ok(Lane::new(queue, buffers))
    };
    let mut lanes: Vec<Lane<Buffers>> = (0..plan.lanes).map(lane).collect::<Result<_>>()?;
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let (queue, Buffers { staging, codes: on_device, out, bad, out_on_host, bad_on_host }) =
            (&lane.queue, &mut lane.buffers);
        let len = range.len();
        let staging = &mut staging.as_mut_slice()?[..len];
        staging.copy_from_slice(&codes[range]);
        queue.copy_in(staging, on_device)?;
        // A block has at most `plan.rows` rows.
        gather(queue, codebook, on_device, len as u32, out, bad)?;
        queue.copy_out(out, &mut out_on_host.as_mut_slice()?[..len * d])?;
        queue.copy_out(bad, bad_on_host.as_mut_slice()?)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { out_on_host, bad_on_host, .. } = &lane.buffers;
        out[range.start * d..range.end * d].copy_from_slice(&out_on_host.as_slice()?[..range.len() * d]);
        match bad_on_host.as_slice()?[0] {
            u64::MAX => Ok(ControlFlow::Continue(())),
            bad => Ok(ControlFlow::Break(range.start + bad as usize)),
        }
    };
    match in_blocks(&mut lanes, n, plan.rows as usize, submit, collect)? {
        ControlFlow::Break(position) => Ok(Err(position)),
        ControlFlow::Continue(()) => Ok(Ok(())),
    }
}

/// What a block needs.
struct Buffers {
    staging: Pinned<u32>,
    codes: CudaSlice<u32>,
    out: CudaSlice<f32>,
    bad: CudaSlice<u64>,
    out_on_host: Pinned<f32>,
    bad_on_host: Pinned<u64>,
}
