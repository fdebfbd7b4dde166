//! `.safetensors` files through the same reader as `.npy`, against headers written by hand and by the format's crate.

use codeword::io::npy::{Reader, Scalar};
use safetensors::tensor::{Dtype, TensorView};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file with the given JSON and elements.
fn file(dir: &TempDir, json: &str, data: &[u8]) -> PathBuf {
    let path = dir.path().join("x.safetensors");
    let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn rows(reader: &Reader) -> Vec<f32> {
    let mut out = vec![0.0; reader.elements()];
    reader.read_rows(0, &mut out, &mut Vec::new()).unwrap();
    out
}

fn refused(path: &Path, name: Option<&str>, dtype: Option<Scalar>, says: &str) {
    let error = Reader::open_tensor(path, name, dtype).expect_err(says).to_string();
    assert!(error.contains(says) && error.len() < 500, "{error:?} does not say {says:?}");
}

const ONES: [u8; 24] = [0, 0, 128, 63, 0, 0, 128, 63, 0, 0, 128, 63, 0, 0, 128, 63, 0, 0, 128, 63, 0, 0, 128, 63];

#[test]
fn the_tensor_that_is_meant_is_found() {
    let dir = TempDir::new().unwrap();
    let named = |names: [&str; 2]| {
        let json = format!(
            r#"{{"{}": {{"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}},
                "{}": {{"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}}}"#,
            names[0], names[1]
        );
        file(&dir, &json, &ONES)
    };
    for meant in ["codebook", "codewords", "vectors"] {
        for names in [[meant, "bias"], ["bias", meant]] {
            let reader = Reader::open(&named(names), None).unwrap();
            assert_eq!(reader.elements(), if names[0] == meant { 2 } else { 4 }, "{names:?}");
            assert!(rows(&reader).iter().all(|&x| x == 1.0));
        }
    }
    let path = named(["left", "right"]);
    let right = Reader::open_tensor(&path, Some("right"), None).unwrap();
    assert_eq!((&right.header().shape[..], right.tensors()), (&[4][..], &["left".to_string(), "right".into()][..]));
    refused(&path, None, None, "(rename it, or save it alone), got 'left', 'right'");
    refused(&path, Some("middle"), None, "a tensor 'middle', got 'left', 'right'");
    let only = file(&dir, r#"{"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}"#, &ONES);
    let reader = Reader::open(&only, None).unwrap();
    assert_eq!((reader.rows(), reader.cols(), reader.header().scalar), (2, 3, Scalar::F32));
}

#[test]
fn files_of_the_formats_own_writer_are_read_with_their_metadata() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("Model.SafeTensors");
    let values = [0.5f32, -1.0, 3.0, 100.0, 0.0, -0.25];
    let f16: Vec<u8> = values.iter().flat_map(|&x| codeword::f16::from_f32(x).to_le_bytes()).collect();
    let bf16: Vec<u8> = values.iter().flat_map(|&x| codeword::bf16::from_f32(x).to_le_bytes()).collect();
    let f32: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let f64: Vec<u8> = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    let tensors =
        [("a", Dtype::F16, &f16), ("b", Dtype::BF16, &bf16), ("c", Dtype::F32, &f32), ("d", Dtype::F64, &f64)];
    let views = tensors.map(|(name, dtype, data)| (name, TensorView::new(dtype, vec![3, 2], data).unwrap()));
    let metadata = [("format".to_string(), "pt".to_string()), ("k".into(), "3".into())];
    let bytes = safetensors::serialize(views, Some(metadata.clone().into_iter().collect())).unwrap();
    std::fs::write(&path, bytes).unwrap();
    for (name, scalar) in [("a", Scalar::F16), ("b", Scalar::Bf16), ("c", Scalar::F32), ("d", Scalar::F64)] {
        let reader = Reader::open_tensor(&path, Some(name), None).unwrap();
        assert_eq!((reader.header().scalar, reader.rows(), reader.cols()), (scalar, 3, 2));
        assert_eq!(rows(&reader), values);
        assert!(
            reader
                .metadata()
                .iter()
                .eq(metadata.iter().map(|(k, v)| (k, v)).collect::<std::collections::BTreeMap<_, _>>())
        );
    }
    refused(&path, Some("c"), Some(Scalar::Bf16), "bf16, as asked for, got f32 in tensor 'c'");
}

#[test]
fn u16_is_read_as_bf16_where_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let path =
        file(&dir, r#"{"w": {"dtype": "U16", "shape": [1, 2], "data_offsets": [0, 4]}}"#, &[0x80, 0x3f, 0, 0xc0]);
    assert_eq!(rows(&Reader::open(&path, Some(Scalar::Bf16)).unwrap()), [1.0, -2.0]);
    assert_eq!(rows(&Reader::open(&path, None).unwrap()), [16256.0, 49152.0]);
}

#[test]
fn hostile_files_are_errors_that_name_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
    };
    let deep = format!(r#"{{"w": {}"#, "[".repeat(100_000));
    for (json, says) in [
        (one("F32", "[2, 3]", "[0, 20]"), "invalid shape"),
        (one("F32", "[2, 4]", "[0, 32]"), "expected 32 bytes of tensors, got 24"),
        (one("F32", "[2, 2]", "[0, 16]"), "expected 16 bytes of tensors, got 24"),
        (one("F32", "[4294967296, 4294967296]", "[0, 24]"), "overflow"),
        (one("F32", "[18446744073709551616]", "[0, 24]"), "valid .safetensors header"),
        (one("F32", "[-6]", "[0, 24]"), "valid .safetensors header"),
        (one("F32", "[2, 3]", "[8, 32]"), "invalid offset"),
        (one("F32", "[2, 3]", "[24, 0]"), "invalid offset"),
        (one("C64", "[3]", "[0, 24]"), "C64 in tensor 'w'"),
        (one("BOOL", "[24]", "[0, 24]"), "BOOL in tensor 'w'"),
        (one("F99", "[24]", "[0, 24]"), "valid .safetensors header"),
        (deep, "valid .safetensors header"),
        ("".into(), "valid .safetensors header"),
        ("[]".into(), "valid .safetensors header"),
        (r#"{"__metadata__": {"a": 1}}"#.into(), "valid .safetensors header"),
    ] {
        refused(&file(&dir, &json, &ONES), None, None, says);
    }
    refused(&file(&dir, "{}", &[]), None, None, "no tensors");
    refused(&file(&dir, &one("F32", "[9223372036854775808, 0]", "[0, 0]"), &[]), None, None, "address");
    let path = dir.path().join("y.safetensors");
    for (bytes, says) in [
        (&b"{}"[..], "2 bytes in all"),
        (&[255; 20], "header of at most 12 bytes, got 18446744073709551615 bytes"),
        (&[13, 0, 0, 0, 0, 0, 0, 0, b'{', b'}', b' ', b' '], "at most 4 bytes, got 13"),
        (&[2, 0, 0, 0, 0, 0, 0, 0, 255, 255], "valid .safetensors header"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        refused(&path, None, None, says);
    }
    let whole = std::fs::read(file(&dir, &one("F32", "[2, 3]", "[0, 24]"), &ONES)).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(Reader::open(&path, None).is_err(), "opened with {len} of {} bytes", whole.len());
    }
}

#[test]
fn a_name_for_the_only_array_of_an_npy_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npy");
    let header = codeword::io::npy::Header::new(Scalar::U8, &[0], false).unwrap();
    std::fs::write(&path, header.to_bytes()).unwrap();
    refused(&path, Some("codebook"), None, "a tensor 'codebook', got a .npy file");
    assert!(Reader::open(&path, None).unwrap().metadata().is_empty());
}
