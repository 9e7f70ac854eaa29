//! How far the stream is: received >= applied >= acknowledged, and what a restart must see again.
//!
//! Positions are ends: a commit lies before `X` exactly if its commit record starts below `X`. With
//! two commits back to back the second one's `final_lsn` equals the first one's `end_lsn` (20 of 20
//! pairs measured on 15 and 18), so "applied" is `final_lsn < checkpoint`, never `<=`.

use crate::lsn::{Lsn, PgTimestamp};

/// Positions of one connection's stream. Each only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    received: Lsn,
    applied: Lsn,
    durable: Lsn,
    acknowledged: Lsn,
}

impl Progress {
    /// Every position is the checkpoint, which is durable: the claim that read it, or the merge
    /// that stored it, was committed synchronously, and that flushes all WAL before its own record.
    pub(crate) fn at(checkpoint: Lsn) -> Self {
        Self {
            received: checkpoint,
            applied: checkpoint,
            durable: checkpoint,
            acknowledged: checkpoint,
        }
    }

    /// Every commit before `position` has been received.
    pub(crate) fn receive(&mut self, position: Lsn) {
        self.received = self.received.max(position);
    }

    /// Every commit before `position` is in the target together with a checkpoint that says so.
    pub(crate) fn apply(&mut self, position: Lsn) {
        self.applied = self.applied.max(position);
        self.received = self.received.max(position);
    }

    /// The target has flushed everything before `position`: it survives a crash of the target.
    pub(crate) fn harden(&mut self, position: Lsn) {
        self.durable = self.durable.max(position.min(self.applied));
    }

    /// Records what the server is about to be told, and returns it: never more than is applied and
    /// durable.
    pub(crate) fn acknowledge(&mut self) -> Lsn {
        self.acknowledged = self.acknowledged.max(self.durable);
        self.acknowledged
    }

    /// Every commit before this was received.
    pub(crate) fn received(&self) -> Lsn {
        self.received
    }

    /// Every commit before this is in the target.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }

    /// Every commit before this is in the target for good.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    /// The position that was last acknowledged.
    pub(crate) fn acknowledged(&self) -> Lsn {
        self.acknowledged
    }
}

/// The source that a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceIdentity {
    /// System identifier of the cluster.
    pub system_identifier: String,
    /// Its timeline.
    pub timeline: i32,
    /// Database.
    pub database: String,
}

/// A transaction of the source as its Begin and Commit name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionId {
    /// LSN of its commit record.
    pub commit_lsn: Lsn,
    /// Top-level transaction id.
    pub xid: u32,
    /// Commit time.
    pub commit_time: PgTimestamp,
}

/// Compares what comes again after a restart with what was applied, so that a rewritten history is
/// noticed.
///
/// A source that was set back to a storage snapshot and has grown past the checkpoint again shows
/// the same positions with other transactions. Streaming starts at the slot's own position; the
/// last applied transaction must come again exactly as it was if it lies at or after that position,
/// and no other transaction with changes may come between it and the checkpoint.
#[derive(Debug, Clone)]
pub struct Replay {
    checkpoint: Lsn,
    last: Option<TransactionId>,
    seen: bool,
    proved: bool,
}

/// What to do with a received transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It lies before the checkpoint and was applied.
    Skip,
    /// It is new.
    Apply,
    /// The source's history is not the one that was applied.
    Rewritten,
}

impl Replay {
    /// `start` is the slot's own position, where the stream begins.
    pub fn new(checkpoint: Lsn, last: Option<TransactionId>, start: Lsn) -> Self {
        // A transaction below the slot's position does not come again: there is nothing to compare.
        let last = last.filter(|last| last.commit_lsn >= start && last.commit_lsn < checkpoint);
        Self {
            checkpoint,
            seen: last.is_none(),
            proved: false,
            last,
        }
    }

    /// Judges the next transaction; `has_changes` says whether it changed a published table.
    pub fn judge(&mut self, transaction: TransactionId, has_changes: bool) -> Verdict {
        if transaction.commit_lsn >= self.checkpoint {
            self.proved = self.seen;
            return if self.seen {
                Verdict::Apply
            } else {
                Verdict::Rewritten
            };
        }
        match self.last {
            _ if !has_changes => Verdict::Skip,
            Some(last) if transaction == last => {
                self.seen = true;
                Verdict::Skip
            }
            Some(last) if transaction.commit_lsn < last.commit_lsn => Verdict::Skip,
            // After the last applied one, or in its place, or if none was to come again: never seen
            // before.
            Some(_) | None => Verdict::Rewritten,
        }
    }

    /// Judges a position that the stream has passed without another transaction.
    pub fn pass(&mut self, position: Lsn) -> Verdict {
        if position < self.checkpoint {
            return Verdict::Skip;
        }
        self.proved = self.seen;
        if self.seen {
            Verdict::Skip
        } else {
            Verdict::Rewritten
        }
    }

    /// Whether the stream has come to the checkpoint with the history that was applied. Until then
    /// nothing is acknowledged: the slot would move, and the transactions that prove another
    /// history would never come again.
    pub(crate) fn is_proved(&self) -> bool {
        self.proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_lsn_never_passes_what_is_applied() {
        let mut progress = Progress::at(Lsn(10));
        progress.receive(Lsn(50));
        assert_eq!(progress.acknowledge(), Lsn(10));
        progress.apply(Lsn(30));
        assert_eq!(
            progress.acknowledge(),
            Lsn(10),
            "applied is not yet durable"
        );
        progress.harden(Lsn(40));
        assert_eq!(progress.acknowledge(), Lsn(30));
        progress.apply(Lsn(20));
        assert_eq!(
            (
                progress.received(),
                progress.applied(),
                progress.acknowledge()
            ),
            (Lsn(50), Lsn(30), Lsn(30))
        );
        progress.apply(Lsn(60));
        progress.harden(Lsn(55));
        assert_eq!(
            [
                progress.received(),
                progress.applied(),
                progress.durable(),
                progress.acknowledged()
            ],
            [Lsn(60), Lsn(60), Lsn(55), Lsn(30)]
        );
    }

    fn transaction(commit_lsn: u64, xid: u32) -> TransactionId {
        TransactionId {
            commit_lsn: Lsn(commit_lsn),
            xid,
            commit_time: PgTimestamp(i64::from(xid)),
        }
    }

    #[test]
    fn transactions_before_the_checkpoint_are_skipped_and_the_next_one_is_not() {
        let mut replay = Replay::new(Lsn(100), Some(transaction(90, 7)), Lsn(50));
        assert_eq!(replay.judge(transaction(60, 5), true), Verdict::Skip);
        assert_eq!(replay.judge(transaction(90, 7), true), Verdict::Skip);
        // Back to back: final_lsn of the next one equals the checkpoint.
        assert_eq!(replay.judge(transaction(100, 8), true), Verdict::Apply);
    }

    #[test]
    fn a_history_that_was_rewritten_is_noticed() {
        let replay = || Replay::new(Lsn(100), Some(transaction(90, 7)), Lsn(50));
        assert_eq!(
            replay().judge(transaction(90, 8), true),
            Verdict::Rewritten,
            "another transaction in its place"
        );
        assert_eq!(
            replay().judge(transaction(95, 9), true),
            Verdict::Rewritten,
            "one more before the checkpoint"
        );
        assert_eq!(
            replay().judge(transaction(120, 9), true),
            Verdict::Rewritten,
            "it did not come again"
        );
        assert_eq!(replay().pass(Lsn(100)), Verdict::Rewritten);
        assert_eq!(replay().pass(Lsn(99)), Verdict::Skip);
        let mut below = Replay::new(Lsn(100), Some(transaction(90, 7)), Lsn(95));
        assert_eq!(
            below.judge(transaction(120, 9), true),
            Verdict::Apply,
            "it lies below the slot's position"
        );
        // The last applied transaction is the last one with changes below the checkpoint: any other
        // is a new history.
        for last in [None, Some(transaction(40, 7))] {
            let mut none = Replay::new(Lsn(100), last, Lsn(50));
            assert_eq!(none.judge(transaction(60, 9), false), Verdict::Skip);
            assert_eq!(none.judge(transaction(60, 9), true), Verdict::Rewritten);
        }
    }

    #[test]
    fn nothing_is_proved_before_the_stream_has_come_to_the_checkpoint() {
        let mut replay = Replay::new(Lsn(100), Some(transaction(90, 7)), Lsn(50));
        replay.judge(transaction(60, 5), true);
        replay.judge(transaction(90, 7), true);
        assert!(!replay.is_proved());
        replay.pass(Lsn(99));
        assert!(!replay.is_proved());
        replay.pass(Lsn(100));
        assert!(replay.is_proved());
        let mut unseen = Replay::new(Lsn(100), Some(transaction(90, 7)), Lsn(50));
        unseen.pass(Lsn(200));
        assert!(!unseen.is_proved());
    }
}
