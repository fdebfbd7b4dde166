//! The CUDA backend: the same filter pass, bounds and exact arithmetic as on the CPU, in kernels/*.cu.
//!
//! `context` opens a device and loads kernels, `codebook` holds what they read of a codebook, every .cu has a launch
//! of the same name here, `filter` scores by cuBLAS or without it, on
//! tensor cores if `tensor` trusts them, `streamed` takes rows from the host through them in
//! blocks that fit the card.
//!
//! Every launch rests on these checks:
//! 1. the arguments are the parameters of the entry point in kernels/, in their order and types;
//! 2. every buffer has at least the length that the header of the .cu gives it for these sizes (asserted, or given by
//!    its making with the `capacity` of the block);
//! 3. sizes were proven to fit 32 bits, and products of them are formed in 64 bits;
//! 4. indices that a kernel reads from memory were written by kernels of the same stream, or by those of `prepare` before
//!    `codebook::DeviceCodebook` returned, and lie below the sizes passed.

#[cfg(feature = "cuda")]
mod accumulate;
#[cfg(feature = "cuda")]
pub(crate) mod adc_scan;
#[cfg(feature = "cuda")]
mod assign;
#[cfg(feature = "cuda")]
mod assign_tensor;
#[cfg(feature = "cuda")]
mod assign_tile;
#[cfg(feature = "cuda")]
mod block;
#[cfg(feature = "cuda")]
pub mod caller;
#[cfg(feature = "cuda")]
pub(crate) mod codebook;
#[cfg(feature = "cuda")]
pub mod context;
pub mod cublas;
#[cfg(feature = "cuda")]
mod distance;
#[cfg(feature = "cuda")]
mod filter;
#[cfg(feature = "cuda")]
mod first_bad;
#[cfg(feature = "cuda")]
mod gather;
#[cfg(feature = "cuda")]
mod gemm;
#[cfg(feature = "cuda")]
mod histogram;
#[cfg(feature = "cuda")]
mod label_order;
#[cfg(feature = "cuda")]
mod label_parts;
#[cfg(feature = "cuda")]
mod lane;
#[cfg(feature = "cuda")]
mod look;
#[cfg(feature = "cuda")]
pub mod matrix;
#[cfg(feature = "cuda")]
mod means;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
mod metrics;
#[cfg(feature = "cuda")]
mod pack_codes;
#[cfg(feature = "cuda")]
mod pairwise_sq_l2;
#[cfg(feature = "cuda")]
mod parts;
#[cfg(feature = "cuda")]
mod prepare;
pub mod probe;
#[cfg(feature = "cuda")]
pub mod ptx;
#[cfg(feature = "cuda")]
mod queue;
#[cfg(feature = "cuda")]
pub(crate) mod resident;
#[cfg(feature = "cuda")]
mod rows;
#[cfg(feature = "cuda")]
mod rows_tensor;
#[cfg(feature = "cuda")]
mod short_list;
#[cfg(feature = "cuda")]
mod sq_sums;
#[cfg(feature = "cuda")]
pub(crate) mod streamed;
#[cfg(feature = "cuda")]
mod sums;
#[cfg(feature = "cuda")]
mod tensor;
#[cfg(feature = "cuda")]
mod top_k;
#[cfg(feature = "cuda")]
pub mod workspace;

/// Sizes that kernels and their launch wrappers share: kernels/shapes.h, number by number.
#[cfg(feature = "cuda")]
pub mod shapes {
    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

use crate::device::Device;
use crate::error::Result;

/// Opens CUDA device `ordinal`.
#[cfg(feature = "cuda")]
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    let probe = probe::Probe::run();
    probe.check(ordinal)?;
    Ok(Device::Cuda(context::Context::open(ordinal, probe.driver)?))
}

/// Says why there is no CUDA device.
#[cfg(not(feature = "cuda"))]
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    probe::Probe::run().check(ordinal)?;
    // Not reached: the first link of the chain is the build, and it is broken.
    Ok(Device::Cpu)
}
