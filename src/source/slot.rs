//! Replication slots: created and dropped on a replication connection, read on an ordinary one.
//!
//! The creation of a slot waits for every write transaction that is open anywhere in the cluster,
//! prepared ones too. To give up, cancel it at the server ([`create_within`]): after a closed
//! socket, walsender and slot stay until the blocker ends.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::error::from_driver;
use super::replication::{CancelRequest, Replication};
use crate::error::{Class, Error, Result};
use crate::facts::Slot;
use crate::lsn::Lsn;
use crate::sql;

/// First server_version_num with failover slots.
const FAILOVER_VERSION: u32 = 170_000;
/// SQLSTATE of a command that was cancelled.
const QUERY_CANCELED: &str = "57014";
/// How often to report which transactions block the creation.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the server may take to give up a slot once the creation was cancelled.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// A slot that was just created, with the snapshot that fits it exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Name.
    pub name: String,
    /// C: the snapshot holds exactly the transactions whose commit lies before it; the others will
    /// be streamed.
    pub consistent_point: Lsn,
    /// For SET TRANSACTION SNAPSHOT, until the next command on this replication connection.
    pub snapshot_name: String,
}

/// How long a slot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As long as the connection that created it.
    Temporary,
    /// Until it is dropped.
    Permanent,
    /// The same, and standbys that synchronize slots keep a copy of it, if the server's version can
    /// do so.
    Failover,
}

/// Creates a logical slot for pgoutput and exports its snapshot; waits as long as it takes.
///
/// # Errors
/// What the server says: the name is taken (42710), no slot is free (53400), wal_level (55000).
pub async fn create(replication: &mut Replication, name: &str, kind: Kind) -> Result<CreatedSlot> {
    let rows = replication
        .simple_query(&creation(name, kind, knows_failover(replication)))
        .await
        .map_err(|error| {
            error.context(format_args!("could not create replication slot \"{name}\""))
        })?;
    let mut values = rows.into_iter().flatten();
    let mut next = || values.next().flatten();
    let slot = (|| {
        Some(CreatedSlot {
            name: next()?,
            consistent_point: next()?.parse().ok()?,
            snapshot_name: next()?,
        })
    })();
    slot.ok_or_else(|| Error::protocol("could not read the answer to CREATE_REPLICATION_SLOT"))
}

/// From 17 on; a slot on a standby cannot have failover.
fn knows_failover(replication: &Replication) -> bool {
    replication.server_version() >= FAILOVER_VERSION && !replication.in_recovery()
}

/// The command. The old syntax if failover is not asked for, since 13 and 14 know no other, and 18
/// still takes it.
fn creation(name: &str, kind: Kind, knows_failover: bool) -> String {
    let name = sql::ident(name);
    match kind {
        Kind::Failover if knows_failover => {
            format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)")
        }
        Kind::Permanent | Kind::Failover => {
            format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput EXPORT_SNAPSHOT")
        }
        Kind::Temporary => {
            format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
        }
    }
}

/// Sets whether standbys keep a copy of an existing slot (failover); returns whether it was
/// altered. A slot that a walsender reads is left as it is.
///
/// # Errors
/// What the server says.
pub async fn set_failover(
    replication: &mut Replication,
    client: &Client,
    name: &str,
    failover: bool,
) -> Result<bool> {
    if !knows_failover(replication) {
        return Ok(false);
    }
    let doing =
        |error: Error| error.context(format_args!("could not alter replication slot \"{name}\""));
    let row = client
        .query_opt(
            // If a walsender reads the slot, the server would wait for its end.
            "SELECT failover FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text AND active_pid IS NULL",
            &[&name],
        )
        .await
        .map_err(from_driver)
        .map_err(doing)?;
    let Some(row) = row else {
        return Ok(false);
    };
    let is: bool = row.try_get(0).map_err(from_driver).map_err(doing)?;
    if is != failover {
        let command = format!(
            "ALTER_REPLICATION_SLOT {} (FAILOVER {failover})",
            sql::ident(name)
        );
        replication.simple_query(&command).await.map_err(doing)?;
    }
    Ok(is != failover)
}

/// How to wait for a slot.
#[derive(Debug)]
pub struct Waits<'a> {
    /// The longest that he waits.
    pub within: Duration,
    /// Gives the slot up when cancelled.
    pub stop: &'a CancellationToken,
    /// Receives what blocks the slot while it is being created.
    pub tell: &'a watch::Sender<Option<String>>,
}

/// Reports what blocks the slot, until it is dropped.
async fn tell_blockers(observer: &Client, tell: &watch::Sender<Option<String>>) {
    loop {
        sleep(TELL_INTERVAL).await;
        let blockers = blockers(observer).await.unwrap_or_default();
        let text = (!blockers.is_empty()).then(|| listed(&blockers));
        tell.send_if_modified(|before| {
            let changed = *before != text;
            *before = text;
            changed
        });
    }
}

fn listed(blockers: &[Blocker]) -> String {
    let list: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    list.join("; ")
}

/// As [`create`], but gives up when the caller's limit ends: it cancels the command at the server,
/// and checks that the slot is gone.
///
/// Not to be dropped half way. After an error that is not about the slot itself the connection must
/// be closed.
///
/// # Errors
/// Transient: the bound was reached; the detail names what blocks the slot.
pub async fn create_within(
    replication: &mut Replication,
    observer: &Client,
    name: &str,
    kind: Kind,
    waits: &Waits<'_>,
) -> Result<CreatedSlot> {
    let Waits { within, stop, tell } = *waits;
    let cancel = replication.cancel_token();
    let mut creation = pin!(create(replication, name, kind));
    let told = async {
        tell_blockers(observer, tell).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        result = timeout(within, creation.as_mut()) => if let Ok(result) = result {
            return result;
        },
        () = stop.cancelled() => {}
        () = told => {}
    }
    // Read before giving up: a blocker may end in the same moment.
    let in_the_way = match timeout(GIVE_UP_TIMEOUT, blockers(observer)).await {
        Ok(Ok(blockers)) => blockers,
        // Only for the message: the slot has to be given up in any case.
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    match give_up(&cancel, creation).await {
        Ok(Ok(slot)) => return Ok(slot),
        Ok(Err(error)) if error.sqlstate() == Some(QUERY_CANCELED) => {}
        Ok(Err(error)) => return Err(error),
        Err(error) => {
            return Err(error.context(format_args!(
                "could not give up replication slot \"{name}\""
            )));
        }
    }
    wait_until_gone(observer, name).await?;
    if stop.is_cancelled() {
        return Err(Error::new(
            Class::Interrupted,
            format!("stopped while creating replication slot \"{name}\""),
        ));
    }
    Err(timed_out(name, within, &in_the_way))
}

/// Repeats the request until the creation ends, with or without a slot: a request that comes too
/// early is lost.
async fn give_up(
    cancel: &CancelRequest,
    mut creation: std::pin::Pin<&mut impl Future<Output = Result<CreatedSlot>>>,
) -> Result<Result<CreatedSlot>> {
    let ending = async {
        loop {
            cancel.cancel().await?;
            if let Ok(result) = timeout(Duration::from_secs(1), creation.as_mut()).await {
                return Ok(result);
            }
        }
    };
    match timeout(GIVE_UP_TIMEOUT, ending).await {
        Ok(result) => result,
        Err(_) => Err(Error::transient(
            "the server does not answer the cancel request",
        )),
    }
}

async fn wait_until_gone(observer: &Client, name: &str) -> Result<()> {
    let gone = async {
        while read(observer, name).await?.is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    match timeout(GIVE_UP_TIMEOUT, gone).await {
        Ok(result) => result,
        Err(_) => Err(Error::transient(format!(
            "replication slot \"{name}\" is still there after it was given up"
        ))),
    }
}

fn timed_out(name: &str, within: Duration, in_the_way: &[Blocker]) -> Error {
    let error = Error::transient(format!(
        "gave up creating replication slot \"{name}\" after {} s: transactions at the source do not end",
        within.as_secs_f32()
    ));
    if in_the_way.is_empty() {
        return error;
    }
    error
        .with_detail(format!("In the way: {}.", listed(in_the_way)))
        .with_hint(
            "End these transactions; creating a slot waits for all that have written something.",
        )
}

/// A transaction that a new slot waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Its backend; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// When it began; `None` if this role may not see it.
    pub since: Option<String>,
    /// The session or prepared transaction.
    pub what: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        match &self.since {
            Some(since) => write!(f, ", since {since}"),
            None => Ok(()),
        }
    }
}

/// Transactions of the whole cluster that have written something and are still open.
///
/// pg_locks shows them to every role; pg_stat_activity hides other roles' transactions from most.
const BLOCKERS: &str = "
SELECT l.pid,
       pg_catalog.date_trunc('second', min(a.xact_start))::text,
       pg_catalog.format('process %s%s%s', l.pid,
                         ' of role ' || min(a.usename), ' in database ' || min(a.datname))
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
 WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
   AND l.pid <> pg_catalog.pg_backend_pid()
 GROUP BY l.pid
UNION ALL
SELECT NULL,
       pg_catalog.date_trunc('second', prepared)::text,
       pg_catalog.format('prepared transaction %L of role %s in database %s', gid, owner, database)
  FROM pg_catalog.pg_prepared_xacts
 ORDER BY 2 NULLS LAST, 1";

/// The transactions that block a new slot, the oldest first.
///
/// # Errors
/// As any query.
pub async fn blockers(client: &Client) -> Result<Vec<Blocker>> {
    let rows = client.query(BLOCKERS, &[]).await.map_err(from_driver)?;
    rows.iter()
        .map(|row| {
            Ok(Blocker {
                pid: row.try_get(0)?,
                since: row.try_get(1)?,
                what: row.try_get(2)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(from_driver)
}

/// Drops a slot that is not in use.
///
/// # Errors
/// What the server says: it does not exist (42704), it is in use (55006).
pub async fn drop(replication: &mut Replication, name: &str) -> Result<()> {
    let command = format!("DROP_REPLICATION_SLOT {}", sql::ident(name));
    match replication.simple_query(&command).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(error.context(format_args!("could not drop replication slot \"{name}\"")))
        }
    }
}

/// invalidation_reason goes through JSON: 13 to 16 do not have the column.
const READ: &str = "
SELECT plugin::text, database::text, active_pid, restart_lsn::text, confirmed_flush_lsn::text, wal_status,
       safe_wal_size, pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END,
           restart_lsn)::bigint
  FROM pg_catalog.pg_replication_slots s
 WHERE slot_name = $1";

/// The slot of this name, as the server shows it now.
///
/// # Errors
/// As any query.
pub async fn read(client: &Client, name: &str) -> Result<Option<Slot>> {
    let doing =
        |error: Error| error.context(format_args!("could not read replication slot \"{name}\""));
    let row = client
        .query_opt(READ, &[&name])
        .await
        .map_err(from_driver)
        .map_err(doing)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let text = |at: usize| row.try_get::<_, Option<String>>(at).map_err(from_driver);
    let lsn = |at| text(at)?.map(|lsn| lsn.parse()).transpose();
    Ok(Some(Slot {
        name: name.to_owned(),
        plugin: text(0)?,
        database: text(1)?,
        active_pid: row.try_get(2).map_err(from_driver)?,
        restart_lsn: lsn(3)?,
        confirmed_flush_lsn: lsn(4)?,
        wal_status: text(5)?,
        safe_wal_bytes: row.try_get(6).map_err(from_driver)?,
        invalidation_reason: text(7)?,
        held_bytes: row.try_get(8).map_err(from_driver)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_is_asked_for_where_the_server_knows_it() {
        for (kind, knows_failover, expected) in [
            (Kind::Failover, false, "LOGICAL pgoutput EXPORT_SNAPSHOT"),
            (
                Kind::Failover,
                true,
                "LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)",
            ),
            (Kind::Permanent, true, "LOGICAL pgoutput EXPORT_SNAPSHOT"),
            (
                Kind::Temporary,
                true,
                "TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT",
            ),
        ] {
            let command = creation("a\"b", kind, knows_failover);
            assert_eq!(
                command,
                format!("CREATE_REPLICATION_SLOT \"a\"\"b\" {expected}")
            );
        }
    }

    #[test]
    fn the_error_names_who_is_in_the_way() {
        let blocker = Blocker {
            pid: Some(7),
            since: Some("2026-03-01 10:00:00+00".to_owned()),
            what: "process 7 of role app in database shop".to_owned(),
        };
        let error = timed_out("cdc", Duration::from_millis(1500), &[blocker]);
        assert!(error.is_transient());
        assert_eq!(
            error.detail(),
            Some(
                "In the way: process 7 of role app in database shop, since 2026-03-01 10:00:00+00."
            )
        );
        assert!(error.message().contains("after 1.5 s"), "{error}");
    }
}
