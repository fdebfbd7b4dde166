//! Signals: a request to end raises a flag that is looked at between blocks; a size limit is a write error.

use crate::cli::exit::{Exit, OrExit, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised by Ctrl-C, SIGTERM and SIGHUP.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Sets everything up. To be called before any thread is started: threads inherit what is blocked here.
pub fn set_up() -> Result<()> {
    #[cfg(unix)]
    block()?;
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).or_exit(Exit::Failed)
}

/// Blocks SIGXFSZ, so that a write beyond the size limit returns an error instead of killing the process, and the
/// signals that were ignored when the process was started (by nohup, or by a script that put it into the
/// background), which the handler would otherwise bring back to life.
#[cfg(unix)]
fn block() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let ignored = ignored_signals();
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if ignored >> (signal as u32 - 1) & 1 == 1 {
            set.add(signal);
        }
    }
    set.thread_block().or_exit(Exit::Failed)
}

/// The mask of ignored signals. Only Linux tells it in a file; elsewhere none is taken to be ignored.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
