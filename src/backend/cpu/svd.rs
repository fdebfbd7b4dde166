//! Singular values and vectors of square matrices by one-sided Jacobi rotations (Hestenes 1958; Golub and Van Loan, Matrix
//! Computations, 4th edition, section 8.6.3; Demmel and Veselic 1992 show how accurate they are).
//!
//! Written here because results have to be the same bytes on every machine: the linear algebra crates choose their kernels by
//! what the processor offers, and with them the order of their sums. Here there is one order, and of operations there are
//! additions, multiplications, divisions and square roots of f64, each rounded on its own. Pairs of columns are turned until all
//! are orthogonal; what turned them is V, their lengths are the singular values, their directions are U.
//!
//! A column of A has that of V behind it, `[d, 2 d]`. Columns go in blocks that fit a second-level cache by twos, and blocks meet
//! as in a tournament where every one plays every other (Golub and Van Loan, section 8.5.6): the meetings of a round have no
//! column in common, so that threads can share them, and the order is that of the blocks, not of the threads.

use super::doubles::Doubles;
use super::isa::Isa;
use super::kernels::Kernels;
use super::multiply::{times, transposed};
use rayon::prelude::*;

/// Sweeps over all pairs of columns at most. Ten to twenty do; this is for a matrix that no rounding lets end.
const SWEEPS: usize = 60;
/// Numbers of two blocks of columns, and columns of one.
const MEETING: usize = 1 << 15;
const BLOCK: [usize; 2] = [4, 16];
/// Columns below which one thread is sooner done than others are awake.
const ALONE: usize = 192;
/// Running sums of [`dots`].
pub(super) const SUMS: usize = 16;

/// A = U diag(s) V^T, d x d. U and V are orthogonal whatever the rank of A.
pub(crate) struct Svd {
    isa: Isa,
    pub d: usize,
    /// `[d, d]`, column after column.
    pub u: Vec<f64>,
    /// `[d]`, descending.
    pub s: Vec<f64>,
    /// `[d, d]`, column after column.
    pub v: Vec<f64>,
}

impl Svd {
    /// Of a matrix of finite numbers, `[d, d]`, column after column. Takes about 9 d^3 operations a sweep and 56 d^2 bytes. `tell`
    /// is called again and again, from this thread; its error ends it.
    pub fn new<E>(a: &[f64], d: usize, isa: Isa, mut tell: impl FnMut() -> Result<(), E>) -> Result<Svd, E> {
        let kernels = Kernels::of(isa);
        let mut columns = Vec::with_capacity(2 * d * d);
        a.chunks_exact(d.max(1)).zip(identity(d).chunks_exact(d.max(1))).for_each(|(a, v)| {
            columns.extend_from_slice(a);
            columns.extend_from_slice(v);
        });

        // By a power of two, which changes no bit that counts: squares of squares stay within f64.
        let scale = scale_of(a);
        for column in columns.chunks_exact_mut((2 * d).max(1)) {
            column[..d].iter_mut().for_each(|value| *value *= scale);
        }

        // Shorter columns are rounding alone: their directions say nothing, and there is no end to turning them.
        let all: f64 = squares(&columns, d, kernels).iter().sum();
        let rounding = d as f64 * f64::EPSILON;
        let job = Job { d, kernels, nothing: rounding * rounding * all, tolerance: rounding };
        for _ in 0..SWEEPS {
            sort(&mut columns, d, kernels);
            if !job.sweep(&mut columns, &mut tell)? {
                break;
            }
        }
        sort(&mut columns, d, kernels);

        let (mut u, mut v) = (Vec::with_capacity(d * d), Vec::with_capacity(d * d));
        let (mut s, mut rank) = (vec![0.0; d], 0);
        for ((column, squares), s) in
            columns.chunks_exact((2 * d).max(1)).zip(squares(&columns, d, kernels)).zip(&mut s)
        {
            v.extend_from_slice(&column[d..]);
            let length = squares.sqrt();
            if squares > job.nothing {
                u.extend(column[..d].iter().map(|value| value / length));
                *s = length / scale;
                rank += 1;
            }
        }
        u.resize(d * d, 0.0);
        complete(&mut u, rank, d, kernels);
        Ok(Svd { isa, d, u, s, v })
    }

    /// U V^T, `[d, d]` row-major: of all orthogonal matrices R the one with the largest trace of R^T A, which is the one that
    /// brings X nearest to Y where A is X^T Y (Schoenemann 1966, orthogonal Procrustes).
    pub fn rotation(&self) -> Vec<f64> {
        let d = self.d;
        let (mut u, mut rotation) = (vec![0.0; d * d], vec![0.0; d * d]);
        transposed(&self.u, d, &mut u);
        times(&u, &self.v, d, false, Kernels::of(self.isa), &mut rotation);
        rotation
    }
}

/// The power of two that brings the largest of some numbers to 1, or nearly.
pub(super) fn scale_of(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let exponent = (largest.to_bits() >> 52).clamp(1, 2045);
    f64::from_bits((2046 - exponent) << 52)
}

/// `[d, d]`.
pub(crate) fn identity(d: usize) -> Vec<f64> {
    (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect()
}

/// What the pairs of a sweep have in common.
struct Job {
    d: usize,
    kernels: &'static Kernels,
    /// Squared lengths of columns that are none.
    nothing: f64,
    /// As near to 0 as a sum of d products of f64 tells.
    tolerance: f64,
}

impl Job {
    /// Turns every pair of columns once; whether there was one that was not orthogonal.
    fn sweep<E>(&self, columns: &mut [f64], tell: &mut impl FnMut() -> Result<(), E>) -> Result<bool, E> {
        let length = 2 * self.d;
        let columns_of_block = (MEETING / (2 * length).max(1)).clamp(BLOCK[0], BLOCK[1]);
        let mut blocks: Vec<&mut [f64]> = columns.chunks_mut((columns_of_block * length).max(1)).collect();
        let within = |block: &mut &mut [f64]| {
            let (mut left, mut turned) = (&mut **block, false);
            while let Some((p, rest)) = left.split_at_mut_checked(length).filter(|(p, _)| !p.is_empty()) {
                rest.chunks_exact_mut(length).for_each(|q| turned |= self.turn(p, q));
                left = rest;
            }
            turned
        };
        let between = |(p, q): (&mut [f64], &mut [f64])| {
            let mut turned = false;
            for p in p.chunks_exact_mut(length) {
                q.chunks_exact_mut(length).for_each(|q| turned |= self.turn(p, q));
            }
            turned
        };
        // Whether any was turned; all of them are looked at.
        let mut turned = match self.d < ALONE {
            true => blocks.iter_mut().map(within).fold(false, |a, b| a | b),
            false => blocks.par_iter_mut().map(within).reduce(|| false, |a, b| a | b),
        };
        let players = blocks.len().next_multiple_of(2);
        for round in 0..players.saturating_sub(1) {
            tell()?;
            let mut ready: Vec<Option<&mut [f64]>> = blocks.iter_mut().map(|block| Some(&mut **block)).collect();
            let mut take = |block: usize| ready.get_mut(block).and_then(Option::take);
            let pairs: Vec<_> = (0..players / 2)
                .filter_map(|pair| {
                    let (p, q) = meeting(round, pair, players);
                    take(p).zip(take(q))
                })
                .collect();
            turned |= match self.d < ALONE {
                true => pairs.into_iter().map(between).fold(false, |a, b| a | b),
                false => pairs.into_par_iter().map(between).reduce(|| false, |a, b| a | b),
            };
        }
        Ok(turned)
    }

    /// Makes two columns orthogonal; whether they were not.
    fn turn(&self, p: &mut [f64], q: &mut [f64]) -> bool {
        let [alpha, beta, gamma] = self.kernels.dots(&p[..self.d], &q[..self.d]);
        let is_orthogonal = gamma.abs() <= self.tolerance * (alpha.sqrt() * beta.sqrt());
        if alpha <= self.nothing || beta <= self.nothing || is_orthogonal {
            return false;
        }
        // The smaller of the two angles that make them orthogonal: t is its tangent.
        let zeta = (beta - alpha) / (2.0 * gamma);
        let t = 1f64.copysign(zeta) / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
        let cosine = 1.0 / (1.0 + t * t).sqrt();
        self.kernels.turn(p, q, cosine, cosine * t);
        true
    }
}

/// Who meets in a round of an even number of `players`, the lower first: the last stays, all others move on by one a round.
fn meeting(round: usize, pair: usize, players: usize) -> (usize, usize) {
    let others = players - 1;
    let (p, q) = match pair {
        0 => (round, others),
        _ => ((round + pair) % others, (round + others - pair) % others),
    };
    (p.min(q), p.max(q))
}

/// p and q turned into each other, element by element.
#[inline(always)]
pub(super) fn turn(p: &mut [f64], q: &mut [f64], cosine: f64, sine: f64) {
    for (p, q) in p.iter_mut().zip(q) {
        (*p, *q) = (cosine * *p - sine * *q, sine * *p + cosine * *q);
    }
}

/// p.p, q.q and p.q, each in sixteen running sums over every sixteenth element, added in pairs: those that are eight apart, then
/// four, two and one. PARTS registers are the sixteen.
///
/// # Safety
/// Check 1 of [`super::kernels`].
#[allow(clippy::needless_range_loop)] // Constant bounds and plain indices are what unrolls into registers.
#[inline(always)]
pub(super) unsafe fn dots<D: Doubles, const PARTS: usize>(p: &[f64], q: &[f64]) -> [f64; 3] {
    const { assert!(PARTS * D::WIDTH == SUMS) }
    let ((p, p_rest), (q, q_rest)) = (p.as_chunks::<SUMS>(), q.as_chunks::<SUMS>());
    let mut sums = [[0.0; SUMS]; 3];
    // SAFETY: as the caller promises; the parts are the values of a chunk, and of the sums.
    unsafe {
        let mut parts = [[D::splat(0.0); PARTS]; 3];
        for (p, q) in p.iter().zip(q) {
            for part in 0..PARTS {
                let (p, q) = (D::load(p.as_ptr().add(part * D::WIDTH)), D::load(q.as_ptr().add(part * D::WIDTH)));
                parts[0][part] = parts[0][part].plus(p, p);
                parts[1][part] = parts[1][part].plus(q, q);
                parts[2][part] = parts[2][part].plus(p, q);
            }
        }
        for of in 0..3 {
            for part in 0..PARTS {
                parts[of][part].store(sums[of].as_mut_ptr().add(part * D::WIDTH));
            }
        }
    }
    for (lane, (&p, &q)) in p_rest.iter().zip(q_rest).enumerate() {
        sums[0][lane] += p * p;
        sums[1][lane] += q * q;
        sums[2][lane] += p * q;
    }
    let mut totals = [0.0; 3];
    for (total, sums) in totals.iter_mut().zip(&mut sums) {
        let mut half = SUMS / 2;
        while half > 0 {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
            half /= 2;
        }
        *total = sums[0];
    }
    totals
}

/// Of the columns of A.
fn squares(columns: &[f64], d: usize, kernels: &Kernels) -> Vec<f64> {
    columns.chunks_exact((2 * d).max(1)).map(|column| kernels.dots(&column[..d], &column[..d])[0]).collect()
}

/// Puts columns in the order of their lengths, the longest first: so they need fewer sweeps.
fn sort(columns: &mut Vec<f64>, d: usize, kernels: &Kernels) {
    let squares = squares(columns, d, kernels);
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&i, &j| squares[j].total_cmp(&squares[i]));
    *columns = order.iter().flat_map(|&i| &columns[i * 2 * d..][..2 * d]).copied().collect();
}

/// Replaces the columns from `rank` on, so that all are orthogonal and of length 1, as those before are: by the unit
/// vectors that lie farthest from the others, one after the other, made orthogonal by Gram and Schmidt's process.
fn complete(u: &mut [f64], rank: usize, d: usize, kernels: &Kernels) {
    // Of each unit vector the square of its distance from what the columns so far span.
    let mut left = vec![1.0; d];
    let take = |left: &mut [f64], column: &[f64]| {
        left.iter_mut().zip(column).for_each(|(left, &value)| *left -= value * value);
    };
    u[..rank * d].chunks_exact(d.max(1)).for_each(|column| take(&mut left, column));
    for j in rank..d {
        let farthest = (1..d).fold(0, |farthest, i| if left[i] > left[farthest] { i } else { farthest });
        let (before, column) = u.split_at_mut(j * d);
        let column = &mut column[..d];
        column.fill(0.0);
        column[farthest] = 1.0;
        // Once leaves what rounding adds, twice is enough (Kahan, in Parlett, The Symmetric Eigenvalue Problem).
        for _ in 0..2 {
            for other in before.chunks_exact(d) {
                let [.., along] = kernels.dots(other, column);
                column.iter_mut().zip(other).for_each(|(value, &other)| *value -= along * other);
            }
        }
        let length = kernels.dots(column, column)[0].sqrt();
        column.iter_mut().for_each(|value| *value /= length);
        take(&mut left, column);
    }
}

#[cfg(test)]
mod tests {
    use super::super::multiply::tests::numbers;
    use super::*;
    use std::convert::Infallible;

    /// The same by every instruction set.
    fn svd(a: &[f64], d: usize) -> Svd {
        let mut of_isas = Isa::available().into_iter().map(|isa| {
            let Ok(svd) = Svd::new(a, d, isa, || Ok::<(), Infallible>(()));
            svd
        });
        let svd = of_isas.next().unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for other in of_isas {
            assert!(bits(&other.u) == bits(&svd.u) && bits(&other.s) == bits(&svd.s) && bits(&other.v) == bits(&svd.v));
            assert!(bits(&other.rotation()) == bits(&svd.rotation()));
        }
        svd
    }

    /// The largest difference of U diag(s) V^T from `a`, by the largest of `a`; of U^T U and V^T V from the identity.
    fn defects(a: &[f64], svd: &Svd) -> (f64, f64) {
        let d = svd.d;
        let at = |columns: &[f64], i: usize, j: usize| columns[j * d + i];
        let largest = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let mut of_product = 0.0f64;
        let mut of_vectors = 0.0f64;
        for i in 0..d {
            for j in 0..d {
                let product: f64 = (0..d).map(|c| at(&svd.u, i, c) * svd.s[c] * at(&svd.v, j, c)).sum();
                of_product = of_product.max((product - at(a, i, j)).abs() / if largest > 0.0 { largest } else { 1.0 });
                for columns in [&svd.u, &svd.v] {
                    let dot: f64 = (0..d).map(|t| at(columns, t, i) * at(columns, t, j)).sum();
                    of_vectors = of_vectors.max((dot - f64::from(i == j)).abs());
                }
            }
        }
        (of_product, of_vectors)
    }

    fn assert_svd(name: &str, a: &[f64], d: usize) -> Svd {
        let svd = svd(a, d);
        let (of_product, of_vectors) = defects(a, &svd);
        assert!(of_product <= 1e-12 && of_vectors <= 1e-12, "{name}: {of_product:e}, {of_vectors:e}");
        assert!(svd.s.is_sorted_by(|a, b| a >= b) && svd.s.iter().all(|&s| s >= 0.0), "{name}: {:?}", svd.s);
        // U V^T brings back no more than the singular values say: the trace of R^T A is their sum.
        let rotation = svd.rotation();
        let trace: f64 = (0..d * d).map(|i| rotation[i] * a[i % d * d + i / d]).sum();
        let sum: f64 = svd.s.iter().sum();
        assert!((trace - sum).abs() <= 1e-12 * sum, "{name}: {trace}, {sum}");
        svd
    }

    #[test]
    fn hand_made_matrices() {
        assert!(svd(&[], 0).s.is_empty());
        assert_eq!(assert_svd("one", &[-3.0], 1).s, [3.0]);
        // Diagonal: sorted, with the signs in U.
        let diagonal = [2.0, 0.0, 0.0, 0.0, -5.0, 0.0, 0.0, 0.0, 3.0];
        let svd = assert_svd("diagonal", &diagonal, 3);
        assert_eq!((svd.s.as_slice(), &svd.u[..3]), (&[5.0, 3.0, 2.0][..], &[0.0, -1.0, 0.0][..]));
        assert_eq!(svd.rotation(), [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]);
        // A rotation by 3-4-5 times diag(10, 5): columns (6, 8) and (-4, 3).
        let svd = assert_svd("rotation times diagonal", &[6.0, 8.0, -4.0, 3.0], 2);
        approx::assert_relative_eq!(svd.s.as_slice(), &[10.0, 5.0][..], max_relative = 1e-15);
        approx::assert_relative_eq!(svd.rotation().as_slice(), &[0.6, -0.8, 0.8, 0.6][..], max_relative = 1e-15);
        // Singular values of [[3, 0], [4, 5]]: 3 sqrt(5) and sqrt(5).
        let svd = assert_svd("known", &[3.0, 4.0, 0.0, 5.0], 2);
        approx::assert_relative_eq!(svd.s.as_slice(), &[45f64.sqrt(), 5f64.sqrt()][..], max_relative = 1e-15);
    }

    #[test]
    fn matrices_without_full_rank_and_nearly_so() {
        let zeros = assert_svd("zeros", &[0.0; 25], 5);
        assert_eq!((zeros.s.as_slice(), zeros.rotation()), (&[0.0; 5][..], identity(5)));
        // All ones: s_1 = d.
        let svd = assert_svd("ones", &[1.0; 49], 7);
        approx::assert_relative_eq!(svd.s[0], 7.0, max_relative = 1e-14);
        assert!(svd.s[1..].iter().all(|&s| s <= 1e-13), "{:?}", svd.s);
        for (d, rank) in [(2, 1), (9, 3), (40, 39), (33, 5)] {
            let (left, right) = (numbers(d * rank, 1), numbers(d * rank, 2));
            let entry = |i: usize, j: usize| (0..rank).map(|r| left[r * d + i] * right[r * d + j]).sum::<f64>();
            let a: Vec<f64> = (0..d * d).map(|at| entry(at % d, at / d)).collect();
            let svd = assert_svd("of low rank", &a, d);
            assert!(svd.s[rank - 1] > 1e-6 && svd.s[rank..].iter().all(|&s| s <= 1e-12), "{d}, {rank}: {:?}", svd.s);
        }
        // Hilbert's matrix: of full rank, and singular as f64 sees it. Its largest singular value for d = 10 is known.
        for d in [3, 10, 30] {
            let hilbert: Vec<f64> = (0..d * d).map(|at| 1.0 / (1 + at % d + at / d) as f64).collect();
            let svd = assert_svd("Hilbert", &hilbert, d);
            if d == 10 {
                approx::assert_relative_eq!(svd.s[0], 1.751_919_670_265_178, max_relative = 1e-13);
            }
        }
    }

    #[test]
    fn everyone_meets_everyone_else_once() {
        for players in [2, 4, 6, 14] {
            let mut met = vec![0; players * players];
            for round in 0..players - 1 {
                let pairs: Vec<_> = (0..players / 2).map(|pair| meeting(round, pair, players)).collect();
                let mut playing: Vec<usize> = pairs.iter().flat_map(|&(p, q)| [p, q]).collect();
                playing.sort_unstable();
                assert!(playing.iter().copied().eq(0..players), "all of {players} play in round {round}");
                pairs.iter().for_each(|&(p, q)| met[p * players + q] += 1);
            }
            assert!((0..players * players).all(|at| met[at] == usize::from(at / players < at % players)), "{players}");
        }
    }

    #[test]
    fn matrices_that_threads_share() {
        // 13 blocks, of which one has no other in a round.
        let d = ALONE + 8;
        assert_svd("random", &numbers(d * d, 9), d);
    }

    #[test]
    fn random_matrices_of_any_scale() {
        for (d, scale) in [(2, 1.0), (5, 1e-200), (16, 1e200), (67, 1e-300), (100, 3.0)] {
            let a: Vec<f64> = numbers(d * d, d as u64).iter().map(|v| v * scale).collect();
            assert_svd("random", &a, d);
            // Columns of very different lengths.
            let graded: Vec<f64> = (0..d * d).map(|at| a[at] / scale * 10f64.powi(-((at / d) as i32 % 12))).collect();
            assert_svd("graded", &graded, d);
        }
    }
}
