//! The commands that the examples name, as they stand there, write what the library gives.

use crate::support::Folder;

#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/compress.rs"]
mod compress;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/tokens.rs"]
mod tokens;

/// Runs the lines of `codeword ...` in the head of an example.
fn run_commands(folder: &Folder, example: &str) -> usize {
    let commands = example.lines().filter_map(|line| line.strip_prefix("//!     codeword "));
    commands.fold(0, |count, command| {
        folder.ok(&command.split(' ').collect::<Vec<_>>());
        count + 1
    })
}

#[test]
fn vectors_are_compressed_and_searched_from_the_shell_as_by_the_library() {
    let folder = Folder::new();
    let (vectors, queries) = compress::embeddings().unwrap();
    let (n, d) = (vectors.rows(), vectors.cols());
    folder.f32("vectors.npy", &[n, d], vectors.as_slice());
    folder.f32("queries.npy", &[queries.rows(), d], queries.as_slice());
    assert_eq!(run_commands(&folder, include_str!("../../examples/compress.rs")), 3);
    let (codes, nearest) = compress::compress(&vectors, &queries).unwrap();
    assert!(folder.read_u8("codes.npy", &format!("({n}, 16)")) == codes);
    assert_eq!(folder.read_u32("ids.npy", &format!("({}, 10)", queries.rows())), nearest.ids);
}

#[test]
fn frames_become_tokens_from_the_shell_as_by_the_library() {
    let folder = Folder::new();
    let (frames, codebooks) = tokens::frames_and_codebooks().unwrap();
    let (n, d, stages) = (frames.rows(), frames.cols(), tokens::STAGES);
    folder.f32("frames.npy", &[n, d], frames.as_slice());
    folder.f32("codebooks.npy", &[stages, codebooks.rows() / stages, d], codebooks.as_slice());
    assert_eq!(run_commands(&folder, include_str!("../../examples/tokens.rs")), 2);
    let (tokens, errors) = tokens::tokenize(&frames, &codebooks).unwrap();
    let written = folder.read_u8("tokens.npy", &format!("({n}, {stages})"));
    assert_eq!(written.iter().map(|&token| u32::from(token)).collect::<Vec<_>>(), tokens);
    let decoded = folder.read_f32("decoded.npy", &format!("({n}, {d})"));
    let pairs = frames.as_slice().iter().zip(&decoded);
    let error = pairs.map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>() / n as f64;
    assert_eq!(error, errors[stages - 1]);
}
