//! Rows in short, to tell at half the memory which of them a further codeword may be nearer to than all before: what
//! k-means++ asks k - 1 times of all rows, and few of them answer yes.
//!
//! A component is kept as the nearest bf16, and of every row x a number r that |x - x'| is not above, for the x' that is kept. By
//! the triangle inequality |x - e| >= |x' - e| - r. So e is not nearer than the root of the least square so far, or as near, where
//! |x' - e| is above U, that root plus r. A sum s of the d squared differences of x' and e in f32 has at most d + 5 roundings on
//! the way of a term, as in [`super::bounds`], and what is said there of limits holds here: where s > U^2 (1 + 2 (d + 16) u) + 2^-135
//! the row is passed over. All other rows are measured as anywhere: what is kept are the bits that there would be without.
//!
//! Rows lie in the lanes, and nothing is added across these: `[strips][pairs of components][STRIP]`.

use super::bound_kernels::{limit_of, slack, upper_of};
use super::bounds::MAX_D;
use super::exact::{ExactSum, round_sq_l2};
use super::isa::Isa;
use super::kernels::Kernels;
use super::sketch_kernels::{STRIP, SketchKernels};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Strips that a thread takes at a time.
const BLOCK: usize = 32;
/// Components of rows up to which one thread is sooner done than it takes to wake others.
const ALONE: usize = 1 << 18;

/// The rows of a matrix in short, and how near they have come to a codeword.
pub(crate) struct Sketch {
    kernels: &'static Kernels,
    sketch_kernels: &'static SketchKernels,
    d: usize,
    /// `[strips][pairs]`: two bf16 of each row of the strip, the first component in the lower half.
    pairs: Vec<[u32; STRIP]>,
    /// r of each row.
    lost: Vec<f32>,
    /// What a sum has to be above for the row to be passed over.
    limits: Vec<[f32; STRIP]>,
}

/// Bytes that this takes for each row.
pub(crate) fn bytes_per_row(d: usize) -> usize {
    d.next_multiple_of(2).saturating_mul(2).saturating_add(8)
}

impl Sketch {
    /// Of the rows of `x`, all of them finite. None where there are too many dimensions, or no memory.
    pub fn new<T: Element>(x: MatrixView<'_, T>, isa: Isa) -> Option<Sketch> {
        let (n, d) = (x.rows(), x.cols());
        if d == 0 || d > MAX_D {
            return None;
        }
        let (strips, depth) = (n.div_ceil(STRIP), d.div_ceil(2));
        let mut pairs = filled(strips.checked_mul(depth)?, [0; STRIP])?;
        let mut lost = filled(n, 0.0)?;
        // Nothing is as near as what is not there.
        let mut limits = filled(strips, [f32::NEG_INFINITY; STRIP])?;
        let of_strips = pairs.par_chunks_exact_mut(depth).zip(lost.par_chunks_mut(STRIP)).zip(&mut limits);
        of_strips.enumerate().for_each_init(Vec::new, |wide, (strip, ((pairs, lost), limits))| {
            for (lane, lost) in lost.iter_mut().enumerate() {
                *lost = pack(T::as_f32(x.row(strip * STRIP + lane), wide), lane, pairs);
                limits[lane] = f32::INFINITY;
            }
        });
        let (kernels, sketch_kernels) = (Kernels::of(isa), SketchKernels::of(isa));
        Some(Sketch { kernels, sketch_kernels, d, pairs, lost, limits })
    }

    /// `e` is a codeword: lowers the squared distances of the rows it is nearer to, real numbers rounded to the nearest f32, which
    /// are of the same rows and were infinite at first.
    pub fn meet<T: Element>(&mut self, x: MatrixView<'_, T>, e: &[f32], sq_distances: &mut [f32]) {
        let pairs: Vec<[f32; 2]> = e.chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0.0)]).collect();
        let (depth, rows) = (pairs.len(), BLOCK * STRIP);
        let job = Job { x, e, pairs: &pairs, kernels: self.kernels, sketch_kernels: self.sketch_kernels };
        if x.rows().saturating_mul(self.d) <= ALONE {
            let mut buffers = Buffers::default();
            let of_blocks = self.pairs.chunks(BLOCK * depth).zip(self.limits.chunks_mut(BLOCK));
            let of_blocks = of_blocks.zip(self.lost.chunks(rows)).zip(sq_distances.chunks_mut(rows));
            for (block, (((pairs, limits), lost), sq_distances)) in of_blocks.enumerate() {
                job.run(block * rows, pairs, limits, lost, sq_distances, &mut buffers);
            }
            return;
        }
        let of_blocks = self.pairs.par_chunks(BLOCK * depth).zip(self.limits.par_chunks_mut(BLOCK));
        let of_blocks = of_blocks.zip(self.lost.par_chunks(rows)).zip(sq_distances.par_chunks_mut(rows));
        of_blocks.enumerate().for_each_init(
            Buffers::default,
            |buffers, (block, (((pairs, limits), lost), sq_distances))| {
                job.run(block * rows, pairs, limits, lost, sq_distances, buffers);
            },
        );
    }
}

/// A codeword that rows meet.
struct Job<'a, T> {
    x: MatrixView<'a, T>,
    e: &'a [f32],
    pairs: &'a [[f32; 2]],
    kernels: &'static Kernels,
    sketch_kernels: &'static SketchKernels,
}

/// Buffers that live as long as a thread's work.
#[derive(Default)]
struct Buffers {
    near: Vec<u64>,
    wide: Vec<f32>,
    sum: ExactSum,
}

impl<T: Element> Job<'_, T> {
    /// A block of rows, from row `first` on.
    fn run(
        &self,
        first: usize,
        pairs: &[[u32; STRIP]],
        limits: &mut [[f32; STRIP]],
        lost: &[f32],
        sq_distances: &mut [f32],
        buffers: &mut Buffers,
    ) {
        let Buffers { near, wide, sum } = buffers;
        near.resize(limits.len(), 0);
        self.sketch_kernels.near(pairs, self.pairs, limits, near);
        for (strip, (&near, limits)) in near.iter().zip(limits).enumerate() {
            let mut left = near;
            while left != 0 {
                let lane = left.trailing_zeros() as usize;
                left &= left - 1;
                let i = strip * STRIP + lane;
                let z = T::as_f32(self.x.row(first + i), wide);
                let sq_distance = round_sq_l2(z, self.e, self.kernels.sq_l2_f64(z, self.e), sum);
                if sq_distance < sq_distances[i] {
                    sq_distances[i] = sq_distance;
                    limits[lane] = limit(sq_distance, lost[i], z.len());
                }
            }
        }
    }
}

/// What a sum has to be above where the row is as near as this to another codeword.
fn limit(sq_distance: f32, lost: f32, d: usize) -> f32 {
    let reach = (upper_of(sq_distance) + lost) * (1.0 + 4.0 * f32::EPSILON);
    limit_of(reach * reach, slack(d))
}

/// Packs a row into a lane of its strip. What it loses: r, rounded up.
fn pack(row: &[f32], lane: usize, pairs: &mut [[u32; STRIP]]) -> f32 {
    let mut sum = 0.0f64;
    for (values, pair) in row.chunks(2).zip(pairs) {
        let mut both = 0;
        for (half, &value) in values.iter().enumerate() {
            let short = shortened(value);
            sum += (f64::from(value) - f64::from(f32::from_bits(short))).powi(2);
            both |= short >> 16 << (16 * half);
        }
        pair[lane] = both;
    }
    // Above the roundings of the differences, squares and sums, of the root and of what f32 cannot hold.
    ((sum.sqrt() * (1.0 + 2f64.powi(-24))) as f32).next_up()
}

/// The bits of the nearest bf16, ties to even. Beyond the largest they are infinite, as is what such a row loses, which is
/// measured every time.
fn shortened(value: f32) -> u32 {
    let bits = value.to_bits();
    (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// Nothing where there is no memory for it.
fn filled<V: Clone>(count: usize, value: V) -> Option<Vec<V>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).ok()?;
    values.resize(count, value);
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_bf16() {
        for (value, short) in [
            (1.0f32, 1.0f32),
            (-0.0, -0.0),
            (255.0, 255.0),
            (257.0, 256.0),
            (259.0, 260.0),
            (-1.001, -1.0),
            (f32::from_bits(0x7f7f_7fff), f32::from_bits(0x7f7f_0000)),
            (f32::MAX, f32::INFINITY),
            (f32::MIN, f32::NEG_INFINITY),
            (f32::from_bits(1), 0.0),
            (f32::from_bits(0x8001), f32::from_bits(0x1_0000)),
        ] {
            assert_eq!(shortened(value), short.to_bits(), "{value}");
        }
    }

    /// |x - x'|^2 of f32 that are 1 and a multiple of 2^-12: exact.
    #[test]
    fn what_a_row_loses_is_never_said_to_be_less() {
        let row: Vec<f32> = (0..7).map(|i| 1.0 + i as f32 * 2f32.powi(-12)).collect();
        let mut pairs = [[0; STRIP]; 4];
        let lost = pack(&row, 5, &mut pairs);
        let exact = (0..7).map(|i| f64::from(i * i) * 2f64.powi(-24)).sum::<f64>().sqrt();
        assert!(f64::from(lost) >= exact && f64::from(lost) <= exact * (1.0 + 1e-6), "{lost}, {exact}");
        assert!(pairs[..3].iter().all(|pair| pair[5] == 0x3f80_3f80) && pairs[3][5] == 0x3f80);
        assert!(pairs.iter().all(|pair| pair.iter().enumerate().all(|(lane, &both)| lane == 5 || both == 0)));
    }

    #[test]
    fn rows_that_are_far_from_a_codeword_are_passed_over() {
        // Rows about (0, 0, 0) and (100, 0, 0) in turn.
        let values: Vec<f32> = (0..200).flat_map(|i| [(i % 2 * 100) as f32, i as f32 * 0.01, 0.5]).collect();
        let x = MatrixView::new(&values, 200, 3).unwrap();
        for isa in Isa::available() {
            let mut sketch = Sketch::new(x, isa).unwrap();
            let mut distances = vec![f32::INFINITY; 200];
            sketch.meet(x, &values[..3], &mut distances);
            sketch.meet(x, &values[3..6], &mut distances);
            let far = &values[6..9];
            let pairs = [[far[0], far[1]], [far[2], 0.0]];
            let mut near = [0; 4];
            sketch.sketch_kernels.near(&sketch.pairs, &pairs, &sketch.limits, &mut near);
            let lanes = (0..200).filter(|i| near[i / STRIP] >> (i % STRIP) & 1 == 1);
            // Those about 0 that lie above it in the second component, and a few that the short form does not tell from these.
            let lanes: Vec<usize> = lanes.collect();
            assert!(lanes.iter().all(|i| i % 2 == 0), "{isa:?}: {lanes:?}");
            assert!((2..200).step_by(2).all(|i| lanes.contains(&i)), "{isa:?}: {lanes:?}");
            assert!(near[3] >> (200 % STRIP) == 0, "{isa:?}: nothing beyond the last row");
        }
    }
}
