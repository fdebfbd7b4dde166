//! The examples of codes of several numbers do what they say.

use crate::common::{matrix, rows, sq_l2};
use codeword::backend::reference;

#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/compress.rs"]
mod compress;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/tokens.rs"]
mod tokens;

#[test]
fn the_nearest_embedding_is_among_the_ten_nearest_codes() {
    compress::main().unwrap();
    let (vectors, queries) = compress::embeddings().unwrap();
    let (codes, nearest) = compress::compress(&vectors, &queries).unwrap();
    assert_eq!((codes.len(), nearest.ids.len()), (16 * vectors.rows(), 10 * queries.rows()));
    let (exact, _) = reference::top_k(queries.view(), vectors.view(), 1);
    let found = nearest.ids.chunks(10).zip(&exact).filter(|(ids, id)| ids.contains(id)).count();
    assert!(found * 10 >= queries.rows() * 9, "{found} of {}", queries.rows());
}

#[test]
fn every_token_is_the_nearest_of_its_stage_and_leaves_less() {
    tokens::main().unwrap();
    let (frames, codebooks) = tokens::frames_and_codebooks().unwrap();
    let (tokens, errors) = tokens::tokenize(&frames, &codebooks).unwrap();
    let (n, d, stages) = (frames.rows(), frames.cols(), tokens::STAGES);
    let k = codebooks.rows() / stages;
    let mut left = frames.as_slice().to_vec();
    for s in 0..stages {
        let stage = rows(&codebooks, s * k..(s + 1) * k);
        let (labels, _) = reference::nearest(matrix(left.clone(), n, d).view(), stage);
        for (i, &label) in labels.iter().enumerate() {
            assert_eq!(tokens[i * stages + s], label, "frame {i}, stage {s}");
            left[i * d..][..d].iter_mut().zip(stage.row(label as usize)).for_each(|(x, e)| *x -= e);
        }
        let zeros = vec![0.0; d];
        let mean = left.chunks(d).map(|row| sq_l2(row, &zeros)).sum::<f64>() / n as f64;
        assert!((errors[s] - mean).abs() <= 1e-5 * mean, "stage {s}: {} and {mean}", errors[s]);
    }
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
}
