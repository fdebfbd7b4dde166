//! Where rows come from: memory, or something that reads them block by block, as often as they are needed.

use super::random::Random;
use super::stop::Stop;
use super::{OP, init};
use crate::backend::non_finite;
use crate::error::{Error, Result};
use crate::matrix::{AnyView, Dtype, Element, Matrix, MatrixView, on_view};
use crate::metrics::block_rows;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of a block that is read, as f32: two of them are in memory.
const READ_BYTES: usize = 32 << 20;
/// Bytes of a block of rows that are in memory already, as f32.
const HELD_BYTES: usize = 256 << 20;
/// The stream of random numbers that samples are drawn with. Runs have those from 0 on.
const SAMPLE_STREAM: u64 = u64::MAX;

/// Vectors to learn from that need not fit in memory, `[n, d]`: read block by block, as often as they are needed. `E` is
/// what reading may fail with.
///
/// ```
/// use codeword::{Device, Error, KMeans, RowSource};
/// // Rows that are computed; others would come out of a file or a database.
/// let read = |first: usize, out: &mut [f32]| {
///     out.iter_mut().zip(first..).for_each(|(value, i)| *value = (i % 10) as f32);
///     Ok::<(), Error>(())
/// };
/// let mut rows = RowSource::new(1000, 1, read);
/// let fit = KMeans::new(10).fit_source(&mut rows, None, &Device::cpu(), |_, _| Ok(()))?;
/// assert_eq!((fit.inertia, fit.counts), (0.0, vec![100; 10]));
/// # Ok::<(), Error>(())
/// ```
pub struct RowSource<'a, E = Error> {
    n: usize,
    d: usize,
    block_rows: usize,
    rows: Rows<'a, E>,
}

enum Rows<'a, E> {
    Held(AnyView<'a>),
    Read { read: ReadRows<'a, E>, ready: Vec<f32>, next: Vec<f32> },
}

type ReadRows<'a, E> = Box<dyn FnMut(usize, &mut [f32]) -> Result<(), E> + Send + 'a>;

impl<'a, E> RowSource<'a, E> {
    /// `n` rows of `d` components. `read(first, out)` fills `out` with the rows from `first` on, as many as it has room
    /// for, row after row; the same rows every time. It is asked for blocks in ascending order, by another thread while
    /// the block before is worked on, and for single rows, ascending too.
    pub fn new(n: usize, d: usize, read: impl FnMut(usize, &mut [f32]) -> Result<(), E> + Send + 'a) -> Self {
        let rows = Rows::Read { read: Box::new(read), ready: Vec::new(), next: Vec::new() };
        RowSource { n, d, block_rows: whole_blocks(READ_BYTES / 4 / d.max(1), d), rows }
    }

    /// Rows in memory; nothing is copied.
    pub fn held<T: Element>(x: MatrixView<'a, T>) -> Self {
        let (n, d) = (x.rows(), x.cols());
        RowSource { n, d, block_rows: whole_blocks(HELD_BYTES / 4 / d.max(1), d), rows: Rows::Held(T::any(x)) }
    }

    /// Reads at most `rows` rows at a time, of which two such blocks are in memory; 32 MiB each where this is not
    /// called. Blocks are multiples of max(1, floor(2^18 / d)) rows, about 1 MiB, and at least that. Changes no result.
    pub fn with_block_rows(self, rows: usize) -> Self {
        RowSource { block_rows: whole_blocks(rows, self.d), ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.d
    }

    /// The type of a component.
    pub(super) fn dtype(&self) -> Dtype {
        match self.rows {
            Rows::Held(x) => on_view!(x, x => dtype_of(x)),
            Rows::Read { .. } => Dtype::F32,
        }
    }

    /// All rows, where they are in memory.
    pub(super) fn view(&self) -> Option<AnyView<'a>> {
        match self.rows {
            Rows::Held(x) => Some(x),
            Rows::Read { .. } => None,
        }
    }
}

impl<E: From<Error> + Send> RowSource<'_, E> {
    /// `count` different rows, each as likely as any other, and which they are, ascending; all rows where there are no
    /// more. A function of `seed`, `count` and the number of rows.
    ///
    /// # Errors
    /// - Those of reading.
    /// - [`Error::Shape`] where the sample cannot be addressed.
    pub fn sample(&mut self, count: usize, seed: u64) -> Result<(Vec<usize>, Matrix<f32>), E> {
        let mut rows: Vec<usize> = if count < self.n {
            init::draw(self.n, count, &mut Random::new(seed, SAMPLE_STREAM))
        } else {
            (0..self.n).collect()
        };
        rows.sort_unstable();
        let values = self.rows_at(&rows)?;
        let sample = Matrix::new(values, rows.len(), self.d)?;
        Ok((rows, sample))
    }

    /// Copies of some rows, in the order given.
    pub(super) fn rows_at(&mut self, positions: &[usize]) -> Result<Vec<f32>, E> {
        let d = self.d;
        let mut out = Vec::new();
        grow(&mut out, positions.len(), d)?;
        match &mut self.rows {
            Rows::Held(x) => {
                for (row, &i) in out.chunks_exact_mut(d.max(1)).zip(positions) {
                    on_view!(*x, x => widen(x, i, row));
                }
            }
            Rows::Read { read, .. } => {
                let mut order: Vec<usize> = (0..positions.len()).collect();
                order.sort_by_key(|&i| positions[i]);
                for i in order {
                    read(positions[i], &mut out[i * d..][..d])?;
                }
            }
        }
        Ok(out)
    }

    /// The same rows for what knows nothing of `E`: an error of reading is left in `own`.
    pub(super) fn erased<'b>(&'b mut self, own: &'b mut Option<E>) -> RowSource<'b, Stop> {
        let rows = match &mut self.rows {
            Rows::Held(x) => Rows::Held(*x),
            Rows::Read { read, .. } => {
                let read = move |first: usize, out: &mut [f32]| {
                    read(first, out).map_err(|error| {
                        *own = Some(error);
                        Stop::Reader
                    })
                };
                Rows::Read { read: Box::new(read), ready: Vec::new(), next: Vec::new() }
            }
        };
        RowSource { n: self.n, d: self.d, block_rows: self.block_rows, rows }
    }
}

impl RowSource<'_, Stop> {
    /// Passes all rows through `work`, block by block, with the number of the first.
    pub(super) fn each_block(
        &mut self,
        mut work: impl FnMut(usize, AnyView<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let (n, d, step) = (self.n, self.d, self.block_rows);
        let rows = |first: usize| first..n.min(first.saturating_add(step));
        let (read, ready, next) = match &mut self.rows {
            Rows::Held(x) => return (0..n).step_by(step).try_for_each(|first| work(first, block(*x, rows(first)))),
            Rows::Read { read, ready, next } => (read, ready, next),
        };
        grow(ready, rows(0).len(), d)?;
        // Where one block is all, there is no second.
        grow(next, rows(step.min(n)).len(), d)?;
        if n > 0 {
            read(0, &mut ready[..rows(0).len() * d])?;
        }
        for first in (0..n).step_by(step) {
            let (this, following) = (rows(first), rows(n.min(first.saturating_add(step))));
            let (at, out) = (following.start, &mut next[..following.len() * d]);
            let x = MatrixView::new(&ready[..this.len() * d], this.len(), d)?;
            std::thread::scope(|scope| {
                let reading = (!out.is_empty()).then(|| scope.spawn(|| read(at, out)));
                let worked = work(first, f32::any(x));
                let was_read = reading.map_or(Ok(()), |reading| {
                    // A reader that panicked goes on panicking here.
                    reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                });
                worked.and(was_read)
            })?;
            std::mem::swap(ready, next);
        }
        Ok(())
    }

    /// As [`RowSource::rows_at`], of rows that are finite: where one is not, the error names the first of all rows.
    pub(super) fn finite_rows_at(&mut self, positions: &[usize]) -> Result<Vec<f32>, Stop> {
        let rows = self.rows_at(positions)?;
        let bad = rows.iter().position(|value| !value.is_finite());
        let Some(bad) = bad else { return Ok(rows) };
        self.check_finite()?;
        // Not reached where rows are the same every time.
        let (row, col, got) = (positions[bad / self.d], bad % self.d, rows[bad]);
        Err(Stop::Error(Error::NonFinite { op: OP, what: "vector", row, col, got, way_out: WAY_OUT }))
    }

    /// Looks at every row.
    pub(super) fn check_finite(&mut self) -> Result<(), Stop> {
        self.each_block(check_block)
    }
}

/// Whether all numbers of a block that starts at row `first` are finite.
pub(super) fn check_block(first: usize, x: AnyView<'_>) -> Result<(), Stop> {
    on_view!(x, x => finite(x)).map_err(|error| Stop::Error(at_row(error, first)))
}

const WAY_OUT: &str = "remove the vector";

/// An error about a block that starts at row `first`.
pub(super) fn at_row(error: Error, first: usize) -> Error {
    match error {
        Error::NonFinite { what, row, col, got, .. } => {
            Error::NonFinite { op: OP, what, row: first + row, col, got, way_out: WAY_OUT }
        }
        error => error,
    }
}

/// Rows of a view.
pub(super) fn len(x: AnyView<'_>) -> usize {
    on_view!(x, x => x.rows())
}

fn dtype_of<T: Element>(_: MatrixView<'_, T>) -> Dtype {
    T::DTYPE
}

fn block(x: AnyView<'_>, rows: Range<usize>) -> AnyView<'_> {
    on_view!(x, x => Element::any(x.block(rows)))
}

fn widen<T: Element>(x: MatrixView<'_, T>, i: usize, row: &mut [f32]) {
    T::widen(x.row(i), row);
}

fn finite<T: Element>(x: MatrixView<'_, T>) -> Result<()> {
    // Without a way out in the middle, so that it runs at the speed of memory.
    let is_bad = |i: usize| !x.row(i).iter().fold(true, |finite, value| finite & value.to_f32().is_finite());
    match (0..x.rows()).into_par_iter().with_min_len(256).position_first(is_bad) {
        Some(row) => Err(non_finite(OP, x, row, WAY_OUT)),
        None => Ok(()),
    }
}

/// The multiple of the blocks that sums are ordered by which is nearest below `rows`, but not none.
fn whole_blocks(rows: usize, d: usize) -> usize {
    let one = block_rows(d) as usize;
    (rows / one).max(1).saturating_mul(one)
}

/// Makes room for some rows.
fn grow(buffer: &mut Vec<f32>, rows: usize, d: usize) -> Result<()> {
    let len = rows.checked_mul(d);
    let fits = |len: &usize| buffer.try_reserve_exact(len.saturating_sub(buffer.len())).is_ok();
    let Some(len) = len.filter(fits) else {
        let expected = "rows of which a block fits in memory".into();
        return Err(Error::Shape { op: OP, expected, got: format!("{rows} x {d}") });
    };
    buffer.resize(len.max(buffer.len()), 0.0);
    Ok(())
}
