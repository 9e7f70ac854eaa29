//! The keeper: starts resyncs when they are due, one at a time, beside the stream.
//!
//! Due are, in this order: what somebody asked for (`cdc resync`), read models that are not in step, and the
//! schedule, where a time that was missed is made up. What fails for a passing reason is tried again with growing delays; the
//! stream never waits for it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::retry::Backoff;
use crate::run::resync::{Order, Outcome, resync};
use crate::run::stream::Command;
use crate::run::{Shared, report};
use crate::schedule::Schedule;
use crate::settings::ReadModelSettings;
use crate::target::bookkeeping::{ModelState, ResyncRequest};

/// How often the bookkeeping is asked for requests.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Delays between two tries of a copy, doubling up to an hour so that a cause that comes back does not load the master.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MOST_DELAY: Duration = Duration::from_secs(3600);

/// Longest delay where somebody waits for the result.
const MOST_DELAY_ASKED: Duration = Duration::from_secs(15);

/// Starts resyncs.
pub struct Keeper {
    shared: Arc<Shared>,
    epoch: i64,
    models: Vec<(usize, ReadModelSettings, i32)>,
    commands: mpsc::Sender<Command>,
    /// Cancelled when the session ends.
    stop: CancellationToken,
    schedule: Option<Schedule>,
    last_full: Timestamp,
    /// Read models that are not in step are tried again then.
    not_in_step: (Backoff, Instant),
    /// A failed scheduled resync is tried again then.
    scheduled: (Backoff, Instant),
}

impl Keeper {
    /// A keeper for these read models (index, rule, number).
    pub fn new(
        shared: Arc<Shared>,
        epoch: i64,
        models: Vec<(usize, ReadModelSettings, i32)>,
        commands: mpsc::Sender<Command>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let schedule = Schedule::of(&shared.settings.resync, &shared.settings.source.slot)?;
        let backoff = || (Backoff::new(FIRST_DELAY, MOST_DELAY), Instant::now());
        Ok(Self {
            shared,
            epoch,
            models,
            commands,
            stop,
            schedule,
            last_full: Timestamp::now(),
            not_in_step: backoff(),
            scheduled: backoff(),
        })
    }

    /// Runs until the session ends.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY_ASKED);
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
        bookkeeping.requeue_requests(&mut conn).await?;
        if let Some(last) = bookkeeping.last_full_resync(&mut conn).await?
            && let Ok(last) = Timestamp::from_microsecond(last)
        {
            self.last_full = last;
        }
        loop {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            if let Some(request) = bookkeeping.next_request(&mut conn).await? {
                self.request(&mut conn, request).await?;
                continue;
            }
            if self.not_in_step.1 <= Instant::now() {
                self.copy_what_is_not_in_step(&mut conn).await?;
            }
            let due = self
                .schedule
                .as_ref()
                .is_some_and(|schedule| schedule.was_due(self.last_full, Timestamp::now()));
            if due && self.scheduled.1 <= Instant::now() {
                self.full(&mut conn).await?;
            }
            self.pause(LOOK_INTERVAL).await;
        }
    }

    /// Somebody asked: tried until it is done or cannot be done.
    async fn request(&mut self, conn: &mut PgConnection, request: ResyncRequest) -> Result<()> {
        let wanted = |settings: &ReadModelSettings| {
            request
                .read_models
                .as_ref()
                .is_none_or(|names| names.contains(&settings.name()))
        };
        let models: Vec<_> = self
            .models
            .iter()
            .filter(|(_, settings, _)| wanted(settings))
            .cloned()
            .collect();
        let order = Order {
            models,
            epoch: self.epoch,
            number: Some(request.id),
            request: Some(request.id).filter(|_| !request.dry_run),
            dry_run: request.dry_run,
            keys: u32::try_from(request.most_keys).unwrap_or(0),
        };
        let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY_ASKED);
        let bookkeeping = self.shared.bookkeeping.clone();
        let result = loop {
            let origin = if request.dry_run { "dry run" } else { "request" };
            match self.carry_out(origin, &order).await {
                Err(error) if error.is_transient() => {
                    bookkeeping
                        .set_resync_waiting(conn, request.id, Some(&error.with_its_detail()))
                        .await?;
                    self.pause(backoff.next_delay(fastrand::f64())).await;
                    if self.stop.is_cancelled() {
                        return Err(Error::new(Class::Interrupted, "stopped during a resync"));
                    }
                    bookkeeping.set_resync_waiting(conn, request.id, None).await?;
                }
                Err(error) if error.class() == Class::Interrupted => return Err(error),
                result => break result,
            }
        };
        match result {
            Ok(outcome) => {
                let details = if request.dry_run {
                    let found = report::difference(&outcome.found);
                    bookkeeping.note_compared(conn, &found).await?;
                    found
                } else {
                    report::result(&outcome.written)
                };
                let error = self.note_failures(conn, outcome.failed).await?;
                bookkeeping
                    .finish_resync(
                        conn,
                        request.id,
                        Some(outcome.lsn),
                        Some(&details),
                        error.as_ref(),
                    )
                    .await?;
                if request.read_models.is_none() && !request.dry_run {
                    self.last_full = Timestamp::now();
                }
            }
            Err(error) => {
                bookkeeping
                    .finish_resync(conn, request.id, None, None, Some(&error))
                    .await?
            }
        }
        Ok(())
    }

    /// New, changed and suspended read models are copied against the running stream.
    async fn copy_what_is_not_in_step(&mut self, conn: &mut PgConnection) -> Result<()> {
        let stored = self.shared.bookkeeping.models(conn).await?;
        let in_step = |id: i32| {
            stored
                .iter()
                .any(|model| model.id == id && model.state == ModelState::InStep)
        };
        let models: Vec<_> = self
            .models
            .iter()
            .filter(|(_, _, id)| !in_step(*id))
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
        let outcome = self.carry_out("not in step", &order).await;
        let failed = match outcome {
            Ok(outcome) => self.note_failures(conn, outcome.failed).await?.is_some(),
            Err(error) if error.class() == Class::Interrupted => return Err(error),
            Err(_) => true,
        };
        self.not_in_step.1 = if failed {
            Instant::now() + self.not_in_step.0.next_delay(fastrand::f64())
        } else {
            self.not_in_step.0.reset();
            Instant::now()
        };
        Ok(())
    }

    /// The schedule's resync of everything.
    async fn full(&mut self, conn: &mut PgConnection) -> Result<()> {
        let bookkeeping = self.shared.bookkeeping.clone();
        let id = bookkeeping.start_resync(conn, "schedule").await?;
        let order = Order {
            models: self.models.clone(),
            epoch: self.epoch,
            number: Some(id),
            request: Some(id),
            dry_run: false,
            keys: 0,
        };
        let result = self.carry_out("schedule", &order).await;
        if let Err(error) = &result {
            bookkeeping
                .finish_resync(conn, id, None, None, Some(error))
                .await?;
        }
        match result {
            Ok(outcome) => {
                let details = report::result(&outcome.written);
                let error = self.note_failures(conn, outcome.failed).await?;
                bookkeeping
                    .finish_resync(conn, id, Some(outcome.lsn), Some(&details), error.as_ref())
                    .await?;
                self.last_full = Timestamp::now();
                self.scheduled.0.reset();
            }
            Err(error) if error.class() == Class::Interrupted => return Err(error),
            Err(_) => self.scheduled.1 = Instant::now() + self.scheduled.0.next_delay(fastrand::f64()),
        }
        Ok(())
    }

    async fn carry_out(&self, origin: &str, order: &Order) -> Result<Outcome> {
        let names: Vec<String> = order
            .models
            .iter()
            .map(|(_, settings, _)| settings.name())
            .collect();
        if !order.dry_run {
            report::resync_started(origin, &names);
        }
        let started = std::time::Instant::now();
        let result = resync(&self.shared, order, &self.commands, &self.stop).await;
        match &result {
            Ok(outcome) if order.dry_run => report::compared(&outcome.found, outcome.lsn, started.elapsed()),
            Ok(outcome) => report::resync_completed(origin, &outcome.written, outcome.lsn, started.elapsed()),
            Err(error) if error.class() == Class::Interrupted => {}
            Err(error) => report::resync_failed(origin, error),
        }
        result
    }

    /// Stores why read models could not be copied; returns one error that names them.
    async fn note_failures(
        &self,
        conn: &mut PgConnection,
        failed: Vec<(i32, String, Error)>,
    ) -> Result<Option<Error>> {
        let stored = self.shared.bookkeeping.models(conn).await?;
        let mut first = None;
        for (id, name, error) in failed {
            report::resync_failed(&name, &error);
            if stored
                .iter()
                .any(|model| model.id == id && model.state != ModelState::InStep)
            {
                self.shared
                    .bookkeeping
                    .suspend(conn, self.epoch, id, &error)
                    .await?;
            }
            first.get_or_insert(error.context(format!("could not copy read model \"{name}\"")));
        }
        Ok(first)
    }
}
