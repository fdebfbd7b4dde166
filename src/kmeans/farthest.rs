//! The rows that codewords without rows are moved to.

use super::Problem;
use super::labels::{Labels, assign};
use super::source::len;
use super::stop::Stop;
use crate::codebook::Codebook;
use crate::error::Result;
use crate::matrix::{AnyView, Element, MatrixView, on_view};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The `count` rows that have the largest shares in the inertia, the largest first, equal ones by index, without those
/// that equal one before them or one of `codewords`; fewer where there are no more. `labels` are those that `codebook`
/// gave; where they are not of all rows, the device has them, or this labels the rows again.
pub(super) fn farthest(
    problem: &mut Problem<'_, '_>,
    codebook: &Codebook,
    labels: &mut Labels,
    count: usize,
    codewords: &[f32],
) -> Result<Vec<Vec<f32>>, Stop> {
    let weights = problem.weights;
    let taken = codewords.chunks_exact(codebook.d()).map(key).collect();
    let mut best = Farthest { count, taken, places: HashMap::new(), rows: BTreeMap::new() };
    let on_device = problem.on_device.as_ref();
    problem.source.each_block(|first, x| {
        let rows = first..first + len(x);
        let all = labels.all;
        let (labels, sq_distances) = labels.of(rows.clone());
        match on_device {
            _ if all => {}
            Some(on_device) => on_device.results(first, labels, sq_distances)?,
            None => {
                assign(x, first, codebook, labels, sq_distances)?;
            }
        }
        for (i, &sq_distance) in rows.zip(&*sq_distances) {
            best.consider(weights.share(i, sq_distance), i, x, i - first);
        }
        Ok(())
    })?;
    Ok(best.rows.into_values().rev().collect())
}

/// A share, by its bits, which order positive numbers as they are, and the row.
type Place = (u64, Reverse<usize>);

/// The best so far: as many different rows as are wanted.
struct Farthest {
    count: usize,
    taken: HashSet<Vec<u32>>,
    places: HashMap<Vec<u32>, Place>,
    rows: BTreeMap<Place, Vec<f32>>,
}

impl Farthest {
    /// Row `i`, which is the row `at` of the block `x`.
    fn consider(&mut self, share: f64, i: usize, x: AnyView<'_>, at: usize) {
        let place = (share.to_bits(), Reverse(i));
        let is_full = self.rows.len() == self.count;
        if share <= 0.0 || is_full && self.rows.first_key_value().is_some_and(|(&worst, _)| place < worst) {
            return;
        }
        let values = on_view!(x, x => row(x, at));
        let key_of_row = key(&values);
        if self.taken.contains(&key_of_row) {
            return;
        }
        match self.places.get(&key_of_row) {
            Some(&before) if before > place => return,
            Some(before) => self.rows.remove(before),
            None => None,
        };
        self.places.insert(key_of_row, place);
        self.rows.insert(place, values);
        if self.rows.len() > self.count
            && let Some((_, worst)) = self.rows.pop_first()
        {
            self.places.remove(&key(&worst));
        }
    }
}

/// What equal rows have in common: zeros of either sign are equal.
fn key(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

fn row<T: Element>(x: MatrixView<'_, T>, i: usize) -> Vec<f32> {
    x.row(i).iter().map(|value| value.to_f32()).collect()
}
