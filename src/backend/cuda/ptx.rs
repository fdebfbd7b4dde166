//! The kernels as PTX text, and which text a device gets. Each kernel is here up to twice: as nvcc made it when this
//! crate was built, and as shipped, in an older PTX that older drivers read. Both come from the same sources or are
//! not here at all.

use crate::error::{Error, Result};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The compute capability below which no kernel runs.
pub const LOWEST_CAPABILITY: (i32, i32) = (8, 0);

/// What a PTX text was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// compute_80: runs on capability 8.0 and everything later.
    Compute80,
    /// compute_90a: the instructions of capability 9.0, which no later GPU has.
    Compute90a,
}

impl Arch {
    /// Whether a GPU of this compute capability, major and minor, runs it.
    pub fn runs_on(self, capability: (i32, i32)) -> bool {
        match self {
            Arch::Compute80 => capability >= LOWEST_CAPABILITY,
            Arch::Compute90a => capability == (9, 0),
        }
    }
}

/// A PTX text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ptx {
    /// Version of the PTX language, major and minor; a driver reads up to that of its own CUDA version.
    pub isa: (u32, u32),
    /// The text.
    pub text: &'static str,
}

impl Ptx {
    /// Names of the kernel entry points.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> {
        self.text.lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.split('(').next())
    }
}

/// One kernel source, compiled for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The operation: `gather` for kernels/gather.cu, `assign` for kernels/assign.cu and kernels/assign_sm90a.cu.
    pub stem: &'static str,
    /// What it runs on.
    pub arch: Arch,
    /// Hash of the source and the headers, as in the first line of both texts.
    pub source_hash: &'static str,
    /// The PTX of kernels/ptx/; None where that is not from these sources.
    pub shipped: Option<Ptx>,
    /// The PTX that nvcc made when this crate was built; None where there was no nvcc or it failed.
    pub built: Option<Ptx>,
}

/// The kernel of `stem` for a GPU of compute capability `capability`: the most special one that it runs and that this
/// build has.
///
/// # Errors
/// - [`Error::NoCudaDevice`] where the GPU is older than every kernel.
/// - [`Error::KernelsNotBuilt`] where this build has no PTX of it.
pub fn choose<'a>(kernels: &'a [Kernel], stem: &'static str, capability: (i32, i32)) -> Result<&'a Kernel> {
    let (major, minor) = capability;
    if capability < LOWEST_CAPABILITY {
        let (lowest_major, lowest_minor) = LOWEST_CAPABILITY;
        return Err(Error::NoCudaDevice {
            step: "capability",
            got: format!(
                "the GPU has compute capability {major}.{minor}, the kernels need {lowest_major}.{lowest_minor}"
            ),
            way_out: "name a GPU of the Ampere generation or later, or use the CPU".into(),
        });
    }
    kernels
        .iter()
        .filter(|kernel| kernel.stem == stem && kernel.arch.runs_on(capability))
        .filter(|kernel| kernel.built.is_some() || kernel.shipped.is_some())
        .max_by_key(|kernel| kernel.arch == Arch::Compute90a)
        .ok_or_else(|| not_built(stem))
}

/// Loads a kernel through `load_text`, which hands one PTX text to the driver: the built text first, and where that is
/// newer than the driver the shipped one of the same sources, which is logged. `driver` is what `cuDriverGetVersion`
/// says.
///
/// # Errors
/// - [`Error::NoCudaDevice`] with what the driver said and the way out.
/// - [`Error::KernelsNotBuilt`] where this build has no PTX of it.
pub fn load<M>(
    kernel: &Kernel,
    driver: i32,
    mut load_text: impl FnMut(&'static str) -> std::result::Result<M, DriverError>,
) -> Result<M> {
    let stem = kernel.stem;
    let driver = format!("the driver (for CUDA {}.{})", driver / 1000, driver % 1000 / 10);
    let mut too_new = None;
    for ptx in [kernel.built, kernel.shipped].into_iter().flatten() {
        let isa = format!("{}.{}", ptx.isa.0, ptx.isa.1);
        match load_text(ptx.text) {
            Ok(module) => {
                if let Some(newer) = too_new {
                    log::warn!(
                        "kernel {stem}: {driver} does not read PTX ISA {newer}, as the toolkit of this build writes it; \
                         loaded the shipped PTX of the same sources, ISA {isa}"
                    );
                }
                return Ok(module);
            }
            Err(DriverError(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION)) => too_new = Some(isa),
            Err(DriverError(code)) => return Err(refused(stem, &driver, code)),
        }
    }
    let Some(isa) = too_new else { return Err(not_built(stem)) };
    Err(Error::NoCudaDevice {
        step: "kernels",
        got: format!("{driver} does not read PTX ISA {isa}, in which this build has the kernel {stem}"),
        way_out: match kernel.shipped {
            Some(_) => "install the NVIDIA driver 525 (CUDA 12.0) or newer, or use the CPU",
            None => "install a newer NVIDIA driver, build with an older CUDA toolkit, or use the CPU",
        }
        .into(),
    })
}

/// Any other refusal, with what can be done about it.
fn refused(stem: &str, driver: &str, code: CUresult) -> Error {
    let way_out = match code {
        CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            "install libnvidia-ptxjitcompiler of the driver's version (in a container, start it with \
             NVIDIA_DRIVER_CAPABILITIES=compute,utility), or use the CPU"
        }
        CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED => "unset CUDA_DISABLE_PTX_JIT, or use the CPU",
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "free memory of the GPU, name another one, or use the CPU",
        _ => "check that nvidia-smi works; use the CPU and report this with the output of codeword doctor",
    };
    // The name of the code, not its text: that would have to be asked of a driver, and there may be none.
    Error::NoCudaDevice {
        step: "kernels",
        got: format!("{driver} refused the kernel {stem}: {code:?}"),
        way_out: way_out.into(),
    }
}

fn not_built(stem: &'static str) -> Error {
    Error::KernelsNotBuilt {
        stem,
        got: "no nvcc built it, and the shipped PTX is missing or not made from these sources",
        way_out: "run scripts/ptx.sh or install the CUDA toolkit, and build again; or use the CPU",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: Ptx = Ptx { isa: (9, 0), text: "built" };
    const SHIPPED: Ptx = Ptx { isa: (8, 0), text: "shipped" };
    const BOTH: Kernel =
        Kernel { stem: "assign", arch: Arch::Compute80, source_hash: "", shipped: Some(SHIPPED), built: Some(BUILT) };
    const NEITHER: Kernel = Kernel { shipped: None, built: None, ..BOTH };
    const TOO_NEW: DriverError = DriverError(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);

    /// Loads as a driver that takes the texts of `takes` and calls the others too new.
    fn load_with(kernel: &Kernel, driver: i32, takes: &[&str]) -> (Result<&'static str>, Vec<&'static str>) {
        let mut seen = Vec::new();
        let loaded = load(kernel, driver, |text| {
            seen.push(text);
            if takes.contains(&text) { Ok(text) } else { Err(TOO_NEW) }
        });
        (loaded, seen)
    }

    #[test]
    fn a_new_driver_gets_what_nvcc_built() {
        let (loaded, seen) = load_with(&BOTH, 13000, &["built", "shipped"]);
        assert_eq!((loaded.unwrap(), seen), ("built", vec!["built"]));
    }

    #[test]
    fn a_driver_older_than_nvcc_gets_the_shipped_twin() {
        let (loaded, seen) = load_with(&BOTH, 12000, &["shipped"]);
        assert_eq!((loaded.unwrap(), seen), ("shipped", vec!["built", "shipped"]));
    }

    #[test]
    fn a_driver_older_than_both_is_told_with_its_version_the_isa_and_the_way_out() {
        let (loaded, _) = load_with(&BOTH, 11070, &[]);
        assert_eq!(
            loaded.unwrap_err().to_string(),
            "no CUDA device: kernels: the driver (for CUDA 11.7) does not read PTX ISA 8.0, in which this build has \
             the kernel assign; install the NVIDIA driver 525 (CUDA 12.0) or newer, or use the CPU"
        );
        let (loaded, _) = load_with(&Kernel { shipped: None, ..BOTH }, 12040, &[]);
        assert_eq!(
            loaded.unwrap_err().to_string(),
            "no CUDA device: kernels: the driver (for CUDA 12.4) does not read PTX ISA 9.0, in which this build has \
             the kernel assign; install a newer NVIDIA driver, build with an older CUDA toolkit, or use the CPU"
        );
    }

    #[test]
    fn any_other_refusal_ends_it_and_names_the_code() {
        let mut calls = 0;
        let loaded = load::<()>(&BOTH, 13000, |_| {
            calls += 1;
            Err(DriverError(CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND))
        });
        let text = loaded.unwrap_err().to_string();
        assert_eq!(calls, 1);
        assert!(text.contains("CUDA_ERROR_JIT_COMPILER_NOT_FOUND") && text.contains("ptxjitcompiler"), "{text}");
    }

    #[test]
    fn a_kernel_without_any_ptx_is_an_error_and_nothing_is_loaded() {
        let (loaded, seen) = load_with(&NEITHER, 13000, &["built", "shipped"]);
        assert!(matches!(loaded, Err(Error::KernelsNotBuilt { stem: "assign", .. })), "{loaded:?}");
        assert!(seen.is_empty());
        let chosen = choose(&[NEITHER], "assign", (9, 0));
        assert!(matches!(chosen, Err(Error::KernelsNotBuilt { stem: "assign", .. })), "{chosen:?}");
    }

    #[test]
    fn each_capability_gets_the_most_special_kernel_that_it_runs() {
        let special = Kernel { arch: Arch::Compute90a, ..BOTH };
        let other = Kernel { stem: "gather", ..BOTH };
        let kernels = [other, special, BOTH];
        for (capability, arch) in [
            ((8, 0), Arch::Compute80),
            ((8, 6), Arch::Compute80),
            ((8, 9), Arch::Compute80),
            ((9, 0), Arch::Compute90a),
            ((10, 0), Arch::Compute80),
            ((12, 0), Arch::Compute80),
        ] {
            let chosen = choose(&kernels, "assign", capability).unwrap();
            assert_eq!((chosen.stem, chosen.arch), ("assign", arch), "{capability:?}");
        }
        // A special kernel that was not built leaves the portable one.
        let kernels = [Kernel { arch: Arch::Compute90a, ..NEITHER }, BOTH];
        assert_eq!(choose(&kernels, "assign", (9, 0)).unwrap().arch, Arch::Compute80);
    }

    #[test]
    fn a_gpu_older_than_every_kernel_is_told_its_capability_and_the_least_one() {
        for capability in [(3, 5), (7, 0), (7, 5)] {
            let (major, minor) = capability;
            assert_eq!(
                choose(&[BOTH], "assign", capability).unwrap_err().to_string(),
                format!(
                    "no CUDA device: capability: the GPU has compute capability {major}.{minor}, the kernels need 8.0; \
                     name a GPU of the Ampere generation or later, or use the CPU"
                )
            );
        }
    }
}
