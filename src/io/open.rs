//! Opening a file as one array, whatever the format.

use super::npy::{Fault, Header, MAGIC, Scalar, header_extent, positioned};
use super::safetensors::{self, Found};
use super::vecs::Format;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// An open file that holds every element that its header speaks of.
pub(super) struct Array {
    pub(super) file: File,
    pub(super) header: Header,
    /// Whether every row follows its dimension in the file.
    pub(super) has_dimensions: bool,
    pub(super) metadata: BTreeMap<String, String>,
    /// All tensors of the file.
    pub(super) names: Vec<String>,
}

/// What is read.
const FORMATS: &str = "a .npy, .safetensors, .fvecs, .ivecs, .bvecs, .fbin, .ibin, .u8bin or .i8bin file";

/// Opens `path`; what it is comes from its first bytes, then from its name. Reads the header only.
pub(super) fn array(path: &Path, name: Option<&str>, dtype: Option<Scalar>) -> Result<Array> {
    let io = |doing| move |source| Error::Io { file: path.to_path_buf(), doing, source };
    let refused = |expected: &str, got: &str| Err(Fault::new(expected, got).at(path));
    // Asked by name first: opening a named pipe would wait for its writer.
    let found = std::fs::metadata(path).map_err(io("open"))?;
    if !found.is_file() {
        let got = if found.is_dir() { "a directory" } else { "a pipe or device, which has no positions" };
        return refused(FORMATS, got);
    }
    let file = File::open(path).map_err(io("open"))?;
    let size = file.metadata().map_err(io("read"))?.len();
    if size == 0 {
        return refused(FORMATS, "an empty file");
    }

    let mut start = vec![0; size.min(12) as usize];
    positioned::read_exact(&file, &mut start, 0).map_err(io("read"))?;
    let is_npy = start.starts_with(MAGIC);
    if !is_npy && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        let Found { header, metadata, names } = safetensors::read_header(&file, path, size, name, dtype)?;
        end(&header, size).map_err(|fault| fault.at(path))?;
        return Ok(Array { file, header, has_dimensions: false, metadata, names });
    }
    if let Some(format) = Format::of(path).filter(|_| !is_npy) {
        let header = format.header(&start, size, name, dtype).map_err(|fault| fault.at(path))?;
        if !format.has_dimensions {
            check_size(&header, size, path)?;
        }
        let (has_dimensions, metadata) = (format.has_dimensions, BTreeMap::new());
        return Ok(Array { file, header, has_dimensions, metadata, names: Vec::new() });
    }
    if start.starts_with(b"PK\x03\x04") {
        return refused("a .npy file", "a zip archive (.npz?): unzip it and name one of its .npy files");
    }
    let (_, data_start) = header_extent(&start).map_err(|fault| fault.at(path))?;
    if let Some(name) = name {
        return refused(&format!("a .safetensors file with a tensor '{name}'"), "a .npy file");
    }
    start.resize(size.min(data_start as u64) as usize, 0);
    positioned::read_exact(&file, &mut start, 0).map_err(io("read"))?;
    let header = Header::parse(path, &start, dtype)?;
    check_size(&header, size, path)?;
    Ok(Array { file, header, has_dimensions: false, metadata: BTreeMap::new(), names: Vec::new() })
}

/// Refuses a file of `size` bytes that is too short for its elements; what follows them is ignored.
fn check_size(header: &Header, size: u64, path: &Path) -> Result<()> {
    let end = end(header, size).map_err(|fault| fault.at(path))?;
    if size > end {
        log::warn!("{}: {} bytes after the array are ignored", path.display(), size - end);
    }
    Ok(())
}

/// Where the last element ends, in a file of `size` bytes that holds it.
fn end(header: &Header, size: u64) -> std::result::Result<u64, Fault> {
    let (shape, scalar) = (&header.shape, header.scalar);
    // Both terms were checked when the header was read: no overflow.
    let end = header.data_start + (header.elements() * scalar.size()) as u64;
    if size < end {
        let expected = format!("{end} bytes for shape {shape:?} of {}", scalar.name());
        return Err(Fault::new(expected, format!("{size} bytes (cut short?)")));
    }
    Ok(end)
}
