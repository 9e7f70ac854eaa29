//! One way to a server, for both sides: hosts in order, socket options, TLS, authentication, and
//! the settings of a session.
//!
//! ```text
//! Search  the servers in order      --> Ways  the protections that sslmode allows
//!         --> Wire  socket, TLS     --> handshake by tokio-postgres, judged by Guarded
//!         --> Session  what the server says of itself: will it do, are the settings in force
//!         --> steady   is it one session of the server, or does a pooler change it (run and check)
//! ```
//!
//! Authentication is tokio-postgres's. Nothing but the [`Conninfo`](crate::conninfo::Conninfo)
//! decides about a connection: no PG* variable is read here.

pub(crate) mod cancel;
mod client_certificate;
mod client_key;
pub(crate) mod connection;
mod copy_start;
mod demands;
pub(crate) mod error;
mod guard;
mod last_good;
pub(crate) mod options;
mod pem;
pub(crate) mod pipeline;
pub(crate) mod query;
pub(crate) mod search;
pub(crate) mod server;
mod side;
pub(crate) mod steady;
mod tls;
mod tls_error;
pub(crate) mod ways;
pub(crate) mod wire;

pub use connection::Connection;
pub use server::Wanted;
pub use side::Side;
