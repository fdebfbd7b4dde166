//! The orthogonal matrix nearest to another, in products of matrices alone.
//!
//! Of A = U diag(s) V^T it is U V^T (Higham 1986). An odd polynomial of a matrix, X (a + b X^T X + c (X^T X)^2), is that polynomial
//! of its singular values, U and V untouched; so polynomials that bring all numbers from 2^-20 to 1 nearer and nearer to 1, one
//! after the other, make U V^T of X = A / |A| (Bjorck and Bowie 1971). Those here are, step by step, the ones with the least largest
//! error over what the step before leaves of that range (Chen and Chow 2014; Amsel, Persson, Musco and Gower 2025, "The Polar
//! Express", show that no sequence of as many is better). Smaller numbers, which few data have, get there by more steps of the last
//! kind, each of which nearly doubles them.
//!
//! What is smaller than 2^-36 of the largest singular value says nothing for certain about its direction, and 0 nothing at all. To
//! A a small share of a given orthogonal matrix is added, which then decides: a direction that the data do not tell stays.

use super::isa::Isa;
use super::kernels::Kernels;
use super::multiply::{times, transposed};
use super::svd::{Svd, scale_of};

/// The share of the given matrix.
const SHARE: f64 = 1.0 / (1u64 << 36) as f64;

/// a, b and c of the polynomials a x + b x^3 + c x^5: of the equioscillating one on [l, u + u / 1024], for l = 2^-20 and u = 1 at
/// first and then its least and largest value there. Beyond that range a polynomial rises thirteen times as fast as its argument, and
/// the next again: what rounding adds to u stays within, so that it does not grow. The last is that of Bjorck and Bowie.
const STEPS: [[f64; 3]; 13] = [
    [8.505953575469501, -25.207661489341085, 18.675946493904537],
    [4.252925625040493, -3.150928602916539, 0.58362177915632],
    [4.252690800086692, -3.150766583542063, 0.5836033577775083],
    [4.251692448814928, -3.1500777375520554, 0.5835250370369194],
    [4.2474529429390335, -3.14715208834732, 0.5831923969179355],
    [4.229538848737664, -3.1347814618163246, 0.5817859150371794],
    [4.155405673856155, -3.083444019289476, 0.5759497181937648],
    [3.8736605797737655, -2.8860427443993037, 0.5535226984593853],
    [3.0880163316341123, -2.3104198902801816, 0.48844700407103436],
    [2.1347753814273185, -1.5138395242121112, 0.4011286730297735],
    [1.8785028099234165, -1.253013013658263, 0.3745227314479204],
    [1.874085221510898, -1.2481709272349106, 0.3740857058323408],
    LAST,
];
const LAST: [f64; 3] = [1.875, -1.25, 0.375];
/// Steps at most. Some 30 do for directions that the matrix does not tell; this is for one that goes against the given one by just
/// its share.
const MOST: usize = 60;

/// The orthogonal matrix nearest to `a`, finite, and where that says little to `near`, which is orthogonal: `[d, d]` row-major.
/// Takes about 28 d^3 multiplications, 65 where it has not full rank, and 48 d^2 bytes; `tell` is called between them, and its error
/// ends it.
pub(crate) fn orthogonal<E>(
    a: Vec<f64>,
    near: &[f64],
    d: usize,
    isa: Isa,
    mut tell: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    if let Some(nearest) = in_steps(a.clone(), near, d, isa, &mut tell)? {
        return Ok(nearest);
    }
    // Rows are the columns of the transpose, whose nearest is the transpose.
    let of_transpose = Svd::new(&a, d, isa, tell)?.rotation();
    let mut nearest = vec![0.0; d * d];
    transposed(&of_transpose, d, &mut nearest);
    Ok(nearest)
}

/// None where no steps end in one.
fn in_steps<E>(
    mut a: Vec<f64>,
    near: &[f64],
    d: usize,
    isa: Isa,
    tell: &mut impl FnMut() -> Result<(), E>,
) -> Result<Option<Vec<f64>>, E> {
    let kernels = Kernels::of(isa);
    if a.iter().all(|&value| value == 0.0) {
        return Ok(Some(near.to_vec()));
    }
    // By a power of two, which changes no bit that counts: squares stay within f64.
    let scale = scale_of(&a);
    a.iter_mut().for_each(|value| *value *= scale);

    let (mut other, mut square, mut fourth) = (vec![0.0; d * d], vec![0.0; d * d], vec![0.0; d * d]);
    transposed(&a, d, &mut other);
    times(&other, &a, d, true, kernels, &mut square);
    // The square of no singular value is above the largest sum of a row of A^T A.
    let sum = |row: &[f64]| row.iter().map(|value| value.abs()).sum::<f64>();
    let bound = square.chunks_exact(d).map(sum).fold(0.0, f64::max).sqrt() * (1.0 + 2.0 * SHARE);
    a.iter_mut().zip(near).for_each(|(value, near)| *value = *value / bound + SHARE * near);

    let tolerance = d as f64 * f64::EPSILON;
    for step in 0..MOST {
        tell()?;
        transposed(&a, d, &mut other);
        times(&other, &a, d, true, kernels, &mut square);
        let off = |(at, value): (usize, &f64)| (value - f64::from(at.is_multiple_of(d + 1))).abs();
        // Not by the largest: that passes over what is no number.
        if square.iter().enumerate().map(off).all(|off| off <= tolerance) {
            return Ok(Some(a));
        }
        tell()?;
        times(&square, &square, d, true, kernels, &mut fourth);
        let [one, two, three] = STEPS.get(step).copied().unwrap_or(LAST);
        for (at, (fourth, square)) in fourth.iter_mut().zip(&square).enumerate() {
            *fourth = two * square + three * *fourth + if at.is_multiple_of(d + 1) { one } else { 0.0 };
        }
        tell()?;
        times(&a, &fourth, d, false, kernels, &mut other);
        std::mem::swap(&mut a, &mut other);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::multiply::tests::numbers;
    use super::super::svd::identity;
    use super::*;
    use std::convert::Infallible;

    /// The same by every instruction set.
    fn of(a: &[f64], near: &[f64], d: usize) -> Vec<f64> {
        let mut of_isas = Isa::available().into_iter().map(|isa| {
            let Ok(orthogonal) = orthogonal(a.to_vec(), near, d, isa, || Ok::<(), Infallible>(()));
            orthogonal
        });
        let first = of_isas.next().unwrap();
        assert!(of_isas.all(|other| other.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits())));
        first
    }

    /// The largest difference of R^T R from the identity.
    fn off(r: &[f64], d: usize) -> f64 {
        let dot = |i: usize, j: usize| (0..d).map(|t| r[t * d + i] * r[t * d + j]).sum::<f64>();
        (0..d * d).map(|at| (dot(at / d, at % d) - f64::from(at % (d + 1) == 0)).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn every_number_of_the_range_becomes_1() {
        for i in 0..=20_000 {
            let start = 2f64.powf(f64::from(i) / -1000.0);
            // Even where every step gets a little more than the one before gave.
            for excess in [1.0, 1.0 + 1e-6, 1.0 - 1e-6] {
                let after = |x: f64, [a, b, c]: &[f64; 3]| x * (a + x * x * (b + c * x * x));
                let end = STEPS.iter().fold(start, |x, step| after(excess * x, step));
                assert!((end - 1.0).abs() <= 1e-12, "{start}: {end}");
            }
        }
    }

    #[test]
    fn it_is_the_product_of_the_singular_vectors() {
        for (d, scale) in [(1, -2.0), (2, 1.0), (7, 1e-150), (24, 1e150), (65, 3.0), (100, 1e-300)] {
            let a: Vec<f64> = numbers(d * d, d as u64).iter().map(|value| value * scale).collect();
            let r = of(&a, &identity(d), d);
            assert!(off(&r, d) <= 1e-13, "{d}: {}", off(&r, d));
            // As column after column, the transpose: so is its rotation.
            let Ok(svd) = Svd::new(&a, d, Isa::Portable, || Ok::<(), Infallible>(()));
            // The share of the given matrix moves a direction by so much over its singular value, and rounding.
            let within = (4.0 * SHARE * d as f64 + 1e-13) * svd.s[0] / svd.s[d - 1];
            let rotation = svd.rotation();
            for i in 0..d * d {
                let expected = rotation[i % d * d + i / d];
                assert!((r[i] - expected).abs() <= within, "{d}, scale {scale}: {} for {expected}", r[i]);
            }
            let trace: f64 = r.iter().zip(&a).map(|(r, a)| r * a).sum();
            let best: f64 = svd.s.iter().sum();
            assert!(trace <= best * (1.0 + 1e-12) && trace >= best * (1.0 - 1e-5), "{d}: {trace}, {best}");
        }
    }

    #[test]
    fn directions_that_it_does_not_tell_stay() {
        // A turn by 3-4-5 of two dimensions, the others as given: one changes its sign.
        let mut near = identity(4);
        near[15] = -1.0;
        let mut a = vec![0.0; 16];
        (a[0], a[1], a[4], a[5]) = (3e10, -4e10, 4e10, 3e10);
        let mut expected = near.clone();
        (expected[0], expected[1], expected[4], expected[5]) = (0.6, -0.8, 0.8, 0.6);
        for (value, expected) in of(&a, &near, 4).iter().zip(&expected) {
            assert!((value - expected).abs() <= 1e-6, "{value}, {expected}");
        }
        assert_eq!(of(&[0.0; 16], &near, 4), near);
        // Of any rank.
        for (d, rank) in [(9, 3), (40, 39), (33, 1)] {
            let (left, right) = (numbers(d * rank, 1), numbers(d * rank, 2));
            let entry = |i: usize, j: usize| (0..rank).map(|r| left[r * d + i] * right[r * d + j]).sum::<f64>();
            let a: Vec<f64> = (0..d * d).map(|at| entry(at % d, at / d)).collect();
            let r = of(&a, &identity(d), d);
            assert!(off(&r, d) <= 1e-13, "{d}, {rank}");
        }
    }

    #[test]
    fn what_no_steps_make_orthogonal_is_found_by_singular_values() {
        // Dimensions moved on by one, and the last against the given one by just its share: 0 is left of it. |A| is 1, of which the
        // bound is a little more.
        let mut near = vec![0.0; 9];
        (near[1], near[5], near[6]) = (1.0, 1.0, 1.0);
        let mut a = near.clone();
        a[6] = -SHARE * (1.0 + 2.0 * SHARE);
        let mut steps = 0;
        let told = &mut || {
            steps += 1;
            Ok::<(), Infallible>(())
        };
        assert_eq!(in_steps(a.clone(), &near, 3, Isa::Portable, told), Ok(None));
        assert!(steps > MOST, "{steps}");
        near[6] = -1.0;
        assert_eq!(of(&a, &near.iter().map(|value| value.abs()).collect::<Vec<_>>(), 3), near);
    }

    #[test]
    fn it_ends_between_steps_where_it_is_told_to() {
        let mut steps = 0;
        let ended = orthogonal(numbers(25, 3), &identity(5), 5, Isa::Portable, || {
            steps += 1;
            if steps == 4 { Err("ended") } else { Ok(()) }
        });
        assert_eq!((ended, steps), (Err("ended"), 4));
    }
}
