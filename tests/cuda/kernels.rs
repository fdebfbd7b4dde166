//! Kernels of the filter pass launched alone, against what their headers say: a bound that is looser than need be
//! changes no label, so nothing that goes through the crate's own functions would show it; one that is too tight shows
//! only in data that nobody has thought of yet. On the simulated driver, in child processes.

use crate::alone::{open, threads};
use crate::common::{self, Numbers, assert_same_bits, matrix};
use crate::simulated::Machine;
use codeword::cuda::cudarc::driver::PushKernelArg;
use codeword::cuda::{MatrixView, Workspace};
use codeword::{AssignOptions, Codebook, Device};

/// Half a step of f32 at 1.
const U: f64 = 1.0 / 16_777_216.0;

/// What rows.cu and best.cuh call the kinds of rows.
const PACKED: u32 = 0;
const WILD: u32 = 1;
const NON_FINITE: u32 = 2;

/// What rows_f32 makes of rows.
struct Packed {
    packed: Vec<f32>,
    facts: Vec<f32>,
    kinds: Vec<u32>,
}

/// Packs rows [n, d] around a mean of zeros.
fn pack(x: &[f32], d: usize, codebook_shift: i32, max_sq_norm: f64, plain: bool) -> Packed {
    let (stream, rows) = open("rows", "rows_f32");
    let n = x.len() / d;
    let (on_device, mean) = (stream.clone_htod(x).unwrap(), stream.alloc_zeros::<f32>(d).unwrap());
    let mut packed = stream.alloc_zeros::<f32>(n * (d + 2)).unwrap();
    let (mut facts, mut kinds) = (stream.alloc_zeros::<f32>(4 * n).unwrap(), stream.alloc_zeros::<u32>(n).unwrap());
    let mut status = stream.alloc_zeros::<u64>(6).unwrap();
    let mut launch = stream.launch_builder(&rows);
    let (stride, first_row, plain, report) = (d as u64, 0u64, u32::from(plain), 0u32);
    let (n32, d32) = (n as u32, d as u32);
    launch.arg(&on_device).arg(&stride).arg(&mean).arg(&mut packed).arg(&mut facts).arg(&mut kinds).arg(&mut status);
    launch.arg(&first_row).arg(&n32).arg(&d32).arg(&codebook_shift).arg(&max_sq_norm).arg(&plain).arg(&report);
    // SAFETY: the arguments are those of rows_f32, of the sizes that its header names; a warp per row.
    unsafe { launch.launch(threads(n.div_ceil(8) as u32, 256)) }.unwrap();
    Packed {
        packed: stream.clone_dtoh(&packed).unwrap(),
        facts: stream.clone_dtoh(&facts).unwrap(),
        kinds: stream.clone_dtoh(&kinds).unwrap(),
    }
}

#[test]
fn the_norm_of_a_row_covers_the_real_one_and_every_rounding_on_its_way() {
    Machine::new().pass("kernels::the_norm_of_a_row_covers_the_real_one_and_every_rounding_on_its_way", || {
        let mut numbers = Numbers::new(71);
        for d in [1, 2, 5, 33, 200, 3000] {
            for scale in [1.0f32, 1e-3, 3e4, 1e-30, 1e-42, 1e30] {
                let x: Vec<f32> = numbers.gaussians(4 * d).iter().map(|v| v * scale).collect();
                let got = pack(&x, d, 3, 1.0, false);
                for (i, row) in x.chunks(d).enumerate().filter(|&(i, _)| got.kinds[i] == PACKED) {
                    // The real norm in the scale of the packed row, in f64.
                    let scale = f64::from(got.facts[4 * i + 1]) * 8.0;
                    let real = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() * scale;
                    let norm = f64::from(got.facts[4 * i]);
                    // d + 4 roundings of a sum of squares, half as much in its root, and a step.
                    let most = real * (1.0 + (d as f64 + 16.0) * U) + 2f64.powi(-70) * (d as f64).sqrt();
                    assert!(norm >= real && norm <= most, "{d} at {scale:e}: {norm:e} for {real:e}");
                }
            }
        }
    });
}

#[test]
fn facts_of_rows_whose_arithmetic_is_exact_are_those_of_the_header() {
    Machine::new().pass("kernels::facts_of_rows_whose_arithmetic_is_exact_are_those_of_the_header", || {
        let largest = f64::from(f32::MAX) / 4.0;
        // Codebook shift, rows as whole numbers times 2^exponent, largest squared norm.
        for (codebook_shift, exponent, max_sq_norm) in [
            (0, 0, 1.0),
            (5, 2, 1e30),
            (-7, -20, 0.0),
            // Rows much shorter than the codewords keep the codewords' scale; zero rows always do.
            (-20, -60, 3.0),
            (126, -140, 0.0),
            (126, -126, 0.0),
            // Squared norms around a quarter of the range of f32.
            (0, 59, largest - 109.0 * 2f64.powi(118)),
            (0, 59, largest - 108.0 * 2f64.powi(118)),
            (0, 59, largest - 110.0 * 2f64.powi(118)),
            // Factors around the end of what a scale can be.
            (63, -66, 0.0),
            (64, -66, 0.0),
            (64, -67, 0.0),
            (65, -68, 0.0),
            (-62, 60, 0.0),
            (-63, 60, 0.0),
            (-62, 59, 0.0),
            (-63, 61, 0.0),
            // Rows around as far out as a packed row may be.
            (100, 18, 0.0),
            (100, 19, 0.0),
            (100, 20, 0.0),
            (100, 21, 0.0),
        ] {
            for plain in [false, true] {
                let d = 3;
                let whole = [[9.0, 5.0, 2.0], [10.0, -3.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 8.0], [6.0, 6.0, 6.0]];
                let power = 2f64.powi(exponent);
                let x: Vec<f32> = whole.as_flattened().iter().map(|v| (v * power) as f32).collect();
                let got = pack(&x, d, codebook_shift, max_sq_norm, plain);
                for (i, row) in whole.iter().enumerate() {
                    let name = format!("row {i} at 2^{exponent}, codebook at 2^-{codebook_shift}, plain {plain}");
                    let magnitude = row.iter().fold(0.0f64, |most, v| most.max(v.abs())) * power;
                    // Subnormal magnitudes are scaled as far as a scale can.
                    let own = if magnitude < 2f64.powi(-126) { 126 } else { -(magnitude.log2().floor() as i32) };
                    let own = own.clamp(-126, 126);
                    let shift = own.min(codebook_shift);
                    let kind = if codebook_shift - shift <= 122 { PACKED } else { WILD };
                    assert_eq!(got.kinds[i], kind, "{name}");
                    let sq_norm = row.iter().map(|v| v * v).sum::<f64>() * power * power;
                    let (mut expected, mut tail) = ([0.0, 1.0, 0.0, 0.0], [0.0, 1.0]);
                    if kind == PACKED {
                        let sum = sq_norm * 2f64.powi(2 * own) * (1.0 + 7.0 * 2.0 * U) + 3.0 * 2f64.powi(-149);
                        let norm = sum.sqrt() * 2f64.powi(shift - own) * (1.0 + 4.0 * U);
                        expected[0] = (norm as f32).max(f32::MIN_POSITIVE);
                        expected[1] = 2f64.powi(shift - codebook_shift) as f32;
                        let factor = 1 - shift - codebook_shift;
                        if sq_norm + max_sq_norm < largest && (-126..=126).contains(&factor) {
                            expected[2] = sq_norm as f32;
                            expected[3] = 2f64.powi(factor) as f32;
                        }
                        tail = [f64::from(expected[0]), f64::from(expected[1])];
                    }
                    assert_same_bits(&name, &got.facts[4 * i..][..4], &expected);
                    let shrunk = if plain { tail[1] } else { tail[1] * (1.0 - 4.0 * U) };
                    let scaled = |v: &f64| if kind == PACKED { (v * power * 2f64.powi(shift)) as f32 } else { 0.0 };
                    let mut packed: Vec<f32> = row.iter().map(scaled).collect();
                    packed.extend([if plain { 0.0 } else { tail[0] as f32 }, -shrunk as f32]);
                    assert_same_bits(&name, &got.packed[(d + 2) * i..][..d + 2], &packed);
                }
            }
        }
        let got = pack(&[1.0, f32::NAN, f32::INFINITY, 2.0], 2, 0, 0.0, false);
        assert_eq!(got.kinds, [NON_FINITE, NON_FINITE]);
    });
}

/// Which of n rows assign_f32 leaves open, and the labels. The scores are `scores` for every row; a row has its own
/// norm and ratio.
fn open_rows(scores: &[f32], facts: &[[f32; 2]], bounds: &[f32], halves: &[f32], unit: f64, tiny: f64) -> Vec<u32> {
    let (stream, assign) = open("assign", "assign_f32");
    let (n, m, depth) = (facts.len() as u32, scores.len() as u32, 3u32);
    // One dimension; the two last steps, which the certificate does not look at, add nothing to the score.
    let rows: Vec<f32> = facts.iter().flat_map(|_| [1.0, 0.0, 0.0]).collect();
    let codewords: Vec<f32> = scores.iter().flat_map(|&score| [score, 0.0, 0.0]).collect();
    let facts: Vec<f32> = facts.iter().flat_map(|&[norm, ratio]| [norm, ratio, 0.0, 0.0]).collect();
    let [rows, codewords, facts] = [&rows, &codewords, &facts].map(|it| stream.clone_htod(it).unwrap());
    let [bounds, halves] = [bounds, halves].map(|it| stream.clone_htod(it).unwrap());
    let kinds = stream.alloc_zeros::<u32>(n as usize).unwrap();
    let names = stream.clone_htod(&(0..m).collect::<Vec<_>>()).unwrap();
    let mut labels = stream.alloc_zeros::<u32>(n as usize).unwrap();
    let (mut again, mut count) =
        (stream.alloc_zeros::<u32>(n as usize).unwrap(), stream.alloc_zeros::<u32>(1).unwrap());
    let mut parts = stream.alloc_zeros::<u32>(4).unwrap();
    let fast = 0u32;
    let mut launch = stream.launch_builder(&assign);
    launch.arg(&rows).arg(&facts).arg(&kinds).arg(&codewords).arg(&bounds).arg(&halves).arg(&names);
    launch.arg(&mut labels).arg(&mut again).arg(&mut count).arg(&mut parts);
    launch.arg(&n).arg(&m).arg(&depth).arg(&unit).arg(&tiny).arg(&fast);
    // SAFETY: the arguments are those of assign_f32, of the sizes that its header names; columns are not split.
    unsafe { launch.launch(threads(n.div_ceil(128), 256)) }.unwrap();
    let count = stream.clone_dtoh(&count).unwrap()[0] as usize;
    let mut open = stream.clone_dtoh(&again).unwrap()[..count].to_vec();
    open.sort_unstable();
    open
}

#[test]
fn a_row_is_settled_where_its_certificate_holds_and_nowhere_else() {
    Machine::new().pass("kernels::a_row_is_settled_where_its_certificate_holds_and_nowhere_else", || {
        // The second score above the first by all terms of both bounds, and norms or ratios that pass by the place
        // where it is just enough, a step of f32 at a time.
        let steps = |around: f64| (-40..40).map(move |by| common::cases::step(around as f32, by));
        for (top, rival, bound, half, unit, tiny) in [
            (5.0f32, 3.0f32, 0.25f32, 2.0f32, U, 0.0f64),
            (5.0, 3.0, 0.25, 2.0, U * 4096.0, 0.125),
            (-1.5, -2.75, 0.5, 3.0, U * 1024.0, 0.0625),
            (0.5, -1.0, 0.5, 100.0, U * 256.0, 0.0),
            (7.0, 6.5, 0.0625, 1e-3, U, 1.0 / 64.0),
        ] {
            let (t, r) = (f64::from(top), f64::from(rival));
            let lower = -r - unit * r.abs() - tiny;
            let upper = |norm: f32, ratio: f32| {
                let bound = 2.0 * f64::from(norm) * f64::from(bound);
                let half = 8.0 * unit * f64::from(ratio) * f64::from(half);
                -t + unit * t.abs() + bound * 1.000_001 + half + tiny
            };
            let room = lower - (-t + unit * t.abs() + tiny);
            let by_norm = steps((room - 8.0 * unit * f64::from(half)) / (2.0 * f64::from(bound) * 1.000_001));
            let by_ratio = steps((room - 2.0 * f64::from(bound) * 1.000_001 * 0.125) / (8.0 * unit * f64::from(half)));
            let facts: Vec<[f32; 2]> =
                by_norm.map(|norm| [norm, 1.0]).chain(by_ratio.map(|ratio| [0.125, ratio])).collect();
            let expected: Vec<u32> =
                (0..160).filter(|&i| lower <= upper(facts[i as usize][0], facts[i as usize][1])).collect();
            assert!((2..159).contains(&expected.len()), "both happen: {}", expected.len());
            // The best has position 1: what belongs to the others must not count.
            let (scores, halves) = ([rival, top, rival - 4.0], [1e9, half, 1e9]);
            assert_eq!(open_rows(&scores, &facts, &[1e9, bound, 1e9], &halves, unit, tiny), expected, "{top} {rival}");
        }
        // A single codeword has no rival, and a NaN settles nothing.
        assert!(open_rows(&[1.0], &[[1e30, 1.0]; 3], &[1e9], &[1e9], U, 1.0).is_empty());
        assert_eq!(open_rows(&[1.0, 0.5], &[[f32::NAN, 1.0]; 2], &[1.0; 2], &[1.0; 2], U, 0.0), [0, 1]);
    });
}

#[test]
fn decoded_vectors_go_to_any_address() {
    Machine::new().pass("kernels::decoded_vectors_go_to_any_address", || {
        // Rows that 128-bit copies would fit, at addresses of which a quarter lie where they need to.
        let (k, d) = (5, 8);
        let e = matrix(Numbers::new(72).gaussians(k * d), k, d);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let Device::Cuda(context) = Device::cuda(0).unwrap() else { unreachable!("it was asked for") };
        let stream = context.new_stream().unwrap();
        let codes = stream.clone_htod(&[3u32, 1, 4]).unwrap();
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, 4).unwrap();
        let expected = [3, 1, 4].map(|j| e.view().row(j)).concat();
        for start in 0..120 {
            let mut room = stream.alloc_zeros::<f32>(start + 3 * d).unwrap();
            workspace.decode(&codes, &mut room.slice_mut(start..)).unwrap();
            workspace.check().unwrap();
            assert_same_bits("decoded", &stream.clone_dtoh(&room).unwrap()[start..], &expected);
        }
    });
}

#[test]
fn more_open_rows_than_blocks_that_look_at_them() {
    Machine::new().pass("kernels::more_open_rows_than_blocks_that_look_at_them", || {
        // Every row lies between the codewords, and more of them in one launch than there are places for blocks.
        let n = 3000;
        let e = matrix(vec![1.0f32, -1.0, 5.0], 3, 1);
        let codebook = Codebook::new(e.view(), &Device::cuda(0).unwrap()).unwrap();
        let Device::Cuda(context) = Device::cuda(0).unwrap() else { unreachable!("it was asked for") };
        let stream = context.new_stream().unwrap();
        let x = stream.alloc_zeros::<f32>(n).unwrap();
        let (mut labels, mut sq_distances) =
            (stream.clone_htod(&vec![7u32; n]).unwrap(), stream.alloc_zeros(n).unwrap());
        let mut workspace = Workspace::<f32>::new(&codebook, &stream, n).unwrap();
        let view = MatrixView::new(&x, n, 1).unwrap();
        workspace.assign(view, AssignOptions::default(), &mut labels, &mut sq_distances).unwrap();
        assert_eq!(workspace.check().unwrap().first, 0);
        assert_eq!(stream.clone_dtoh(&labels).unwrap(), vec![0; n]);
        assert_eq!(stream.clone_dtoh(&sq_distances).unwrap(), vec![1.0f32; n]);
    });
}

#[test]
fn the_lowest_of_equidistant_codewords_wins_whichever_is_found_first() {
    // Candidates are listed in the order in which threads come.
    for seed in 1..5 {
        let machine = Machine::new().set("SEED", seed);
        machine.pass("kernels::the_lowest_of_equidistant_codewords_wins_whichever_is_found_first", || {
            // Distinct corners of a cube around zero, after others that are farther: warps that look at these fall
            // behind here and there.
            let (n, k, d, first) = (6, 500, 10, 200);
            let corner = |j: usize| (0..d).map(move |t| if (j * 7 + 3) >> t & 1 == 1 { 1.0f32 } else { -1.0 });
            let mut e: Vec<f32> = (0..k).flat_map(corner).collect();
            for j in 0..first {
                e[j * d] = 3.0;
            }
            let codebook = Codebook::new(matrix(e, k, d).view(), &Device::cuda(0).unwrap()).unwrap();
            let x = matrix(vec![0.0f32; n * d], n, d);
            let got = codeword::assign(x.view(), &codebook, AssignOptions::default()).unwrap();
            assert_eq!(got.labels, vec![first as u32; n]);
            assert_eq!(got.stats.exact, n as u64, "{:?}", got.stats);
        });
    }
}
