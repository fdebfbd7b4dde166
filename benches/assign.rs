//! How fast the CPU backend is, and how far that is from what this processor can do.
//!
//! `cargo bench --bench assign` runs the shapes below (choose some by name: `cargo bench --bench assign -- exact`).
//! Criterion's `Gelem/s` is GFLOP/s for `assign`, `top_k` and `pairwise_sq_l2` (2 n d k operations each; what exactness
//! costs on top is not counted) and bytes per second, written by `decode` and read by `metrics`. After each operation one line gives the
//! share of the f32 FMA peak, and with AVX2 or VNNI of the peak of 16-bit products, which labels are made of, measured here and
//! now with as many threads as rayon has.

mod peak;

use codeword::{AssignOptions, Codebook, Device, MatrixView, Precision};
use criterion::{BenchmarkId, Criterion, Throughput};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// n, d, k: a VQGAN codebook, SIFT-like vectors, sub-vectors of a product quantizer, tiny vectors with many codewords, few
/// vectors with very many.
const ASSIGN: [[usize; 3]; 5] =
    [[100_000, 256, 1024], [100_000, 128, 256], [200_000, 16, 256], [65_536, 4, 8192], [4, 64, 500_000]];
const OTHERS: [usize; 3] = [20_000, 128, 256];
/// Queries among a million vectors.
const SEARCH: [usize; 3] = [100, 128, 1_000_000];

/// Vectors and a codebook of one shape, made when the first benchmark asks for them.
struct Problem {
    vectors: Vec<f32>,
    codebook: Codebook,
    shape: [usize; 3],
}

impl Problem {
    fn new(shape: [usize; 3]) -> Problem {
        let [n, d, k] = shape;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let vectors = gaussian(&mut random, n * d);
        let codewords = gaussian(&mut random, k * d);
        let view = MatrixView::new(&codewords, k, d).expect("k x d codewords");
        Problem { vectors, codebook: Codebook::new(view, &Device::cpu()).expect("finite codewords"), shape }
    }

    fn view(&self) -> MatrixView<'_, f32> {
        MatrixView::new(&self.vectors, self.shape[0], self.shape[1]).expect("n x d vectors")
    }
}

/// Nearly Gaussian numbers: sums of four uniform ones.
fn gaussian(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| (0..4).map(|_| random.random::<f32>() - 0.5).sum::<f32>() * 1.75).collect()
}

/// Benchmarks `work` as `operation/cpu/n x d x k/variant` and prints its share of the peak.
fn measure(
    criterion: &mut Criterion,
    operation: &str,
    variant: &str,
    problem: &mut Option<Problem>,
    shape: [usize; 3],
    work: fn(&Problem),
) {
    let [n, d, k] = shape;
    let flop = 2 * (n * d * k) as u64;
    let mut best = Duration::MAX;
    let mut group = criterion.benchmark_group(format!("{operation}/cpu"));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(match operation {
        "decode" | "metrics" => Throughput::Bytes((4 * n * d) as u64),
        _ => Throughput::Elements(flop),
    });
    group.bench_function(BenchmarkId::new(format!("{n}x{d}x{k}"), variant), |bencher| {
        let problem = problem.get_or_insert_with(|| Problem::new(shape));
        bencher.iter_custom(|repeats| {
            let mut total = Duration::ZERO;
            for _ in 0..repeats {
                let start = Instant::now();
                work(problem);
                let taken = start.elapsed();
                best = best.min(taken);
                total += taken;
            }
            total
        });
    });
    group.finish();
    if best != Duration::MAX && !matches!(operation, "decode" | "metrics") {
        let rate = flop as f64 / best.as_secs_f64() / 1e9;
        match peak::gflops() {
            Some(peak) => {
                let integers = peak::integer_gops().map_or(String::new(), |peak| {
                    format!(", {:.0} % of {peak:.0} (16-bit products)", 100.0 * rate / peak)
                });
                println!("best {rate:.0} GFLOP/s, {:.0} % of {peak:.0} (f32 FMA peak){integers}\n", 100.0 * rate / peak)
            }
            None => println!("best {rate:.0} GFLOP/s; this processor's FMA peak is not known\n"),
        }
    }
}

fn assign(problem: &Problem, precision: Precision) {
    let options = AssignOptions { precision, ..Default::default() };
    black_box(codeword::assign(problem.view(), &problem.codebook, options).expect("finite vectors"));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for shape in ASSIGN {
        let mut problem = None;
        measure(&mut criterion, "assign", "exact", &mut problem, shape, |p| assign(p, Precision::Exact));
        measure(&mut criterion, "assign", "fast", &mut problem, shape, |p| assign(p, Precision::Fast));
    }
    let mut problem = None;
    measure(&mut criterion, "top_k", "r=10", &mut problem, OTHERS, |p| {
        black_box(codeword::top_k(p.view(), &p.codebook, 10, AssignOptions::default()).expect("finite vectors"));
    });
    measure(&mut criterion, "top_k", "r=100", &mut None, SEARCH, |p| {
        black_box(codeword::top_k(p.view(), &p.codebook, 100, AssignOptions::default()).expect("finite vectors"));
    });
    measure(&mut criterion, "pairwise_sq_l2", "fast", &mut problem, OTHERS, |p| {
        black_box(codeword::pairwise_sq_l2(p.view(), &p.codebook, Precision::Fast).expect("matching shapes"));
    });
    measure(&mut criterion, "decode", "f32", &mut problem, OTHERS, |p| {
        let [n, _, k] = p.shape;
        let codes: Vec<u32> = (0..n).map(|i| (i * 7919 % k) as u32).collect();
        black_box(codeword::decode(&codes, &p.codebook).expect("codes within the codebook"));
    });
    measure(&mut criterion, "metrics", "f32", &mut problem, OTHERS, |p| {
        let [n, _, k] = p.shape;
        let codes: Vec<u32> = (0..n).map(|i| (i * 7919 % k) as u32).collect();
        black_box(codeword::metrics(p.view(), &p.codebook, &codes).expect("codes within the codebook"));
    });
    criterion.final_summary();
}
