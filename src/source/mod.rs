//! The source's edge: connections, the replication stream, slots, and reading under a slot's
//! snapshot.
//!
//! Authentication is tokio-postgres's. An ordinary connection stays with it. A replication
//! connection takes its socket back right after authentication ([`replication`]), since the driver
//! does not know CopyBoth.
//!
//! ```text
//! connect::Connection (ordinary SQL, COPY OUT)      --> snapshot, slot::read
//! replication::Replication (the stream)             --> slot::create, start, next_frame
//! ```
//!
//! Nothing here knows the target, or decides what is acknowledged.

pub(crate) mod as_read;
pub(crate) mod copy_query;
pub(crate) mod error;
pub mod facts;
pub(crate) mod identity;
mod lent;
pub mod publication;
pub mod replication;
pub(crate) mod settled;
pub(crate) mod shapes;
pub mod slot;
pub mod snapshot;
pub(crate) mod standbys;
pub(crate) mod watch;
