//! Keeping the session's staging tables small.
//!
//! They keep their rows at a commit. Emptied by it (`ON COMMIT DELETE ROWS`), each commit would truncate every such table of the
//! session with its indexes and toast table: 3.2 ms for two tables with text columns, 0.17 ms by `DELETE` (measured on 15). So
//! whoever fills a table empties it in the same transaction: by `TRUNCATE` after many rows, else by `DELETE`, whose dead
//! rows are vacuumed from time to time. Autovacuum does not come to temporary tables, and their age would hold up
//! the database's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::merge::Staged;
use super::{ONE_STATEMENT_BYTES, ONE_STATEMENT_ROWS, Writer, execute, model_of};
use crate::error::Result;
use crate::fold::Share;
use crate::target::error::from_sqlx;
use crate::target::model::TargetModel;

/// Dead rows of a read model's staging tables after which they are vacuumed.
const MOST_DEAD_ROWS: usize = 5000;

/// The same, in bytes.
const MOST_DEAD_BYTES: usize = 16 << 20;

/// How long the tables grow older, at most.
const AGE: Duration = Duration::from_secs(6 * 3600);

/// Dead rows of the staging tables, by the number of the read model.
#[derive(Debug)]
pub(super) struct Dead {
    of: HashMap<i32, (usize, usize)>,
    swept_at: Instant,
}

impl Default for Dead {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            swept_at: Instant::now(),
        }
    }
}

impl Dead {
    /// Notes rows that are staged, and will be deleted or rolled back.
    pub(super) fn add(&mut self, model: &TargetModel, rows: Share<'_>) {
        let dead = self.of.entry(model.id).or_default();
        dead.0 = dead.0.saturating_add(rows.len());
        dead.1 = dead.1.saturating_add(rows.bytes());
    }

    /// The tables are gone.
    pub(super) fn forget(&mut self, id: i32) {
        self.of.remove(&id);
    }

    /// Notes that the tables were truncated.
    pub(super) fn truncated(&mut self, model: &TargetModel) {
        self.of.remove(&model.id);
    }

    /// Read models of these whose tables have too many of them; they have none then.
    fn take_due(&mut self, ids: &[i32]) -> Vec<i32> {
        let due = |id: &&i32| {
            self.of
                .get(id)
                .is_some_and(|(rows, bytes)| *rows > MOST_DEAD_ROWS || *bytes > MOST_DEAD_BYTES)
        };
        let due: Vec<i32> = ids.iter().filter(due).copied().collect();
        for id in &due {
            self.of.remove(id);
        }
        due
    }
}

/// Whether this is written so that the tables are truncated after it.
fn is_large(one: &Staged) -> bool {
    one.rows > ONE_STATEMENT_ROWS || one.bytes > ONE_STATEMENT_BYTES
}

/// What empties the tables after these read models, at the end of the transaction.
pub(super) fn empty(staged: &[Staged], models: &[&TargetModel], isolating: bool) -> String {
    let statements = staged.iter().zip(models);
    let statements = statements.map(|(one, model)| model.empty_stage(is_large(one), isolating));
    statements.collect::<Vec<_>>().join("; ")
}

impl Writer {
    /// Notes that a transaction has committed: those of these read models that had many rows have truncated their tables.
    pub(super) fn note_emptied(&mut self, staged: &[Staged]) {
        for one in staged.iter().filter(|one| is_large(one)) {
            if let Ok(model) = model_of(&self.models, one.index) {
                self.dead.truncated(model);
            }
        }
    }

    /// Vacuums the staging tables of those of these read models that have many dead rows.
    pub(super) async fn sweep(&mut self, indexes: &[usize]) -> Result<()> {
        let ids: Vec<i32> = indexes
            .iter()
            .filter_map(|index| Some(self.models.get(*index)?.as_ref()?.id))
            .collect();
        let due = self.dead.take_due(&ids);
        if due.is_empty() {
            return Ok(());
        }
        self.vacuum(&due).await
    }

    /// Vacuums all staging tables, if that was long ago.
    pub(super) async fn sweep_all(&mut self) -> Result<()> {
        if self.dead.swept_at.elapsed() < AGE {
            return Ok(());
        }
        let all = self.prepared.staged();
        self.dead = Dead::default();
        self.vacuum(&all).await
    }

    async fn vacuum(&mut self, ids: &[i32]) -> Result<()> {
        let tables: Vec<String> = sqlx::query_scalar(AssertSqlSafe(
            "SELECT pg_catalog.format('pg_temp.%I', c.relname) FROM pg_catalog.pg_class c \
             WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind = 'r' \
             AND pg_catalog.split_part(c.relname, '_', 2) = ANY ($1::integer[]::text[])"
                .to_owned(),
        ))
        .bind(ids)
        .fetch_all(&mut self.conn)
        .await
        .map_err(from_sqlx)?;
        if tables.is_empty() {
            return Ok(());
        }
        execute(&mut self.conn, format!("VACUUM {}", tables.join(", "))).await
    }
}
