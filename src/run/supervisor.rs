//! Session after session, until the process is asked to stop: what ends one, and when the next
//! begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::error::{Class, Error, Result};
use crate::retry::Backoff;
use crate::run::lessons::Lessons;
use crate::run::shared::Shared;
use crate::run::{budget, reload, report, session, state};
use crate::settings::Settings;

/// Delays between two sessions.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MOST_DELAY: Duration = Duration::from_secs(15);

/// A session that streamed for this long makes the next one begin without a delay.
const GOOD_SESSION: Duration = Duration::from_secs(3);

/// How long a session may take to end once the process is asked to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// Runs until the process is asked to stop; at each of the signals the configuration is read again.
///
/// # Errors
/// Only before the first stream, and only what a person has to correct.
pub(crate) async fn start(shared: Shared, hangups: Option<Signal>) -> Result<()> {
    let shared = Arc::new(shared);
    let guarded = Arc::clone(&shared);
    let guard = tokio::spawn(async move { budget::guard(&guarded).await });
    let reloads = hangups.map(|hangups| {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { reload::at_each(hangups, &shared).await })
    });
    let result = sessions(&shared).await;
    guard.abort();
    if let Some(reloads) = reloads {
        reloads.abort();
    }
    result
}

/// How a session ended.
enum End {
    /// The process shall leave.
    Stopped,
    /// The next session has other settings.
    Renewed,
    /// By an error.
    Failed(Error),
}

async fn sessions(first: &Arc<Shared>) -> Result<()> {
    let mut lessons = Lessons::default();
    let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY);
    let mut shared = Arc::clone(first);
    let mut worked = None;
    loop {
        let next = shared.next_session();
        if next.settings.read_models != shared.settings.read_models {
            lessons.forget_places();
        }
        shared = Arc::new(next);
        let end = one(&shared, &mut lessons).await;
        if lessons.streaming_since.is_some() {
            worked = Some(shared.settings.clone());
        }
        // A session that streamed for a while was a good one. An error that ends each session at
        // once must not be tried again without a pause.
        if lessons.take_was_good(GOOD_SESSION) {
            backoff.reset();
            lessons.trouble = None;
        }
        let error = match end {
            End::Stopped => {
                say_stopped(&shared, &lessons).await;
                return Ok(());
            }
            End::Renewed => continue,
            End::Failed(error) => error,
        };
        // What a reload has brought is never the end of the process.
        let is_first = !lessons.streamed && shared.settings == first.settings;
        if error.class() == Class::Configuration && is_first {
            return Err(error);
        }
        if put_back(&shared, worked.as_ref(), &error) {
            continue;
        }
        let mut in_force = shared.in_force.subscribe();
        let delay = after(&shared, &mut lessons, &mut backoff, &error).await;
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            // Other settings may be what was missing.
            () = shared.end.cancelled() => {}
            Ok(()) = in_force.changed() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// One session from its begin to its end.
async fn one(shared: &Arc<Shared>, lessons: &mut Lessons) -> End {
    // Boxed, since its states are many and large.
    let session = Box::pin(session::session(shared, lessons));
    // A dropped session leaves the same state as a killed process: the next session begins from
    // what is stored.
    let result = tokio::select! {
        biased;
        result = until_stopped(shared, session) => result.unwrap_or(Ok(())),
        error = shared.budget.enforced() => Err(error),
    };
    shared.stay_with(None);
    let error = match result {
        _ if shared.stop.is_cancelled() => return End::Stopped,
        Ok(()) => None,
        Err(error) if error.class() == Class::Interrupted => None,
        Err(error) => Some(error),
    };
    match error {
        Some(error) => End::Failed(error),
        None if shared.is_renewed() => End::Renewed,
        None => End::Stopped,
    }
}

/// The process leaves. A session that did not store so, since another one was to follow it, is made
/// up for.
async fn say_stopped(shared: &Shared, lessons: &Lessons) {
    if let Some(epoch) = lessons.epoch.filter(|_| lessons.says_streaming) {
        state::write_stopped(shared, epoch).await;
    }
}

/// A session has ended by this error. If it was of the configuration, before it streamed, and a
/// reload has brought what the session set up, then what `worked` before is in force again: one bad
/// read model must not stop the others. Returns whether it is.
fn put_back(shared: &Shared, worked: Option<&Settings>, error: &Error) -> bool {
    let Some(worked) = worked.filter(|_| error.class() == Class::Configuration) else {
        return false;
    };
    let is_back = shared.in_force.put_back(&shared.settings, worked);
    if is_back {
        tracing::error!(
            %error,
            detail = error.detail(),
            hint = error.hint(),
            "the settings that were read again do not work: the ones before are in force again"
        );
    }
    is_back
}

/// Says and stores why a session has ended; returns how long to wait before the next one.
async fn after(
    shared: &Shared,
    lessons: &mut Lessons,
    backoff: &mut Backoff,
    error: &Error,
) -> Duration {
    let stuck = lessons.take_stuck();
    let since = lessons
        .since(error)
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
            Some(Ok(false)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "could not give up the slot"),
        }
    }
    if let (Some(stuck), Some(epoch)) = (&stuck, lessons.epoch) {
        state::write_stuck(shared, epoch, stuck, error).await;
    }
    let error = error.clone().context(format_args!("since {since}"));
    state::write_retrying(shared, lessons.epoch, &error).await;
    lessons.says_streaming = false;
    delay
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
