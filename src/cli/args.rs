//! The command line, as clap parses it.

use crate::cli::devices::DeviceChoice;
use crate::cli::values::{
    CodeDtype, InitChoice, Policy, PrecisionChoice, ProgressChoice, Quantizer, Reinterpret, Size, share, weight,
};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Arrays are read from .npy, .safetensors, .fvecs, .ivecs, .bvecs, .fbin, .ibin, .u8bin and .i8bin files.
Data goes to files or standard output, messages and progress to standard error.
Exit codes: 0 done, 1 failed at run time, 2 usage, 3 bad input, 4 device not usable, 130 interrupted.

Examples:
  codeword train x.npy -k 256 -o codebook.npy
  codeword encode x.npy -c codebook.npy -o codes.npy
  codeword decode codes.npy -c codebook.npy -o reconstruction.npy
  codeword eval x.npy -c codebook.npy
  codeword search queries.npy --codes codes.npy -c pq.safetensors -k 10 -o ids.npy";

/// Exact vector quantization: certified nearest codewords, the same codes on every device.
#[derive(Debug, Parser)]
#[command(name = "codeword", version, about, max_term_width = 100, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub global: Global,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Train(Train),
    Encode(Encode),
    Decode(Decode),
    Distances(Distances),
    Eval(Eval),
    Search(Search),
    Inspect(Inspect),
    /// Say what devices, libraries and instruction sets this machine offers, and why not
    Doctor,
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Learn a codebook, or a quantizer of several, from vectors, by k-means
///
/// The same vectors and the same seed give the same bytes on every device, for every thread count and memory limit.
/// Vectors that do not fit into --max-memory are read again in every pass. Codewords that no vector is nearest to move
/// to the vectors farthest from theirs. --codes, --weights, --start, --minibatch, --plot and --checkpoint are for codebooks
/// alone (--quantizer vq), --rotations for opq.
#[derive(Debug, ClapArgs)]
pub struct Train {
    #[command(flatten)]
    pub vectors: Vectors,
    /// What to learn
    #[arg(long, value_name = "QUANTIZER", default_value = "vq")]
    pub quantizer: Quantizer,
    /// Sub-quantizers of a product quantizer, a divisor of the dimensions; or stages of a residual one
    #[arg(short, long = "sub-quantizers", visible_alias = "stages", value_name = "M", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub m: Option<u32>,
    /// Codewords to learn, by each sub-quantizer or stage
    #[arg(short, long = "codewords", value_name = "K", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..u32::MAX as i64))]
    pub k: u32,
    /// Codebook to write: f32 of shape (K, d), of a product quantizer (M, K, d/M), of a residual one (M, K, d) (.npy, or
    /// .safetensors with metadata, which alone has room for the rotation of opq)
    #[arg(short, long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Also write the code of every vector, as encode would
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub codes: Option<PathBuf>,
    /// How often each vector counts: numbers of at least 0, one for each, in C order or along the axes of X (.npy,
    /// .safetensors)
    #[arg(long, value_name = "W", value_hint = ValueHint::FilePath)]
    pub weights: Option<PathBuf>,
    /// Where to start: random vectors; kmeans++, which spreads them and takes one more pass for each codeword; kmeans||,
    /// which spreads them in six passes, worth about ten iterations together; for thousands of codewords
    /// hierarchical: k-means within parts of the vectors; or for the stages of a residual quantizer progressive: k-means in
    /// few dimensions first
    #[arg(long, value_name = "INIT", default_value = "kmeans++")]
    pub init: InitChoice,
    /// How often to fit the rotation of opq to its codewords, from each of two starts [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub rotations: Option<u32>,
    /// Start from the codewords of this codebook (.npy, .safetensors, .fvecs, .fbin, ...)
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath, conflicts_with_all = ["init", "n_init"])]
    pub start: Option<PathBuf>,
    /// Starts to try; the one that ends with the lowest inertia counts
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub n_init: u32,
    /// How often to move the codewords at most
    #[arg(long, value_name = "N", default_value_t = 25, allow_negative_numbers = true)]
    pub iterations: u32,
    /// Stop when a move lowers the inertia by no more than this share of it; 0: when nothing improves any more
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    pub tolerance: f64,
    /// What the random numbers follow from
    #[arg(long, value_name = "SEED", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Move the codewords by N random vectors in an iteration, in place of all of them
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "tolerance",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub minibatch: Option<u32>,
    /// Learn from N of the vectors, held in memory, each as likely; all of them where there are no more. The others are not
    /// looked at, nor is a NaN among them
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,
    /// Also write a picture of the inertia by iteration and of the use of the codewords
    #[arg(long, value_name = "SVG", value_hint = ValueHint::FilePath)]
    pub plot: Option<PathBuf>,
    /// Write after every iteration where the training stands (.safetensors). What is learned from is read once more, so that
    /// --resume knows it again
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "n_init")]
    pub checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint of the same training, in place of a start, to the same bytes; --iterations may be raised
    #[arg(long, requires = "checkpoint", conflicts_with_all = ["init", "start", "n_init"])]
    pub resume: bool,
}

/// Write the nearest codeword of every vector
///
/// The code is the lowest index among the codewords nearest in real-number arithmetic: the same on every device, for
/// every thread count and memory limit. CODES has the leading axes of X as its shape; those of other quantizers
/// than codebooks have one more axis, of the numbers of their sub-quantizers or stages.
#[derive(Debug, ClapArgs)]
pub struct Encode {
    #[command(flatten)]
    pub vectors: Vectors,
    #[command(flatten)]
    pub model: Model,
    /// Codes to write (.npy)
    #[arg(short, long, value_name = "CODES", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Also write the squared distances to the codewords chosen, f32, in the shape of CODES
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub distances: Option<PathBuf>,
    /// Also write the nearest codeword in place of every vector, f32, in the shape of X
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub reconstruction: Option<PathBuf>,
    /// Write the R nearest codewords, nearest first, along one more axis of CODES
    #[arg(long, value_name = "R", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: Option<u32>,
    /// Keep the B best sums after each stage of a residual quantizer: less error for more time [default: 1]
    #[arg(long, value_name = "B", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pub beam: Option<u32>,
    /// Element type of CODES [default: the smallest that holds every code]
    #[arg(long, value_name = "TYPE")]
    pub code_dtype: Option<CodeDtype>,
    #[command(flatten)]
    pub non_finite: NonFinite,
}

/// Write the codewords that codes stand for
///
/// The output is f32 and has one axis more than CODES; of other quantizers than codebooks the vectors take the place of
/// the last axis. The code 4294967295 (of --non-finite sentinel) becomes a
/// vector of NaN.
#[derive(Debug, ClapArgs)]
pub struct Decode {
    /// Codes: integers of any type and rank (.npy, .safetensors, .ivecs, .ibin, ...)
    #[arg(value_name = "CODES", value_hint = ValueHint::FilePath)]
    pub codes: PathBuf,
    #[command(flatten)]
    pub model: Model,
    /// Vectors to write (.npy)
    #[arg(short, long, value_name = "X", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

/// Write the squared distance of every vector to every codeword
///
/// By default as |z|^2 + |e|^2 - 2 z.e in f32, clamped at 0, which is fast and rounded: the smallest entry of a row
/// need not be at the code that encode writes. With --precision exact as the sum of squared differences in f64.
#[derive(Debug, ClapArgs)]
pub struct Distances {
    #[command(flatten)]
    pub vectors: Vectors,
    #[command(flatten)]
    pub codebook: Codebook,
    /// Distances to write: f32, the last axis of X replaced by the codewords (.npy)
    #[arg(short, long, value_name = "D", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

/// Say how well a model represents vectors
#[derive(Debug, ClapArgs)]
pub struct Eval {
    #[command(flatten)]
    pub vectors: Vectors,
    #[command(flatten)]
    pub model: Model,
    /// Weight of the commitment loss of a codebook [default: 0.25]
    #[arg(long, value_name = "BETA", allow_negative_numbers = true, value_parser = weight)]
    pub beta: Option<f64>,
    #[command(flatten)]
    pub non_finite: NonFinite,
}

/// Find the codes nearest to queries
///
/// By asymmetric distances: of the query as it is to the vector that a code of a product or residual quantizer stands
/// for. All codes are looked at; equal distances are in the order of the codes. IDS and distances are the same on every device and for
/// every thread count. The codes are in memory, the queries need not be.
#[derive(Debug, ClapArgs)]
pub struct Search {
    /// Queries along the last axis: f16, f32, f64 or integers, any rank (.npy, .safetensors)
    #[arg(value_name = "Q", value_hint = ValueHint::FilePath)]
    pub queries: PathBuf,
    /// Read a 2-byte array Q as bf16, which .npy has no name for
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Reinterpret>,
    /// Codes to search, as encode writes them: integers of shape (n, m)
    #[arg(long, value_name = "CODES", value_hint = ValueHint::FilePath)]
    pub codes: PathBuf,
    #[command(flatten)]
    pub model: Model,
    /// Neighbours to find for each query
    #[arg(short, long = "neighbors", value_name = "K", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub k: u32,
    /// Numbers of the nearest codes to write, from 0, nearest first: u32, the last axis of Q replaced by K (.npy)
    #[arg(short, long, value_name = "IDS", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Also write their squared distances, f32, in the shape of IDS
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub distances: Option<PathBuf>,
    /// Compare the codes of the queries in place of the queries themselves (SDC): less exact
    #[arg(long)]
    pub symmetric: bool,
    /// Also say how often the true nearest vector was found, which the first column of these integers names for each query
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ground_truth: Option<PathBuf>,
}

/// Say what a file holds
#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// The file (.npy, .safetensors, .fvecs, .fbin, ...)
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Read all values too [default: only of files up to 64 MiB]
    #[arg(long)]
    pub values: bool,
    /// Read a 2-byte array as bf16, which .npy has no name for
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Reinterpret>,
}

/// The vectors a verb reads.
#[derive(Debug, ClapArgs)]
pub struct Vectors {
    /// Vectors along the last axis: f16, f32, f64 or integers, any rank, C or Fortran order (.npy, .safetensors,
    /// .fvecs, .fbin, ...)
    #[arg(value_name = "X", value_hint = ValueHint::FilePath)]
    pub x: PathBuf,
    /// Read a 2-byte array X as bf16, which .npy has no name for
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Reinterpret>,
}

/// The model a verb reads.
#[derive(Debug, ClapArgs)]
pub struct Model {
    /// Codebook of shape (k, d), product quantizer of shape (m, k, d/m) or residual one of shape (m, k, d) (.npy,
    /// .safetensors, .fvecs, ...)
    #[arg(short, long = "codebook", value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub codebook: PathBuf,
    /// Read a 2-byte codebook as bf16, which .npy has no name for
    #[arg(long, value_name = "TYPE")]
    pub codebook_dtype: Option<Reinterpret>,
    /// What MODEL is, where the file does not say so [default: what the file says, or vq]
    #[arg(long, value_name = "QUANTIZER")]
    pub quantizer: Option<Quantizer>,
}

/// The codebook of a verb that takes nothing else.
#[derive(Debug, ClapArgs)]
pub struct Codebook {
    /// Codebook of shape (k, d) (.npy, .safetensors)
    #[arg(short, long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub codebook: PathBuf,
    /// Read a 2-byte codebook as bf16, which .npy has no name for
    #[arg(long, value_name = "TYPE")]
    pub codebook_dtype: Option<Reinterpret>,
}

/// What happens to a vector that holds a NaN or an infinity.
#[derive(Debug, ClapArgs)]
pub struct NonFinite {
    /// What to do with a vector that holds a NaN or an infinity: stop and name it, or give it the code 4294967295
    #[arg(long, value_name = "POLICY", default_value = "error")]
    pub non_finite: Policy,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where to compute: auto (a GPU if one is usable, else the processor), cpu, cuda, cuda:N; encode also on several
    /// GPUs at once: cuda:N,M,... or cuda:all
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// exact: decided in real-number arithmetic; fast: one rounded pass [default: exact; distances: fast]
    #[arg(long, global = true, value_name = "MODE")]
    pub precision: Option<PrecisionChoice>,
    /// Threads to compute with [default: one per core]
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Memory for the buffers, and on each GPU for the vectors it works on, whatever the size of the files: 512M, 2G
    /// [default: 256M, and what the GPU has]
    #[arg(long, global = true, value_name = "SIZE")]
    pub max_memory: Option<Size>,
    /// Replace existing output files
    #[arg(long, global = true)]
    pub force: bool,
    /// Print the plan (sizes, memory, outputs) and write nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print one JSON object to standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// When to show progress; auto: where standard error is a terminal
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub progress: ProgressChoice,
    /// Only print errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
