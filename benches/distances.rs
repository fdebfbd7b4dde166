//! The matrix of squared distances against the two limits of the machine: to write it, and to multiply and add for it.
//!
//! `cargo bench --bench distances` prints a Markdown table. Every round takes the work and the writing of as much memory in
//! turn, with as many threads as rayon has; the times are medians. Chains of FMA in registers, of the
//! widest set there is, are measured before. Dimensions
//! can be chosen: `cargo bench --bench distances -- 4 16`.

mod peak;

use codeword::{Codebook, Device, MatrixView, Precision, pairwise_sq_l2_into};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROWS: usize = 20_000;
/// Neither a multiple of a cache line nor a power of two; and both.
const CODEWORDS: [usize; 2] = [1000, 1024];
const DIMENSIONS: [usize; 7] = [4, 8, 16, 32, 64, 128, 256];
const ROUNDS: usize = 21;

fn main() -> codeword::Result<()> {
    // Cargo passes `--bench`; a test run (`cargo test --benches`) does not, and has no time to spare.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let mut dimensions: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if dimensions.is_empty() {
        dimensions.extend(DIMENSIONS);
    }
    let fma = peak::gflops().map(|gflops| gflops * 1e9 / 2.0);
    println!("| vectors, codewords | distances | of memory, written | FMA alone | times the larger limit |");
    println!("|---|---|---|---|---|");
    for k in CODEWORDS {
        let mut out = vec![0.0; ROWS * k];
        for &d in &dimensions {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let (x, e) = (uniform(&mut random, ROWS * d), uniform(&mut random, k * d));
            let x = MatrixView::new(&x, ROWS, d)?;
            let codebook = Codebook::new(MatrixView::new(&e, k, d)?, &Device::cpu())?;
            let (mut distances, mut writes) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let start = Instant::now();
                pairwise_sq_l2_into(x, &codebook, Precision::Fast, &mut out)?;
                distances.push(start.elapsed());
                let start = Instant::now();
                peak::write(&mut out);
                writes.push(start.elapsed());
                black_box(&mut out);
            }
            let (distances, writes) = (median(distances), median(writes));
            let fma = fma.map(|rate| Duration::from_secs_f64((ROWS * d * k) as f64 / rate));
            let limit = fma.unwrap_or_default().max(writes);
            println!(
                "| {ROWS} x {d}, k={k} | {} | {} | {} | {:.2} |",
                ms(distances),
                ms(writes),
                fma.map_or("not known".to_string(), ms),
                distances.as_secs_f64() / limit.as_secs_f64()
            );
        }
    }
    Ok(())
}

fn uniform(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random::<f32>() - 0.5).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", 1e3 * time.as_secs_f64())
}
