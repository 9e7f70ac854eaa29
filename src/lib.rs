//! `cdc` keeps lookup tables in one PostgreSQL database in step with master tables in another.

pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod conninfo;
pub mod demo;
pub mod error;
pub mod facts;
pub mod fold;
pub mod identity;
pub mod lsn;
pub mod progress;
pub mod protocol;
pub mod read_model;
pub mod relation;
pub mod retry;
pub mod row;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod source;
pub mod sql;
pub mod status;
pub mod target;
pub mod telemetry;
pub mod transaction;
