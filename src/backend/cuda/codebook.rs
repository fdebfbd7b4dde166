//! A codebook in device memory, prepared there: both backends score the same packed numbers and trust the same bounds.

use super::caller::{check_place, check_stream};
use super::context::Context;
use super::lane::Kept;
use super::matrix::MatrixView;
use super::memory::Buffer;
use super::prepare::Work;
use super::queue::{Queue, refused};
use super::rows::Rows;
use super::rows_tensor::TensorCodewords;
use super::streamed;
use super::tensor;
use crate::backend::cpu::direct::{f32_bound, f64_bound};
use crate::backend::cpu::panels::{AnyOrder, U, tiny};
use crate::backend::preparation::Preparation;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix};
use cudarc::driver::{CudaStream, DeviceRepr};
use std::sync::OnceLock;

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
    /// The first `[m, d + 2]`: see [`crate::backend::cpu::panels`].
    pub(super) packed: Buffer<f32>,
    /// The first `[m]`: step d of `packed` once more, what the cross term can be off.
    pub(super) packed_bounds: Buffer<f32>,
    /// The first `[m]`: step d + 1 of `packed` once more, half the squared norm.
    pub(super) packed_halves: Buffer<f32>,
    /// `[d]`; zeros where nothing is centred.
    pub(super) mean: Buffer<f32>,
    /// The first `[m]`, ascending.
    pub(super) labels: Buffer<u32>,
    /// `[k]`: the packed codeword that equals codeword j.
    pub(super) positions: Buffer<u32>,
    pub(super) shift: i32,
    pub(super) max_sq_norm: f64,
    pub(super) bounds: Bounds,
    /// `[k, d]`, where they came from the host or somebody asked for them.
    on_host: OnceLock<Matrix<f32>>,
    /// For tensor cores, where somebody asked for them.
    tensor: OnceLock<TensorCodewords>,
}

/// How far off the sums of the kernels can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Unit roundoff of f32.
    pub unit: f64,
    /// What underflow can add to a score.
    pub tiny: f64,
    /// What changes where a library sums the cross terms.
    pub any_order: AnyOrder,
    /// Relative and absolute bound of direct f32 sums.
    pub sq_l2_f32: (f64, f64),
    /// Twice the relative bound of direct f64 sums: products with it round as well.
    pub sq_l2_f64: f64,
}

/// Dimensions up to which direct f32 sums have a bound that says something, and a status has bits for a column. Exact
/// sums would take eight times as many before a carry is due.
pub(super) const MAX_DIMENSIONS: usize = 1 << 26;

impl DeviceCodebook {
    /// Copies codewords, `[k, d]`, to the device and prepares them there.
    pub fn from_host(op: &'static str, context: &Context, codewords: Matrix<f32>) -> Result<Self> {
        let (k, d) = sizes(op, codewords.rows(), codewords.cols())?;
        let queue = Queue { op, context: context.clone(), stream: context.stream().clone() };
        let uploaded = queue.upload(codewords.as_slice())?;
        let work = Work::new(&queue, uploaded, k, d)?;
        let on_host = OnceLock::from(codewords);
        Self::prepare(&queue, work, on_host, Work::prepare)
    }

    /// Copies codewords that lie on the device, `[k, d]`, when what was queued on `stream` is done, and prepares the copy.
    /// All of it is done when this returns.
    pub fn from_device<T: Element>(
        op: &'static str,
        context: &Context,
        codewords: MatrixView<'_, T>,
        stream: &CudaStream,
    ) -> Result<Self> {
        // The stream on which the memory goes again, as that of every codebook.
        let queue = Queue { op, context: context.clone(), stream: context.stream().clone() };
        check_place(op, "a stream", stream, &queue.stream)?;
        check_stream(op, stream)?;
        let (x, _used) = codewords.read(op, "codewords", &queue.stream)?;
        Self::of_rows(op, context, &x, codewords.cols(), stream)
    }

    /// [`DeviceCodebook::from_device`] of rows of `d` elements that nothing but work on `stream` writes.
    pub(super) fn of_rows(
        op: &'static str,
        context: &Context,
        x: &Rows<'_>,
        d: usize,
        stream: &CudaStream,
    ) -> Result<Self> {
        let queue = Queue { op, context: context.clone(), stream: context.stream().clone() };
        queue.stream.join(stream).map_err(|error| refused(op, "waiting for the stream of the codewords", error))?;
        let copy = queue.alloc(x.n * d)?;
        let (k, d) = sizes(op, x.n, d)?;
        let work = Work::new(&queue, copy, k, d)?;
        Self::prepare(&queue, work, OnceLock::new(), |work, queue| {
            work.copy(queue, x)?;
            work.prepare(queue)
        })
    }

    fn prepare(
        queue: &Queue,
        mut work: Work,
        on_host: OnceLock<Matrix<f32>>,
        launches: impl FnOnce(&mut Work, &Queue) -> Result<()>,
    ) -> Result<Self> {
        let launched = launches(&mut work, queue);
        let facts = work.facts(queue, launched)?;
        let d = work.d as usize;
        Ok(DeviceCodebook {
            context: queue.context.clone(),
            k: work.k,
            m: facts.m,
            d: work.d,
            codewords: work.codewords,
            packed: work.packed,
            packed_bounds: work.packed_bounds,
            packed_halves: work.packed_halves,
            mean: work.mean,
            labels: work.labels,
            positions: work.positions,
            shift: facts.shift,
            max_sq_norm: facts.max_sq_norm,
            bounds: Bounds {
                unit: U,
                tiny: tiny(d),
                any_order: AnyOrder::new(d),
                sq_l2_f32: f32_bound(d).ok_or_else(|| too_large(queue.op, work.k as usize, d))?,
                sq_l2_f64: 2.0 * f64_bound(d),
            },
            on_host,
            tensor: OnceLock::new(),
            idle: Idle::default(),
        })
    }

    /// The codewords in host memory: copied there by the first call, unless they came from there.
    pub fn on_host(&self, op: &'static str) -> Result<&Matrix<f32>> {
        if let Some(codewords) = self.on_host.get() {
            return Ok(codewords);
        }
        let (k, d) = (self.k as usize, self.d as usize);
        let codewords = Matrix::new(self.download(op, &self.codewords, k * d)?, k, d)?;
        Ok(self.on_host.get_or_init(|| codewords))
    }

    /// The codewords as operands of tensor cores: made, and waited for, by the first call. On a device whose tensor cores
    /// are not to be trusted their bounds are infinite.
    pub(super) fn tensor(&self, op: &'static str) -> Result<&TensorCodewords> {
        if let Some(codewords) = self.tensor.get() {
            return Ok(codewords);
        }
        let accumulation = tensor::accumulation(op, &self.context, self.d as usize)?.unwrap_or(f64::INFINITY);
        let queue = Queue { op, context: self.context.clone(), stream: self.context.stream().clone() };
        let codewords = TensorCodewords::new(&queue, self, accumulation)?;
        queue.synchronize()?;
        Ok(self.tensor.get_or_init(|| codewords))
    }

    /// What the kernels made of the codewords.
    pub fn preparation(&self) -> Result<Preparation> {
        const OP: &str = "Codebook::preparation";
        let (k, m, d) = (self.k as usize, self.m as usize, self.d as usize);
        Ok(Preparation {
            packed: self.download(OP, &self.packed, m * (d + 2))?,
            labels: self.download(OP, &self.labels, m)?,
            positions: self.download(OP, &self.positions, k)?,
            mean: self.download(OP, &self.mean, d)?,
            shift: self.shift,
            max_sq_norm: self.max_sq_norm,
        })
    }

    fn download<T: DeviceRepr + Default + Clone>(
        &self,
        op: &'static str,
        from: &Buffer<T>,
        len: usize,
    ) -> Result<Vec<T>> {
        let queue = Queue { op, context: self.context.clone(), stream: self.context.stream().clone() };
        let mut values = vec![T::default(); len];
        queue.copy_out(from.read(), &mut values)?;
        queue.synchronize()?;
        Ok(values)
    }

    /// k and d.
    pub fn sizes(&self) -> (usize, usize) {
        (self.k as usize, self.d as usize)
    }

    /// Distinct codewords.
    pub fn distinct(&self) -> usize {
        self.m as usize
    }

    /// Steps of depth of a packed row: the dimensions, the bound, half the squared norm.
    pub(super) fn depth(&self) -> u32 {
        self.d + 2
    }
}

/// k and d as the kernels take them.
fn sizes(op: &'static str, k: usize, d: usize) -> Result<(u32, u32)> {
    let size = |value: usize| u32::try_from(value).map_err(|_| too_large(op, k, d));
    if d > MAX_DIMENSIONS { Err(too_large(op, k, d)) } else { Ok((size(k)?, size(d)?)) }
}

fn too_large(op: &'static str, k: usize, d: usize) -> Error {
    Error::Shape {
        op,
        expected: format!("fewer than 2^32 - 1 codewords of at most {MAX_DIMENSIONS} dimensions on a CUDA device"),
        got: format!("{k} x {d}"),
    }
}

/// Lanes of each operation, kept from call to call: page-locked memory takes longer to get than a block to compute.
#[derive(Default)]
pub(super) struct Idle {
    pub adc_scan: Kept<streamed::adc_scan::Buffers>,
    pub assign: Kept<streamed::assign::Buffers>,
    pub decode: Kept<streamed::decode::Buffers>,
    pub encode_parts: Kept<streamed::encode_parts::Buffers>,
    pub pairwise_sq_l2: Kept<streamed::pairwise_sq_l2::Buffers>,
    pub top_k: Kept<streamed::top_k::Buffers>,
}

impl Idle {
    /// Gives back the memory of all.
    pub fn clear(&self) {
        self.adc_scan.clear();
        self.assign.clear();
        self.decode.clear();
        self.encode_parts.clear();
        self.pairwise_sq_l2.clear();
        self.top_k.clear();
    }
}
