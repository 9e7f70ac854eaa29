//! Merges the stage: for each staged read model, writes its map and its lookup, within the open
//! transaction, behind the fence.
//!
//! This is the plain merge. `rejected.rs` merges without the rows that the target rejects, and
//! begins and ends in the same way.

use super::calls::{self, MergeOptions};
use super::context::{AllWritten, WriteTx};
use super::in_flight::{Answer, Step};
use super::staged::{RejectedCounts, Staged};
use crate::batch::{Batch, Suspended};
use crate::error::Result;
use crate::read_model::{ModelId, ModelIndex};
use crate::target::model::{Joins, TargetModel};

/// Whether the rows that the target rejects are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merging {
    /// No: the first one fails the merge.
    Plain,
    /// Yes.
    Isolating,
}

impl Merging {
    /// Whether it uses the tables in which rows are tried, and they are to be emptied too.
    pub(super) fn uses_tries(self) -> bool {
        self == Self::Isolating
    }
}

/// What is merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToMerge<'a> {
    pub(super) batch: &'a Batch,
    /// What the stages of its read models hold.
    pub(super) staged: &'a [Staged],
    /// The read model, if the batch has rows of one only: no other one is to blame.
    pub(super) only: Option<ModelIndex>,
    pub(super) ending: Ending,
}

/// What the end of a batch is for its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The COMMIT leaves together with the last statements. It is not carried out if one of them
    /// fails.
    Commits,
    /// The transaction goes on.
    StaysOpen,
}

/// Begins the transaction of a batch: fences, and moves the checkpoint.
pub(super) fn begin_batch(tx: &mut WriteTx<'_>, batch: &Batch) -> Result<()> {
    let advance = advance(tx, batch)?;
    // Rows are staged by a statement only where this is set: were the BEGIN cancelled, they would
    // stay.
    let begin = format!("BEGIN; SET LOCAL cdc.in_batch = 'yes'; {advance}");
    tx.send_step(begin, Step::Begin);
    Ok(())
}

/// What fences, and moves the checkpoint; read models that leave with the batch stay as of the one
/// before.
pub(super) fn advance(tx: &WriteTx<'_>, batch: &Batch) -> Result<String> {
    let leave = batch.suspended.iter();
    let ids: Vec<ModelId> = leave
        .map(|one| tx.model(one.index).map(|model| model.id))
        .collect::<Result<_>>()?;
    let advance = calls::advance_sql(tx.epoch, &batch.position);
    if ids.is_empty() {
        return Ok(advance);
    }
    Ok(format!(
        "{}; {advance}",
        tx.bookkeeping.hold(tx.epoch, &ids)
    ))
}

/// Merges all that is staged.
pub(super) async fn merge(tx: &mut WriteTx<'_>, what: ToMerge<'_>) -> Result<AllWritten> {
    ask_sizes(tx, what.staged).await?;
    for one in what.staged {
        let model = begin(tx, *one)?;
        let call = model.merge_call(joins_of(tx, *one));
        let merge = calls::send_merge(tx.conn, model, call, options_of(tx, *one)).await?;
        tx.await_later(merge, Step::Any);
    }
    end(tx, what, Merging::Plain).await?;
    let written = tx.take_answers().into_iter();
    Ok(written
        .filter_map(|(of, answer)| match answer {
            Answer::Written(written) => Some((of?, written)),
            _ => None,
        })
        .collect())
}

/// The next read model's turn. Dead rows that its types reject are forgotten here.
pub(super) fn begin<'a>(tx: &mut WriteTx<'a>, one: Staged) -> Result<&'a TargetModel> {
    let model = tx.turn_to(one.index)?;
    // One that was live when it was rejected may have died since.
    if one.rejected != RejectedCounts::default() {
        tx.send(model.forget_rejected_dead());
    }
    Ok(model)
}

/// The arguments of this read model's merge.
pub(super) fn options_of(tx: &WriteTx<'_>, one: Staged) -> MergeOptions {
    MergeOptions {
        clear: one.clear,
        resolve: one.resolve,
        keys: tx.keys,
    }
}

/// Asks how large the tables of these read models are, where it matters and was not asked before.
/// Nothing is merged before the transaction has begun.
async fn ask_sizes(tx: &mut WriteTx<'_>, staged: &[Staged]) -> Result<()> {
    tx.settle_begin().await?;
    let unknown = |one: &&Staged| tx.are_small(one.index).is_none() && size_matters(**one);
    let unknown: Vec<Staged> = staged.iter().filter(unknown).copied().collect();
    for one in &unknown {
        ask_size(tx, *one)?;
    }
    if !unknown.is_empty() {
        tx.settle().await?;
    }
    Ok(())
}

/// Asks how large the read model's tables are.
pub(super) fn ask_size(tx: &mut WriteTx<'_>, one: Staged) -> Result<()> {
    let model = tx.turn_to(one.index)?;
    let answer = calls::ask_size(tx.conn, model, one.size.rows);
    tx.await_later(answer, Step::Any);
    Ok(())
}

/// Whether the size of map and lookup decides how these rows are joined with them.
pub(super) fn size_matters(one: Staged) -> bool {
    !one.clear && !one.size.has_few_rows()
}

/// How these rows are joined with map and lookup.
fn joins_of(tx: &WriteTx<'_>, one: Staged) -> Joins {
    let are_small = size_matters(one) && tx.are_small(one.index) == Some(true);
    if one.clear || are_small {
        Joins::ReadOnce
    } else {
        Joins::LookedUp
    }
}

/// Ends every batch, once for all its read models. It checks deferred constraints, since one may
/// refer from one lookup to another, empties the staging tables, and suspends the read models that
/// no longer take part.
pub(super) async fn end(tx: &mut WriteTx<'_>, what: ToMerge<'_>, merging: Merging) -> Result<()> {
    let mut then = empty(tx, what.staged, merging)?;
    let commits = what.ending == Ending::Commits && what.batch.suspended.is_empty();
    let step = if commits {
        then.push("COMMIT".to_owned());
        Step::Commit
    } else {
        Step::Any
    };
    tx.settle_unsent().await?;
    // If there are several, the last one is only a guess.
    let answer = calls::send_check(tx.conn, tx.models, what.only, &then.join("; "));
    tx.await_later(answer, step);
    tx.settle().await?;
    for Suspended { index, error } in &what.batch.suspended {
        let id = tx.model(*index)?.id;
        tx.bookkeeping.suspend(tx.conn, tx.epoch, id, error).await?;
    }
    Ok(())
}

/// What empties the tables of these read models.
fn empty(tx: &WriteTx<'_>, staged: &[Staged], merging: Merging) -> Result<Vec<String>> {
    let statement = |one: &Staged| {
        let many = !one.size.is_small();
        Ok(tx.model(one.index)?.empty_stage(many, merging.uses_tries()))
    };
    staged.iter().map(statement).collect()
}
