//! Any bytes as the start of a `.npy` file: an error or a header that can be trusted, never a panic.
//!
//! `mkdir -p fuzz/corpus/npy_header && cargo +nightly fuzz run npy_header fuzz/corpus/npy_header fuzz/seeds/npy_header -- -max_len=512`
#![no_main]

use codeword::io::npy::{Header, Scalar};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    for dtype in [None, Some(Scalar::Bf16)] {
        let Ok(header) = Header::parse(Path::new("x.npy"), bytes, dtype) else { continue };
        // The elements can be addressed, and so can any part of the shape.
        let size = header.elements().checked_mul(header.scalar.size()).expect("bytes overflow");
        assert!(header.data_start.checked_add(size as u64).is_some());
        assert!(header.data_start <= bytes.len() as u64);
        header.shape.iter().filter(|&&len| len > 0).try_fold(1usize, |p, &len| p.checked_mul(len)).expect("overflow");
        assert!(dtype.is_none_or(|asked| asked == header.scalar));

        // What it means survives being written.
        let written = header.to_bytes();
        assert_eq!(written.len() % 64, 0);
        let again = Header::parse(Path::new("x.npy"), &written, dtype).expect("our own header");
        assert_eq!(again, Header { data_start: written.len() as u64, ..header });
    }
});
