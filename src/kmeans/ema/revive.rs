//! Rows of a batch in place of dead codewords.

use crate::backend::SENTINEL;
use crate::kmeans::random::Random;
use crate::matrix::{Element, MatrixView};
use std::collections::HashSet;

/// Replaces `dead` codewords, in that order, by random rows that have a label and equal no codeword, and returns how
/// many: all of them, unless the rows run out.
pub(super) fn revive<T: Element>(
    x: MatrixView<'_, T>,
    labels: &[u32],
    dead: &[usize],
    codewords: &mut [f32],
    random: &mut Random,
) -> usize {
    if dead.is_empty() {
        return 0;
    }
    // Zeros of either sign are equal.
    let key = |values: &[f32]| values.iter().map(|value| (value + 0.0).to_bits()).collect::<Vec<u32>>();
    let mut taken: HashSet<Vec<u32>> = codewords.chunks_exact(x.cols()).map(key).collect();
    let mut rows: Vec<u32> = labels.iter().zip(0..).filter(|&(&label, _)| label != SENTINEL).map(|(_, i)| i).collect();
    let (mut revived, mut wide) = (0, Vec::new());
    for i in 0..rows.len() {
        if revived == dead.len() {
            break;
        }
        let j = i + random.below((rows.len() - i) as u64) as usize;
        rows.swap(i, j);
        let row = T::as_f32(x.row(rows[i] as usize), &mut wide);
        if taken.insert(key(row)) {
            codewords[dead[revived] * row.len()..][..row.len()].copy_from_slice(row);
            revived += 1;
        }
    }
    revived
}
