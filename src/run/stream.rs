//! The loop: one `select!` that reads the stream, hands batches to the applier, and tells the source how far they got.
//!
//! In: frames of the replication connection. Out: jobs for the applier and acknowledgements. While one batch is being applied
//! the next one is being read, so batches are small when the stream is quiet and large when it is behind.
//!
//! Only this loop decides what is acknowledged, and it acknowledges nothing but [`Progress`]'s applied position,
//! which moves only on a result of the applier.
//!
//! The source's fast shutdown never waits for us. Status goes out at a third of wal_sender_timeout whatever else
//! happens, so a keepalive that asks for a reply means shutdown: an idle position is stored and acknowledged at once, and what is
//! not acknowledged within `SHUTDOWN_PATIENCE` closes the connection (measured: with a batch in flight the server
//! hangs at 30,000 keepalives a second until the connection is closed).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::as_of::{AsOf, Reading};
use crate::batch::{Merged, Position};
use crate::error::{Class, Error, Result};
use crate::lsn::{Lsn, PgTimestamp};
use crate::progress::{Progress, Replay, Verdict};
use crate::protocol::frame::StreamFrame;
use crate::protocol::pgoutput::{self, Message};
use crate::read_model::ReadModel;
use crate::run::applier::{Applier, Done};
use crate::run::passed::Passed;
use crate::run::pending::{CHUNK_BYTES, Pending};
use crate::run::report;
use crate::run::watch::{Answer, Question};
use crate::settings::ReadModelSettings;
use crate::source::replication::Replication;
use crate::stuck::Stuck;
use crate::target::model::TargetModel;
use crate::transaction::{Assembler, Transaction};

mod hand_over;
mod idle;
mod patience;
mod pause;
mod proof;
mod standby;

use idle::StoreNext;
use patience::Silence;
use pause::{Pause, resumed};
use proof::answered;
use standby::{Standby, judged_again};

/// Bytes of folded changes above which the loop stops reading until the applier has caught up.
const MOST_PENDING_BYTES: usize = 16 << 20;

/// Read models in what waits above which the loop stops reading, too: a batch needs tables and locks of the target for each of them.
const MOST_PENDING_READ_MODELS: usize = 25;

/// How long the source's shutdown may wait for an acknowledgement; then the connection is closed.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A transaction that is sent this long after its commit, by the source's own clock, tells that the stream is behind.
const BEHIND_MICROS: i64 = 50_000;

/// How long a stream that is behind and has drained the socket lets data gather. Every message that wakes a reader costs the
/// walsender a wake-up: reading in large pieces more than doubles its rate (0.2 to 1 ms measured alike; the runtime's
/// timer rounds up to milliseconds).
const PACE: Duration = Duration::from_micros(500);

/// What others ask of the loop.
#[derive(Debug)]
pub enum Command {
    /// Stand still at the first position at or after `at_least`, and tell it. The loop goes on when `resume` is dropped.
    Pause {
        /// What the copy has received.
        at_least: Lsn,
        /// Read models that shall take part from that position on, by index, as the copy bound them.
        models: Vec<(usize, Arc<ReadModel>)>,
        /// Gets the position.
        reply: oneshot::Sender<Lsn>,
        /// Ends the pause when its sender is dropped.
        resume: oneshot::Receiver<()>,
    },
    /// End the session: the watch has seen what it cannot go on with.
    End {
        /// What it has seen.
        error: Error,
        /// Whether the batch in hand is given up: the target does not answer.
        abandon: bool,
    },
    /// The source's clock was read, and whether its commits wait for a walsender of our name.
    Clock(Reading, bool),
    /// Store the position of an idle stream as soon as may be: somebody waits for it.
    Hurry,
    /// Merge exact copies at the position at which the loop stands still.
    Merge {
        /// Read models as the copy bound them, by index.
        models: Vec<(usize, TargetModel)>,
        /// Number of the resync, which is done with the merge.
        request: Option<i64>,
        /// Gets the result.
        reply: oneshot::Sender<Result<Vec<Merged>>>,
    },
}

/// How the loop ended without an error.
#[derive(Debug)]
pub struct Left {
    /// The applier, with everything applied that could be.
    pub applier: Applier,
    /// The job that may still be running in it.
    pub in_hand: Option<InHand>,
    /// Whether it ended because a chunk of a large transaction took the target too long.
    pub stalled: bool,
    /// The batch that could not be written, if that ended the loop.
    pub refused: Option<Refused>,
    /// Where the stream stood when the source reported that it cannot send what follows.
    pub unsendable: Option<Lsn>,
}

/// A job that the applier has in hand.
#[derive(Debug, Clone, Copy)]
pub struct InHand {
    transactions: u64,
    lsn: Lsn,
}

impl InHand {
    /// The job could not be done because of this read model's rows.
    pub fn refused(self, index: usize, error: Error) -> Refused {
        Refused {
            index,
            transactions: self.transactions,
            lsn: self.lsn,
            error,
        }
    }
}

/// A batch that could not be written because of one read model's rows.
#[derive(Debug)]
pub struct Refused {
    /// The read model.
    pub index: usize,
    /// Number of transactions in the batch: with one, it is the one that cannot be taken.
    pub transactions: u64,
    /// End of the batch.
    pub lsn: Lsn,
    /// Why.
    pub error: Error,
}

/// Everything that the loop begins with.
#[derive(Debug)]
pub struct Start {
    /// The connection, streaming.
    pub replication: Replication,
    /// The applier.
    pub applier: Applier,
    /// Read models by index, and whether they take part.
    pub models: Vec<(ReadModelSettings, Option<Arc<ReadModel>>)>,
    /// The stored position.
    pub checkpoint: Lsn,
    /// The slot's own position, where the stream begins.
    pub start: Lsn,
    /// What must come again.
    pub replay: Replay,
    /// Whether a commit of the applying session is durable at once.
    pub synchronous_commit: bool,
    /// Apply one transaction at a time up to here: one of them was refused.
    pub careful_until: Option<Lsn>,
    /// How often an idle position is stored, at most.
    pub status_interval: Duration,
    /// wal_sender_timeout of the connection; zero is off.
    pub sender_timeout: Duration,
    /// How long reading may stand still while a chunk of a large transaction is staged.
    pub chunk_patience: Duration,
    /// Whether source and target are one cluster.
    pub own_cluster: bool,
    /// Told when commits that have waited for us need not any more.
    pub let_go: Arc<Notify>,
    /// Whether to read in large pieces when behind: not over Unix sockets, whose buffers are small and of fixed size.
    pub pace: bool,
    /// How far the stream is, for the watch.
    pub passed: Arc<Passed>,
    /// What the stream asks of the watch.
    pub questions: mpsc::Sender<Question>,
}

/// The loop's state.
pub struct Stream {
    replication: Replication,
    applier: Applier,
    assembler: Assembler,
    names: Vec<ReadModelSettings>,
    replay: Replay,
    progress: Progress,
    pending: Pending,
    in_flight: Option<InFlight>,
    /// Chunks of the open transaction that are staged.
    chunks: u64,
    idle: Option<Position>,
    as_of: AsOf,
    stored_at: Instant,
    /// The next keepalive is stored at once: somebody waits for the position, or it is due.
    store_next: Option<StoreNext>,
    status_interval: Duration,
    feedback_interval: Duration,
    careful_until: Option<Lsn>,
    pause: Option<Pause>,
    shutdown: Option<(Lsn, Instant)>,
    backlog_since: Option<Instant>,
    refused: Option<Refused>,
    pace: bool,
    passed: Arc<Passed>,
    questions: mpsc::Sender<Question>,
    /// The watch looks at tables that were described: what waits must be proved first.
    proof: Option<oneshot::Receiver<Answer>>,
    behind: bool,
    /// When the next batch goes out, although it is small.
    gathers_until: Option<Instant>,
    /// The slot's own position at the start: all that is acknowledged before the history is proved.
    start: Lsn,
    synchronous_commit: bool,
    harden_due: bool,
    /// Whether the bookkeeping is to be compared with the read models that take part, and when it was last.
    audit_due: bool,
    audited_at: Instant,
    silence: Silence,
    standby: Standby,
    let_go: Arc<Notify>,
    abandon: bool,
    chunk_patience: Duration,
    stalled: bool,
    /// Whether the source itself reported the error that ended the loop, and it may be about what is to be sent.
    reported: bool,
}

struct InFlight {
    lsn: Lsn,
    transactions: u64,
    since: Instant,
    commit_time: Option<PgTimestamp>,
    /// Who waits for the result of a merge.
    merge: Option<oneshot::Sender<Result<Vec<Merged>>>>,
}

impl InFlight {
    /// A job without transactions.
    fn new(lsn: Lsn) -> Self {
        Self {
            lsn,
            transactions: 0,
            since: Instant::now(),
            commit_time: None,
            merge: None,
        }
    }

    fn in_hand(&self) -> InHand {
        InHand {
            transactions: self.transactions,
            lsn: self.lsn,
        }
    }
}

impl Stream {
    /// Sets the loop up.
    pub fn new(start: Start) -> Self {
        let mut assembler = Assembler::new(start.checkpoint);
        let mut names = Vec::with_capacity(start.models.len());
        for (settings, model) in start.models {
            assembler.add(model);
            names.push(settings);
        }
        let third = start.sender_timeout / 3;
        let feedback_interval = if third.is_zero() {
            start.status_interval
        } else {
            third.min(start.status_interval)
        };
        Self {
            replication: start.replication,
            applier: start.applier,
            assembler,
            names,
            replay: start.replay,
            progress: Progress::at(start.checkpoint),
            pending: Pending::default(),
            in_flight: None,
            chunks: 0,
            idle: None,
            as_of: AsOf::default(),
            stored_at: Instant::now(),
            store_next: None,
            status_interval: start.status_interval,
            feedback_interval,
            careful_until: start.careful_until,
            pause: None,
            shutdown: None,
            backlog_since: None,
            refused: None,
            pace: start.pace,
            passed: start.passed,
            questions: start.questions,
            proof: None,
            behind: false,
            gathers_until: None,
            start: start.start,
            synchronous_commit: start.synchronous_commit,
            harden_due: false,
            audit_due: false,
            audited_at: Instant::now(),
            silence: Silence::begin(feedback_interval, start.sender_timeout, Instant::now()),
            standby: Standby::new(start.own_cluster),
            let_go: start.let_go,
            abandon: false,
            chunk_patience: start.chunk_patience,
            stalled: false,
            reported: false,
        }
    }

    /// Runs until it is stopped or an error ends it. In both cases the applier comes back.
    pub async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> (Left, Result<()>) {
        let result = self.turn_until_stopped(commands, stop).await;
        let result = match result {
            Ok(()) => self.leave().await,
            Err(error) => Err(error),
        };
        let in_hand = self.in_flight.as_ref().filter(|_| !self.abandon);
        let in_hand = in_hand.map(InFlight::in_hand);
        self.replication.finish().await;
        (
            Left {
                applier: self.applier,
                in_hand,
                stalled: self.stalled,
                refused: self.refused,
                unsendable: self.reported.then(|| self.progress.applied()),
            },
            result,
        )
    }

    async fn turn_until_stopped(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut feedback = tokio::time::interval(self.feedback_interval);
        feedback.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            loop {
                self.drain().await?;
                if !self.submit().await? {
                    break;
                }
            }
            self.grant_pause().await?;
            self.serve_commits().await?;
            let reading = self.may_read();
            let deadline = self.deadline(reading);
            tokio::select! {
                biased;
                // To leave comes first: nothing below may starve it.
                () = stop.cancelled() => return Ok(()),
                // A result frees the applier and moves what may be acknowledged.
                done = self.applier.result(), if self.in_flight.is_some() => self.applied(done).await?,
                // Feedback keeps the connection alive whatever the target does.
                _ = feedback.tick() => self.feedback().await?,
                Some(command) = commands.recv() => self.command(command).await?,
                answer = answered(&mut self.proof), if self.proof.is_some() => self.proved(answer).await?,
                () = resumed(&mut self.pause), if self.pause.is_some() && !self.merging() => self.end_pause(),
                () = gathered(self.gathers_until), if self.in_flight.is_none() && !self.stands_still() => {}
                () = judged_again(self.standby.deadline()) => {}
                () = tokio::time::sleep_until(deadline), if deadline_is_set(deadline) => self.out_of_patience(reading)?,
                read = fill(&mut self.replication, self.pace && self.behind), if reading => {
                    read?;
                    self.silence.end(Instant::now());
                }
            }
        }
    }

    /// Whether more of the stream may be taken in.
    fn may_read(&self) -> bool {
        // To come to stand, what was received is applied and no more is taken in; else one batch would follow another for ever.
        let comes_to_stand = self
            .pause
            .as_ref()
            .is_some_and(|pause| pause.reply.is_some() && self.progress.received() >= pause.at_least);
        if self.proof.is_some() || comes_to_stand && !self.assembler.is_open() {
            return false;
        }
        if self.assembler.bytes() >= CHUNK_BYTES {
            return false;
        }
        if self.pending.is_empty() {
            return true;
        }
        // The end of a transaction in chunks goes alone: one that breaks a read model leaves it as it was before.
        if self.chunks > 0 {
            return false;
        }
        let careful = self.careful_until.is_some();
        !careful
            && self.pending.read_models() < MOST_PENDING_READ_MODELS
            && self.pending.bytes() + self.assembler.bytes() < MOST_PENDING_BYTES
    }

    /// Takes every whole frame out of the buffer.
    async fn drain(&mut self) -> Result<()> {
        let mut reply_to = None;
        let mut store = None;
        while self.may_read() {
            let reported = &mut self.reported;
            let frame = self.replication.next_frame();
            let Some(frame) = frame.map_err(|error| gone(error, reported))? else {
                break;
            };
            match frame {
                StreamFrame::WalData {
                    payload, send_time, ..
                } => {
                    let message = pgoutput::decode(payload)?;
                    if let Message::Begin(begin) = &message {
                        self.behind = send_time.0.saturating_sub(begin.commit_time.0) > BEHIND_MICROS;
                    }
                    let Some(transaction) = self.assembler.take(&message)? else {
                        continue;
                    };
                    match self.replay.judge(transaction.id, transaction.has_changes) {
                        Verdict::Skip => {}
                        Verdict::Rewritten => return Err(rewritten()),
                        Verdict::Apply => self.take_in(transaction),
                    }
                }
                StreamFrame::Keepalive {
                    wal_end,
                    reply_requested,
                    ..
                } => {
                    if self.replay.pass(wal_end) == Verdict::Rewritten {
                        return Err(rewritten());
                    }
                    check_position(wal_end)?;
                    if !self.assembler.is_open() {
                        self.progress.receive(wal_end);
                        self.idle = Some(Position {
                            lsn: wal_end,
                            commit_time: None,
                            last: None,
                        });
                        store = store.or(self.store_next.take());
                    }
                    if reply_requested {
                        reply_to = Some(wal_end);
                    }
                }
                StreamFrame::CopyDone => return Err(Error::transient("the source ended the stream")),
            }
        }
        if let Some(why) = store {
            self.store_idle(why == StoreNext::Due).await?;
        }
        match reply_to {
            Some(wal_end) => self.reply(wal_end).await,
            None => Ok(()),
        }
    }

    /// A new transaction: it waits for the applier. One that changed nothing here (13 and 14 send them) only moves the position.
    fn take_in(&mut self, transaction: Transaction) {
        self.progress.receive(transaction.end_lsn);
        let commit_lsn = transaction.id.commit_lsn;
        self.passed.bring(&transaction.changes, commit_lsn);
        self.bring_leaves(&transaction.leaves);
        for broken in transaction
            .broken
            .iter()
            .filter(|broken| broken.commit_lsn == commit_lsn)
        {
            if let Some(settings) = self.names.get(broken.index) {
                report::suspended(settings, &broken.error, Some(commit_lsn));
            }
        }
        if transaction.has_changes || !transaction.broken.is_empty() {
            self.pending.add(transaction);
        } else {
            let commit_time = Some(transaction.id.commit_time);
            self.idle = Some(Position {
                lsn: transaction.end_lsn,
                commit_time,
                last: None,
            });
        }
    }

    /// The server asks for a reply: it is shutting down.
    async fn reply(&mut self, wal_end: Lsn) -> Result<()> {
        if self.progress.acknowledged() < wal_end && self.shutdown.is_none() {
            self.shutdown = Some((wal_end, Instant::now() + SHUTDOWN_PATIENCE));
            self.store_idle(false).await?;
            self.harden_due = self.progress.durable() < self.progress.applied();
        }
        self.send_status(false).await
    }

    /// A job of the applier has ended.
    async fn applied(&mut self, done: Result<Done>) -> Result<()> {
        let Some(job) = self.in_flight.take() else {
            return Ok(());
        };
        let in_hand = job.in_hand();
        match (done, job.merge) {
            (Ok(Done::Applied { written, suspended }), _) => {
                for index in suspended {
                    self.assembler.suspended(index);
                }
                report::batch(
                    &self.names,
                    &written,
                    job.transactions,
                    job.lsn,
                    job.since.elapsed(),
                    job.commit_time,
                );
                self.apply_progress(job.lsn);
                self.stored_at = Instant::now();
            }
            (Ok(Done::Staged | Done::Noted), _) => {}
            (Ok(Done::Audited(found)), _) => {
                for settings in found.into_iter().filter_map(|index| self.names.get(index)) {
                    report::out_of_stream(settings);
                }
            }
            (Ok(Done::Hardened), _) => self.progress.harden(job.lsn),
            (Ok(Done::Refused(index, error)), _) => {
                self.refused = Some(in_hand.refused(index, error.clone()));
                return Err(error.with_class(Class::Transient));
            }
            (Ok(Done::Stored), _) => self.apply_progress(job.lsn),
            (Ok(Done::Merged(merged)), Some(reply)) => {
                if let Some(pause) = &mut self.pause {
                    let joined =
                        |index: usize| merged.iter().any(|(of, merged)| *of == index && merged.is_ok());
                    pause.joining.retain(|index| !joined(*index));
                }
                // Whoever asked may be gone; the merge is committed all the same.
                let _ = reply.send(Ok(merged));
            }
            (Ok(Done::Merged(_)), None) => {}
            (Err(error), Some(reply)) if merge_alone_failed(&error) => {
                // Rolled back: the stream goes on where it stands.
                let _ = reply.send(Err(error));
            }
            (Err(error), _) => return Err(error),
        }
        if self
            .careful_until
            .is_some_and(|until| self.progress.applied() >= until)
        {
            self.careful_until = None;
        }
        if self.shutdown.is_some() {
            self.harden_due = self.progress.durable() < self.progress.applied();
            self.store_idle(false).await?;
        }
        self.send_status(false).await
    }

    async fn send_status(&mut self, reply_requested: bool) -> Result<()> {
        let received = self.progress.received();
        let acknowledged = self.acknowledged();
        if self.replay.is_proved() {
            self.progress.acknowledge();
        }
        // A request goes out now and then only: for the moment that the slot takes to move, commits may wait again.
        if reply_requested || self.shutdown.is_some() {
            self.replication.move_slot(received, acknowledged);
        }
        if self.shutdown.is_some_and(|(wal_end, _)| acknowledged >= wal_end) {
            self.shutdown = None;
        }
        self.replication
            .send_status(received, acknowledged, acknowledged, reply_requested)
            .await
    }

    /// What the source may be told: nothing before its history is proved, since the slot would move.
    fn acknowledged(&self) -> Lsn {
        if self.replay.is_proved() {
            self.progress.durable()
        } else {
            self.start
        }
    }

    /// Rows and checkpoint are committed; whether a crash of the target keeps them depends on its session's setting.
    fn apply_progress(&mut self, position: Lsn) {
        self.progress.apply(position);
        self.passed.apply(position);
        if self.synchronous_commit {
            self.progress.harden(position);
        }
    }
}

/// Reads more of the stream. Cancel-safe.
async fn fill(replication: &mut Replication, pace: bool) -> Result<()> {
    if pace && !replication.last_fill_was_full() {
        tokio::time::sleep(PACE).await;
    }
    replication.fill().await
}

/// Whether the error concerns nothing but the merge: the rows that it brings, or the room that it takes (disk, memory, temporary files;
/// class 53), which a batch does not take. A session that began again would only try the same merge at once.
fn merge_alone_failed(error: &Error) -> bool {
    matches!(error.class(), Class::Refused | Class::Broken)
        || error
            .sqlstate()
            .is_some_and(|sqlstate| sqlstate.starts_with("53"))
}

/// Comes back when a batch that gathers has to go out.
async fn gathered(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

fn deadline_is_set(deadline: Instant) -> bool {
    deadline < Instant::now() + Duration::from_secs(43_200)
}

fn rewritten() -> Error {
    Error::new(Class::Gap, "the source's history is not the one that was applied")
        .with_detail("The last applied transaction did not come again as it was: the source was restored.")
}

/// A position from the wire that no server can have (2^63 and beyond) must not be stored: it could never be passed again.
fn check_position(position: Lsn) -> Result<()> {
    if position.0 >> 63 == 0 {
        Ok(())
    } else {
        Err(Error::protocol(format!(
            "the server told a position that cannot be: {position}"
        )))
    }
}

/// The server looks the publication up as of the change that it decodes, so the old slot never finds one that was made
/// again (up to 17). The slot itself may be gone too: both are undefined objects.
fn gone(error: Error, reported: &mut bool) -> Error {
    *reported = error.sqlstate().is_some_and(Stuck::concerns);
    if error.sqlstate() == Some("42704") {
        error.with_class(Class::Gap)
    } else {
        error
    }
}
