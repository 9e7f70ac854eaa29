//! The merge of exact copies: by the writer's own function, with the shadow in place of the stage.

use std::collections::{HashSet, VecDeque};

use sqlx::{AssertSqlSafe, PgConnection};

use super::merge::Owner;
use super::{
    Transaction, Writer, advance, call, check_constraints, execute, index_of, model_of, name, rejected,
    timestamp,
};
use crate::batch::{MergePosition, Merged, Position, Written};
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::target::bookkeeping::ModelState;
use crate::target::error::from_sqlx;
use crate::target::model::{Joins, TargetModel};

impl Writer {
    /// Merges exact copies: the lookups and maps become what the shadows hold, and the read models take part from here on.
    /// A read model whose rows the target refuses is left as it was and comes back with its error.
    pub async fn merge(
        &mut self,
        indexes: &[usize],
        position: &MergePosition,
        keys: i32,
    ) -> Result<Vec<Merged>> {
        self.abandon_chunks().await?;
        self.make_room(indexes).await?;
        self.prepare_all(indexes, true).await?;
        let mut refused: Vec<(usize, Error)> = Vec::new();
        let mut one_by_one = false;
        let mut isolating = false;
        loop {
            let mut culprit = None;
            let how = (keys, one_by_one, isolating);
            match self
                .try_merge(indexes, position, how, &refused, &mut culprit)
                .await
            {
                Ok(mut all) => {
                    self.note_merged(&all)?;
                    let rows = all.iter().filter_map(|(_, merged)| merged.as_ref().ok());
                    self.written_since_planning += rows.map(|written| written.total).sum::<i64>();
                    all.extend(refused.into_iter().map(|(index, error)| (index, Err(error))));
                    self.make_room(&[]).await?;
                    return Ok(all);
                }
                // A constraint that is checked last was violated: the rows that do so are set apart, or ...
                Err(error) if error.class() == Class::Refused && !isolating => isolating = true,
                // ... where that does not help, it was by one of them: the others without it.
                Err(error) => match culprit {
                    Some(index) if !refused.iter().any(|(of, _)| *of == index) => {
                        refused.push((index, error));
                    }
                    // The constraint belongs to another table, which refers to one of them: each is checked by itself.
                    _ if error.class() == Class::Refused && !one_by_one => one_by_one = true,
                    _ => return Err(error),
                },
            }
        }
    }

    fn note_merged(&mut self, all: &[Merged]) -> Result<()> {
        let written: Vec<(usize, Written)> = all
            .iter()
            .filter_map(|(index, merged)| Some((*index, merged.as_ref().ok()?.clone())))
            .collect();
        self.note_rejecting(&written)
    }

    async fn try_merge(
        &mut self,
        indexes: &[usize],
        position: &MergePosition,
        (keys, one_by_one, isolating): (i32, bool, bool),
        refused: &[(usize, Error)],
        culprit: &mut Option<usize>,
    ) -> Result<Vec<Merged>> {
        let heals = matches!(position, MergePosition::Start { .. });
        let (MergePosition::Running(lsn, _) | MergePosition::Start { lsn, .. }) = *position;
        let owner = Owner {
            models: &self.models,
            bookkeeping: &self.bookkeeping,
            epoch: self.epoch,
            keys,
        };
        let how = How {
            heals,
            check: one_by_one,
            isolating,
            lsn,
        };
        let error_of = |index: usize| {
            refused
                .iter()
                .find(|(of, _)| *of == index)
                .map(|(_, error)| error)
        };
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let result = async {
            let copies: Result<Vec<&TargetModel>> = indexes
                .iter()
                .map(|index| model_of(owner.models, *index))
                .collect();
            // Before the checkpoint is locked.
            owner.bookkeeping.hold_shadows(tx.conn(), &copies?).await?;
            begin_at(tx.conn(), owner, position).await?;
            let wanted: Vec<usize> = indexes
                .iter()
                .copied()
                .filter(|index| error_of(*index).is_none())
                .collect();
            let (mut all, set_apart) = merge_each(tx.conn(), owner, &wanted, &self.rejecting, how).await?;
            if heals {
                let out = all
                    .iter()
                    .filter_map(|(index, merged)| Some((*index, merged.as_ref().err()?)));
                for (index, error) in out.chain(refused.iter().map(|(index, error)| (*index, error))) {
                    let id = model_of(owner.models, index)?.id;
                    owner
                        .bookkeeping
                        .suspend(tx.conn(), owner.epoch, id, error)
                        .await?;
                }
            }
            if all.len() > 1 {
                let tried = all.iter_mut().filter_map(|(index, merged)| {
                    let written = merged.as_mut().ok().filter(|_| set_apart.contains(index))?;
                    Some((*index, written))
                });
                owner
                    .bookkeeping
                    .retry(tx.conn(), owner.models, tried.collect(), (culprit, true, lsn))
                    .await?;
                *culprit = None;
            }
            let emptied = emptied(owner.models, &all)?;
            if let Err((error, table)) = check_constraints(tx.conn(), &emptied).await {
                *culprit = table.and_then(|table| index_of(owner.models, &table));
                return Err(error);
            }
            let whole = refused.is_empty() && all.iter().all(|(_, merged)| merged.is_ok());
            if let (MergePosition::Running(lsn, Some(id)), true) = (position, whole) {
                owner
                    .bookkeeping
                    .mark_merged(tx.conn(), owner.epoch, *id, *lsn)
                    .await?;
            }
            Ok(all)
        }
        .await;
        tx.end(result).await
    }
}

/// Fences, and stores where the read models stand.
async fn begin_at(conn: &mut PgConnection, owner: Owner<'_>, position: &MergePosition) -> Result<()> {
    match position {
        MergePosition::Running(lsn, _) => {
            let position = Position {
                lsn: *lsn,
                commit_time: None,
                last: None,
            };
            advance(conn, owner.epoch, &position).await
        }
        MergePosition::Start { lsn, source, as_of } => {
            owner
                .bookkeeping
                .finish_healing(conn, owner.epoch, source, (*lsn, as_of.map(timestamp)))
                .await
        }
    }
}

/// Merges these read models' copies, and tells which were merged by the isolating writer.
///
/// One that is refused, perhaps for want of another lookup's rows, has its turn again if others were merged after it.
async fn merge_each(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    indexes: &[usize],
    rejecting: &HashSet<i32>,
    how: How,
) -> Result<(Vec<Merged>, Vec<usize>)> {
    let mut all: Vec<Merged> = Vec::with_capacity(indexes.len());
    let mut set_apart = Vec::new();
    let mut merges = 0;
    // With the second turn: how many were merged before the first one, and why it was refused.
    let mut turns: VecDeque<(usize, Option<(usize, Error)>)> =
        indexes.iter().map(|index| (*index, None)).collect();
    while let Some((index, before)) = turns.pop_front() {
        let first = before.is_none();
        if let Some((_, error)) = before.filter(|(at_first, _)| *at_first == merges) {
            all.push((index, Err(error)));
            continue;
        }
        let model = model_of(owner.models, index)?;
        let how = How {
            isolating: how.isolating || rejecting.contains(&model.id),
            ..how
        };
        let (merged, isolated) = merge_one(conn, owner, model, how).await?;
        match merged {
            Err(error) if first && error.class() == Class::Refused => {
                turns.push_back((index, Some((merges, error))));
            }
            merged => {
                merges += usize::from(merged.is_ok());
                all.push((index, merged));
                set_apart.extend(isolated.then_some(index));
            }
        }
    }
    Ok((all, set_apart))
}

/// What empties the tables that the merges have used; those that were refused were rolled back.
fn emptied(models: &[Option<TargetModel>], all: &[Merged]) -> Result<String> {
    let mut statements = Vec::new();
    for (index, merged) in all {
        if let Ok(written) = merged {
            let many = written.total + written.deleted > rejected::MANY_ROWS;
            statements.push(model_of(models, *index)?.empty_stage(many, true));
        }
    }
    Ok(statements.join("; "))
}

/// How one copy is merged.
#[derive(Debug, Clone, Copy)]
struct How {
    /// Whether what is written is not drift.
    heals: bool,
    /// Whether to check deferred constraints after it.
    check: bool,
    /// Whether to set refused rows apart from the first.
    isolating: bool,
    lsn: Lsn,
}

/// Merges one copy under a savepoint, and tells whether by the isolating writer; a refusal by the target comes back inside.
async fn merge_one(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    model: &TargetModel,
    how: How,
) -> Result<(Result<Written>, bool)> {
    execute(conn, "SAVEPOINT read_model".to_owned()).await?;
    let mut isolating = how.isolating || has_refused(conn, model).await?;
    loop {
        let merged: Result<Written> = async {
            let written = merge_rows(conn, owner, model, how, isolating).await?;
            owner
                .bookkeeping
                .set_model_state(conn, owner.epoch, model.id, ModelState::InStep, None)
                .await?;
            Ok(written)
        }
        .await;
        match merged {
            Err(error) if matches!(error.class(), Class::Refused | Class::Broken) => {
                execute(conn, "ROLLBACK TO SAVEPOINT read_model".to_owned()).await?;
                if isolating || error.class() == Class::Broken || !model.isolates() {
                    execute(conn, "RELEASE SAVEPOINT read_model".to_owned()).await?;
                    return Ok((Err(error), isolating));
                }
                isolating = true;
            }
            Err(error) => return Err(error),
            Ok(written) => {
                execute(conn, "RELEASE SAVEPOINT read_model".to_owned()).await?;
                return Ok((Ok(written), isolating));
            }
        }
    }
}

/// Whether the lookup's types have refused rows of the copy.
async fn has_refused(conn: &mut PgConnection, model: &TargetModel) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} s WHERE s.state = 'x')",
        model.shadow()
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)
}

async fn merge_rows(
    conn: &mut PgConnection,
    owner: Owner<'_>,
    model: &TargetModel,
    how: How,
    isolating: bool,
) -> Result<Written> {
    let bookkeeping = owner.bookkeeping;
    let mut healed = 0;
    let written = if isolating {
        execute(conn, model.make_map_identity()).await?;
        let mut before = Written::default();
        bookkeeping.read_rejected(conn, model.id, &mut before).await?;
        let call = rejected::How {
            joins: Joins::ReadOnce,
            shadow: true,
            clear: true,
            resolve: false,
            keys: owner.keys,
            again: false,
            lsn: how.lsn,
        };
        let mut written = rejected::call_isolating(conn, model, call).await?;
        bookkeeping.read_rejected(conn, model.id, &mut written).await?;
        // A row that was set apart and is taken now is no drift.
        healed = (before.rejected_in_all - written.rejected_in_all).max(0);
        written
    } else {
        execute(conn, model.make_map_identity_before()).await?;
        let written = call(conn, model, &model.merge_shadow_call(), true, false, owner.keys).await?;
        execute(conn, model.make_map_identity()).await?;
        written
    };
    if how.check {
        check_constraints(conn, "")
            .await
            .map_err(|(error, _)| name(error, model))?;
    }
    // Before the state is set: whether it was in step before tells drift from what was never there.
    let drift = (written.changed() - healed).max(0);
    let waiting = bookkeeping.set_resynced(conn, model.id, drift, how.heals).await?;
    Ok(Written { waiting, ..written })
}
