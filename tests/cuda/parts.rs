//! Parts of rows, each with a codebook of its own, whose labels a CUDA device finds while the rows are there: those of exact
//! arithmetic. On the simulated driver, in child processes.

use crate::common::{Numbers, cut, matrix};
use crate::simulated::{self, Machine, pass_on_each};
use codeword::backend::reference;
use codeword::{Device, Element, Error, Matrix, MatrixView, ProductQuantizer, bf16, f16};

fn cuda() -> Device {
    Device::cuda(0).expect("the simulated device opens")
}

/// The numbers of the nearest codeword of every part.
fn nearest(x: MatrixView<'_, f32>, codewords: &Matrix<f32>, m: usize) -> Vec<u32> {
    let (k, width) = (codewords.rows() / m, codewords.cols());
    let mut numbers = vec![0; x.rows() * m];
    for s in 0..m {
        let own = MatrixView::new(&codewords.as_slice()[s * k * width..(s + 1) * k * width], k, width).unwrap();
        let (labels, _) = reference::nearest(cut(x, s * width..(s + 1) * width).view(), own);
        labels.iter().enumerate().for_each(|(i, &label)| numbers[i * m + s] = label);
    }
    numbers
}

fn assert_encoded<T: Element>(name: &str, quantizer: &ProductQuantizer, x: MatrixView<'_, T>, codewords: &Matrix<f32>) {
    let values = (0..x.rows()).flat_map(|i| x.row(i).iter().map(|value| value.to_f32())).collect();
    let wide = matrix(values, x.rows(), x.cols());
    let codes = quantizer.encode(x).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = nearest(wide.view(), codewords, quantizer.m());
    assert!(quantizer.unpack(&codes).unwrap() == expected, "{name}: the codes differ");
}

#[test]
fn parts_of_any_number_type_and_size_get_the_nearest_codewords() {
    Machine::new().pass("parts::parts_of_any_number_type_and_size_get_the_nearest_codewords", || {
        let mut numbers = Numbers::new(111);
        for (n, m, k, width) in [(0, 2, 3, 2), (1, 1, 1, 1), (130, 2, 5, 3), (129, 3, 130, 4), (40, 5, 16, 1)] {
            let codewords = matrix(numbers.integers(m * k * width, 3), m * k, width);
            let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
            let (d, name) = (m * width, format!("{n} rows, {m} x {k} x {width}"));
            let x = matrix(numbers.gaussians(n * d), n, d);
            assert_encoded(&name, &quantizer, x.view(), &codewords);
            let halves: Vec<f16> = x.as_slice().iter().map(|&value| f16::from_f32(value)).collect();
            assert_encoded(&name, &quantizer, MatrixView::new(&halves, n, d).unwrap(), &codewords);
            // The gaps hold NaN: whoever looks at them finds out.
            let mut gaps = vec![bf16::NAN; n * (d + 3)];
            for (i, row) in gaps.chunks_exact_mut(d + 3).enumerate() {
                row[..d].iter_mut().zip(x.view().row(i)).for_each(|(to, &value)| *to = bf16::from_f32(value));
            }
            let x = MatrixView::with_stride(&gaps, n, d, d + 3).unwrap();
            assert_encoded(&name, &quantizer, x, &codewords);
        }
    });
}

#[test]
fn codebooks_of_different_numbers_of_distinct_codewords_stand_side_by_side() {
    let machines = ["auto", "simt", "cublas", "tensor"].map(|name| Machine::new().variable("CODEWORD_CUDA_GEMM", name));
    let name = "parts::codebooks_of_different_numbers_of_distinct_codewords_stand_side_by_side";
    pass_on_each(machines, name, || {
        let mut numbers = Numbers::new(112);
        let (n, m, k, width) = (70, 3, 150, 2);
        // All distinct; one; a few.
        let mut values = numbers.gaussians(k * width);
        values.extend([0.5; 150 * 2]);
        values.extend(numbers.integers(k * width, 1));
        let codewords = matrix(values, m * k, width);
        let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
        let x = matrix(numbers.gaussians(n * m * width), n, m * width);
        assert_encoded("first", &quantizer, x.view(), &codewords);
        assert_encoded("again, fewer", &quantizer, x.view().row_range(3..40).unwrap(), &codewords);
        // Without the part that has nothing to choose from.
        let some = [&codewords.as_slice()[..k * width], &codewords.as_slice()[2 * k * width..]].concat();
        let (some, x) = (matrix(some, 2 * k, width), cut(x.view(), 0..2 * width));
        let quantizer = ProductQuantizer::new(some.view(), 2, &cuda()).unwrap();
        assert_encoded("two", &quantizer, x.view(), &some);
    });
}

#[test]
fn rows_go_to_the_device_once_for_all_parts_and_are_taken_in_blocks() {
    if !simulated::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let machine = Machine::new().set("TRACE", trace.display()).set("MEMORY", 1_000_000);
    let name = "parts::rows_go_to_the_device_once_for_all_parts_and_are_taken_in_blocks";
    let output = machine.run(name, || {
        let mut numbers = Numbers::new(113);
        let (n, m, k, width) = (40_001, 3, 4, 2);
        let codewords = matrix(numbers.gaussians(m * k * width), m * k, width);
        let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
        // The first call prepares the codebooks for tensor cores.
        let one = matrix(numbers.gaussians(m * width), 1, m * width);
        assert_encoded("first", &quantizer, one.view(), &codewords);
        let trace = || std::fs::read_to_string(std::env::var("CODEWORD_SIM_TRACE").unwrap()).unwrap();
        let before = trace().lines().count();
        let x = matrix(numbers.gaussians(n * m * width), n, m * width);
        assert_encoded("blocks", &quantizer, x.view(), &codewords);
        let after = trace();
        let copies = |what: &str| -> Vec<usize> {
            let lines = after.lines().skip(before).filter(|line| line.starts_with("submit "));
            let bytes = lines.filter_map(|line| line.split_once(what)?.1.split(' ').next()?.parse().ok());
            bytes.collect()
        };
        let there = copies(" copy_htod bytes=");
        // To each of two lanes once what the parts are, 64 bytes each.
        assert_eq!(there.iter().sum::<usize>(), 4 * n * m * width + 2 * 64 * m, "{there:?}");
        let blocks = there.len() - 2;
        assert!(blocks >= 4, "{there:?}");
        let back = copies(" copy_dtoh bytes=");
        // Three numbers of two bits are a byte. With each block six words of status.
        assert_eq!(back.iter().sum::<usize>(), n + blocks * 48, "{back:?}");
        // Of each block one launch for all parts, and one for their codes.
        let launches = after.lines().skip(before).filter(|line| line.contains("launch"));
        assert_eq!(launches.count(), 2 * blocks, "{after}");
    });
    assert!(output.status.success(), "{}", simulated::text(&output));
}

#[test]
fn the_first_row_that_is_not_finite_is_named_whichever_part_has_it() {
    let card = Machine::new().set("MEMORY", 1_000_000);
    card.pass("parts::the_first_row_that_is_not_finite_is_named_whichever_part_has_it", || {
        let mut numbers = Numbers::new(114);
        let (n, m, width) = (7000, 3, 2);
        let codewords = matrix(numbers.gaussians(m * 4 * width), m * 4, width);
        let quantizer = ProductQuantizer::new(codewords.view(), m, &cuda()).unwrap();
        let mut x = numbers.gaussians(n * m * width);
        for (row, col, value) in [(6990, 0, f32::NAN), (6980, 5, f32::INFINITY), (17, 2, f32::NEG_INFINITY)] {
            x[row * m * width + col] = value;
            let error = quantizer.encode(MatrixView::new(&x, n, m * width).unwrap()).unwrap_err();
            let named = matches!(error, Error::NonFinite { op: "ProductQuantizer::encode", row: got, col: of, .. } if (got, of) == (row, col));
            assert!(named, "{error}");
        }
    });
}

#[test]
fn each_refused_allocation_is_an_error_and_leaves_nothing_behind() {
    if !simulated::is_available() {
        return;
    }
    let name = "parts::each_refused_allocation_is_an_error_and_leaves_nothing_behind";
    let refusals = Machine::new().variable("CODEWORD_CUDA_GEMM", "simt").refuse_each(name, encode_one);
    // Two codebooks and a lane.
    assert!(refusals > 30, "{refusals}");
}

fn encode_one() -> Result<(), Error> {
    let codewords = matrix(vec![0.0f32, 1.0, 2.0, 4.0], 4, 1);
    let quantizer = ProductQuantizer::new(codewords.view(), 2, &Device::cuda(0)?)?;
    assert_eq!(quantizer.encode(matrix(vec![1.0f32, 2.25], 1, 2).view())?, [1]);
    Ok(())
}

#[test]
fn what_tensor_cores_have_no_memory_for_is_done_without_them() {
    if !simulated::is_available() {
        return;
    }
    let name = "parts::what_tensor_cores_have_no_memory_for_is_done_without_them";
    let outcomes = Machine::new().refuse_first(name, 59, encode_one);
    // The codebooks have to be there; then what tensor cores want does not; then the lane; the last ones were never asked for.
    assert!(outcomes.contains("rd") && outcomes.contains("dr") && outcomes.ends_with('d'), "{outcomes}");
}
