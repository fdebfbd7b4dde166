//! The CUDA backend gives the bits that the CPU and the exact oracle give. Every test runs in a child process on the
//! simulated driver, which executes the real kernels and reports what they do wrong.

use crate::common::{self, Numbers, assert_same_bits, assert_same_labels, cases, golden, matrix, total};
use crate::simulated::{self, Machine};
use codeword::backend::reference;
use codeword::{
    AssignOptions, AssignStats, Codebook, Device, Element, Error, KMeans, Matrix, MatrixView, NonFinite,
    OptimizedProductQuantizer, Precision, ProductQuantizer, ResidualQuantizer, SENTINEL, Stages, assign, bf16, decode,
    f16, metrics, pairwise_sq_l2, quantize,
};

const MB: usize = 1_000_000;

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

fn on<E: Element>(device: &Device, codewords: MatrixView<'_, E>) -> Codebook {
    Codebook::new(codewords, device).expect("a codebook of finite numbers")
}

/// Asserts that the device gives what the oracle gives and what the CPU gives.
fn assert_assign_same<X: Element, E: Element>(
    name: &str,
    device: &Device,
    x: MatrixView<'_, X>,
    codewords: MatrixView<'_, E>,
) -> AssignStats {
    let got = assign(x, &on(device, codewords), AssignOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (labels, sq_distances) = reference::nearest(x, codewords);
    assert_same_labels(name, &got.labels, &labels, 1);
    assert_same_bits(name, &got.sq_distances, &sq_distances);
    assert_eq!(total(got.stats), x.rows() as u64, "{name}: every row is counted once, {:?}", got.stats);
    let cpu = assign(x, &on(&Device::cpu(), codewords), AssignOptions::default()).expect("the CPU takes it too");
    assert_same_labels(name, &got.labels, &cpu.labels, 1);
    assert_same_bits(name, &got.sq_distances, &cpu.sq_distances);
    got.stats
}

#[test]
fn adversarial_data_and_golden_cases_come_out_bit_for_bit() {
    Machine::new().pass("assign::adversarial_data_and_golden_cases_come_out_bit_for_bit", || {
        let device = cuda();
        let mut sum = AssignStats::default();
        for (n, k, d) in [(13, 33, 7), (67, 66, 3), (7, 130, 17)] {
            for case in cases::adversarial(n, k, d) {
                sum += assert_assign_same(&case.name, &device, case.x.view(), case.codewords.view());
            }
        }
        for case in golden::load() {
            assert_assign_same(&case.name, &device, case.x.view(), case.codewords.view());
        }
        println!("{sum:?}");
        for (tier, rows) in [("first", sum.first), ("second", sum.second), ("f64", sum.f64), ("exact", sum.exact)] {
            assert!(rows > 0, "no row reached the tier {tier}: {sum:?}");
        }
    });
}

#[test]
fn sizes_around_every_tile() {
    Machine::new().pass("assign::sizes_around_every_tile", || {
        let device = cuda();
        let mut numbers = Numbers::new(31);
        // Rows and codewords by 64, depth (two more than d) by 16, its chunks by 512, rows of a block by 8.
        for (n, k, d) in [
            (0, 3, 2),
            (1, 1, 1),
            (1, 2, 1),
            (2, 1, 3),
            (7, 9, 13),
            (8, 63, 14),
            (9, 64, 15),
            (63, 65, 16),
            (64, 66, 17),
            (65, 127, 29),
            (129, 128, 30),
            (131, 129, 31),
            (6, 5, 509),
            (5, 7, 510),
            (4, 6, 511),
            (3, 11, 1025),
        ] {
            let name = format!("{n} x {k} x {d}");
            let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
            assert_assign_same(&name, &device, x.view(), e.view());
            let (x, e) = (matrix(numbers.integers(n * d, 1), n, d), matrix(numbers.integers(k * d, 1), k, d));
            assert_assign_same(&format!("{name}, integers"), &device, x.view(), e.view());
        }
    });
}

#[test]
fn distances_beside_the_middle_of_two_f32_are_rounded_by_their_lowest_bit() {
    Machine::new().pass("assign::distances_beside_the_middle_of_two_f32_are_rounded_by_their_lowest_bit", || {
        let mut numbers = Numbers::new(42);
        let (d, mut rows) = (5, Vec::new());
        // A square of 24 bits, half a step of it, and one or two equal bits far below, or none: every place that the
        // lowest bit of the sum can have, and ties to even.
        for lowest in 13..72 {
            // Words of the exact sum begin at every 32nd bit, and a shift moves squares by two.
            for shift in -40..=0 {
                let whole = (2900 + 2 * numbers.below(500) + usize::from(lowest % 7 == 0)) as f32;
                // A quarter twice is half a step of numbers from 2^23 to 2^24.
                let mut row = [whole, 0.5, 0.5, 0.0, 0.0];
                let low = 2f32.powi(-lowest);
                row[3] = if lowest % 5 == 0 { 0.0 } else { low };
                row[4] = if lowest % 3 == 0 { low } else { 0.0 };
                rows.extend(row.iter().map(|v| v * 2f32.powi(shift)));
            }
        }
        let n = rows.len() / d;
        let e = matrix(vec![0.0f32; d], 1, d);
        assert_assign_same("beside the middle", &cuda(), matrix(rows, n, d).view(), e.view());
    });
}

#[test]
fn more_equidistant_codewords_than_a_block_can_list() {
    Machine::new().pass("assign::more_equidistant_codewords_than_a_block_can_list", || {
        // Distinct corners of a cube around zero, the lowest label hidden among copies of later ones.
        let (k, d) = (700, 10);
        let corner = |j: usize| (0..d).map(move |t| if j >> t & 1 == 1 { 1.0f32 } else { -1.0 });
        let e = matrix((0..k).flat_map(|j| corner((j * 7 + 3) % 1024)).collect(), k, d);
        let x = matrix([vec![0.0f32; d], vec![1e-30; d], vec![-1e-44; d]].concat(), 3, d);
        let stats = assert_assign_same("corners of a cube", &cuda(), x.view(), e.view());
        assert!(stats.exact > 0, "{stats:?}");
    });
}

#[test]
fn vectors_and_codebook_of_any_two_types_and_gaps_between_rows() {
    Machine::new().pass("assign::vectors_and_codebook_of_any_two_types_and_gaps_between_rows", || {
        fn rounded<T: Element>(values: &Matrix<f32>, round: impl Fn(f32) -> T) -> Matrix<T> {
            matrix(values.as_slice().iter().map(|&v| round(v)).collect(), values.rows(), values.cols())
        }
        fn against_all<X: Element>(name: &str, device: &Device, x: &Matrix<X>, e: &Matrix<f32>) {
            assert_assign_same(name, device, x.view(), e.view());
            assert_assign_same(name, device, x.view(), rounded(e, f16::from_f32).view());
            assert_assign_same(name, device, x.view(), rounded(e, bf16::from_f32).view());
        }
        let device = cuda();
        let mut numbers = Numbers::new(32);
        let (n, k, d) = (37, 21, 19);
        for scale in [1.0f32, 1e-7, 3e4] {
            let draw = |numbers: &mut Numbers, rows: usize| {
                let values = numbers.gaussians(rows * d).iter().map(|v| (v * scale).clamp(-6e4, 6e4)).collect();
                matrix(values, rows, d)
            };
            let (x, e) = (draw(&mut numbers, n), draw(&mut numbers, k));
            against_all(&format!("f32 {scale:e}"), &device, &x, &e);
            against_all(&format!("f16 {scale:e}"), &device, &rounded(&x, f16::from_f32), &e);
            against_all(&format!("bf16 {scale:e}"), &device, &rounded(&x, bf16::from_f32), &e);
            // The gaps hold NaN: whoever looks at them finds out.
            let mut gaps = vec![f32::NAN; n * (d + 5)];
            for (i, row) in gaps.chunks_exact_mut(d + 5).enumerate() {
                row[..d].copy_from_slice(x.view().row(i));
            }
            let strided = MatrixView::with_stride(&gaps, n, d, d + 5).unwrap();
            assert_assign_same("strided", &device, strided, e.view());
        }
    });
}

/// Rows of twenty times a card of 64 MB, and the labels decoded: labels, distances and decoded vectors are those of the
/// CPU, and copies run beside kernels.
#[test]
fn an_input_twenty_times_the_card_gives_what_one_piece_gives() {
    let memory = if common::is_small() { 4 * MB } else { 64 * MB };
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    // Without the checks of single accesses, which other tests make, and with the host's product for the simulated one.
    let card = Machine::new().set("MEMORY", memory).set("CHECK", 0).set("TRACE", trace.display());
    let output = card.variable("CODEWORD_CUDA_GEMM", "cublas").run(
        "assign::an_input_twenty_times_the_card_gives_what_one_piece_gives",
        || {
            let (k, d) = (9, 1024);
            let n = 20 * memory / (4 * d) + 1;
            let mut numbers = Numbers::new(33);
            // Sixteen random rows, shifted by their number: cheap to make and all different.
            let few = numbers.gaussians(16 * d);
            let data: Vec<f32> = (0..n * d).map(|i| few[i % few.len()] + (i / d) as f32 / 65536.0).collect();
            let (x, e) = (matrix(data, n, d), matrix(numbers.gaussians(k * d), k, d));
            let (on_card, on_cpu) = (on(&cuda(), e.view()), on(&Device::cpu(), e.view()));
            let got = assign(x.view(), &on_card, AssignOptions::default()).unwrap();
            let cpu = assign(x.view(), &on_cpu, AssignOptions::default()).unwrap();
            assert_same_labels("in blocks", &got.labels, &cpu.labels, 1);
            assert_same_bits("in blocks", &got.sq_distances, &cpu.sq_distances);
            assert_eq!(total(got.stats), n as u64);
            drop(x);
            let decoded = decode(&got.labels, &on_card).unwrap();
            assert_same_bits("decoded", decoded.as_slice(), decode(&cpu.labels, &on_cpu).unwrap().as_slice());
        },
    );
    assert!(output.status.success(), "{}", simulated::text(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    // Up to where decoding begins, which has next to nothing to copy in.
    let (trace, _) = trace.split_once("gather_f32").expect("labels were decoded");
    let (copies, kernels) = (spans(trace, &["copy_htod", "pinned=1"]), spans(trace, &["launch"]));
    let overlapped = copies.iter().filter(|copy| runs_beside(copy, &kernels)).count();
    println!("{overlapped} of {} copies of blocks run beside a kernel", copies.len());
    // The first has nothing to run beside, and the last may be the codes to decode.
    assert!(copies.len() > 40 && overlapped >= copies.len() - 2, "{overlapped} of {} copies", copies.len());
}

/// Stream, start and end of every operation of the trace whose description holds all of `words`.
fn spans(trace: &str, words: &[&str]) -> Vec<(u32, f64, f64)> {
    let span = |line: &str| {
        let rest = line.strip_prefix("submit ")?;
        let field = |name: &str| {
            let value = rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.expect("every operation has it").parse::<f64>().expect("a number")
        };
        let named = words.iter().all(|&word| rest.split(' ').any(|other| other == word));
        named.then(|| (field("stream") as u32, field("start"), field("end")))
    };
    trace.lines().filter_map(span).collect()
}

/// Whether the operation overlaps one of another stream.
fn runs_beside(&(stream, start, end): &(u32, f64, f64), others: &[(u32, f64, f64)]) -> bool {
    others.iter().any(|&(other, from, to)| other != stream && start < to && from < end)
}

#[test]
fn copies_of_one_block_run_beside_the_kernels_of_another() {
    if !simulated::is_available() {
        return;
    }
    let name = "assign::copies_of_one_block_run_beside_the_kernels_of_another";
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let card = Machine::new().set("MEMORY", 2 * MB).set("TRACE", trace.display());
    let output = card.run(name, || {
        let (n, k, d) = (20_000, 3, 32);
        let mut numbers = Numbers::new(38);
        let few = numbers.gaussians(100 * d);
        let x = matrix(few.iter().copied().cycle().take(n * d).collect(), n, d);
        let e = matrix(numbers.gaussians(k * d), k, d);
        assert_assign_same("overlapped", &cuda(), x.view(), e.view());
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    let (copies, kernels) = (spans(&trace, &["copy_htod", "pinned=1"]), spans(&trace, &["launch"]));
    let overlapped = copies.iter().filter(|copy| runs_beside(copy, &kernels)).count();
    println!("{overlapped} of {} copies of blocks run beside a kernel", copies.len());
    // The first has nothing to run beside.
    assert!(copies.len() > 4 && overlapped >= copies.len() - 1, "{overlapped} of {} copies", copies.len());
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let card = Machine::new().set("MEMORY", MB);
    let refusals = card.refuse_each("assign::each_refused_allocation_is_an_error_and_leaves_nothing_behind", || {
        let mut numbers = Numbers::new(39);
        let (n, k, d) = (3000, 4, 30);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let codebook = Codebook::new(e.view(), &Device::cuda(0)?)?;
        let labels = assign(x.view(), &codebook, AssignOptions::default())?.labels;
        pairwise_sq_l2(x.view(), &codebook, Precision::Fast)?;
        decode(&labels, &codebook).map(|_| ())
    });
    // Codebook, and two lanes of three operations: there are more than a handful.
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn a_codebook_larger_than_the_card_is_refused_with_what_was_wanted() {
    let card = Machine::new().set("MEMORY", MB);
    card.pass("assign::a_codebook_larger_than_the_card_is_refused_with_what_was_wanted", || {
        let e = matrix(vec![1.0f32; 2000 * 500], 2000, 500);
        let error = Codebook::new(e.view(), &cuda()).unwrap_err();
        assert!(matches!(error, Error::Cuda { op: "Codebook::new", .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("4.0 MB of device memory"), "{text}");
        assert!(text.contains("CUDA_ERROR_OUT_OF_MEMORY") && text.contains("use the CPU"), "{text}");
    });
}

#[test]
fn rows_that_are_not_finite_are_refused_by_name_or_get_the_sentinel() {
    let card = Machine::new().set("MEMORY", 2 * MB);
    card.pass("assign::rows_that_are_not_finite_are_refused_by_name_or_get_the_sentinel", || {
        let (n, k, d) = (9000, 3, 40);
        let mut numbers = Numbers::new(34);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let codebook = on(&cuda(), e.view());
        let clean = numbers.gaussians(n * d);
        let expected = assign(MatrixView::new(&clean, n, d).unwrap(), &codebook, AssignOptions::default()).unwrap();
        // The first bad row lies in the first block, or in a late one.
        for (first, value) in [(3, f32::NAN), (8111, f32::INFINITY), (8999, f32::NEG_INFINITY)] {
            let mut dirty = clean.clone();
            dirty[8999 * d] = f32::NAN;
            dirty[first * d + 7] = value;
            let x = MatrixView::new(&dirty, n, d).unwrap();
            let error = assign(x, &codebook, AssignOptions::default()).unwrap_err();
            assert!(matches!(error, Error::NonFinite { row, .. } if row == first), "{error}");
            let error = pairwise_sq_l2(x, &codebook, Precision::Fast).unwrap_err();
            assert!(matches!(error, Error::NonFinite { row, .. } if row == first), "{error}");

            let options = AssignOptions { non_finite: NonFinite::Sentinel, ..AssignOptions::default() };
            let got = assign(x, &codebook, options).unwrap();
            for i in 0..n {
                if i == first || i == 8999 {
                    assert_eq!(got.labels[i], SENTINEL);
                    assert!(got.sq_distances[i].is_nan());
                } else {
                    assert_eq!(got.labels[i], expected.labels[i], "row {i}");
                    assert_eq!(got.sq_distances[i].to_bits(), expected.sq_distances[i].to_bits(), "row {i}");
                }
            }
            // The 16-bit types carry the same values to the same place.
            let half: Vec<f16> = dirty.iter().map(|&v| f16::from_f32(v)).collect();
            let brain: Vec<bf16> = dirty.iter().map(|&v| bf16::from_f32(v)).collect();
            let of_half = assign(MatrixView::new(&half, n, d).unwrap(), &codebook, AssignOptions::default());
            let of_brain = assign(MatrixView::new(&brain, n, d).unwrap(), &codebook, AssignOptions::default());
            for error in [of_half.unwrap_err(), of_brain.unwrap_err()] {
                assert!(matches!(error, Error::NonFinite { row, .. } if row == first), "{error}");
            }
            let bad = if first == 8999 { 1 } else { 2 };
            assert_eq!(total(got.stats), n as u64 - bad, "{:?}", got.stats);
        }
    });
}

#[test]
fn a_fast_label_is_nearly_the_nearest_and_its_distance_is_exact() {
    Machine::new().pass("assign::a_fast_label_is_nearly_the_nearest_and_its_distance_is_exact", || {
        let device = cuda();
        let options = AssignOptions { precision: Precision::Fast, ..AssignOptions::default() };
        let mut numbers = Numbers::new(35);
        let (n, k, d) = (70, 67, 18);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let got = assign(x.view(), &on(&device, e.view()), options).unwrap();
        let (_, nearest) = reference::nearest(x.view(), e.view());
        for (i, &nearest) in nearest.iter().enumerate() {
            let own = reference::sq_distance(x.view().row(i), e.view().row(got.labels[i] as usize)).to_f32();
            assert_eq!(got.sq_distances[i].to_bits(), own.to_bits(), "row {i}");
            assert!(own <= nearest * (1.0 + 1e-4), "row {i}: {own} against {nearest}");
        }
        let copies = matrix(e.as_slice().repeat(2), 2 * k, d);
        let twice = assign(x.view(), &on(&device, copies.view()), options).unwrap();
        assert_same_labels("copies", &twice.labels, &got.labels, 1);
    });
}

#[test]
fn the_distance_matrix_is_the_rounded_one_or_within_its_bound() {
    Machine::new().pass("assign::the_distance_matrix_is_the_rounded_one_or_within_its_bound", || {
        let device = cuda();
        for (n, k, d) in [(5, 67, 9), (66, 3, 17)] {
            for case in cases::adversarial(n, k, d) {
                let (x, e) = (case.x.view(), case.codewords.view());
                let expected = reference::pairwise(x, e);
                let codebook = on(&device, e);
                let exact = pairwise_sq_l2(x, &codebook, Precision::Exact).unwrap();
                assert_same_bits(&case.name, exact.as_slice(), &expected);
                let fast = pairwise_sq_l2(x, &codebook, Precision::Fast).unwrap();
                let norm = |row: &[f32]| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
                let longest = (0..k).map(|j| norm(e.row(j))).fold(0.0, f64::max);
                for (at, (&got, &expected)) in fast.as_slice().iter().zip(&expected).enumerate() {
                    let reach = norm(x.row(at / k)) + 3.0 * longest;
                    let bound = (d as f64 + 16.0) * 2f64.powi(-24) * reach * reach + 2f64.powi(-126);
                    // Half a step of the rounded expectation itself.
                    let bound = bound + f64::from(expected) * 2f64.powi(-24);
                    let close = got == expected || (f64::from(got) - f64::from(expected)).abs() <= bound;
                    assert!(close, "{}: entry {at} is {got}, expected {expected} within {bound}", case.name);
                }
            }
        }
    });
}

#[test]
fn codes_become_codewords_and_a_code_out_of_range_is_named() {
    let card = Machine::new().set("MEMORY", MB);
    card.pass("assign::codes_become_codewords_and_a_code_out_of_range_is_named", || {
        let mut numbers = Numbers::new(36);
        for (k, d) in [(7, 1), (5, 3), (6, 5), (4, 6), (9, 33), (3, 64)] {
            let e = matrix(numbers.gaussians(k * d), k, d);
            let codebook = on(&cuda(), e.view());
            let mut codes: Vec<u32> = (0..6000).map(|_| numbers.below(k) as u32).collect();
            codes[17] = SENTINEL;
            let got = decode(&codes, &codebook).unwrap();
            for (i, &code) in codes.iter().enumerate() {
                match code {
                    SENTINEL => assert!(got.view().row(i).iter().all(|v| v.is_nan())),
                    code => assert_eq!(got.view().row(i), e.view().row(code as usize), "code {i}"),
                }
            }
            codes[5900] = k as u32;
            codes[5951] = k as u32 + 1;
            let error = decode(&codes, &codebook).unwrap_err();
            assert!(matches!(error, Error::CodeOutOfRange { position: 5900, .. }), "{error}");
        }
    });
}

#[test]
fn losses_and_metrics_equal_the_cpus() {
    Machine::new().pass("assign::losses_and_metrics_equal_the_cpus", || {
        let mut numbers = Numbers::new(37);
        let (n, k, d) = (90, 11, 6);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let (gpu, cpu) = (on(&cuda(), e.view()), on(&Device::cpu(), e.view()));
        let (got, expected) = (
            quantize(x.view(), &gpu, 0.25, AssignOptions::default()).unwrap(),
            quantize(x.view(), &cpu, 0.25, AssignOptions::default()).unwrap(),
        );
        assert_eq!(got.z_q, expected.z_q);
        assert_eq!(got.mse.to_bits(), expected.mse.to_bits());
        assert_eq!(
            metrics(x.view(), &gpu, &got.assignment.labels).unwrap(),
            metrics(x.view(), &cpu, &expected.assignment.labels).unwrap()
        );
    });
}

#[test]
fn a_product_quantizer_of_a_device_learns_encodes_and_finds_what_one_of_the_cpu_does() {
    Machine::new().pass(
        "assign::a_product_quantizer_of_a_device_learns_encodes_and_finds_what_one_of_the_cpu_does",
        || {
            let mut numbers = Numbers::new(38);
            let (n, m, d) = (70, 3, 6);
            let (x, queries) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(4 * d), 4, d));
            let params = KMeans::new(5).iterations(2).seed(1);
            let on = |device: &Device| {
                let quantizer = ProductQuantizer::train(x.view(), m, &params, device).unwrap();
                let codes = quantizer.encode(x.view()).unwrap();
                let found = quantizer.search(&codes, queries.view(), 20).unwrap();
                (quantizer.decode(&codes).unwrap(), codes, found)
            };
            assert!(on(&cuda()) == on(&Device::cpu()));
        },
    );
}

#[test]
fn a_residual_quantizer_of_a_device_learns_encodes_and_finds_what_one_of_the_cpu_does() {
    Machine::new().pass(
        "assign::a_residual_quantizer_of_a_device_learns_encodes_and_finds_what_one_of_the_cpu_does",
        || {
            let mut numbers = Numbers::new(40);
            let (n, m, d) = (60, 3, 5);
            let (x, queries) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(3 * d), 3, d));
            let params = KMeans::new(6).iterations(2).seed(1);
            let on = |device: &Device| {
                let quantizer = ResidualQuantizer::train(x.view(), m, &params, device).unwrap();
                let (codes, beam) = (quantizer.encode(x.view()).unwrap(), quantizer.encode_beam(x.view(), 3).unwrap());
                let found = quantizer.search(&codes, queries.view(), 20).unwrap();
                (quantizer.decode(&codes).unwrap(), codes, beam, found)
            };
            assert!(on(&cuda()) == on(&Device::cpu()));
        },
    );
}

#[test]
fn stages_of_a_device_project_and_compare_as_those_of_the_cpu_do() {
    Machine::new().pass("assign::stages_of_a_device_project_and_compare_as_those_of_the_cpu_do", || {
        let mut numbers = Numbers::new(41);
        let (n, k, d, w) = (50, 7, 6, 3);
        let x = matrix(numbers.gaussians(n * d), n, d);
        let (codewords, weight) =
            (matrix(numbers.gaussians(3 * k * w), 3 * k, w), matrix(numbers.gaussians(w * d), w, d));
        let (back, bias) = (matrix(numbers.gaussians(d * w), d, w), numbers.gaussians(d));
        let on = |device: &Device| {
            let stages = |range, m| {
                let stages = Stages::new(common::rows(&codewords, range), m, device).unwrap();
                let stages = stages.cosine().unwrap().project_in(weight.view(), Some(&bias[..w])).unwrap();
                stages.project_out(back.view(), Some(&bias)).unwrap()
            };
            let quantizer = ResidualQuantizer::from_stages(vec![stages(0..k, 1), stages(k..3 * k, 2)]).unwrap();
            let codes = quantizer.encode(x.view()).unwrap();
            let found = quantizer.search(&codes, common::rows(&x, 0..3), 10).unwrap();
            (quantizer.decode(&codes).unwrap(), codes, found)
        };
        assert!(on(&cuda()) == on(&Device::cpu()));
        let stage = |device: &Device| Stages::new(common::rows(&codewords, 0..k), 1, device).unwrap();
        let mixed = ResidualQuantizer::from_stages(vec![stage(&cuda()), stage(&Device::cpu())]).err().unwrap();
        let text = mixed.to_string();
        assert!(text.contains("codebooks of all stages on cuda:0, got cpu"), "{text}");
    });
}

#[test]
fn a_rotation_is_learned_with_a_device_as_with_the_cpu() {
    Machine::new().pass("assign::a_rotation_is_learned_with_a_device_as_with_the_cpu", || {
        let mut numbers = Numbers::new(39);
        let (n, m, d) = (60, 2, 6);
        let sources = numbers.gaussians(n * 3);
        let values = (0..n * d).map(|i| sources[i / d * 3 + i % 3] + numbers.gaussian() / 8.0).collect();
        let x = matrix(values, n, d);
        let params = KMeans::new(4).iterations(2).seed(1);
        let on = |device: &Device| {
            let quantizer = OptimizedProductQuantizer::train(x.view(), m, &params, 2, device).unwrap();
            let codes = quantizer.encode(x.view()).unwrap();
            let found = quantizer.search(&codes, x.view().row_range(0..3).unwrap(), 20).unwrap();
            (quantizer.rotation().clone(), quantizer.decode(&codes).unwrap(), codes, found)
        };
        assert!(on(&cuda()) == on(&Device::cpu()));
    });
}

#[test]
fn a_gpu_or_driver_too_old_is_told_as_that() {
    let turing = Machine::new().set("CAPABILITY", 75);
    turing.pass("assign::a_gpu_or_driver_too_old_is_told_as_that", || {
        let error = Device::cuda(0).unwrap_err();
        assert!(matches!(error, Error::NoCudaDevice { step: "capability", .. }), "{error}");
        assert_eq!(Device::best(), Device::cpu());
    });
}

#[test]
fn page_locked_memory_is_allocated_once_and_not_in_every_call() {
    if !simulated::is_available() {
        return;
    }
    let name = "assign::page_locked_memory_is_allocated_once_and_not_in_every_call";
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = Machine::new().set("TRACE", trace.display()).run(name, || {
        let allocations = || {
            let file = std::env::var("CODEWORD_SIM_TRACE").expect("set above");
            let trace = std::fs::read_to_string(file).unwrap();
            trace.lines().filter(|line| line.starts_with("allocate ")).count()
        };
        let (n, k, d) = (200, 5, 12);
        let mut numbers = Numbers::new(40);
        let e = matrix(numbers.gaussians(k * d), k, d);
        let codebook = on(&cuda(), e.view());
        let mut assigned = |rows: usize| {
            let x = matrix(numbers.gaussians(rows * d), rows, d);
            let got = assign(x.view(), &codebook, AssignOptions::default()).unwrap();
            assert_same_labels("kept lanes", &got.labels, &reference::nearest(x.view(), e.view()).0, 1);
            assert_eq!(total(got.stats), rows as u64);
            allocations()
        };
        let first = assigned(n);
        assert_eq!((assigned(n), assigned(n - 30), assigned(1)), (first, first, first));
        // More rows need more room; other types other room.
        assert!(assigned(n + 1) > first);
        let half = matrix(vec![f16::ONE; n * d], n, d);
        let brain = matrix(vec![bf16::ONE; n * d], n, d);
        let (of_half, of_brain) = (assign(half.view(), &codebook, AssignOptions::default()).unwrap(), brain);
        let of_brain = assign(of_brain.view(), &codebook, AssignOptions::default()).unwrap();
        assert_eq!(of_half.labels, of_brain.labels);
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn a_limit_on_device_memory_makes_smaller_blocks_and_changes_no_bit() {
    if !simulated::is_available() {
        return;
    }
    let name = "assign::a_limit_on_device_memory_makes_smaller_blocks_and_changes_no_bit";
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = Machine::new().set("TRACE", trace.display()).run(name, || {
        let (n, k, d) = (3000, 7, 20);
        let mut numbers = Numbers::new(41);
        let (x, e) = (matrix(numbers.gaussians(n * d), n, d), matrix(numbers.gaussians(k * d), k, d));
        let Device::Cuda(context) = cuda() else { unreachable!("it was asked for") };
        let limited = Device::Cuda(context.with_max_memory(100_000));
        assert_assign_same("limited", &limited, x.view(), e.view());
        let none = Device::Cuda(context.with_max_memory(100));
        let error = assign(x.view(), &on(&none, e.view()), AssignOptions::default()).unwrap_err();
        assert!(error.to_string().contains("100 bytes of"), "{error}");
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    let sizes = trace.lines().filter_map(|line| line.strip_prefix("allocate id=")?.split("bytes=").nth(1));
    let largest = sizes.filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok()).max();
    assert!(largest.is_some_and(|bytes| bytes < 100_000), "{largest:?}");
}
