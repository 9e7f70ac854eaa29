//! What running copies are at, and what they wait for: for `status` only, nothing depends on it.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Bookkeeping;
use crate::error::Result;
use crate::target::error::from_sqlx;

/// What a running copy has done so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CopyProgress {
    /// Rows.
    pub rows: i64,
    /// Their bytes as COPY's text.
    pub bytes: i64,
    /// Rows there will be, by the source's statistics.
    pub estimate: Option<i64>,
    /// How long it has taken.
    pub seconds: f64,
}

impl Bookkeeping {
    /// Progress of a running copy; `None` when it has ended.
    pub async fn set_copy_progress(
        &self,
        conn: &mut PgConnection,
        id: i32,
        progress: Option<CopyProgress>,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model SET copy_rows = $2, copy_estimate = $3, copy_bytes = $4, copy_seconds = $5 WHERE id = $1",
            self.schema
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .bind(progress.map(|progress| progress.rows))
            .bind(progress.and_then(|progress| progress.estimate))
            .bind(progress.map(|progress| progress.bytes))
            .bind(progress.map(|progress| progress.seconds))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }

    /// Who keeps a copy from beginning; also of the resync with this number. `None` when it goes on.
    pub async fn set_copy_waiting(
        &self,
        conn: &mut PgConnection,
        resync: Option<i64>,
        waiting_for: Option<&str>,
    ) -> Result<()> {
        let sql = format!("UPDATE {}.pipeline SET waiting_for = $1", self.schema);
        sqlx::query(AssertSqlSafe(sql))
            .bind(waiting_for)
            .execute(&mut *conn)
            .await
            .map_err(from_sqlx)?;
        match resync {
            Some(id) => self.set_resync_waiting(conn, id, waiting_for).await,
            None => Ok(()),
        }
    }

    /// Nothing is being copied yet: what an earlier process was at says nothing.
    pub(super) async fn forget_progress(&self, conn: &mut PgConnection) -> Result<()> {
        let sql = format!(
            "UPDATE {schema}.read_model SET copy_rows = NULL, copy_estimate = NULL, copy_bytes = NULL, copy_seconds = NULL \
             WHERE copy_rows IS NOT NULL; \
             UPDATE {schema}.pipeline SET waiting_for = NULL WHERE waiting_for IS NOT NULL",
            schema = self.schema
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }
}
