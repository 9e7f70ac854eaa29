//! `cdc` keeps lookup tables in one PostgreSQL database in step with master tables in another.

pub mod check;
pub mod cli;
pub mod conninfo;
pub mod error;
pub mod facts;
pub mod identity;
pub mod lsn;
pub mod row;
pub mod settings;
pub mod source;
pub mod sql;
pub mod status;
pub mod target;
