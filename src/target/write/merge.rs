//! What stands in the stage becomes rows: for each read model that was staged, its map, its lookup, and what is set apart.
//!
//! Plainly, or by the isolating run (`isolate.rs`) where the target refuses rows; in both cases within the transaction that
//! is open, behind the fence.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    ONE_STATEMENT_ROWS, call, check_constraints, execute, index_of, model_of, name, rejected, sweep,
};
use crate::batch::{Batch, Written};
use crate::error::{Class, Result};
use crate::fold::Share;
use crate::lsn::Lsn;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::error::from_sqlx;
use crate::target::model::{Joins, TargetModel};
use crate::target::write::halving::Refused;

/// The session's read models, and under which epoch it writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) models: &'a [Option<TargetModel>],
    pub(super) bookkeeping: &'a Bookkeeping,
    pub(super) epoch: i64,
    /// Most keys of written rows of each kind that are told.
    pub(super) keys: i32,
}

/// Final states of one read model that stand in its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) index: usize,
    /// Whether what is not among them is gone.
    pub(super) clear: bool,
    /// Whether some of them lack a value that the stream left out.
    pub(super) resolve: bool,
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// Rows that a type of the lookup refused.
    pub(super) refused: Refused,
}

impl Staged {
    /// Nothing yet.
    pub(super) fn none(index: usize) -> Self {
        Self {
            index,
            clear: false,
            resolve: false,
            rows: 0,
            bytes: 0,
            refused: Refused::default(),
        }
    }

    /// Notes the next rows.
    pub(super) fn add(&mut self, rows: Share<'_>) {
        if rows.clear() {
            self.rows = 0;
            self.bytes = 0;
        }
        self.clear |= rows.clear();
        self.resolve |= rows.has_unchanged();
        self.rows = self.rows.saturating_add(rows.len());
        self.bytes = self.bytes.saturating_add(rows.bytes());
    }
}

/// Moves the checkpoint; read models that leave with the batch stay as of the one before.
pub(super) async fn advance(conn: &mut PgConnection, owner: Owner<'_>, batch: &Batch) -> Result<()> {
    let leave = batch.suspended.iter().map(|(index, _)| *index);
    let ids: Vec<i32> = leave
        .map(|index| model_of(owner.models, index).map(|model| model.id))
        .collect::<Result<_>>()?;
    owner.bookkeeping.hold(conn, owner.epoch, &ids).await?;
    super::advance(conn, owner.epoch, &batch.position).await
}

/// Adds what was written of a read model in another way to what is told of it; that many keys of each kind at most.
pub(super) fn add_written(all: &mut Vec<(usize, Written)>, index: usize, more: Written, most_keys: i32) {
    let Some((_, written)) = all.iter_mut().find(|(of, _)| *of == index) else {
        all.push((index, more));
        return;
    };
    written.inserted += more.inserted;
    written.updated += more.updated;
    written.deleted += more.deleted;
    written.total += more.total;
    let most = usize::try_from(most_keys).unwrap_or_default();
    let add = |keys: &mut Vec<String>, more: Vec<String>| {
        let room = most.saturating_sub(keys.len());
        keys.extend(more.into_iter().take(room));
    };
    add(&mut written.inserted_keys, more.inserted_keys);
    add(&mut written.updated_keys, more.updated_keys);
    add(&mut written.deleted_keys, more.deleted_keys);
}

/// Merges all that is staged; `current` becomes the read model whose fault an error is. `sole` tells whether the batch has rows
/// of one read model only.
pub(super) async fn merge(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    staged: &[Staged],
    (batch, sole): (&Batch, bool),
    current: &mut Option<usize>,
) -> Result<Vec<(usize, Written)>> {
    let mut all = Vec::with_capacity(staged.len());
    for one in staged {
        let model = turn_to(conn, owner, *one, current).await?;
        let joins = joins_of(conn, model, *one).await?;
        let merge = model.merge_call(joins);
        let written = call(conn, model, &merge, one.clear, one.resolve, owner.keys).await?;
        all.push((one.index, written));
    }
    close(conn, owner, staged, (batch, sole, false), current).await?;
    Ok(all)
}

/// The same, with the rows set apart that the target refuses.
pub(super) async fn isolate(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    staged: &[Staged],
    batch: &Batch,
    current: &mut Option<usize>,
) -> Result<Vec<(usize, Written)>> {
    let lsn = batch.position.lsn;
    let mut all: Vec<(usize, Written)> = Vec::with_capacity(staged.len());
    let mut postponed = Vec::new();
    for one in staged {
        execute(conn, "SAVEPOINT read_model".to_owned()).await?;
        match isolate_one(conn, owner, *one, lsn, current).await {
            Ok(written) => all.push((one.index, written)),
            // Too many rows, perhaps for want of another lookup's: its turn comes again after all others.
            Err(error) if error.class() == Class::Refused && staged.len() > 1 => {
                tracing::debug!(%error, "the read model is written again after the others");
                execute(conn, "ROLLBACK TO SAVEPOINT read_model".to_owned()).await?;
                postponed.push((*one, all.len(), error));
            }
            Err(error) => return Err(error),
        }
        execute(conn, "RELEASE SAVEPOINT read_model".to_owned()).await?;
    }
    for (one, written_before, error) in postponed {
        if all.len() == written_before {
            *current = Some(one.index);
            return Err(error);
        }
        let written = isolate_one(conn, owner, one, lsn, current).await?;
        all.push((one.index, written));
    }
    if staged.len() > 1 {
        let tried = all.iter_mut().map(|(index, written)| (*index, written));
        owner
            .bookkeeping
            .retry(conn, owner.models, tried.collect(), (current, false, lsn))
            .await?;
    }
    close(conn, owner, staged, (batch, staged.len() == 1, true), current).await?;
    for (index, written) in &mut all {
        let id = model_of(owner.models, *index)?.id;
        owner.bookkeeping.read_rejected(conn, id, written).await?;
    }
    Ok(all)
}

async fn isolate_one(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    one: Staged,
    lsn: Lsn,
    current: &mut Option<usize>,
) -> Result<Written> {
    let model = turn_to(conn, owner, one, current).await?;
    let how = rejected::How {
        joins: rejected::joins_of(one.clear),
        shadow: false,
        clear: one.clear,
        resolve: one.resolve,
        keys: owner.keys,
        again: false,
        lsn,
    };
    rejected::call_isolating(conn, model, how).await
}

/// How a batch of these rows is joined with map and lookup.
async fn joins_of(conn: &mut PgConnection, model: &TargetModel, one: Staged) -> Result<Joins> {
    if one.clear {
        return Ok(Joins::ReadOnce);
    }
    if one.rows <= ONE_STATEMENT_ROWS {
        return Ok(Joins::LookedUp);
    }
    let are_small: bool = sqlx::query_scalar(AssertSqlSafe(model.are_small_beside(one.rows)))
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)?;
    Ok(if are_small {
        Joins::ReadOnce
    } else {
        Joins::LookedUp
    })
}

/// The next read model's turn: it is to blame for an error from now on. What its types refused of dead rows ends here.
async fn turn_to<'a>(
    conn: &mut PgConnection,
    owner: Owner<'a>,
    one: Staged,
    current: &mut Option<usize>,
) -> Result<&'a TargetModel> {
    *current = Some(one.index);
    let model = model_of(owner.models, one.index)?;
    // One that was live when it was refused may have died since.
    if one.refused != Refused::default() {
        execute(conn, model.forget_refused_dead()).await?;
    }
    Ok(model)
}

/// What ends every batch, once for all its read models: checks what is checked late, since a deferred constraint may look from
/// one lookup to another, empties the staging tables, and suspends those that take part no more.
async fn close(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    staged: &[Staged],
    (batch, sole, isolating): (&Batch, bool, bool),
    current: &mut Option<usize>,
) -> Result<()> {
    let models = staged.iter().map(|one| model_of(owner.models, one.index));
    let models: Vec<&TargetModel> = models.collect::<Result<_>>()?;
    let emptied = sweep::empty(staged, &models, isolating);
    if let Err((error, table)) = check_constraints(conn, &emptied).await {
        let told = table.and_then(|table| index_of(owner.models, &table));
        *current = told.or(*current);
        // Of several, the last one is only a guess.
        let known = told.or(current.filter(|_| sole));
        return Err(match known {
            Some(index) => name(error, model_of(owner.models, index)?),
            None => error,
        });
    }
    for (index, error) in &batch.suspended {
        let id = model_of(owner.models, *index)?.id;
        owner.bookkeeping.suspend(conn, owner.epoch, id, error).await?;
    }
    Ok(())
}
