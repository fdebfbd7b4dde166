//! Matrices that lie on a CUDA device already, whoever allocated them.

use super::caller::{Memory, Use, read};
use super::context::Context;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::matrix::Element;
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// Rows on a CUDA device, `[rows, cols]`, row-major, maybe with gaps between them: what [`crate::MatrixView`] is for
/// host memory.
///
/// The values are a `CudaSlice` or `CudaView` of `cudarc`, or [`Raw`](super::caller::Raw) memory of anybody else.
#[derive(Clone, Copy)]
pub struct MatrixView<'a, T> {
    values: &'a dyn Memory<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T: Element> MatrixView<'a, T> {
    /// `rows * cols` values without gaps.
    ///
    /// # Errors
    /// - [`Error::Shape`] where `values` holds another number of them.
    pub fn new(values: &'a dyn Memory<T>, rows: usize, cols: usize) -> Result<Self> {
        if rows.checked_mul(cols) != Some(values.len()) {
            return Err(Error::Shape {
                op: "cuda::MatrixView::new",
                expected: format!("{rows} x {cols} elements"),
                got: values.len().to_string(),
            });
        }
        Ok(MatrixView { values, rows, cols, stride: cols })
    }

    /// Rows whose first elements lie `stride` elements apart; what lies between them is not read.
    ///
    /// # Errors
    /// - [`Error::Shape`] where rows overlap or reach beyond `values`.
    pub fn with_stride(values: &'a dyn Memory<T>, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let needed = match rows {
            0 => Some(0),
            _ => (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(cols)),
        };
        if stride < cols || needed.is_none_or(|needed| needed > values.len()) {
            return Err(Error::Shape {
                op: "cuda::MatrixView::with_stride",
                expected: format!("{rows} rows of {cols} elements, {stride} apart"),
                got: format!("{} elements", values.len()),
            });
        }
        Ok(MatrixView { values, rows, cols, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The rows, called `what`, for launches on `stream`.
    pub(super) fn read<'s>(
        &'s self,
        op: &'static str,
        what: &'static str,
        stream: &'s Arc<CudaStream>,
    ) -> Result<(Rows<'s>, Use<'s>)> {
        let (values, used) = read(op, what, self.values, stream)?;
        Ok((Rows { values: values.as_bytes(), dtype: T::DTYPE, n: self.rows, stride: self.stride }, used))
    }
}

impl Context {
    /// A new stream of this device, for work that shall not wait for other work.
    ///
    /// # Errors
    /// - [`Error::Cuda`] where the driver refuses.
    pub fn new_stream(&self) -> Result<Arc<CudaStream>> {
        self.cuda().new_stream().map_err(|error| super::queue::refused("Context::new_stream", "a stream", error))
    }
}
