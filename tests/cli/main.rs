//! The command line tool as its users start it: one file for each promise, one program for all.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod support;

mod assign;
mod bad_input;
mod composed;
mod examples;
mod product;
mod train;
mod train_large;
mod vecs;
