//! How far a training is.

use crate::cli::args::{Global, Train};
use crate::cli::progress::Progress;
use crate::cli::report::number;
use codeword::{KMeansState, Step};

/// Shows the steps: `vectors, pass 3/26, inertia 5.373e8, -0.52 %`.
pub struct Follow {
    progress: Progress,
    k: u32,
    /// Rows of a pass.
    n: usize,
    /// Which of several sub-quantizers or stages is learned, and how many there are; of a rotation, in all rounds.
    part: u64,
    parts: u64,
    /// Passes, or batches and the pass over all rows: how many there are for each part, and how many are done.
    passes: u64,
    done: u64,
    /// Rows of a batch, and of this pass so far.
    batch: Option<usize>,
    rows: usize,
    inertia: String,
}

impl Follow {
    pub fn new(args: &Train, n: usize, labelled: u64, resumed: Option<&KMeansState>, global: &Global) -> Follow {
        let batch = args.minibatch.map(|rows| rows as usize);
        let done = resumed.map_or(0, |state| state.curve.len() as u64);
        let passes = (u64::from(args.iterations) + 1).saturating_mul(args.n_init.into());
        let left = labelled.saturating_sub(done.saturating_mul(batch.unwrap_or(n) as u64));
        let total = usize::try_from(left).unwrap_or(usize::MAX);
        let progress = Progress::new(global, "train", total, "vectors");
        let parts = args.m.map_or(1, u64::from) * super::rounds(args);
        Follow { progress, k: args.k, n, part: 0, parts, passes, done, batch, rows: 0, inertia: String::new() }
    }

    /// A step of one of several, which takes so many passes.
    pub fn step_of_part(&mut self, part: usize, passes: u64, step: Step) {
        if self.part != part as u64 {
            // The one before may have converged early.
            let left = self.passes.saturating_sub(self.done).saturating_mul(self.n as u64);
            self.progress.advance(usize::try_from(left).unwrap_or(usize::MAX));
            (self.part, self.done, self.rows, self.inertia) = (part as u64, 0, 0, String::new());
        }
        self.passes = passes;
        self.step(step);
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Rows { iteration: Some(_), rows, .. } => {
                self.tell();
                self.progress.advance(rows - self.rows);
                self.rows = rows;
            }
            Step::Iteration { inertia, before, .. } => {
                let change = before.map(|before| format!(", {:+.3} %", 100.0 * (inertia / before - 1.0)));
                self.inertia = format!(", inertia {}{}", number(inertia), change.unwrap_or_default());
                self.done += 1;
                self.tell();
                // Of a batch nothing was told before.
                self.progress.advance(if self.rows == 0 { self.batch.unwrap_or(0) } else { 0 });
                self.rows = 0;
            }
            Step::Start { codewords, .. } => {
                self.progress.tell(format!("vectors, start {codewords}/{}", self.k));
                self.progress.advance(0);
            }
            // The start is there, which took as long as it took.
            Step::Moved { iteration: 0, run: 0 } => self.progress.restart(),
            // Blocks on the way to a start, and what a later version of the library tells.
            _ => {}
        }
    }

    fn tell(&mut self) {
        let part = if self.parts > 1 { format!("part {}/{}, ", self.part + 1, self.parts) } else { String::new() };
        self.progress.tell(format!("vectors, {part}pass {}/{}{}", self.done, self.passes, self.inertia));
    }
}
