//! The fence around single writes: each names the epoch, so a process that was overtaken changes nothing.
//!
//! It locks nothing, since no session may wait for the pipeline's row while a batch is being written. So a statement of the last
//! owner that runs in the very moment of a claim may still write. What it can write is harmless: files and publications as the
//! watch saw them, progress, and requests, which name the owner that carries them out.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

use super::{Bookkeeping, fenced};
use crate::error::Result;
use crate::target::error::from_sqlx;

impl Bookkeeping {
    /// The condition that the epoch `$1` is the owner's.
    pub(super) fn ours(&self) -> String {
        format!("EXISTS (SELECT FROM {}.pipeline WHERE epoch = $1)", self.schema)
    }

    /// Carries out a write under that condition; returns whether there was anything to write.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub(super) async fn write(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<bool> {
        let done = query.execute(&mut *conn).await.map_err(from_sqlx)?;
        if done.rows_affected() > 0 {
            return Ok(true);
        }
        let sql = format!("SELECT {}", self.ours());
        let ours: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(epoch)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)?;
        if ours { Ok(false) } else { Err(fenced()) }
    }
}
