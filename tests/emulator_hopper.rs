//! What compute capability 9.0 has beside its threads (the last part of kernels/ptx.cuh), on the simulated device: barriers
//! in shared memory, bulk copies and products by wgmma do what the PTX manual says, and wrong uses are found.
#![cfg(all(feature = "cuda", target_os = "linux"))]

mod common;
#[path = "common/simulated/mod.rs"]
mod simulated;

use codeword::cuda::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
use codeword::cuda::cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use codeword::cuda::cudarc::nvrtc::Ptx;
use codeword::f16;
use common::Numbers;
use common::products::{modelled, units};
use simulated::Machine;
use std::sync::Arc;

fn open(name: &str) -> (Arc<CudaStream>, CudaFunction) {
    let context = CudaContext::new(0).expect("the simulated device opens");
    let text = format!(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry {name}() {{ ret; }}\n");
    let module = context.load_module(Ptx::from_src(text)).expect("the module loads");
    (context.new_stream().expect("a stream"), module.load_function(name).expect("the kernel is there"))
}

/// A launch of one block.
fn block(threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

fn bits(values: &[f16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Rows of products that a block computes, columns of a tile, and steps of depth of a stage, as kernels/hopper.cu has
/// them.
const ROWS: usize = 128;
const COLS: usize = 128;
const CHUNK: usize = 64;

/// Vectors one after the other, in the order in which the copies bring them: chunks of depth, groups of `group` vectors,
/// pieces of eight halves.
fn in_pieces(vectors: &[f16], depth: usize, group: usize) -> Vec<f16> {
    let count = vectors.len() / depth;
    let mut laid_out = Vec::with_capacity(vectors.len());
    for chunk in (0..depth).step_by(CHUNK) {
        for first in (0..count).step_by(group) {
            for piece in (chunk..chunk + CHUNK).step_by(8) {
                for v in first..first + group {
                    laid_out.extend(&vectors[v * depth + piece..][..8]);
                }
            }
        }
    }
    laid_out
}

/// All products of 128 rows and some columns, `[ROWS, columns]`, by a ring of so many stages.
fn multiply(a: &[f16], b: &[f16], depth: usize, stages: usize) -> Vec<f32> {
    let (tiles, chunks) = (b.len() / depth / COLS, depth / CHUNK);
    let (stream, kernel) = open("products_in_a_ring");
    let on_a = stream.clone_htod(&bits(&in_pieces(a, depth, 64))).unwrap();
    let tiles_of_b: Vec<f16> = b.chunks(COLS * depth).flat_map(|tile| in_pieces(tile, depth, COLS)).collect();
    let on_b = stream.clone_htod(&bits(&tiles_of_b)).unwrap();
    let mut d = stream.alloc_zeros::<f32>(ROWS * tiles * COLS).unwrap();
    let shared = ROWS * depth * 2 + stages * (COLS * CHUNK * 2 + 16) + 8;
    kernel.set_attribute(SHARED, shared as i32).unwrap();
    let (tiles, chunks, stages) = (tiles as u32, chunks as u32, stages as u32);
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&on_a).arg(&on_b).arg(&mut d).arg(&tiles).arg(&chunks).arg(&stages);
    // SAFETY: 128 rows, whole tiles of columns and whole chunks of depth, as the kernel wants them.
    unsafe { launch.launch(block(288, shared as u32)) }.unwrap();
    stream.clone_dtoh(&d).unwrap()
}

/// Vectors of a sort that brings out where numbers are cut off.
fn vectors(numbers: &mut Numbers, count: usize, depth: usize) -> Vec<f16> {
    let mut value = |i: usize| match i / depth % 5 {
        0 => numbers.gaussian(),
        1 => 1.0 + numbers.uniform(),
        2 => numbers.gaussian() * 2f32.powi(numbers.below(27) as i32 - 14),
        3 => f16::from_bits(numbers.below(0x800) as u16).to_f32(),
        _ => (1.0 + numbers.uniform() / 64.0) * if i % 2 == 1 { -1.0 } else { 1.0 },
    };
    (0..count * depth).map(|i| f16::from_f32(value(i))).collect()
}

#[test]
fn products_are_those_of_the_model_bit_for_bit() {
    for seed in [0, 1, 2] {
        let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
        machine.pass("products_are_those_of_the_model_bit_for_bit", || {
            let mut numbers = Numbers::new(83);
            // The last one takes 224 KB of shared memory.
            for (tiles, depth, stages) in [(1, 64, 2), (3, 128, 3), (2, 256, 10)] {
                let (a, b) = (vectors(&mut numbers, ROWS, depth), vectors(&mut numbers, tiles * COLS, depth));
                let d = multiply(&a, &b, depth, stages);
                // Of all rows and columns; the model takes its time.
                for (i, &got) in d.iter().enumerate().filter(|(i, _)| (i / COLS + i % COLS).is_multiple_of(5)) {
                    let (row, col) = (i / (tiles * COLS), i % (tiles * COLS));
                    let (x, y) = (&a[row * depth..][..depth], &b[col * depth..][..depth]);
                    // Both are multiples of 2^-48 with 24 bits: exact in f64.
                    let expected = modelled(x, y, (16, 25)) as f64 * 2f64.powi(-48);
                    assert_eq!(f64::from(got), expected, "row {row}, column {col} of {tiles} tiles, depth {depth}");
                }
            }
        });
    }
}

#[test]
fn products_of_small_whole_numbers_are_exact() {
    for unit in ["", "hostile"] {
        let machine = Machine::new().set("CAPABILITY", 90).set("TENSOR", unit).set("CHECK", 0);
        machine.pass("products_of_small_whole_numbers_are_exact", || {
            let (mut numbers, depth, tiles) = (Numbers::new(29), 128, 2);
            let mut whole = |count: usize| -> Vec<f16> {
                numbers.integers(count * depth, 60).into_iter().map(f16::from_f32).collect()
            };
            let (a, b) = (whole(ROWS), whole(tiles * COLS));
            let d = multiply(&a, &b, depth, 2);
            for (i, &got) in d.iter().enumerate() {
                let (x, y) = (&a[i / (tiles * COLS) * depth..][..depth], &b[i % (tiles * COLS) * depth..][..depth]);
                let exact: i128 = x.iter().zip(y).map(|(&x, &y)| units(x) * units(y)).sum();
                assert_eq!(f64::from(got) * 2f64.powi(48), exact as f64, "place {i}");
            }
        });
    }
}

#[test]
fn barriers_order_what_threads_did_before_and_after() {
    for seed in [0, 1, 2, 3, 4, 5] {
        let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
        machine.pass("barriers_order_what_threads_did_before_and_after", || {
            let (stream, kernel) = open("hands_over_and_back");
            let x: Vec<f32> = (0..64).map(|i| (i * i) as f32).collect();
            let on_device = stream.clone_htod(&x).unwrap();
            let (mut out, mut notes) = (stream.alloc_zeros::<f32>(64).unwrap(), stream.alloc_zeros::<f32>(64).unwrap());
            let turns = 7u32;
            let mut launch = stream.launch_builder(&kernel);
            launch.arg(&on_device).arg(&mut out).arg(&mut notes).arg(&turns);
            // SAFETY: 64 values are read and written, as many as the vectors hold.
            unsafe { launch.launch(block(128, 0)) }.unwrap();
            // 1 + ... + 7 times what was handed over, 7 times what stayed, and 0 + ... + 6.
            let expected: Vec<f32> = x.iter().map(|x| 28.0 * x + 7.0 * x + 21.0).collect();
            assert_eq!(stream.clone_dtoh(&out).unwrap(), expected);
        });
    }
}

/// Launches a kernel of kernels/hopper_broken.cu. Returns what it wrote, if it ran to its end.
fn launch_broken(name: &str, threads: u32) -> Option<Vec<f32>> {
    let (stream, function) = open(name);
    let x = stream.clone_htod(&bits(&[f16::ONE; 4096])).unwrap();
    let mut out = stream.alloc_zeros::<f32>(128).unwrap();
    // SAFETY: as above. What else the kernel does wrong stays inside of the emulator.
    let launched = unsafe { stream.launch_builder(&function).arg(&x).arg(&mut out).launch(block(threads, 8192)) };
    launched.and_then(|_| stream.clone_dtoh(&out)).ok()
}

#[test]
fn one_product_is_right() {
    for seed in [0, 7] {
        Machine::new().set("CAPABILITY", 90).set("SEED", seed).pass("one_product_is_right", || {
            assert_eq!(launch_broken("multiplies", 128), Some(vec![16.0; 128]));
        });
    }
}

#[test]
fn one_product_runs_while_the_sums_of_another_are_read() {
    for seed in [0, 7] {
        let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
        machine.pass("one_product_runs_while_the_sums_of_another_are_read", || {
            let (stream, kernel) = open("two_sums_take_turns");
            let x: Vec<f16> = (0..9216).map(|i| f16::from_f32((i / 3072 + 1) as f32)).collect();
            let x = stream.clone_htod(&bits(&x)).unwrap();
            let mut out = stream.alloc_zeros::<f32>(3 * 128 * 3).unwrap();
            let three = LaunchConfig { grid_dim: (3, 1, 1), ..block(128, 0) };
            // SAFETY: operands and sums of three blocks.
            unsafe { stream.launch_builder(&kernel).arg(&x).arg(&mut out).launch(three) }.unwrap();
            for (i, sums) in stream.clone_dtoh(&out).unwrap().chunks(3).enumerate() {
                let each = 16.0 * ((i / 128 + 1) as f32).powi(2);
                assert_eq!(sums, [each, each, 2.0 * each], "thread {i}");
            }
        });
    }
}

#[test]
fn sums_are_no_numbers_before_they_were_waited_for() {
    Machine::new().set("CAPABILITY", 90).pass("sums_are_no_numbers_before_they_were_waited_for", || {
        let sums = launch_broken("reads_sums_too_early", 128).unwrap();
        assert!(sums.iter().all(|it| it.is_nan()), "{sums:?}");
    });
}

macro_rules! finds {
    ($($test:ident: $kernel:literal, $words:expr;)*) => {$(
        #[test]
        fn $test() {
            for seed in [0, 7] {
                let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
                machine.find(stringify!($test), &$words, || drop(launch_broken($kernel, 128)));
            }
        }
    )*};
}

finds! {
    a_barrier_that_was_never_made: "arrives_at_no_barrier", ["kernel arrives_at_no_barrier", "arrives at", "never initialised, byte"];
    a_barrier_at_an_odd_place: "makes_a_barrier_at_an_odd_place", ["initialises", "not a multiple of 8"];
    a_barrier_in_device_memory: "makes_a_barrier_in_device_memory", ["initialises", "not in shared memory"];
    a_barrier_made_twice: "makes_a_barrier_twice", ["initialises", "that is one already"];
    a_barrier_of_nobody: "makes_a_barrier_of_nobody", ["initialises", "a number of arrivals"];
    more_arrivals_than_were_said: "arrives_too_often", ["at which all 1 of this phase have arrived"];
    a_phase_that_never_ends: "waits_for_nobody", ["kernel waits_for_nobody", "thread (0,0,0)", "1 of 4 arrivals and 0 bytes are missing) for ever"];
    a_wait_for_those_who_wait: "waits_for_those_at_the_block_barrier", ["waits at __syncthreads", "thread (127,0,0) waits in line", "1 of 1 arrivals"];
    a_parity_of_two: "waits_for_a_parity_of_two", ["a phase of parity 2"];
    a_barrier_that_others_do_not_see: "forgets_init_done", ["thread (32,0,0) arrives at", "before mbarrier_init_done()"];
    a_barrier_that_copies_do_not_see: "copies_before_init_done", ["thread (0,0,0) reports to", "before mbarrier_init_done()"];
    a_barrier_written_over: "writes_over_a_barrier", ["arrives at", "byte 8 of shared memory", "something has written"];
    a_barrier_written_over_at_last: "writes_over_a_barrier_at_last", ["initialised the barrier at byte 8", "something has written"];
    a_wait_of_another_thread: "reads_what_only_one_waited_for", ["thread (33,0,0) reads shared memory"];
    a_write_behind_the_arrival: "writes_after_it_arrived", ["shared memory at byte 128"];

    a_bulk_copy_to_an_odd_place: "copies_in_bulk_to_an_odd_place", ["copies in bulk", "to what is not a multiple of 16"];
    a_bulk_copy_from_an_odd_place: "copies_in_bulk_from_an_odd_place", ["copies in bulk", "from what is not a multiple of 16"];
    a_bulk_copy_of_an_odd_number: "copies_in_bulk_an_odd_number", ["copies in bulk", "a number of bytes"];
    a_bulk_copy_of_nothing: "copies_in_bulk_nothing", ["copies in bulk", "a number of bytes"];
    a_bulk_copy_to_device_memory: "copies_in_bulk_to_device_memory", ["copies in bulk", "to what is not shared memory"];
    a_bulk_copy_from_shared_memory: "copies_in_bulk_from_shared_memory", ["copies in bulk", "from what is not device memory"];
    a_bulk_copy_from_beyond_its_vector: "copies_in_bulk_from_beyond", ["reads 128 bytes at offset", "out of bounds"];
    a_bulk_copy_to_beyond_shared_memory: "copies_in_bulk_to_beyond", ["writes 128 bytes outside of its shared memory"];
    a_bulk_copy_that_reports_to_nothing: "copies_in_bulk_without_a_barrier", ["reports to", "never initialised"];
    a_bulk_copy_over_another: "copies_in_bulk_twice", ["copies in bulk", "another copy is on its way"];
    a_bulk_copy_that_nobody_waits_for: "waits_for_no_copy", ["kernel waits_for_no_copy"];
    bytes_that_nobody_announced: "announces_nothing", ["kernel announces_nothing"];
    bytes_that_never_come: "announces_too_much", ["0 of 1 arrivals and 128 bytes are missing) for ever"];
    a_bulk_copy_over_what_others_read: "sends_over_what_others_read", ["kernel sends_over_what_others_read", "shared memory"];
    a_stage_that_is_freed_before_it_is_read: "frees_what_it_reads_later", ["kernel frees_what_it_reads_later", "shared memory"];
    a_stage_that_is_freed_for_other_lanes: "frees_what_other_lanes_read", ["kernel frees_what_other_lanes_read", "shared memory"];

    a_product_without_a_fence: "multiplies_without_a_fence", ["with no wgmma_fence()"];
    a_second_product_without_a_fence: "multiplies_again_without_a_fence", ["with no wgmma_fence()"];
    a_product_in_no_group: "multiplies_in_no_group", ["leaves the kernel", "nobody has waited for its product"];
    a_product_that_nobody_waits_for: "waits_for_no_product", ["leaves the kernel", "nobody has waited for its product"];
    sums_written_too_early: "writes_sums_too_early", ["has touched the sums"];
    operands_on_their_way: "multiplies_what_is_on_its_way", ["shared memory"];
    operands_that_nobody_wrote: "multiplies_what_nobody_wrote", ["reads shared memory", "which nothing in the block has written"];
    operands_that_others_are_writing: "multiplies_what_others_are_writing", ["shared memory", "no barrier between"];
    operands_written_over: "writes_over_operands", ["writes shared memory", "a product by wgmma reads"];
    operands_copied_over: "sends_over_operands", ["thread (0,0,0) writes shared memory", "a product by wgmma reads"];
    operands_copied_over_for_other_warps: "sends_over_operands_that_one_warp_is_done_with", ["thread (0,0,0) writes shared memory"];
    operands_at_an_odd_place: "multiplies_at_an_odd_place", ["A is not on a multiple of 16"];
    pieces_at_odd_places: "multiplies_pieces_at_odd_places", ["B has pieces that are not multiples of 16 apart"];
    operands_in_device_memory: "multiplies_device_memory", ["A is not in shared memory"];
    operands_beyond_shared_memory: "multiplies_beyond_shared_memory", ["reads 2048 bytes outside of its shared memory"];
    a_product_of_two_warps: "multiplies_with_two_warps", ["waits for the other warps of its warpgroup", "has left the kernel"];
    a_product_without_a_lane: "multiplies_without_a_lane", ["waits for the other warps of its warpgroup", "thread (64,0,0) waits for the lanes ffffffff"];
    a_product_of_different_operands: "multiplies_what_others_do_not", ["thread (96,0,0) of its warpgroup multiplies other operands"];
}

#[test]
fn a_barrier_that_others_see_too_early() {
    // Made in time or not, as the turns have it.
    for (seed, words) in [(0, "updates shared memory at byte 0 that thread (0,0,0) wrote"), (7, "")] {
        let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
        let words = ["kernel forgets_to_meet_after_init", words];
        machine.find("a_barrier_that_others_see_too_early", &words, || {
            drop(launch_broken("forgets_to_meet_after_init", 128));
        });
    }
}

#[test]
fn a_bulk_copy_that_is_read_too_early() {
    // A copy that has come by then was still not waited for.
    for (seed, words) in [(0, "an asynchronous copy writes that was not waited for"), (7, "shared memory")] {
        let machine = Machine::new().set("CAPABILITY", 90).set("SEED", seed);
        let words = ["kernel reads_a_copy_too_early", words];
        machine.find("a_bulk_copy_that_is_read_too_early", &words, || {
            drop(launch_broken("reads_a_copy_too_early", 128));
        });
    }
}

#[test]
fn a_product_in_a_block_of_two_warps() {
    Machine::new().set("CAPABILITY", 90).find(
        "a_product_in_a_block_of_two_warps",
        &["its warpgroup has fewer than 128 threads"],
        || drop(launch_broken("multiplies_in_a_block_of_two_warps", 64)),
    );
}

#[test]
fn a_device_that_has_none_of_it() {
    for capability in [80, 89] {
        let machine = Machine::new().set("CAPABILITY", capability);
        machine.find("a_device_that_has_none_of_it", &["of compute capability 9.0"], || {
            assert_eq!(launch_broken("multiplies", 128), None);
        });
    }
    for capability in [100, 120] {
        let machine = Machine::new().set("CAPABILITY", capability);
        machine.find("a_device_that_has_none_of_it", &["which only compute capability 9.0 has"], || {
            assert_eq!(launch_broken("multiplies", 128), None);
        });
    }
}

#[test]
fn infinities_and_nan_stay_in_their_rows_and_columns() {
    Machine::new().set("CAPABILITY", 90).pass("infinities_and_nan_stay_in_their_rows_and_columns", || {
        let depth = CHUNK;
        let (mut a, mut b) = (vec![f16::ONE; ROWS * depth], vec![f16::ONE; COLS * depth]);
        a[3 * depth + 7] = f16::INFINITY;
        a[70 * depth] = f16::NAN;
        b[100 * depth + 7] = f16::NEG_ONE;
        b[9 * depth + 7] = f16::ZERO;
        for (i, got) in multiply(&a, &b, depth, 2).into_iter().enumerate() {
            let expected = match (i / COLS, i % COLS) {
                (70, _) | (3, 9) => f32::NAN,
                (3, 100) => f32::NEG_INFINITY,
                (3, _) => f32::INFINITY,
                (_, 100) => 62.0,
                (_, 9) => 63.0,
                _ => 64.0,
            };
            assert!(got == expected || got.is_nan() && expected.is_nan(), "place {i}: {got}, not {expected}");
        }
    });
}
