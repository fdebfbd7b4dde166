//! The values of flags: what can be said, and what it means.

use clap::ValueEnum;
use codeword::Precision;
use codeword::io::npy::Scalar;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CodeDtype {
    U8,
    U16,
    U32,
}

impl CodeDtype {
    /// The smallest that holds the codes of `k` codewords, at least one.
    pub fn smallest(k: usize) -> CodeDtype {
        let all = [CodeDtype::U8, CodeDtype::U16, CodeDtype::U32];
        all.into_iter().find(|dtype| k - 1 <= dtype.largest()).unwrap_or(CodeDtype::U32)
    }

    /// The largest code it holds.
    pub fn largest(self) -> usize {
        match self {
            CodeDtype::U8 => usize::from(u8::MAX),
            CodeDtype::U16 => usize::from(u16::MAX),
            CodeDtype::U32 => u32::MAX as usize,
        }
    }

    pub fn scalar(self) -> Scalar {
        match self {
            CodeDtype::U8 => Scalar::U8,
            CodeDtype::U16 => Scalar::U16,
            CodeDtype::U32 => Scalar::U32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitChoice {
    Random,
    #[value(name = "kmeans++")]
    PlusPlus,
    #[value(name = "kmeans||")]
    Parallel,
    Hierarchical,
    Progressive,
}

/// What turns vectors into codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quantizer {
    /// A codebook: one number for a vector
    Vq,
    /// A product quantizer: m numbers, one for each part of a vector
    Pq,
    /// One of rotated vectors, with the rotation that suits it
    Opq,
    /// A residual quantizer: m numbers, each for what the ones before leave of a vector
    Rvq,
}

impl Quantizer {
    /// As flags and models name it.
    pub fn name(self) -> &'static str {
        match self {
            Quantizer::Vq => "vq",
            Quantizer::Pq => "pq",
            Quantizer::Opq => "opq",
            Quantizer::Rvq => "rvq",
        }
    }

    /// In a sentence.
    pub fn described(self) -> &'static str {
        match self {
            Quantizer::Vq => "a codebook",
            Quantizer::Pq => "a product quantizer",
            Quantizer::Opq => "an optimised product quantizer",
            Quantizer::Rvq => "a residual quantizer",
        }
    }

    /// What each number of a code comes from.
    pub fn part(self) -> &'static str {
        match self {
            Quantizer::Vq => "codebook",
            Quantizer::Pq | Quantizer::Opq => "sub-quantizer",
            Quantizer::Rvq => "stage",
        }
    }

    pub fn of_name(name: &str) -> Option<Quantizer> {
        Quantizer::value_variants().iter().copied().find(|quantizer| quantizer.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reinterpret {
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    Error,
    Sentinel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    Exact,
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    Auto,
    Always,
    Never,
}

/// A number of bytes: `65536`, `512M`, `1.5GiB`. Suffixes are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Precision {
        match choice {
            PrecisionChoice::Exact => Precision::Exact,
            PrecisionChoice::Fast => Precision::Fast,
        }
    }
}

impl From<Policy> for codeword::NonFinite {
    fn from(policy: Policy) -> codeword::NonFinite {
        match policy {
            Policy::Error => codeword::NonFinite::Error,
            Policy::Sentinel => codeword::NonFinite::Sentinel,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let suffix = suffix.trim().to_ascii_lowercase();
        let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
            "" => Some(0),
            "k" => Some(10),
            "m" => Some(20),
            "g" => Some(30),
            "t" => Some(40),
            _ => None,
        };
        let bytes = power.zip(number.parse::<f64>().ok()).map(|(power, number)| number * f64::from(power).exp2());
        match bytes {
            Some(bytes) if (1.0..9e18).contains(&bytes) => Ok(Size(bytes as u64)),
            _ => Err("expected a number of bytes above 0, such as 65536, 512M or 2G".into()),
        }
    }
}

/// A finite number that is not negative.
pub fn weight(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a finite number of at least 0".into()),
    }
}

/// A part of the whole, but not all of it.
pub fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a number of at least 0 and below 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_suffixes() {
        let size = |text: &str| text.parse::<Size>().ok().map(|size| size.0);
        assert_eq!(size("65536"), Some(65536));
        assert_eq!(size("512M"), Some(512 << 20));
        assert_eq!(size("1.5GiB"), Some(3 << 29));
        assert_eq!(size("2 kb"), Some(2048));
        for wrong in ["", "M", "0", "-1", "1X", "1e3", "nan", "99999999T", "1.2.3"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
