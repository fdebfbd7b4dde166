//! What a codebook was prepared to, wherever it lies: for tests that compare one device with another.

use super::cpu::panels::Panels;

/// A prepared codebook in host memory. m is the number of distinct codewords.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// `[m, d + 2]`: a distinct codeword around the mean and scaled, its bound, half its squared norm.
    pub packed: Vec<f32>,
    /// `[m]`: the label of each.
    pub labels: Vec<u32>,
    /// `[k]`: the packed codeword that equals codeword j.
    pub positions: Vec<u32>,
    /// `[d]`; zeros where nothing is centred.
    pub mean: Vec<f32>,
    /// Codewords are scaled by 2^shift.
    pub shift: i32,
    /// The largest squared norm around the mean.
    pub max_sq_norm: f64,
}

impl Preparation {
    pub(crate) fn of(panels: &Panels, d: usize) -> Preparation {
        let mut positions = vec![0; panels.labels.len() + panels.repeats.len()];
        for (position, &label) in (0..).zip(&panels.labels) {
            positions[label as usize] = position;
        }
        for &(first, repeat) in &panels.repeats {
            positions[repeat as usize] = positions[first as usize];
        }
        Preparation {
            packed: panels.row_major(),
            labels: panels.labels.clone(),
            positions,
            mean: panels.mean.clone().unwrap_or_else(|| vec![0.0; d]),
            shift: panels.shift,
            max_sq_norm: panels.max_sq_norm,
        }
    }
}
