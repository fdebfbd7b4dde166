//! In which order things lie in a file, and how they are numbered: in C order, whatever the file's.

use codeword::io::npy::Reader;

/// The order of things along some axes.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    axes: &'a [usize],
    /// Whether the first axis runs fastest in the file, and there are others.
    is_other: bool,
}

impl<'a> Order<'a> {
    /// Of the rows of an array.
    pub fn of_rows(reader: &'a Reader) -> Order<'a> {
        Order::new(reader.leading(), reader.header().fortran_order)
    }

    /// Of its single numbers.
    pub fn of_numbers(reader: &'a Reader) -> Order<'a> {
        Order::new(&reader.header().shape, reader.header().fortran_order)
    }

    fn new(axes: &'a [usize], fortran_order: bool) -> Order<'a> {
        Order { axes, is_other: fortran_order && axes.iter().filter(|&&extent| extent > 1).count() > 1 }
    }

    /// Whether they lie in the file in another order than that of their numbers.
    pub fn is_other(self) -> bool {
        self.is_other
    }

    /// Where number `i` lies in the file.
    pub fn position(self, i: usize) -> usize {
        if self.is_other { turned(self.axes.iter(), i) } else { i }
    }

    /// The number of what lies at `position`.
    pub fn number(self, position: usize) -> usize {
        if self.is_other { turned(self.axes.iter().rev(), position) } else { position }
    }
}

/// The position with the first axis running fastest of what has position `i` with the last one so.
fn turned<'a>(axes: impl DoubleEndedIterator<Item = &'a usize> + Clone, mut i: usize) -> usize {
    let (mut stride, mut position) = (axes.clone().product::<usize>(), 0);
    for &extent in axes.rev() {
        stride /= extent;
        position += i % extent * stride;
        i /= extent;
    }
    position
}

/// The index along every axis of the element at `position` in storage order.
pub fn multi_index(shape: &[usize], fortran_order: bool, mut position: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    let mut split = |axis: usize| {
        let extent = shape[axis].max(1);
        index[axis] = position % extent;
        position /= extent;
    };
    if fortran_order {
        (0..shape.len()).for_each(&mut split)
    } else {
        (0..shape.len()).rev().for_each(&mut split)
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_storage_order() {
        assert_eq!(multi_index(&[2, 3, 4], false, 23), [1, 2, 3]);
        assert_eq!(multi_index(&[2, 3, 4], false, 4), [0, 1, 0]);
        assert_eq!(multi_index(&[2, 3, 4], true, 4), [0, 2, 0]);
        assert_eq!(multi_index(&[], true, 0), [0usize; 0]);
    }

    #[test]
    fn numbers_have_the_index_of_their_position() {
        for axes in [&[7][..], &[2, 3], &[4, 1, 3], &[2, 3, 4, 5]] {
            let order = Order::new(axes, true);
            assert_eq!(order.is_other(), axes.len() > 1);
            for i in 0..axes.iter().product() {
                let position = order.position(i);
                assert_eq!(multi_index(axes, true, position), multi_index(axes, false, i), "{axes:?}");
                assert_eq!((order.number(position), Order::new(axes, false).position(i)), (i, i), "{axes:?}");
            }
        }
    }
}
