//! One operation for an instruction counter: `scripts/instructions.sh` runs this under callgrind.
//!
//! `instructions OPERATION N D K REPEATS`: makes Gaussian-like vectors and a codebook of these sizes, always the same, and
//! does the operation as often as is said. The difference between REPEATS and one more is the operation alone.

use codeword::{
    AssignOptions, Codebook, Device, KMeans, Matrix, MatrixView, OptimizedProductQuantizer, Precision, ProductQuantizer,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::error::Error;
use std::hint::black_box;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [operation, sizes @ ..] = &arguments[..] else {
        println!("instructions is driven by scripts/instructions.sh");
        return Ok(());
    };
    let sizes = sizes.iter().map(|size| size.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [n, d, k, repeats] = sizes[..] else { return Err("expected OPERATION N D K REPEATS".into()) };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut gaussian = |count: usize| -> Vec<f32> {
        (0..count).map(|_| (0..4).map(|_| random.random::<f32>() - 0.5).sum::<f32>() * 1.75).collect()
    };
    let (vectors, codewords) = (gaussian(n * d), gaussian(k * d));
    let (x, e) = (MatrixView::new(&vectors, n, d)?, MatrixView::new(&codewords, k, d)?);
    let codebook = Codebook::new(e, &Device::cpu())?;
    let options = AssignOptions::default();
    let labels = codeword::assign(x, &codebook, options)?.labels;
    // Of `search`, which as `rotate` has a part for every dimension, as many queries as are looked at side by side.
    let parts = if ["search", "rotate"].contains(&operation.as_str()) { d } else { 1 };
    let quantizer =
        ProductQuantizer::new(MatrixView::new(&codewords[..k * parts], k * parts, 1)?, parts, &Device::cpu())?;
    let codes = if operation == "search" { quantizer.encode(x)? } else { Vec::new() };
    let identity = (0..parts * parts).map(|at| if at % (parts + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let rotating = OptimizedProductQuantizer::new(Matrix::new(identity, parts, parts)?, quantizer.clone())?;
    let start = KMeans::new(k).iterations(0);
    for _ in 0..repeats {
        match operation.as_str() {
            "prepare" => drop(black_box(Codebook::new(e, &Device::cpu())?)),
            "assign" => drop(black_box(codeword::assign(x, &codebook, options)?)),
            "top_k" => drop(black_box(codeword::top_k(x, &codebook, 10.min(k), options)?)),
            "pairwise_sq_l2" => drop(black_box(codeword::pairwise_sq_l2(x, &codebook, Precision::Fast)?)),
            "decode" => drop(black_box(codeword::decode(&labels, &codebook)?)),
            "metrics" => drop(black_box(codeword::metrics(x, &codebook, &labels)?)),
            "accumulate" => drop(black_box(codeword::accumulate(x, &labels, None, k)?)),
            "search" => drop(black_box(quantizer.search(&codes, MatrixView::new(&vectors[..64 * d], 64, d)?, 10)?)),
            "rotate" => drop(black_box(rotating.rotate(x)?)),
            "start" => drop(black_box(start.fit(x, &Device::cpu())?)),
            other => return Err(format!("no operation {other}").into()),
        }
    }
    Ok(())
}
