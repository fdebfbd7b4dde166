//! What the filter pass promises by whatever design it runs, on the simulated device 0: bodies for the tests of each.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, golden, matrix, total};
use codeword::backend::reference;
use codeword::{
    AssignOptions, AssignStats, Codebook, Device, Element, Error, Matrix, MatrixView, NonFinite, Precision, SENTINEL,
    assign, bf16, f16,
};

pub fn on<E: Element>(codewords: MatrixView<'_, E>) -> Codebook {
    // Opened once: a real driver compiles the kernels each time.
    thread_local!(static DEVICE: Device = Device::cuda(0).expect("the device opens"));
    DEVICE.with(|device| Codebook::new(codewords, device)).expect("a codebook of finite numbers")
}

pub fn gaussians(numbers: &mut Numbers, rows: usize, d: usize) -> Matrix<f32> {
    matrix(numbers.gaussians(rows * d), rows, d)
}

/// Labels and distances are those of the exact oracle.
pub fn assert_exact<X: Element, E: Element>(
    name: &str,
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
) -> AssignStats {
    let got = assign(x, &on(codewords), AssignOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (labels, sq_distances) = reference::nearest(x, codewords);
    assert_same_labels(name, &got.labels, &labels, 1);
    assert_same_bits(name, &got.sq_distances, &sq_distances);
    assert_eq!(total(got.stats), x.rows() as u64, "{name}: every row is counted once, {:?}", got.stats);
    got.stats
}

/// Whether rows that tensor cores leave open have lists, so that f64 sums come at once and the second tier is idle.
pub fn has_lists() -> bool {
    std::env::var("CODEWORD_CUDA_GEMM").is_ok_and(|design| design == "tensor")
}

/// The adversarial sets of these sizes (n, k, d) and the golden cases; all tiers are needed and reached.
pub fn assert_adversarial(sizes: &[(usize, usize, usize)]) {
    let mut sum = AssignStats::default();
    for &(n, k, d) in sizes {
        for case in cases::adversarial(n, k, d) {
            sum += assert_exact(&case.name, case.x.view(), case.codewords.view());
        }
    }
    for case in golden::load() {
        assert_exact(&case.name, case.x.view(), case.codewords.view());
    }
    for (tier, rows) in [("first", sum.first), ("second", sum.second), ("f64", sum.f64), ("exact", sum.exact)] {
        assert!(rows > 0 || tier == "second" && has_lists(), "no row reached the tier {tier}: {sum:?}");
    }
}

/// Each of these sizes (n, k, d) with Gaussian data, and with whole numbers up to `limit`, which tie.
pub fn assert_sizes(numbers: &mut Numbers, limit: usize, sizes: &[(usize, usize, usize)]) {
    for &(n, k, d) in sizes {
        let name = format!("{n} x {k} x {d}");
        let (x, e) = (gaussians(numbers, n, d), gaussians(numbers, k, d));
        assert_exact(&name, x.view(), e.view());
        let (x, e) = (matrix(numbers.integers(n * d, limit), n, d), matrix(numbers.integers(k * d, limit), k, d));
        assert_exact(&format!("{name}, integers"), x.view(), e.view());
    }
}

/// Rows beyond what the pass can scale, among ordinary ones; then some that are not finite.
pub fn assert_wild_rows(numbers: &mut Numbers) {
    let (n, k, d) = (40, 150, 11);
    let x = gaussians(numbers, n, d);
    assert_exact("one codeword", x.view(), gaussians(numbers, 1, d).view());
    let mut wild = x.as_slice().to_vec();
    for (i, value) in [(3, 3e38), (4, -3e38), (17, 1e38), (39, 3.4e38)] {
        wild[i * d..][..d].fill(value);
    }
    let tiny: Vec<f32> = numbers.gaussians(k * d).iter().map(|v| v * 1e-30).collect();
    assert_exact("wild rows", matrix(wild.clone(), n, d).view(), matrix(tiny, k, d).view());

    let e = gaussians(numbers, k, d);
    (wild[7 * d + 2], wild[30 * d]) = (f32::NAN, f32::INFINITY);
    let (dirty, codebook) = (matrix(wild, n, d), on(e.view()));
    let error = assign(dirty.view(), &codebook, AssignOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { row: 7, col: 2, .. }), "{error}");
    let options = AssignOptions { non_finite: NonFinite::Sentinel, ..AssignOptions::default() };
    let got = assign(dirty.view(), &codebook, options).unwrap();
    for i in 0..n {
        let bad = i == 7 || i == 30;
        assert_eq!(got.labels[i] == SENTINEL, bad, "row {i}");
        if !bad {
            let (labels, _) = reference::nearest(MatrixView::new(dirty.view().row(i), 1, d).unwrap(), e.view());
            assert_eq!(got.labels[i], labels[0], "row {i}");
        }
    }
}

/// Exact labels of f16 and bf16; fast ones, whose distances are no more than `slack` times further than the nearest.
pub fn assert_types_and_fast(numbers: &mut Numbers, slack: f32) {
    let (n, k, d) = (35, 131, 21);
    let (x, e) = (gaussians(numbers, n, d), gaussians(numbers, k, d));
    let half = |x: &Matrix<f32>| x.as_slice().iter().map(|&v| f16::from_f32(v)).collect::<Vec<f16>>();
    let brain = matrix(x.as_slice().iter().map(|&v| bf16::from_f32(v)).collect(), n, d);
    assert_exact("f16", matrix(half(&x), n, d).view(), e.view());
    assert_exact("f16 both", matrix(half(&x), n, d).view(), matrix(half(&e), k, d).view());
    assert_exact("bf16", brain.view(), e.view());

    let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
    let got = assign(x.view(), &on(e.view()), options).unwrap();
    assert_eq!(got.stats.first, n as u64, "{:?}", got.stats);
    let (_, nearest) = reference::nearest(x.view(), e.view());
    for (i, &nearest) in nearest.iter().enumerate() {
        let own = reference::sq_distance(x.view().row(i), e.view().row(got.labels[i] as usize)).to_f32();
        assert_eq!(got.sq_distances[i].to_bits(), own.to_bits(), "row {i}");
        assert!(own <= nearest * slack, "row {i}: {own} against {nearest}");
    }
}
