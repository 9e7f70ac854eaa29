//! Creates what a session needs for its read models before their first batch: staging tables,
//! functions, plans.
//!
//! Each read model takes a dozen statements, and a commit for each would wait for the disk: many
//! are prepared in few transactions. What only some batches need is created before the first of
//! them.

use super::calls::{self, ApplyOptions, MergeOptions};
use super::needs::Need;
use super::room::drop_all;
use super::session::Session;
use super::way::{Size, needs_plans};
use crate::batch::{Batch, Position};
use crate::connect::Connection;
use crate::error::{Class, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelIndex;
use crate::target::model::{Joins, TargetModel};
use crate::target::statement::{Transaction, execute};

/// Read models that are prepared in one transaction; each takes a dozen locks that are held to its
/// end.
const TOGETHER: usize = 50;

/// Read models that are warmed when a session begins.
const MOST_WARMED: i64 = 8;

/// How long preparing waits for a lookup that is locked, in milliseconds.
const WARM_PATIENCE_MS: u32 = 500;

/// What read models are prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Batches of the stream.
    Batches,
    /// The merge of exact copies too.
    Copies,
}

impl Session {
    /// Lets the server plan a read model's statements while the stage is empty, in a transaction
    /// that is rolled back: the plans are kept. A plan made for a large batch would read all of map
    /// and lookup for every small batch, and the first change would wait for the planning.
    ///
    /// An error of the lookup itself (a lock, a trigger) is left to the first batch, which reports
    /// its cause.
    pub(super) async fn warm(&mut self, index: ModelIndex) -> Result<()> {
        self.prepare(index).await?;
        let model = self.models.get(index)?;
        let set = format!("SET LOCAL lock_timeout = '{WARM_PATIENCE_MS}ms'");
        let mut tx = Transaction::begin_with(&mut self.conn, &set).await?;
        let warmed = warm_up(tx.conn(), model, self.epoch).await;
        execute(tx.conn(), "ROLLBACK".to_owned()).await?;
        match warmed {
            Err(error) if error.sqlstate().is_some() && error.class() != Class::Fenced => Ok(()),
            warmed => warmed,
        }
    }

    /// Warms those of these read models that changed last: their next change is the likeliest, and
    /// a session with many read models begins as soon as one with few.
    pub(super) async fn warm_few(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        let last = self
            .bookkeeping
            .changed_last(&mut self.conn, MOST_WARMED)
            .await?;
        let changed = |index: &&ModelIndex| {
            let model = self.models.get(**index);
            model.is_ok_and(|model| last.contains(&model.id))
        };
        let few: Vec<ModelIndex> = indexes.iter().filter(changed).copied().collect();
        self.make_room(&few).await?;
        self.prepare_missing(&few).await?;
        for index in few {
            self.warm(index).await?;
        }
        Ok(())
    }

    /// Creates the session's staging tables and functions for a read model, once.
    async fn prepare(&mut self, index: ModelIndex) -> Result<()> {
        let id = self.models.get(index)?.id;
        if self.prepared.has(id, Need::Stage) {
            return Ok(());
        }
        self.make(index, Need::Stage).await?;
        let has_rejected = self.bookkeeping.has_rejected(&mut self.conn, id).await?;
        self.learned.note_rejected(id, has_rejected);
        Ok(())
    }

    /// The same with these needs.
    pub(super) async fn prepare_with(&mut self, index: ModelIndex, needs: &[Need]) -> Result<()> {
        self.prepare(index).await?;
        let id = self.models.get(index)?.id;
        for need in needs {
            if !self.prepared.has(id, *need) {
                self.make(index, *need).await?;
            }
        }
        Ok(())
    }

    async fn make(&mut self, index: ModelIndex, need: Need) -> Result<()> {
        let model = self.models.get(index)?;
        execute(&mut self.conn, need.statements(model).join(";\n")).await?;
        self.prepared.note(model.id, need);
        Ok(())
    }

    /// Makes the session ready for a batch: tables that are small, plans that fit, and what its
    /// read models lack.
    pub(super) async fn prepare_batch(&mut self, batch: &Batch) -> Result<()> {
        let indexes: Vec<ModelIndex> = batch.folds.iter().map(|(index, _)| *index).collect();
        self.make_room(&indexes).await?;
        self.sweep(&indexes).await?;
        // A plan for an empty table would read all of a large one.
        if self.learned.have_tables_doubled() && needs_plans(batch) {
            self.plan_again(&indexes).await?;
        }
        self.prepare_missing(&indexes).await?;
        for (index, fold) in &batch.folds {
            if !Size::of(fold.all()).has_few_rows() || fold.clear() {
                self.prepare_with(*index, &[Need::MergeReadOnce]).await?;
            }
        }
        Ok(())
    }

    async fn plan_again(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        self.learned.note_planning();
        self.execute("DISCARD PLANS").await?;
        for index in indexes {
            self.warm(*index).await?;
        }
        Ok(())
    }

    /// Creates the session's staging tables and functions for these read models.
    pub(super) async fn prepare_all(
        &mut self,
        indexes: &[ModelIndex],
        purpose: Purpose,
    ) -> Result<()> {
        for together in indexes.chunks(TOGETHER) {
            self.execute("BEGIN").await?;
            let prepared = self.prepare_together(together, purpose).await;
            let end = if prepared.is_ok() {
                "COMMIT"
            } else {
                "ROLLBACK"
            };
            let ended = self.execute(end).await;
            if let Err(error) = prepared.and(ended) {
                // What was created before it is rolled back.
                for index in together {
                    self.prepared.forget(self.models.get(*index)?.id);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same for those of a batch that are not prepared yet.
    pub(super) async fn prepare_missing(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        let mut missing = Vec::new();
        for index in indexes {
            let id = self.models.get(*index)?.id;
            if !self.prepared.has(id, Need::Stage) {
                missing.push(*index);
            }
        }
        self.prepare_all(&missing, Purpose::Batches).await
    }

    async fn prepare_together(&mut self, indexes: &[ModelIndex], purpose: Purpose) -> Result<()> {
        for index in indexes {
            self.prepare(*index).await?;
            if purpose == Purpose::Copies {
                self.prepare_with(*index, &[Need::Tries]).await?;
                let model = self.models.get(*index)?;
                let functions = [
                    model.merge_shadow_function(),
                    model.isolate_shadow_function(),
                ];
                execute(&mut self.conn, functions.join(";\n")).await?;
            }
        }
        Ok(())
    }

    /// Drops tables and functions of other read models, so that there is room for these. Not while
    /// chunks are staged.
    pub(super) async fn make_room(&mut self, indexes: &[ModelIndex]) -> Result<()> {
        let ids = self.models.ids(indexes);
        // Each in a transaction of its own: the locks of one at a time.
        for id in self.room.leaving(&ids) {
            self.execute(drop_all(id)).await?;
            self.prepared.forget(id);
            self.learned.dead.forget(id);
            self.room.left(id);
        }
        self.room.note(&ids);
        Ok(())
    }
}

/// Runs every branch of the functions with nothing to write.
async fn warm_up(conn: &mut Connection, model: &TargetModel, epoch: i64) -> Result<()> {
    let (nothing, call) = (MergeOptions::default(), model.merge_call(Joins::LookedUp));
    // Nothing at all, which counts as new rows.
    let first = calls::send_merge(conn, model, call.clone(), nothing).await?;
    // A row that does not exist is gone.
    let gone = format!("INSERT INTO {} (state) VALUES ('g')", model.stage());
    let gone = calls::send_script(conn, gone);
    let second = calls::send_merge(conn, model, call, nothing).await?;
    for sent in [first, gone, second] {
        sent.answer().await.map_err(|failure| failure.error)?;
    }
    if model.fits_one_statement() {
        let position = Position {
            lsn: Lsn::ZERO,
            commit_time: None,
            last: None,
        };
        let options = ApplyOptions {
            epoch,
            position: &position,
            resolve: false,
            keys: 0,
        };
        let no_rows = vec![Vec::new(); model.stage_width()];
        calls::apply(conn, model, options, no_rows).await?;
    }
    Ok(())
}
