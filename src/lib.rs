//! Vector quantization with the same codes everywhere.
//!
//! Given vectors z, `[n, d]`, and a codebook e, `[k, d]`, the nearest codeword of every vector is found through
//! `|z|^2 + |e|^2 - 2 z.e`, at the speed of the vector units, and then **certified**: each label is the lowest j
//! that minimises the real number `sum_t (z_t - e_jt)^2`, and each reported distance is that real number rounded
//! once. So labels and distances are functions of the data alone. No processor, instruction set, thread count or
//! split into batches changes a bit of them.
//!
//! ```
//! use codeword::{AssignOptions, Codebook, Device, MatrixView, assign, decode};
//!
//! let codewords = [0.0f32, 0.0, 4.0, 0.0, 0.0, 3.0]; // 3 codewords of 2 dimensions, row after row
//! let codebook = Codebook::new(MatrixView::new(&codewords, 3, 2)?, &Device::best())?;
//!
//! let vectors = [3.5f32, 0.5, 0.25, 2.0];
//! let nearest = assign(MatrixView::new(&vectors, 2, 2)?, &codebook, AssignOptions::default())?;
//! assert_eq!(nearest.labels, [1, 2]);
//! assert_eq!(nearest.sq_distances, [0.5, 1.0625]);
//! assert_eq!(decode(&nearest.labels, &codebook)?.as_slice(), &[4.0, 0.0, 0.0, 3.0]);
//! # Ok::<(), codeword::Error>(())
//! ```
//!
//! # Where things are
//!
//! | you have | you want | call |
//! |---|---|---|
//! | codewords | a codebook, prepared once | [`Codebook::new`] |
//! | vectors, codebook | labels and squared distances | [`assign`] |
//! | vectors, codebook | the r nearest codewords of each | [`top_k`] |
//! | codes, codebook | the codewords themselves | [`decode`] |
//! | vectors | a codebook learned from them | [`KMeans::fit`] |
//! | vectors that do not fit in memory | the same codebook | [`KMeans::fit_source`] |
//! | vectors, batch by batch | a codebook that follows them | [`EmaCodebook`] |
//! | vectors, labels | their sums by label, for training loops | [`accumulate`] |
//! | vectors to compare by their cosines | their directions | [`normalize`] |
//! | vectors, codebook | z_q and the VQ-VAE losses | [`quantize`] |
//! | vectors, a codebook for every group of columns | the same | [`quantize_groups`] |
//! | vectors, codebook, labels | gradients of these losses | [`vector_gradient`], [`codebook_gradient`] |
//! | vectors, codebook, labels | distortion, SNR, perplexity, usage | [`metrics()`], block by block [`MetricsSum`] |
//! | vectors | short codes, a number for each of m parts | [`ProductQuantizer`] |
//! | vectors of correlated dimensions | such codes after a rotation that is learned with them | [`OptimizedProductQuantizer`] |
//! | such codes, queries | the nearest of them | [`ProductQuantizer::search`] |
//! | vectors | codes of m stages, each finer | [`ResidualQuantizer`] |
//! | vectors, codebooks and projections of a codec | its tokens | [`Stages`] |
//! | vectors, codebook | the whole n x k distance matrix | [`pairwise_sq_l2`] |
//! | vectors and codebooks on a GPU | the same, with nothing leaving it | `cuda::Workspace` |
//! | a `.npy`, `.safetensors`, `.fvecs` or `.fbin` file | its rows, block by block | [`io::npy`] |
//!
//! Elements are f32, [`struct@f16`] or [`struct@bf16`], vectors and codebook independently; the 16-bit types are taken as the
//! exact numbers they are.
//!
//! # A distance matrix is not a loss
//!
//! [`pairwise_sq_l2`] gives n x k numbers: the squared distance of every vector to every codeword. The L2 loss of
//! [`quantize`] and [`Metrics`] is one number: the mean squared difference between each vector and the single
//! codeword it was assigned to. The first is for neighbourhoods and soft assignments, and takes 4 n k bytes; the
//! second says how much quantization loses, and never needs the first.
//!
//! # Exactness
//!
//! The filter pass computes scores in f32, or where the processor multiplies those faster from operands rounded to 16-bit
//! integers ([`Isa::Avx512Vnni`], [`Isa::Avx2`]) or, for codewords of very different lengths, to bf16 ([`Isa::Avx512Bf16`]), or
//! to f16 on a GPU whose tensor cores are known, together with a proven bound for what rounding
//! can have done to each. Where the bounds leave one candidate, the row is settled: nearly all rows in f32, 89 and more of 100
//! random ones in integers, three quarters in bf16, 95 of 100 in f16. The others are looked at again with finer arithmetic over the
//! candidates left: direct f32 sums, f64 sums, and at last exact sums, which decide real-number ties. [`AssignStats`] counts
//! the rows that each tier settled.
//! [`Precision::Fast`] skips all of that and is never chosen unless named.
//!
//! # Features
//!
//! `cuda` (default): NVIDIA GPUs of compute capability 8.0 and later, looked for at run time; nothing is linked. `cli`
//! (default): the command line tool. A library build without either: `default-features = false`.
//!
//! The environment variable `CODEWORD_ISA` forces one of the CPU's instruction sets ([`Isa`]); it changes speed, and
//! no bit of an exact result. Only what is rounded by name, [`Precision::Fast`], may differ.
//!
//! Threads are expected in the floating-point environment that Rust gives them: rounding to nearest, subnormals kept.

pub mod backend;
mod codebook;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod error;
pub mod io;
mod kmeans;
mod matrix;
mod metrics;
mod quantizer;
mod search;

pub use backend::{
    AssignOptions, AssignStats, Assignment, Isa, NonFinite, Precision, SENTINEL, Sums, TopK, accumulate, assign,
    assign_into, decode, decode_into, normalize, pairwise_sq_l2, pairwise_sq_l2_into, top_k,
};
pub use codebook::Codebook;
pub use device::Device;
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use kmeans::{Ema, EmaCodebook, EmaState, EmaStep, EmaUsage};
pub use kmeans::{Init, KMeans, KMeansFit, KMeansState, RowSource, SourceFit, Step};
pub use matrix::{Dtype, Element, Matrix, MatrixView};
pub use metrics::{Metrics, MetricsSum, metrics};
pub use quantizer::groups::quantize_groups;
pub use quantizer::loss::{VqLoss, codebook_gradient, vector_gradient};
pub use quantizer::optimized::{OptimizedFit, OptimizedProductQuantizer};
pub use quantizer::product::{ProductFit, ProductQuantizer};
pub use quantizer::residual::{ResidualFit, ResidualQuantizer};
pub use quantizer::stages::Stages;
pub use quantizer::vector::{Quantized, quantize};
pub use search::Neighbors;
