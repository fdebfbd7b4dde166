//! Several numbers for each row, along the last axis of an output: choices, parts of a code, neighbours.

use crate::cli::exit::Result;
use crate::cli::output::{Output, Target};
use crate::cli::stream::Block;

/// The files being written, in the order of the targets: the numbers, their squared distances, reconstructed vectors.
pub struct Files {
    pub outputs: Vec<Output>,
    distances: Option<usize>,
    reconstruction: Option<usize>,
    /// Numbers per row, and how many elements lie between those of one row: 1, or n in Fortran order.
    r: usize,
    stride: usize,
    /// Reconstructed vectors, and one column of a block.
    rows: Vec<f32>,
    column: (Vec<u32>, Vec<f32>),
}

impl Files {
    /// `r` numbers for each of `n` rows; the first target takes them.
    pub fn create(targets: &[Target], r: usize, n: usize) -> Result<Files> {
        let at = |role| targets.iter().position(|target| target.role == role);
        let in_columns = targets[0].header.fortran_order && r > 1;
        Ok(Files {
            outputs: targets.iter().cloned().map(Output::create).collect::<Result<_>>()?,
            distances: at("distances"),
            reconstruction: at("reconstruction"),
            r,
            stride: if in_columns { n } else { 1 },
            rows: Vec::new(),
            column: Default::default(),
        })
    }

    /// Writes the codes and distances of a block, and what `decode` makes of the codes, where that is wanted.
    pub fn write(&mut self, block: &Block, decode: impl FnOnce(&[u32], &mut Vec<f32>) -> Result<()>) -> Result<()> {
        if self.stride == 1 {
            let first = block.first * self.r;
            self.outputs[0].write_codes(first, &block.codes)?;
            if let Some(i) = self.distances {
                self.outputs[i].write_values(first, &block.sq_distances)?;
            }
        } else {
            self.write_columns(block)?;
        }
        let Some(i) = self.reconstruction else { return Ok(()) };
        decode(&block.codes, &mut self.rows)?;
        self.outputs[i].write_rows(block.first, &self.rows)
    }

    /// In Fortran order the first numbers of all rows come first, then all second ones, and so on.
    fn write_columns(&mut self, block: &Block) -> Result<()> {
        for choice in 0..self.r {
            let first = choice * self.stride + block.first;
            let (codes, values) = &mut self.column;
            codes.clear();
            codes.extend(block.codes.iter().skip(choice).step_by(self.r));
            self.outputs[0].write_codes(first, codes)?;
            if let Some(i) = self.distances {
                values.clear();
                values.extend(block.sq_distances.iter().skip(choice).step_by(self.r));
                self.outputs[i].write_values(first, values)?;
            }
        }
        Ok(())
    }
}
