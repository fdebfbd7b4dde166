//! The formats of vector search benchmarks, `.fvecs` to `.i8bin`, in files that the tests make byte by byte: they hold
//! the same array as the `.npy` file beside them, and whatever is wrong with them is an error that says so.

use crate::common::data;
use codeword::Error;
use codeword::io::npy::{Header, Reader, Scalar};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FORMATS: [(&str, Scalar); 7] = [
    ("fvecs", Scalar::F32),
    ("ivecs", Scalar::I32),
    ("bvecs", Scalar::U8),
    ("fbin", Scalar::F32),
    ("ibin", Scalar::I32),
    ("u8bin", Scalar::U8),
    ("i8bin", Scalar::I8),
];

/// Bytes that the reader takes from a file at a time.
const PIECE: usize = 256 << 10;

fn saved(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Elements of one type from whole numbers, little-endian.
fn elements(scalar: Scalar, values: &[i32]) -> Vec<u8> {
    match scalar {
        Scalar::F32 => values.iter().flat_map(|&x| (x as f32 * 0.5).to_le_bytes()).collect(),
        Scalar::I32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => values.iter().map(|&x| x as u8).collect(),
    }
}

/// A dimension, then the elements, row by row.
fn vecs(scalar: Scalar, d: usize, values: &[i32]) -> Vec<u8> {
    values.chunks(d).flat_map(|row| [(d as i32).to_le_bytes().to_vec(), elements(scalar, row)].concat()).collect()
}

/// Rows, dimension, elements.
fn bin(scalar: Scalar, n: u32, d: u32, values: &[i32]) -> Vec<u8> {
    [n.to_le_bytes().to_vec(), d.to_le_bytes().to_vec(), elements(scalar, values)].concat()
}

/// The two files of one array: in the format `name`, and as `.npy`.
fn twins(dir: &TempDir, name: &str, scalar: Scalar, d: usize, values: &[i32]) -> (Reader, Reader) {
    let n = values.len() / d;
    let bytes = if name.ends_with("vecs") { vecs(scalar, d, values) } else { bin(scalar, n as u32, d as u32, values) };
    let header = Header::new(scalar, &[n, d], false).unwrap().to_bytes();
    let npy = saved(dir, "twin.npy", &[header, elements(scalar, values)].concat());
    let open = |path: &Path| Reader::open(path, None).unwrap();
    (open(&saved(dir, &format!("x.{name}"), &bytes)), open(&npy))
}

fn rows(reader: &Reader, first: usize, count: usize) -> codeword::Result<(Vec<f32>, u64)> {
    let mut out = vec![f32::NAN; count * reader.cols()];
    let rounded = reader.read_rows(first, &mut out, &mut Vec::new())?;
    Ok((out, rounded))
}

fn codes(reader: &Reader, first: usize, count: usize) -> codeword::Result<Vec<u32>> {
    let mut out = vec![7; count];
    reader.read_codes(first, &mut out, &mut Vec::new())?;
    Ok(out)
}

fn says(error: &Error, parts: &[&str]) {
    let line = error.to_string();
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
    assert!(line.len() < 400, "{line}");
}

fn refused(path: &Path, parts: &[&str]) {
    match Reader::open(path, None) {
        Ok(reader) => panic!("{}: opened as {:?}", path.display(), reader.header()),
        Err(error) => says(&error, parts),
    }
}

#[test]
fn every_format_holds_the_array_that_npy_holds() {
    let dir = TempDir::new().unwrap();
    // The last two need 25 bits, in different rows: f32 rounds them where they are whole numbers.
    let mut values: Vec<i32> = (0..35).map(|i| i * 7 - 20).collect();
    (values[7], values[34]) = (16_777_217, -16_777_219);
    for (name, scalar) in FORMATS {
        let (ours, npy) = twins(&dir, name, scalar, 5, &values);
        let header = ours.header();
        assert_eq!((header.scalar, &header.shape[..], header.fortran_order), (scalar, &[7, 5][..], false), "{name}");
        assert_eq!((ours.rows(), ours.cols(), ours.leading(), ours.elements()), (7, 5, &[7][..], 35), "{name}");
        assert_eq!(ours.row_index(3), [3], "{name}");
        assert!(ours.metadata().is_empty(), "{name}");
        let got = rows(&ours, 0, 7).unwrap();
        assert_eq!(got, rows(&npy, 0, 7).unwrap(), "{name}");
        assert_eq!(got.1, if scalar == Scalar::I32 { 2 } else { 0 }, "{name}");
        match scalar {
            Scalar::F32 => says(&codes(&ours, 0, 1).unwrap_err(), &["codes of an integer dtype", "f32"]),
            Scalar::U8 => assert_eq!(codes(&ours, 0, 35).unwrap(), codes(&npy, 0, 35).unwrap(), "{name}"),
            // The first values are negative.
            _ => says(&codes(&ours, 1, 2).unwrap_err(), &["-13 at index [0, 1]"]),
        }
    }
}

#[test]
fn names_count_in_upper_case_and_magic_bytes_count_more() {
    let dir = TempDir::new().unwrap();
    let reader = Reader::open(&saved(&dir, "X.FVecs", &vecs(Scalar::F32, 2, &[1, 2, 3, 4])), None).unwrap();
    assert_eq!(rows(&reader, 0, 2).unwrap().0, [0.5, 1.0, 1.5, 2.0]);
    let npy = [Header::new(Scalar::U8, &[3], false).unwrap().to_bytes(), vec![1, 2, 3]].concat();
    for (name, _) in FORMATS {
        let reader = Reader::open(&saved(&dir, &format!("npy.{name}"), &npy), None).unwrap();
        assert_eq!((&reader.header().shape[..], codes(&reader, 0, 3).unwrap()), (&[3][..], vec![1, 2, 3]), "{name}");
    }
    refused(&saved(&dir, "x.fvec", &vecs(Scalar::F32, 1, &[1])), &["a .npy file"]);
}

#[test]
fn what_is_asked_for_must_be_what_the_name_says() {
    let dir = TempDir::new().unwrap();
    for (name, scalar) in FORMATS {
        let (ours, _) = twins(&dir, name, scalar, 2, &[1, 2]);
        assert!(Reader::open(ours.file(), Some(scalar)).is_ok(), "{name}");
        let error = Reader::open(ours.file(), Some(Scalar::Bf16)).unwrap_err();
        says(&error, &["bf16, as asked for", &format!("{}, as every .{name} file holds", scalar.name())]);
        let error = Reader::open_tensor(ours.file(), Some("codebook"), None).unwrap_err();
        says(&error, &["a tensor 'codebook'", &format!("a .{name} file")]);
    }
}

#[test]
fn blocks_at_odd_places_are_those_of_npy() {
    let dir = TempDir::new().unwrap();
    // Several pieces each; rows of 1 byte, and rows that are as long as a piece, a byte shorter or longer, and more.
    for (name, scalar, n, d) in [
        ("fvecs", Scalar::F32, 9_001, 19),
        ("ivecs", Scalar::I32, 50_001, 3),
        ("bvecs", Scalar::U8, 200_001, 1),
        ("bvecs", Scalar::U8, 3, PIECE - 5),
        ("bvecs", Scalar::U8, 3, PIECE - 4),
        ("bvecs", Scalar::U8, 3, PIECE - 3),
        ("bvecs", Scalar::U8, 5, PIECE / 2 - 4),
        ("fvecs", Scalar::F32, 3, 300_007),
        ("ivecs", Scalar::I32, 1, 300_007),
        ("fbin", Scalar::F32, 9_001, 19),
        ("u8bin", Scalar::U8, 200_001, 1),
        ("ibin", Scalar::I32, 3, 300_007),
    ] {
        let values: Vec<i32> = (0..n * d).map(|i| (i * 7919 % 30_011) as i32).collect();
        let (ours, npy) = twins(&dir, name, scalar, d, &values);
        for (first, end) in [(0, n), (0, 1), (n - 1, n), (n, n), (n / 3, n - n / 4), (n / 2, n / 2 + 1)] {
            let want = rows(&npy, first, end - first).unwrap();
            assert!(rows(&ours, first, end - first).unwrap() == want, "{name} of {n} x {d}: rows {first} to {end}");
        }
        let total = n * d;
        let spans = [(0, total), (1, total), (d - 1, d + 1), (d / 2, d), (d + d / 2, total - 1), (total - 1, total)];
        for (first, end) in spans.into_iter().filter(|&(first, end)| first <= end && end <= total) {
            let numbers = |reader: &Reader| {
                let mut out = vec![f32::NAN; end - first];
                reader.read_values(first, &mut out, &mut Vec::new()).unwrap();
                out
            };
            assert!(numbers(&ours) == numbers(&npy), "{name} of {n} x {d}: numbers {first} to {end}");
            if scalar == Scalar::F32 {
                continue;
            }
            let want = codes(&npy, first, end - first).unwrap();
            assert!(codes(&ours, first, end - first).unwrap() == want, "{name} of {n} x {d}: codes {first} to {end}");
        }
        says(&rows(&ours, n, 1).unwrap_err(), &[&format!("lie within {n}")]);
        says(&rows(&ours, usize::MAX, 1).unwrap_err(), &[&format!("lie within {n}")]);
    }
}

#[test]
fn a_row_of_another_dimension_is_named_by_whatever_reads_it() {
    let dir = TempDir::new().unwrap();
    for (n, d) in [(100_000, 3), (4, 2 * PIECE)] {
        for wrong in [d as i32 + 1, 0, -1, i32::MIN] {
            let row = n - 2;
            let mut bytes = vecs(Scalar::U8, d, &vec![9; n * d]);
            bytes[row * (4 + d)..][..4].copy_from_slice(&wrong.to_le_bytes());
            let reader = Reader::open(&saved(&dir, "x.bvecs", &bytes), None).unwrap();
            let got = format!("{wrong} in front of row {row}");
            let words = ["x.bvecs", &format!("the dimension {d} in front of every row"), &got];
            says(&rows(&reader, 0, n).unwrap_err(), &words);
            says(&rows(&reader, row, 1).unwrap_err(), &words);
            says(&codes(&reader, 0, n * d).unwrap_err(), &words);
            // The first, the last, and those in between of its elements.
            for (first, count) in [(row * d, 1), (row * d + d - 1, 1), (row * d + d / 2, 2), (row * d - 1, 2)] {
                says(&codes(&reader, first, count).unwrap_err(), &words);
            }
            // The others can be had.
            assert_eq!(rows(&reader, 0, row).unwrap().0, vec![9.0; row * d]);
            assert_eq!(codes(&reader, (row + 1) * d, d).unwrap(), vec![9; d]);
        }
    }
}

#[test]
fn files_that_are_no_whole_array_are_refused() {
    let dir = TempDir::new().unwrap();
    let row = |d: i32, bytes: usize| [&d.to_le_bytes()[..], &vec![0; bytes]].concat();
    for (name, bytes, words) in [
        ("0.fvecs", vec![], &[".fvecs", "an empty file"][..]),
        ("1.fvecs", vec![1, 0, 0], &["4 bytes in front of the first row", "3 bytes in all"]),
        ("2.fvecs", row(0, 0), &["at least 1 in front of the first row", "got 0"]),
        ("3.bvecs", row(-1, 100), &["at least 1 in front of the first row", "got -1"]),
        ("4.ivecs", row(i32::MIN, 4), &["at least 1", "got -2147483648"]),
        ("5.fvecs", row(2, 7), &["rows of 12 bytes", "dimension 2", "11 bytes (cut short?)"]),
        ("6.fvecs", row(2, 9), &["rows of 12 bytes", "13 bytes"]),
        ("7.bvecs", row(3, 3 + 6), &["rows of 7 bytes", "13 bytes"]),
        ("8.ivecs", row(i32::MAX, 64), &["rows of 8589934592 bytes", "68 bytes"]),
        ("9.ivecs", row(1, 0), &["rows of 8 bytes", "4 bytes"]),
        ("a.fbin", vec![], &[".fbin", "an empty file"]),
        ("b.fbin", vec![0; 7], &["8 bytes with the number of rows", "7 in all"]),
        ("c.fbin", bin(Scalar::F32, 2, 3, &[0; 5]), &["32 bytes for shape [2, 3] of f32", "28 bytes (cut short?)"]),
        ("d.u8bin", bin(Scalar::U8, 1, 1, &[]), &["9 bytes for shape [1, 1] of u8", "8 bytes"]),
        ("e.i8bin", bin(Scalar::I8, u32::MAX, 1, &[1; 9]), &["4294967303 bytes", "17 bytes"]),
        ("f.ibin", bin(Scalar::I32, u32::MAX, u32::MAX, &[0; 9]), &["can address", "4294967295, 4294967295"]),
    ] {
        refused(&saved(&dir, name, &bytes), words);
    }
    std::fs::create_dir(dir.path().join("folder.fvecs")).unwrap();
    refused(&dir.path().join("folder.fvecs"), &[".fvecs", "a directory"]);
    // Cut anywhere but between rows.
    let whole = vecs(Scalar::I32, 3, &[5; 9]);
    for len in 0..=whole.len() {
        let opened = Reader::open(&saved(&dir, "cut.ivecs", &whole[..len]), None);
        assert_eq!(opened.is_ok(), len > 0 && len % 16 == 0, "{len} bytes");
    }
    let whole = bin(Scalar::I32, 3, 3, &[5; 9]);
    for len in 0..whole.len() {
        assert!(Reader::open(&saved(&dir, "cut.ibin", &whole[..len]), None).is_err(), "{len} bytes");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let dir = TempDir::new().unwrap();
    for (name, scalar) in FORMATS {
        let (ours, _) = twins(&dir, name, scalar, 2, &[1, 2, 3, 4]);
        std::fs::File::options().write(true).open(ours.file()).unwrap().set_len(9).unwrap();
        assert!(matches!(rows(&ours, 0, 2), Err(Error::Io { doing: "read", .. })), "{name}");
    }
}

#[test]
fn bin_files_may_be_empty_or_go_on() {
    let dir = TempDir::new().unwrap();
    for (n, d) in [(0, 7), (7, 0), (0, 0), (0, u32::MAX), (u32::MAX, 0)] {
        let reader = Reader::open(&saved(&dir, "x.fbin", &bin(Scalar::F32, n, d, &[])), None).unwrap();
        assert_eq!((reader.rows(), reader.cols(), reader.elements()), (n as usize, d as usize, 0));
        assert_eq!(reader.read_rows(0, &mut [], &mut Vec::new()).unwrap(), 0);
    }
    // As ground truth does: ids, then distances.
    let reader = Reader::open(&saved(&dir, "x.ibin", &bin(Scalar::I32, 2, 2, &[4, 3, 2, 1, 99, 99, 99, 99])), None);
    let reader = reader.unwrap();
    assert_eq!((reader.elements(), codes(&reader, 0, 4).unwrap()), (4, vec![4, 3, 2, 1]));
}

#[test]
fn the_originals_of_siftsmall_are_what_npy_holds() {
    let Some(folder) = data::folder() else { return };
    let folder = folder.join("siftsmall");
    let open = |name: &str| Reader::open(&folder.join(name), None).unwrap();
    for (name, npy, shape) in [
        ("siftsmall_base.fvecs", "base_f32.npy", [10_000, 128]),
        ("siftsmall_query.fvecs", "query_f32.npy", [100, 128]),
        ("siftsmall_groundtruth.ivecs", "groundtruth_i32.npy", [100, 100]),
    ] {
        let (ours, npy) = (open(name), open(npy));
        assert_eq!(ours.header().shape, shape, "{name}");
        assert!(rows(&ours, 0, shape[0]).unwrap() == rows(&npy, 0, shape[0]).unwrap(), "{name}");
    }
    // And what another reader of .npy says.
    let (base, _) = data::array::<f32>("siftsmall/base_f32.npy");
    assert!(rows(&open("siftsmall_base.fvecs"), 0, 10_000).unwrap().0 == base);
    let (truth, _) = data::array::<i32>("siftsmall/groundtruth_i32.npy");
    let ours = codes(&open("siftsmall_groundtruth.ivecs"), 0, truth.len()).unwrap();
    assert!(ours.iter().map(|&code| code as i32).eq(truth));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Small numbers are common, so that many of the files are sound.
    #[test]
    fn any_bytes_are_an_array_or_an_error(
        bytes in prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..4, 1 => any::<u8>()], 0..64),
        format in 0usize..7,
    ) {
        let dir = TempDir::new().unwrap();
        let path = saved(&dir, &format!("x.{}", FORMATS[format].0), &bytes);
        if let Ok(reader) = Reader::open(&path, None) {
            prop_assert!(reader.elements() <= bytes.len());
            if reader.elements() > 0 {
                let _ = rows(&reader, 0, reader.rows());
                let _ = codes(&reader, reader.elements() / 2, reader.elements().div_ceil(2));
            }
        }
    }
}
