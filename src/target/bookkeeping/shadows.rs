//! Shadows: UNLOGGED tables of the bookkeeping that copies fill. They are kept and emptied, so that no dump sees one go.
//!
//! A shadow has one user at a time, in three steps that hold whoever dies when:
//!
//! 1. The session that fills it holds the advisory lock of its name as long as it lives. One that is not free is left alone: the
//!    read model gets another shadow.
//! 2. Before it is emptied the name of the new copy is stored (`shadow.copy`).
//! 3. The merge, in another session, locks it against being emptied, and only then looks whether it still is of the copy that it is
//!    to merge ([`Bookkeeping::hold_shadows`]). So it never takes a shadow that was emptied meanwhile for a table without rows.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Bookkeeping;
use crate::error::{Error, Result};
use crate::sql::{ident, literal};
use crate::target::error::from_sqlx;
use crate::target::model::TargetModel;
use crate::target::statement::{Transaction, execute};

/// How long a shadow is waited for that somebody has locked, in milliseconds.
const PATIENCE_MS: u32 = 200;

/// SQLSTATE of a lock that was waited for in vain.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// A session by its process at the server and when that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pid: i32,
    start: String,
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
    pub async fn backend(&self, conn: &mut PgConnection) -> Result<Backend> {
        let (pid, start) = sqlx::query_as(
            "SELECT a.pid, a.backend_start::text FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()",
        )
        .fetch_one(conn)
        .await
        .map_err(from_sqlx)?;
        Ok(Backend { pid, start })
    }

    /// Takes an empty shadow for this copy, until the session ends or gives it back; returns the read model with it.
    pub async fn take_shadow(
        &self,
        conn: &mut PgConnection,
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

    async fn lock_shadow(&self, conn: &mut PgConnection, name: &str) -> Result<bool> {
        let sql = format!(
            "SELECT pg_catalog.pg_try_advisory_lock({}, pg_catalog.hashtext($1))",
            self.shadow_lock_class()
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(name)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    async fn unlock_shadow(&self, conn: &mut PgConnection, name: &str) -> Result<()> {
        let sql = format!(
            "SELECT pg_catalog.pg_advisory_unlock({}, pg_catalog.hashtext($1))",
            self.shadow_lock_class()
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(name)
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }

    /// Makes or empties the shadow, whose lock the session has; false if this one cannot be used.
    async fn ready_shadow(&self, conn: &mut PgConnection, model: &TargetModel, copy: &str) -> Result<bool> {
        let name = model.shadow_table();
        let sql = format!(
            "SELECT s.definition, pg_catalog.to_regclass($2) IS NOT NULL FROM (SELECT) x LEFT JOIN {}.shadow s ON s.name = $1",
            self.schema
        );
        let (definition, exists): (Option<String>, bool) = sqlx::query_as(AssertSqlSafe(sql))
            .bind(&name)
            .bind(model.shadow())
            .fetch_one(&mut *conn)
            .await
            .map_err(from_sqlx)?;
        let wanted = model.shadow_definition();
        match (definition, exists) {
            // One that is discarded, or of an earlier version.
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
            (Some(definition), true) if definition == wanted => self.empty_for(conn, model, copy).await,
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
    async fn empty_for(&self, conn: &mut PgConnection, model: &TargetModel, copy: &str) -> Result<bool> {
        let belongs = format!(
            "UPDATE {}.shadow SET copy = {}, since = now() WHERE name = {}",
            self.schema,
            literal(copy),
            literal(&model.shadow_table())
        );
        execute(conn, belongs).await?;
        // A dump reads it for hours: then its rows are deleted one by one.
        for empty in [
            model.truncate_shadow(),
            format!(
                "LOCK TABLE {} IN EXCLUSIVE MODE; {}",
                model.shadow(),
                model.delete_shadow()
            ),
        ] {
            match self.with_patience(conn, empty).await {
                Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => {}
                done => return done.map(|()| true),
            }
        }
        Ok(false)
    }

    async fn with_patience(&self, conn: &mut PgConnection, sql: String) -> Result<()> {
        let mut tx = Transaction::begin(conn).await?;
        let done = execute(
            tx.conn(),
            format!("SET LOCAL lock_timeout = '{PATIENCE_MS}ms'; {sql}"),
        )
        .await;
        tx.end(done).await
    }

    /// Gives the shadow back. It is emptied at once if nobody reads it, else later.
    pub async fn give_shadow_back(&self, conn: &mut PgConnection, model: &TargetModel) -> Result<()> {
        let emptied = self.empty_shadow(conn, &model.shadow_table(), false).await;
        self.unlock_shadow(conn, &model.shadow_table()).await?;
        emptied.map(drop)
    }

    /// Empties a shadow that this session has, or `free` that nobody fills; returns whether it is empty.
    pub(super) async fn empty_shadow(&self, conn: &mut PgConnection, name: &str, free: bool) -> Result<bool> {
        let mut tx = Transaction::begin(conn).await?;
        let emptied = async {
            if free && !self.lock_shadow_shortly(tx.conn(), name).await? {
                return Ok(false);
            }
            let table = format!("{}.{}", self.schema, ident(name));
            let sql = format!(
                "SET LOCAL lock_timeout = '{PATIENCE_MS}ms'; TRUNCATE {table}; \
                 UPDATE {schema}.shadow SET copy = NULL, since = now() WHERE name = {name}",
                schema = self.schema,
                name = literal(name),
            );
            execute(tx.conn(), sql).await.map(|()| true)
        }
        .await;
        match tx.end(emptied).await {
            Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => Ok(false),
            emptied => emptied,
        }
    }

    /// Until the end of the transaction.
    async fn lock_shadow_shortly(&self, conn: &mut PgConnection, name: &str) -> Result<bool> {
        let sql = format!(
            "SELECT pg_catalog.pg_try_advisory_xact_lock({}, pg_catalog.hashtext($1))",
            self.shadow_lock_class()
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(name)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    /// Keeps the shadows of these copies as they are until the transaction ends.
    ///
    /// # Errors
    /// Transient if one of them has been given to another copy, or emptied.
    pub async fn hold_shadows(&self, conn: &mut PgConnection, models: &[&TargetModel]) -> Result<()> {
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
        let lost: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(names)
            .bind(copies)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)?;
        if lost {
            return Err(Error::transient(
                "the copy that is to be merged has been given up",
            ));
        }
        Ok(())
    }

    /// Ends the session of a copy that was given up, which may be at work or wait for a lock, sees it go, and forgets how far the copy was.
    pub async fn end_copying(&self, conn: &mut PgConnection, epoch: i64, copying: &Backend) -> Result<()> {
        let gone = "SELECT count(pg_catalog.pg_terminate_backend(a.pid)) = 0 FROM pg_catalog.pg_stat_activity a \
                    WHERE a.pid = $1 AND a.backend_start::text = $2";
        loop {
            let gone: bool = sqlx::query_scalar(gone)
                .bind(copying.pid)
                .bind(&copying.start)
                .fetch_one(&mut *conn)
                .await
                .map_err(from_sqlx)?;
            if gone {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.forget_progress(conn, epoch).await?;
        self.tidy(conn, epoch).await.map(drop)
    }
}
