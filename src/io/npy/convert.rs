//! Stored elements to f32 and to codes: one plain loop per type over whole slices, no choice per element.
//! Source bytes are in this machine's byte order, [`swap`] sees to that.

use super::Scalar;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The element was rounded.
pub(super) const INEXACT: u8 = 1;
/// The element is finite and beyond the largest f32.
pub(super) const OVERFLOW: u8 = 2;

/// Reverses the bytes of every element of `size` bytes.
pub(super) fn swap(bytes: &mut [u8], size: usize) {
    match size {
        2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|b| b.reverse()),
        4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|b| b.reverse()),
        8 => bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|b| b.reverse()),
        _ => {}
    }
}

/// The elements of a byte slice of any alignment.
macro_rules! elements {
    ($t:ty, $bytes:expr) => {
        $bytes.as_chunks::<{ size_of::<$t>() }>().0.iter().map(|&b| <$t>::from_ne_bytes(b))
    };
}

fn fill<T>(out: &mut [T], values: impl Iterator<Item = T>) {
    for (slot, value) in out.iter_mut().zip(values) {
        *slot = value;
    }
}

/// Converts every element; f64 and integers are rounded to nearest-even.
pub(super) fn widen(scalar: Scalar, bytes: &[u8], out: &mut [f32]) {
    match scalar {
        Scalar::F16 => widen_f16(bytes, out),
        Scalar::Bf16 => fill(out, elements!(u16, bytes).map(|x| f32::from_bits(u32::from(x) << 16))),
        Scalar::F32 => fill(out, elements!(f32, bytes)),
        Scalar::F64 => fill(out, elements!(f64, bytes).map(|x| x as f32)),
        Scalar::I8 => fill(out, elements!(i8, bytes).map(f32::from)),
        Scalar::I16 => fill(out, elements!(i16, bytes).map(f32::from)),
        Scalar::I32 => fill(out, elements!(i32, bytes).map(|x| x as f32)),
        Scalar::I64 => fill(out, elements!(i64, bytes).map(|x| x as f32)),
        Scalar::U8 => fill(out, elements!(u8, bytes).map(f32::from)),
        Scalar::U16 => fill(out, elements!(u16, bytes).map(f32::from)),
        Scalar::U32 => fill(out, elements!(u32, bytes).map(|x| x as f32)),
        Scalar::U64 => fill(out, elements!(u64, bytes).map(|x| x as f32)),
    }
}

/// The crate `half` converts slices with F16C or NEON where the machine has it, but wants them aligned.
fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    let mut aligned = [f16::ZERO; 512];
    for (bytes, out) in bytes.chunks(2 * aligned.len()).zip(out.chunks_mut(aligned.len())) {
        let aligned = &mut aligned[..out.len()];
        bytemuck::cast_slice_mut(aligned).copy_from_slice(bytes);
        aligned.convert_to_f32_slice(out);
    }
}

/// Whether f32 holds every value of the type.
pub(super) fn always_exact(scalar: Scalar) -> bool {
    !matches!(scalar, Scalar::F64 | Scalar::I32 | Scalar::I64 | Scalar::U32 | Scalar::U64)
}

// Flags are as wide as the elements while they are gathered: the compiler then keeps them in vector lanes.

fn f64_loss(x: f64, y: f32) -> u64 {
    let inexact = (f64::from(y) != x) & !x.is_nan();
    let overflow = y.is_infinite() & x.is_finite();
    (u64::from(inexact) * u64::from(INEXACT)) | (u64::from(overflow) * u64::from(OVERFLOW))
}

/// An integer is exact where its significant bits fit the 24 of an f32.
fn integer_loss(magnitude: u64) -> u64 {
    // The top bit only matters to 0, which would otherwise be shifted by 64.
    let significant = magnitude >> (magnitude | 1 << 63).trailing_zeros();
    u64::from(significant >> 24 != 0) * u64::from(INEXACT)
}

/// Calls `see` with what the conversion lost of every element, in order.
fn each_loss(scalar: Scalar, bytes: &[u8], out: &[f32], see: impl FnMut(u64)) {
    let rounded = |x: f64, y: f32| u64::from(f64::from(y) != x) * u64::from(INEXACT);
    match scalar {
        Scalar::F64 => elements!(f64, bytes).zip(out).map(|(x, &y)| f64_loss(x, y)).for_each(see),
        Scalar::I32 => elements!(i32, bytes).zip(out).map(|(x, &y)| rounded(x.into(), y)).for_each(see),
        Scalar::I64 => elements!(i64, bytes).map(|x| integer_loss(x.unsigned_abs())).for_each(see),
        Scalar::U32 => elements!(u32, bytes).zip(out).map(|(x, &y)| rounded(x.into(), y)).for_each(see),
        Scalar::U64 => elements!(u64, bytes).map(integer_loss).for_each(see),
        _ => {}
    }
}

/// What the conversion of `bytes` to `out` lost anywhere: the union of the flags.
pub(super) fn loss(scalar: Scalar, bytes: &[u8], out: &[f32]) -> u8 {
    let mut union = 0;
    each_loss(scalar, bytes, out, |loss| union |= loss);
    union as u8
}

/// Adds what the conversion lost of each element to that element's flags.
pub(super) fn mark(scalar: Scalar, bytes: &[u8], out: &[f32], flags: &mut [u8]) {
    let mut flags = flags.iter_mut();
    each_loss(scalar, bytes, out, |loss| {
        if let Some(flag) = flags.next() {
            *flag |= loss as u8;
        }
    });
}

/// Converts every element to a code; false where some value is none (and the codes are then worthless).
pub(super) fn codes(scalar: Scalar, bytes: &[u8], out: &mut [u32]) -> bool {
    // Any bit above the low 32 of the value as i64 (sign included) or u64 says that it does not fit.
    let mut high = 0u64;
    macro_rules! narrow {
        ($t:ty, $wide:ty) => {
            fill(
                out,
                elements!($t, bytes).map(|x| {
                    high |= <$wide>::from(x) as u64 >> 32;
                    x as u32
                }),
            )
        };
    }
    match scalar {
        Scalar::I8 => narrow!(i8, i64),
        Scalar::I16 => narrow!(i16, i64),
        Scalar::I32 => narrow!(i32, i64),
        Scalar::I64 => narrow!(i64, i64),
        Scalar::U8 => narrow!(u8, u64),
        Scalar::U16 => narrow!(u16, u64),
        Scalar::U32 => narrow!(u32, u64),
        Scalar::U64 => narrow!(u64, u64),
        Scalar::F16 | Scalar::Bf16 | Scalar::F32 | Scalar::F64 => return false,
    }
    high == 0
}

/// The first element that is no code, and its value.
pub(super) fn first_bad_code(scalar: Scalar, bytes: &[u8]) -> Option<(usize, i128)> {
    let bad = |x: &i128| u32::try_from(*x).is_err();
    let mut values: Box<dyn Iterator<Item = i128> + '_> = match scalar {
        Scalar::I8 => Box::new(elements!(i8, bytes).map(i128::from)),
        Scalar::I16 => Box::new(elements!(i16, bytes).map(i128::from)),
        Scalar::I32 => Box::new(elements!(i32, bytes).map(i128::from)),
        Scalar::I64 => Box::new(elements!(i64, bytes).map(i128::from)),
        Scalar::U64 => Box::new(elements!(u64, bytes).map(i128::from)),
        _ => return None,
    };
    values.by_ref().enumerate().find(|(_, x)| bad(x))
}
