//! Quantizers: what turns vectors into codes and back.

mod beam;
pub mod groups;
pub mod loss;
pub mod optimized;
pub mod packed;
pub mod product;
#[cfg(feature = "cuda")]
pub mod product_workspace;
mod projection;
pub mod residual;
mod rotation;
pub mod stages;
pub mod vector;
mod walk;
