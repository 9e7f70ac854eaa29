//! The end of a session: what becomes of the batch in hand.

use std::time::{Duration, Instant};

use crate::connect::cancel::CancelRequest;
use crate::consume::job::{Done, FailedBatch};
use crate::error::{Error, Result};
use crate::run::lessons::Lessons;
use crate::run::shared::Shared;
use crate::run::state::STATE_PATIENCE;
use crate::run::stream::Left;

/// While waiting for the batch in hand: how often to check that our session is alive, and how long
/// it may be missing.
const ANSWER_INTERVAL: Duration = Duration::from_secs(30);
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);

/// Returns once our session has not been seen working at the target for [`ANSWER_PATIENCE`]. A slow
/// batch is worth waiting for: a retry would take just as long. A session that has ended, with its
/// host or through another owner, never answers, and the answer of another one may be lost on the
/// way.
async fn session_is_gone(shared: &Shared, epoch: i64) {
    let mut answered = Instant::now();
    while answered.elapsed() < ANSWER_PATIENCE {
        tokio::time::sleep(ANSWER_INTERVAL).await;
        let look = async {
            let mut conn = shared.target_session("watch").await?;
            let bookkeeping = &shared.bookkeeping;
            bookkeeping
                .session_is_at_work(&mut conn, epoch, ANSWER_PATIENCE)
                .await
        };
        match tokio::time::timeout(ANSWER_INTERVAL, look).await {
            Ok(Ok(true)) => answered = Instant::now(),
            // A server that has no room for the look has not lost the session.
            Ok(Err(error)) if error.sqlstate().is_some() => answered = Instant::now(),
            _ => {}
        }
    }
}

/// Ends the stream's tasks: a batch in hand is finished unless the process was asked to stop.
pub(super) async fn leave(
    shared: &Shared,
    mut left: Left,
    epoch: i64,
    result: &Result<()>,
    lessons: &mut Lessons,
) -> Option<FailedBatch> {
    if left.in_hand {
        tokio::select! {
            // The result comes late, but it must be known: otherwise the same batch would be tried
            // for ever.
            done = left.applier.result() => if let Ok(Done::Failed(failed)) = done {
                left.failed = Some(failed);
            },
            () = session_is_gone(shared, epoch) => {}
            () = shared.stop.cancelled() => {}
        }
    }
    let cancel = left.applier.cancel_request();
    if result.is_err() {
        left.applier.abort();
        if left.in_hand {
            cancelled(&cancel).await;
        }
        return left.failed;
    }
    let stopped = async {
        let writer = left.applier.finish().await;
        // A process that goes on with other settings has not stopped.
        lessons.says_streaming = shared.is_renewed();
        if let Some(mut writer) = writer.filter(|_| !lessons.says_streaming) {
            shared
                .bookkeeping
                .set_state(writer.connection(), epoch, "stopped", None)
                .await?;
        }
        Ok::<_, Error>(())
    };
    // The target may be down before us: then there is nothing to report. A batch that has failed
    // comes again in the next session, which learns from it.
    if tokio::time::timeout(STATE_PATIENCE, stopped).await.is_err() {
        cancelled(&cancel).await;
    }
    None
}

/// Ends the statement in hand, so that nothing commits after this process has left.
async fn cancelled(cancel: &CancelRequest) {
    if let Err(error) = cancel.cancel().await {
        tracing::debug!(%error, "the target may still carry out the batch in hand");
    }
}
