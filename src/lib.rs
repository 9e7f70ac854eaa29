//! `cdc` keeps lookup tables in one PostgreSQL database in step with master tables in another.

pub mod cli;
pub mod config;
pub mod conninfo;
pub mod error;
pub mod facts;
pub mod lsn;
pub mod row;
pub mod settings;
pub mod sql;
pub mod target;
pub mod telemetry;
