//! Which vector instructions the filter pass uses: chosen once per process, at run time.

use crate::error::{Error, Result};
use std::sync::OnceLock;

/// An instruction set the CPU backend has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// AVX-512 F with VNNI and BF16: all of [`Isa::Avx512Vnni`], and 32 products of bf16 for labels of vectors of 33 to 32,768
    /// dimensions where integers do not suit the codebook: where its longest codeword is more than eight times as long as the
    /// median one, or codewords are more than a million.
    Avx512Bf16,
    /// AVX-512 F with VNNI: 32 products of 16-bit integers for most labels of vectors of 5 to 32,768 dimensions, and f32 as
    /// [`Isa::Avx512`] for everything else.
    Avx512Vnni,
    /// AVX-512 F: 16 lanes of f32.
    Avx512,
    /// AVX2 and FMA: 16 products of 16-bit integers for most labels of vectors of 7 to 32,768 dimensions, and 8 lanes of f32
    /// for everything else.
    Avx2,
    /// Advanced SIMD of 64-bit Arm: 4 lanes of f32.
    Neon,
    /// Plain Rust, for any processor.
    Portable,
}

impl Isa {
    /// Every set there is a kernel for, the widest first.
    pub const ALL: &[Isa] = &[Isa::Avx512Bf16, Isa::Avx512Vnni, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The name `CODEWORD_ISA` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                // Some kernels are those of AVX2.
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vnni")
                    && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The sets this processor has, the widest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_available()).collect()
    }

    /// The set in use: the widest available, or the one that the environment variable `CODEWORD_ISA` names.
    /// Decided at the first call.
    ///
    /// # Errors
    /// - [`Error::InvalidParameter`] where `CODEWORD_ISA` names no set, or one this processor lacks.
    pub fn selected() -> Result<Isa> {
        static SELECTED: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        let selected = SELECTED.get_or_init(|| match std::env::var("CODEWORD_ISA") {
            Err(std::env::VarError::NotPresent) => Ok(Isa::available()[0]),
            Err(std::env::VarError::NotUnicode(name)) => Err(name.to_string_lossy().into_owned()),
            Ok(name) => Isa::available().into_iter().find(|isa| isa.name() == name).ok_or(name),
        });
        selected.clone().map_err(|got| Error::InvalidParameter {
            op: "Isa::selected",
            name: "CODEWORD_ISA",
            expected: format!(
                "unset or one of {}",
                Isa::available().iter().map(|i| i.name()).collect::<Vec<_>>().join(", ")
            ),
            got,
        })
    }
}

/// The `KERNELS` for an instruction set out of the modules `avx512`, `avx2` and `neon` where this stands, or `PORTABLE` where the
/// processor lacks the set.
macro_rules! table_of {
    ($isa:expr) => {
        match $isa {
            isa if !isa.is_available() => &PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &neon::KERNELS,
            _ => &PORTABLE,
        }
    };
}
pub(super) use table_of;
