//! The position of a stream without changes: stored every `status_interval`, or at once where somebody waits for it.
//!
//! A keepalive tells how far the walsender has decoded. It is acknowledged only once it is stored. As of which time a position is
//! tells the source's clock (`as_of.rs`): that is how the lookups of a quiet source become known to be of a later time.

use tokio::time::Instant;

use super::{InFlight, InHand, Stream};
use crate::batch::Position;
use crate::error::{Class, Error, Result};
use crate::run::applier::Job;

/// Why the next keepalive is stored at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreNext {
    /// Somebody waits for a higher position.
    Waited,
    /// Nothing was stored for `status_interval`: of a source that writes nothing at all the time is stored.
    Due,
}

impl Stream {
    /// Stores the newest idle position, if there is a higher one than the stored and nothing is under way; with `time` also the
    /// same position as of a later time.
    pub(super) async fn store_idle(&mut self, time: bool) -> Result<()> {
        let free = self.in_flight.is_none()
            && self.pending.is_empty()
            && !self.assembler.is_open()
            && !self.stands_still();
        if !free {
            return Ok(());
        }
        // Each transaction that breaks a read model is applied before the position behind it is stored.
        if let Some(broken) = self.assembler.broken().next().cloned() {
            let in_hand = InHand {
                transactions: 1,
                lsn: broken.commit_lsn,
            };
            self.refused = Some(in_hand.refused(broken.index, broken.error.clone()));
            return Err(broken.error.with_class(Class::Transient));
        }
        let applied = self.progress.applied();
        let news = |idle: &mut Position| idle.lsn > applied || (time && idle.lsn == applied);
        let Some(mut position) = self.idle.take_if(news) else {
            return Ok(());
        };
        position.commit_time = position.commit_time.max(self.as_of.at(position.lsn));
        self.stored_at = Instant::now();
        self.in_flight = Some(InFlight::new(position.lsn));
        self.applier.submit(Job::Store(position)).await
    }

    /// Tells the source how far everything is, and asks for a keepalive; an idle position is stored when it is due.
    pub(super) async fn feedback(&mut self) -> Result<()> {
        // Half an interval early rather than at the tick after the next.
        if self.stored_at.elapsed() + self.feedback_interval / 2 >= self.status_interval {
            // The status below asks for a keepalive; if the last one did not bring one, what is there is stored.
            if self.store_next.replace(StoreNext::Due) == Some(StoreNext::Due) {
                self.store_idle(true).await?;
            }
        }
        self.harden_due = self.progress.durable() < self.progress.applied();
        self.audit_due = self.audited_at.elapsed() >= self.status_interval;
        if !self.may_read() {
            // What the source says meanwhile is not heard.
            self.silence.end(Instant::now());
        } else if self.silence.is_too_long(Instant::now()) {
            return Err(Error::transient("the source has not answered for too long")
                .with_detail("Every status asks for a reply; the connection seems to be dead."));
        }
        self.send_status(true).await
    }
}
