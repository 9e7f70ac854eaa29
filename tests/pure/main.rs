//! Tests that need no server: the rules of the repository, the command line, hostile input, and the
//! promise in memory (`tests/model`). One test of the model asks a real server whether it says what
//! the model writes: `model::server`.

// Helpers assert by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod circles;
mod cli;
#[path = "../hostile/mod.rs"]
mod hostile;
mod layers;
#[path = "../model/mod.rs"]
mod model;
mod readme;
mod sources;
mod style;
#[path = "../support/mod.rs"]
mod support;

// The files of the model name each other from the root.
use model::{
    author, copy, feed, history, lookups, number, player, source, statement, text, wire, writer,
};
