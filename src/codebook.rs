//! A codebook, prepared once for many assignments.

use crate::backend::cpu::{isa::Isa, on_host::OnHost};
#[cfg(feature = "cuda")]
use crate::backend::cuda::codebook::DeviceCodebook;
use crate::backend::preparation::Preparation;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Dtype, Element, Matrix, MatrixView};
use std::sync::Arc;

/// k codewords of d dimensions, `[k, d]`, prepared for a device: norms, bounds, repetitions and the packed form
/// that the filter pass reads. Preparing costs a few passes over the codewords; cloning is free.
///
/// ```
/// use codeword::{Codebook, Device, MatrixView};
/// let codewords = [0.0f32, 0.0, 1.0, 1.0, 0.0, 0.0];
/// let codebook = Codebook::new(MatrixView::new(&codewords, 3, 2)?, &Device::best())?;
/// assert_eq!((codebook.k(), codebook.d(), codebook.duplicates()), (3, 2, 1));
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone)]
pub struct Codebook {
    dtype: Dtype,
    k: usize,
    d: usize,
    device: Device,
    placed: Arc<Placed>,
}

/// Where the prepared codebook lies, with all that is kept of it.
pub(crate) enum Placed {
    Cpu(Box<OnHost>),
    #[cfg(feature = "cuda")]
    Cuda(Box<DeviceCodebook>),
}

impl Codebook {
    /// Prepares codewords, `[k, d]`, for `device`.
    ///
    /// # Errors
    /// - [`Error::Shape`] where there is no codeword, no dimension, or more than 2^32 - 1 codewords.
    /// - [`Error::NonFinite`] naming the first codeword that holds a NaN or an infinity.
    /// - [`Error::Cuda`] where the device has no memory left for it.
    /// - [`Error::InvalidParameter`] where `CODEWORD_ISA` names an instruction set this processor lacks.
    pub fn new<T: Element>(codewords: MatrixView<'_, T>, device: &Device) -> Result<Self> {
        const OP: &str = "Codebook::new";
        let (k, d) = (codewords.rows(), codewords.cols());
        check_sizes(OP, k, d)?;
        let mut wide = vec![0.0; k * d];
        for (i, row) in wide.chunks_exact_mut(d).enumerate() {
            T::widen(codewords.row(i), row);
            if let Some(col) = row.iter().position(|value| !value.is_finite()) {
                return Err(non_finite(OP, i, col, row[col]));
            }
        }
        let codewords = Matrix::new(wide, k, d)?;
        let placed = match device {
            Device::Cpu => Placed::Cpu(Box::new(OnHost::new(codewords, Isa::selected()?))),
            #[cfg(feature = "cuda")]
            Device::Cuda(context) => Placed::Cuda(Box::new(DeviceCodebook::from_host(OP, context, codewords)?)),
        };
        Ok(Codebook { dtype: T::DTYPE, k, d, device: device.clone(), placed: Arc::new(placed) })
    }

    /// Prepares codewords that lie on a CUDA device, `[k, d]`, where they are: what a training loop that updates its
    /// codebook there does after every step. Labels and distances are those of [`Codebook::new`] to the last bit.
    ///
    /// The codewords are copied on the device once everything queued on `stream` before, whatever writes them, is done;
    /// from when this returns they may change or go. Nothing of their size passes through the host: only how many are
    /// distinct, the scale, and the largest norm, for which this waits, once. Five passes over the codewords. Device
    /// memory for two copies of them as f32 stays; at most 33 bytes per codeword and an eighth of a byte per component
    /// are needed beside until this returns.
    ///
    /// # Errors
    /// - Those of [`Codebook::new`].
    /// - [`Error::Shape`] likewise for more than 2^26 dimensions, or elements not aligned to their size.
    /// - [`Error::DeviceMismatch`] where codewords or `stream` belong to another device than `context`.
    ///
    /// ```no_run
    /// use codeword::{Codebook, Device, cuda::MatrixView};
    ///
    /// let Device::Cuda(context) = Device::cuda(0)? else { unreachable!() };
    /// let stream = context.new_stream()?;
    /// let codewords = stream.clone_htod(&[0.0f32, 0.0, 1.0, 1.0]).unwrap(); // or what a kernel on `stream` wrote
    /// let codebook = Codebook::from_cuda(MatrixView::new(&codewords, 2, 2)?, &context, &stream)?;
    /// assert_eq!(codebook.codewords()?.row(1), [1.0, 1.0]); // fetched now
    /// # Ok::<(), codeword::Error>(())
    /// ```
    #[cfg(feature = "cuda")]
    pub fn from_cuda<T: Element>(
        codewords: cuda::MatrixView<'_, T>,
        context: &cuda::Context,
        stream: &Arc<cuda::cudarc::driver::CudaStream>,
    ) -> Result<Self> {
        const OP: &str = "Codebook::from_cuda";
        let (k, d) = (codewords.rows(), codewords.cols());
        check_sizes(OP, k, d)?;
        let resident = DeviceCodebook::from_device(OP, context, codewords, stream)?;
        Ok(Codebook::on_cuda(context, resident, T::DTYPE))
    }

    /// What a device prepared, from elements of type `dtype`.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_cuda(context: &cuda::Context, resident: DeviceCodebook, dtype: Dtype) -> Self {
        let (k, d) = resident.sizes();
        let (device, placed) = (Device::Cuda(context.clone()), Arc::new(Placed::Cuda(Box::new(resident))));
        Codebook { dtype, k, d, device, placed }
    }

    /// Number of codewords.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Dimensions of a codeword.
    pub fn d(&self) -> usize {
        self.d
    }

    /// Element type the codewords came in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The device this codebook was prepared for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The codewords in host memory as f32, which every element type converts to exactly.
    ///
    /// At hand where they came from the host. The first call for codewords that came from a device copies them, 4 k d
    /// bytes, and waits for that; the codebook keeps the copy.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where the device refuses the copy; never for codewords that came from the host.
    pub fn codewords(&self) -> Result<MatrixView<'_, f32>> {
        match self.placed() {
            Placed::Cpu(host) => Ok(host.codewords.view()),
            #[cfg(feature = "cuda")]
            Placed::Cuda(resident) => resident.on_host("Codebook::codewords").map(Matrix::view),
        }
    }

    /// Codewords that equal one of lower index. They never win an assignment.
    pub fn duplicates(&self) -> usize {
        match self.placed() {
            Placed::Cpu(host) => self.k - host.distinct(),
            #[cfg(feature = "cuda")]
            Placed::Cuda(resident) => self.k - resident.distinct(),
        }
    }

    /// What the codewords were prepared to.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where the device refuses to give it.
    #[doc(hidden)]
    pub fn preparation(&self) -> Result<Preparation> {
        match self.placed() {
            Placed::Cpu(host) => Ok(Preparation::of(host.panels(), self.d)),
            #[cfg(feature = "cuda")]
            Placed::Cuda(resident) => resident.preparation(),
        }
    }

    pub(crate) fn placed(&self) -> &Placed {
        &self.placed
    }
}

/// A codebook has codewords, and a label below the sentinel for each.
fn check_sizes(op: &'static str, k: usize, d: usize) -> Result<()> {
    if k == 0 || d == 0 || k >= u32::MAX as usize {
        return Err(Error::Shape {
            op,
            expected: format!("from 1 to {} codewords of at least one dimension", u32::MAX - 1),
            got: format!("{k} x {d}"),
        });
    }
    Ok(())
}

/// A codeword that cannot be one.
pub(crate) fn non_finite(op: &'static str, row: usize, col: usize, got: f32) -> Error {
    let way_out = "remove the codeword or train the codebook again";
    Error::NonFinite { op, what: "codeword", row, col, got, way_out }
}

impl std::fmt::Debug for Codebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codebook({} x {}, {}, {})", self.k(), self.d(), self.dtype.name(), self.device)
    }
}
