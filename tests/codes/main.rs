//! Vectors as codes of several numbers, one file for each quantizer. One program: each takes seconds to link.

#[path = "../common/mod.rs"]
mod common;

mod examples;
mod optimized;
mod product;
mod residual;
mod stages;
