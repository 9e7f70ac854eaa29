//! The status for a terminal: the verdict first, then one small table, in less than 100 columns.

use super::{
    Checkpoint, Copy, PipelineStatus, ReadModelStatus, Resync, ResyncSchedule, SideStatus,
    SlotStatus, Status, Verdict,
};

/// Widest line.
const WIDTH: usize = 99;

/// The status as text, with a line feed at the end.
pub(crate) fn render(status: &Status) -> String {
    let mut lines = verdict(status);
    lines.push(String::new());
    lines.extend(table(&status.read_models));
    lines.push(String::new());
    let mut of = |what: &str, text: String| lines.push(format!("{what:<11} {text}"));
    of("cdc", pipeline(status.pipeline.as_ref()));
    if let Some(found) = &status.checkpoint {
        of("checkpoint", checkpoint(found));
    }
    of("slot", slot(status));
    of("source", side(&status.source));
    of("target", side(&status.target));
    for model in &status.read_models {
        if let Some(copy) = &model.copy {
            let name = clip(&model.name, 28);
            of("copy", format!("{name}: {}", progress(copy)));
        }
    }
    if let Some(last) = status.resyncs.first() {
        of("resync", resync(last));
    }
    lines.extend(status.resync_schedule.as_ref().map(schedule));
    let lines: Vec<String> = lines
        .iter()
        .map(|line| clip(line.trim_end(), WIDTH))
        .collect();
    format!("{}\n", lines.join("\n"))
}

/// The verdict, and below it the problems that it does not tell.
fn verdict(status: &Status) -> Vec<String> {
    let mut lines = wrap(
        &format!("{:<9} {}", word(status.verdict), status.summary),
        "          ",
    );
    for problem in &status.problems {
        // The verdict's line already names the first one.
        if problem.message != status.summary {
            lines.extend(wrap(
                &format!("{}: {}", problem.severity, problem.message),
                "    ",
            ));
        }
        let hint = problem.hint.iter();
        lines.extend(hint.flat_map(|hint| wrap(&format!("hint: {hint}"), "    ")));
    }
    lines
}

fn checkpoint(checkpoint: &Checkpoint) -> String {
    let time_text = checkpoint
        .commit_time
        .as_deref()
        .map_or_else(|| "-".to_owned(), time);
    let lag = checkpoint
        .lag_bytes
        .map_or_else(String::new, |lag| format!(", {} of WAL to go", size(lag)));
    format!("{} as of {time_text}{lag}", checkpoint.lsn)
}

fn slot(status: &Status) -> String {
    match &status.slot {
        Some(slot) => slot_line(slot),
        None if status.source.reachable => "none".to_owned(),
        None => "not seen".to_owned(),
    }
}

fn resync(resync: &Resync) -> String {
    let origin = if resync.dry_run {
        "dry run"
    } else {
        &resync.origin
    };
    let waiting = resync
        .waiting_for
        .as_ref()
        .map_or_else(String::new, |who| format!(", waits for {who}"));
    let requested = time(&resync.requested_at);
    format!(
        "{} ({origin}), requested {requested}{waiting}",
        resync.state
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::New => "NEW",
        Verdict::Copying => "COPYING",
        Verdict::Behind => "BEHIND",
        Verdict::Overdue => "OVERDUE",
        Verdict::Retrying => "RETRYING",
        Verdict::Suspended => "SUSPENDED",
        Verdict::Differs => "DIFFERS",
        Verdict::Stopped => "STOPPED",
        Verdict::Slot => "SLOT",
        Verdict::Unknown => "UNKNOWN",
    }
}

/// The read models, one a line, under a head; columns are as wide as their widest cell.
fn table(models: &[ReadModelStatus]) -> Vec<String> {
    let mut rows = vec![
        [
            "read model",
            "state",
            "rows",
            "age",
            "last change (UTC)",
            "last resync (UTC)",
        ]
        .map(str::to_owned),
    ];
    rows.extend(models.iter().map(row));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .enumerate()
                // Numbers are aligned right, text left.
                .map(|(index, (cell, width))| match index {
                    2 | 3 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                })
                .collect();
            cells.join("  ")
        })
        .collect()
}

fn row(model: &ReadModelStatus) -> [String; 6] {
    let none = || "-".to_owned();
    let copying = model.copy.as_ref().map(|copy| match copy.percent {
        Some(percent) => format!("copying {percent} %"),
        None => format!("copying {}", copy.rows),
    });
    let resync = model
        .last_resync
        .as_ref()
        .map(|resync| match resync.repaired {
            0 => time(&resync.at),
            rows => format!("{}, repaired {rows}", time(&resync.at)),
        });
    [
        clip(&model.name, 28),
        copying.unwrap_or_else(|| state(model)),
        model.rows.map_or_else(none, |rows| rows.to_string()),
        model.age_seconds.map_or_else(none, duration),
        model.last_change_at.as_deref().map_or_else(none, time),
        resync.unwrap_or_else(none),
    ]
}

/// A read model may be in the stream and still differ from the source, until the differences that a
/// dry run has found are repaired.
fn state(model: &ReadModelStatus) -> String {
    let differs = model
        .last_comparison
        .as_ref()
        .is_some_and(|last| last.differing > 0);
    if differs && model.state == "in_step" {
        return "differs".to_owned();
    }
    model.state.replace('_', " ")
}

fn pipeline(pipeline: Option<&PipelineStatus>) -> String {
    let Some(pipeline) = pipeline else {
        return "has not run yet, or could not be seen".to_owned();
    };
    let since = pipeline
        .state_since
        .as_deref()
        .map_or_else(String::new, |at| format!(" since {}", time(at)));
    let owner = pipeline
        .owner
        .as_ref()
        .map_or_else(String::new, |owner| format!(", {owner}"));
    let seen = pipeline
        .heartbeat_age_seconds
        .map_or_else(String::new, |age| format!(", seen {} ago", duration(age)));
    if pipeline.alive {
        format!("{}{since}{owner}{seen}", pipeline.state)
    } else {
        format!("not running{owner}{seen}")
    }
}

fn slot_line(slot: &SlotStatus) -> String {
    let active = slot.active_pid.map_or_else(
        || "nobody reads it".to_owned(),
        |pid| format!("read by {pid}"),
    );
    let mut parts = vec![format!("{}: {active}", slot.name)];
    parts.extend(slot.wal_status.clone());
    let most = slot
        .max_retained_bytes
        .map_or_else(String::new, |most| format!(" of at most {}", size(most)));
    parts.extend(
        slot.held_bytes
            .map(|bytes| format!("holds {}{most}", size(u64::try_from(bytes).unwrap_or(0)))),
    );
    parts.extend(
        slot.safe_wal_bytes
            .map(|bytes| format!("{} to the limit", size(u64::try_from(bytes).unwrap_or(0)))),
    );
    parts.extend(
        slot.confirmed_flush_lsn
            .as_ref()
            .map(|lsn| format!("confirmed {lsn}")),
    );
    parts.extend(slot.invalidation_reason.clone());
    parts.join(", ")
}

/// `schedule    0 2 * * * (UTC) and 7 min, next 2026-11-26 02:07:31`
fn schedule(schedule: &ResyncSchedule) -> String {
    let delay = match schedule.delay_seconds {
        0 => String::new(),
        seconds if seconds < 120 => format!(" and {seconds} s"),
        seconds => format!(" and {} min", seconds / 60),
    };
    let next = schedule
        .next_at
        .as_deref()
        .map_or_else(String::new, |at| format!(", next {}", time(at)));
    format!(
        "schedule    {} ({}){delay}{next}",
        schedule.schedule, schedule.timezone
    )
}

fn side(side: &SideStatus) -> String {
    match (&side.version, &side.error) {
        (Some(version), _) => {
            let version = version.split(' ').next().unwrap_or(version);
            format!("{}, PostgreSQL {version}", side.address)
        }
        (None, Some(error)) => format!("{}, not seen: {error}", side.address),
        (None, None) => format!("{}, not seen", side.address),
    }
}

/// `40 of about 80 rows, 50 %, 3 MB, 1200 rows/s, 2 min left`
pub(super) fn progress(copy: &Copy) -> String {
    let mut parts = match (copy.estimated_rows, copy.percent) {
        (Some(estimate), Some(percent)) => {
            vec![
                format!("{} of about {estimate} rows", copy.rows),
                format!("{percent} %"),
            ]
        }
        _ => vec![format!("{} so far", rows(copy.rows))],
    };
    parts.extend(
        copy.bytes
            .map(|bytes| size(u64::try_from(bytes).unwrap_or(0))),
    );
    parts.extend(copy.rows_per_second.map(|rate| format!("{rate:.0} rows/s")));
    parts.extend(
        copy.seconds_left
            .map(|left| format!("{} left", duration(left))),
    );
    parts.join(", ")
}

/// The progress of copies in one line, each with the name of its read model; empty if there is
/// none.
pub(crate) fn progress_line<'a>(copies: impl IntoIterator<Item = (&'a str, &'a Copy)>) -> String {
    let copies = copies
        .into_iter()
        .map(|(name, copy)| format!("{}: {}", clip(name, 28), progress(copy)));
    copies.collect::<Vec<_>>().join("; ")
}

/// An RFC 3339 time, to the second, as people read it.
pub(crate) fn time(text: &str) -> String {
    text.get(..19).unwrap_or(text).replace('T', " ")
}

/// Seconds as people say them: `0.2 s`, `5 min`, `3 h`, `2 d`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{:.1} s", s.max(0.0)),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A number of rows: `1 row`, `2 rows`.
pub(super) fn rows(count: i64) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes < 1 << 10 => format!("{bytes} B"),
        bytes if bytes < 1 << 20 => format!("{} kB", bytes >> 10),
        bytes if bytes < 10 << 30 => format!("{} MB", bytes >> 20),
        bytes => format!("{} GB", bytes >> 30),
    }
}

/// The text in lines of at most [`WIDTH`] characters, broken at blanks; all but the first are
/// indented.
fn wrap(text: &str, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let width = line.chars().count() + word.trim_end().chars().count();
        if width > WIDTH && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// At most so many characters; what was cut off shows as `…`, and a line stays one line.
fn clip(text: &str, width: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= width {
        return text;
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests;
