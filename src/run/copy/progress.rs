//! How far a copy is, for people: in the bookkeeping, on a terminal, and in the log.

use std::time::{Duration, Instant};

use super::ToCopy;
use crate::connect::Connection;
use crate::error::Result;
use crate::run::shared::Shared;
use crate::status::Copy;
use crate::target::bookkeeping::CopyProgress;
use crate::target::shadow::Counter;
use crate::telemetry::progress as terminal;

/// How often the log reports the progress of a copy that no terminal shows.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long the target may take to note the progress.
const TELL_PATIENCE: Duration = Duration::from_secs(1);

/// Reports how far a copy is: `status` and a terminal every second, a log without one now and then.
pub(super) struct Progress<'a> {
    shared: &'a Shared,
    to_copy: &'a ToCopy,
    estimate: Option<i64>,
    pub(super) copied: &'a Counter,
    pub(super) started: Instant,
    logged: Instant,
    /// A session of its own, since the copy's is busy; opened if the copy takes long.
    conn: Option<Connection>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        to_copy: &'a ToCopy,
        estimate: Option<i64>,
        copied: &'a Counter,
    ) -> Self {
        Self {
            shared,
            to_copy,
            estimate,
            copied,
            started: Instant::now(),
            logged: Instant::now(),
            conn: None,
        }
    }

    pub(super) async fn tell(&mut self) {
        let (rows, bytes) = self.copied.read();
        let seconds = self.started.elapsed().as_secs_f64();
        let copy = Copy::new(rows, self.estimate, Some(bytes), Some(seconds));
        if terminal::is_on() {
            terminal::show([(self.to_copy.settings.name().as_str(), &copy)]);
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            tracing::info!(
                read_model = self.to_copy.settings.name(),
                rows,
                bytes,
                estimated_rows = self.estimate,
                percent = copy.percent,
                rows_per_second = copy.rows_per_second.map(f64::round),
                seconds_left = copy.seconds_left.map(f64::round),
                "copying"
            );
        }
        let progress = CopyProgress {
            rows,
            bytes,
            estimate: self.estimate,
            seconds,
        };
        self.store(Some(progress)).await;
    }

    pub(super) async fn end(&mut self) {
        terminal::clear();
        if self.conn.is_some() {
            self.store(None).await;
        }
    }

    /// For people only: a copy does not fail, or wait for long, because of it.
    async fn store(&mut self, progress: Option<CopyProgress>) {
        let stored = tokio::time::timeout(TELL_PATIENCE, self.try_store(progress)).await;
        if !matches!(stored, Ok(Ok(()))) {
            self.conn = None;
        }
    }

    async fn try_store(&mut self, progress: Option<CopyProgress>) -> Result<()> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => self
                .conn
                .insert(self.shared.target_session("progress").await?),
        };
        let model = &self.to_copy.model;
        self.shared
            .bookkeeping
            .set_copy_progress(conn, model.epoch(), model.id, progress)
            .await
    }
}

impl Drop for Progress<'_> {
    /// A copy that is given up reports its end too.
    fn drop(&mut self) {
        terminal::clear();
    }
}
