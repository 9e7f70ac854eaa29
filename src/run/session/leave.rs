//! The end of a session: what becomes of the batch in hand.

use std::time::{Duration, Instant};

use super::STATE_PATIENCE;
use crate::error::{Error, Result};
use crate::run::Shared;
use crate::run::stream::{Left, Refused};

/// How often it is looked whether the target still answers while a batch in hand is waited for, and how long it may not.
const ANSWER_INTERVAL: Duration = Duration::from_secs(30);
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);

/// Comes back once the target has not answered for long. However slowly, what it works at is better waited for: the same batch
/// would take as long again.
async fn target_is_gone(shared: &Shared) {
    let mut answered = Instant::now();
    while answered.elapsed() < ANSWER_PATIENCE {
        tokio::time::sleep(ANSWER_INTERVAL).await;
        let answer = tokio::time::timeout(ANSWER_INTERVAL, shared.target_session("watch")).await;
        if matches!(answer, Ok(Ok(_))) {
            answered = Instant::now();
        }
    }
}

/// Ends what belongs to the stream: a batch in hand is finished unless the process was asked to stop.
pub(super) async fn leave(
    shared: &Shared,
    mut left: Left,
    epoch: i64,
    result: &Result<()>,
) -> Option<Refused> {
    if left.busy {
        tokio::select! {
            _ = left.applier.result() => {}
            () = target_is_gone(shared) => {}
            () = shared.stop.cancelled() => {}
        }
    }
    if result.is_err() {
        left.applier.abort();
        return left.refused;
    }
    let stopped = async {
        if let Some(mut writer) = left.applier.finish().await {
            shared
                .bookkeeping
                .set_state(writer.connection(), epoch, "stopped", None)
                .await?;
        }
        Ok::<_, Error>(())
    };
    // The target may be gone before us: then there is nothing to tell it.
    let _ = tokio::time::timeout(STATE_PATIENCE, stopped).await;
    None
}
