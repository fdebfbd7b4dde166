//! One device: its driver context, a stream for what lives as long as a codebook, and the kernels, each loaded when it
//! is first used.

use super::gemm;
use super::ptx;
use super::queue::{name_of, refused};
use super::tensor;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A CUDA device that is ready for work. Cloning is free; all clones share the kernels.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
    /// Bytes of device memory for the blocks of one call.
    max_memory: usize,
}

struct Inner {
    cuda: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    capability: (i32, i32),
    driver: i32,
    multiprocessors: u32,
    shared_each: u32,
    loaded: Mutex<Loaded>,
    cublas_works: OnceLock<bool>,
    tensor_check: OnceLock<tensor::Trusted>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Context {
    /// Opens device `ordinal`, which a probe has found.
    pub(super) fn open(ordinal: usize, driver: i32) -> Result<Context> {
        let inner = (|| {
            let cuda = CudaContext::new(ordinal)?;
            let multiprocessors = cuda.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            let shared_each = cuda.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?;
            Ok(Inner {
                stream: cuda.new_stream()?,
                capability: cuda.compute_capability()?,
                driver,
                multiprocessors: u32::try_from(multiprocessors).unwrap_or(1).max(1),
                shared_each: u32::try_from(shared_each).unwrap_or(0),
                loaded: Mutex::default(),
                cublas_works: OnceLock::new(),
                tensor_check: OnceLock::new(),
                cuda,
            })
        })();
        let inner = inner.map_err(|error: DriverError| Error::NoCudaDevice {
            step: "context",
            got: format!("device {ordinal}: the driver refused a context: {}", name_of(error)),
            way_out: "see whether nvidia-smi shows another program on it, name another device, or use the CPU".into(),
        })?;
        let context = Context { inner: Arc::new(inner), max_memory: usize::MAX };
        // The kernel that every operation begins with: a GPU or a driver too old for the kernels, or a build without
        // them, is told now and not at the first launch, when `Device::best` could no longer choose another.
        context.function("rows", "rows_f32")?;
        Ok(context)
    }

    /// Number by which the driver knows the device.
    pub fn ordinal(&self) -> usize {
        self.inner.cuda.ordinal()
    }

    /// The device as the crate `cudarc` knows it: its primary context, which this program shares with everything else
    /// that runs on the device in this process.
    pub fn cuda(&self) -> &Arc<CudaContext> {
        &self.inner.cuda
    }

    /// This device, on which a call may take at most `bytes` of memory for the blocks of rows it works on: beside the
    /// codebook, and whatever is free. More than half of what is free gains nothing.
    pub fn with_max_memory(&self, bytes: usize) -> Context {
        Context { inner: self.inner.clone(), max_memory: bytes }
    }

    /// Bytes of device memory that are free for the blocks of a call, and all there are.
    pub(super) fn memory(&self, op: &'static str) -> Result<(usize, usize)> {
        let (free, total) =
            self.inner.cuda.mem_get_info().map_err(|error| refused(op, "a look at its free memory", error))?;
        Ok((free.min(self.max_memory), total))
    }

    /// Whether less memory than there is may be used.
    pub(super) fn is_limited(&self) -> bool {
        self.max_memory != usize::MAX
    }

    /// Whether cuBLAS, which was found, makes a handle on this device. Tried once; where not, that is logged.
    pub(super) fn cublas_works(&self) -> bool {
        *self.inner.cublas_works.get_or_init(|| match gemm::try_handle(&self.inner.cuda) {
            Ok(()) => true,
            Err(why) => {
                log::warn!("cuBLAS does not work on cuda:{} ({why}): the built-in kernel serves", self.ordinal());
                false
            }
        })
    }

    /// Compute capability: major and minor number.
    pub(super) fn capability(&self) -> (i32, i32) {
        self.inner.capability
    }

    /// Which products of its tensor cores are to be trusted, once somebody found out.
    pub(super) fn tensor_check(&self) -> &OnceLock<tensor::Trusted> {
        &self.inner.tensor_check
    }

    /// The stream of what outlives one call.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.inner.stream
    }

    /// Blocks that keep the device busy, for kernels that take their work in turn.
    pub(super) fn waves(&self, per_multiprocessor: u32) -> u32 {
        self.inner.multiprocessors.saturating_mul(per_multiprocessor)
    }

    /// Blocks that a multiprocessor holds of so many bytes of shared memory each, at most `most`.
    pub(super) fn blocks_each(&self, shared: u32, most: u32) -> u32 {
        (self.inner.shared_each / shared.max(1)).clamp(1, most)
    }

    /// What the kernel of `stem` that this device gets was compiled for.
    pub(super) fn arch(&self, stem: &'static str) -> Result<ptx::Arch> {
        Ok(ptx::choose(&ptx::KERNELS, stem, self.inner.capability)?.arch)
    }

    /// The kernel `entry` of kernels/`stem`.cu, or of its design for this device alone; loaded once.
    pub(super) fn function(&self, stem: &'static str, entry: &'static str) -> Result<CudaFunction> {
        let mut loaded = self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.functions.get(entry) {
            return Ok(function.clone());
        }
        let module = match loaded.modules.get(stem) {
            Some(module) => module.clone(),
            None => {
                let kernel = ptx::choose(&ptx::KERNELS, stem, self.inner.capability)?;
                let module =
                    ptx::load(kernel, self.inner.driver, |text| self.inner.cuda.load_module(Ptx::from_src(text)))?;
                loaded.modules.insert(stem, module.clone());
                module
            }
        };
        let function =
            module.load_function(entry).map_err(|error| refused(stem, format!("the entry point {entry}"), error))?;
        loaded.functions.insert(entry, function.clone());
        Ok(function)
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.inner.cuda == other.inner.cuda
    }
}

impl Eq for Context {}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context(cuda:{})", self.ordinal())
    }
}
