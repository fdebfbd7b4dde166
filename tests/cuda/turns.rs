//! The filter pass of compute capability 9.0 launched alone, with fewer blocks than there are rows for: each takes several in
//! turn, through the ends of its rings, whatever their depth.

use crate::alone::{open_for, threads};
use crate::common::Numbers;
use crate::simulated::{Machine, pass_on_each};
use crate::tiles::in_tiles;
use codeword::backend::cuda::ptx::Arch;
use codeword::backend::cuda::shapes::{TENSOR_THREADS, WGMMA_SHARED, WGMMA_THREADS};
use codeword::cuda::cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use codeword::cuda::cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use codeword::f16;
use std::sync::Arc;

/// Rows, codewords, and what the pass is to say of them.
struct Problem {
    width: usize,
    n: usize,
    m: usize,
    rows: Vec<f32>,
    codewords: Vec<f32>,
    /// What the score takes off for each codeword, times the row's weight.
    halves: Vec<f32>,
    weights: Vec<f32>,
    kinds: Vec<u32>,
}

/// Rows of this kind have no score of their own, and get no label here.
const WILD: u32 = 1;

impl Problem {
    /// Whole numbers: scores are exact. One row in seven has another weight, one in eleven is wild.
    fn new(numbers: &mut Numbers, width: usize, n: usize, m: usize) -> Problem {
        Problem {
            width,
            n,
            m,
            rows: numbers.integers(n * width, 3),
            codewords: numbers.integers(m * width, 3),
            halves: (0..m).map(|_| numbers.below(20) as f32).collect(),
            weights: (0..n).map(|i| if i % 7 == 3 { -2.0 } else { -1.0 }).collect(),
            kinds: (0..n).map(|i| if i % 11 == 5 { WILD } else { 0 }).collect(),
        }
    }

    /// The position of the largest score, the first of equals, and whether there are others as large.
    fn best(&self, i: usize) -> (u32, bool) {
        let score = |j: usize| {
            let row = &self.rows[i * self.width..][..self.width];
            let products = row.iter().zip(&self.codewords[j * self.width..][..self.width]);
            products.map(|(z, e)| z * e).sum::<f32>() + self.weights[i] * self.halves[j]
        };
        let scores: Vec<f32> = (0..self.m).map(score).collect();
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = scores.iter().position(|&score| score == top).expect("there are codewords");
        (first as u32, scores[first + 1..].contains(&top))
    }
}

#[test]
fn blocks_take_rows_in_turn_and_every_row_finds_its_codeword() {
    let machine = || Machine::new().set("CAPABILITY", 90);
    // The first is the real device, where there is one.
    let machines = [Machine::new(), machine(), machine().seed(1), machine().seed(2).set("CHECK", 0)];
    pass_on_each(machines, "turns::blocks_take_rows_in_turn_and_every_row_finds_its_codeword", || {
        let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
        let capability = stream.context().compute_capability().unwrap();
        if !Arch::Compute90a.runs_on(capability) {
            return println!("skipped: compute capability {capability:?} has no kernel of its own");
        }
        let open = |entry| open_for(&stream, "assign_tensor", entry, Arch::Compute90a);
        let (pass, merge) = (open("assign_tensor_f16"), open("assign_tensor_merge_f16"));
        pass.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, WGMMA_SHARED as i32).unwrap();
        let mut numbers = Numbers::new(93);
        // One stage of rows and less, several, as many as there is room for, more: those pass by. Two or three blocks of
        // rows, of whose last the second group has none, some or all; one to three tiles of codewords.
        let sizes = [
            (16, 600, 300),
            (64, 520, 130),
            (80, 640, 129),
            (144, 700, 257),
            (192, 513, 5),
            (256, 512, 300),
            (272, 700, 257),
        ];
        for (width, n, m) in sizes {
            let problem = Problem::new(&mut numbers, width, n, m);
            let best: Vec<(u32, bool)> = (0..n).map(|i| problem.best(i)).collect();
            for (blocks, splits) in [(1u32, 1u32), (2, 1), (3, 1), (1, 2), (2, 3)] {
                let tiles = m.div_ceil(128) as u32;
                // As the host splits: every block has a tile.
                if splits > tiles || tiles.div_ceil(tiles.div_ceil(splits)) != splits {
                    continue;
                }
                for fast in [1u32, 0] {
                    let (labels, mut again) = run(&stream, &pass, &merge, &problem, blocks, splits, fast);
                    let what = format!("{n} x {width} by {m}, {blocks} blocks, {splits} parts, fast {fast}");
                    // Bounds count nothing: a row is open where it is wild or, unless `fast`, where others are as near.
                    let open = |i: usize| problem.kinds[i] == WILD || fast == 0 && best[i].1;
                    let expected: Vec<u32> = (0..n).filter(|&i| open(i)).map(|i| i as u32).collect();
                    again.sort_unstable();
                    assert_eq!(again, expected, "{what}: rows that are open");
                    for i in (0..n).filter(|&i| problem.kinds[i] != WILD) {
                        assert_eq!(labels[i], 2 * best[i].0 + 1, "{what}: row {i}");
                    }
                }
            }
        }
    });
}

/// Labels, and the rows that the pass leaves open.
fn run(
    stream: &Arc<CudaStream>,
    pass: &CudaFunction,
    merge: &CudaFunction,
    problem: &Problem,
    blocks: u32,
    splits: u32,
    fast: u32,
) -> (Vec<u32>, Vec<u32>) {
    let &Problem { width, n, m, .. } = problem;
    let padded = m.next_multiple_of(128);
    let bits = |values: &[f32]| values.iter().map(|&value| f16::from_f32(value).to_bits()).collect::<Vec<u16>>();
    let [rows, codewords] =
        [&problem.rows, &problem.codewords].map(|values| stream.clone_htod(&in_tiles(&bits(values), width)).unwrap());
    let facts: Vec<f32> = problem.weights.iter().flat_map(|&weight| [0.0, 1.0, 0.0, weight]).collect();
    let mut halves = problem.halves.clone();
    halves.resize(padded, f32::INFINITY);
    let [facts, halves] = [&facts, &halves].map(|it| stream.clone_htod(it).unwrap());
    let zeros = stream.alloc_zeros::<f32>(padded).unwrap();
    let kinds = stream.clone_htod(&problem.kinds).unwrap();
    let names = stream.clone_htod(&(0..m as u32).map(|j| 2 * j + 1).collect::<Vec<_>>()).unwrap();
    let mut labels = stream.clone_htod(&vec![0xdead_beefu32; n]).unwrap();
    let (mut again, mut count) = (stream.alloc_zeros::<u32>(n).unwrap(), stream.alloc_zeros::<u32>(1).unwrap());
    let (mut thresholds, mut counts) = (stream.alloc_zeros::<f32>(n).unwrap(), stream.alloc_zeros::<u32>(n).unwrap());
    let mut parts = stream.alloc_zeros::<u32>(4 * n * splits as usize).unwrap();
    let (n32, m32, width32) = (n as u32, m as u32, width as u32);
    let (unit, tiny) = (0.0f64, 0.0f64);

    let mut launch = stream.launch_builder(pass);
    launch.arg(&rows).arg(&facts).arg(&kinds).arg(&codewords).arg(&zeros).arg(&zeros).arg(&halves);
    launch.arg(&names).arg(&mut labels).arg(&mut again).arg(&mut count);
    launch.arg(&mut thresholds).arg(&mut counts).arg(&mut parts);
    launch.arg(&n32).arg(&m32).arg(&width32).arg(&unit).arg(&tiny).arg(&fast);
    let config = LaunchConfig {
        grid_dim: (blocks, splits, 1),
        block_dim: (WGMMA_THREADS, 1, 1),
        shared_mem_bytes: WGMMA_SHARED,
    };
    // SAFETY: the arguments are those of assign_tensor_f16, of the sizes that its header names; any number of blocks.
    unsafe { launch.launch(config) }.unwrap();
    if splits > 1 {
        let mut launch = stream.launch_builder(merge);
        launch.arg(&parts).arg(&facts).arg(&kinds).arg(&zeros).arg(&zeros).arg(&halves).arg(&names);
        launch.arg(&mut labels).arg(&mut again).arg(&mut count).arg(&mut thresholds).arg(&mut counts);
        launch.arg(&splits).arg(&n32).arg(&m32).arg(&unit).arg(&tiny).arg(&fast);
        // SAFETY: the arguments are those of assign_tensor_merge_f16; the launch before wrote the parts.
        unsafe { launch.launch(threads(n32.div_ceil(TENSOR_THREADS), TENSOR_THREADS)) }.unwrap();
    }
    let open = stream.clone_dtoh(&count).unwrap()[0] as usize;
    (stream.clone_dtoh(&labels).unwrap(), stream.clone_dtoh(&again).unwrap()[..open].to_vec())
}
