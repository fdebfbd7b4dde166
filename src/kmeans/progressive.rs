//! A start for rows much like noise: k-means in few of their principal components, then in more of them.

use super::init::random_rows;
use super::random::Random;
use super::stop::Stop;
use super::{Init, KMeans, KMeansFit, Problem, Step};
use crate::backend::carried::Carry;
use crate::backend::{accumulate, multiply_into, svd};
use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, Matrix, MatrixView};
use rayon::prelude::*;

/// Rows that codewords are learned from at most, for each, and that the components are those of.
const SAMPLE: usize = 256;
const ROWS: usize = 4096;
/// Components at most.
const COMPONENTS: usize = 64;
/// How often codewords are moved in one number of components.
const ITERATIONS: usize = 10;
/// How often the components are made more like those of the covariance: they need not be very exact.
const TURNS: usize = 8;

/// Codewords learned in 1, 2, 4, ... principal components, as [`Init::Progressive`] tells.
pub(super) fn progressive(
    problem: &mut Problem<'_, '_>,
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
) -> Result<Matrix<f32>, Stop> {
    let (d, k, n) = (problem.source.cols(), problem.k, problem.source.rows());
    let heavy = problem.weights.0.map_or(n, |weights| weights.iter().filter(|&&weight| weight > 0.0).count());
    let sample = random_rows(problem.source, problem.weights, heavy.min(k.saturating_mul(SAMPLE)), random)?;
    let fit = match turned(&sample, random)? {
        Some(turned) => in_more_and_more(problem, run, random, observe, turned.view())?,
        None => in_more_and_more(problem, run, random, observe, sample.view().columns(0..d.min(COMPONENTS))?)?,
    };
    // The means of all components. A codeword without rows is one of them: random, as they were drawn.
    let sums = accumulate(sample.view(), &fit.assignment.labels, None, k)?;
    let mut codewords = sample.as_slice()[..k * d].to_vec();
    codewords.chunks_exact_mut(d).enumerate().for_each(|(j, codeword)| _ = sums.mean_into(j, codeword));
    Ok(Matrix::new(codewords, k, d)?)
}

/// The rows as their principal components have them. Nothing where one of them leaves f32.
fn turned(sample: &Matrix<f32>, random: &mut Random) -> Result<Option<Matrix<f32>>> {
    let some = sample.view().block(0..sample.rows().min(ROWS));
    let Some(components) = components(some, random)? else { return Ok(None) };
    let mut turned = vec![0.0; sample.rows() * components.cols()];
    multiply_into(f32::any(sample.view()), components.view(), None, &mut turned)?;
    match turned.par_iter().all(|value| value.is_finite()) {
        true => Matrix::new(turned, sample.rows(), components.cols()).map(Some),
        false => Ok(None),
    }
}

/// k-means in the first column of `x`, from there in the first two, four and so on to all of them.
fn in_more_and_more(
    problem: &Problem<'_, '_>,
    run: usize,
    random: &mut Random,
    observe: &mut dyn FnMut(Step) -> Result<(), Stop>,
    x: MatrixView<'_, f32>,
) -> Result<KMeansFit, Stop> {
    let (all, k) = (x.cols(), problem.k);
    let params = KMeans::new(k).iterations(ITERATIONS).seed(random.seed()).carry(Carry::Never);
    let (mut dims, mut init) = (1, Init::PlusPlus);
    loop {
        // Ctrl-C is heard; nothing else is told, since nobody knows how many steps there are.
        let told = |step| match step {
            Step::Rows { rows, .. } => observe(Step::Rows { run, iteration: None, rows }),
            _ => Ok(()),
        };
        let fit = params.clone().init(init).fit_with(x.columns(0..dims)?, None, problem.device, told)?;
        if dims == all {
            return Ok(fit);
        }
        // Further components the same for all: they tell no codeword from another, and the first means put them right.
        let (next, codewords) = (all.min(2 * dims), fit.codebook.codewords()?);
        let mut values = vec![0.0; k * next];
        values.chunks_exact_mut(next).enumerate().for_each(|(j, to)| to[..dims].copy_from_slice(codewords.row(j)));
        init = Init::Given(Codebook::new(MatrixView::new(&values, k, next)?, &Device::Cpu)?);
        dims = next;
    }
}

/// The first principal components of the rows, or nearly, `[d, c]`, one in each column, from the one of the largest variance on:
/// by orthogonal iteration (Golub and Van Loan, Matrix Computations, 4th edition, section 7.3.2) with a Rayleigh-Ritz step.
/// Nothing where a row leaves f32 when it is turned.
fn components(x: MatrixView<'_, f32>, random: &mut Random) -> Result<Option<Matrix<f32>>> {
    let (n, d) = (x.rows(), x.cols());
    let c = COMPONENTS.min(d).min(n);
    let mut columns: Vec<f64> = (0..c * d).map(|_| random.unit() - 0.5).collect();
    orthogonalise(&mut columns, d);
    for _ in 0..TURNS {
        let Some(shares) = shares(x, &columns)? else { return Ok(None) };
        columns = back(x, &shares, c);
        orthogonalise(&mut columns, d);
    }
    let Some(shares) = shares(x, &columns)? else { return Ok(None) };
    let mut within = vec![0.0; c * c];
    for row in shares.chunks_exact(c) {
        for (sums, &a) in within.chunks_exact_mut(c).zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, &b)| *sum += a * b);
        }
    }
    // Symmetric: rows are columns.
    let v = svd(&within, c, || Ok::<(), Error>(()))?.v;
    let mut turned = vec![0.0; c * d];
    turned.par_chunks_exact_mut(d).zip(v.par_chunks_exact(c)).for_each(|(turned, v)| {
        for (column, &v) in columns.chunks_exact(d).zip(v) {
            turned.iter_mut().zip(column).for_each(|(sum, value)| *sum += value * v);
        }
    });
    in_columns(&turned, d).map(Some)
}

/// What each row has of each column, less the mean of all rows: `[n, c]`.
fn shares(x: MatrixView<'_, f32>, columns: &[f64]) -> Result<Option<Vec<f64>>> {
    let (n, c) = (x.rows(), columns.len() / x.cols());
    let mut products = vec![0.0; n * c];
    multiply_into(f32::any(x), in_columns(columns, x.cols())?.view(), None, &mut products)?;
    if !products.iter().all(|value| value.is_finite()) {
        return Ok(None);
    }
    let mut shares: Vec<f64> = products.iter().map(|&value| value.into()).collect();
    let mut means = vec![0.0; c];
    shares
        .chunks_exact(c)
        .for_each(|row| means.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / n as f64));
    shares.chunks_exact_mut(c).for_each(|row| row.iter_mut().zip(&means).for_each(|(value, mean)| *value -= mean));
    Ok(Some(shares))
}

/// The sums of all rows, each times what it has of a column: column after column.
fn back(x: MatrixView<'_, f32>, shares: &[f64], c: usize) -> Vec<f64> {
    let d = x.cols();
    let mut out = vec![0.0; c * d];
    out.par_chunks_exact_mut(d).enumerate().for_each(|(at, sums)| {
        for (i, row) in shares.chunks_exact(c).enumerate() {
            sums.iter_mut().zip(x.row(i)).for_each(|(sum, &value)| *sum += f64::from(value) * row[at]);
        }
    });
    out
}

/// Columns that lie one after the other as a matrix, `[d, c]`.
fn in_columns(columns: &[f64], d: usize) -> Result<Matrix<f32>> {
    let c = columns.len() / d;
    Matrix::new((0..d * c).map(|at| columns[at % c * d + at / c] as f32).collect(), d, c)
}

/// Makes each column orthogonal to those before it, and its length 1; or 0, where next to nothing is left of it.
fn orthogonalise(columns: &mut [f64], d: usize) {
    let length = |column: &[f64]| column.iter().map(|value| value * value).sum::<f64>().sqrt();
    for j in 0..columns.len() / d {
        let (before, column) = columns.split_at_mut(j * d);
        let column = &mut column[..d];
        let whole = length(column);
        // Twice is enough (Giraud, Langou, Rozloznik 2005).
        for other in before.chunks_exact(d).chain(before.chunks_exact(d)) {
            let share: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(value, other)| *value -= share * other);
        }
        let left = length(column);
        let scale = if left > 1e-12 * whole { 1.0 / left } else { 0.0 };
        column.iter_mut().for_each(|value| *value *= scale);
    }
}
