//! Product codes of vectors that lie on a CUDA device, and that stay there.

use super::product::ProductQuantizer;
use crate::backend::AssignStats;
use crate::backend::cuda::workspace::parts::PartsWorkspace;
use crate::cuda::cudarc::driver::CudaStream;
use crate::cuda::{MatrixView, MemoryMut};
use crate::error::Result;
use crate::matrix::Element;
use std::sync::Arc;

/// Room on the device to encode vectors of type `T` with one product quantizer, on one stream. All device memory is taken,
/// and the kernels are loaded, when it is made.
///
/// [`ProductWorkspace::encode`] puts its work into the stream and returns; nothing waits for the device. What the work
/// found, rows that are not finite above all, [`ProductWorkspace::check`] tells, which does wait. How memory in use on other
/// streams is treated: [`Workspace`](crate::cuda::Workspace).
///
/// ```no_run
/// use codeword::cuda::{MatrixView, ProductWorkspace};
/// use codeword::{Device, ProductQuantizer};
///
/// let device = Device::cuda(0)?;
/// let Device::Cuda(context) = &device else { unreachable!() };
/// // Two parts of two codewords each: a bit for each part.
/// let codewords = codeword::MatrixView::new(&[0.0f32, 1.0, 0.0, 5.0], 4, 1)?;
/// let quantizer = ProductQuantizer::new(codewords, 2, &device)?;
///
/// let stream = context.new_stream()?;
/// let mut workspace = ProductWorkspace::<f32>::new(&quantizer, &stream, 65_536)?;
///
/// // Vectors that some other kernel wrote, and room for their codes.
/// let x = stream.clone_htod(&[0.9f32, 0.3, 0.8, 4.0]).unwrap();
/// let mut codes = stream.alloc_zeros::<u8>(2 * quantizer.code_size()).unwrap();
/// workspace.encode(MatrixView::new(&x, 2, 2)?, &mut codes)?;
///
/// workspace.check()?; // waits, and is an error if a vector was not finite
/// assert_eq!(stream.clone_dtoh(&codes).unwrap(), [0b01, 0b11]);
/// # Ok::<(), codeword::Error>(())
/// ```
pub struct ProductWorkspace<T> {
    parts: PartsWorkspace<T>,
    quantizer: ProductQuantizer,
}

impl<T: Element> ProductWorkspace<T> {
    /// Room for blocks of `rows` vectors on `stream`; longer inputs go through in so many blocks. 4 m bytes a row where one
    /// launch labels all parts, on tensor cores that are known and may be used (`CODEWORD_CUDA_GEMM`). That is where parts
    /// have d up to 32 dimensions, and every codebook
    /// - k' distinct codewords, 2 to 1024 of them and k'^(2/d) at most 256: up to 16 in one dimension, 256 in two, 1024
    ///   from three on;
    /// - room in 92 KiB of shared memory, 2048 ceil(k' / 128) + 128 + (k' + 15) (16 ceil(d / 8) + 20): up to 1024 codewords of
    ///   24 dimensions, and 909 of 32;
    /// - no values next to the largest f32.
    ///
    /// Else parts take turns in the memory of a [`Workspace`](crate::cuda::Workspace) for one part, and of a filter pass
    /// for each kind of part, beside these.
    ///
    /// A row of zeros is encoded and forgotten, to load the kernels.
    ///
    /// # Errors
    /// - [`Error::DeviceMismatch`](crate::Error::DeviceMismatch) where the codebooks lie elsewhere.
    /// - [`Error::InvalidParameter`](crate::Error::InvalidParameter) where `rows` is 0 or 2^32 or more, `stream` is the
    ///   default stream per thread, or `CODEWORD_CUDA_GEMM` names no design.
    /// - [`Error::Shape`](crate::Error::Shape) where vectors have more than 2^26 dimensions.
    /// - [`Error::Cuda`](crate::Error::Cuda) where the device has no memory left for it, or `CODEWORD_CUDA_GEMM` demands
    ///   cuBLAS and there is none.
    pub fn new(quantizer: &ProductQuantizer, stream: &Arc<CudaStream>, rows: usize) -> Result<Self> {
        const OP: &str = "ProductWorkspace::new";
        let parts = PartsWorkspace::new(OP, quantizer.codebooks(), quantizer.bits(), stream, rows)?;
        Ok(ProductWorkspace { parts, quantizer: quantizer.clone() })
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &ProductQuantizer {
        &self.quantizer
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        self.parts.stream()
    }

    /// The codes of the rows of `x`, `[n, d]`, into `codes`, `[n, code_size]` bytes: [`ProductQuantizer::encode`] on the
    /// device, with the same bytes. Three launches for each block of rows where one labels all parts.
    ///
    /// Where a row holds a NaN or an infinity, the next [`ProductWorkspace::check`] is an error that names it. The bits of
    /// each part that holds one are all set, which names a codeword only if there are 2^b of them. Its other parts, and other
    /// rows, have the codes that they would have.
    ///
    /// # Errors
    /// - [`Error::Shape`](crate::Error::Shape) where columns or bytes of codes do not fit, or values of `x` do not begin at a
    ///   multiple of their size.
    /// - [`Error::DeviceMismatch`](crate::Error::DeviceMismatch) where memory lies on another device.
    /// - [`Error::Cuda`](crate::Error::Cuda) where the driver refuses.
    pub fn encode(&mut self, x: MatrixView<'_, T>, codes: &mut dyn MemoryMut<u8>) -> Result<()> {
        const OP: &str = "ProductWorkspace::encode";
        self.quantizer.check_columns(OP, x.cols())?;
        self.parts.encode(OP, x, codes)
    }

    /// Waits for the stream, and tells what the work since the last check found: how many parts of rows, n m in all, each
    /// tier settled.
    ///
    /// # Errors
    /// - [`Error::NonFinite`](crate::Error::NonFinite) naming the first row of its call that holds a NaN or an infinity, and
    ///   the column of the first; of several calls since the last check, the lowest such row.
    /// - [`Error::Cuda`](crate::Error::Cuda) where the device failed.
    pub fn check(&mut self) -> Result<AssignStats> {
        self.parts.check("ProductWorkspace::check")
    }
}
