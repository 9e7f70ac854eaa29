//! What `cdc` reports to the source: received >= applied >= durable >= acknowledged, and when an
//! idle position is stored.
//!
//! Takes every kind of progress, and alone decides what is acknowledged: never more than a durable
//! checkpoint covers. Until the stream has reached the checkpoint with the history that was
//! applied, nothing is acknowledged, since that would move the slot.
//!
//! A keepalive says how far the walsender has decoded. That position is acknowledged only once it
//! is stored: every `status_interval`, or at once if a session waits for it. Its time comes from
//! the source's clock (`as_of.rs`), so the lookups of a quiet source are known to be as of a later
//! time.
//!
//! A status is sent at a third of wal_sender_timeout, so a keepalive that asks for a reply means
//! that the server shuts down. An idle position is then stored and acknowledged at once. If not
//! everything is acknowledged within [`SHUTDOWN_PATIENCE`], the session ends (measured: with a
//! batch in hand the server hangs at 30,000 keepalives a second until the connection is closed).

use std::time::Duration;

use crate::as_of::{AsOf, Reading};
use crate::batch::Position;
use crate::consume::Now;
use crate::consume::standby::Standby;
use crate::lsn::Lsn;
use crate::progress::Progress;

/// How long the source's shutdown may wait for an acknowledgement; then the connection is closed.
pub(crate) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// What a status asks of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asks {
    /// Nothing.
    Nothing,
    /// A keepalive: where does the stream stand?
    Keepalive,
}

/// An idle position that is worth storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// One that is higher than the stored one.
    Higher,
    /// Also the stored one, as of a later time.
    HigherOrLater,
}

/// Why the position of an idle stream is stored at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A session waits for a higher position.
    Waited,
    /// Nothing was stored for `status_interval`: if the source writes nothing at all, only the time
    /// is stored.
    Due,
}

/// What a status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Every commit before this was received.
    pub received: Lsn,
    /// Every commit before this is applied and durable.
    pub acknowledged: Lsn,
    /// Whether the server is asked for a keepalive.
    pub asks: bool,
    /// Whether the connection is one that no commit waits for.
    pub is_apart: bool,
    /// Whether the slot is to move although the connection is: now and then, since for that moment
    /// commits may wait again.
    pub moves_slot: bool,
    /// Whether commits that have waited no longer need to.
    pub lets_go: bool,
}

/// Settings of [`Acks`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The stored position.
    pub checkpoint: Lsn,
    /// The slot's own position, where the stream begins.
    pub start: Lsn,
    /// How often an idle position is stored, at most.
    pub status_interval: Duration,
    /// How often a status goes out, at least.
    pub feedback_interval: Duration,
    /// Whether a commit of the applying session is durable at once.
    pub synchronous_commit: bool,
    /// Whether source and target are one cluster.
    pub own_cluster: bool,
}

/// Positions, and what follows from them.
#[derive(Debug)]
pub(crate) struct Acks {
    terms: Terms,
    progress: Progress,
    /// Whether the stream has come to the checkpoint with the history that was applied.
    is_proved: bool,
    idle: Option<Position>,
    as_of: AsOf,
    stored_at: Now,
    /// The next keepalive's position is stored at once.
    store_next: Option<Reason>,
    /// The idle position is stored if nothing is in flight.
    store: Option<Reason>,
    harden_due: bool,
    /// The server shuts down: what it has sent, and until when it is served.
    shutdown: Option<(Lsn, Now)>,
    standby: Standby,
    /// A status is due; it asks for a keepalive or not.
    status: Option<Asks>,
}

impl Acks {
    /// Every position is the checkpoint.
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            progress: Progress::at(terms.checkpoint),
            is_proved: false,
            idle: None,
            as_of: AsOf::default(),
            stored_at: Now::ZERO,
            store_next: None,
            store: None,
            harden_due: false,
            shutdown: None,
            standby: Standby::new(terms.own_cluster),
            status: None,
        }
    }

    /// Every commit before this was received.
    pub(crate) fn received(&self) -> Lsn {
        self.progress.received()
    }

    /// Every commit before this is in the target.
    pub(crate) fn applied(&self) -> Lsn {
        self.progress.applied()
    }

    /// Every commit before this may be forgotten by the source.
    pub(crate) fn acknowledged(&self) -> Lsn {
        if self.is_proved {
            self.progress.durable()
        } else {
            self.terms.start
        }
    }

    /// The stream has come to the checkpoint with the history that was applied.
    pub(crate) fn prove(&mut self, is_proved: bool) {
        self.is_proved = is_proved;
    }

    /// A transaction was received that has to be applied.
    pub(crate) fn receive(&mut self, end: Lsn) {
        self.progress.receive(end);
    }

    /// The stream has passed a position without a change, by a transaction that changed nothing
    /// here (13 and 14 send them).
    pub(crate) fn pass(&mut self, position: Position) {
        self.progress.receive(position.lsn);
        self.idle = Some(position);
    }

    /// The same by a keepalive, which may be one that was waited for.
    pub(crate) fn keepalive(&mut self, wal_end: Lsn) {
        self.pass(Position {
            lsn: wal_end,
            commit_time: None,
            last: None,
        });
        self.store = self.store.or(self.store_next.take());
    }

    /// A keepalive asks for a reply: the server shuts down.
    pub(crate) fn reply(&mut self, wal_end: Lsn, now: Now) {
        if self.progress.acknowledged() < wal_end && self.shutdown.is_none() {
            self.shutdown = Some((wal_end, now + SHUTDOWN_PATIENCE));
            self.harden_due = true;
        }
        self.say(Asks::Nothing);
    }

    /// Whether the server shuts down and has waited for too long.
    pub(crate) fn is_shutdown_over(&self, now: Now) -> bool {
        self.shutdown.is_some_and(|(_, until)| now >= until)
    }

    /// A batch was committed together with this position.
    pub(crate) fn apply(&mut self, position: Lsn, now: Now) {
        self.stored_at = now;
        self.store(position);
    }

    /// Rows and checkpoint are committed; whether a crash of the target keeps them depends on its
    /// session's setting.
    pub(crate) fn store(&mut self, position: Lsn) {
        self.progress.apply(position);
        if self.terms.synchronous_commit {
            self.progress.harden(position);
        }
    }

    /// What was committed up to here survives a crash of the target.
    pub(crate) fn harden(&mut self, position: Lsn) {
        self.progress.harden(position);
    }

    /// A job has ended: report it to the source.
    pub(crate) fn job_ended(&mut self) {
        self.harden_due |= self.shutdown.is_some();
        self.say(Asks::Nothing);
    }

    /// A session waits for a higher position.
    pub(crate) fn hurry(&mut self) {
        self.store_next.get_or_insert(Reason::Waited);
        self.say(Asks::Keepalive);
    }

    /// The source's clock was read, and whether its commits wait for a walsender of our name.
    pub(crate) fn read_clock(&mut self, reading: Reading, is_named: bool) {
        self.as_of.read(reading);
        self.standby.read(is_named, reading.flushed);
    }

    /// A status is due, and an idle position is stored when it is time.
    pub(crate) fn tick(&mut self, now: Now) {
        // Half an interval early is better than a whole tick late.
        let since = now.saturating_sub(self.stored_at);
        if since + self.terms.feedback_interval / 2 >= self.terms.status_interval {
            // The status asks for a keepalive; if the last one did not bring one, the newest known
            // position is stored.
            if self.store_next.replace(Reason::Due) == Some(Reason::Due) {
                self.store = Some(Reason::Due);
            }
        }
        self.harden_due = true;
        self.say(Asks::Keepalive);
    }

    /// A status goes out with the next look; one that asks for a keepalive does.
    pub(crate) fn say(&mut self, asks: Asks) {
        self.status = self.status.max(Some(asks));
    }

    /// The status that is due.
    pub(crate) fn take_status(&mut self) -> Option<Status> {
        self.status.take().map(|asks| self.status(asks))
    }

    fn status(&mut self, asks: Asks) -> Status {
        let asks = asks == Asks::Keepalive;
        let acknowledged = self.acknowledged();
        if self.is_proved {
            self.progress.acknowledge();
        }
        let moves_slot = asks || self.shutdown.is_some();
        if self
            .shutdown
            .is_some_and(|(wal_end, _)| acknowledged >= wal_end)
        {
            self.shutdown = None;
        }
        Status {
            received: self.progress.received(),
            acknowledged,
            asks,
            is_apart: self.standby.is_apart(),
            moves_slot,
            lets_go: false,
        }
    }

    /// Compares what was received with what is acknowledged, if commits of the source wait for
    /// that; `open` is the commit of the transaction that is being read. Returns the status to
    /// send.
    pub(crate) fn judge_standby(&mut self, open: Option<Lsn>, now: Now) -> Option<Status> {
        // The end of a transaction is behind its commit record.
        let open = open.map_or(Lsn::ZERO, |commit| Lsn(commit.0.saturating_add(1)));
        let received = self.progress.received().max(open);
        if !self.standby.judge(received, self.acknowledged(), now) {
            return None;
        }
        let lets_go = self.standby.is_apart();
        Some(Status {
            lets_go,
            ..self.status(Asks::Nothing)
        })
    }

    /// Which idle position is to be stored now, if one is. Whoever asks and cannot store has had
    /// the request: the next one comes soon.
    pub(crate) fn wants_to_store(&mut self) -> Option<Idle> {
        match self.store.take() {
            Some(Reason::Due) => Some(Idle::HigherOrLater),
            Some(Reason::Waited) => Some(Idle::Higher),
            None if self.shutdown.is_some() || self.standby.is_waited_for() => Some(Idle::Higher),
            None => None,
        }
    }

    /// Takes the idle position, if it is such a one.
    pub(crate) fn take_idle(&mut self, which: Idle, now: Now) -> Option<Position> {
        let applied = self.progress.applied();
        let also_same = which == Idle::HigherOrLater;
        let news = |idle: &mut Position| idle.lsn > applied || (also_same && idle.lsn == applied);
        let mut position = self.idle.take_if(news)?;
        position.commit_time = position.commit_time.max(self.as_of.at(position.lsn));
        self.stored_at = now;
        Some(position)
    }

    /// Takes the position that is to be made durable, if one is.
    pub(crate) fn take_harden(&mut self) -> Option<Lsn> {
        if std::mem::take(&mut self.harden_due) || self.standby.is_waited_for() {
            self.not_durable()
        } else {
            None
        }
    }

    /// What is applied and not yet durable.
    pub(crate) fn not_durable(&self) -> Option<Lsn> {
        let applied = self.progress.applied();
        (self.progress.durable() < applied).then_some(applied)
    }

    /// When something has to be checked again.
    pub(crate) fn deadline(&self) -> Option<Now> {
        let shutdown = self.shutdown.map(|(_, until)| until);
        shutdown.into_iter().chain(self.standby.deadline()).min()
    }
}
