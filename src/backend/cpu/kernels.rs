//! The table of kernels of every instruction set, and the only doors to them.
//!
//! Every unsafe block here and in [`filter`] rests on these checks, made by the safe methods of [`Kernels`]:
//! 1. a table is handed out only for an instruction set that the processor has ([`Kernels::of`]);
//! 2. `tile.len() == depth * rows`;
//! 3. `panels.len()` is `depth * width` times the number of panels;
//! 4. the state holds `rows * 3 * lanes` values, or the scores `rows * stride` values with
//!    `stride >= panels * width`;
//! 5. there are the two last steps of depth, and an expansion for each of `rows`;
//! 6. of `rows` rows, each `stride` after the one before, `out` holds `panels * width` values;
//! 7. there are `rows` scales, and rows and steps of a tile are `rows * d` values each;
//! 8. a tile of products is `product_rows` values a step, a panel `product_width`, and their sums are one of each with each.

use super::doubles::{Doubles, PlainDoubles};
use super::filter::Best;
use super::isa::{Isa, table_of};
use super::lanes::{Lanes, Plain};
use super::{accumulate, direct, filter, multiply, pairwise_sq_l2, rows, shortlist, sq_sums, svd};
use crate::matrix::MatrixView;

/// Registers of f64 that a panel of columns of a product is wide.
const PRODUCT_REGS: usize = 3;

/// The kernels of one instruction set.
pub(super) struct Kernels {
    /// Rows of a tile.
    pub rows: usize,
    /// Codewords of a panel.
    pub width: usize,
    /// Lanes of a register; `width` is a multiple.
    pub lanes: usize,
    /// Rows and columns whose sums of products are in registers at a time.
    pub product_rows: usize,
    pub product_width: usize,
    best: BestFn,
    scores: ScoresFn,
    read: unsafe fn(state: &[f32]) -> Best,
    sq_l2_f64: DirectFn<f64>,
    sq_l2_f32: DirectFn<f32>,
    sq_distances: DistancesFn,
    centre_row: CentreFn,
    sq_norm: unsafe fn(row: &[f32], scale: f32) -> f32,
    fill_tile: unsafe fn(rows: *const f32, d: usize, scales: &[f32], steps: *mut f32),
    sq_sums: unsafe fn(z: &[f32], e: &[f32]) -> (f64, f64),
    sum_rows: unsafe fn(x: MatrixView<'_, f32>, order: &[u32], count: usize, sum: &mut [f64]),
    add_row: unsafe fn(row: &[f32], sum: &mut [f64]),
    add_weighted_row: unsafe fn(row: &[f32], weight: f64, sum: &mut [f64]),
    dots: unsafe fn(p: &[f64], q: &[f64]) -> [f64; 3],
    turn: unsafe fn(p: &mut [f64], q: &mut [f64], cosine: f64, sine: f64),
    products: ProductsFn,
    exact_products: ProductsFn,
    distances: TileDistancesFn,
    at_least: unsafe fn(scores: &[f32], least: f32, first: u32, keys: &mut Vec<u64>),
}

type BestFn = unsafe fn(tile: *const f32, panels: *const f32, depth: usize, ids: std::ops::Range<u32>, state: *mut f32);
type ScoresFn =
    unsafe fn(tile: *const f32, panels: *const f32, depth: usize, count: usize, scores: *mut f32, stride: usize);
type DirectFn<Sum> = unsafe fn(z: &[f32], e: &[f32]) -> Sum;
type DistancesFn =
    unsafe fn(MatrixView<'_, f32>, codewords: MatrixView<'_, f32>, labels: &[u32], sq_distances: &mut [f32]);
type ProductsFn = unsafe fn(tile: *const f64, panel: *const f64, depth: usize, sums: *mut f64);
type CentreFn = unsafe fn(row: &[f32], mean: Option<&[f32]>, out: &mut [f32]) -> u32;
type TileDistancesFn = unsafe fn(
    tile: *const f32,
    panels: *const f32,
    depth: usize,
    count: usize,
    expansions: &[Option<(f32, f32)>],
    out: *mut f32,
    stride: usize,
);

impl Kernels {
    /// The kernels of `isa`, or of the portable set where the processor lacks it.
    pub fn of(isa: Isa) -> &'static Kernels {
        // Check 1.
        table_of!(isa)
    }

    /// Values of state per row: per lane the best score, the second best, and the register that held the best.
    pub fn state_len(&self) -> usize {
        3 * self.lanes
    }

    /// State before the first panel.
    pub fn reset(&self, state: &mut [f32]) {
        for row in state.chunks_exact_mut(self.state_len()) {
            row[..2 * self.lanes].fill(f32::NEG_INFINITY);
            row[2 * self.lanes..].fill(0.0);
        }
    }

    /// Merges the scores of a tile against consecutive panels, the first of them number `first`, into the state.
    pub fn best(&self, tile: &[f32], panels: &[f32], depth: usize, first: usize, state: &mut [f32]) {
        let count = panels.len() / (depth * self.width);
        assert_eq!(tile.len(), depth * self.rows, "check 2");
        assert_eq!(panels.len(), count * depth * self.width, "check 3");
        assert_eq!(state.len(), self.rows * self.state_len(), "check 4");
        let registers = self.width / self.lanes;
        let (from, to) = ((first * registers) as u32, ((first + count) * registers) as u32);
        // SAFETY: checks 1 to 4.
        unsafe { (self.best)(tile.as_ptr(), panels.as_ptr(), depth, from..to, state.as_mut_ptr()) }
    }

    /// Writes the scores of a tile against all panels; row `r` starts at `r * stride`.
    pub fn scores(&self, tile: &[f32], panels: &[f32], depth: usize, scores: &mut [f32], stride: usize) {
        let count = panels.len() / (depth * self.width);
        assert_eq!(tile.len(), depth * self.rows, "check 2");
        assert_eq!(panels.len(), count * depth * self.width, "check 3");
        assert!(scores.len() == self.rows * stride && stride >= count * self.width, "check 4");
        // SAFETY: checks 1 to 4.
        unsafe { (self.scores)(tile.as_ptr(), panels.as_ptr(), depth, count, scores.as_mut_ptr(), stride) }
    }

    /// Reads one row's state.
    pub fn read(&self, state: &[f32]) -> Best {
        // SAFETY: check 1.
        unsafe { (self.read)(state) }
    }

    /// Squared distance by direct f64 sums, within [`direct::f64_bound`]. Slices of one length.
    pub fn sq_l2_f64(&self, z: &[f32], e: &[f32]) -> f64 {
        // SAFETY: check 1.
        unsafe { (self.sq_l2_f64)(z, e) }
    }

    /// Squared distance by direct f32 sums, within [`direct::f32_bound`]. Slices of one length.
    pub fn sq_l2_f32(&self, z: &[f32], e: &[f32]) -> f32 {
        // SAFETY: check 1.
        unsafe { (self.sq_l2_f32)(z, e) }
    }

    /// See [`direct::sq_distances`].
    pub fn sq_distances(
        &self,
        x: MatrixView<'_, f32>,
        codewords: MatrixView<'_, f32>,
        labels: &[u32],
        sq_distances: &mut [f32],
    ) {
        // SAFETY: check 1.
        unsafe { (self.sq_distances)(x, codewords, labels, sq_distances) }
    }

    /// See [`rows::centre_row`].
    pub fn centre_row(&self, row: &[f32], mean: Option<&[f32]>, out: &mut [f32]) -> u32 {
        // SAFETY: check 1.
        unsafe { (self.centre_row)(row, mean, out) }
    }

    /// See [`rows::sq_norm`].
    pub fn sq_norm(&self, row: &[f32], scale: f32) -> f32 {
        // SAFETY: check 1.
        unsafe { (self.sq_norm)(row, scale) }
    }

    /// See [`rows::fill_tile`].
    pub fn fill_tile(&self, rows: &[f32], d: usize, scales: &[f32], steps: &mut [f32]) {
        assert_eq!((scales.len(), rows.len(), steps.len()), (self.rows, self.rows * d, self.rows * d), "check 7");
        // SAFETY: checks 1 and 7.
        unsafe { (self.fill_tile)(rows.as_ptr(), d, scales, steps.as_mut_ptr()) }
    }

    /// See [`sq_sums::of_row`].
    pub fn sq_sums(&self, z: &[f32], e: &[f32]) -> (f64, f64) {
        // SAFETY: check 1.
        unsafe { (self.sq_sums)(z, e) }
    }

    /// See [`accumulate::sum_rows`].
    pub fn sum_rows(&self, x: MatrixView<'_, f32>, order: &[u32], count: usize, sum: &mut [f64]) {
        // SAFETY: check 1.
        unsafe { (self.sum_rows)(x, order, count, sum) }
    }

    /// See [`accumulate::add_row`].
    pub fn add_row(&self, row: &[f32], sum: &mut [f64]) {
        // SAFETY: check 1.
        unsafe { (self.add_row)(row, sum) }
    }

    /// See [`accumulate::add_weighted_row`].
    pub fn add_weighted_row(&self, row: &[f32], weight: f64, sum: &mut [f64]) {
        // SAFETY: check 1.
        unsafe { (self.add_weighted_row)(row, weight, sum) }
    }

    /// See [`svd::dots`].
    pub fn dots(&self, p: &[f64], q: &[f64]) -> [f64; 3] {
        // SAFETY: check 1.
        unsafe { (self.dots)(p, q) }
    }

    /// See [`svd::turn`].
    pub fn turn(&self, p: &mut [f64], q: &mut [f64], cosine: f64, sine: f64) {
        // SAFETY: check 1.
        unsafe { (self.turn)(p, q, cosine, sine) }
    }

    /// See [`multiply::products`].
    pub fn products(&self, tile: &[f64], panel: &[f64], sums: &mut [f64]) {
        let depth = self.check_products(tile, panel, sums);
        // SAFETY: checks 1 and 8.
        unsafe { (self.products)(tile.as_ptr(), panel.as_ptr(), depth, sums.as_mut_ptr()) }
    }

    /// As [`Kernels::products`], of values that were f32.
    pub fn exact_products(&self, tile: &[f64], panel: &[f64], sums: &mut [f64]) {
        let depth = self.check_products(tile, panel, sums);
        // SAFETY: checks 1 and 8.
        unsafe { (self.exact_products)(tile.as_ptr(), panel.as_ptr(), depth, sums.as_mut_ptr()) }
    }

    /// The steps of depth.
    fn check_products(&self, tile: &[f64], panel: &[f64], sums: &[f64]) -> usize {
        let (rows, width, depth) = (self.product_rows, self.product_width, panel.len() / self.product_width);
        assert_eq!((tile.len(), panel.len(), sums.len()), (depth * rows, depth * width, rows * width), "check 8");
        depth
    }

    /// See [`shortlist::at_least`].
    pub fn at_least(&self, scores: &[f32], least: f32, first: u32, keys: &mut Vec<u64>) {
        // SAFETY: check 1.
        unsafe { (self.at_least)(scores, least, first, keys) }
    }

    /// Writes the squared distances of the rows of a tile to the codewords of all panels, see [`pairwise_sq_l2::distances`];
    /// row `r` starts at `r * stride`.
    pub fn distances(
        &self,
        tile: &[f32],
        panels: &[f32],
        depth: usize,
        expansions: &[Option<(f32, f32)>],
        out: &mut [f32],
        stride: usize,
    ) {
        let count = panels.len() / (depth * self.width);
        let columns = count * self.width;
        if count == 0 {
            return;
        }
        assert_eq!(tile.len(), depth * self.rows, "check 2");
        assert_eq!(panels.len(), depth * columns, "check 3");
        assert!(depth >= 2 && expansions.len() == self.rows, "check 5");
        assert!(stride >= columns && out.len() >= (self.rows - 1) * stride + columns, "check 6");
        let (out, tile, panels) = (out.as_mut_ptr(), tile.as_ptr(), panels.as_ptr());
        // SAFETY: checks 1 to 3, 5 and 6.
        unsafe { (self.distances)(tile, panels, depth, count, expansions, out, stride) }
    }
}

/// Compiles the bodies of [`filter`], [`direct`], [`rows`], [`accumulate`], [`sq_sums`], [`multiply`], [`svd`], [`pairwise_sq_l2`] and [`shortlist`] for one instruction set.
macro_rules! stamp {
    ($module:ident, $features:literal, $lanes:ty, $rows:literal, $regs:literal, $doubles:ty, $product_rows:literal) => {
        mod $module {
            use super::*;

            pub static KERNELS: Kernels = Kernels {
                rows: $rows,
                width: $regs * <$lanes as Lanes>::WIDTH,
                lanes: <$lanes as Lanes>::WIDTH,
                product_rows: $product_rows,
                product_width: PRODUCT_REGS * <$doubles as Doubles>::WIDTH,
                best,
                scores,
                read,
                sq_l2_f64,
                sq_l2_f32,
                sq_distances,
                centre_row,
                sq_norm,
                fill_tile,
                sq_sums,
                sum_rows,
                add_row,
                add_weighted_row,
                dots,
                turn,
                products,
                exact_products,
                distances,
                at_least,
            };

            #[target_feature(enable = $features)]
            unsafe fn best(t: *const f32, p: *const f32, depth: usize, ids: std::ops::Range<u32>, state: *mut f32) {
                // SAFETY: the caller made the checks.
                unsafe { filter::best::<$lanes, $rows, $regs>(t, p, depth, ids, state) }
            }

            #[target_feature(enable = $features)]
            unsafe fn scores(t: *const f32, p: *const f32, depth: usize, n: usize, out: *mut f32, stride: usize) {
                // SAFETY: the caller made the checks.
                unsafe { filter::scores::<$lanes, $rows, $regs>(t, p, depth, n, out, stride) }
            }

            #[target_feature(enable = $features)]
            unsafe fn read(state: &[f32]) -> Best {
                filter::read::<{ <$lanes as Lanes>::WIDTH }>(state)
            }

            #[target_feature(enable = $features)]
            unsafe fn sq_l2_f64(z: &[f32], e: &[f32]) -> f64 {
                // SAFETY: check 1.
                unsafe { direct::sq_l2_f64::<$lanes>(z, e) }
            }

            #[target_feature(enable = $features)]
            unsafe fn sq_l2_f32(z: &[f32], e: &[f32]) -> f32 {
                // SAFETY: check 1.
                unsafe { direct::sq_l2_f32::<$lanes>(z, e) }
            }

            #[target_feature(enable = $features)]
            unsafe fn sq_distances(
                x: MatrixView<'_, f32>,
                codewords: MatrixView<'_, f32>,
                labels: &[u32],
                sq_distances: &mut [f32],
            ) {
                // SAFETY: check 1.
                unsafe { direct::sq_distances::<$lanes>(x, codewords, labels, sq_distances) }
            }

            #[target_feature(enable = $features)]
            unsafe fn centre_row(row: &[f32], mean: Option<&[f32]>, out: &mut [f32]) -> u32 {
                rows::centre_row(row, mean, out)
            }

            #[target_feature(enable = $features)]
            unsafe fn sq_norm(row: &[f32], scale: f32) -> f32 {
                rows::sq_norm(row, scale)
            }

            #[target_feature(enable = $features)]
            unsafe fn fill_tile(from: *const f32, d: usize, scales: &[f32], steps: *mut f32) {
                // SAFETY: the caller made the checks.
                unsafe { rows::fill_tile::<$lanes, $rows>(from, d, scales, steps) }
            }

            #[target_feature(enable = $features)]
            unsafe fn sq_sums(z: &[f32], e: &[f32]) -> (f64, f64) {
                sq_sums::of_row(z, e)
            }

            #[target_feature(enable = $features)]
            unsafe fn sum_rows(x: MatrixView<'_, f32>, order: &[u32], count: usize, sum: &mut [f64]) {
                accumulate::sum_rows(x, order, count, sum)
            }

            #[target_feature(enable = $features)]
            unsafe fn add_row(row: &[f32], sum: &mut [f64]) {
                accumulate::add_row(row, sum)
            }

            #[target_feature(enable = $features)]
            unsafe fn add_weighted_row(row: &[f32], weight: f64, sum: &mut [f64]) {
                accumulate::add_weighted_row(row, weight, sum)
            }

            #[target_feature(enable = $features)]
            unsafe fn dots(p: &[f64], q: &[f64]) -> [f64; 3] {
                // SAFETY: check 1.
                unsafe { svd::dots::<$doubles, { svd::SUMS / <$doubles as Doubles>::WIDTH }>(p, q) }
            }

            #[target_feature(enable = $features)]
            unsafe fn turn(p: &mut [f64], q: &mut [f64], cosine: f64, sine: f64) {
                svd::turn(p, q, cosine, sine)
            }

            #[target_feature(enable = $features)]
            unsafe fn products(tile: *const f64, panel: *const f64, depth: usize, sums: *mut f64) {
                // SAFETY: the caller made the checks.
                unsafe { multiply::products::<$doubles, $product_rows, PRODUCT_REGS, false>(tile, panel, depth, sums) }
            }

            #[target_feature(enable = $features)]
            unsafe fn exact_products(tile: *const f64, panel: *const f64, depth: usize, sums: *mut f64) {
                // SAFETY: the caller made the checks.
                unsafe { multiply::products::<$doubles, $product_rows, PRODUCT_REGS, true>(tile, panel, depth, sums) }
            }

            #[target_feature(enable = $features)]
            unsafe fn at_least(scores: &[f32], least: f32, first: u32, keys: &mut Vec<u64>) {
                shortlist::at_least(scores, least, first, keys)
            }

            #[target_feature(enable = $features)]
            unsafe fn distances(
                t: *const f32,
                p: *const f32,
                depth: usize,
                n: usize,
                expansions: &[Option<(f32, f32)>],
                out: *mut f32,
                stride: usize,
            ) {
                // SAFETY: the caller made the checks.
                unsafe { pairwise_sq_l2::distances::<$lanes, $rows, $regs>(t, p, depth, n, expansions, out, stride) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
stamp!(avx512, "avx512f", std::arch::x86_64::__m512, 12, 2, std::arch::x86_64::__m512d, 8);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, "avx2,fma", std::arch::x86_64::__m256, 6, 2, std::arch::x86_64::__m256d, 4);
#[cfg(target_arch = "aarch64")]
stamp!(neon, "neon", std::arch::aarch64::float32x4_t, 8, 2, std::arch::aarch64::float64x2_t, 8);

static PORTABLE: Kernels = Kernels {
    rows: 4,
    width: 8,
    lanes: 4,
    product_rows: 4,
    product_width: PRODUCT_REGS * <PlainDoubles as Doubles>::WIDTH,
    best: filter::best::<Plain, 4, 2>,
    scores: filter::scores::<Plain, 4, 2>,
    read: filter::read::<{ <Plain as Lanes>::WIDTH }>,
    sq_l2_f64: direct::sq_l2_f64::<Plain>,
    sq_l2_f32: direct::sq_l2_f32::<Plain>,
    sq_distances: direct::sq_distances::<Plain>,
    centre_row: rows::centre_row,
    sq_norm: rows::sq_norm,
    fill_tile: rows::fill_tile::<Plain, 4>,
    sq_sums: sq_sums::of_row,
    sum_rows: accumulate::sum_rows,
    add_row: accumulate::add_row,
    add_weighted_row: accumulate::add_weighted_row,
    dots: svd::dots::<PlainDoubles, { svd::SUMS / <PlainDoubles as Doubles>::WIDTH }>,
    turn: svd::turn,
    products: multiply::products::<PlainDoubles, 4, PRODUCT_REGS, false>,
    exact_products: multiply::products::<PlainDoubles, 4, PRODUCT_REGS, true>,
    distances: pairwise_sq_l2::distances::<Plain, 4, 2>,
    at_least: shortlist::at_least,
};
