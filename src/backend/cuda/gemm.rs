//! Matrix products by cuBLAS.

use super::block::Block;
use super::codebook::DeviceCodebook;
use super::memory::Buffer;
use super::queue::Queue;
use crate::error::{Error, Result};
use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys;
use cudarc::driver::{CudaContext, DriverError};
use std::ffi::c_int;
use std::sync::Arc;

/// A handle of cuBLAS on the stream of one queue.
pub(super) struct Gemm {
    handle: sys::cublasHandle_t,
    cuda: Arc<CudaContext>,
    /// Named to cuBLAS, which would otherwise allocate one of its own that nobody counts.
    workspace: Buffer<u8>,
}

// SAFETY: a handle may be used by any thread, by one at a time: all its uses take the Gemm alone.
unsafe impl Send for Gemm {}

// SAFETY: as above.
unsafe impl Sync for Gemm {}

impl Gemm {
    /// A handle on the stream of `queue`, with `workspace` bytes for it to work in. cuBLAS was found before.
    ///
    /// # Errors
    /// - [`Error::Cuda`] with what cuBLAS or the driver said.
    pub fn new(queue: &Queue, workspace: usize) -> Result<Gemm> {
        let op = queue.op;
        let (cuda, workspace) = (queue.context.cuda().clone(), queue.alloc(workspace)?);
        bind(op, &cuda)?;
        let handle = result::create_handle().map_err(|error| refused(op, "a handle", error))?;
        let mut gemm = Gemm { handle, cuda, workspace };
        let space = gemm.workspace.write();
        // SAFETY: handle and stream are alive. The stream first: it undoes the choice of a workspace.
        unsafe { result::set_stream(handle, queue.stream.cu_stream().cast()) }
            .map_err(|error| refused(op, "its stream", error))?;
        // SAFETY: so many bytes of device memory start there, and live as long as the handle.
        unsafe { sys::cublasSetWorkspace_v2(handle, space.address() as *mut _, space.len()) }
            .result()
            .map_err(|error| refused(op, "its workspace", error))?;
        Ok(gemm)
    }

    /// Cross terms of packed rows `first_row..` with packed codewords `first_col..`, over the first d steps of depth:
    /// `cross[i][j]`, `rows` x `cols`, rows `stride` apart. f32 throughout, summed in an unknown order.
    pub fn cross(&mut self, op: &'static str, codebook: &DeviceCodebook, block: &Block, tile: &mut Tile) -> Result<()> {
        let (depth, rows, cols) = (codebook.depth(), tile.rows, tile.cols);
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        assert!(rows as usize * tile.stride as usize <= tile.cross.read().len() && cols <= tile.stride, "check 2");
        assert!(u64::from(tile.first_row) + u64::from(rows) <= u64::from(block.capacity), "check 2");
        assert!(u64::from(tile.first_col) + u64::from(cols) <= u64::from(codebook.m), "check 2");
        let size = |value: u32| {
            c_int::try_from(value).map_err(|_| Error::Shape {
                op,
                expected: format!("sizes of at most {} for cuBLAS", c_int::MAX),
                got: value.to_string(),
            })
        };
        let (lead, d, stride, rows, cols) =
            (size(depth)?, size(codebook.d)?, size(tile.stride)?, size(rows)?, size(cols)?);
        let z = block.packed.read().from(tile.first_row as usize * depth as usize);
        let e = codebook.packed.read().from(tile.first_col as usize * depth as usize);
        bind(op, &self.cuda)?;
        let (one, zero) = (1.0f32, 0.0f32);
        let float = sys::cudaDataType_t::CUDA_R_32F;
        // cuBLAS sees matrices column by column: ours are their transposes, and so is what it writes.
        // SAFETY: check 2, asserted above; the scalars outlive the call, which reads them before it returns.
        unsafe {
            result::gemm_ex(
                self.handle,
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                cols,
                rows,
                d,
                (&raw const one).cast(),
                e.address() as *const _,
                float,
                lead,
                z.address() as *const _,
                float,
                lead,
                (&raw const zero).cast(),
                tile.cross.write().address() as *mut _,
                float,
                stride,
                // No TF32 and no emulation, whatever the environment asks for: the bound is that of f32.
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_PEDANTIC,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|error| refused(op, "a matrix product", error))
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        // There is nobody to hand an error to, and nothing to do about it.
        if self.cuda.bind_to_thread().is_ok() {
            // SAFETY: the handle was created by `new` and is destroyed here only.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

/// Cross terms of some rows of a block with some packed codewords.
pub(super) struct Tile {
    /// `[rows, stride]` f32, or longer.
    pub cross: Buffer<f32>,
    /// A multiple of 4.
    pub stride: u32,
    pub first_row: u32,
    pub rows: u32,
    /// A multiple of 4.
    pub first_col: u32,
    pub cols: u32,
}

/// Makes a handle and destroys it. cuBLAS was found before.
///
/// # Errors
/// - What cuBLAS or the driver said.
pub(super) fn try_handle(cuda: &CudaContext) -> std::result::Result<(), String> {
    cuda.bind_to_thread().map_err(super::queue::name_of)?;
    let handle = result::create_handle().map_err(|CublasError(status)| format!("{status:?}"))?;
    // SAFETY: the handle was created above and is destroyed here only.
    unsafe { result::destroy_handle(handle) }.map_err(|CublasError(status)| format!("{status:?}"))
}

fn bind(op: &'static str, cuda: &CudaContext) -> Result<()> {
    cuda.bind_to_thread().map_err(|error: DriverError| super::queue::refused(op, "its context", error))
}

/// What cuBLAS refused, as an error of `op`.
fn refused(op: &'static str, what: &str, CublasError(status): CublasError) -> Error {
    Error::Cuda {
        op,
        asked: format!("{what} of cuBLAS"),
        got: format!("{status:?}"),
        way_out: "use our own kernel (CODEWORD_CUDA_GEMM=simt), or see what `codeword doctor` says about the device",
        source: Some(Box::new(CublasError(status))),
    }
}
