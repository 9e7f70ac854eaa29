//! The target's session while it opens: it owns the pipeline, and writes under its epoch.

use crate::connect::Connection;
use crate::target::bookkeeping::Bookkeeping;

/// The session that owns the pipeline.
pub(crate) struct Owner<'a> {
    /// Its connection.
    pub conn: &'a mut Connection,
    /// What it writes of the pipeline.
    pub bookkeeping: &'a Bookkeeping,
    /// The epoch under which it writes.
    pub epoch: i64,
}
