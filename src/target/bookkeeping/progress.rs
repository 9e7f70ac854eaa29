//! How far running copies are, and what they wait for: for `status` only, nothing depends on it.

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;

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

/// What a read model is set to whose copy has ended.
pub(super) const NO_PROGRESS: &str =
    "copy_rows = NULL, copy_estimate = NULL, copy_bytes = NULL, copy_seconds = NULL";

impl Bookkeeping {
    /// Progress of a running copy; `None` when it has ended.
    pub async fn set_copy_progress(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: ModelId,
        progress: Option<CopyProgress>,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model SET copy_rows = $3, copy_estimate = $4, copy_bytes = $5, copy_seconds = $6 WHERE id = $2 AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql)
            .bind(epoch)
            .bind(id.0)
            .bind(progress.map(|progress| progress.rows))
            .bind(progress.and_then(|progress| progress.estimate))
            .bind(progress.map(|progress| progress.bytes))
            .bind(progress.map(|progress| progress.seconds));
        self.write(conn, epoch, query).await?;
        Ok(())
    }

    /// What keeps a copy from beginning, also that of the resync with this number. `None` when it
    /// continues.
    pub async fn set_copy_waiting(
        &self,
        conn: &mut Connection,
        epoch: i64,
        resync: Option<i64>,
        waiting_for: Option<&str>,
    ) -> Result<()> {
        self.update_pipeline(conn, epoch, "waiting_for = $2", |query| {
            query.bind(waiting_for.map(str::to_owned))
        })
        .await?;
        let Some(id) = resync else {
            return Ok(());
        };
        let sql = format!(
            "UPDATE {}.resync SET waiting_for = $3 WHERE id = $2 AND epoch = $1 AND state = 'running' AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(id).bind(waiting_for))
            .await?;
        Ok(())
    }

    /// Nothing is being copied: the progress of an earlier copy means nothing.
    pub async fn forget_progress(&self, conn: &mut Connection, epoch: i64) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model SET {NO_PROGRESS} \
             WHERE copy_rows IS NOT NULL AND {}",
            self.schema,
            self.ours()
        );
        self.write(conn, epoch, query(sql).bind(epoch)).await?;
        self.update_pipeline(conn, epoch, "waiting_for = NULL", |query| query)
            .await
    }
}
