//! Embeddings in 16 bytes each in place of 256, and the nearest of them found by these bytes alone: a product quantizer.
//!
//!     cargo run --release --example compress
//!
//! The same from the shell, of vectors and queries in files:
//!
//!     codeword train vectors.npy --quantizer pq -m 16 -k 256 --iterations 10 -o model.safetensors
//!     codeword encode vectors.npy -c model.safetensors -o codes.npy
//!     codeword search queries.npy --codes codes.npy -c model.safetensors -k 10 -o ids.npy

use codeword::{AssignOptions, Codebook, Device, KMeans, Matrix, Neighbors, ProductQuantizer, top_k};

/// 2000 embeddings of 64 dimensions and 50 queries, in topics as those of texts are: a query lies near one of them.
pub fn embeddings() -> codeword::Result<(Matrix<f32>, Matrix<f32>)> {
    let (n, queries, d, topics) = (2000, 50, 64, 80);
    // Numbers from -1 to 1; nearly Gaussian would do as well.
    let mut state = 7u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = (0..topics * d).map(|_| number()).collect();
    let vectors: Vec<f32> = (0..n * d).map(|i| centres[i / d % topics * d + i % d] + 0.5 * number()).collect();
    let near = (0..queries * d).map(|i| vectors[i / d * 37 % n * d + i % d] + 0.1 * number()).collect();
    Ok((Matrix::new(vectors, n, d)?, Matrix::new(near, queries, d)?))
}

/// The codes of `vectors`, and the ten nearest codes of every query.
pub fn compress(vectors: &Matrix<f32>, queries: &Matrix<f32>) -> codeword::Result<(Vec<u8>, Neighbors)> {
    let device = Device::best();
    // 16 parts of 4 dimensions, each with 256 codewords: 16 numbers of a byte.
    let quantizer = ProductQuantizer::train(vectors.view(), 16, &KMeans::new(256).iterations(10), &device)?;
    let codes = quantizer.encode(vectors.view())?;
    // The queries are not quantized: their distances to what the codes stand for are sums of 16 table entries.
    let nearest = quantizer.search(&codes, queries.view(), 10)?;
    Ok((codes, nearest))
}

/// Runs it.
pub fn main() -> codeword::Result<()> {
    let (vectors, queries) = embeddings()?;
    let (codes, nearest) = compress(&vectors, &queries)?;
    println!("{} bytes of vectors are {} bytes of codes", 4 * vectors.as_slice().len(), codes.len());

    // How often the true nearest vector is among the ten: all vectors are the codewords of a codebook for that.
    let exact = top_k(queries.view(), &Codebook::new(vectors.view(), &Device::best())?, 1, AssignOptions::default())?;
    let found = nearest.ids.chunks(10).zip(&exact.labels).filter(|(ids, id)| ids.contains(id)).count();
    println!("the nearest vector is among the ten nearest codes of {found} of {} queries", queries.rows());
    println!("query 0: {:?}", &nearest.ids[..10]);
    Ok(())
}
