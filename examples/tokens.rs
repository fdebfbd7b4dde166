//! Frames as tokens, with the codebooks of a trained codec: residual quantization as EnCodec and SoundStream do it.
//! Every stage takes the codeword nearest to what the stages before left; fewer tokens of a frame give it more coarsely.
//! Those of DAC and Mimi also project frames to fewer dimensions and compare directions: `codeword::Stages`.
//!
//!     cargo run --release --example tokens
//!
//! The same from the shell, of frames (n, d) and codebooks (stages, k, d) in files:
//!
//!     codeword encode frames.npy -c codebooks.npy --quantizer rvq -o tokens.npy
//!     codeword decode tokens.npy -c codebooks.npy --quantizer rvq -o decoded.npy

use codeword::{Device, Matrix, ResidualQuantizer};

/// Tokens of a frame.
pub const STAGES: usize = 4;

/// 300 frames of 32 dimensions, and four codebooks of 64 codewords, one below the other. Of a codec they would come out of
/// its file; here they are numbers that get smaller from stage to stage.
pub fn frames_and_codebooks() -> codeword::Result<(Matrix<f32>, Matrix<f32>)> {
    let (n, d, k) = (300, 32, 64);
    let mut state = 11u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let codewords: Vec<f32> = (0..STAGES * k * d).map(|i| number() * 0.6f32.powi((i / (k * d)) as i32)).collect();
    // A frame is near a sum of codewords, as what a codec was trained on is.
    let frames = (0..n * d).map(|i| {
        let (frame, t) = (i / d, i % d);
        let sum: f32 = (0..STAGES).map(|s| codewords[(s * k + (frame * (7 + 4 * s) + s) % k) * d + t]).sum();
        sum + 0.02 * number()
    });
    Ok((Matrix::new(frames.collect(), n, d)?, Matrix::new(codewords, STAGES * k, d)?))
}

/// The tokens of the frames, `[n, STAGES]`, and the mean squared error that the first 1, 2, ... of them leave.
pub fn tokenize(frames: &Matrix<f32>, codebooks: &Matrix<f32>) -> codeword::Result<(Vec<u32>, Vec<f64>)> {
    let quantizer = ResidualQuantizer::new(codebooks.view(), STAGES, &Device::best())?;
    let codes = quantizer.encode(frames.view())?;
    let error = |stages| -> codeword::Result<f64> {
        let decoded = quantizer.decode_stages(&codes, stages)?;
        let pairs = frames.as_slice().iter().zip(decoded.as_slice());
        let sum: f64 = pairs.map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
        Ok(sum / frames.rows() as f64)
    };
    let errors = (1..=STAGES).map(error).collect::<codeword::Result<_>>()?;
    Ok((quantizer.unpack(&codes)?, errors))
}

/// Runs it.
pub fn main() -> codeword::Result<()> {
    let (frames, codebooks) = frames_and_codebooks()?;
    let (tokens, errors) = tokenize(&frames, &codebooks)?;
    println!("{} frames are {} tokens; those of frame 0: {:?}", frames.rows(), tokens.len(), &tokens[..STAGES]);
    for (stages, error) in (1..).zip(&errors) {
        println!("{stages} tokens a frame: {error:.4} is left of it, squared, in the mean");
    }
    Ok(())
}
