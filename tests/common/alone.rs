//! Kernels launched alone, without the crate's own wrappers.

use codeword::backend::cuda::ptx::{Arch, KERNELS};
use codeword::cuda::cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig};
use codeword::cuda::cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// A new stream and the kernel `entry` of kernels/STEM.cu.
pub fn open(stem: &str, entry: &str) -> (Arc<CudaStream>, CudaFunction) {
    let stream = CudaContext::new(0).expect("the device opens").new_stream().expect("a stream");
    let kernel = open_in(&stream, stem, entry);
    (stream, kernel)
}

/// Another kernel for work on a stream: the one that every device runs.
pub fn open_in(stream: &CudaStream, stem: &str, entry: &str) -> CudaFunction {
    open_for(stream, stem, entry, Arch::Compute80)
}

/// The design of a kernel for an architecture.
pub fn open_for(stream: &CudaStream, stem: &str, entry: &str, arch: Arch) -> CudaFunction {
    let kernel =
        KERNELS.iter().find(|kernel| kernel.stem == stem && kernel.arch == arch).expect("there is such a kernel");
    let text = kernel.shipped.or(kernel.built).expect("scripts/ptx.sh has run").text;
    let module = stream.context().load_module(Ptx::from_src(text)).expect("the module loads");
    module.load_function(entry).expect("it is there")
}

/// That many blocks of that many threads.
pub fn threads(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}
