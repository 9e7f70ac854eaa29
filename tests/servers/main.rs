//! Tests with real servers, two for the whole binary (`tests/support`). The writer alone
//! (`tests/writer`) and the random load (`tests/workload`) are binaries of their own.

// Helpers assert by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bad_input;
mod cluster;
mod compose;
mod demo;
#[path = "../engine/mod.rs"]
mod engine;
#[path = "../facts/mod.rs"]
mod facts;
mod first_start;
#[path = "../golden/mod.rs"]
mod golden;
mod libpq;
mod password_files;
mod poolers;
#[path = "../support/mod.rs"]
mod support;
mod target_connection;
#[path = "../transport/mod.rs"]
mod transport;
