//! Our side of `benches/peers/run.sh`: the same .npy files, the same work, the same clock as the peers.
//!
//! `codeword_peer VECTORS CODEBOOK SECONDS LABELS MODE`: labels every vector, again and again for about SECONDS after one
//! run that does not count, each time preparing the codebook anew; writes the labels once (u32) and prints
//! `{"ms": the median, "repeats": n}`. MODE is `exact` or `fast`; or `train:N`: then what is repeated is k-means of N
//! iterations from that codebook, and the line has its `inertia` too.

use codeword::io::npy::{Header, Reader, Scalar, Writer};
use codeword::{AssignOptions, Codebook, Device, Init, KMeans, MatrixView, Precision, assign};
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [vectors, codebook, seconds, labels, mode] = &arguments[..] else {
        println!("codeword_peer is driven by benches/peers/run.sh");
        return Ok(());
    };
    let seconds: f64 = seconds.parse()?;
    let train: Option<usize> = mode.strip_prefix("train:").map(str::parse).transpose()?;
    let precision = match mode.as_str() {
        "fast" => Precision::Fast,
        "exact" => Precision::Exact,
        _ if train.is_some() => Precision::Exact,
        other => return Err(format!("expected exact, fast or train:N, got {other}").into()),
    };
    let (x, n, d) = read(Path::new(vectors))?;
    let (e, k, _) = read(Path::new(codebook))?;
    let options = AssignOptions { precision, ..Default::default() };
    let run = || {
        let codebook = Codebook::new(MatrixView::new(&e, k, d)?, &Device::cpu())?;
        let x = MatrixView::new(&x, n, d)?;
        let Some(iterations) = train else { return assign(x, &codebook, options).map(|it| (it, 0.0)) };
        let fit = KMeans::new(k).init(Init::Given(codebook)).iterations(iterations).fit(x, &Device::cpu())?;
        Ok((fit.assignment, fit.inertia))
    };

    let (first, inertia) = run()?;
    let mut times = Vec::new();
    while times.len() < 3 || times.iter().sum::<f64>() < seconds {
        let start = Instant::now();
        std::hint::black_box(run()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let path = Path::new(labels);
    let mut writer = Writer::new(File::create(path)?, path, Header::new(Scalar::U32, &[n], false)?)?;
    writer.write_codes(0, &first.labels)?;
    writer.finish()?;
    let (ms, repeats) = (times[times.len() / 2] * 1e3, times.len());
    println!("{{\"ms\": {ms}, \"repeats\": {repeats}, \"inertia\": {inertia}}}");
    Ok(())
}

/// All rows of a file as f32, and their number and length.
fn read(path: &Path) -> Result<(Vec<f32>, usize, usize), Box<dyn Error>> {
    let reader = Reader::open(path, None)?;
    let (rows, cols) = (reader.rows(), reader.cols());
    let mut data = vec![0.0; rows * cols];
    reader.read_rows(0, &mut data, &mut Vec::new())?;
    Ok((data, rows, cols))
}
