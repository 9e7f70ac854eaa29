//! What a consumer begins with.

use std::sync::Arc;
use std::time::Duration;

use crate::consume::passed::Passed;
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::read_model::ReadModel;
use crate::settings::ReadModelSettings;

/// Everything that a consumer begins with.
#[derive(Debug)]
pub struct Start {
    /// Read models by index, and whether they take part.
    pub models: Vec<(ReadModelSettings, Option<Arc<ReadModel>>)>,
    /// The stored position.
    pub checkpoint: Lsn,
    /// The last applied transaction with changes, which must come again if it lies behind `start`.
    pub last: Option<TransactionId>,
    /// The slot's own position, where the stream begins.
    pub start: Lsn,
    /// Whether a commit of the applying session is durable at once.
    pub synchronous_commit: bool,
    /// Apply one transaction at a time up to here: one of them could not be written.
    pub careful_until: Option<Lsn>,
    /// How often an idle position is stored, at most.
    pub status_interval: Duration,
    /// wal_sender_timeout of the connection; zero is off.
    pub sender_timeout: Duration,
    /// How long reading may stop while a chunk of a large transaction is staged.
    pub chunk_patience: Duration,
    /// Whether source and target are one cluster.
    pub own_cluster: bool,
    /// How far the stream is, for the watch.
    pub passed: Arc<Passed>,
}

impl Start {
    /// How often a status goes out, at least.
    pub(crate) fn feedback_interval(&self) -> Duration {
        let third = self.sender_timeout / 3;
        if third.is_zero() {
            self.status_interval
        } else {
            third.min(self.status_interval)
        }
    }
}
