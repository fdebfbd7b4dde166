//! The nearest codes found so far.

use std::collections::BinaryHeap;

/// A code that may be among the nearest: the farthest is the greatest, and among equals the last.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Hit {
    pub sq_distance: f32,
    pub id: u32,
}

impl Eq for Hit {}

impl Ord for Hit {
    fn cmp(&self, other: &Hit) -> std::cmp::Ordering {
        self.sq_distance.total_cmp(&other.sq_distance).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Hit) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The first r of two ascending lists: whatever the order of merging, the same of all.
pub(super) fn merged(mut a: Vec<Hit>, b: Vec<Hit>, r: usize) -> Vec<Hit> {
    a.extend(b);
    // Two runs: a merge.
    a.sort();
    a.truncate(r);
    a
}

/// The r nearest of some codes, which come in ascending order.
pub(super) struct Best {
    r: usize,
    hits: BinaryHeap<Hit>,
    limit: f32,
}

impl Best {
    pub fn new(r: usize) -> Best {
        Best { r, hits: BinaryHeap::new(), limit: f32::INFINITY }
    }

    /// What is not below this is not among them; infinite until there are r.
    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// The next code.
    #[inline]
    pub fn consider(&mut self, id: u32, sq_distance: f32) {
        if self.hits.len() < self.r {
            self.hits.push(Hit { sq_distance, id });
        } else if sq_distance < self.limit {
            if let Some(mut farthest) = self.hits.peek_mut() {
                *farthest = Hit { sq_distance, id };
            }
        } else {
            return;
        }
        if self.hits.len() == self.r {
            self.limit = self.hits.peek().map_or(f32::INFINITY, |farthest| farthest.sq_distance);
        }
    }

    pub fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec()
    }
}
