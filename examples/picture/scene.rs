//! An evening at a lake, by formula. Only `+ - * / sqrt` and rounding occur, which IEEE fixes to the bit: the picture
//! is the same on every machine, and so are its patches and the codebook learned from them.

/// Where the water begins, as a share of the height.
const HORIZON: f64 = 0.60;
const SUN: [f64; 2] = [0.69, 0.335];

type Rgb = [f64; 3];

/// The picture, `size` x `size` pixels of red, green, blue, row after row; every pixel the mean of 3 x 3 samples.
pub fn render(size: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(size * size * 3);
    for row in 0..size {
        for col in 0..size {
            let mut sum = [0.0; 3];
            for sample in 0..9 {
                let x = (col as f64 + (sample % 3) as f64 / 3.0) / size as f64;
                let y = (row as f64 + (sample / 3) as f64 / 3.0) / size as f64;
                let color = if y < HORIZON { above_water(x, y) } else { water(x, y) };
                sum = std::array::from_fn(|c| sum[c] + color[c].clamp(0.0, 1.0));
            }
            pixels.extend(sum.map(|s| (s / 9.0 * 255.0).round() as u8));
        }
    }
    pixels
}

fn above_water(x: f64, y: f64) -> Rgb {
    boat(x, y).or_else(|| ridges(x, y)).unwrap_or_else(|| sky(x, y))
}

fn sky(x: f64, y: f64) -> Rgb {
    let height = 1.0 - y / HORIZON;
    let air = if height < 0.35 {
        mix([0.98, 0.72, 0.42], [0.80, 0.50, 0.50], height / 0.35)
    } else {
        mix([0.80, 0.50, 0.50], [0.13, 0.20, 0.42], (height - 0.35) / 0.65)
    };
    let (dx, dy) = (x - SUN[0], y - SUN[1]);
    let from_sun = (dx * dx + dy * dy).sqrt();
    let lit = mix(air, [1.0, 0.88, 0.60], 0.85 / (1.0 + 60.0 * from_sun * from_sun));
    // Clouds are long because the noise is read nine times faster upwards than sideways.
    let cloud = step(0.50, 0.78, fractal(x * 3.0 + y * 2.0, y * 18.0, 11, 5)) * step(0.02, 0.30, height);
    let rim = mix([0.42, 0.34, 0.46], [1.0, 0.78, 0.62], 1.0 / (1.0 + 14.0 * from_sun * from_sun));
    mix(mix(lit, rim, 0.75 * cloud), [1.0, 0.97, 0.86], step(0.062, 0.056, from_sun))
}

/// Three mountain ridges, the far ones paler; the nearest carries a forest.
fn ridges(x: f64, y: f64) -> Option<Rgb> {
    let layers = [
        // top of the ridge, its ups and downs, their pace, how much texture shows, colour
        (0.600, 0.05, 9.0, 1.00, [0.07, 0.11, 0.12]),
        (0.535, 0.17, 4.0, 0.50, [0.23, 0.24, 0.34]),
        (0.455, 0.26, 2.6, 0.28, [0.47, 0.40, 0.50]),
    ];
    for (index, (top, swing, pace, texture, color)) in layers.into_iter().enumerate() {
        let seed = 31 + index as u64;
        let mut edge = top - swing * (fractal(x * pace + 7.3, 0.5, seed, 6) - 0.32);
        if index == 0 {
            edge -= 0.030 * fractal(x * 90.0, 0.5, 77, 2);
        }
        if y > edge {
            let relief = fractal(x * 26.0 + 30.0 * y, y * 44.0, seed + 10, 4)
                - fractal(x * 26.0 + 0.5 + 30.0 * y, y * 44.0, seed + 10, 4);
            let haze = ((y - edge) / 0.22).min(1.0) * 0.45 * index as f64;
            return Some(mix(color.map(|c| c + texture * 0.55 * relief), [0.86, 0.60, 0.50], haze * 0.6));
        }
    }
    None
}

/// A sailing boat: two sails with seams, a mast and a hull.
fn boat(x: f64, y: f64) -> Option<Rgb> {
    let (u, v) = ((x - 0.30) / 0.15, (HORIZON + 0.004 - y) / 0.15);
    let shade = |light: f64| [0.96 * light, 0.91 * light, 0.84 * light];
    if (0.0..0.10).contains(&v) && u.abs() < 0.40 + 1.2 * v {
        return Some(if v > 0.07 { [0.78, 0.26, 0.18] } else { [0.30, 0.13, 0.11] });
    }
    if u.abs() < 0.012 && (0.10..1.62).contains(&v) {
        return Some([0.20, 0.14, 0.11]);
    }
    if !(0.16..1.56).contains(&v) {
        return None;
    }
    let up = (v - 0.16) / 1.40;
    let seam = if (up * 9.0).fract() < 0.06 { 0.86 } else { 1.0 };
    let belly = 0.55 * (1.0 - up) + 0.20 * up * (1.0 - up);
    if (0.02..belly).contains(&u) {
        return Some(shade(seam * (0.97 - 0.30 * (u / belly))));
    }
    let jib = -0.44 * (1.0 - up / 0.86);
    (up < 0.86 && (jib..-0.03).contains(&u)).then(|| shade(seam * (0.70 + 0.25 * (u / jib.min(-0.04)))))
}

/// The world above mirrored, bent by ripples that shorten towards the horizon, and the sun's path on it.
fn water(x: f64, y: f64) -> Rgb {
    let depth = (y - HORIZON) / (1.0 - HORIZON);
    let far = 1.0 / (depth + 0.045);
    let ripple = fractal(x * (4.0 + 5.0 * far), 16.0 * far, 91, 3) - 0.5;
    let mirrored = HORIZON - (y - HORIZON) * 1.05 - 0.10 * ripple * (0.15 + depth);
    let image = above_water(x + 0.06 * ripple * (0.1 + depth), mirrored.clamp(0.0, HORIZON - 1e-9));
    let color = mix(image, [0.05, 0.12, 0.20], 0.30 + 0.40 * depth);
    let beside = (x - SUN[0] + 0.05 * ripple) / (0.045 + 0.16 * depth);
    let glitter = step(0.02, 0.16, ripple) / (1.0 + beside * beside * beside * beside);
    mix(color, [1.0, 0.84, 0.56], 0.9 * glitter)
}

/// Octaves of value noise, each twice as fine and half as strong; mean near one half, within 0 and 1.
fn fractal(x: f64, y: f64, seed: u64, octaves: u32) -> f64 {
    let (mut sum, mut weight, mut total, mut scale) = (0.0, 1.0, 0.0, 1.0);
    for octave in 0..octaves {
        sum += weight * noise(x * scale, y * scale, seed * 64 + u64::from(octave));
        total += weight;
        weight *= 0.5;
        scale *= 2.0;
    }
    sum / total
}

/// Random values at the whole numbers, joined smoothly.
fn noise(x: f64, y: f64, seed: u64) -> f64 {
    let at = |i: f64, j: f64| {
        let key = (i as i64 as u64).wrapping_mul(0x9E37_79B9).wrapping_add((j as i64 as u64).wrapping_mul(0x85EB_CA77));
        (super::mixed(key ^ super::mixed(seed)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let (i, j) = (x.floor(), y.floor());
    let (u, v) = (step(0.0, 1.0, x - i), step(0.0, 1.0, y - j));
    let upper = at(i, j) * (1.0 - u) + at(i + 1.0, j) * u;
    let lower = at(i, j + 1.0) * (1.0 - u) + at(i + 1.0, j + 1.0) * u;
    upper * (1.0 - v) + lower * v
}

/// 0 before `from`, 1 after `to`, a smooth cubic between; `from > to` steps down.
fn step(from: f64, to: f64, x: f64) -> f64 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

fn mix(a: Rgb, b: Rgb, share: f64) -> Rgb {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * share)
}
