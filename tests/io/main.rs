//! Files of arrays, read and written: one file for each promise, one program for all.

#[path = "../common/mod.rs"]
mod common;

mod npy;
mod npy_files;
mod npy_header;
mod safetensors;
mod vecs;
