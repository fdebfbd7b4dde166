//! The CUDA backend, on the simulated driver of tests/emulator: one file for each promise, one program for all, since each
//! takes seconds to compile and link.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "../common/alone.rs"]
mod alone;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/filter.rs"]
mod filter;
#[path = "../common/simulated/mod.rs"]
mod simulated;

mod accumulate;
mod assign;
mod cli;
mod codebook;
mod driver;
mod edges;
mod encode;
mod gemm;
mod kernels;
mod kmeans;
mod label_parts;
mod lists;
mod metrics;
mod parts;
mod resident;
mod scan;
mod streams;
mod tensor;
mod tensor_model;
mod tiles;
mod top_k;
mod turns;
