//! Vectors, codebooks and codes that lie on an NVIDIA GPU and stay there.
//!
//! | on the host | here |
//! |---|---|
//! | [`crate::MatrixView`] | [`MatrixView`], of memory that `cudarc` or anybody else allocated |
//! | [`crate::Codebook::new`] | [`crate::Codebook::from_cuda`], which waits for the device once |
//! | [`crate::assign`], [`crate::top_k`], [`crate::pairwise_sq_l2`], [`crate::decode`] | the methods of [`Workspace`], in a stream |
//! | [`crate::ProductQuantizer::encode`] | [`ProductWorkspace::encode`], in a stream |
//! | [`crate::metrics()`] | [`Workspace::metrics`], which waits for the stream |
//! | the error of a bad row | [`Workspace::check`], [`ProductWorkspace::check`], which wait for the stream |
//!
//! Memory of the crate [`cudarc`], in the version re-exported here, goes in as it is: `CudaSlice`, `CudaView`. What other
//! versions of it, other libraries and other languages allocated on the same device goes in as [`Raw`], by address.
//!
//! All of a process shares the primary context of a device, and so do [`crate::Device::cuda`], `CudaContext::new` and the
//! CUDA runtime that PyTorch and CuPy use.

pub use crate::backend::cuda::caller::{Memory, MemoryMut, Raw};
pub use crate::backend::cuda::context::Context;
pub use crate::backend::cuda::matrix::MatrixView;
pub use crate::backend::cuda::workspace::Workspace;
pub use crate::quantizer::product_workspace::ProductWorkspace;
pub use cudarc;
