//! What a verb tells about its work: the fields of the `--json` object, and the words for people.

use crate::cli::exit::Result;
use crate::cli::output::Target;
use crate::cli::pipeline::Times;
use crate::cli::plan::precision_text;
use codeword::io::npy::Scalar;
use codeword::{AssignStats, Isa, Precision};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Measures a verb from its start.
pub struct Clock {
    start: Instant,
    /// What is done to the codebook before the first row.
    loaded: Duration,
    prepared: Duration,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { start: Instant::now(), loaded: Duration::ZERO, prepared: Duration::ZERO }
    }

    /// Reads the codebook: counts as reading.
    pub fn load<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.loaded, work)
    }

    /// Prepares the codebook: counts as computing.
    pub fn prepare<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.prepared, work)
    }

    /// Ends the measurement.
    pub fn stop(&self, times: Times) -> Seconds {
        Seconds {
            total: self.start.elapsed().as_secs_f64(),
            read: (times.read + self.loaded).as_secs_f64(),
            compute: (times.compute + self.prepared).as_secs_f64(),
            write: times.write.as_secs_f64(),
        }
    }
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    *spent += start.elapsed();
    value
}

/// Seconds spent. The stages overlap, so they may sum up to more than the total.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    pub total: f64,
    pub read: f64,
    pub compute: f64,
    pub write: f64,
}

impl Seconds {
    /// `0.52 s (1.2M vectors/s)`
    pub fn text(&self, n: usize) -> String {
        format!("{:.2} s ({} vectors/s)", self.total, count_text(n as f64 / self.total.max(1e-9)))
    }
}

/// What every verb tells with `--json`.
pub struct Report<'a> {
    pub verb: &'static str,
    pub device: &'a dyn std::fmt::Display,
    pub n: usize,
    pub d: usize,
    pub k: usize,
    /// Element type of the first input.
    pub dtype: Scalar,
    /// Where the verb has a choice.
    pub precision: Option<Precision>,
    pub seconds: Seconds,
    /// How many rows each tier settled, where the verb decides labels.
    pub tiers: Option<AssignStats>,
}

impl Report<'_> {
    /// Prints it, followed by the fields of `more`, which is what this verb alone has to tell.
    pub fn print(&self, more: Value) -> Result<()> {
        let Seconds { total, read, compute, write } = self.seconds;
        let tiers = |it: AssignStats| json!({"first": it.first, "second": it.second, "f64": it.f64, "exact": it.exact});
        let mut object = json!({
            "verb": self.verb,
            "device": self.device.to_string(),
            "isa": Isa::selected().ok().map(Isa::name),
            "threads": rayon::current_num_threads(),
            "n": self.n,
            "d": self.d,
            "k": self.k,
            "dtype": self.dtype.name(),
            "precision": self.precision.map(precision_text),
            "seconds": {"total": total, "read": read, "compute": compute, "write": write},
            "tiers": self.tiers.map(tiers),
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        print_json(&object)
    }
}

/// The outputs with shapes and sizes.
pub fn targets(targets: &[Target]) -> Value {
    let describe = |target: &Target| {
        json!({
            "role": target.role,
            "path": target.path.display().to_string(),
            "dtype": target.header.scalar.name(),
            "shape": target.header.shape,
            "fortran_order": target.header.fortran_order,
            "bytes": target.bytes(),
        })
    };
    targets.iter().map(describe).collect()
}

/// The same, and other files with their roles.
pub fn outputs(arrays: &[Target], others: &[(&str, &Path)]) -> Value {
    let mut outputs = targets(arrays);
    if let Value::Array(outputs) = &mut outputs {
        let describe = |(role, path): &(&str, &Path)| json!({"role": role, "path": path.display().to_string()});
        outputs.extend(others.iter().map(describe));
    }
    outputs
}

/// Prints an object to standard output, on one line: logs of several runs can be read line by line.
pub fn print_json(object: &Value) -> Result<()> {
    crate::cli::print(&format!("{object}\n"))
}

/// Prints rows of label, value and remark, the first two columns aligned.
pub fn print_table(rows: &[[String; 3]]) -> Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (labels, values) = (width(0), width(1));
    let mut text = String::new();
    for [label, value, remark] in rows {
        let line = format!("{label:labels$}  {value:values$}  {remark}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    crate::cli::print(&text)
}

/// A shape as Python writes it: `(3, 4)`, `(3,)`, `()`.
pub fn shape_text(shape: &[usize]) -> String {
    match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// Bytes in the unit that suits them: `17 bytes`, `4.9 MiB`.
pub fn size_text(bytes: u64) -> String {
    in_units(bytes, |tenths| tenths.round())
}

/// The same of a size that has to be allowed: never less than it.
pub fn least_text(bytes: u64) -> String {
    in_units(bytes, |tenths| tenths.ceil())
}

fn in_units(bytes: u64, rounded: impl Fn(f64) -> f64) -> String {
    let mut value = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = "bytes";
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{:.1} {unit}", rounded(10.0 * value) / 10.0) }
}

/// A count to three digits: `17`, `830k`, `1.25M`.
pub fn count_text(count: f64) -> String {
    let (value, unit) = match count {
        c if c >= 1e9 => (c / 1e9, "G"),
        c if c >= 1e6 => (c / 1e6, "M"),
        c if c >= 1e3 => (c / 1e3, "k"),
        c => return format!("{c:.0}"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

/// Seven digits, in the form that suits the magnitude.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e9).contains(&magnitude) {
        return format!("{value:.6e}");
    }
    let before = if magnitude >= 1.0 { magnitude.log10().floor() as usize + 1 } else { 1 };
    format!("{value:.digits$}", digits = 7usize.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_shapes_read_well() {
        assert_eq!(size_text(0), "0 bytes");
        assert_eq!(size_text(1023), "1023 bytes");
        assert_eq!(size_text(5_120_000), "4.9 MiB");
        assert_eq!(size_text(8 << 30), "8.0 GiB");
        assert_eq!((size_text(1025), least_text(1025)), ("1.0 KiB".into(), "1.1 KiB".into()));
        assert_eq!((size_text(1 << 20), least_text(1 << 20)), ("1.0 MiB".into(), "1.0 MiB".into()));
        assert_eq!(count_text(17.0), "17");
        assert_eq!(count_text(830_000.0), "830k");
        assert_eq!(count_text(1_250_000.0), "1.25M");
        assert_eq!(count_text(12_500_000.0), "12.5M");
        assert_eq!(shape_text(&[]), "()");
        assert_eq!(shape_text(&[3]), "(3,)");
        assert_eq!(shape_text(&[3, 4]), "(3, 4)");
    }

    #[test]
    fn numbers_show_seven_digits() {
        assert_eq!(number(0.0), "0.000000");
        assert_eq!(number(12345.678), "12345.68");
        assert_eq!(number(0.25), "0.250000");
        assert_eq!(number(1.5e-22), "1.500000e-22");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(number(f64::INFINITY), "inf");
    }
}
