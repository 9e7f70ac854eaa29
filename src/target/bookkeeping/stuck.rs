//! The position behind which the source cannot send, kept across restarts of the process.

use jiff::Timestamp;

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::stuck::Stuck;
use crate::target::error::from_driver;

impl Bookkeeping {
    /// The error of the last session, if the stream has not passed its position since.
    pub(crate) async fn stuck(&self, conn: &mut Connection) -> Result<Option<Stuck>> {
        let sql = format!(
            "SELECT stuck_lsn::text, stuck_sqlstate, (extract(epoch FROM stuck_since) * 1000000)::bigint, stuck_times \
             FROM {schema}.pipeline p CROSS JOIN {schema}.checkpoint c WHERE p.stuck_lsn >= c.lsn",
            schema = self.schema
        );
        let row = query(sql).optional(conn).await.map_err(from_driver)?;
        let Some(row) = row else { return Ok(None) };
        let lsn: String = row.try_get(0).map_err(from_driver)?;
        let since: i64 = row.try_get(2).map_err(from_driver)?;
        let times: i32 = row.try_get(3).map_err(from_driver)?;
        Ok(Some(Stuck {
            position: lsn.parse()?,
            sqlstate: row.try_get(1).map_err(from_driver)?,
            since: Timestamp::from_microsecond(since).unwrap_or(Timestamp::UNIX_EPOCH),
            times: u32::try_from(times).unwrap_or(0),
        }))
    }

    /// Stores the error and its position; waiting requests say what they wait for.
    pub(crate) async fn set_stuck(
        &self,
        conn: &mut Connection,
        epoch: i64,
        stuck: &Stuck,
        error: &Error,
    ) -> Result<()> {
        let sql = format!(
            "WITH stored AS ( \
                 UPDATE {schema}.pipeline SET stuck_lsn = $2::pg_lsn, stuck_sqlstate = $3, \
                     stuck_since = to_timestamp($4::bigint / 1000000.0), stuck_times = $5, stuck_error = $6 \
                 WHERE epoch = $1 RETURNING true) \
             UPDATE {schema}.resync SET waiting_for = $6 WHERE state IN ('queued', 'running') AND EXISTS (SELECT FROM stored)",
            schema = self.schema
        );
        query(sql)
            .bind(epoch)
            .bind(stuck.position.to_string())
            .bind(&stuck.sqlstate)
            .bind(stuck.since.as_microsecond())
            .bind(i32::try_from(stuck.times).unwrap_or(i32::MAX))
            .bind(error.with_its_detail())
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }
}
