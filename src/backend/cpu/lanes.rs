//! A vector register of f32, as the filter kernels need it: one type per instruction set.
//!
//! Every method is `#[inline(always)]` and becomes one or two instructions, provided that it is inlined into a
//! function compiled for that instruction set. That is why all of them are unsafe: the caller promises that the
//! processor has it (check 1 of [`super::kernels`]).

/// Lanes of f32 in one register.
pub(super) trait Lanes: Copy {
    /// How many.
    const WIDTH: usize;
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn splat(value: f32) -> Self;
    /// # Safety
    /// The processor has this instruction set; `from` is valid for reading `WIDTH` values.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// The processor has this instruction set; `to` is valid for writing `WIDTH` values.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`, rounded once or twice: the certificate covers both.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn add(self, b: Self) -> Self;
    /// Lane by lane the larger; either, or a NaN, where an operand is NaN.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn max(self, b: Self) -> Self;
    /// Lane by lane the smaller; the operands are never NaN.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn min(self, b: Self) -> Self;
    /// Lane by lane `if self > b { yes } else { no }`, bits untouched.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn if_greater(self, b: Self, yes: Self, no: Self) -> Self;
    /// `self - b`.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn sub(self, b: Self) -> Self;
    /// The smallest lane; none is NaN.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn least(self) -> f32;
    /// The sum of all lanes, in some order.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn total(self) -> f32;
    /// A bit for every lane that is `limit` or less.
    /// # Safety
    /// The processor has this instruction set.
    unsafe fn up_to(self, limit: Self) -> u32;
    /// The two bf16 in each of `WIDTH` words as f32: those of the lower halves, and of the upper.
    /// # Safety
    /// The processor has this instruction set; `from` is valid for reading `WIDTH` values.
    unsafe fn halves(from: *const u32) -> (Self, Self);
    /// Columns as rows.
    /// # Safety
    /// The processor has this instruction set.
    #[inline(always)]
    unsafe fn transpose(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]))
    }
    /// f64 sums with the square of a difference more each, which may be rounded or not.
    /// # Safety
    /// The processor has this instruction set.
    #[inline(always)]
    unsafe fn plus_squares(sums: [f64; 4], z: &[f32; 4], e: &[f32; 4]) -> [f64; 4] {
        std::array::from_fn(|lane| {
            let difference = f64::from(z[lane]) - f64::from(e[lane]);
            sums[lane] + difference * difference
        })
    }
}

/// The sum of whole registers of values, in some order: left to itself, the compiler takes the lanes apart.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn sum<L: Lanes, const N: usize>(values: [f32; N]) -> f32 {
    const { assert!(N >= L::WIDTH && N.is_multiple_of(L::WIDTH)) }
    // SAFETY: as the caller promises; every register ends within the values.
    unsafe {
        let mut sums = L::load(values.as_ptr());
        for register in 1..N / L::WIDTH {
            sums = sums.add(L::load(values.as_ptr().add(register * L::WIDTH)));
        }
        sums.total()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// [`Lanes::plus_squares`] in one register: left to itself, the compiler takes two of half the length.
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[inline(always)]
    unsafe fn plus_squares(sums: [f64; 4], z: &[f32; 4], e: &[f32; 4]) -> [f64; 4] {
        // SAFETY: arrays of four values are read and written.
        unsafe {
            let (z, e) = (_mm256_cvtps_pd(_mm_loadu_ps(z.as_ptr())), _mm256_cvtps_pd(_mm_loadu_ps(e.as_ptr())));
            let difference = _mm256_sub_pd(z, e);
            let mut to = [0.0; 4];
            _mm256_storeu_pd(to.as_mut_ptr(), _mm256_fmadd_pd(difference, difference, _mm256_loadu_pd(sums.as_ptr())));
            to
        }
    }

    /// [`Lanes::transpose`] by shuffles: left to itself, the compiler moves one value after the other.
    /// # Safety
    /// None: every x86-64 processor has SSE.
    #[inline(always)]
    unsafe fn transpose(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        // SAFETY: arrays of four values are read and written.
        unsafe {
            let [mut a, mut b, mut c, mut d] = block.map(|row| _mm_loadu_ps(row.as_ptr()));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            std::mem::transmute::<[__m128; 4], [[f32; 4]; 4]>([a, b, c, d])
        }
    }

    impl Lanes for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller has AVX-512 F and 16 readable values.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has AVX-512 F and 16 writable values.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_add_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_max_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn min(self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_min_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn if_greater(self, b: Self, yes: Self, no: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self, b), yes) }
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_sub_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn least(self) -> f32 {
            // SAFETY: the caller has AVX-512 F.
            unsafe { _mm512_reduce_min_ps(self) }
        }
        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: the caller has AVX-512 F, which implies AVX2.
            unsafe {
                let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1110>(self, self));
                _mm256_add_ps(_mm512_castps512_ps256(self), high).total()
            }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u32) -> (Self, Self) {
            // SAFETY: the caller has AVX-512 F and 16 readable values.
            unsafe {
                let both = _mm512_loadu_si512(from.cast());
                let high = _mm512_and_si512(both, _mm512_set1_epi32(0xffff_0000u32 as i32));
                (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn transpose(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
            // SAFETY: it asks for nothing.
            unsafe { transpose(block) }
        }
        #[inline(always)]
        unsafe fn plus_squares(sums: [f64; 4], z: &[f32; 4], e: &[f32; 4]) -> [f64; 4] {
            // SAFETY: AVX-512 F implies AVX2 and FMA.
            unsafe { plus_squares(sums, z, e) }
        }
        #[inline(always)]
        unsafe fn up_to(self, limit: Self) -> u32 {
            // SAFETY: the caller has AVX-512 F.
            u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self, limit) })
        }
    }

    impl Lanes for __m256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller has AVX2 and 8 readable values.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has AVX2 and 8 writable values.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller has FMA.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_add_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_max_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn min(self, b: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_min_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn if_greater(self, b: Self, yes: Self, no: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(self, b)) }
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_sub_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn least(self) -> f32 {
            // SAFETY: the caller has AVX2.
            unsafe {
                let four = _mm_min_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_min_ps(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: the caller has AVX2.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ps(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u32) -> (Self, Self) {
            // SAFETY: the caller has AVX2 and 8 readable values.
            unsafe {
                let both = _mm256_loadu_si256(from.cast());
                let high = _mm256_and_si256(both, _mm256_set1_epi32(0xffff_0000u32 as i32));
                (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)), _mm256_castsi256_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn transpose(block: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
            // SAFETY: it asks for nothing.
            unsafe { transpose(block) }
        }
        #[inline(always)]
        unsafe fn plus_squares(sums: [f64; 4], z: &[f32; 4], e: &[f32; 4]) -> [f64; 4] {
            // SAFETY: the caller has AVX2 and FMA.
            unsafe { plus_squares(sums, z, e) }
        }
        #[inline(always)]
        unsafe fn up_to(self, limit: Self) -> u32 {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(self, limit)) as u32 }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Lanes;
    use std::arch::aarch64::*;

    impl Lanes for float32x4_t {
        const WIDTH: usize = 4;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vdupq_n_f32(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller has NEON and 4 readable values.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has NEON and 4 writable values.
            unsafe { vst1q_f32(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vfmaq_f32(c, self, b) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vaddq_f32(self, b) }
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vmaxq_f32(self, b) }
        }
        #[inline(always)]
        unsafe fn min(self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vminq_f32(self, b) }
        }
        #[inline(always)]
        unsafe fn if_greater(self, b: Self, yes: Self, no: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vbslq_f32(vcgtq_f32(self, b), yes, no) }
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            // SAFETY: the caller has NEON.
            unsafe { vsubq_f32(self, b) }
        }
        #[inline(always)]
        unsafe fn least(self) -> f32 {
            // SAFETY: the caller has NEON.
            unsafe { vminvq_f32(self) }
        }
        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: the caller has NEON.
            unsafe { vaddvq_f32(self) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u32) -> (Self, Self) {
            // SAFETY: the caller has NEON and 4 readable values.
            unsafe {
                let both = vld1q_u32(from);
                let high = vandq_u32(both, vdupq_n_u32(0xffff_0000));
                (vreinterpretq_f32_u32(vshlq_n_u32::<16>(both)), vreinterpretq_f32_u32(high))
            }
        }
        #[inline(always)]
        unsafe fn up_to(self, limit: Self) -> u32 {
            // SAFETY: the caller has NEON; an array of 4 values is read.
            unsafe { vaddvq_u32(vandq_u32(vcleq_f32(self, limit), vld1q_u32([1, 2, 4, 8].as_ptr()))) }
        }
    }
}

/// Four lanes in plain Rust, which every compiler back end turns into whatever vectors its baseline has.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

impl Plain {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Lanes for Plain {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Plain([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has 4 readable values.
        Plain(unsafe { from.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has 4 writable values.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without the instruction that is a slow library call.
        self.zip(b, |x, y| x * y).zip(c, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn if_greater(self, b: Self, yes: Self, no: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] > b.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn least(self) -> f32 {
        self.0.into_iter().fold(f32::INFINITY, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn total(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
    #[inline(always)]
    unsafe fn halves(from: *const u32) -> (Self, Self) {
        // SAFETY: the caller has 4 readable values.
        let both = unsafe { from.cast::<[u32; 4]>().read() };
        (Plain(both.map(|both| f32::from_bits(both << 16))), Plain(both.map(|both| f32::from_bits(both & 0xffff_0000))))
    }
    #[inline(always)]
    unsafe fn up_to(self, limit: Self) -> u32 {
        (0..4).fold(0, |lanes, i| lanes | u32::from(self.0[i] <= limit.0[i]) << i)
    }
}
