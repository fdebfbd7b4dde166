//! Blocks of rows and codes out of and into `.npy` files that the tests make byte by byte.

use codeword::Error;
use codeword::io::npy::{Header, Reader, Scalar, Writer};
use proptest::prelude::*;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A `.npy` file of version 1 with the given elements.
fn file(dir: &TempDir, descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> PathBuf {
    let fortran = if fortran { "True" } else { "False" };
    let shape: String = shape.iter().map(|len| format!("{len}, ")).collect();
    let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape})}}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    let path = dir.path().join(format!("{}.npy", std::fs::read_dir(dir.path()).unwrap().count()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn le<T, const N: usize>(values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(bytes).collect()
}

fn rows(reader: &Reader, first: usize, count: usize) -> codeword::Result<(Vec<f32>, u64)> {
    let mut out = vec![f32::NAN; count * reader.cols()];
    let inexact = reader.read_rows(first, &mut out, &mut Vec::new())?;
    Ok((out, inexact))
}

/// As they lie in the file.
fn as_they_lie(reader: &Reader, first: usize, count: usize) -> codeword::Result<(Vec<f32>, u64)> {
    let mut out = vec![f32::NAN; count];
    let inexact = reader.read_values(first, &mut out, &mut Vec::new())?;
    Ok((out, inexact))
}

fn all(path: &Path) -> (Vec<f32>, u64) {
    let reader = Reader::open(path, None).unwrap();
    rows(&reader, 0, reader.rows()).unwrap()
}

fn says(error: &Error, parts: &[&str]) {
    let line = error.to_string();
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

#[test]
fn every_type_and_byte_order_reads_as_the_same_numbers() {
    let dir = TempDir::new().unwrap();
    // 2 x 3, every value exact in every type but for the sign.
    let signed = [0i8, -1, 2, -128, 127, 5];
    let unsigned = [0u8, 1, 2, 128, 255, 5];
    let s = signed.map(f32::from).to_vec();
    let u = unsigned.map(f32::from).to_vec();
    let f16 = |x: f32| codeword::f16::from_f32(x);
    let bf16 = |x: f32| codeword::bf16::from_f32(x);
    type Case<'a> = (&'a str, Vec<u8>, Option<Scalar>, &'a [f32]);
    let cases: Vec<Case> = vec![
        ("<f2", le(&s, |&x| f16(x).to_le_bytes()), None, &s),
        (">f2", le(&s, |&x| f16(x).to_be_bytes()), None, &s),
        ("|V2", le(&s, |&x| bf16(x).to_le_bytes()), Some(Scalar::Bf16), &s),
        ("<u2", le(&s, |&x| bf16(x).to_le_bytes()), Some(Scalar::Bf16), &s),
        (">u2", le(&s, |&x| bf16(x).to_be_bytes()), Some(Scalar::Bf16), &s),
        ("<f4", le(&s, |x| x.to_le_bytes()), None, &s),
        (">f4", le(&s, |x| x.to_be_bytes()), None, &s),
        ("<f8", le(&s, |&x| f64::from(x).to_le_bytes()), None, &s),
        (">f8", le(&s, |&x| f64::from(x).to_be_bytes()), None, &s),
        ("|i1", le(&signed, |x| x.to_le_bytes()), None, &s),
        ("<i2", le(&signed, |&x| i16::from(x).to_le_bytes()), None, &s),
        (">i2", le(&signed, |&x| i16::from(x).to_be_bytes()), None, &s),
        ("<i4", le(&signed, |&x| i32::from(x).to_le_bytes()), None, &s),
        (">i4", le(&signed, |&x| i32::from(x).to_be_bytes()), None, &s),
        ("<i8", le(&signed, |&x| i64::from(x).to_le_bytes()), None, &s),
        (">i8", le(&signed, |&x| i64::from(x).to_be_bytes()), None, &s),
        ("|u1", unsigned.to_vec(), None, &u),
        ("<u2", le(&unsigned, |&x| u16::from(x).to_le_bytes()), None, &u),
        (">u2", le(&unsigned, |&x| u16::from(x).to_be_bytes()), None, &u),
        ("<u4", le(&unsigned, |&x| u32::from(x).to_le_bytes()), None, &u),
        (">u4", le(&unsigned, |&x| u32::from(x).to_be_bytes()), None, &u),
        ("<u8", le(&unsigned, |&x| u64::from(x).to_le_bytes()), None, &u),
        (">u8", le(&unsigned, |&x| u64::from(x).to_be_bytes()), None, &u),
    ];
    for (descr, data, dtype, want) in cases {
        let c = Reader::open(&file(&dir, descr, false, &[2, 3], &data), dtype).unwrap();
        assert_eq!(rows(&c, 0, 2).unwrap(), (want.to_vec(), 0), "{descr} in C order");
        let f = Reader::open(&file(&dir, descr, true, &[2, 3], &data), dtype).unwrap();
        let transposed = [0, 2, 4, 1, 3, 5].map(|i| want[i]).to_vec();
        assert_eq!(rows(&f, 0, 2).unwrap(), (transposed, 0), "{descr} in Fortran order");
        for reader in [c, f] {
            assert_eq!(as_they_lie(&reader, 0, 6).unwrap(), (want.to_vec(), 0), "{descr}");
            assert_eq!(as_they_lie(&reader, 1, 4).unwrap(), (want[1..5].to_vec(), 0), "{descr}");
        }
    }
}

#[test]
fn special_f32_and_f16_values_keep_their_bits() {
    let dir = TempDir::new().unwrap();
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-45, f32::MAX, f32::MIN_POSITIVE];
    for (descr, data) in [("<f4", le(&values, |x| x.to_le_bytes())), (">f4", le(&values, |x| x.to_be_bytes()))] {
        let (got, inexact) = all(&file(&dir, descr, false, &[7, 1], &data));
        assert_eq!((got.map_bits(), inexact), (values.to_vec().map_bits(), 0));
    }
    // Every f16, long enough for whole blocks and a rest: 65,536 values in rows of 64.
    let data: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let (got, inexact) = all(&file(&dir, "<f2", false, &[1024, 64], &data));
    assert_eq!(inexact, 0);
    for (bits, got) in (0..=u16::MAX).zip(got) {
        let want = codeword::f16::from_bits(bits).to_f64();
        assert!(f64::from(got) == want || (got.is_nan() && want.is_nan()), "{bits:#06x}: {got} for {want}");
    }
}

trait MapBits {
    fn map_bits(self) -> Vec<u32>;
}
impl MapBits for Vec<f32> {
    fn map_bits(self) -> Vec<u32> {
        self.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn rows_that_f32_cannot_hold_are_rounded_to_nearest_even_and_counted() {
    let dir = TempDir::new().unwrap();
    let two24 = 16_777_216f64;
    let f64s = [
        [1.0, 0.5, -2.0],
        // Halfway cases go to the even neighbour.
        [two24 + 1.0, two24 + 3.0, 0.0],
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
        [0.1, 1e-300, 1.0],
        [f64::from(f32::MAX), f64::from(f32::MAX) * (1.0 + 2f64.powi(-26)), -0.0],
    ];
    let want = [
        [1.0, 0.5, -2.0],
        [16_777_216.0, 16_777_220.0, 0.0],
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY],
        [0.1, 0.0, 1.0],
        [f32::MAX, f32::MAX, -0.0],
    ];
    let c = file(&dir, "<f8", false, &[5, 3], &le(f64s.as_flattened(), |x| x.to_le_bytes()));
    let columns: Vec<f64> = (0..15).map(|i| f64s[i % 5][i / 5]).collect();
    let f = file(&dir, ">f8", true, &[5, 3], &le(&columns, |x| x.to_be_bytes()));
    for path in [c, f] {
        let (got, inexact) = all(&path);
        assert_eq!(got.map_bits(), want.as_flattened().to_vec().map_bits());
        assert_eq!(inexact, 3, "rows 1, 3 and 4");
        assert_eq!(as_they_lie(&Reader::open(&path, None).unwrap(), 0, 15).unwrap().1, 5, "of them five numbers");
    }
    let reader = Reader::open(&file(&dir, "<f8", false, &[15], &le(f64s.as_flattened(), |x| x.to_le_bytes())), None);
    let (got, inexact) = as_they_lie(&reader.unwrap(), 3, 9).unwrap();
    assert_eq!((got.map_bits(), inexact), (want.as_flattened()[3..12].to_vec().map_bits(), 4));

    // 2^24 + 1 needs 25 bits; powers of two and 24-bit multiples never do. The extremes round up to a power of two.
    let i64s = [[1 << 40, -(1 << 24), 0], [(1 << 24) + 1, 0, 0], [i64::MAX, 0, 0], [i64::MIN, 3 << 60, -1]];
    let (got, inexact) = all(&file(&dir, "<i8", false, &[4, 3], &le(i64s.as_flattened(), |x| x.to_le_bytes())));
    let two63 = 9_223_372_036_854_775_808f32;
    assert_eq!(
        got,
        [2f32.powi(40), -16_777_216.0, 0.0, 16_777_216.0, 0.0, 0.0, two63, 0.0, 0.0, -two63, two63 * 0.375, -1.0]
    );
    assert_eq!(inexact, 2);
    let u64s = [u64::MAX, 1 << 63, 0xffff_ff00_0000_0000, 0xffff_ff80_0000_0000];
    let (got, inexact) = all(&file(&dir, "<u8", false, &[4, 1], &le(&u64s, |x| x.to_le_bytes())));
    assert_eq!(got, [2.0 * two63, two63, 18_446_742_974_197_923_840.0, 2.0 * two63]);
    assert_eq!(inexact, 2);
    for (descr, data) in [
        ("<i4", le(&[i32::MIN, i32::MAX, 16_777_217, -16_777_216], |x| x.to_le_bytes())),
        ("<u4", le(&[1 << 31, u32::MAX, 16_777_217, 0xffff_ff00], |x| x.to_le_bytes())),
    ] {
        assert_eq!(all(&file(&dir, descr, false, &[4, 1], &data)).1, 2, "{descr}");
    }
}

#[test]
fn a_number_beyond_f32_is_an_error_that_names_row_column_and_value() {
    let dir = TempDir::new().unwrap();
    let mut values = vec![0.25; 2 * 3 * 5];
    values[17] = f64::INFINITY;
    values[19] = -1e39;
    values[28] = 1e300;
    let c = file(&dir, "<f8", false, &[2, 3, 5], &le(&values, |x| x.to_le_bytes()));
    let error = rows(&Reader::open(&c, None).unwrap(), 1, 5).unwrap_err();
    says(&error, &["up to 3.4028235e38", "-1e39 in row 3, column 4 (index [1, 0])"]);
    let f = file(&dir, "<f8", true, &[2, 3, 5], &le(&values, |x| x.to_le_bytes()));
    // Position 19 is row 19 % 6 = 1 = index [1, 0], column 3.
    let error = rows(&Reader::open(&f, None).unwrap(), 0, 6).unwrap_err();
    says(&error, &["-1e39 in row 1, column 3 (index [1, 0])"]);
    // The rows before it can be had, and so can the numbers.
    let (c, f) = (Reader::open(&c, None).unwrap(), Reader::open(&f, None).unwrap());
    assert!(rows(&c, 0, 3).is_ok() && as_they_lie(&c, 0, 19).is_ok() && as_they_lie(&f, 0, 19).is_ok());
    says(&as_they_lie(&c, 12, 8).unwrap_err(), &["up to 3.4028235e38", "-1e39 at index [1, 0, 4]"]);
    says(&as_they_lie(&f, 12, 8).unwrap_err(), &["-1e39 at index [1, 0, 3]"]);
}

#[test]
fn axes_become_rows_and_cols() {
    let dir = TempDir::new().unwrap();
    let data: Vec<u8> = (0..24).collect();
    let shape = |fortran, shape: &[usize]| {
        let reader = Reader::open(&file(&dir, "|u1", fortran, shape, &data), None).unwrap();
        (reader.rows(), reader.cols(), reader.leading().to_vec(), rows(&reader, 0, reader.rows()).unwrap().0)
    };
    let counted: Vec<f32> = (0..24u8).map(f32::from).collect();
    assert_eq!(shape(false, &[24]), (1, 24, vec![], counted.clone()));
    assert_eq!(shape(true, &[24]), (1, 24, vec![], counted.clone()));
    assert_eq!(shape(false, &[2, 3, 4]), (6, 4, vec![2, 3], counted.clone()));
    let (n, d, leading, got) = shape(true, &[2, 3, 4]);
    assert_eq!((n, d, leading), (6, 4, vec![2, 3]));
    let want: Vec<f32> = (0..24).map(|i| (i / 4 + 6 * (i % 4)) as f32).collect();
    assert_eq!(got, want, "element t of row p lies at p + 6 t");
    let reader = Reader::open(&file(&dir, "|u1", true, &[2, 3, 4], &data), None).unwrap();
    let index: Vec<_> = (0..6).map(|p| reader.row_index(p)).collect();
    assert_eq!(index, [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]);
    let reader = Reader::open(&file(&dir, "|u1", false, &[2, 3, 4], &data), None).unwrap();
    let index: Vec<_> = (0..6).map(|p| reader.row_index(p)).collect();
    assert_eq!(index, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
}

#[test]
fn arrays_without_elements_open_and_read_nothing() {
    let dir = TempDir::new().unwrap();
    for (shape, rows, cols) in [(vec![0, 7], 0, 7), (vec![7, 0], 7, 0), (vec![0], 1, 0), (vec![3, 0, 2], 0, 2)] {
        for fortran in [false, true] {
            let reader = Reader::open(&file(&dir, "<f4", fortran, &shape, &[]), None).unwrap();
            assert_eq!((reader.rows(), reader.cols(), reader.elements()), (rows, cols, 0));
            assert_eq!(reader.read_rows(0, &mut [], &mut Vec::new()).unwrap(), 0);
            reader.read_codes(0, &mut [], &mut Vec::new()).unwrap_err();
        }
    }
}

#[test]
fn blocks_at_odd_places_equal_the_whole_file() {
    let dir = TempDir::new().unwrap();
    // Taller than a segment of 16,384 rows and wider than a group of 16 columns, in neither case by a whole one.
    let (n, d) = (16_384 + 2_500, 19);
    for fortran in [false, true] {
        let at = |p: usize, t: usize| if fortran { p + n * t } else { p * d + t };
        let mut values: Vec<i32> = (0..n * d).map(|i| (i * 7919 % 30_011) as i32 - 15_000).collect();
        // Two rows that f32 rounds, in different segments.
        values[at(3, 5)] = 16_777_217;
        values[at(16_400, 17)] = 16_777_217;
        let data = le(&values, |x| x.to_le_bytes());
        let reader = Reader::open(&file(&dir, "<i4", fortran, &[n, d], &data), None).unwrap();
        let (whole, inexact) = rows(&reader, 0, n).unwrap();
        assert!((0..n * d).all(|i| whole[i] == values[at(i / d, i % d)] as f32), "fortran: {fortran}");
        assert_eq!(inexact, 2, "fortran: {fortran}");
        for (first, count, inexact) in
            [(0, 1, 0), (3, 1, 1), (17, 16_384, 1), (16_383, 2, 0), (n - 1, 1, 0), (2, n - 2, 2), (n, 0, 0)]
        {
            let (block, rounded) = rows(&reader, first, count).unwrap();
            assert!(block == whole[first * d..(first + count) * d], "{count} rows from {first}, fortran: {fortran}");
            assert_eq!(rounded, inexact, "{count} rows from {first}, fortran: {fortran}");
            let (numbers, _) = as_they_lie(&reader, first * d, count * d).unwrap();
            assert!(numbers.iter().zip(&values[first * d..]).all(|(&got, &want)| got == want as f32));
        }
    }
}

#[test]
fn requests_that_do_not_fit_the_array_are_errors() {
    let dir = TempDir::new().unwrap();
    let reader = Reader::open(&file(&dir, "|u1", false, &[5, 3], &[0; 15]), None).unwrap();
    let read = |first, len| reader.read_rows(first, &mut vec![0.0; len], &mut Vec::new());
    says(&read(0, 4).unwrap_err(), &["a whole number of rows of 3", "4 elements"]);
    says(&read(5, 3).unwrap_err(), &["lie within 5", "got 5"]);
    says(&read(usize::MAX, 3).unwrap_err(), &["lie within 5"]);
    says(&as_they_lie(&reader, 14, 2).unwrap_err(), &["lie within 15", "got 14"]);
    says(&as_they_lie(&reader, usize::MAX, 1).unwrap_err(), &["lie within 15"]);
    says(&reader.read_codes(14, &mut [0; 2], &mut Vec::new()).unwrap_err(), &["lie within 15", "got 14"]);
}

#[test]
fn codes_read_from_every_integer_type() {
    let dir = TempDir::new().unwrap();
    let codes = [0u8, 1, 127, 3, 99, 0];
    let cases: [(&str, Vec<u8>); 9] = [
        ("|u1", codes.to_vec()),
        ("|i1", codes.to_vec()),
        ("<u2", le(&codes, |&x| u16::from(x).to_le_bytes())),
        (">i2", le(&codes, |&x| i16::from(x).to_be_bytes())),
        ("<u4", le(&codes, |&x| u32::from(x).to_le_bytes())),
        (">u4", le(&codes, |&x| u32::from(x).to_be_bytes())),
        ("<i4", le(&codes, |&x| i32::from(x).to_le_bytes())),
        ("<u8", le(&codes, |&x| u64::from(x).to_le_bytes())),
        (">i8", le(&codes, |&x| i64::from(x).to_be_bytes())),
    ];
    for (descr, data) in cases {
        for fortran in [false, true] {
            let reader = Reader::open(&file(&dir, descr, fortran, &[2, 3], &data), None).unwrap();
            let mut got = [9; 4];
            reader.read_codes(1, &mut got, &mut Vec::new()).unwrap();
            assert_eq!(got, [1, 127, 3, 99], "{descr}: codes come in storage order");
        }
    }
    let large = [u32::MAX, 1 << 31];
    let reader =
        Reader::open(&file(&dir, "<u8", false, &[2], &le(&large, |&x| u64::from(x).to_le_bytes())), None).unwrap();
    let mut got = [0; 2];
    reader.read_codes(0, &mut got, &mut Vec::new()).unwrap();
    assert_eq!(got, large);
}

#[test]
fn what_is_no_code_is_an_error_that_names_the_place() {
    let dir = TempDir::new().unwrap();
    let read = |path: PathBuf, len| {
        Reader::open(&path, None).unwrap().read_codes(0, &mut vec![0; len], &mut Vec::new()).unwrap_err()
    };
    let mut bytes = vec![1u8; 6];
    bytes[4] = 0xfd;
    says(&read(file(&dir, "|i1", false, &[2, 3], &bytes), 6), &["codes from 0 to 4294967295", "-3 at index [1, 1]"]);
    says(&read(file(&dir, "|i1", true, &[2, 3], &bytes), 6), &["-3 at index [0, 2]"]);
    let large = [0i64, 1 << 32, -1];
    says(&read(file(&dir, "<i8", false, &[3], &le(&large, |x| x.to_le_bytes())), 3), &["4294967296 at index [1]"]);
    says(&read(file(&dir, "<u8", false, &[1], &(1u64 << 32).to_le_bytes()), 1), &["4294967296 at index [0]"]);
    says(&read(file(&dir, ">u8", false, &[1], &[0xff; 8]), 1), &["18446744073709551615 at index [0]"]);
    says(&read(file(&dir, "<f4", false, &[1], &[0; 4]), 1), &["codes of an integer dtype", "f32"]);
    // The first one counts, also beyond the first piece of 256 KiB.
    let mut many = vec![7i16; 300_000];
    many[200_001] = -1;
    many[299_999] = -2;
    let path = file(&dir, "<i2", false, &[300_000], &le(&many, |x| x.to_le_bytes()));
    says(&read(path, 300_000), &["-1 at index [200001]"]);
}

#[test]
fn files_that_are_no_arrays_are_refused_with_a_way_out() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| Reader::open(path, None).unwrap_err();
    let missing = open(&dir.path().join("missing.npy"));
    assert!(matches!(missing, Error::Io { doing: "open", .. }), "{missing:?}");
    says(&open(dir.path()), &["got a directory"]);
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    says(&open(&write("empty.npy", b"")), &["got an empty file"]);
    says(&open(&write("a.npz", b"PK\x03\x04rest of the archive")), &["zip archive (.npz?): unzip it"]);
    says(&open(&write("text.npy", b"1.0, 2.0, 3.0\n")), &["starts with", "1.0, 2.0"]);
    // A single number can be a code, but not a vector.
    let number = Reader::open(&file(&dir, "<f4", false, &[], &[0; 4]), None).unwrap();
    let error = number.read_rows(0, &mut [0.0], &mut Vec::new()).unwrap_err();
    says(&error, &["vectors along the last axis", "a single number"]);
    #[cfg(unix)]
    says(&open(Path::new("/dev/null")), &["a pipe or device"]);
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "<f4", false, &[3, 5], &[1; 60]);
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(Reader::open(&path, None).is_err(), "opened with {len} of {} bytes", whole.len());
    }
    let error = Reader::open(&path, None).unwrap_err();
    says(
        &error,
        &[&format!("expected {} bytes for shape [3, 5] of f32", whole.len()), &format!("got {}", whole.len() - 1)],
    );
    // NumPy appends arrays to one file; the first is the one that is read.
    std::fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(Reader::open(&path, None).unwrap().elements(), 15);
}

#[test]
fn a_shape_beyond_the_file_is_refused_before_anything_is_allocated() {
    let dir = TempDir::new().unwrap();
    // 2^60 bytes: addressable, and far more than any machine has.
    let path = file(&dir, "<f4", false, &[1 << 48, 1 << 10], &[0; 64]);
    says(&Reader::open(&path, None).unwrap_err(), &["expected 1152921504606847063 bytes", "bytes (cut short?)"]);
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "<f8", false, &[100, 3], &[0; 2400]);
    let reader = Reader::open(&path, None).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let error = rows(&reader, 0, 100).unwrap_err();
    assert!(
        matches!(&error, Error::Io { doing: "read", source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof),
        "{error:?}"
    );
}

#[test]
fn threads_share_a_reader() {
    let dir = TempDir::new().unwrap();
    let values: Vec<i16> = (0..20_000).map(|i| i as i16).collect();
    let reader = Reader::open(&file(&dir, "<i2", true, &[2000, 10], &le(&values, |x| x.to_le_bytes())), None).unwrap();
    let (whole, _) = rows(&reader, 0, 2000).unwrap();
    std::thread::scope(|scope| {
        for first in (0..2000).step_by(125) {
            let (reader, whole) = (&reader, &whole);
            scope.spawn(move || {
                let (block, _) = rows(reader, first, 125).unwrap();
                assert!(block == whole[first * 10..(first + 125) * 10]);
            });
        }
    });
}

fn writer(dir: &TempDir, name: &str, header: Header) -> (PathBuf, Writer) {
    let path = dir.path().join(name);
    let writer = Writer::new(File::create(&path).unwrap(), &path, header).unwrap();
    (path, writer)
}

#[test]
fn rows_written_in_any_order_land_where_the_storage_order_says() {
    let dir = TempDir::new().unwrap();
    let (n, d) = (16_384 + 77, 21);
    let value = |p: usize, t: usize| (p * d + t) as f32;
    let whole: Vec<f32> = (0..n * d).map(|i| value(i / d, i % d)).collect();
    for fortran in [false, true] {
        let header = Header::new(Scalar::F32, &[n, d], fortran).unwrap();
        let start = header.data_start as usize;
        let (path, mut writer) = writer(&dir, &format!("{fortran}.npy"), header);
        for (first, end) in [(10, 20), (0, 10), (16_460, n), (20, 16_460)] {
            writer.write_rows(first, &whole[first * d..end * d]).unwrap();
        }
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), start + 4 * n * d);
        for (i, element) in bytes[start..].chunks(4).enumerate() {
            let want = if fortran { value(i % n, i / n) } else { value(i / d, i % d) };
            assert_eq!(f32::from_le_bytes(element.try_into().unwrap()), want, "element {i}, fortran: {fortran}");
        }
    }
}

#[test]
fn codes_and_values_are_written_as_they_are_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    for (scalar, largest, bytes) in [
        (Scalar::U8, 0xff, vec![1, 2, 255]),
        (Scalar::U16, 0xffff, vec![1, 0, 2, 0, 255, 255]),
        (Scalar::U32, u32::MAX, vec![1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255]),
    ] {
        let header = Header::new(scalar, &[3], false).unwrap();
        let start = header.data_start as usize;
        let (path, mut writer) = writer(&dir, scalar.name(), header);
        writer.write_codes(1, &[2, largest]).unwrap();
        if scalar != Scalar::U32 {
            let error = writer.write_codes(0, &[0, largest + 1]).unwrap_err();
            says(&error, &[&format!("0 to {largest} ({})", scalar.name()), &format!("{} at position 1", largest + 1)]);
        }
        says(&writer.write_codes(2, &[1, 1]).unwrap_err(), &["lie within 3"]);
        says(&writer.write_rows(0, &[1.0]).unwrap_err(), &["of f32", scalar.name()]);
        writer.write_codes(0, &[1]).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::read(path).unwrap()[start..], bytes);
    }
    let header = Header::new(Scalar::F32, &[2, 3], true).unwrap();
    let start = header.data_start as usize;
    let (path, mut writer) = writer(&dir, "values", header);
    says(&writer.write_codes(0, &[1]).unwrap_err(), &["of u8, u16, u32", "f32"]);
    says(&writer.write_rows(0, &[1.0; 4]).unwrap_err(), &["a whole number of rows of 3"]);
    writer.write_values(0, &[0.0, 1.0, 2.0, 3.0]).unwrap();
    writer.write_values(4, &[4.0, 5.0]).unwrap();
    writer.finish().unwrap();
    let want: Vec<u8> = (0..6u8).flat_map(|x| f32::from(x).to_le_bytes()).collect();
    assert_eq!(std::fs::read(path).unwrap()[start..], want);
}

#[test]
fn many_narrow_codes_are_written_whole() {
    let dir = TempDir::new().unwrap();
    let codes: Vec<u32> = (0..600_001).map(|i| i * 31 % 65_536).collect();
    let (path, mut writer) = writer(&dir, "codes.npy", Header::new(Scalar::U16, &[600_001], false).unwrap());
    writer.write_codes(0, &codes).unwrap();
    writer.finish().unwrap();
    let mut got = vec![0; codes.len()];
    Reader::open(&path, None).unwrap().read_codes(0, &mut got, &mut Vec::new()).unwrap();
    assert!(got == codes);
}

#[test]
fn a_file_with_a_gap_is_not_finished() {
    let dir = TempDir::new().unwrap();
    let (_, mut writer) = writer(&dir, "gap.npy", Header::new(Scalar::F32, &[10, 2], false).unwrap());
    writer.write_rows(0, &[1.0; 8]).unwrap();
    writer.write_rows(5, &[1.0; 10]).unwrap();
    says(&writer.finish().unwrap_err(), &["all 20 elements", "none at position 8"]);
    let path = dir.path().join("gap.npy");
    let file = File::options().write(true).open(&path).unwrap();
    let error = Writer::new(file, &path, Header::new(Scalar::F32, &[1], false).unwrap()).unwrap_err();
    says(&error, &["an empty file to write to"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let path = Path::new("/dev/full");
    let file = File::options().write(true).open(path).unwrap();
    let error = Writer::new(file, path, Header::new(Scalar::F32, &[1], false).unwrap()).unwrap_err();
    assert!(
        matches!(&error, Error::Io { doing: "write", source, .. } if source.raw_os_error() == Some(libc::ENOSPC)),
        "{error:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_come_back_as_they_were_written(
        shape in prop::collection::vec(1usize..9, 1..5),
        fortran in any::<bool>(),
        big_endian in any::<bool>(),
        seed in any::<u32>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = TempDir::new().unwrap();
        let mut header = Header::new(Scalar::F32, &shape, fortran).unwrap();
        header.big_endian = big_endian;
        let d = *shape.last().unwrap();
        let values: Vec<f32> = (0..header.elements() as u32).map(|i| f32::from_bits((i ^ seed) & 0x7eff_ffff)).collect();
        let cut = cut.index(values.len() / d + 1);
        let (path, mut writer) = writer(&dir, "x.npy", header.clone());
        writer.write_rows(cut, &values[cut * d..]).unwrap();
        writer.write_rows(0, &values[..cut * d]).unwrap();
        writer.finish().unwrap();
        let reader = Reader::open(&path, None).unwrap();
        prop_assert_eq!(reader.header(), &header);
        let mut scratch = vec![0xaa; 3];
        let mut got = vec![0.0; values.len()];
        let (before, after) = got.split_at_mut(cut * d);
        prop_assert_eq!(reader.read_rows(0, before, &mut scratch).unwrap(), 0);
        prop_assert_eq!(reader.read_rows(cut, after, &mut scratch).unwrap(), 0);
        prop_assert_eq!(got.map_bits(), values.map_bits());
    }
}
