//! The nearest codes found so far.

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
    a.reserve_exact(b.len());
    a.extend(b);
    // Two runs: a merge.
    a.sort();
    a.truncate(r);
    a
}

/// The r nearest of some codes, which come in ascending order.
pub(super) struct Best {
    r: usize,
    /// Half as many again as are asked for at most: what is beyond r is sorted out when there is no more room.
    hits: Vec<Hit>,
    limit: f32,
}

impl Best {
    pub fn new(r: usize) -> Best {
        Best { r, hits: Vec::new(), limit: f32::INFINITY }
    }

    /// What is not below this is not among them; infinite until it has been sorted out what they are.
    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// The next code.
    #[inline]
    pub fn consider(&mut self, id: u32, sq_distance: f32) {
        // Of the first r an infinite distance may be among the nearest.
        if sq_distance < self.limit || self.hits.len() < self.r {
            if self.hits.len() == self.hits.capacity() {
                self.make_room();
            }
            self.hits.push(Hit { sq_distance, id });
        }
    }

    /// Sorts out what is beyond r, where there is room for half as many again already.
    #[inline(never)]
    fn make_room(&mut self) {
        let (count, most) = (self.hits.len(), (self.r + self.r / 2).max(64));
        if count < most {
            self.hits.reserve_exact(count.max(64).min(most - count));
        } else {
            let (_, farthest, _) = self.hits.select_nth_unstable(self.r - 1);
            self.limit = farthest.sq_distance;
            self.hits.truncate(self.r);
        }
    }

    pub fn into_sorted(mut self) -> Vec<Hit> {
        self.hits.sort_unstable();
        self.hits.truncate(self.r);
        self.hits
    }
}
