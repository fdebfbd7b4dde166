//! Codewords of codes.

use crate::backend::SENTINEL;
use crate::matrix::MatrixView;
use rayon::prelude::*;

/// Fills `out`, `[n, d]`, with the codewords of `codes`; a sentinel gives a row of NaN. Returns the position of the
/// first code that names no codeword.
pub(crate) fn gather(codes: &[u32], codewords: MatrixView<'_, f32>, out: &mut [f32]) -> Result<(), usize> {
    let bad = codes.par_iter().position_first(|&code| code != SENTINEL && code as usize >= codewords.rows());
    if let Some(bad) = bad {
        return Err(bad);
    }
    let d = codewords.cols();
    // Rows of about 64 KiB per task: a row alone is too little work to hand to a thread.
    let rows = (16 * 1024 / d).max(1);
    out.par_chunks_mut(rows * d).zip(codes.par_chunks(rows)).for_each(|(out, codes)| {
        for (out, &code) in out.chunks_exact_mut(d).zip(codes) {
            match code {
                SENTINEL => out.fill(f32::NAN),
                code => out.copy_from_slice(codewords.row(code as usize)),
            }
        }
    });
    Ok(())
}
