//! Real data, from the folder that the environment variable `CODEWORD_DATA` names. Read by npyz: nothing is shared
//! with this crate's own reader.

use super::{is_required, matrix};
use codeword::Matrix;
use std::path::PathBuf;

/// The folder; `None`, with a line that says so, where the test has to be skipped.
pub fn folder() -> Option<PathBuf> {
    match std::env::var_os("CODEWORD_DATA") {
        Some(folder) => Some(folder.into()),
        None if is_required("data") => panic!("CODEWORD_TEST_REQUIRE contains data, but CODEWORD_DATA is not set"),
        None => {
            println!("skipped: CODEWORD_DATA not set");
            None
        }
    }
}

/// The folder, for figures that are those of all rows: `None` in a small run, too.
pub fn folder_for_figures() -> Option<PathBuf> {
    if super::is_small() {
        println!("skipped: the figures are those of all rows");
        return None;
    }
    folder()
}

/// An array of the folder with its shape.
pub fn array<T: npyz::Deserialize>(name: &str) -> (Vec<T>, Vec<usize>) {
    let file = folder().expect("asked for after the skip").join(name);
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let npy = npyz::NpyFile::new(&bytes[..]).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(npy.order(), npyz::Order::C, "{}", file.display());
    let shape = npy.shape().iter().map(|&size| size as usize).collect();
    (npy.into_vec().unwrap_or_else(|e| panic!("{}: {e}", file.display())), shape)
}

/// A two-dimensional f32 array.
pub fn f32_matrix(name: &str) -> Matrix<f32> {
    let (data, shape) = array(name);
    assert_eq!(shape.len(), 2, "{name}");
    matrix(data, shape[0], shape[1])
}
