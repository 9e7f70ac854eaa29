//! What status reports of resyncs: what the last ones found, why one failed or waits, and that the
//! schedule is not kept.

use super::super::{Problem, Status, Verdict, text};
use super::problem;
use crate::check::{TEMP_FILE_LIMIT, TEMP_FILE_LIMIT_HINT};

/// One night may be missed: a resync follows as soon as possible. After the second one the last
/// comparison is too long ago: rows that were lost, or written by others, would not have been
/// noticed.
pub(super) fn overdue(status: &Status, runs: bool, found: &mut Vec<(Verdict, Problem)>) {
    let schedule = status.resync_schedule.as_ref();
    let Some(since) = schedule.and_then(|schedule| schedule.overdue_since.as_ref()) else {
        return;
    };
    if !runs {
        return;
    }
    let why = match (waiting_for(status), scheduled_failure(status)) {
        (Some(blocker), _) => format!("; it waits for {blocker}"),
        (None, Some(error)) => format!("; it failed: {error}"),
        (None, None) => String::new(),
    };
    let message = format!(
        "two turns of the scheduled resync were missed, the second one at {}{why}",
        text::time(since)
    );
    let hint = match scheduled_failure(status) {
        Some(error) if waiting_for(status).is_none() => hint(error),
        _ => Some(
            "A resync makes a slot, which waits until every open write transaction of the source has ended.",
        ),
    };
    found.push((Verdict::Overdue, problem("error", "cdc", message, hint)));
}

/// What holds a copy up at the moment.
fn waiting_for(status: &Status) -> Option<&String> {
    let pipeline = status.pipeline.as_ref()?;
    let running = status
        .resyncs
        .iter()
        .find(|resync| resync.state == "running");
    pipeline
        .waiting_for
        .as_ref()
        .or(running.and_then(|resync| resync.waiting_for.as_ref()))
        .filter(|_| pipeline.alive)
}

/// Why the last scheduled resync that has ended has failed, if it has.
fn scheduled_failure(status: &Status) -> Option<&str> {
    let mut ended = status.resyncs.iter().filter(|resync| {
        resync.origin == "schedule" && matches!(resync.state.as_str(), "done" | "failed")
    });
    let last = ended.next().filter(|resync| resync.state == "failed")?;
    Some(last.error.as_deref().unwrap_or("no reason is known"))
}

/// What to do about an error, of which the bookkeeping has only the text.
fn hint(error: &str) -> Option<&'static str> {
    error
        .contains(TEMP_FILE_LIMIT)
        .then_some(TEMP_FILE_LIMIT_HINT)
}

/// Reports what resyncs found; this does not make the whole unhealthy.
pub(super) fn told(status: &Status, found: &mut Vec<(Verdict, Problem)>) {
    for model in &status.read_models {
        if let Some(resync) = model
            .last_resync
            .as_ref()
            .filter(|resync| resync.repaired > 0)
        {
            let message = format!(
                "the last resync of {} repaired {}",
                model.name,
                text::rows(resync.repaired)
            );
            let hint = Some(
                "Somebody else writes to the lookup, or rows were lost: see the log of that resync.",
            );
            found.push((Verdict::Ok, problem("warning", &model.name, message, hint)));
        }
    }
    let waits = status.pipeline.as_ref().and_then(|pipeline| {
        let waiting_for = pipeline.waiting_for.as_ref().filter(|_| pipeline.alive)?;
        Some(format!("a copy waits for {waiting_for}"))
    });
    let a_copy_waits = waits.is_some();
    found.extend(waits.map(|message| (Verdict::Ok, problem("warning", "cdc", message, None))));
    let Some(last) = status.resyncs.first() else {
        return;
    };
    let what = if last.dry_run { "comparison" } else { "resync" };
    if last.state == "failed" {
        let error = last.error.as_deref().unwrap_or("no reason is known");
        let message = format!("the last {what} failed: {error}");
        found.push((Verdict::Ok, problem("warning", "cdc", message, hint(error))));
    } else if let Some(blocker) = last
        .waiting_for
        .as_ref()
        .filter(|_| last.state != "done" && !a_copy_waits)
    {
        let message = format!("a {what} waits for {blocker}");
        found.push((Verdict::Ok, problem("warning", "cdc", message, None)));
    }
    // A later or running resync has not made up for it.
    if last.state != "failed"
        && let Some(error) = scheduled_failure(status)
    {
        let message = format!("the last scheduled resync failed: {error}");
        found.push((Verdict::Ok, problem("warning", "cdc", message, hint(error))));
    }
}
