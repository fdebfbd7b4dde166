//! Codewords of codes in host memory.

use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::cuda::gather::gather;
use crate::backend::cuda::lane::{Lane, Lanes, RowSize};
use crate::backend::cuda::memory::Buffer;
use crate::backend::cuda::queue::{Pinned, Queue};
use crate::error::Result;
use crate::matrix::Dtype;
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
    let kept = &codebook.idle.decode;
    let buffers = |queue: &Queue, rows: u32| {
        let rows = rows as usize;
        Ok(Buffers {
            staging: queue.alloc_pinned(rows)?,
            codes: queue.alloc(rows)?,
            out: queue.alloc(rows * d)?,
            bad: queue.alloc(1)?,
            out_on_host: queue.alloc_pinned(rows * d)?,
            bad_on_host: queue.alloc_pinned(1)?,
        })
    };
    let mut lanes =
        Lanes::new(OP, codebook, kept, n, RowSize { dtype: Dtype::F32, bytes: 4 + 4 * d, per_lane: 0 }, buffers)?;
    let submit = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let (queue, Buffers { staging, codes: on_device, out, bad, out_on_host, bad_on_host }) =
            (&lane.queue, &mut lane.buffers);
        let len = range.len();
        let staging = &mut staging.as_mut_slice()?[..len];
        staging.copy_from_slice(&codes[range]);
        queue.copy_in(staging, &mut on_device.write())?;
        queue.fill(&mut bad.write(), 0xff)?;
        // A block has fewer than 2^32 rows.
        gather(queue, codebook, &on_device.read(), len as u32, &mut out.write(), &mut bad.write())?;
        queue.copy_out(out.read(), &mut out_on_host.as_mut_slice()?[..len * d])?;
        queue.copy_out(bad.read(), bad_on_host.as_mut_slice()?)
    };
    let collect = |lane: &mut Lane<Buffers>, range: Range<usize>| {
        let Buffers { out_on_host, bad_on_host, .. } = &lane.buffers;
        out[range.start * d..range.end * d].copy_from_slice(&out_on_host.as_slice()?[..range.len() * d]);
        match bad_on_host.as_slice()?[0] {
            u64::MAX => Ok(ControlFlow::Continue(())),
            bad => Ok(ControlFlow::Break(range.start + (bad >> 32) as usize)),
        }
    };
    match lanes.run(n, submit, collect)? {
        ControlFlow::Break(position) => Ok(Err(position)),
        ControlFlow::Continue(()) => lanes.keep(OP, codebook, kept).map(Ok),
    }
}

/// What a block needs.
pub(in crate::backend::cuda) struct Buffers {
    staging: Pinned<u32>,
    codes: Buffer<u32>,
    out: Buffer<f32>,
    bad: Buffer<u64>,
    out_on_host: Pinned<f32>,
    bad_on_host: Pinned<u64>,
}
