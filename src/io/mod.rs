//! Files: `.npy` and `.safetensors` arrays, read and written in blocks.

pub mod npy;
mod open;
mod safetensors;
