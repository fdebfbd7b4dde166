//! The simulated CUDA driver itself: what it computes is what the CUDA manuals say, and what it has to find, it finds.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "common/simulated/mod.rs"]
mod simulated;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg};
use simulated::Machine;
use std::sync::Arc;

/// PTX text that names kernels and has no bodies: the simulated driver runs the source that it was built with.
fn ptx(names: &[&str]) -> String {
    let entries: Vec<String> = names.iter().map(|name| format!(".visible .entry {name}() {{ ret; }}")).collect();
    format!(".version 8.0\n.target sm_80\n.address_size 64\n{}\n", entries.join("\n"))
}

fn open() -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = CudaContext::new(0).expect("the simulated device opens");
    let stream = context.new_stream().expect("a stream");
    (context, stream)
}

fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    let module = context.load_module(cudarc::nvrtc::Ptx::from_src(ptx(&[name]))).expect("the module loads");
    module.load_function(name).expect("the kernel is there")
}

fn grid(blocks: u32, threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

#[test]
fn a_kernel_computes_what_its_source_says() {
    Machine::new().pass("a_kernel_computes_what_its_source_says", || {
        let (context, stream) = open();
        let saxpy = kernel(&context, "saxpy");
        let x = stream.clone_htod(&(0..1000).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        let mut y = stream.clone_htod(&vec![1.0f32; 1000]).unwrap();
        let mut launch = stream.launch_builder(&saxpy);
        launch.arg(&1000i32).arg(&2.0f32).arg(&x).arg(&mut y);
        // SAFETY: the arguments are those of `saxpy`, and both vectors hold n values.
        unsafe { launch.launch(grid(4, 256, 0)) }.unwrap();
        let expected: Vec<f32> = (0..1000).map(|i| 2.0 * i as f32 + 1.0).collect();
        assert_eq!(stream.clone_dtoh(&y).unwrap(), expected);
    });
}

#[test]
fn threads_meet_at_barriers_and_exchange_values_in_warps() {
    Machine::new().pass("threads_meet_at_barriers_and_exchange_values_in_warps", || {
        let (context, stream) = open();
        let numbers: Vec<u32> = (0..1024).map(|i| i * i + 7).collect();
        let expected: Vec<u32> = numbers.chunks(256).map(|block| block.iter().sum()).collect();
        let x = stream.clone_htod(&numbers).unwrap();
        let mut sums = stream.alloc_zeros::<u32>(4).unwrap();
        let sum = kernel(&context, "sum_u32");
        // SAFETY: four blocks of 256 threads read 1024 values and write four.
        unsafe { stream.launch_builder(&sum).arg(&x).arg(&mut sums).launch(grid(4, 256, 0)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&sums).unwrap(), expected);

        // The same template for another type has a shared array of its own.
        let x = stream.clone_htod(&numbers.iter().map(|&x| x as f64 / 4.0).collect::<Vec<_>>()).unwrap();
        let mut sums = stream.alloc_zeros::<f64>(4).unwrap();
        let sum = kernel(&context, "sum_f64");
        // SAFETY: as above.
        unsafe { stream.launch_builder(&sum).arg(&x).arg(&mut sums).launch(grid(4, 256, 0)) }.unwrap();
        let expected: Vec<f64> = expected.into_iter().map(|sum| f64::from(sum) / 4.0).collect();
        assert_eq!(stream.clone_dtoh(&sums).unwrap(), expected);
    });
}

#[test]
fn what_a_warp_orders_by_its_own_barrier_is_no_race() {
    Machine::new().pass("what_a_warp_orders_by_its_own_barrier_is_no_race", || {
        let (context, stream) = open();
        let mut out = stream.alloc_zeros::<i32>(32).unwrap();
        let turns = kernel(&context, "take_turns");
        // SAFETY: one value per thread.
        unsafe { stream.launch_builder(&turns).arg(&mut out).launch(grid(1, 32, 0)) }.unwrap();
        // 0 + ... + 31 in the first turn, 32 more in each after it.
        assert_eq!(stream.clone_dtoh(&out).unwrap(), [8 * 496 + 32 * 28; 32]);
    });
}

#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    Machine::new().pass("dynamic_shared_memory_has_the_size_of_the_launch", || {
        let (context, stream) = open();
        let mut x = stream.clone_htod(&(0..96u32).collect::<Vec<_>>()).unwrap();
        let reverse = kernel(&context, "reverse");
        // SAFETY: three blocks of 32 threads, four bytes of shared memory for each.
        unsafe { stream.launch_builder(&reverse).arg(&mut x).launch(grid(3, 32, 128)) }.unwrap();
        let expected: Vec<u32> = (0..3).flat_map(|block| (block * 32..block * 32 + 32).rev()).collect();
        assert_eq!(stream.clone_dtoh(&x).unwrap(), expected);
    });
}

#[test]
fn atomics_count_every_thread() {
    Machine::new().pass("atomics_count_every_thread", || {
        let (context, stream) = open();
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * i % 7) as u8).collect();
        let x = stream.clone_htod(&bytes).unwrap();
        let mut counts = stream.alloc_zeros::<u32>(7).unwrap();
        let mut total = stream.alloc_zeros::<u64>(1).unwrap();
        let mut weight = stream.alloc_zeros::<f32>(1).unwrap();
        let histogram = kernel(&context, "histogram");
        let mut launch = stream.launch_builder(&histogram);
        launch.arg(&5000i32).arg(&x).arg(&mut counts).arg(&mut total).arg(&mut weight);
        // SAFETY: the arguments are those of `histogram`, the bytes are below 7.
        unsafe { launch.launch(grid(3, 128, 0)) }.unwrap();
        let expected: Vec<u32> =
            (0..7).map(|value| bytes.iter().filter(|&&byte| byte == value).count() as u32).collect();
        assert_eq!(stream.clone_dtoh(&counts).unwrap(), expected);
        assert_eq!(stream.clone_dtoh(&total).unwrap(), [bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()]);
        assert_eq!(stream.clone_dtoh(&weight).unwrap(), [2500.0]);
    });
}

#[test]
fn grids_and_blocks_have_three_dimensions() {
    for seed in [0, 1, 2] {
        Machine::new().set("SEED", seed).pass("grids_and_blocks_have_three_dimensions", || {
            let (context, stream) = open();
            let mut out = stream.alloc_zeros::<u32>(4 * 3 * 2 * 2 * 3 * 5).unwrap();
            let number = kernel(&context, "number_threads");
            let config = LaunchConfig { grid_dim: (4, 3, 2), block_dim: (2, 3, 5), shared_mem_bytes: 0 };
            // SAFETY: one value per thread.
            unsafe { stream.launch_builder(&number).arg(&mut out).launch(config) }.unwrap();
            assert_eq!(stream.clone_dtoh(&out).unwrap(), (0..720).collect::<Vec<u32>>());
        });
    }
}

#[test]
fn structures_and_small_types_are_passed_by_value() {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Shape {
        rows: u32,
        scale: f64,
        flag: u8,
    }
    // SAFETY: the layout is that of `Shape` in the kernel file, and it holds no pointers.
    unsafe impl cudarc::driver::DeviceRepr for Shape {}
    Machine::new().pass("structures_and_small_types_are_passed_by_value", || {
        let (context, stream) = open();
        let mut out = stream.alloc_zeros::<f64>(4).unwrap();
        let by_value = kernel(&context, "by_value");
        let shape = Shape { rows: 3, scale: 0.25, flag: 200 };
        // SAFETY: the arguments are those of `by_value`.
        unsafe { stream.launch_builder(&by_value).arg(&shape).arg(&-5i16).arg(&mut out).launch(grid(1, 1, 0)) }
            .unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), [3.0, 0.25, 200.0, -5.0]);
    });
}

/// Launches a kernel of `broken.cu` that takes one vector to write, and waits for it.
fn launch_broken(name: &str, config: LaunchConfig) -> Result<(), DriverError> {
    let (context, stream) = open();
    let mut out = stream.alloc_zeros::<i32>(64).unwrap();
    let function = kernel(&context, name);
    // SAFETY: the vector has one value per thread. What else the kernel does wrong stays inside of the emulator.
    unsafe { stream.launch_builder(&function).arg(&mut out).launch(config) }?;
    stream.synchronize()
}

macro_rules! finds {
    ($($test:ident: $kernel:literal, $config:expr, $words:expr;)*) => {$(
        #[test]
        fn $test() {
            Machine::new().find(stringify!($test), &$words, || {
                let _ = launch_broken($kernel, $config);
            });
        }
    )*};
}

finds! {
    a_barrier_that_some_threads_never_reach: "diverges", grid(1, 64, 0),
        ["kernel diverges, block (0,0,0), thread (16,0,0) waits at __syncthreads", "thread (0,0,0) has left the kernel"];
    a_barrier_in_two_places: "meets_elsewhere", grid(1, 64, 0), ["thread (0,0,0) waits at __syncthreads", "thread (32,0,0) waits"];
    a_shuffle_without_one_of_its_lanes: "leaves_its_warp", grid(1, 64, 0),
        ["thread (0,0,0) waits for the lanes ffffffff", "thread (3,0,0) waits at __syncthreads"];
    a_lane_that_is_not_in_its_mask: "not_in_the_mask", grid(1, 32, 0), ["thread (8,0,0)", "not in the mask 000000ff"];
    a_missing_barrier: "forgets_the_barrier", grid(1, 64, 0), ["kernel forgets_the_barrier", "shared memory", "nothing in the block has written"];
    a_missing_warp_barrier: "forgets_the_warp_barrier", grid(1, 32, 0), ["thread (16,0,0) reads shared memory", "thread (15,0,0) wrote, with no barrier between"];
    shared_memory_that_nobody_wrote: "reads_shared_too_early", grid(1, 64, 0), ["thread (32,0,0) reads shared memory", "nothing in the block has written"];
    a_write_behind_dynamic_shared_memory: "overruns_dynamic", grid(1, 64, 128), ["thread (32,0,0) writes 4 bytes outside of its shared memory"];
    a_write_to_shared_memory_that_is_not_aligned: "writes_misaligned", grid(1, 1, 0),
        ["thread (0,0,0) writes", "byte 12 of shared memory", "not aligned to 8 bytes"];
    blocks_that_write_the_same_bytes: "blocks_collide", grid(2, 32, 0), ["block (1,0,0), thread (0,0,0) writes", "another block wrote"];
}

fn floats(stream: &Arc<CudaStream>, count: usize) -> cudarc::driver::CudaSlice<f32> {
    stream.clone_htod(&vec![1.0; count]).unwrap()
}

/// What the parent of this process set with `.set("CASE", ..)`.
fn case() -> i32 {
    std::env::var("CODEWORD_SIM_CASE").expect("set by the parent").parse().expect("a number")
}

#[test]
fn a_write_out_of_bounds_names_the_thread_and_ends_the_launch() {
    const NAME: &str = "a_write_out_of_bounds_names_the_thread_and_ends_the_launch";
    // The first byte outside, one before the start, and one far behind the end, with both placements of the guard page.
    for (n, words) in [
        (55, "offset 240 of allocation #1 (240 bytes), out of bounds"),
        (-6, "offset -4 of"),
        (1 << 20, "never allocated"),
    ] {
        for low in [0, 1] {
            let words = ["kernel writes_beyond, block (0,0,0), thread (5,0,0) writes 4 bytes at ", words];
            Machine::new().set("GUARD_LOW", low).set("CASE", n).find(NAME, &words, || {
                let (context, stream) = open();
                let mut out = floats(&stream, 60);
                let writes = kernel(&context, "writes_beyond");
                // SAFETY: no; that is what this test is about, and the emulator stops it.
                unsafe { stream.launch_builder(&writes).arg(&case()).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
                assert_eq!(stream.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
                // As on a real device nothing works any more after that.
                assert!(stream.alloc_zeros::<f32>(1).is_err());
            });
        }
    }
}

#[test]
fn a_read_out_of_bounds() {
    Machine::new().find(
        "a_read_out_of_bounds",
        &["kernel reads_beyond, block (0,0,0), thread (4,0,0) reads 4 bytes at offset 32"],
        || {
            let (context, stream) = open();
            let (x, mut out) = (floats(&stream, 8), floats(&stream, 8));
            let reads = kernel(&context, "reads_beyond");
            // SAFETY: no; that is what this test is about, and the emulator stops it.
            unsafe { stream.launch_builder(&reads).arg(&4i32).arg(&x).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
            assert!(stream.synchronize().is_err());
        },
    );
}

/// Launches `copies` with addresses instead of slices.
fn copy_by_address(context: &Arc<CudaContext>, stream: &CudaStream, from: u64, to: u64) -> Result<(), DriverError> {
    let copies = kernel(context, "copies");
    // SAFETY: whatever the addresses are, the emulator checks them.
    unsafe { stream.launch_builder(&copies).arg(&from).arg(&to).launch(grid(1, 8, 0)) }.map(|_| ())
}

#[test]
fn memory_that_was_never_written() {
    Machine::new().find(
        "memory_that_was_never_written",
        &["kernel copies", "thread (0,0,0) reads 4 bytes at offset 0", "which nothing has written"],
        || {
            let (context, stream) = open();
            // SAFETY: no; that is what this test is about.
            let x = unsafe { stream.alloc::<f32>(8) }.unwrap();
            let mut out = floats(&stream, 8);
            let copies = kernel(&context, "copies");
            // SAFETY: both vectors hold eight values.
            unsafe { stream.launch_builder(&copies).arg(&x).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
            stream.synchronize().unwrap();
        },
    );
}

#[test]
fn a_read_of_four_values_that_are_not_aligned() {
    let words =
        ["kernel reads_misaligned, block (0,0,0), thread (1,0,0) reads", "offset 4 of", "not aligned to 16 bytes"];
    Machine::new().find("a_read_of_four_values_that_are_not_aligned", &words, || {
        let (context, stream) = open();
        let (x, mut out) = (floats(&stream, 8), floats(&stream, 8));
        let reads = kernel(&context, "reads_misaligned");
        // SAFETY: no; that is what this test is about, and the emulator stops it.
        unsafe { stream.launch_builder(&reads).arg(&x).arg(&mut out).launch(grid(1, 4, 0)) }.unwrap();
        assert_eq!(stream.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_MISALIGNED_ADDRESS);
    });
}

#[test]
fn memory_that_was_never_written_read_by_the_host() {
    Machine::new().find(
        "memory_that_was_never_written_read_by_the_host",
        &["a copy to the host of 32 bytes", "which nothing has written"],
        || {
            let (_context, stream) = open();
            // SAFETY: no; that is what this test is about.
            let x = unsafe { stream.alloc::<f32>(8) }.unwrap();
            // NaN, so that a result computed from it shows.
            assert!(stream.clone_dtoh(&x).unwrap().iter().all(|x| x.is_nan()));
        },
    );
}

#[test]
fn memory_that_was_freed() {
    for pools in [0, 1] {
        Machine::new().set("POOLS", pools).find(
            "memory_that_was_freed",
            &["kernel copies", "reads 4 bytes at offset 0 of allocation #1", "freed by cuMemFree"],
            || {
                let (context, stream) = open();
                let (x, out) = (floats(&stream, 8), floats(&stream, 8));
                let (from, to) = (x.device_ptr(&stream).0, out.device_ptr(&stream).0);
                drop(x);
                copy_by_address(&context, &stream, from, to).unwrap();
                assert_eq!(stream.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
            },
        );
    }
}

#[test]
fn a_host_address_as_an_argument() {
    Machine::new().find(
        "a_host_address_as_an_argument",
        &["launch of copies: argument 0 is 0x", "which is not device memory"],
        || {
            let (context, stream) = open();
            let (x, out) = ([1.0f32; 8], floats(&stream, 8));
            let to = out.device_ptr(&stream).0;
            let error = copy_by_address(&context, &stream, x.as_ptr() as u64, to).unwrap_err();
            assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
        },
    );
}

#[test]
fn a_host_address_inside_of_device_memory() {
    Machine::new().find(
        "a_host_address_inside_of_device_memory",
        &["kernel follows, block (0,0,0), thread (0,0,0) reads 4 bytes at 0x", "which is not device memory"],
        || {
            let (context, stream) = open();
            let x = [1.0f32; 8];
            let table = stream.clone_htod(&[x.as_ptr() as u64]).unwrap();
            let mut out = floats(&stream, 8);
            let follows = kernel(&context, "follows");
            // SAFETY: no; that is what this test is about, and the emulator stops it.
            unsafe { stream.launch_builder(&follows).arg(&table).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
            assert!(stream.synchronize().is_err());
        },
    );
}

#[test]
fn a_device_address_is_none_of_the_host() {
    if !simulated::is_available() {
        return;
    }
    // The process dies of it, as it would with a real device.
    let output = Machine::new().run("a_device_address_is_none_of_the_host", || {
        let (_context, stream) = open();
        let x = floats(&stream, 8);
        let address = x.device_ptr(&stream).0 as *const f32;
        // SAFETY: no; that is what this test is about.
        let value = unsafe { std::ptr::read_volatile(address) };
        println!("the host read {value}");
    });
    assert!(!output.status.success());
    assert!(!simulated::text(&output).contains("the host read"));
}

#[test]
fn memory_that_nobody_frees() {
    Machine::new().find("memory_that_nobody_frees", &["leak: allocation #1 of 32 bytes"], || {
        let (_context, stream) = open();
        std::mem::forget(floats(&stream, 8));
    });
}

#[test]
fn a_failed_assertion() {
    Machine::new().find(
        "a_failed_assertion",
        &["kernel asserts, block (0,0,0), thread (3,0,0): assertion failed: (int)threadIdx.x < n"],
        || {
            let (context, stream) = open();
            let mut out = stream.alloc_zeros::<i32>(8).unwrap();
            let asserts = kernel(&context, "asserts");
            // SAFETY: one value per thread.
            unsafe { stream.launch_builder(&asserts).arg(&3i32).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
            assert_eq!(stream.synchronize().unwrap_err().0, CUresult::CUDA_ERROR_ASSERT);
        },
    );
}

#[test]
fn a_stack_that_overflows() {
    Machine::new().find(
        "a_stack_that_overflows",
        &["kernel runs_deep, block (0,0,0), thread (0,0,0) runs out of its stack"],
        || {
            let (context, stream) = open();
            let mut out = stream.alloc_zeros::<i32>(8).unwrap();
            let deep = kernel(&context, "runs_deep");
            // SAFETY: one value per thread.
            unsafe { stream.launch_builder(&deep).arg(&1000i32).arg(&mut out).launch(grid(1, 8, 0)) }.unwrap();
            assert!(stream.synchronize().is_err());
        },
    );
}
