//! The isolating run: merges the stage without the rows that the target rejects, and records those
//! with the reason (`sql/target/write/isolate.sql`). A read model that has rejected rows is always
//! written this way.

use super::calls::{self, IsolateOptions, MergeFrom, MergeOptions};
use super::context::{AllWritten, WriteTx};
use super::in_flight::{Answer, Step};
use super::merge::{self, Merging, ToMerge};
use super::staged::Staged;
use crate::batch::Written;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::target::model::Joins;

/// How often rejected rows are tried once more after other lookups have changed.
const MOST_ROUNDS: usize = 2;

/// How the isolating run joins; `clear` is whether all rows of map and lookup take part.
pub(super) fn joins_of(clear: bool) -> Joins {
    if clear {
        Joins::ReadOnce
    } else {
        Joins::LookedUp
    }
}

/// Merges all that is staged, without the rows that the target rejects.
pub(super) async fn merge(tx: &mut WriteTx<'_>, what: ToMerge<'_>) -> Result<AllWritten> {
    let lsn = what.batch.position.lsn;
    let mut all = AllWritten::new();
    match what.staged {
        // Nothing depends on what it answers.
        [one] => {
            tx.settle_begin().await?;
            send_merge(tx, *one, lsn).await?;
        }
        several => {
            all = merge_each(tx, several, lsn).await?;
            let tried = all.iter_mut().map(|(index, written)| (*index, written));
            try_again(tx, MergeFrom::Stage, tried.collect(), lsn).await?;
        }
    }
    let blamed = tx.blamed;
    for one in what.staged {
        let model = tx.turn_to(one.index)?;
        let rejected = calls::ask_rejected(tx.conn, tx.bookkeeping, model.id);
        tx.await_later(rejected, Step::Any);
    }
    tx.blamed = blamed;
    merge::end(tx, what, Merging::Isolating).await?;
    for (of, answer) in tx.take_answers() {
        match (of, answer) {
            (Some(index), Answer::Written(written)) => all.push((index, written)),
            (Some(index), Answer::Rejected(rejections)) => {
                let mut written = all.iter_mut().filter(|(of, _)| *of == index);
                if let Some((_, written)) = written.next() {
                    rejections.note_in(written);
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// A read model whose turn comes again after all others.
struct Postponed {
    staged: Staged,
    /// How many read models were written before its first turn.
    written_before: usize,
    error: Error,
}

async fn merge_each(tx: &mut WriteTx<'_>, staged: &[Staged], lsn: Lsn) -> Result<AllWritten> {
    let mut all: AllWritten = Vec::with_capacity(staged.len());
    let mut postponed = Vec::new();
    // A row that was rejected while it was staged is an error of its read model. Behind it there is
    // no savepoint to roll back to.
    tx.settle().await?;
    for one in staged {
        tx.send("SAVEPOINT read_model");
        let merged = merge_one(tx, *one, lsn).await;
        match tx.first_error(merged).await {
            Ok(written) => all.push((one.index, written)),
            // Too many rows, possibly for lack of another lookup's rows.
            Err(error) if error.class() == Class::Rejected => {
                tracing::debug!(%error, "the read model is written again after the others");
                tx.execute("ROLLBACK TO SAVEPOINT read_model").await?;
                postponed.push(Postponed {
                    staged: *one,
                    written_before: all.len(),
                    error,
                });
            }
            Err(error) => return Err(error),
        }
        tx.send("RELEASE SAVEPOINT read_model");
    }
    for one in postponed {
        if all.len() == one.written_before {
            tx.blamed = Some(one.staged.index);
            return Err(one.error);
        }
        let written = merge_one(tx, one.staged, lsn).await?;
        all.push((one.staged.index, written));
    }
    tx.settle().await?;
    Ok(all)
}

async fn merge_one(tx: &mut WriteTx<'_>, one: Staged, lsn: Lsn) -> Result<Written> {
    send_merge(tx, one, lsn).await?;
    tx.settle().await?;
    Ok(tx.take_written())
}

async fn send_merge(tx: &mut WriteTx<'_>, one: Staged, lsn: Lsn) -> Result<()> {
    let model = merge::begin(tx, one)?;
    let options = IsolateOptions {
        from: MergeFrom::Stage,
        joins: joins_of(one.clear),
        merge: merge::options_of(tx, one),
        again: false,
        lsn,
    };
    let answer = calls::send_isolate(tx.conn, model, options).await?;
    tx.await_later(answer, Step::Any);
    Ok(())
}

/// Tries rejected rows of this transaction once more: one may have been rejected for lack of
/// another lookup's rows, which exist now, or because of them.
pub(super) async fn try_again(
    tx: &mut WriteTx<'_>,
    from: MergeFrom,
    mut tried: Vec<(ModelIndex, &mut Written)>,
    lsn: Lsn,
) -> Result<()> {
    let options = IsolateOptions {
        from,
        joins: Joins::LookedUp,
        merge: MergeOptions::default(),
        again: true,
        lsn,
    };
    let mut before = None;
    for _ in 0..MOST_ROUNDS {
        let rejected: i64 = tried.iter().map(|(_, written)| written.rejected_rows).sum();
        if rejected == 0 || before == Some(rejected) {
            break;
        }
        before = Some(rejected);
        for (index, written) in &mut tried {
            let model = tx.turn_to(*index)?;
            let more = calls::isolate(tx.conn, model, options).await?;
            written.inserted += more.inserted;
            written.updated += more.updated;
            written.deleted += more.deleted;
            written.rejected_rows = more.rejected_rows;
        }
    }
    if before.is_some() {
        for (index, written) in &mut tried {
            let id = tx.model(*index)?.id;
            tx.bookkeeping.read_rejected(tx.conn, id, written).await?;
        }
    }
    Ok(())
}
