//! The source that the lookups are of: which server it is, by its system, database and timeline.

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::progress::SourceIdentity;
use crate::target::error::from_driver;

/// How long an owner that has no session may have been silent before another process stores its own
/// state.
const SILENCE_SECONDS: u32 = 5;

impl Bookkeeping {
    /// The stream continues from this source: whatever is written from now on is of its timeline,
    /// and the slot there is this pipeline's.
    pub(crate) async fn set_streaming(
        &self,
        conn: &mut Connection,
        epoch: i64,
        source: &SourceIdentity,
    ) -> Result<()> {
        let set = "state = 'streaming', state_since = CASE WHEN state = 'streaming' THEN state_since ELSE now() END, \
                   error = NULL, error_hint = NULL, heartbeat_at = now(), timeline = $2, \
                   slot_system_identifier = $3, slot_database = $4";
        let source = source.clone();
        self.update_pipeline(conn, epoch, set, |query| {
            query
                .bind(source.timeline)
                .bind(source.system_identifier)
                .bind(source.database)
        })
        .await
    }

    /// The source that the lookups are of, as stored; `None` before the first copy.
    pub(crate) async fn source(&self, conn: &mut Connection) -> Result<Option<SourceIdentity>> {
        let sql = format!(
            "SELECT system_identifier, coalesce(timeline, 0), coalesce(source_database, '') FROM {schema}.pipeline p CROSS JOIN {schema}.checkpoint c \
             WHERE c.lsn IS NOT NULL AND system_identifier IS NOT NULL",
            schema = self.schema
        );
        let row = query(sql).optional(conn).await.map_err(from_driver)?;
        row.map(|row| {
            Ok(SourceIdentity {
                system_identifier: row.try_get(0).map_err(from_driver)?,
                timeline: row.try_get(1).map_err(from_driver)?,
                database: row.try_get(2).map_err(from_driver)?,
            })
        })
        .transpose()
    }

    /// A process that has not reached its claim stores why, unless another process is at work:
    /// otherwise `status` would not know of it.
    pub(crate) async fn set_retrying_unclaimed(
        &self,
        conn: &mut Connection,
        owner: &str,
        error: &Error,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {schema}.pipeline u SET state = 'retrying', error = $2, error_hint = $3, owner = $1, heartbeat_at = now(), \
             state_since = CASE WHEN state = 'retrying' THEN state_since ELSE now() END \
             WHERE (owner = $1 OR coalesce(heartbeat_at < now() - interval '{SILENCE_SECONDS} s', true)) \
             AND NOT EXISTS (SELECT FROM {owners})",
            schema = self.schema,
            owners = self.owners_session(),
        );
        query(sql)
            .bind(owner)
            .bind(error.to_string())
            .bind(error.hint())
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }
}
