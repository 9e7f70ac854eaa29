//! A resync that was asked for (`cdc resync`, the watch): one try of it. A request that fails for a
//! passing reason is queued again and tried later, so that it delays neither the schedule nor read
//! models that are not in step.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Keeper, MOST_DELAY};
use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::run::report;
use crate::run::resync::{Order, Outcome};
use crate::run::shared::Shared;
use crate::settings::ReadModelSettings;
use crate::target::bookkeeping::ResyncRequest;

/// Longest delay between two tries if a command waits for the result.
const MOST_DELAY_ASKED: Duration = Duration::from_secs(15);

/// How often to check whether a running request was cancelled.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Keeper {
    /// Tries to carry the request out.
    pub(super) async fn request(
        &mut self,
        conn: &mut Connection,
        request: ResyncRequest,
    ) -> Result<()> {
        let order = self.order_of(&request);
        match self.try_request(&request, &order).await {
            Err(error) if error.class() == Class::Interrupted => {
                if self.stop.is_cancelled() {
                    return Err(error);
                }
                tracing::info!(resync = request.id, "a resync was cancelled");
                self.asked.forget(request.id);
                Ok(())
            }
            Err(error) if error.is_transient() => self.postpone(conn, &request, &error).await,
            Err(error) => self.finish(conn, &request, None, Some(&error)).await,
            Ok(mut outcome) => {
                let failed = std::mem::take(&mut outcome.failed);
                let failed = self.note_failures(conn, failed).await?;
                match &failed {
                    Some(error) if error.is_transient() => {
                        self.postpone(conn, &request, error).await
                    }
                    error => {
                        self.finish(conn, &request, Some(outcome), error.as_ref())
                            .await
                    }
                }
            }
        }
    }

    async fn finish(
        &mut self,
        conn: &mut Connection,
        request: &ResyncRequest,
        outcome: Option<Outcome>,
        error: Option<&Error>,
    ) -> Result<()> {
        self.asked.forget(request.id);
        if outcome.is_some() && request.read_models.is_none() && !request.dry_run {
            self.last_full = Timestamp::now();
        }
        let result = outcome.map(|outcome| (outcome.lsn, details(request, &outcome)));
        let result = result.as_ref().map(|(lsn, details)| (*lsn, details));
        let bookkeeping = &self.shared.bookkeeping;
        if let Some((_, found)) = result.filter(|_| request.dry_run) {
            bookkeeping.note_compared(conn, self.epoch, found).await?;
        }
        bookkeeping
            .finish_resync(conn, self.epoch, request.id, result, error)
            .await
    }

    fn order_of(&self, request: &ResyncRequest) -> Order {
        let wanted = |settings: &ReadModelSettings| {
            request
                .read_models
                .as_ref()
                .is_none_or(|names| names.contains(&settings.name()))
        };
        let models = self.models.iter().filter(|model| wanted(&model.settings));
        Order {
            models: models.cloned().collect(),
            epoch: self.epoch,
            number: Some(request.id),
            request: Some(request.id).filter(|_| !request.dry_run),
            dry_run: request.dry_run,
            keys: u32::try_from(request.most_keys).unwrap_or(0),
        }
    }

    /// Carries the order out, unless the request is cancelled in the meantime.
    async fn try_request(&self, request: &ResyncRequest, order: &Order) -> Result<Outcome> {
        let origin = if request.dry_run {
            "dry run"
        } else {
            "request"
        };
        let stop = self.stop.child_token();
        let mut work = std::pin::pin!(self.carry_out(origin, order, &stop));
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = until_cancelled(&self.shared, self.epoch, request.id) => stop.cancel(),
        }
        // It ends soon, and removes what it has created.
        work.await
    }

    /// The request has its next try later, and says why until then.
    async fn postpone(
        &mut self,
        conn: &mut Connection,
        request: &ResyncRequest,
        error: &Error,
    ) -> Result<()> {
        let most = if request.origin == "watch" {
            MOST_DELAY
        } else {
            MOST_DELAY_ASKED
        };
        let delay = self.asked.failed(request.id, most, Instant::now());
        let next = Timestamp::now()
            .saturating_add(delay)
            .unwrap_or(Timestamp::MAX)
            .strftime("%Y-%m-%d %H:%M:%S UTC");
        let why = format!(
            "the next try at {next}; the last one failed: {}",
            error.with_its_detail()
        );
        let wanted = self
            .shared
            .bookkeeping
            .postpone_resync(conn, self.epoch, request.id, &why)
            .await?;
        if !wanted {
            self.asked.forget(request.id);
        }
        Ok(())
    }
}

fn details(request: &ResyncRequest, outcome: &Outcome) -> serde_json::Value {
    if request.dry_run {
        report::difference(&outcome.found)
    } else {
        report::result(&outcome.written)
    }
}

/// Returns once the request was cancelled. It uses a session of its own: the keeper's must not be
/// left in the middle of a statement. If it cannot look, the resync continues.
async fn until_cancelled(shared: &Arc<Shared>, epoch: i64, id: i64) {
    let mut session = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let conn = match &mut session {
            Some(conn) => conn,
            None => match shared.target_session("keeper").await {
                Ok(conn) => session.insert(conn),
                Err(_) => continue,
            },
        };
        match shared.bookkeeping.is_wanted(conn, epoch, id).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => session = None,
        }
    }
}
