//! `.safetensors` files as the tool writes them: small, whole, the same bytes for the same content.

use crate::cli::values::Quantizer;
use serde_json::{Map, Value, json};

/// An array to write.
pub struct Tensor<'a> {
    pub name: &'a str,
    pub shape: Vec<usize>,
    pub values: Values<'a>,
}

pub enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// The bytes of a file: the length of the header, the header as JSON, padded with blanks to a multiple of 8, and the
/// elements, little-endian. Those of 8 bytes come first, so that all are aligned.
pub fn file(tensors: &[Tensor], metadata: &[(&str, String)]) -> Vec<u8> {
    let entries: Map<String, Value> = metadata.iter().map(|(key, value)| ((*key).into(), json!(value))).collect();
    let mut header = Map::from_iter([("__metadata__".to_string(), Value::Object(entries))]);
    let mut data: Vec<u8> = Vec::new();
    let is_wide = |tensor: &&Tensor| matches!(tensor.values, Values::F64(_));
    for tensor in tensors.iter().filter(is_wide).chain(tensors.iter().filter(|tensor| !is_wide(tensor))) {
        let start = data.len();
        let dtype = match tensor.values {
            Values::F32(values) => {
                data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "F32"
            }
            Values::F64(values) => {
                data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                "F64"
            }
        };
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name.into(), entry);
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat()
}

/// What every file of the tool says of itself.
pub fn metadata(format: &str, quantizer: Quantizer, m: usize, k: usize, d: usize) -> Vec<(&'static str, String)> {
    let mut entries = vec![
        ("format", format.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("quantizer", quantizer.name().into()),
    ];
    if quantizer != Quantizer::Vq {
        entries.push(("m", m.to_string()));
    }
    entries.extend([("k", k.to_string()), ("d", d.to_string())]);
    entries
}
