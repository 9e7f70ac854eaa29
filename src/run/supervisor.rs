//! Session after session, until the process is asked to stop: what ends one, and when the next
//! begins.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Class, Result};
use crate::retry::Backoff;
use crate::run::lessons::Lessons;
use crate::run::shared::Shared;
use crate::run::{budget, report, session, state};

/// Delays between two sessions.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MOST_DELAY: Duration = Duration::from_secs(15);

/// A session that streamed for this long makes the next one begin without a delay.
const GOOD_SESSION: Duration = Duration::from_secs(3);

/// How long a session may take to end once the process is asked to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// Runs until the process is asked to stop.
///
/// # Errors
/// Only before the first stream, and only what a person has to correct.
pub(crate) async fn start(shared: Shared) -> Result<()> {
    let shared = Arc::new(shared);
    let guarded = Arc::clone(&shared);
    let guard = tokio::spawn(async move { budget::guard(&guarded).await });
    let result = sessions(&shared).await;
    guard.abort();
    result
}

async fn sessions(shared: &Arc<Shared>) -> Result<()> {
    let mut lessons = Lessons::default();
    let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY);
    loop {
        // A dropped session leaves the same state as a killed process: the next session begins from
        // what is stored.
        let result = tokio::select! {
            biased;
            result = until_stopped(shared, session::session(shared, &mut lessons)) => result.unwrap_or(Ok(())),
            error = shared.budget.enforced() => Err(error),
        };
        shared.stay_with(None);
        let error = match result {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if shared.stop.is_cancelled() || error.class() == Class::Interrupted {
            return Ok(());
        }
        if error.class() == Class::Configuration && !lessons.streamed {
            return Err(error);
        }
        // A session that streamed for a while was a good one. An error that ends each session at
        // once must not be tried again without a pause.
        if lessons
            .streaming_since
            .take()
            .is_some_and(|since| since.elapsed() > GOOD_SESSION)
        {
            backoff.reset();
            lessons.trouble = None;
        }
        let stuck = lessons.take_stuck();
        let since = lessons
            .since(&error)
            .strftime("%Y-%m-%d %H:%M:%S UTC")
            .to_string();
        let delay = match &stuck {
            Some(stuck) => stuck.pause(),
            None => backoff.next_delay(fastrand::f64()),
        };
        tracing::warn!(%error, detail = error.detail(), hint = error.hint(), since, attempt = backoff.attempt(), delay_ms = report::millis(delay), "trying again");
        if let Some(why) = shared.budget.exceeded() {
            let giving_up = budget::give_up(shared, lessons.epoch, lessons.owned.as_ref(), &why);
            match until_stopped(shared, giving_up).await {
                Some(Ok(true)) => lessons.gap = Some(why),
                Some(Ok(false)) => {}
                Some(Err(error)) => tracing::warn!(%error, "could not give up the slot"),
                None => return Ok(()),
            }
        }
        if let (Some(stuck), Some(epoch)) = (&stuck, lessons.epoch) {
            state::write_stuck(shared, epoch, stuck, &error).await;
        }
        let error = error.context(format_args!("since {since}"));
        state::write_retrying(shared, lessons.epoch, &error).await;
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Carries out what connects to servers; once the process is asked to stop, it has a few seconds to
/// end well, then it is dropped: a server that does not answer is not waited for.
async fn until_stopped<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => return Some(result),
        () = shared.stop.cancelled() => {}
    }
    tokio::time::timeout(STOP_PATIENCE, work).await.ok()
}
