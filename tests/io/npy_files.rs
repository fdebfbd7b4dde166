//! `.npy` files that other programs wrote, with the crate npyz as an independent reader and writer.

use codeword::io::npy::{Header, Reader, Scalar, Writer};
use npyz::WriterBuilder;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folder of real data, or None (skip) where the environment names none and does not demand it.
fn data() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("CODEWORD_DATA") {
        return Some(PathBuf::from(folder).join("npy"));
    }
    println!("skipped: CODEWORD_DATA not set");
    let required = std::env::var("CODEWORD_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word == "data"), "CODEWORD_DATA not set, and data is required");
    None
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// Every element of our reader's rows against npyz's elements and strides, rounded by `as`.
fn compare(path: &Path) {
    let reader = Reader::open(path, None).unwrap_or_else(|e| panic!("{e}"));
    let npy = npyz::NpyFile::new(File::open(path).unwrap()).unwrap();
    let shape: Vec<usize> = npy.shape().iter().map(|&len| len as usize).collect();
    let strides = npy.strides().to_vec();
    assert_eq!(reader.header().shape, shape);
    let values: Vec<f32> = match reader.header().scalar {
        Scalar::F16 => npy.into_vec::<half::f16>().unwrap().into_iter().map(f32::from).collect(),
        Scalar::F32 => npy.into_vec::<f32>().unwrap(),
        Scalar::F64 => npy.into_vec::<f64>().unwrap().into_iter().map(|x| x as f32).collect(),
        Scalar::I8 => npy.into_vec::<i8>().unwrap().into_iter().map(f32::from).collect(),
        Scalar::I16 => npy.into_vec::<i16>().unwrap().into_iter().map(f32::from).collect(),
        Scalar::I32 => npy.into_vec::<i32>().unwrap().into_iter().map(|x| x as f32).collect(),
        Scalar::I64 => npy.into_vec::<i64>().unwrap().into_iter().map(|x| x as f32).collect(),
        Scalar::U8 => npy.into_vec::<u8>().unwrap().into_iter().map(f32::from).collect(),
        Scalar::U16 => npy.into_vec::<u16>().unwrap().into_iter().map(f32::from).collect(),
        Scalar::U32 => npy.into_vec::<u32>().unwrap().into_iter().map(|x| x as f32).collect(),
        Scalar::U64 => npy.into_vec::<u64>().unwrap().into_iter().map(|x| x as f32).collect(),
        Scalar::Bf16 => unreachable!("not without being asked for"),
    };
    let mut rows = vec![0.0; reader.elements()];
    reader.read_rows(0, &mut rows, &mut Vec::new()).unwrap();
    for (i, got) in rows.iter().enumerate() {
        let (p, t) = (i / reader.cols(), i % reader.cols());
        let index = reader.row_index(p).into_iter().chain([t]);
        let position: u64 = index.zip(&strides).map(|(i, stride)| i as u64 * stride).sum();
        let want = values[position as usize];
        assert!(
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
            "{}: row {p}, column {t}: {got} for {want}",
            path.display()
        );
    }
}

#[test]
fn every_file_of_other_programs_is_read_like_npyz_reads_it_or_refused_by_name() {
    let Some(folder) = data() else { return };
    // Parts of file names, and what the refusal must say.
    let refused = [
        ("scalar", "a single number"),
        ("bool", "booleans (dtype '|b1')"),
        ("_c64_", "complex numbers (dtype '"),
        ("struct", "a structured dtype"),
        ("ragged", "pickled objects are never loaded: save with dtype float32"),
        ("py2-np0-objarr.npy", "pickled objects (dtype '|O8')"),
        ("objarr.npy", "pickled objects are never loaded"),
        (".npz", "zip archive"),
    ];
    let (mut read, mut not) = (0, 0);
    for path in files(&folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        match refused.iter().find(|(part, _)| name.contains(part)) {
            Some((_, says)) => {
                // A single number is an array, but no vector.
                let read = |reader: Reader| reader.read_rows(0, &mut [0.0], &mut Vec::new());
                let error = Reader::open(&path, None).and_then(read).expect_err(name).to_string();
                assert!(error.contains(says) && error.len() < 400, "{error} does not say {says:?}");
                not += 1;
            }
            None => {
                compare(&path);
                read += 1;
            }
        }
    }
    assert!(read >= 70 && not >= 30, "{read} files read, {not} refused");
}

#[test]
fn files_of_numpy_hold_the_numbers_that_numpy_was_given() {
    let Some(folder) = data() else { return };
    let read = |name: &str| {
        let reader = Reader::open(&folder.join(name), None).unwrap();
        let mut rows = vec![0.0; reader.elements()];
        reader.read_rows(0, &mut rows, &mut Vec::new()).unwrap();
        rows
    };
    // One 5 x 7 array in every dialect; its first and last elements as the bytes of the C-order file show them.
    let base = read("numpy_writer/v1_f4_c_5x7.npy");
    assert_eq!((base.len(), base[0], base[1], base[34]), (35, 0.0012301534, 0.29874554, 1.0608987));
    for same in ["v1_f4_fortran_5x7", "v1_bigendian_f4_5x7", "v2_f4_c_5x7", "v3_f4_c_5x7"] {
        assert_eq!(read(&format!("numpy_writer/{same}.npy")), base, "{same}");
    }
    let halves: Vec<f32> = base.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
    assert_eq!(read("numpy_writer/v1_f2_5x7.npy"), halves);
    assert_eq!(read("numpy_writer/v2_bigendian_f2_fortran_5x7.npy"), halves);
    let thousandths: Vec<f32> = base.iter().map(|&x| (f64::from(x) * 1000.0).trunc() as f32).collect();
    assert_eq!(read("numpy_writer/v1_bigendian_i4_5x7.npy"), thousandths);
    assert!(read("numpy_writer/v1_empty_0x7.npy").is_empty());
    let special = read("numpy_writer/v1_nan_inf_f4.npy");
    assert!(special[0].is_nan());
    let bits: Vec<u32> = special[1..].iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, [0x7f80_0000, 0xff80_0000, 0x8000_0000, 1]);
    let counted: Vec<f32> = (0..24u8).map(f32::from).collect();
    for name in ["ndarray-npy/example_f64_big_endian_standard.npy", "npyio/data_float64_2x3x4_corder.npy"] {
        assert_eq!(read(name), counted, "{name}");
    }
    // The Fortran files hold the same array; rows run in storage order: first leading axis fastest.
    let want: Vec<f32> = (0..6).flat_map(|p| (0..4).map(move |t| ((p % 2) * 12 + (p / 2) * 4 + t) as f32)).collect();
    for endian in ["big", "little"] {
        assert_eq!(read(&format!("ndarray-npy/example_f64_{endian}_endian_fortran.npy")), want);
    }
}

#[test]
fn our_headers_are_those_of_numpys_own_files() {
    let Some(folder) = data() else { return };
    let cases: [(&str, Scalar, &[usize], bool); 6] = [
        ("v1_f4_c_5x7", Scalar::F32, &[5, 7], false),
        ("v1_f4_fortran_5x7", Scalar::F32, &[5, 7], true),
        ("v1_f2_5x7", Scalar::F16, &[5, 7], false),
        ("v1_u1_5x7", Scalar::U8, &[5, 7], false),
        ("v1_empty_0x7", Scalar::F32, &[0, 7], false),
        ("v1_nan_inf_f4", Scalar::F32, &[5], false),
    ];
    for (name, scalar, shape, fortran) in cases {
        let numpy = std::fs::read(folder.join(format!("numpy_writer/{name}.npy"))).unwrap();
        let ours = Header::new(scalar, shape, fortran).unwrap().to_bytes();
        assert_eq!(numpy[..128].escape_ascii().to_string(), ours.escape_ascii().to_string(), "{name}");
    }
}

const SHAPES: [&[u64]; 5] = [&[11], &[5, 7], &[1, 6], &[2, 3, 4], &[3, 2, 1, 5]];

#[test]
fn what_npyz_writes_we_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npy");
    macro_rules! check {
        ($($t:ty: $make:expr),*) => {$(
            for shape in SHAPES {
                for order in [npyz::Order::C, npyz::Order::Fortran] {
                    for endian in ["<", ">"] {
                        let native: npyz::TypeStr = match <$t as npyz::AutoSerialize>::default_dtype() {
                            npyz::DType::Plain(native) => native,
                            other => panic!("{other:?}"),
                        };
                        let descr = native.to_string();
                        let descr = if descr.starts_with('|') { descr } else { format!("{endian}{}", &descr[1..]) };
                        let mut writer = npyz::WriteOptions::new()
                            .dtype(npyz::DType::Plain(descr.parse().unwrap()))
                            .shape(shape)
                            .order(order)
                            .writer(File::create(&path).unwrap())
                            .begin_nd()
                            .unwrap();
                        let make: fn(u64) -> $t = $make;
                        writer.extend((0..shape.iter().product::<u64>()).map(make)).unwrap();
                        writer.finish().unwrap();
                        compare(&path);
                    }
                }
            }
        )*};
    }
    check!(
        half::f16: |i| half::f16::from_f32(i as f32 / 8.0 - 3.0),
        f32: |i| (i as f32 - 5.0) * 1.1,
        f64: |i| (i as f64 - 5.0) * 1.1e-3,
        i8: |i| i as i8 - 60,
        i16: |i| 1000 - 100 * i as i16,
        i32: |i| (i as i32).wrapping_mul(99_999_999),
        i64: |i| i as i64 * 999_999_999_999 - 77,
        u8: |i| 255 - i as u8,
        u16: |i| 65_535 - 200 * i as u16,
        u32: |i| u32::MAX - 33_333_333 * i as u32,
        u64: |i| u64::MAX - 333_333_333_333 * i
    );
}

#[test]
fn what_we_write_npyz_reads() {
    let dir = TempDir::new().unwrap();
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let shape: Vec<usize> = shape.iter().map(|&len| len as usize).collect();
        for fortran in [false, true] {
            let path = dir.path().join(format!("{i}-{fortran}.npy"));
            let make = |scalar| {
                let _ = std::fs::remove_file(&path);
                let header = Header::new(scalar, &shape, fortran).unwrap();
                Writer::new(File::create(&path).unwrap(), &path, header).unwrap()
            };
            let read = || npyz::NpyFile::new(File::open(&path).unwrap()).unwrap();
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|i| i as f32 * 0.3 - 1.0).collect();

            let mut writer = make(Scalar::F32);
            writer.write_rows(0, &values).unwrap();
            writer.finish().unwrap();
            compare(&path);
            let npy = read();
            // A 1-d array has one order only, and npyz says C for it.
            assert_eq!(npy.order() == npyz::Order::Fortran, fortran);
            let (cols, rows) = (shape[shape.len() - 1], n / shape[shape.len() - 1]);
            let want: Vec<f32> =
                (0..n).map(|at| if fortran { values[(at % rows) * cols + at / rows] } else { values[at] }).collect();
            assert_eq!(npy.into_vec::<f32>().unwrap(), want);

            let codes: Vec<u32> = (0..n as u32).map(|i| 255 - i).collect();
            for scalar in [Scalar::U8, Scalar::U16, Scalar::U32] {
                let mut writer = make(scalar);
                writer.write_codes(0, &codes).unwrap();
                writer.finish().unwrap();
                let npy = read();
                let got: Vec<u32> = match scalar {
                    Scalar::U8 => npy.into_vec::<u8>().unwrap().into_iter().map(u32::from).collect(),
                    Scalar::U16 => npy.into_vec::<u16>().unwrap().into_iter().map(u32::from).collect(),
                    _ => npy.into_vec::<u32>().unwrap(),
                };
                assert_eq!(got, codes);
            }
        }
    }
}
