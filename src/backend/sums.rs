//! What codewords are moved to: the sums of the rows that carry their labels.

/// What [`accumulate`](super::accumulate) returns: of every codeword how many rows carry its label, their weight, and
/// their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Rows of each label, `[k]`.
    pub counts: Vec<u64>,
    /// Their weights added up, `[k]`; the counts where rows have no weights.
    pub weights: Vec<f64>,
    /// The rows times their weights added up, `[k, d]` row-major.
    pub sums: Vec<f64>,
    /// Length of a row.
    pub d: usize,
}

impl Sums {
    /// Of no rows.
    pub(crate) fn zero(k: usize, d: usize) -> Sums {
        Sums { counts: vec![0; k], weights: vec![0.0; k], sums: vec![0.0; k * d], d }
    }

    /// Writes the mean of the rows labelled `j`, the quotient of sum and weight rounded once to the nearest f32, ties
    /// to even. Where they weigh nothing, leaves `mean` as it is and returns false.
    ///
    /// # Panics
    /// Where `j` is no label or `mean` has not d values.
    pub fn mean_into(&self, j: usize, mean: &mut [f32]) -> bool {
        assert_eq!(mean.len(), self.d, "a mean has d values");
        let weight = self.weights[j];
        if weight > 0.0 {
            quotients(&self.sums[j * self.d..][..self.d], weight, mean);
        }
        weight > 0.0
    }
}

/// `sums / weight`, each rounded once to f32.
pub(crate) fn quotients(sums: &[f64], weight: f64, out: &mut [f32]) {
    const LOST: u64 = (1 << 29) - 1;
    // Without a way out in the middle, so that it runs at the speed of division. The quotient that matters lies on the
    // middle of two f32: of normal ones where the 29 bits that are lost are a one and zeros.
    let mut is_open = false;
    for (out, &sum) in out.iter_mut().zip(sums) {
        let quotient = sum / weight;
        *out = quotient as f32;
        let is_subnormal = (quotient != 0.0) & (quotient.abs() < f64::from(f32::MIN_POSITIVE));
        is_open |= (quotient.to_bits() & LOST == 1 << 28) | is_subnormal;
    }
    if is_open {
        out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = quotient(sum, weight));
    }
}

/// `sum / weight` rounded once to f32. Rounding the f64 quotient again goes wrong where that lies on the middle of two
/// f32 and the real quotient does not: there the sign of the rest decides.
fn quotient(sum: f64, weight: f64) -> f32 {
    let quotient = sum / weight;
    let near = quotient as f32;
    let other = if f64::from(near) < quotient { near.next_up() } else { near.next_down() };
    if f64::from(near) / 2.0 + f64::from(other) / 2.0 != quotient {
        return near;
    }
    // Exact: a quotient with more than 53 bits has a rest of at most 53, far above the smallest f64.
    let rest = (-quotient).mul_add(weight, sum);
    match rest {
        rest if rest > 0.0 => near.max(other),
        rest if rest < 0.0 => near.min(other),
        _ => near,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_rounded_once() {
        // Weights w = W 2^-52 of 53 bits and the middle of two f32, m = M 2^-24: the sum nearest to m w is m w only
        // where that has 53 bits, and the quotient is then off the middle to the side where the sum is off m w.
        let (mut above, mut below) = (0, 0);
        for step in 0..200u64 {
            let w = 1 << 52 | step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
            for m in [(1 << 24) + 1, (1 << 24) + 3, (1 << 25) - 1u64] {
                let (weight, middle) = (w as f64 * 2f64.powi(-52), m as f64 * 2f64.powi(-24));
                let sum = middle * weight;
                if sum / weight != middle {
                    continue;
                }
                // The sum is a multiple of 2^-52, m w one of 2^-76.
                let (sum_76, real_76) = ((sum * 2f64.powi(52)) as u128 * (1 << 24), u128::from(m) * u128::from(w));
                let (low, high) = ((m - 1) as f32 * 2f32.powi(-24), (m + 1) as f32 * 2f32.powi(-24));
                let even = if m % 4 == 1 { low } else { high };
                let expected = match sum_76.cmp(&real_76) {
                    std::cmp::Ordering::Less => low,
                    std::cmp::Ordering::Equal => even,
                    std::cmp::Ordering::Greater => high,
                };
                let mut out = [0.0; 3];
                quotients(&[sum, -sum, weight], weight, &mut out);
                assert_eq!(out, [expected, -expected, 1.0], "{sum:e} / {weight:e}");
                // Where rounding twice would give something else.
                above += u32::from(expected == high && even == low);
                below += u32::from(expected == low && even == high);
            }
        }
        assert!(above > 20 && below > 20, "{above} {below}");
        assert_eq!(quotient(1.0 + 2f64.powi(-24), 1.0), 1.0);
    }

    #[test]
    fn quotients_at_the_ends_of_f32() {
        let one = |sum: f64, weight: f64| {
            let mut out = [0.0];
            quotients(&[sum], weight, &mut out);
            out[0]
        };
        let tiny = f32::from_bits(1);
        assert_eq!(one(f64::from(tiny), 1.0), tiny);
        // Half the smallest is a tie, to zero; a third less is zero, two thirds is one.
        assert_eq!(one(f64::from(tiny), 2.0), 0.0);
        assert_eq!(one(2.0 * f64::from(tiny), 3.0), tiny);
        assert_eq!(one(3.0 * f64::from(f32::MAX), 3.0), f32::MAX);
        assert_eq!(one(-3.0 * f64::from(f32::MAX), 3.0), f32::MIN);
    }
}
