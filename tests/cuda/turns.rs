//! The filter pass of compute capability 9.0 launched alone, with fewer blocks than there are rows for: each takes several in
//! turn, through the ends of its rings, whatever their depth.

use crate::alone::open_for;
use crate::common::{Numbers, assert_same_labels};
use crate::simulated::{Machine, pass_on_each};
use crate::tiles::in_tiles;
use codeword::backend::cuda::ptx::Arch;
use codeword::backend::cuda::shapes::{TENSOR_THREADS, WGMMA_SHARED, WGMMA_THREADS};
use codeword::cuda::cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use codeword::cuda::cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use codeword::f16;

#[test]
fn blocks_take_rows_in_turn_and_every_row_finds_its_codeword() {
    let machine = || Machine::new().set("CAPABILITY", 90);
    let machines = [machine(), machine().seed(1), machine().seed(2).set("CHECK", 0)];
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
        // One stage of rows and less, several, as many as there is room for, more: those pass by. Three blocks of rows, of
        // whose last the second group has none; three tiles of codewords.
        for (width, n, m) in [
            (16usize, 600usize, 300usize),
            (64, 520, 130),
            (80, 640, 129),
            (144, 600, 257),
            (192, 513, 5),
            (256, 640, 300),
            (272, 600, 257),
        ] {
            let padded = m.next_multiple_of(128);
            let (rows, codewords) = (numbers.integers(n * width, 3), numbers.integers(m * width, 3));
            let halves: Vec<f32> =
                (0..padded).map(|j| if j < m { numbers.below(20) as f32 } else { f32::INFINITY }).collect();
            // Whole numbers: scores are exact, z.e - half. Bounds count nothing; of equals the first.
            let expected: Vec<u32> = (0..n)
                .map(|i| {
                    let score = |j: usize| {
                        let products = rows[i * width..][..width].iter().zip(&codewords[j * width..][..width]);
                        products.map(|(z, e)| z * e).sum::<f32>() - halves[j]
                    };
                    let best =
                        (1..m).fold((0, score(0)), |best, j| if score(j) > best.1 { (j, score(j)) } else { best });
                    best.0 as u32
                })
                .collect();
            let facts: Vec<f32> = (0..n).flat_map(|_| [0.0, 1.0, 0.0, -1.0]).collect();
            let bits =
                |values: &[f32]| values.iter().map(|&value| f16::from_f32(value).to_bits()).collect::<Vec<u16>>();
            let [rows, codewords] =
                [&rows, &codewords].map(|values| stream.clone_htod(&in_tiles(&bits(values), width)).unwrap());
            let [facts, halves] = [&facts, &halves].map(|it| stream.clone_htod(it).unwrap());
            let zeros = stream.alloc_zeros::<f32>(padded).unwrap();
            let kinds = stream.alloc_zeros::<u32>(n).unwrap();
            let names = stream.clone_htod(&(0..m as u32).collect::<Vec<_>>()).unwrap();
            let (n32, m32, width32, fast) = (n as u32, m as u32, width as u32, 1u32);
            let (unit, tiny) = (0.0f64, 0.0f64);
            for (blocks, splits) in [(1u32, 1u32), (2, 1), (3, 1), (1, 2), (2, 3)] {
                let tiles = m32.div_ceil(128);
                // As the host splits: every block has a tile.
                if splits > tiles
                    || (tiles - 1) / splits + 1 != tiles.div_ceil(splits)
                    || tiles.div_ceil(tiles.div_ceil(splits)) != splits
                {
                    continue;
                }
                let mut labels = stream.clone_htod(&vec![0xdead_beefu32; n]).unwrap();
                let (mut again, mut count) =
                    (stream.alloc_zeros::<u32>(n).unwrap(), stream.alloc_zeros::<u32>(1).unwrap());
                let (mut thresholds, mut counts) =
                    (stream.alloc_zeros::<f32>(n).unwrap(), stream.alloc_zeros::<u32>(n).unwrap());
                let mut parts = stream.alloc_zeros::<u32>(4 * n * splits as usize).unwrap();
                let mut launch = stream.launch_builder(&pass);
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
                    let mut launch = stream.launch_builder(&merge);
                    launch.arg(&parts).arg(&facts).arg(&kinds).arg(&zeros).arg(&zeros).arg(&halves).arg(&names);
                    launch.arg(&mut labels).arg(&mut again).arg(&mut count).arg(&mut thresholds).arg(&mut counts);
                    launch.arg(&splits).arg(&n32).arg(&m32).arg(&unit).arg(&tiny).arg(&fast);
                    let config = LaunchConfig {
                        grid_dim: (n32.div_ceil(TENSOR_THREADS), 1, 1),
                        block_dim: (TENSOR_THREADS, 1, 1),
                        shared_mem_bytes: 0,
                    };
                    // SAFETY: the arguments are those of assign_tensor_merge_f16; the launch before wrote the parts.
                    unsafe { launch.launch(config) }.unwrap();
                }
                let what = format!("{n} x {width} by {m}, {blocks} blocks, {splits} parts");
                assert_same_labels(&what, &stream.clone_dtoh(&labels).unwrap(), &expected, 1);
            }
        }
    });
}
