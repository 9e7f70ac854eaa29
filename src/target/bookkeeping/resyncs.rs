//! Requested, running and finished resyncs, and what each read model knows of its last one.

use std::time::Duration;

use serde_json::Value;

use super::progress::NO_PROGRESS;
use super::{Bookkeeping, ResyncRequest, fenced};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read_model::ModelId;
use crate::sql::fill;
use crate::target::error::from_driver;

/// Finished resyncs that the history keeps.
const KEPT_RESYNCS: i64 = 1000;

impl Bookkeeping {
    /// Asks the running process for a resync, or with the number of keys to be named for a
    /// comparison only; returns the request's number.
    pub async fn request_resync(
        &self,
        conn: &mut Connection,
        read_models: Option<&[String]>,
        compare_only: Option<u16>,
        origin: &str,
    ) -> Result<i64> {
        let sql = format!(
            "INSERT INTO {}.resync (read_models, dry_run, most_keys, origin) VALUES ($1, $2, $3, $4) RETURNING id",
            self.schema
        );
        query(sql)
            .bind(read_models)
            .bind(compare_only.is_some())
            .bind(i32::from(compare_only.unwrap_or(0)))
            .bind(origin)
            .value(conn)
            .await
            .map_err(from_driver)
    }

    /// The same, asked for by the watch of the pipeline's owner.
    pub async fn request_by_watch(
        &self,
        conn: &mut Connection,
        epoch: i64,
        name: &str,
    ) -> Result<()> {
        let sql = format!(
            "INSERT INTO {}.resync (read_models, origin) SELECT $2, 'watch' WHERE {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(vec![name.to_owned()]))
            .await?;
        Ok(())
    }

    /// Notes a resync that was not requested; returns its number.
    pub async fn start_resync(
        &self,
        conn: &mut Connection,
        epoch: i64,
        origin: &str,
    ) -> Result<i64> {
        let sql = format!(
            "INSERT INTO {}.resync (origin, state, started_at, epoch) SELECT $2, 'running', now(), $1 WHERE {} RETURNING id",
            self.schema,
            self.ours()
        );
        query(sql)
            .bind(epoch)
            .bind(origin)
            .optional_value(conn)
            .await
            .map_err(from_driver)?
            .ok_or_else(fenced)
    }

    /// Notes a first copy or healing that is merged: in one statement, so that a finished one is
    /// never reported as interrupted.
    pub async fn note_copy(
        &self,
        conn: &mut Connection,
        epoch: i64,
        origin: &str,
        lsn: Lsn,
        result: &Value,
    ) -> Result<()> {
        let sql = format!(
            "INSERT INTO {}.resync (origin, state, started_at, finished_at, lsn, result, epoch) \
             SELECT $2, 'done', now(), now(), $3::text::pg_lsn, $4::text::jsonb, $1 WHERE {} RETURNING id",
            self.schema,
            self.ours()
        );
        let id: i64 = query(sql)
            .bind(epoch)
            .bind(origin)
            .bind(lsn.to_string())
            .bind(result.to_string())
            .optional_value(conn)
            .await
            .map_err(from_driver)?
            .ok_or_else(fenced)?;
        self.forget_old_resyncs(conn, id).await
    }

    /// Everything was copied: it also completes the requests that existed when it began.
    pub(crate) async fn finish_requests(
        &self,
        conn: &mut Connection,
        epoch: i64,
        lsn: Lsn,
        result: &Value,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {schema}.resync r SET state = 'done', started_at = p.healing_began_at, finished_at = now(), waiting_for = NULL, \
             lsn = $2::text::pg_lsn, result = $3::text::jsonb, epoch = $1 FROM {schema}.pipeline p \
             WHERE r.state = 'queued' AND NOT r.dry_run AND r.requested_at < p.healing_began_at AND p.epoch = $1",
            schema = self.schema
        );
        let query = query(sql).bind(epoch);
        self.write(
            conn,
            epoch,
            query.bind(lsn.to_string()).bind(result.to_string()),
        )
        .await?;
        Ok(())
    }

    /// Starts the oldest queued request but these, if there is one. What another owner was carrying
    /// out is queued again before.
    pub async fn next_request(
        &self,
        conn: &mut Connection,
        epoch: i64,
        later: &[i64],
    ) -> Result<Option<ResyncRequest>> {
        let exists = format!(
            "SELECT EXISTS (SELECT FROM {schema}.resync WHERE state = 'queued' AND id <> ALL ($2)), \
             EXISTS (SELECT FROM {schema}.resync WHERE state = 'running' AND epoch IS DISTINCT FROM $1)",
            schema = self.schema
        );
        let row = query(exists)
            .bind(epoch)
            .bind(later)
            .row(conn)
            .await
            .map_err(from_driver)?;
        let queued: bool = row.try_get(0).map_err(from_driver)?;
        let anothers: bool = row.try_get(1).map_err(from_driver)?;
        if anothers {
            self.requeue(conn, epoch, "epoch IS DISTINCT FROM $1")
                .await?;
        } else if !queued {
            return Ok(None);
        }
        // A request that was cancelled in the meantime stays cancelled.
        let sql = format!(
            "UPDATE {schema}.resync SET state = 'running', started_at = now(), waiting_for = NULL, epoch = $1 WHERE state = 'queued' AND id = \
             (SELECT min(id) FROM {schema}.resync WHERE state = 'queued' AND id <> ALL ($2)) AND {ours} \
             RETURNING id, read_models, dry_run, most_keys, origin",
            schema = self.schema,
            ours = self.ours()
        );
        let row = query(sql)
            .bind(epoch)
            .bind(later)
            .optional(conn)
            .await
            .map_err(from_driver)?;
        row.map(|row| {
            Ok(ResyncRequest {
                id: row.try_get(0).map_err(from_driver)?,
                read_models: row.try_get(1).map_err(from_driver)?,
                dry_run: row.try_get(2).map_err(from_driver)?,
                most_keys: row.try_get(3).map_err(from_driver)?,
                origin: row.try_get(4).map_err(from_driver)?,
            })
        })
        .transpose()
    }

    /// Requests that were running when a process died, or lost its session, are queued again.
    pub async fn requeue_requests(&self, conn: &mut Connection, epoch: i64) -> Result<()> {
        self.requeue(conn, epoch, "true").await
    }

    async fn requeue(&self, conn: &mut Connection, epoch: i64, which: &str) -> Result<()> {
        let sql = format!(
            "UPDATE {}.resync SET state = CASE WHEN lsn IS NOT NULL THEN 'done' WHEN origin IN ('request', 'watch') THEN 'queued' ELSE 'failed' END, \
             waiting_for = NULL, error = CASE WHEN lsn IS NOT NULL OR origin IN ('request', 'watch') THEN error ELSE 'interrupted' END \
             WHERE state = 'running' AND {which} AND {}",
            self.schema,
            self.ours()
        );
        self.write(conn, epoch, query(sql).bind(epoch)).await?;
        Ok(())
    }

    /// A request that could not be carried out is queued again, and says why; false if it was
    /// cancelled.
    pub async fn postpone_resync(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: i64,
        why: &str,
    ) -> Result<bool> {
        let sql = format!(
            "UPDATE {}.resync SET state = 'queued', waiting_for = $3 WHERE id = $2 AND epoch = $1 AND state = 'running' AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(id).bind(why)).await
    }

    /// Whether this owner is to continue the resync: it was not cancelled, and no other owner has
    /// taken over.
    pub async fn is_wanted(&self, conn: &mut Connection, epoch: i64, id: i64) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.resync WHERE id = $2 AND epoch = $1 AND state = 'running') AND {}",
            self.schema,
            self.ours()
        );
        query(sql)
            .bind(epoch)
            .bind(id)
            .value(conn)
            .await
            .map_err(from_driver)
    }

    /// The resync's copies are merged, in the transaction that says so: it must not be repeated,
    /// whatever happens now.
    pub async fn mark_merged(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: i64,
        lsn: Lsn,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.resync SET lsn = $3::text::pg_lsn WHERE id = $2 AND epoch = $1 AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(id).bind(lsn.to_string()))
            .await?;
        Ok(())
    }

    /// What keeps queued requests from being carried out.
    pub(crate) async fn set_queued_waiting(
        &self,
        conn: &mut Connection,
        epoch: i64,
        waiting_for: &str,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.resync SET waiting_for = $2 WHERE state = 'queued' AND waiting_for IS DISTINCT FROM $2 AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(waiting_for)).await?;
        Ok(())
    }

    /// The end of a resync: its result, or why it failed. One that was cancelled stays so.
    pub async fn finish_resync(
        &self,
        conn: &mut Connection,
        epoch: i64,
        id: i64,
        result: Option<(Lsn, &Value)>,
        error: Option<&Error>,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.resync SET state = CASE WHEN $5::text IS NULL THEN 'done' ELSE 'failed' END, finished_at = now(), \
             waiting_for = NULL, lsn = $3::text::pg_lsn, result = $4::text::jsonb, error = $5 \
             WHERE id = $2 AND epoch = $1 AND state = 'running' AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql)
            .bind(epoch)
            .bind(id)
            .bind(result.map(|(lsn, _)| lsn.to_string()))
            .bind(result.map(|(_, result)| result.to_string()))
            .bind(error.map(Error::with_its_detail));
        self.write(conn, epoch, query).await?;
        self.forget_old_resyncs(conn, id).await
    }

    /// The history has a limit. The last resync of everything stays, since the schedule depends on
    /// it.
    async fn forget_old_resyncs(&self, conn: &mut Connection, newest: i64) -> Result<()> {
        let sql = format!(
            "DELETE FROM {schema}.resync r WHERE r.id <= $1 - {KEPT_RESYNCS} AND r.state IN ('done', 'failed') \
             AND (r.lsn IS NULL OR r.dry_run OR r.read_models IS NOT NULL OR EXISTS (SELECT FROM {schema}.resync n \
             WHERE n.id > r.id AND n.lsn IS NOT NULL AND NOT n.dry_run AND n.read_models IS NULL))",
            schema = self.schema
        );
        query(sql)
            .bind(newest)
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }

    /// A copy of this read model has been merged. Rows that a resync of a read model in step had to
    /// write are drift; rows that a first copy, or the copy of a suspended one, writes are not.
    /// Returns how many live rows have a key that another one has.
    pub(crate) async fn set_resynced(
        &self,
        conn: &mut Connection,
        id: ModelId,
        written: i64,
        heals: bool,
    ) -> Result<i64> {
        let sql = format!(
            "UPDATE {}.read_model SET last_resync_at = now(), compared_at = now(), differing = 0, {NO_PROGRESS}, \
             last_resync_repaired = CASE WHEN state = 'in_step' AND NOT $3 THEN $2 ELSE 0 END WHERE id = $1 RETURNING waiting",
            self.schema
        );
        let waiting: Option<Option<i64>> = query(sql)
            .bind(id.0)
            .bind(written)
            .bind(heals)
            .optional_value(conn)
            .await
            .map_err(from_driver)?;
        Ok(waiting.flatten().unwrap_or(0))
    }

    /// A dry run has compared these read models (the result as [`Self::finish_resync`] stores it):
    /// what differs stays as it is until the next comparison. Rejected rows are not counted here:
    /// the bookkeeping has them anyway.
    pub async fn note_compared(
        &self,
        conn: &mut Connection,
        epoch: i64,
        result: &Value,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model m SET compared_at = now(), \
             differing = (f.value ->> 'missing')::bigint + (f.value ->> 'extra')::bigint + (f.value ->> 'different')::bigint \
             FROM pg_catalog.jsonb_each($2::text::jsonb) f WHERE m.name = f.key AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql).bind(epoch);
        self.write(conn, epoch, query.bind(result.to_string()))
            .await?;
        Ok(())
    }

    /// When the last scheduled or requested resync of everything began, in microseconds since 1970;
    /// the first copy counts.
    pub async fn last_full_resync(&self, conn: &mut Connection) -> Result<Option<i64>> {
        let sql = fill(
            include_str!("../../../sql/target/status/clock.sql"),
            &[("schema", &self.schema)],
        );
        query(sql)
            .row(conn)
            .await
            .and_then(|row| row.try_get("last_full_resync"))
            .map_err(from_driver)
    }

    /// Lets the next session follow another source: the lookups keep their rows until its exact
    /// copies are merged.
    pub(crate) async fn accept_new_source(&self, conn: &mut Connection) -> Result<()> {
        let sql = format!(
            "UPDATE {schema}.checkpoint SET lsn = NULL; \
             UPDATE {schema}.pipeline SET system_identifier = NULL, healing = 'another source was accepted'",
            schema = self.schema
        );
        conn.batch_execute(&sql).await.map_err(from_driver)?;
        Ok(())
    }

    /// The pipeline `p` with its owner's applying session `a`; no row if there is none.
    pub(super) fn owners_session(&self) -> String {
        format!(
            "{}.pipeline p JOIN pg_catalog.pg_stat_activity a \
             ON a.pid = p.backend_pid AND (a.backend_start IS NULL OR a.backend_start = p.backend_start)",
            self.schema
        )
    }

    /// Whether the session of the pipeline's owner exists.
    pub(crate) async fn owner_is_alive(&self, conn: &mut Connection) -> Result<bool> {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", self.owners_session());
        query(sql).value(conn).await.map_err(from_driver)
    }

    /// Whether the applying session of this epoch exists, and was busy within this time. If it was
    /// not, it waits for us, and its answer has been lost.
    pub(crate) async fn session_is_at_work(
        &self,
        conn: &mut Connection,
        epoch: i64,
        within: Duration,
    ) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {} WHERE p.epoch = $1 \
             AND (a.state LIKE 'idle%' AND a.state_change < pg_catalog.clock_timestamp() - $2 * interval '1 second') IS NOT TRUE)",
            self.owners_session()
        );
        query(sql)
            .bind(epoch)
            .bind(within.as_secs_f64())
            .value(conn)
            .await
            .map_err(from_driver)
    }

    /// Cancels a request whose command no longer waits for it.
    pub async fn cancel_resync(&self, conn: &mut Connection, id: i64) -> Result<()> {
        let sql = format!(
            "UPDATE {}.resync SET state = 'failed', finished_at = now(), error = 'cancelled' WHERE id = $1 AND state IN ('queued', 'running') AND lsn IS NULL",
            self.schema
        );
        query(sql)
            .bind(id)
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }

    /// State, result and error of a resync, for the command that requested it.
    pub(crate) async fn resync_outcome(
        &self,
        conn: &mut Connection,
        id: i64,
    ) -> Result<(String, Option<Value>, Option<String>, Option<String>)> {
        let sql = format!(
            "SELECT state, result::text, error, waiting_for FROM {}.resync WHERE id = $1",
            self.schema
        );
        let row = query(sql).bind(id).row(conn).await.map_err(from_driver)?;
        let result: Option<String> = row.try_get(1).map_err(from_driver)?;
        Ok((
            row.try_get(0).map_err(from_driver)?,
            result.and_then(|text| serde_json::from_str(&text).ok()),
            row.try_get(2).map_err(from_driver)?,
            row.try_get(3).map_err(from_driver)?,
        ))
    }
}
