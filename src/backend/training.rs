//! Rows that a training passes over again and again and that lie on its device, as what is made of them does: labels,
//! sums, means, the next codebook.

use super::AssignStats;
#[cfg(feature = "cuda")]
use crate::backend::cuda::resident::Resident;
use crate::codebook::Codebook;
#[cfg(feature = "cuda")]
use crate::codebook::Placed;
use crate::device::Device;
use crate::error::Result;
use crate::matrix::{AnyView, Dtype};

/// The rows on the device. There are none where there is no CUDA.
pub(crate) struct Training {
    #[cfg(feature = "cuda")]
    resident: Box<Resident>,
    #[cfg(not(feature = "cuda"))]
    never: std::convert::Infallible,
}

/// Where codewords move.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "no rows lie on a device"))]
pub(crate) enum Means {
    /// None is without rows: the codebook of the means, on the device.
    Next(Codebook),
    /// The means are the codewords as they were.
    Same,
    /// The means in host memory, `[k, d]` row-major. Those of the `dead`, ascending, whose rows weigh nothing, are the
    /// codewords as they were.
    Dead { means: Vec<f32>, dead: Vec<usize> },
}

#[cfg(feature = "cuda")]
impl Training {
    /// Room for rows of this type and shape, `(n, d)`, with checked `weights` where they count differently, and for a
    /// training of `k` codewords on `device`. None on the processor, and where the device has no room for them, which the
    /// log tells.
    pub fn new(
        dtype: Dtype,
        shape: (usize, usize),
        weights: Option<&[f32]>,
        k: usize,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Device::Cuda(context) = device else { return Ok(None) };
        let resident = Resident::with_room(context, dtype, shape, weights, k)?;
        Ok(resident.map(|resident| Training { resident: Box::new(resident) }))
    }

    /// Brings rows there, all of them finite: those from `first` on.
    pub fn put(&mut self, first: usize, x: AnyView<'_>) -> Result<()> {
        self.resident.put(first, x)
    }

    /// Labels every row by its nearest codeword ([`super::assign`]).
    pub fn assign(&mut self, codebook: &Codebook) -> Result<AssignStats> {
        match codebook.placed() {
            Placed::Cuda(on_device) => self.resident.assign(on_device),
            Placed::Cpu(_) => Err(self.resident.elsewhere(codebook.device())),
        }
    }

    /// The labels and squared distances of the rows from `first` on, as many as there is room for.
    pub fn results(&self, first: usize, labels: &mut [u32], sq_distances: &mut [f32]) -> Result<()> {
        self.resident.results(first, labels, sq_distances)
    }

    /// The means of the rows of each label, as the last call of [`Training::assign`] labelled them by `codebook`, with the
    /// bits of [`super::Sums::mean_into`].
    pub fn means(&mut self, codebook: &Codebook) -> Result<Means> {
        match codebook.placed() {
            Placed::Cuda(on_device) => self.resident.means(on_device),
            Placed::Cpu(_) => Err(self.resident.elsewhere(codebook.device())),
        }
    }
}

#[cfg(not(feature = "cuda"))]
impl Training {
    pub fn new(_: Dtype, _: (usize, usize), _: Option<&[f32]>, _: usize, _: &Device) -> Result<Option<Self>> {
        Ok(None)
    }

    pub fn put(&mut self, _: usize, _: AnyView<'_>) -> Result<()> {
        match self.never {}
    }

    pub fn assign(&mut self, _: &Codebook) -> Result<AssignStats> {
        match self.never {}
    }

    pub fn results(&self, _: usize, _: &mut [u32], _: &mut [f32]) -> Result<()> {
        match self.never {}
    }

    pub fn means(&mut self, _: &Codebook) -> Result<Means> {
        match self.never {}
    }
}
