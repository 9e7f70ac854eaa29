//! The edge to the target database: the only code that speaks to it, over sqlx.

pub mod connect;
pub mod error;
