//! Search among vectors of which only codes are kept.

pub mod adc;
