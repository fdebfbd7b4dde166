//! Headers of `.npy` files: the same bytes as NumPy writes, every dialect read, everything else refused by name.

use codeword::Error;
use codeword::io::npy::{Header, Scalar};
use proptest::prelude::*;
use std::path::Path;

fn parse(bytes: &[u8]) -> codeword::Result<Header> {
    Header::parse(Path::new("x.npy"), bytes, None)
}

/// A file start with the given text, padded by nothing.
fn raw(version: u8, text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((text.len() as u16).to_le_bytes()),
        _ => bytes.extend((text.len() as u32).to_le_bytes()),
    }
    bytes.extend(text);
    bytes
}

fn plain(descr: &str, shape: &str) -> Vec<u8> {
    raw(1, format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"))
}

/// The bytes behind `\xNN` escapes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    bytes
}

#[test]
fn headers_are_the_bytes_that_numpy_writes_and_read_back() {
    let golden = include_str!("../golden/npy_headers.txt");
    let mut seen = 0;
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let [name, order, shape, text]: [&str; 4] = line.splitn(4, '|').collect::<Vec<_>>().try_into().unwrap();
        let scalar = Scalar::ALL.into_iter().find(|s| s.name() == name).unwrap();
        let shape: Vec<usize> = shape.split(',').filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect();
        let header = Header::new(scalar, &shape, order == "F").unwrap();
        let numpy = unescaped(text);
        assert_eq!(header.to_bytes().escape_ascii().to_string(), numpy.escape_ascii().to_string(), "{line}");
        assert_eq!(header.data_start, numpy.len() as u64);
        let dtype = (scalar == Scalar::Bf16).then_some(scalar);
        assert_eq!(Header::parse(Path::new("x.npy"), &numpy, dtype).unwrap(), header);
        seen += 1;
    }
    assert_eq!(seen, 44);
}

#[test]
fn a_header_too_long_for_version_1_is_written_as_version_2() {
    let shape = vec![1; 30_000];
    let header = Header { scalar: Scalar::F32, big_endian: false, fortran_order: false, shape, data_start: 0 };
    let bytes = header.to_bytes();
    assert_eq!(bytes[6..8], [2, 0]);
    assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize, bytes.len() - 12);
    assert_eq!(bytes.len() % 64, 0);
    // "(1, 1, …, 1)": three characters for each but the last.
    assert_eq!(bytes.iter().filter(|&&b| b == b'1').count(), 30_000);
}

#[test]
fn every_dialect_of_a_valid_header_reads_the_same() {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 7), }";
    let same = [
        text.to_string(),
        format!("{text}{}\n", " ".repeat(60)),
        format!(" \t{text}"),
        "{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(5,7)}".into(),
        "{'shape': (5, 7,), 'fortran_order': False, 'descr': '<f4'}".into(),
        "{'descr': '<f4', 'fortran_order': False, 'shape': (5L, 7L), }".into(),
        "{\n'descr' :\t'<f4' ,\r\n'fortran_order' : False , 'shape' : ( 5 , 7 , ) , \n}".into(),
    ];
    for text in &same {
        for version in 1..=3 {
            let bytes = raw(version, text);
            let header = parse(&bytes).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((header.scalar, header.big_endian, header.fortran_order), (Scalar::F32, false, false), "{text}");
            assert_eq!((header.shape.as_slice(), header.data_start), ([5, 7].as_slice(), bytes.len() as u64), "{text}");
            assert_eq!(header.elements(), 35);
        }
    }
}

#[test]
fn dtype_strings_give_type_and_byte_order() {
    let kinds = [
        ("f2", Scalar::F16),
        ("f4", Scalar::F32),
        ("f8", Scalar::F64),
        ("i2", Scalar::I16),
        ("i4", Scalar::I32),
        ("i8", Scalar::I64),
        ("u2", Scalar::U16),
        ("u4", Scalar::U32),
        ("u8", Scalar::U64),
    ];
    for (kind, scalar) in kinds {
        for (order, big_endian) in [("<", false), (">", true)] {
            let header = parse(&plain(&format!("'{order}{kind}'"), "(3,)")).unwrap();
            assert_eq!((header.scalar, header.big_endian, header.shape), (scalar, big_endian, vec![3]));
        }
        for order in ["|", "=", ""] {
            let error = parse(&plain(&format!("'{order}{kind}'"), "(3,)")).unwrap_err().to_string();
            assert!(error.contains("byte order"), "{order}{kind}: {error}");
        }
    }
    for (kind, scalar) in [("i1", Scalar::I8), ("u1", Scalar::U8)] {
        for order in ["|", "<", ">"] {
            let header = parse(&plain(&format!("'{order}{kind}'"), "(3,)")).unwrap();
            assert_eq!((header.scalar, header.big_endian), (scalar, false));
        }
    }
}

#[test]
fn bf16_is_read_only_where_it_is_asked_for() {
    let read = |descr, dtype| Header::parse(Path::new("x.npy"), &plain(descr, "(2, 3)"), dtype);
    for (descr, big_endian) in [("'|V2'", false), ("'<V2'", false), ("'>V2'", true), ("'<u2'", false), ("'>u2'", true)]
    {
        let header = read(descr, Some(Scalar::Bf16)).unwrap();
        assert_eq!((header.scalar, header.big_endian), (Scalar::Bf16, big_endian), "{descr}");
    }
    assert_eq!(read("'<u2'", None).unwrap().scalar, Scalar::U16);
    for (descr, dtype, expected, got) in [
        ("'|V2'", None, "say so (--dtype bf16)", "2-byte voids (dtype '|V2')"),
        ("'<f4'", Some(Scalar::Bf16), "2-byte voids or u2", "f32 ('<f4')"),
        ("'<f4'", Some(Scalar::F16), "f16, as asked for", "f32 ('<f4')"),
        ("'|V4'", Some(Scalar::Bf16), "save with dtype float32", "raw bytes (dtype '|V4')"),
    ] {
        let Err(Error::Format { expected: e, got: g, .. }) = read(descr, dtype) else { panic!("{descr} was read") };
        assert!(e.contains(expected) && g.contains(got), "{descr}: expected {e}, got {g}");
    }
    assert_eq!(read("'<f4'", Some(Scalar::F32)).unwrap().scalar, Scalar::F32);
}

#[test]
fn hostile_headers_are_errors_that_name_what_is_wrong() {
    let entries = |text: &str| raw(1, text);
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("2^63 rows", plain("'<f4'", "(9223372036854775808, 2)"), "address"),
        ("2^64 rows", plain("'<f4'", "(18446744073709551616, 2)"), "18446744073709551616"),
        ("a thousand digits", plain("'<f4'", &format!("({},)", "9".repeat(1000))), "99999…"),
        ("product beyond 64 bits", plain("'<f4'", "(4294967296, 4294967296)"), "[4294967296, 4294967296] of f32"),
        ("bytes beyond 63 bits", plain("'<f4'", "(2305843009213693952,)"), "address"),
        ("product hidden by a 0", plain("'<f4'", "(4294967296, 4294967296, 0)"), "address"),
        ("product hidden by a 0 in front", plain("'<f4'", "(0, 4294967296, 4294967296)"), "address"),
        ("negative", plain("'<f4'", "(-1, 3)"), "got -1"),
        ("minus alone", plain("'<f4'", "(-, 3)"), "decimal lengths"),
        ("plus", plain("'<f4'", "(+5, 3)"), "decimal lengths"),
        ("float length", plain("'<f4'", "(5.0, 3)"), "',' after the only length of 'shape', got '.'"),
        ("hex length", plain("'<f4'", "(0x5, 3)"), "got 'x'"),
        ("leading zero", plain("'<f4'", "(05, 3)"), "decimal lengths"),
        ("underscore", plain("'<f4'", "(1_0, 3)"), "got '_'"),
        ("boolean length", plain("'<f4'", "(True, 3)"), "got 'T'"),
        ("no tuple", plain("'<f4'", "(5)"), "',' after the only length"),
        ("number as shape", plain("'<f4'", "5"), "a tuple"),
        ("list as shape", plain("'<f4'", "[5, 3]"), "a tuple"),
        ("None as shape", plain("'<f4'", "None"), "a tuple"),
        ("comma alone", plain("'<f4'", "(,)"), "decimal lengths"),
        ("two commas", plain("'<f4'", "(5,,3)"), "decimal lengths"),
        ("nested shape", plain("'<f4'", "((5, 3), 2)"), "decimal lengths"),
        ("65 axes", plain("'<f4'", &format!("({})", "1, ".repeat(65))), "at most 64 axes"),
        ("parentheses 20k deep in shape", plain("'<f4'", &"(".repeat(20_000)), "decimal lengths"),
        ("parentheses 100k deep in shape", raw(2, format!("{{'shape': {}", "(".repeat(100_000))), "decimal lengths"),
        ("brackets 100k deep in descr", raw(2, format!("{{'descr': {}", "[".repeat(100_000))), "structured"),
        ("braces 100k deep", raw(2, "{".repeat(100_000)), "a key in quotes"),
        ("object", plain("'|O'", "(3,)"), "pickled objects are never loaded: save with dtype float32"),
        ("old object", plain("'|O8'", "(3,)"), "pickled objects (dtype '|O8')"),
        ("structured", plain("[('x', '<f4')]", "(3,)"), "structured dtype"),
        ("structured as tuple", plain("('<f4', (2,))", "(3,)"), "structured dtype"),
        ("boolean", plain("'|b1'", "(3,)"), ".astype('uint8')"),
        ("complex", plain("'<c8'", "(3,)"), "complex numbers (dtype '<c8')"),
        ("bytes string", plain("'|S5'", "(3,)"), "strings (dtype '|S5')"),
        ("unicode string", plain("'<U5'", "(3,)"), "strings"),
        ("date", plain("'<M8[ns]'", "(3,)"), "dates or times"),
        ("long double", plain("'<f16'", "(3,)"), "floats of an unknown size"),
        ("unknown size", plain("'<i3'", "(3,)"), "an unknown dtype (dtype '<i3')"),
        ("unknown letter", plain("'<q8'", "(3,)"), "an unknown dtype"),
        ("empty dtype", plain("''", "(3,)"), "an unknown dtype (dtype '')"),
        ("dtype of 60 kB", plain(&format!("'<f4{}'", "4".repeat(60_000)), "(3,)"), "…"),
        ("dtype as number", plain("4", "(3,)"), "a dtype in quotes"),
        ("backslash", plain(r"'<f\x34'", "(3,)"), r"printable ASCII in quotes, got '\'"),
        ("quote never closed", plain("'<f4", "(3,)"), "after a value, got 'f'"),
        ("non-ASCII in version 1", plain("'<f4\u{e9}'", "(3,)"), "got 0xc3"),
        ("non-ASCII in version 2", raw(2, b"{'descr': '<f4\xe9'}"), "got 0xe9"),
        ("broken UTF-8 in version 3", raw(3, b"{'descr\xff': '<f4'}"), "got 0xff"),
        ("NUL in a string", plain("'<f4\0'", "(3,)"), "got 0x00"),
        ("NUL after the dictionary", entries("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\0"), "got 0x00"),
        ("comment", entries("{'descr': '<f4', # f4\n'fortran_order': False, 'shape': (3,)}"), "got '#'"),
        ("text after the dictionary", entries("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x"), "got 'x'"),
        (
            "key twice",
            entries("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,)}"),
            "'descr' twice",
        ),
        (
            "shape twice",
            entries("{'shape': (3,), 'descr': '<f4', 'fortran_order': False, 'shape': (9,)}"),
            "'shape' twice",
        ),
        ("no shape", entries("{'descr': '<f4', 'fortran_order': False}"), "no 'shape'"),
        ("no descr", entries("{'shape': (3,), 'fortran_order': False}"), "no 'descr'"),
        ("no fortran_order", entries("{'descr': '<f4', 'shape': (3,)}"), "no 'fortran_order'"),
        ("unknown key", entries("{'descr': '<f4', 'order': 1}"), "got 'order'"),
        ("empty dictionary", entries("{}"), "no 'descr'"),
        ("no dictionary", entries(""), "got the end of the header"),
        ("a list", entries("['descr']"), "a dictionary"),
        ("prefixed string", entries("{b'descr': '<f4'}"), "a key in quotes"),
        ("no colon", entries("{'descr' '<f4'}"), "':' after a key"),
        ("no comma", entries("{'descr': '<f4' 'shape': (3,)}"), "',' or '}' after a value"),
        ("two commas after a value", entries("{'descr': '<f4',, 'shape': (3,)}"), "a key in quotes"),
        ("0 for False", entries("{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}"), "True or False"),
        ("false", entries("{'descr': '<f4', 'fortran_order': false, 'shape': (3,)}"), "True or False"),
        ("Falsehood", entries("{'descr': '<f4', 'fortran_order': Falsehood, 'shape': (3,)}"), "got 'h'"),
        ("format 4", raw(4, "{}"), "4.0"),
        ("format 0", raw(0, "{}"), "0.0"),
        ("format 1.1", b"\x93NUMPY\x01\x01\x02\x00{}".to_vec(), "1.1"),
        ("header of 4 GiB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "4294967295 bytes"),
        (
            "header longer than the file",
            b"\x93NUMPY\x01\x00\xf6\xff{}".to_vec(),
            "a header of 65536 bytes, got 12 bytes",
        ),
        ("other magic", b"\x93NUMPX\x01\x00\x02\x00{}".to_vec(), "\"\\x93NUMPX\\x01\\x00\""),
        ("nothing", Vec::new(), "starts with"),
    ];
    for (case, bytes, says) in table {
        let error = match parse(&bytes) {
            Ok(header) => panic!("{case}: read as {header:?}"),
            Err(error) => error,
        };
        assert!(matches!(error, Error::Format { .. }), "{case}: {error:?}");
        let line = error.to_string();
        assert!(line.starts_with("x.npy: expected "), "{case}: {line}");
        assert!(line.contains(says), "{case}: {line:?} does not say {says:?}");
        assert!(line.len() < 300 && !line.contains('\n'), "{case}: {line}");
    }
}

#[test]
fn arrays_without_elements_are_read() {
    for (shape, elements) in [("(0,)", 0), ("(0, 7)", 0), ("(7, 0)", 0), ("(0, 9223372036854775)", 0), ("()", 1)] {
        assert_eq!(parse(&plain("'<f4'", shape)).unwrap().elements(), elements, "{shape}");
    }
}

#[test]
fn a_header_that_no_reader_could_address_is_not_made() {
    for shape in [vec![usize::MAX, 2], vec![1 << 40, 1 << 40], vec![1 << 62, 0], vec![1; 65]] {
        let error = Header::new(Scalar::F32, &shape, false).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{shape:?}: {error:?}");
    }
}

#[test]
fn every_beginning_of_a_header_is_an_error() {
    for version in 1..=3 {
        let whole = raw(version, "{'descr': '>f8', 'fortran_order': True, 'shape': (3, 4, 5), }   \n");
        assert!(parse(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} bytes of version {version}");
        }
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(
        version in 1u8..=3,
        changes in prop::collection::vec((0usize..90, any::<u8>()), 1..4),
    ) {
        let mut bytes = raw(version, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 5), }   \n");
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(header) = parse(&bytes) {
            prop_assert!(header.elements().checked_mul(header.scalar.size()).is_some());
        }
    }

    #[test]
    fn what_is_written_is_what_is_read(
        scalar in prop::sample::select(Scalar::ALL.to_vec()),
        big_endian in any::<bool>(),
        fortran_order in any::<bool>(),
        shape in prop::collection::vec(0usize..40, 0..7),
    ) {
        let mut header = Header::new(scalar, &shape, fortran_order).unwrap();
        header.big_endian = big_endian && scalar.size() > 1;
        let dtype = (scalar == Scalar::Bf16).then_some(scalar);
        prop_assert_eq!(Header::parse(Path::new("x"), &header.to_bytes(), dtype).unwrap(), header);
    }
}
