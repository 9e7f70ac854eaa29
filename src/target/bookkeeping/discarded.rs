//! The leftovers of copies and of earlier definitions that cannot be removed at once: tables that
//! other sessions have locked, a dump for hours.
//!
//! Nothing waits for them. Shadows that no session fills are emptied, and discarded tables are
//! dropped, each in a transaction of its own that gives up after a moment.

use std::time::Duration;

use super::Bookkeeping;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::sql::{ident, literal};
use crate::target::error::from_driver;
use crate::target::statement::{Transaction, execute};

/// How long to wait for a table that another session has locked, in milliseconds.
const PATIENCE_MS: u32 = 100;

/// How often to look for sessions that list the catalogs before anything is dropped, and the time
/// between the looks. If one dump follows another, there are short moments without one, and the
/// next may begin while the drop is being committed.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A transaction that has read a catalog for this long counts as a dump. Every query reads catalogs
/// for a moment while it is planned, and on a busy server there is always one.
const LASTING: Duration = Duration::from_millis(50);

/// How often a drop looks for a moment without readers of catalogs before it is committed,
/// [`BETWEEN_MOMENTS`] apart.
const MOMENTS: u32 = 20;
const BETWEEN_MOMENTS: Duration = Duration::from_millis(5);

/// Which readers keep a table from being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Every transaction that has read a catalog: the dumps of a small database last a moment each.
    All,
    /// Those that last for `LASTING`. On some servers there is always a shorter one.
    Lasting,
}

impl Bookkeeping {
    /// Removes what can be removed; returns whether something is left.
    ///
    /// # Errors
    /// As any query.
    pub async fn tidy(&self, conn: &mut Connection, epoch: i64, heeded: Readers) -> Result<bool> {
        let sql = format!(
            "SELECT s.name FROM {}.shadow s WHERE s.copy IS NOT NULL",
            self.schema
        );
        let full: Vec<String> = query(sql).values_of(conn).await.map_err(from_driver)?;
        let mut all_gone = true;
        for name in full {
            all_gone &= self.empty_free_shadow(conn, &name).await?;
        }
        let sql = format!(
            "SELECT d.name, true FROM {schema}.discarded d UNION ALL \
             SELECT s.name, false FROM {schema}.shadow s WHERE s.copy IS NULL AND pg_catalog.to_regclass({literal} || s.name || '_i') IS NOT NULL",
            schema = self.schema,
            literal = literal(&format!("{}.", self.schema)),
        );
        let to_drop: Vec<(String, bool)> = query(sql).tuples(conn).await.map_err(from_driver)?;
        if to_drop.is_empty() {
            return Ok(!all_gone);
        }
        if !is_quiet(conn, heeded).await? {
            return Ok(true);
        }
        for (name, discarded) in to_drop {
            all_gone &= if discarded {
                self.drop_discarded(conn, epoch, &name).await?
            } else {
                self.drop_shadow_index(conn, &name).await?
            };
        }
        Ok(!all_gone)
    }

    async fn drop_discarded(&self, conn: &mut Connection, epoch: i64, name: &str) -> Result<bool> {
        let sql = format!(
            "DROP TABLE IF EXISTS {schema}.{table}; \
             DELETE FROM {schema}.discarded WHERE name = {name} AND EXISTS (SELECT FROM {schema}.pipeline WHERE epoch = {epoch})",
            schema = self.schema,
            table = ident(name),
            name = literal(name),
        );
        drop_unlisted(conn, &sql).await
    }

    /// Empties a shadow that no session fills.
    async fn empty_free_shadow(&self, conn: &mut Connection, name: &str) -> Result<bool> {
        if !self.lock_shadow(conn, name).await? {
            return Ok(false);
        }
        let emptied = self.empty_shadow(conn, name).await;
        self.unlock_shadow(conn, name).await?;
        emptied
    }

    /// Without its index a shadow is filled in half of the time; a copy that has to catch up
    /// creates the index again.
    async fn drop_shadow_index(&self, conn: &mut Connection, name: &str) -> Result<bool> {
        if !self.lock_shadow(conn, name).await? {
            return Ok(false);
        }
        let index = ident(&format!("{name}_i"));
        let dropped = drop_unlisted(
            conn,
            &format!("DROP INDEX IF EXISTS {}.{index}", self.schema),
        )
        .await;
        self.unlock_shadow(conn, name).await?;
        dropped
    }
}

/// The running transactions of this database that have read a catalog, except this one.
///
/// `pg_locks` shows them to every role; `pg_stat_activity` would hide when those of other roles
/// began.
const READERS: &str = "SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l \
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    JOIN pg_catalog.pg_database d ON d.oid = a.datid AND d.datname = pg_catalog.current_database() \
    WHERE l.locktype = 'relation' AND l.mode = 'AccessShareLock' AND l.relation::bigint < 16384 AND l.pid <> pg_catalog.pg_backend_pid()";

async fn readers(conn: &mut Connection) -> Result<Vec<String>> {
    query(READERS).values_of(conn).await.map_err(from_driver)
}

/// Whether no session lists the catalogs for a while.
async fn is_quiet(conn: &mut Connection, heeded: Readers) -> Result<bool> {
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let before = readers(conn).await?;
        if before.is_empty() {
            continue;
        }
        if heeded == Readers::All {
            return Ok(false);
        }
        tokio::time::sleep(LASTING).await;
        let after = readers(conn).await?;
        if before.iter().any(|reader| after.contains(reader)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a moment in which no session reads a catalog: a session that begins to list in
/// it does so after the drop, if that is committed at once.
async fn is_moment(conn: &mut Connection) -> Result<bool> {
    for _ in 0..MOMENTS {
        if readers(conn).await?.is_empty() {
            return Ok(true);
        }
        tokio::time::sleep(BETWEEN_MOMENTS).await;
    }
    Ok(false)
}

/// Drops a table or index, unless another session has it locked or is about to lock it: a dump
/// takes its snapshot, lists the tables, and then locks them; it fails if one was dropped in
/// between. A session that has begun to list holds locks on catalogs until its transaction ends.
/// Returns whether the drop was done.
///
/// # Errors
/// As any statement.
async fn drop_unlisted(conn: &mut Connection, sql: &str) -> Result<bool> {
    let mut tx = Transaction::begin(conn).await?;
    let dropped = async {
        let sql = format!("SET LOCAL lock_timeout = '{PATIENCE_MS}ms'; {sql}");
        execute(tx.conn(), sql).await?;
        // Last, so that it holds for the commit.
        let unlisted = is_moment(tx.conn()).await?;
        if !unlisted {
            execute(tx.conn(), "ROLLBACK; BEGIN".to_owned()).await?;
        }
        Ok(unlisted)
    }
    .await;
    match tx.end(dropped).await {
        Err(error) if error.is_lock_timeout() => Ok(false),
        dropped => dropped,
    }
}
