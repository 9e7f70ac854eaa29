//! `cdc` keeps lookup tables in one PostgreSQL database in step with master tables in another.

pub mod cluster;
pub mod conninfo;
pub mod demo;
pub mod error;
pub mod facts;
pub mod lsn;
pub mod protocol;
pub mod row;
pub mod settings;
pub mod source;
pub mod sql;
