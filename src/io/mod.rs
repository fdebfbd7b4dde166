//! Files: arrays read in blocks, from every format below, and written in blocks, as `.npy`.
//!
//! | name | elements | layout | source |
//! |---|---|---|---|
//! | any, of a file that starts as `.npy` does | numbers of any type | see [`npy`] | [NumPy] |
//! | `.safetensors` | the same | tensors by name, with metadata | [safetensors] |
//! | `.fvecs`, `.ivecs`, `.bvecs` | f32, i32, u8 | rows: i32 `d`, then `d` elements | [TEXMEX] |
//! | `.fbin`, `.ibin`, `.u8bin`, `.i8bin` | f32, i32, u8, i8 | u32 `n`, u32 `d`, then `n` x `d` elements | [BIGANN] |
//!
//! The formats without magic bytes are known by their names, in upper or lower case, and little-endian.
//!
//! [NumPy]: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//! [safetensors]: https://github.com/huggingface/safetensors
//! [TEXMEX]: http://corpus-texmex.irisa.fr/
//! [BIGANN]: https://big-ann-benchmarks.com/

pub mod npy;
mod open;
mod safetensors;
mod vecs;
