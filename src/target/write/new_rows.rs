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
use super::way::{Piece, RowFacts, RowsKnown, RowsWay};
use crate::batch::Written;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::fold::{Final, Fold, Now};
use crate::read_model::ModelIndex;
use crate::row::Cell;
use crate::target::copy_buffer::CopyBuffer;
use crate::target::model::TargetModel;

/// Checks deferred constraints now, and defers later checks to the commit again.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// Writes the new rows of a batch. `None` if they go through the stage with the others.
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
    tx.execute("SAVEPOINT new_rows").await?;
    match copy_and_check(tx, model, fold, known.piece).await {
        Ok(written) => {
            let release = "RELEASE SAVEPOINT new_rows".to_owned();
            let end = match known.piece {
                Piece::Batch => format!("{}; {release}", model.count_new(written.inserted)),
                Piece::Chunk => release,
            };
            tx.execute(end).await?;
            tx.learned.put_off.remove(model.id);
            Ok(Some(written))
        }
        // Only the server's own word is an answer.
        Err(error) if error.sqlstate().is_some() => {
            tracing::debug!(%error, "new rows go by the stage");
            tx.execute("ROLLBACK TO SAVEPOINT new_rows").await?;
            tx.learned.put_off.add(model.id);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn copy_and_check(
    tx: &mut WriteTx<'_>,
    model: &TargetModel,
    fold: &Fold,
    piece: Piece,
) -> Result<Written> {
    let keys = usize::try_from(tx.keys).unwrap_or_default();
    let written = copy(tx.conn, model, fold, keys).await?;
    if piece == Piece::Chunk {
        tx.execute(CHECK).await?;
    }
    Ok(written)
}

/// Writes the map's entries, then the lookup's rows. Reports at most so many keys, as the source
/// writes them.
async fn copy(
    conn: &mut Connection,
    model: &TargetModel,
    fold: &Fold,
    keys: usize,
) -> Result<Written> {
    let kept = model.model.keeps_dead_rows();
    let rows = fold.new_rows().finals().filter_map(|Final { now, .. }| now);
    let mut rows: Vec<Now<'_>> = rows.filter(|row| row.live || kept).collect();
    // In the order of each table's index, or nearly so: its pages are written one after the other.
    rows.sort_by_cached_key(|row| row.identity.cell(0).text());
    let map = model.copy_map();
    calls::copy(conn, &map, rows.iter().copied(), |row, out| {
        map_entry(model, row, out)
    })
    .await?;
    rows.retain(|row| row.live);
    rows.sort_by_cached_key(|row| model.sort_key(row.values));
    copy_to_lookup(conn, model, &rows).await?;
    let shown =
        i64::try_from(rows.len()).map_err(|_| Error::transient("a batch of too many rows"))?;
    Ok(Written {
        inserted: shown,
        total: shown,
        inserted_keys: rows
            .iter()
            .take(keys)
            .map(|row| key_text(model, *row))
            .collect(),
        ..Written::default()
    })
}

async fn copy_to_lookup(
    conn: &mut Connection,
    model: &TargetModel,
    rows: &[Now<'_>],
) -> Result<()> {
    let now = match model.model.settings.synced_at {
        Some(_) => Some(calls::transaction_time(conn).await?),
        None => None,
    };
    let time = now.as_deref().map(str::as_bytes);
    calls::copy(
        conn,
        &model.copy_lookup(),
        rows.iter().copied(),
        |row, out| {
            let values = row.values.cells().map(Cell::text);
            out.push_row(values.chain(time.map(Some)));
        },
    )
    .await
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
