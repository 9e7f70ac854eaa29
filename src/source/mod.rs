//! The edge to the source: the database with the master tables.

pub mod connect;
pub mod copy_query;
pub mod error;
pub mod facts;
pub mod publication;
pub mod replication;
pub mod slot;
pub mod snapshot;
