//! Many rows that are new go straight into map and lookup by `COPY`, without the stage.
//!
//! `COPY` writes and logs a page of rows at once where `INSERT` does so row by row, and nothing has to be looked for: that no
//! identity and no key is known is held by the unique indexes. (Where somebody took a row out of the lookup, another one may be
//! shown under its key until that is found out; to ask the map for each key would cost a fifth of the target's time.) Whatever
//! the target has against a row, all of it is undone, and the batch goes the usual way.
//!
//! They go before the other rows of their batch: a key that one of those gives up is still taken then, so that it is never
//! deleted for a new row to have it. That would hurt whoever refers to it; the usual way changes it in place. Not if one has an
//! identity that another row had at the start: what the others then do to that one would be done to the new row.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{ONE_STATEMENT_ROWS, STAGED_BY_STATEMENT_ROWS, execute};
use crate::batch::Written;
use crate::error::{Error, Result};
use crate::fold::{Final, Fold, Now, Share};
use crate::row::Cell;
use crate::target::copy_buffer::{CopyBuffer, copy_rows};
use crate::target::error::from_sqlx;
use crate::target::model::TargetModel;

/// Most batches that go the usual way before this one is tried again.
const MOST_PASSED_OVER: u32 = 64;

/// Checks what is checked at the commit otherwise, and leaves what follows to it again.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// The way past the stage, and the read models of which a batch was refused there: not every one shall be written twice.
#[derive(Debug, Default)]
pub(super) struct NewRows(HashMap<i32, Refused>);

#[derive(Debug, Clone, Copy, Default)]
struct Refused {
    /// Batches that still go the usual way.
    waiting: u32,
    /// Batches that went it the last time.
    waited: u32,
}

impl NewRows {
    /// Writes the new rows within the transaction that is open. `None` if they are few, or the target has something against one
    /// of them: nothing is written then. At most `keys` are told, as the source writes them.
    ///
    /// `chunk` is whether the transaction stays open for long: only rows that are all new are written then, constraints that are
    /// checked late are among what the target may have against a row, and whoever calls counts the rows at its end, since the
    /// row with the number is locked until then.
    pub(super) async fn write(
        &mut self,
        conn: &mut PgConnection,
        model: &TargetModel,
        fold: &Fold,
        (keys, chunk): (i32, bool),
    ) -> Result<Option<Written>> {
        let rows = fold.new_rows();
        if !are_many(fold, rows) || chunk && !fold.only_new() || !self.is_due(model) {
            return Ok(None);
        }
        execute(conn, "SAVEPOINT new_rows".to_owned()).await?;
        let copied = match copy(conn, model, rows, usize::try_from(keys).unwrap_or_default()).await {
            Ok(written) if chunk => execute(conn, CHECK.to_owned()).await.map(|()| written),
            copied => copied,
        };
        match copied {
            Ok(written) => {
                let release = "RELEASE SAVEPOINT new_rows".to_owned();
                let end = if chunk {
                    release
                } else {
                    format!("{}; {release}", model.count_new(written.inserted))
                };
                execute(conn, end).await?;
                self.0.remove(&model.id);
                return Ok(Some(written));
            }
            // Only the server's own word is an answer.
            Err(error) if error.sqlstate().is_some() => tracing::debug!(%error, "new rows go by the stage"),
            Err(error) => return Err(error),
        }
        execute(conn, "ROLLBACK TO SAVEPOINT new_rows".to_owned()).await?;
        self.put_off(model);
        Ok(None)
    }

    fn is_due(&mut self, model: &TargetModel) -> bool {
        match self.0.get_mut(&model.id) {
            Some(refused) if refused.waiting > 0 => {
                refused.waiting -= 1;
                false
            }
            _ => true,
        }
    }

    fn put_off(&mut self, model: &TargetModel) {
        let refused = self.0.entry(model.id).or_default();
        refused.waited = refused.waited.saturating_mul(2).clamp(1, MOST_PASSED_OVER);
        refused.waiting = refused.waited;
    }
}

/// Whether all rows go this way, if the target lets them. No statement is planned for them.
pub(super) fn are_all(fold: &Fold) -> bool {
    fold.only_new() && are_many(fold, fold.new_rows())
}

/// Whether these new rows are worth a way of their own.
fn are_many(fold: &Fold, rows: Share<'_>) -> bool {
    let few = if fold.only_new() {
        ONE_STATEMENT_ROWS
    } else {
        STAGED_BY_STATEMENT_ROWS
    };
    !fold.clear() && rows.len() > few && !rows.has_unchanged() && fold.new_rows_stand_apart()
}

/// Writes the map's entries, then the lookup's rows.
async fn copy(conn: &mut PgConnection, model: &TargetModel, rows: Share<'_>, keys: usize) -> Result<Written> {
    let kept = model.model.keeps_dead_rows();
    let rows = rows.finals().filter_map(|Final { now, .. }| now);
    let mut rows: Vec<Now<'_>> = rows.filter(|row| row.live || kept).collect();
    // In order of each table's index, or nearly so: page after page of it is written.
    rows.sort_by_cached_key(|row| row.identity.cell(0).text());
    copy_rows(conn, &model.copy_map(), rows.iter().copied(), |row, out| {
        map_entry(model, row, out);
    })
    .await
    .map_err(from_sqlx)?;
    rows.retain(|row| row.live);
    rows.sort_by_cached_key(|row| model.sort_key(row.values));
    let now = match model.model.settings.synced_at {
        Some(_) => Some(transaction_time(conn).await?),
        None => None,
    };
    let time = now.as_deref().map(str::as_bytes);
    copy_rows(conn, &model.copy_lookup(), rows.iter().copied(), |row, out| {
        let values = row.values.cells().map(Cell::text);
        out.push_row(values.chain(time.map(Some)));
    })
    .await
    .map_err(from_sqlx)?;
    let shown = i64::try_from(rows.len()).map_err(|_| Error::transient("a batch of too many rows"))?;
    Ok(Written {
        inserted: shown,
        total: shown,
        inserted_keys: rows.iter().take(keys).map(|row| key_text(model, *row)).collect(),
        ..Written::default()
    })
}

/// The key for the log.
fn key_text(model: &TargetModel, row: Now<'_>) -> String {
    let texts = model
        .key_places()
        .filter_map(|place| row.values.cell(place).text());
    let texts: Vec<_> = texts.map(String::from_utf8_lossy).collect();
    texts.join(", ")
}

/// The time of the transaction that is open, as text.
async fn transaction_time(conn: &mut PgConnection) -> Result<String> {
    sqlx::query_scalar("SELECT pg_catalog.now()::text")
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)
}

/// Appends the map's entry, in the order of [`TargetModel::copy_map`].
fn map_entry<'a>(model: &TargetModel, row: Now<'a>, out: &mut CopyBuffer<'a>) {
    let identity = row.identity.cells().map(Cell::text);
    let key = model.key_places().map(|place| row.values.cell(place).text());
    let state: &[u8] = if row.live { b"s" } else { b"d" };
    let kept = model.model.keeps_dead_rows();
    let values = row.values.cells().map(Cell::text);
    let values = values
        .map(|value| value.filter(|_| !row.live))
        .take_while(|_| kept);
    out.push_row(identity.chain(key).chain([Some(state)]).chain(values));
}
