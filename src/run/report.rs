//! What the log says of batches and copies. Keys only at debug, values never.
//!
//! The `action` fields keep the names that teams alert on from their event-driven sync.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::batch::{Rejected, Written};
use crate::consume::job::Applied;
use crate::error::Error;
use crate::lsn::{Lsn, PgTimestamp};
use crate::run::plain::Found;
use crate::settings::ReadModelSettings;
use crate::target::difference::Difference;

/// Keys of repaired rows that are kept as a sample.
const MOST_SAMPLE_KEYS: usize = 20;

/// A batch was written: one line at info, a line a row at debug.
pub(crate) fn batch(names: &[ReadModelSettings], applied: &Applied, elapsed: Duration) {
    let Applied {
        lsn,
        commit_time,
        transactions,
        written,
        ..
    } = applied;
    for (index, written) in written {
        if let Some(settings) = index.of(names) {
            rejected(&settings.name(), written, *lsn);
        }
    }
    let changed: i64 = written.iter().map(|(_, written)| written.changed()).sum();
    let elapsed_ms = millis(elapsed);
    if changed == 0 {
        tracing::debug!(transactions, %lsn, elapsed_ms, "stored a batch that changes no row");
        return;
    }
    for (index, written) in written.iter().filter(|(_, written)| written.changed() > 0) {
        let Some(settings) = index.of(names) else {
            continue;
        };
        tracing::info!(
            read_model = settings.name(),
            inserted = written.inserted,
            updated = written.updated,
            deleted = written.deleted,
            transactions,
            %lsn,
            elapsed_ms,
            commit_time = commit_time.map(text),
            "applied changes"
        );
        rows(settings, written);
    }
}

/// A read model that the bookkeeping called in step although the stream skipped its changes.
pub(crate) fn out_of_stream(settings: &ReadModelSettings) {
    tracing::error!(
        read_model = settings.name(),
        "read model took no part in the stream although it was marked as in step: it is copied again; please report this as a bug of cdc"
    );
}

/// A read model that cannot take a transaction, which the stream names by its position.
pub(crate) fn suspended(settings: &ReadModelSettings, error: &Error, lsn: Option<Lsn>) {
    let lsn = lsn.map(tracing::field::display);
    tracing::warn!(read_model = settings.name(), %error, lsn, "read model is suspended before the transaction that it cannot take");
}

/// The target rejects rows: one line at warn that names no key, a line a row at debug.
fn rejected(read_model: &str, written: &Written, lsn: Lsn) {
    if written.rejected.is_empty() {
        return;
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for row in &written.rejected {
        let reason = row.reason();
        tracing::debug!(read_model, key = row.key, reason, "rejected a row");
        *reasons.entry(reason).or_default() += 1;
    }
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, rows)| format!("{reason}: {rows}"))
        .collect();
    tracing::warn!(
        read_model,
        rows = written.rejected.len(),
        in_all = written.rejected_in_all,
        reasons = reasons.join(", "),
        %lsn,
        "the target rejects rows: see the view cdc.rejected"
    );
}

/// One line a row; above a limit, rows are only counted.
fn rows(settings: &ReadModelSettings, written: &Written) {
    let prefix = if settings.is_labels() {
        "LABEL_SYNC"
    } else {
        "LOOKUP_SYNC"
    };
    let read_model = settings.name();
    for (kind, keys, count) in [
        ("INSERT", &written.inserted_keys, written.inserted),
        ("UPDATE", &written.updated_keys, written.updated),
        ("DELETE", &written.deleted_keys, written.deleted),
    ] {
        let action = format!("{prefix}_{kind}");
        for key in keys {
            tracing::debug!(action, read_model, code = key, "applied a row");
        }
        let more = usize::try_from(count)
            .unwrap_or(0)
            .saturating_sub(keys.len());
        if more > 0 {
            tracing::debug!(action, read_model, rows = more, "applied more rows");
        }
    }
}

/// A resync, first copy or healing begins.
pub(crate) fn resync_started(origin: &str, read_models: &[String]) {
    tracing::info!(
        action = "CRON_FULL_SYNC_START",
        origin,
        read_models = read_models.join(", "),
        "resync started"
    );
}

/// It was merged.
pub(crate) fn resync_completed(
    origin: &str,
    written: &[(String, Written)],
    lsn: Lsn,
    elapsed: Duration,
) {
    for (read_model, written) in written {
        rejected(read_model, written, lsn);
        tracing::info!(
            action = "CRON_FULL_SYNC_COMPLETE",
            origin,
            read_model,
            total = written.total,
            duration_ms = millis(elapsed),
            inserted = written.inserted,
            updated = written.updated,
            deleted = written.deleted,
            unchanged = written.unchanged(),
            %lsn,
            "resync completed"
        );
    }
}

/// What was found, what was done and how long it took.
pub(crate) fn healed(why: &str, elapsed: Duration) {
    tracing::warn!(
        why,
        duration_ms = millis(elapsed),
        "the stream could not continue: every read model was copied, and the stream continues from there"
    );
}

/// A dry run has compared.
pub(crate) fn compared(found: &[(String, Difference)], lsn: Lsn, elapsed: Duration) {
    for (read_model, found) in found {
        tracing::info!(
            read_model,
            missing = found.missing,
            extra = found.extra,
            different = found.different,
            same = found.same,
            rejected = found.rejected,
            waiting = found.waiting,
            duration_ms = millis(elapsed),
            %lsn,
            "dry run completed"
        );
    }
}

/// It failed and will be tried again.
pub(crate) fn resync_failed(origin: &str, error: &Error) {
    tracing::warn!(action = "CRON_FULL_SYNC_ERROR", origin, %error, hint = error.hint(), "resync failed");
}

/// What a resync did, as it is kept in the bookkeeping.
pub(crate) fn result(written: &[(String, Written)]) -> Value {
    written
        .iter()
        .map(|(read_model, written)| {
            let keys: Vec<&String> = [
                &written.inserted_keys,
                &written.updated_keys,
                &written.deleted_keys,
            ]
            .into_iter()
            .flatten()
            .take(MOST_SAMPLE_KEYS)
            .collect();
            let found = json!({
                "total": written.total, "inserted": written.inserted, "updated": written.updated,
                "deleted": written.deleted, "unchanged": written.unchanged(), "keys": keys,
                "rejected": written.rejected_in_all, "waiting": written.waiting,
                "rejections": rejections(&written.first_rejected),
            });
            (read_model.clone(), found)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What a dry run found, as it is kept in the bookkeeping.
pub(crate) fn difference(found: &[(String, Difference)]) -> Value {
    found
        .iter()
        .map(|(read_model, found)| {
            let keys: serde_json::Map<_, _> =
                found.keys.iter().map(|(kind, keys)| (kind.clone(), json!(keys))).collect();
            let found = json!({
                "missing": found.missing, "extra": found.extra, "different": found.different, "same": found.same,
                "rejected": found.rejected, "waiting": found.waiting, "changing": found.changing, "keys": keys,
                "rejections": rejections(&found.rejections),
            });
            (read_model.clone(), found)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The same of a plain comparison, with what people should know besides.
pub(crate) fn plain(found: &[(String, Found)]) -> Value {
    let differences: Vec<_> = found
        .iter()
        .map(|(name, found)| (name.clone(), found.difference.clone()))
        .collect();
    let mut result = difference(&differences);
    for (name, found) in found {
        if let Some(model) = result.get_mut(name).and_then(Value::as_object_mut) {
            model.insert("notes".to_owned(), json!(found.notes));
        }
    }
    result
}

fn rejections(rows: &[Rejected]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "key": row.key, "identity": row.identity, "sqlstate": row.sqlstate, "constraint": row.constraint,
                "column": row.column,
            })
        })
        .collect()
}

/// Whole milliseconds.
pub(crate) fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn text(time: PgTimestamp) -> String {
    jiff::Timestamp::from_microsecond(time.unix_micros())
        .map_or_else(|_| "infinity".to_owned(), |time| time.to_string())
}
