//! For any finite numbers whatever, labels and distances are those of exact arithmetic.

mod common;

use codeword::{Element, bf16, f16};
use common::{assert_exact, matrix, scaled};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Any finite f32, by its bits; shrinks towards zero and short patterns.
fn any_finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite())
}

/// Numbers of few bits and one exponent from a short list: sums that cancel, tie and absorb each other.
fn mixed_exponents() -> impl Strategy<Value = f32> {
    let exponents = vec![-149, -127, -126, -75, -74, -60, -30, -24, -12, -1, 0, 1, 12, 24, 30, 50, 63, 64, 100, 123];
    (-9i32..=9, select(exponents)).prop_map(|(v, exponent)| (f64::from(v) * f64::from(exponent).exp2()) as f32)
}

fn small_integer() -> impl Strategy<Value = f32> {
    (-3i8..=3).prop_map(f32::from)
}

/// Vectors and codewords of one length.
#[derive(Clone, Debug)]
struct Set {
    x: Vec<Vec<f32>>,
    codewords: Vec<Vec<f32>>,
}

/// Rows are drawn at full length and cut, so that shrinking drops rows and columns without drawing anew.
fn set<S: Strategy<Value = f32> + 'static>(number: fn() -> S) -> impl Strategy<Value = Set> {
    let rows = |most: usize| prop::collection::vec(prop::collection::vec(number(), 9), 1..most);
    (1usize..10, rows(16), rows(40)).prop_map(|(d, mut x, mut codewords)| {
        x.iter_mut().chain(&mut codewords).for_each(|row| row.truncate(d));
        Set { x, codewords }
    })
}

/// How one more row is made of those that are there.
#[derive(Clone, Debug)]
enum Derived {
    Copy(Index),
    Nudged(Index, Vec<i8>),
    Middle(Index, Index),
    Mirrored(Index, Index),
}

fn derived() -> impl Strategy<Value = Derived> {
    prop_oneof![
        any::<Index>().prop_map(Derived::Copy),
        (any::<Index>(), prop::collection::vec(-2i8..=2, 9)).prop_map(|(i, by)| Derived::Nudged(i, by)),
        any::<(Index, Index)>().prop_map(|(i, j)| Derived::Middle(i, j)),
        any::<(Index, Index)>().prop_map(|(i, j)| Derived::Mirrored(i, j)),
    ]
}

impl Derived {
    fn row(&self, of: &[Vec<f32>]) -> Vec<f32> {
        let pair = |i: &Index, j: &Index, f: fn(f64, f64) -> f64| {
            let both = i.get(of).iter().zip(j.get(of));
            both.map(|(&a, &b)| (f(a.into(), b.into()) as f32).clamp(f32::MIN, f32::MAX)).collect()
        };
        match self {
            Derived::Copy(i) => i.get(of).clone(),
            Derived::Nudged(i, by) => i.get(of).iter().zip(by).map(|(&v, &by)| nudge(v, by)).collect(),
            Derived::Middle(i, j) => pair(i, j, |a, b| (a + b) / 2.0),
            // The point as far behind the second as the first lies before it: the second is the middle of both.
            Derived::Mirrored(i, j) => pair(i, j, |a, b| 2.0 * b - a),
        }
    }
}

fn nudge(value: f32, by: i8) -> f32 {
    let bits = (value.abs().to_bits() as i32 + i32::from(by)).clamp(0, f32::MAX.to_bits() as i32);
    f32::from_bits(bits as u32).copysign(value)
}

/// A set grown by copies, neighbours, midpoints and mirror images of its own rows, on both sides.
fn near_ties<S: Strategy<Value = f32> + 'static>(number: fn() -> S) -> impl Strategy<Value = Set> {
    let more = || prop::collection::vec((any::<bool>(), derived()), 1..12);
    (set(number), more()).prop_map(|(mut set, more)| {
        for (is_codeword, derived) in more {
            let row = derived.row(&set.codewords);
            if is_codeword { set.codewords.push(row) } else { set.x.push(row) }
        }
        set
    })
}

/// Rows of `d` dimensions, the old ones over and over, in turn as they are, negated and halved.
fn repeated(mut set: Set, d: usize) -> Set {
    for row in set.x.iter_mut().chain(&mut set.codewords) {
        let old = row.len();
        *row = (0..d).map(|t| row[t % old] * [1.0, -1.0, 0.5][t / old % 3]).collect();
    }
    set
}

fn assert_as<X: Element, E: Element>(set: &Set, x_as: impl Fn(f32) -> X, e_as: impl Fn(f32) -> E) {
    let d = set.x[0].len();
    let x = matrix(set.x.iter().flatten().map(|&v| x_as(v)).collect(), set.x.len(), d);
    let e = matrix(set.codewords.iter().flatten().map(|&v| e_as(v)).collect(), set.codewords.len(), d);
    assert_exact("property", x.view(), e.view());
}

fn assert_set(set: &Set) {
    assert_as(set, |v| v, |v| v);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(1500) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_finite_numbers(set in set(any_finite)) {
        assert_set(&set);
    }

    #[test]
    fn numbers_of_mixed_exponents(set in set(mixed_exponents)) {
        assert_set(&set);
    }

    #[test]
    fn near_ties_of_any_numbers(set in near_ties(any_finite)) {
        assert_set(&set);
    }

    #[test]
    fn near_ties_of_mixed_exponents(set in near_ties(mixed_exponents)) {
        assert_set(&set);
    }

    #[test]
    fn ties_of_small_integers(set in near_ties(small_integer)) {
        assert_set(&set);
    }

    #[test]
    fn long_vectors_of_any_finite_numbers(set in near_ties(any_finite), d in 32usize..70) {
        assert_set(&repeated(set, d));
    }

    #[test]
    fn long_vectors_of_mixed_exponents(set in near_ties(mixed_exponents), d in 32usize..70) {
        assert_set(&repeated(set, d));
    }

    #[test]
    fn any_two_element_types(set in near_ties(mixed_exponents), x_type in 0..3, e_type in 0..3) {
        let half = |v: f32| f16::from_f32(v.clamp(-65504.0, 65504.0));
        let brain = |v: f32| bf16::from_f32(v.clamp(-3.38e38, 3.38e38));
        match (x_type, e_type) {
            (0, 0) => assert_as(&set, half, half),
            (0, 1) => assert_as(&set, half, brain),
            (0, _) => assert_as(&set, half, |v| v),
            (1, 0) => assert_as(&set, brain, half),
            (1, 1) => assert_as(&set, brain, brain),
            (1, _) => assert_as(&set, brain, |v| v),
            (_, 0) => assert_as(&set, |v| v, half),
            (_, 1) => assert_as(&set, |v| v, brain),
            _ => assert_as(&set, |v| v, |v| v),
        }
    }
}
