//! Keeping the session's staging tables small.
//!
//! They keep their rows at a commit. With `ON COMMIT DELETE ROWS`, each commit would truncate every
//! such table of the session with its indexes and toast table: 3.2 ms for two tables with text
//! columns, 0.17 ms by `DELETE` (measured on 15). So the transaction that fills a table also
//! empties it: by `TRUNCATE` after many rows, else by `DELETE`, whose dead rows are vacuumed from
//! time to time. Autovacuum does not process temporary tables, and their age would hold back that
//! of the database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::calls;
use super::way::Size;
use crate::connect::Connection;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::statement::execute;

/// Dead rows of a read model's staging tables after which they are vacuumed.
const MOST_DEAD_ROWS: usize = 5000;

/// The same, in bytes.
const MOST_DEAD_BYTES: usize = 16 << 20;

/// How long the tables grow older, at most.
const AGE: Duration = Duration::from_secs(6 * 3600);

/// Dead rows of the staging tables, by the number of the read model.
#[derive(Debug)]
pub(super) struct Dead {
    of: HashMap<ModelId, Size>,
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
    pub(super) fn add(&mut self, id: ModelId, rows: Size) {
        self.of.entry(id).or_default().add(rows);
    }

    /// Notes that the tables were dropped or truncated.
    pub(super) fn forget(&mut self, id: ModelId) {
        self.of.remove(&id);
    }

    /// Read models of these whose tables have too many of them; they have none then.
    fn take_due(&mut self, ids: &[ModelId]) -> Vec<ModelId> {
        let due = |id: &&ModelId| {
            self.of
                .get(id)
                .is_some_and(|dead| dead.rows > MOST_DEAD_ROWS || dead.bytes > MOST_DEAD_BYTES)
        };
        let due: Vec<ModelId> = ids.iter().filter(due).copied().collect();
        for id in &due {
            self.of.remove(id);
        }
        due
    }

    /// Vacuums the staging tables of those of these read models that have many dead rows.
    pub(super) async fn sweep(&mut self, conn: &mut Connection, ids: &[ModelId]) -> Result<()> {
        let due = self.take_due(ids);
        if due.is_empty() {
            return Ok(());
        }
        vacuum(conn, &due).await
    }

    /// Vacuums the staging tables of all these read models, if that was long ago.
    pub(super) async fn sweep_all(&mut self, conn: &mut Connection, ids: &[ModelId]) -> Result<()> {
        if self.swept_at.elapsed() < AGE {
            return Ok(());
        }
        *self = Self::default();
        vacuum(conn, ids).await
    }
}

async fn vacuum(conn: &mut Connection, ids: &[ModelId]) -> Result<()> {
    let tables = calls::session_tables(conn, ids).await?;
    if tables.is_empty() {
        return Ok(());
    }
    execute(conn, format!("VACUUM {}", tables.join(", "))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[i32]) -> Vec<ModelId> {
        numbers.iter().copied().map(ModelId).collect()
    }

    #[test]
    fn tables_with_many_dead_rows_are_due_once() {
        let mut dead = Dead::default();
        for (id, rows, bytes) in [
            (1, 5000, 16 << 20),
            (2, 5001, 1),
            (3, 1, (16 << 20) + 1),
            (4, 5001, 1),
        ] {
            dead.add(ModelId(id), Size { rows, bytes });
        }
        dead.forget(ModelId(4));
        assert_eq!(dead.take_due(&ids(&[1, 2, 3, 4, 5])), ids(&[2, 3]));
        dead.add(ModelId(1), Size { rows: 1, bytes: 0 });
        assert!(dead.take_due(&ids(&[2, 3])).is_empty());
        assert_eq!(dead.take_due(&ids(&[1, 2, 3])), ids(&[1]));
    }
}
