//! The bookkeeping schema: claim and fence, checkpoint, states of the read models, requested
//! resyncs.
//!
//! Every write here names the writer's epoch, so a process that was overtaken changes nothing.

use crate::connect::Connection;
use crate::connect::query::{Query, query};
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::progress::{SourceIdentity, TransactionId};
use crate::read_model::ModelId;
use crate::sql::ident;
use crate::target::error::from_driver;

mod claim;
mod damage;
mod discarded;
mod equal;
mod fence;
mod healing;
mod life;
mod models;
mod ownership;
mod progress;
mod pulse;
mod rejections;
mod resyncs;
mod schema;
mod shadows;
mod source;
mod standing;
mod stuck;
mod unreadable;
mod watched;

pub use claim::{Claim, Claimant};
pub(crate) use damage::{Counts, Damage};
pub use discarded::Readers;
pub(crate) use equal::Equal;
pub(crate) use healing::Healing;
pub(crate) use life::Life;
pub use models::Definition;
pub use progress::CopyProgress;
pub(crate) use pulse::Pulse;
pub(crate) use rejections::Rejections;
pub(crate) use schema::{DATABASE_OWNER, written_by_batches};
pub(crate) use shadows::Backend;
pub(crate) use standing::{Standing, hidden};
pub use watched::Stored;

/// The bookkeeping of one pipeline.
#[derive(Debug, Clone)]
pub struct Bookkeeping {
    /// Schema, quoted.
    schema: String,
    /// Schema as in the catalog.
    name: String,
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

/// Whether a read model takes part in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelState {
    /// Never copied.
    New,
    /// Takes part.
    InStep,
    /// Serves its last good state until it is copied again.
    Suspended,
}

/// A read model as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredModel {
    /// Number: names its maps and shadows.
    pub id: ModelId,
    /// Lookup table.
    pub name: String,
    /// What its map was created for.
    pub definition: String,
    /// Which map that is.
    pub generation: i32,
    /// Whether it takes part in the stream.
    pub state: ModelState,
}

impl StoredModel {
    /// Its map.
    pub(crate) fn map(&self) -> MapOf {
        MapOf {
            id: self.id,
            generation: self.generation,
        }
    }
}

/// Which map: each definition of a read model has one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapOf {
    /// The read model.
    pub id: ModelId,
    /// Number of the definition, from 0.
    pub generation: i32,
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
    /// Where it comes from: request, watch.
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

    /// The schema's name, not quoted.
    pub fn schema_name(&self) -> &str {
        &self.name
    }

    /// Refuses lookups that another pipeline in this database keeps.
    pub(crate) async fn refuse_second_owner(
        &self,
        conn: &mut Connection,
        lookups: &[String],
    ) -> Result<()> {
        let schemas: Vec<String> = query(
            "SELECT n.nspname::text FROM pg_catalog.pg_namespace n \
             WHERE n.nspname <> $1 AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'cdc bookkeeping%' \
               AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
        )
        .bind(&self.name)
        .values_of(conn)
        .await
        .map_err(from_driver)?;
        for schema in schemas {
            let sql = format!(
                "SELECT name FROM {}.read_model WHERE name = ANY($1) LIMIT 1",
                ident(&schema)
            );
            let taken: Result<Option<String>, tokio_postgres::Error> =
                query(sql).bind(lookups).optional_value(conn).await;
            // A schema that we may not read belongs to a role of its own; its lookups are not ours
            // to write either.
            if let Ok(Some(name)) = taken {
                return Err(Error::configuration(format!("lookup table \"{name}\" belongs to another pipeline"))
                    .with_detail(format!("Its bookkeeping is in schema \"{schema}\"."))
                    .with_hint("Let one pipeline keep it: run `cdc teardown` for the other one, or choose another lookup table."));
            }
        }
        Ok(())
    }

    /// What the process is doing, for `status`.
    pub(crate) async fn set_state(
        &self,
        conn: &mut Connection,
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
        conn: &mut Connection,
        epoch: i64,
        set: &str,
        bind: impl FnOnce(Query<'static>) -> Query<'static>,
    ) -> Result<()> {
        let sql = format!("UPDATE {}.pipeline SET {set} WHERE epoch = $1", self.schema);
        let query = bind(query(sql).bind(epoch));
        fence::update_or_fenced(conn, query).await
    }

    /// OID of the publication that the slot was created for.
    pub(crate) async fn publication_oid(&self, conn: &mut Connection) -> Result<Option<i64>> {
        let sql = format!("SELECT publication_oid FROM {}.pipeline", self.schema);
        query(sql).value(conn).await.map_err(from_driver)
    }
}

/// The ids as SQL takes them.
fn numbers(ids: impl IntoIterator<Item = ModelId>) -> Vec<i32> {
    ids.into_iter().map(|id| id.0).collect()
}

/// The ids as SQL returns them.
fn of_numbers(numbers: Vec<i32>) -> Vec<ModelId> {
    numbers.into_iter().map(ModelId).collect()
}

fn fenced() -> Error {
    Error::new(
        Class::Fenced,
        "another process has taken over this pipeline",
    )
}
