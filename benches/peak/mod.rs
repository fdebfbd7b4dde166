//! What this processor can do, measured: independent chains in registers, and writes to memory, on every thread at once.
#![allow(dead_code)] // No bench needs all of it.

use rayon::prelude::*;
use std::time::Instant;

/// Writes all of `out`, past the caches where the processor can.
pub fn write(out: &mut [f32]) {
    out.par_chunks_mut(1 << 20).for_each(|out| {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx") {
            // SAFETY: avx was just found.
            return unsafe { avx_past_caches(out) };
        }
        out.fill(1.0);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn avx_past_caches(out: &mut [f32]) {
    use std::arch::x86_64::*;
    // SAFETY: any eight f32 are a register's.
    let (head, body, tail) = unsafe { out.align_to_mut::<__m256>() };
    head.fill(1.0);
    for to in body {
        // SAFETY: `to` is a register of its own, aligned; the fence follows.
        unsafe { _mm256_stream_ps(std::ptr::from_mut(to).cast(), _mm256_set1_ps(1.0)) };
    }
    tail.fill(1.0);
    _mm_sfence();
}

/// f32 FMA per second in 1e9, one counted as two operations. None where there is none that this file knows how to issue.
pub fn gflops() -> Option<f64> {
    fma_chain().map(best_of)
}

/// The same of products of 16-bit integers that are added up in 32 bits, where the crate forms labels of these.
pub fn integer_gops() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        use codeword::Isa;
        let chain: (Chain, u64) = match Isa::selected().ok()? {
            // SAFETY: it is available where one of these is selected.
            Isa::Avx512Bf16 | Isa::Avx512Vnni => (|steps| unsafe { vnni_integers(steps) }, 12 * 32 * 2),
            // SAFETY: likewise.
            Isa::Avx2 => (|steps| unsafe { avx2_integers(steps) }, 10 * 16 * 2),
            _ => return None,
        };
        return Some(best_of(chain));
    }
    #[allow(unreachable_code)]
    None
}

/// The best of five runs of about 50 ms.
fn best_of((chain, flop_per_step): (Chain, u64)) -> f64 {
    let threads = rayon::current_num_threads();
    let mut steps = 1 << 16;
    let mut best = 0.0f64;
    let mut runs = 0;
    while runs < 5 {
        let start = Instant::now();
        rayon::broadcast(|_| std::hint::black_box(chain(steps)));
        let seconds = start.elapsed().as_secs_f64();
        if seconds < 0.04 && steps < 1 << 40 {
            steps *= 2;
            continue;
        }
        best = best.max((steps * flop_per_step * threads as u64) as f64 / seconds / 1e9);
        runs += 1;
    }
    best
}

/// Runs a number of steps and returns what they computed, so that none can be left out.
type Chain = fn(u64) -> f32;

/// A loop of FMA and the operations of one of its steps.
fn fma_chain() -> Option<(Chain, u64)> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: avx512f was just found.
            return Some((|steps| unsafe { avx512(steps) }, 12 * 16 * 2));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: avx2 and fma were just found.
            return Some((|steps| unsafe { avx2(steps) }, 12 * 8 * 2));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        // SAFETY: neon was just found.
        return Some((|steps| unsafe { neon(steps) }, 16 * 4 * 2));
    }
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(steps: u64) -> f32 {
    use std::arch::x86_64::*;
    // The sums stay near 2: x <- x / 2 + 1.
    let (half, one) = (_mm512_set1_ps(std::hint::black_box(0.5)), _mm512_set1_ps(std::hint::black_box(1.0)));
    // Of 16 the compiler keeps some in memory.
    let mut sums = [one; 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, half, one);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(steps: u64) -> f32 {
    use std::arch::x86_64::*;
    let (half, one) = (_mm256_set1_ps(std::hint::black_box(0.5)), _mm256_set1_ps(std::hint::black_box(1.0)));
    let mut sums = [one; 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, half, one);
        }
    }
    sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2_integers(steps: u64) -> f32 {
    use std::arch::x86_64::*;
    let (factor, one) = (_mm256_set1_epi16(std::hint::black_box(3)), _mm256_set1_epi32(std::hint::black_box(1)));
    let mut sums = [one; 10];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_add_epi32(_mm256_madd_epi16(*sum, factor), one);
        }
    }
    sums.into_iter().map(|sum| _mm256_cvtsi256_si32(sum) as f32).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni_integers(steps: u64) -> f32 {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_epi16(std::hint::black_box(3)), _mm512_set1_epi16(std::hint::black_box(1)));
    let mut sums = [a; 12];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpwssd_epi32(*sum, a, b);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum) as f32).sum()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(steps: u64) -> f32 {
    use std::arch::aarch64::*;
    let (half, one) = (vdupq_n_f32(std::hint::black_box(0.5)), vdupq_n_f32(std::hint::black_box(1.0)));
    let mut sums = [one; 16];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = vfmaq_f32(one, *sum, half);
        }
    }
    sums.into_iter().map(|sum| vaddvq_f32(sum)).sum()
}
