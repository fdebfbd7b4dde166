//! The simulated device's arithmetic: halves, rounding directions and warp operations, against other implementations.
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

fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

#[test]
fn every_half_becomes_the_float_that_it_is() {
    Machine::new().pass("every_half_becomes_the_float_that_it_is", || {
        let (stream, widen) = open("widen");
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let x = stream.clone_htod(&bits).unwrap();
        let (mut halves, mut bfloats) =
            (stream.alloc_zeros::<f32>(65536).unwrap(), stream.alloc_zeros::<f32>(65536).unwrap());
        // SAFETY: 65536 values in each vector.
        unsafe {
            stream.launch_builder(&widen).arg(&x).arg(&x).arg(&mut halves).arg(&mut bfloats).launch(grid(256, 256))
        }
        .unwrap();
        let (halves, bfloats) = (stream.clone_dtoh(&halves).unwrap(), stream.clone_dtoh(&bfloats).unwrap());
        for (i, &bits) in bits.iter().enumerate() {
            let (half, bfloat) = (f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32());
            assert!(halves[i].to_bits() == half.to_bits() || (halves[i].is_nan() && half.is_nan()), "half {bits:#x}");
            assert!(
                bfloats[i].to_bits() == bfloat.to_bits() || (bfloats[i].is_nan() && bfloat.is_nan()),
                "bfloat {bits:#x}"
            );
        }
    });
}

#[test]
fn floats_become_the_nearest_half_and_ties_the_even_one() {
    Machine::new().pass("floats_become_the_nearest_half_and_ties_the_even_one", || {
        let (stream, narrow) = open("narrow");
        // Each half, the middle to the next one, and the floats beside both; then floats from all over.
        let around = |bits: u16, widen: fn(u16) -> f32| {
            let (low, high) = (widen(bits), widen(bits.wrapping_add(1)));
            let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
            [
                low,
                middle,
                f32::from_bits(middle.to_bits().wrapping_add(1)),
                f32::from_bits(middle.to_bits().wrapping_sub(1)),
            ]
        };
        let mut x: Vec<f32> =
            (0..=u16::MAX).flat_map(|bits| around(bits, |bits| f16::from_bits(bits).to_f32())).collect();
        x.extend((0..=u16::MAX).flat_map(|bits| around(bits, |bits| bf16::from_bits(bits).to_f32())));
        x.extend((0..1u32 << 16).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))));
        let n = x.len();
        assert_eq!(n % 256, 0);
        let on_device = stream.clone_htod(&x).unwrap();
        let (mut halves, mut bfloats) = (stream.alloc_zeros::<u16>(n).unwrap(), stream.alloc_zeros::<u16>(n).unwrap());
        let config = grid((n / 256) as u32, 256);
        // SAFETY: n values in each vector.
        unsafe { stream.launch_builder(&narrow).arg(&on_device).arg(&mut halves).arg(&mut bfloats).launch(config) }
            .unwrap();
        let (halves, bfloats) = (stream.clone_dtoh(&halves).unwrap(), stream.clone_dtoh(&bfloats).unwrap());
        for i in 0..n {
            let (half, bfloat) = (f16::from_bits(halves[i]), bf16::from_bits(bfloats[i]));
            assert!(
                half.to_bits() == f16::from_f32(x[i]).to_bits() || (half.is_nan() && x[i].is_nan()),
                "{:e} to {half}",
                x[i]
            );
            assert!(
                bfloat.to_bits() == bf16::from_f32(x[i]).to_bits() || (bfloat.is_nan() && x[i].is_nan()),
                "{:e} to {bfloat}",
                x[i]
            );
        }
    });
}

#[test]
fn directed_rounding_encloses_the_real_number_as_closely_as_floats_can() {
    Machine::new().pass("directed_rounding_encloses_the_real_number_as_closely_as_floats_can", || {
        let (stream, rounded) = open("rounded");
        let number = |i: u32, seed: u32| {
            let bits = (i + 1).wrapping_mul(0x9e37_79b9).rotate_left(seed);
            f32::from_bits((bits & 0x007f_ffff) | ((117 + bits % 20) << 23))
        };
        let (a, b): (Vec<f32>, Vec<f32>) = (0..256).map(|i| (number(i, 3), number(i, 11))).unzip();
        let (on_a, on_b) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
        let mut out = stream.alloc_zeros::<f32>(2560).unwrap();
        // SAFETY: 256 pairs, ten results each.
        unsafe { stream.launch_builder(&rounded).arg(&on_a).arg(&on_b).arg(&mut out).launch(grid(1, 256)) }.unwrap();
        let out = stream.clone_dtoh(&out).unwrap();
        for (i, results) in out.chunks(10).enumerate() {
            let (x, y) = (f64::from(a[i]), f64::from(b[i]));
            // How a candidate compares with the real result (the last: with the f64 that was narrowed), through products and sums that f64 holds exactly: numbers
            // of 24 bits whose exponents are at most 20 apart.
            let compare: [&dyn Fn(f64) -> f64; 5] =
                [&|r| r - (x + y), &|r| r - x * y, &|r| r * y - x, &|r| r * r - x, &|r| r - (x + y * 2f64.powi(-40))];
            for (which, compare) in compare.iter().enumerate() {
                let (down, up) = (results[2 * which], results[2 * which + 1]);
                assert!(
                    compare(f64::from(down)) <= 0.0 && compare(f64::from(up)) >= 0.0,
                    "{which}: {down} to {up} of {x}, {y}"
                );
                let exact = compare(f64::from(down)) == 0.0;
                assert!(
                    if exact { up == down } else { up == down.next_up() },
                    "{which}: {down} and {up} of {x}, {y} are not neighbours"
                );
            }
        }
    });
}

#[test]
fn warp_operations_do_what_the_manual_says() {
    Machine::new().pass("warp_operations_do_what_the_manual_says", || {
        let (stream, operations) = open("warp_operations");
        let x: Vec<i32> = (0..32).map(|i| (i * i * 37 + 11) % 101 - 40).collect();
        let on_device = stream.clone_htod(&x).unwrap();
        let mut out = stream.alloc_zeros::<i32>(384).unwrap();
        // SAFETY: 32 values in, twelve results for each.
        unsafe { stream.launch_builder(&operations).arg(&on_device).arg(&mut out).launch(grid(1, 32)) }.unwrap();
        let out = stream.clone_dtoh(&out).unwrap();
        let votes =
            |vote: &dyn Fn(i32) -> bool| (0..32).filter(|&i| vote(x[i])).fold(0u32, |mask, i| mask | 1 << i) as i32;
        for lane in 0..32 {
            let expected = [
                x[(lane + 3) % 32],
                if lane < 3 { x[lane] } else { x[lane - 3] },
                if lane % 8 + 3 < 8 { x[lane + 3] } else { x[lane] },
                x[lane ^ 5],
                votes(&|value| value > 0),
                1,
                i32::from(x.iter().all(|&value| value != 0)),
                x.iter().sum(),
                *x.iter().min().unwrap(),
                x.iter().map(|&value| value as u32).max().unwrap() as i32,
                votes(&|value| value & 3 == x[lane] & 3),
                x[9],
            ];
            assert_eq!(out[12 * lane..12 * lane + 12], expected, "lane {lane}");
        }
    });
}

#[test]
fn bits_of_two_words_are_chosen_as_the_manual_says() {
    Machine::new().pass("bits_of_two_words_are_chosen_as_the_manual_says", || {
        let (stream, bits) = open("bits_of_two");
        let number = |i: u32, seed: u32| (i + 1).wrapping_mul(0x9e37_79b9).rotate_left(seed);
        let [a, b, by]: [Vec<u32>; 3] = [3, 11, 21].map(|seed| (0..256).map(|i| number(i, seed)).collect());
        let [on_a, on_b, on_by] = [&a, &b, &by].map(|values| stream.clone_htod(values).unwrap());
        let mut out = stream.alloc_zeros::<u32>(512).unwrap();
        let mut launch = stream.launch_builder(&bits);
        launch.arg(&on_a).arg(&on_b).arg(&on_by).arg(&mut out);
        // SAFETY: 256 words of each, two results.
        unsafe { launch.launch(grid(1, 256)) }.unwrap();
        for (i, got) in stream.clone_dtoh(&out).unwrap().chunks(2).enumerate() {
            let bytes = [a[i].to_le_bytes(), b[i].to_le_bytes()].concat();
            // Three bits of each digit name a byte; the fourth asks for its sign in all eight bits.
            let chosen = std::array::from_fn(|digit| {
                let digit = by[i] >> (4 * digit) & 15;
                let byte = bytes[digit as usize & 7];
                if digit < 8 { byte } else { (byte as i8 >> 7) as u8 }
            });
            assert_eq!(got[0], u32::from_le_bytes(chosen), "{:x} {:x} {:x}", a[i], b[i], by[i]);
            let by = by[i] & 31;
            let shifted = (u64::from(b[i]) << by | u64::from(a[i]) << by >> 32) as u32;
            assert_eq!(got[1], shifted, "{:x} {:x} {by}", a[i], b[i]);
        }
    });
}
