//! The isolating run: a batch with rows that the target refuses is written again in the same way but for those rows, which
//! are set apart (`sql/target/isolate.sql`). A read model that has such rows is always written so.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::merge::{self, Owner, Staged};
use super::prepare::Part;
use super::{Transaction, Writer, model_of, name, read_written};
use crate::batch::Rejected;
use crate::batch::{Batch, Written};
use crate::error::Result;
use crate::fold::Fold;
use crate::lsn::Lsn;
use crate::target::bookkeeping::Bookkeeping;
use crate::target::error::from_sqlx;
use crate::target::model::{Joins, TargetModel};
use crate::target::write::halving;

/// How often rows that were refused are tried once more after other lookups have changed.
const MOST_ROUNDS: usize = 2;

/// More live rows than this in a copy are many: the tables that it filled are truncated.
pub(super) const MANY_ROWS: i64 = 500;

/// Rows that are set apart that are named of all of them.
const NAMED_REJECTED: usize = 20;

/// How the isolating writer is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) joins: Joins,
    pub(super) shadow: bool,
    pub(super) clear: bool,
    pub(super) resolve: bool,
    pub(super) keys: i32,
    /// Try the refused rows of this batch once more.
    pub(super) again: bool,
    pub(super) lsn: Lsn,
}

/// How the isolating run joins; `clear` is whether all rows of map and lookup take part.
pub(super) fn joins_of(clear: bool) -> Joins {
    if clear { Joins::ReadOnce } else { Joins::LookedUp }
}

impl Writer {
    /// Whether a batch of these read models must be written by the isolating run.
    pub(super) fn has_rejected(&self, batch: &Batch) -> bool {
        batch.folds.iter().any(|(index, _)| {
            model_of(&self.models, *index).is_ok_and(|model| self.rejecting.contains(&model.id))
        })
    }

    /// Whether any read model of the batch has its refused rows set apart.
    pub(super) fn isolates(&self, batch: &Batch) -> bool {
        batch
            .folds
            .iter()
            .any(|(index, _)| model_of(&self.models, *index).is_ok_and(TargetModel::isolates))
    }

    /// Writes a batch and sets the rows apart that the target refuses.
    pub(super) async fn apply_isolating(&mut self, batch: &Batch) -> Result<Vec<(usize, Written)>> {
        self.culprit = None;
        let folds: Vec<&(usize, Fold)> = batch.folds.iter().filter(|(_, fold)| !fold.is_empty()).collect();
        for (index, fold) in &folds {
            let mut parts = vec![Part::Tries, Part::Isolate(joins_of(fold.clear()))];
            // Its rows may be tried once more after another lookup has changed.
            parts.extend((folds.len() > 1).then_some(Part::Isolate(Joins::LookedUp)));
            self.prepare_with(*index, &parts).await?;
        }
        let owner = Owner {
            models: &self.models,
            bookkeeping: &self.bookkeeping,
            epoch: self.epoch,
            keys: self.report_keys,
        };
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let mut current = None;
        let mut all = Vec::with_capacity(folds.len());
        let result = async {
            merge::advance(tx.conn(), owner, batch).await?;
            for (index, fold) in &folds {
                current = Some(*index);
                let model = model_of(owner.models, *index)?;
                let mut staged = Staged::none(*index);
                staged.add(fold.all());
                self.dead.add(model, fold.all());
                halving::stage_taken(tx.conn(), model, &model.stage(), fold, &mut staged.refused)
                    .await
                    .map_err(|error| name(error, model))?;
                all.push(staged);
            }
            merge::isolate(tx.conn(), owner, &all, batch, &mut current).await
        }
        .await;
        let result = tx.end(result).await;
        if result.is_ok() {
            self.note_emptied(&all);
        }
        let all = self.note_written(result, current)?;
        self.note_rejecting(&all)?;
        Ok(all)
    }

    /// Remembers which read models have rows that are set apart, once it is committed.
    pub(super) fn note_rejecting(&mut self, all: &[(usize, Written)]) -> Result<()> {
        for (index, written) in all {
            let id = model_of(&self.models, *index)?.id;
            if written.rejected_in_all > 0 {
                self.rejecting.insert(id);
            } else {
                self.rejecting.remove(&id);
            }
        }
        Ok(())
    }
}

/// Calls the isolating writer over the stage or the shadow.
pub(super) async fn call_isolating(
    conn: &mut PgConnection,
    model: &TargetModel,
    how: How,
) -> Result<Written> {
    let row = sqlx::query(AssertSqlSafe(model.isolate_call(how.joins, how.shadow)))
        .bind(how.clear)
        .bind(how.resolve)
        .bind(how.keys)
        .bind(model.isolates())
        .bind(how.again)
        .bind(how.lsn.to_string())
        .fetch_one(conn)
        .await
        .map_err(|error| name(from_sqlx(error), model))?;
    Ok(Written {
        refused: row.try_get(7).map_err(from_sqlx)?,
        ..read_written(&row)?
    })
}

impl Bookkeeping {
    /// Rows of one lookup may have been refused for want of another one's rows, which are there by now, or because of them.
    pub(super) async fn retry(
        &self,
        conn: &mut PgConnection,
        models: &[Option<TargetModel>],
        mut all: Vec<(usize, &mut Written)>,
        (current, shadow, lsn): (&mut Option<usize>, bool, Lsn),
    ) -> Result<()> {
        let mut before = None;
        for _ in 0..MOST_ROUNDS {
            let refused: i64 = all.iter().map(|(_, written)| written.refused).sum();
            if refused == 0 || before == Some(refused) {
                break;
            }
            before = Some(refused);
            for (index, written) in all.iter_mut() {
                *current = Some(*index);
                let how = How {
                    joins: Joins::LookedUp,
                    shadow,
                    clear: false,
                    resolve: false,
                    keys: 0,
                    again: true,
                    lsn,
                };
                let more = call_isolating(conn, model_of(models, *index)?, how).await?;
                written.inserted += more.inserted;
                written.updated += more.updated;
                written.deleted += more.deleted;
                written.refused = more.refused;
            }
        }
        if before.is_some() {
            for (index, written) in &mut all {
                self.read_rejected(conn, model_of(models, *index)?.id, written)
                    .await?;
            }
        }
        Ok(())
    }

    /// The rows that this transaction has set apart, and how many there are in all.
    pub(super) async fn read_rejected(
        &self,
        conn: &mut PgConnection,
        id: i32,
        written: &mut Written,
    ) -> Result<()> {
        let sql = format!(
            "SELECT key, identity, sqlstate, constraint_name, column_name, refused_at = now() AS new \
             FROM {}.rejection WHERE read_model = $1 ORDER BY n",
            self.schema()
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_all(conn)
            .await
            .map_err(from_sqlx)?;
        written.rejected_in_all = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        written.rejected.clear();
        written.first_rejected.clear();
        for row in rows {
            let rejected = Rejected {
                key: row.try_get("key").map_err(from_sqlx)?,
                identity: row.try_get("identity").map_err(from_sqlx)?,
                sqlstate: row.try_get("sqlstate").map_err(from_sqlx)?,
                constraint: row.try_get("constraint_name").map_err(from_sqlx)?,
                column: row.try_get("column_name").map_err(from_sqlx)?,
            };
            if written.first_rejected.len() < NAMED_REJECTED {
                written.first_rejected.push(rejected.clone());
            }
            if row.try_get("new").map_err(from_sqlx)? {
                written.rejected.push(rejected);
            }
        }
        Ok(())
    }
}
