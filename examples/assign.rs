//! The library in a few lines: prepare a codebook, ask for the nearest codewords, get the vectors back.

use codeword::{AssignOptions, Codebook, Device, MatrixView, assign, decode};

fn main() -> codeword::Result<()> {
    // Three codewords of two dimensions; the device that prepares them also does the work.
    let codewords = [0.0f32, 0.0, 4.0, 0.0, 0.0, 4.0];
    let codebook = Codebook::new(MatrixView::new(&codewords, 3, 2)?, &Device::best())?;

    // Four vectors. The last lies exactly between the first two codewords: the lower index wins.
    let vectors = [1.0f32, 1.0, 3.0, 0.5, -1.0, 5.0, 2.0, 0.0];
    let nearest = assign(MatrixView::new(&vectors, 4, 2)?, &codebook, AssignOptions::default())?;
    assert_eq!(nearest.labels, [0, 1, 2, 0]);
    assert_eq!(nearest.sq_distances, [2.0, 1.25, 2.0, 4.0]);

    let restored = decode(&nearest.labels, &codebook)?;
    println!("codes {:?} on the {}", nearest.labels, codebook.device());
    println!("row 1 is now {:?}", restored.view().row(1));
    Ok(())
}
