//! The place of the CUDA backend. Today it only finds out what the machine offers; kernels follow.

pub mod probe;

use crate::device::Device;
use crate::error::{Error, Result};

/// Opens CUDA device `ordinal`.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    probe::Probe::run().check(ordinal)?;
    // Not reached while the chain ends in "kernels".
    Err(Error::NoCudaDevice { step: "kernels", got: "this version has none yet".into(), way_out: "use the CPU".into() })
}
