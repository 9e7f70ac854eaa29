//! What is left of copies and of earlier definitions, and cannot be taken away at once: tables that others have locked, a dump for hours.
//!
//! Nothing waits for them. Shadows that nobody fills are emptied, and discarded tables are dropped, each in a transaction of its own
//! that gives up after a moment.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Bookkeeping;
use crate::error::Result;
use crate::sql::{ident, literal};
use crate::target::error::from_sqlx;
use crate::target::statement::{Transaction, execute};

/// How long a table is waited for that somebody has locked, in milliseconds.
const PATIENCE_MS: u32 = 100;

/// SQLSTATE of a lock that was waited for in vain.
const LOCK_NOT_AVAILABLE: &str = "55P03";

impl Bookkeeping {
    /// Takes away what can be; returns whether something is left.
    ///
    /// # Errors
    /// As any query.
    pub async fn tidy(&self, conn: &mut PgConnection, epoch: i64) -> Result<bool> {
        let sql = format!(
            "SELECT s.name, false FROM {schema}.shadow s WHERE s.copy IS NOT NULL UNION ALL SELECT d.name, true FROM {schema}.discarded d",
            schema = self.schema
        );
        let left: Vec<(String, bool)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(&mut *conn)
            .await
            .map_err(from_sqlx)?;
        let mut all_gone = true;
        for (name, discarded) in left {
            let gone = if discarded {
                self.drop_discarded(conn, epoch, &name).await?
            } else {
                self.empty_shadow(conn, &name, true).await?
            };
            all_gone &= gone;
        }
        Ok(!all_gone)
    }

    /// Drops a discarded table, unless somebody has it locked or is about to: a dump lists all tables first and locks them then. Who has
    /// listed them holds a lock on the catalog until its transaction ends.
    async fn drop_discarded(&self, conn: &mut PgConnection, epoch: i64, name: &str) -> Result<bool> {
        let mut tx = Transaction::begin(conn).await?;
        let dropped = async {
            let sql = format!(
                "SET LOCAL lock_timeout = '{PATIENCE_MS}ms'; DROP TABLE IF EXISTS {schema}.{table}; \
                 DELETE FROM {schema}.discarded WHERE name = {name} AND EXISTS (SELECT FROM {schema}.pipeline WHERE epoch = {epoch})",
                schema = self.schema,
                table = ident(name),
                name = literal(name),
            );
            execute(tx.conn(), sql).await?;
            let listed: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l \
                 JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database() \
                 WHERE l.relation = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.pid <> pg_catalog.pg_backend_pid())",
            )
            .fetch_one(tx.conn())
            .await
            .map_err(from_sqlx)?;
            if listed {
                execute(tx.conn(), "ROLLBACK; BEGIN".to_owned()).await?;
            }
            Ok(!listed)
        }
        .await;
        match tx.end(dropped).await {
            Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => Ok(false),
            dropped => dropped,
        }
    }
}
