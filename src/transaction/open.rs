//! The transaction that is being read: its changes so far, in terms of the read models.

use super::Broken;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::protocol::pgoutput::Begin;
use crate::read_model::{Change, ModelIndex};

/// A transaction that has begun and not yet ended.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) begin: Begin,
    /// Whether its changes are mapped: it was not applied before.
    pub(super) mapped: bool,
    pub(super) changes: Vec<(ModelIndex, Change)>,
    /// What the changes take in memory.
    pub(super) bytes: usize,
    /// Whether it changed any published table.
    pub(super) has_changes: bool,
    /// Chunks of it that were taken.
    pub(super) chunks: u64,
}

impl Open {
    /// A transaction begins. It is mapped if it commits at or after `from`.
    pub(super) fn new(begin: Begin, from: Lsn) -> Self {
        Self {
            begin,
            mapped: begin.final_lsn >= from,
            changes: Vec::new(),
            bytes: 0,
            has_changes: false,
            chunks: 0,
        }
    }

    /// Its name: its Begin tells it already.
    pub(super) fn id(&self) -> TransactionId {
        TransactionId {
            commit_lsn: self.begin.final_lsn,
            xid: self.begin.xid,
            commit_time: self.begin.commit_time,
        }
    }

    /// Adds a change of a read model.
    pub(super) fn add(&mut self, index: ModelIndex, change: Change) {
        self.bytes += change.bytes();
        self.changes.push((index, change));
    }

    /// Takes the changes so far.
    pub(super) fn take_chunk(&mut self) -> Vec<(ModelIndex, Change)> {
        self.bytes = 0;
        self.chunks += 1;
        std::mem::take(&mut self.changes)
    }

    /// The read model cannot take this transaction: its changes are dropped.
    pub(super) fn breaks(&mut self, index: ModelIndex, error: Error) -> Broken {
        self.forget(index);
        Broken {
            index,
            commit_lsn: self.begin.final_lsn,
            error,
        }
    }

    /// Drops the read model's changes.
    pub(super) fn forget(&mut self, index: ModelIndex) {
        self.changes.retain(|(of, _)| *of != index);
    }
}
