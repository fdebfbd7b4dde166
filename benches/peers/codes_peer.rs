//! Our side of `benches/peers/codes.py`: the same files, the same work, the same clock as faiss.
//!
//! `codes_peer VECTORS QUERIES CODEBOOKS CODES IDS SECONDS`: learns as many sub-quantizers as CODEBOOKS, (m, k, d/m), has, from
//! random rows and in 25 iterations; encodes the vectors and searches the codes, (n, code size), with those of CODEBOOKS, each
//! again and again for about SECONDS after a run that does not count; writes the ids found and prints the medians in ms.
//! Where CODEBOOKS is (m, k, d) they are stages: learned, from a progressive start, and encoded; nothing is searched.

use codeword::io::npy::{Header, Reader, Scalar, Writer};
use codeword::{Device, Init, KMeans, MatrixView, ProductQuantizer, ResidualQuantizer};
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [vectors, queries, codebooks, codes, ids, seconds] = &arguments[..] else {
        println!("codes_peer is driven by benches/peers/codes.py");
        return Ok(());
    };
    let seconds: f64 = seconds.parse()?;
    let (x, n, d) = read(vectors)?;
    let (q, count, _) = read(queries)?;
    let (x, q) = (MatrixView::new(&x, n, d)?, MatrixView::new(&q, count, d)?);
    let (codewords, rows, width) = read(codebooks)?;
    if width == d {
        return residual(x, MatrixView::new(&codewords, rows, d)?, codebooks, seconds);
    }
    let (m, k) = (d / width, rows * width / d);
    let quantizer = ProductQuantizer::new(MatrixView::new(&codewords, rows, width)?, m, &Device::cpu())?;
    let reader = Reader::open(Path::new(codes), None)?;
    let mut bytes = vec![0; reader.elements()];
    reader.read_codes(0, &mut bytes, &mut Vec::new())?;
    let codes: Vec<u8> = bytes.into_iter().map(|byte| byte as u8).collect();

    let params = KMeans::new(k).init(Init::RandomRows);
    let train = median(seconds, || ProductQuantizer::train(x, m, &params, &Device::cpu()))?;
    let encode = median(seconds, || quantizer.encode(x))?;
    let search = median(seconds, || quantizer.search(&codes, q, 100))?;
    let (path, found) = (Path::new(ids), quantizer.search(&codes, q, 100)?);
    let mut writer = Writer::new(File::create(path)?, path, Header::new(Scalar::U32, &[count, 100], false)?)?;
    writer.write_codes(0, &found.ids)?;
    writer.finish()?;
    println!("{{\"train\": {train}, \"encode\": {encode}, \"search\": {search}}}");
    Ok(())
}

fn residual(
    x: MatrixView<'_, f32>,
    codewords: MatrixView<'_, f32>,
    codebooks: &str,
    seconds: f64,
) -> Result<(), Box<dyn Error>> {
    let m = Reader::open(Path::new(codebooks), None)?.header().shape[0];
    let quantizer = ResidualQuantizer::new(codewords, m, &Device::cpu())?;
    let params = KMeans::new(quantizer.k()).init(Init::Progressive);
    let train = median(seconds, || ResidualQuantizer::train(x, m, &params, &Device::cpu()))?;
    let encode = median(seconds, || quantizer.encode(x))?;
    println!("{{\"train\": {train}, \"encode\": {encode}}}");
    Ok(())
}

/// The median time in ms.
fn median<T>(seconds: f64, mut run: impl FnMut() -> codeword::Result<T>) -> codeword::Result<f64> {
    run()?;
    let mut times = Vec::new();
    while times.len() < 3 || times.iter().sum::<f64>() < seconds {
        let start = Instant::now();
        std::hint::black_box(run()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2] * 1e3)
}

/// All rows of a file as f32, and their number and length.
fn read(path: &str) -> Result<(Vec<f32>, usize, usize), Box<dyn Error>> {
    let reader = Reader::open(Path::new(path), None)?;
    let (rows, cols) = (reader.rows(), reader.cols());
    let mut data = vec![0.0; rows * cols];
    reader.read_rows(0, &mut data, &mut Vec::new())?;
    Ok((data, rows, cols))
}
