//! Merges the stage: for each staged read model, writes its map and its lookup, within the open
//! transaction, behind the fence.
//!
//! This is the plain merge. `rejected.rs` merges without the rows that the target rejects, and
//! begins and ends in the same way.

use super::calls::{self, MergeOptions, check_constraints, in_read_model};
use super::context::{AllWritten, WriteTx};
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
}

/// Fences, and moves the checkpoint; read models that leave with the batch stay as of the one
/// before.
pub(super) async fn advance(tx: &mut WriteTx<'_>, batch: &Batch) -> Result<()> {
    let leave = batch.suspended.iter();
    let ids: Vec<ModelId> = leave
        .map(|one| tx.model(one.index).map(|model| model.id))
        .collect::<Result<_>>()?;
    tx.bookkeeping.hold(tx.conn, tx.epoch, &ids).await?;
    calls::advance(tx.conn, tx.epoch, &batch.position).await
}

/// Merges all that is staged.
pub(super) async fn merge(tx: &mut WriteTx<'_>, what: ToMerge<'_>) -> Result<AllWritten> {
    let mut all = Vec::with_capacity(what.staged.len());
    for one in what.staged {
        let model = begin(tx, *one).await?;
        let joins = joins_of(tx, model, *one).await?;
        let options = options_of(tx, *one);
        let written = calls::merge(tx.conn, model, model.merge_call(joins), options).await?;
        all.push((one.index, written));
    }
    end(tx, what, Merging::Plain).await?;
    Ok(all)
}

/// The next read model's turn. Dead rows that its types reject are forgotten here.
pub(super) async fn begin<'a>(tx: &mut WriteTx<'a>, one: Staged) -> Result<&'a TargetModel> {
    let model = tx.turn_to(one.index)?;
    // One that was live when it was rejected may have died since.
    if one.rejected != RejectedCounts::default() {
        tx.execute(model.forget_rejected_dead()).await?;
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

/// How these rows are joined with map and lookup.
async fn joins_of(tx: &mut WriteTx<'_>, model: &TargetModel, one: Staged) -> Result<Joins> {
    if one.clear {
        return Ok(Joins::ReadOnce);
    }
    if one.size.has_few_rows() {
        return Ok(Joins::LookedUp);
    }
    let are_small = calls::are_small_beside(tx.conn, model, one.size.rows).await?;
    Ok(if are_small {
        Joins::ReadOnce
    } else {
        Joins::LookedUp
    })
}

/// Ends every batch, once for all its read models. It checks deferred constraints, since one may
/// refer from one lookup to another, empties the staging tables, and suspends the read models that
/// no longer take part.
pub(super) async fn end(tx: &mut WriteTx<'_>, what: ToMerge<'_>, merging: Merging) -> Result<()> {
    let emptied = empty(tx, what.staged, merging)?;
    if let Err((error, table)) = check_constraints(tx.conn, &emptied).await {
        let named = table.and_then(|table| tx.models.index_of(&table));
        tx.blamed = named.or(tx.blamed);
        // If there are several, the last one is only a guess.
        return Err(match named.or(what.only) {
            Some(index) => in_read_model(error, tx.model(index)?),
            None => error,
        });
    }
    for Suspended { index, error } in &what.batch.suspended {
        let id = tx.model(*index)?.id;
        tx.bookkeeping.suspend(tx.conn, tx.epoch, id, error).await?;
    }
    Ok(())
}

/// What empties the tables of these read models.
fn empty(tx: &WriteTx<'_>, staged: &[Staged], merging: Merging) -> Result<String> {
    let statement = |one: &Staged| {
        let many = !one.size.is_small();
        Ok(tx.model(one.index)?.empty_stage(many, merging.uses_tries()))
    };
    let statements: Vec<String> = staged.iter().map(statement).collect::<Result<_>>()?;
    Ok(statements.join("; "))
}
