//! The progress bar: on a terminal a bar, elsewhere (only when asked for) a line a second.

use crate::cli::args::Global;
use crate::cli::report::count_text;
use crate::cli::values::ProgressChoice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const TEMPLATE: &str = "{prefix} {percent:>3} % [{wide_bar}] {human_pos}/{human_len} {msg}, {rate}, {eta} left";

/// Shows how far a verb is. Vanishes when dropped.
pub struct Progress {
    bar: ProgressBar,
    lines: Option<Lines>,
}

/// What a log file gets in place of a bar.
struct Lines {
    start: Instant,
    next: Duration,
}

impl Progress {
    /// `unit` is what is counted, in the plural.
    pub fn new(global: &Global, verb: &'static str, total: usize, unit: &'static str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let wanted = match global.progress {
            ProgressChoice::Auto => terminal && !global.quiet,
            ProgressChoice::Always => true,
            ProgressChoice::Never => false,
        };
        let target = if wanted && terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        // The template is a constant: if it were wrong, the default bar would still do.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> ").with_key(
                "rate",
                move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{}/s", count_text(state.per_sec()));
                },
            ));
        }
        bar.set_prefix(verb);
        bar.set_message(unit);
        if wanted && terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let lines = (wanted && !terminal).then(|| Lines { start: Instant::now(), next: Duration::from_secs(1) });
        Progress { bar, lines }
    }

    /// Says where the work is, after the count.
    pub fn tell(&mut self, message: String) {
        self.bar.set_message(message);
    }

    /// Measures rate and time left from here on: what went before was other work.
    pub fn restart(&mut self) {
        self.bar.reset_eta();
        if let Some(lines) = &mut self.lines {
            *lines = Lines { start: Instant::now(), next: Duration::from_secs(1) };
        }
    }

    /// Counts `done` more.
    pub fn advance(&mut self, done: usize) {
        self.bar.inc(done as u64);
        let (position, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let Some(lines) = &mut self.lines else { return };
        let elapsed = lines.start.elapsed();
        if elapsed < lines.next && position < total {
            return;
        }
        lines.next = elapsed + Duration::from_secs(1);
        let rate = position as f64 / elapsed.as_secs_f64().max(1e-9);
        let left = total.saturating_sub(position) as f64 / rate.max(1e-9);
        let percent = 100 * position / total.max(1);
        // Where standard error is closed there is nobody left to tell.
        let _ = writeln!(
            std::io::stderr(),
            "{} {percent:>3} % {position}/{total} {}, {}/s, {left:.0} s left",
            self.bar.prefix(),
            self.bar.message(),
            count_text(rate),
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
