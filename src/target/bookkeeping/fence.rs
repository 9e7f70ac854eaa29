//! The fence around single writes: each names the epoch, so a process that was overtaken changes
//! nothing.
//!
//! Most lock nothing. So a statement of the last owner that runs in the very moment of a claim may
//! still write. What it can write is harmless: files and publications as the watch saw them,
//! progress, and requests, which name the owner that carries them out.

use super::{Bookkeeping, fenced};
use crate::connect::Connection;
use crate::connect::query::{Query, query};
use crate::error::Result;
use crate::target::error::from_driver;

/// Updates a row that names its owner's epoch.
///
/// # Errors
/// [`Class::Fenced`](crate::error::Class::Fenced) if there is no such row: another process has
/// taken over.
pub(super) async fn update_or_fenced(conn: &mut Connection, query: Query<'_>) -> Result<()> {
    let done = query.execute(conn).await.map_err(from_driver)?;
    if done == 0 { Err(fenced()) } else { Ok(()) }
}

impl Bookkeeping {
    /// A statement that ends the transaction around it unless the epoch is still ours, and keeps
    /// others from raising it until the transaction ends. Several statements in one message are one
    /// transaction by themselves, which a failure leaves behind for good.
    pub(super) fn fence(&self, epoch: i64) -> String {
        self.lock_row("pipeline", epoch)
    }

    /// The same by the row that every batch writes: for what is part of a batch.
    pub(super) fn lock_checkpoint(&self, epoch: i64) -> String {
        self.lock_row("checkpoint", epoch)
    }

    fn lock_row(&self, table: &str, epoch: i64) -> String {
        format!(
            "DO $cdc$ BEGIN PERFORM FROM {}.{table} WHERE epoch = {epoch} FOR UPDATE; \
             IF NOT FOUND THEN RAISE EXCEPTION 'another process has taken over this pipeline' USING ERRCODE = 'CDC01'; \
             END IF; END $cdc$;",
            self.schema
        )
    }

    /// The condition that the epoch `$1` is the owner's.
    pub(super) fn ours(&self) -> String {
        format!(
            "EXISTS (SELECT FROM {}.pipeline WHERE epoch = $1)",
            self.schema
        )
    }

    /// Carries out a write under that condition; returns whether there was anything to write.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub(super) async fn write(
        &self,
        conn: &mut Connection,
        epoch: i64,
        statement: Query<'_>,
    ) -> Result<bool> {
        let done = statement.execute(conn).await.map_err(from_driver)?;
        if done > 0 {
            return Ok(true);
        }
        self.check_ours(conn, epoch).await?;
        Ok(false)
    }

    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if the epoch is not the owner's any more.
    pub(super) async fn check_ours(&self, conn: &mut Connection, epoch: i64) -> Result<()> {
        let sql = format!("SELECT {}", self.ours());
        let ours: bool = query(sql)
            .bind(epoch)
            .value(conn)
            .await
            .map_err(from_driver)?;
        if ours { Ok(()) } else { Err(fenced()) }
    }
}
