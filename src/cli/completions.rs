//! `codeword completions`: the completion script of a shell.

use crate::cli::args::Args;
use crate::cli::exit::Result;
use clap::CommandFactory;

pub fn run(shell: clap_complete::Shell) -> Result<()> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "codeword", &mut script);
    crate::cli::print(&String::from_utf8_lossy(&script))
}
