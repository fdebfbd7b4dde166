//! Quantizers: what turns vectors into codes and back.

pub mod vector;
