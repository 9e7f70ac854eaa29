//! Rejected rows as every role may see them: which they are, and why the target does not take them.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::Bookkeeping;
use crate::batch::{Rejected, Written};
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_sqlx;

/// Rejected rows of a read model that are named.
const NAMED_REJECTED: usize = 20;

impl Bookkeeping {
    /// Whether the read model has rejected rows.
    pub(crate) async fn has_rejected(&self, conn: &mut PgConnection, id: ModelId) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.rejection WHERE read_model = $1)",
            self.schema
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(id.0)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    /// Notes the rows that this transaction has rejected, and how many the read model has in all.
    pub(crate) async fn read_rejected(
        &self,
        conn: &mut PgConnection,
        id: ModelId,
        written: &mut Written,
    ) -> Result<()> {
        let sql = format!(
            "SELECT key, identity, sqlstate, constraint_name, column_name, rejected_at = now() AS new \
             FROM {}.rejection WHERE read_model = $1 ORDER BY n",
            self.schema
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id.0)
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
