//! A vector register of f64, as [`super::multiply`] and [`super::svd`] need it: one type per instruction set, as in [`super::lanes`].
//!
//! Every method is `#[inline(always)]` and becomes one or two instructions, provided that it is inlined into a function
//! compiled for that instruction set. That is why all of them are unsafe: the caller promises that the processor has it
//! (check 1 of [`super::kernels`]).

/// Lanes of f64 in one register.
pub(super) trait Doubles: Copy {
    /// How many.
    const WIDTH: usize;
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn splat(value: f64) -> Self;
    /// # Safety
    /// The processor has this instruction set; `from` is valid for reading `WIDTH` values.
    unsafe fn load(from: *const f64) -> Self;
    /// # Safety
    /// The processor has this instruction set; `to` is valid for writing `WIDTH` values.
    unsafe fn store(self, to: *mut f64);
    /// `self + a * b`, the product rounded and then the sum.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn plus(self, a: Self, b: Self) -> Self;
    /// `self + a * b` of operands whose product is exact, as that of two f32 is: however it is done, it rounds once.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn plus_exact(self, a: Self, b: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Doubles;
    use std::arch::x86_64::*;

    impl Doubles for __m512d {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_set1_pd(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: the caller has AVX-512 F and 8 readable values.
            unsafe { _mm512_loadu_pd(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f64) {
            // SAFETY: the caller has AVX-512 F and 8 writable values.
            unsafe { _mm512_storeu_pd(to, self) }
        }
        #[inline(always)]
        unsafe fn plus(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_add_pd(self, _mm512_mul_pd(a, b)) }
        }
        #[inline(always)]
        unsafe fn plus_exact(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_fmadd_pd(a, b, self) }
        }
    }

    impl Doubles for __m256d {
        const WIDTH: usize = 4;
        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_set1_pd(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: the caller has AVX2 and 4 readable values.
            unsafe { _mm256_loadu_pd(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f64) {
            // SAFETY: the caller has AVX2 and 4 writable values.
            unsafe { _mm256_storeu_pd(to, self) }
        }
        #[inline(always)]
        unsafe fn plus(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_add_pd(self, _mm256_mul_pd(a, b)) }
        }
        #[inline(always)]
        unsafe fn plus_exact(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has FMA.
            unsafe { _mm256_fmadd_pd(a, b, self) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Doubles;
    use std::arch::aarch64::*;

    impl Doubles for float64x2_t {
        const WIDTH: usize = 2;
        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vdupq_n_f64(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: the caller has NEON and 2 readable values.
            unsafe { vld1q_f64(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f64) {
            // SAFETY: the caller has NEON and 2 writable values.
            unsafe { vst1q_f64(to, self) }
        }
        #[inline(always)]
        unsafe fn plus(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vaddq_f64(self, vmulq_f64(a, b)) }
        }
        #[inline(always)]
        unsafe fn plus_exact(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vfmaq_f64(self, a, b) }
        }
    }
}

/// Two lanes in plain Rust, which every compiler back end turns into whatever vectors its baseline has.
#[derive(Clone, Copy)]
pub(super) struct PlainDoubles([f64; 2]);

impl Doubles for PlainDoubles {
    const WIDTH: usize = 2;
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        PlainDoubles([value; 2])
    }
    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: the caller has 2 readable values.
        PlainDoubles(unsafe { from.cast::<[f64; 2]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: the caller has 2 writable values.
        unsafe { to.cast::<[f64; 2]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        PlainDoubles(std::array::from_fn(|lane| self.0[lane] + a.0[lane] * b.0[lane]))
    }
    #[inline(always)]
    unsafe fn plus_exact(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's, which is nothing.
        unsafe { self.plus(a, b) }
    }
}
