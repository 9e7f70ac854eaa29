//! Settings as the TOML that would give them, with secrets masked.

use std::fmt;
use std::time::Duration;

use crate::settings::{OnRowError, ReadModelSettings, Settings, size_text};

/// Shows the settings as a configuration file; passwords as `****`.
#[derive(Debug)]
pub(crate) struct Effective<'a>(pub &'a Settings);

impl fmt::Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            source,
            target,
            read_models,
            resync,
            status_interval,
        } = self.0;
        writeln!(f, "status_interval = {}", quoted(&time(*status_interval)))?;
        writeln!(f, "\n[source]")?;
        writeln!(f, "url = {}", quoted(&source.conninfo.masked_url()))?;
        writeln!(f, "publication = {}", quoted(&source.publication))?;
        writeln!(f, "slot = {}", quoted(&source.slot))?;
        let columns = if source.publish_projected_columns {
            "projected"
        } else {
            "all"
        };
        writeln!(f, "publish_columns = {}", quoted(columns))?;
        let limit = source
            .max_retained_wal
            .map_or_else(|| "off".to_owned(), size_text);
        writeln!(f, "max_retained_wal = {}", quoted(&limit))?;
        let failover = if source.failover { "on" } else { "off" };
        writeln!(f, "failover = {}", quoted(failover))?;
        writeln!(f, "\n[target]")?;
        writeln!(f, "url = {}", quoted(&target.conninfo.masked_url()))?;
        writeln!(f, "schema = {}", quoted(&target.schema))?;
        let commit = if target.synchronous_commit {
            "on"
        } else {
            "off"
        };
        writeln!(f, "synchronous_commit = {}", quoted(commit))?;
        for model in read_models {
            read_model(f, model)?;
        }
        writeln!(f, "\n[resync]")?;
        writeln!(
            f,
            "schedule = {}",
            quoted(resync.schedule.as_deref().unwrap_or("off"))
        )?;
        writeln!(f, "timezone = {}", quoted(&resync.timezone))?;
        writeln!(f, "jitter = {}", quoted(&time(resync.jitter)))
    }
}

fn read_model(f: &mut fmt::Formatter<'_>, model: &ReadModelSettings) -> fmt::Result {
    writeln!(f, "\n[[read_model]]")?;
    writeln!(f, "source = {}", quoted(&model.source.to_string()))?;
    writeln!(f, "target = {}", quoted(&model.target.to_string()))?;
    writeln!(
        f,
        "key = {}",
        list(model.key.iter().map(|name| quoted(name)))
    )?;
    if model
        .columns
        .iter()
        .all(|column| column.target == column.source)
    {
        let names = model.columns.iter().map(|column| quoted(&column.target));
        writeln!(f, "columns = {}", list(names))?;
    } else {
        let pairs = model
            .columns
            .iter()
            .map(|column| format!("{} = {}", quoted(&column.target), quoted(&column.source)));
        writeln!(
            f,
            "columns = {{ {} }}",
            pairs.collect::<Vec<_>>().join(", ")
        )?;
    }
    for (key, value) in [
        ("soft_delete", &model.soft_delete),
        ("synced_at", &model.synced_at),
    ] {
        if let Some(value) = value {
            writeln!(f, "{key} = {}", quoted(value))?;
        }
    }
    let on_row_error = match model.on_row_error {
        OnRowError::Isolate => "isolate",
        OnRowError::Stop => "stop",
    };
    writeln!(f, "on_row_error = {}", quoted(on_row_error))
}

/// A TOML string; the double-quoted form, so that a key may be written with it too.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn time(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}
