//! The source's edge on a real server: handshakes of every kind, the stream, slots, and reading
//! under a snapshot.

mod copies;
mod handshake;
pub mod place;
mod slots;
mod snapshots;
mod stream;
