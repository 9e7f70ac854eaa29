//! The bookkeeping schema: claim and fence, checkpoint, states of the read models, requested resyncs.
//!
//! Every write here names the epoch of the one who writes, so a process that was overtaken changes nothing.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::error::{Class, Error, Result};
use crate::lsn::{Lsn, PgTimestamp};
use crate::progress::TransactionId;
use crate::retry::Healings;
use crate::sql::{ident, literal};
use crate::target::error::from_sqlx;

mod damage;
mod fence;
mod healing;
mod life;
mod ownership;
mod progress;
mod resyncs;
mod schema;
mod shadows;
mod source;
mod standing;
mod stuck;
mod unreadable;
mod watched;

pub use damage::Damage;
pub use healing::Healing;
pub use life::Life;
pub use progress::CopyProgress;
pub use standing::{Standing, hidden};
pub use watched::Stored;

/// The bookkeeping of one pipeline.
#[derive(Debug, Clone)]
pub struct Bookkeeping {
    /// Schema, quoted.
    schema: String,
    /// Schema as in the catalog.
    name: String,
}

/// What the claiming of a pipeline found.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Ours from now on: everybody else's is lower.
    pub epoch: i64,
    /// Where the stream goes on; `None` before the first copy.
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
    pub fn source(&self) -> Option<&SourceIdentity> {
        self.checkpoint.as_ref().map(|checkpoint| &checkpoint.source)
    }
}

/// The stored position.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Every commit before it is applied.
    pub lsn: Lsn,
    /// The source that it belongs to.
    pub source: SourceIdentity,
    /// The last applied transaction with a change of a published table.
    pub last: Option<TransactionId>,
}

/// The source that a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceIdentity {
    /// System identifier of the cluster.
    pub system_identifier: String,
    /// Its timeline.
    pub timeline: i32,
    /// Database.
    pub database: String,
}

/// Whether a read model takes part in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Never copied.
    New,
    /// Takes part.
    InStep,
    /// Serves its last good state until it is copied again.
    Suspended,
}

/// A read model as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModel {
    /// Number: names its map and shadow.
    pub id: i32,
    /// Lookup table.
    pub name: String,
    /// What its map was made for.
    pub definition: String,
    /// Whether it takes part in the stream.
    pub state: ModelState,
}

/// A requested resync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncRequest {
    /// Number.
    pub id: i64,
    /// Read models; `None` is all.
    pub read_models: Option<Vec<String>>,
    /// Compare only.
    pub dry_run: bool,
    /// Keys of each kind of difference that a comparison names.
    pub most_keys: i32,
    /// Who asked: request, watch.
    pub origin: String,
}

impl Bookkeeping {
    /// The bookkeeping in this schema.
    pub fn new(schema: &str) -> Self {
        Self {
            schema: ident(schema),
            name: schema.to_owned(),
        }
    }

    /// The schema, quoted.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The schema's name, not quoted.
    pub fn schema_name(&self) -> &str {
        &self.name
    }

    /// Raises the epoch and reads the checkpoint in one statement: a zombie's commit fails from now on. The last owner's sign of
    /// life is read as it was before.
    ///
    /// # Errors
    /// [`Class::Configuration`] if the schema belongs to a pipeline with another slot.
    pub async fn claim(
        &self,
        conn: &mut PgConnection,
        slot: &str,
        publication: &str,
        owner: &str,
    ) -> Result<Claim> {
        let sql = format!(
            "INSERT INTO {schema}.pipeline AS p (slot, publication, epoch, backend_pid, backend_start, owner, heartbeat_at) \
             VALUES ($1, $2, 1, pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()), $3, now()) \
             ON CONFLICT (singleton) DO UPDATE SET epoch = p.epoch + 1, publication = excluded.publication, \
               backend_pid = excluded.backend_pid, backend_start = excluded.backend_start, owner = excluded.owner, heartbeat_at = now() \
             WHERE p.slot = excluded.slot \
             RETURNING epoch, lsn::text, system_identifier, timeline, source_database, healing, last_commit_lsn::text, \
               last_commit_xid, (extract(epoch FROM last_commit_time) * 1000000)::bigint, healings, \
               extract(epoch FROM now() - CASE WHEN healing IS NULL THEN healed_at ELSE (SELECT b.heartbeat_at FROM {schema}.pipeline b) END)::float8, \
               extract(epoch FROM healing_after - now())::float8",
            schema = self.schema
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(slot)
            .bind(publication)
            .bind(owner)
            .fetch_optional(&mut *conn)
            .await
            .map_err(from_sqlx)?;
        let Some(row) = row else {
            return Err(Error::configuration(format!(
                "the bookkeeping in schema {} belongs to a pipeline with another slot than \"{slot}\"",
                self.schema
            ))
            .with_hint("Give each pipeline a schema of its own (target.schema), or use the slot that it was made with."));
        };
        read_claim(&row)
    }

    /// Refuses lookups that another pipeline in this database keeps.
    pub async fn refuse_second_owner(&self, conn: &mut PgConnection, lookups: &[String]) -> Result<()> {
        let schemas: Vec<String> = sqlx::query_scalar(
            "SELECT n.nspname::text FROM pg_catalog.pg_namespace n \
             WHERE n.nspname <> $1 AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'cdc bookkeeping%' \
               AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
        )
        .bind(&self.name)
        .fetch_all(&mut *conn)
        .await
        .map_err(from_sqlx)?;
        for schema in schemas {
            let sql = format!(
                "SELECT name FROM {}.read_model WHERE name = ANY($1) LIMIT 1",
                ident(&schema)
            );
            let taken: Result<Option<String>, sqlx::Error> = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(lookups)
                .fetch_optional(&mut *conn)
                .await;
            // A schema that we may not read belongs to a role of its own; its lookups are not ours to write either.
            if let Ok(Some(name)) = taken {
                return Err(Error::configuration(format!("lookup table \"{name}\" belongs to another pipeline"))
                    .with_detail(format!("Its bookkeeping is in schema \"{schema}\"."))
                    .with_hint("Let one pipeline keep it: run `cdc teardown` for the other one, or choose another lookup table."));
            }
        }
        Ok(())
    }

    /// All stored read models.
    pub async fn models(&self, conn: &mut PgConnection) -> Result<Vec<StoredModel>> {
        let sql = format!(
            "SELECT id, name, definition #>> '{{}}', state FROM {}.read_model ORDER BY id",
            self.schema
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(conn)
            .await
            .map_err(from_sqlx)?;
        rows.iter()
            .map(|row| {
                let state: String = row.try_get(3).map_err(from_sqlx)?;
                Ok(StoredModel {
                    id: row.try_get(0).map_err(from_sqlx)?,
                    name: row.try_get(1).map_err(from_sqlx)?,
                    definition: row.try_get(2).map_err(from_sqlx)?,
                    state: match state.as_str() {
                        "in_step" => ModelState::InStep,
                        "new" => ModelState::New,
                        _ => ModelState::Suspended,
                    },
                })
            })
            .collect()
    }

    /// Stores a read model that was not there, and returns its number.
    pub async fn add_model(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        name: &str,
        source: &str,
    ) -> Result<i32> {
        let sql = format!(
            "INSERT INTO {}.read_model (name, source, definition) SELECT $2, $3, '\"\"' WHERE {} RETURNING id",
            self.schema,
            self.ours()
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(epoch)
            .bind(name)
            .bind(source)
            .fetch_optional(conn)
            .await
            .map_err(from_sqlx)?
            .ok_or_else(fenced)
    }

    /// A statement that ends the transaction around it unless the epoch is still ours. Several statements in one message are one
    /// transaction by themselves, which a failure leaves behind for good.
    fn fence(&self, epoch: i64) -> String {
        format!(
            "DO $cdc$ BEGIN PERFORM FROM {}.pipeline WHERE epoch = {epoch} FOR UPDATE; \
             IF NOT FOUND THEN RAISE EXCEPTION 'another process has taken over this pipeline' USING ERRCODE = 'CDC01'; \
             END IF; END $cdc$;",
            self.schema
        )
    }

    /// Ends what is left of the last owner at the target, its applying session and whoever fills a shadow of this pipeline:
    /// nothing of it may commit, or hold locks, while we claim.
    pub async fn end_last_owner(&self, conn: &mut PgConnection, slot: &str) -> Result<()> {
        let sql = format!(
            "SELECT count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a \
             WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.datname = pg_catalog.current_database() AND a.usename = current_user \
               AND (EXISTS (SELECT FROM {}.pipeline p WHERE p.slot = $1 AND p.backend_pid = a.pid AND p.backend_start = a.backend_start) \
                    OR EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
                               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                               WHERE l.pid = a.pid AND l.granted AND l.database = a.datid AND n.nspname = $2 AND c.relname ~ '^shadow_[0-9]+_[0-9]+$'))",
            self.schema
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(slot)
            .bind(&self.name)
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }

    /// Forgets a read model that is configured no more. Its lookup stays as it is.
    pub async fn remove_model(&self, conn: &mut PgConnection, epoch: i64, id: i32) -> Result<()> {
        let sql = format!(
            "{fence} DROP TABLE IF EXISTS {schema}.map_{id}, {schema}.rejected_{id}; DELETE FROM {schema}.read_model WHERE id = {id}",
            fence = self.fence(epoch),
            schema = self.schema
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }

    /// Gives a read model another definition, with an empty map; it takes part again once it was copied.
    pub async fn redefine_model(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        id: i32,
        source: &str,
        definition: &str,
        create_map: &str,
    ) -> Result<()> {
        let sql = format!(
            "{fence} DROP TABLE IF EXISTS {schema}.map_{id}, {schema}.rejected_{id}; {create_map} \
             DELETE FROM {schema}.rejection WHERE read_model = {id}; \
             UPDATE {schema}.read_model SET source = {source}, definition = to_jsonb({definition}::text), \
               state = CASE state WHEN 'in_step' THEN 'suspended' ELSE state END, \
               reason = CASE state WHEN 'in_step' THEN 'its definition was changed' ELSE reason END, since = now(), \
               {held} \
             WHERE id = {id}",
            held = self.held(),
            fence = self.fence(epoch),
            schema = self.schema,
            source = literal(source),
            definition = literal(definition),
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        Ok(())
    }

    /// Whether the read model's map exists.
    pub async fn has_map(&self, conn: &mut PgConnection, id: i32) -> Result<bool> {
        sqlx::query_scalar("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
            .bind(format!("{}.map_{id}", self.schema))
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    /// Whether rows of the read model are set apart.
    pub async fn has_rejected(&self, conn: &mut PgConnection, id: i32) -> Result<bool> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.rejection WHERE read_model = $1)",
            self.schema
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(id)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    /// What the process is doing, for `status`.
    pub async fn set_state(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        state: &str,
        error: Option<&Error>,
    ) -> Result<()> {
        let set = "state = $2, state_since = CASE WHEN state = $2 THEN state_since ELSE now() END, error = $3, error_hint = $4, heartbeat_at = now()";
        let message = error.map(ToString::to_string);
        let hint = error.and_then(Error::hint).map(str::to_owned);
        self.update_pipeline(conn, epoch, set, |query| {
            query.bind(state.to_owned()).bind(message).bind(hint)
        })
        .await
    }

    async fn update_pipeline(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        set: &str,
        bind: impl FnOnce(PgQuery) -> PgQuery,
    ) -> Result<()> {
        let sql = format!("UPDATE {}.pipeline SET {set} WHERE epoch = $1", self.schema);
        let done = bind(sqlx::query(AssertSqlSafe(sql)).bind(epoch))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        if done.rows_affected() == 0 {
            Err(fenced())
        } else {
            Ok(())
        }
    }

    /// Sets a read model's state; `reason` says why it is suspended.
    pub async fn set_model_state(
        &self,
        conn: &mut PgConnection,
        epoch: i64,
        id: i32,
        state: ModelState,
        reason: Option<&Error>,
    ) -> Result<()> {
        let held = match state {
            ModelState::InStep => "as_of = NULL, as_of_lsn = NULL".to_owned(),
            ModelState::New | ModelState::Suspended => self.held(),
        };
        let sql = format!(
            "UPDATE {}.read_model SET state = $3, reason = $4, hint = $5, since = now(), {held} WHERE id = $2 AND {}",
            self.schema,
            self.ours()
        );
        let state = match state {
            ModelState::New => "new",
            ModelState::InStep => "in_step",
            ModelState::Suspended => "suspended",
        };
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind(epoch)
            .bind(id)
            .bind(state)
            .bind(reason.map(ToString::to_string))
            .bind(reason.and_then(Error::hint))
            .execute(conn)
            .await
            .map_err(from_sqlx)?;
        if done.rows_affected() == 0 {
            Err(fenced())
        } else {
            Ok(())
        }
    }

    /// Assignments for a read model that leaves the stream: its lookup stays as of the checkpoint, or of the one before if that was noted.
    fn held(&self) -> String {
        let held = |column: &str, of_pipeline: &str| {
            format!(
                "{column} = CASE state WHEN 'in_step' THEN coalesce({column}, (SELECT {of_pipeline} FROM {}.pipeline)) ELSE {column} END",
                self.schema
            )
        };
        format!("{}, {}", held("as_of", "commit_time"), held("as_of_lsn", "lsn"))
    }

    /// Notes what the lookups of these read models show, before a batch moves the checkpoint and suspends them: they stay as
    /// they were before it.
    ///
    /// # Errors
    /// [`Class::Fenced`] if another process has taken over.
    pub async fn hold(&self, conn: &mut PgConnection, epoch: i64, ids: &[i32]) -> Result<()> {
        for id in ids {
            // The pipeline's row first, as everywhere.
            let sql = format!(
                "{fence} UPDATE {schema}.read_model m SET as_of = p.commit_time, as_of_lsn = p.lsn FROM {schema}.pipeline p \
                 WHERE m.id = {id} AND m.state = 'in_step'",
                fence = self.fence(epoch),
                schema = self.schema,
            );
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut *conn)
                .await
                .map_err(from_sqlx)?;
        }
        Ok(())
    }

    /// A read model takes part no more; one that was never copied stays new.
    pub async fn suspend(&self, conn: &mut PgConnection, epoch: i64, id: i32, why: &Error) -> Result<()> {
        let stored = self.models(conn).await?;
        let new = stored
            .iter()
            .any(|model| model.id == id && model.state == ModelState::New);
        let state = if new {
            ModelState::New
        } else {
            ModelState::Suspended
        };
        self.set_model_state(conn, epoch, id, state, Some(why)).await
    }

    /// Whether somebody waits in `wait_for` for a position.
    pub async fn somebody_waits(&self, conn: &mut PgConnection) -> Result<bool> {
        sqlx::query_scalar(include_str!("../../sql/target/somebody_waits.sql"))
            .bind(&self.name)
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }

    /// OID of the publication that the slot was made for.
    pub async fn publication_oid(&self, conn: &mut PgConnection) -> Result<Option<i64>> {
        let sql = format!("SELECT publication_oid FROM {}.pipeline", self.schema);
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(conn)
            .await
            .map_err(from_sqlx)
    }
}

type PgQuery = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn fenced() -> Error {
    Error::new(Class::Fenced, "another process has taken over this pipeline")
}

/// Time as the server tells it; what is over takes none.
fn seconds(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO))
}

fn read_claim(row: &PgRow) -> Result<Claim> {
    let lsn: Option<String> = row.try_get(1).map_err(from_sqlx)?;
    let system_identifier: Option<String> = row.try_get(2).map_err(from_sqlx)?;
    let timeline: Option<i32> = row.try_get(3).map_err(from_sqlx)?;
    let database: Option<String> = row.try_get(4).map_err(from_sqlx)?;
    let last_lsn: Option<String> = row.try_get(6).map_err(from_sqlx)?;
    let last_xid: Option<i64> = row.try_get(7).map_err(from_sqlx)?;
    let last_time: Option<i64> = row.try_get(8).map_err(from_sqlx)?;
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
        epoch: row.try_get(0).map_err(from_sqlx)?,
        checkpoint,
        healing: row.try_get(5).map_err(from_sqlx)?,
        healings: Healings {
            in_a_row: u32::try_from(row.try_get::<i32, _>(9).map_err(from_sqlx)?).unwrap_or(0),
            ended: seconds(row.try_get(10).map_err(from_sqlx)?),
        },
        waits: seconds(row.try_get(11).map_err(from_sqlx)?),
    })
}
