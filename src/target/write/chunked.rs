//! The end of a transaction whose chunks are staged (`chunks.rs`): its last rows are staged too,
//! and all are merged.
//!
//! The transaction is not kept, so that it cannot be staged once more: if the target rejects a row,
//! the merge is undone to a savepoint, and the isolating run merges what is staged.

use super::chunks::{Chunks, count_rejected};
use super::context::{AllWritten, WriteTx, add_written};
use super::locked::is_locked;
use super::merge::{self, Ending, Merging, ToMerge};
use super::rejected;
use super::session::Session;
use super::staged::Staged;
use crate::batch::{Batch, Suspended};
use crate::error::{Class, Error, Result};
use crate::read_model::ModelIndex;
use crate::target::model::TargetModel;

/// Writes a batch that begins with staged chunks, and its checkpoint. At most `keys` keys of each
/// kind are reported.
pub(super) async fn write(
    session: &mut Session,
    chunks: &mut Chunks,
    batch: &Batch,
    keys: i32,
) -> Result<AllWritten> {
    let mut written = match finish(session, chunks, batch, keys).await {
        Ok(written) => written,
        Err(error) => {
            // The first error is the one to report; the server has rolled back a lost connection.
            let _ = chunks.abandon(session).await;
            return Err(error);
        }
    };
    let chunks = std::mem::take(chunks);
    session.execute("COMMIT").await?;
    session.note_emptied(&chunks.staged);
    for (index, new_rows) in chunks.new_rows {
        add_written(&mut written, index, new_rows, keys);
    }
    Ok(written)
}

async fn finish(
    session: &mut Session,
    chunks: &mut Chunks,
    batch: &Batch,
    keys: i32,
) -> Result<AllWritten> {
    if batch.chunks != chunks.count {
        return Err(Error::new(
            Class::Transient,
            format!(
                "{} chunks of a large transaction were to be there, found {}",
                batch.chunks, chunks.count
            ),
        ));
    }
    let leaves = |index: ModelIndex| batch.suspended.iter().any(|one| one.index == index);
    if chunks.new_rows.iter().any(|(index, _)| leaves(*index)) {
        chunks.abandon(session).await?;
        return Err(leave(session, batch).await?);
    }
    chunks.add(session, &batch.folds, keys).await?;
    let mut tx = session.tx(keys);
    advance(&mut tx, chunks, batch)?;
    // A read model that cannot take the transaction leaves before it.
    let staged = chunks.staged.iter().filter(|one| !leaves(one.index));
    let staged: Vec<Staged> = staged.copied().collect();
    let merged = merge_staged(&mut tx, batch, &staged).await;
    // It may be the fence.
    let merged = tx.first_error(merged).await;
    let blamed = tx.blamed;
    drop(tx);
    session.note_written(merged, blamed)
}

/// Read models that cannot take the transaction leave before it. Some of their rows have bypassed
/// the stage, so the whole transaction is undone and comes again for the others. Returns the error
/// that says so.
async fn leave(session: &mut Session, batch: &Batch) -> Result<Error> {
    let mut tx = session.begin(0).await?;
    let suspended = suspend_all(&mut tx, batch).await;
    tx.end(suspended).await.0?;
    Ok(Error::transient(
        "a read model was suspended in the middle of a large transaction, which is read again for the others",
    ))
}

async fn suspend_all(tx: &mut WriteTx<'_>, batch: &Batch) -> Result<()> {
    for Suspended { index, error } in &batch.suspended {
        let id = tx.model(*index)?.id;
        tx.bookkeeping.suspend(tx.conn, tx.epoch, id, error).await?;
    }
    Ok(())
}

/// Moves the checkpoint, and counts the rows that bypassed the stage.
fn advance(tx: &mut WriteTx<'_>, chunks: &Chunks, batch: &Batch) -> Result<()> {
    for one in &chunks.staged {
        let drop = tx.model(one.index)?.drop_stage_index();
        tx.send(drop);
    }
    let advance = merge::advance(tx, batch)?;
    tx.send(advance);
    for (index, new_rows) in &chunks.new_rows {
        let count = tx.model(*index)?.count_new(new_rows.inserted);
        tx.send(count);
    }
    Ok(())
}

/// Merges what is staged, if need be without the rows that the target rejects.
async fn merge_staged(
    tx: &mut WriteTx<'_>,
    batch: &Batch,
    staged: &[Staged],
) -> Result<AllWritten> {
    let only = match staged {
        [one] => Some(one.index),
        _ => None,
    };
    let what = ToMerge {
        batch,
        staged,
        only,
        // The savepoint may be needed.
        ending: Ending::StaysOpen,
    };
    let mut merging = if has_rejected(tx, staged).await? {
        Merging::Isolating
    } else {
        Merging::Plain
    };
    tx.send("SAVEPOINT chunks");
    tx.settle().await?;
    let models = tx.models;
    let isolates = |one: &Staged| models.get(one.index).is_ok_and(TargetModel::isolates);
    loop {
        let merged = match merging {
            Merging::Plain => merge::merge(tx, what).await,
            Merging::Isolating => rejected::merge(tx, what).await,
        };
        match tx.first_error(merged).await {
            Err(error) if is_locked(&error) => {}
            Err(error)
                if error.class() == Class::Rejected
                    && merging == Merging::Plain
                    && staged.iter().any(isolates) =>
            {
                merging = Merging::Isolating;
            }
            merged => return merged,
        }
        tx.execute("ROLLBACK TO SAVEPOINT chunks").await?;
    }
}

/// Whether a read model has rejected rows, or rejects a value that is staged. Later chunks may have
/// corrected the rejected values.
async fn has_rejected(tx: &mut WriteTx<'_>, staged: &[Staged]) -> Result<bool> {
    let mut has_rejected = false;
    for one in staged {
        let model = tx.model(one.index)?;
        has_rejected |= tx.learned.has_rejected(model.id)
            || one.rejected.live > 0 && count_rejected(tx.conn, model).await? > 0;
    }
    Ok(has_rejected)
}
