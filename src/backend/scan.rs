//! Codes that a device goes through by tables of distances: where they are gone through, and the r nearest.

use crate::codebook::Codebook;
#[cfg(feature = "cuda")]
use crate::codebook::Placed;
use crate::error::Result;
use std::ops::Range;

#[cfg(feature = "cuda")]
use crate::backend::cuda::{adc_scan::Shape, codebook::DeviceCodebook, streamed::adc_scan::nearest};

/// What a code consists of, as a device reads it: m numbers below k of 4, 8 or 16 bits, each from its lowest bit, in words
/// of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub m: u32,
    pub k: u32,
    pub bits: u32,
}

impl Numbers {
    /// Entries of the table of a query.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "no device asks"))]
    pub fn entries(&self) -> usize {
        self.m as usize * self.k as usize
    }

    /// Words of a code.
    pub fn words(&self) -> usize {
        (self.m as usize * self.bits as usize).div_ceil(32)
    }
}

/// Codes whose words lie beside each other: `[ceil(n / GROUP), words, GROUP]`, zeros where there is no code.
pub(crate) const GROUP: usize = 128;

/// A scan by the device of a codebook. There is none where there is no CUDA.
pub(crate) struct DeviceScan<'a> {
    #[cfg(feature = "cuda")]
    resident: &'a DeviceCodebook,
    #[cfg(feature = "cuda")]
    shape: Shape,
    #[cfg(not(feature = "cuda"))]
    never: (std::convert::Infallible, std::marker::PhantomData<&'a Codebook>),
}

#[cfg(feature = "cuda")]
impl<'a> DeviceScan<'a> {
    /// A scan of `n` codes, fewer than 2^32, for the `r` nearest to each of `queries`, by the device of `codebook`. None
    /// where that is the processor, and where it has no room for tables and lists of four queries, which the log tells.
    pub fn new(
        op: &'static str,
        codebook: &'a Codebook,
        numbers: Numbers,
        n: usize,
        queries: usize,
        r: usize,
    ) -> Result<Option<Self>> {
        let Placed::Cuda(resident) = codebook.placed() else { return Ok(None) };
        let (shape, free) = resident.scan_shape(op, numbers, n, queries, r)?;
        if shape.is_none() {
            log::warn!(
                "tables and lists of four queries, {} x {} entries and {r} neighbours each, take more than a part of {free} \
                 bytes of {}: the processor goes through the codes",
                numbers.m,
                numbers.k,
                codebook.device()
            );
        }
        Ok(shape.map(|shape| DeviceScan { resident, shape }))
    }

    /// Queries of a pass, at most.
    pub fn queries(&self) -> usize {
        self.shape.queries as usize
    }

    /// The keys of the codes nearest to each query of a pass, in no order: bits of the distance times 2^32, plus the place of the
    /// code. r of them or more for each, those of one after those of the other. `tables` are `[queries, m, k]`, no entry
    /// a NaN or negative. `write` fills words with those of a range of codes, whose numbers are below k.
    pub fn keys(
        &self,
        op: &'static str,
        tables: &[f32],
        n: usize,
        write: impl Fn(Range<usize>, &mut [u32]),
    ) -> Result<Vec<Vec<u64>>> {
        nearest(op, self.resident, &self.shape, tables, n, write)
    }
}

#[cfg(not(feature = "cuda"))]
impl<'a> DeviceScan<'a> {
    pub fn new(
        _: &'static str,
        _: &'a Codebook,
        _: Numbers,
        _: usize,
        _: usize,
        _: usize,
    ) -> Result<Option<DeviceScan<'a>>> {
        Ok(None)
    }

    pub fn queries(&self) -> usize {
        match self.never.0 {}
    }

    pub fn keys(
        &self,
        _: &'static str,
        _: &[f32],
        _: usize,
        _: impl Fn(Range<usize>, &mut [u32]),
    ) -> Result<Vec<Vec<u64>>> {
        match self.never.0 {}
    }
}
