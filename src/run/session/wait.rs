//! The pause before everything is copied again soon after the last copy: a cause that comes back,
//! or a process that dies in each of its copies, must not load the source. The pause is stored, so
//! the next process waits only for its rest. Readers keep the old rows until then.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use super::heal::FIRST_COPY;
use crate::error::{Class, Error, Result};
use crate::retry::Healings;
use crate::run::report;
use crate::run::shared::Shared;
use crate::target::bookkeeping::Claim;

/// Longest pause where there is nothing to be read yet.
const MOST_FIRST_COPY_DELAY: Duration = Duration::from_secs(15);

/// How often to check for a request by hand.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the bookkeeping gets a sign of life, and how long that may take.
const BEAT_INTERVAL: Duration = Duration::from_secs(10);
const BEAT_PATIENCE: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Waits as long as the copies before this one demand, or until a copy is requested by hand.
    pub(super) async fn wait_before_copying(&mut self, why: &str, claim: &Claim) -> Result<()> {
        let most = if why == FIRST_COPY {
            MOST_FIRST_COPY_DELAY
        } else {
            Healings::MOST_DELAY
        };
        let pause = claim
            .waits
            .unwrap_or_else(|| claim.healings.pause(most, fastrand::f64()));
        if pause.is_zero() || self.is_asked_by_hand().await? {
            return Ok(());
        }
        tracing::warn!(
            why,
            copies = claim.healings.in_a_row,
            delay_ms = report::millis(pause),
            "copying everything again so soon: waiting first"
        );
        let until = Instant::now() + pause;
        let epoch = self.writer.epoch();
        let bookkeeping = &self.shared.bookkeeping;
        bookkeeping
            .postpone_healing(self.writer.connection(), epoch, why, pause)
            .await?;
        self.drop_old_slot().await?;
        let at = Timestamp::now()
            .saturating_add(pause)
            .unwrap_or(Timestamp::MAX);
        let told = format!(
            "the next copy of everything at {}: {why}",
            at.strftime("%Y-%m-%d %H:%M:%S UTC")
        );
        while Instant::now() < until {
            let conn = self.writer.connection();
            bookkeeping.set_queued_waiting(conn, epoch, &told).await?;
            tokio::select! {
                () = self.shared.end.cancelled() => {
                    return Err(Error::new(Class::Interrupted, "stopped while waiting to copy everything"));
                }
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK_INTERVAL)) => {}
            }
            if self.is_asked_by_hand().await? {
                tracing::info!("a resync is asked for: everything is copied now");
                break;
            }
        }
        Ok(())
    }

    async fn is_asked_by_hand(&mut self) -> Result<bool> {
        let epoch = self.writer.epoch();
        let bookkeeping = &self.shared.bookkeeping;
        bookkeeping
            .is_healing_asked_for(self.writer.connection(), epoch)
            .await
    }
}

/// Gives signs of life whatever the session does. After a crash the bookkeeping then shows when
/// that was, and another process that waits for the pipeline does not mistake a long batch for a
/// dead owner.
pub(super) async fn beat(shared: &Shared, epoch: i64) -> Infallible {
    let mut session = None;
    loop {
        tokio::time::sleep(BEAT_INTERVAL).await;
        let beat = async {
            let conn = match &mut session {
                Some(conn) => conn,
                None => session.insert(shared.target_session("state").await?),
            };
            shared.bookkeeping.beat(conn, epoch).await
        };
        if !matches!(tokio::time::timeout(BEAT_PATIENCE, beat).await, Ok(Ok(()))) {
            session = None;
        }
    }
}
