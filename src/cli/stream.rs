//! A verb's pass over its input, block by block: the pipeline with a progress bar and the stop flag.

use crate::cli::args::Global;
use crate::cli::exit::{Failure, Result};
use crate::cli::input::Vectors;
use crate::cli::pipeline::{self, Halt, Times};
use crate::cli::plan::Blocks;
use crate::cli::progress::Progress;
use crate::cli::signals::STOP;
use codeword::{Error, MatrixView};

/// One buffer of the ring. A verb uses the parts it needs; the others stay empty.
#[derive(Default)]
pub struct Block {
    /// First row, counted from the start of the file.
    pub first: usize,
    pub rows: usize,
    /// Vectors, `[rows, d]`.
    pub x: Vec<f32>,
    /// Codes, `[rows, r]`.
    pub codes: Vec<u32>,
    /// Squared distances, `[rows, r]` or `[rows, k]`.
    pub sq_distances: Vec<f32>,
}

impl Block {
    /// The vectors.
    pub fn view(&self, d: usize) -> std::result::Result<MatrixView<'_, f32>, Error> {
        MatrixView::new(&self.x[..self.rows * d], self.rows, d)
    }
}

/// What is streamed.
pub struct Stream<'a> {
    pub verb: &'static str,
    /// Rows in the file.
    pub n: usize,
    /// What they are, in the plural.
    pub unit: &'static str,
    pub blocks: Blocks,
    pub global: &'a Global,
}

impl Stream<'_> {
    /// Passes all rows through `read`, `compute` and `write`. Each gets a block that says which rows it is about.
    pub fn run(
        &self,
        mut read: impl FnMut(&mut Block) -> Result<()> + Send,
        compute: impl FnMut(&mut Block) -> Result<()>,
        mut write: impl FnMut(&mut Block) -> Result<()> + Send,
    ) -> Result<Times> {
        let mut next = 0;
        let mut progress = Progress::new(self.global, self.verb, self.n, self.unit);
        let buffers = std::iter::repeat_with(Block::default).take(self.blocks.buffers).collect();
        let fill = |block: &mut Block| {
            if next == self.n {
                return Ok(false);
            }
            (block.first, block.rows) = (next, self.blocks.rows.min(self.n - next));
            next += block.rows;
            read(block)?;
            Ok(true)
        };
        let drain = |block: &mut Block| {
            write(block)?;
            progress.advance(block.rows);
            Ok(())
        };
        pipeline::run(buffers, &STOP, fill, compute, drain).map_err(|halt| match halt {
            Halt::Stopped => Failure::interrupted(),
            Halt::Failed(failure) => failure,
        })
    }

    /// As [`Stream::run`], reading the vectors. Also returns how many of them f32 could not hold exactly.
    pub fn run_vectors(
        &self,
        vectors: &Vectors,
        compute: impl FnMut(&mut Block) -> Result<()>,
        write: impl FnMut(&mut Block) -> Result<()> + Send,
    ) -> Result<(Times, u64)> {
        let (mut rounded, mut scratch) = (0, Vec::new());
        let read = |block: &mut Block| {
            block.x.resize(block.rows * vectors.d, 0.0);
            rounded += vectors
                .reader
                .read_rows(block.first, &mut block.x, &mut scratch)
                .map_err(|error| Failure { exit: crate::cli::exit::Exit::BadInput, error: error.into() })?;
            Ok(())
        };
        let times = self.run(read, compute, write)?;
        Ok((times, rounded))
    }
}
