//! Launch of kernels/first_bad.cu.

use super::codebook::MAX_DIMENSIONS;
use super::memory::Out;
use super::queue::Queue;
use super::rows::Rows;
use crate::error::Result;
use crate::matrix::Dtype;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// After kernels that took the rows of `x` part by part, the first of which is row `first_row` of the call: where the status
/// names one of the rows, it gets the first of its `d` columns that holds a value that is not finite.
pub(super) fn first_bad(queue: &Queue, x: &Rows<'_>, d: u32, first_row: u64, status: &mut Out<'_, u64>) -> Result<()> {
    if x.n == 0 {
        return Ok(());
    }
    assert!(x.hold(d as usize) && x.n <= u32::MAX as usize, "checks 2 and 3");
    assert!(status.len() > 0 && d as usize <= MAX_DIMENSIONS, "check 2");
    let (n, stride) = (x.n as u32, x.stride as u64);
    let entry = match x.dtype {
        Dtype::F32 => "first_bad_f32",
        Dtype::F16 => "first_bad_f16",
        Dtype::Bf16 => "first_bad_bf16",
    };
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };
    let function = queue.context.function("first_bad", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(&x.values).arg(&stride).arg(status).arg(&first_row).arg(&n).arg(&d);
    // SAFETY: checks 1 to 3; the kernel reads no row but those passed, whatever the status names.
    unsafe { queue.launch(entry, &mut launch, config) }
}
