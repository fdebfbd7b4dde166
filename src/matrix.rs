//! Row-major matrices of f32, f16 or bf16: [`Matrix`] owns its elements, [`MatrixView`] borrows rows that may
//! lie further apart than they are long.

use crate::error::{Error, Result};
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// The element types of vectors and codebooks: f32, [`half::f16`], [`half::bf16`]. Each converts to f32 exactly.
pub trait Element: sealed::Sealed + bytemuck::Pod + PartialEq + std::fmt::Debug + Send + Sync {
    /// The type as a value.
    const DTYPE: Dtype;
    /// The same number as f32; exact.
    fn to_f32(self) -> f32;
    /// Writes the same numbers as f32; exact. Both slices have one length.
    fn widen(src: &[Self], dst: &mut [f32]) {
        for (d, s) in dst.iter_mut().zip(src) {
            *d = s.to_f32();
        }
    }
    /// The same numbers as f32: the slice itself where it is f32 already, else its copy in `buffer`.
    #[doc(hidden)]
    fn as_f32<'a>(src: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        buffer.resize(src.len(), 0.0);
        Self::widen(src, buffer);
        buffer
    }
    #[doc(hidden)]
    fn any(view: MatrixView<'_, Self>) -> AnyView<'_>;
}

/// A view whose element type is a value. The operations go through it where they stop being generic, so that what lies
/// behind is compiled once, with this crate, and not with every program that calls them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum AnyView<'a> {
    F32(MatrixView<'a, f32>),
    F16(MatrixView<'a, f16>),
    Bf16(MatrixView<'a, bf16>),
}

/// `$work` on the view that `$any` holds, `$view`, of whatever element type.
macro_rules! on_view {
    ($any:expr, $view:ident => $work:expr) => {
        match $any {
            crate::matrix::AnyView::F32($view) => $work,
            crate::matrix::AnyView::F16($view) => $work,
            crate::matrix::AnyView::Bf16($view) => $work,
        }
    };
}
pub(crate) use on_view;

/// An element type as a value, for messages and plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// `"f32"`, `"f16"` or `"bf16"`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn to_f32(self) -> f32 {
        self
    }
    #[inline]
    fn widen(src: &[f32], dst: &mut [f32]) {
        dst.copy_from_slice(src);
    }
    fn as_f32<'a>(src: &'a [f32], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        src
    }
    fn any(view: MatrixView<'_, Self>) -> AnyView<'_> {
        AnyView::F32(view)
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn widen(src: &[f16], dst: &mut [f32]) {
        // The crate's own conversion uses F16C or NEON where the machine has it.
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(src, dst);
    }
    fn any(view: MatrixView<'_, Self>) -> AnyView<'_> {
        AnyView::F16(view)
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    fn any(view: MatrixView<'_, Self>) -> AnyView<'_> {
        AnyView::Bf16(view)
    }
}

/// An owned row-major matrix, `[rows, cols]`, without gaps.
///
/// ```
/// use codeword::Matrix;
/// let m = Matrix::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3)?;
/// assert_eq!(m.view().row(1), &[4.0, 5.0, 6.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    data: Vec<T>,
    rows: usize,
    cols: usize,
}

impl<T: Element> Matrix<T> {
    /// Takes `rows * cols` elements, row after row.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `data.len()` is not `rows * cols`.
    pub fn new(data: Vec<T>, rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(Error::Shape {
                op: "Matrix::new",
                expected: format!("{rows} x {cols} elements"),
                got: format!("{}", data.len()),
            });
        }
        Ok(Matrix { data, rows, cols })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The elements, row after row.
    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    /// The elements, row after row.
    pub fn into_vec(self) -> Vec<T> {
        self.data
    }

    /// A view of the whole matrix.
    pub fn view(&self) -> MatrixView<'_, T> {
        MatrixView { data: &self.data, rows: self.rows, cols: self.cols, row_stride: self.cols }
    }
}

/// A borrowed row-major matrix, `[rows, cols]`; row `i` starts at element `i * row_stride`.
///
/// A column range of a matrix is such a view, which is how a product quantizer sees its sub-vectors:
///
/// ```
/// use codeword::MatrixView;
/// let data = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
/// let whole = MatrixView::new(&data, 2, 4)?;
/// let right = whole.columns(2..4)?;
/// assert_eq!(right.row(1), &[7.0, 8.0]);
/// # Ok::<(), codeword::Error>(())
/// ```
#[derive(Debug)]
pub struct MatrixView<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<T> Clone for MatrixView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MatrixView<'_, T> {}

impl<'a, T: Element> MatrixView<'a, T> {
    /// A view of `rows * cols` elements without gaps.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `data` holds another number of elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(Error::Shape {
                op: "MatrixView::new",
                expected: format!("{rows} x {cols} elements"),
                got: format!("{}", data.len()),
            });
        }
        Ok(MatrixView { data, rows, cols, row_stride: cols })
    }

    /// A view whose rows start `row_stride` elements apart. What lies behind the last row's last column may be missing.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `row_stride < cols`, or `data` ends before the last row does.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Result<Self> {
        let needed = match rows {
            0 => Some(0),
            _ => (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols)),
        };
        if row_stride < cols || needed.is_none_or(|needed| needed > data.len()) {
            return Err(Error::Shape {
                op: "MatrixView::with_stride",
                expected: format!("a stride of at least {cols} and data for {rows} rows"),
                got: format!("a stride of {row_stride} and {} elements", data.len()),
            });
        }
        Ok(MatrixView { data, rows, cols, row_stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from the start of one row to the start of the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Row `i`; `cols` elements.
    ///
    /// # Panics
    /// Where `i >= rows`, as slices do.
    pub fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        let start = i * self.row_stride;
        &self.data[start..start + self.cols]
    }

    /// From the first element of the first row to the last of the last.
    pub(crate) fn elements(&self) -> &'a [T] {
        &self.data[..self.rows.checked_sub(1).map_or(0, |last| last * self.row_stride + self.cols)]
    }

    /// All elements, where rows have no gaps between them.
    #[cfg(feature = "cuda")]
    pub(crate) fn gapless(&self) -> Option<&'a [T]> {
        (self.row_stride == self.cols).then(|| &self.data[..self.rows * self.cols])
    }

    /// The same numbers as f32: the view itself where it is f32 already, else a copy in `buffer` without gaps.
    pub(crate) fn as_f32<'b>(&self, buffer: &'b mut Vec<f32>) -> MatrixView<'b, f32>
    where
        'a: 'b,
    {
        let MatrixView { rows, cols, row_stride, .. } = *self;
        if row_stride == cols || T::DTYPE == Dtype::F32 {
            return MatrixView { data: T::as_f32(self.elements(), buffer), rows, cols, row_stride };
        }
        buffer.resize(rows * cols, 0.0);
        self.widen_into(buffer);
        MatrixView { data: buffer, rows, cols, row_stride: cols }
    }

    /// As many rows as `data` has, side by side; whole rows of one column or more.
    pub(crate) fn of_rows(data: &'a [T], cols: usize) -> Self {
        MatrixView { data, rows: data.len() / cols, cols, row_stride: cols }
    }

    /// All elements as f32, row after row; `to` has as many.
    pub(crate) fn widen_into(&self, to: &mut [f32])
    where
        T: Element,
    {
        match self.row_stride == self.cols {
            true => T::widen(&self.data[..self.rows * self.cols], to),
            // Short rows of known lengths are moves of registers, not calls.
            false => match self.cols {
                4 => self.widen_rows::<4>(to),
                8 => self.widen_rows::<8>(to),
                16 => self.widen_rows::<16>(to),
                cols => to.chunks_exact_mut(cols).enumerate().for_each(|(i, to)| T::widen(self.row(i), to)),
            },
        }
    }

    /// [`MatrixView::widen_into`] of rows of N columns.
    fn widen_rows<const N: usize>(&self, to: &mut [f32])
    where
        T: Element,
    {
        let (to, _) = to.as_chunks_mut::<N>();
        for (i, to) in to.iter_mut().enumerate() {
            if let ([row], _) = self.row(i).as_chunks::<N>() {
                T::widen(row, to);
            }
        }
    }

    /// The view of a range of rows.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the range ends behind the last row or runs backwards.
    pub fn row_range(&self, range: std::ops::Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.rows {
            return Err(Error::Shape {
                op: "MatrixView::row_range",
                expected: format!("a range within {} rows", self.rows),
                got: format!("{range:?}"),
            });
        }
        Ok(self.block(range))
    }

    /// [`MatrixView::row_range`] of a range that is known to lie within.
    pub(crate) fn block(&self, range: std::ops::Range<usize>) -> Self {
        let start = if range.is_empty() { 0 } else { range.start * self.row_stride };
        MatrixView { data: &self.data[start..], rows: range.len(), ..*self }
    }

    /// The view of a range of columns.
    ///
    /// # Errors
    /// - [`Error::Shape`] where the range ends behind the last column or runs backwards.
    pub fn columns(&self, range: std::ops::Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.cols {
            return Err(Error::Shape {
                op: "MatrixView::columns",
                expected: format!("a range within {} columns", self.cols),
                got: format!("{range:?}"),
            });
        }
        let data = if self.rows == 0 { self.data } else { &self.data[range.start..] };
        Ok(MatrixView { data, cols: range.end - range.start, ..*self })
    }

    /// The same elements as `rows` rows of `cols` columns: rows of d columns as h times as many of d / h, say, for h
    /// groups that share a codebook.
    ///
    /// # Errors
    /// - [`Error::Shape`] where that is another number of elements, or rows have gaps between them.
    ///
    /// ```
    /// use codeword::MatrixView;
    /// let x = MatrixView::new(&[1.0f32, 2.0, 3.0, 4.0], 1, 4)?;
    /// assert_eq!(x.reshape(2, 2)?.row(1), &[3.0, 4.0]);
    /// # Ok::<(), codeword::Error>(())
    /// ```
    pub fn reshape(&self, rows: usize, cols: usize) -> Result<Self> {
        let error = |got: String| {
            Err(Error::Shape {
                op: "MatrixView::reshape",
                expected: format!("{rows} x {cols} elements without gaps"),
                got,
            })
        };
        if self.rows > 1 && self.row_stride != self.cols {
            return error(format!("rows {} apart of {} columns", self.row_stride, self.cols));
        }
        // No overflow: so many elements are there.
        let elements = self.rows * self.cols;
        if rows.checked_mul(cols) != Some(elements) {
            return error(format!("{} x {}", self.rows, self.cols));
        }
        Ok(MatrixView { data: &self.data[..elements], rows, cols, row_stride: cols })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_view_ends_with_the_last_element_of_its_last_row() {
        let data: Vec<f32> = (0..11).map(|i| i as f32).collect();
        let view = MatrixView::with_stride(&data, 3, 3, 4).unwrap();
        assert_eq!(view.row(2), &[8.0, 9.0, 10.0]);
        assert!(MatrixView::with_stride(&data[..10], 3, 3, 4).is_err());
        assert!(MatrixView::with_stride(&data, 3, 3, 2).is_err());
        assert!(MatrixView::with_stride(&data, usize::MAX, 3, 4).is_err());
        assert_eq!(view.row_range(1..3).unwrap().row(1), &[8.0, 9.0, 10.0]);
        assert_eq!(view.row_range(3..3).unwrap().rows(), 0);
        assert_eq!(view.columns(1..3).unwrap().row(2), &[9.0, 10.0]);
        assert_eq!(view.columns(3..3).unwrap().row(2), &[0.0f32; 0]);
        assert!(view.columns(2..4).is_err());
        assert!(view.row_range(2..4).is_err());
    }

    #[test]
    fn only_rows_without_gaps_are_reshaped() {
        let data: Vec<f32> = (0..13).map(|i| i as f32).collect();
        let view = MatrixView::new(&data[..12], 2, 6).unwrap();
        assert_eq!(view.reshape(4, 3).unwrap().row(2), &[6.0, 7.0, 8.0]);
        assert_eq!(view.row_range(1..2).unwrap().reshape(3, 2).unwrap().row(2), &[10.0, 11.0]);
        assert_eq!(view.reshape(1, 12).unwrap().row_stride(), 12);
        // A single row has none; what lies behind it is not its own.
        let single = MatrixView::with_stride(&data, 1, 6, 7).unwrap();
        assert_eq!(single.reshape(2, 3).unwrap().row(1), &[3.0, 4.0, 5.0]);
        assert_eq!(MatrixView::<f32>::new(&[], 0, 6).unwrap().reshape(0, 3).unwrap().rows(), 0);
        let message = |refused: Result<MatrixView<'_, f32>>| refused.unwrap_err().to_string();
        let expected = "MatrixView::reshape: expected 5 x 2 elements without gaps, got 2 x 6";
        assert_eq!(message(view.reshape(5, 2)), expected);
        assert!(view.reshape(usize::MAX, 2).is_err());
        let gaps = MatrixView::with_stride(&data, 2, 6, 7).unwrap();
        let expected = "MatrixView::reshape: expected 4 x 3 elements without gaps, got rows 7 apart of 6 columns";
        assert_eq!(message(gaps.reshape(4, 3)), expected);
    }

    #[test]
    fn sizes_that_overflow_are_an_error() {
        assert!(Matrix::<f32>::new(vec![], usize::MAX, 2).is_err());
        assert!(MatrixView::<f32>::new(&[], usize::MAX, usize::MAX).is_err());
    }

    #[test]
    fn widening_is_exact_for_every_16_bit_pattern() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let halves: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
        let mut wide = vec![0.0f32; halves.len()];
        f16::widen(&halves, &mut wide);
        for (&h, &w) in halves.iter().zip(&wide) {
            // An f16 is sign * m * 2^e with a small integer m: computed here in f64, independently of any conversion.
            let b = h.to_bits();
            let (e, m) = (i32::from(b >> 10 & 31), f64::from(b & 1023));
            let magnitude = match e {
                31 if m == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                0 => m * (-24f64).exp2(),
                _ => (1024.0 + m) * f64::from(e - 25).exp2(),
            };
            let expected = if b >> 15 == 1 { -magnitude } else { magnitude };
            assert!(f64::from(w) == expected || (w.is_nan() && expected.is_nan()), "{b:#x}: {w} against {expected}");
        }
        // A bf16 is the upper half of an f32.
        for &b in &bits {
            let (value, expected) = (bf16::from_bits(b).to_f32(), f32::from_bits(u32::from(b) << 16));
            assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()), "{b:#x}");
        }
    }
}
