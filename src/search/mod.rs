//! Search among vectors of which only codes are kept.

mod adc;
mod bytes;
mod decoded;
mod hits;
mod on_device;
mod scan;
mod tables;

use crate::error::{Error, Result};
use hits::Hit;

/// The codes nearest to each query, nearest first, equal distances by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbors {
    /// How many for each query.
    pub r: usize,
    /// Which codes, by their place, `[n, r]` row-major.
    pub ids: Vec<u32>,
    /// `[n, r]` row-major.
    pub sq_distances: Vec<f32>,
}

impl Neighbors {
    /// Adds what was found for some more queries.
    fn extend(&mut self, found: Vec<Vec<Hit>>) {
        for hit in found.into_iter().flatten() {
            self.ids.push(hit.id);
            self.sq_distances.push(hit.sq_distance);
        }
    }
}

/// Refuses more codes than ids can name, and numbers of neighbours that there are not.
fn check(op: &'static str, n: usize, r: usize) -> Result<()> {
    if u32::try_from(n).is_err() {
        let expected = "fewer than 2^32 codes; search them in parts".into();
        return Err(Error::Shape { op, expected, got: n.to_string() });
    }
    if r == 0 || r > n {
        let expected = format!("1 to the {n} codes there are");
        return Err(Error::InvalidParameter { op, name: "r", expected, got: r.to_string() });
    }
    Ok(())
}
