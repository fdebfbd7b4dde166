//! A codebook, prepared once for many assignments.

use crate::backend::cpu;
#[cfg(feature = "cuda")]
use crate::backend::cuda::codebook::DeviceCodebook;
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
    device: Device,
    prepared: Arc<Prepared>,
}

struct Prepared {
    codewords: Matrix<f32>,
    panels: cpu::panels::Panels,
    placed: Placed,
}

/// Where the prepared codebook lies, with what a device keeps of it.
pub(crate) enum Placed {
    Cpu,
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
        if k == 0 || d == 0 || k >= u32::MAX as usize {
            return Err(Error::Shape {
                op: OP,
                expected: format!("from 1 to {} codewords of at least one dimension", u32::MAX - 1),
                got: format!("{k} x {d}"),
            });
        }
        let isa = cpu::isa::Isa::selected()?;
        let mut wide = vec![0.0; k * d];
        for (i, row) in wide.chunks_exact_mut(d).enumerate() {
            T::widen(codewords.row(i), row);
            if let Some(col) = row.iter().position(|value| !value.is_finite()) {
                let (got, way_out) = (row[col], "remove the codeword or train the codebook again");
                return Err(Error::NonFinite { op: OP, what: "codeword", row: i, col, got, way_out });
            }
        }
        let codewords = Matrix::new(wide, k, d)?;
        let panels = cpu::prepare(codewords.view(), isa);
        let placed = match device {
            Device::Cpu => Placed::Cpu,
            #[cfg(feature = "cuda")]
            Device::Cuda(context) => Placed::Cuda(Box::new(DeviceCodebook::new(context, &codewords, &panels)?)),
        };
        let prepared = Arc::new(Prepared { codewords, panels, placed });
        Ok(Codebook { dtype: T::DTYPE, device: device.clone(), prepared })
    }

    /// Number of codewords.
    pub fn k(&self) -> usize {
        self.prepared.codewords.rows()
    }

    /// Dimensions of a codeword.
    pub fn d(&self) -> usize {
        self.prepared.codewords.cols()
    }

    /// Element type the codewords came in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The device this codebook was prepared for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The codewords as f32, which every element type converts to exactly.
    pub fn codewords(&self) -> MatrixView<'_, f32> {
        self.prepared.codewords.view()
    }

    /// Codewords that equal one of lower index. They never win an assignment.
    pub fn duplicates(&self) -> usize {
        self.prepared.panels.repeats.len()
    }

    pub(crate) fn placed(&self) -> &Placed {
        &self.prepared.placed
    }

    pub(crate) fn panels(&self) -> &cpu::panels::Panels {
        &self.prepared.panels
    }
}

impl std::fmt::Debug for Codebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codebook({} x {}, {}, {})", self.k(), self.d(), self.dtype.name(), self.device)
    }
}
