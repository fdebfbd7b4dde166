//! How fast nearest codewords are found on a GPU, for vectors that lie there and labels that stay there.
//!
//! `cargo bench --bench cuda` runs the shapes below; `cargo bench --bench cuda -- SHAPE...` others, a shape being
//! `NxDxK` or, for rows that begin further apart than they are long, `NxDxK:STRIDE`. Per shape and type one line of
//! JSON: milliseconds (a call and the wait for it, by the host's clock; median, least, most), TFLOP/s (2 n d k
//! operations), rows settled per tier. scripts/gpu-suite/results.py sets peers beside it, on the same numbers.
//! `cargo bench --bench cuda -- codes`, or `codes:N`: so many product codes (a million) made and searched, a line of JSON
//! each with milliseconds (a call, median and least of five): of vectors, queries and codes in host memory, and `on the
//! device` of vectors that lie there and codes that stay there, the wait for them included, repeated as shapes are. Its codes
//! have to be those of the line before.
//!
//! CODEWORD_BENCH_SECONDS  of repeats per line (default 1): 5 at least and 1000 at most
//! CODEWORD_BENCH_LABELS   folder for the labels, as SHAPE.TYPE.u32 (little-endian); none are kept without it

use codeword::cuda::{Context, MatrixView, ProductWorkspace, Workspace};
use codeword::{AssignOptions, Codebook, Device, Element, ProductQuantizer, bf16, f16};
use rayon::prelude::*;
use std::error::Error;
use std::time::Instant;

const SHAPES: [&str; 6] = [
    "1000000x256x1024",
    "1000000x256x16384",
    "10000000x128x256",
    "65536x4x8192",
    // The first sub-vector of six, as a product quantizer sees it.
    "1000000x16x256:96",
    "100000x256x1024",
];

/// Rows that go through at once: enough to fill a device, and their working memory stays below 400 MB at d = 256.
const BLOCK: usize = 1 << 17;

struct Shape<'a> {
    name: &'a str,
    n: usize,
    d: usize,
    k: usize,
    stride: usize,
}

impl<'a> Shape<'a> {
    fn parse(name: &'a str) -> Option<Shape<'a>> {
        let (sizes, stride) = match name.split_once(':') {
            Some((sizes, stride)) => (sizes, Some(stride)),
            None => (name, None),
        };
        let sizes: Vec<usize> = sizes.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
        let [n, d, k] = sizes[..] else { return None };
        let stride = stride.map_or(Some(d), |stride| stride.parse().ok())?;
        Some(Shape { name, n, d, k, stride })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let names = if names.is_empty() { SHAPES.map(String::from).to_vec() } else { names };
    let device = match Device::cuda(0) {
        Ok(device) => device,
        Err(why) if std::env::var("CODEWORD_TEST_REQUIRE").is_ok_and(|names| names.contains("cuda")) => {
            return Err(why.into());
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            return Ok(());
        }
    };
    for name in &names {
        if let Some(n) = codes_of(name) {
            codes(&device, n)?;
            continue;
        }
        let shape = Shape::parse(name).ok_or_else(|| format!("expected NxDxK or NxDxK:STRIDE, got {name}"))?;
        measure(&device, &shape, "f32", |value| value)?;
        measure(&device, &shape, "f16", f16::from_f32)?;
        measure(&device, &shape, "bf16", bf16::from_f32)?;
    }
    Ok(())
}

/// How many codes a name asks for, if it asks for codes.
fn codes_of(name: &str) -> Option<usize> {
    match name.strip_prefix("codes")? {
        "" => Some(1_000_000),
        n => n.strip_prefix(':')?.parse().ok(),
    }
}

fn context(device: &Device) -> Result<&Context, Box<dyn Error>> {
    match device {
        Device::Cuda(context) => Ok(context),
        _ => Err("a device that is none".into()),
    }
}

fn measure<T>(device: &Device, shape: &Shape, dtype: &str, round: fn(f32) -> T) -> Result<(), Box<dyn Error>>
where
    T: Element + codeword::cuda::cudarc::driver::DeviceRepr,
{
    let &Shape { name, n, d, k, stride } = shape;
    let stream = context(device)?.new_stream()?;
    let codewords = numbers(2, k * d, round);
    let start = Instant::now();
    let codebook = Codebook::new(codeword::MatrixView::new(&codewords, k, d)?, device)?;
    let prepare = start.elapsed().as_secs_f64();
    let x = stream.clone_htod(&numbers(1, n * stride, round))?;
    let x = MatrixView::with_stride(&x, n, d, stride)?;
    let mut labels = stream.alloc_zeros::<u32>(n)?;
    let mut sq_distances = stream.alloc_zeros::<f32>(n)?;
    let mut workspace = Workspace::<T>::new(&codebook, &stream, n.clamp(1, BLOCK))?;
    let mut run = |workspace: &mut Workspace<T>| -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        workspace.assign(x, AssignOptions::default(), &mut labels, &mut sq_distances)?;
        stream.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };

    run(&mut workspace)?;
    let tiers = workspace.check()?;
    let times = repeat(|| run(&mut workspace))?;
    workspace.check()?;
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);

    if let Some(folder) = std::env::var_os("CODEWORD_BENCH_LABELS") {
        let bytes: Vec<u8> = stream.clone_dtoh(&labels)?.into_iter().flat_map(u32::to_le_bytes).collect();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.{dtype}.u32")), bytes)?;
    }
    let line = serde_json::json!({
        "by": "codeword", "shape": name, "dtype": dtype,
        "ms": median * 1e3, "min": least * 1e3, "max": most * 1e3, "repeats": times.len(),
        "tflops": 2e-12 * n as f64 * d as f64 * k as f64 / median,
        "prepare_ms": prepare * 1e3,
        "tiers": {"first": tiers.first, "second": tiers.second, "f64": tiers.f64, "exact": tiers.exact},
    });
    println!("{line}");
    Ok(())
}

/// Seconds of the repeats of a line, ascending.
fn repeat(mut run: impl FnMut() -> Result<f64, Box<dyn Error>>) -> Result<Vec<f64>, Box<dyn Error>> {
    let seconds = std::env::var("CODEWORD_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let mut times = vec![run()?];
    while times.len() < 1000 && (times.len() < 5 || times.iter().sum::<f64>() < seconds) {
        times.push(run()?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// `n` vectors as codes, and `n` codes searched: what a program waits for, copies to the device among it where vectors and
/// codes are in host memory.
fn codes(device: &Device, n: usize) -> Result<(), Box<dyn Error>> {
    let k = 256;
    let quantizer = |m: usize, width: usize| {
        let codewords = numbers(2, m * k * width, |value| value);
        Ok::<_, Box<dyn Error>>(ProductQuantizer::new(codeword::MatrixView::new(&codewords, m * k, width)?, m, device)?)
    };
    let told = |what: &str, times: &[f64]| {
        let line = serde_json::json!({
            "by": "codeword", "what": what,
            "ms": times[times.len() / 2] * 1e3, "min": times[0] * 1e3, "repeats": times.len(),
        });
        println!("{line}");
    };
    {
        // What is here is free before codes are searched.
        let six = quantizer(6, 16)?;
        let values = numbers(1, n * 96, |value| value);
        let encode = || Ok(six.encode(codeword::MatrixView::new(&values, n, 96)?)?);
        told(&format!("encode {n} x 96 as 6 x 256"), &times(encode)?);

        let stream = context(device)?.new_stream()?;
        let x = stream.clone_htod(&values)?;
        let x = MatrixView::new(&x, n, 96)?;
        let mut codes = stream.alloc_zeros::<u8>(n * six.code_size())?;
        let mut workspace = ProductWorkspace::<f32>::new(&six, &stream, n.max(1))?;
        let mut run = || {
            let start = Instant::now();
            workspace.encode(x, &mut codes)?;
            stream.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        run()?;
        let on_device = repeat(run)?;
        workspace.check()?;
        if stream.clone_dtoh(&codes)? != encode()? {
            return Err("codes made on the device are not those of vectors in host memory".into());
        }
        told(&format!("encode {n} x 96 as 6 x 256 on the device"), &on_device);
    }

    for (m, width, r) in [(8, 16, 100), (16, 8, 100), (32, 4, 100)] {
        let quantizer = quantizer(m, width)?;
        let codes: Vec<u8> =
            numbers(3, n * m, |value| value).into_iter().map(|value| (value * 32_768.0) as i64 as u8).collect();
        for queries in [100, 1000] {
            let q = numbers(4, queries * m * width, |value| value);
            let q = codeword::MatrixView::new(&q, queries, m * width)?;
            let what = format!("{queries} queries among {n} codes of {m} x 256, the {r} nearest");
            told(&what, &times(|| Ok(quantizer.search(&codes, q, r)?))?);
        }
    }
    Ok(())
}

/// Seconds of some runs after a first that does not count, ascending.
fn times<R>(mut run: impl FnMut() -> Result<R, Box<dyn Error>>) -> Result<Vec<f64>, Box<dyn Error>> {
    run()?;
    let mut times = Vec::new();
    while times.len() < 5 {
        let start = Instant::now();
        std::hint::black_box(run()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Values of a fixed sequence, nearly Gaussian, of variance 4/3: sums of four 16-bit numbers, so that each is exact and
/// PyTorch makes the same (results.py).
fn numbers<T: Send>(seed: u64, len: usize, round: fn(f32) -> T) -> Vec<T> {
    let value = |i: usize| {
        let mut h = (i as u64).wrapping_add(seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= h >> 32;
        h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= h >> 32;
        let sum: i64 = (0..4).map(|lane| (h >> (16 * lane) & 0xffff) as i64).sum();
        round((sum - 131_070) as f32 / 32_768.0)
    };
    (0..len).into_par_iter().map(value).collect()
}
