//! What to do next: a job for the target, a status, a look at the catalogs, or a pause.

use super::{Action, Consumer, Note, Proof};
use crate::batch::Batch;
use crate::consume::Now;
use crate::consume::acks::{Asks, Idle, Status};
use crate::consume::job::{FailedBatch, Job};
use crate::consume::pending::Pending;
use crate::error::Result;
use crate::lsn::Lsn;

impl Consumer {
    /// What to do next; `None`: wait.
    ///
    /// # Errors
    /// Transient if an idle position would be stored past a transaction that broke a read model;
    /// [`Self::take_failed`] names it.
    pub fn next(&mut self, now: Now) -> Result<Option<Action>> {
        if let Some(job) = self.idle_job(now)? {
            return Ok(Some(self.submit(job)));
        }
        if let Some(status) = self.acks.take_status() {
            return Ok(Some(Action::Say(status)));
        }
        if let Some(action) = self.next_job(now)? {
            return Ok(Some(action));
        }
        if let Some(position) = self.stand() {
            return Ok(Some(Action::Stand(position)));
        }
        let open = self.intake.assembler.open_transaction();
        let status = self.acks.judge_standby(open.map(|id| id.commit_lsn), now);
        Ok(status.map(Action::Say))
    }

    fn submit(&mut self, job: Job) -> Action {
        self.in_hand = true;
        Action::Submit(job)
    }

    /// Stores the newest idle position, if that is wanted and nothing is in flight.
    fn idle_job(&mut self, now: Now) -> Result<Option<Job>> {
        let comes_to_stand = self.mode.waits_for(self.acks.applied());
        let wanted = self.acks.wants_to_store();
        match wanted.or(comes_to_stand.then_some(Idle::Higher)) {
            Some(which) => self.store_idle(which, now),
            None => Ok(None),
        }
    }

    fn store_idle(&mut self, which: Idle, now: Now) -> Result<Option<Job>> {
        if !self.is_at_rest() || self.mode.stands_still() {
            return Ok(None);
        }
        // Each transaction that breaks a read model is applied before the position behind it is
        // stored.
        let broken = self.intake.assembler.broken().next().cloned();
        if let Some(broken) = broken {
            return Err(self.fail(FailedBatch {
                index: broken.index,
                transactions: 1,
                lsn: broken.commit_lsn,
                error: broken.error,
            }));
        }
        Ok(self.acks.take_idle(which, now).map(Job::Store))
    }

    /// Whether nothing is in flight: no job, no batch, no open transaction.
    fn is_at_rest(&self) -> bool {
        !self.in_hand && self.pending.is_empty() && !self.intake.assembler.is_open()
    }

    /// The next job of the target, if it is free.
    fn next_job(&mut self, now: Now) -> Result<Option<Action>> {
        if self.in_hand || self.mode.stands_still() {
            return Ok(None);
        }
        if !self.has_chunks() {
            if let Some(position) = self.acks.take_harden() {
                return Ok(Some(self.submit(Job::Harden(position))));
            }
            if std::mem::take(&mut self.audit.due) {
                self.audit.at = now;
                let taking_part = self.intake.assembler.taking_part();
                return Ok(Some(self.submit(Job::Audit(taking_part))));
            }
        }
        // A proved batch is sent at once.
        if self.proof == Proof::Open && self.gather.waits(&self.pending, now) {
            return Ok(None);
        }
        if self.pending.is_empty() {
            return self.next_chunk();
        }
        let unseen = self.pending.take_unseen();
        if !unseen.is_empty() {
            return Ok(Some(self.submit(Job::NoteLeaves(unseen))));
        }
        Ok(self.next_batch())
    }

    /// The changes of the open transaction so far, once they are many.
    fn next_chunk(&mut self) -> Result<Option<Action>> {
        let Some(chunk) = self.intake.take_chunk()? else {
            return Ok(None);
        };
        let commit_lsn = chunk.id.commit_lsn;
        self.passed.bring(&chunk.changes, commit_lsn);
        self.notes.push(Note::Chunk(chunk.id, chunk.changes.len()));
        let mut part = Pending::default();
        part.add_part(chunk.changes);
        self.patience.handed_over();
        Ok(Some(
            self.submit(Job::Stage(commit_lsn, part.take_folds().0)),
        ))
    }

    /// The waiting transactions, once the descriptions that mapped them are proved.
    fn next_batch(&mut self) -> Option<Action> {
        match self.proof {
            Proof::Asked => return None,
            Proof::Open => {
                let mut tables = self.intake.assembler.take_unproved();
                for root in self.pending.roots() {
                    if !tables.contains(root) {
                        tables.push(root.clone());
                    }
                }
                if !tables.is_empty() {
                    self.proof = Proof::Asked;
                    return Some(Action::Look(tables));
                }
            }
            Proof::Given => self.proof = Proof::Open,
        }
        let batch: Batch = self.pending.take()?;
        self.patience.handed_over();
        Some(self.submit(Job::Apply(batch)))
    }

    /// Pauses, if that was requested and everything that was received is applied.
    fn stand(&mut self) -> Option<Lsn> {
        if !self.is_at_rest() {
            return None;
        }
        let position = self.acks.applied();
        for (index, model) in self.mode.stand(position)? {
            if !self.intake.assembler.is_active(index) {
                self.intake.assembler.activate(index, model);
                self.mode.join(index);
            }
        }
        Some(position)
    }

    /// What the target has to do before the end, once it is free: store an idle position, and make
    /// durable what is not yet. Waiting transactions come again with the next session.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) fn last_job(&mut self, now: Now) -> Result<Option<Job>> {
        if self.in_hand {
            return Ok(None);
        }
        self.resume();
        let job = match self.store_idle(Idle::Higher, now)? {
            Some(job) => Some(job),
            None => self.acks.not_durable().map(Job::Harden),
        };
        self.in_hand = job.is_some();
        Ok(job)
    }

    /// The status that goes out last, or whenever one is due.
    pub(crate) fn last_status(&mut self) -> Option<Status> {
        self.acks.say(Asks::Nothing);
        self.acks.take_status()
    }
}
