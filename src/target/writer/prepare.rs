//! What a session makes for its read models before their first batch: staging tables, functions, plans.
//!
//! Each read model takes a dozen statements, and a commit for each would wait for the disk: many are prepared in few
//! transactions.

use sqlx::PgConnection;

use super::{Position, Transaction, Writer, apply_arrays, call, execute};
use crate::error::{Class, Result};
use crate::lsn::Lsn;
use crate::target::model::TargetModel;

/// Read models that are prepared in one transaction; each takes a dozen locks that are held to its end.
const TOGETHER: usize = 50;

/// Rows written since the last planning after which the session's plans are made anew at the earliest: a plan made for
/// an empty table reads a large one from end to end.
const REPLAN_ROWS: i64 = 1000;

/// How long preparing waits for a lookup that is locked, in milliseconds.
const WARM_PATIENCE_MS: u32 = 500;

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
        left_for_later(execute(&mut self.conn, model.analyze_map()).await)?;
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let warmed = warm_up(tx.conn(), &model, self.epoch).await;
        execute(tx.conn(), "ROLLBACK".to_owned()).await?;
        left_for_later(warmed)
    }

    /// Makes the session's staging tables and functions for a read model, once.
    pub(super) async fn prepare(&mut self, index: usize) -> Result<()> {
        let model = self.model(index)?;
        if self.prepared.contains(&model.id) {
            return Ok(());
        }
        let drop = format!(
            "DROP TABLE IF EXISTS pg_temp.stage_{id}, pg_temp.moving_{id}, pg_temp.touched_{id}",
            id = model.id
        );
        execute(&mut self.conn, drop).await?;
        execute(&mut self.conn, model.create_stage()).await?;
        execute(&mut self.conn, model.merge_function()).await?;
        if model.fits_one_statement() {
            execute(&mut self.conn, model.apply_function()).await?;
        }
        // A map that an earlier version made has none yet.
        execute(&mut self.conn, model.create_rejected()).await?;
        if self.bookkeeping.has_rejected(&mut self.conn, model.id).await? {
            self.rejecting.insert(model.id);
        } else {
            self.rejecting.remove(&model.id);
        }
        self.prepared.insert(model.id);
        Ok(())
    }

    /// Lets the server plan anew for a batch that needs plans once the tables have doubled, and after many rows at once that
    /// were set apart in part.
    pub(super) async fn replan(&mut self, indexes: &[usize], needs_plans: bool) -> Result<()> {
        let grown = self.written_since_planning >= self.planned_rows.max(REPLAN_ROWS);
        if !(self.replan_soon || grown && needs_plans) {
            return Ok(());
        }
        self.replan_soon = false;
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
            Ok(model) => !self.prepared.contains(&model.id),
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
                let model = self.model(*index)?;
                execute(&mut self.conn, model.merge_shadow_function()).await?;
                self.prepare_isolation(*index).await?;
                execute(&mut self.conn, model.isolate_shadow_function()).await?;
            }
        }
        Ok(())
    }

    fn forget_prepared(&mut self, index: usize) -> Result<()> {
        let id = self.model(index)?.id;
        self.prepared.remove(&id);
        self.isolation_prepared.remove(&id);
        self.chunks_prepared.remove(&id);
        Ok(())
    }

    /// [`Writer::warm`] for several read models.
    ///
    /// # Errors
    /// As it.
    pub async fn warm_all(&mut self, indexes: &[usize]) -> Result<()> {
        self.prepare_missing(indexes.to_vec()).await?;
        for index in indexes {
            self.warm(*index).await?;
        }
        Ok(())
    }
}

/// Goes all ways through the writer with nothing to write.
async fn warm_up(conn: &mut PgConnection, model: &TargetModel, epoch: i64) -> Result<()> {
    execute(conn, format!("SET LOCAL lock_timeout = '{WARM_PATIENCE_MS}ms'")).await?;
    // Nothing at all, which is taken for new rows.
    call(conn, model, &model.merge_call(), false, false, 0).await?;
    // A row that nobody has is gone.
    execute(
        conn,
        format!("INSERT INTO {} (state) VALUES ('g')", model.stage()),
    )
    .await?;
    call(conn, model, &model.merge_call(), false, false, 0).await?;
    if model.fits_one_statement() {
        let position = Position {
            lsn: Lsn::ZERO,
            commit_time: None,
            last: None,
        };
        let nothing = vec![Vec::new(); model.stage_width()];
        apply_arrays(conn, model, (epoch, &position), (false, false, 0), nothing).await?;
    }
    Ok(())
}
