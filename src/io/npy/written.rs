//! Which elements of a file have been written, so that none is forgotten.

use std::collections::BTreeMap;

/// A set of positions, kept as ranges `start → end` that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<usize, usize>);

impl Written {
    /// Adds `start..end`.
    pub(super) fn add(&mut self, mut start: usize, mut end: usize) {
        if start == end {
            return;
        }
        if let Some((&before, &until)) = self.0.range(..=start).next_back()
            && until >= start
        {
            (start, end) = (before, end.max(until));
        }
        while let Some((&next, &until)) = self.0.range(start..=end).next() {
            self.0.remove(&next);
            end = end.max(until);
        }
        self.0.insert(start, end);
    }

    /// The first position below `total` that is not in the set.
    pub(super) fn first_missing(&self, total: usize) -> Option<usize> {
        let covered = self.0.get(&0).copied().unwrap_or(0);
        (covered < total).then_some(covered)
    }
}

#[cfg(test)]
mod tests {
    use super::Written;

    #[test]
    fn ranges_added_in_any_order_close_up() {
        let mut written = Written::default();
        for (start, end, missing) in
            [(4, 6, Some(0)), (0, 2, Some(2)), (8, 10, Some(2)), (5, 5, Some(2)), (1, 3, Some(3)), (3, 9, None)]
        {
            written.add(start, end);
            assert_eq!(written.first_missing(10), missing, "after {start}..{end}");
        }
        assert_eq!(written.first_missing(11), Some(10));
        assert_eq!(Written::default().first_missing(0), None);
    }
}
