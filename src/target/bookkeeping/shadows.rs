//! Shadows: UNLOGGED tables of the bookkeeping that copies fill. They are kept and emptied, so that
//! no dump loses a table that it is about to read.
//!
//! A shadow has one user at a time. Three steps ensure that, whichever session dies at whatever
//! moment:
//!
//! 1. The session that fills it holds the advisory lock of its name as long as it lives. If the
//!    lock is not free, the read model gets another shadow.
//! 2. Before it is emptied the name of the new copy is stored (`shadow.copy`).
//! 3. The merge, in another session, locks it against being emptied, and only then looks whether it
//!    still is of the copy that it is to merge ([`Bookkeeping::hold_shadows`]). So it never
//!    mistakes a shadow that was emptied in the meantime for a table without rows.

use super::{Bookkeeping, Readers};
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::{Error, Result};
use crate::sql::{ident, literal};
use crate::target::error::from_driver;
use crate::target::model::TargetModel;
use crate::target::statement::{Transaction, execute};

/// How long to wait for a shadow that another session has locked, in milliseconds.
const PATIENCE_MS: u32 = 200;

/// A session by its process at the server and when that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pid: i32,
    start: String,
}

/// Runs statements in a transaction; returns false if other sessions have locked what they need for
/// longer than a moment.
async fn try_shortly(conn: &mut Connection, sql: &str) -> Result<bool> {
    let mut tx = Transaction::begin(conn).await?;
    let sql = format!("SET LOCAL lock_timeout = '{PATIENCE_MS}ms'; {sql}");
    let done = execute(tx.conn(), sql).await;
    match tx.end(done).await {
        Err(error) if error.is_lock_timeout() => Ok(false),
        done => done.map(|()| true),
    }
}

impl Bookkeeping {
    /// The first key of the advisory locks of this schema's shadows, as SQL.
    pub(super) fn shadow_lock_class(&self) -> String {
        format!(
            "pg_catalog.hashtext({})",
            literal(&format!("cdc shadow {}", self.name))
        )
    }

    /// The session's process.
    pub(crate) async fn backend(&self, conn: &mut Connection) -> Result<Backend> {
        let (pid, start) = query(
            "SELECT a.pid, a.backend_start::text FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()",
        )
        .tuple(conn)
        .await
        .map_err(from_driver)?;
        Ok(Backend { pid, start })
    }

    /// Takes an empty shadow for this copy, until the session ends or gives it back; returns the
    /// read model with it.
    pub(crate) async fn take_shadow(
        &self,
        conn: &mut Connection,
        model: &TargetModel,
        copy: &str,
    ) -> Result<TargetModel> {
        for number in 1_i64.. {
            let model = model.clone().with_shadow(number, copy);
            if !self.lock_shadow(conn, &model.shadow_table()).await? {
                continue;
            }
            if self.ready_shadow(conn, &model, copy).await? {
                return Ok(model);
            }
            self.unlock_shadow(conn, &model.shadow_table()).await?;
        }
        Err(Error::transient("there is no number left for a shadow"))
    }

    /// Whether the session has the shadow of this name from now on: then no other session fills it.
    pub(super) async fn lock_shadow(&self, conn: &mut Connection, name: &str) -> Result<bool> {
        self.call_lock(conn, "pg_try_advisory_lock", name).await
    }

    pub(super) async fn unlock_shadow(&self, conn: &mut Connection, name: &str) -> Result<()> {
        self.call_lock(conn, "pg_advisory_unlock", name)
            .await
            .map(drop)
    }

    async fn call_lock(&self, conn: &mut Connection, function: &str, name: &str) -> Result<bool> {
        let sql = format!(
            "SELECT pg_catalog.{function}({}, pg_catalog.hashtext($1))",
            self.shadow_lock_class()
        );
        query(sql).bind(name).value(conn).await.map_err(from_driver)
    }

    /// Creates or empties the shadow, whose lock the session has; false if this one cannot be used.
    async fn ready_shadow(
        &self,
        conn: &mut Connection,
        model: &TargetModel,
        copy: &str,
    ) -> Result<bool> {
        let name = model.shadow_table();
        let sql = format!(
            "SELECT s.definition, pg_catalog.to_regclass($2) IS NOT NULL FROM (SELECT) x LEFT JOIN {}.shadow s ON s.name = $1",
            self.schema
        );
        let (definition, exists): (Option<String>, bool) = query(sql)
            .bind(&name)
            .bind(model.shadow())
            .tuple(conn)
            .await
            .map_err(from_driver)?;
        let wanted = model.shadow_definition();
        match (definition, exists) {
            // The name belongs to a discarded shadow, or to one of an earlier version.
            (None, true) => Ok(false),
            (_, false) => {
                let create = format!(
                    "{create}; INSERT INTO {schema}.shadow (name, definition, copy) VALUES ({name}, {wanted}, {copy}) \
                     ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, copy = excluded.copy, since = now()",
                    create = model.create_shadow(),
                    schema = self.schema,
                    name = literal(&name),
                    wanted = literal(&wanted),
                    copy = literal(copy),
                );
                execute(conn, create).await.map(|()| true)
            }
            (Some(definition), true) if definition == wanted => {
                self.empty_for(conn, model, copy).await
            }
            (Some(_), true) => {
                let discard = format!(
                    "INSERT INTO {schema}.discarded (name) VALUES ({name}) ON CONFLICT DO NOTHING; DELETE FROM {schema}.shadow WHERE name = {name}",
                    schema = self.schema,
                    name = literal(&name),
                );
                execute(conn, discard).await.map(|()| false)
            }
        }
    }

    /// Empties the shadow for another copy; false if the merge of an earlier one still reads it.
    async fn empty_for(
        &self,
        conn: &mut Connection,
        model: &TargetModel,
        copy: &str,
    ) -> Result<bool> {
        let belongs = format!(
            "UPDATE {}.shadow SET copy = {}, since = now() WHERE name = {}",
            self.schema,
            literal(copy),
            literal(&model.shadow_table())
        );
        execute(conn, belongs).await?;
        // A dump reads it for hours: then its rows are deleted one by one.
        let delete = format!(
            "LOCK TABLE {} IN EXCLUSIVE MODE; {}",
            model.shadow(),
            model.delete_shadow()
        );
        Ok(
            try_shortly(conn, &model.truncate_shadow()).await?
                || try_shortly(conn, &delete).await?,
        )
    }

    /// Empties a shadow that this session has had before for the same copy: no session merges it.
    pub(crate) async fn empty_again(
        &self,
        conn: &mut Connection,
        model: &TargetModel,
    ) -> Result<()> {
        if try_shortly(conn, &model.truncate_shadow()).await? {
            return Ok(());
        }
        execute(conn, model.delete_shadow()).await
    }

    /// Gives the shadow back. It is emptied at once if no session reads it, else later.
    pub(crate) async fn give_shadow_back(
        &self,
        conn: &mut Connection,
        model: &TargetModel,
    ) -> Result<()> {
        let emptied = self.empty_shadow(conn, &model.shadow_table()).await;
        self.unlock_shadow(conn, &model.shadow_table()).await?;
        emptied.map(drop)
    }

    /// Empties a shadow that this session has; returns whether it is empty.
    pub(super) async fn empty_shadow(&self, conn: &mut Connection, name: &str) -> Result<bool> {
        let sql = format!(
            "TRUNCATE {schema}.{table}; UPDATE {schema}.shadow SET copy = NULL, since = now() WHERE name = {name}",
            schema = self.schema,
            table = ident(name),
            name = literal(name),
        );
        try_shortly(conn, &sql).await
    }

    /// Keeps the shadows of these copies as they are until the transaction ends.
    ///
    /// # Errors
    /// Transient if one of them has been given to another copy, or emptied.
    pub(crate) async fn hold_shadows(
        &self,
        conn: &mut Connection,
        models: &[&TargetModel],
    ) -> Result<()> {
        let held: Vec<_> = models
            .iter()
            .filter_map(|model| Some((model.shadow_table(), model.copy()?.to_owned())))
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let (names, copies): (Vec<String>, Vec<String>) = held.into_iter().unzip();
        let tables: Vec<String> = names
            .iter()
            .map(|name| format!("{}.{}", self.schema, ident(name)))
            .collect();
        execute(
            conn,
            format!("LOCK TABLE {} IN ROW SHARE MODE", tables.join(", ")),
        )
        .await?;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) h (name, copy) \
             LEFT JOIN {}.shadow s ON s.name = h.name WHERE s.copy::text IS DISTINCT FROM h.copy)",
            self.schema
        );
        let lost: bool = query(sql)
            .bind(names)
            .bind(copies)
            .value(conn)
            .await
            .map_err(from_driver)?;
        if lost {
            return Err(Error::transient(
                "the copy that is to be merged has been given up",
            ));
        }
        Ok(())
    }

    /// Ends the session of a copy that was given up, which may be at work or wait for a lock, waits
    /// until it has ended, and forgets how far the copy was.
    pub(crate) async fn end_copying(
        &self,
        conn: &mut Connection,
        epoch: i64,
        copying: &Backend,
    ) -> Result<()> {
        let gone = "SELECT count(pg_catalog.pg_terminate_backend(a.pid)) = 0 FROM pg_catalog.pg_stat_activity a \
                    WHERE a.pid = $1 AND a.backend_start::text = $2";
        loop {
            let gone: bool = query(gone)
                .bind(copying.pid)
                .bind(&copying.start)
                .value(conn)
                .await
                .map_err(from_driver)?;
            if gone {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.forget_progress(conn, epoch).await?;
        self.tidy(conn, epoch, Readers::All).await.map(drop)
    }
}
