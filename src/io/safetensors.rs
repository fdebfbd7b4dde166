//! The header of a `.safetensors` file, read as that of an array: 8 bytes of length, JSON, then the elements.

use super::npy::{Fault, Header, Scalar, array_bytes, positioned};
use crate::error::{Error, Result};
use ::safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Names that are looked for where none is given.
const NAMES: [&str; 4] = ["codebook", "codebooks", "codewords", "vectors"];

/// What a file says of itself.
pub(super) struct Found {
    pub header: Header,
    /// The free-form entries.
    pub metadata: BTreeMap<String, String>,
    /// All tensors, sorted.
    pub names: Vec<String>,
}

/// Finds one tensor, and what else there is. `size` is that of the file: it limits what is read and must be
/// exactly what the header describes.
pub(super) fn read_header(
    file: &File,
    path: &Path,
    size: u64,
    name: Option<&str>,
    dtype: Option<Scalar>,
) -> Result<Found> {
    let io = |source| Error::Io { file: path.to_path_buf(), doing: "read", source };
    let fault = |expected: &str, got: String| Fault::new(expected, got).at(path);
    let Some(rest) = size.checked_sub(8) else {
        return Err(fault("a .safetensors file", format!("{size} bytes in all")));
    };
    let mut len = [0; 8];
    positioned::read_exact(file, &mut len, 0).map_err(io)?;
    let len = u64::from_le_bytes(len);
    if len > rest.min(MAX_HEADER) {
        return Err(fault(
            &format!("a .safetensors header of at most {} bytes", rest.min(MAX_HEADER)),
            format!("{len} bytes"),
        ));
    }
    let mut json = vec![0; len as usize];
    positioned::read_exact(file, &mut json, 8).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&json).map_err(|e| fault("a valid .safetensors header", e.to_string()))?;
    if metadata.data_len() as u64 != rest - len {
        let expected = format!("{} bytes of tensors", metadata.data_len());
        return Err(fault(&expected, format!("{} (cut short or not a .safetensors file?)", rest - len)));
    }

    let mut names = metadata.offset_keys();
    names.sort();
    let (name, header) = find(&metadata, &names, name, 8 + len).map_err(|fault| fault.at(path))?;
    let header = taken_for(header, &name, dtype).map_err(|fault| fault.at(path))?;
    let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Found { header, metadata, names })
}

/// The tensor that is asked for by name, or else the one that must be meant.
fn find(
    metadata: &Metadata,
    names: &[String],
    name: Option<&str>,
    data_start: u64,
) -> std::result::Result<(String, Header), Fault> {
    let known = |name: &str| names.iter().any(|n| n == name);
    let chosen = match name {
        Some(name) => known(name).then_some(name),
        None if names.len() == 1 => names.first().map(String::as_str),
        None => NAMES.into_iter().find(|name| known(name)),
    };
    let Some((chosen, info)) = chosen.and_then(|name| Some((name, metadata.info(name)?))) else {
        let expected = match name {
            Some(name) => format!("a tensor '{name}'"),
            None => format!("one tensor, or one called '{}' (rename it, or save it alone)", NAMES.join("', '")),
        };
        return Err(Fault::new(expected, listed(names)));
    };
    let scalar = match info.dtype {
        Dtype::F16 => Scalar::F16,
        Dtype::BF16 => Scalar::Bf16,
        Dtype::F32 => Scalar::F32,
        Dtype::F64 => Scalar::F64,
        Dtype::I8 => Scalar::I8,
        Dtype::I16 => Scalar::I16,
        Dtype::I32 => Scalar::I32,
        Dtype::I64 => Scalar::I64,
        Dtype::U8 => Scalar::U8,
        Dtype::U16 => Scalar::U16,
        Dtype::U32 => Scalar::U32,
        Dtype::U64 => Scalar::U64,
        other => {
            let expected = "f16, bf16, f32, f64 or integers of 1 to 8 bytes; save with dtype float32";
            return Err(Fault::new(expected, format!("{other} in tensor '{chosen}'")));
        }
    };
    if array_bytes(scalar, &info.shape).is_none() {
        let got = format!("shape {:?} of {} in tensor '{chosen}'", info.shape, scalar.name());
        return Err(Fault::new("a tensor that this machine can address", got));
    }
    let data_start = data_start + info.data_offsets.0 as u64;
    let header = Header { scalar, big_endian: false, fortran_order: false, shape: info.shape.clone(), data_start };
    Ok((chosen.into(), header))
}

/// Applies the caller's `dtype`, as the `.npy` reader does.
fn taken_for(mut header: Header, name: &str, dtype: Option<Scalar>) -> std::result::Result<Header, Fault> {
    match (dtype, header.scalar) {
        (Some(Scalar::Bf16), Scalar::U16) => header.scalar = Scalar::Bf16,
        (Some(asked), found) if asked != found => {
            return Err(Fault::new(
                format!("{}, as asked for", asked.name()),
                format!("{} in tensor '{name}'", found.name()),
            ));
        }
        _ => {}
    }
    Ok(header)
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("'{}'", name.escape_debug())).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    if names.is_empty() { "no tensors".into() } else { format!("{}{more}", shown.join(", ")) }
}
