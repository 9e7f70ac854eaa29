//! What the applier gets next: a batch of whole transactions, or a chunk of one that does not fit into memory.

use std::time::Duration;

use tokio::time::Instant;

use super::{InFlight, Stream, rewritten};
use crate::error::Result;
use crate::progress::Verdict;
use crate::run::applier::Job;
use crate::run::pending::{CHUNK_BYTES, Pending};
use crate::transaction::Leaf;

/// How long a stream that is behind lets transactions gather before the next batch, and bytes of folded changes that are enough.
/// Each batch has its price, however small it is, and of several changes of one row only the last is written.
const GATHER: Duration = Duration::from_millis(10);
const GATHER_BYTES: usize = 256 << 10;

impl Stream {
    /// Hands the next batch or chunk to the applier, if it is free; returns whether more may be read than before.
    pub(super) async fn submit(&mut self) -> Result<bool> {
        if self.in_flight.is_some() || self.stands_still() {
            return Ok(false);
        }
        if self.harden_due && self.chunks == 0 {
            self.harden_due = false;
            self.in_flight = Some(InFlight::new(self.progress.applied()));
            self.applier.submit(Job::Harden).await?;
            return Ok(false);
        }
        if self.audit_due && self.chunks == 0 {
            self.audit_due = false;
            self.audited_at = Instant::now();
            self.in_flight = Some(InFlight::new(self.progress.applied()));
            self.applier
                .submit(Job::Audit(self.assembler.taking_part()))
                .await?;
            return Ok(false);
        }
        if self.gathers() {
            return Ok(false);
        }
        if self.pending.is_empty() {
            return self.submit_chunk().await;
        }
        let unseen = self.pending.take_unseen();
        if !unseen.is_empty() {
            self.in_flight = Some(InFlight::new(self.progress.applied()));
            self.applier.submit(Job::NoteLeaves(unseen)).await?;
            return Ok(false);
        }
        if self.must_be_proved().await? {
            return Ok(false);
        }
        self.submit_batch().await
    }

    /// Leaves that the watch has never seen may be gone by its next look, and their rows are not: that is stored before they are.
    pub(super) fn bring_leaves(&mut self, leaves: &[Leaf]) {
        for (root, leaf) in leaves {
            let read_models = self.names.iter().enumerate();
            for (index, _) in read_models.filter(|(_, of)| of.source == *root) {
                if self.passed.bring_leaf(index, *leaf) {
                    self.pending.bring_unseen(index);
                }
            }
        }
    }

    /// Hands over what waits; it is proved.
    pub(super) async fn submit_batch(&mut self) -> Result<bool> {
        let Some(mut batch) = self.pending.take() else {
            return Ok(false);
        };
        batch.chunks = std::mem::take(&mut self.chunks);
        self.in_flight = Some(InFlight {
            transactions: batch.transactions,
            commit_time: batch.position.commit_time,
            ..InFlight::new(batch.position.lsn)
        });
        self.backlog_since = None;
        self.applier.submit(Job::Apply(batch)).await?;
        Ok(true)
    }

    /// Hands over what the open transaction has changed so far, once that is much.
    async fn submit_chunk(&mut self) -> Result<bool> {
        let Some(id) = self
            .assembler
            .open_transaction()
            .filter(|_| self.assembler.bytes() >= CHUNK_BYTES)
        else {
            return Ok(false);
        };
        // Of a transaction that was applied before nothing is mapped, so it never fills a chunk.
        if self.replay.judge(id, true) != Verdict::Apply {
            return Err(rewritten());
        }
        let changes = self.assembler.take_chunk();
        self.passed.bring(&changes, id.commit_lsn);
        self.chunks += 1;
        tracing::debug!(
            xid = id.xid,
            changes = changes.len(),
            "staging a chunk of a large transaction"
        );
        self.in_flight = Some(InFlight {
            transactions: 1,
            ..InFlight::new(id.commit_lsn)
        });
        self.backlog_since = None;
        let mut chunk = Pending::default();
        chunk.add_part(changes);
        self.applier.submit(Job::Stage(chunk.take_folds().0)).await?;
        Ok(true)
    }

    /// Whether the next batch waits for more: latency is lost already, and larger batches catch up sooner.
    fn gathers(&mut self) -> bool {
        let small = self.pending.bytes() < GATHER_BYTES && !self.pending.is_empty();
        if !self.behind || !small || self.careful_until.is_some() {
            self.gathers_until = None;
            return false;
        }
        let now = Instant::now();
        let gathers = *self.gathers_until.get_or_insert(now + GATHER) > now;
        if !gathers {
            self.gathers_until = None;
        }
        gathers
    }
}
