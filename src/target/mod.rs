//! The edge to the target: the database with the lookup tables.

pub mod connect;
pub mod error;
pub mod facts;
pub mod lookup;
pub mod report;
