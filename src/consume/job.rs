//! What the target is asked to do, and what came of it. A result brings back what it is about.

use crate::batch::{Batch, IndexedFold, Merged, Position, Written};
use crate::error::Error;
use crate::lsn::{Lsn, PgTimestamp};
use crate::read_model::ModelIndex;

/// What the target is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Stage a chunk of the transaction that commits here, whose end is to come.
    Stage(Lsn, Vec<IndexedFold>),
    /// Write a batch with its checkpoint.
    Apply(Batch),
    /// Store a position that the stream passed without a change.
    Store(Position),
    /// Note that the next batch has changes of a leaf of these read models' tables that the watch
    /// has never seen.
    NoteLeaves(Vec<ModelIndex>),
    /// Make what is committed up to here durable (only where the session commits asynchronously).
    Harden(Lsn),
    /// Compare the bookkeeping with the read models that take part in the stream.
    Audit(Vec<ModelIndex>),
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// A chunk was staged.
    Staged,
    /// A batch was written.
    Applied(Applied),
    /// A batch or a chunk was not written since one read model's rows cannot be.
    Failed(FailedBatch),
    /// A position was stored.
    Stored(Lsn),
    /// Leaves are noted.
    Noted,
    /// What was committed up to here is durable.
    Hardened(Lsn),
    /// Bookkeeping and stream were compared; read models that were found out of the stream are
    /// suspended.
    Audited(Vec<ModelIndex>),
    /// Copies were merged.
    Merged(Vec<Merged>),
}

/// A batch that was written.
#[derive(Debug)]
pub struct Applied {
    /// Its end.
    pub lsn: Lsn,
    /// Commit time of its last transaction.
    pub commit_time: Option<PgTimestamp>,
    /// Number of transactions of the source.
    pub transactions: u64,
    /// What was written, by read model.
    pub written: Vec<(ModelIndex, Written)>,
    /// Read models whose suspension was stored with it.
    pub suspended: Vec<ModelIndex>,
}

/// A batch that could not be written because of one read model's rows.
#[derive(Debug, Clone)]
pub struct FailedBatch {
    /// The read model.
    pub index: ModelIndex,
    /// Number of transactions in the batch: with one, it is the one that cannot be taken.
    pub transactions: u64,
    /// End of the batch.
    pub lsn: Lsn,
    /// Why.
    pub error: Error,
}
