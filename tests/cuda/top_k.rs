//! `top_k` on a CUDA device gives the bits that the CPU and the exact oracle give. Every test runs in a child process on
//! the simulated driver, which executes the real kernels and reports what they do wrong.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, cases, golden, matrix, total};
use crate::simulated::{self, Machine};
use codeword::backend::reference;
use codeword::{
    AssignOptions, AssignStats, Codebook, Device, Element, Error, Matrix, MatrixView, NonFinite, Precision, SENTINEL,
    bf16, f16, top_k,
};

const MB: usize = 1_000_000;

fn on<E: Element>(device: &Device, codewords: MatrixView<'_, E>) -> Codebook {
    Codebook::new(codewords, device).expect("a codebook of finite numbers")
}

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

/// A vector whose components differ so much in size that f64 rounds its squared norm.
fn uneven(numbers: &mut Numbers, d: usize) -> Vec<f32> {
    (0..d).map(|t| numbers.gaussian() * 2f32.powi(-6 * t as i32)).collect()
}

/// Asserts that the device gives what the oracle gives and what the CPU gives, for each of `rs` that k allows.
fn assert_same<X: Element, E: Element>(
    name: &str,
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
    rs: &[usize],
) -> AssignStats {
    let (k, options) = (codewords.rows(), AssignOptions::default());
    let (gpu, cpu) = (on(&cuda(), codewords), on(&Device::cpu(), codewords));
    let mut stats = AssignStats::default();
    for &r in rs.iter().filter(|&&r| 1 <= r && r <= k) {
        let name = format!("{name}, top {r}");
        let got = top_k(x, &gpu, r, options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (labels, sq_distances) = reference::top_k(x, codewords, r);
        assert_eq!(got.r, r, "{name}");
        assert_same_labels(&name, &got.labels, &labels, r);
        assert_same_bits(&name, &got.sq_distances, &sq_distances);
        assert_eq!(total(got.stats), x.rows() as u64, "{name}: every row is counted once, {:?}", got.stats);
        let expected = top_k(x, &cpu, r, options).expect("the CPU takes it too");
        assert_same_labels(&name, &got.labels, &expected.labels, r);
        assert_same_bits(&name, &got.sq_distances, &expected.sq_distances);
        stats += got.stats;
    }
    stats
}

#[test]
fn adversarial_data_and_golden_cases_come_out_in_order_and_bit_for_bit() {
    Machine::new().pass("top_k::adversarial_data_and_golden_cases_come_out_in_order_and_bit_for_bit", || {
        let mut sum = AssignStats::default();
        for (n, k, d) in [(5, 34, 7), (3, 66, 17)] {
            for case in cases::adversarial(n, k, d) {
                sum += assert_same(&case.name, case.x.view(), case.codewords.view(), &[1, 2, 3, k - 1, k]);
            }
        }
        for case in golden::load() {
            sum += assert_same(&case.name, case.x.view(), case.codewords.view(), &[1, 2, 3]);
        }
        println!("{sum:?}");
        for (tier, rows) in [("first", sum.first), ("f64", sum.f64), ("exact", sum.exact)] {
            assert!(rows > 0, "no row reached the tier {tier}: {sum:?}");
        }
    });
}

#[test]
fn sizes_around_every_tile_and_every_rank() {
    Machine::new().pass("top_k::sizes_around_every_tile_and_every_rank", || {
        let mut numbers = Numbers::new(41);
        // Rows and codewords of a score tile by 64, candidates that stand still by 32, rivals by 256.
        for (n, k, d, rs) in [
            (0, 3, 2, &[1, 3][..]),
            (1, 1, 1, &[1]),
            (2, 2, 1, &[1, 2]),
            (65, 63, 3, &[7]),
            (2, 65, 15, &[31, 32, 33]),
            (3, 129, 2, &[64, 128]),
            (2, 258, 5, &[255, 256, 257]),
            (1, 600, 3, &[10, 600]),
            (2, 9, 511, &[4]),
        ] {
            let name = format!("{n} x {k} x {d}");
            let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
            assert_same(&name, x.view(), e.view(), rs);
            let (x, e) = (matrix(numbers.integers(n * d, 2), n, d), matrix(numbers.integers(k * d, 2), k, d));
            assert_same(&format!("{name}, integers"), x.view(), e.view(), rs);
        }
    });
}

#[test]
fn repeated_codewords_all_appear_by_index() {
    Machine::new().pass("top_k::repeated_codewords_all_appear_by_index", || {
        let mut numbers = Numbers::new(42);
        let (n, k, d) = (4, 70, 6);
        // Three codewords, scattered; two of them equally far from zero and from each other's mirror image.
        let few = uneven(&mut numbers, d);
        let mirrored: Vec<f32> = few.iter().map(|v| -v).collect();
        let kinds = [few.clone(), mirrored, numbers.gaussians(d)];
        let e: Vec<f32> = (0..k).flat_map(|j| kinds[(j * j + j / 5) % 3].clone()).collect();
        let x = [vec![0.0; d], few, numbers.gaussians(2 * d)].concat();
        let (x, e) = (matrix(x, n, d), matrix(e, k, d));
        let stats = assert_same("three kinds", x.view(), e.view(), &[1, 2, 3, 22, 23, 24, 40, k - 1, k]);
        assert!(stats.exact > 0, "the mirror images take exact sums: {stats:?}");
    });
}

#[test]
fn more_equidistant_codewords_than_asked_for() {
    Machine::new().pass("top_k::more_equidistant_codewords_than_asked_for", || {
        // Signs of one vector: no sum of f64 is exact, and to a row of zeros all are equally far.
        let (k, d) = (300, 9);
        let one = uneven(&mut Numbers::new(43), d);
        let sign = |j: usize, t: usize| if ((j * 7 + 3) % 512) >> t & 1 == 1 { 1.0 } else { -1.0 };
        let e = matrix((0..k * d).map(|at| sign(at / d, at % d) * one[at % d]).collect(), k, d);
        // Next to zero all lie within rounding of each other, and in the first dimension half of them are nearer.
        let mut near = vec![0.0f32; d];
        near[0] = 1e-30;
        let x = matrix([vec![0.0f32; d], near].concat(), 2, d);
        let stats = assert_same("signs", x.view(), e.view(), &[1, 3, 150, k - 1]);
        assert_eq!((stats.exact, total(stats)), (8, 8), "{stats:?}");
        // Whole numbers: f64 rounds nothing, so that no exact sum is needed.
        let corners = matrix((0..k * d).map(|at| sign(at / d, at % d)).collect(), k, d);
        let x = matrix(vec![0.0f32; d], 1, d);
        let stats = assert_same("corners of a cube", x.view(), corners.view(), &[1, 3, 150]);
        assert_eq!(stats.exact, 0, "{stats:?}");
    });
}

#[test]
fn the_order_in_which_threads_run_changes_nothing() {
    // Blocks, threads and queued work in random order: ranks come from lists that are filled in another order each time.
    for seed in 1..=3 {
        let machine = Machine::new().set("SEED", seed).set("MEMORY", MB);
        machine.pass("top_k::the_order_in_which_threads_run_changes_nothing", || {
            let mut numbers = Numbers::new(49);
            let (n, k, d) = (90, 300, 3);
            let (x, e) = (matrix(numbers.integers(n * d, 3), n, d), matrix(numbers.integers(k * d, 3), k, d));
            assert_same("integers", x.view(), e.view(), &[5, 100]);
            let case = cases::every_tier(20, 34, 7);
            assert_same(&case.name, case.x.view(), case.codewords.view(), &[2, 33]);
        });
    }
}

#[test]
fn any_two_types_and_gaps_between_rows() {
    Machine::new().pass("top_k::any_two_types_and_gaps_between_rows", || {
        fn rounded<T: Element>(values: &Matrix<f32>, round: impl Fn(f32) -> T) -> Matrix<T> {
            matrix(values.as_slice().iter().map(|&v| round(v)).collect(), values.rows(), values.cols())
        }
        let mut numbers = Numbers::new(44);
        let (n, k, d) = (9, 21, 19);
        for scale in [1.0f32, 1e-7, 3e4] {
            let mut draw = |rows: usize| {
                let values = numbers.gaussians(rows * d).iter().map(|v| (v * scale).clamp(-6e4, 6e4)).collect();
                matrix::<f32>(values, rows, d)
            };
            let (x, e) = (draw(n), draw(k));
            let half = rounded(&e, f16::from_f32);
            assert_same("f32, f16", x.view(), half.view(), &[3, k]);
            assert_same("f16, f32", rounded(&x, f16::from_f32).view(), e.view(), &[3, k]);
            assert_same("bf16, bf16", rounded(&x, bf16::from_f32).view(), rounded(&e, bf16::from_f32).view(), &[3, k]);
            // The gaps hold NaN: whoever looks at them finds out.
            let mut gaps = vec![f32::NAN; n * (d + 5)];
            for (i, row) in gaps.chunks_exact_mut(d + 5).enumerate() {
                row[..d].copy_from_slice(x.view().row(i));
            }
            assert_same("strided", MatrixView::with_stride(&gaps, n, d, d + 5).unwrap(), e.view(), &[2]);
        }
    });
}

#[test]
fn rows_that_are_not_finite_are_refused_by_name_or_get_the_sentinel() {
    let card = Machine::new().set("MEMORY", MB);
    card.pass("top_k::rows_that_are_not_finite_are_refused_by_name_or_get_the_sentinel", || {
        let (n, k, d, r) = (700, 7, 40, 3);
        let mut numbers = Numbers::new(45);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let codebook = on(&cuda(), e.view());
        let mut dirty = numbers.gaussians(n * d);
        // The first bad row lies in the first block, or in a late one.
        for (first, value) in [(690, f32::NEG_INFINITY), (3, f32::NAN)] {
            dirty[699 * d] = f32::NAN;
            dirty[first * d + 7] = value;
            let x = MatrixView::new(&dirty, n, d).unwrap();
            let error = top_k(x, &codebook, r, AssignOptions::default()).unwrap_err();
            assert!(matches!(error, Error::NonFinite { op: "top_k", row, col: 7, .. } if row == first), "{error}");
            let options = AssignOptions { non_finite: NonFinite::Sentinel, ..AssignOptions::default() };
            let got = top_k(x, &codebook, r, options).unwrap();
            let (labels, sq_distances) = reference::top_k(x, e.view(), r);
            assert_same_labels("sentinels", &got.labels, &labels, r);
            assert_same_bits("sentinels", &got.sq_distances, &sq_distances);
            assert_eq!(got.labels[first * r..][..r], [SENTINEL; 3]);
            let bad = if first == 3 { 3 } else { 2 };
            assert_eq!(total(got.stats), n as u64 - bad, "{:?}", got.stats);
        }
    });
}

#[test]
fn more_sentinels_in_a_row_than_a_block_has_threads() {
    Machine::new().pass("top_k::more_sentinels_in_a_row_than_a_block_has_threads", || {
        let (k, r) = (600, 530);
        let e = matrix((0..k).map(|j| j as f32).collect(), k, 1);
        let options = AssignOptions { non_finite: NonFinite::Sentinel, ..AssignOptions::default() };
        let x = MatrixView::new(&[1.25, f32::NAN, 300.5], 3, 1).unwrap();
        let got = top_k(x, &on(&cuda(), e.view()), r, options).unwrap();
        let (labels, sq_distances) = reference::top_k(x, e.view(), r);
        assert_same_labels("many ranks", &got.labels, &labels, r);
        assert_same_bits("many ranks", &got.sq_distances, &sq_distances);
    });
}

#[test]
fn powers_of_two_so_far_apart_that_f64_loses_one() {
    Machine::new().pass("top_k::powers_of_two_so_far_apart_that_f64_loses_one", || {
        // The lower the index, the farther; in f64 all distances are equal.
        let (k, d) = (40, 3);
        let codeword = |j: usize| [2f32.powi(30), 2f32.powi(-(j as i32) - 1), 2f32.powi(-60)];
        let e = matrix((0..k).flat_map(codeword).collect(), k, d);
        assert_same("powers of two", matrix(vec![0.0f32; d], 1, d).view(), e.view(), &[1, 7, k]);
    });
}

#[test]
fn a_small_card_takes_the_rows_in_blocks() {
    let card = Machine::new().set("MEMORY", MB);
    card.pass("top_k::a_small_card_takes_the_rows_in_blocks", || {
        // One row takes 16 bytes per codeword: a few dozen fit, a thousand do not.
        let (n, k, d) = (203, 350, 4);
        let mut numbers = Numbers::new(46);
        let (x, e) = (matrix(numbers.integers(n * d, 9), n, d), matrix(numbers.integers(k * d, 9), k, d));
        assert_same("in blocks", x.view(), e.view(), &[6]);
    });
}

#[test]
fn a_card_too_small_for_one_row_says_what_a_row_takes() {
    Machine::new().pass("top_k::a_card_too_small_for_one_row_says_what_a_row_takes", || {
        let Device::Cuda(context) = cuda() else { panic!("a CUDA device") };
        // A row takes 480 kB.
        let codebook = on(
            &Device::Cuda(context.with_max_memory(MB / 4)),
            matrix((0..30_000).map(|j| j as f32).collect(), 30_000, 1).view(),
        );
        let x = MatrixView::new(&[1.5f32], 1, 1).unwrap();
        let error = top_k(x, &codebook, 2, AssignOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Cuda { op: "top_k", .. }), "{error:?}");
        assert!(error.to_string().contains("bytes of device memory for one vector"), "{error}");
    });
}

#[test]
fn a_fast_order_is_nearly_the_true_one_and_its_distances_are_exact() {
    Machine::new().pass("top_k::a_fast_order_is_nearly_the_true_one_and_its_distances_are_exact", || {
        let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
        let mut numbers = Numbers::new(47);
        let (n, k, d) = (6, 67, 18);
        let mut x = numbers.gaussians(n * d);
        // A row so far out that the filter cannot score it.
        x[5 * d..].iter_mut().for_each(|v| *v *= 1e38);
        let (x, e) = (matrix(x, n, d), matrix(numbers.gaussians(k * d), k, d));
        for r in [1, 4, k] {
            let got = top_k(x.view(), &on(&cuda(), e.view()), r, options).unwrap();
            let (_, nearest) = reference::top_k(x.view(), e.view(), r);
            assert_eq!(got.stats, AssignStats { first: n as u64, ..AssignStats::default() });
            for (at, (&label, &nearest)) in got.labels.iter().zip(&nearest).enumerate() {
                let own = reference::sq_distance(x.view().row(at / r), e.view().row(label as usize)).to_f32();
                assert_eq!(got.sq_distances[at].to_bits(), own.to_bits(), "entry {at}");
                assert!(own <= nearest * (1.0 + 1e-4), "entry {at}: {own} against {nearest}");
            }
            for row in got.labels.chunks(r) {
                let mut each = row.to_vec();
                each.sort_unstable();
                each.dedup();
                assert_eq!(each.len(), r, "a codeword appears twice: {row:?}");
            }
        }
        // Copies have equal scores: each follows its original at once.
        let twice = matrix([e.as_slice(), e.as_slice()].concat(), 2 * k, d);
        let got = top_k(x.view(), &on(&cuda(), twice.view()), 6, options).unwrap();
        let single = top_k(x.view(), &on(&cuda(), e.view()), 3, options).unwrap();
        let expected: Vec<u32> = single.labels.iter().flat_map(|&label| [label, label + k as u32]).collect();
        assert_same_labels("copies", &got.labels[..30], &expected[..30], 6);
    });
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let card = Machine::new().set("MEMORY", MB);
    let refusals = card.refuse_each("top_k::each_refused_allocation_is_an_error_and_leaves_nothing_behind", || {
        let mut numbers = Numbers::new(48);
        let (n, k, d) = (200, 300, 3);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let codebook = Codebook::new(e.view(), &Device::cuda(0)?)?;
        top_k(x.view(), &codebook, 4, AssignOptions::default()).map(|_| ())
    });
    // Codebook and two lanes.
    assert!(refusals > 20, "{refusals}");
}
