//! The kernel of [`super::sketch`], and the only door to it: rows in the lanes of registers, a codeword broadcast.
//!
//! Every unsafe block here rests on these checks, made by [`SketchKernels::near`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`SketchKernels::of`]);
//! 2. there are as many limits and masks as strips, and of every strip as many pairs as the codeword has.
#![allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.

use super::isa::{Isa, table_of};
use super::lanes::{Lanes, Plain};

/// Rows of a strip: as many as a mask has bits, and sums enough to keep two units busy.
pub(super) const STRIP: usize = 64;

/// The kernel of one instruction set.
pub(super) struct SketchKernels {
    near: NearFn,
}

type NearFn = unsafe fn(pairs: &[[u32; STRIP]], e: &[[f32; 2]], limits: &[[f32; STRIP]], near: &mut [u64]);

impl SketchKernels {
    /// The kernel of `isa`, or of the portable set where the processor lacks it.
    pub fn of(isa: Isa) -> &'static SketchKernels {
        // Check 1.
        table_of!(isa)
    }

    /// Of every strip, `[strips][e.len()]` pairs of bf16, the rows whose sum of squared differences from `e` is not above
    /// their limit.
    pub fn near(&self, pairs: &[[u32; STRIP]], e: &[[f32; 2]], limits: &[[f32; STRIP]], near: &mut [u64]) {
        assert!(!e.is_empty() && pairs.len() == limits.len() * e.len() && near.len() == limits.len(), "check 2");
        // SAFETY: checks 1 and 2.
        unsafe { (self.near)(pairs, e, limits, near) }
    }
}

/// # Safety
/// Checks 1 and 2.
#[inline(always)]
unsafe fn near<L: Lanes, const PARTS: usize>(
    pairs: &[[u32; STRIP]],
    e: &[[f32; 2]],
    limits: &[[f32; STRIP]],
    near: &mut [u64],
) {
    const { assert!(PARTS * L::WIDTH == STRIP) }
    for ((strip, limits), near) in pairs.chunks_exact(e.len()).zip(limits).zip(near) {
        // SAFETY: check 1; the parts are the STRIP values of a pair, and of the limits.
        unsafe {
            let mut sums = [L::splat(0.0); PARTS];
            for (pair, e) in strip.iter().zip(e) {
                let (e_low, e_high) = (L::splat(e[0]), L::splat(e[1]));
                for part in 0..PARTS {
                    let (low, high) = L::halves(pair.as_ptr().add(part * L::WIDTH));
                    let (low, high) = (low.sub(e_low), high.sub(e_high));
                    sums[part] = high.mul_add(high, low.mul_add(low, sums[part]));
                }
            }
            *near = 0;
            for part in 0..PARTS {
                let limit = L::load(limits.as_ptr().add(part * L::WIDTH));
                *near |= u64::from(sums[part].up_to(limit)) << (part * L::WIDTH);
            }
        }
    }
}

/// Compiles the kernel for one instruction set. Known depths unroll.
macro_rules! stamp {
    ($module:ident, $features:literal, $lanes:ty) => {
        mod $module {
            use super::*;

            pub static KERNELS: SketchKernels = SketchKernels { near };
            const PARTS: usize = STRIP / <$lanes as Lanes>::WIDTH;

            #[target_feature(enable = $features)]
            unsafe fn near(pairs: &[[u32; STRIP]], e: &[[f32; 2]], limits: &[[f32; STRIP]], near: &mut [u64]) {
                // SAFETY: the caller made the checks.
                unsafe {
                    match e.len() {
                        2 => super::near::<$lanes, PARTS>(pairs, &e[..2], limits, near),
                        4 => super::near::<$lanes, PARTS>(pairs, &e[..4], limits, near),
                        8 => super::near::<$lanes, PARTS>(pairs, &e[..8], limits, near),
                        _ => super::near::<$lanes, PARTS>(pairs, e, limits, near),
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
stamp!(avx512, "avx512f", std::arch::x86_64::__m512);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, "avx2,fma", std::arch::x86_64::__m256);
#[cfg(target_arch = "aarch64")]
stamp!(neon, "neon", std::arch::aarch64::float32x4_t);

static PORTABLE: SketchKernels = SketchKernels { near: near::<Plain, { STRIP / <Plain as Lanes>::WIDTH }> };
