//! The one error type of the crate. Every variant carries what was wanted and what was seen, as values;
//! the message ends with the way out where there is one.

use std::path::PathBuf;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Everything that data can cause is one of these; nothing panics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sizes that do not fit together.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// Operation that refused.
        op: &'static str,
        /// What would fit.
        expected: String,
        /// What was given.
        got: String,
    },

    /// Memory on one device where another was needed.
    #[error("{op}: expected {what} on {expected}, got {got}; copy them there, or prepare the codebook where they are")]
    DeviceMismatch {
        /// Operation that refused.
        op: &'static str,
        /// Which of its arguments.
        what: &'static str,
        /// Where the others are.
        expected: String,
        /// Where it is.
        got: String,
    },

    /// A parameter outside its range.
    #[error("{op}: {name} must be {expected}, got {got}")]
    InvalidParameter {
        /// Operation that refused.
        op: &'static str,
        /// Name of the parameter, as in the signature or the environment.
        name: &'static str,
        /// The range.
        expected: String,
        /// What was given.
        got: String,
    },

    /// A NaN or an infinity where the contract needs numbers.
    #[error("{op}: {what} {row} holds {got} in column {col}; {way_out}")]
    NonFinite {
        /// Operation that refused.
        op: &'static str,
        /// `"vector"`, `"codeword"`, or what else the row is.
        what: &'static str,
        /// The first such row.
        row: usize,
        /// The first such column in that row.
        col: usize,
        /// The value found there.
        got: f32,
        /// What the caller can do.
        way_out: &'static str,
    },

    /// A code that names no codeword.
    #[error("{op}: code {code} at position {position} names no codeword; the codebook holds {k} (codes 0 to {last})", last = k.saturating_sub(1))]
    CodeOutOfRange {
        /// Operation that refused.
        op: &'static str,
        /// Position of the first such code.
        position: usize,
        /// The code.
        code: u32,
        /// Number of codewords.
        k: usize,
    },

    /// No usable CUDA device. `step` is the link of the chain that broke.
    #[error("no CUDA device: {step}: {got}; {way_out}")]
    NoCudaDevice {
        /// library, symbols, init, count, ordinal, capability, context, kernels.
        step: &'static str,
        /// What was seen.
        got: String,
        /// What the caller can do.
        way_out: String,
    },

    /// A CUDA kernel that this build does not have: old code is never run in its place.
    #[error("no CUDA kernel {stem}: {got}; {way_out}")]
    KernelsNotBuilt {
        /// The kernel's source, without folder and extension.
        stem: &'static str,
        /// Why it is not there.
        got: &'static str,
        /// What the caller can do.
        way_out: &'static str,
    },

    /// The CUDA driver refused something in the middle of the work.
    #[error("{op}: the CUDA device refused {asked}: {got}; {way_out}")]
    Cuda {
        /// Operation that asked.
        op: &'static str,
        /// What was asked of it, with amounts.
        asked: String,
        /// The driver's name of its error, or what there is instead of what was asked.
        got: String,
        /// What the caller can do.
        way_out: &'static str,
        /// What the driver said, where it was asked.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// A file that is not what it should be.
    #[error("{}: expected {expected}, got {got}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What can be read, and the way out.
        expected: String,
        /// What the file says.
        got: String,
    },

    /// The operating system refused.
    #[error("{}: cannot {doing}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// open, read, write, …
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// What went wrong with a part of the rows and columns, told of all: those of the part begin at `row` and `col`.
    pub(crate) fn of_part_at(mut self, row: usize, col: usize) -> Error {
        if let Error::NonFinite { row: of_row, col: of_col, .. } = &mut self {
            *of_row += row;
            *of_col += col;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_seen_what_was_wanted_and_the_way_out() {
        let shape = Error::Shape { op: "assign", expected: "vectors of 3 columns".into(), got: "4".into() };
        assert_eq!(shape.to_string(), "assign: expected vectors of 3 columns, got 4");
        let code = Error::CodeOutOfRange { op: "decode", position: 7, code: 300, k: 256 };
        assert_eq!(
            code.to_string(),
            "decode: code 300 at position 7 names no codeword; the codebook holds 256 (codes 0 to 255)"
        );
    }

    #[test]
    fn the_error_stays_small_enough_to_return_by_value() {
        assert!(size_of::<Error>() <= 96, "{} bytes", size_of::<Error>());
    }
}
