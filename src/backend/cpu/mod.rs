//! The CPU backend: one filter pass at the speed of the vector units, and exact arithmetic for what it leaves open.
//!
//! [`panels`] packs the codebook once ([`centre`] says around what), [`rows`] packs blocks of vectors, [`filter`] scores tiles of one against
//! the other, [`blocks`] splits the rows among threads,
//! [`look`] settles what the bounds leave open, [`exact`] has the last word.

pub(crate) mod assign;
mod blocks;
mod centre;
pub(crate) mod direct;
mod exact;
pub(crate) mod filter;
pub(crate) mod gather;
pub mod isa;
mod kernels;
mod lanes;
mod look;
pub(crate) mod pairwise_sq_l2;
pub(crate) mod panels;
mod rows;
pub(crate) mod sq_sums;
pub(crate) mod top_k;

/// Packs codewords for the instruction set in use.
pub(crate) fn prepare(codewords: crate::MatrixView<'_, f32>, isa: isa::Isa) -> panels::Panels {
    panels::Panels::new(codewords, kernels::Kernels::of(isa))
}
