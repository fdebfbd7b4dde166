//! Codes of real data: equal to those that other programs wrote, and to exact arithmetic everywhere.

mod common;

use codeword::{AssignOptions, Device, KMeans, Matrix, MatrixView, top_k};
use common::{
    Numbers, assert_assign_exact, assert_exact, assert_same_bits, assert_same_labels, codebook, data, matrix, scaled,
};

fn row_subset(all: &Matrix<f32>, rows: impl Iterator<Item = usize>) -> Matrix<f32> {
    let picked: Vec<f32> = rows.flat_map(|i| all.view().row(i).to_vec()).collect();
    let rows = picked.len() / all.cols();
    matrix(picked, rows, all.cols())
}

fn siftsmall() -> Matrix<f32> {
    let all = data::f32_matrix("siftsmall/base_f32.npy");
    row_subset(&all, 0..scaled(all.rows()))
}

#[test]
fn siftsmall_by_k_means_centroids() {
    let Some(_) = data::folder() else { return };
    let x = siftsmall();
    let centroids = data::f32_matrix("faiss_ref/kmeans256_centroids_f32.npy");
    let (assignment, _) = data::array::<u16>("faiss_ref/kmeans256_assign_u16.npy");
    let expected: Vec<u32> = assignment.into_iter().map(u32::from).collect();

    let got = assert_assign_exact("siftsmall", x.view(), centroids.view());
    assert_same_labels("k-means assignment", &got.labels, &expected[..x.rows()], 1);
    let stats = got.stats;
    let share = |rows: u64| 100.0 * rows as f64 / x.rows() as f64;
    println!(
        "siftsmall by 256 centroids: first {:.2} %, second {:.2} %, f64 {:.2} %, exact {:.2} %",
        share(stats.first),
        share(stats.second),
        share(stats.f64),
        share(stats.exact)
    );
    assert!(share(stats.first) >= 90.0, "{stats:?}");
}

#[test]
fn siftsmall_is_learned_as_well_as_faiss_learns_it() {
    let Some(_) = data::folder_for_figures() else { return };
    let x = data::f32_matrix("siftsmall/base_f32.npy");
    // faiss-cpu 1.15.1, 25 iterations: mean squared distance of a row.
    for (k, expected) in [(16, 76066.0), (64, 64341.0), (256, 53734.0), (1024, 39975.0)] {
        let of_seed = |seed| {
            let fit = KMeans::new(k).seed(seed).fit(x.view(), &Device::cpu()).unwrap();
            assert!(fit.iterations() == 25 || fit.converged);
            fit.inertia / x.rows() as f64
        };
        let mean = (0..5).map(of_seed).sum::<f64>() / 5.0;
        println!("k={k}: {mean:.0}, faiss {expected}: {:+.2} %", 100.0 * (mean / expected - 1.0));
        assert!(mean <= 1.005 * expected, "k={k}: {mean}, faiss {expected}");
    }
}

#[test]
fn siftsmall_by_product_quantizers() {
    let Some(_) = data::folder() else { return };
    let x = siftsmall();
    for m in [8, 16] {
        let (codewords, shape) = data::array::<f32>(&format!("faiss_ref/pq_m{m}_codebook_f32.npy"));
        let (codes, _) = data::array::<u8>(&format!("faiss_ref/pq_m{m}_codes_u8.npy"));
        let (k, d) = (shape[1], shape[2]);
        for (part, codewords) in codewords.chunks_exact(k * d).enumerate() {
            let name = format!("product quantizer {part} of {m}");
            let columns = x.view().columns(part * d..(part + 1) * d).unwrap();
            let codewords = MatrixView::new(codewords, k, d).unwrap();
            let expected: Vec<u32> = codes.iter().skip(part).step_by(m).map(|&code| code.into()).collect();
            let got = assert_assign_exact(&name, columns, codewords);
            assert_same_labels(&name, &got.labels, &expected[..x.rows()], 1);
        }
    }
}

/// What a codebook leaves: one f32 subtraction per component.
fn residual(x: &Matrix<f32>, codewords: MatrixView<'_, f32>, labels: &[u32]) -> Matrix<f32> {
    let mut left = x.as_slice().to_vec();
    for (row, &label) in left.chunks_exact_mut(x.cols()).zip(labels) {
        for (v, &e) in row.iter_mut().zip(codewords.row(label as usize)) {
            *v -= e;
        }
    }
    matrix(left, x.rows(), x.cols())
}

#[test]
fn siftsmall_by_residual_stages() {
    let Some(_) = data::folder() else { return };
    let mut x = siftsmall();
    let (codewords, shape) = data::array::<f32>("faiss_ref/rvq4x256_codebooks_f32.npy");
    let (codes, _) = data::array::<u8>("faiss_ref/rvq4x256_codes_u8.npy");
    let (stages, k, d) = (shape[0], shape[1], shape[2]);
    for (stage, codewords) in codewords.chunks_exact(k * d).enumerate() {
        let name = format!("residual stage {stage}");
        let codewords = MatrixView::new(codewords, k, d).unwrap();
        let expected: Vec<u32> = codes.iter().skip(stage).step_by(stages).map(|&code| code.into()).collect();
        let got = assert_assign_exact(&name, x.view(), codewords);
        assert_same_labels(&name, &got.labels, &expected[..x.rows()], 1);
        x = residual(&x, codewords, &got.labels);
    }
}

#[test]
fn siftsmall_search_equals_the_integers() {
    let Some(_) = data::folder() else { return };
    let base = data::f32_matrix("siftsmall/base_f32.npy");
    let queries = data::f32_matrix("siftsmall/query_f32.npy");
    let (truth, shape) = data::array::<i32>("siftsmall/groundtruth_i32.npy");
    let r = shape[1];
    let top = top_k(queries.view(), &codebook(base.view()), r, AssignOptions::default()).unwrap();
    // All values are whole numbers up to 180: a squared distance is an integer below 2^24, and so an f32.
    let integer = |q: usize, id: usize| -> i64 {
        let pairs = queries.view().row(q).iter().zip(base.view().row(id));
        pairs.map(|(&a, &b)| (a as i64 - b as i64).pow(2)).sum()
    };
    for q in 0..queries.rows() {
        let ids = &top.labels[q * r..(q + 1) * r];
        let true_ids = &truth[q * r..(q + 1) * r];
        let integers: Vec<f32> = true_ids.iter().map(|&id| integer(q, id as usize) as f32).collect();
        assert_same_bits(&format!("query {q}"), &top.sq_distances[q * r..(q + 1) * r], &integers);
        for pair in ids.windows(2).zip(integers.windows(2)).filter(|(_, near)| near[0] == near[1]) {
            assert!(pair.0[0] < pair.0[1], "query {q}: equal distances are ordered by index");
        }
        // Within one distance, order is arbitrary in the ground truth; the last such set may be cut off anywhere.
        let before_last = integers.iter().take_while(|&&distance| distance < integers[r - 1]).count();
        let mut got: Vec<(i64, u32)> = ids[..before_last].iter().map(|&id| (integer(q, id as usize), id)).collect();
        let mut expected: Vec<(i64, u32)> =
            true_ids[..before_last].iter().map(|&id| (integer(q, id as usize), id as u32)).collect();
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "query {q}");
        for &id in &ids[before_last..] {
            assert_eq!(integer(q, id as usize) as f32, integers[r - 1], "query {q}, id {id}");
        }
    }
}

#[test]
fn lpcnet_cepstra_by_its_three_stages() {
    let Some(_) = data::folder() else { return };
    let stages: Vec<Matrix<f32>> =
        (1..=3).map(|i| data::f32_matrix(&format!("lpcnet/ceps_codebook{i}_1024x17_f32.npy"))).collect();
    // Sums of one codeword per stage, as the quantizer's own outputs are, with a little noise.
    let mut numbers = Numbers::new(41);
    let n = scaled(3000);
    let mut x = Vec::new();
    for _ in 0..n {
        let picked = [0, 1, 2].map(|stage| stages[stage].view().row(numbers.below(1024)));
        x.extend((0..17).map(|c| picked[0][c] + picked[1][c] + picked[2][c] + 0.1 * numbers.gaussian()));
    }
    let mut x = matrix(x, n, 17);
    for (i, codewords) in stages.iter().enumerate() {
        let name = format!("lpcnet stage {}", i + 1);
        let labels = assert_assign_exact(&name, x.view(), codewords.view()).labels;
        x = residual(&x, codewords.view(), &labels);
    }
    // Codewords as vectors: of one stage by the next, and each by itself, where repeated ones tie.
    assert_exact("stage 1 by stage 2", stages[0].view(), stages[1].view());
    assert_assign_exact("stage 3 by itself", stages[2].view(), stages[2].view());
}

#[test]
fn lpcnet_differences_by_one_another() {
    let Some(_) = data::folder() else { return };
    let few = data::f32_matrix("lpcnet/ceps_codebook_diff2_64x18_f32.npy");
    let many = data::f32_matrix("lpcnet/ceps_codebook_diff4_4096x18_f32.npy");
    assert_exact("4096 by 64", many.view(), few.view());
    assert_exact("64 by 4096", few.view(), many.view());
    let some = row_subset(&many, (0..scaled(4096)).step_by(5));
    assert_assign_exact("some by all", some.view(), many.view());
}

#[test]
fn lopq_oxford_by_its_own_rows_with_jitter() {
    let Some(_) = data::folder() else { return };
    let x = data::f32_matrix("lopq_oxford/features_f32.npy");
    let exact_rows = row_subset(&x, (0..x.rows()).step_by(20));
    assert_assign_exact("own rows", x.view(), exact_rows.view());
    let mut numbers = Numbers::new(42);
    let jittered = exact_rows.as_slice().iter().map(|v| v * (1.0 + 1e-3 * numbers.gaussian())).collect();
    let jittered = matrix(jittered, exact_rows.rows(), x.cols());
    let stats = assert_assign_exact("own rows with jitter", x.view(), jittered.view()).stats;
    println!("lopq_oxford by {} codewords: {stats:?}", jittered.rows());
    let queries = x.view().row_range(0..200).unwrap();
    assert_exact("the nearest of own rows", queries, exact_rows.view());
}
