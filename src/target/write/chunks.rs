//! A transaction that is too large to be kept in memory: it is staged chunk by chunk, in one transaction of the target that stays
//! open, and merged once, with the last chunk. Nothing of it is seen before.
//!
//! Chunks of nothing but new rows that come before all others go past the stage (`new_rows.rs`), as if they were a batch of
//! their own. Later ones are added to the stage as they are; any other is folded into it by the server
//! (`sql/target/fold_chunk.sql`), by the rule of [`Fold`].

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, PgConnection};

use super::merge::{self, Owner, Staged};
use super::prepare::Part;
use super::{Transaction, Writer, execute, model_of, name};
use crate::batch::{Batch, Written};
use crate::error::{Class, Error, Result};
use crate::fold::Fold;
use crate::target::error::from_sqlx;
use crate::target::model::{Joins, MOST_REJECTED, TargetModel};
use crate::target::write::halving::{self, Refused};

/// What a read model needs that has rows in chunks, whatever they turn out to be.
const PARTS: [Part; 5] = [
    Part::MergeReadOnce,
    Part::Tries,
    Part::Isolate(Joins::LookedUp),
    Part::Isolate(Joins::ReadOnce),
    Part::Chunk,
];

/// The chunks that are staged and wait for the end of their transaction.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    count: u64,
    staged: Vec<Staged>,
    /// What went past the stage.
    new_rows: Vec<(usize, Written)>,
    /// Read models whose staging tables were made in the transaction that is open.
    made: HashSet<i32>,
}

impl Writer {
    /// Stages the next chunk of a transaction whose end is to come. The batch that has it says how many chunks there were.
    ///
    /// # Errors
    /// As [`Writer::apply`]; what was staged before is gone then.
    pub async fn stage_chunk(&mut self, folds: &[(usize, Fold)]) -> Result<()> {
        self.culprit = None;
        let staged = self.add_chunk(folds).await;
        if staged.is_err() {
            // The first error is the one to tell; a connection that is gone has rolled back by itself.
            let _ = self.abandon_chunks().await;
        }
        staged
    }

    /// Forgets what was staged of a transaction whose end does not come.
    pub async fn abandon_chunks(&mut self) -> Result<()> {
        let chunks = std::mem::take(&mut self.chunks);
        if chunks.count == 0 {
            return Ok(());
        }
        for id in chunks.made {
            self.prepared.forget(id);
        }
        execute(&mut self.conn, "ROLLBACK".to_owned()).await
    }

    async fn add_chunk(&mut self, folds: &[(usize, Fold)]) -> Result<()> {
        if self.chunks.count == 0 {
            for (index, _) in folds {
                self.prepare_chunks(*index).await?;
            }
            execute(&mut self.conn, "BEGIN".to_owned()).await?;
        }
        self.chunks.count += 1;
        for (index, fold) in folds.iter().filter(|(_, fold)| !fold.is_empty()) {
            self.prepare_chunks(*index).await?;
            let added = match self.write_new_rows(*index, fold).await {
                Ok(false) => self.add_to_stage(*index, fold).await,
                result => result.map(|_| ()),
            };
            added.inspect_err(|error| self.blame(*index, error))?;
        }
        Ok(())
    }

    /// Writes a chunk of new rows past the stage, and tells whether it could: not behind what is staged already, which may say
    /// something else of the same rows, and not while rows of the read model are set apart.
    async fn write_new_rows(&mut self, index: usize, fold: &Fold) -> Result<bool> {
        let model = model_of(&self.models, index)?;
        if self.chunks.staged.iter().any(|one| one.index == index) || self.rejecting.contains(&model.id) {
            return Ok(false);
        }
        let how = (self.report_keys, true);
        let written = self.new_rows.write(&mut self.conn, model, fold, how).await?;
        let Some(written) = written else {
            return Ok(false);
        };
        merge::add_written(&mut self.chunks.new_rows, index, written, self.report_keys);
        Ok(true)
    }

    /// Makes the tables and functions for chunks of a read model, once a session.
    async fn prepare_chunks(&mut self, index: usize) -> Result<()> {
        let model = self.model(index)?;
        if self.chunks.count > 0 && PARTS.iter().any(|part| !self.prepared.has(&model, *part)) {
            self.chunks.made.insert(model.id);
        }
        // Also where the read model stops at a refused row: another one of the transaction may have some.
        self.prepare_with(index, &PARTS).await
    }

    async fn add_to_stage(&mut self, index: usize, fold: &Fold) -> Result<()> {
        let model = model_of(&self.models, index)?;
        // In the order in which they came: one lookup may refer to another.
        if !self.chunks.staged.iter().any(|one| one.index == index) {
            self.chunks.staged.push(Staged::none(index));
        }
        let Some(staged) = self.chunks.staged.iter_mut().find(|one| one.index == index) else {
            return Ok(());
        };
        let first = *staged == Staged::none(index);
        let as_it_is = first || fold.only_new();
        let table = if as_it_is { model.stage() } else { model.chunk() };
        // Of those that chunks before had, some may be right by now.
        let mut refused = Refused {
            live: 0,
            ..staged.refused
        };
        halving::stage_taken(&mut self.conn, model, &table, fold, &mut refused)
            .await
            .map_err(|error| name(error, model))?;
        if !as_it_is {
            fold_in(&mut self.conn, model, fold, staged.clear).await?;
        }
        staged.add(fold.all());
        staged.refused.dead = refused.dead;
        staged.refused.live = if fold.clear() { 0 } else { staged.refused.live } + refused.live;
        // Some may be refused again, others not any more: counted only when it matters.
        if staged.refused.live > MOST_REJECTED {
            staged.refused.live = count_refused(&mut self.conn, model).await?;
        }
        self.dead.add(model, fold.all());
        Ok(())
    }

    /// Writes a batch that begins with staged chunks, and its checkpoint.
    pub(super) async fn apply_chunked(&mut self, batch: &Batch) -> Result<Vec<(usize, Written)>> {
        let mut written = match self.finish_chunks(batch).await {
            Ok(written) => written,
            Err(error) => {
                let _ = self.abandon_chunks().await;
                return Err(error);
            }
        };
        let chunks = std::mem::take(&mut self.chunks);
        execute(&mut self.conn, "COMMIT".to_owned()).await?;
        self.note_emptied(&chunks.staged);
        for (index, new_rows) in chunks.new_rows {
            merge::add_written(&mut written, index, new_rows, self.report_keys);
        }
        Ok(written)
    }

    /// Read models that cannot take the transaction leave before it. Rows of theirs went past the stage, so that all of it is
    /// undone, and the transaction comes again for the others.
    async fn leave(&mut self, batch: &Batch) -> Result<Vec<(usize, Written)>> {
        self.abandon_chunks().await?;
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let suspended = async {
            for (index, error) in &batch.suspended {
                let id = model_of(&self.models, *index)?.id;
                self.bookkeeping.suspend(tx.conn(), self.epoch, id, error).await?;
            }
            Ok(())
        }
        .await;
        tx.end(suspended).await?;
        Err(Error::transient(
            "a read model was suspended in the middle of a large transaction, which is read again for the others",
        ))
    }

    async fn finish_chunks(&mut self, batch: &Batch) -> Result<Vec<(usize, Written)>> {
        if batch.chunks != self.chunks.count {
            return Err(Error::new(
                Class::Transient,
                format!(
                    "{} chunks of a large transaction were to be there, found {}",
                    batch.chunks, self.chunks.count
                ),
            ));
        }
        let goes = |index: usize| batch.suspended.iter().any(|(of, _)| *of == index);
        if self.chunks.new_rows.iter().any(|(index, _)| goes(*index)) {
            return self.leave(batch).await;
        }
        self.add_chunk(&batch.folds).await?;
        for one in &self.chunks.staged {
            let drop = model_of(&self.models, one.index)?.drop_stage_index();
            execute(&mut self.conn, drop).await?;
        }
        let owner = Owner {
            models: &self.models,
            bookkeeping: &self.bookkeeping,
            epoch: self.epoch,
            keys: self.report_keys,
        };
        merge::advance(&mut self.conn, owner, batch).await?;
        for (index, new_rows) in &self.chunks.new_rows {
            let count = model_of(&self.models, *index)?.count_new(new_rows.inserted);
            execute(&mut self.conn, count).await?;
        }
        // A read model that cannot take the transaction leaves before it.
        let staged = self.chunks.staged.iter().filter(|one| !goes(one.index));
        let staged: Vec<Staged> = staged.copied().collect();
        let mut current = None;
        let of = |one: &Staged| model_of(owner.models, one.index);
        let mut has_refused = false;
        for one in &staged {
            let model = of(one)?;
            // Later chunks may have put right what was refused.
            has_refused |= self.rejecting.contains(&model.id)
                || one.refused.live > 0 && count_refused(&mut self.conn, model).await? > 0;
        }
        if !has_refused {
            execute(&mut self.conn, "SAVEPOINT chunks".to_owned()).await?;
            let whole = (batch, staged.len() == 1);
            let merged = merge::merge(&mut self.conn, owner, &staged, whole, &mut current).await;
            let isolates = staged.iter().any(|one| of(one).is_ok_and(TargetModel::isolates));
            match merged {
                Err(error) if error.class() == Class::Refused && isolates => {
                    execute(&mut self.conn, "ROLLBACK TO SAVEPOINT chunks".to_owned()).await?;
                }
                merged => return self.note_written(merged, current),
            }
        }
        let written = merge::isolate(&mut self.conn, owner, &staged, batch, &mut current).await;
        let all = self.note_written(written, current)?;
        self.note_rejecting(&all)?;
        Ok(all)
    }
}

/// Live rows in the stage that a type of the lookup refuses.
///
/// # Errors
/// [`Class::Refused`] if they are more than are set apart.
async fn count_refused(conn: &mut PgConnection, model: &TargetModel) -> Result<i64> {
    let (rows, sqlstate): (i64, Option<String>) = sqlx::query_as(AssertSqlSafe(model.count_refused()))
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)?;
    halving::assert_few(rows, sqlstate.as_deref()).map_err(|error| name(error, model))?;
    Ok(rows)
}

/// Folds the chunk's rows into the stage; `cleared` tells whether a chunk before held a TRUNCATE.
async fn fold_in(conn: &mut PgConnection, model: &TargetModel, fold: &Fold, cleared: bool) -> Result<()> {
    sqlx::query(AssertSqlSafe(model.fold_chunk_call()))
        .bind(fold.clear())
        .bind(cleared)
        .bind(fold.has_unchanged())
        .execute(conn)
        .await
        .map_err(|error| name(from_sqlx(error), model))?;
    Ok(())
}
