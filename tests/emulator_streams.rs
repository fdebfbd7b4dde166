//! The simulated CUDA driver's streams, events, modules and cuBLAS: the order that the manuals promise, and no other.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "common/simulated/mod.rs"]
mod simulated;

use cudarc::cublas::{CudaBlas, Gemm, GemmConfig, sys::cublasOperation_t};
use cudarc::driver::sys::{CUevent_flags, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PinnedHostSlice, PushKernelArg};
use simulated::Machine;
use std::sync::Arc;

fn ptx(version: &str, target: &str, name: &str) -> cudarc::nvrtc::Ptx {
    let text = format!(".version {version}\n.target {target}\n.address_size 64\n.visible .entry {name}() {{ ret; }}\n");
    cudarc::nvrtc::Ptx::from_src(text)
}

fn open() -> Arc<CudaContext> {
    CudaContext::new(0).expect("the simulated device opens")
}

fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    context.load_module(ptx("8.0", "sm_75", name)).unwrap().load_function(name).unwrap()
}

fn pinned(context: &Arc<CudaContext>, len: usize) -> PinnedHostSlice<f32> {
    // SAFETY: floats of any bits are floats.
    unsafe { context.alloc_pinned_with_flags(len, 0) }.unwrap()
}

fn add(stream: &CudaStream, function: &CudaFunction, by: f32, x: &mut CudaSlice<f32>) {
    let n = x.len() as i32;
    // SAFETY: the arguments are those of `add`, and the vector holds n values.
    unsafe { stream.launch_builder(function).arg(&n).arg(&by).arg(x).launch(LaunchConfig::for_num_elems(n as u32)) }
        .unwrap();
}

#[test]
fn work_in_a_stream_waits_until_somebody_waits_for_it() {
    Machine::new().pass("work_in_a_stream_waits_until_somebody_waits_for_it", || {
        let context = open();
        let stream = context.new_stream().unwrap();
        let add_kernel = kernel(&context, "add");
        let mut x = stream.clone_htod(&[1.0f32, 2.0]).unwrap();
        add(&stream, &add_kernel, 0.5, &mut x);
        let mut out = pinned(&context, 2);
        let address = out.as_mut_ptr().unwrap();
        stream.memcpy_dtoh(&x, &mut out).unwrap();
        let event = stream.record_event(None).unwrap();
        // SAFETY: the memory is alive; that the copy into it has not run is the point.
        assert!(unsafe { address.read() }.is_nan());
        assert!(!event.is_complete());
        stream.synchronize().unwrap();
        assert_eq!(out.as_slice().unwrap(), [1.5, 2.5]);
        assert!(event.is_complete());
    });
}

#[test]
fn pinned_memory_is_read_when_the_copy_runs_and_pageable_memory_when_it_is_asked_for() {
    Machine::new().pass("pinned_memory_is_read_when_the_copy_runs_and_pageable_memory_when_it_is_asked_for", || {
        let context = open();
        // SAFETY: the buffers live until the end; that one is changed too early is the point.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().unwrap();
        let mut page_locked = pinned(&context, 1);
        let mut pageable = vec![1.0f32];
        page_locked.as_mut_slice().unwrap()[0] = 1.0;
        let address = page_locked.as_mut_ptr().unwrap();
        let a = stream.clone_htod(&page_locked).unwrap();
        let b = stream.clone_htod(&pageable).unwrap();
        // SAFETY: the memory is alive; the copy that reads it has not run.
        unsafe { address.write(2.0) };
        pageable[0] = 2.0;
        assert_eq!(stream.clone_dtoh(&a).unwrap(), [2.0]);
        assert_eq!(stream.clone_dtoh(&b).unwrap(), [1.0]);
    });
}

/// Two streams write and read one vector; `ordered` says whether an event stands between.
fn two_streams(ordered: bool) {
    let context = open();
    // SAFETY: the events that order the streams are set by hand below, or left out on purpose.
    unsafe { context.disable_event_tracking() };
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let add_kernel = kernel(&context, "add");
    let mut x = first.clone_htod(&[1.0f32; 256]).unwrap();
    first.synchronize().unwrap();
    add(&first, &add_kernel, 1.0, &mut x);
    if ordered {
        second.join(&first).unwrap();
    }
    let got = second.clone_dtoh(&x).unwrap();
    first.synchronize().unwrap();
    if ordered {
        assert_eq!(got, [2.0; 256]);
    }
    first.join(&second).unwrap();
}

#[test]
fn streams_that_an_event_orders_are_clean_in_any_order_of_execution() {
    for seed in 0..8 {
        Machine::new()
            .set("SEED", seed)
            .pass("streams_that_an_event_orders_are_clean_in_any_order_of_execution", || two_streams(true));
    }
}

#[test]
fn another_streams_unfinished_result_is_found_in_any_order_of_execution() {
    for seed in 0..8 {
        Machine::new().set("SEED", seed).find(
            "another_streams_unfinished_result_is_found_in_any_order_of_execution",
            &["on stream", "use the same bytes of allocation #1", "no event or wait orders them"],
            || two_streams(false),
        );
    }
}

#[test]
fn memory_freed_in_one_stream_while_another_uses_it() {
    Machine::new().find(
        "memory_freed_in_one_stream_while_another_uses_it",
        &["use the same bytes of allocation #1", "no event"],
        || {
            let context = open();
            // SAFETY: left unordered on purpose.
            unsafe { context.disable_event_tracking() };
            let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
            let add_kernel = kernel(&context, "add");
            let mut x = first.clone_htod(&[1.0f32; 256]).unwrap();
            first.synchronize().unwrap();
            add(&second, &add_kernel, 1.0, &mut x);
            second.record_event(None).unwrap();
            context.default_stream().synchronize().unwrap();
            second.synchronize().unwrap();
            add(&second, &add_kernel, 1.0, &mut x);
            drop(x);
            context.synchronize().unwrap();
        },
    );
}

#[test]
fn copies_and_kernels_of_two_streams_overlap_in_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    Machine::new().set("TRACE", file.display()).pass("copies_and_kernels_of_two_streams_overlap_in_the_trace", || {
        let context = open();
        let streams = [context.new_stream().unwrap(), context.new_stream().unwrap()];
        let add_kernel = kernel(&context, "add");
        let buffers: Vec<_> = streams.iter().map(|_| pinned(&context, 1 << 18)).collect();
        let mut buffers = buffers;
        for buffer in &mut buffers {
            buffer.as_mut_slice().unwrap().fill(1.0);
        }
        for (stream, buffer) in streams.iter().zip(&buffers) {
            let mut x = stream.clone_htod(buffer).unwrap();
            add(stream, &add_kernel, 1.0, &mut x);
        }
        context.synchronize().unwrap();
    });
    // The times of operations whose description begins with `what`.
    let text = std::fs::read_to_string(&file).unwrap();
    let times = |what: &str| -> Vec<(f64, f64)> {
        let line = |line: &str| {
            let fields: Vec<&str> = line.strip_prefix("submit ")?.splitn(6, ' ').collect();
            let number = |field: &str| field.split('=').nth(1)?.parse().ok();
            if fields[5].starts_with(what) { Some((number(fields[3])?, number(fields[4])?)) } else { None }
        };
        text.lines().filter_map(line).collect()
    };
    let (copies, launches) = (times("copy_htod"), times("launch add"));
    assert_eq!((copies.len(), launches.len()), (2, 2), "{text}");
    assert!(
        copies[1].0 < launches[0].1 && launches[0].0 < copies[1].1,
        "the second copy runs beside the first kernel\n{text}"
    );
    assert!(
        copies[0].1 <= launches[0].0 && copies[0].1 <= copies[1].0,
        "one engine copies in, and a kernel waits for its data\n{text}"
    );
}

#[test]
fn events_measure_simulated_time() {
    Machine::new().pass("events_measure_simulated_time", || {
        let context = open();
        let stream = context.new_stream().unwrap();
        let add_kernel = kernel(&context, "add");
        let mut x = stream.alloc_zeros::<f32>(1 << 16).unwrap();
        let start = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        add(&stream, &add_kernel, 1.0, &mut x);
        let end = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        let time = start.elapsed_ms(&end).unwrap();
        assert!(time > 0.0 && time < 1.0, "{time}");
    });
}

#[test]
fn a_module_needs_a_driver_and_a_device_that_know_it() {
    if !simulated::is_available() {
        return;
    }
    use CUresult::{CUDA_ERROR_INVALID_PTX as INVALID, CUDA_ERROR_UNSUPPORTED_PTX_VERSION as TOO_NEW};
    let loads =
        |driver: i32, capability: i32, version: &'static str, target: &'static str, expected: Option<CUresult>| {
            let machine = Machine::new().set("DRIVER", driver).set("CAPABILITY", capability);
            let machine = machine.set("VERSION", version).set("TARGET", target);
            let expected_text = expected.map_or("loaded".into(), |error| format!("{error:?}"));
            let output = machine.run("a_module_needs_a_driver_and_a_device_that_know_it", || {
                let text = |name: &str| std::env::var(format!("CODEWORD_SIM_{name}")).unwrap();
                let loaded = open().load_module(ptx(&text("VERSION"), &text("TARGET"), "add"));
                println!("result: {}", loaded.map_or_else(|error| format!("{:?}", error.0), |_| "loaded".into()));
            });
            let text = simulated::text(&output);
            assert!(
                text.contains(&format!("result: {expected_text}\n")),
                "driver {driver}, {version} {target} on {capability}: {text}"
            );
            assert!(output.status.success(), "{text}");
        };
    loads(12000, 80, "8.0", "sm_80", None);
    loads(12000, 90, "8.0", "sm_90a", None);
    loads(13000, 120, "9.0", "sm_80", None);
    loads(12080, 89, "8.7", "sm_89", None);
    loads(11070, 80, "8.0", "sm_80", Some(TOO_NEW)); // a 515 driver
    loads(12000, 80, "9.0", "sm_80", Some(TOO_NEW)); // nvcc 13 and a 525 driver
    loads(12080, 75, "8.0", "sm_80", Some(INVALID)); // a Turing
    loads(12080, 100, "8.0", "sm_90a", Some(INVALID)); // what only a Hopper runs
    loads(12080, 80, "x", "sm_80", Some(INVALID));
}

#[test]
fn ptx_that_is_not_of_its_source_is_found() {
    Machine::new().find("ptx_that_is_not_of_its_source_is_found", &["parameters of add", "stale"], || {
        let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry add(\n.param .u32 add_param_0,\n\
                    .param .f32 add_param_1\n)\n{ ret; }\n";
        let _ = open().load_module(cudarc::nvrtc::Ptx::from_src(text));
    });
}

#[test]
fn a_launch_that_a_device_would_refuse_is_refused() {
    Machine::new().pass("a_launch_that_a_device_would_refuse_is_refused", || {
        let context = open();
        let stream = context.new_stream().unwrap();
        let mut x = stream.alloc_zeros::<f32>(4).unwrap();
        let multiply = kernel(&context, "multiply");
        let add_kernel = kernel(&context, "add");
        let mut try_to = |function: &CudaFunction, grid: (u32, u32, u32), block: (u32, u32, u32), shared: u32| {
            let config = LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: shared };
            // SAFETY: these launches fail before anything runs.
            unsafe { stream.launch_builder(function).arg(&0i32).arg(&0.0f32).arg(&mut x).arg(&0u64).launch(config) }
        };
        assert!(try_to(&add_kernel, (0, 1, 1), (1, 1, 1), 0).is_err(), "an empty grid");
        assert!(try_to(&add_kernel, (1, 65536, 1), (1, 1, 1), 0).is_err(), "a grid too high");
        assert!(try_to(&add_kernel, (1, 1, 1), (1025, 1, 1), 0).is_err(), "a block too large");
        assert!(try_to(&add_kernel, (1, 1, 1), (1, 1, 65), 0).is_err(), "a block too deep");
        assert!(try_to(&multiply, (1, 1, 1), (257, 1, 1), 0).is_err(), "more threads than the launch bound");
        assert!(
            try_to(&add_kernel, (1, 1, 1), (1, 1, 1), 49153).is_err(),
            "more shared memory than allowed by default"
        );
        use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
        assert!(add_kernel.set_attribute(SHARED, 164 << 10).is_err(), "more than the device has");
        add_kernel.set_attribute(SHARED, 163 << 10).unwrap();
        assert!(try_to(&add_kernel, (1, 1, 1), (1, 1, 1), 163 << 10).is_ok());
    });
}

#[test]
fn cublas_multiplies_in_the_order_of_its_stream() {
    Machine::new().pass("cublas_multiplies_in_the_order_of_its_stream", || {
        let context = open();
        let stream = context.new_stream().unwrap();
        let blas = CudaBlas::new(stream.clone()).unwrap();
        const N: usize = 48;
        let matrix = |seed: usize| (0..N * N).map(|i| ((i * 7 + seed) % 11) as f32 - 5.0).collect::<Vec<f32>>();
        let (a, b) = (matrix(1), matrix(4));
        let (on_a, on_b) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
        let mut c = stream.alloc_zeros::<f32>(N * N).unwrap();
        // Column by column b a is row by row a b; the transposed second factor tells the two apart.
        let n = N as i32;
        let config = GemmConfig {
            transa: cublasOperation_t::CUBLAS_OP_T,
            transb: cublasOperation_t::CUBLAS_OP_N,
            m: n,
            n,
            k: n,
            alpha: 2.0f32,
            lda: n,
            ldb: n,
            beta: 0.0,
            ldc: n,
        };
        // SAFETY: three matrices of n x n.
        unsafe { blas.gemm(config, &on_b, &on_a, &mut c) }.unwrap();
        let expected: Vec<f32> =
            (0..N * N).map(|i| 2.0 * (0..N).map(|t| a[i / N * N + t] * b[i % N * N + t]).sum::<f32>()).collect();
        assert_eq!(stream.clone_dtoh(&c).unwrap(), expected);

        // The same through a kernel, for the work that such a kernel is.
        let transposed: Vec<f32> = (0..N * N).map(|i| 2.0 * b[i % N * N + i / N]).collect();
        let on_b = stream.clone_htod(&transposed).unwrap();
        let mut d = stream.alloc_zeros::<f32>(N * N).unwrap();
        let multiply = kernel(&context, "multiply");
        let config = LaunchConfig { grid_dim: (3, 3, 1), block_dim: (16, 16, 1), shared_mem_bytes: 0 };
        // SAFETY: as above.
        unsafe { stream.launch_builder(&multiply).arg(&n).arg(&on_a).arg(&on_b).arg(&mut d).launch(config) }.unwrap();
        assert_eq!(stream.clone_dtoh(&d).unwrap(), expected);
    });
}
