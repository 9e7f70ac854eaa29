//! Shadows that nobody fills any more: of an earlier process, or of a copy that was given up in the middle.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Bookkeeping;
use crate::error::Result;
use crate::sql::ident;
use crate::target::error::from_sqlx;

impl Bookkeeping {
    /// Drops the shadows that an earlier process left, and forgets what its copies were at.
    pub async fn drop_stale_shadows(&self, conn: &mut PgConnection, epoch: i64) -> Result<()> {
        self.drop_shadows(conn, epoch, "^shadow_[0-9]+_[0-9]+$").await
    }

    async fn drop_shadows(&self, conn: &mut PgConnection, epoch: i64, pattern: &str) -> Result<()> {
        let shadows: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname ~ $2 \
               AND pg_catalog.split_part(c.relname, '_', 3)::bigint <= $3",
        )
        .bind(&self.name)
        .bind(pattern)
        .bind(epoch)
        .fetch_all(&mut *conn)
        .await
        .map_err(from_sqlx)?;
        for shadow in shadows {
            let sql = format!("DROP TABLE IF EXISTS {}.{}", self.schema, ident(&shadow));
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut *conn)
                .await
                .map_err(from_sqlx)?;
        }
        self.forget_progress(conn, epoch).await
    }

    /// Takes away what a copy of this epoch left that was given up in the middle, and forgets how far it was. Its session, known by
    /// these application names, may still be at work, or wait for a lock: it is ended. One that merges is waited for.
    pub async fn take_shadows_away(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        application_names: &[String],
    ) -> Result<()> {
        let shadows = format!("^shadow_[0-9]+_{epoch}$");
        sqlx::query(
            "SELECT count(pg_catalog.pg_terminate_backend(l.pid)) FROM pg_catalog.pg_locks l \
             JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.datname = pg_catalog.current_database() AND a.usename = current_user \
               AND l.database = a.datid AND n.nspname = $1 AND c.relname ~ $2 AND a.application_name = ANY ($3)",
        )
        .bind(&self.name)
        .bind(&shadows)
        .bind(application_names)
        .execute(&mut *conn)
        .await
        .map_err(from_sqlx)?;
        self.drop_shadows(conn, epoch, &shadows).await
    }
}
