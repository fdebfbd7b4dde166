//! Tensor cores and asynchronous copies of the simulated device (kernels/ptx.cuh): fragments lie as the PTX manual says,
//! sums are off by what the models of the hardware allow and no more, and wrong uses are found.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "common/simulated/mod.rs"]
mod simulated;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use half::{bf16, f16};
use simulated::Machine;
use std::sync::Arc;

fn open(name: &str) -> (Arc<CudaStream>, CudaFunction) {
    let context = CudaContext::new(0).expect("the simulated device opens");
    let text = format!(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry {name}() {{ ret; }}\n");
    let module = context.load_module(cudarc::nvrtc::Ptx::from_src(text)).expect("the module loads");
    (context.new_stream().expect("a stream"), module.load_function(name).expect("the kernel is there"))
}

fn grid(blocks: u32, threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

/// Row and column of the elements of A that a lane holds, in the order of its registers, lower halves first: the
/// formulas of the PTX manual for `mma.m16n8k16`, element a_i.
fn places_of_a(lane: usize) -> [(usize, usize); 8] {
    std::array::from_fn(|i| {
        let row = if i < 2 || (4..6).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
        (row, (lane % 4) * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
    })
}

fn places_of_b(lane: usize) -> [(usize, usize); 4] {
    std::array::from_fn(|i| ((lane % 4) * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, lane >> 2))
}

fn places_of_d(lane: usize) -> [(usize, usize); 4] {
    std::array::from_fn(|i| (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1)))
}

#[test]
fn the_places_are_those_of_the_figures_in_the_manual() {
    assert_eq!(places_of_a(0), [(0, 0), (0, 1), (8, 0), (8, 1), (0, 8), (0, 9), (8, 8), (8, 9)]);
    assert_eq!(places_of_a(5), [(1, 2), (1, 3), (9, 2), (9, 3), (1, 10), (1, 11), (9, 10), (9, 11)]);
    assert_eq!(places_of_b(30), [(4, 7), (5, 7), (12, 7), (13, 7)]);
    assert_eq!(places_of_d(23), [(5, 6), (5, 7), (13, 6), (13, 7)]);
}

type Sixteen = fn(f32) -> u16;

/// Runs a kernel on one product per element of A: A is zero but for that element, B and the accumulator have another
/// number in every place. Returns whether every element of every result is the expected one, for a kernel that multiplies
/// `depth` elements and ignores the others.
fn every_element_counts_once(kernel: &str, narrow: Sixteen, depth: usize) -> bool {
    let (stream, multiply) = open(kernel);
    let pack = |low: f32, high: f32| u32::from(narrow(low)) | u32::from(narrow(high)) << 16;
    let b_of = |t: usize, col: usize| (1 + col + 8 * t) as f32;
    let c_of = |row: usize, col: usize| (1000 + row * 8 + col) as f32;
    let (mut a, mut b, mut d, mut expected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for one in 0..256 {
        let (row, t) = (one / 16, one % 16);
        for lane in 0..32 {
            let values = places_of_a(lane).map(|place| if place == (row, t) { 2.0 } else { 0.0 });
            a.extend(values.chunks(2).map(|pair| pack(pair[0], pair[1])));
            let values = places_of_b(lane).map(|(t, col)| b_of(t, col));
            b.extend(values.chunks(2).map(|pair| pack(pair[0], pair[1])));
            for (i, col) in places_of_d(lane) {
                d.push(c_of(i, col));
                expected.push(c_of(i, col) + if i == row && t < depth { 2.0 * b_of(t, col) } else { 0.0 });
            }
        }
    }
    let (a, b) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
    let mut d = stream.clone_htod(&d).unwrap();
    // SAFETY: 256 blocks of a warp with four, two and four registers a lane.
    unsafe { stream.launch_builder(&multiply).arg(&a).arg(&b).arg(&mut d).launch(grid(256, 32, 0)) }.unwrap();
    stream.clone_dtoh(&d).unwrap() == expected
}

#[test]
fn each_element_of_a_b_and_c_is_where_the_manual_says() {
    for (capability, seed) in [(80, 0), (80, 3), (90, 0), (90, 4)] {
        let machine = Machine::new().set("CAPABILITY", capability).set("SEED", seed);
        machine.pass("each_element_of_a_b_and_c_is_where_the_manual_says", || {
            assert!(every_element_counts_once("multiply_f16", |x| f16::from_f32(x).to_bits(), 16));
            assert!(every_element_counts_once("multiply_beside_f16", |x| f16::from_f32(x).to_bits(), 16));
            // The manual's figures for mma.m16n8k8 are the first halves of those for mma.m16n8k16.
            assert!(every_element_counts_once("multiply_eights_f16", |x| f16::from_f32(x).to_bits(), 8));
            assert!(every_element_counts_once("multiply_bf16", |x| bf16::from_f32(x).to_bits(), 16));
        });
    }
}

#[test]
fn what_is_no_number_has_no_sign() {
    for capability in [80, 90] {
        Machine::new().set("CAPABILITY", capability).pass("what_is_no_number_has_no_sign", || {
            let (stream, multiply) = open("multiply_f16");
            // Zeros by infinities of either sign, and infinities that cancel.
            let (a, b) = (stream.clone_htod(&[0u32; 128]).unwrap(), stream.clone_htod(&[0xfc00_7c00u32; 64]).unwrap());
            for start in [0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
                let mut d = stream.clone_htod(&[start; 128]).unwrap();
                // SAFETY: a block of a warp with four, two and four registers a lane.
                unsafe { stream.launch_builder(&multiply).arg(&a).arg(&b).arg(&mut d).launch(grid(1, 32, 0)) }.unwrap();
                assert!(stream.clone_dtoh(&d).unwrap().iter().all(|sum| sum.to_bits() == 0x7fff_ffff), "{start}");
            }
        });
    }
}

#[test]
fn registers_in_the_wrong_order_give_other_results() {
    Machine::new().pass("registers_in_the_wrong_order_give_other_results", || {
        assert!(!every_element_counts_once("multiply_f16_in_the_wrong_order", |x| f16::from_f32(x).to_bits(), 16));
    });
}

#[test]
fn each_element_of_tf32_is_where_the_manual_says_and_its_low_bits_are_ignored() {
    Machine::new().pass("each_element_of_tf32_is_where_the_manual_says_and_its_low_bits_are_ignored", || {
        let (stream, multiply) = open("multiply_tf32");
        let (mut a, mut b, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for one in 0..128 {
            let (row, t) = (one / 8, one % 8);
            for lane in 0..32 {
                let (group, in_group) = (lane / 4, lane % 4);
                for (i, k) in
                    [(group, in_group), (group + 8, in_group), (group, in_group + 4), (group + 8, in_group + 4)]
                {
                    let value = if (i, k) == (row, t) { 1.5f32 } else { 0.0 };
                    a.push(value.to_bits() | if value == 0.0 { 0 } else { 0x1fff });
                }
                b.extend([in_group, in_group + 4].map(|k| ((1 + group + 8 * k) as f32).to_bits() | 0x1000));
                for (i, col) in places_of_d(lane) {
                    expected.push(if i == row { 1.5 * (1 + col + 8 * t) as f32 } else { 0.0 });
                }
            }
        }
        let (a, b) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
        let mut d = stream.alloc_zeros::<f32>(expected.len()).unwrap();
        // SAFETY: 128 blocks of a warp with four, two and four registers a lane.
        unsafe { stream.launch_builder(&multiply).arg(&a).arg(&b).arg(&mut d).launch(grid(128, 32, 0)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&d).unwrap(), expected);
    });
}

#[test]
fn matrices_are_loaded_row_by_row_from_the_addresses_of_the_lanes() {
    for seed in [0, 5] {
        Machine::new().set("SEED", seed).pass("matrices_are_loaded_row_by_row_from_the_addresses_of_the_lanes", || {
            let (stream, load) = open("load_matrices");
            // Element t of row r of matrix m.
            let value = |m: usize, r: usize, t: usize| (1000 * m + 10 * r + t) as u32;
            let values: Vec<u16> = (0..256).map(|i| value(i / 64, i / 8 % 8, i % 8) as u16).collect();
            let x = stream.clone_htod(&values).unwrap();
            let mut outputs = [128, 128, 64].map(|words| stream.alloc_zeros::<u32>(words).unwrap());
            let [out, trans, two] = &mut outputs;
            // SAFETY: 8 values a lane are read, 4, 4 and 2 written.
            unsafe { stream.launch_builder(&load).arg(&x).arg(out).arg(trans).arg(two).launch(grid(1, 32, 0)) }
                .unwrap();
            let [out, trans, two] = outputs.map(|output| stream.clone_dtoh(&output).unwrap());
            for lane in 0..32 {
                for m in 0..4 {
                    let (g, q) = (lane / 4, lane % 4);
                    assert_eq!(out[4 * lane + m], value(m, g, 2 * q) | value(m, g, 2 * q + 1) << 16, "{lane} {m}");
                    assert_eq!(trans[4 * lane + m], value(m, 2 * q, g) | value(m, 2 * q + 1, g) << 16, "{lane} {m}");
                    assert!(m >= 2 || two[2 * lane + m] == out[4 * lane + m], "{lane} {m}");
                }
            }
        });
    }
}

#[test]
fn copies_in_stages_arrive_before_they_are_read() {
    for seed in [0, 1, 2, 3] {
        Machine::new().set("SEED", seed).pass("copies_in_stages_arrive_before_they_are_read", || {
            let (stream, copy) = open("copy_in_stages");
            let x: Vec<f32> = (0..7 * 256).map(|i| i as f32).collect();
            for (stages, floats) in [(7, 4), (1, 4), (2, 3), (5, 1), (3, 0)] {
                // A vector that ends where the last copy does: what is not to be read is not there.
                let cut = stages as usize * 256 - (4 - floats);
                let on_device = stream.clone_htod(&x[..cut]).unwrap();
                let mut out = stream.alloc_zeros::<f32>(stages as usize * 256).unwrap();
                let mut launch = stream.launch_builder(&copy);
                launch.arg(&on_device).arg(&mut out).arg(&stages);
                let bytes = 4 * floats as u32;
                launch.arg(&bytes);
                // SAFETY: 256 values a stage, less those at the end that `bytes` leaves out.
                unsafe { launch.launch(grid(1, 64, 0)) }.unwrap();
                let expected: Vec<f32> = (0..stages as usize * 256)
                    .map(|i| i / 256 * 256 + 255 - i % 256)
                    .map(|i| if i % 4 < floats { x[i] } else { 0.0 })
                    .collect();
                assert_eq!(stream.clone_dtoh(&out).unwrap(), expected, "{stages} stages of {floats}");
            }
        });
    }
}

/// A kernel that takes 256 floats and writes 256, 64 threads.
fn launch_broken(name: &str) {
    let (stream, function) = open(name);
    let x = stream.clone_htod(&vec![1.0f32; 256]).unwrap();
    let mut out = stream.alloc_zeros::<f32>(256).unwrap();
    // SAFETY: as above. What else the kernel does wrong stays inside of the emulator.
    let launched = unsafe { stream.launch_builder(&function).arg(&x).arg(&mut out).launch(grid(1, 64, 1024)) };
    let _ = launched.and_then(|_| stream.synchronize());
}

macro_rules! finds {
    ($($test:ident: $kernel:literal, $words:expr;)*) => {$(
        #[test]
        fn $test() {
            for seed in [0, 7] {
                Machine::new().set("SEED", seed).find(stringify!($test), &$words, || launch_broken($kernel));
            }
        }
    )*};
}

finds! {
    a_copy_that_nobody_waits_for: "forgets_to_wait", ["kernel forgets_to_wait", "an asynchronous copy writes that was not waited for"];
    a_wait_that_leaves_the_group_out: "waits_for_too_few", ["kernel waits_for_too_few", "was not waited for"];
    a_copy_in_no_group: "forgets_to_commit", ["kernel forgets_to_commit", "was not waited for"];
    a_copy_without_a_barrier: "waits_without_a_barrier", ["kernel waits_without_a_barrier", "shared memory"];
    a_copy_over_what_others_read: "copies_over_what_is_read", ["kernel copies_over_what_is_read", "with no barrier between"];
    a_copy_to_an_odd_place: "copies_to_an_odd_place", ["copies asynchronously", "to what is not a multiple of 16"];
    a_copy_from_an_odd_place: "copies_from_an_odd_place", ["copies asynchronously", "from what is not a multiple of 16"];
    a_copy_from_beyond_its_vector: "copies_from_beyond", ["thread (63,0,0) reads 16 bytes"];
    a_copy_to_beyond_shared_memory: "copies_to_beyond", ["thread (63,0,0) writes 16 bytes outside of its shared memory"];
    a_matrix_at_an_odd_place: "loads_a_matrix_at_an_odd_place", ["loads a row of a matrix", "not a multiple of 16"];
    a_matrix_in_device_memory: "loads_a_matrix_from_device_memory", ["loads a row of a matrix", "not in shared memory"];
    a_matrix_beyond_shared_memory: "loads_a_matrix_beyond_shared_memory", ["thread (63,0,0) reads 16 bytes outside of its shared memory"];
    a_matrix_that_others_are_writing: "loads_a_matrix_too_early", ["kernel loads_a_matrix_too_early", "shared memory"];
    a_product_of_half_a_warp: "multiplies_with_half_a_warp", ["waits for the lanes ffffffff"];
}

/// What sums of products of f16 are off at most, relative to the norms: the model of the hardware, twice.
fn eps_acc(capability: u32, depth: usize) -> f64 {
    let (bits, step) = if capability >= 90 { (25, 16) } else { (24, 8) };
    let each = (step + 1) as f64 * 2f64.powi(-bits) + 2f64.powi(-23);
    2.0 * depth.div_ceil(step) as f64 * each
}

/// The largest error of 16 x 8 products relative to its bound, over operands that bring out the worst of a sum.
fn worst(capability: u32) -> f64 {
    let (stream, product) = open("product_f16");
    let mut worst = 0.0f64;
    for depth in [16, 32, 48, 256, 1024] {
        for kind in 0..7 {
            let mut state = (depth * 10 + kind) as u64;
            let mut random = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 24) as f32
            };
            let mut value = |row: usize, t: usize, of_b: bool| -> f16 {
                let sign = |odd: bool| if odd { -1.0f32 } else { 1.0 };
                f16::from_f32(match kind {
                    // All of one sign, all digits set: everything is cut off downwards.
                    0 => 1.0 + 0.99 * random(),
                    // One huge product among tiny ones, which lie just below what is kept beside it.
                    1 => {
                        if t == row % 16 {
                            16384.0
                        } else {
                            3.98
                        }
                    }
                    6 => {
                        if t == row % 16 {
                            16384.0
                        } else {
                            2.82
                        }
                    }
                    // Cancellation of neighbours, and of the whole sum's halves.
                    2 => sign(of_b && t % 2 == 1) * (1.5 + (t / 2 % 7) as f32 / 7.0),
                    3 => sign(of_b && t >= depth / 2) * (1000.0 + (t % (depth / 2)) as f32 / 3.0),
                    // Subnormal operands, alone and beside large ones.
                    4 => f32::from(f16::from_bits(1 + (random() * 1000.0) as u16)),
                    _ => match (t + row) % 3 {
                        0 => sign(of_b && t % 2 == 1) * 30000.0,
                        1 => f32::from(f16::from_bits(0x03ff)),
                        _ => random() - 0.5,
                    },
                })
            };
            let a: Vec<f16> = (0..16 * depth).map(|i| value(i / depth, i % depth, false)).collect();
            let b: Vec<f16> = (0..8 * depth).map(|i| value(i / depth, i % depth, true)).collect();
            let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<u16>>();
            let (on_a, on_b) = (stream.clone_htod(&bits(&a)).unwrap(), stream.clone_htod(&bits(&b)).unwrap());
            let mut d = stream.alloc_zeros::<f32>(128).unwrap();
            let steps = depth as u32;
            let mut launch = stream.launch_builder(&product);
            launch.arg(&on_a).arg(&on_b).arg(&mut d).arg(&steps);
            // SAFETY: 16 and 8 rows of `depth` values, 16 x 8 results.
            unsafe { launch.launch(grid(1, 32, 0)) }.unwrap();
            let d = stream.clone_dtoh(&d).unwrap();
            for (i, &got) in d.iter().enumerate() {
                let (x, y) = (&a[i / 8 * depth..][..depth], &b[i % 8 * depth..][..depth]);
                // Products are multiples of 2^-48, and far below 2^64 in number of these.
                let unit = |x: f16| (f64::from(x) * 2f64.powi(24)) as i128;
                let exact: i128 = x.iter().zip(y).map(|(&x, &y)| unit(x) * unit(y)).sum();
                let error = (f64::from(got) * 2f64.powi(48) - exact as f64).abs() * 2f64.powi(-48);
                let norm = |x: &[f16]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let bound = eps_acc(capability, depth) * norm(x) * norm(y);
                assert!(got.is_finite(), "kind {kind}, depth {depth}");
                worst = worst.max(error / bound);
            }
        }
    }
    worst
}

#[test]
fn sums_keep_to_the_published_bound_and_come_close_to_it() {
    for capability in ["80", "86", "89", "90"] {
        for unit in ["", "hostile"] {
            let machine = Machine::new().set("CAPABILITY", capability).set("TENSOR", unit).set("CHECK", 0);
            machine.pass("sums_keep_to_the_published_bound_and_come_close_to_it", || {
                let capability = std::env::var("CODEWORD_SIM_CAPABILITY").unwrap().parse().unwrap();
                let worst = worst(capability);
                println!("{capability}: {worst}");
                assert!(worst <= 1.0, "{worst} of the bound");
                // A bound that nothing comes near would prove nothing about the simulated unit.
                assert!(worst > 0.3, "{worst} of the bound");
            });
        }
    }
}

#[test]
fn a_unit_that_keeps_fewer_bits_breaks_the_bound() {
    for capability in ["80", "90"] {
        let machine = Machine::new().set("CAPABILITY", capability).set("TENSOR", "coarse").set("CHECK", 0);
        machine.pass("a_unit_that_keeps_fewer_bits_breaks_the_bound", || {
            let capability = std::env::var("CODEWORD_SIM_CAPABILITY").unwrap().parse().unwrap();
            let worst = worst(capability);
            assert!(worst > 10.0, "{worst} of the bound");
        });
    }
}
