//! What the process writes of itself into the bookkeeping when a session has ended, if the target
//! can be reached.

use std::time::Duration;

use crate::error::Error;
use crate::run::shared::Shared;
use crate::stuck::Stuck;

/// How long that may take.
pub(crate) const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// Stores at the target that the source cannot send what follows a position, if it can be reached.
pub(crate) async fn write_stuck(shared: &Shared, epoch: i64, stuck: &Stuck, error: &Error) {
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        shared
            .bookkeeping
            .set_stuck(&mut conn, epoch, stuck, error)
            .await
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}

/// Writes that the process has stopped, if the target can be reached.
pub(crate) async fn write_stopped(shared: &Shared, epoch: i64) {
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        let bookkeeping = &shared.bookkeeping;
        bookkeeping
            .set_state(&mut conn, epoch, "stopped", None)
            .await
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}

/// Writes why the process tries again, if it can be reached. Before it has claimed the pipeline it
/// speaks only where no other process does.
pub(crate) async fn write_retrying(shared: &Shared, epoch: Option<i64>, error: &Error) {
    let bookkeeping = &shared.bookkeeping;
    let tell = async {
        let mut conn = shared.target_session("state").await?;
        match epoch {
            Some(epoch) => {
                bookkeeping
                    .set_state(&mut conn, epoch, "retrying", Some(error))
                    .await
            }
            None => {
                bookkeeping
                    .set_retrying_unclaimed(&mut conn, &shared.owner, error)
                    .await
            }
        }
    };
    let _ = tokio::time::timeout(STATE_PATIENCE, tell).await;
}
