//! Groups of columns are quantized as vectors of their own would be, with codebooks of their own or a shared one.

use crate::common::{Numbers, assert_same_bits, assert_same_labels, codebook, cut, matrix};
use codeword::backend::reference;
use codeword::{
    AssignOptions, Codebook, Ema, EmaCodebook, Error, Matrix, MatrixView, NonFinite, SENTINEL, VqLoss, bf16, normalize,
    quantize, quantize_groups, vector_gradient,
};

#[test]
fn every_group_has_the_exact_labels_of_its_columns() {
    let mut numbers = Numbers::new(131);
    let n = 150;
    // Widths and numbers of codewords all different; rows lie further apart than they are long.
    let groups = [(5, 7), (1, 4), (20, 31)];
    let d = 26;
    let values: Vec<bf16> = numbers.gaussians(n * (d + 2)).iter().map(|&v| bf16::from_f32(v)).collect();
    let z = MatrixView::new(&values, n, d + 2).unwrap().columns(1..d + 1).unwrap();
    let wide = matrix((0..n).flat_map(|i| z.row(i).iter().map(|v| v.to_f32())).collect(), n, d);
    let codewords: Vec<Matrix<f32>> = groups.iter().map(|&(d, k)| matrix(numbers.gaussians(k * d), k, d)).collect();
    let codebooks: Vec<Codebook> = codewords.iter().map(|e| codebook(e.view())).collect();
    let got = quantize_groups(z, &codebooks, 0.25, AssignOptions::default()).unwrap();
    let (mut start, mut sum) = (0, 0.0);
    for (group, e) in codewords.iter().enumerate() {
        let part = cut(wide.view(), start..start + e.cols());
        let (labels, sq_distances) = reference::nearest(part.view(), e.view());
        let of_group = |values: &[u32]| values.iter().skip(group).step_by(3).copied().collect::<Vec<u32>>();
        assert_same_labels("labels", &of_group(&got.assignment.labels), &labels, 1);
        let distances: Vec<f32> = got.assignment.sq_distances.iter().skip(group).step_by(3).copied().collect();
        assert_same_bits("distances", &distances, &sq_distances);
        for (i, &label) in labels.iter().enumerate() {
            assert_eq!(&got.z_q.view().row(i)[start..start + e.cols()], e.view().row(label as usize));
        }
        sum += reference::metrics(part.view(), e.view(), &labels).inertia;
        start += e.cols();
    }
    let mse = sum / (n * d) as f64;
    approx::assert_relative_eq!(got.mse, mse, max_relative = 1e-12);
    assert_eq!((got.codebook_loss, got.commitment_loss, got.loss), (got.mse, 0.25 * got.mse, 1.25 * got.mse));
}

#[test]
fn a_shared_codebook_sees_groups_as_rows() {
    let mut numbers = Numbers::new(132);
    let (n, d, h, k) = (60, 12, 3, 9);
    let z = matrix(numbers.gaussians(n * d), n, d);
    let shared = codebook(matrix(numbers.gaussians(k * d / h), k, d / h).view());
    let rows = z.view().reshape(n * h, d / h).unwrap();
    let (by_rows, by_groups) = (
        quantize(rows, &shared, 0.25, AssignOptions::default()).unwrap(),
        quantize_groups(z.view(), &vec![shared.clone(); h], 0.25, AssignOptions::default()).unwrap(),
    );
    assert_eq!(by_rows.assignment.labels, by_groups.assignment.labels);
    assert_eq!(by_rows.assignment.sq_distances, by_groups.assignment.sq_distances);
    assert_eq!(by_rows.z_q.as_slice(), by_groups.z_q.as_slice());
    approx::assert_relative_eq!(by_rows.mse, by_groups.mse, max_relative = 1e-12);
    // A step of the shared codebook, Euclidean and of cosines: every group of every row counts.
    for cosine in [false, true] {
        let mut ema = Ema::new().decay(0.5).cosine(cosine).start(&shared).unwrap();
        let usage = ema.update(rows).unwrap().usage;
        assert_eq!(usage.rows, (n * h) as u64);
        let sizes: f64 = ema.state().sizes.iter().sum();
        approx::assert_relative_eq!(sizes, 0.5 * k as f64 + 0.5 * (n * h) as f64, max_relative = 1e-12);
    }
    // Directions of groups have length 1 each, and are rows again.
    let units = normalize(rows).unwrap();
    let squares = |values: &[f32]| values.iter().map(|&u| f64::from(u) * f64::from(u)).sum::<f64>();
    let units = units.view().reshape(n, d).unwrap();
    assert!((0..n).all(|i| (squares(units.row(i)) - h as f64).abs() < 1e-6));
}

#[test]
fn codebooks_of_groups_follow_their_columns_and_pull_by_their_share_of_the_loss() {
    let mut numbers = Numbers::new(133);
    let (n, d, beta) = (90, 10, 0.25);
    // Widths, numbers of codewords and their columns.
    let groups = [(3, 6, 0..3), (1, 4, 3..4), (6, 8, 4..10)];
    let starts: Vec<Matrix<f32>> = groups.iter().map(|(d, k, _)| matrix(numbers.gaussians(k * d), *k, *d)).collect();
    let params = Ema::new().decay(0.5).threshold(8.0);
    let follow = || starts.iter().map(|e| params.clone().start(&codebook(e.view())).unwrap()).collect::<Vec<_>>();
    let (mut together, mut alone, mut revived) = (follow(), follow(), 0);
    for _ in 0..3 {
        let z = matrix(numbers.gaussians(n * d), n, d);
        let codebooks: Vec<Codebook> = together.iter().map(|ema| ema.codebook().clone()).collect();
        let q = quantize_groups(z.view(), &codebooks, VqLoss::Ema { beta }, AssignOptions::default()).unwrap();
        let mut loss = 0.0;
        for (g, (width, _, columns)) in groups.iter().enumerate() {
            let labels: Vec<u32> = q.assignment.labels.iter().skip(g).step_by(groups.len()).copied().collect();
            let part = z.view().columns(columns.clone()).unwrap();
            // The mean is over all columns, of which these are a part.
            let share = VqLoss::Ema { beta: beta * *width as f64 / d as f64 };
            let pulled = vector_gradient(part, &codebooks[g], &labels, share, None).unwrap();
            let codewords = codebooks[g].codewords().unwrap();
            for (i, &label) in labels.iter().enumerate() {
                for (t, col) in columns.clone().enumerate() {
                    let off = f64::from(z.view().row(i)[col]) - f64::from(codewords.row(label as usize)[t]);
                    loss += beta * off * off / (n * d) as f64;
                    let (got, slope) = (pulled.view().row(i)[t], 2.0 * beta * off / (n * d) as f64);
                    approx::assert_relative_eq!(f64::from(got), slope, max_relative = 1e-6);
                }
            }
            // A copy of the columns, labelled by itself.
            together[g].update_labelled(part, &labels).unwrap();
            let step = alone[g].update(cut(z.view(), columns.clone()).view()).unwrap();
            revived += step.usage.revived;
            assert_eq!(together[g].state(), alone[g].state());
            let bits = |ema: &EmaCodebook| {
                let codewords = ema.codebook().codewords().unwrap();
                (0..ema.codebook().k()).flat_map(|j| codewords.row(j)).map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(bits(&together[g]), bits(&alone[g]));
        }
        approx::assert_relative_eq!(q.loss, loss, max_relative = 1e-12);
    }
    assert!(revived > 0, "some codeword died");
}

#[test]
fn a_bad_value_is_named_by_its_column_in_the_whole_row_or_spoils_its_group_alone() {
    let shared = codebook(matrix(vec![0.0f32, 0.0, 1.0, 1.0], 2, 2).view());
    let z = matrix(vec![0.0f32, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, f32::NAN], 2, 4);
    let refused = quantize_groups(z.view(), &vec![shared.clone(); 2], 0.25, AssignOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::NonFinite { what: "vector", row: 1, col: 3, .. }), "{refused}");
    let options = AssignOptions { non_finite: NonFinite::Sentinel, ..Default::default() };
    let got = quantize_groups(z.view(), &vec![shared.clone(); 2], 0.25, options).unwrap();
    assert_eq!(got.assignment.labels, [0, 1, 1, SENTINEL]);
    assert_eq!((got.mse, &got.z_q.as_slice()[4..6]), (0.0, &[1.0f32, 1.0][..]));
    assert!(got.z_q.as_slice()[6..].iter().all(|value| value.is_nan()));
}

#[test]
fn codebooks_that_do_not_fit_are_refused_by_name() {
    let one = codebook(matrix(vec![0.0f32, 0.0], 1, 2).view());
    let z = matrix(vec![0.0f32; 12], 3, 4);
    let message = |codebooks: &[Codebook], beta: f64| {
        quantize_groups(z.view(), codebooks, beta, AssignOptions::default()).unwrap_err().to_string()
    };
    let start = "quantize_groups: expected vectors of";
    assert_eq!(message(&[], 0.25), format!("{start} 0 columns for 0 codebooks, of which there is one at least, got 4"));
    let three = vec![one.clone(); 3];
    assert_eq!(
        message(&three, 0.25),
        format!("{start} 6 columns for 3 codebooks, of which there is one at least, got 4")
    );
    assert_eq!(message(&three[..2], -1.0), "quantize_groups: beta must be finite and not negative, got -1");
    let none = quantize_groups(MatrixView::<f32>::new(&[], 0, 4).unwrap(), &three[..2], 0.25, AssignOptions::default());
    let none = none.unwrap();
    assert_eq!((none.mse, none.z_q.rows(), none.z_q.cols()), (0.0, 0, 4));
}
