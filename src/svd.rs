//! Singular values and vectors of square matrices by one-sided Jacobi rotations (Hestenes 1958; Golub and Van Loan, Matrix
//! Computations, 4th edition, section 8.6.3; Demmel and Veselic 1992 show how accurate they are).
//!
//! Written here because results have to be the same bytes on every machine: the linear algebra crates choose their kernels by
//! what the processor offers, and with them the order of their sums. Here there is one order, and of operations there are
//! additions, multiplications, divisions and square roots of f64, each rounded on its own. Pairs of columns are turned until all
//! are orthogonal; what turned them is V, their lengths are the singular values, their directions are U.

/// Sweeps over all pairs of columns at most. About ten do from the start, about four near the end of another matrix; this
/// is for a matrix that no rounding lets end.
const SWEEPS: usize = 60;

/// A = U diag(s) V^T, d x d. U and V are orthogonal whatever the rank of A.
pub(crate) struct Svd {
    pub d: usize,
    /// `[d, d]`, column after column.
    pub u: Vec<f64>,
    /// `[d]`, descending.
    pub s: Vec<f64>,
    /// `[d, d]`, column after column.
    pub v: Vec<f64>,
}

impl Svd {
    /// Of a matrix of finite numbers, `[d, d]`, column after column. Takes about 9 d^3 operations a sweep and 32 d^2 bytes.
    pub fn new(a: &[f64], d: usize) -> Svd {
        Svd::from_columns(a.to_vec(), identity(d), d)
    }

    /// As [`Svd::new`], from the V of a matrix that is much like this one: with fewer sweeps.
    pub fn near(a: &[f64], v: Vec<f64>, d: usize) -> Svd {
        let mut turned = vec![0.0; d * d];
        for (column, v) in turned.chunks_exact_mut(d).zip(v.chunks_exact(d)) {
            for (a, &v) in a.chunks_exact(d).zip(v) {
                column.iter_mut().zip(a).for_each(|(sum, &a)| *sum += a * v);
            }
        }
        Svd::from_columns(turned, v, d)
    }

    /// Of A, given A V as `a` and the orthogonal V.
    fn from_columns(mut a: Vec<f64>, mut v: Vec<f64>, d: usize) -> Svd {
        // By a power of two, which changes no bit that counts: squares of squares stay within f64.
        let largest = a.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let exponent = (largest.to_bits() >> 52).clamp(1, 2045);
        let scale = f64::from_bits((2046 - exponent) << 52);
        a.iter_mut().for_each(|value| *value *= scale);

        // Shorter columns are rounding alone: their directions say nothing, and there is no end to turning them.
        let all: f64 = a.chunks_exact(d.max(1)).map(|column| dots(column, column).0).sum();
        let rounding = d as f64 * f64::EPSILON;
        let nothing = rounding * rounding * all;
        for _ in 0..SWEEPS {
            sort(&mut a, &mut v, d);
            if !sweep(&mut a, &mut v, d, nothing) {
                break;
            }
        }
        sort(&mut a, &mut v, d);

        let mut s = vec![0.0; d];
        let mut rank = 0;
        for (column, s) in a.chunks_exact_mut(d.max(1)).zip(&mut s) {
            let (squares, ..) = dots(column, column);
            if squares > nothing {
                let length = squares.sqrt();
                column.iter_mut().for_each(|value| *value /= length);
                *s = length / scale;
                rank += 1;
            }
        }
        complete(&mut a, rank, d);
        Svd { d, u: a, s, v }
    }

    /// U V^T, `[d, d]` row-major: of all orthogonal matrices R the one with the largest trace of R^T A, which is the one that
    /// brings X nearest to Y where A is X^T Y (Schoenemann 1966, orthogonal Procrustes).
    pub fn rotation(&self) -> Vec<f64> {
        let d = self.d;
        let mut rotation = vec![0.0; d * d];
        for (u, v) in self.u.chunks_exact(d).zip(self.v.chunks_exact(d)) {
            for (row, &u) in rotation.chunks_exact_mut(d).zip(u) {
                row.iter_mut().zip(v).for_each(|(sum, &v)| *sum += u * v);
            }
        }
        rotation
    }
}

/// `[d, d]`.
pub(crate) fn identity(d: usize) -> Vec<f64> {
    (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect()
}

/// Turns every pair of columns once, in order; whether there was one that was not orthogonal.
fn sweep(a: &mut [f64], v: &mut [f64], d: usize, nothing: f64) -> bool {
    // As near to 0 as a sum of d products of f64 tells.
    let tolerance = d as f64 * f64::EPSILON;
    let mut turned = false;
    for p in 0..d {
        for q in p + 1..d {
            let (a_p, a_q) = pair(a, p, q, d);
            let (alpha, beta, gamma) = dots(a_p, a_q);
            if alpha <= nothing || beta <= nothing || gamma.abs() <= tolerance * (alpha.sqrt() * beta.sqrt()) {
                continue;
            }
            // The smaller of the two angles that make them orthogonal: t is its tangent.
            let zeta = (beta - alpha) / (2.0 * gamma);
            let t = 1f64.copysign(zeta) / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
            let cosine = 1.0 / (1.0 + t * t).sqrt();
            turn(a_p, a_q, cosine, cosine * t);
            let (v_p, v_q) = pair(v, p, q, d);
            turn(v_p, v_q, cosine, cosine * t);
            turned = true;
        }
    }
    turned
}

/// Columns p < q.
fn pair(columns: &mut [f64], p: usize, q: usize, d: usize) -> (&mut [f64], &mut [f64]) {
    let (left, right) = columns.split_at_mut(q * d);
    (&mut left[p * d..][..d], &mut right[..d])
}

fn turn(p: &mut [f64], q: &mut [f64], cosine: f64, sine: f64) {
    for (p, q) in p.iter_mut().zip(q) {
        (*p, *q) = (cosine * *p - sine * *q, sine * *p + cosine * *q);
    }
}

/// p.p, q.q and p.q, each in four running sums over every fourth element, added in pairs.
fn dots(p: &[f64], q: &[f64]) -> (f64, f64, f64) {
    let mut sums = [[0.0f64; 4]; 3];
    let mut add = |lane: usize, p: f64, q: f64| {
        sums[0][lane] += p * p;
        sums[1][lane] += q * q;
        sums[2][lane] += p * q;
    };
    let ((p, p_rest), (q, q_rest)) = (p.as_chunks::<4>(), q.as_chunks::<4>());
    for (p, q) in p.iter().zip(q) {
        (0..4).for_each(|lane| add(lane, p[lane], q[lane]));
    }
    p_rest.iter().zip(q_rest).enumerate().for_each(|(lane, (&p, &q))| add(lane, p, q));
    let [alpha, beta, gamma] = sums.map(|[a, b, c, d]| (a + b) + (c + d));
    (alpha, beta, gamma)
}

/// Puts columns, and those of `v` with them, in the order of their lengths, the longest first: so they need fewer sweeps.
fn sort(a: &mut Vec<f64>, v: &mut Vec<f64>, d: usize) {
    let squares: Vec<f64> = a.chunks_exact(d.max(1)).map(|column| dots(column, column).0).collect();
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&i, &j| squares[j].total_cmp(&squares[i]));
    for columns in [a, v] {
        *columns = order.iter().flat_map(|&i| &columns[i * d..][..d]).copied().collect();
    }
}

/// Replaces the columns from `rank` on, so that all are orthogonal and of length 1, as those before are: by the unit
/// vectors that lie farthest from the others, one after the other, made orthogonal by Gram and Schmidt's process.
fn complete(u: &mut [f64], rank: usize, d: usize) {
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
                let (.., along) = dots(other, column);
                column.iter_mut().zip(other).for_each(|(value, &other)| *value -= along * other);
            }
        }
        let length = dots(column, column).0.sqrt();
        column.iter_mut().for_each(|value| *value /= length);
        take(&mut left, column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let svd = Svd::new(a, d);
        let (of_product, of_vectors) = defects(a, &svd);
        assert!(of_product <= 1e-12 && of_vectors <= 1e-12, "{name}: {of_product:e}, {of_vectors:e}");
        assert!(svd.s.is_sorted_by(|a, b| a >= b) && svd.s.iter().all(|&s| s >= 0.0), "{name}: {:?}", svd.s);
        // From its own end it is there at once, and near it too.
        let near = Svd::near(a, svd.v.clone(), d);
        let (of_product, of_vectors) = defects(a, &near);
        assert!(of_product <= 1e-12 && of_vectors <= 1e-12, "{name}, near: {of_product:e}, {of_vectors:e}");
        // U V^T brings back no more than the singular values say: the trace of R^T A is their sum.
        let rotation = svd.rotation();
        let trace: f64 = (0..d * d).map(|i| rotation[i] * a[i % d * d + i / d]).sum();
        let sum: f64 = svd.s.iter().sum();
        assert!((trace - sum).abs() <= 1e-12 * sum, "{name}: {trace}, {sum}");
        svd
    }

    /// Numbers in (-1, 1), the same everywhere.
    fn numbers(count: usize, mut state: u64) -> Vec<f64> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / 2f64.powi(52) - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn hand_made_matrices() {
        assert!(Svd::new(&[], 0).s.is_empty());
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
