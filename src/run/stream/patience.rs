//! How long the loop waits: for a target that is slow, for a source that is silent or shuts down, and when it leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::{InFlight, Stream, far_future};
use crate::error::{Error, Result};
use crate::run::applier::Job;

/// How long reading may stand still because the target is slow; then the replication connection is closed, since a server
/// that shuts down could not tell us.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stop waits for the batch in hand.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long the source may say nothing, although every status asks for a reply. A walsender that decodes a large transaction of which
/// it has nothing to send looks at our status only every half of its wal_sender_timeout (`WalSndUpdateProgress`).
const MOST_SILENCE: Duration = Duration::from_secs(60);

/// Time in which not a byte came. A row of many megabytes may be under way for longer than a source may be silent.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    most: Duration,
}

impl Silence {
    /// A source that is asked for a reply this often, with this wal_sender_timeout.
    pub(super) fn begin(feedback_interval: Duration, sender_timeout: Duration, now: Instant) -> Self {
        Self {
            since: now,
            most: (feedback_interval * 3).max(sender_timeout).max(MOST_SILENCE),
        }
    }

    /// Something was heard, or could not be.
    pub(super) fn end(&mut self, now: Instant) {
        self.since = now;
    }

    pub(super) fn is_too_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > self.most
    }
}

impl Stream {
    pub(super) fn deadline(&mut self, reading: bool) -> Instant {
        if reading {
            self.backlog_since = None;
        } else if self.backlog_since.is_none() {
            self.backlog_since = Some(Instant::now());
        }
        let patience = if self.chunks > 0 {
            self.chunk_patience
        } else {
            BACKLOG_PATIENCE
        };
        let backlog = self.backlog_since.map(|since| since + patience);
        let shutdown = self.shutdown.map(|(_, deadline)| deadline);
        match (backlog, shutdown) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => far_future(),
        }
    }

    /// The source's shutdown, or a target that does not take a batch, has lasted too long.
    pub(super) fn out_of_patience(&mut self, reading: bool) -> Result<()> {
        if self
            .shutdown
            .is_some_and(|(_, deadline)| Instant::now() >= deadline)
        {
            return Err(Error::transient("the source is shutting down")
                .with_detail("What it has sent could not be applied in time; it will come again."));
        }
        if !reading && self.in_flight.is_some() {
            // The batch goes on, whoever called us waits for it; only the source is let go. A chunk is lost with its connection.
            self.stalled = self.chunks > 0;
            return Err(Error::transient(
                "the target is slow: the stream is closed until it has taken the batch in hand",
            ));
        }
        // A copy that keeps the stream waiting with nothing in hand has had its time.
        self.end_pause();
        self.backlog_since = None;
        Ok(())
    }

    /// Finishes the batch in hand, stores and acknowledges; what only waits comes again after the restart.
    pub(super) async fn leave(&mut self) -> Result<()> {
        if !self.finish_job().await? {
            return Ok(());
        }
        self.end_pause();
        self.store_idle(false).await?;
        if !self.finish_job().await? {
            return Ok(());
        }
        if self.progress.durable() < self.progress.applied() {
            self.in_flight = Some(InFlight::new(self.progress.applied()));
            self.applier.submit(Job::Harden).await?;
            self.finish_job().await?;
        }
        self.send_status(false).await
    }

    /// Waits for the job in hand, but not for ever; returns whether the applier is free.
    async fn finish_job(&mut self) -> Result<bool> {
        if self.in_flight.is_none() {
            return Ok(true);
        }
        match tokio::time::timeout(STOP_PATIENCE, self.applier.result()).await {
            Ok(done) => self.applied(done).await.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_silent_for_too_long_after_a_minute_three_requests_and_its_own_timeout() {
        for (interval, timeout, most) in [
            (1, 0, 60),
            (10, 60, 60),
            (20, 60, 60),
            (30, 90, 90),
            (10, 600, 600),
        ] {
            let start = Instant::now();
            let after = |seconds: u64| start + Duration::from_secs(seconds);
            let mut silence =
                Silence::begin(Duration::from_secs(interval), Duration::from_secs(timeout), start);
            let judged = |silence: &Silence, heard: u64| {
                [heard + most, heard + most + 1].map(|at| silence.is_too_long(after(at)))
            };
            assert_eq!(judged(&silence, 0), [false, true], "every {interval} s");
            silence.end(after(50));
            assert_eq!(judged(&silence, 50), [false, true], "every {interval} s");
        }
    }
}
