//! The sample of the README: a picture to quantize, and a look at what came back.
//!
//! `picture render FOLDER` draws the picture, cuts it into 4 x 4 pixel patches (48 numbers each), learns 256 codewords
//! from them and writes `picture.png`, `patches.npy` (u8, `[128, 128, 48]`) and `codebook.npy` (f32, `[256, 48]`).
//!
//! `picture compare PATCHES DECODED OUTPUT` writes one PNG: the picture of the patches, the picture of the decoded
//! patches, and four times their difference on grey.

mod scene;

use codeword::io::npy::{Header, Reader, Scalar, Writer};
use codeword::{AssignOptions, Codebook, Device, MatrixView, assign};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Pixels along one side of the picture, and of a patch.
const SIZE: usize = 512;
const PATCH: usize = 4;
const PATCHES: usize = SIZE / PATCH;
const D: usize = PATCH * PATCH * 3;
const K: usize = 256;
const ITERATIONS: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["render", folder] => render(Path::new(folder)),
        ["compare", patches, decoded, output] => compare(Path::new(patches), Path::new(decoded), Path::new(output)),
        _ => Err("usage: picture render FOLDER | picture compare PATCHES DECODED OUTPUT".into()),
    }
}

fn render(folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let pixels = scene::render(SIZE);
    write_png(&folder.join("picture.png"), &pixels, SIZE, SIZE)?;

    let patches = cut(&pixels);
    let path = folder.join("patches.npy");
    let mut writer = Writer::new(File::create(&path)?, &path, Header::new(Scalar::U8, &[PATCHES, PATCHES, D], false)?)?;
    writer.write_codes(0, &patches.iter().map(|&byte| u32::from(byte)).collect::<Vec<_>>())?;
    writer.finish()?;

    let codewords = learn(&patches.iter().map(|&byte| f32::from(byte)).collect::<Vec<_>>())?;
    let path = folder.join("codebook.npy");
    let mut writer = Writer::new(File::create(&path)?, &path, Header::new(Scalar::F32, &[K, D], false)?)?;
    writer.write_rows(0, &codewords)?;
    writer.finish()?;
    Ok(())
}

/// A short Lloyd loop: every patch goes to its nearest codeword, every codeword to the mean of its patches.
fn learn(patches: &[f32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let x = MatrixView::new(patches, patches.len() / D, D)?;
    // The start: 256 patches from all over the picture.
    let mut codewords: Vec<f32> =
        (0..K).flat_map(|j| x.row((mixed(j as u64) % x.rows() as u64) as usize)).copied().collect();
    for iteration in 1..=ITERATIONS {
        let codebook = Codebook::new(MatrixView::new(&codewords, K, D)?, &Device::best())?;
        let nearest = assign(x, &codebook, AssignOptions::default())?;
        let mut sums = vec![0.0f64; K * D];
        let mut counts = [0u32; K];
        for (i, &label) in nearest.labels.iter().enumerate() {
            let label = label as usize;
            counts[label] += 1;
            for (sum, value) in sums[label * D..][..D].iter_mut().zip(x.row(i)) {
                *sum += f64::from(*value);
            }
        }
        // A codeword that lost all its patches starts again at the patch that is served worst.
        let mut worst: Vec<usize> = (0..x.rows()).collect();
        worst.sort_by(|&a, &b| nearest.sq_distances[b].total_cmp(&nearest.sq_distances[a]).then(a.cmp(&b)));
        let mut worst = worst.into_iter();
        for (j, codeword) in codewords.chunks_exact_mut(D).enumerate() {
            if counts[j] > 0 {
                for (value, sum) in codeword.iter_mut().zip(&sums[j * D..]) {
                    *value = (sum / f64::from(counts[j])) as f32;
                }
            } else if let Some(i) = worst.next() {
                codeword.copy_from_slice(x.row(i));
            }
        }
        let inertia: f64 = nearest.sq_distances.iter().map(|&distance| f64::from(distance)).sum();
        eprintln!("iteration {iteration:2}: mean squared distance {:.1}", inertia / x.rows() as f64);
    }
    Ok(codewords)
}

fn compare(patches: &Path, decoded: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let (before, after) = (paste(&read(patches)?), paste(&read(decoded)?));
    let error: f64 = before.iter().zip(&after).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum();
    let mse = error / before.len() as f64;
    let byte = |value: f32| value.round().clamp(0.0, 255.0) as u8;
    const GAP: usize = 8;
    let mut pixels = Vec::new();
    for (a, b) in before.chunks_exact(SIZE * 3).zip(after.chunks_exact(SIZE * 3)) {
        pixels.extend(a.iter().map(|&value| byte(value)));
        pixels.extend([255; GAP * 3]);
        pixels.extend(b.iter().map(|&value| byte(value)));
        pixels.extend([255; GAP * 3]);
        pixels.extend(a.iter().zip(b).map(|(a, b)| byte(128.0 + 4.0 * (b - a))));
    }
    write_png(output, &pixels, 3 * SIZE + 2 * GAP, SIZE)?;
    println!(
        "{}: the picture, its reconstruction and 4 x the difference; mean squared error {mse:.1}, PSNR {:.2} dB",
        output.display(),
        10.0 * (255.0 * 255.0 / mse).log10()
    );
    Ok(())
}

/// All patches of a file, as f32.
fn read(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let reader = Reader::open(path, None)?;
    let (rows, cols) = (reader.rows(), reader.cols());
    if (rows, cols) != (PATCHES * PATCHES, D) {
        let wanted = PATCHES * PATCHES;
        return Err(format!("{}: expected {wanted} patches of {D} values, got {rows} of {cols}", path.display()).into());
    }
    let mut patches = vec![0.0; PATCHES * PATCHES * D];
    reader.read_rows(0, &mut patches, &mut Vec::new())?;
    Ok(patches)
}

/// Pixels to patches, `[128 * 128, 48]`: each patch holds its pixels row after row.
fn cut<T: Copy>(pixels: &[T]) -> Vec<T> {
    (0..PATCHES * PATCHES * D).map(|i| pixels[pixel_of(i)]).collect()
}

/// Patches back to pixels.
fn paste(patches: &[f32]) -> Vec<f32> {
    let mut pixels = vec![0.0; patches.len()];
    for (i, &value) in patches.iter().enumerate() {
        pixels[pixel_of(i)] = value;
    }
    pixels
}

/// Where element `i` of the patches lies in the picture.
fn pixel_of(i: usize) -> usize {
    let (patch, inside) = (i / D, i % D);
    let row = patch / PATCHES * PATCH + inside / (PATCH * 3);
    let col = patch % PATCHES * PATCH + inside / 3 % PATCH;
    (row * SIZE + col) * 3 + inside % 3
}

fn write_png(path: &Path, pixels: &[u8], width: usize, height: usize) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    Ok(writer.finish()?)
}

/// The finisher of SplitMix64: a random-looking number for every number.
fn mixed(key: u64) -> u64 {
    let mut z = key.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
