//! Transactions and statements of the target's sessions.

use crate::connect::Connection;
use crate::error::Result;
use crate::target::error::from_driver;

/// A transaction that is rolled back unless it was ended well.
#[derive(Debug)]
pub(crate) struct Transaction<'a>(&'a mut Connection);

impl<'a> Transaction<'a> {
    pub(crate) async fn begin(conn: &'a mut Connection) -> Result<Self> {
        execute(conn, "BEGIN".to_owned()).await?;
        Ok(Self(conn))
    }

    /// The same, and sets what holds for this transaction.
    pub(crate) async fn begin_with(conn: &'a mut Connection, set: &str) -> Result<Self> {
        execute(conn, format!("BEGIN; {set}")).await?;
        Ok(Self(conn))
    }

    pub(crate) fn conn(&mut self) -> &mut Connection {
        self.0
    }

    pub(crate) async fn end<T>(self, result: Result<T>) -> Result<T> {
        end(self.0, result).await
    }
}

/// Ends the transaction that is open: commits if all went well, else rolls back.
pub(crate) async fn end<T>(conn: &mut Connection, result: Result<T>) -> Result<T> {
    match result {
        Ok(value) => {
            execute(conn, "COMMIT".to_owned()).await?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to report; the server has rolled back a lost connection.
            let _ = execute(conn, "ROLLBACK".to_owned()).await;
            Err(error)
        }
    }
}

pub(crate) async fn execute(conn: &mut Connection, sql: String) -> Result<()> {
    conn.batch_execute(&sql).await.map_err(from_driver)?;
    Ok(())
}
