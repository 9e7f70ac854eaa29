//! The source's edge on a real server: handshakes of every kind, the stream, slots, and reading
//! under a snapshot.

mod authentication;
mod certificates;
mod copies;
mod handshake;
mod impostor;
pub mod place;
mod slots;
mod snapshots;
mod stream;
