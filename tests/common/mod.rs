//! What several test files share: seeded data, adversarial cases, the golden file, real data, and the comparison with
//! the exact oracle.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod cases;
pub mod data;
pub mod golden;
pub mod products;
pub mod sums;

use codeword::backend::reference;
use codeword::{AssignOptions, AssignStats, Assignment, Codebook, Device, Element, Matrix, MatrixView, assign, top_k};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded stream of test numbers, the same on every machine.
pub struct Numbers(ChaCha8Rng);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Mean 0, variance 1: near enough to a Gaussian, and free of any library function that differs by platform.
    pub fn gaussian(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| self.uniform()).sum();
        sum - 6.0
    }

    pub fn gaussians(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.gaussian()).collect()
    }

    /// Whole numbers of magnitude up to `limit`: sums of their squares are exact, and ties are common.
    pub fn integers(&mut self, count: usize, limit: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2 * limit + 1) as f32 - limit as f32).collect()
    }
}

/// What a child does; unset, and the tests for children do nothing.
const ROLE: &str = "CODEWORD_TEST_CHILD";

/// Runs the one test `name` of this program in a process of its own, with an instruction set.
pub fn child(name: &str, isa: &str) -> std::process::Output {
    use std::process::Command;
    let this = std::env::current_exe().expect("the path of this test");
    let mut command = match std::env::var("CODEWORD_TEST_RUNNER") {
        Err(_) => Command::new(this),
        Ok(runner) => {
            let mut words = runner.split_whitespace();
            let mut command = Command::new(words.next().expect("CODEWORD_TEST_RUNNER names a command"));
            command.args(words).arg(this);
            command
        }
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, name).env("CODEWORD_ISA", isa).output().expect("this test runs again as a child")
}

/// Whether this is the child for the test `name`.
pub fn is_child(name: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == name)
}

/// Seeds whose mean a figure of training is, and how far from that of others the share of 100 queries may lie: one seed,
/// and two standard deviations of one; or five where `CODEWORD_TEST_SCALE=large` asks for them.
pub fn seeds() -> (std::ops::Range<u64>, f64) {
    let is_large = std::env::var_os("CODEWORD_TEST_SCALE").is_some_and(|scale| scale == "large");
    if is_large {
        return (0..5, 0.03);
    }
    println!("one seed of five, and not all sizes: CODEWORD_TEST_SCALE=large has them");
    (0..1, 0.1)
}

/// A tenth of the work where `CODEWORD_TEST_SCALE=small` asks for it, as runs under an emulator do.
pub fn is_small() -> bool {
    std::env::var_os("CODEWORD_TEST_SCALE").is_some_and(|scale| scale == "small")
}

/// `full`, or a tenth of it in a small run.
pub fn scaled(full: usize) -> usize {
    if is_small() { full.div_ceil(10) } else { full }
}

/// Rows of a matrix as a view of their own.
pub fn rows(x: &Matrix<f32>, range: std::ops::Range<usize>) -> MatrixView<'_, f32> {
    let d = x.cols();
    MatrixView::new(&x.as_slice()[range.start * d..range.end * d], range.len(), d).expect("rows of the matrix")
}

/// Squared distance in f64.
pub fn sq_l2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// Columns as a matrix of their own.
pub fn cut(x: MatrixView<'_, f32>, columns: std::ops::Range<usize>) -> Matrix<f32> {
    let values = (0..x.rows()).flat_map(|i| x.row(i)[columns.clone()].to_vec()).collect();
    matrix(values, x.rows(), columns.len())
}

/// Whether `CODEWORD_TEST_REQUIRE`, a list separated by commas, forbids skipping what needs `name`.
pub fn is_required(name: &str) -> bool {
    std::env::var("CODEWORD_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == name))
}

pub fn matrix<T: Element>(data: Vec<T>, rows: usize, cols: usize) -> Matrix<T> {
    Matrix::new(data, rows, cols).expect("sizes fit")
}

pub fn codebook<T: Element>(codewords: MatrixView<'_, T>) -> Codebook {
    Codebook::new(codewords, &Device::cpu()).expect("a codebook of finite numbers")
}

/// Asserts that two lists of f32 agree bit for bit, any NaN equal to any other.
pub fn assert_same_bits(name: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{name}: number of distances");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let same = g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan());
        assert!(same, "{name}: distance {i} is {g:e} ({:#x}), expected {e:e} ({:#x})", g.to_bits(), e.to_bits());
    }
}

/// Asserts that two lists of labels agree; `per_row` labels make up a row.
pub fn assert_same_labels(name: &str, got: &[u32], expected: &[u32], per_row: usize) {
    assert_eq!(got.len(), expected.len(), "{name}: number of labels");
    let differing: Vec<usize> = (0..got.len()).filter(|&i| got[i] != expected[i]).collect();
    if let Some(&i) = differing.first() {
        let (row, rank) = (i / per_row, i % per_row);
        panic!(
            "{name}: {} of {} labels differ; first in row {row}, rank {rank}: got {}, expected {}",
            differing.len(),
            got.len(),
            got[i],
            expected[i]
        );
    }
}

/// Asserts that [`assign`] and [`top_k`] give what the oracle gives, label for label and bit for bit, and that every
/// row is counted in one tier. Returns the tiers of `assign`.
pub fn assert_exact<X: Element, E: Element>(
    name: &str,
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
) -> AssignStats {
    let stats = assert_assign_exact(name, x, codewords).stats;
    let codebook = codebook(codewords);
    for r in [2, 5, codewords.rows()] {
        let r = r.min(codewords.rows()).min(40);
        let (labels, sq_distances) = reference::top_k(x, codewords, r);
        let top = top_k(x, &codebook, r, AssignOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let name = format!("{name}, top {r}");
        assert_eq!(top.r, r, "{name}");
        assert_same_labels(&name, &top.labels, &labels, r);
        assert_same_bits(&name, &top.sq_distances, &sq_distances);
        assert_eq!(total(top.stats), x.rows() as u64, "{name}: {:?}", top.stats);
    }
    stats
}

/// The part of [`assert_exact`] that concerns [`assign`].
pub fn assert_assign_exact<X: Element, E: Element>(
    name: &str,
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
) -> Assignment {
    let (labels, sq_distances) = reference::nearest(x, codewords);
    let got = assign(x, &codebook(codewords), AssignOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_same_labels(name, &got.labels, &labels, 1);
    assert_same_bits(name, &got.sq_distances, &sq_distances);
    assert_eq!(total(got.stats), x.rows() as u64, "{name}: every row is counted once, {:?}", got.stats);
    got
}

pub fn total(stats: AssignStats) -> u64 {
    stats.first + stats.second + stats.f64 + stats.exact
}
