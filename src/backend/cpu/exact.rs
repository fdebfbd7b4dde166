//! The last word: squared distances in f64 with a proven bound, and where that is not enough, exactly.
//!
//! The product of two f32 has at most 48 significant bits and an exponent from -298 to 256: it is exact in f64.
//! So a squared distance is a sum of exact f64 terms, z^2 - 2 z e + e^2, and a sum of f64 values is computed
//! exactly as an expansion of non-overlapping parts (Shewchuk 1997, "Adaptive Precision Floating-Point
//! Arithmetic", section 2.4).

use super::direct::f64_bound;
use std::cmp::Ordering;

/// A sum of f64 values without any error, as long as nothing overflows or underflows: terms here are products of
/// two f32, and fewer than 2^60 of them.
#[derive(Default)]
pub(super) struct ExactSum {
    /// Non-overlapping, of increasing magnitude, without zeros.
    parts: Vec<f64>,
}

impl ExactSum {
    fn clear(&mut self) {
        self.parts.clear();
    }

    #[inline]
    fn add(&mut self, value: f64) {
        let mut carried = value;
        let mut kept = 0;
        for i in 0..self.parts.len() {
            // Knuth's two-sum: `sum + lost` is `carried + part`, exactly, whichever is larger.
            let part = self.parts[i];
            let sum = carried + part;
            let shadow = sum - carried;
            let lost = (carried - (sum - shadow)) + (part - shadow);
            if lost != 0.0 {
                self.parts[kept] = lost;
                kept += 1;
            }
            carried = sum;
        }
        self.parts.truncate(kept);
        if carried != 0.0 {
            self.parts.push(carried);
        }
    }

    /// How the sum compares with zero: the largest part outweighs all others together.
    fn sign(&self) -> Ordering {
        match self.parts.last() {
            None => Ordering::Equal,
            Some(&largest) if largest > 0.0 => Ordering::Greater,
            Some(_) => Ordering::Less,
        }
    }

    /// The nearest f32, ties to even. Rounds to f64 by round-to-odd first, which keeps the second rounding right
    /// (Boldo and Melquiond 2008).
    fn to_f32(&self) -> f32 {
        let Some((&largest, rest)) = self.parts.split_last() else { return 0.0 };
        let mut high = largest;
        let mut low = 0.0;
        for &part in rest.iter().rev() {
            let sum = high + part;
            low = part - (sum - high);
            high = sum;
            if low != 0.0 {
                break;
            }
        }
        // What is left below `high` has the sign of `low`: later parts are smaller than it.
        if low != 0.0 && high.to_bits() & 1 == 0 {
            high = if low > 0.0 { high.next_up() } else { high.next_down() };
        }
        high as f32
    }
}

/// The real squared distance rounded to the nearest f32, given its f64 value within [`f64_bound`].
#[inline]
pub(super) fn round_sq_l2(z: &[f32], e: &[f32], sq_l2: f64, sum: &mut ExactSum) -> f32 {
    round_f64(sq_l2, z.len()).unwrap_or_else(|| round_exact_sq_l2(z, e, sum))
}

/// The f32 nearest to every number within [`f64_bound`] of the sum of so many squares; none where there are two.
#[inline(always)]
pub(super) fn round_f64(sq_l2: f64, d: usize) -> Option<f32> {
    // Twice the bound: the two products below round as well.
    let slack = 2.0 * f64_bound(d);
    let (low, high) = ((sq_l2 * (1.0 - slack)) as f32, (sq_l2 * (1.0 + slack)) as f32);
    (low == high).then_some(low)
}

/// The rare part, on its own so that the other can be inlined.
#[cold]
pub(super) fn round_exact_sq_l2(z: &[f32], e: &[f32], sum: &mut ExactSum) -> f32 {
    sum.clear();
    for (&z, &e) in z.iter().zip(e) {
        let (z, e) = (f64::from(z), f64::from(e));
        sum.add(z * z);
        sum.add(-2.0 * z * e);
        sum.add(e * e);
    }
    sum.to_f32()
}

/// Which of two vectors of one length is nearer to `z` in the real numbers.
pub(crate) fn nearer(z: &[f32], a: &[f32], b: &[f32]) -> Ordering {
    compare(z, a, b, &mut ExactSum::default())
}

/// How the real distance from `z` to `a` compares with that from `z` to `b`.
pub(super) fn compare(z: &[f32], a: &[f32], b: &[f32], sum: &mut ExactSum) -> Ordering {
    sum.clear();
    for ((&z, &a), &b) in z.iter().zip(a).zip(b) {
        if a == b {
            continue;
        }
        let (z, a, b) = (f64::from(z), f64::from(a), f64::from(b));
        sum.add(a * a);
        sum.add(-b * b);
        sum.add(-2.0 * z * a);
        sum.add(2.0 * z * b);
    }
    sum.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_f64_loses_are_kept() {
        let mut sum = ExactSum::default();
        for term in [2f64.powi(200), 1.0, -2f64.powi(200), 2f64.powi(-200), -1.0] {
            sum.add(term);
        }
        assert_eq!(sum.parts, [2f64.powi(-200)]);
        sum.add(-(2f64.powi(-200)));
        assert_eq!(sum.sign(), Ordering::Equal);
        sum.add(-(2f64.powi(-250)));
        sum.add(2f64.powi(-251));
        assert_eq!(sum.sign(), Ordering::Less);
    }

    #[test]
    fn rounding_to_f32_happens_once() {
        let half_ulp = 2f64.powi(-24);
        for (terms, expected) in [
            (vec![1.0, half_ulp], 1.0),
            (vec![1.0, half_ulp, 2f64.powi(-90)], 1.0 + f32::EPSILON),
            (vec![1.0, half_ulp, -(2f64.powi(-90))], 1.0),
            (vec![1.0, 3.0 * half_ulp], 1.0 + 2.0 * f32::EPSILON),
            (vec![1.0, 3.0 * half_ulp, -(2f64.powi(-200))], 1.0 + f32::EPSILON),
            (vec![2f64.powi(-150)], 0.0),
            (vec![2f64.powi(-150), 2f64.powi(-298)], f32::from_bits(1)),
            (vec![f64::from(f32::MAX), 2f64.powi(103)], f32::INFINITY),
            (vec![f64::from(f32::MAX), 2f64.powi(103), -(2f64.powi(-200))], f32::MAX),
        ] {
            let mut sum = ExactSum::default();
            terms.iter().for_each(|&term| sum.add(term));
            assert_eq!(sum.to_f32(), expected, "{terms:?}");
        }
    }
}
