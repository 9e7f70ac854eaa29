//! What is handed to the target in one piece, and its result.
//!
//! A batch is whole transactions of the source, folded, with the position that is stored with them.
//! Exact copies are merged at a position of their own.

use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::lsn::{Lsn, PgTimestamp};
use crate::progress::{SourceIdentity, TransactionId};
use crate::read_model::ModelIndex;

/// A read model and its rows.
pub(crate) type IndexedFold = (ModelIndex, Fold);

/// What a transaction of the target stores as its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Every commit before it is applied.
    pub lsn: Lsn,
    /// The lookups are as of this time of the source.
    pub commit_time: Option<PgTimestamp>,
    /// The last transaction with a change of a published table, if one is new.
    pub last: Option<TransactionId>,
}

/// Final states of whole transactions.
#[derive(Debug)]
pub struct Batch {
    /// The position after it.
    pub position: Position,
    /// Read models and their rows.
    pub folds: Vec<IndexedFold>,
    /// Read models that no longer take part from here on, and why.
    pub suspended: Vec<Suspended>,
    /// Number of source transactions.
    pub transactions: u64,
    /// Chunks of the transaction that were staged before.
    pub chunks: u64,
}

/// A read model that takes part no more.
#[derive(Debug, Clone)]
pub struct Suspended {
    /// The read model.
    pub index: ModelIndex,
    /// Why.
    pub error: Error,
}

/// What became of one read model's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Lookup rows inserted.
    pub inserted: i64,
    /// Lookup rows changed.
    pub updated: i64,
    /// Lookup rows deleted.
    pub deleted: i64,
    /// Live rows that were compared.
    pub total: i64,
    /// Keys of inserted rows, if they were asked for.
    pub inserted_keys: Vec<String>,
    /// Keys of changed rows, if they were asked for.
    pub updated_keys: Vec<String>,
    /// Keys of deleted rows, if they were asked for.
    pub deleted_keys: Vec<String>,
    /// Rows that the target rejects now, without those that it rejected before in the same way.
    pub rejected: Vec<Rejected>,
    /// Rows of this batch that the target rejects, whether it did before or not.
    pub rejected_rows: i64,
    /// Rows that are rejected after this batch, earlier ones included.
    pub rejected_in_all: i64,
    /// The first of them.
    pub first_rejected: Vec<Rejected>,
    /// Live rows whose key another one has; only of a merge.
    pub waiting: i64,
}

impl Written {
    /// Rows that were written.
    pub fn changed(&self) -> i64 {
        self.inserted + self.updated + self.deleted
    }

    /// Live rows that were right already.
    pub(crate) fn unchanged(&self) -> i64 {
        self.total - self.inserted - self.updated
    }
}

/// What became of one read model's copy.
#[derive(Debug)]
pub struct Merged {
    /// The read model.
    pub index: ModelIndex,
    /// What was written, or why it was refused.
    pub result: Result<Written>,
}

/// How a merge of exact copies ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergePosition {
    /// The stream is paused here and then continues (resync, a read model that joins); the merge
    /// ends the resync of this number.
    Running(Lsn, Option<i64>),
    /// The stream begins here (first copy, healing).
    Start {
        /// C: the copies hold every commit before it.
        lsn: Lsn,
        /// Where it was.
        source: SourceIdentity,
        /// A time of the source at which nothing was flushed beyond it.
        as_of: Option<PgTimestamp>,
    },
}

/// A row that the target rejects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Its key, if the lookup's key takes it.
    pub key: Option<String>,
    /// Its identity at the source; `None` if the source has no such row.
    pub identity: Option<String>,
    /// The server's error code.
    pub sqlstate: String,
    /// Constraint that the server named.
    pub constraint: Option<String>,
    /// Column that the server named.
    pub column: Option<String>,
}

impl Rejected {
    /// The name of the row: its key, else its identity.
    pub(crate) fn name(&self) -> &str {
        self.key
            .as_deref()
            .or(self.identity.as_deref())
            .unwrap_or_default()
    }

    /// Why it is rejected_rows: `22001 label`.
    pub(crate) fn reason(&self) -> String {
        let object = self.constraint.as_deref().or(self.column.as_deref());
        match object {
            Some(object) => format!("{} {object}", self.sqlstate),
            None => self.sqlstate.clone(),
        }
    }
}
