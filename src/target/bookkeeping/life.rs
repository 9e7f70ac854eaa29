//! Signs of life of the owner: for `cdc status`, and for a process that waits for the pipeline.

use std::time::Duration;

use super::Bookkeeping;
use super::claim::seconds;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::target::error::from_driver;

/// The owner's last sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// When it was, by the target's clock.
    pub at: String,
    /// How long ago that was at the time of the look.
    pub silent: Duration,
}

impl Bookkeeping {
    /// Stores that the owner is alive. If the row is locked, its locker is writing it, which is as
    /// good.
    ///
    /// # Errors
    /// As any query.
    pub async fn beat(&self, conn: &mut Connection, epoch: i64) -> Result<()> {
        let sql = format!(
            "UPDATE {schema}.pipeline SET heartbeat_at = now() WHERE epoch = $1 \
             AND ctid = (SELECT ctid FROM {schema}.pipeline WHERE epoch = $1 FOR NO KEY UPDATE SKIP LOCKED)",
            schema = self.schema
        );
        query(sql)
            .bind(epoch)
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }

    /// The owner's last sign of life: a beat, or a checkpoint. `None` while its row is being
    /// written, and before the first owner.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn last_sign_of_life(&self, conn: &mut Connection) -> Result<Option<Life>> {
        let sql = format!(
            "SELECT at::text, extract(epoch FROM clock_timestamp() - at)::float8 FROM ( \
               SELECT greatest(p.heartbeat_at, c.applied_at) AS at \
               FROM {schema}.pipeline p CROSS JOIN {schema}.checkpoint c FOR SHARE OF p SKIP LOCKED) l WHERE at IS NOT NULL",
            schema = self.schema
        );
        let row = query(sql).optional(conn).await.map_err(from_driver)?;
        let Some(row) = row else {
            return Ok(None);
        };
        Ok(Some(Life {
            at: row.try_get(0).map_err(from_driver)?,
            silent: seconds(row.try_get(1).map_err(from_driver)?).unwrap_or_default(),
        }))
    }
}
