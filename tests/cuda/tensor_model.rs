//! Sums of products on tensor cores, bit for bit against the model of the architecture that src/backend/cuda/tensor.rs
//! and the simulated device rest on, transcribed a second time (tests/common/products.rs). On a real device (CODEWORD_TEST_REQUIRE=cuda) this
//! says whether the model is the device's.

use crate::alone::{open_for, threads};
use crate::common::Numbers;
use crate::common::products::modelled;
use crate::simulated::{Machine, pass_on_each};
use codeword::backend::cuda::ptx::Arch;
use codeword::cuda::cudarc::driver::{CudaContext, PushKernelArg};
use codeword::f16;

/// Rows, columns and steps of depth of a product.
const ROWS: usize = 16;
const COLS: usize = 8;
const DEPTH: usize = 96;

/// Products that a step adds, and the fractional bits of the largest term that all are cut off to: MMA-Sim, arXiv
/// 2511.10909; Khattak and Mikaitis, arXiv 2512.07004. None for architectures that neither measured.
fn model(capability: (i32, i32)) -> Option<(usize, i32)> {
    match capability {
        (8, 0 | 6 | 9) => Some((8, 24)),
        (9, 0) => Some((16, 25)),
        _ => None,
    }
}

/// Operands of one sort: each side row by row.
struct Problem {
    name: &'static str,
    a: Vec<f16>,
    b: Vec<f16>,
}

fn problems() -> Vec<Problem> {
    let mut numbers = Numbers::new(171);
    let mut problems = Vec::new();
    let mut add = |name, value: &mut dyn FnMut(&mut Numbers, usize) -> f32| {
        let mut side = |rows: usize| -> Vec<f16> {
            (0..rows * DEPTH).map(|i| f16::from_f32(value(&mut numbers, i % DEPTH))).collect()
        };
        let (a, b) = (side(ROWS), side(COLS));
        problems.push(Problem { name, a, b });
    };
    for _ in 0..40 {
        add("Gaussians", &mut |numbers, _| numbers.gaussian());
        add("of one sign", &mut |numbers, _| 1.0 + numbers.uniform());
        // Exponents far apart: most is cut off, and what is left shows where.
        add("of all magnitudes", &mut |numbers, _| numbers.gaussian() * 2f32.powi(numbers.below(29) as i32 - 14));
        add("subnormal", &mut |numbers, _| f16::from_bits(numbers.below(0x800) as u16).to_f32());
        add("subnormal beside normal", &mut |numbers, t| {
            if t % 3 == 0 { numbers.gaussian() } else { f16::from_bits(numbers.below(0x400) as u16).to_f32() }
        });
        // Neighbours that take one another away, but for their last bits.
        add("that cancel", &mut |numbers, t| (1.0 + numbers.uniform() / 64.0) * if t % 2 == 1 { -1.0 } else { 1.0 });
        add("large and then small", &mut |numbers, t| numbers.gaussian() * if t < 16 { 4096.0 } else { 0.01 });
        add("small and then large", &mut |numbers, t| numbers.gaussian() * if t < 80 { 0.01 } else { 4096.0 });
        add("mostly zero", &mut |numbers, _| if numbers.below(6) == 0 { numbers.gaussian() } else { 0.0 });
    }
    problems
}

#[test]
fn sums_of_products_are_those_of_the_model_bit_for_bit() {
    let others = ["80", "86", "89", "90"].map(|it| Machine::new().set("CAPABILITY", it).set("CHECK", 0));
    pass_on_each(
        [Machine::new()].into_iter().chain(others),
        "tensor_model::sums_of_products_are_those_of_the_model_bit_for_bit",
        || {
            let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
            let capability = stream.context().compute_capability().unwrap();
            let Some(model) = model(capability) else {
                return println!("skipped: there is no model of compute capability {capability:?}");
            };
            let problems = problems();
            let bits = |side: fn(&Problem) -> &[f16]| -> Vec<u16> {
                problems.iter().flat_map(side).map(|value| value.to_bits()).collect()
            };
            let (a, b) = (bits(|problem| &problem.a), bits(|problem| &problem.b));
            let (a, b) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
            // By the instructions that all have, and by those that one architecture has alone.
            let entries = [
                (Arch::Compute80, "tensor_check_f16", 32, 16),
                (Arch::Compute80, "tensor_check_eights_f16", 32, 8),
                (Arch::Compute90a, "tensor_check_f16", 32, 16),
                (Arch::Compute90a, "tensor_check_eights_f16", 32, 8),
                (Arch::Compute90a, "tensor_check_wgmma_f16", 128, 16),
            ];
            for (arch, entry, of_block, deep) in entries {
                if !arch.runs_on(capability) {
                    continue;
                }
                let product = open_for(&stream, "tensor_check", entry, arch);
                let mut sums = stream.alloc_zeros::<f32>(problems.len() * ROWS * COLS).unwrap();
                let mut launch = stream.launch_builder(&product);
                let depth = DEPTH as u32;
                launch.arg(&a).arg(&b).arg(&mut sums).arg(&depth);
                // SAFETY: a block per problem, of the sizes that the header of the kernel names.
                unsafe { launch.launch(threads(problems.len() as u32, of_block)) }.unwrap();
                let sums = stream.clone_dtoh(&sums).unwrap();
                let mut off = Vec::new();
                for (problem, sums) in problems.iter().zip(sums.chunks(ROWS * COLS)) {
                    for (i, &got) in sums.iter().enumerate() {
                        let (a, b) = (&problem.a[i / COLS * DEPTH..][..DEPTH], &problem.b[i % COLS * DEPTH..][..DEPTH]);
                        // A step is no deeper than the instruction.
                        let expected = modelled(a, b, (model.0.min(deep), model.1));
                        // Both are multiples of 2^-48 with 24 bits: exact in f64.
                        if f64::from(got) * 2f64.powi(48) != expected as f64 {
                            off.push(format!(
                                "{}: {got:e}, not {:e}: {a:?} {b:?}",
                                problem.name,
                                expected as f64 * 2f64.powi(-48)
                            ));
                        }
                    }
                }
                let all = problems.len() * ROWS * COLS;
                println!(
                    "compute capability {capability:?}, {entry} of {arch:?}: {} of {all} sums are not the model's",
                    off.len()
                );
                assert!(
                    off.is_empty(),
                    "{entry} of {arch:?}: {} of {all} sums, such as\n{}",
                    off.len(),
                    off[..off.len().min(3)].join("\n")
                );
            }
        },
    );
}
