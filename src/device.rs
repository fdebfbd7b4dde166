//! Where the work is done.

#[cfg(feature = "cuda")]
use crate::backend::cuda::context::Context;
use crate::error::Result;

/// A place that holds matrices and computes on them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The processor this program runs on, with the widest vector instructions it has (see [`crate::Isa`]).
    Cpu,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Context),
}

impl Device {
    /// The processor.
    pub fn cpu() -> Device {
        Device::Cpu
    }

    /// The first usable CUDA device, else the processor; a log line (`info`) says which and why.
    pub fn best() -> Device {
        match Device::cuda(0) {
            Ok(device) => {
                log::info!("using {device}");
                device
            }
            Err(why) => {
                log::info!("using the CPU: {why}");
                Device::Cpu
            }
        }
    }

    /// CUDA device number `ordinal`; never anything else in its place.
    ///
    /// # Errors
    /// - [`Error::NoCudaDevice`](crate::Error::NoCudaDevice) naming the step that failed and the way out.
    /// - [`Error::KernelsNotBuilt`](crate::Error::KernelsNotBuilt) where this build has no kernels.
    pub fn cuda(ordinal: usize) -> Result<Device> {
        crate::backend::cuda::open(ordinal)
    }
}

impl Device {
    /// This device, on which a call may take at most `bytes` of device memory for the rows it works on, beside the
    /// codebook. The CPU works in blocks that fit its caches anyway.
    pub fn with_max_memory(&self, bytes: usize) -> Device {
        match self {
            Device::Cpu => {
                let _ = bytes;
                Device::Cpu
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(context) => Device::Cuda(context.with_max_memory(bytes)),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Device::Cuda(context) => write!(f, "cuda:{}", context.ordinal()),
        }
    }
}
