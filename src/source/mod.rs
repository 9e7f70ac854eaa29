//! The edge to the source: the database with the master tables.

pub mod connect;
pub mod error;
pub mod facts;
pub mod publication;
