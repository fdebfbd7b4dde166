//! Data made to break nearest-codeword searches.

use super::{Numbers, matrix};
use codeword::Matrix;

pub struct Case {
    pub name: String,
    pub x: Matrix<f32>,
    pub codewords: Matrix<f32>,
}

/// Every adversarial set for one shape. Sizes should be pairwise different.
pub fn adversarial(n: usize, k: usize, d: usize) -> Vec<Case> {
    let mut made = Maker { n, k, d, numbers: Numbers::new((n * 1_000_000 + k * 1000 + d) as u64), cases: Vec::new() };
    made.ties();
    made.near_ties();
    made.scales();
    made.long_codeword();
    made.cases.push(every_tier(n, k, d));
    made.cases
}

/// Pairs of codewords that differ in the first dimension only, and rows off their mirror plane by ever smaller
/// powers of two: the gap between the two distances runs from plain to far below f64, and to none.
pub fn every_tier(n: usize, k: usize, d: usize) -> Case {
    let mut numbers = Numbers::new(77);
    let bases: Vec<Vec<f32>> =
        (0..k.div_ceil(2)).map(|_| numbers.gaussians(d).iter().map(|v| 8.0 * v).collect()).collect();
    let mut codewords = Vec::new();
    for j in 0..k {
        let mut codeword = bases[j / 2].clone();
        codeword[0] = if j % 2 == 0 { -0.125 } else { 0.125 };
        codewords.extend(codeword);
    }
    let mut x = Vec::new();
    for i in 0..n {
        let mut row: Vec<f32> = bases[i % bases.len()].iter().map(|v| v + numbers.gaussian() / 256.0).collect();
        let sign = if numbers.below(2) == 0 { 1.0 } else { -1.0 };
        let gap = if i % 9 == 8 { 0.0 } else { 2f32.powi(-((i * 128 / n.max(1)) as i32) - 3) };
        row[0] = sign * gap;
        x.extend(row);
    }
    Case { name: format!("every tier {n} x {k} x {d}"), x: matrix(x, n, d), codewords: matrix(codewords, k, d) }
}

/// The same with one codeword more, so long that integers of one unit do not suit the codebook, as far as f32 goes.
pub fn stretched(case: Case) -> Case {
    let (k, d) = (case.codewords.rows(), case.codewords.cols());
    let mut codewords = case.codewords.as_slice().to_vec();
    let largest = codewords.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    codewords.extend(
        (0..d).map(|t| if t % 2 == 0 { largest } else { -largest }).map(|v| (64.0 * v).clamp(f32::MIN, f32::MAX)),
    );
    Case { name: format!("{}, stretched", case.name), x: case.x, codewords: matrix(codewords, k + 1, d) }
}

/// The f32 `by` steps away from zero, in bit patterns.
pub fn step(value: f32, by: i32) -> f32 {
    let magnitude = (value.abs().to_bits() as i32 + by).clamp(0, f32::MAX.to_bits() as i32);
    f32::from_bits(magnitude as u32).copysign(value)
}

struct Maker {
    n: usize,
    k: usize,
    d: usize,
    numbers: Numbers,
    cases: Vec<Case>,
}

impl Maker {
    fn add(&mut self, name: &str, x: Vec<f32>, codewords: Vec<f32>) {
        let (n, k, d) = (self.n, self.k, self.d);
        let name = format!("{name} {n} x {k} x {d}");
        self.cases.push(Case { name, x: matrix(x, n, d), codewords: matrix(codewords, k, d) });
    }

    fn random(&mut self, rows: usize, scale: f32) -> Vec<f32> {
        self.numbers.gaussians(rows * self.d).into_iter().map(|v| v * scale).collect()
    }

    /// Codewords that compete to the last bit: the lowest index has to win.
    fn ties(&mut self) {
        let (n, k, d) = (self.n, self.k, self.d);
        let few = self.random(3, 1.0);
        let copies: Vec<f32> = (0..k).flat_map(|j| few[(j * j + j / 7) % 3 * d..][..d].to_vec()).collect();
        let x = self.random(n, 1.0);
        self.add("duplicate codewords", x.clone(), copies.clone());
        let on_top: Vec<f32> = (0..n).flat_map(|i| few[i % 3 * d..][..d].to_vec()).collect();
        self.add("rows equal to duplicate codewords", on_top, copies);

        self.add("all codewords zero", x.clone(), vec![0.0; k * d]);
        let signs: Vec<f32> = (0..k * d).map(|_| if self.numbers.below(2) == 0 { 0.0 } else { -0.0 }).collect();
        self.add("zeros of either sign", x, signs.clone());
        let minus = (0..n * d).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect();
        self.add("zero rows against zeros of either sign", minus, signs);

        // Permutations and signs of one vector are equally far from every row of equal components of magnitude zero.
        let one = self.random(1, 1.0);
        let mut equidistant = Vec::new();
        for j in 0..k {
            let mut codeword = one.clone();
            codeword.rotate_left(j % d);
            equidistant.extend(codeword.iter().map(|v| if self.numbers.below(2) == 0 { *v } else { -v }));
        }
        self.add("rows equidistant to all codewords", vec![0.0; n * d], equidistant);

        let (x, codewords) = (self.numbers.integers(n * d, 1), self.numbers.integers(k * d, 1));
        self.add("small integers", x, codewords);
        let (x, codewords) = (self.numbers.integers(n * d, 1), self.numbers.integers(k * d, 1));
        let shifted = |v: Vec<f32>| v.into_iter().map(|v| v + 10_000.0).collect();
        self.add("small integers at an offset of 1e4", shifted(x), shifted(codewords));

        // Whole numbers below 2^22: the middle of two codewords is exact, and the tie is one of real numbers.
        let codewords: Vec<f32> = self.numbers.integers(k * d, 1 << 20).iter().map(|v| 2.0 * v).collect();
        let middle: Vec<f32> = (0..n * d)
            .map(|i| (codewords[i / d % k * d + i % d] + codewords[(i / d + 1) % k * d + i % d]) / 2.0)
            .collect();
        self.add("exact midpoints", middle.clone(), codewords.clone());
        let near = middle.into_iter().map(|v| step(v, self.numbers.below(3) as i32 - 1)).collect();
        self.add("one step beside midpoints", near, codewords);
    }

    /// Codewords next to each other, where rounding outweighs the difference.
    fn near_ties(&mut self) {
        let (n, k, d) = (self.n, self.k, self.d);
        for (what, centre) in [
            ("1 ulp apart", self.random(1, 1.0)),
            ("1 ulp apart at an offset of 1e4", vec![10_000.0; d]),
            ("1 ulp apart at 1e-40", self.random(1, 1e-40)),
        ] {
            let by = |numbers: &mut Numbers| {
                centre.iter().map(|&v| step(v, numbers.below(3) as i32 - 1)).collect::<Vec<_>>()
            };
            let codewords = (0..k).flat_map(|_| by(&mut self.numbers)).collect::<Vec<_>>();
            let x = (0..n).flat_map(|_| by(&mut self.numbers)).collect();
            self.add(what, x, codewords.clone());
            let far = self.random(n, 3.0);
            self.add(&format!("{what}, rows far away"), far, codewords);
        }
        let offset = |v: Vec<f32>| v.into_iter().map(|v| v + 10_000.0).collect::<Vec<_>>();
        let (x, codewords) = (self.random(n, 1.0), self.random(k, 1.0));
        self.add("offset of 1e4", offset(x.clone()), offset(codewords.clone()));
        self.add("offset of 1e4 in the codewords only", x, offset(codewords));
        // Rows far out on one line: every cross term is alike, and the differences vanish in it.
        let codewords = self.random(k, 1e-3);
        self.add("rows 1e7 longer than codewords", vec![1e4; n * d], codewords);
    }

    fn scales(&mut self) {
        let (n, k, d) = (self.n, self.k, self.d);
        for scale in [1e-18, 1e-19, 1e-20, 1e-21, 1e-22, 1e-23, 1e-30, 1e-40, 1e-44, 1e15, 1e19, 1e25, 5e37] {
            let (x, codewords) = (self.random(n, scale), self.random(k, scale));
            self.add(&format!("scale {scale:e}"), x, codewords);
            let (x, codewords) = (self.numbers.integers(n * d, 2), self.numbers.integers(k * d, 2));
            let scaled = |v: Vec<f32>| v.into_iter().map(|v| v * scale).collect();
            self.add(&format!("integers at scale {scale:e}"), scaled(x), scaled(codewords));
        }
        // Squared distances beyond f32, differences beyond f32: the labels stay exact.
        let mut extreme =
            |count: usize| -> Vec<f32> { (0..count).map(|_| (2.0 * self.numbers.uniform() - 1.0) * 3.4e38).collect() };
        let (x, codewords) = (extreme(n * d), extreme(k * d));
        self.add("scale 3e38", x, codewords);
        let mut corner = |count: usize| (0..count).map(|_| [f32::MAX, f32::MIN][self.numbers.below(2)]).collect();
        let (x, codewords) = (corner(n * d), corner(k * d));
        self.add("largest numbers of either sign", x, codewords);

        let powers: Vec<f32> = (0..d).map(|_| 2f32.powi(self.numbers.below(90) as i32 - 45)).collect();
        let per_dimension = |v: Vec<f32>| v.iter().enumerate().map(|(i, v)| v * powers[i % d]).collect::<Vec<_>>();
        let (x, codewords) = (self.random(n, 1.0), self.random(k, 1.0));
        self.add("a scale per dimension", per_dimension(x), per_dimension(codewords));
        let (mut x, mut codewords) = (self.random(n, 1.0), self.random(k, 1.0));
        for v in x.iter_mut().chain(&mut codewords) {
            *v *= 2f32.powi(self.numbers.below(200) as i32 - 100);
        }
        self.add("a scale per number", x, codewords.clone());
        let rows: Vec<f32> =
            codewords.iter().cycle().take(n * d).map(|&v| step(v, self.numbers.below(2) as i32)).collect();
        self.add("rows beside codewords of mixed scale", rows, codewords);
        let (x, codewords) = (self.random(n, 1e-20), self.random(k, 1e10));
        self.add("rows 1e30 smaller than codewords", x, codewords);
    }

    fn long_codeword(&mut self) {
        let (n, k, d) = (self.n, self.k, self.d);
        let (x, mut codewords) = (self.random(n, 1.0), self.random(k, 1.0));
        for v in &mut codewords[k / 2 * d..][..d] {
            *v *= 1e4;
        }
        self.add("one codeword 1e4 longer", x, codewords);
    }
}
