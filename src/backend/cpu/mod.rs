//! The CPU backend: one filter pass at the speed of the vector units, and exact arithmetic for what it leaves open.
//!
//! [`panels`] packs the codebook once ([`centre`] says around what), [`rows`] packs blocks of vectors, [`filter`] scores tiles of one against
//! the other, [`blocks`] splits the rows among threads,
//! [`assign_f32`] and [`assign_pairs`] run such a pass, the latter over pairs of bf16, which [`pair_panels`] and [`pair_rows`] pack for
//! the units that multiply two at once ([`pair_kernels`]); [`assign_fixed`] over pairs of 16-bit integers
//! ([`fixed_kernels`], [`fixed_panels`], [`fixed_rows`]), wherever there are kernels for these and they suit the codebook; few dimensions have a pass of their own,
//! [`assign_small`], with rows in the lanes ([`small_kernels`], [`small_panels`], [`small_rows`], [`small_nearest`]),
//! and its like over integers, [`assign_small_fixed`] ([`small_fixed_kernels`], [`small_fixed_panels`], [`small_fixed_rows`]),
//! and where codewords are many one that looks at few of them, [`assign_boxes`] ([`box_kernels`], [`box_panels`]);
//! where rows are few, [`shares`] of the codewords go to the threads;
//! in k-means labels follow codewords from pass to pass ([`bounds`], [`bound_kernels`]), and the rows that a further codeword
//! of a start is nearer to are told by a short form of all ([`sketch`], [`sketch_kernels`]);
//! [`look`] settles what the bounds leave open, [`exact`] has the last word. [`accumulate`] adds up what belongs together,
//! [`multiply`] makes products of matrices ([`doubles`]), [`svd`] takes them apart, [`polar`] finds the nearest orthogonal one.

pub(crate) mod accumulate;
mod assign;
mod assign_boxes;
mod assign_f32;
mod assign_fixed;
mod assign_pairs;
mod assign_small;
mod assign_small_fixed;
mod blocks;
mod bound_kernels;
pub(crate) mod bounds;
mod box_kernels;
mod box_panels;
mod centre;
pub(crate) mod direct;
mod doubles;
pub(crate) mod exact;
pub(crate) mod filter;
mod fixed_kernels;
mod fixed_panels;
mod fixed_rows;
pub(crate) mod gather;
mod groups;
pub mod isa;
mod kernels;
mod lanes;
mod look;
pub(crate) mod lookups;
pub(crate) mod multiply;
pub(crate) mod normalize;
pub(crate) mod on_host;
mod pair_kernels;
mod pair_panels;
mod pair_rows;
pub(crate) mod pairwise_sq_l2;
pub(crate) mod panels;
pub(crate) mod polar;
mod rows;
mod shares;
mod shortlist;
pub(crate) mod sketch;
mod sketch_kernels;
mod small_fixed_kernels;
mod small_fixed_panels;
mod small_fixed_rows;
mod small_kernels;
mod small_nearest;
mod small_panels;
mod small_rows;
pub(crate) mod sq_sums;
pub(crate) mod svd;
pub(crate) mod top_k;
