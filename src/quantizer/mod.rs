//! Quantizers: what turns vectors into codes and back.

pub mod loss;
pub mod vector;
