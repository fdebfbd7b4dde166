//! The command line tool: one file per verb, and what they share.

mod args;
mod codes;
mod completions;
mod composed;
mod decode;
mod devices;
mod distances;
mod doctor;
mod encode;
mod eval;
mod exit;
mod input;
mod inspect;
mod model;
mod order;
mod output;
mod pipeline;
mod plan;
mod progress;
mod ranked;
mod recall;
mod report;
mod search;
mod shares;
mod signals;
mod stages;
mod stream;
mod tensors;
mod train;
mod values;

use args::{Args, Global, Verb};
use clap::Parser;
use codeword::{Isa, Precision};
use devices::Devices;
use exit::{Exit, Failure, OrExit, Result};
use std::io::Write;

/// Does what the command line asks for.
pub fn run() -> Result<()> {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(help_or_error) => {
            help_or_error.print().or_exit(Exit::Failed)?;
            std::process::exit(help_or_error.exit_code());
        }
    };
    signals::set_up()?;
    set_up_log(&args.global);
    if let Some(threads) = args.global.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global();
        pool.or_exit(Exit::Failed)?;
    }
    let global = &args.global;
    match &args.verb {
        Verb::Train(args) => train::run(args, global),
        Verb::Encode(args) => encode::run(args, global),
        Verb::Decode(args) => decode::run(args, global),
        Verb::Distances(args) => distances::run(args, global),
        Verb::Eval(args) => eval::run(args, global),
        Verb::Search(args) => search::run(args, global),
        Verb::Inspect(args) => inspect::run(args, global),
        Verb::Doctor => doctor::run(global),
        Verb::Completions { shell } => completions::run(*shell),
    }
}

/// Messages below an error go the same way as errors and look the same.
fn set_up_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => log::LevelFilter::Error,
        (false, 0) => log::LevelFilter::Warn,
        (false, 1) => log::LevelFilter::Info,
        (false, _) => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| writeln!(out, "codeword: {}", record.args()))
        .init();
}

impl Global {
    /// The devices to compute on, after a look at what the environment says about instruction sets.
    fn open_devices(&self) -> Result<Devices> {
        let isa = Isa::selected().or_exit(Exit::Usage)?;
        let mut devices = self.device.open()?;
        if let Some(size) = self.max_memory {
            let bytes = usize::try_from(size.0).unwrap_or(usize::MAX);
            devices.0.iter_mut().for_each(|device| *device = device.with_max_memory(bytes));
        }
        log::info!("device {devices}, processor instructions {}, {} threads", isa.name(), rayon::current_num_threads());
        Ok(devices)
    }

    /// The precision asked for, or `default`.
    fn precision_or(&self, default: Precision) -> Precision {
        self.precision.map_or(default, Precision::from)
    }

    /// Tells the user on standard error what was done. Silent with `-q` and with `--json`, which tells it all.
    fn say(&self, message: &str) {
        if !self.quiet && !self.json {
            // Where standard error is closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }
}

/// Prints to standard output, where errors are errors: `println!` would panic on a full disk.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure {
        exit: Exit::Failed,
        error: anyhow::Error::new(error).context("cannot write to standard output"),
    })
}
