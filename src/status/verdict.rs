//! The rules: what follows from a status.
//!
//! | first that holds | verdict |
//! |---|---|
//! | the target cannot be seen | unknown |
//! | no bookkeeping, or no pipeline in it | new |
//! | no process at work | stopped |
//! | the process has an error | retrying |
//! | the slot is another's | slot |
//! | the source cannot be seen | unknown |
//! | everything is being copied, or a read model is new | copying |
//! | a read model is suspended, or could not be copied for the first time | suspended |
//! | the last comparison found differences and left them | differs |
//! | the slot is missing, lost, about to be, or unread | slot |
//! | older than [`MAX_AGE_SECONDS`] | behind |
//! | two turns of the schedule have passed without a resync of everything | overdue |
//! | none of these | ok |
//!
//! All that holds is listed as a problem; the first one gives the verdict.

use super::{PipelineStatus, Problem, SourceSeen, Status, Verdict};
use crate::facts::Slot;
use crate::settings::Settings;

mod resyncs;

/// Older than this is a problem. The position of an idle source is stored every 10 s.
pub(crate) const MAX_AGE_SECONDS: f64 = 60.0;

/// A process gives a sign of life at least every 10 s; three may be missed.
pub(crate) const STALE_HEARTBEAT_SECONDS: f64 = 35.0;

/// Rows that the target rejects that are named.
const TOLD_REJECTIONS: usize = 3;

/// Whether a process is at work.
pub(super) fn is_alive(pipeline: &PipelineStatus) -> bool {
    let fresh = pipeline
        .heartbeat_age_seconds
        .is_some_and(|age| age < STALE_HEARTBEAT_SECONDS);
    pipeline.state != "stopped" && (fresh || pipeline.session_present)
}

/// Fills in verdict, summary and problems.
pub(super) fn judge(status: &mut Status, settings: &Settings, source: Option<&SourceSeen>) {
    let mut found = find(status, settings, source);
    let first = found
        .iter()
        .find(|(_, problem)| problem.severity == "error");
    status.healthy = first.is_none();
    (status.verdict, status.summary) = match first {
        Some((verdict, problem)) => (*verdict, problem.message.clone()),
        None => (Verdict::Ok, in_step(status)),
    };
    found.sort_by_key(|(_, problem)| problem.severity);
    status.problems = found.into_iter().map(|(_, problem)| problem).collect();
}

/// All problems, each with the verdict that it means; of the errors the first one is the most
/// important.
fn find(
    status: &Status,
    settings: &Settings,
    source: Option<&SourceSeen>,
) -> Vec<(Verdict, Problem)> {
    let mut found: Vec<(Verdict, Problem)> = Vec::new();
    match &status.target.error {
        Some(error) => found.push(not_seen("target", error)),
        None => pipeline(status, &mut found),
    }
    match (&status.source.error, source) {
        (Some(error), _) => found.push(not_seen("source", error)),
        (None, Some(source)) => foreign_slot(source.slot.as_ref(), settings, &mut found),
        (None, None) => {}
    }
    let runs = status
        .pipeline
        .as_ref()
        .is_some_and(|pipeline| pipeline.alive);
    read_models(status, runs, &mut found);
    differences(status, &mut found);
    rejections(status, &settings.target.schema, &mut found);
    if let Some(source) = source
        && status.checkpoint.is_some()
    {
        slot(source.slot.as_ref(), settings, runs, &mut found);
    }
    if runs {
        age(status, &mut found);
    }
    resyncs::overdue(status, runs, &mut found);
    waiting_rows(status, &mut found);
    resyncs::told(status, &mut found);
    found
}

/// A side that could not be asked.
fn not_seen(side: &str, error: &str) -> (Verdict, Problem) {
    let message = format!("the {side} could not be asked: {error}");
    (Verdict::Unknown, problem("error", side, message, None))
}

/// Lookups that are too old though `cdc` runs.
fn age(status: &Status, found: &mut Vec<(Verdict, Problem)>) {
    let Some(age) = oldest(status).filter(|age| *age > MAX_AGE_SECONDS) else {
        return;
    };
    let message = match &status.catching_up {
        Some(catching_up) => catching_up.told(),
        None => format!("the lookups may be {} old", super::text::duration(age)),
    };
    found.push((Verdict::Behind, problem("error", "cdc", message, None)));
}

fn problem(severity: &'static str, subject: &str, message: String, hint: Option<&str>) -> Problem {
    Problem {
        severity,
        subject: subject.to_owned(),
        message,
        hint: hint.map(str::to_owned),
    }
}

fn pipeline(status: &Status, found: &mut Vec<(Verdict, Problem)>) {
    let Some(pipeline) = &status.pipeline else {
        let hint = Some("See with cdc check whether everything is ready, then start cdc run.");
        found.push((
            Verdict::New,
            problem("error", "cdc", "cdc has not run yet".to_owned(), hint),
        ));
        return;
    };
    if !pipeline.alive {
        found.push(stopped(status));
    }
    found.extend(last_error(pipeline));
    found.extend(healing(pipeline));
}

fn stopped(status: &Status) -> (Verdict, Problem) {
    let as_of = status
        .checkpoint
        .as_ref()
        .map(|checkpoint| checkpoint.commit_time.as_deref());
    let message = match as_of {
        Some(Some(time)) => format!(
            "cdc is not running; the lookups are as of {}",
            super::text::time(time)
        ),
        Some(None) => {
            "cdc is not running; as of which time the lookups are is not known".to_owned()
        }
        None => "cdc is not running, and has copied nothing yet".to_owned(),
    };
    let hint = Some("Start cdc run; it continues where it stopped.");
    (Verdict::Stopped, problem("error", "cdc", message, hint))
}

/// The error after which the last session ended, or that another try follows.
fn last_error(pipeline: &PipelineStatus) -> Option<(Verdict, Problem)> {
    let message = match &pipeline.error {
        Some(error) if pipeline.alive => format!("cdc is trying again: {error}"),
        Some(error) => format!("last error: {error}"),
        None if pipeline.alive && pipeline.state == "retrying" => "cdc is trying again".to_owned(),
        None => return None,
    };
    let hint = pipeline.error.as_ref().and(pipeline.error_hint.as_deref());
    Some((Verdict::Retrying, problem("error", "cdc", message, hint)))
}

/// That everything is copied, now or later.
fn healing(pipeline: &PipelineStatus) -> Option<(Verdict, Problem)> {
    let why = pipeline.healing.as_ref()?;
    let (message, hint) = match &pipeline.healing_after {
        Some(after) => {
            let times = match pipeline.healings {
                1 => "it was copied once".to_owned(),
                times => format!("it was copied {times} times"),
            };
            (
                format!(
                    "everything is copied again from {} on: {why} ({times} within a short time)",
                    super::text::time(after)
                ),
                "cdc waits so as not to load the source. Old rows stay readable; `cdc resync` begins at once.",
            )
        }
        None => (
            format!("everything is being copied: {why}"),
            "Old rows stay readable; nothing has to be done.",
        ),
    };
    Some((
        Verdict::Copying,
        problem("error", "cdc", message, Some(hint)),
    ))
}

/// A slot that `cdc` cannot use at all.
fn foreign_slot(slot: Option<&Slot>, settings: &Settings, found: &mut Vec<(Verdict, Problem)>) {
    let Some(slot) = slot else {
        return;
    };
    let ours = settings.source.conninfo.database.as_str();
    let message = match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (Some("pgoutput"), Some(database)) if database == ours => return,
        (Some("pgoutput"), Some(database)) => {
            format!("slot \"{}\" belongs to database \"{database}\"", slot.name)
        }
        _ => format!("slot \"{}\" is not a pgoutput slot", slot.name),
    };
    let hint = "Choose another name (source.slot).";
    found.push((Verdict::Slot, problem("error", "slot", message, Some(hint))));
}

fn slot(slot: Option<&Slot>, settings: &Settings, runs: bool, found: &mut Vec<(Verdict, Problem)>) {
    let heals = if runs {
        "cdc makes a new one and copies everything."
    } else {
        "cdc run makes a new one and copies everything."
    };
    let name = &settings.source.slot;
    let mut add = |severity, message, hint| {
        found.push((Verdict::Slot, problem(severity, "slot", message, hint)))
    };
    let Some(slot) = slot else {
        add(
            "error",
            format!("slot \"{name}\" does not exist"),
            Some(heals),
        );
        return;
    };
    if slot.wal_status.as_deref() == Some("lost") || slot.invalidation_reason.is_some() {
        add("error", format!("slot \"{name}\" is lost"), Some(heals));
    } else if slot.wal_status.as_deref() == Some("unreserved") {
        add(
            "error",
            format!("slot \"{name}\" is about to be lost"),
            Some("Raise max_slot_wal_keep_size, or find out why cdc is stuck."),
        );
    } else if let Some((held, most)) = over_budget(slot, settings) {
        let message = format!(
            "slot \"{name}\" holds {} of WAL, more than source.max_retained_wal ({})",
            super::text::size(held),
            super::text::size(most)
        );
        let hint = if runs {
            "cdc gives it up and copies everything as soon as it can."
        } else {
            "Nobody gives it up while cdc is not running: start cdc run."
        };
        add("error", message, Some(hint));
    } else if runs && slot.active_pid.is_none() {
        add(
            "warning",
            format!("nobody reads slot \"{name}\" at the moment"),
            None,
        );
    }
}

/// What the slot holds and may hold, if it holds more.
fn over_budget(slot: &Slot, settings: &Settings) -> Option<(u64, u64)> {
    let most = settings.source.max_retained_wal?;
    let held = u64::try_from(slot.held_bytes?).ok()?;
    (held > most).then_some((held, most))
}

fn read_models(status: &Status, runs: bool, found: &mut Vec<(Verdict, Problem)>) {
    for model in &status.read_models {
        match model.state.as_str() {
            "suspended" => {
                let reason = model.reason.as_deref().unwrap_or("no reason is known");
                let message = format!(
                    "{} is suspended and shows its last good state: {reason}",
                    model.name
                );
                found.push((
                    Verdict::Suspended,
                    problem("error", &model.name, message, model.hint.as_deref()),
                ));
            }
            // For a read model that is being copied again, the progress is reported.
            "new" if model.reason.is_some() && model.copy.is_none() => {
                let reason = model.reason.as_deref().unwrap_or_default();
                let message = format!("{} could not be copied yet: {reason}", model.name);
                found.push((
                    Verdict::Suspended,
                    problem("error", &model.name, message, model.hint.as_deref()),
                ));
            }
            "new" if runs => {
                let progress = model.copy.as_ref().map(super::text::progress);
                let progress =
                    progress.map_or_else(String::new, |progress| format!(" ({progress})"));
                let message = format!(
                    "{} is being copied for the first time{progress}",
                    model.name
                );
                found.push((
                    Verdict::Copying,
                    problem("error", &model.name, message, None),
                ));
            }
            _ => {}
        }
    }
}

/// What a dry run has found stays true until something compares again: nothing else repairs it.
fn differences(status: &Status, found: &mut Vec<(Verdict, Problem)>) {
    for model in &status.read_models {
        let Some(compared) = model
            .last_comparison
            .as_ref()
            .filter(|last| last.differing > 0)
        else {
            continue;
        };
        let message = format!(
            "{} differs from its source in {}, as the comparison of {} found",
            model.name,
            super::text::rows(compared.differing),
            super::text::time(&compared.at)
        );
        let hint = Some("Run `cdc resync`, which repairs them; `cdc verify` names the keys.");
        found.push((
            Verdict::Differs,
            problem("error", &model.name, message, hint),
        ));
    }
}

/// Reports rows that the target rejects, and names the first of them; everything else is right.
fn rejections(status: &Status, schema: &str, found: &mut Vec<(Verdict, Problem)>) {
    for model in status.read_models.iter().filter(|model| model.rejected > 0) {
        let first: Vec<String> = model
            .rejections
            .iter()
            .take(TOLD_REJECTIONS)
            .map(|row| {
                let key = row
                    .key
                    .as_deref()
                    .or(row.identity.as_deref())
                    .unwrap_or("-");
                let object = row
                    .constraint
                    .as_deref()
                    .or(row.column.as_deref())
                    .unwrap_or_default();
                format!(
                    "{key} ({})",
                    format!("{} {object}", row.sqlstate).trim_end()
                )
            })
            .collect();
        let more = if model.rejected > i64::try_from(first.len()).unwrap_or(i64::MAX) {
            ", ..."
        } else {
            ""
        };
        let message = format!(
            "the target rejects {} of {}: {}{more}",
            super::text::rows(model.rejected),
            model.name,
            first.join(", ")
        );
        let hint = format!(
            "They are in the view {schema}.rejected. Mend the rows at the source, or the lookup table and run `cdc resync`."
        );
        found.push((
            Verdict::Ok,
            problem("warning", &model.name, message, Some(&hint)),
        ));
    }
}

/// Live rows with one key have no right answer: the application shall know of them.
fn waiting_rows(status: &Status, found: &mut Vec<(Verdict, Problem)>) {
    for model in status.read_models.iter().filter(|model| model.waiting > 0) {
        let message = format!(
            "at the last resync {} of {} had a key that another live row has",
            super::text::rows(model.waiting),
            model.name
        );
        let hint = Some(
            "The row with the smallest identity is shown. Mend the rows at the source; `cdc check` prints a unique index that prevents it.",
        );
        found.push((Verdict::Ok, problem("warning", &model.name, message, hint)));
    }
}

fn oldest(status: &Status) -> Option<f64> {
    status
        .read_models
        .iter()
        .filter_map(|model| model.age_seconds)
        .reduce(f64::max)
}

fn in_step(status: &Status) -> String {
    let what = match status.read_models.as_slice() {
        [only] => format!("{} is", only.name),
        models => format!("{} read models are", models.len()),
    };
    if let Some(catching_up) = &status.catching_up {
        return format!("{what} {}", catching_up.told());
    }
    match oldest(status) {
        Some(age) if age >= 0.1 => format!("{what} at most {} behind", super::text::duration(age)),
        _ => format!("{what} in step"),
    }
}

#[cfg(test)]
pub(super) mod tests;
