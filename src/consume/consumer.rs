//! The consumer of the running stream: what is taken in, which job the target gets next, and what
//! is reported to the source.
//!
//! While one batch is being applied the next one gathers, so batches are small when the stream is
//! quiet and large when it is behind. The loop that drives it does the same after each event: it
//! takes frames while [`Consumer::may_read`], carries out what [`Consumer::next`] says until that
//! is nothing, and waits until [`Consumer::deadline`] at most.

use std::sync::Arc;
use std::time::Duration;

use crate::as_of::Reading;
use crate::batch::Position;
use crate::consume::Now;
use crate::consume::acks::{Acks, Asks, Status, Terms};
use crate::consume::gather::Gather;
use crate::consume::intake::{Intake, Step};
use crate::consume::job::{Applied, Done, FailedBatch, Job};
use crate::consume::mode::{Joining, Mode};
use crate::consume::passed::Passed;
use crate::consume::patience::Patience;
use crate::consume::pending::Pending;
use crate::consume::start::Start;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::progress::TransactionId;
use crate::protocol::frame::StreamFrame;
use crate::read_model::ModelIndex;
use crate::settings::ReadModelSettings;
use crate::shape::Shape;
use crate::sql::TableName;
use crate::transaction::{Broken, Leaf, Transaction};

mod next;

/// What the loop that drives the consumer has to do next.
#[derive(Debug)]
pub enum Action {
    /// Hand this to the target, and its result to [`Consumer::done`].
    Submit(Job),
    /// Send this status to the source.
    Say(Status),
    /// Look at these tables in the catalogs, and hand what is found to [`Consumer::proved`].
    Look(Vec<TableName>),
    /// The stream is paused here until [`Consumer::resume`].
    Stand(Lsn),
}

/// What the log gets to know.
#[derive(Debug)]
pub(crate) enum Note {
    /// A read model leaves the stream before the transaction that it cannot take.
    Suspended(Broken),
    /// A chunk of so many changes of this transaction is handed over.
    Chunk(TransactionId, usize),
}

/// Whether the descriptions that mapped the waiting transactions are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Nothing is asked for.
    Open,
    /// The watch looks.
    Asked,
    /// The waiting transactions are sent at once, before anything else has to be proved.
    Given,
}

/// How often the bookkeeping is compared with the read models that take part.
#[derive(Debug)]
struct Audit {
    interval: Duration,
    due: bool,
    at: Now,
}

/// The consumer's state.
#[derive(Debug)]
pub struct Consumer {
    read_models: Vec<ReadModelSettings>,
    intake: Intake,
    pending: Pending,
    acks: Acks,
    mode: Mode,
    gather: Gather,
    patience: Patience,
    proof: Proof,
    audit: Audit,
    /// Whether the target has a job.
    in_hand: bool,
    feedback_interval: Duration,
    passed: Arc<Passed>,
    notes: Vec<Note>,
    failed: Option<FailedBatch>,
    /// The end: a chunk of a large transaction took the target too long.
    is_stalled: bool,
}

impl Consumer {
    /// Begins.
    pub fn new(start: Start) -> Self {
        let feedback_interval = start.feedback_interval();
        let (read_models, models): (Vec<_>, Vec<_>) = start.models.into_iter().unzip();
        Self {
            read_models,
            intake: Intake::new(start.checkpoint, start.last, start.start, models),
            pending: Pending::default(),
            acks: Acks::new(Terms {
                checkpoint: start.checkpoint,
                start: start.start,
                status_interval: start.status_interval,
                feedback_interval,
                synchronous_commit: start.synchronous_commit,
                own_cluster: start.own_cluster,
            }),
            mode: Mode::default(),
            gather: Gather::careful_until(start.careful_until),
            patience: Patience::new(
                feedback_interval,
                start.sender_timeout,
                start.chunk_patience,
            ),
            proof: Proof::Open,
            audit: Audit {
                interval: start.status_interval,
                due: false,
                at: Now::ZERO,
            },
            in_hand: false,
            feedback_interval,
            passed: start.passed,
            notes: Vec::new(),
            failed: None,
            is_stalled: false,
        }
    }

    /// As [`Intake::with_chunks_of`].
    #[must_use]
    pub fn with_chunks_of(self, chunk_bytes: usize) -> Self {
        Self {
            intake: self.intake.with_chunks_of(chunk_bytes),
            ..self
        }
    }

    /// How often [`Self::tick`] is due.
    pub(crate) fn feedback_interval(&self) -> Duration {
        self.feedback_interval
    }

    /// The read models by index.
    pub(crate) fn read_models(&self) -> &[ReadModelSettings] {
        &self.read_models
    }

    /// Events for the log since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether the stream is behind: then it is worth to read in large pieces.
    pub(crate) fn is_behind(&self) -> bool {
        self.gather.is_behind()
    }

    /// Whether the target has a job.
    pub(crate) fn in_hand(&self) -> bool {
        self.in_hand
    }

    /// Every commit before this is in the target.
    pub(crate) fn applied(&self) -> Lsn {
        self.acks.applied()
    }

    /// Whether a part of a transaction is staged whose end the target does not have yet.
    pub(crate) fn has_chunks(&self) -> bool {
        self.intake.assembler.chunks() + self.pending.chunks() > 0
    }

    /// The batch that could not be written, if that was the end.
    pub fn take_failed(&mut self) -> Option<FailedBatch> {
        self.failed.take()
    }

    /// Whether it ended because a chunk of a large transaction took the target too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Whether more of the stream may be taken in.
    pub fn may_read(&self) -> bool {
        // A pause was requested: apply what has been received, but take in no more, or there would
        // always be another batch.
        let comes_to_stand = self.mode.comes_to_stand(self.acks.received());
        if self.proof != Proof::Open || comes_to_stand && !self.intake.assembler.is_open() {
            return false;
        }
        !self.intake.has_chunk()
            && self
                .gather
                .may_grow(&self.pending, self.intake.assembler.bytes())
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub fn take(&mut self, frame: &StreamFrame<'_>, now: Now) -> Result<()> {
        match self.intake.take(frame)? {
            Step::Nothing => {}
            Step::Began(delay_micros) => self.gather.began(delay_micros),
            Step::Whole(transaction) => self.take_in(transaction),
            Step::Passed(position) => self.acks.keepalive(position),
        }
        self.acks.prove(self.intake.is_proved());
        if let StreamFrame::Keepalive {
            wal_end,
            reply_requested: true,
            ..
        } = frame
        {
            self.acks.reply(*wal_end, now);
        }
        Ok(())
    }

    /// A new transaction waits for the target. One that changed nothing here (13 and 14 send them)
    /// only moves the position.
    fn take_in(&mut self, transaction: Transaction) {
        let commit_lsn = transaction.id.commit_lsn;
        self.acks.receive(transaction.end_lsn);
        self.passed.bring(&transaction.changes, commit_lsn);
        self.bring_leaves(&transaction.leaves, commit_lsn);
        for broken in &transaction.broken {
            if broken.commit_lsn == commit_lsn {
                self.notes.push(Note::Suspended(broken.clone()));
            }
        }
        if transaction.has_changes || !transaction.broken.is_empty() {
            self.pending.add(transaction);
        } else {
            self.acks.pass(Position {
                lsn: transaction.end_lsn,
                commit_time: Some(transaction.id.commit_time),
                last: None,
            });
        }
    }

    /// Leaves that the watch has never seen may be detached before its next look, while their rows
    /// stay. So they are recorded before their rows are stored.
    fn bring_leaves(&mut self, leaves: &[Leaf], commit_lsn: Lsn) {
        for (root, leaf) in leaves {
            if self.read_models.iter().any(|of| of.source == *root) {
                self.pending.bring_leaf((root.clone(), *leaf), commit_lsn);
            }
            let read_models = ModelIndex::number(&self.read_models);
            for (index, _) in read_models.filter(|(_, of)| of.source == *root) {
                if self.passed.bring_leaf(index, *leaf) {
                    self.pending.bring_unseen(index);
                }
            }
        }
    }

    /// The result of the job in hand.
    ///
    /// # Errors
    /// Transient if a batch could not be written; [`Self::take_failed`] says why.
    pub fn done(&mut self, done: &Done, now: Now) -> Result<()> {
        self.in_hand = false;
        match done {
            Done::Applied(Applied { lsn, suspended, .. }) => {
                for index in suspended {
                    self.intake.assembler.suspended(*index);
                }
                self.acks.apply(*lsn, now);
            }
            Done::Stored(lsn) => self.acks.store(*lsn),
            Done::Hardened(lsn) => self.acks.harden(*lsn),
            Done::Staged | Done::Noted | Done::Audited(_) => {}
            Done::Merged(merged) => {
                for one in merged.iter().filter(|one| one.result.is_ok()) {
                    self.mode.merged(one.index);
                }
            }
            Done::Failed(failed) => {
                return Err(self.fail(failed.clone()));
            }
        }
        let applied = self.acks.applied();
        self.passed.apply(applied);
        self.gather.applied(applied);
        self.acks.job_ended();
        Ok(())
    }

    /// The end: the next session learns which read model could not take which transaction.
    fn fail(&mut self, failed: FailedBatch) -> Error {
        let error = failed.error.clone().with_class(Class::Transient);
        self.failed = Some(failed);
        error
    }

    /// The job in flight has ended with the target's session: no result will come.
    pub(crate) fn lost(&mut self) {
        self.in_hand = false;
    }

    /// A status is due, every [`Self::feedback_interval`].
    ///
    /// # Errors
    /// Transient if the source has been silent for too long.
    pub fn tick(&mut self, now: Now) -> Result<()> {
        self.acks.tick(now);
        self.audit.due = now.saturating_sub(self.audit.at) >= self.audit.interval;
        if !self.may_read() {
            // While the loop is not reading, the source cannot be heard.
            self.patience.heard(now);
        } else if self.patience.is_silent(now) {
            return Err(Error::transient("the source has not answered for too long")
                .with_detail("Every status asks for a reply; the connection seems to be dead."));
        }
        Ok(())
    }

    /// Bytes came.
    pub fn heard(&mut self, now: Now) {
        self.patience.heard(now);
    }

    /// A session waits for a higher position.
    pub fn hurry(&mut self) {
        self.acks.hurry();
    }

    /// The source's clock was read, and whether its commits wait for a walsender of our name.
    pub fn read_clock(&mut self, reading: Reading, is_named: bool) {
        self.acks.read_clock(reading, is_named);
    }

    /// A copy asks the stream to pause at or after this position; an earlier pause ends.
    pub fn pause(&mut self, at_least: Lsn, models: Joining) {
        self.resume();
        self.mode = Mode::Pausing { at_least, models };
        // An idle stream passes the position with a keepalive.
        self.acks.say(Asks::Keepalive);
    }

    /// The stream continues. Read models that have not joined leave again, with the waiting changes
    /// for them.
    pub fn resume(&mut self) {
        for index in self.mode.resume() {
            self.intake.assembler.deactivate(index);
            self.pending.forget(index);
        }
    }

    /// The loop that drives the consumer hands a merge to the target. Returns the merge's position,
    /// or `None` if the stream is not paused.
    pub fn begin_merge(&mut self) -> Option<Lsn> {
        if self.in_hand || !self.mode.stands_still() {
            return None;
        }
        self.in_hand = true;
        Some(self.acks.applied())
    }

    /// What the catalogs say of the tables that were asked for: a read model whose rows may be of
    /// other columns leaves before the waiting transactions.
    pub fn proved(&mut self, shapes: &[(TableName, Shape)]) {
        self.proof = Proof::Given;
        let mut broken = self.intake.assembler.prove(shapes);
        for ((root, leaf), commit_lsn) in self.pending.take_leaves() {
            let shape = shapes.iter().find(|(table, _)| *table == root);
            if let Some(Err(error)) = shape.map(|(_, shape)| shape.has_leaf(&root, leaf)) {
                broken.extend(self.intake.assembler.break_table(&root, commit_lsn, &error));
            }
        }
        for broken in broken {
            self.notes.push(Note::Suspended(broken.clone()));
            self.pending.break_off(broken);
        }
    }

    /// When [`Self::wake`] is due, unless something happens before.
    pub fn deadline(&mut self, now: Now) -> Option<Now> {
        let backlog = self
            .patience
            .backlog(self.may_read(), self.has_chunks(), now);
        let may_hand_over = !self.in_hand && !self.mode.stands_still();
        let gathers = self.gather.deadline().filter(|_| may_hand_over);
        let all = [backlog, gathers, self.acks.deadline()];
        all.into_iter().flatten().min()
    }

    /// Time has passed; returns whether a pause has lasted too long and has to end.
    ///
    /// # Errors
    /// Transient if the source's shutdown, or a target that does not take a batch, has lasted too
    /// long.
    pub fn wake(&mut self, now: Now) -> Result<bool> {
        if self.acks.is_shutdown_over(now) {
            return Err(Error::transient("the source is shutting down").with_detail(
                "What it has sent could not be applied in time; it will come again.",
            ));
        }
        let backlog = self
            .patience
            .backlog(self.may_read(), self.has_chunks(), now);
        if backlog.is_none_or(|until| now < until) {
            return Ok(false);
        }
        if self.in_hand {
            // The batch continues, and the loop waits for it; only the connection to the source is
            // closed. A chunk is lost with that connection.
            self.is_stalled = self.has_chunks();
            return Err(Error::transient(
                "the target is slow: the stream is closed until it has taken the batch in hand",
            ));
        }
        // A copy that keeps the stream paused with nothing in hand has had its time.
        self.resume();
        self.patience.handed_over();
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
