//! Transactions, statements and COPY of the target's sessions.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::Result;
use crate::target::error::from_sqlx;

/// Bytes of COPY data a message.
const COPY_PIECE_BYTES: usize = 256 * 1024;

/// A transaction that is rolled back unless it was ended well.
#[derive(Debug)]
pub(crate) struct Transaction<'a>(&'a mut PgConnection);

impl<'a> Transaction<'a> {
    pub(crate) async fn begin(conn: &'a mut PgConnection) -> Result<Self> {
        execute(conn, "BEGIN".to_owned()).await?;
        Ok(Self(conn))
    }

    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        self.0
    }

    pub(crate) async fn end<T>(self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                execute(self.0, "COMMIT".to_owned()).await?;
                Ok(value)
            }
            Err(error) => {
                // The first error is the one to tell; a connection that is gone has rolled back by itself.
                let _ = execute(self.0, "ROLLBACK".to_owned()).await;
                Err(error)
            }
        }
    }
}

pub(crate) async fn execute(conn: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(conn)
        .await
        .map_err(from_sqlx)?;
    Ok(())
}

/// COPY of rows that `append` writes.
pub(crate) async fn copy_pieces<T>(
    conn: &mut PgConnection,
    sql: &str,
    rows: impl Iterator<Item = T>,
    append: impl Fn(T, &mut Vec<u8>),
) -> Result<(), sqlx::Error> {
    let mut copy = conn.copy_in_raw(sql).await?;
    let mut buffer = Vec::with_capacity(COPY_PIECE_BYTES);
    for row in rows {
        append(row, &mut buffer);
        if buffer.len() >= COPY_PIECE_BYTES {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    if !buffer.is_empty() {
        copy.send(buffer.as_slice()).await?;
    }
    copy.finish().await?;
    Ok(())
}
