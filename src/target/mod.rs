//! The target's side: bookkeeping, staging, the writer, shadows, facts.
//!
//! Never imports `source`. Only [`mod@write`] writes lookup rows, and only together with the
//! checkpoint that covers them.

pub mod bookkeeping;
pub mod connect;
pub mod copy_buffer;
pub mod difference;
pub mod error;
pub mod facts;
pub mod lookup;
pub mod model;
pub(crate) mod plain;
pub mod presence;
pub(crate) mod report;
pub(crate) mod script;
pub mod shadow;
mod statement;
pub(crate) mod temp_files;
pub mod write;
