//! Binds the configured read models to the tables of both sides, and the stored ones to the
//! configured ones.
//!
//! If no read model was ever copied, one that cannot be bound is an error of the configuration.
//! Later it is only left out: a new read model must not stop the others. A read model that was
//! copied before is suspended: it serves its last good state until it can be bound and copied
//! again.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::connect::Connection;
use crate::error::{Class, Error, Result};
use crate::facts::{LookupTable, SourceTable, roots};
use crate::read_model::ModelId;
use crate::read_model::follow::follow;
use crate::read_model::lookup_obstacles::{LookupWriter, check_lookup};
use crate::run::owner::Owner;
use crate::settings::{ReadModelSettings, Settings};
use crate::source;
use crate::sql::TableName;
use crate::target::bookkeeping::{Bookkeeping, Definition, MapOf, ModelState, StoredModel};
use crate::target::model::TargetModel;
use crate::target::{facts, lookup};

/// A configured read model with its place in the bookkeeping.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The rule.
    pub settings: ReadModelSettings,
    /// Number in the bookkeeping.
    pub id: ModelId,
    /// Whether it takes part in the stream.
    pub state: ModelState,
    /// Bound to both tables, or why not.
    pub model: Result<TargetModel>,
}

impl Bound {
    /// The read model, if it can take part.
    pub(crate) fn in_step(&self) -> Option<&TargetModel> {
        self.model
            .as_ref()
            .ok()
            .filter(|_| self.state == ModelState::InStep)
    }

    /// Suspends it, bound no more, for this reason.
    pub(crate) async fn unbind(&mut self, owner: &mut Owner<'_>, why: Error) -> Result<()> {
        owner
            .bookkeeping
            .suspend(owner.conn, owner.epoch, self.id, &why)
            .await?;
        if self.state == ModelState::InStep {
            self.state = ModelState::Suspended;
        }
        self.model = Err(why);
        Ok(())
    }
}

/// Binds every configured read model, stores what is new or changed, and forgets read models that
/// are no longer configured.
pub(crate) async fn bind_all(
    settings: &Settings,
    client: &Client,
    owner: &mut Owner<'_>,
) -> Result<Vec<Bound>> {
    let (bookkeeping, epoch) = (owner.bookkeeping, owner.epoch);
    let lookups: Vec<String> = settings
        .read_models
        .iter()
        .map(ReadModelSettings::name)
        .collect();
    bookkeeping
        .refuse_second_owner(owner.conn, &lookups)
        .await?;
    let binder = Binder::new(settings, client, bookkeeping, epoch).await?;
    let copied = take_up(settings, owner, &lookups).await?;
    let seen = binder.look(&settings.read_models, owner.conn).await?;
    let mut bound = Vec::with_capacity(settings.read_models.len());
    for (read_model, seen) in settings.read_models.iter().zip(seen) {
        let (id, mut state) = (seen.stored.id, seen.stored.state);
        let model = binder
            .bind(read_model, seen, owner.conn, When::AtStart)
            .await;
        if let Err(error) = &model {
            check_unbound(read_model, error, state == ModelState::New && !copied)?;
            // A read model that was never copied stays new: the others continue.
            if state != ModelState::New {
                state = ModelState::Suspended;
            }
            bookkeeping
                .set_model_state(owner.conn, epoch, id, state, Some(error))
                .await?;
            tracing::warn!(read_model = read_model.name(), %error, hint = error.hint(), "read model is suspended and serves its last good state");
        }
        bound.push(Bound {
            settings: read_model.clone(),
            id,
            state,
            model,
        });
    }
    // A read model with another definition is no longer in step.
    let stored = bookkeeping.models(owner.conn).await?;
    for bound in bound.iter_mut().filter(|bound| bound.model.is_ok()) {
        if let Some(stored) = stored.iter().find(|stored| stored.id == bound.id) {
            bound.state = stored.state;
        }
    }
    Ok(bound)
}

/// Stores the read models that are new, and forgets those that are no longer configured; returns
/// whether any was copied before.
async fn take_up(settings: &Settings, owner: &mut Owner<'_>, lookups: &[String]) -> Result<bool> {
    let Owner {
        conn,
        bookkeeping,
        epoch,
    } = owner;
    let stored = bookkeeping.models(conn).await?;
    for model in stored.iter().filter(|model| !lookups.contains(&model.name)) {
        tracing::info!(
            read_model = model.name,
            "forgot a read model that is configured no more"
        );
        bookkeeping.remove_model(conn, *epoch, model).await?;
    }
    for read_model in &settings.read_models {
        let name = read_model.name();
        if !stored.iter().any(|stored| stored.name == name) {
            let source = read_model.source.to_string();
            bookkeeping.add_model(conn, *epoch, &name, &source).await?;
        }
    }
    Ok(stored.iter().any(|stored| stored.state != ModelState::New))
}

/// A read model that cannot be bound does not stop the others. Two cases do: an error of another
/// kind, and a first start (`is_first`), where nothing works yet and a person has to correct it.
fn check_unbound(read_model: &ReadModelSettings, error: &Error, is_first: bool) -> Result<()> {
    if !matches!(error.class(), Class::Broken | Class::Configuration) {
        return Err(error.clone());
    }
    if is_first {
        return Err(error
            .clone()
            .with_class(Class::Configuration)
            .context(format!("read model \"{}\"", read_model.name())));
    }
    Ok(())
}

/// What both sides show of a read model before it is bound.
#[derive(Debug)]
pub(crate) struct Seen {
    stored: StoredModel,
    has_map: bool,
    source: Option<SourceTable>,
    lookup: Option<LookupTable>,
}

/// When a read model is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the stream begins.
    AtStart,
    /// While the changes of the others are applied, and perhaps its own.
    BesideStream,
}

/// What every read model is bound with.
#[derive(Debug)]
pub(crate) struct Binder<'a> {
    client: &'a Client,
    bookkeeping: &'a Bookkeeping,
    epoch: i64,
    /// The role that reads.
    role: &'a str,
    /// The role that writes.
    target_role: &'a str,
    /// Tables that take the changes of all their partitions under their own name.
    roots: Vec<TableName>,
}

impl<'a> Binder<'a> {
    /// Looks at the publication.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn new(
        settings: &'a Settings,
        client: &'a Client,
        bookkeeping: &'a Bookkeeping,
        epoch: i64,
    ) -> Result<Self> {
        let publication = source::facts::publication(client, &settings.source.publication).await?;
        Ok(Self {
            client,
            bookkeeping,
            epoch,
            role: &settings.source.conninfo.user,
            target_role: &settings.target.conninfo.user,
            roots: roots(settings, publication.as_ref()),
        })
    }

    /// Looks at both sides, for all of these read models at once: a session with many begins as
    /// soon as one with few.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn look(
        &self,
        read_models: &[ReadModelSettings],
        target: &mut Connection,
    ) -> Result<Vec<Seen>> {
        let stored = self.bookkeeping.models(target).await?;
        let stored = read_models.iter().map(|read_model| {
            let name = read_model.name();
            let found = stored.iter().find(|stored| stored.name == name);
            found.cloned().ok_or_else(|| {
                Error::transient(format!("read model \"{name}\" is not in the bookkeeping"))
            })
        });
        let stored: Vec<StoredModel> = stored.collect::<Result<_>>()?;
        let maps: Vec<MapOf> = stored.iter().map(StoredModel::map).collect();
        let maps = self.bookkeeping.with_map(target, &maps).await?;
        let names: Vec<TableName> = read_models
            .iter()
            .map(|model| model.target.clone())
            .collect();
        let lookups = facts::tables(target, &names).await?;
        // The driver sends all of them before the first answer arrives.
        let sources = read_models
            .iter()
            .map(|model| source::facts::table(self.client, &model.source));
        let sources = try_join_all(sources).await?;
        let seen = stored.into_iter().zip(lookups).zip(sources);
        Ok(seen
            .map(|((stored, lookup), source)| Seen {
                has_map: maps.contains(&stored.id),
                stored,
                source,
                lookup,
            })
            .collect())
    }

    /// Binds one read model; a missing lookup or map is created.
    ///
    /// If the definition differs from the stored one, the read model needs another, empty map: only
    /// a read model that takes no part in a running stream may get one.
    ///
    /// # Errors
    /// [`Class::Gap`] in a stream that runs, if the definition is another one: the session must
    /// begin again.
    pub(crate) async fn bind(
        &self,
        settings: &ReadModelSettings,
        seen: Seen,
        target: &mut Connection,
        when: When,
    ) -> Result<TargetModel> {
        let Self {
            bookkeeping, epoch, ..
        } = *self;
        let table = seen.source.ok_or_else(|| no_source(settings))?;
        let model = Arc::new(follow(settings, &table, &self.roots, self.role)?);
        let found = match seen.lookup {
            Some(found) => found,
            None => make_lookup(settings, &table, target).await?,
        };
        let writer = LookupWriter {
            schema: bookkeeping.schema_name(),
            role: self.target_role,
        };
        check_lookup(settings, &found, &table, writer)?;
        let stored = seen.stored;
        let model = TargetModel::bind(stored.id, bookkeeping.schema_name(), model, &found)?
            .for_epoch(epoch)
            .with_map(stored.generation);
        let definition = model.definition();
        if seen.has_map && stored.definition == definition {
            return Ok(model);
        }
        if when == When::BesideStream && stored.state == ModelState::InStep {
            return Err(altered(settings));
        }
        // Each definition has a map of its own; a map that is only missing is created again.
        let replaced = !stored.definition.is_empty() && stored.definition != definition;
        let model = model.with_map(stored.generation.saturating_add(i32::from(replaced)));
        let new = Definition {
            generation: model.generation(),
            source: &settings.source.to_string(),
            definition: &definition,
            create_map: &model.create_map(),
        };
        bookkeeping
            .redefine_model(target, epoch, stored.id, new)
            .await?;
        Ok(model)
    }
}

async fn make_lookup(
    settings: &ReadModelSettings,
    source: &SourceTable,
    target: &mut Connection,
) -> Result<LookupTable> {
    lookup::create(target, settings, source).await?;
    tracing::info!(read_model = settings.name(), "made the lookup table");
    let found = facts::table(target, &settings.target).await?;
    found.ok_or_else(|| {
        Error::broken(format!(
            "lookup table \"{}\" does not exist",
            settings.target
        ))
    })
}

fn altered(settings: &ReadModelSettings) -> Error {
    let name = settings.name();
    Error::new(
        Class::Gap,
        format!("the tables of read model \"{name}\" were altered"),
    )
}

/// The read model's source table.
pub(crate) async fn source_table(
    settings: &ReadModelSettings,
    client: &Client,
) -> Result<SourceTable> {
    let found = source::facts::table(client, &settings.source).await?;
    found.ok_or_else(|| no_source(settings))
}

fn no_source(settings: &ReadModelSettings) -> Error {
    Error::broken(format!("table \"{}\" does not exist at the source", settings.source))
        .with_hint("Create the table, correct the read model's source, or let the role of the source's URL use its schema.")
}
