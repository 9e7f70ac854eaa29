//! Plays the crate's consumer against a source and a target in memory, in an order that a seed
//! draws: frames and results come, time passes, copies pause the stream and are merged, tables are
//! altered, a row cannot be written, connections and servers are lost. After each step the lookups
//! are what the source was at the stored position, and no more is acknowledged than a crash of the
//! target leaves.

use std::sync::Arc;
use std::time::Duration;

use cdc::as_of::Reading;
use cdc::batch::{Batch, Merged, Written};
use cdc::consume::acks::Status;
use cdc::consume::consumer::{Action, Consumer};
use cdc::consume::job::{Applied, Done, FailedBatch, Job};
use cdc::consume::passed::Passed;
use cdc::consume::start::Start;
use cdc::error::{Class, Error};
use cdc::lsn::{Lsn, PgTimestamp};
use cdc::progress::{Replay, TransactionId};
use cdc::protocol::frame::StreamFrame;
use cdc::read_model::{ModelIndex, ReadModel};

use crate::copy::Copy;
use crate::feed::{Feed, frame, keepalive};
use crate::history::{Drive, Sent, compare_one, rewritten_histories_are_noticed};
use crate::lookups::{expected, models, shape};
use crate::source::{Kind, Table};
use crate::writer::{Stage, Target};

/// Steps after which everything has to be at rest.
const MOST_STEPS: usize = 20_000;

/// The read model of which a row cannot be written.
const POISONED: ModelIndex = ModelIndex(0);

/// What the target keeps.
#[derive(Clone, Default)]
struct Kept {
    targets: [Target; 2],
    checkpoint: Lsn,
    last: Option<TransactionId>,
    out_of_step: [bool; 2],
}

/// A job that the target has.
enum Hand {
    Job(Job),
    Merge,
}

/// How a step ends.
type Step = Result<(), String>;

/// The consumer, and all that is around it.
pub struct Player<'a> {
    kind: Kind,
    sent: &'a [Sent],
    drive: Drive,
    /// The table before all of them.
    empty: Table,
    random: fastrand::Rng,
    models: [Arc<ReadModel>; 2],
    /// Transactions that are committed at the source.
    committed: usize,
    now: Duration,
    kept: Kept,
    /// What a crash of the target leaves.
    flushed: Kept,
    slot: Lsn,
    consumer: Consumer,
    feed: Feed,
    in_hand: Option<Hand>,
    stages: [Stage; 2],
    is_looking: bool,
    copy: Option<Copy>,
    stands: bool,
    /// Whether this connection's server has asked for the last reply.
    has_shut_down: bool,
    careful_until: Option<Lsn>,
    /// What was done, for whoever looks for the fault.
    pub trace: Vec<String>,
}

impl<'a> Player<'a> {
    pub fn new(kind: Kind, sent: &'a [Sent], drive: Drive) -> Self {
        let models = models(kind);
        let kept = Kept::default();
        Self {
            consumer: begin(&models, &kept, Lsn::ZERO, None, drive),
            feed: Feed::from(Lsn::ZERO, sent),
            random: fastrand::Rng::with_seed(drive.seed),
            empty: Table::new(kind),
            kind,
            sent,
            drive,
            models,
            committed: 0,
            now: Duration::ZERO,
            flushed: kept.clone(),
            kept,
            slot: Lsn::ZERO,
            in_hand: None,
            stages: Default::default(),
            is_looking: false,
            copy: None,
            stands: false,
            has_shut_down: false,
            careful_until: None,
            trace: Vec::new(),
        }
    }

    /// Plays until everything is at rest.
    pub fn play(&mut self) -> Step {
        for _ in 0..self.sent.len() * self.random.usize(5..40) {
            self.step()?;
            self.settle()?;
            self.check()?;
        }
        self.come_to_rest()
    }

    fn committed(&self) -> &'a [Sent] {
        &self.sent[..self.committed]
    }

    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.trace
            .push(format!("{:>8.3} {what}", self.now.as_secs_f64()));
    }

    /// One thing happens.
    fn step(&mut self) -> Step {
        match self.random.u8(0..40) {
            0..=3 => self.commit(),
            4..=15 => return self.deliver(),
            16..=22 => return self.finish(),
            23..=25 => return self.pass_time(),
            26..=27 => return self.tick(),
            28..=29 => return self.say_any_keepalive(),
            30 => self.consumer.hurry(),
            31 => self.read_clock(),
            32 => return self.answer(),
            33..=36 if self.drive.copies => return self.copy_goes_on(),
            37 if self.drive.describes => self.feed.describe_again(),
            38 if self.drive.restarts => return self.start_again("the process is killed"),
            39 if self.drive.crashes => return self.crash(),
            _ => {}
        }
        Ok(())
    }

    fn commit(&mut self) {
        self.committed = (self.committed + 1).min(self.sent.len());
    }

    fn deliver(&mut self) -> Step {
        if !self.consumer.may_read() {
            return Ok(());
        }
        let committed = self.committed();
        let Some(payload) = self.feed.next(committed) else {
            return Ok(());
        };
        let late = if self.random.bool() { 0 } else { i64::MAX };
        self.note(format!("message {:?}", char::from(payload[0])));
        self.consumer.heard(self.now);
        self.take(&frame(&payload, late))
    }

    fn say_any_keepalive(&mut self) -> Step {
        let reply_requested = self.random.u8(0..8) == 0;
        self.say_keepalive(reply_requested)
    }

    fn say_keepalive(&mut self, reply_requested: bool) -> Step {
        if !self.consumer.may_read() {
            return Ok(());
        }
        let wal_end = self.feed.wal_end(self.committed());
        self.note(format!(
            "keepalive {wal_end}, reply requested: {reply_requested}"
        ));
        self.consumer.heard(self.now);
        self.take(&keepalive(wal_end, reply_requested))
    }

    fn take(&mut self, frame: &StreamFrame<'_>) -> Step {
        match self.consumer.take(frame, self.now) {
            Ok(()) => Ok(()),
            Err(error) => self.ended(&error),
        }
    }

    fn pass_time(&mut self) -> Step {
        self.now += Duration::from_millis(self.random.u64(1..4000));
        if self
            .consumer
            .deadline(self.now)
            .is_none_or(|at| self.now < at)
        {
            return Ok(());
        }
        match self.consumer.wake(self.now) {
            Ok(true) => {
                self.note("the pause has lasted too long");
                self.copy = None;
                self.stands = false;
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => self.ended(&error),
        }
    }

    fn tick(&mut self) -> Step {
        match self.consumer.tick(self.now) {
            Ok(()) => Ok(()),
            Err(error) => self.ended(&error),
        }
    }

    fn read_clock(&mut self) {
        let end = self
            .committed()
            .last()
            .map_or(Lsn::ZERO, |sent| Lsn(sent.passed));
        let reading = Reading {
            time: PgTimestamp(i64::try_from(self.now.as_micros()).unwrap()),
            flushed: end,
        };
        self.consumer.read_clock(reading, self.drive.standby);
    }

    /// The catalogs are as they are now, later than what is judged by them.
    fn answer(&mut self) -> Step {
        if std::mem::take(&mut self.is_looking) {
            let altered = self.is_altered();
            self.note(format!("the tables are looked at, altered: {altered}"));
            let table = self.models[0].settings.source.clone();
            self.consumer.proved(&[(table, shape(self.kind, altered))]);
        }
        Ok(())
    }

    fn is_altered(&self) -> bool {
        self.committed().last().is_some_and(|sent| sent.is_altered)
    }

    /// All that is to be done now.
    fn settle(&mut self) -> Step {
        for _ in 0..100 {
            let action = match self.consumer.next(self.now) {
                Ok(Some(action)) => action,
                Ok(None) => return Ok(()),
                Err(error) => return self.ended(&error),
            };
            match action {
                Action::Submit(job) => self.submit(job)?,
                Action::Say(status) => self.hear(status)?,
                Action::Look(_) => self.is_looking = true,
                Action::Stand(position) => self.stand(position)?,
            }
        }
        Err("there is always something to be done".to_owned())
    }

    fn submit(&mut self, job: Job) -> Step {
        self.note(format!("job {}", name(&job)));
        if self.in_hand.is_some() {
            return Err("the target gets a job while it has one".to_owned());
        }
        if self.stands {
            return Err("the target gets a job while the stream is paused".to_owned());
        }
        self.in_hand = Some(Hand::Job(job));
        Ok(())
    }

    fn hear(&mut self, status: Status) -> Step {
        if status.acknowledged > self.flushed.checkpoint {
            return Err(format!(
                "{} is acknowledged, and a crash of the target leaves {}",
                status.acknowledged, self.flushed.checkpoint
            ));
        }
        if status.received < self.kept.checkpoint && status.acknowledged > status.received {
            return Err(format!("{status:?} acknowledges more than was received"));
        }
        self.slot = self.slot.max(status.acknowledged);
        Ok(())
    }

    fn stand(&mut self, position: Lsn) -> Step {
        self.note(format!("the stream is paused at {position}"));
        let Some(copy) = &mut self.copy else {
            return Err("the stream is paused, and nobody has asked".to_owned());
        };
        if position < copy.follower.received()
            || position != self.kept.checkpoint
            || self.in_hand.is_some()
        {
            return Err(format!("the stream is paused at {position}"));
        }
        copy.position = Some(position);
        let taken = copy.follower.go_on_to(Some(position));
        taken.map_err(|error| error.to_string())?;
        self.stands = true;
        Ok(())
    }

    /// The target ends its job.
    fn finish(&mut self) -> Step {
        let done = match self.in_hand.take() {
            None => return Ok(()),
            Some(Hand::Job(job)) => self.carry_out(job)?,
            Some(Hand::Merge) => self.merge()?,
        };
        let is_merge = matches!(done, Done::Merged(_));
        let result = self.consumer.done(&done, self.now);
        if is_merge {
            self.end_copy("merged");
        }
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.ended(&error),
        }
    }

    fn carry_out(&mut self, job: Job) -> Result<Done, String> {
        let done = match job {
            Job::Stage(commit_lsn, folds) => {
                if self.is_poisoned(commit_lsn, Lsn(commit_lsn.0 + 1))
                    && folds.iter().any(|(index, _)| *index == POISONED)
                {
                    return Ok(failed(1, commit_lsn));
                }
                for (index, fold) in folds {
                    self.stages[index.0].add(&self.models[index.0], &fold);
                }
                Done::Staged
            }
            Job::Apply(batch) => return self.apply(batch),
            Job::Store(position) => {
                if position.lsn < self.kept.checkpoint {
                    return Err(format!(
                        "{} is stored behind {}",
                        position.lsn, self.kept.checkpoint
                    ));
                }
                self.kept.checkpoint = position.lsn;
                Done::Stored(position.lsn)
            }
            Job::NoteLeaves(_) => Done::Noted,
            Job::Harden(lsn) => {
                self.flushed = self.kept.clone();
                Done::Hardened(lsn)
            }
            Job::Audit(taking_part) => {
                let missing = (0..2).find(|at| {
                    !self.kept.out_of_step[*at] && !taking_part.contains(&ModelIndex(*at))
                });
                if let Some(at) = missing {
                    return Err(format!("read model {at} is in step and takes no part"));
                }
                Done::Audited(Vec::new())
            }
        };
        if self.drive.synchronous {
            self.flushed = self.kept.clone();
        }
        Ok(done)
    }

    fn is_poisoned(&self, from: Lsn, to: Lsn) -> bool {
        let poison = self.drive.poison.and_then(|at| self.sent.get(at));
        poison.is_some_and(|sent| (from..to).contains(&Lsn(sent.place.commit_lsn)))
    }

    fn apply(&mut self, batch: Batch) -> Result<Done, String> {
        let Batch {
            position,
            folds,
            suspended,
            transactions,
            chunks,
        } = batch;
        let before = self.kept.checkpoint;
        let hit = folds
            .iter()
            .any(|(index, fold)| *index == POISONED && !fold.is_empty());
        if hit && self.is_poisoned(before, position.lsn) {
            return Ok(failed(transactions, position.lsn));
        }
        let suspended: Vec<ModelIndex> = suspended.into_iter().map(|one| one.index).collect();
        for (index, fold) in folds.iter().filter(|(_, fold)| !fold.is_empty()) {
            self.stages[index.0].add(&self.models[index.0], fold);
        }
        for index in [0, 1].map(ModelIndex) {
            let at = index.0;
            let stage = std::mem::take(&mut self.stages[at]);
            let leaves = suspended.contains(&index);
            // What was staged of a transaction that breaks a read model is not written.
            let is_dropped = leaves && chunks > 0 || self.kept.out_of_step[at];
            if !is_dropped {
                self.kept.targets[at].apply(&self.models[at], stage)?;
            }
            // A transaction that waited says so again.
            if leaves && !self.kept.out_of_step[at] {
                self.kept.out_of_step[at] = true;
                self.was_right(index, before, position.lsn)?;
            }
        }
        self.kept.checkpoint = before.max(position.lsn);
        self.kept.last = position.last.or(self.kept.last);
        if self.drive.synchronous {
            self.flushed = self.kept.clone();
        }
        Ok(Done::Applied(Applied {
            lsn: position.lsn,
            commit_time: position.commit_time,
            transactions,
            written: Vec::new(),
            suspended,
        }))
    }

    /// A lookup that is out of step shows the source as of one commit between these.
    fn was_right(&self, index: ModelIndex, from: Lsn, to: Lsn) -> Step {
        let commits = self.sent.iter().map(|sent| Lsn(sent.place.end_lsn));
        let mut at = [from]
            .into_iter()
            .chain(commits)
            .filter(|at| (from..=to).contains(at));
        if at.any(|at| {
            let expected = expected(self.table(at));
            compare_one(&self.kept.targets[index.0], &expected[index.0]).is_ok()
        }) {
            return Ok(());
        }
        Err(format!(
            "read model {} leaves the stream in a state that the source never had",
            index.0
        ))
    }

    /// The table with every commit before this position.
    fn table(&self, position: Lsn) -> &Table {
        let before = self
            .sent
            .iter()
            .rfind(|sent| Lsn(sent.place.commit_lsn) < position);
        before.map_or(&self.empty, |sent| &sent.table)
    }

    fn check(&self) -> Step {
        let expected = expected(self.table(self.kept.checkpoint));
        for (index, expected) in expected.iter().enumerate() {
            if !self.kept.out_of_step[index] {
                compare_one(&self.kept.targets[index], expected).map_err(|why| {
                    format!("as of {}, read model {index}:\n{why}", self.kept.checkpoint)
                })?;
            }
        }
        Ok(())
    }

    /// A copy begins, follows its stream, asks for a pause, and is merged.
    fn copy_goes_on(&mut self) -> Step {
        let committed = self.committed();
        let Some(copy) = &mut self.copy else {
            return self.begin_copy();
        };
        match self.random.u8(0..6) {
            0 if copy.asked => {
                if self.in_hand.is_none() && self.random.u8(0..4) == 0 {
                    self.end_copy("given up");
                    self.consumer.resume();
                }
                return Ok(());
            }
            0 if copy.follower.is_near(copy.follower.received(), 0) => {
                copy.asked = true;
                copy.compares = self.random.bool();
                let joining = self.models.iter().filter(|_| !copy.compares).cloned();
                let models = ModelIndex::number(joining).collect();
                let at_least = copy.follower.received();
                self.consumer.pause(at_least, models);
                self.note(format!("a copy asks for a pause at {at_least}"));
                return Ok(());
            }
            // It reads no more until the stream is paused.
            _ if copy.asked && copy.position.is_none() => return Ok(()),
            _ => {}
        }
        while !copy.follower.is_at_end() {
            let Some(payload) = copy.feed.next(committed) else {
                break;
            };
            copy.follower
                .take(&frame(&payload, 0))
                .map_err(|error| error.to_string())?;
            if copy.position.is_none() && self.random.u8(0..4) == 0 {
                return Ok(());
            }
        }
        if copy.feed.is_drained(committed) && !copy.follower.is_at_end() {
            let wal_end = copy.feed.wal_end(committed);
            let taken = copy.follower.take(&keepalive(wal_end, false));
            taken.map_err(|error| error.to_string())?;
        }
        if !copy.write()? {
            self.consumer.resume();
            self.end_copy("the table was altered");
            return Ok(());
        }
        if copy.position.is_some() && copy.follower.is_at_end() && self.in_hand.is_none() {
            return self.at_position();
        }
        Ok(())
    }

    fn begin_copy(&mut self) -> Step {
        if self.is_altered() {
            return Ok(());
        }
        let committed = self.committed();
        let point = committed.last().map_or(Lsn::ZERO, |sent| Lsn(sent.passed));
        self.note(format!("a copy begins at {point}"));
        let feed = Feed::from(point, self.sent);
        let table = self.table(point);
        let copy = Copy::new(table, &self.models, feed, point, self.drive.chunk_bytes);
        self.copy = Some(copy);
        Ok(())
    }

    /// The copy is where the stream is paused.
    fn at_position(&mut self) -> Step {
        let altered = self.is_altered();
        let table = self.models[0].settings.source.clone();
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let shape = shape(self.kind, altered);
        let proved = self
            .models
            .iter()
            .all(|model| shape.is_bound_to(model).is_ok());
        if !proved || copy.follower.prove(&[(table, shape)]).is_err() {
            self.consumer.resume();
            self.end_copy("the table is another one");
            return Ok(());
        }
        if copy.compares {
            return self.compare();
        }
        let position = copy.position;
        if self.consumer.begin_merge() != position {
            return Err(format!("the copy of {position:?} cannot be merged"));
        }
        self.in_hand = Some(Hand::Merge);
        Ok(())
    }

    /// Lookups that are in step are as the copy; then both go on.
    fn compare(&mut self) -> Step {
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };
        let mut targets = self.kept.targets.clone();
        copy.merge(&mut targets)?;
        for (at, (merged, kept)) in targets.iter().zip(&self.kept.targets).enumerate() {
            if !self.kept.out_of_step[at] && merged != kept {
                return Err(format!("a copy of read model {at} is not its lookup"));
            }
        }
        (copy.asked, copy.position) = (false, None);
        // It follows on, or is where it is when it asks again.
        if self.random.bool() {
            let taken = copy.follower.go_on_to(None);
            taken.map_err(|error| error.to_string())?;
        }
        self.note("the copy was compared".to_owned());
        self.stands = false;
        self.consumer.resume();
        Ok(())
    }

    fn merge(&mut self) -> Result<Done, String> {
        let Some(copy) = &self.copy else {
            return Err("a merge without a copy".to_owned());
        };
        // One that is out of step may stay so: its copy cannot be written.
        let is_left_out = [0, 1].map(|at| self.kept.out_of_step[at] && self.random.u8(0..4) == 0);
        let mut targets = self.kept.targets.clone();
        copy.merge(&mut targets)?;
        let mut merged = Vec::new();
        for (index, target) in ModelIndex::number(targets) {
            if is_left_out[index.0] {
                merged.push(Merged {
                    index,
                    result: Err(Error::new(Class::Rejected, "too long")),
                });
                continue;
            }
            self.kept.targets[index.0] = target;
            self.kept.out_of_step[index.0] = false;
            merged.push(Merged {
                index,
                result: Ok(Written::default()),
            });
        }
        if self.drive.synchronous {
            self.flushed = self.kept.clone();
        }
        Ok(Done::Merged(merged))
    }

    fn end_copy(&mut self, why: &str) {
        self.note(format!("the copy ends: {why}"));
        self.copy = None;
        self.stands = false;
        self.consumer.resume();
    }

    /// The session ends; what the target has in hand may be committed all the same.
    fn ended(&mut self, error: &Error) -> Step {
        self.note(format!("the session ends: {error}"));
        let waited_in_vain = [
            "is shutting down",
            "target is slow",
            "not answered for too long",
        ];
        let failed = self.consumer.take_failed();
        if failed.is_none()
            && !waited_in_vain
                .iter()
                .any(|why| error.to_string().contains(why))
        {
            return Err(error.to_string());
        }
        if let Some(failed) = failed {
            if failed.transactions == 1 {
                self.kept.out_of_step[failed.index.0] = true;
                self.flushed = self.kept.clone();
            } else {
                self.careful_until = Some(failed.lsn);
            }
        }
        self.start_again("the session begins again")
    }

    fn start_again(&mut self, why: &str) -> Step {
        self.note(why);
        if let Some(hand) = self.in_hand.take()
            && self.random.bool()
        {
            self.note("the job in hand is committed");
            match hand {
                Hand::Job(job) => self.carry_out(job).map(drop)?,
                Hand::Merge => self.merge().map(drop)?,
            }
        }
        let again = &self.sent[..self.committed];
        let judge = Replay::new(self.kept.checkpoint, self.kept.last, self.slot);
        let last = self.kept.last.filter(|last| last.commit_lsn >= self.slot);
        rewritten_histories_are_noticed(&judge, last, (self.slot, self.kept.checkpoint), again)?;
        // The claim flushes what it reads.
        self.flushed = self.kept.clone();
        self.copy = None;
        self.stands = false;
        self.is_looking = false;
        self.has_shut_down = false;
        self.stages = Default::default();
        self.feed = Feed::from(self.slot, self.sent);
        self.now = Duration::ZERO;
        let careful = self
            .careful_until
            .filter(|until| *until > self.kept.checkpoint);
        self.consumer = begin(&self.models, &self.kept, self.slot, careful, self.drive);
        Ok(())
    }

    /// The target loses what it has not flushed.
    fn crash(&mut self) -> Step {
        self.in_hand = None;
        self.kept = self.flushed.clone();
        self.start_again("the target crashes")
    }

    /// Nothing disturbs any more: everything is applied and acknowledged, and a server that shuts
    /// down hears so at once.
    fn come_to_rest(&mut self) -> Step {
        self.committed = self.sent.len();
        if self.copy.is_some() {
            if self.in_hand.is_some() {
                self.finish()?;
            }
            self.end_copy("the end");
        }
        let end = Lsn(self.sent.last().map_or(0, |sent| sent.passed));
        self.has_shut_down = false;
        for _ in 0..MOST_STEPS {
            self.settle()?;
            self.check()?;
            if self.slot >= end {
                return Ok(());
            }
            if self.in_hand.is_some() {
                self.finish()?;
            } else if self.is_looking {
                self.answer()?;
            } else if !self.feed.is_drained(self.sent) && self.consumer.may_read() {
                self.deliver()?;
            } else if self.feed.is_drained(self.sent)
                && !self.has_shut_down
                && self.consumer.may_read()
            {
                self.has_shut_down = self.drive.shuts_down;
                self.say_keepalive(self.drive.shuts_down)?;
                self.now += Duration::from_millis(20);
                if !self.drive.shuts_down {
                    self.tick()?;
                    self.now += Duration::from_secs(5);
                }
            } else if self
                .consumer
                .deadline(self.now)
                .is_some_and(|at| at <= self.now + Duration::from_millis(20))
            {
                // It gathers.
                self.now += Duration::from_millis(20);
            } else if self.has_shut_down && self.consumer.may_read() {
                return Err(format!(
                    "the server shuts down at {end}, and {} is acknowledged",
                    self.slot
                ));
            } else {
                self.pass_time()?;
                self.tick()?;
            }
        }
        Err(format!(
            "it never rests: {} of {end} is acknowledged",
            self.slot
        ))
    }
}

/// A session that begins with what is stored.
fn begin(
    models: &[Arc<ReadModel>; 2],
    kept: &Kept,
    slot: Lsn,
    careful: Option<Lsn>,
    drive: Drive,
) -> Consumer {
    let models = models.iter().zip(kept.out_of_step).map(|(model, is_out)| {
        let takes_part = (!is_out).then(|| Arc::clone(model));
        (model.settings.clone(), takes_part)
    });
    Consumer::new(Start {
        models: models.collect(),
        checkpoint: kept.checkpoint,
        last: kept.last,
        start: slot,
        synchronous_commit: drive.synchronous,
        careful_until: careful,
        status_interval: Duration::from_secs(10),
        sender_timeout: Duration::from_secs(60),
        chunk_patience: Duration::from_secs(60),
        own_cluster: false,
        passed: Arc::new(Passed::new(2)),
    })
    .with_chunks_of(drive.chunk_bytes)
}

fn failed(transactions: u64, lsn: Lsn) -> Done {
    Done::Failed(FailedBatch {
        index: POISONED,
        transactions,
        lsn,
        error: Error::new(Class::Rejected, "it does not fit"),
    })
}

fn name(job: &Job) -> String {
    match job {
        Job::Stage(lsn, _) => format!("stage {lsn}"),
        Job::Apply(batch) => format!(
            "apply {} transactions to {}, chunks {}, suspended {:?}",
            batch.transactions,
            batch.position.lsn,
            batch.chunks,
            batch
                .suspended
                .iter()
                .map(|one| one.index.0)
                .collect::<Vec<_>>()
        ),
        Job::Store(position) => format!("store {}", position.lsn),
        Job::NoteLeaves(_) => "note leaves".to_owned(),
        Job::Harden(lsn) => format!("harden {lsn}"),
        Job::Audit(taking_part) => format!("audit {taking_part:?}"),
    }
}
