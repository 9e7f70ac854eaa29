//! Rejected rows as every role may see them: which they are, and why the target does not take them.

use super::Bookkeeping;
use crate::batch::{Rejected, Written};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_driver;

/// Rejected rows of a read model that are named.
const NAMED_REJECTED: usize = 20;

impl Bookkeeping {
    /// Whether the read model has rejected rows.
    pub(crate) async fn has_rejected(&self, conn: &mut Connection, id: ModelId) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.rejection WHERE read_model = $1)",
            self.schema
        );
        query(sql).bind(id.0).value(conn).await.map_err(from_driver)
    }

    /// Notes the rows that this transaction has rejected, and how many the read model has in all.
    pub(crate) async fn read_rejected(
        &self,
        conn: &mut Connection,
        id: ModelId,
        written: &mut Written,
    ) -> Result<()> {
        let sql = format!(
            "SELECT key, identity, sqlstate, constraint_name, column_name, rejected_at = now() AS new \
             FROM {}.rejection WHERE read_model = $1 ORDER BY n",
            self.schema
        );
        let rows = query(sql)
            .bind(id.0)
            .rows(conn)
            .await
            .map_err(from_driver)?;
        written.rejected_in_all = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        written.rejected.clear();
        written.first_rejected.clear();
        for row in rows {
            let rejected = Rejected {
                key: row.try_get("key").map_err(from_driver)?,
                identity: row.try_get("identity").map_err(from_driver)?,
                sqlstate: row.try_get("sqlstate").map_err(from_driver)?,
                constraint: row.try_get("constraint_name").map_err(from_driver)?,
                column: row.try_get("column_name").map_err(from_driver)?,
            };
            if written.first_rejected.len() < NAMED_REJECTED {
                written.first_rejected.push(rejected.clone());
            }
            if row.try_get("new").map_err(from_driver)? {
                written.rejected.push(rejected);
            }
        }
        Ok(())
    }
}
