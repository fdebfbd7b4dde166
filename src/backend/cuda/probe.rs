//! What this machine offers to CUDA, found out link by link: library, symbols, init, devices, kernels. Nothing here
//! panics or falls back; the first broken link ends the chain and carries the way out.

use crate::error::{Error, Result};

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// build, library, symbols, init, count or kernels.
    pub name: &'static str,
    /// What was found, or what is missing.
    pub outcome: std::result::Result<String, Missing>,
}

/// A broken link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What was looked for and what was seen.
    pub got: String,
    /// What the user can do.
    pub way_out: String,
}

/// A CUDA device, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    /// Number by which the driver knows it.
    pub ordinal: usize,
    /// Product name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
}

/// The whole chain, as far as it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The links that were tried; only the last one may be broken.
    pub steps: Vec<Step>,
    /// The devices, where the chain got that far.
    pub devices: Vec<CudaDevice>,
    /// Version of the driver, 1000 times the major number plus 10 times the minor of CUDA; 0 where it is not known.
    pub driver: i32,
}

impl Probe {
    /// Tries the links one after the other up to the first broken one. Makes no context and takes no device memory.
    pub fn run() -> Probe {
        let mut probe = Probe::default();
        // The broken link ends the chain and is recorded in it; there is nothing else to hand on.
        let _ = probe.try_all();
        probe
    }

    /// Whether device `ordinal` can be used, as the error that says why not.
    ///
    /// # Errors
    /// - [`Error::NoCudaDevice`] with the broken link, or the step `ordinal` where there are fewer devices.
    pub fn check(&self, ordinal: usize) -> Result<()> {
        let broken = self.steps.iter().find_map(|step| Some((step.name, step.outcome.as_ref().err()?)));
        // A wrong number is the user's nearer problem than a missing kernel, which all devices share.
        if (broken.is_none() || !self.devices.is_empty()) && ordinal >= self.devices.len() {
            let count = self.devices.len();
            return Err(Error::NoCudaDevice {
                step: "ordinal",
                got: format!("device {ordinal} of {count}"),
                way_out: match count {
                    0 => "use --device cpu (Device::cpu())".into(),
                    _ => format!("name one of 0 to {}", count - 1),
                },
            });
        }
        match broken {
            Some((step, missing)) => {
                Err(Error::NoCudaDevice { step, got: missing.got.clone(), way_out: missing.way_out.clone() })
            }
            None => Ok(()),
        }
    }

    /// Records a link. None where it is broken.
    fn step<T>(&mut self, name: &'static str, outcome: std::result::Result<(T, String), Missing>) -> Option<T> {
        let (value, outcome) = match outcome {
            Ok((value, text)) => (Some(value), Ok(text)),
            Err(missing) => (None, Err(missing)),
        };
        self.steps.push(Step { name, outcome });
        value
    }

    #[cfg(not(feature = "cuda"))]
    fn try_all(&mut self) -> Option<()> {
        self.step("build", missing("built without CUDA support", "build it with the feature `cuda`, or use the CPU"))
    }

    #[cfg(feature = "cuda")]
    fn try_all(&mut self) -> Option<()> {
        self.step("build", Ok(((), "with CUDA support".into())));
        let library = self.step("library", driver::open_library())?;
        self.step("symbols", driver::check_symbols(&library))?;
        // From here on cudarc opens the same library and finds every symbol that is called, so it cannot panic.
        self.driver = self.step("init", driver::init())?;
        self.devices = self.step("count", driver::devices())?;
        self.step("kernels", kernels())
    }
}

/// Whether this build has every kernel.
#[cfg(feature = "cuda")]
fn kernels() -> std::result::Result<((), String), Missing> {
    let kernels = &super::ptx::KERNELS;
    match kernels.iter().find(|kernel| kernel.built.is_none() && kernel.shipped.is_none()) {
        None => Ok(((), format!("{}", kernels.len()))),
        Some(kernel) => missing(
            format!("this build has no PTX of {} (no nvcc, and none shipped for these sources)", kernel.stem),
            "run scripts/ptx.sh or install the CUDA toolkit, and build again; or use the CPU",
        ),
    }
}

fn missing<T>(got: impl Into<String>, way_out: impl Into<String>) -> std::result::Result<T, Missing> {
    Err(Missing { got: got.into(), way_out: way_out.into() })
}

#[cfg(feature = "cuda")]
mod driver {
    use super::{CudaDevice, Missing, missing};
    use cudarc::driver::{result, sys};
    use libloading::Library;

    type Outcome<T> = std::result::Result<(T, String), Missing>;

    /// File names of the driver library, in the order in which cudarc tries them.
    #[cfg(windows)]
    const LIBRARIES: [&str; 1] = ["nvcuda.dll"];
    /// File names of the driver library, in the order in which cudarc tries them.
    #[cfg(not(windows))]
    const LIBRARIES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

    /// What this module calls, and what every later use of a device needs.
    const SYMBOLS: [&str; 36] = [
        "cuInit",
        "cuDriverGetVersion",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuDeviceGet",
        "cuDeviceGetCount",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDeviceTotalMem_v2",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuLaunchKernel",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamCreate",
        "cuStreamSynchronize",
        "cuEventCreate",
        "cuEventRecord",
        "cuCtxSynchronize",
        "cuDevicePrimaryCtxRelease_v2",
        "cuEventDestroy_v2",
        "cuEventSynchronize",
        "cuMemAllocAsync",
        "cuMemFreeAsync",
        "cuMemFreeHost",
        "cuMemGetInfo_v2",
        "cuMemHostAlloc",
        "cuMemsetD8Async",
        "cuMemcpyDtoDAsync_v2",
        "cuModuleUnload",
        "cuStreamDestroy_v2",
        "cuStreamWaitEvent",
    ];

    pub fn open_library() -> Outcome<Library> {
        let mut refusals = Vec::new();
        for name in LIBRARIES {
            // SAFETY: loading runs the initialisers of the NVIDIA driver, which every CUDA program runs; the name is a
            // fixed one and no symbol is called through this handle.
            match unsafe { Library::new(name) } {
                Ok(library) => return Ok((library, name.to_string())),
                // The words of the loader are in the source: which file, and why not.
                Err(error) => refusals.push(match std::error::Error::source(&error) {
                    Some(source) => source.to_string(),
                    None => format!("{name}: {error}"),
                }),
            }
        }
        missing(
            format!("the driver library was not found ({})", refusals.join("; ")),
            "install the NVIDIA driver, or put its folder into LD_LIBRARY_PATH; in a container, start it with GPU \
             access (docker run --gpus all); or use the CPU",
        )
    }

    pub fn check_symbols(library: &Library) -> Outcome<()> {
        // SAFETY: the address is only looked up, never called or read through.
        let has = |name: &&str| unsafe { library.get::<*const ()>(name.as_bytes()).is_ok() };
        let absent: Vec<&str> = SYMBOLS.into_iter().filter(|name| !has(name)).collect();
        match absent.first() {
            None => Ok(((), format!("all {} found", SYMBOLS.len()))),
            Some(first) => missing(
                format!("the driver library lacks {} of {} symbols, {first} first", absent.len(), SYMBOLS.len()),
                "it is a stub or too old: install a driver of CUDA 12 or newer and take the stub out of \
                 LD_LIBRARY_PATH, or use the CPU",
            ),
        }
    }

    pub fn init() -> Outcome<i32> {
        if let Err(error) = result::init() {
            let way_out = match error.0 {
                sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                    "check nvidia-smi and CUDA_VISIBLE_DEVICES; in a container, start it with GPU access; or use the CPU"
                }
                sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
                    "the library is a stub to link against: take its folder out of LD_LIBRARY_PATH, or use the CPU"
                }
                _ => "check that nvidia-smi works (driver and kernel module of one version), or use the CPU",
            };
            return missing(format!("cuInit failed: {}", text(error)), way_out);
        }
        let mut version = 0;
        // SAFETY: the pointer is to a live i32, which the call fills; the symbol was found by `check_symbols`.
        let known = unsafe { sys::cuDriverGetVersion(&mut version) }.result().is_ok();
        if !known {
            return Ok((0, "done".into()));
        }
        Ok((version, format!("done, driver for CUDA {}.{}", version / 1000, version % 1000 / 10)))
    }

    pub fn devices() -> Outcome<Vec<CudaDevice>> {
        let count = match result::device::get_count() {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => {
                return missing(
                    format!("counting devices failed: {}", text(error)),
                    "check nvidia-smi, or use the CPU",
                );
            }
        };
        if count == 0 {
            return missing("the driver sees no device", "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the CPU");
        }
        let devices: std::result::Result<Vec<_>, _> = (0..count).map(describe).collect();
        match devices {
            Ok(devices) => Ok((devices, format!("{count}"))),
            Err(error) => missing(
                format!("asking a device for its properties failed: {}", text(error)),
                "check nvidia-smi, or use the CPU",
            ),
        }
    }

    fn describe(ordinal: usize) -> std::result::Result<CudaDevice, result::DriverError> {
        use sys::CUdevice_attribute as Attribute;
        let device = result::device::get(ordinal as i32)?;
        // SAFETY: `device` was returned by `device::get` just above.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        // SAFETY: as above.
        let memory = unsafe { result::device::total_mem(device) }? as u64;
        Ok(CudaDevice { ordinal, name: result::device::get_name(device)?, capability: (major, minor), memory })
    }

    /// The driver's own name and words for an error.
    fn text(error: result::DriverError) -> String {
        let words = error.error_string().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
        format!("{:?} ({words})", error.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: usize) -> CudaDevice {
        CudaDevice { ordinal, name: "test".into(), capability: (9, 0), memory: 1 << 36 }
    }

    #[test]
    fn the_broken_link_becomes_the_error() {
        let mut probe = Probe::default();
        assert_eq!(probe.step("library", Ok(((), "libcuda.so.1".into()))), Some(()));
        assert_eq!(probe.step::<()>("symbols", missing("no cuInit", "install a driver")), None);
        let error = probe.check(0).unwrap_err().to_string();
        assert_eq!(error, "no CUDA device: symbols: no cuInit; install a driver");
    }

    #[test]
    fn a_number_beyond_the_last_device_is_told_as_that() {
        let probe = Probe { steps: Vec::new(), devices: vec![device(0), device(1)], driver: 12000 };
        assert!(probe.check(1).is_ok());
        let error = probe.check(2).unwrap_err().to_string();
        assert_eq!(error, "no CUDA device: ordinal: device 2 of 2; name one of 0 to 1");
    }

    #[test]
    fn probing_this_machine_ends_in_at_most_one_broken_link_and_that_is_the_last() {
        let probe = Probe::run();
        let broken: Vec<usize> = (0..probe.steps.len()).filter(|&i| probe.steps[i].outcome.is_err()).collect();
        assert!(broken.is_empty() || broken == [probe.steps.len() - 1], "{probe:?}");
    }
}
