//! Quantizers: what turns vectors into codes and back.

pub mod groups;
pub mod loss;
pub mod packed;
pub mod product;
pub mod vector;
