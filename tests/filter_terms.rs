//! Data that make each term of the filter's bound count: without it, a wrong label would pass for certified.
//!
//! The codewords come with their negatives, so that their mean is zero and nothing is centred; the sets are made for
//! operands of 8 significant bits (bf16) with sums of 24, and for integers of 16 bits, and must be exact with any
//! instruction set. All come once more with a codeword too long for integers of one unit, which leaves them to bf16 or f32.

mod common;

use common::{Numbers, assert_assign_exact, matrix, scaled};

const D: usize = 50;
/// The step from 1 to the next bf16.
const STEP: f32 = 1.0 / 128.0;
/// Dimensions and unit of 16-bit integers: vectors of so many signs have a norm of 2^15 units at most, and what half a unit
/// in each can make of a score is more than the low halves of their sums hold.
const LONG: usize = 800;
const UNIT: f32 = 1.0 / 1024.0;

fn signs(d: usize, numbers: &mut Numbers) -> Vec<f32> {
    (0..d).map(|_| [1.0, -1.0][numbers.below(2)]).collect()
}

/// `sign * (1 + part * step)`, `many` for three fifths of the dimensions, `few` for the others, at random places.
fn mixed(signs: &[f32], step: f32, many: f32, few: f32, numbers: &mut Numbers) -> Vec<f32> {
    let d = signs.len();
    let mut parts: Vec<f32> = (0..d).map(|t| if t < d * 3 / 5 { many } else { few }).collect();
    for t in (1..d).rev() {
        parts.swap(t, numbers.below(t + 1));
    }
    signs.iter().zip(parts).map(|(sign, part)| sign * (1.0 + part * step)).collect()
}

/// Rows against the codewords and their negatives.
fn assert_with_negatives(name: &str, rows: Vec<f32>, codewords: Vec<f32>, d: usize) {
    let negatives: Vec<f32> = codewords.iter().map(|v| -v).collect();
    let codewords = [codewords, negatives].concat();
    let (n, k) = (rows.len() / d, codewords.len() / d);
    let rows = matrix(rows, n, d);
    let long = [16.0, -16.0].map(|times| codewords[..d].iter().map(|v| times * v).collect::<Vec<f32>>()).concat();
    let longest = matrix([codewords.clone(), long].concat(), k + 2, d);
    assert_assign_exact(name, rows.view(), matrix(codewords, k, d).view());
    assert_assign_exact(&format!("{name}, beside a long codeword"), rows.view(), longest.view());
}

#[test]
fn what_rounding_the_row_costs() {
    // Codewords 1 - STEP / 2 and 1 + STEP: exact. The rows lie at 0.49 of the step or less, past the middle of the two,
    // and are rounded to 1, before it.
    let mut numbers = Numbers::new(61);
    for _ in 0..scaled(20) {
        let signs = signs(D, &mut numbers);
        let codewords =
            [mixed(&signs, STEP, -0.5, -0.5, &mut numbers), mixed(&signs, STEP, 1.0, 1.0, &mut numbers)].concat();
        let rows = (0..17).flat_map(|_| mixed(&signs, STEP, 0.49, 0.45, &mut numbers)).collect();
        assert_with_negatives("rounded rows", rows, codewords, D);
    }
}

#[test]
fn what_rounding_the_codeword_costs() {
    // The rows are exact. The nearer codeword is rounded down everywhere, the other one up in two fifths, towards more
    // of the cross term.
    let mut numbers = Numbers::new(62);
    for i in 0..scaled(20) {
        let (d, step) = [(D, STEP), (LONG, UNIT)][i % 2];
        let signs = signs(d, &mut numbers);
        let near = mixed(&signs, step, 0.485, 0.485, &mut numbers);
        let far = mixed(&signs, step, 0.49, 0.505, &mut numbers);
        assert_with_negatives("rounded codewords", signs.repeat(5), [near, far].concat(), d);
    }
}

#[test]
fn what_rounding_a_row_to_integers_costs() {
    // A row across a codeword and its negative: three times in five it lies at 0.49 of the unit towards the one, and is
    // rounded to zero, else at 0.51 towards the other, and is rounded to one. So it changes sides, and the scores of both
    // are off by all that rounding can make of them.
    let mut numbers = Numbers::new(65);
    for _ in 0..scaled(20) {
        let signs = signs(LONG, &mut numbers);
        let across = mixed(&signs, UNIT, 0.49, -0.51, &mut numbers);
        let rows = across.iter().zip(&signs).map(|(value, sign)| value - sign).collect();
        assert_with_negatives("rounded to integers", rows, signs, LONG);
    }
}

#[test]
fn sums_of_integers_at_the_end_of_their_range() {
    // Norms just below and above what 16-bit integers are scaled to: rows along the longest codeword and against it have
    // the largest sums of all.
    for d in [17, 50, 64, 1000] {
        let limit = (32_768.0 - 0.5 * (d as f32).sqrt() - 1.0) / (d as f32).sqrt();
        for factor in [0.999_999, 1.0, 1.000_001, 1.5] {
            let along = |part: f32| vec![part * factor * limit; d];
            let codewords = [1.0, 0.999_9, 0.5, 0.25].map(along).concat();
            let rows = [1.0, 0.999_95, 0.75, 0.6, 1e-3, -1.0, -0.75, 2.0, -1e4, 1e30].map(along).concat();
            assert_with_negatives("long", rows, codewords, d);
        }
    }
}

#[test]
fn what_summing_costs() {
    // All exact in bf16, but 1 + small is 1: the nearer codeword's gain is lost product by product.
    for d in [64, 257, 512] {
        let of = |small: f32| (0..d).map(|t| if t == 0 { 1.0 } else { small }).collect::<Vec<f32>>();
        let codewords = [of(0.0), of(0.90625 / 8192.0)].concat();
        assert_with_negatives("lost in the sum", of(1.0 / 4096.0).repeat(3), codewords, d);
    }
}

#[test]
fn what_underflow_costs() {
    // In the scale of the one long codeword, products of the others with the rows are subnormal.
    let mut numbers = Numbers::new(64);
    let (n, k, d) = (scaled(200), 40, 64);
    for scale in [1e-18, 1e-19, 1e-20, 1e-21, 1e-22, 1e-30, 1e-38] {
        let mut draw = |count: usize| numbers.gaussians(count).into_iter().map(|v| v * scale).collect::<Vec<f32>>();
        let (rows, mut codewords) = (draw(n * d), draw(k * d));
        codewords[7 * d..8 * d].fill(1.0);
        let name = format!("{scale:e} beside 1");
        assert_assign_exact(&name, matrix(rows, n, d).view(), matrix(codewords, k, d).view());
    }
}

#[test]
fn rows_opposite_to_all_codewords() {
    // Half of the codewords lie seven times as far along one line as the others: nothing is centred, for that would make
    // the median longer. Rows far behind the origin have no product that is not negative, and none that padding may beat.
    let mut numbers = Numbers::new(66);
    for d in [20, 64] {
        let k = 33;
        let direction = signs(d, &mut numbers);
        let mut near = |factor: f32| -> Vec<f32> {
            direction.iter().map(|sign| sign * factor * (1.0 + 0.1 * numbers.gaussians(1)[0])).collect()
        };
        let codewords: Vec<f32> = (0..k).flat_map(|j| near(if j % 2 == 0 { 1.0 } else { 7.0 })).collect();
        let rows = matrix([-1.0, -10.0, -100.0, -1e4, -1e8, 1e4].map(&mut near).concat(), 6, d);
        let longer = matrix([codewords.clone(), near(100.0)].concat(), k + 1, d);
        assert_assign_exact("opposite", rows.view(), matrix(codewords, k, d).view());
        assert_assign_exact("opposite, beside a long codeword", rows.view(), longer.view());
    }
}
