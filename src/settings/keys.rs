//! The settings as key and value, in the order of the configuration file, and when a new value of
//! each can take effect.

use std::time::Duration;

use super::{OnRowError, ReadModelSettings, Settings, size_text};

/// When a new value takes effect in a process that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// At once, or from the next connection on: the session continues.
    AtOnce,
    /// With the next session, which begins in its place.
    NewSession,
    /// With the next process.
    Restart,
}

/// A key of the configuration file with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key with its table: `resync.schedule`.
    pub key: &'static str,
    /// The value as the file would give it; a password is masked.
    pub value: String,
    /// When another value takes effect.
    pub takes: Takes,
}

/// Every key outside of the read models.
pub(crate) fn entries(settings: &Settings) -> Vec<Entry> {
    let Settings {
        source,
        target,
        read_models: _,
        resync,
        status_interval,
        log_level,
    } = settings;
    let limit = source.max_retained_wal.map(size_text);
    let columns = if source.publish_projected_columns {
        "projected"
    } else {
        "all"
    };
    let schedule = resync.schedule.as_deref();
    let entry = |key, value: &str, takes| Entry {
        key,
        value: value.to_owned(),
        takes,
    };
    use Takes::{AtOnce, NewSession, Restart};
    vec![
        entry("log_level", log_level, AtOnce),
        entry("status_interval", &time(*status_interval), NewSession),
        // Another place needs a restart; everything else of it counts from the next connection on.
        entry("source.url", &source.conninfo.masked_url(), AtOnce),
        entry("source.publication", &source.publication, Restart),
        entry("source.slot", &source.slot, Restart),
        entry("source.publish_columns", columns, NewSession),
        entry(
            "source.max_retained_wal",
            limit.as_deref().unwrap_or("off"),
            AtOnce,
        ),
        entry("source.failover", on(source.failover), NewSession),
        entry("target.url", &target.conninfo.masked_url(), AtOnce),
        entry("target.schema", &target.schema, Restart),
        entry(
            "target.synchronous_commit",
            on(target.synchronous_commit),
            NewSession,
        ),
        entry("resync.schedule", schedule.unwrap_or("off"), AtOnce),
        entry("resync.timezone", &resync.timezone, AtOnce),
        entry("resync.jitter", &time(resync.jitter), AtOnce),
    ]
}

fn on(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn time(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// The key of a read model that names the table at the source.
pub(super) const SOURCE: &str = "source";

/// The keys of a read model that differ; its lookup is its name, and the same.
pub(super) fn differing(old: &ReadModelSettings, new: &ReadModelSettings) -> Vec<&'static str> {
    let ReadModelSettings {
        source,
        target: _,
        key,
        columns,
        soft_delete,
        synced_at,
        on_row_error,
    } = old;
    [
        (SOURCE, *source != new.source),
        ("key", *key != new.key),
        ("columns", *columns != new.columns),
        ("soft_delete", *soft_delete != new.soft_delete),
        ("synced_at", *synced_at != new.synced_at),
        ("on_row_error", *on_row_error != new.on_row_error),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

impl OnRowError {
    /// As the file gives it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Isolate => "isolate",
            Self::Stop => "stop",
        }
    }
}
