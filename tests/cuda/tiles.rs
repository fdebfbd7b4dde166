//! How kernels/tensor_tiles.cuh has the operands of tensor cores, and the kernels that make them launched alone.

use crate::alone::{open, threads};
use crate::common::{Numbers, assert_same_bits};
use crate::simulated::{Machine, pass_on_each};
use codeword::backend::cuda::shapes::{ROWS_PER_BLOCK, TENSOR_TILE};
use codeword::cuda::cudarc::driver::PushKernelArg;
use codeword::f16;

/// Vectors, `[n, width]`, in whole tiles filled up with zeros.
pub fn in_tiles(vectors: &[u16], width: usize) -> Vec<u16> {
    let tile = TENSOR_TILE as usize;
    let mut halves = vec![0; (vectors.len() / width).next_multiple_of(tile) * width];
    for (v, vector) in vectors.chunks(width).enumerate() {
        for (t, &value) in vector.iter().enumerate() {
            halves[((v / tile * (width / 8) + t / 8) * tile + v % tile) * 8 + t % 8] = value;
        }
    }
    halves
}

/// Eighths from 1 to 2, which fit halves and have the scale of 1: 2^13 times as large there. [n, d] in rows of `stride`.
fn eighths(numbers: &mut Numbers, n: usize, d: usize, stride: usize) -> Vec<f32> {
    let mut value = |at: usize| if at % stride < d { 1.0 + numbers.below(8) as f32 / 8.0 } else { f32::NAN };
    (0..n * stride).map(&mut value).collect()
}

/// What becomes of them.
fn halves_of(x: &[f32], d: usize, stride: usize, width: usize) -> Vec<u16> {
    let of_row = |row: &[f32]| -> Vec<u16> {
        (0..width).map(|t| if t < d { f16::from_f32(row[t] * 8192.0).to_bits() } else { 0 }).collect()
    };
    in_tiles(&x.chunks(stride).flat_map(of_row).collect::<Vec<_>>(), width)
}

/// Lanes for 4, 8, 16 and 32 fours, and fours that no register keeps; full tiles and one row alone.
const SIZES: [(usize, usize); 9] =
    [(5, 3), (131, 16), (2, 17), (130, 36), (128, 47), (3, 64), (129, 100), (7, 256), (6, 300)];

#[test]
fn packed_rows_lie_in_tiles_filled_up_with_zeros() {
    let name = "tiles::packed_rows_lie_in_tiles_filled_up_with_zeros";
    pass_on_each([Machine::new(), Machine::new().seed(1)], name, || {
        let (stream, kernel) = open("rows_tensor", "rows_tensor_f32");
        let mut numbers = Numbers::new(95);
        for (n, d) in SIZES {
            for stride in [d, d + 1, d.next_multiple_of(4)] {
                let width = d.next_multiple_of(16);
                let mut x = eighths(&mut numbers, n, d, stride);
                let mut expected = halves_of(&x, d, stride, width);
                // One row that is not packed, and is zero.
                x[(n - 1) * stride + d - 1] = f32::INFINITY;
                for t in 0..width {
                    expected[(((n - 1) / 128 * (width / 8) + t / 8) * 128 + (n - 1) % 128) * 8 + t % 8] = 0;
                }
                let x = stream.clone_htod(&x).unwrap();
                let mean = stream.alloc_zeros::<f32>(d).unwrap();
                // Whatever is left of a block before.
                let mut halves = stream.clone_htod(&vec![0x7e7eu16; expected.len()]).unwrap();
                let (mut facts, mut kinds) =
                    (stream.alloc_zeros::<f32>(4 * n).unwrap(), stream.alloc_zeros::<u32>(n).unwrap());
                let mut status = stream.clone_htod(&[u64::MAX, u64::MAX, 0, 0, 0, 0]).unwrap();
                let (stride64, first_row, n32, d32) = (stride as u64, 1000u64, n as u32, d as u32);
                let (shift, plain, report) = (0i32, 0u32, 1u32);
                let mut launch = stream.launch_builder(&kernel);
                launch.arg(&x).arg(&stride64).arg(&mean).arg(&mut halves).arg(&mut facts).arg(&mut kinds);
                launch.arg(&mut status).arg(&first_row).arg(&n32).arg(&d32).arg(&shift).arg(&plain).arg(&report);
                let rows_of_block = if width == 16 { 128 } else { 64 };
                let blocks = n.next_multiple_of(128) / rows_of_block;
                // SAFETY: the arguments are those of rows_tensor_f32, of the sizes that its header names, and its grid.
                unsafe { launch.launch(threads(blocks as u32, 32 * ROWS_PER_BLOCK)) }.unwrap();
                let name = format!("{n} x {d} in {stride}");
                assert_eq!(stream.clone_dtoh(&halves).unwrap(), expected, "{name}");
                let kinds = stream.clone_dtoh(&kinds).unwrap();
                assert!(kinds[..n - 1].iter().all(|&kind| kind == 0) && kinds[n - 1] != 0, "{name}: {kinds:?}");
                let status = stream.clone_dtoh(&status).unwrap();
                let bad = (1000 + n as u64 - 1) << 28 | (d as u64 - 1) << 2 | 1;
                assert_eq!(status, [bad, u64::MAX, 1, 0, 0, 0], "{name}");
            }
        }
    });
}

#[test]
fn packed_codewords_lie_in_tiles_filled_up_with_zeros() {
    let name = "tiles::packed_codewords_lie_in_tiles_filled_up_with_zeros";
    pass_on_each([Machine::new(), Machine::new().seed(1)], name, || {
        let (stream, kernel) = open("rows_tensor", "rows_tensor_codewords_f32");
        let mut numbers = Numbers::new(96);
        for (m, d) in SIZES {
            let (stride, width, padded) = (d + 2, d.next_multiple_of(16), m.next_multiple_of(128));
            let mut packed = eighths(&mut numbers, m, d, stride);
            let expected = halves_of(&packed, d, stride, width);
            (0..m).for_each(|j| packed[j * stride + d + 1] = j as f32);
            let half_sq_norm = |j: usize| if j < m { j as f32 * 2f32.powi(26) } else { f32::INFINITY };
            let packed_on_device = stream.clone_htod(&packed).unwrap();
            let mut halves = stream.clone_htod(&vec![0x7e7eu16; expected.len()]).unwrap();
            let [mut lengths, mut bounds, mut half_sq_norms] =
                [(); 3].map(|()| stream.clone_htod(&vec![7.0f32; padded]).unwrap());
            let (m32, d32, accumulation) = (m as u32, d as u32, 0.0f64);
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&packed_on_device).arg(&mut halves).arg(&mut lengths).arg(&mut bounds);
            launch.arg(&mut half_sq_norms).arg(&m32).arg(&d32).arg(&accumulation);
            let blocks = padded as u32 / (2 * ROWS_PER_BLOCK);
            // SAFETY: the arguments are those of rows_tensor_codewords_f32, of the sizes that its header names; its grid.
            unsafe { launch.launch(threads(blocks, 32 * ROWS_PER_BLOCK)) }.unwrap();
            let name = format!("{m} x {d}");
            assert_eq!(stream.clone_dtoh(&halves).unwrap(), expected, "{name}");
            let expected: Vec<f32> = (0..padded).map(half_sq_norm).collect();
            assert_same_bits(&name, &stream.clone_dtoh(&half_sq_norms).unwrap(), &expected);
            let lengths = stream.clone_dtoh(&lengths).unwrap();
            for (j, &length) in lengths.iter().enumerate() {
                let sq_norm: f64 = if j < m {
                    packed[j * stride..][..d].iter().map(|&v| (f64::from(v) * 8192.0).powi(2)).sum()
                } else {
                    0.0
                };
                let (length, norm) = (f64::from(length), sq_norm.sqrt());
                assert!(length >= norm && length <= norm * (1.0 + 1e-4), "{name}, {j}: {length} for {norm}");
            }
            let bounds = stream.clone_dtoh(&bounds).unwrap();
            // The difference from the real codeword counts for 2^-24 of its norm.
            let near = |j: usize| j >= m || (bounds[j] > 0.0 && bounds[j] < lengths[j] * 1e-6);
            assert!((0..padded).all(|j| near(j) && (j < m || bounds[j] == 0.0)), "{name}");
        }
    });
}
