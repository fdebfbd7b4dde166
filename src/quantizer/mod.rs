//! Quantizers: what turns vectors into codes and back.

mod beam;
pub mod groups;
pub mod loss;
pub mod packed;
pub mod product;
pub mod residual;
pub mod vector;
