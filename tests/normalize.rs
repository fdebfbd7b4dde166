//! Vectors are brought to length 1 as documented, at every scale; what has no direction is named.

mod common;

use codeword::{Element, Error, MatrixView, bf16, f16, normalize};
use common::{Numbers, matrix, scaled};

/// The documented length: eight running sums of squares, added in pairs.
fn length(row: &[f32]) -> f64 {
    let lane = |lane: usize| row.iter().skip(lane).step_by(8).fold(0.0, |sum, &z| sum + f64::from(z) * f64::from(z));
    (((lane(0) + lane(1)) + (lane(2) + lane(3))) + ((lane(4) + lane(5)) + (lane(6) + lane(7)))).sqrt()
}

/// Asserts that no f32 is nearer to z_t / |z| than what is stored.
fn assert_nearest<T: Element>(name: &str, x: MatrixView<'_, T>) {
    let units = normalize(x).unwrap_or_else(|e| panic!("{name}: {e}"));
    for i in 0..x.rows() {
        let row: Vec<f32> = x.row(i).iter().map(|value| value.to_f32()).collect();
        let length = length(&row);
        for (&z, &unit) in row.iter().zip(units.view().row(i)) {
            // The real number z - u |z|, rounded once.
            let off = |unit: f32| (-f64::from(unit)).mul_add(length, z.into()).abs();
            let near = off(unit) <= off(unit.next_up()) && off(unit) <= off(unit.next_down());
            assert!(near && unit.abs() <= 1.0, "{name}: {z} of length {length} became {unit}");
        }
        // Each component is off by a half of 2^-23 of itself, or of the smallest f32.
        let got: f64 = units.view().row(i).iter().map(|&u| f64::from(u) * f64::from(u)).sum();
        assert!((got - 1.0).abs() <= 2f64.powi(-22), "{name}: a length of {}", got.sqrt());
    }
}

#[test]
fn components_are_the_nearest_to_the_quotient_at_every_scale() {
    let mut numbers = Numbers::new(111);
    for d in [1, 2, 7, 8, 9, 64, 131] {
        let x = numbers.gaussians(20 * d);
        for exponent in [-149, -126, -70, 0, 60, 124] {
            // Not scaled in one step: 2^-149 is no normal f32.
            let scaled = x.iter().map(|&v| (f64::from(v) * f64::from(exponent).exp2()) as f32);
            let scaled: Vec<f32> = scaled.map(|v| if v == 0.0 { 1e-45 } else { v }).collect();
            assert_nearest(&format!("d={d}, 2^{exponent}"), MatrixView::new(&scaled, 20, d).unwrap());
        }
    }
    let mixed = [f32::MAX, f32::MAX, 1e-45, -1.0, 1e-45, 0.0, 1e30, 1e-30, -0.0, 1e-45, -1e-45, 0.0];
    assert_nearest("mixed", MatrixView::new(&mixed, 3, 4).unwrap());
}

#[test]
fn threads_types_and_strides_change_no_bit() {
    let (n, d) = (scaled(3000), 67);
    let values = Numbers::new(112).gaussians(n * d);
    let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let wide = matrix(halves.iter().map(|v| v.to_f32()).collect(), n, d);
    let expected = normalize(wide.view()).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| normalize(MatrixView::new(&halves, n, d).unwrap()).unwrap()) == expected);
    }
    assert_nearest("bf16", matrix(values.iter().map(|&v| bf16::from_f32(v)).collect(), n, d).view());
    let right = wide.view().columns(60..67).unwrap();
    let alone = matrix((0..n).flat_map(|i| right.row(i).to_vec()).collect(), n, 7);
    assert!(normalize(right).unwrap() == normalize(alone.view()).unwrap());
}

#[test]
fn rows_without_a_direction_are_named() {
    let message = |x: &[f32]| normalize(MatrixView::new(x, x.len() / 2, 2).unwrap()).unwrap_err().to_string();
    let zeros = "normalize: x must be free of rows of zeros, which have no direction, got zeros in row 1";
    assert_eq!(message(&[1.0, 0.0, 0.0, -0.0, f32::NAN, 0.0]), zeros);
    let nan = "normalize: vector 1 holds NaN in column 1; remove the vector";
    assert_eq!(message(&[1.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]), nan);
    let infinite = "normalize: vector 0 holds -inf in column 0; remove the vector";
    assert_eq!(message(&[f32::NEG_INFINITY, f32::INFINITY]), infinite);
    let none = MatrixView::<f32>::new(&[], 3, 0).unwrap();
    assert!(matches!(normalize(none), Err(Error::Shape { .. })));
    let empty = normalize(MatrixView::<f32>::new(&[], 0, 5).unwrap()).unwrap();
    assert_eq!((empty.rows(), empty.cols()), (0, 5));
}
