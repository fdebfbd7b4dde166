//! Rows in host memory that codewords are picked from one by one: the distances to the nearest so far, by a short form of the rows.

use super::cpu::isa::Isa;
use super::cpu::sketch::{self, Sketch};
use crate::error::Result;
use crate::matrix::{AnyView, on_view};

/// Bytes that the short form takes at most: memory that is granted may not be there.
const MOST: usize = 1 << 30;
/// Codewords from which on the short form is worth making.
const PAYS: usize = 8;

/// Rows and their short form.
pub(crate) struct Sketched<'a> {
    x: AnyView<'a>,
    sketch: Sketch,
}

/// Bytes that this takes for each row of `d` components.
pub fn bytes_per_row(d: usize) -> usize {
    sketch::bytes_per_row(d)
}

impl<'a> Sketched<'a> {
    /// For a start of `k` codewords out of `x`, finite rows. None where it would not pay, or take too much memory.
    pub fn new(x: AnyView<'a>, k: usize) -> Result<Option<Sketched<'a>>> {
        let isa = Isa::selected()?;
        let bytes = on_view!(x, x => x.rows().saturating_mul(bytes_per_row(x.cols())));
        if k < PAYS || bytes > MOST {
            return Ok(None);
        }
        let sketch = on_view!(x, x => Sketch::new(x, isa));
        Ok(sketch.map(|sketch| Sketched { x, sketch }))
    }

    /// Lowers the squared distances of all rows to those to this codeword, where it is nearer: the real numbers, rounded to the
    /// nearest f32. They are of the codewords before, infinite before the first.
    pub fn meet(&mut self, codeword: &[f32], sq_distances: &mut [f32]) {
        on_view!(self.x, x => self.sketch.meet(x, codeword, sq_distances));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Element, MatrixView};

    #[test]
    fn a_short_form_is_made_where_it_pays() {
        let values = [0.5f32; 60];
        let x = f32::any(MatrixView::new(&values, 10, 6).unwrap());
        assert!(Sketched::new(x, PAYS).unwrap().is_some());
        assert!(Sketched::new(x, PAYS - 1).unwrap().is_none());
        assert_eq!(bytes_per_row(6), 6 * 2 + 8);
    }
}
