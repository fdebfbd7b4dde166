//! Vectors and labels that stay on the GPU, in memory of `cudarc`: what another kernel of the program wrote is
//! assigned, in its stream, with nothing waiting until the results are looked at.
//!
//!     cargo run --release --example cuda_typed

use codeword::cuda::{MatrixView, Workspace};
use codeword::{AssignOptions, Codebook, Device};

/// Runs it.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::cuda(0)?;
    let Device::Cuda(context) = &device else { return Err("not a CUDA device".into()) };

    // Four codewords in the corners of a square.
    let codewords = [0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let codebook = Codebook::new(codeword::MatrixView::new(&codewords, 4, 2)?, &device)?;

    // The stream of the program, and vectors as its kernels would leave them there.
    let stream = context.new_stream()?;
    let vectors: Vec<f32> = (0..1000).flat_map(|i| [i as f32 / 999.0, (i % 7) as f32 / 6.0]).collect();
    let x = stream.clone_htod(&vectors)?;
    let mut labels = stream.alloc_zeros::<u32>(1000)?;
    let mut sq_distances = stream.alloc_zeros::<f32>(1000)?;
    let mut nearest = stream.alloc_zeros::<f32>(2 * 1000)?;

    // Memory is taken here, once; a training or inference loop goes on from the next line.
    let mut workspace = Workspace::new(&codebook, &stream, 65_536)?;
    workspace.assign(MatrixView::new(&x, 1000, 2)?, AssignOptions::default(), &mut labels, &mut sq_distances)?;
    workspace.decode(&labels, &mut nearest)?;

    // Waits for the stream, and says what it found: an error names the first vector that is not finite.
    let stats = workspace.check()?;
    println!(
        "rows settled by the first pass {}, by f32 {}, f64 {}, exact sums {}",
        stats.first, stats.second, stats.f64, stats.exact
    );

    let (labels, nearest) = (stream.clone_dtoh(&labels)?, stream.clone_dtoh(&nearest)?);
    for i in [0, 333, 999] {
        let (x, z_q) = (&vectors[2 * i..2 * i + 2], &nearest[2 * i..2 * i + 2]);
        println!("vector {i} {x:.2?}: code {}, codeword {z_q:?}", labels[i]);
    }
    Ok(())
}
