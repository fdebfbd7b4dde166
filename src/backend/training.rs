//! Rows that a training passes over again and again: it labels them by a codebook and takes the means of those that share
//! a label, until somebody has enough. On a CUDA device with room for them the rows and what is made of them stay there.

use super::{AssignOptions, AssignStats, Sums, accumulate, assign_into};
#[cfg(feature = "cuda")]
use crate::backend::cuda::resident::Resident;
use crate::codebook::Codebook;
#[cfg(feature = "cuda")]
use crate::codebook::Placed;
use crate::device::Device;
use crate::error::Result;
use crate::matrix::{Element, MatrixView};

/// The rows, wherever they are.
pub(crate) enum Training<'a, T> {
    /// In host memory, from where they pass through the device of the codebook.
    Host { x: MatrixView<'a, T>, weights: Option<&'a [f32]>, labels: Vec<u32> },
    #[cfg(feature = "cuda")]
    Cuda(Box<Resident>),
}

/// Where codewords move.
pub(crate) enum Means {
    /// The means in host memory, `[k, d]` row-major. Those of the `dead`, ascending, whose rows weigh nothing, are the
    /// codewords as they were.
    Host { means: Vec<f32>, dead: Vec<usize> },
    /// On the device, where none is dead: the codebook of the means, or nothing where that would be the one before.
    #[cfg(feature = "cuda")]
    Cuda(Option<Codebook>),
}

impl<'a, T: Element> Training<'a, T> {
    /// The rows of `x`, all of them finite and fewer than 2^32, with checked `weights` where they count differently, for a
    /// training of `k` codewords on `device`: copied there, where they fit what is free.
    pub fn new(x: MatrixView<'a, T>, weights: Option<&'a [f32]>, k: usize, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(context) = device
            && let Some(resident) = Resident::new(context, T::any(x), weights, k)?
        {
            return Ok(Training::Cuda(Box::new(resident)));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = (k, device);
        Ok(Training::Host { x, weights, labels: Vec::new() })
    }

    /// Labels every row by its nearest codeword ([`super::assign`]). Squared distances, one per row, go to the host.
    pub fn assign(&mut self, codebook: &Codebook, sq_distances: &mut [f32]) -> Result<AssignStats> {
        match self {
            Training::Host { x, labels, .. } => {
                labels.resize(x.rows(), 0);
                assign_into(*x, codebook, AssignOptions::default(), labels, sq_distances)
            }
            #[cfg(feature = "cuda")]
            Training::Cuda(resident) => match codebook.placed() {
                Placed::Cuda(on_device) => resident.assign(on_device, sq_distances),
                Placed::Cpu(_) => Err(resident.elsewhere(codebook.device())),
            },
        }
    }

    /// The means of the rows of each label, as the last call of [`Training::assign`] labelled them by `codebook`, with the
    /// bits of [`Sums::mean_into`].
    pub fn means(&mut self, codebook: &Codebook) -> Result<Means> {
        match self {
            Training::Host { x, weights, labels } => {
                let (k, d) = (codebook.k(), codebook.d());
                let sums: Sums = accumulate(*x, labels, *weights, k)?;
                let codewords = codebook.codewords()?;
                let mut means: Vec<f32> = (0..k).flat_map(|j| codewords.row(j)).copied().collect();
                let of_codewords = means.chunks_exact_mut(d).enumerate();
                let dead = of_codewords.filter_map(|(j, mean)| (!sums.mean_into(j, mean)).then_some(j)).collect();
                Ok(Means::Host { means, dead })
            }
            #[cfg(feature = "cuda")]
            Training::Cuda(resident) => match codebook.placed() {
                Placed::Cuda(on_device) => resident.means(on_device),
                Placed::Cpu(_) => Err(resident.elsewhere(codebook.device())),
            },
        }
    }

    /// The labels of the last call of [`Training::assign`], which goes with them.
    pub fn take_labels(&mut self) -> Result<Vec<u32>> {
        match self {
            Training::Host { labels, .. } => Ok(std::mem::take(labels)),
            #[cfg(feature = "cuda")]
            Training::Cuda(resident) => resident.labels(),
        }
    }
}
