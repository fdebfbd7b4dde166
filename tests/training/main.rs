//! Codebooks learned: one file for each promise, one program for all.

#[path = "../common/mod.rs"]
mod common;

mod accumulate;
mod carried;
mod ema;
mod gradients;
mod groups;
mod kmeans;
mod kmeans_source;
mod sketched;
