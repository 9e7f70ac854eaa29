//! Reads the source exactly as of a slot's consistent point.
//!
//! Comes in: the name of a snapshot that CREATE_REPLICATION_SLOT has exported. Goes out: COPY
//! streams. The order is what keeps it exact, and the source unharmed:
//!
//! 1. [`Snapshot::open`] imports the snapshot and waits until it has settled (`settled.rs`).
//!    Nothing is read before that, catalogs included. It locks no table, and [`Snapshot::export`]s
//!    the snapshot again.
//! 2. For each table [`Snapshot::import`] begins a transaction of its own, so that a table that has
//!    to give way, or cannot be read, does not affect the others, and no lock outlives its copy.
//! 3. [`Snapshot::lock_table`] takes ACCESS SHARE without waiting and looks whether the table was
//!    truncated or rewritten since: neither is MVCC-safe, and such a table would look empty.
//! 4. [`Snapshot::copy_out`] reads. In the meantime the caller checks once a second whether a
//!    session waits for the lock ([`Snapshot::anybody_waits_for_us`]), and gives way.
//!
//! The transaction that exports again holds the snapshot, whatever happens to the replication
//! connection that first exported it (tried on 15.18 and 18.4). Until that transaction has imported
//! the snapshot, the replication connection must stay idle: the server withdraws the first export
//! at its next command. An idle one is safe from wal_sender_timeout, which a walsender obeys only
//! while it streams (15.18: idle for three times as long).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage};

use super::error::from_driver;
use super::settled::{XidSnapshot, committing, is_settled};
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::sql::{self, TableName};

/// First pause between two looks at what is running; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Distinguishes one server from another, as long as it runs; a standby that is promoted stays the
/// same.
const SERVER: &str = "SELECT pg_postmaster_start_time()";

/// A transaction that sees the source as of a slot's consistent point.
#[derive(Debug)]
pub struct Snapshot {
    client: Connection,
    backend_pid: i32,
}

impl Snapshot {
    /// Imports the snapshot on `client` and waits until it may be read; `observer` is another
    /// connection to the same server.
    ///
    /// The replication connection that exported it must not run another command until this has
    /// returned. A successful import proves that `client` is at the same server. For `observer`
    /// this is checked first: at another server, such as a standby, other transactions run, or
    /// none, and every snapshot would look settled.
    ///
    /// # Errors
    /// Transient: `observer` is with another server, the snapshot is gone, or transactions that it
    /// sees have not finished their commit `within` this time.
    pub async fn open(
        client: Connection,
        observer: &Client,
        name: &str,
        within: Duration,
    ) -> Result<Self> {
        same_server(&client, observer).await?;
        let snapshot = Self::import(client, name).await?;
        snapshot.settle(observer, within).await?;
        Ok(snapshot)
    }

    /// Imports a snapshot that has settled: one that [`Self::export`] has named.
    ///
    /// # Errors
    /// Transient: the transaction that exported it has ended.
    pub async fn import(client: Connection, name: &str) -> Result<Self> {
        let snapshot = Self::begin(client).await?;
        // The name comes from the server and holds hexadecimal digits and hyphens.
        let import = format!("SET TRANSACTION SNAPSHOT {}", sql::literal(name));
        snapshot
            .run(&import)
            .await
            .map_err(|error| error.context(format_args!("could not import snapshot \"{name}\"")))?;
        Ok(snapshot)
    }

    /// A transaction that sees the source as it is at its first query, as any other reader does: no
    /// prefix of the stream. The `observer` is another connection to the same server.
    ///
    /// # Errors
    /// Transient: `observer` is with another server.
    pub(crate) async fn now(client: Connection, observer: &Client) -> Result<Self> {
        same_server(&client, observer).await?;
        Self::begin(client).await
    }

    async fn begin(client: Connection) -> Result<Self> {
        let backend_pid = one_value(&client, "SELECT pg_backend_pid()").await?;
        let snapshot = Self {
            backend_pid: backend_pid
                .parse()
                .map_err(|_| Error::protocol("expected a process id"))?,
            client,
        };
        snapshot
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        Ok(snapshot)
    }

    /// Exports the snapshot again, for other transactions to import as long as this one lasts.
    ///
    /// # Errors
    /// As any query.
    pub async fn export(&self) -> Result<String> {
        one_value(&self.client, "SELECT pg_catalog.pg_export_snapshot()").await
    }

    /// Shows the server and the network that the connection is in use.
    ///
    /// # Errors
    /// As any query: the snapshot is gone then.
    pub async fn keep_alive(&self) -> Result<()> {
        self.run("SELECT 1").await
    }

    async fn settle(&self, observer: &Client, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let exported = current_snapshot(&self.client).await?;
        let mut pause = FIRST_PAUSE;
        loop {
            let ordinary = current_snapshot(observer).await?;
            if is_settled(&exported, &ordinary) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(unsettled(within, &exported, &ordinary));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Locks a table against changes of its definition and storage, and checks that there was none
    /// since the snapshot.
    ///
    /// # Errors
    /// As [`Self::lock`]. Transient: the table was truncated or rewritten.
    pub async fn lock_table(&self, table: &TableName) -> Result<()> {
        self.lock(table).await?;
        if self.has_same_files(table).await? {
            return Ok(());
        }
        Err(Error::transient(format!(
            "table \"{table}\" was truncated or rewritten after the snapshot was taken"
        )))
    }

    /// Locks a table against changes of its definition and storage.
    ///
    /// # Errors
    /// Transient: the lock is not free (55P03). Configuration: the table is missing, or the role
    /// may not read it.
    pub(crate) async fn lock(&self, table: &TableName) -> Result<()> {
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", table.quoted());
        self.run(&lock).await.map_err(|error| {
            error.context(format_args!("could not lock table \"{table}\" for reading"))
        })
    }

    /// Whether the table was neither truncated nor rewritten since the snapshot was taken.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn has_same_files(&self, table: &TableName) -> Result<bool> {
        // Left: the storage as of the snapshot; right: now. A leaf that the snapshot does not know
        // differs too.
        let changed = format!(
            "SELECT count(*) FROM (SELECT {table}::pg_catalog.regclass UNION \
                SELECT relid FROM pg_catalog.pg_partition_tree({table}) WHERE isleaf) p (oid) \
             LEFT JOIN pg_catalog.pg_class c ON c.oid = p.oid \
             WHERE c.relfilenode IS DISTINCT FROM coalesce(pg_catalog.pg_relation_filenode(p.oid), 0)",
            table = sql::literal(&table.quoted())
        );
        Ok(one_value(&self.client, &changed).await? == "0")
    }

    /// The transaction's connection, to read more under the same snapshot.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Streams the output of a `COPY (...) TO STDOUT`, in pieces as the server sends them: one row
    /// each.
    ///
    /// # Errors
    /// As any query; the stream's items too.
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut> {
        let stream = self.client.copy_out(sql).await.map_err(from_driver)?;
        Ok(CopyOut(Box::pin(stream)))
    }

    /// Whether a session waits for a lock that this transaction holds: then a migration is blocked
    /// by us.
    ///
    /// # Errors
    /// As any query.
    pub async fn anybody_waits_for_us(&self, observer: &Client) -> Result<bool> {
        let waits = format!(
            "SELECT count(*) FROM pg_catalog.pg_locks \
             WHERE NOT granted AND {} = ANY (pg_catalog.pg_blocking_pids(pid))",
            self.backend_pid
        );
        Ok(one_value(observer, &waits).await? != "0")
    }

    /// Ends this transaction by the observer, and so frees its lock, although it may be in the
    /// middle of a COPY whose reader has stopped.
    ///
    /// # Errors
    /// As any query.
    pub async fn give_way(&self, observer: &Client) -> Result<()> {
        let end = format!(
            "SELECT pg_catalog.pg_terminate_backend({})",
            self.backend_pid
        );
        one_value(observer, &end).await.map(drop)
    }

    /// Ends the transaction and gives its connection back.
    ///
    /// # Errors
    /// As any query. What was read is right all the same.
    pub async fn end(self) -> Result<Connection> {
        self.run("COMMIT").await?;
        Ok(self.client)
    }

    /// Ends the transaction and the connection. The rows that were read are right even if this
    /// fails.
    pub async fn close(self) {
        match self.end().await {
            Ok(client) => client.close(),
            Err(error) => {
                tracing::debug!(error = %error, "the snapshot's transaction did not end politely");
            }
        }
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(from_driver)
    }
}

async fn same_server(client: &Client, observer: &Client) -> Result<()> {
    if one_value(client, SERVER).await? == one_value(observer, SERVER).await? {
        return Ok(());
    }
    Err(Error::transient(
        "the connections of the copy are with different servers",
    ))
}

fn unsettled(within: Duration, exported: &XidSnapshot, ordinary: &XidSnapshot) -> Error {
    let open: Vec<String> = committing(exported, ordinary)
        .map(|xid| xid.to_string())
        .collect();
    let open = if open.is_empty() {
        format!(
            "from {} up to {}",
            ordinary.xmax,
            exported.xmax.saturating_sub(1)
        )
    } else {
        open.join(", ")
    };
    Error::transient(format!(
        "could not read under the slot's snapshot: commits that it shows were not finished within {} s",
        within.as_secs_f32()
    ))
    .with_detail(format!(
        "The snapshot shows transactions that the server still runs: {open}."
    ))
    .with_hint("A synchronous standby that does not answer holds commits in this state.")
}

async fn current_snapshot(client: &Client) -> Result<XidSnapshot> {
    one_value(client, "SELECT pg_catalog.pg_current_snapshot()")
        .await?
        .parse()
}

/// The only value of a query, by the simple protocol: nothing is prepared, so no type is looked up
/// in a catalog.
async fn one_value(client: &Client, sql: &str) -> Result<String> {
    let messages = client.simple_query(sql).await.map_err(from_driver)?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    });
    value
        .map(str::to_owned)
        .ok_or_else(|| Error::protocol("expected one value, found none"))
}

/// The output of a COPY.
pub struct CopyOut(Pin<Box<CopyOutStream>>);

impl std::fmt::Debug for CopyOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CopyOut")
    }
}

impl Stream for CopyOut {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let item = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(item.map(|piece| piece.map_err(from_driver)))
    }
}
