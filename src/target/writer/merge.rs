//! The merge of exact copies: by the writer's own function, with the shadow in place of the stage.

use sqlx::PgConnection;

use super::{
    MergePosition, Merged, Position, Transaction, Writer, Written, advance, call, check_constraints, execute,
    index_of, model_of, name,
};
use crate::error::{Class, Error, Result};
use crate::target::bookkeeping::{Bookkeeping, ModelState};
use crate::target::model::TargetModel;

impl Writer {
    /// Merges exact copies: the lookups and maps become what the shadows hold, and the read models take part from here on.
    /// A read model whose rows the target refuses is left as it was and comes back with its error.
    pub async fn merge(
        &mut self,
        indexes: &[usize],
        position: &MergePosition,
        keys: i32,
    ) -> Result<Vec<Merged>> {
        for index in indexes {
            self.prepare(*index).await?;
            let model = self.model(*index)?;
            execute(&mut self.conn, model.merge_shadow_function()).await?;
        }
        let mut refused: Vec<(usize, Error)> = Vec::new();
        let mut one_by_one = false;
        loop {
            let mut culprit = None;
            let how = (keys, one_by_one);
            match self
                .try_merge(indexes, position, how, &refused, &mut culprit)
                .await
            {
                Ok(mut all) => {
                    let rows = all.iter().filter_map(|(_, merged)| merged.as_ref().ok());
                    self.written_since_planning += rows.map(|written| written.total).sum::<i64>();
                    all.extend(refused.into_iter().map(|(index, error)| (index, Err(error))));
                    return Ok(all);
                }
                // A constraint that is checked last was violated by one of them: the others without it.
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

    async fn try_merge(
        &mut self,
        indexes: &[usize],
        position: &MergePosition,
        (keys, one_by_one): (i32, bool),
        refused: &[(usize, Error)],
        culprit: &mut Option<usize>,
    ) -> Result<Vec<Merged>> {
        let heals = matches!(position, MergePosition::Start(..));
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let result = async {
            match position {
                MergePosition::Running(lsn, _) => {
                    let position = Position {
                        lsn: *lsn,
                        commit_time: None,
                        last: None,
                    };
                    advance(tx.conn(), self.epoch, &position).await?;
                }
                MergePosition::Start(lsn, source) => {
                    self.bookkeeping
                        .finish_healing(tx.conn(), self.epoch, source, *lsn)
                        .await?;
                }
            }
            let mut all = Vec::with_capacity(indexes.len());
            for index in indexes {
                let model = model_of(&self.models, *index)?;
                if let Some((_, error)) = refused.iter().find(|(of, _)| of == index) {
                    if heals {
                        self.bookkeeping
                            .suspend(tx.conn(), self.epoch, model.id, error)
                            .await?;
                    }
                    continue;
                }
                let merged = merge_one(
                    tx.conn(),
                    &self.bookkeeping,
                    self.epoch,
                    model,
                    (keys, heals, one_by_one),
                )
                .await?;
                if let (Err(error), true) = (&merged, heals) {
                    self.bookkeeping
                        .suspend(tx.conn(), self.epoch, model.id, error)
                        .await?;
                }
                all.push((*index, merged));
            }
            if let Err((error, table)) = check_constraints(tx.conn()).await {
                *culprit = table.and_then(|table| index_of(&self.models, &table));
                return Err(error);
            }
            let whole = refused.is_empty() && all.iter().all(|(_, merged)| merged.is_ok());
            if let (MergePosition::Running(lsn, Some(id)), true) = (position, whole) {
                self.bookkeeping.mark_merged(tx.conn(), *id, *lsn).await?;
            }
            Ok(all)
        }
        .await;
        tx.end(result).await
    }
}

/// Merges one copy under a savepoint; a refusal by the target comes back inside.
async fn merge_one(
    conn: &mut PgConnection,
    bookkeeping: &Bookkeeping,
    epoch: i64,
    model: &TargetModel,
    (keys, heals, check): (i32, bool, bool),
) -> Result<Result<Written>> {
    execute(conn, "SAVEPOINT read_model".to_owned()).await?;
    let merged: Result<Written> = async {
        // Everything is compared with everything: each table is read once.
        execute(conn, model.plan_for(usize::MAX)).await?;
        let written = call(conn, model, &model.merge_shadow_call(), true, false, keys).await?;
        if check {
            check_constraints(conn)
                .await
                .map_err(|(error, _)| name(error, model))?;
        }
        // In this order: whether it was in step before tells drift from what was never there.
        bookkeeping
            .set_resynced(conn, model.id, written.changed(), heals)
            .await?;
        bookkeeping
            .set_model_state(conn, epoch, model.id, ModelState::InStep, None)
            .await?;
        Ok(written)
    }
    .await;
    match merged {
        Err(error) if matches!(error.class(), Class::Refused | Class::Broken) => {
            execute(conn, "ROLLBACK TO SAVEPOINT read_model".to_owned()).await?;
            Ok(Err(error))
        }
        Err(error) => Err(error),
        Ok(written) => {
            execute(conn, "RELEASE SAVEPOINT read_model".to_owned()).await?;
            Ok(Ok(written))
        }
    }
}
