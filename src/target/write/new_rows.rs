//! Many rows that are new go straight into map and lookup by `COPY`, without the stage.
//!
//! `COPY` writes and logs a page of rows at once, `INSERT` row by row. And nothing has to be looked
//! up: the unique indexes ensure that every identity and every key is new. (If another session
//! deleted a row of the lookup, another row may be shown under its key until that is noticed; to
//! look each key up in the map would cost a fifth of the target's time.) If the target rejects a
//! row for any reason, all of it is undone, and the batch goes through the stage.
//!
//! They go before the other rows of their batch. A key that one of the other rows gives up is still
//! taken then, so its lookup row is never deleted to make room for a new row. A delete would hurt
//! rows that refer to it; through the stage it is changed in place. If a new row has an identity
//! that another row had at the start, this way is not taken: a change of the other row would hit
//! the new row.
//!
//! [`RowsWay`] says which rows these are.

use super::calls;
use super::context::WriteTx;
use super::copying;
use super::in_flight::Step;
use super::way::{Piece, RowFacts, RowsKnown, RowsWay};
use crate::batch::Written;
use crate::error::{Error, Result};
use crate::fold::{Final, Fold, Now};
use crate::read_model::ModelIndex;
use crate::row::Cell;
use crate::target::copy_buffer::CopyBuffer;
use crate::target::model::TargetModel;

/// Checks deferred constraints now, and defers later checks to the commit again.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// Writes the new rows of a batch. `None` if they go through the stage with the others. Whether the
/// target takes them is answered later ([`are_rejected`]).
pub(super) async fn write(
    tx: &mut WriteTx<'_>,
    index: ModelIndex,
    fold: &Fold,
) -> Result<Option<Written>> {
    try_write(tx, index, fold, RowsKnown::default()).await
}

/// Writes the rows of a chunk if all are new. `is_staged` is whether the stage has rows of earlier
/// chunks.
///
/// Deferred constraints are checked at once, since they too may reject a row. The caller counts the
/// rows at the end of the transaction, since the row with the count stays locked until then.
pub(super) async fn write_chunk(
    tx: &mut WriteTx<'_>,
    index: ModelIndex,
    fold: &Fold,
    is_staged: bool,
) -> Result<Option<Written>> {
    let known = RowsKnown {
        piece: Piece::Chunk,
        is_staged,
        ..RowsKnown::default()
    };
    try_write(tx, index, fold, known).await
}

async fn try_write(
    tx: &mut WriteTx<'_>,
    index: ModelIndex,
    fold: &Fold,
    known: RowsKnown,
) -> Result<Option<Written>> {
    let model = tx.model(index)?;
    let known = RowsKnown {
        has_rejected: tx.learned.has_rejected(model.id),
        is_put_off: tx.learned.put_off.has(model.id),
        ..known
    };
    match RowsWay::of(&RowFacts::of(fold), &known) {
        RowsWay::Stage => return Ok(None),
        RowsWay::PutOff => {
            tx.learned.put_off.pass_over(model.id);
            return Ok(None);
        }
        RowsWay::NewRows => {}
    }
    match known.piece {
        Piece::Batch => {
            let written = copy(tx, model, fold).await?;
            tx.send_step(model.count_new(written.inserted), Step::NewRows);
            Ok(Some(written))
        }
        Piece::Chunk => try_copy(tx, model, fold).await,
    }
}

/// Copies the new rows of a chunk. `None` if the target rejects one of them: then nothing of them
/// stays.
async fn try_copy(
    tx: &mut WriteTx<'_>,
    model: &TargetModel,
    fold: &Fold,
) -> Result<Option<Written>> {
    tx.send_step("SAVEPOINT new_rows", Step::Savepoint);
    let copied = async {
        let written = copy(tx, model, fold).await?;
        tx.send(CHECK);
        tx.send("RELEASE SAVEPOINT new_rows");
        Ok(written)
    };
    let copied = copied.await;
    match tx.first_error(copied).await {
        Ok(written) => {
            tx.learned.put_off.remove(model.id);
            Ok(Some(written))
        }
        Err(error) if is_an_answer(&error) && tx.failed != Step::Savepoint => {
            tracing::debug!(%error, "new rows go by the stage");
            tx.execute("ROLLBACK TO SAVEPOINT new_rows").await?;
            tx.learned.put_off.add(model.id);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Only the server's own word is an answer.
fn is_an_answer(error: &Error) -> bool {
    error.sqlstate().is_some()
}

/// Whether this error of a batch says that its new rows have to go by the stage. A table that is
/// locked would be so for the stage too.
pub(super) fn are_rejected(error: &Error, failed: Step) -> bool {
    failed == Step::NewRows && is_an_answer(error) && !error.is_lock_timeout()
}

/// Writes the map's entries, then the lookup's rows; whether the target takes the last ones is
/// answered later. Reports some keys, as the source writes them.
async fn copy(tx: &mut WriteTx<'_>, model: &TargetModel, fold: &Fold) -> Result<Written> {
    let kept = model.model.keeps_dead_rows();
    let rows = fold.new_rows().finals().filter_map(|Final { now, .. }| now);
    let mut rows: Vec<Now<'_>> = rows.filter(|row| row.live || kept).collect();
    // In the order of each table's index, or nearly so: its pages are written one after the other.
    rows.sort_by_cached_key(|row| row.identity.cell(0).text());
    let time = match model.model.settings.synced_at {
        Some(_) => Some(calls::ask_time(tx.conn)),
        None => None,
    };
    copy_into(tx, &model.copy_map(), &rows, |row, out| {
        map_entry(model, row, out)
    })
    .await?;
    let time = match time {
        Some(time) => Some(time.answer().await.inspect_err(|_| fail(tx))?),
        None => None,
    };
    let time = time.as_deref().map(str::as_bytes);
    rows.retain(|row| row.live);
    rows.sort_by_cached_key(|row| model.sort_key(row.values));
    copy_into(tx, &model.copy_lookup(), &rows, |row, out| {
        let values = row.values.cells().map(Cell::text);
        out.push_row(values.chain(time.map(Some)));
    })
    .await?;
    written(tx, model, &rows)
}

/// Sends what earlier statements and this COPY need; its answer is read later.
async fn copy_into<'r>(
    tx: &mut WriteTx<'_>,
    sql: &str,
    rows: &[Now<'r>],
    append: impl Fn(Now<'r>, &mut CopyBuffer<'r>),
) -> Result<()> {
    let begun = copying::send_copy(tx.conn, sql)
        .await
        .inspect_err(|_| fail(tx))?;
    tx.settle().await?;
    let copy = copying::begun(begun).await.inspect_err(|_| fail(tx))?;
    let answer = copying::fill_copy(tx.conn, copy, rows.iter().copied(), append).await;
    let answer = answer.inspect_err(|_| fail(tx))?;
    tx.await_later(answer, Step::NewRows);
    Ok(())
}

/// What failed are the new rows.
fn fail(tx: &mut WriteTx<'_>) {
    tx.failed = Step::NewRows;
}

fn written(tx: &WriteTx<'_>, model: &TargetModel, shown: &[Now<'_>]) -> Result<Written> {
    let most = usize::try_from(tx.keys).unwrap_or_default();
    let keys = shown.iter().take(most).map(|row| key_text(model, *row));
    let count =
        i64::try_from(shown.len()).map_err(|_| Error::transient("a batch of too many rows"))?;
    Ok(Written {
        inserted: count,
        total: count,
        inserted_keys: keys.collect(),
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

/// Appends the map's entry, in the order of [`TargetModel::copy_map`].
fn map_entry<'a>(model: &TargetModel, row: Now<'a>, out: &mut CopyBuffer<'a>) {
    let identity = row.identity.cells().map(Cell::text);
    let key = model
        .key_places()
        .map(|place| row.values.cell(place).text());
    let state: &[u8] = if row.live { b"s" } else { b"d" };
    let kept = model.model.keeps_dead_rows();
    let values = row.values.cells().map(Cell::text);
    let values = values
        .map(|value| value.filter(|_| !row.live))
        .take_while(|_| kept);
    out.push_row(identity.chain(key).chain([Some(state)]).chain(values));
}
