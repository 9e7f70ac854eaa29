//! A small batch of one read model: fence, checkpoint, rows and map in one statement, which is one
//! commit.

use super::calls::{self, ApplyOptions};
use super::context::{AllWritten, WriteTx};
use super::rows;
use super::session::Session;
use super::way::{Size, with_rows};
use crate::batch::Batch;
use crate::error::Result;

/// Writes the batch. `None`, and nothing is written, if its values cannot be arguments of a
/// statement. At most `keys` keys of each kind are reported.
pub(super) async fn write(
    session: &mut Session,
    batch: &Batch,
    keys: i32,
) -> Result<Option<AllWritten>> {
    let mut tx = session.tx(keys);
    let written = try_write(&mut tx, batch).await;
    let blamed = tx.blamed;
    drop(tx);
    match written.transpose() {
        Some(written) => session.note_written(written, blamed).map(Some),
        None => Ok(None),
    }
}

async fn try_write(tx: &mut WriteTx<'_>, batch: &Batch) -> Result<Option<AllWritten>> {
    let Some((index, fold)) = with_rows(batch).next() else {
        return Ok(None);
    };
    let model = tx.model(*index)?;
    let Some(arrays) = rows::arrays(model, fold.all()) else {
        return Ok(None);
    };
    tx.learned.dead.add(model.id, Size::of(fold.all()));
    let options = ApplyOptions {
        epoch: tx.epoch,
        position: &batch.position,
        resolve: fold.has_unchanged(),
        keys: tx.keys,
    };
    tx.blamed = Some(*index);
    let written = calls::apply(tx.conn, model, options, arrays).await?;
    Ok(Some(vec![(*index, written)]))
}
