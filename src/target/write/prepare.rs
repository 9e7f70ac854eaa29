//! What a session makes for its read models before their first batch: staging tables, functions, plans.
//!
//! Each read model takes a dozen statements, and a commit for each would wait for the disk: many are prepared in few
//! transactions. What only some batches need is made before the first of them.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Transaction, Writer, apply_arrays, call, execute};
use crate::batch::Position;
use crate::error::{Class, Result};
use crate::lsn::Lsn;
use crate::target::model::{Joins, TargetModel};

/// Read models that are prepared in one transaction; each takes a dozen locks that are held to its end.
const TOGETHER: usize = 50;

/// Rows written since the last planning after which the session's plans are made anew at the earliest: a plan made for
/// an empty table reads a large one from end to end.
const REPLAN_ROWS: i64 = 1000;

/// Read models that are warmed when a session begins.
const MOST_WARMED: i64 = 8;

/// How long preparing waits for a lookup that is locked, in milliseconds.
const WARM_PATIENCE_MS: u32 = 500;

/// What a session has made, with the number of the read model.
#[derive(Debug, Default)]
pub(super) struct Prepared(HashSet<(i32, Part)>);

/// Something that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// Stage, and the writer that looks rows up.
    Stage,
    /// The writer that reads the tables once.
    MergeReadOnce,
    /// The tables of the isolating run.
    Tries,
    /// The isolating writer.
    Isolate(Joins),
    /// The table of a chunk, and what folds it into the stage.
    Chunk,
}

impl Prepared {
    pub(super) fn has(&self, model: &TargetModel, part: Part) -> bool {
        self.0.contains(&(model.id, part))
    }

    /// It was made in a transaction that was rolled back, or for other columns.
    pub(super) fn forget(&mut self, id: i32) {
        self.0.retain(|(of, _)| *of != id);
    }

    /// Read models that have a stage.
    pub(super) fn staged(&self) -> Vec<i32> {
        let stages = self.0.iter().filter(|(_, part)| *part == Part::Stage);
        stages.map(|(id, _)| *id).collect()
    }
}

impl TargetModel {
    /// The statements that make a part.
    fn statements_of(&self, part: Part) -> Vec<String> {
        let drop = |tables: &[&str]| {
            let tables: Vec<String> = tables
                .iter()
                .map(|table| format!("pg_temp.{table}_{}", self.id))
                .collect();
            format!("DROP TABLE IF EXISTS {}", tables.join(", "))
        };
        match part {
            Part::Stage => {
                let mut all = vec![
                    drop(&["stage", "moving", "touched"]),
                    self.create_stage(),
                    self.merge_function(Joins::LookedUp),
                ];
                all.extend(self.fits_one_statement().then(|| self.apply_function()));
                // A map that an earlier version made has none yet.
                all.push(self.create_rejected());
                all
            }
            Part::MergeReadOnce => vec![self.merge_function(Joins::ReadOnce)],
            Part::Tries => vec![drop(&["tries", "earlier"]), self.create_tries()],
            Part::Isolate(joins) => vec![self.isolate_function(joins)],
            Part::Chunk => vec![drop(&["chunk"]), self.create_chunk(), self.fold_chunk_function()],
        }
    }
}

impl Writer {
    /// Lets the server plan a read model's statements while the stage is empty, in a transaction that is rolled back: the plans are
    /// kept. One that was made for a large batch would read map and lookup from end to end for every small one, and the
    /// first change would wait for the planning.
    ///
    /// What the lookup itself does not let through (a lock, a trigger) is left for the first batch, which tells whose fault it is.
    pub async fn warm(&mut self, index: usize) -> Result<()> {
        self.prepare(index).await?;
        let model = self.model(index)?;
        let left_for_later = |result: Result<()>| match result {
            Err(error) if error.sqlstate().is_some() && error.class() != Class::Fenced => Ok(()),
            result => result,
        };
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let warmed = warm_up(tx.conn(), &model, self.epoch).await;
        execute(tx.conn(), "ROLLBACK".to_owned()).await?;
        left_for_later(warmed)
    }

    /// Makes the session's staging tables and functions for a read model, once.
    pub(super) async fn prepare(&mut self, index: usize) -> Result<()> {
        let model = self.model(index)?;
        if self.prepared.has(&model, Part::Stage) {
            return Ok(());
        }
        self.make(&model, Part::Stage).await?;
        if self.bookkeeping.has_rejected(&mut self.conn, model.id).await? {
            self.rejecting.insert(model.id);
        } else {
            self.rejecting.remove(&model.id);
        }
        Ok(())
    }

    /// The same with these parts.
    pub(super) async fn prepare_with(&mut self, index: usize, parts: &[Part]) -> Result<()> {
        self.prepare(index).await?;
        let model = self.model(index)?;
        for part in parts {
            if !self.prepared.has(&model, *part) {
                self.make(&model, *part).await?;
            }
        }
        Ok(())
    }

    async fn make(&mut self, model: &TargetModel, part: Part) -> Result<()> {
        for sql in model.statements_of(part) {
            execute(&mut self.conn, sql).await?;
        }
        self.prepared.0.insert((model.id, part));
        Ok(())
    }

    /// Lets the server plan again for a batch that needs plans once the tables have doubled.
    pub(super) async fn replan(&mut self, indexes: &[usize], needs_plans: bool) -> Result<()> {
        let grown = self.written_since_planning >= self.planned_rows.max(REPLAN_ROWS);
        if !(grown && needs_plans) {
            return Ok(());
        }
        self.planned_rows += self.written_since_planning;
        self.written_since_planning = 0;
        execute(&mut self.conn, "DISCARD PLANS".to_owned()).await?;
        for index in indexes {
            self.warm(*index).await?;
        }
        Ok(())
    }

    /// Makes the session's staging tables and functions for these read models, and with `merging` those for the merge of exact copies too.
    pub(super) async fn prepare_all(&mut self, indexes: &[usize], merging: bool) -> Result<()> {
        for some in indexes.chunks(TOGETHER) {
            execute(&mut self.conn, "BEGIN".to_owned()).await?;
            let prepared = self.prepare_some(some, merging).await;
            let end = if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = execute(&mut self.conn, end.to_owned()).await;
            if let Err(error) = prepared.and(ended) {
                // What was made before it is gone.
                for index in some {
                    self.forget_prepared(*index)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same for those of a batch that are not prepared yet.
    pub(super) async fn prepare_missing(&mut self, mut indexes: Vec<usize>) -> Result<()> {
        let mut unknown = Ok(());
        indexes.retain(|index| match self.model(*index) {
            Ok(model) => !self.prepared.has(&model, Part::Stage),
            Err(error) => {
                unknown = Err(error);
                false
            }
        });
        unknown?;
        self.prepare_all(&indexes, false).await
    }

    async fn prepare_some(&mut self, indexes: &[usize], merging: bool) -> Result<()> {
        for index in indexes {
            self.prepare(*index).await?;
            if merging {
                self.prepare_with(*index, &[Part::Tries]).await?;
                let model = self.model(*index)?;
                execute(&mut self.conn, model.merge_shadow_function()).await?;
                execute(&mut self.conn, model.isolate_shadow_function()).await?;
            }
        }
        Ok(())
    }

    fn forget_prepared(&mut self, index: usize) -> Result<()> {
        let id = self.model(index)?.id;
        self.prepared.forget(id);
        Ok(())
    }

    /// [`Writer::warm`] for those of these read models that changed last: their next change is the likeliest, and a session with many read
    /// models begins as soon as one with few.
    ///
    /// # Errors
    /// As it.
    pub async fn warm_few(&mut self, indexes: &[usize]) -> Result<()> {
        let last = self.bookkeeping.changed_last(&mut self.conn, MOST_WARMED).await?;
        let id_of = |index: &usize| self.models.get(*index)?.as_ref().map(|model| model.id);
        let few = indexes
            .iter()
            .filter(|index| id_of(index).is_some_and(|id| last.contains(&id)));
        let few: Vec<usize> = few.copied().collect();
        self.make_room(&few).await?;
        self.prepare_missing(few.clone()).await?;
        for index in few {
            self.warm(index).await?;
        }
        Ok(())
    }
}

/// Goes all ways through the writer with nothing to write.
async fn warm_up(conn: &mut PgConnection, model: &TargetModel, epoch: i64) -> Result<()> {
    execute(conn, format!("SET LOCAL lock_timeout = '{WARM_PATIENCE_MS}ms'")).await?;
    // Nothing at all, which is taken for new rows.
    call(conn, model, &model.merge_call(Joins::LookedUp), false, false, 0).await?;
    // A row that nobody has is gone.
    execute(
        conn,
        format!("INSERT INTO {} (state) VALUES ('g')", model.stage()),
    )
    .await?;
    call(conn, model, &model.merge_call(Joins::LookedUp), false, false, 0).await?;
    if model.fits_one_statement() {
        let position = Position {
            lsn: Lsn::ZERO,
            commit_time: None,
            last: None,
        };
        let nothing = vec![Vec::new(); model.stage_width()];
        apply_arrays(conn, model, (epoch, &position), (false, 0), nothing).await?;
    }
    Ok(())
}
