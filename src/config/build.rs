//! Judges the result of all layers, and builds [`Settings`] from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::Mistakes;
use super::environment::{conninfo, conninfo_environment};
use super::raw::{Given, Kept, Raw, RawReadModel, Side};
use super::units::{duration, size};
use crate::conninfo::{Conninfo, Environment, Secret};
use crate::error::{Error, Result};
use crate::schedule::Schedule;
use crate::settings::{
    ColumnMapping, OnRowError, ReadModelSettings, ResyncSettings, Settings, SourceSettings,
    TargetSettings,
};
use crate::sql::TableName;
use crate::telemetry;

/// Longest name that PostgreSQL keeps whole (NAMEDATALEN - 1).
const MAX_NAME_BYTES: usize = 63;

const DEFAULT_STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// More often only costs; less often makes the master keep WAL for longer than its operators
/// expect.
const STATUS_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// A quiet server writes up to a megabyte by itself.
const RETAINED_WAL: RangeInclusive<u64> = 1 << 20..=1 << 50;

/// Half a day: with more, the night's resync would fall into the next day's work.
const JITTERS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(12 * 3600);

/// The settings, or `None` and at least one more mistake.
pub(super) fn build(
    raw: Raw,
    variables: &BTreeMap<String, String>,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
) -> Option<Settings> {
    let mut sides = Sides {
        environment: conninfo_environment(variables),
        mistakes,
        warnings,
    };
    let source = sides.conninfo(raw.source, "source", "SOURCE");
    let target = sides.conninfo(raw.target, "target", "TARGET");
    let publication = name(raw.publication, "cdc", mistakes);
    let slot = slot(raw.slot, mistakes);
    let publish_projected_columns = choice(
        raw.publish_columns,
        &[("all", false), ("projected", true)],
        mistakes,
    );
    let failover = choice(raw.failover, &[("on", true), ("off", false)], mistakes);
    let max_retained_wal = max_retained_wal(raw.max_retained_wal, mistakes);
    let schema = schema(raw.schema, mistakes);
    let synchronous_commit = choice(
        raw.synchronous_commit,
        &[("on", true), ("off", false)],
        mistakes,
    );
    let on_row_error = on_row_error(raw.on_row_error, OnRowError::default(), mistakes);
    let read_models = read_models(raw.read_models, on_row_error, mistakes);
    let resync = resync((raw.schedule, raw.timezone, raw.jitter), mistakes);
    let status_interval = interval(
        raw.status_interval,
        DEFAULT_STATUS_INTERVAL,
        (STATUS_INTERVALS, "from \"100ms\" to \"1h\" such as \"10s\""),
        mistakes,
    );
    let log_level = log_level(raw.log_level, mistakes);
    if !mistakes.is_empty() {
        return None;
    }
    Some(Settings {
        source: SourceSettings {
            conninfo: source?,
            publication,
            slot,
            max_retained_wal,
            failover,
            publish_projected_columns,
        },
        target: TargetSettings {
            conninfo: target?,
            schema,
            synchronous_commit,
        },
        read_models,
        resync,
        status_interval,
        log_level,
    })
}

/// A level or filters; `info` if there are none.
fn log_level(given: Option<Given>, mistakes: &mut Mistakes) -> String {
    let Some(given) = given else {
        return "info".to_owned();
    };
    mistakes.take(&given.origin, telemetry::check_level(&given.value));
    given.value
}

/// What both databases are read with.
struct Sides<'a> {
    environment: Environment,
    mistakes: &'a mut Mistakes,
    warnings: &'a mut Vec<String>,
}

impl Sides<'_> {
    fn conninfo(&mut self, side: Side, name: &str, variable: &str) -> Option<Conninfo> {
        let Some(url) = side.url else {
            self.mistakes.note_with_hint(
                format!("the URL of the {name} database is missing"),
                format!(
                    "Set CDC_{variable}_URL or CDC_{variable}_URL_FILE, use --{name}-url, or give url in [{name}] of the \
                     configuration file. PG* variables only fill the gaps of a URL."
                ),
            );
            return None;
        };
        let origin = url.origin.clone();
        let text = self.secret(url)?;
        let parsed = conninfo(&text, &mut self.environment, self.warnings);
        let mut parsed = self.mistakes.take(&origin, parsed)?;
        if let Some(password) = side.password {
            // A password that is given by itself replaces the one in the URL.
            parsed.password = Some(Secret::new(self.secret(password)?));
        }
        Some(parsed)
    }

    /// The secret itself; from its file without the newline at the end.
    fn secret(&mut self, given: Given<Kept>) -> Option<String> {
        let file = match given.value {
            Kept::Here(text) => return Some(text),
            Kept::InFile(file) => file,
        };
        let read = std::fs::read_to_string(&file).map_err(|error| {
            Error::configuration(format!("cannot read file \"{file}\"")).with_source(error)
        });
        let text = self.mistakes.take(&given.origin, read)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            self.mistakes
                .note(format!("{}: file \"{file}\" is empty", given.origin));
            return None;
        }
        if may_be_read_by_others(&file) {
            self.warnings.push(format!(
                "Secret file \"{file}\" can be read by everybody; set its permissions to 0600."
            ));
        }
        Some(text.to_owned())
    }
}

/// Whether other users can read a secret. Not reported for mounted secrets (Docker's below
/// /run/secrets, Kubernetes's links), whose modes are the orchestrator's and visible to their
/// container alone.
fn may_be_read_by_others(file: &str) -> bool {
    if file.starts_with("/run/secrets/") || file.starts_with("/var/run/secrets/") {
        return false;
    }
    std::fs::symlink_metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o007 != 0)
}

fn check_name(text: &str) -> Result<()> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains('\0') {
        return Err(Error::configuration(format!(
            "{text:?} is no name: expected 1 to {MAX_NAME_BYTES} bytes, found {}",
            text.len()
        )));
    }
    Ok(())
}

/// A name, or its default.
fn name(given: Option<Given>, default: &str, mistakes: &mut Mistakes) -> String {
    let Some(given) = given else {
        return default.to_owned();
    };
    mistakes.take(&given.origin, check_name(&given.value));
    given.value
}

fn slot(given: Option<Given>, mistakes: &mut Mistakes) -> String {
    let Some(given) = given else {
        return "cdc".to_owned();
    };
    let slot = &given.value;
    let right = (1..=MAX_NAME_BYTES).contains(&slot.len())
        && slot
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !right {
        mistakes.note(format!(
            "{}: {slot:?} is no name for a slot: expected 1 to {MAX_NAME_BYTES} lower-case letters, digits and underscores",
            given.origin
        ));
    }
    given.value
}

fn schema(given: Option<Given>, mistakes: &mut Mistakes) -> String {
    if let Some(given) = given
        .as_ref()
        .filter(|given| given.value.starts_with("pg_"))
    {
        mistakes.note(format!(
            "{}: {:?} cannot be a schema: names beginning with pg_ are PostgreSQL's own",
            given.origin, given.value
        ));
    }
    name(given, "cdc", mistakes)
}

/// The meaning of one of a few words; the first is the default.
fn choice(given: Option<Given>, choices: &[(&str, bool)], mistakes: &mut Mistakes) -> bool {
    let default = choices.first().is_some_and(|(_, meaning)| *meaning);
    let Some(given) = given else {
        return default;
    };
    if let Some((_, meaning)) = choices.iter().find(|(word, _)| *word == given.value) {
        return *meaning;
    }
    let words: Vec<String> = choices
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    mistakes.note(format!(
        "{}: expected {}, found {:?}",
        given.origin,
        words.join(" or "),
        given.value
    ));
    default
}

fn resync(
    (schedule, timezone, jitter): (Option<Given>, Option<Given>, Option<Given>),
    mistakes: &mut Mistakes,
) -> ResyncSettings {
    let mut resync = ResyncSettings::default();
    if let Some(given) = schedule {
        resync.schedule = (given.value != "off").then(|| given.value.clone());
        if let Some(expression) = &resync.schedule {
            mistakes.take(&given.origin, check_schedule(expression));
        }
    }
    if let Some(given) = timezone {
        mistakes.take(&given.origin, Schedule::parse("0 2 * * *", &given.value));
        resync.timezone = given.value;
    }
    resync.jitter = interval(
        jitter,
        resync.jitter,
        (JITTERS, "from \"0s\" to \"12h\" such as \"30min\""),
        mistakes,
    );
    resync
}

/// croner also takes six fields, with seconds; that is more than a resync needs, and easily a slip.
fn check_schedule(expression: &str) -> Result<()> {
    let fields = expression.split_whitespace().count();
    if fields != 5 {
        return Err(Error::configuration(format!(
            "cannot read the schedule {expression:?}: expected five fields, found {fields}"
        ))
        .with_hint(
            "The fields are minute, hour, day, month, weekday: \"0 2 * * *\" is 02:00 every day.",
        ));
    }
    Schedule::parse(expression, "UTC").map(drop)
}

/// A size, or none where there is no limit.
fn max_retained_wal(given: Option<Given>, mistakes: &mut Mistakes) -> Option<u64> {
    let given = given.filter(|given| given.value != "off")?;
    let limit = size(&given.value).filter(|limit| RETAINED_WAL.contains(limit));
    if limit.is_none() {
        mistakes.note(format!(
            "{}: expected \"off\" or a size from \"1MB\" to \"1024TB\" such as \"10GB\", found {:?}",
            given.origin, given.value
        ));
    }
    limit
}

/// A time within these bounds, or its default.
fn interval(
    given: Option<Given>,
    default: Duration,
    (allowed, words): (RangeInclusive<Duration>, &str),
    mistakes: &mut Mistakes,
) -> Duration {
    let Some(given) = given else {
        return default;
    };
    match duration(&given.value).filter(|interval| allowed.contains(interval)) {
        Some(interval) => interval,
        None => {
            mistakes.note(format!(
                "{}: expected a time {words}, found {:?}",
                given.origin, given.value
            ));
            default
        }
    }
}

fn read_models(
    raw: Option<Vec<RawReadModel>>,
    on_row_error: OnRowError,
    mistakes: &mut Mistakes,
) -> Vec<ReadModelSettings> {
    let Some(raw) = raw else {
        return vec![ReadModelSettings {
            on_row_error,
            ..ReadModelSettings::labels()
        }];
    };
    if raw.is_empty() {
        mistakes.note("read_model: expected at least one read model");
    }
    let mut targets = BTreeSet::new();
    let mut models = Vec::new();
    for raw in raw {
        let origin = raw.origin.clone();
        if let Some(model) = read_model(raw, on_row_error, mistakes) {
            if !targets.insert(model.target.clone()) {
                mistakes.note_with_hint(
                    format!(
                        "{origin}: a second read model with lookup table {}",
                        model.target
                    ),
                    "Give each read model a lookup table of its own.",
                );
            }
            models.push(model);
        }
    }
    models
}

fn read_model(
    raw: RawReadModel,
    default: OnRowError,
    mistakes: &mut Mistakes,
) -> Option<ReadModelSettings> {
    let before = mistakes.0.len();
    let mut missing = |key: &str, is_missing: bool| {
        if is_missing {
            mistakes.note(format!("{}: \"{key}\" is missing", raw.origin));
        }
    };
    missing("source", raw.source.is_none());
    missing("target", raw.target.is_none());
    missing("key", raw.key.is_none());
    missing("columns", raw.columns.is_none());
    let source = raw.source.and_then(|given| table(&given, mistakes));
    let target = raw.target.and_then(|given| table(&given, mistakes));
    let columns = raw.columns.map(|given| columns(given, mistakes));
    let key = raw
        .key
        .map(|given| key(given, columns.as_deref(), mistakes));
    let soft_delete = raw.soft_delete.map(|given| name(Some(given), "", mistakes));
    let synced_at = raw
        .synced_at
        .map(|given| synced_at(given, columns.as_deref(), mistakes));
    let on_row_error = on_row_error(raw.on_row_error, default, mistakes);
    if mistakes.0.len() > before {
        return None;
    }
    Some(ReadModelSettings {
        source: source?,
        target: target?,
        key: key?,
        columns: columns?,
        soft_delete,
        synced_at,
        on_row_error,
    })
}

fn on_row_error(given: Option<Given>, default: OnRowError, mistakes: &mut Mistakes) -> OnRowError {
    if given.is_none() {
        return default;
    }
    if choice(given, &[("isolate", true), ("stop", false)], mistakes) {
        OnRowError::Isolate
    } else {
        OnRowError::Stop
    }
}

fn table(given: &Given, mistakes: &mut Mistakes) -> Option<TableName> {
    let table: TableName = mistakes.take(&given.origin, given.value.parse())?;
    let checked = check_name(&table.schema).and_then(|()| check_name(&table.name));
    mistakes.take(&given.origin, checked)?;
    Some(table)
}

fn columns(given: Given<Vec<(String, String)>>, mistakes: &mut Mistakes) -> Vec<ColumnMapping> {
    if given.value.is_empty() {
        mistakes.note(format!("{}: expected at least one column", given.origin));
    }
    let mut seen = BTreeSet::new();
    let mut columns = Vec::new();
    for (target, source) in given.value {
        for column in [&target, &source] {
            mistakes.take(&given.origin, check_name(column));
        }
        if !seen.insert(target.clone()) {
            mistakes.note(format!(
                "{}: column \"{target}\" is given twice",
                given.origin
            ));
        }
        columns.push(ColumnMapping { target, source });
    }
    columns
}

fn key(
    given: Given<Vec<String>>,
    columns: Option<&[ColumnMapping]>,
    mistakes: &mut Mistakes,
) -> Vec<String> {
    if given.value.is_empty() {
        mistakes.note(format!("{}: expected at least one column", given.origin));
    }
    let mut seen = BTreeSet::new();
    for column in &given.value {
        if !seen.insert(column) {
            mistakes.note(format!(
                "{}: column \"{column}\" is given twice",
                given.origin
            ));
        }
        if columns.is_some_and(|columns| columns.iter().all(|known| known.target != *column)) {
            mistakes.note_with_hint(
                format!(
                    "{}: key column \"{column}\" is not one of \"columns\"",
                    given.origin
                ),
                "Add it there; key columns are named as in the lookup table.",
            );
        }
    }
    given.value
}

fn synced_at(given: Given, columns: Option<&[ColumnMapping]>, mistakes: &mut Mistakes) -> String {
    if columns.is_some_and(|columns| columns.iter().any(|column| column.target == given.value)) {
        mistakes.note_with_hint(
            format!(
                "{}: column \"{}\" is also one of \"columns\"",
                given.origin, given.value
            ),
            "synced_at is filled by cdc; project the source's column under another name.",
        );
    }
    name(Some(given), "", mistakes)
}
