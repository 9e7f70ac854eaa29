//! The settings of a run: only valid ones can be built.
//!
//! `config/` reads file, environment and flags into raw values and builds these settings from them.

pub(crate) mod keys;
pub(crate) mod reload;

use std::time::Duration;

use crate::conninfo::Conninfo;
use crate::sql::TableName;

/// Everything that `run` and the other commands need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The database with the master tables.
    pub source: SourceSettings,
    /// The database with the lookup tables.
    pub target: TargetSettings,
    /// At least one; no two with one lookup table.
    pub read_models: Vec<ReadModelSettings>,
    /// When everything is compared again.
    pub resync: ResyncSettings,
    /// How often an idle position is stored and acknowledged, at most (default 10 s).
    pub status_interval: Duration,
    /// What is logged (default `info`): a level, or filters.
    pub log_level: String,
}

/// The database with the master tables.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// Where it is.
    pub conninfo: Conninfo,
    /// Publication (default `cdc`).
    pub publication: String,
    /// Replication slot (default `cdc`): `[a-z0-9_]{1,63}`. It also names the pipeline.
    pub slot: String,
    /// Bytes of WAL above which the slot is given up; `None` (default) is without limit.
    pub max_retained_wal: Option<u64>,
    /// Let standbys that synchronize slots keep a copy of the slot (default), if the server's
    /// version can do so.
    pub failover: bool,
    /// Publish the projected columns only (`publish_columns = "projected"`); default false: whole
    /// tables.
    pub publish_projected_columns: bool,
}

/// Units of sizes, as PostgreSQL's settings have them.
pub(crate) const SIZE_UNITS: [(&str, u64); 4] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
];

/// A size for people, in the unit that leaves at least two digits, or all of it if it is a whole
/// number: `10GB`, `10240MB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let large = |(_, unit): &&(&str, u64)| bytes / 10 >= *unit;
    match SIZE_UNITS
        .iter()
        .find(whole)
        .or(SIZE_UNITS.iter().find(large))
    {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// The database with the lookup tables.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSettings {
    /// Where it is.
    pub conninfo: Conninfo,
    /// Schema of the bookkeeping (default `cdc`).
    pub schema: String,
    /// `synchronous_commit` of the applying session (default true).
    pub synchronous_commit: bool,
}

/// One lookup table and the rule that fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModelSettings {
    /// Table at the source.
    pub source: TableName,
    /// Lookup table at the target.
    pub target: TableName,
    /// Key columns, names as in the lookup; each is one of `columns`.
    pub key: Vec<String>,
    /// Projected columns; never empty.
    pub columns: Vec<ColumnMapping>,
    /// Soft-delete column, name as in the source.
    pub soft_delete: Option<String>,
    /// Lookup column that gets the time of the last insert or change; not one of `columns`.
    pub synced_at: Option<String>,
    /// What happens to a row that the target rejects.
    pub on_row_error: OnRowError,
}

/// What happens to a row that the target rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRowError {
    /// It is rejected, and everything else continues.
    #[default]
    Isolate,
    /// The read model is suspended before the transaction of that row.
    Stop,
}

impl ReadModelSettings {
    /// The built-in default: `labels` to `labels_lookup`.
    pub fn labels() -> Self {
        Self {
            source: TableName::new("public", "labels"),
            target: TableName::new("public", "labels_lookup"),
            key: vec!["code".to_owned()],
            columns: ["code", "label", "display_name"]
                .into_iter()
                .map(ColumnMapping::same)
                .collect(),
            soft_delete: Some("deleted_at".to_owned()),
            synced_at: Some("updated_at".to_owned()),
            on_row_error: OnRowError::default(),
        }
    }

    /// What the read model is called in logs, `status` and on the command line: its lookup table.
    pub fn name(&self) -> String {
        self.target.to_string()
    }

    /// The key's columns under the source's names.
    pub(crate) fn source_key(&self) -> Vec<String> {
        let source = |name: &String| {
            let mapping = self.columns.iter().find(|column| &column.target == name);
            mapping.map_or_else(|| name.clone(), |mapping| mapping.source.clone())
        };
        self.key.iter().map(source).collect()
    }

    /// Whether this is the labels read model, whose log actions have names of their own.
    pub(crate) fn is_labels(&self) -> bool {
        self.target.name == "labels_lookup"
    }
}

/// A projected column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMapping {
    /// Name in the lookup table.
    pub target: String,
    /// Name in the source table.
    pub source: String,
}

impl ColumnMapping {
    /// A column that keeps its name.
    pub(crate) fn same(name: &str) -> Self {
        Self {
            target: name.to_owned(),
            source: name.to_owned(),
        }
    }
}

/// When everything is compared again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncSettings {
    /// Cron expression of five fields (default `0 2 * * *`); `None` turns the schedule off
    /// (`schedule = "off"`).
    pub schedule: Option<String>,
    /// IANA time zone (default `UTC`).
    pub timezone: String,
    /// The schedule's times are delayed by a part of this that depends on the pipeline's name
    /// (default none).
    pub jitter: Duration,
}

impl Default for ResyncSettings {
    fn default() -> Self {
        Self {
            schedule: Some("0 2 * * *".to_owned()),
            timezone: "UTC".to_owned(),
            jitter: Duration::ZERO,
        }
    }
}

/// Longest application_name.
const NAME_BYTES: usize = 63;

/// application_name of a pipeline's session, so that a DBA sees what it is for.
pub(crate) fn application_name(slot: &str, role: &str) -> String {
    format!("cdc {slot} {role}")
        .chars()
        .take(NAME_BYTES)
        .collect()
}

impl SourceSettings {
    /// application_name of a session of the source for this role: the connection string's, if it
    /// has one.
    pub(crate) fn application_name(&self, role: &str) -> String {
        let given = self.conninfo.application_name.clone();
        given.unwrap_or_else(|| application_name(&self.slot, role))
    }
}

/// What the session that streams is for, in its application_name.
pub(crate) const STREAM: &str = "stream";

/// A number that depends on the pipeline's name alone, in every version of this program: FNV-1a
/// over the slot's name.
pub(crate) fn pipeline_hash(slot: &str) -> u64 {
    format!("cdc pipeline {slot}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_or_have_two_digits_at_least() {
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1 << 10, "1kB"),
            ((1 << 10) + 1, "1025B"),
            ((10 << 10) - 1, "10239B"),
            ((10 << 10) + 1, "10kB"),
            (1 << 20, "1MB"),
            ((1 << 20) + (1 << 10), "1025kB"),
            (3 << 30, "3GB"),
            ((10 << 30) + 1, "10GB"),
            (1 << 40, "1TB"),
            ((1 << 40) + 1, "1024GB"),
        ] {
            assert_eq!(size_text(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn read_models_are_called_by_their_lookup_table() {
        let labels = ReadModelSettings::labels();
        assert_eq!(labels.name(), "public.labels_lookup");
        assert!(labels.is_labels());
        let other = ReadModelSettings {
            target: TableName::new("public", "products_lookup"),
            ..labels
        };
        assert_eq!(other.name(), "public.products_lookup");
        assert!(!other.is_labels());
    }

    #[test]
    fn key_has_the_names_of_the_source() {
        let mapping = |target: &str, source: &str| ColumnMapping {
            target: target.to_owned(),
            source: source.to_owned(),
        };
        let model = ReadModelSettings {
            key: vec!["code".to_owned(), "lang".to_owned()],
            columns: vec![
                mapping("label", "code"),
                mapping("lang", "language"),
                mapping("code", "label_code"),
            ],
            ..ReadModelSettings::labels()
        };
        assert_eq!(model.source_key(), ["label_code", "language"]);
        // `check` reports that it is not projected.
        let bare = ReadModelSettings {
            columns: Vec::new(),
            ..model
        };
        assert_eq!(bare.source_key(), ["code", "lang"]);
    }

    /// Two versions of this program must not run one pipeline at a time: they meet at the lock of
    /// this number.
    #[test]
    fn number_of_a_pipeline_never_changes() {
        assert_eq!(pipeline_hash("cdc"), 0x0301_6517_d236_6e83);
        assert_ne!(pipeline_hash("cdc"), pipeline_hash("cdc_2"));
    }
}
