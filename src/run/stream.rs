//! The loop: one `select!` between the replication connection, the applier and the commands of the
//! tasks beside the stream.
//!
//! In: frames, results, commands. Out: jobs and acknowledgements. It decides nothing: each event
//! goes to the [`Consumer`], which says what to do next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{MergePosition, Merged};
use crate::consume::acks::Status;
use crate::consume::consumer::{Action, Consumer, Note};
use crate::consume::job::{Done, FailedBatch};
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::run::applier::{Applier, Job};
use crate::run::messages::{Answer, Command, MergeReply, Question};
use crate::run::report;
use crate::source::replication::Replication;
use crate::stuck::Stuck;

/// How long a stream that is behind and has drained the socket lets data gather. Every message that
/// wakes a reader costs the walsender a wake-up: reading in large pieces more than doubles its rate
/// (0.2 to 1 ms measured alike; the runtime's timer rounds up to milliseconds).
const PACE: Duration = Duration::from_micros(500);

/// How long a stop waits for the batch in hand.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How the loop ended without an error.
#[derive(Debug)]
pub(crate) struct Left {
    /// The applier, with everything applied that could be.
    pub applier: Applier,
    /// Whether a job may still be running in it.
    pub in_hand: bool,
    /// Whether it ended because a chunk of a large transaction took the target too long.
    pub stalled: bool,
    /// The batch that could not be written, if that ended the loop.
    pub failed: Option<FailedBatch>,
    /// The position of the stream when the source reported that it cannot send the next change.
    pub unsendable: Option<Lsn>,
}

/// The loop's connections.
#[derive(Debug)]
pub(crate) struct Ends {
    /// The connection, streaming.
    pub replication: Replication,
    /// The applier.
    pub applier: Applier,
    /// What the stream asks of the watch.
    pub questions: mpsc::Sender<Question>,
    /// Notified when commits that have waited for us no longer need to.
    pub let_go: Arc<Notify>,
    /// Whether to read in large pieces when behind: not over Unix sockets, whose buffers are small
    /// and of fixed size.
    pub pace: bool,
}

/// The loop's state.
pub(crate) struct Stream {
    consumer: Consumer,
    ends: Ends,
    began: Instant,
    /// When the job in hand was handed over.
    submitted_at: Instant,
    /// The receiver of the result of the merge in hand.
    merge: Option<MergeReply>,
    /// The watch looks at tables that were described.
    proof: Option<oneshot::Receiver<Answer>>,
    /// The receiver of the position at which the stream pauses.
    stand: Option<oneshot::Sender<Lsn>>,
    /// Completes when the pause is over.
    resume: Option<oneshot::Receiver<()>>,
    /// Whether the batch in hand is given up.
    abandon: bool,
    /// Whether the source itself reported the error that ended the loop, and it may be about a
    /// value to be sent.
    reported: bool,
}

impl Stream {
    /// Sets the loop up.
    pub(crate) fn new(consumer: Consumer, ends: Ends) -> Self {
        Self {
            consumer,
            ends,
            began: Instant::now(),
            submitted_at: Instant::now(),
            merge: None,
            proof: None,
            stand: None,
            resume: None,
            abandon: false,
            reported: false,
        }
    }

    /// Runs until it is stopped or an error ends it. In both cases it returns the applier.
    pub(crate) async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> (Left, Result<()>) {
        let result = match self.turn_until_stopped(commands, stop).await {
            Ok(()) => self.leave().await,
            Err(error) => Err(error),
        };
        self.log_notes();
        let left = Left {
            in_hand: self.consumer.in_hand() && !self.abandon,
            stalled: self.consumer.is_stalled(),
            failed: self.consumer.take_failed(),
            unsendable: self.reported.then(|| self.consumer.applied()),
            applier: self.ends.applier,
        };
        self.ends.replication.finish().await;
        (left, result)
    }

    async fn turn_until_stopped(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut feedback = tokio::time::interval(self.consumer.feedback_interval());
        feedback.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.drain()?;
            while let Some(action) = self.consumer.next(self.began.elapsed())? {
                self.act(action).await?;
                // A job that was handed over may have made room.
                self.drain()?;
            }
            self.log_notes();
            let reads = self.consumer.may_read();
            let deadline = self.consumer.deadline(self.began.elapsed());
            let deadline = deadline.map(|at| self.began + at);
            let pace = self.ends.pace && self.consumer.is_behind();
            tokio::select! {
                biased;
                // A stop comes first: nothing below may starve it.
                () = stop.cancelled() => return Ok(()),
                // A result frees the applier and moves what may be acknowledged.
                done = self.ends.applier.result(), if self.consumer.in_hand() => self.done(done)?,
                // Feedback keeps the connection alive whatever the target does.
                _ = feedback.tick() => self.consumer.tick(self.began.elapsed())?,
                // A waiting copy delays the stream: it is heard before more is read.
                Some(command) = commands.recv() => self.command(command).await?,
                // Waiting transactions are handed over once they are proved.
                answer = answered(&mut self.proof), if self.proof.is_some() => self.proved(answer)?,
                // A pause is over when its copy is; a merge that is under way is not given up.
                () = resumed(&mut self.resume), if self.resume.is_some() && self.merge.is_none() => self.resume(),
                // A deadline of the consumer has passed.
                () = reached(deadline) => self.wake()?,
                // More is read only when all else is done.
                read = fill(&mut self.ends.replication, pace), if reads => {
                    read?;
                    self.consumer.heard(self.began.elapsed());
                }
            }
        }
    }

    /// Takes every whole frame out of the buffer.
    fn drain(&mut self) -> Result<()> {
        while self.consumer.may_read() {
            let reported = &mut self.reported;
            let frame = self.ends.replication.next_frame();
            let Some(frame) = frame.map_err(|error| gone(error, reported))? else {
                break;
            };
            self.consumer.take(&frame, self.began.elapsed())?;
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Submit(job) => self.submit(Job::Stream(job)).await,
            Action::Say(status) => self.say(status).await,
            Action::Look(tables) => {
                let (reply, answer) = oneshot::channel();
                let question = Question { tables, reply };
                let asked = self.ends.questions.send(question).await;
                asked.map_err(|_| Error::transient("the watch has ended"))?;
                self.proof = Some(answer);
                Ok(())
            }
            Action::Stand(position) => {
                let waiting = self.stand.take();
                if waiting.is_some_and(|reply| reply.send(position).is_err()) {
                    self.resume();
                }
                Ok(())
            }
        }
    }

    async fn submit(&mut self, job: Job) -> Result<()> {
        self.submitted_at = Instant::now();
        self.ends.applier.submit(job).await
    }

    async fn say(&mut self, status: Status) -> Result<()> {
        let Status {
            received,
            acknowledged,
            ..
        } = status;
        if status.lets_go {
            tracing::debug!(%received, %acknowledged, "the source's commits do not wait for what is acknowledged here");
            self.ends.let_go.notify_one();
        }
        let replication = &mut self.ends.replication;
        replication.stand_apart(status.is_apart);
        if status.moves_slot {
            replication.move_slot(received, acknowledged);
        }
        let (written, flushed, applied) = (received, acknowledged, acknowledged);
        replication
            .send_status(written, flushed, applied, status.asks)
            .await
    }

    /// The applier has ended its job.
    fn done(&mut self, done: Result<Done>) -> Result<()> {
        let done = match (done, &self.merge) {
            (Ok(done), _) => done,
            (Err(error), Some(_)) if merge_alone_failed(&error) => {
                // Rolled back: the stream continues from where it is.
                self.answer_merge(Err(error));
                Done::Merged(Vec::new())
            }
            (Err(error), _) => {
                self.consumer.lost();
                return Err(error);
            }
        };
        self.consumer.done(&done, self.began.elapsed())?;
        let read_models = self.consumer.read_models();
        match done {
            Done::Applied(applied) => {
                report::batch(read_models, &applied, self.submitted_at.elapsed())
            }
            Done::Audited(found) => {
                for settings in found.into_iter().filter_map(|index| index.of(read_models)) {
                    report::out_of_stream(settings);
                }
            }
            Done::Merged(merged) => self.answer_merge(Ok(merged)),
            Done::Staged | Done::Stored(_) | Done::Noted | Done::Hardened(_) | Done::Failed(_) => {}
        }
        Ok(())
    }

    fn answer_merge(&mut self, merged: Result<Vec<Merged>>) {
        if let Some(reply) = self.merge.take() {
            // The receiver may be dropped; the merge is committed all the same.
            let _ = reply.send(merged);
        }
    }

    async fn command(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Pause {
                at_least,
                models,
                reply,
                resume,
            } => {
                self.consumer.pause(at_least, models);
                self.stand = Some(reply);
                self.resume = Some(resume);
            }
            Command::Clock(reading, is_named) => self.consumer.read_clock(reading, is_named),
            Command::Hurry => self.consumer.hurry(),
            Command::End { error, abandon } => {
                self.abandon = abandon;
                return Err(error);
            }
            Command::Merge {
                models,
                request,
                reply,
            } => match self.consumer.begin_merge() {
                None => {
                    let _ = reply.send(Err(Error::transient("the stream is not paused")));
                }
                Some(lsn) => {
                    self.merge = Some(reply);
                    let position = MergePosition::Running(lsn, request);
                    self.submit(Job::Merge { models, position }).await?;
                }
            },
        }
        Ok(())
    }

    fn proved(&mut self, answer: Answer) -> Result<()> {
        self.proof = None;
        let shapes = answer.map_err(|error| error.with_class(Class::Transient))?;
        self.consumer.proved(&shapes);
        Ok(())
    }

    fn resume(&mut self) {
        self.stand = None;
        self.resume = None;
        self.consumer.resume();
    }

    fn wake(&mut self) -> Result<()> {
        if self.consumer.wake(self.began.elapsed())? {
            self.resume();
        }
        Ok(())
    }

    /// Finishes the job in hand, stores and acknowledges. Waiting transactions come again after the
    /// restart.
    async fn leave(&mut self) -> Result<()> {
        loop {
            if self.consumer.in_hand() {
                match tokio::time::timeout(STOP_PATIENCE, self.ends.applier.result()).await {
                    Ok(done) => self.done(done)?,
                    Err(_) => return Ok(()),
                }
            }
            self.resume();
            match self.consumer.last_job(self.began.elapsed())? {
                Some(job) => self.submit(Job::Stream(job)).await?,
                None => break,
            }
        }
        match self.consumer.last_status() {
            Some(status) => self.say(status).await,
            None => Ok(()),
        }
    }

    fn log_notes(&mut self) {
        for note in self.consumer.take_notes() {
            match note {
                Note::Suspended(broken) => {
                    if let Some(settings) = broken.index.of(self.consumer.read_models()) {
                        report::suspended(settings, &broken.error, Some(broken.commit_lsn));
                    }
                }
                Note::Chunk(id, changes) => {
                    tracing::debug!(
                        xid = id.xid,
                        changes,
                        "staging a chunk of a large transaction"
                    );
                }
            }
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

/// Waits for the watch's answer. Cancel-safe.
async fn answered(proof: &mut Option<oneshot::Receiver<Answer>>) -> Answer {
    match proof {
        Some(answer) => answer
            .await
            .unwrap_or_else(|_| Err(Error::transient("the watch has ended"))),
        None => std::future::pending().await,
    }
}

/// Waits until the pause's owner lets go. Cancel-safe.
async fn resumed(resume: &mut Option<oneshot::Receiver<()>>) {
    match resume {
        Some(resume) => {
            let _ = resume.await;
        }
        None => std::future::pending().await,
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Whether the error concerns only the merge: its rows, or the room that it takes (disk, memory,
/// temporary files; class 53) and a batch does not. A new session would only try the same merge at
/// once.
fn merge_alone_failed(error: &Error) -> bool {
    matches!(error.class(), Class::Rejected | Class::Broken)
        || error
            .sqlstate()
            .is_some_and(|sqlstate| sqlstate.starts_with("53"))
}

/// The server looks the publication up as of the change that it decodes, so the old slot never
/// finds one that was created again (up to 17). The slot itself may be missing too: both are
/// undefined objects.
fn gone(error: Error, reported: &mut bool) -> Error {
    *reported = error.sqlstate().is_some_and(Stuck::concerns);
    if error.sqlstate() == Some("42704") {
        error.with_class(Class::Gap)
    } else {
        error
    }
}
