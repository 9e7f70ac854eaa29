//! The claim: makes this process the owner of the pipeline, and reads what it begins with.
//!
//! Two pipelines with the same names meet here, in one schema of one target. So
//! [`Bookkeeping::ownership`] must first prove whose bookkeeping it is: the claim ends the session
//! of the last owner.

use std::time::Duration;

use tokio_postgres::Row;

use super::{Bookkeeping, Checkpoint};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::lsn::PgTimestamp;
use crate::progress::SourceIdentity;
use crate::progress::TransactionId;
use crate::retry::Healings;
use crate::target::error::from_driver;
use crate::target::statement::Transaction;

/// The process that claims a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// Slot at the source.
    pub slot: &'a str,
    /// Publication at the source.
    pub publication: &'a str,
    /// Process, for people.
    pub owner: &'a str,
    /// The source that it reads.
    pub source: Option<&'a SourceIdentity>,
}

/// What the claiming of a pipeline found.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Ours from now on: every other process has a lower one.
    pub epoch: i64,
    /// Where the stream continues; `None` before the first copy.
    pub checkpoint: Option<Checkpoint>,
    /// Why everything was being copied when the last owner left.
    pub healing: Option<String>,
    /// Copies of everything before.
    pub healings: Healings,
    /// How long the next one is still to wait, if the last owner waited for it.
    pub waits: Option<Duration>,
}

impl Claim {
    /// The source that the lookups are of; `None` before the first copy.
    pub(crate) fn source(&self) -> Option<&SourceIdentity> {
        self.checkpoint
            .as_ref()
            .map(|checkpoint| &checkpoint.source)
    }
}

impl Bookkeeping {
    /// Raises the epoch and reads the checkpoint in one transaction: a zombie's commit fails from
    /// now on. The last owner's sign of life is read as it was before.
    ///
    /// # Errors
    /// [`Class::Configuration`](crate::error::Class::Configuration) if the schema belongs to a
    /// pipeline with another slot.
    pub async fn claim(&self, conn: &mut Connection, claimant: Claimant<'_>) -> Result<Claim> {
        let mut tx = Transaction::begin(conn).await?;
        let claimed = self.claim_within(tx.conn(), claimant).await;
        tx.end(claimed).await
    }

    async fn claim_within(&self, conn: &mut Connection, claimant: Claimant<'_>) -> Result<Claim> {
        // The checkpoint's row first, as everywhere.
        let checkpoint = self.raise_epoch(conn).await?;
        let epoch: i64 = checkpoint.try_get(0).map_err(from_driver)?;
        let sql = format!(
            "INSERT INTO {schema}.pipeline AS p (slot, publication, epoch, backend_pid, backend_start, owner, heartbeat_at, read_system_identifier, read_database) \
             VALUES ($1, $2, $4, pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()), $3, now(), $5, $6) \
             ON CONFLICT (singleton) DO UPDATE SET epoch = excluded.epoch, publication = excluded.publication, \
               backend_pid = excluded.backend_pid, backend_start = excluded.backend_start, owner = excluded.owner, heartbeat_at = now(), \
               read_system_identifier = excluded.read_system_identifier, read_database = excluded.read_database \
             WHERE p.slot = excluded.slot \
             RETURNING system_identifier, timeline, source_database, healing, healings, \
               extract(epoch FROM now() - CASE WHEN healing IS NULL THEN healed_at \
                 ELSE greatest((SELECT b.heartbeat_at FROM {schema}.pipeline b), (SELECT max(c.applied_at) FROM {schema}.checkpoint c)) END)::float8, \
               extract(epoch FROM healing_after - now())::float8",
            schema = self.schema
        );
        let row = query(sql)
            .bind(claimant.slot)
            .bind(claimant.publication)
            .bind(claimant.owner)
            .bind(epoch)
            .bind(claimant.source.map(|source| &source.system_identifier))
            .bind(claimant.source.map(|source| &source.database))
            .optional(conn)
            .await
            .map_err(from_driver)?;
        let Some(row) = row else {
            return Err(Error::configuration(format!(
                "the bookkeeping in schema {} belongs to a pipeline with another slot than \"{}\"",
                self.schema, claimant.slot
            ))
            .with_hint("Give each pipeline a schema of its own (target.schema), or use the slot that it was made with."));
        };
        read_claim(epoch, &checkpoint, &row)
    }

    /// The checkpoint under a new epoch: epoch, position, last transaction.
    async fn raise_epoch(&self, conn: &mut Connection) -> Result<Row> {
        const COLUMNS: &str = "epoch, lsn::text, last_commit_lsn::text, last_commit_xid, (extract(epoch FROM last_commit_time) * 1000000)::bigint";
        let schema = &self.schema;
        let sql = format!(
            "UPDATE {schema}.checkpoint SET epoch = greatest(epoch, (SELECT p.epoch FROM {schema}.pipeline p)) + 1 RETURNING {COLUMNS}"
        );
        let raised = query(sql).optional(conn).await;
        if let Some(row) = raised.map_err(from_driver)? {
            return Ok(row);
        }
        // The row is missing: everything is copied.
        let sql = format!(
            "INSERT INTO {schema}.checkpoint (epoch) SELECT coalesce(max(p.epoch), 0) + 1 FROM {schema}.pipeline p RETURNING {COLUMNS}"
        );
        query(sql).row(conn).await.map_err(from_driver)
    }

    /// Ends the sessions of the last owner at the target: its applying session, and those of this
    /// slot's copies that fill a shadow of this schema. Nothing of it may commit while we claim.
    pub(crate) async fn end_last_owner(
        &self,
        conn: &mut Connection,
        slot: &str,
        copying: &[String],
    ) -> Result<()> {
        let sql = format!(
            "SELECT count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a \
             WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.datname = pg_catalog.current_database() AND a.usename = current_user \
               AND (EXISTS (SELECT FROM {}.pipeline p WHERE p.slot = $1 AND p.backend_pid = a.pid AND p.backend_start = a.backend_start) \
                    OR a.application_name = ANY ($2) AND EXISTS (SELECT FROM pg_catalog.pg_locks l \
                        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted AND l.database = a.datid AND l.objsubid = 2 \
                          AND l.classid::bigint = ({}::bigint & 4294967295)))",
            self.schema,
            self.shadow_lock_class()
        );
        query(sql)
            .bind(slot)
            .bind(copying)
            .execute(conn)
            .await
            .map_err(from_driver)?;
        Ok(())
    }
}

/// Time as the server reports it; a time in the past is zero.
pub(super) fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO))
}

fn read_claim(epoch: i64, stored: &Row, row: &Row) -> Result<Claim> {
    let lsn: Option<String> = stored.try_get(1).map_err(from_driver)?;
    let last_lsn: Option<String> = stored.try_get(2).map_err(from_driver)?;
    let last_xid: Option<i64> = stored.try_get(3).map_err(from_driver)?;
    let last_time: Option<i64> = stored.try_get(4).map_err(from_driver)?;
    let system_identifier: Option<String> = row.try_get(0).map_err(from_driver)?;
    let timeline: Option<i32> = row.try_get(1).map_err(from_driver)?;
    let database: Option<String> = row.try_get(2).map_err(from_driver)?;
    let last = match (last_lsn, last_xid, last_time) {
        (Some(lsn), Some(xid), Some(time)) => Some(TransactionId {
            commit_lsn: lsn.parse()?,
            xid: u32::try_from(xid).unwrap_or(0),
            commit_time: PgTimestamp::from_unix_micros(time),
        }),
        _ => None,
    };
    let checkpoint = match (lsn, system_identifier) {
        (Some(lsn), Some(system_identifier)) => Some(Checkpoint {
            lsn: lsn.parse()?,
            source: SourceIdentity {
                system_identifier,
                timeline: timeline.unwrap_or(0),
                database: database.unwrap_or_default(),
            },
            last,
        }),
        _ => None,
    };
    Ok(Claim {
        epoch,
        checkpoint,
        healing: row.try_get(3).map_err(from_driver)?,
        healings: Healings {
            in_a_row: u32::try_from(row.try_get::<_, i32>(4).map_err(from_driver)?).unwrap_or(0),
            ended: seconds(row.try_get(5).map_err(from_driver)?),
        },
        waits: seconds(row.try_get(6).map_err(from_driver)?),
    })
}
