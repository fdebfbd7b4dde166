//! The orthogonal matrix nearest to another, in products of matrices alone.
//!
//! Of A = U diag(s) V^T it is U V^T (Higham 1986). An odd polynomial of a matrix, X (a + b X^T X + c (X^T X)^2), is that polynomial
//! of its singular values, U and V untouched; so polynomials that bring all numbers from 2^-26 to 1 nearer and nearer to 1, one
//! after the other, make U V^T of X = A / |A| (Bjorck and Bowie 1971). Those here are, step by step, the ones with the least
//! largest error over what the step before leaves of that range (Nakatsukasa and Freund 2016 show that this is the best of all
//! sequences; Chen and Chow 2014).
//!
//! What is smaller than 2^-26 of the largest singular value says nothing for certain about its direction, and 0 nothing at all. To
//! A a small share of a given orthogonal matrix is added, which then decides: a direction that the data do not tell stays.

use super::isa::Isa;
use super::kernels::Kernels;
use super::multiply::{times, transposed};
use super::svd::scale_of;

/// What is taken for the least singular value, and the share of the given matrix.
const LEAST: f64 = 1.0 / (1 << 26) as f64;

/// a, b and c of the polynomials a x + b x^3 + c x^5: of the equioscillating one on [l, u], for l = 2^-26 and u = 1 at first and then
/// its least and largest value there. The next after these is that of Bjorck and Bowie.
const STEPS: [[f64; 3]; 15] = [
    [8.514301615343214, -25.28174790388348, 18.767446161667287],
    [4.257150005303333, -3.1602180304188203, 0.5864826679403877],
    [4.257146319446487, -3.1602154810720364, 0.5864823771429022],
    [4.2571306282852275, -3.1602046281723686, 0.5864811391803405],
    [4.257063830243168, -3.1601584267328793, 0.5864758691004445],
    [4.256779489929814, -3.1599617582473054, 0.5864534356366281],
    [4.255569536466784, -3.159124837332775, 0.5863579703618153],
    [4.250428102527979, -3.155567847330013, 0.5859522364916023],
    [4.228711553824379, -3.140531570370398, 0.5842371406183919],
    [4.139272984791741, -3.078393524448042, 0.5771502740808128],
    [3.8067478739668577, -2.84409399699002, 0.5504484411786967],
    [2.946072150279074, -2.2047353236352056, 0.47803549052265326],
    [2.0592630317127094, -1.4423195637057054, 0.3946932659596641],
    [1.876689883557324, -1.2518763692328332, 0.3751876864349933],
    LAST,
];
const LAST: [f64; 3] = [1.875, -1.25, 0.375];
/// Steps at most: for a matrix that goes against the given one in a direction that it hardly tells, which none of these is.
const MOST: usize = 60;

/// The orthogonal matrix nearest to `a`, finite, and where that says little to `near`, which is orthogonal: `[d, d]` row-major, in
/// place of it. None where no steps end in one. Takes about 25 d^3 multiplications and 40 d^2 bytes; `tell` is called between
/// them, and its error ends it.
pub(crate) fn polar<E>(
    mut a: Vec<f64>,
    near: &[f64],
    d: usize,
    isa: Isa,
    mut tell: impl FnMut() -> Result<(), E>,
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
    let bound = square.chunks_exact(d).map(sum).fold(0.0, f64::max).sqrt() * (1.0 + 2.0 * LEAST);
    a.iter_mut().zip(near).for_each(|(value, near)| *value = *value / bound + LEAST * near);

    let tolerance = d as f64 * f64::EPSILON;
    for step in 0..MOST {
        tell()?;
        transposed(&a, d, &mut other);
        times(&other, &a, d, true, kernels, &mut square);
        let off = |(at, value): (usize, &f64)| (value - f64::from(at.is_multiple_of(d + 1))).abs();
        if square.iter().enumerate().map(off).fold(0.0, f64::max) <= tolerance {
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
    use super::super::svd::{Svd, identity};
    use super::*;
    use std::convert::Infallible;

    /// The same by every instruction set.
    fn of(a: &[f64], near: &[f64], d: usize) -> Vec<f64> {
        let mut of_isas = Isa::available().into_iter().map(|isa| {
            let Ok(polar) = polar(a.to_vec(), near, d, isa, || Ok::<(), Infallible>(()));
            polar.unwrap()
        });
        let first = of_isas.next().unwrap();
        assert!(of_isas.all(|other| other.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits())));
        first
    }

    /// Numbers in (-1, 1), the same everywhere.
    fn numbers(count: usize, mut state: u64) -> Vec<f64> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / 2f64.powi(52) - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// The largest difference of R^T R from the identity.
    fn off(r: &[f64], d: usize) -> f64 {
        let dot = |i: usize, j: usize| (0..d).map(|t| r[t * d + i] * r[t * d + j]).sum::<f64>();
        (0..d * d).map(|at| (dot(at / d, at % d) - f64::from(at % (d + 1) == 0)).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn every_number_of_the_range_becomes_1() {
        for i in 0..=20_000 {
            let start = LEAST.powf(f64::from(i) / 20_000.0);
            let end = STEPS.iter().fold(start, |x, [a, b, c]| x * (a + x * x * (b + c * x * x)));
            assert!((end - 1.0).abs() <= 1e-7, "{start}: {end}");
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
            // The given matrix, which is a millionth of it, moves a direction by so much over its singular value.
            let within = 4.0 * LEAST * d as f64 * svd.s[0] / svd.s[d - 1];
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
    fn what_cannot_be_orthogonal_is_none() {
        // Against the given one by just its share: 0 is left of it. |A| is 1, of which the bound is a little more.
        let mut a = identity(2);
        a[3] = -LEAST * (1.0 + 2.0 * LEAST);
        let Ok(none) = polar(a, &identity(2), 2, Isa::Portable, || Ok::<(), Infallible>(()));
        assert!(none.is_none_or(|r| off(&r, 2) <= 1e-13));
        // And it is heard between steps.
        let mut steps = 0;
        let ended = polar(numbers(25, 3), &identity(5), 5, Isa::Portable, || {
            steps += 1;
            if steps == 4 { Err("ended") } else { Ok(()) }
        });
        assert_eq!((ended, steps), (Err("ended"), 4));
    }
}
