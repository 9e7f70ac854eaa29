//! Copies of everything: the first one, and healings. Before a slot is dropped or created, the
//! bookkeeping stores that a copy is due, and how many there were. So a process that dies in each
//! copy does not begin the next one at once.

use std::time::Duration;

use super::Bookkeeping;
use super::fence::update_or_fenced;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::lsn::Lsn;
use crate::progress::SourceIdentity;
use crate::target::error::from_driver;

/// A copy of everything that begins now.
#[derive(Debug)]
pub(crate) struct Healing<'a> {
    /// Why.
    pub why: &'a str,
    /// Publication that the slot is created for.
    pub publication_oid: Option<u32>,
    /// The server that is copied.
    pub source: &'a SourceIdentity,
    /// How many began one soon after the other, with this one.
    pub in_a_row: u32,
}

impl Bookkeeping {
    /// Notes that everything has to be copied, and why.
    pub(crate) async fn intend_healing(
        &self,
        conn: &mut Connection,
        epoch: i64,
        why: &str,
    ) -> Result<()> {
        let set = "healing = $2, healing_since = coalesce(healing_since, now())";
        self.update_pipeline(conn, epoch, set, |query| query.bind(why.to_owned()))
            .await
    }

    /// The same, and that it waits for so long.
    pub(crate) async fn postpone_healing(
        &self,
        conn: &mut Connection,
        epoch: i64,
        why: &str,
        pause: Duration,
    ) -> Result<()> {
        let set = "healing = $2, healing_since = coalesce(healing_since, now()), healing_after = now() + $3 * interval '1 second', \
                   state = 'waiting', state_since = now(), heartbeat_at = now()";
        self.update_pipeline(conn, epoch, set, |query| {
            query.bind(why.to_owned()).bind(pause.as_secs_f64())
        })
        .await
    }

    /// Whether a resync was requested by hand since the last copy of everything began: each request
    /// ends one pause.
    pub(crate) async fn is_healing_asked_for(
        &self,
        conn: &mut Connection,
        epoch: i64,
    ) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {schema}.resync r CROSS JOIN {schema}.pipeline p \
             WHERE r.state = 'queued' AND r.origin = 'request' AND NOT r.dry_run \
               AND r.requested_at > coalesce(p.healing_began_at, '-infinity') AND p.epoch = $1)",
            schema = self.schema
        );
        query(sql)
            .bind(epoch)
            .value(conn)
            .await
            .map_err(from_driver)
    }

    /// Notes that everything is copied from now on, before a slot is dropped or created.
    pub(crate) async fn begin_healing(
        &self,
        conn: &mut Connection,
        epoch: i64,
        healing: &Healing<'_>,
    ) -> Result<()> {
        let set = "healing = $2, healing_since = coalesce(healing_since, now()), state = 'copying', state_since = now(), publication_oid = $3, \
                   timeline = CASE WHEN system_identifier = $4 THEN $5 ELSE timeline END, \
                   slot_system_identifier = $4, slot_database = $7, \
                   healings = $6, healing_began_at = now(), healing_after = NULL, heartbeat_at = now()";
        self.update_pipeline(conn, epoch, set, |query| {
            query
                .bind(healing.why.to_owned())
                .bind(healing.publication_oid.map(i64::from))
                .bind(healing.source.system_identifier.clone())
                .bind(healing.source.timeline)
                .bind(i32::try_from(healing.in_a_row).unwrap_or(i32::MAX))
                .bind(healing.source.database.clone())
        })
        .await
    }

    /// The copies are merged: stores the position of the new slot, in the transaction of the merge.
    /// It may be of another clock or another history than what was stored, so it is as of its own
    /// time, or of none that is known.
    pub(crate) async fn finish_healing(
        &self,
        conn: &mut Connection,
        epoch: i64,
        source: &SourceIdentity,
        (lsn, as_of): (Lsn, Option<String>),
    ) -> Result<()> {
        // The checkpoint's row first, as everywhere.
        let sql = format!(
            "UPDATE {}.checkpoint SET lsn = $2::pg_lsn, commit_time = $3::timestamptz, \
             last_commit_lsn = NULL, last_commit_xid = NULL, last_commit_time = NULL, applied_at = now() WHERE epoch = $1",
            self.schema
        );
        let query = query(sql).bind(epoch);
        update_or_fenced(conn, query.bind(lsn.to_string()).bind(as_of)).await?;
        let set = "healing = NULL, healing_since = NULL, system_identifier = $2, timeline = $3, \
                   source_database = $4, heartbeat_at = now(), healed_at = now()";
        self.update_pipeline(conn, epoch, set, |query| {
            query
                .bind(source.system_identifier.clone())
                .bind(source.timeline)
                .bind(source.database.clone())
        })
        .await
    }
}
