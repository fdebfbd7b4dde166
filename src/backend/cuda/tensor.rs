//! What is known of a device's tensor cores, and whether they keep to it.
//!
//! The certificate of kernels/assign_tensor.cu rests on how far a sum of products can be off. The manual does not say;
//! models that were measured bit for bit do, for single architectures (MMA-Sim, arXiv 2511.10909; Khattak and Mikaitis,
//! arXiv 2512.07004). So tensor cores are used on those alone, with twice the bound, and after sums that bring out the
//! worst of such a unit have kept to it on this very device.

use super::context::Context;
use super::memory::Buffer;
use super::ptx::Arch;
use super::queue::Queue;
use crate::error::Result;
use cudarc::driver::{LaunchConfig, PushKernelArg};
use half::f16;

/// A step adds `products` products and the accumulator, each cut off after so many fractional `bits` of the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Model {
    products: usize,
    bits: i32,
}

impl Model {
    /// The published one of this compute capability, if there is one.
    fn of(capability: (i32, i32)) -> Option<Model> {
        match capability {
            (8, 0 | 6 | 9) => Some(Model { products: 8, bits: 24 }),
            (9, 0) => Some(Model { products: 16, bits: 25 }),
            _ => None,
        }
    }

    /// Twice what a sum of `d` products can be off, relative to the product of the norms.
    fn accumulation(self, d: usize) -> f64 {
        let each = (self.products as f64 + 1.0) * 2f64.powi(-self.bits) + 2f64.powi(-23);
        2.0 * d.div_ceil(self.products) as f64 * each
    }
}

/// The instructions of a device that its test found to keep to the model: by the steps of depth that they add.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    sixteens: bool,
    eights: bool,
}

/// Whether it is known how the tensor cores of this device round.
pub(super) fn are_known(context: &Context) -> bool {
    Model::of(context.capability()).is_some()
}

/// What a sum of `d` products of f16 on the tensor cores of this device can be off, relative to the product of the norms.
/// None where they cannot be trusted, which is logged once: the first call of a device puts them to the test.
///
/// # Errors
/// - [`crate::Error::Cuda`] where the device refuses the test.
pub(super) fn accumulation(op: &'static str, context: &Context, d: usize) -> Result<Option<f64>> {
    let capability @ (major, minor) = context.capability();
    let Some(model) = Model::of(capability) else {
        if context.tensor_check().set(Trusted { sixteens: false, eights: false }).is_ok() {
            log::warn!(
                "scoring without tensor cores: how those of compute capability {major}.{minor} round is not known"
            );
        }
        return Ok(None);
    };
    if let Some(trusted) = context.tensor_check().get() {
        return Ok(trusted.sixteens.then(|| model.accumulation(d)));
    }
    let (of_sixteens, of_eights) = worst(op, context, model)?;
    let found = Trusted { sixteens: of_sixteens <= 1.0, eights: of_eights <= 1.0 };
    if context.tensor_check().set(found).is_ok() && !(found.sixteens && found.eights) {
        let (what, worst) = match found.sixteens {
            false => ("scoring without tensor cores: a sum on those", of_sixteens),
            true => ("labels of few dimensions in several launches: a sum by eights on the tensor cores", of_eights),
        };
        log::warn!(
            "{what} of this device (compute capability {major}.{minor}) was off by {worst:.2} times what can be relied on"
        );
    }
    // Of two first tests at a time one is kept, and both callers go by it: what a call plans holds until it has run.
    let trusted = *context.tensor_check().get_or_init(|| found);
    Ok(trusted.sixteens.then(|| model.accumulation(d)))
}

/// Whether products of eight steps keep to the model, too, where [`accumulation`] has said what it is.
pub(super) fn eights_are_trusted(context: &Context) -> bool {
    context.tensor_check().get().is_some_and(|trusted| trusted.eights)
}

/// Rows and columns of a product.
const ROWS: usize = 16;
const COLS: usize = 8;
/// Products of a sum of the test.
const DEPTH: usize = 256;

/// The largest error of a sum, relative to its bound, by instructions of sixteen steps and by those of eight; infinite where
/// one is no number.
fn worst(op: &'static str, context: &Context, model: Model) -> Result<(f64, f64)> {
    let problems = problems();
    let bits = |side: fn(&Problem) -> &[f16]| -> Vec<u16> {
        problems.iter().flat_map(side).map(|value| value.to_bits()).collect()
    };
    let queue = Queue { op, context: context.clone(), stream: context.stream().clone() };
    let (a, b) = (queue.upload(&bits(|problem| &problem.a))?, queue.upload(&bits(|problem| &problem.b))?);
    let mut sums = vec![0.0f32; problems.len() * ROWS * COLS];
    let mut on_device = queue.alloc(sums.len())?;
    // By all instructions that this device uses: entry points, their threads, and how deep an instruction is.
    let entries: &[(&str, u32, usize)] =
        &[("tensor_check_f16", 32, 16), ("tensor_check_eights_f16", 32, 8), ("tensor_check_wgmma_f16", 128, 16)];
    let entries = match context.arch("assign_tensor")? {
        Arch::Compute80 => &entries[..2],
        Arch::Compute90a => entries,
    };
    let mut worst = (0.0f64, 0.0f64);
    for &(entry, threads, deep) in entries {
        let bound = Model { products: model.products.min(deep), ..model }.accumulation(DEPTH);
        launch(&queue, entry, threads, &a, &b, &mut on_device, problems.len() as u32)?;
        queue.copy_out(on_device.read(), &mut sums)?;
        queue.synchronize()?;
        let errors = problems.iter().zip(sums.chunks(ROWS * COLS)).map(|(problem, sums)| problem.worst(sums, bound));
        let of_entry = if deep == 16 { &mut worst.0 } else { &mut worst.1 };
        *of_entry = errors.fold(*of_entry, f64::max);
    }
    Ok(worst)
}

/// Sums of `problems` products of [`ROWS`] by [`COLS`] vectors of [`DEPTH`] elements.
fn launch(
    queue: &Queue,
    entry: &'static str,
    threads: u32,
    a: &Buffer<u16>,
    b: &Buffer<u16>,
    sums: &mut Buffer<f32>,
    problems: u32,
) -> Result<()> {
    let count = problems as usize;
    assert!(count * ROWS * DEPTH <= a.read().len() && count * COLS * DEPTH <= b.read().len(), "check 2");
    assert!(count * ROWS * COLS <= sums.read().len(), "check 2");
    let depth = DEPTH as u32;
    let config = LaunchConfig { grid_dim: (problems, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
    let function = queue.context.function("tensor_check", entry)?;
    let mut launch = queue.stream.launch_builder(&function);
    launch.arg(a).arg(b).arg(sums).arg(&depth);
    // SAFETY: checks 1 to 3; the kernel reads no index from memory.
    unsafe { queue.launch(entry, &mut launch, config) }
}

/// `[ROWS, DEPTH]` and `[COLS, DEPTH]`.
struct Problem {
    a: Vec<f16>,
    b: Vec<f16>,
}

impl Problem {
    fn new(value: impl Fn(usize, usize, bool) -> f32) -> Problem {
        let side = |vectors: usize, of_b: bool| -> Vec<f16> {
            (0..vectors * DEPTH).map(|i| f16::from_f32(value(i / DEPTH, i % DEPTH, of_b))).collect()
        };
        Problem { a: side(ROWS, false), b: side(COLS, true) }
    }

    /// The largest error of `sums` relative to `bound` times the norms.
    fn worst(&self, sums: &[f32], bound: f64) -> f64 {
        let norm = |vector: &[f16]| vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let mut worst = 0.0f64;
        for (a, sums) in self.a.chunks(DEPTH).zip(sums.chunks(COLS)) {
            for (b, &sum) in self.b.chunks(DEPTH).zip(sums) {
                if !sum.is_finite() {
                    return f64::INFINITY;
                }
                // Every f16 is a multiple of 2^-24 below 2^16: sums of so many products are exact.
                let whole = |value: f16| (f64::from(value) * 2f64.powi(24)) as i128;
                let exact: i128 = a.iter().zip(b).map(|(&a, &b)| whole(a) * whole(b)).sum();
                // An f32 below 2^-48 in magnitude, should there be one, counts as 0: 2^-48 is no error that matters.
                let off = ((f64::from(sum) * 2f64.powi(48)) as i128 - exact) as f64 * 2f64.powi(-48);
                worst = worst.max(off.abs() / (bound * norm(a) * norm(b) + 2f64.powi(-40)));
            }
        }
        worst
    }
}

/// What brings out the worst of a unit that cuts numbers off: many small products beside a large one, below what is kept
/// of it or just above; sums of one sign with all digits set; cancellation of neighbours and of halves; subnormals.
fn problems() -> Vec<Problem> {
    let digits = |row: usize, t: usize| ((row * DEPTH + t) as f32 * 0.618_034).fract();
    let sign = |minus: bool| if minus { -1.0 } else { 1.0 };
    let beside = |large: f32, small: f32| Problem::new(move |row, t, _| if t == row % COLS { large } else { small });
    let mut problems: Vec<Problem> =
        [7.99, 5.6, 3.98, 2.82, 1.99, 1.0, 0.7].iter().map(|&small| beside(16384.0, small)).collect();
    problems.extend([4.06, 11.3].map(|small| beside(30000.0, small)));
    problems.push(Problem::new(move |row, t, _| 1.0 + digits(row, t)));
    problems.push(Problem::new(move |row, t, of_b| sign(of_b) * (1.0 + digits(row, t))));
    problems.push(Problem::new(move |_, t, of_b| sign(of_b && t % 2 == 1) * (1.5 + (t / 2 % 7) as f32 / 7.0)));
    problems
        .push(Problem::new(move |_, t, of_b| sign(of_b && t >= DEPTH / 2) * (1000.0 + (t % (DEPTH / 2)) as f32 / 3.0)));
    problems.push(Problem::new(move |row, t, _| f16::from_bits(1 + (1000.0 * digits(row, t)) as u16).to_f32()));
    problems.push(Problem::new(move |row, t, of_b| match (t + row) % 3 {
        0 => sign(of_b && t % 2 == 1) * 30000.0,
        1 => f16::from_bits(0x03ff).to_f32(),
        _ => digits(row, t) - 0.5,
    }));
    problems.push(Problem::new(move |row, t, of_b| sign((t * 7 + row * usize::from(of_b)) % 3 == 0) * digits(t, row)));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measured_architectures_are_in_the_table() {
        let known = [(8, 0), (8, 6), (8, 9), (9, 0)];
        for major in 7..13 {
            for minor in 0..10 {
                assert_eq!(Model::of((major, minor)).is_some(), known.contains(&(major, minor)), "{major}.{minor}");
            }
        }
    }

    #[test]
    fn the_bound_grows_by_steps_and_is_that_of_the_published_models() {
        let hopper = Model::of((9, 0)).unwrap();
        // 16 steps of 17 2^-25 + 2^-23, twice.
        assert_eq!(hopper.accumulation(256), 32.0 * 21.0 * 2f64.powi(-25));
        assert_eq!(hopper.accumulation(1), hopper.accumulation(16));
        assert_eq!(Model::of((8, 0)).unwrap().accumulation(9), 4.0 * 11.0 * 2f64.powi(-24));
    }

    /// A unit of `model` that keeps `lost` bits less than it says.
    fn simulate(model: Model, lost: i32, problem: &Problem) -> Vec<f32> {
        let exponent = |value: f64| if value == 0.0 { i32::MIN } else { value.abs().log2().floor() as i32 };
        let mut sums = Vec::new();
        for a in problem.a.chunks(DEPTH) {
            for b in problem.b.chunks(DEPTH) {
                let mut sum = 0.0f32;
                for (a, b) in a.chunks(model.products).zip(b.chunks(model.products)) {
                    let mut terms: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).collect();
                    terms.push(f64::from(sum));
                    // The exponent of a product is the sum of two: its significand may be 2 or more.
                    let of_product = |(&a, &b): (&f16, &f16)| exponent(f64::from(a)) + exponent(f64::from(b));
                    let products = a.iter().zip(b).filter(|&(&a, &b)| a != f16::ZERO && b != f16::ZERO);
                    let top = products.map(of_product).fold(exponent(f64::from(sum)), i32::max);
                    if top == i32::MIN {
                        continue;
                    }
                    let unit = 2f64.powi(top - model.bits + lost);
                    let total: f64 = terms.iter().map(|term| (term / unit).trunc() * unit).sum();
                    let rounded = total as f32;
                    sum = match f64::from(rounded).abs() > total.abs() {
                        true => f32::from_bits(rounded.to_bits() - 1),
                        false => rounded,
                    };
                }
                sums.push(sum);
            }
        }
        sums
    }

    #[test]
    fn the_test_passes_a_unit_of_the_model_and_refuses_one_that_keeps_two_bits_less() {
        // The last is that of eight products at a time where a step may be of sixteen.
        let eights = Model { products: 8, bits: 25 };
        for model in [Model::of((8, 0)), Model::of((9, 0)), Some(eights)].into_iter().flatten() {
            let worst = |lost| {
                let bound = model.accumulation(DEPTH);
                problems()
                    .iter()
                    .map(|problem| problem.worst(&simulate(model, lost, problem), bound))
                    .fold(0.0, f64::max)
            };
            assert!(worst(0) <= 0.5, "{model:?}: {}", worst(0));
            assert!(worst(1) <= 1.0, "{model:?}: {}", worst(1));
            assert!(worst(2) > 1.0, "{model:?}: {}", worst(2));
        }
    }

    #[test]
    fn a_sum_that_is_no_number_is_refused() {
        let problem = &problems()[0];
        let mut sums = simulate(Model { products: 8, bits: 24 }, 0, problem);
        sums[5] = f32::NAN;
        assert_eq!(problem.worst(&sums, 1.0), f64::INFINITY);
    }
}
