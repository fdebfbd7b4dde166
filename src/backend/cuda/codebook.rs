//! A codebook in device memory. The CPU's preparation is the only one: both backends score the same packed numbers and
//! trust the same bounds.

use super::context::Context;
use super::lane::Kept;
use super::memory::Buffer;
use super::queue::Queue;
use super::streamed;
use crate::backend::cpu::direct::{f32_bound, f64_bound};
use crate::backend::cpu::panels::{Panels, U};
use crate::error::{Error, Result};
use crate::matrix::Matrix;

/// What the kernels read of a codebook; sizes are proven to fit 32 bits.
pub(crate) struct DeviceCodebook {
    pub(super) context: Context,
    /// What calls leave behind for the next one.
    pub(super) idle: Idle,
    /// Codewords.
    pub(super) k: u32,
    /// Distinct codewords.
    pub(super) m: u32,
    pub(super) d: u32,
    /// `[k, d]`, as stored.
    pub(super) codewords: Buffer<f32>,
    /// `[m, d + 2]`: see [`Panels`].
    pub(super) packed: Buffer<f32>,
    /// `[d]`; zeros where nothing is centred.
    pub(super) mean: Buffer<f32>,
    /// `[m]`, ascending.
    pub(super) labels: Buffer<u32>,
    /// `[k]`: the packed codeword that equals codeword j.
    pub(super) positions: Buffer<u32>,
    pub(super) shift: i32,
    pub(super) max_sq_norm: f64,
    pub(super) bounds: Bounds,
}

/// How far off the sums of the kernels can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Unit roundoff of f32.
    pub unit: f64,
    /// What underflow can add to a score.
    pub tiny: f64,
    /// Relative and absolute bound of direct f32 sums.
    pub sq_l2_f32: (f64, f64),
    /// Twice the relative bound of direct f64 sums: products with it round as well.
    pub sq_l2_f64: f64,
}

/// Dimensions up to which direct f32 sums have a bound that says something, and a status has bits for a column. Exact
/// sums would take eight times as many before a carry is due.
const MAX_DIMENSIONS: usize = 1 << 26;

impl DeviceCodebook {
    /// Copies what `panels` prepared to the device.
    pub fn new(context: &Context, codewords: &Matrix<f32>, panels: &Panels) -> Result<Self> {
        const OP: &str = "Codebook::new";
        let (k, d) = (codewords.rows(), codewords.cols());
        let too_large = || Error::Shape {
            op: OP,
            expected: format!("fewer than 2^32 - 1 codewords of at most {MAX_DIMENSIONS} dimensions on a CUDA device"),
            got: format!("{k} x {d}"),
        };
        if d > MAX_DIMENSIONS {
            return Err(too_large());
        }
        let size = |value: usize| u32::try_from(value).map_err(|_| too_large());
        let mut positions = vec![0u32; k];
        for (position, &label) in panels.labels.iter().enumerate() {
            positions[label as usize] = size(position)?;
        }
        for &(first, repeat) in &panels.repeats {
            positions[repeat as usize] = positions[first as usize];
        }
        // There is one up to MAX_DIMENSIONS.
        let sq_l2_f32 = f32_bound(d).ok_or_else(too_large)?;
        let queue = Queue { op: OP, context: context.clone(), stream: context.stream().clone() };
        let mean = panels.mean.clone().unwrap_or_else(|| vec![0.0; d]);
        let codebook = DeviceCodebook {
            k: size(k)?,
            m: size(panels.len())?,
            d: size(d)?,
            codewords: queue.upload(codewords.as_slice())?,
            packed: queue.upload(&panels.row_major())?,
            mean: queue.upload(&mean)?,
            labels: queue.upload(&panels.labels)?,
            positions: queue.upload(&positions)?,
            shift: panels.shift,
            max_sq_norm: panels.max_sq_norm,
            bounds: Bounds { unit: U, tiny: panels.tiny(), sq_l2_f32, sq_l2_f64: 2.0 * f64_bound(d) },
            context: context.clone(),
            idle: Idle::default(),
        };
        // Streams of all calls may read it from here on.
        queue.synchronize()?;
        Ok(codebook)
    }

    /// Steps of depth of a packed row: the dimensions, the bound, half the squared norm.
    pub(super) fn depth(&self) -> u32 {
        self.d + 2
    }
}

/// Lanes of each operation, kept from call to call: page-locked memory takes longer to get than a block to compute.
#[derive(Default)]
pub(super) struct Idle {
    pub assign: Kept<streamed::assign::Buffers>,
    pub decode: Kept<streamed::decode::Buffers>,
    pub pairwise_sq_l2: Kept<streamed::pairwise_sq_l2::Buffers>,
    pub top_k: Kept<streamed::top_k::Buffers>,
}

impl Idle {
    /// Gives back the memory of all.
    pub fn clear(&self) {
        self.assign.clear();
        self.decode.clear();
        self.pairwise_sq_l2.clear();
        self.top_k.clear();
    }
}
