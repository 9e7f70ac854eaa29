//! The source's edge on a real server: handshakes of every kind, the stream, slots, and reading under a snapshot.

// Helpers assert by panicking, as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;
mod transport {
    mod copies;
    mod handshake;
    pub mod place;
    mod slots;
    mod snapshots;
    mod stream;
}
