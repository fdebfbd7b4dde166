//! Codes in as few bits as they need: m numbers below k, each from its lowest bit, one after the other.

use crate::codebook::Codebook;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::matrix::{Element, MatrixView};
use rayon::prelude::*;

/// Most codewords of a sub-quantizer: 16 bits.
const MOST: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    m: usize,
    k: usize,
    bits: u32,
}

impl Packed {
    pub fn new(op: &'static str, m: usize, k: usize) -> Result<Packed> {
        if k == 0 || k > MOST {
            let expected = format!("1 to {MOST}, for codes of 1 to 16 bits");
            return Err(Error::InvalidParameter { op, name: "k", expected, got: k.to_string() });
        }
        Ok(Packed { m, k, bits: (k - 1).checked_ilog2().map_or(1, |log| log + 1) })
    }

    pub fn m(self) -> usize {
        self.m
    }

    pub fn k(self) -> usize {
        self.k
    }

    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Bytes of a code.
    pub fn code_size(self) -> usize {
        (self.m * self.bits as usize).div_ceil(8)
    }

    /// How many codes these are.
    pub fn count(self, op: &'static str, codes: &[u8]) -> Result<usize> {
        let size = self.code_size();
        if !codes.len().is_multiple_of(size) {
            let expected = format!("codes of {size} bytes each");
            return Err(Error::Shape { op, expected, got: format!("{} bytes", codes.len()) });
        }
        Ok(codes.len() / size)
    }

    /// Packs numbers that lie column by column, `stride` apart, into as many codes as there is room for. They are below k.
    pub fn pack_columns(self, columns: &[u32], stride: usize, codes: &mut [u8]) {
        for (i, code) in codes.chunks_exact_mut(self.code_size()).enumerate() {
            self.pack_one((0..self.m).map(|s| columns[s * stride + i]), code);
        }
    }

    pub fn pack(self, op: &'static str, numbers: &[u32]) -> Result<Vec<u8>> {
        if !numbers.len().is_multiple_of(self.m) {
            let expected = format!("{} numbers for each vector", self.m);
            return Err(Error::Shape { op, expected, got: numbers.len().to_string() });
        }
        if let Some(position) = numbers.iter().position(|&number| number as usize >= self.k) {
            return Err(Error::CodeOutOfRange { op, position, code: numbers[position], k: self.k });
        }
        let mut codes = vec![0; numbers.len() / self.m * self.code_size()];
        for (code, numbers) in codes.chunks_exact_mut(self.code_size()).zip(numbers.chunks_exact(self.m)) {
            self.pack_one(numbers.iter().copied(), code);
        }
        Ok(codes)
    }

    fn pack_one(self, numbers: impl Iterator<Item = u32>, code: &mut [u8]) {
        if self.bits == 8 {
            code.iter_mut().zip(numbers).for_each(|(byte, number)| *byte = number as u8);
            return;
        }
        // Below 2^24: at most 7 bits wait for a whole byte when 16 come.
        let (mut waiting, mut bits, mut bytes) = (0u32, 0, code.iter_mut());
        for number in numbers {
            waiting |= number << bits;
            bits += self.bits;
            while bits >= 8 {
                if let Some(byte) = bytes.next() {
                    *byte = waiting as u8;
                }
                waiting >>= 8;
                bits -= 8;
            }
        }
        if let Some(byte) = bytes.next() {
            *byte = waiting as u8;
        }
    }

    pub fn unpack(self, codes: &[u8]) -> Vec<u32> {
        codes.chunks_exact(self.code_size()).flat_map(|code| (0..self.m).map(|s| self.number(code, s))).collect()
    }

    /// All numbers name a codeword; else the first that does not. Where all numbers of so many bits do, there is nothing
    /// to look at.
    pub fn check(self, op: &'static str, codes: &[u8]) -> Result<()> {
        if self.k == 1 << self.bits {
            return Ok(());
        }
        let first_bad = |code: &[u8]| (0..self.m).find(|&s| self.number(code, s) as usize >= self.k);
        let Some((i, s)) = codes
            .par_chunks_exact(self.code_size())
            .enumerate()
            .find_map_first(|(i, code)| first_bad(code).map(|s| (i, s)))
        else {
            return Ok(());
        };
        let code = self.number(&codes[i * self.code_size()..], s);
        Err(Error::CodeOutOfRange { op, position: i * self.m + s, code, k: self.k })
    }

    /// The numbers of sub-quantizer `s`.
    pub fn unpack_column(self, codes: &[u8], s: usize, numbers: &mut [u32]) {
        for (number, code) in numbers.iter_mut().zip(codes.chunks_exact(self.code_size())) {
            *number = self.number(code, s);
        }
    }

    /// Number `s` of a code.
    pub fn number(self, code: &[u8], s: usize) -> u32 {
        let start = s * self.bits as usize;
        let (first, shift) = (start / 8, start % 8);
        // 16 bits that begin within a byte end in the third at the latest.
        let bytes = code[first..].iter().take(3).rev().fold(0, |all, &byte| all << 8 | u32::from(byte));
        bytes >> shift & ((1 << self.bits) - 1)
    }
}

/// The codebooks of m quantizers, one after the other in `codewords`, `[m k, ...]`.
pub(crate) fn codebooks<T: Element>(
    op: &'static str,
    codewords: MatrixView<'_, T>,
    m: usize,
    device: &Device,
) -> Result<(Vec<Codebook>, Packed)> {
    let rows = codewords.rows();
    if m == 0 || !rows.is_multiple_of(m) {
        let expected = format!("a divisor of the {rows} codewords");
        return Err(Error::InvalidParameter { op, name: "m", expected, got: m.to_string() });
    }
    let k = rows / m;
    let packed = Packed::new(op, m, k)?;
    let codebook = |s: usize| {
        let own = codewords.block(s * k..(s + 1) * k);
        Codebook::new(own, device).map_err(|error| error.of_part_at(s * k, 0))
    };
    Ok(((0..m).map(codebook).collect::<Result<_>>()?, packed))
}
