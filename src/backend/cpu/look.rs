//! Another look at the rows that the filter pass could not settle: finer arithmetic over fewer and fewer
//! candidates, until one is left or what is left is equal in the real numbers.

use super::direct::{f32_bound, f64_bound, f64_is_exact};
use super::exact::{self, ExactSum};
use super::kernels::Kernels;
use std::cmp::Ordering;

/// What settled a row that the filter pass did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Second,
    F64,
    Exact,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
pub(super) struct Look {
    sq_l2_f32: Vec<f32>,
    sq_l2_f64: Vec<f64>,
    pub sum: ExactSum,
}

impl Look {
    /// The nearest of the candidates (distinct codewords, ascending; at least one), the lowest among equals.
    /// `codeword` gives their components. Leaves the candidates that the last step but one left.
    pub fn nearest<'a>(
        &mut self,
        kernels: &Kernels,
        z: &[f32],
        candidates: &mut Vec<u32>,
        codeword: impl Fn(u32) -> &'a [f32],
    ) -> (u32, Tier) {
        let Look { sq_l2_f32, sq_l2_f64, sum } = self;

        // Direct f32 sums: the error is relative to the distance, not to the norms as in the filter pass.
        if let Some((relative, tiny)) = f32_bound(z.len()) {
            sq_l2_f32.clear();
            sq_l2_f32.extend(candidates.iter().map(|&j| kernels.sq_l2_f32(z, codeword(j))));
            let upper = |&d: &f32| f64::from(d) * (1.0 + relative) + tiny;
            let limit = sq_l2_f32.iter().map(upper).fold(f64::INFINITY, f64::min);
            // What overflowed is at least about f32::MAX, no more is known.
            keep(candidates, sq_l2_f32, |d| f64::from(d.min(f32::MAX)) * (1.0 - relative) - tiny <= limit);
        }
        if let [only] = candidates[..] {
            return (only, Tier::Second);
        }

        let relative = 2.0 * f64_bound(z.len());
        sq_l2_f64.clear();
        sq_l2_f64.extend(candidates.iter().map(|&j| kernels.sq_l2_f64(z, codeword(j))));
        let limit = sq_l2_f64.iter().fold(f64::INFINITY, |min, &d| min.min(d * (1.0 + relative)));
        keep(candidates, sq_l2_f64, |d| d * (1.0 - relative) <= limit);
        if let [only] = candidates[..] {
            return (only, Tier::F64);
        }

        // Those that are left lie within the bound of the limit.
        if f64_is_exact(z, candidates.iter().map(|&j| codeword(j)), limit * 1.001) {
            // The lowest index among equal sums, which are equal distances.
            let nearest = candidates.iter().zip(&*sq_l2_f64).min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0)));
            return (nearest.map_or(candidates[0], |(&j, _)| j), Tier::F64);
        }
        let mut nearest = candidates[0];
        for &j in &candidates[1..] {
            if exact::compare(z, codeword(j), codeword(nearest), sum) == Ordering::Less {
                nearest = j;
            }
        }
        (nearest, Tier::Exact)
    }
}

/// Keeps the candidates whose value passes, and their values.
fn keep<V: Copy>(candidates: &mut Vec<u32>, values: &mut Vec<V>, passes: impl Fn(V) -> bool) {
    let mut of_candidates = values.iter();
    candidates.retain(|_| of_candidates.next().is_some_and(|&value| passes(value)));
    values.retain(|&value| passes(value));
}
