//! How rows are split among threads, and how the first bad one is found whichever thread sees one first.

use super::panels::Panels;
use crate::backend::NonFinite;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Floats of packed rows in a block, and of panels in a run: each about a quarter of a common second-level cache.
pub(super) const BLOCK_FLOATS: usize = 64 * 1024;

/// Rows of a block: whole tiles, at most 4096 rows so that few long blocks do not starve a thread.
pub(super) fn block_rows(panels: &Panels) -> usize {
    (BLOCK_FLOATS / panels.depth()).clamp(1, 4096).next_multiple_of(panels.kernels.rows)
}

/// The lowest row that holds a NaN or an infinity, where that is an error.
pub(super) struct FirstBad {
    row: AtomicUsize,
    policy: NonFinite,
}

impl FirstBad {
    pub fn new(policy: NonFinite) -> Self {
        FirstBad { row: AtomicUsize::new(usize::MAX), policy }
    }

    pub fn report(&self, row: usize) {
        if self.policy == NonFinite::Error {
            self.row.fetch_min(row, Relaxed);
        }
    }

    /// Whether rows from `start` on can be left out: the call fails for an earlier one.
    pub fn settles(&self, start: usize) -> bool {
        self.row.load(Relaxed) < start
    }

    /// `value`, or the row.
    pub fn or<V>(self, value: V) -> Result<V, usize> {
        match self.row.into_inner() {
            usize::MAX => Ok(value),
            row => Err(row),
        }
    }
}
