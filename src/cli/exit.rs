//! How the tool ends: an exit code and the error behind it.

use codeword::Error;
use std::io::ErrorKind;

/// Exit codes other than 0. clap has its own way to end with [`Exit::Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Failed at run time: a full disk, a refused write.
    Failed = 1,
    /// A command line that asks for something impossible.
    Usage = 2,
    /// Input files or values that cannot be worked with.
    BadInput = 3,
    /// The device asked for is not usable.
    NoDevice = 4,
    /// Ctrl-C or a request to terminate.
    Interrupted = 130,
}

impl Exit {
    /// How work on input ends with this error: the input is to blame, unless the device is.
    pub fn of(error: &Error) -> Exit {
        match error {
            Error::Cuda { .. } => Exit::Failed,
            Error::NoCudaDevice { .. } | Error::KernelsNotBuilt { .. } => Exit::NoDevice,
            _ => Exit::BadInput,
        }
    }
}

/// An error with the exit code it leads to.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

/// Result of everything in the command line tool.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a message of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, error: anyhow::Error::msg(message.into()) }
    }

    /// What a user who pressed Ctrl-C is told.
    pub fn interrupted() -> Failure {
        Failure::new(Exit::Interrupted, "interrupted; no output was written")
    }

    /// Whether the reader of standard output went away, which is no reason to say anything.
    pub fn is_broken_pipe(&self) -> bool {
        let is_pipe = |e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe;
        self.error.chain().any(|cause| cause.downcast_ref().is_some_and(is_pipe))
    }
}

/// Turns any error into a [`Failure`].
pub trait OrExit<T> {
    /// The error as it is, ending in `exit`.
    fn or_exit(self, exit: Exit) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}
