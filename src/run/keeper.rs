//! The keeper: starts resyncs when they are due, one at a time, beside the stream.
//!
//! Due are, in this order: requests (`cdc resync`), read models that are not in step, and the
//! schedule, where a turn that was missed is made up for. A copy that fails for a passing reason is
//! tried again with growing delays, each by itself: nothing else waits for it, least of all the
//! stream.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::read_model::ModelId;
use crate::retry::Backoff;
use crate::run::copy::FailedCopy;
use crate::run::messages::{Beside, Command};
use crate::run::resync::{Order, Ordered, Outcome, resync};
use crate::run::shared::Shared;
use crate::run::{report, unreadable};
use crate::schedule::Schedule;
use crate::settings::ResyncSettings;
use crate::target::bookkeeping::{ModelState, Pulse, Readers};

mod request;
mod tries;

use tries::Tries;

/// How often to check whether the schedule is due, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Longest delay between two tries of a copy: a cause that comes back must not load the master.
const MOST_DELAY: Duration = Duration::from_secs(3600);

/// Delays between two tries to reach the target.
const FIRST_SESSION_DELAY: Duration = Duration::from_secs(1);
const MOST_SESSION_DELAY: Duration = Duration::from_secs(15);

/// How often to look for what copies have left, and again while it is in use, such as by a dump.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
const LEFT_INTERVAL: Duration = Duration::from_secs(10);

/// How often every reader of the catalogs is heeded; from then on those that last.
const PATIENT_TRIES: u32 = 3;

/// The schedule, among what failed: there is one.
const SCHEDULED: () = ();

/// Starts resyncs.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    epoch: i64,
    models: Vec<Ordered>,
    commands: mpsc::Sender<Command>,
    /// Cancelled when the session ends.
    stop: CancellationToken,
    schedule: Option<Schedule>,
    /// What the schedule was made from.
    resync: ResyncSettings,
    last_full: Timestamp,
    /// Requests that failed, by number.
    asked: Tries<i64>,
    /// Read models that were copied because they were not in step, or could not be, by number.
    not_in_step: Tries<ModelId>,
    /// The scheduled resync, if it failed.
    scheduled: Tries<()>,
    tidy_at: Instant,
    /// How often in a row something was in use.
    tidied_in_vain: u32,
    pulse: watch::Receiver<Pulse>,
    /// Forget read models that are in step again.
    had_some_not_in_step: bool,
}

impl Keeper {
    /// A keeper for these read models.
    pub(crate) fn new(
        beside: Beside,
        models: Vec<Ordered>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let Beside {
            shared,
            epoch,
            commands,
            pulse,
        } = beside;
        let resync = shared.in_force.settings().resync.clone();
        let schedule = Schedule::of(&resync, &shared.settings.source.slot)?;
        Ok(Self {
            shared,
            epoch,
            models,
            commands,
            stop,
            schedule,
            resync,
            last_full: Timestamp::now(),
            asked: Tries::default(),
            not_in_step: Tries::default(),
            scheduled: Tries::default(),
            tidy_at: Instant::now(),
            tidied_in_vain: 0,
            pulse,
            had_some_not_in_step: true,
        })
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_SESSION_DELAY, MOST_SESSION_DELAY);
        while !self.stop.is_cancelled() {
            match self.keep().await {
                Ok(()) => return,
                Err(error) if error.class() == Class::Interrupted => return,
                Err(error) => {
                    tracing::debug!(%error, "the keeper lost its session");
                    self.pause(backoff.next_delay(fastrand::f64())).await;
                }
            }
        }
    }

    /// Sleeps, unless the session ends.
    async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    async fn keep(&mut self) -> Result<()> {
        let mut conn = self.shared.target_session("keeper").await?;
        let bookkeeping = self.shared.bookkeeping.clone();
        bookkeeping.requeue_requests(&mut conn, self.epoch).await?;
        if let Some(last) = bookkeeping.last_full_resync(&mut conn).await?
            && let Ok(last) = Timestamp::from_microsecond(last)
        {
            self.last_full = last;
        }
        loop {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let seen = *self.pulse.borrow_and_update();
            let later = self.asked.later(Instant::now());
            if seen.asked
                && let Some(request) = bookkeeping
                    .next_request(&mut conn, self.epoch, &later)
                    .await?
            {
                self.request(&mut conn, request).await?;
                continue;
            }
            if seen.not_in_step || self.had_some_not_in_step {
                self.had_some_not_in_step = seen.not_in_step;
                self.copy_what_is_not_in_step(&mut conn).await?;
            }
            self.tidy(&mut conn).await?;
            self.follow_schedule()?;
            let due = self
                .schedule
                .as_ref()
                .is_some_and(|schedule| schedule.was_due(self.last_full, Timestamp::now()));
            if due && self.scheduled.is_due(SCHEDULED, Instant::now()) {
                self.full(&mut conn).await?;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                Ok(()) = self.pulse.changed() => {}
            }
        }
    }

    /// Takes over a schedule that was changed by a reload. As after a restart, a turn that it had
    /// since the last resync is made up for.
    fn follow_schedule(&mut self) -> Result<()> {
        let resync = &self.shared.in_force.settings().resync;
        if *resync != self.resync {
            self.schedule = Schedule::of(resync, &self.shared.settings.source.slot)?;
            self.resync = resync.clone();
        }
        Ok(())
    }

    /// Removes what copies and earlier definitions have left, unless another session reads it.
    async fn tidy(&mut self, conn: &mut Connection) -> Result<()> {
        if Instant::now() < self.tidy_at {
            return Ok(());
        }
        let heeded = if self.tidied_in_vain < PATIENT_TRIES {
            Readers::All
        } else {
            Readers::Lasting
        };
        let bookkeeping = &self.shared.bookkeeping;
        let left = bookkeeping.tidy(conn, self.epoch, heeded).await?;
        self.tidied_in_vain = if left {
            self.tidied_in_vain.saturating_add(1)
        } else {
            0
        };
        if left {
            tracing::debug!(
                "some tables of the bookkeeping are in use elsewhere, and are dropped later"
            );
        }
        self.tidy_at = Instant::now() + if left { LEFT_INTERVAL } else { TIDY_INTERVAL };
        Ok(())
    }

    /// New, changed and suspended read models are copied against the running stream.
    async fn copy_what_is_not_in_step(&mut self, conn: &mut Connection) -> Result<()> {
        let stored = self.shared.bookkeeping.models(conn).await?;
        let in_step = |id: ModelId| {
            stored
                .iter()
                .any(|model| model.id == id && model.state == ModelState::InStep)
        };
        for model in self.models.iter().filter(|model| in_step(model.id)) {
            self.not_in_step.recovered(model.id);
        }
        let models: Vec<_> = self
            .models
            .iter()
            .filter(|model| !in_step(model.id))
            .filter(|model| self.not_in_step.is_due(model.id, Instant::now()))
            .cloned()
            .collect();
        if models.is_empty() {
            return Ok(());
        }
        let order = Order {
            models,
            epoch: self.epoch,
            number: None,
            request: None,
            dry_run: false,
            keys: 0,
        };
        let started = Instant::now();
        let outcome = self.carry_out("not in step", &order, &self.stop).await;
        let failed: Vec<ModelId> = match outcome {
            Ok(outcome) => {
                let failed = outcome.failed.iter().map(|failed| failed.id).collect();
                self.note_failures(conn, outcome.failed).await?;
                failed
            }
            Err(error) if error.class() == Class::Interrupted => return Err(error),
            Err(_) => order.models.iter().map(|model| model.id).collect(),
        };
        for Ordered { id, .. } in &order.models {
            if failed.contains(id) {
                self.not_in_step.failed(*id, MOST_DELAY, Instant::now());
            } else {
                // It may break again at its next change: copies of it may read the source for at
                // most half of the time.
                self.not_in_step
                    .done(*id, started.elapsed(), MOST_DELAY, Instant::now());
            }
        }
        Ok(())
    }

    /// The schedule's resync of everything.
    async fn full(&mut self, conn: &mut Connection) -> Result<()> {
        let bookkeeping = self.shared.bookkeeping.clone();
        let id = bookkeeping
            .start_resync(conn, self.epoch, "schedule")
            .await?;
        let order = Order {
            models: self.models.clone(),
            epoch: self.epoch,
            number: Some(id),
            request: Some(id),
            dry_run: false,
            keys: 0,
        };
        match self.carry_out("schedule", &order, &self.stop).await {
            Ok(outcome) => {
                let details = report::result(&outcome.written);
                let error = self.note_failures(conn, outcome.failed).await?;
                let result = Some((outcome.lsn, &details));
                bookkeeping
                    .finish_resync(conn, self.epoch, id, result, error.as_ref())
                    .await?;
                self.last_full = Timestamp::now();
                self.scheduled.forget(SCHEDULED);
            }
            Err(error) => {
                bookkeeping
                    .finish_resync(conn, self.epoch, id, None, Some(&error))
                    .await?;
                if error.class() == Class::Interrupted {
                    return Err(error);
                }
                self.scheduled.failed(SCHEDULED, MOST_DELAY, Instant::now());
            }
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        origin: &str,
        order: &Order,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        let names: Vec<String> = order
            .models
            .iter()
            .map(|model| model.settings.name())
            .collect();
        if !order.dry_run {
            report::resync_started(origin, &names);
        }
        let started = std::time::Instant::now();
        let result = resync(&self.shared, order, &self.commands, stop).await;
        match &result {
            Ok(outcome) if order.dry_run => {
                report::compared(&outcome.found, outcome.lsn, started.elapsed())
            }
            Ok(outcome) => {
                report::resync_completed(origin, &outcome.written, outcome.lsn, started.elapsed())
            }
            Err(error) if error.class() == Class::Interrupted => {}
            Err(error) => report::resync_failed(origin, error),
        }
        result
    }

    /// Stores why read models could not be copied; returns one error that names them.
    async fn note_failures(
        &self,
        conn: &mut Connection,
        failed: Vec<FailedCopy>,
    ) -> Result<Option<Error>> {
        let stored = self.shared.bookkeeping.models(conn).await?;
        let mut first = None;
        for FailedCopy { id, name, error } in failed {
            report::resync_failed(&name, &error);
            if stored
                .iter()
                .any(|model| model.id == id && model.state != ModelState::InStep)
            {
                self.shared
                    .bookkeeping
                    .suspend(conn, self.epoch, id, &error)
                    .await?;
                if unreadable::is_of_a_value(&error)
                    && self
                        .shared
                        .bookkeeping
                        .note_unreadable(conn, self.epoch, id)
                        .await?
                {
                    let end = Command::End {
                        error: unreadable::withdrawn(),
                        abandon: false,
                    };
                    // A stream that has ended begins again anyway.
                    let _ = self.commands.send(end).await;
                }
            }
            first.get_or_insert(error.context(format!("could not copy read model \"{name}\"")));
        }
        Ok(first)
    }
}
