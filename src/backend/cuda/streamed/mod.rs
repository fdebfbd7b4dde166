//! The operations of the contract for rows and results in host memory: block by block through the card.

pub(crate) mod adc_scan;
pub(crate) mod assign;
pub(crate) mod decode;
pub(crate) mod encode_parts;
pub(crate) mod pairwise_sq_l2;
mod results;
pub(crate) mod top_k;
