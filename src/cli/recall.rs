//! How often a search finds the true nearest neighbour.

use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input;
use crate::cli::report::shape_text;
use codeword::io::npy::Reader;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Among how many ids the true neighbour may be.
const RANKS: [usize; 3] = [1, 10, 100];

/// Opens the ground truth of `n` queries: for each a row of integer ids, the nearest first.
pub fn open(file: &Path, n: usize) -> Result<Reader> {
    let reader = input::open(file, None)?;
    let (shape, dtype) = (&reader.header().shape, reader.header().scalar);
    let is_of_queries = shape.len() == 2 && shape[0] == n && shape[1] > 0;
    if dtype.is_float() || !is_of_queries {
        let message = format!(
            "{}: expected integer ids of shape ({n}, 1) or wider, a row for each query, got {} of shape {}; name the ground \
             truth of these queries",
            file.display(),
            dtype.name(),
            shape_text(shape)
        );
        return Err(Failure::new(Exit::BadInput, message));
    }
    Ok(reader)
}

/// The true neighbours, and how often they were found so far.
pub struct Recall {
    nearest: Vec<u32>,
    found: [u64; RANKS.len()],
    /// Ids that are found for each query.
    r: usize,
}

impl Recall {
    /// Reads the first id of every row. It is the number of one of `codes` codes.
    pub fn load(reader: &Reader, codes: usize, r: usize) -> Result<Recall> {
        let (n, mut scratch) = (reader.rows(), Vec::new());
        // In Fortran order the first ids of all rows come first.
        let step = if reader.header().fortran_order { 1 } else { reader.cols() };
        let mut nearest = vec![0; n];
        // One by one: what else a row holds is nobody's business, -1 for want of neighbours, say.
        for (q, id) in nearest.iter_mut().enumerate() {
            reader.read_codes(q * step, std::slice::from_mut(id), &mut scratch).or_exit(Exit::BadInput)?;
        }
        if let Some(q) = nearest.iter().position(|&id| id as usize >= codes) {
            let message = format!(
                "{}: names {} as nearest to query {q}, and there are only {codes} codes (ids 0 to {}); name the ground truth \
                 of these codes",
                reader.file().display(),
                nearest[q],
                codes.saturating_sub(1)
            );
            return Err(Failure::new(Exit::BadInput, message));
        }
        Ok(Recall { nearest, found: [0; RANKS.len()], r })
    }

    /// Counts the ids found for the queries from `first` on.
    pub fn count(&mut self, first: usize, ids: &[u32]) {
        for (ids, nearest) in ids.chunks_exact(self.r).zip(&self.nearest[first..]) {
            let Some(place) = ids.iter().position(|id| id == nearest) else { continue };
            for (found, rank) in self.found.iter_mut().zip(RANKS) {
                *found += u64::from(place < rank);
            }
        }
    }

    /// The shares of the queries, by rank, as far as so many ids were looked for; none without queries.
    pub fn shares(&self) -> Vec<(usize, f64)> {
        let n = self.nearest.len();
        let asked = RANKS.into_iter().zip(self.found).filter(|&(rank, _)| n > 0 && rank <= self.r);
        asked.map(|(rank, found)| (rank, found as f64 / n as f64)).collect()
    }

    /// `{"1": 0.52, "10": 0.9}`
    pub fn json(&self) -> Value {
        let entries = self.shares().into_iter().map(|(rank, share)| (rank.to_string(), json!(share)));
        Value::Object(entries.collect::<Map<_, _>>())
    }
}
